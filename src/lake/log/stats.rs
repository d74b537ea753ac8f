//! File statistics: the bounds of tenant ids, times and event ids. They are stored as JSON text in a Delta `add`
//! action.
//!
//! Writes a file's bounds as JSON, and reads bounds from JSON that any Delta writer may have written. Bounds include
//! every row of the file, but they need not be tight. Long strings are truncated, and a truncated upper bound is
//! increased so that it remains an upper bound. Times have millisecond precision.
//!
//! Most Delta writers truncate the latest time to milliseconds, so some rows may be later than the stored bound. When
//! we write the latest time, we therefore round it up. When we read a latest time without microseconds, we interpret it
//! as the last microsecond of its millisecond.

use std::sync::Arc;

use chrono::{DateTime, Datelike};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::contract::{Contract, RECEIVED_TIME};
use crate::error::{Error, Result};

/// The maximum length of a string bound, in characters. UUIDs and most host names fit.
const STRING_CHARS_MAX: usize = 64;
/// The number of microseconds in a millisecond.
const MILLISECOND: Micros = 1_000;

/// The smallest and the largest value, both inclusive. `None` if the values are unknown.
pub(in crate::lake) type Bound<T> = Option<(T, T)>;

/// The row count and bounds of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::lake) struct FileBounds {
    pub(in crate::lake) rows: u64,
    pub(in crate::lake) tenants: Bound<Arc<str>>,
    pub(in crate::lake) times: Bound<Micros>,
    pub(in crate::lake) ids: Bound<Arc<str>>,
    pub(in crate::lake) received: Bound<Micros>,
}

/// The JSON of `add.stats`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatsJson {
    num_records: Option<u64>,
    min_values: Map<String, Value>,
    max_values: Map<String, Value>,
    null_count: Map<String, Value>,
}

/// Returns the columns that have statistics: tenant, event time, event id and receive time.
pub(in crate::lake) fn columns(contract: &Contract) -> [&str; 4] {
    let name = |index: usize| contract.columns[index].name.as_str();
    [name(contract.tenant), name(contract.time), name(contract.id), RECEIVED_TIME]
}

/// Returns the bounds to store for a column whose smallest string is `least` and whose greatest string is `greatest`.
/// Returns `None` if no string of at most the maximum length is an upper bound.
pub(in crate::lake) fn string_bound(least: &str, greatest: &str) -> Bound<Arc<str>> {
    let truncated = match least.char_indices().nth(STRING_CHARS_MAX) {
        Some((end, _)) => &least[..end],
        None => least,
    };
    let increased = match greatest.char_indices().nth(STRING_CHARS_MAX) {
        Some((end, _)) => increase(&greatest[..end])?,
        None => greatest.to_owned(),
    };
    Some((truncated.into(), increased.into()))
}

/// Returns the bounds to store for times from `least` to `greatest`, widened to whole milliseconds.
pub(in crate::lake) fn time_bound(least: Micros, greatest: Micros) -> Bound<Micros> {
    let up = greatest.checked_add(MILLISECOND - 1)?.div_euclid(MILLISECOND) * MILLISECOND;
    Some((least.div_euclid(MILLISECOND) * MILLISECOND, up.checked_add(MILLISECOND - 1)?))
}

impl FileBounds {
    /// Returns the JSON text for `add.stats`.
    pub(in crate::lake) fn to_json(&self, contract: &Contract) -> Result<String> {
        let [tenant, time, id, received] = columns(contract);
        let mut stats = StatsJson { num_records: Some(self.rows), ..StatsJson::default() };
        let strings = [(tenant, &self.tenants), (id, &self.ids)].into_iter().filter_map(|(column, bound)| {
            let (least, greatest) = bound.as_ref()?;
            Some((column, least.to_string(), greatest.to_string()))
        });
        let times = [(time, &self.times), (received, &self.received)].into_iter().filter_map(|(column, bound)| {
            let (least, greatest) = (*bound)?;
            Some((column, time_text(least)?, time_text(greatest)?))
        });
        for (column, least, greatest) in strings.chain(times) {
            stats.min_values.insert(column.to_owned(), least.into());
            stats.max_values.insert(column.to_owned(), greatest.into());
        }
        for column in columns(contract) {
            stats.null_count.insert(column.to_owned(), 0.into());
        }
        serde_json::to_string(&stats)
            .map_err(|error| Error::internal("statistics cannot be written as JSON").with_source(error))
    }

    /// Parses `add.stats`, which any Delta writer may have written. Missing or invalid bounds are treated as unknown.
    /// Returns `Unsupported` if there is no row count, because the table's row count cannot be computed without it.
    pub(in crate::lake) fn from_json(contract: &Contract, path: &str, text: Option<&str>) -> Result<Self> {
        let stats: StatsJson = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let rows = stats.num_records.ok_or_else(|| {
            Error::unsupported(format!(
                "table `{}`: file `{path}` has no row count in the log: rewrite it with statistics",
                contract.name
            ))
        })?;
        let [tenant, time, id, received] = columns(contract);
        Ok(Self {
            rows,
            tenants: read_strings(&stats, tenant),
            times: read_times(&stats, time),
            ids: read_strings(&stats, id),
            received: read_times(&stats, received),
        })
    }
}

/// Returns the smallest string that is greater than every string with the given prefix. The result is not longer than
/// the prefix. Returns `None` if there is no such string.
fn increase(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// Formats a time as RFC 3339, truncated to milliseconds. Returns `None` if the year does not have four digits.
fn time_text(time: Micros) -> Option<String> {
    let time = DateTime::from_timestamp_micros(time)?;
    (0..=9999).contains(&time.year()).then(|| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn read_strings(stats: &StatsJson, column: &str) -> Bound<Arc<str>> {
    Some((stats.min_values.get(column)?.as_str()?.into(), stats.max_values.get(column)?.as_str()?.into()))
}

fn read_times(stats: &StatsJson, column: &str) -> Bound<Micros> {
    let read = |value: &Value| Some(DateTime::parse_from_rfc3339(value.as_str()?).ok()?.timestamp_micros());
    let (least, greatest) = (read(stats.min_values.get(column)?)?, read(stats.max_values.get(column)?)?);
    let may_be_truncated = greatest.rem_euclid(MILLISECOND) == 0;
    Some((least, if may_be_truncated { greatest.checked_add(MILLISECOND - 1)? } else { greatest }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::tests::contract;

    #[test]
    fn string_bounds_include_every_string() {
        let long = |last: char| format!("{}{last}tail", "x".repeat(STRING_CHARS_MAX - 1));
        for (least, greatest) in [
            ("acme".to_owned(), "zeta".to_owned()),
            (String::new(), long('a')),
            (long('a'), long('é')),
            (long('a'), long('\u{d7ff}')),
            (long('a'), long(char::MAX)),
            ("ü".repeat(65), "\u{10ffff}".repeat(63) + "ab"),
        ] {
            let (low, high) = string_bound(&least, &greatest).unwrap();
            assert!(*low <= *least && *high >= *greatest, "{low} {high}");
            assert!(low.chars().count() <= STRING_CHARS_MAX && high.chars().count() <= STRING_CHARS_MAX);
        }
        assert_eq!(string_bound("a", &char::MAX.to_string().repeat(65)), None, "no string is greater");
    }

    #[test]
    fn time_bounds_include_every_time_and_round_trip() {
        for (least, greatest) in
            [(0, 0), (1, 999), (-1_500, -1), (-999, 1_001), (1_700_000_000_000_001, 1_700_000_000_123_456)]
        {
            let times = time_bound(least, greatest);
            let (low, high) = times.unwrap();
            assert!(low <= least && high >= greatest && high - greatest < 2 * MILLISECOND, "{low} {high}");
            let bounds =
                FileBounds { rows: 7, times, received: times, ids: string_bound("a", "b"), ..FileBounds::default() };
            let text = bounds.to_json(&contract()).unwrap();
            assert_eq!(FileBounds::from_json(&contract(), "f", Some(&text)).unwrap(), bounds, "{text}");
        }
        assert_eq!(time_bound(0, Micros::MAX), None);
    }

    #[test]
    fn statistics_follow_the_delta_format() {
        let bounds = FileBounds {
            rows: 2,
            tenants: string_bound("acme", "zeta"),
            times: time_bound(1_700_000_000_000_001, 1_700_000_000_123_456),
            ids: string_bound("a", "b"),
            received: None,
        };
        let found: Value = serde_json::from_str(&bounds.to_json(&contract()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "numRecords": 2,
            "minValues": { "tenant_id": "acme", "event_time": "2023-11-14T22:13:20.000Z", "event_id": "a" },
            "maxValues": { "tenant_id": "zeta", "event_time": "2023-11-14T22:13:20.124Z", "event_id": "b" },
            "nullCount": { "tenant_id": 0, "event_time": 0, "event_id": 0, "received_time": 0 },
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn statistics_of_other_writers_are_widened_or_ignored() {
        let read = |text: Option<&str>| FileBounds::from_json(&contract(), "f", text);
        let times = |least: &str, greatest: &str| {
            let text = format!(
                r#"{{"numRecords":1,"minValues":{{"event_time":"{least}"}},"maxValues":{{"event_time":"{greatest}"}}}}"#
            );
            read(Some(&text)).unwrap().times
        };
        assert_eq!(times("1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.002Z"), Some((1_000, 2_999)), "truncated");
        assert_eq!(times("1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00.000002Z"), Some((1, 2)), "exact");
        assert_eq!(times("1970-01-01T01:00:00.000+01:00", "1970-01-01T01:00:00+01:00"), Some((0, 999)), "a zone");
        assert_eq!(times("yesterday", "1970-01-01T00:00:00.002Z"), None);
        assert_eq!(read(Some(r#"{"numRecords":1,"minValues":{"tenant_id":1}}"#)).unwrap().tenants, None);
        for text in [None, Some(""), Some("{}"), Some("[")] {
            assert!(read(text).unwrap_err().message().contains("row count"), "{text:?}");
        }
    }
}
