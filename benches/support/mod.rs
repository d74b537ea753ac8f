//! Support for the benchmarks: a server that can ingest and query but has no endpoints, with its lake in a temporary
//! folder.

#![expect(dead_code, reason = "each benchmark uses a part of this module")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use glasshouse::cli::demo_events::EventGenerator;
use glasshouse::clock::{Clock, DAY, SECOND};
use glasshouse::config::Config;
use glasshouse::contract::{self, Contract, DecodeOptions, Format, Owner, TenantId};
use glasshouse::ingest::Ingest;
use glasshouse::lake::{DataFile, Store, Table, Tables};
use glasshouse::query::Engine;
use glasshouse::telemetry::Metrics;
use glasshouse::tenancy::{Access, DevelopmentToken, Scope, Verifier};
use prost::Message;
use serde_json::Value;

/// The date of the oldest committed file, 2026-01-01, in days since 1970-01-01.
const FIRST_DAY: i32 = 20_454;

const CONFIG: &str = r#"
[tables.call_events]
proto = "proto/glasshouse/voice/v1/call_event.proto"
message = "glasshouse.voice.v1.CallEvent"
flatten = ["signaling.pdd", "signaling.call_state", "quality", "dimensions"]
tenant = "account_id"
time = "event_time"
id = "event_id"
times = ["logged_event_time"]
time_unit = "millis"
dimensions_map = "other"

[policy.call_events]

[lake]
url = "memory:///"

[ingest]
queue_bytes_max = "1 GiB"

[auth.issuers.bench]
issuer = "bench"
audience = "glasshouse"
algorithms = ["HS256"]
secret = "a-secret-of-the-benches-and-nothing-else"
tenant_claim = "tenant"
scope_claim = "scope"
"#;

/// Builds a Tokio runtime whose threads, like those of the server, have stacks large enough for query planning.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(2).thread_stack_size(glasshouse::query::STACK_BYTES_MIN).enable_all();
    builder.build().expect("a runtime")
}

/// A server without its endpoints.
pub(crate) struct Harness {
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) engine: Arc<Engine>,
    tables: Arc<Tables>,
    verifier: Verifier,
    config: Config,
    _folder: tempfile::TempDir,
}

impl Harness {
    pub(crate) async fn build() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut config = Config::parse(CONFIG, "bench", base, std::iter::empty()).expect("a configuration");
        config.lake.url = format!("file://{}", folder.path().display());
        let store = Store::open(&config.lake).expect("a store");
        let contract = Contract::new("call_events", &config.tables["call_events"], base).expect("a contract");
        let contracts = [Arc::new(Contract::quarantine_of(&contract)), Arc::new(contract)];
        let opened = contracts.map(|contract| Table::open(&store, contract, &config.lake));
        let tables: Tables = try_join_all(opened)
            .await
            .expect("tables")
            .into_iter()
            .map(|table| (table.contract().name.clone(), table))
            .collect();
        let (tables, metrics) = (Arc::new(tables), Arc::new(Metrics::default()));
        let ingest = Ingest::start(tables.clone(), Vec::new(), config.ingest.clone(), Clock::System, metrics.clone());
        let engine = Engine::new(tables.clone(), config.query.clone(), Clock::System, metrics);
        Self {
            ingest: ingest.await.expect("ingest"),
            engine: engine.expect("an engine"),
            verifier: Verifier::new(&config.auth, &config.policy, Clock::System).expect("a verifier"),
            tables,
            config,
            _folder: folder,
        }
    }

    pub(crate) async fn access(&self, tenant: &str) -> Access {
        let token = DevelopmentToken {
            issuer: String::new(),
            tenant: Some(tenant.into()),
            subject: "bench".into(),
            scopes: vec![Scope::Read, Scope::Ingest],
            age: Duration::from_secs(3_600),
            claims: serde_json::Map::new(),
        };
        let token = token.sign(&self.config.auth, &Clock::System).expect("a token");
        self.verifier.verify(&token).await.expect("an access")
    }

    /// Encodes `count` events as one request body.
    pub(crate) fn body(&self, format: Format, generator: &mut EventGenerator, count: usize) -> Bytes {
        let now = Clock::System.now();
        let events: Vec<Value> = (0..count as i64).map(|at| generator.next_event(now + at).json).collect();
        match format {
            Format::Json => events.iter().map(|event| format!("{event}\n")).collect::<String>().into(),
            Format::Protobuf => {
                events.iter().flat_map(|event| wire_event(event).encode_length_delimited_to_vec()).collect()
            }
            Format::ArrowIpc => self.arrow(&events, now),
        }
    }

    /// Encodes the events as an Arrow IPC stream, without the columns that the server sets.
    fn arrow(&self, events: &[Value], now: i64) -> Bytes {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        let owner = Owner::Tenant(TenantId::parse("bench").expect("a tenant"));
        let stamp =
            DecodeOptions { received: now, owner, time_max: now + DAY, event_bytes_max: 1 << 20, dimensions_max: 64 };
        let contract = self.tables["call_events"].contract();
        let batch = contract::decode(contract, Format::Json, &lines.into(), &stamp).expect("a batch").batch;
        let columns: Vec<usize> =
            (0..batch.num_columns()).filter(|at| ![contract.tenant, contract.received].contains(at)).collect();
        let batch = batch.project(&columns).expect("columns");
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a writer");
        writer.write(&batch).expect("a batch");
        writer.into_inner().expect("a body").into()
    }

    /// Adds `count` files to the Delta log, spread over ten days and a thousand tenants. The files themselves do not
    /// exist.
    pub(crate) async fn add_virtual_files(&self, count: usize) {
        let files = (0..count)
            .map(|at| {
                let (day, slice) = (FIRST_DAY + (at % 10) as i32, at / 10);
                let tenant = |number: usize| format!("tenant-{:04}", number % 1_000).into();
                let start = i64::from(day) * DAY;
                DataFile {
                    path: format!("event_date=2026-01-{:02}/part-{at}.parquet", 1 + at % 10).into(),
                    size: 64 << 20,
                    rows: 1_000_000,
                    day,
                    tenants: Some((tenant(slice), tenant(slice))),
                    times: Some((start, start + DAY - SECOND)),
                    received: Some((start, start + DAY)),
                    ids: None,
                    modified: start / 1_000,
                }
            })
            .collect();
        self.tables["call_events"].commit(files, Vec::new()).await.expect("a commit");
    }
}

/// Returns the CPU time that this process has used so far (user and system), in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|&at| fields[at].parse::<u64>().expect("ticks")).sum();
    ticks as f64 / 100.0
}

/// Converts an event to the type that a producer would generate from the `.proto` file.
fn wire_event(event: &Value) -> wire::CallEvent {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let dimensions = &event["dimensions"];
    wire::CallEvent {
        event_time: event["event_time"].as_u64(),
        logged_event_time: event["logged_event_time"].as_u64(),
        event_id: text(&event["event_id"]),
        route_id: text(&event["route_id"]),
        event_type: Some(match event["event_type"].as_str() {
            Some("SIGNALING") => 1,
            Some("QUALITY") => 2,
            _ => 3,
        }),
        duration_ms: event["duration_ms"].as_u64(),
        dimensions: Some(wire::Dimensions {
            direction: text(&dimensions["direction"]),
            carrier: text(&dimensions["carrier"]),
            country: text(&dimensions["country"]),
            region: text(&dimensions["region"]),
            codec: text(&dimensions["codec"]),
            edge: text(&dimensions["edge"]),
            other: [("sdk".to_owned(), text(&dimensions["other"]["sdk"]).unwrap_or_default())].into(),
        }),
        signaling: event["signaling"].as_object().map(|signaling| wire::SignalingEvent {
            name: text(&signaling["name"]),
            kind: Some(2),
            pdd: Some(wire::PddEvent { pdd_ms: signaling["pdd"]["pdd_ms"].as_u64().map(|ms| ms as u32) }),
        }),
        quality: event["quality"].as_object().map(|quality| wire::QualityEvent {
            jitter_ms: quality["jitter_ms"].as_f64(),
            packet_loss_ratio: quality["packet_loss_ratio"].as_f64(),
            mos: quality["mos"].as_f64(),
            round_trip_ms: quality["round_trip_ms"].as_f64(),
        }),
    }
}

/// The messages and fields of `call_event.proto` that the generated events use.
mod wire {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct CallEvent {
        #[prost(uint64, optional, tag = "1")]
        pub(super) event_time: Option<u64>,
        #[prost(uint64, optional, tag = "2")]
        pub(super) logged_event_time: Option<u64>,
        #[prost(string, optional, tag = "3")]
        pub(super) event_id: Option<String>,
        #[prost(string, optional, tag = "4")]
        pub(super) route_id: Option<String>,
        #[prost(int32, optional, tag = "6")]
        pub(super) event_type: Option<i32>,
        #[prost(uint64, optional, tag = "7")]
        pub(super) duration_ms: Option<u64>,
        #[prost(message, optional, tag = "8")]
        pub(super) dimensions: Option<Dimensions>,
        #[prost(message, optional, tag = "16")]
        pub(super) signaling: Option<SignalingEvent>,
        #[prost(message, optional, tag = "17")]
        pub(super) quality: Option<QualityEvent>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SignalingEvent {
        #[prost(string, optional, tag = "1")]
        pub(super) name: Option<String>,
        #[prost(int32, optional, tag = "2")]
        pub(super) kind: Option<i32>,
        #[prost(message, optional, tag = "3")]
        pub(super) pdd: Option<PddEvent>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PddEvent {
        #[prost(uint32, optional, tag = "1")]
        pub(super) pdd_ms: Option<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct QualityEvent {
        #[prost(double, optional, tag = "1")]
        pub(super) jitter_ms: Option<f64>,
        #[prost(double, optional, tag = "2")]
        pub(super) packet_loss_ratio: Option<f64>,
        #[prost(double, optional, tag = "3")]
        pub(super) mos: Option<f64>,
        #[prost(double, optional, tag = "4")]
        pub(super) round_trip_ms: Option<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Dimensions {
        #[prost(string, optional, tag = "1")]
        pub(super) direction: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub(super) carrier: Option<String>,
        #[prost(string, optional, tag = "3")]
        pub(super) country: Option<String>,
        #[prost(string, optional, tag = "4")]
        pub(super) region: Option<String>,
        #[prost(string, optional, tag = "5")]
        pub(super) codec: Option<String>,
        #[prost(string, optional, tag = "6")]
        pub(super) edge: Option<String>,
        #[prost(map = "string, string", tag = "15")]
        pub(super) other: HashMap<String, String>,
    }
}
