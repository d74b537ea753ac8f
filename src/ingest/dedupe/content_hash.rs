//! Content hashes of events. They show whether two events with the same id have different content.
//!
//! [`content_hashes`] computes a 32-bit hash of each row. The hash covers all columns except the receive time, and does
//! not depend on the order of the entries in a map. The hash needs no secret key: a sender that constructs a collision
//! can only hide a conflict between its own events.

use arrow::array::{ArrayRef, AsArray as _, MapArray, RecordBatch};
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::contract::Contract;
use crate::error::{Error, Result};

/// The value that represents an unknown content hash, for example if only the id of a stored row was read.
/// [`content_hashes`] never returns this value.
pub(super) const UNKNOWN: u32 = 0;

/// Returns the content hash of each row.
pub(in crate::ingest) fn content_hashes(contract: &Contract, rows: &RecordBatch) -> Result<Vec<u32>> {
    let columns = rows.columns().iter().enumerate().filter(|(column, _)| *column != contract.received);
    let (maps, plain): (Vec<_>, Vec<_>) =
        columns.map(|(_, array)| array).partition(|array| array.as_map_opt().is_some());
    let mut hashes = hash(&plain, rows.num_rows())?;
    for map in maps.into_iter().filter_map(|array| array.as_map_opt()) {
        add_map(map, &mut hashes)?;
    }
    Ok(hashes.into_iter().map(|hash| ((hash >> 32) as u32).max(UNKNOWN + 1)).collect())
}

/// Adds the hashes of a map's entries to the hashes of their rows. Addition makes the result independent of the order
/// of the entries.
fn add_map(map: &MapArray, hashes: &mut [u64]) -> Result<()> {
    let entries = hash(&[map.keys(), map.values()], map.keys().len())?;
    for (hash, range) in hashes.iter_mut().zip(map.offsets().windows(2)) {
        let [from, to] = [range[0], range[1]].map(|offset| offset as usize);
        *hash = entries[from..to].iter().fold(*hash, |sum, entry| sum.wrapping_add(mix(*entry)));
    }
    Ok(())
}

/// Scrambles the bits of an entry's hash. Without this step, two maps with the same keys and values, but paired
/// differently, could have the same sum of hashes.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

fn hash(columns: &[&ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(columns.iter().copied(), &RandomState::with_seed(0), &mut hashes)
        .map_err(|cause| Error::internal("cannot hash the content of rows").with_source(cause))?;
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, MapBuilder, StringArray, StringBuilder, TimestampMicrosecondArray};
    use arrow::compute::concat_batches;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{ColumnConfig, TableConfig};
    use crate::contract::{DecodeOptions, Format, Owner, decode};

    fn contract() -> Contract {
        let columns = [
            ("who", "text"),
            ("at", "timestamp"),
            ("key", "text"),
            ("why", "text"),
            ("mos", "float64"),
            ("other", "map"),
        ];
        let column =
            |(name, kind): (&str, &str)| ColumnConfig { name: name.into(), kind: kind.into(), ..Default::default() };
        let config = TableConfig {
            columns: columns.map(column).to_vec(),
            tenant: "who".into(),
            time: "at".into(),
            id: "key".into(),
            dimensions_map: "other".into(),
            ..TableConfig::default()
        };
        Contract::new("calls", &config, Path::new(".")).unwrap()
    }

    /// Creates one row with the given map entries and receive time.
    fn row(contract: &Contract, mos: Option<f64>, entries: &[(&str, &str)], received: i64) -> RecordBatch {
        let columns = contract.schema().fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "who" => Arc::new(StringArray::from(vec!["acme"])),
                "key" => Arc::new(StringArray::from(vec!["k"])),
                "why" => Arc::new(StringArray::from(vec![None::<&str>])),
                "mos" => Arc::new(Float64Array::from(vec![mos])),
                "other" => {
                    let names = arrow::array::MapFieldNames {
                        entry: "key_value".into(),
                        key: "key".into(),
                        value: "value".into(),
                    };
                    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
                    for (key, value) in entries {
                        map.keys().append_value(key);
                        map.values().append_value(value);
                    }
                    map.append(!entries.is_empty()).unwrap();
                    Arc::new(map.finish())
                }
                name => {
                    let time = if name == "at" { 7 } else { received };
                    Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC"))
                }
            }
        });
        RecordBatch::try_new(contract.schema().clone(), columns.collect()).unwrap()
    }

    #[test]
    fn only_equal_content_has_the_same_hash() {
        let contract = contract();
        let first = row(&contract, Some(4.2), &[("a", "1"), ("b", "2")], 1);
        let same = [
            row(&contract, Some(4.2), &[("a", "1"), ("b", "2")], 2),
            row(&contract, Some(4.2), &[("b", "2"), ("a", "1")], 1),
        ];
        let others = [
            row(&contract, Some(4.3), &[("a", "1"), ("b", "2")], 1),
            row(&contract, None, &[("a", "1"), ("b", "2")], 1),
            row(&contract, Some(4.2), &[("a", "2"), ("b", "1")], 1),
            row(&contract, Some(4.2), &[("a", "1")], 1),
            row(&contract, Some(4.2), &[], 1),
        ];
        let hash_of = |row: &RecordBatch| content_hashes(&contract, row).unwrap()[0];
        assert!(same.iter().all(|row| hash_of(row) == hash_of(&first)));
        let mut distinct: Vec<u32> = others.iter().chain([&first]).map(hash_of).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), others.len() + 1);
        assert!(!distinct.contains(&UNKNOWN));
        // A row's hash does not depend on the other rows in its batch.
        let together = concat_batches(contract.schema(), others.iter().chain(&same).chain([&first])).unwrap();
        let alone: Vec<u32> = others.iter().chain(&same).chain([&first]).map(hash_of).collect();
        assert_eq!(content_hashes(&contract, &together).unwrap(), alone);
        assert_eq!(content_hashes(&contract, &together.slice(2, 3)).unwrap(), alone[2..5]);
    }

    #[test]
    fn dictionary_columns_hash_like_plain_string_columns() {
        let contract = contract();
        let lines: Vec<String> = (0..300)
            .map(|row| match row % 3 {
                0 => format!(r#"{{"who":"acme","at":7,"key":"k{row}","mos":4.5,"a":"{}","b":"x"}}"#, row % 5),
                1 => {
                    format!(r#"{{"who":"zeta","at":7,"key":"k{row}","a":"a text that is longer than most","c":null}}"#)
                }
                _ => format!(r#"{{"who":"acme","at":7,"key":"k{row}","why":"{}"}}"#, row % 7),
            })
            .collect();
        let stamp = DecodeOptions {
            received: 1,
            owner: Owner::PerEvent,
            time_max: i64::MAX,
            event_bytes_max: 1_000,
            dimensions_max: 9,
        };
        let rows = decode(&contract, Format::Json, &lines.join("\n").into(), &stamp).unwrap().batch;
        assert_ne!(rows.schema_ref(), contract.schema(), "the test needs dictionary columns");
        let plain = content_hashes(&contract, &rows.to_plain().unwrap()).unwrap();
        assert_eq!(content_hashes(&contract, &rows).unwrap(), plain);
    }
}
