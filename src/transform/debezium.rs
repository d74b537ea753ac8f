//! Parses database changes in Debezium's envelope, as Kafka Connect's JSON converter writes them.
//!
//! The input is the JSON of a message, with or without the converter's wrapper (`{"schema": …, "payload": …}`). The
//! result is a [`ChangeEvent`], `None` for a tombstone, or an error message.
//!
//! The documentation of Debezium's connectors describes the format under "data change events".

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json_path::{Step, find, int};
use crate::clock::Micros;

/// A change to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChangeEvent<'a> {
    /// The operation: `c` for create, `u` for update, `d` for delete, `r` for read (a snapshot), `t` for truncate, `m`
    /// for message.
    pub(super) op: Cow<'a, str>,
    /// The row before the change, as JSON.
    pub(super) before: Option<&'a str>,
    /// The row after the change, as JSON.
    pub(super) after: Option<&'a str>,
    /// The origin of the change (table, position and time), as JSON.
    pub(super) source: Option<&'a str>,
}

/// The fields of Debezium's envelope that [`ChangeEvent`] contains. All other fields are ignored.
#[derive(Deserialize)]
struct Envelope<'a> {
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
    /// Parses a change event, which must be valid JSON. Returns `None` for a tombstone, a message that makes Kafka
    /// delete all older messages with the same key.
    pub(super) fn parse(json: &'a str) -> Result<Option<Self>, String> {
        if json.trim() == "null" {
            return Ok(None);
        }
        let mut envelope = Envelope::parse(json, "")?;
        if envelope.op.is_none() {
            match find(json, &[Step::Key("payload")]) {
                Some("null") => return Ok(None),
                Some(payload) => envelope = Envelope::parse(payload, " of `payload`")?,
                None => {}
            }
        }
        let op = envelope.op.ok_or("the message is not a Debezium change event: it has no `op`")?;
        Ok(Some(Self {
            op,
            before: object_field("before", envelope.before)?,
            after: object_field("after", envelope.after)?,
            source: object_field("source", envelope.source)?,
        }))
    }

    /// Returns true if the change deletes the row.
    pub(super) fn is_delete(&self) -> bool {
        self.op == "d"
    }

    /// Returns the row after the change, or the row before it if the change is a delete.
    pub(super) fn row(&self) -> Option<&'a str> {
        if self.is_delete() { self.before } else { self.after }
    }

    /// Returns the position in the database's log, which is PostgreSQL's LSN or the offset in MySQL's binary log.
    pub(super) fn position(&self) -> Option<i64> {
        self.number("lsn").or_else(|| self.number("pos"))
    }

    /// Returns the time at which the change was made in the database.
    pub(super) fn changed(&self) -> Option<Micros> {
        let nanos = || self.number("ts_ns").map(|nanos| nanos / 1_000);
        let millis = || self.number("ts_ms").and_then(|millis| millis.checked_mul(1_000));
        self.number("ts_us").or_else(nanos).or_else(millis)
    }

    fn number(&self, key: &str) -> Option<i64> {
        find(self.source?, &[Step::Key(key)]).and_then(int)
    }
}

impl<'a> Envelope<'a> {
    /// Parses an envelope. `of_what` follows the position in the error message.
    fn parse(json: &'a str, of_what: &str) -> Result<Self, String> {
        if !json.trim_start().starts_with('{') {
            return Err("the message is not a Debezium change event: it is not an object".to_owned());
        }
        serde_json::from_str(json)
            .map_err(|error| format!("the message is not a Debezium change event: {error}{of_what}"))
    }
}

fn object_field<'a>(name: &str, value: Option<&'a RawValue>) -> Result<Option<&'a str>, String> {
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
    fn changes_are_parsed_with_and_without_the_wrapper() {
        let plain = r#"{"before":{"id":1},"after":{"id":1,"n":"x"},
            "source":{"lsn":77,"ts_ms":1772366400123,"ts_us":1772366400123456,"snapshot":"false"},"op":"u","ts_ms":5}"#;
        let wrapped = format!("{{\"schema\":{{\"type\":\"struct\"}},\"payload\":{plain}}}");
        for json in [plain, &wrapped] {
            let change = ChangeEvent::parse(json).unwrap().unwrap();
            assert_eq!((&*change.op, change.is_delete()), ("u", false));
            assert_eq!((change.row(), change.before), (Some("{\"id\":1,\"n\":\"x\"}"), Some("{\"id\":1}")));
            assert_eq!((change.position(), change.changed()), (Some(77), Some(1_772_366_400_123_456)));
        }
    }

    #[test]
    fn the_row_of_a_delete_is_the_row_before_it() {
        let json = r#"{"op":"d","before":{"id":1},"after":null,"source":{"pos":9,"ts_ms":3}}"#;
        let change = ChangeEvent::parse(json).unwrap().unwrap();
        assert_eq!((change.is_delete(), change.row(), change.after), (true, Some("{\"id\":1}"), None));
        assert_eq!((change.position(), change.changed()), (Some(9), Some(3_000)));
        let bare = ChangeEvent::parse(r#"{"op":"t","source":{"ts_ns":4999}}"#).unwrap().unwrap();
        assert_eq!((bare.row(), bare.position(), bare.changed()), (None, None, Some(4)));
    }

    #[test]
    fn tombstones_are_skipped_and_other_messages_are_errors() {
        for json in ["null", " null ", r#"{"schema":null,"payload":null}"#, r#"{"payload":null}"#] {
            assert_eq!(ChangeEvent::parse(json), Ok(None), "{json}");
        }
        let cases = [
            ("{}", "no `op`"),
            ("[]", "not an object"),
            ("12", "not an object"),
            (r#"{"payload":{"a":1}}"#, "no `op`"),
            (r#"{"payload":7}"#, "not an object"),
            (r#"{"op":7}"#, "invalid type"),
            (r#"{"schema":null,"payload":{"op":7}}"#, "at line 1 column 7 of `payload`"),
            (r#"{"op":"c","after":[1]}"#, "`after` is not an object"),
            (r#"{"op":"c","op":"d"}"#, "duplicate field"),
        ];
        for (json, expected) in cases {
            let error = ChangeEvent::parse(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
