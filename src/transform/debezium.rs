//! Debezium's envelope: a database change as Debezium's JSON converter writes it to Kafka.
//!
//! In: a message's JSON, with the converter's wrapper (`{"schema": …, "payload": …}`) or without it. Out: a [`ChangeEvent`],
//! `None` for a tombstone, or a text that describes the fault.
//!
//! Source: Debezium's documentation of its connectors, "data change events".

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json_path::{Step, find, int};
use crate::clock::Micros;

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChangeEvent<'a> {
    /// `c` created, `u` updated, `d` deleted, `r` read by a snapshot, `t` truncated, `m` a message.
    pub(super) op: Cow<'a, str>,
    /// The row before it, as JSON.
    pub(super) before: Option<&'a str>,
    /// The row after it, as JSON.
    pub(super) after: Option<&'a str>,
    /// Where in the database it happened, as JSON.
    pub(super) source: Option<&'a str>,
}

/// The fields of an envelope that are used.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow, default)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
}

impl<'a> ChangeEvent<'a> {
    /// Reads a valid JSON text. `None` is a tombstone: a message whose only purpose is that Kafka drops a key.
    pub(super) fn read(json: &'a str) -> Result<Option<Self>, String> {
        if json.trim() == "null" {
            return Ok(None);
        }
        let mut parts = Parts::read(json)?;
        if parts.op.is_none() {
            match find(json, &[Step::Key("payload")]) {
                Some("null") => return Ok(None),
                Some(payload) => parts = Parts::read(payload)?,
                None => {}
            }
        }
        let op = parts.op.ok_or("the message is not a Debezium change event: it has no `op`")?;
        Ok(Some(Self {
            op,
            before: object("before", parts.before)?,
            after: object("after", parts.after)?,
            source: object("source", parts.source)?,
        }))
    }

    /// Whether the change deletes the row.
    pub(super) fn is_delete(&self) -> bool {
        self.op == "d"
    }

    /// The row after the change; for a delete, the row before it.
    pub(super) fn row(&self) -> Option<&'a str> {
        if self.is_delete() { self.before } else { self.after }
    }

    /// The position in the database's log: PostgreSQL's LSN, or the offset in a binary log.
    pub(super) fn position(&self) -> Option<i64> {
        self.number("lsn").or_else(|| self.number("pos"))
    }

    /// The time of the change in the database.
    pub(super) fn changed(&self) -> Option<Micros> {
        let nanos = || self.number("ts_ns").map(|nanos| nanos / 1_000);
        let millis = || self.number("ts_ms").and_then(|millis| millis.checked_mul(1_000));
        self.number("ts_us").or_else(nanos).or_else(millis)
    }

    fn number(&self, key: &str) -> Option<i64> {
        find(self.source?, &[Step::Key(key)]).and_then(int)
    }
}

impl<'a> Parts<'a> {
    fn read(json: &'a str) -> Result<Self, String> {
        if !json.trim_start().starts_with('{') {
            return Err("the message is not a Debezium change event: it is not an object".to_owned());
        }
        serde_json::from_str(json).map_err(|fault| format!("the message is not a Debezium change event: {fault}"))
    }
}

fn object<'a>(name: &str, value: Option<&'a RawValue>) -> Result<Option<&'a str>, String> {
    match value.map(RawValue::get) {
        Some(text) if !text.starts_with('{') => {
            Err(format!("the message is not a Debezium change event: `{name}` is not an object"))
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_with_and_without_their_wrapper() {
        let plain = r#"{"before":{"id":1},"after":{"id":1,"n":"x"},
            "source":{"lsn":77,"ts_ms":1772366400123,"ts_us":1772366400123456,"snapshot":"false"},"op":"u","ts_ms":5}"#;
        let wrapped = format!("{{\"schema\":{{\"type\":\"struct\"}},\"payload\":{plain}}}");
        for json in [plain, &wrapped] {
            let change = ChangeEvent::read(json).unwrap().unwrap();
            assert_eq!((&*change.op, change.is_delete()), ("u", false));
            assert_eq!((change.row(), change.before), (Some("{\"id\":1,\"n\":\"x\"}"), Some("{\"id\":1}")));
            assert_eq!((change.position(), change.changed()), (Some(77), Some(1_772_366_400_123_456)));
        }
    }

    #[test]
    fn a_delete_shows_what_was_there() {
        let json = r#"{"op":"d","before":{"id":1},"after":null,"source":{"pos":9,"ts_ms":3}}"#;
        let change = ChangeEvent::read(json).unwrap().unwrap();
        assert_eq!((change.is_delete(), change.row(), change.after), (true, Some("{\"id\":1}"), None));
        assert_eq!((change.position(), change.changed()), (Some(9), Some(3_000)));
        let bare = ChangeEvent::read(r#"{"op":"t","source":{"ts_ns":4999}}"#).unwrap().unwrap();
        assert_eq!((bare.row(), bare.position(), bare.changed()), (None, None, Some(4)));
    }

    #[test]
    fn tombstones_say_nothing_and_all_else_is_refused() {
        for json in ["null", " null ", r#"{"schema":null,"payload":null}"#, r#"{"payload":null}"#] {
            assert_eq!(ChangeEvent::read(json), Ok(None), "{json}");
        }
        let cases = [
            ("{}", "no `op`"),
            ("[]", "not an object"),
            ("12", "not an object"),
            (r#"{"payload":{"a":1}}"#, "no `op`"),
            (r#"{"payload":7}"#, "not an object"),
            (r#"{"op":7}"#, "invalid type"),
            (r#"{"op":"c","after":[1]}"#, "`after` is not an object"),
            (r#"{"op":"c","op":"d"}"#, "duplicate field"),
        ];
        for (json, expected) in cases {
            let fault = ChangeEvent::read(json).unwrap_err();
            assert!(fault.contains(expected), "{json}: {fault}");
        }
    }
}
