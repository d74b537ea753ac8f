//! File statistics: bounds of tenants, times and ids, as the JSON text in a Delta `add` action.
//!
//! In: exact bounds of a file's rows, or the text of any Delta writer. Out: bounds that include every row. They are not
//! tight: long texts are truncated (and the greatest one increased), and times have millisecond precision.
//!
//! Most Delta writers truncate the greatest time to milliseconds, so that rows may be later. We round it up when
//! writing; and when reading, the greatest time of any writer is taken as the last microsecond of its millisecond.

use std::sync::Arc;

use chrono::{DateTime, Datelike};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::contract::{Contract, RECEIVED_TIME};
use crate::error::{Error, Result};

/// The maximum length of a text bound, in characters. A UUID or a host name fits.
const TEXT_CHARS_MAX: usize = 64;
/// Microseconds in a millisecond.
const MILLISECOND: Micros = 1_000;

/// Least and greatest value, both inclusive.
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

/// The columns with statistics, in stored order.
pub(in crate::lake) fn columns(contract: &Contract) -> [&str; 4] {
    let name = |index: usize| contract.columns[index].name.as_str();
    [name(contract.tenant), name(contract.time), name(contract.id), RECEIVED_TIME]
}

/// The stored bounds of texts from `least` to `greatest`. `None` if there is no greater text of the maximum length.
pub(in crate::lake) fn text_bound(least: &str, greatest: &str) -> Bound<Arc<str>> {
    let truncated = match least.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => &least[..end],
        None => least,
    };
    let increased = match greatest.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => increase(&greatest[..end])?,
        None => greatest.to_owned(),
    };
    Some((truncated.into(), increased.into()))
}

/// The stored bounds of times from `least` to `greatest`: whole milliseconds.
pub(in crate::lake) fn time_bound(least: Micros, greatest: Micros) -> Bound<Micros> {
    let up = greatest.checked_add(MILLISECOND - 1)?.div_euclid(MILLISECOND) * MILLISECOND;
    Some((least.div_euclid(MILLISECOND) * MILLISECOND, up.checked_add(MILLISECOND - 1)?))
}

impl FileBounds {
    /// The JSON text for `add.stats`.
    pub(in crate::lake) fn to_json(&self, contract: &Contract) -> Result<String> {
        let [tenant, time, id, received] = columns(contract);
        let mut stats = StatsJson { num_records: Some(self.rows), ..StatsJson::default() };
        let texts = [(tenant, &self.tenants), (id, &self.ids)].into_iter().filter_map(|(column, bound)| {
            let (least, greatest) = bound.as_ref()?;
            Some((column, least.to_string(), greatest.to_string()))
        });
        let times = [(time, &self.times), (received, &self.received)].into_iter().filter_map(|(column, bound)| {
            let (least, greatest) = (*bound)?;
            Some((column, time_text(least)?, time_text(greatest)?))
        });
        for (column, least, greatest) in texts.chain(times) {
            stats.min_values.insert(column.to_owned(), least.into());
            stats.max_values.insert(column.to_owned(), greatest.into());
        }
        for column in columns(contract) {
            stats.null_count.insert(column.to_owned(), 0.into());
        }
        serde_json::to_string(&stats)
            .map_err(|error| Error::internal("statistics cannot be written as JSON").with_source(error))
    }

    /// Parses `add.stats` of any writer; missing or invalid bounds are unknown. `Unsupported` without a row count,
    /// because counts would be wrong.
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
            tenants: read_texts(&stats, tenant),
            times: read_times(&stats, time),
            ids: read_texts(&stats, id),
            received: read_times(&stats, received),
        })
    }
}

/// The least text, not longer than `prefix`, that is greater than every text that starts with `prefix`.
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

/// RFC 3339 truncated to milliseconds; `None` for a year without four digits.
fn time_text(time: Micros) -> Option<String> {
    let time = DateTime::from_timestamp_micros(time)?;
    (0..=9999).contains(&time.year()).then(|| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn read_texts(stats: &StatsJson, column: &str) -> Bound<Arc<str>> {
    Some((stats.min_values.get(column)?.as_str()?.into(), stats.max_values.get(column)?.as_str()?.into()))
}

fn read_times(stats: &StatsJson, column: &str) -> Bound<Micros> {
    let read = |value: &Value| Some(DateTime::parse_from_rfc3339(value.as_str()?).ok()?.timestamp_micros());
    let (least, greatest) = (read(stats.min_values.get(column)?)?, read(stats.max_values.get(column)?)?);
    let open = greatest.rem_euclid(MILLISECOND) == 0;
    Some((least, if open { greatest.checked_add(MILLISECOND - 1)? } else { greatest }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::tests::contract;

    #[test]
    fn text_bounds_include_every_text() {
        let long = |last: char| format!("{}{last}tail", "x".repeat(TEXT_CHARS_MAX - 1));
        for (least, greatest) in [
            ("acme".to_owned(), "zeta".to_owned()),
            (String::new(), long('a')),
            (long('a'), long('é')),
            (long('a'), long('\u{d7ff}')),
            (long('a'), long(char::MAX)),
            ("ü".repeat(65), "\u{10ffff}".repeat(63) + "ab"),
        ] {
            let (low, high) = text_bound(&least, &greatest).unwrap();
            assert!(*low <= *least && *high >= *greatest, "{low} {high}");
            assert!(low.chars().count() <= TEXT_CHARS_MAX && high.chars().count() <= TEXT_CHARS_MAX);
        }
        assert_eq!(text_bound("a", &char::MAX.to_string().repeat(65)), None, "no text is greater");
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
                FileBounds { rows: 7, times, received: times, ids: text_bound("a", "b"), ..FileBounds::default() };
            let text = bounds.to_json(&contract()).unwrap();
            assert_eq!(FileBounds::from_json(&contract(), "f", Some(&text)).unwrap(), bounds, "{text}");
        }
        assert_eq!(time_bound(0, Micros::MAX), None);
    }

    #[test]
    fn statistics_follow_the_delta_format() {
        let bounds = FileBounds {
            rows: 2,
            tenants: text_bound("acme", "zeta"),
            times: time_bound(1_700_000_000_000_001, 1_700_000_000_123_456),
            ids: text_bound("a", "b"),
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
