//! A file's statistics: bounds of its tenants, times and ids, as the JSON text that Delta keeps beside each file.
//!
//! In: exact bounds of a file's rows, or the text of any Delta writer. Out: bounds that hold every row. They are not
//! tight: long texts are cut (the greatest is bumped), and times are kept in milliseconds.
//!
//! Delta's times are milliseconds, and most writers cut the greatest time, so rows may lie past it. Ours is rounded up;
//! and whoever wrote it, a greatest time read from a log means the last microsecond of its millisecond.

use std::sync::Arc;

use chrono::{DateTime, Datelike};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::contract::{Contract, RECEIVED_TIME};
use crate::error::{Error, Result};

/// Characters of a text that are kept: an UUID or a host name fits.
const TEXT_CHARS_MAX: usize = 64;
/// Microseconds in a millisecond.
const MILLISECOND: Micros = 1_000;

/// Least and greatest value, both inclusive.
pub(in crate::lake) type Bound<T> = Option<(T, T)>;

/// What is known of a file's rows.
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

/// The columns that have statistics, in stored order.
pub(in crate::lake) fn columns(contract: &Contract) -> [&str; 4] {
    let name = |index: usize| contract.columns[index].name.as_str();
    [name(contract.tenant), name(contract.time), name(contract.id), RECEIVED_TIME]
}

/// Bounds that are kept for texts from `least` to `greatest`. None when the greatest cannot be bumped.
pub(in crate::lake) fn text_bound(least: &str, greatest: &str) -> Bound<Arc<str>> {
    let cut = match least.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => &least[..end],
        None => least,
    };
    let bumped = match greatest.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => bump(&greatest[..end])?,
        None => greatest.to_owned(),
    };
    Some((cut.into(), bumped.into()))
}

/// Bounds that are kept for times from `least` to `greatest`: whole milliseconds.
pub(in crate::lake) fn time_bound(least: Micros, greatest: Micros) -> Bound<Micros> {
    let up = greatest.checked_add(MILLISECOND - 1)?.div_euclid(MILLISECOND) * MILLISECOND;
    Some((least.div_euclid(MILLISECOND) * MILLISECOND, up.checked_add(MILLISECOND - 1)?))
}

impl FileBounds {
    /// The text for `add.stats`.
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
        serde_json::to_string(&stats).map_err(|error| Error::internal("statistics are not JSON").with_source(error))
    }

    /// Reads `add.stats` of any writer; what is missing or unreadable is unknown. `Unsupported` without a row count:
    /// counts would be wrong.
    pub(in crate::lake) fn from_json(contract: &Contract, path: &str, text: Option<&str>) -> Result<Self> {
        let stats: StatsJson = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let rows = stats.num_records.ok_or_else(|| {
            Error::unsupported(format!(
                "table `{}`: `{path}` has no row count in the log: write it again with statistics",
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

/// The least text of the same length or less that is greater than every text that starts with `prefix`.
fn bump(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// RFC 3339 with milliseconds, cut; none for a year that has no four digits.
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
    fn texts_stay_within_their_bounds() {
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
        assert_eq!(text_bound("a", &char::MAX.to_string().repeat(65)), None, "nothing is greater");
    }

    #[test]
    fn times_stay_within_their_bounds_and_come_back_the_same() {
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
    fn statistics_are_text_as_delta_has_it() {
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
    fn other_writers_statistics_are_read_with_care() {
        let read = |text: Option<&str>| FileBounds::from_json(&contract(), "f", text);
        let times = |least: &str, greatest: &str| {
            let text = format!(
                r#"{{"numRecords":1,"minValues":{{"event_time":"{least}"}},"maxValues":{{"event_time":"{greatest}"}}}}"#
            );
            read(Some(&text)).unwrap().times
        };
        assert_eq!(times("1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.002Z"), Some((1_000, 2_999)), "cut");
        assert_eq!(times("1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00.000002Z"), Some((1, 2)), "exact");
        assert_eq!(times("1970-01-01T01:00:00.000+01:00", "1970-01-01T01:00:00+01:00"), Some((0, 999)), "a zone");
        assert_eq!(times("yesterday", "1970-01-01T00:00:00.002Z"), None);
        assert_eq!(read(Some(r#"{"numRecords":1,"minValues":{"tenant_id":1}}"#)).unwrap().tenants, None);
        for text in [None, Some(""), Some("{}"), Some("[")] {
            assert!(read(text).unwrap_err().message().contains("row count"), "{text:?}");
        }
    }
}
