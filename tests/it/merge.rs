//! Merges files and compares the result with the inputs, as DuckDB, Polars and Arrow read them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use glasshouse::config::{ColumnConfig, LakeConfig, TableConfig};
use glasshouse::contract::{Contract, DecodeOptions, Format, Owner, decode};
use glasshouse::lake::{Store, Table};
use glasshouse::maintenance::file_cuts::FileCuts;
use glasshouse::maintenance::merge::{MergeOptions, merge};
use glasshouse::maintenance::policy::Unit;

use crate::client_suite::run_python;
use crate::requirements::needs;

const CHECKS: &[&str] =
    &["duckdb_reads_the_same_rows", "statistics_exclude_no_row", "polars_reads_the_same_rows", "files_are_sorted"];

const COLUMNS: &[(&str, &str)] = &[
    ("tenant", "text"),
    ("at", "timestamp"),
    ("id", "text"),
    ("few", "text"),
    ("many", "text"),
    ("flag", "bool"),
    ("small", "int32"),
    ("large", "int64"),
    ("double", "float64"),
    ("price", "decimal(12, 3)"),
    ("uuid", "uuid"),
    ("doc", "json"),
    ("data", "bytes"),
    ("day", "date"),
    ("seen", "timestamp"),
    ("words", "list<text>"),
];

/// The day of all events, 2026-03-01, in days since 1970-01-01.
const DAY: i32 = 20_513;

/// Returns the event with this number as JSON. Each column is sometimes null.
fn event(number: u64) -> String {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let second = hash % 86_400;
    let mut fields = vec![
        format!(r#""tenant": "t{}""#, hash % 23),
        format!(
            r#""at": "2026-03-01T{:02}:{:02}:{:02}.{:06}Z""#,
            second / 3_600,
            second / 60 % 60,
            second % 60,
            number % 1_000_000
        ),
        format!(r#""id": "e{number}""#),
    ];
    let optional = [
        format!(r#""few": "{}""#, ["eu", "us", "", "ü€"][(hash >> 8) as usize % 4]),
        format!(r#""many": "value {}""#, hash % 100_000),
        format!(r#""flag": {}"#, hash.is_multiple_of(2)),
        format!(r#""small": {}"#, (hash >> 7) as i32),
        format!(r#""large": {}"#, hash.cast_signed()),
        format!(
            r#""double": {}"#,
            if hash.is_multiple_of(9) { "-0.0".to_owned() } else { format!("{}", hash as f64 / -7.0) }
        ),
        format!(r#""price": "{}.{:03}""#, (hash % 2_000) as i64 - 1_000, hash % 1_000),
        format!(r#""uuid": "01234567-89ab-4def-8123-{:012x}""#, hash & 0xffff_ffff_ffff),
        format!(r#""doc": {{"n": {hash}}}"#),
        r#""data": "AQID""#.to_owned(),
        format!(r#""day": "2026-02-{:02}""#, 1 + hash % 28),
        format!(r#""seen": "2026-03-01T12:00:00.{:06}Z""#, hash % 1_000_000),
        format!(r#""words": ["a", null, "{}"]"#, hash % 5),
    ];
    let present = optional.into_iter().enumerate().filter(|(index, _)| !(hash >> (index * 4)).is_multiple_of(7));
    fields.extend(present.map(|(_, field)| field));
    format!("{{{}}}\n", fields.join(", "))
}

#[test]
fn other_readers_agree_on_merged_files() {
    needs!(Python);
    let folder = tempfile::tempdir().unwrap();
    let facts = tokio::runtime::Runtime::new().unwrap().block_on(merge_files(folder.path()));
    let path = folder.path().join("facts.json");
    std::fs::write(&path, facts.to_string()).unwrap();
    run_python("merge_suite.py", &path, CHECKS);
}

/// Writes and merges files. Returns the paths of the files before and after.
async fn merge_files(folder: &Path) -> serde_json::Value {
    let config = LakeConfig {
        url: format!("file://{}/lake", folder.display()),
        row_group_rows_max: 3_000,
        ..LakeConfig::default()
    };
    let store = Store::open(&config).unwrap();
    let column = |(name, kind): &(&str, &str)| ColumnConfig {
        name: (*name).into(),
        kind: (*kind).into(),
        ..ColumnConfig::default()
    };
    let declared = TableConfig {
        columns: COLUMNS.iter().map(column).collect(),
        tenant: "tenant".into(),
        time: "at".into(),
        id: "id".into(),
        ..TableConfig::default()
    };
    let contract = Arc::new(Contract::new("events", &declared, Path::new(".")).unwrap());
    let table = Table::open(&store, contract, &config).await.unwrap();
    let received = i64::from(DAY + 1) * 86_400_000_000;
    let options = DecodeOptions {
        received,
        owner: Owner::PerEvent,
        time_max: received,
        event_bytes_max: 1 << 20,
        dimensions_max: 8,
    };
    let mut inputs = Vec::new();
    for file in 0..5_u64 {
        let body: String = (0..4_000).map(|row| event(file * 4_000 + row)).collect();
        let decoded = decode(table.contract(), Format::Json, &Bytes::from(body), &options).unwrap();
        assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects.first());
        inputs.extend(table.write(decoded.batch).await.unwrap().into_iter().map(Arc::new));
    }
    let boundaries = vec!["t12".into(), "t5".into()];
    let cuts = FileCuts { boundaries, ..FileCuts::by_size(100_000) };
    let unit = Unit { day: DAY, level: 1, inputs: inputs.clone(), cuts };
    let merge_options = MergeOptions { page_rows: 1_000, ..MergeOptions::default() };
    let merged = merge(&table, &unit, &merge_options).await.unwrap();
    assert!(merged.files.len() >= 3, "{:?}", merged.files);
    let path = |file: &glasshouse::lake::DataFile| format!("/{}", table.file_path(file));
    serde_json::json!({
        "inputs": inputs.iter().map(|file| path(file)).collect::<Vec<_>>(),
        "outputs": merged.files.iter().map(path).collect::<Vec<_>>(),
    })
}
