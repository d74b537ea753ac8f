//! Tests of the contents that a lookup table provides to queries.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, DictionaryArray, Float64Array, Int64Array, LargeStringArray, NullArray,
    RecordBatch, StringArray, TimestampNanosecondArray, UInt8Array, UInt64Array,
};
use arrow::datatypes::{DataType, Int8Type, TimeUnit};

use super::lookup_contents::{LoadedLookup, LookupLimits, QueryableRows};
use super::lookup_queryable::prepare;
use crate::config::{ColumnConfig, LookupConfig};
use crate::contract::TenantId;
use crate::error::{Kind, Result};

const LIMITS: LookupLimits =
    LookupLimits { bytes_max: 1 << 20, rows_max: 100_000, time_max: std::time::Duration::from_secs(60) };

fn loaded(batches: Vec<RecordBatch>) -> LoadedLookup {
    let (schema, rows) = (batches[0].schema(), batches.iter().map(RecordBatch::num_rows).sum());
    LoadedLookup { schema, batches: Arc::new(batches), rows, queryable: QueryableRows::None }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn shared() -> LookupConfig {
    LookupConfig { shared: true, ..LookupConfig::default() }
}

fn of_tenants() -> LookupConfig {
    let column =
        |name: &str| ColumnConfig { name: name.to_owned(), kind: "text".to_owned(), ..ColumnConfig::default() };
    LookupConfig {
        tenant: Some("owner".to_owned()),
        columns: vec![column("owner"), column("secret")],
        ..LookupConfig::default()
    }
}

/// Returns the values of the column `secret` in the rows of a tenant, batch by batch.
fn secrets(loaded: &LoadedLookup, tenant: &str) -> Vec<Vec<Option<String>>> {
    let rows = loaded.rows_of(&TenantId::parse(tenant).unwrap());
    let values = |batch: &RecordBatch| {
        let column = batch.column_by_name("secret").unwrap().as_string::<i32>().clone();
        column.iter().map(|value| value.map(str::to_owned)).collect()
    };
    rows.iter().map(values).collect()
}

#[test]
fn columns_get_the_types_of_tables() {
    let numbers: ArrayRef = Arc::new(UInt8Array::from(vec![7]));
    let words: DictionaryArray<Int8Type> = vec!["eu"].into_iter().collect();
    let times = TimestampNanosecondArray::from(vec![1_001]);
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let cases: Vec<(ArrayRef, DataType, &str)> = vec![
        (numbers, DataType::Int32, "7"),
        (Arc::new(words), DataType::Utf8, "eu"),
        (Arc::new(LargeStringArray::from(vec!["x"])), DataType::Utf8, "x"),
        (Arc::new(NullArray::new(1)), DataType::Utf8, ""),
        (Arc::new(times.clone()), micros(None), "1970-01-01T00:00:00.000001"),
        (Arc::new(times.with_timezone("+02:00")), micros(Some("UTC")), "1970-01-01T00:00:00.000001Z"),
    ];
    for (column, kind, value) in cases {
        let given = column.data_type().clone();
        let loaded = prepare(loaded(vec![batch(vec![("x", column)])]), &shared(), &LIMITS).unwrap();
        assert_eq!(loaded.schema().field(0).data_type(), &kind, "{given}");
        let rows = loaded.rows_of(&TenantId::parse("any").unwrap());
        assert_eq!(rows[0].schema(), *loaded.schema());
        assert_eq!(arrow::util::display::array_value_to_string(rows[0].column(0), 0).unwrap(), value, "{given}");
    }
}

#[test]
fn unsupported_columns_and_values_are_refused() {
    let one = |column: ArrayRef| vec![("x", column)];
    let list = arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>([Some([Some(1)])]);
    for (columns, expected) in [
        (one(Arc::new(UInt64Array::from(vec![1]))), "column `x` has the type UInt64"),
        (one(Arc::new(list)), "declare `columns` with the columns to read"),
        (one(Arc::new(Float64Array::from(vec![f64::NAN]))), "column `x` contains NaN or infinity"),
        (one(Arc::new(Float64Array::from(vec![1.0, f64::INFINITY]))), "column `x` contains NaN or infinity"),
        (vec![("x", texts(&[None])), ("x", texts(&[None]))], "column `x` has no unique name"),
    ] {
        let refused = prepare(loaded(vec![batch(columns.clone())]), &shared(), &LIMITS).unwrap_err();
        assert!(refused.kind() == Kind::Invalid && refused.message().contains(expected), "{refused:?}");
        let unchanged = prepare(loaded(vec![batch(columns)]), &LookupConfig::default(), &LIMITS);
        assert!(unchanged.is_ok(), "only transforms read the lookup");
    }
}

#[test]
fn each_tenant_gets_arrays_of_its_own() {
    let owners = [Some("acme"), Some("bzzz"), None, Some(""), Some("acme"), Some("Acme"), Some("acme ")];
    let hidden = Some("zebra zebra zebra");
    let first =
        vec![("owner", texts(&owners)), ("secret", texts(&[Some("1"), hidden, hidden, hidden, None, hidden, hidden]))];
    let second = vec![("owner", texts(&[Some("acme")])), ("secret", texts(&[Some("3")]))];
    let loaded = prepare(loaded(vec![batch(first), batch(second)]), &of_tenants(), &LIMITS).unwrap();
    assert_eq!(secrets(&loaded, "acme"), [[Some("1".to_owned()), None, Some("3".to_owned())]]);
    assert_eq!(secrets(&loaded, "bzzz"), [[hidden.map(str::to_owned)]]);
    assert!(secrets(&loaded, "coda").is_empty());
    assert_eq!((loaded.rows, loaded.batches.len()), (8, 2), "transforms read all rows");
    for column in loaded.rows_of(&TenantId::parse("acme").unwrap())[0].columns() {
        let stored =
            column.to_data().buffers().iter().map(|buffer| buffer.as_slice().to_vec()).collect::<Vec<_>>().concat();
        assert!(!stored.windows(5).any(|bytes| bytes == b"zebra"), "a buffer contains a value of another tenant");
    }
}

#[test]
fn long_lookups_are_grouped_into_bounded_batches_within_the_memory_limit() {
    let rows = 20_000;
    let owners: StringArray = (0..rows).map(|row| Some(if row % 2 == 0 { "acme" } else { "coda" })).collect();
    let numbers: StringArray = (0..rows).map(|row| Some(row.to_string())).collect();
    let both = || loaded(vec![batch(vec![("owner", Arc::new(owners.clone())), ("secret", Arc::new(numbers.clone()))])]);
    let prepared = prepare(both(), &of_tenants(), &LIMITS).unwrap();
    let acme = secrets(&prepared, "acme");
    assert_eq!(acme.iter().map(Vec::len).collect::<Vec<_>>(), [8_192, 1_808]);
    assert_eq!(
        acme.concat().into_iter().flatten().collect::<Vec<_>>(),
        (0..rows).step_by(2).map(|row| row.to_string()).collect::<Vec<_>>()
    );
    let small = LookupLimits { bytes_max: 100_000, ..LIMITS };
    let refused: Result<LoadedLookup> = prepare(both(), &of_tenants(), &small);
    assert_eq!(refused.unwrap_err().kind(), Kind::Limited, "many small arrays count with their overhead");
}

#[test]
fn tenant_column_must_be_a_text_column() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    for columns in [vec![("owner", numbers)], vec![("secret", texts(&[None]))]] {
        let refused = prepare(loaded(vec![batch(columns)]), &of_tenants(), &LIMITS).unwrap_err();
        assert!(refused.message().contains("`owner`, which contains the tenants, is not a text column"), "{refused:?}");
    }
}
