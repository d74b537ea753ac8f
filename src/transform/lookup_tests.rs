//! Tests of lookup tables: file formats, limits, refreshes, and transforms after a refresh.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use futures::FutureExt as _;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lookup::{LookupQuery, Lookups};
use super::lookup_contents::LoadedLookup;
use super::{Message, Transform};
use crate::config::{ColumnConfig, IngestConfig, LookupConfig, SourceConfig, TableConfig};
use crate::contract::Contract;
use crate::error::{Error, Kind, Result};
use crate::supervise::Supervisor;
use crate::telemetry::Metrics;

fn columns(columns: &[(&str, &str)]) -> Vec<ColumnConfig> {
    let column = |(name, kind): &(&str, &str)| ColumnConfig {
        name: (*name).to_owned(),
        kind: (*kind).to_owned(),
        ..ColumnConfig::default()
    };
    columns.iter().map(column).collect()
}

fn of_file(path: &Path) -> LookupConfig {
    LookupConfig { file: Some(path.to_owned()), refresh: Duration::from_millis(5), ..LookupConfig::default() }
}

fn lookups(config: LookupConfig, limits: &IngestConfig) -> Arc<Lookups> {
    Lookups::new(&BTreeMap::from([("places".to_owned(), config)]), limits, Arc::default())
}

/// Returns the column types of the lookup `places` and its rows as text, or `None` if the lookup is not loaded.
fn contents(lookups: &Lookups) -> Option<(Vec<DataType>, Vec<String>)> {
    let (_, loaded): (String, Arc<LoadedLookup>) = lookups.now(&["places".to_owned()]).ok()?.pop()?;
    let kinds = loaded.schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let mut rows = Vec::new();
    for batch in loaded.batches.iter() {
        for row in 0..batch.num_rows() {
            let value =
                |column: &arrow::array::ArrayRef| arrow::util::display::array_value_to_string(column, row).unwrap();
            rows.push(batch.columns().iter().map(value).collect::<Vec<_>>().join(","));
        }
    }
    Some((kinds, rows))
}

fn parquet(rows: &[(i64, &str)]) -> Vec<u8> {
    let ids: Int64Array = rows.iter().map(|(id, _)| Some(*id)).collect();
    let cities: StringArray = rows.iter().map(|(_, city)| Some(*city)).collect();
    let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as _), ("city", Arc::new(cities) as _)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn files_of_each_format_become_columns() {
    use DataType::{Float64, Int32, Int64, Utf8};
    let folder = TempDir::new().unwrap();
    let rows = ["1,Lima", "2,Quito"];
    let json = "{\"id\":1,\"city\":\"Lima\"}\n{\"city\":\"Quito\",\"id\":2}\n";
    let declared = [("city", "text"), ("id", "int32")];
    let exact = [("id", "uuid"), ("total", "decimal(5, 2)"), ("due", "time"), ("doc", "json")];
    let lists = [("total", "decimal(38, 2)"), ("tags", "list<text>"), ("sums", "list<decimal(4, 2)>")];
    let list = |kind| DataType::List(Arc::new(Field::new("element", kind, true)));
    let cases: [(&str, Vec<u8>, &[(&str, &str)], Vec<DataType>, &[&str]); 11] = [
        ("a.csv", b"id,city\n1,Lima\n2,Quito\n".to_vec(), &[], vec![Int64, Utf8], &rows),
        ("b.jsonl", json.into(), &[], vec![Utf8, Int64], &["Lima,1", "Quito,2"]),
        ("c.ndjson", json.into(), &[], vec![Utf8, Int64], &["Lima,1", "Quito,2"]),
        ("d.parquet", parquet(&[(1, "Lima"), (2, "Quito")]), &[], vec![Int64, Utf8], &rows),
        ("e.csv", b"id,more,city\n1,x,Lima\n,y,\n".to_vec(), &declared, vec![Utf8, Int32], &["Lima,1", ","]),
        ("f.json", json.into(), &declared, vec![Utf8, Int32], &["Lima,1", "Quito,2"]),
        ("g.parquet", parquet(&[(1, "Lima")]), &declared, vec![Utf8, Int32], &["Lima,1"]),
        (
            "h.csv",
            b"zip,rate\n01234,1\n5,2.5\n".to_vec(),
            &[("zip", "text"), ("rate", "float64")],
            vec![Utf8, Float64],
            &["01234,1.0", "5,2.5"],
        ),
        ("i.csv", b"id,city\n".to_vec(), &declared, vec![Utf8, Int32], &[]),
        (
            "j.csv",
            b"id,total,due,doc\n550E8400-E29B-41D4-A716-446655440000,1.5,09:30,[1]\n".to_vec(),
            &exact,
            vec![Utf8, DataType::Decimal128(5, 2), DataType::Time64(TimeUnit::Microsecond), Utf8],
            &["550e8400-e29b-41d4-a716-446655440000,1.50,09:30:00,[1]"],
        ),
        (
            "k.json",
            br#"{"total": 123456789012345678901234567890.12, "tags": ["a", null], "sums": [1.5, -99.99]}"#.to_vec(),
            &lists,
            vec![DataType::Decimal128(38, 2), list(Utf8), list(DataType::Decimal128(4, 2))],
            &["123456789012345678901234567890.12,[a, ],[1.50, -99.99]"],
        ),
    ];
    for (name, bytes, declared, kinds, expected) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let config = LookupConfig { columns: columns(declared), ..of_file(&path) };
        let lookups = lookups(config, &IngestConfig::default());
        let errors = lookups.load_files();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        let expected: Vec<String> = expected.iter().map(|row| (*row).to_owned()).collect();
        assert_eq!(contents(&lookups), Some((kinds, expected)), "{name}");
    }
}

#[test]
fn lookups_that_cannot_be_loaded_report_the_reason() {
    let folder = TempDir::new().unwrap();
    let few = IngestConfig { lookup_rows_max: 2, ..IngestConfig::default() };
    let small = IngestConfig { lookup_bytes_max: 16, ..IngestConfig::default() };
    let usual = IngestConfig::default();
    let cases: [(&str, Vec<u8>, &[(&str, &str)], &IngestConfig, Kind, &str); 8] = [
        ("a.csv", b"id\n1\n2\n3\n".to_vec(), &[], &few, Kind::Limited, "ingest.lookup_rows_max"),
        ("b.parquet", parquet(&[(1, "a"), (2, "b"), (3, "c")]), &[], &few, Kind::Limited, "ingest.lookup_rows_max"),
        ("c.csv", b"id,city\n1,Lima Lima Lima\n".to_vec(), &[], &small, Kind::Limited, "ingest.lookup_bytes_max"),
        ("d.csv", b"id,city\n1\n".to_vec(), &[], &usual, Kind::Invalid, "not valid CSV"),
        ("e.json", b"[1,2]".to_vec(), &[], &usual, Kind::Invalid, "not valid JSON"),
        ("f.parquet", b"id,city".to_vec(), &[], &usual, Kind::Invalid, "not valid Parquet"),
        (
            "g.csv",
            b"idd\n1\n".to_vec(),
            &[("id", "int64")],
            &usual,
            Kind::Invalid,
            "declared column `id` does not exist in the lookup, did you mean `idd`?",
        ),
        ("i.csv", Vec::new(), &[], &usual, Kind::Invalid, "empty"),
    ];
    for (name, bytes, declared, limits, kind, expected) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let config = LookupConfig { columns: columns(declared), ..of_file(&path) };
        let (lookup, error) = lookups(config, limits).load_files().pop().expect(name);
        assert_eq!((lookup.as_str(), error.kind()), ("places", kind), "{name}: {error:?}");
        assert!(error.message().contains(expected), "{name}: {error:?}");
    }
    let missing = lookups(of_file(&folder.path().join("none.csv")), &usual).load_files();
    assert_eq!(missing[0].1.kind(), Kind::Unavailable);
}

/// Checks the error for a file. A lookup can contain the rows of many tenants, so an error, which is logged, names the
/// place of a value but not the value.
fn check_place((name, bytes, declared, expected): (&str, Vec<u8>, &[(&str, &str)], &str)) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let config = LookupConfig { columns: columns(declared), ..of_file(&path) };
    let (_, error) = lookups(config, &IngestConfig::default()).load_files().pop().expect(name);
    let logged = format!("{error:?}");
    assert!(logged.contains(expected) && logged.contains(name), "{logged}");
    assert!(!["SECRET", "1.005", "12345"].iter().any(|value| logged.contains(value)), "{logged}");
}

#[test]
fn invalid_values_of_csv_files_are_reported_by_their_place() {
    let imitation = b"id\n' as type 'Int64' for column SECRET at line 1\n".to_vec();
    let cases: [(&str, Vec<u8>, &[(&str, &str)], &str); 8] = [
        (
            "a.csv",
            b"id,who\n1,x\nSECRET,SECRET\n".to_vec(),
            &[("id", "int64")],
            "row 2: the value of column `id` is not int64",
        ),
        (
            "b.csv",
            b"at\n2026-01-01T00:00:00Z\nSECRET\n".to_vec(),
            &[("at", "timestamp")],
            "row 2: the value of column `at` is not timestamp",
        ),
        ("c.csv", b"on\nSECRET\n".to_vec(), &[("on", "bool")], "row 1: the value of column `on` is not bool"),
        ("d.csv", imitation, &[("id", "int64")], "not valid CSV: a value does not have the type of its column"),
        (
            "e.csv",
            b"id\n1\n1.005\n".to_vec(),
            &[("id", "decimal(5, 2)")],
            "row 2: column `id` expects decimal(5, 2) (a number with at most 2 digits after the point)",
        ),
        (
            "f.csv",
            b"id\n12345\n".to_vec(),
            &[("id", "decimal(5, 2)")],
            "row 1: a value is out of range for column `id` of type decimal(5, 2)",
        ),
        (
            "g.csv",
            b"id\nSECRET\n".to_vec(),
            &[("id", "uuid")],
            "row 1: column `id` expects uuid (32 hexadecimal digits, with or without hyphens)",
        ),
        (
            "h.csv",
            b"id\n{SECRET\n".to_vec(),
            &[("id", "json")],
            "row 1: column `id` expects json (one valid JSON value)",
        ),
    ];
    cases.into_iter().for_each(check_place);
}

#[test]
fn invalid_values_of_other_files_are_reported_by_their_place() {
    let cases: [(&str, Vec<u8>, &[(&str, &str)], &str); 6] = [
        (
            "i.json",
            b"{\"id\": 1}\n\n{\"id\": 2}\n{\"id\": \"SECRET\", \"x\": 1}\n{\"id\": 3}".to_vec(),
            &[("x", "text"), ("id", "int64")],
            "line 4: the value of column `id` is not int64",
        ),
        (
            "j.json",
            b"{\"id\": 1}\n{\"id\": SECRET}".to_vec(),
            &[("id", "int64")],
            "not valid JSON: expected value at line 2 column 8",
        ),
        ("k.json", b"{\"id\": 1}\n[\"SECRET\"]".to_vec(), &[], "not valid JSON: line 2 is not an object"),
        (
            "l.json",
            b"{\"id\": {\"a\": 1}}\n{\"id\": \"SECRET\"}".to_vec(),
            &[],
            "write one object per line, and the same type of values in each column",
        ),
        (
            "m.json",
            b"{\"ids\": [\"SECRET\"]}".to_vec(),
            &[("ids", "list<uuid>")],
            "row 1: column `ids` expects list<uuid>",
        ),
        (
            "n.parquet",
            parquet(&[(1, "2"), (2, "SECRET")]),
            &[("city", "int64")],
            "row 2: the value of column `city` is not int64",
        ),
    ];
    cases.into_iter().for_each(check_place);
}

/// Returns a query function that produces the given result for every query.
fn lookup_query(response: impl Fn(String) -> Result<Vec<RecordBatch>> + Send + Sync + 'static) -> LookupQuery {
    let response = Arc::new(response);
    Arc::new(move |sql| {
        let response = Arc::clone(&response);
        async move { response(sql) }.boxed()
    })
}

#[tokio::test]
async fn a_lookup_query_runs_with_the_function_of_the_caller() {
    let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![7])) as _)]).unwrap();
    let config = LookupConfig { query: Some("SELECT 7 AS id".to_owned()), ..LookupConfig::default() };
    let lookups = lookups(config, &IngestConfig::default());
    let response = lookup_query(move |sql| if sql == "SELECT 7 AS id" { Ok(vec![batch.clone()]) } else { Ok(vec![]) });
    lookups.load_one("places", Some(&response)).await.unwrap();
    assert_eq!(contents(&lookups), Some((vec![DataType::Int64], vec!["7".to_owned()])));
    let away = lookup_query(|_| Err(Error::unavailable("the lake is away")));
    assert_eq!(lookups.load_one("places", Some(&away)).await.unwrap_err().kind(), Kind::Unavailable);
    assert!(contents(&lookups).is_some(), "the previous contents stay");
    let unknown = lookups.load_one("place", None).await.unwrap_err();
    assert!(unknown.message().contains("did you mean `places`"), "{unknown:?}");
}

/// Starts an HTTP server that returns these responses one after another, and returns the server's address.
async fn serve(responses: Vec<&'static str>, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        for response in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let _read = stream.read(&mut request).await.unwrap();
            let _closed = stream.write_all(response.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_url_is_fetched_within_limits() {
    let mut tasks = JoinSet::new();
    let responses = vec![
        "HTTP/1.1 302 Found\r\nLocation: /other.csv\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\nid,city\n1,Rom",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 33\r\nConnection: close\r\n\r\nid,city\n1,Roma Roma Roma Roma Roma",
    ];
    let root = serve(responses, &mut tasks).await;
    let limits = IngestConfig { lookup_bytes_max: 4_096, ..IngestConfig::default() };
    let url = |path: &str| LookupConfig { url: Some(format!("{root}/{path}")), ..LookupConfig::default() };
    let good = lookups(url("places.csv?x=1"), &limits);
    good.load_one("places", None).await.unwrap();
    assert_eq!(contents(&good).unwrap().1, ["1,Rom"]);
    let gone = good.load_one("places", None).await.unwrap_err();
    assert!(gone.kind() == Kind::Unavailable && gone.message().contains("404"), "{gone:?}");
    let small = lookups(url("places.csv"), &IngestConfig { lookup_bytes_max: 20, ..limits });
    assert_eq!(small.load_one("places", None).await.unwrap_err().kind(), Kind::Limited);
    assert_eq!(contents(&good).unwrap().1, ["1,Rom"]);
}

/// Returns a transform that finds the city for a message's offset in the lookup `places`.
fn transform(lookups: &Arc<Lookups>) -> Result<Arc<Transform>> {
    let sql = "SELECT key AS who, time AS at, p.city AS id FROM messages LEFT JOIN places p ON p.id = offset";
    let source = SourceConfig { transform: Some(sql.to_owned()), ..SourceConfig::default() };
    let table = TableConfig {
        columns: columns(&[("who", "text"), ("at", "timestamp"), ("id", "text")]),
        tenant: "who".to_owned(),
        time: "at".to_owned(),
        id: "id".to_owned(),
        ..TableConfig::default()
    };
    let contract = Arc::new(Contract::new("visits", &table, Path::new(".")).unwrap());
    let transform = Transform::new("shop", &source, &contract, lookups, &IngestConfig::default())?;
    Ok(transform.expect("the source has a statement"))
}

/// Transforms the message at offset 1, and returns the city in the resulting row.
async fn city(transform: &Arc<Transform>) -> String {
    let (transform, runtime) = (Arc::clone(transform), tokio::runtime::Handle::current());
    let run = move || {
        let message =
            Message { value: Some(b"{}"), key: None, headers: &[], topic: "t", partition: 0, offset: 1, time: None };
        let city_of = |rows: super::Rows| {
            let city = rows.batch.column_by_name("id").unwrap();
            Ok(arrow::util::display::array_value_to_string(city, 0).unwrap())
        };
        transform.run(&[message], &runtime, city_of).unwrap().parts.concat()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_waits_for_its_lookups_and_uses_refreshed_contents() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("places.csv");
    let metrics = Arc::new(Metrics::default());
    let configs = BTreeMap::from([("places".to_owned(), of_file(&path))]);
    let lookups = Lookups::new(&configs, &IngestConfig::default(), Arc::clone(&metrics));
    let transform = transform(&lookups).unwrap();
    assert_eq!(transform.waits_for(), ["places"], "the lookup's columns are not known yet");
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let supervisor = Supervisor::new(Arc::clone(&metrics));
    tasks.spawn(Arc::clone(&lookups).run(lookup_query(|_| Ok(Vec::new())), supervisor, stop.clone()));
    let waiting = {
        let (transform, stop) = (Arc::clone(&transform), stop.clone());
        tasks.spawn(async move { assert!(transform.ready(&stop).await) })
    };
    let write = |csv: &str| {
        let draft = folder.path().join("draft");
        fs::write(&draft, csv).unwrap();
        fs::rename(&draft, &path).unwrap();
    };
    let wait_for_metric = async |line: &str| {
        let mut interval = tokio::time::interval(Duration::from_millis(5));
        while !metrics.render().lines().any(|metric| metric.starts_with(line)) {
            interval.tick().await;
        }
    };
    wait_for_metric("glasshouse_lookup_loads_total{lookup=\"places\",outcome=\"failed\"}").await;
    assert!(!waiting.is_finished());
    write("id,city\n1,Lima\n");
    while !waiting.is_finished() {
        tokio::task::yield_now().await;
    }
    assert_eq!(city(&transform).await, "Lima");

    // The first refresh changes the rows, the second also changes the schema, and the third loads a schema that is
    // incompatible with the statement.
    for (csv, expected) in [("id,city\n1,Quito\n2,x\n", "Quito"), ("more,city,id\n3,Cusco,1\n4,y,5\n6,z,7\n", "Cusco")]
    {
        write(csv);
        while city(&transform).await != expected {
            tokio::task::yield_now().await;
        }
    }
    write("id,town\n1,Lima\n2,x\n3,y\n4,z\n");
    wait_for_metric("glasshouse_lookup_rows{lookup=\"places\"} 4").await;
    assert_eq!(city(&transform).await, "Cusco", "the transform uses the last contents that fit");
    write("no,csv\n1\n");
    assert_eq!(city(&transform).await, "Cusco");
    write("id,city\n1,Lima\n");
    while city(&transform).await != "Lima" {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    tasks.join_all().await;
}

#[tokio::test]
async fn a_transform_is_checked_with_declared_columns_before_they_are_loaded() {
    let nowhere = of_file(Path::new("nowhere.csv"));
    let declared = |list: &[(&str, &str)]| LookupConfig { columns: columns(list), ..nowhere.clone() };
    let limits = IngestConfig::default();
    let good = transform(&lookups(declared(&[("id", "int64"), ("city", "text")]), &limits)).unwrap();
    assert!(good.waits_for().is_empty());
    let bad = transform(&lookups(declared(&[("id", "int64"), ("town", "text")]), &limits)).unwrap_err();
    assert!(bad.message().contains("unknown column `p.city`"), "{bad:?}");

    let stop = CancellationToken::new();
    stop.cancel();
    assert!(!good.ready(&stop).await, "a server that is stopping does not wait");
}
