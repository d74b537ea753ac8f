//! Tests of dictionary columns: which columns decoders encode as dictionaries, and how batches are concatenated.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, UInt16Type};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json as value};

use super::dictionary_ops::{plain_bytes, with_column_types};
use crate::config::ColumnConfig;
use crate::contract::testing::*;
use crate::contract::{Contract, DICTIONARY_VALUES_MAX, EventBatch, Format, as_dictionary, decode};

/// The text columns. The first always has few distinct values, the second has many after the first 900 rows, the third
/// is mostly null, and the fourth has a different value in each row.
const COLUMNS: [&str; 4] = ["few", "more", "rare", "many"];

fn contract() -> Contract {
    let mut config = plain_config("labels");
    let text = |name: &str| ColumnConfig { name: name.into(), kind: "text".into(), ..Default::default() };
    config.columns.extend(COLUMNS.map(text));
    Contract::new("plain", &config, std::path::Path::new("")).unwrap()
}

/// Returns an event without its tenant, time and id.
fn event(row: usize, rng: &mut StdRng) -> Map<String, Value> {
    let mut event = Map::new();
    let mut put = |name: &str, text: String| event.insert(name.to_owned(), text.into());
    put("few", ["a", "é\n", "", "a text that is longer than most"][rng.random_range(0..4)].into());
    // The column has few distinct values in the first rows, then only nulls, and then a different value in each row.
    match row {
        ..700 if !row.is_multiple_of(4) => put("more", format!("m{}", row % 90)),
        900.. if !row.is_multiple_of(2) => put("more", format!("m{row}")),
        _ => None,
    };
    if rng.random_range(0..3) == 0 {
        put("rare", format!("r{}", rng.random_range(0..9)));
    }
    put("many", format!("number {row}"));
    for entry in 0..rng.random_range(0..4) {
        put(&format!("key {entry}"), if entry > 0 { format!("v{row} {entry}") } else { format!("v{}", row % 5) });
    }
    event
}

fn is_dictionary(column: &ArrayRef) -> bool {
    as_dictionary(column).is_some()
}

#[test]
fn columns_with_few_distinct_strings_become_dictionaries() {
    let (contract, mut rng) = (contract(), StdRng::seed_from_u64(3));
    let (mut lines, mut expected) = (Vec::new(), Vec::new());
    for row in 0..3_000 {
        let mut sent = event(row, &mut rng);
        sent.extend([("key".to_owned(), value!(format!("k{row}"))), ("at".to_owned(), value!(0))]);
        let is_bad = row % 7 == 3;
        if is_bad {
            sent.insert("large".into(), value!("no number"));
        }
        lines.push(Value::from(sent.clone()).to_string());
        if !is_bad {
            let (own, other): (Map<_, _>, Map<_, _>) =
                sent.into_iter().partition(|(name, _)| !name.starts_with("key "));
            let mut row = own;
            row.extend([("who".to_owned(), value!("acme")), ("at".to_owned(), value!("1970-01-01T00:00:00Z"))]);
            row.insert("received_time".into(), value!("2026-01-01T00:00:00Z"));
            if !other.is_empty() {
                row.insert("labels".into(), other.into());
            }
            expected.push(Value::from(row));
        }
    }
    let body = Bytes::from(lines.join("\n"));
    let decoded = decode(&contract, Format::Json, &body, &acme()).unwrap();
    let column = |name: &str| decoded.batch.column_by_name(name).unwrap();
    assert_eq!(COLUMNS.map(|name| is_dictionary(column(name))), [true, false, true, false]);
    assert_eq!(column("few").as_dictionary::<UInt16Type>().values().len(), 4);
    assert!(!is_dictionary(column("who")) && !is_dictionary(column("key")), "keys are plain");
    let maps = column("labels").as_map();
    assert_eq!([maps.keys(), maps.values()].map(is_dictionary), [true, false]);
    assert_eq!(decoded.rejects.len(), 3_000 - expected.len());
    assert_eq!(rows(&decoded.batch.to_plain().unwrap()), expected);
}

#[test]
fn a_rejected_event_leaves_no_dictionary_value_in_other_rows() {
    let lines = [
        r#"{"key": "a", "at": 0, "few": "lost", "large": "no number"}"#,
        r#"{"key": "b", "at": 0}"#,
        r#"{"key": "c", "at": 0, "few": "x", "rare": null}"#,
        r#"{"key": "d", "at": 0, "rare": "y"}"#,
    ];
    let decoded = decode(&contract(), Format::Json, &Bytes::from(lines.join("\n")), &acme()).unwrap();
    let texts = |name: &str| -> Vec<Option<String>> {
        let rows = decoded.batch.to_plain().unwrap();
        let column = rows.column_by_name(name).unwrap().as_string::<i32>().clone();
        column.iter().map(|text| text.map(str::to_owned)).collect()
    };
    assert_eq!(texts("few"), [None, Some("x".into()), None]);
    assert_eq!(texts("rare"), [None, None, Some("y".into())]);
}

#[test]
fn plain_bytes_of_a_dictionary_match_the_size_of_the_decoded_column() {
    let (contract, mut rng) = (contract(), StdRng::seed_from_u64(11));
    let lines = (0..500).map(|row| {
        let mut sent = event(row, &mut rng);
        sent.extend([("key".to_owned(), value!(format!("k{row}"))), ("at".to_owned(), value!(0))]);
        Value::from(sent).to_string()
    });
    let body = Bytes::from(lines.collect::<Vec<_>>().join("\n"));
    let encoded = decode(&contract, Format::Json, &body, &acme()).unwrap().batch.slice(7, 300);
    let plain = encoded.to_plain().unwrap();
    for (encoded, plain) in encoded.columns().iter().zip(plain.columns()) {
        let (counted, own) = (plain_bytes(encoded), plain_bytes(plain));
        // Only the null bitmap and one offset may be counted differently.
        assert!(counted.abs_diff(own) <= 200, "{counted} instead of {own}: {}", encoded.data_type());
    }
    let few = encoded.column_by_name("few").unwrap();
    assert!(few.to_data().get_slice_memory_size().unwrap() * 4 < plain_bytes(few), "a dictionary is smaller");
}

/// Converts randomly selected columns to dictionaries, and returns the resulting batch.
fn with_dictionaries(rows: &RecordBatch, rng: &mut StdRng) -> EventBatch {
    let columns: Vec<ArrayRef> = rows
        .columns()
        .iter()
        .map(|column| {
            let kind = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(column.data_type().clone()));
            if rng.random_range(0..4) > 0 { cast(column, &kind).unwrap() } else { Arc::clone(column) }
        })
        .collect();
    EventBatch::unchecked(RecordBatch::try_new(with_column_types(&rows.schema(), &columns), columns).unwrap())
}

#[test]
fn batches_with_and_without_dictionaries_are_concatenated() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let different = if seed % 10 == 0 { DICTIONARY_VALUES_MAX } else { 7 };
        let batch = |rng: &mut StdRng| {
            let count = if different > 7 { 3_000 } else { rng.random_range(0..40) };
            let text = |rng: &mut StdRng| {
                (rng.random_range(0..5) > 0).then(|| format!("t{}", rng.random_range(0..different * 2)))
            };
            let column =
                |rng: &mut StdRng| -> ArrayRef { Arc::new((0..count).map(|_| text(rng)).collect::<StringArray>()) };
            let columns = [("one", column(rng)), ("other", column(rng))];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
        };
        let batches: Vec<RecordBatch> = (0..rng.random_range(1..5)).map(|_| batch(&mut rng)).collect();
        let expected = concat_batches(&batches[0].schema(), &batches).unwrap();
        let given: Vec<EventBatch> = batches.iter().map(|batch| with_dictionaries(batch, &mut rng)).collect();
        let concatenated = EventBatch::concat(&given.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(concatenated.to_plain().unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn maps_of_several_bodies_are_concatenated() {
    let (contract, mut rng) = (contract(), StdRng::seed_from_u64(5));
    let mut body = |rows: std::ops::Range<usize>| {
        let lines = rows.map(|row| {
            let mut sent = event(row, &mut rng);
            sent.extend([("key".to_owned(), value!(format!("k{row}"))), ("at".to_owned(), value!(0))]);
            Value::from(sent).to_string()
        });
        let body = Bytes::from(lines.collect::<Vec<_>>().join("\n"));
        decode(&contract, Format::Json, &body, &acme()).unwrap().batch
    };
    // The second batch has too many distinct values for a dictionary, and the third has no rows.
    let batches = [body(0..50), body(700..1_200), body(0..1).slice(0, 0), body(60..80).slice(3, 9)];
    let concatenated = EventBatch::concat(&batches.iter().collect::<Vec<_>>()).unwrap();
    let alone: Vec<Value> = batches.iter().flat_map(|batch| rows(&batch.to_plain().unwrap())).collect();
    assert_eq!(rows(&concatenated.to_plain().unwrap()), alone);
    let few = [&batches[0], &batches[3]];
    let maps = EventBatch::concat(&few).unwrap().column_by_name("labels").unwrap().as_map().clone();
    assert_eq!([maps.keys(), maps.values()].map(is_dictionary), [true, true]);
}
