//! Test support: tables with columns of every type, random rows, and a comparison of rows before and after a merge.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Float32Array, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::file_cuts::FileCuts;
use super::merge::{MergeOptions, Merged};
use super::policy::Unit;
use crate::clock::{DAY, Micros};
use crate::config::{ColumnConfig, LakeConfig, TableConfig};
use crate::contract::{Contract, DecodeOptions, EventBatch, Format, Owner, decode};
use crate::lake::{DataFile, Store, Table};

pub(super) const DAY_NUMBER: i32 = 20_513;
pub(super) const MIDNIGHT: Micros = DAY_NUMBER as i64 * DAY;

pub(super) const COLUMNS: &[(&str, &str)] = &[
    ("tenant", "text"),
    ("at", "timestamp"),
    ("id", "text"),
    ("flag", "bool"),
    ("small", "int32"),
    ("large", "int64"),
    ("single", "float32"),
    ("double", "float64"),
    ("price", "decimal(12, 3)"),
    ("wide", "decimal(30, 6)"),
    ("few", "text"),
    ("many", "text"),
    ("uuid", "uuid"),
    ("doc", "json"),
    ("data", "bytes"),
    ("day", "date"),
    ("time", "time"),
    ("seen", "timestamp"),
    ("words", "list<text>"),
    ("numbers", "list<int64>"),
    ("labels", "map"),
];

pub(super) fn contract(columns: &[(&str, &str)]) -> Arc<Contract> {
    let column = |(name, kind): &(&str, &str)| ColumnConfig {
        name: (*name).into(),
        kind: (*kind).into(),
        ..ColumnConfig::default()
    };
    let config = TableConfig {
        columns: columns.iter().filter(|(_, kind)| *kind != "map").map(column).collect(),
        tenant: "tenant".into(),
        time: "at".into(),
        id: "id".into(),
        dimensions_map: columns.iter().find(|(_, kind)| *kind == "map").map_or("", |(name, _)| name).into(),
        ..TableConfig::default()
    };
    Arc::new(Contract::new("events", &config, Path::new(".")).unwrap())
}

pub(super) fn lake(row_group_rows_max: usize) -> LakeConfig {
    LakeConfig { url: "memory:///".into(), row_group_rows_max, ..LakeConfig::default() }
}

/// Returns an open table in memory.
pub(super) async fn table(columns: &[(&str, &str)], row_group_rows_max: usize) -> Arc<Table> {
    let config = lake(row_group_rows_max);
    Table::open(&Store::open(&config).unwrap(), contract(columns), &config).await.unwrap()
}

/// Returns random events of one day, with values of every column. `distinct` is the number of tenants.
pub(super) fn random_rows(contract: &Contract, count: usize, distinct: usize, rng: &mut StdRng) -> EventBatch {
    let mut lines = String::new();
    for _ in 0..count {
        let number: u32 = rng.random();
        let mut event = Map::new();
        event.insert("tenant".into(), format!("t{:03}", number as usize % distinct).into());
        let time = MIDNIGHT / 1_000_000 + i64::from(rng.random_range(0..500));
        event.insert("at".into(), chrono::DateTime::from_timestamp(time, 0).unwrap().to_rfc3339().into());
        // Some ids occur several times, and have prefixes of one another.
        event.insert(
            "id".into(),
            format!("e{}", "0".repeat(number as usize % 3) + &(number % 5_000).to_string()).into(),
        );
        for column in contract.columns.iter().skip(4) {
            if rng.random_range(0..6) > 0 {
                event.insert(column.name.clone(), random_value(&column.name, rng));
            }
        }
        lines += &Value::from(event).to_string();
        lines.push('\n');
    }
    let options = DecodeOptions {
        received: MIDNIGHT + i64::from(rng.random_range(0..1_000_000)),
        owner: Owner::PerEvent,
        time_max: MIDNIGHT + DAY,
        event_bytes_max: 1 << 20,
        dimensions_max: 8,
    };
    let decoded = decode(contract, Format::Json, &Bytes::from(lines), &options).unwrap();
    assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects.first());
    with_special_floats(contract, &decoded.batch, rng)
}

pub(super) fn random_value(column: &str, rng: &mut StdRng) -> Value {
    let number: i32 = rng.random();
    match column {
        "flag" => (number % 2 == 0).into(),
        "small" => number.into(),
        "large" => rng.random_range(i64::MIN..i64::MAX).into(),
        "price" => format!("{}.{:03}", number % 1_000, number.unsigned_abs() % 1_000).into(),
        "wide" => {
            format!("{number}{:08}.{:06}", number.unsigned_abs() % 100_000_000, number.unsigned_abs() % 999_983).into()
        }
        "few" => ["", "eu", "us", "a rather long text that does not fit into sixteen bytes", "ü€"][number as usize % 5]
            .into(),
        "many" | "new" => match number % 50 {
            0 => "x".repeat(3_000).into(),
            _ => format!("value {number}").into(),
        },
        "uuid" => uuid::Uuid::from_u128(rng.random()).to_string().into(),
        "doc" => json!({ "n": number, "list": [1, null] }),
        "data" => "AQIDBA==".into(),
        "day" => format!("2026-03-{:02}", 1 + number.unsigned_abs() % 28).into(),
        "time" => format!("12:00:{:02}.5", number.unsigned_abs() % 60).into(),
        "seen" => "2026-03-01T12:00:00.000001Z".into(),
        "words" => (0..number.unsigned_abs() % 4)
            .map(|at| if at == 1 { Value::Null } else { format!("w{at}").into() })
            .collect(),
        "numbers" => (0..number.unsigned_abs() % 3).map(|at| Value::from(i64::from(number) * i64::from(at))).collect(),
        "labels" => (0..number.unsigned_abs() % 3)
            .map(|at| (format!("k{at}"), Value::from(format!("v{}", number % 7))))
            .collect::<Map<_, _>>()
            .into(),
        _ => f64::from(number).into(),
    }
}

/// Replaces some floats by values that JSON does not have.
pub(super) fn with_special_floats(contract: &Contract, rows: &EventBatch, rng: &mut StdRng) -> EventBatch {
    let mut columns = rows.to_plain().unwrap().columns().to_vec();
    for column in &mut columns {
        match column.data_type() {
            DataType::Float64 => {
                let special = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::MIN_POSITIVE / 2.0];
                let values = column.as_primitive::<Float64Type>().iter();
                let changed = values
                    .map(|value| value.map(|value| special.get(rng.random_range(0..9)).copied().unwrap_or(value)));
                *column = Arc::new(changed.collect::<Float64Array>());
            }
            DataType::Float32 => {
                let values = column.as_primitive::<Float32Type>().iter();
                let changed =
                    values.map(|value| value.map(|value| if rng.random_range(0..5) == 0 { -0.0 } else { value }));
                *column = Arc::new(changed.collect::<Float32Array>());
            }
            _ => {}
        }
    }
    let plain = rows.to_plain().unwrap();
    EventBatch::new(contract, RecordBatch::try_new(plain.schema(), columns).unwrap()).unwrap()
}

/// Formats the named columns of each row. Columns that a batch lacks are null.
pub(super) fn lines(batches: &[RecordBatch], names: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let options = FormatOptions::new().with_null("null");
    for batch in batches {
        let columns: Vec<Option<ArrayRef>> = names.iter().map(|name| batch.column_by_name(name).cloned()).collect();
        let formatters: Vec<Option<ArrayFormatter<'_>>> = columns
            .iter()
            .map(|column| column.as_ref().map(|column| ArrayFormatter::try_new(column, &options).unwrap()))
            .collect();
        for row in 0..batch.num_rows() {
            let value = |formatter: &Option<ArrayFormatter<'_>>| match formatter {
                Some(formatter) => format!("{:?}", formatter.value(row).to_string()),
                None => "\"null\"".to_owned(),
            };
            lines.push(formatters.iter().map(value).collect::<Vec<_>>().join(","));
        }
    }
    lines
}

pub(super) async fn read(table: &Table, file: &DataFile) -> (Bytes, Vec<RecordBatch>) {
    let bytes = table.location().0.objects.get(&table.file_path(file)).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, file.size);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().build().unwrap();
    (bytes, reader.map(Result::unwrap).collect())
}

pub(super) fn unit(inputs: Vec<Arc<DataFile>>, cuts: FileCuts) -> Unit {
    Unit { day: DAY_NUMBER, level: 1, inputs, cuts }
}

pub(super) fn options() -> MergeOptions {
    MergeOptions { whole_rows: true, ..MergeOptions::default() }
}

/// Checks that the new files contain the rows of `inputs` in order, and have correct bounds.
pub(super) async fn check_rows(table: &Table, merged: &Merged, inputs: &[RecordBatch]) {
    let schema = table.stored_schema().unwrap();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut found: Vec<RecordBatch> = Vec::new();
    for file in &merged.files {
        let (_, batches) = read(table, file).await;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows as u64, file.rows);
        for batch in &batches {
            let (tenants, times) =
                (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<TimestampMicrosecondType>());
            let (least, most) = file.tenants.as_ref().unwrap();
            assert!(tenants.iter().flatten().all(|tenant| (&**least..=&**most).contains(&tenant)));
            assert!(times.values().iter().all(|time| (file.times.unwrap().0..=file.times.unwrap().1).contains(time)));
        }
        found.extend(batches);
    }
    let (mut rows, mut expected) = (lines(&found, &names), lines(inputs, &names));
    let keys: Vec<String> = names.iter().take(3).cloned().collect();
    let key_columns: Vec<(String, String, String)> = found
        .iter()
        .flat_map(|batch| {
            let text = |column: usize| batch.column(column).as_string::<i32>();
            let times = lines(&[batch.project(&[1]).unwrap()], &keys[1..2]);
            (0..batch.num_rows())
                .map(move |row| (text(0).value(row).to_owned(), times[row].clone(), text(2).value(row).to_owned()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(key_columns.is_sorted(), "the rows are in order");
    rows.sort_unstable();
    expected.sort_unstable();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected);
    }
}

pub(super) async fn stored(table: &Table) -> Vec<String> {
    let (store, folder) = table.location();
    let listed: Vec<_> = store.objects.list(Some(folder)).try_collect().await.unwrap();
    let mut names: Vec<String> = listed.iter().map(|object| object.location.to_string()).collect();
    names.sort_unstable();
    names
}
