//! Tests of the Arrow decoders: casts, invalid values, incompatible schemas, and malicious streams.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, MapBuilder, NullArray, RecordBatch, StringArray,
    StringBuilder, StringViewArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, TimestampMicrosecondType};
use bytes::Bytes;
use serde_json::{Value, json as value};

use super::accept_or_reject::RejectedRows;
use crate::contract::testing::*;
use crate::contract::{Format, Reason, TenantId, decode, decode_arrow};
use crate::error::Kind;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn columns_are_cast_if_nothing_is_lost() {
    let contract = plain("more");
    let keys: Vec<(&str, ArrayRef)> =
        vec![("at", Arc::new(Int64Array::from(vec![1_767_225_600]))), ("key", texts(&["k"]))];
    let decimal = |value: i128, scale: i8| {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(30, scale).unwrap()) as ArrayRef
    };
    let dictionary: DictionaryArray<Int32Type> = vec!["acme"].into_iter().collect();
    let cases: Vec<(&str, ArrayRef, Value)> = vec![
        ("who", Arc::new(dictionary), value!({})),
        ("key", Arc::new(StringViewArray::from(vec!["k"])), value!({})),
        ("key", Arc::new(LargeStringArray::from(vec!["k"])), value!({})),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![1_767_225_600_000_000_999])), value!({})),
        ("at", Arc::new(TimestampSecondArray::from(vec![1_767_225_600]).with_timezone("America/New_York")), value!({})),
        ("at", Arc::new(Date32Array::from(vec![20_454])), value!({})),
        ("at", Arc::new(UInt64Array::from(vec![NOW_MS / 1_000])), value!({})),
        ("at", Arc::new(Float64Array::from(vec![1_767_225_600.0])), value!({})),
        ("at", texts(&["2026-01-01T01:00:00+01:00"]), value!({})),
        ("large", Arc::new(Int32Array::from(vec![5])), value!({"large": 5})),
        ("large", decimal(900_719_925_474_099_300, 2), value!({"large": 9_007_199_254_740_993_i64})),
        ("double", decimal(250, 2), value!({"double": 2.5})),
        ("price", decimal(110, 2), value!({"more": {"price": "1.10"}})),
        ("day", Arc::new(Date64Array::from(vec![-86_400_000])), value!({"day": "1969-12-31"})),
        ("small", Arc::new(Int64Array::from(vec![5])), value!({"small": 5})),
        ("large", Arc::new(Float64Array::from(vec![5.0])), value!({"large": 5})),
        ("double", Arc::new(Float32Array::from(vec![0.5])), value!({"double": 0.5})),
        ("single", Arc::new(Float64Array::from(vec![0.5])), value!({"single": 0.5})),
        ("double", Arc::new(Int64Array::from(vec![5])), value!({"double": 5.0})),
        ("day", texts(&["2026-01-01"]), value!({"day": "2026-01-01"})),
        ("flag", Arc::new(NullArray::new(1)), value!({})),
        ("colour", texts(&["red"]), value!({"more": {"colour": "red"}})),
        ("count", Arc::new(Int32Array::from(vec![7])), value!({"more": {"count": "7"}})),
        ("on", Arc::new(BooleanArray::from(vec![true])), value!({"more": {"on": "true"}})),
        ("received_time", texts(&["ignored"]), value!({})),
    ];
    for (name, column, stored) in cases {
        let given = format!("{name}: {}", column.data_type());
        let mut columns: Vec<_> = keys.iter().filter(|(key, _)| *key != name).cloned().collect();
        columns.push((name, column));
        let decoded = arrow_rows(&contract, &batch(columns), &acme());
        let mut expected =
            value!({"who": "acme", "at": "2026-01-01T00:00:00Z", "key": "k", "received_time": "2026-01-01T00:00:00Z"});
        expected.as_object_mut().unwrap().extend(stored.as_object().unwrap().clone());
        assert_eq!(rows(&decoded.batch), [expected], "{given}: {:?}", decoded.rejects);
    }
}

#[test]
fn arrow_events_are_rejected_with_every_reason() {
    let contract = plain("more");
    let strings = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let floats = |value: f64| Arc::new(Float64Array::from(vec![Some(1.0), Some(value), None])) as ArrayRef;
    let integers = |value: i64| Arc::new(Int64Array::from(vec![Some(1), Some(value), Some(2)])) as ArrayRef;
    let decimals = |values: [&str; 3], precision: u8, scale: i8| {
        cast(&strings(values.map(Some).to_vec()), &DataType::Decimal128(precision, scale)).unwrap()
    };
    let long = "x".repeat(5_000);
    let cases: Vec<(&str, ArrayRef, &str)> = vec![
        ("key", strings(vec![Some("a"), Some(""), Some("b")]), "missing_id"),
        ("key", strings(vec![Some("a"), None, Some("b")]), "missing_id"),
        ("at", Arc::new(Int64Array::from(vec![Some(1), None, Some(2)])), "missing_time"),
        ("at", integers(-5), "time_out_of_range"),
        ("at", integers(1_767_999_999), "time_out_of_range"),
        ("at", Arc::new(UInt64Array::from(vec![1, u64::MAX, 2])), "time_out_of_range"),
        ("at", strings(vec![Some("1970-01-01T00:00:00Z"), Some("noon"), Some("7")]), "wrong_type"),
        ("small", integers(i64::MAX), "out_of_range"),
        ("large", Arc::new(UInt64Array::from(vec![1, u64::MAX, 2])), "out_of_range"),
        ("large", decimals(["1", "100000000000000000000", "2"], 30, 0), "out_of_range"),
        ("large", decimals(["1", "92233720368547758.08", "2"], 38, 2), "wrong_type"),
        ("small", decimals(["1.00", "3000000000", "2"], 38, 2), "out_of_range"),
        ("day", Arc::new(Date64Array::from(vec![-86_400_000, 1, 86_400_000])), "wrong_type"),
        ("large", floats(0.5), "wrong_type"),
        ("large", floats(1e300), "out_of_range"),
        ("single", floats(1e300), "out_of_range"),
        ("double", floats(f64::NAN), "not_finite"),
        ("double", Arc::new(Float32Array::from(vec![1.0, f32::INFINITY, 2.0])), "not_finite"),
        ("who", strings(vec![None, Some("evil"), Some("acme")]), "foreign_tenant"),
        ("colour", strings(vec![None, Some(&long), Some("red")]), "too_large"),
    ];
    for (name, column, reason) in cases {
        let keys: Vec<(&str, ArrayRef)> = vec![("at", integers(3)), ("key", texts(&["k", "l", "m"]))];
        let mut columns: Vec<_> = keys.into_iter().filter(|(key, _)| *key != name).collect();
        columns.push((name, column));
        let batch = batch(columns);
        let decoded = decode_arrow(&contract, &batch, 10, &acme()).unwrap();
        assert_eq!(
            (decoded.batch.num_rows(), reasons(&decoded)),
            (2, vec![(11, reason)]),
            "{name} {:?}",
            decoded.rejects
        );
        let row: Value = serde_json::from_slice(&decoded.rejects[0].bytes).unwrap();
        assert!(row.is_object(), "{row}");
    }
    let twice = batch(vec![("at", integers(1)), ("key", texts(&["a", "b", "c"]))]);
    assert_eq!(
        reasons(&arrow_rows(&contract, &twice, &operator())),
        [(0, "missing_tenant"), (1, "missing_tenant"), (2, "missing_tenant")]
    );
    let owned = batch(vec![("at", integers(-1)), ("key", texts(&["a", "b", "c"])), ("who", texts(&["x", "y", "z"]))]);
    let decoded = arrow_rows(&contract, &owned, &operator());
    assert_eq!(decoded.rejects[0].tenant, Some(TenantId::parse("y").unwrap()));
    assert_eq!(decoded.batch.column(0).as_ref(), texts(&["x", "z"]).as_ref());
}

#[test]
fn incompatible_columns_are_refused_by_name() {
    let keys: Vec<(&str, ArrayRef)> = vec![("at", Arc::new(Int64Array::from(vec![1]))), ("key", texts(&["k"]))];
    let nested: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]));
    let cases: Vec<(&str, &str, ArrayRef, &str)> = vec![
        ("more", "large", texts(&["5"]), "column `large` expects int64, got Utf8"),
        ("more", "who", Arc::new(Int64Array::from(vec![1])), "column `who` expects text, got Int64"),
        ("more", "flag", texts(&["true"]), "column `flag` expects bool"),
        ("more", "tags", nested.clone(), "undeclared column `tags` is List"),
        ("more", "double", nested, "column `double` expects float64"),
        ("more", "more", texts(&["{}"]), "column `more` expects a map of text"),
        ("", "lagre", texts(&["5"]), "unknown column `lagre`, did you mean `large`?"),
    ];
    for (map, name, column, message) in cases {
        let mut columns = keys.clone();
        columns.push((name, column));
        let error = decode_arrow(&plain(map), &batch(columns), 0, &acme()).unwrap_err();
        assert!(error.message().contains(message), "expected {message:?} in {error}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn encodings_that_expand_too_much_are_refused() {
    let rows = 100_000;
    let long = "x".repeat(4_000);
    let keys = Int32Array::from(vec![0; rows]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, texts(&[&long])));
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|row| row.to_string())));
    let at: ArrayRef = Arc::new(Int64Array::from(vec![1; rows]));
    let error = decode_arrow(&plain("more"), &batch(vec![("at", at), ("key", ids), ("x", dictionary)]), 0, &acme());
    assert_eq!(error.unwrap_err().kind(), Kind::Limited);
    let many = RecordBatch::try_from_iter([("x", Arc::new(NullArray::new(1 << 40)) as ArrayRef)]).unwrap();
    assert_eq!(decode_arrow(&plain("more"), &many, 0, &acme()).unwrap_err().kind(), Kind::Limited);
}

#[test]
fn a_truncated_stream_keeps_the_batches_before_the_end() {
    let contract = plain("more");
    let event = batch(vec![("at", Arc::new(Int64Array::from(vec![1, 2]))), ("key", texts(&["a", "b"]))]);
    let body = ipc(&[event.clone(), event.clone()]);
    let all = decode(&contract, Format::ArrowIpc, &Bytes::from(body.clone()), &acme()).unwrap();
    assert_eq!((all.batch.num_rows(), all.rejects.len()), (4, 0));
    let cut = Bytes::from(body).slice(..800);
    let kept = decode(&contract, Format::ArrowIpc, &cut, &acme()).unwrap();
    assert_eq!((kept.batch.num_rows(), reasons(&kept)), (2, vec![(2, "malformed")]));
    for body in [&b""[..], b"{}", b"\xff\xff\xff\xff\x00\x00\x00\x00", b"\xff\xff\xff\xff\xff\xff\xff\x7f"] {
        let error = decode(&contract, Format::ArrowIpc, &Bytes::from_static(body), &acme()).unwrap_err();
        assert!(error.message().contains("not an Arrow IPC stream"), "{error}");
    }
}

#[test]
fn nanoseconds_before_1970_round_down() {
    let contract = plain("more");
    let column = contract.columns.iter().position(|column| column.name == "at").unwrap();
    let nanos = vec![Some(-1), Some(-1_000), Some(-1_001), Some(1_999), None];
    for zone in [None, Some("UTC"), Some("America/New_York")] {
        let nanos: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(nanos.clone()).with_timezone_opt(zone.map(Into::<Arc<str>>::into)));
        let found = super::cast::column(&contract, column, &nanos, &mut RejectedRows::default()).unwrap();
        let found: Vec<_> = found.as_primitive::<TimestampMicrosecondType>().iter().collect();
        assert_eq!(found, [Some(-1), Some(-1), Some(-2), Some(1), None]);
    }
}

/// Builds a map array. Each row is a list of (key, value) entries, or `None` for a null.
fn maps(rows: &[Option<&[(&str, Option<&str>)]>]) -> ArrayRef {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for row in rows {
        for (key, value) in row.iter().copied().flatten() {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        builder.append(row.is_some()).unwrap();
    }
    Arc::new(builder.finish())
}

#[test]
fn valid_map_columns_are_stored_unchanged() {
    let contract = plain("more");
    let stored = |column: ArrayRef| {
        let rows = column.len();
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|row| row.to_string())));
        let times: ArrayRef = Arc::new(Int64Array::from(vec![1_767_225_600; rows]));
        let decoded = decode_arrow(&contract, &batch(vec![("at", times), ("key", ids), ("more", column)]), 0, &acme());
        let decoded = decoded.unwrap();
        let more = decoded.batch.column_by_name("more").unwrap().as_map().clone();
        let row = |row: usize| {
            more.is_valid(row).then(|| {
                let entries = more.value(row);
                let text = |column: usize| entries.column(column).as_string::<i32>().clone();
                text(0)
                    .iter()
                    .zip(&text(1))
                    .map(|(key, value)| format!("{}={value:?}", key.unwrap()))
                    .collect::<Vec<_>>()
            })
        };
        let reasons: Vec<_> = decoded.rejects.iter().map(|reject| (reject.index, reject.reason)).collect();
        ((0..more.len()).map(row).collect::<Vec<_>>(), reasons)
    };
    let entries_of = |entries: &[&str]| Some(entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>());
    let plain_rows =
        maps(&[Some(&[("a", Some("1")), ("b", None)]), None, Some(&[("a", Some("2"))]), Some(&[("c", Some("3"))])]);
    let expected = [
        entries_of(&["a=Some(\"1\")", "b=None"]),
        None,
        entries_of(&["a=Some(\"2\")"]),
        entries_of(&["c=Some(\"3\")"]),
    ];
    assert_eq!(stored(plain_rows.clone()), (expected.to_vec(), vec![]));
    assert_eq!(stored(plain_rows.slice(1, 2)), (expected[1..3].to_vec(), vec![]), "a slice");
    let empty = maps(&[Some(&[]), Some(&[("a", Some("1"))]), None]);
    let expected = vec![entries_of(&[]), entries_of(&["a=Some(\"1\")"]), None];
    assert_eq!(stored(empty), (expected, vec![]), "an empty map stays an empty map");
    let twice = maps(&[Some(&[("a", Some("1"))]), Some(&[("a", Some("1")), ("b", None), ("a", None)])]);
    assert_eq!(stored(twice), (vec![entries_of(&["a=Some(\"1\")"])], vec![(1, Reason::DuplicateKey)]));
}
