//! Tests for Kafka sources. The tests use the client library's mock cluster, and cover start offsets, restarts,
//! tenants, rejected messages, gaps, and conflicts between servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray as _;
use arrow::util::display::array_value_to_string;
use object_store::{GetOptions, ObjectStore as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SECOND};
use crate::config::{Envelope, KafkaOptions, LookupConfig, OnGap, SourceConfig, StartAt, TenantFrom};
use crate::contract::{Contract, Owner};
use crate::ingest::testing::{QUARANTINE, TABLE, limits, memory, open, open_as, stored};
use crate::ingest::{Ingest, Source};
use crate::lake::{Progress, SourceLag, Store};
use crate::supervise::Supervisor;
use crate::telemetry::Metrics;
use crate::transform::{LookupQuery, Lookups, Transform};

pub(super) const TOPIC: &str = "calls";
/// The maximum time to wait for a condition to become true.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A producer, and a mock cluster that has one topic with two partitions.
pub(in crate::ingest) struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Kafka {
    pub(in crate::ingest) fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 2, 1).unwrap();
        let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        Self { cluster, producer }
    }

    /// Returns the configuration of a source that reads this cluster.
    pub(in crate::ingest) fn source(&self) -> SourceConfig {
        // The mock cluster takes 3 s to form a group, so the session timeout must be longer.
        let options = [("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "100")];
        SourceConfig {
            brokers: vec![self.cluster.bootstrap_servers()],
            topics: vec![TOPIC.to_owned()],
            group: "tests".to_owned(),
            table: TABLE.to_owned(),
            options: KafkaOptions::new(options.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            ..SourceConfig::default()
        }
    }

    pub(super) fn send(&self, partition: i32, payloads: impl IntoIterator<Item = String>) {
        for payload in payloads {
            self.put(BaseRecord::<str, str>::to(TOPIC).partition(partition).payload(&payload));
        }
        self.producer.flush(WAIT_MAX).unwrap();
    }

    /// Sends one message with this key and payload to partition 0.
    pub(in crate::ingest) fn send_bytes(&self, key: &str, payload: &[u8]) {
        let record = BaseRecord::<str, [u8]>::to(TOPIC).partition(0).key(key).payload(payload);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(WAIT_MAX).unwrap();
    }

    fn put(&self, record: BaseRecord<'_, str, str>) {
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }
}

/// Returns an event of the tenant `acme`.
pub(super) fn event(id: impl std::fmt::Display) -> String {
    format!("{{\"tenant_id\":\"acme\",\"event_id\":\"{id}\",\"event_time\":\"2026-03-01T12:00:00Z\",\n \"mos\":4.2}}")
}

/// A server that runs one source.
pub(in crate::ingest) struct SourceServer {
    pub(in crate::ingest) ingest: Arc<Ingest>,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl SourceServer {
    pub(in crate::ingest) async fn start(store: &Store, config: &SourceConfig) -> Self {
        Self::start_with(store, config, &BTreeMap::new()).await
    }

    /// Starts a server with lookup tables. The source starts before the lookup tables are loaded, and waits for them.
    async fn start_with(store: &Store, config: &SourceConfig, lookups: &BTreeMap<String, LookupConfig>) -> Self {
        let contract = open(store).await[TABLE].contract().clone();
        Self::start_as(store, config, lookups, &contract).await
    }

    /// Starts a server whose table is declared by `contract`. The contract must have the same columns as the standard
    /// table.
    pub(in crate::ingest) async fn start_as(
        store: &Store,
        config: &SourceConfig,
        lookups: &BTreeMap<String, LookupConfig>,
        contract: &Arc<Contract>,
    ) -> Self {
        let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
        let tables = open_as(store, contract).await;
        let lookups = Lookups::new(lookups, &limits(), Arc::clone(&metrics));
        let transform = Transform::new("voice", config, contract, &lookups, &limits()).unwrap();
        let source =
            Source::new("voice", config, Some(contract), transform, Clock::System, Arc::clone(&metrics)).unwrap();
        let ingest = Ingest::start(tables, vec![source], limits(), Clock::System, Arc::clone(&metrics)).await.unwrap();
        let mut tasks = JoinSet::new();
        let lookup_query: LookupQuery = Arc::new(|_| Box::pin(async { Ok(Vec::new()) }));
        let supervisor = Supervisor::new(Arc::clone(&metrics));
        tasks.spawn(lookups.run(lookup_query, supervisor, stop.clone()));
        for source in ingest.sources.iter() {
            tasks.spawn(source.clone().run(ingest.writer.clone(), stop.clone()));
        }
        Self { ingest, metrics, tasks, stop }
    }

    pub(in crate::ingest) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
        self.ingest.stop().await;
    }

    /// Waits until a line of the metrics page starts with `line`.
    pub(in crate::ingest) async fn reports(&self, line: &str) {
        until(line, async || self.metrics.render().lines().any(|reported| reported.starts_with(line))).await;
    }
}

/// Waits until a condition is true.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let (started, mut interval) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    while !condition().await {
        assert!(started.elapsed() < WAIT_MAX, "still waiting after {WAIT_MAX:?}: {what}");
        interval.tick().await;
    }
}

/// Returns the offsets of both partitions, as stored in a table.
pub(in crate::ingest) async fn offsets(store: &Store, table: &str) -> [Option<i64>; 2] {
    let tables = open(store).await;
    let txns = &tables[table].snapshot().txns;
    [0, 1].map(|partition| txns.get(&format!("kafka:voice:{TOPIC}:{partition}")).copied())
}

pub(in crate::ingest) async fn reaches(store: &Store, expected: [Option<i64>; 2]) {
    until(&format!("{expected:?}"), async || offsets(store, TABLE).await == expected).await;
}

/// Returns the sorted ids of a tenant's stored events.
pub(super) async fn ids(store: &Store, tenant: &str) -> Vec<String> {
    let rows = stored(store, TABLE).await.into_iter();
    rows.filter(|(owner, _)| owner == tenant).map(|(_, id)| id).collect()
}

pub(super) fn sorted_ids<T: ToString>(ids: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_stored_once_across_restarts() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..50).map(event));
    // Partition 1 repeats ten events of partition 0 and contains three invalid messages.
    kafka.send(1, (40..60).map(event).chain(["{\"tenant_id\":\"acme\"}".into(), "{".into(), String::new()]));
    let server = SourceServer::start(&store, &kafka.source()).await;
    reaches(&store, [Some(50), Some(23)]).await;
    kafka.send(0, (55..70).map(event));
    reaches(&store, [Some(65), Some(23)]).await;
    server.reports("glasshouse_source_messages_total{source=\"voice\",topic=\"calls\",partition=\"0\"} 65").await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(0..70));
    let rejected = stored(&store, QUARANTINE).await;
    assert_eq!(rejected.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>(), ["", "", "acme"]);
    assert_eq!(offsets(&store, QUARANTINE).await, [None, Some(23)]);

    kafka.send(1, (65..75).map(event).chain(["}".into()]));
    let server = SourceServer::start(&store, &kafka.source()).await;
    reaches(&store, [Some(65), Some(34)]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(0..75));
    assert_eq!(stored(&store, QUARANTINE).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_reports_the_lag_of_its_source() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..50).map(event));
    let server = SourceServer::start(&store, &kafka.source()).await;
    let lag =
        || server.ingest.writer.tables()[TABLE].in_flight().watermark(&Owner::PerEvent, &Clock::System).source_lag;
    // Partition 1 is empty, so it does not add to the lag.
    until("everything is committed", async || lag() == Some(SourceLag { seconds: 0, messages: 0 })).await;
    assert_eq!(offsets(&store, TABLE).await, [Some(50), None]);
    // The last message has an hour-old timestamp. It cannot be stored while the table is locked.
    let table_lock = server.ingest.writer.tables()[TABLE].hold().await;
    let late = (Clock::System.now() - 3_600 * SECOND) / 1_000;
    kafka.put(BaseRecord::<str, str>::to(TOPIC).partition(1).payload(&event("late")).timestamp(late));
    kafka.producer.flush(WAIT_MAX).unwrap();
    until("an hour behind", async || lag().is_some_and(|lag| (3_600..3_700).contains(&lag.seconds))).await;
    drop(table_lock);
    until("everything is committed again", async || lag() == Some(SourceLag { seconds: 0, messages: 0 })).await;
    assert_eq!(offsets(&store, TABLE).await, [Some(50), Some(1)]);
    let tables = server.ingest.writer.tables().clone();
    server.stop().await;
    assert_eq!(tables[TABLE].in_flight().watermark(&Owner::PerEvent, &Clock::System).source_lag, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_of_a_message_is_resolved_as_configured() {
    let kafka = Kafka::start();
    let unowned = |id: &str| event(id).replace("\"tenant_id\":\"acme\",", "");
    let header = |value: Option<&'static str>| OwnedHeaders::new().insert(Header { key: "who", value });
    let payloads = ["a", "b", "c", "d", "e", "g"].map(unowned);
    let record = |index: usize| BaseRecord::<str, str>::to(TOPIC).partition(0).payload(&payloads[index]);
    kafka.put(record(0).key("acme").headers(header(Some("globex"))));
    let twice = |first| header(Some(first)).insert(Header { key: "who", value: Some("acme") });
    kafka.put(record(1).key("globex").headers(twice("acme")));
    kafka.put(record(2));
    kafka.put(record(3).key("").headers(header(None)));
    let foreign = event("f");
    kafka.put(
        BaseRecord::<str, str>::to(TOPIC).partition(0).payload(&foreign).key("globex").headers(header(Some("globex"))),
    );
    kafka.put(record(5).key("globex").headers(twice("globex")));
    kafka.producer.flush(WAIT_MAX).unwrap();

    let cases = [
        (TenantFrom::Key, [&["a"][..], &["b", "g"]], 3),
        (TenantFrom::Header("who".into()), [&["b"], &["a"]], 4),
        (TenantFrom::Value("acme".into()), [&["a", "b", "c", "d", "f", "g"], &[]], 0),
        (TenantFrom::Event, [&["f"], &[]], 5),
    ];
    // The cases run concurrently, each in its own consumer group.
    let cases = cases.into_iter().enumerate().map(async |(group, (tenant, [acme, globex], rejected))| {
        let store = memory();
        let config = SourceConfig { tenant: tenant.clone(), group: format!("tests-{group}"), ..kafka.source() };
        let server = SourceServer::start(&store, &config).await;
        reaches(&store, [Some(6), None]).await;
        server.stop().await;
        assert_eq!((ids(&store, "acme").await, ids(&store, "globex").await), (sorted_ids(acme), sorted_ids(globex)));
        assert_eq!(stored(&store, QUARANTINE).await.len(), rejected, "{tenant:?}");
        let ambiguous = columns(&store, QUARANTINE, &["tenant_id", "reason", "detail"]).await;
        let ambiguous: Vec<_> = ambiguous.into_iter().filter(|row| row[1] == "ambiguous_tenant").collect();
        let detail = "the header `who` has the values `globex` and `acme`, but must name one tenant: send it once";
        let expected = ["", "ambiguous_tenant", detail].map(str::to_owned);
        assert_eq!(ambiguous, Vec::from_iter((tenant == TenantFrom::Header("who".into())).then_some(expected)));
    });
    futures::future::join_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latest_start_keeps_its_offset() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..10).map(event));
    let latest = SourceConfig { start: StartAt::Latest, ..kafka.source() };
    let server = SourceServer::start(&store, &latest).await;
    reaches(&store, [Some(10), Some(0)]).await;
    server.stop().await;
    // The source must not skip these messages. They are sent while it is down, but after its first start.
    kafka.send(0, (10..15).map(event));
    let server = SourceServer::start(&store, &latest).await;
    reaches(&store, [Some(15), Some(0)]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(10..15));
    assert!(open(&store).await[TABLE].snapshot().txns.contains_key("kafka:voice:started"));
}

/// Changes the offset of partition 0 in the table, as a commit by another server would.
async fn move_to(store: &Store, after: Option<i64>, next: i64) {
    let progress = Progress { app: format!("kafka:voice:{TOPIC}:0"), after, next };
    open(store).await[TABLE].commit(Vec::new(), vec![progress]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_stops_the_partition_unless_configured() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..10).map(event));
    kafka.send(1, (10..20).map(event));
    // The offset in the table is greater than the topic's end offset, as if the topic had been recreated.
    move_to(&store, None, 1_000).await;
    let server = SourceServer::start(&store, &kafka.source()).await;
    server.reports("glasshouse_source_stopped{source=\"voice\",topic=\"calls\",partition=\"0\"} 1").await;
    reaches(&store, [Some(1_000), Some(10)]).await;
    kafka.send(1, (20..25).map(event));
    reaches(&store, [Some(1_000), Some(15)]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(10..25), "the other partition continues");

    let server = SourceServer::start(&store, &SourceConfig { on_gap: OnGap::Earliest, ..kafka.source() }).await;
    reaches(&store, [Some(10), Some(15)]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(0..25));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overtaken_source_continues_from_the_table() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..10).map(event));
    let server = SourceServer::start(&store, &kafka.source()).await;
    reaches(&store, [Some(10), None]).await;
    // Another server commits five more messages. This server has not read that commit yet.
    move_to(&store, Some(10), 15).await;
    kafka.send(0, (10..20).map(event));
    reaches(&store, [Some(20), None]).await;
    server.reports("glasshouse_source_overtaken_total{source=\"voice\"} 1").await;
    assert_eq!(
        ids(&store, "acme").await,
        sorted_ids((0..10).chain(15..20)),
        "this server does not store messages that the other server has read"
    );
    server.stop().await;
}

#[test]
fn configuration_errors_of_a_source_are_reported_at_startup() {
    let options = |name: &str, value: &str| KafkaOptions::new([(name.to_owned(), value.to_owned())]);
    let cases = [
        (SourceConfig { options: options("sasl.pasword", "hunter2"), ..SourceConfig::default() }, "`sasl.pasword`"),
        (
            SourceConfig { options: options("session.timeout.ms", "hunter2"), ..SourceConfig::default() },
            "session.timeout.ms",
        ),
        (SourceConfig { tenant: TenantFrom::Value("a\nb".into()), ..SourceConfig::default() }, "sources.voice.tenant"),
    ];
    for (config, expected) in cases {
        let error = Source::new("voice", &config, None, None, Clock::System, Arc::default()).unwrap_err();
        assert!(error.message().contains(expected) && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    let secret = SourceConfig { options: options("sasl.password", "hunter2"), ..SourceConfig::default() };
    let source = Source::new("voice", &secret, None, None, Clock::System, Arc::default()).unwrap();
    assert!(!format!("{source:?}").contains("hunter2"));
}

/// Returns the given columns of all rows in a table, as sorted rows of text.
pub(super) async fn columns(store: &Store, table: &str, names: &[&str]) -> Vec<Vec<String>> {
    let tables = open(store).await;
    let (table, mut rows) = (&tables[table], Vec::new());
    for file in table.snapshot().files() {
        let objects = &table.location().0.objects;
        let bytes = objects.get_opts(&table.file_path(file), GetOptions::default()).await.unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.bytes().await.unwrap()).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            let text = |name: &str, row: usize| {
                let column = batch.column_by_name(name).unwrap();
                match column.as_binary_opt::<i32>() {
                    Some(bytes) => String::from_utf8(bytes.value(row).to_vec()).unwrap(),
                    None => array_value_to_string(column, row).unwrap(),
                }
            };
            rows.extend((0..batch.num_rows()).map(|row| names.iter().map(|name| text(name, row)).collect()));
        }
    }
    rows.sort();
    rows
}

/// Returns a Debezium change event for an order.
pub(super) fn change(op: &str, id: u32, restaurant: u32, total: &str) -> String {
    let row = format!("{{\"id\":{id},\"restaurant\":{restaurant},\"total\":\"{total}\"}}");
    let (before, after) = if op == "d" { (row.as_str(), "null") } else { ("null", row.as_str()) };
    let source = "{\"lsn\":7,\"ts_us\":1772366400000000}";
    format!("{{\"before\":{before},\"after\":{after},\"source\":{source},\"op\":\"{op}\",\"ts_ms\":1}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_turns_database_changes_into_rows() {
    let (kafka, store, folder) = (Kafka::start(), memory(), tempfile::tempdir().unwrap());
    let file = folder.path().join("restaurants.csv");
    let lookup =
        LookupConfig { file: Some(file.clone()), refresh: Duration::from_millis(20), ..LookupConfig::default() };
    let lookups = BTreeMap::from([("restaurants".to_owned(), lookup)]);
    let sql = "SELECT r.owner AS tenant_id, changed_time AS event_time, op || (row->>'id') AS event_id, \
               CAST(row->>'total' AS DOUBLE) AS mos FROM messages JOIN restaurants r ON r.id = json_int(row, 'restaurant')";
    let config = SourceConfig { transform: Some(sql.into()), envelope: Envelope::Debezium, ..kafka.source() };
    let (bad_total, unowned, not_a_change) = (change("c", 2, 1, "much"), change("c", 3, 2, "1"), event("x"));
    let wrapped = format!("{{\"schema\":{{}},\"payload\":{}}}", change("u", 1, 1, "2.5"));
    kafka.send(
        0,
        [
            change("c", 1, 1, "1.5"),
            bad_total.clone(),
            unowned.clone(),
            change("c", 4, 9, "1"),
            not_a_change.clone(),
            wrapped,
        ],
    );
    kafka.put(BaseRecord::<str, str>::to(TOPIC).partition(0).key("tombstone"));
    kafka.send(0, [change("d", 1, 1, "2.5")]);

    let server = SourceServer::start_with(&store, &config, &lookups).await;
    server.reports("glasshouse_lookup_loads_total{lookup=\"restaurants\",outcome=\"failed\"}").await;
    assert_eq!(offsets(&store, TABLE).await, [None, None], "the source reads nothing until its lookup table is loaded");
    let draft = folder.path().join("draft");
    std::fs::write(&draft, "id,owner\n1,acme\n2,\n").unwrap();
    std::fs::rename(&draft, &file).unwrap();
    reaches(&store, [Some(8), None]).await;
    server.stop().await;

    let rows = columns(&store, TABLE, &["tenant_id", "event_id", "mos"]).await;
    assert_eq!(rows, [["acme", "c1", "1.5"], ["acme", "d1", "2.5"], ["acme", "u1", "2.5"]]);
    let rejected = columns(&store, QUARANTINE, &["place", "reason", "payload"]).await;
    let place = |offset: i64| format!("kafka voice, {TOPIC}/0/{offset}");
    let expected = [
        [place(1), "transform_failed".to_owned(), bad_total],
        [place(2), "missing_tenant".to_owned(), unowned],
        [place(4), "malformed".to_owned(), not_a_change],
    ];
    assert_eq!(rejected, expected);

    // A restart continues from the table's offsets and stores nothing twice.
    kafka.send(0, [change("c", 5, 1, "3")]);
    let server = SourceServer::start_with(&store, &config, &lookups).await;
    reaches(&store, [Some(9), None]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(["c1", "c5", "d1", "u1"]));
    assert_eq!(stored(&store, QUARANTINE).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_may_leave_tenant_resolution_to_the_source() {
    let (kafka, store) = (Kafka::start(), memory());
    for (id, tenant) in [("a", "\"acme\""), ("b", "\"globex\""), ("c", "null")] {
        for key in ["acme", "globex"] {
            let payload = format!("{{\"id\":\"{id}\",\"whose\":{tenant}}}");
            kafka.put(BaseRecord::<str, str>::to(TOPIC).partition(0).payload(&payload).key(key));
        }
    }
    kafka.producer.flush(WAIT_MAX).unwrap();
    let sql = "SELECT value->>'whose' AS tenant_id, time AS event_time, value->>'id' AS event_id FROM messages";
    let config = SourceConfig { transform: Some(sql.into()), tenant: TenantFrom::Key, ..kafka.source() };
    let server = SourceServer::start(&store, &config).await;
    reaches(&store, [Some(6), None]).await;
    server.stop().await;
    assert_eq!(
        (ids(&store, "acme").await, ids(&store, "globex").await),
        (sorted_ids(["a", "c"]), sorted_ids(["b", "c"]))
    );
    let rejected = columns(&store, QUARANTINE, &["tenant_id", "reason", "payload"]).await;
    let foreign = |key: &str, id: &str, tenant: &str| {
        [key.to_owned(), "foreign_tenant".to_owned(), format!("{{\"id\":\"{id}\",\"whose\":\"{tenant}\"}}")]
    };
    assert_eq!(rejected, [foreign("acme", "b", "globex"), foreign("globex", "a", "acme")]);
}
