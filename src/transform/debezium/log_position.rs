//! The order and the id of a change, which are derived from its position in the log of the database.
//!
//! The order is a text. Of two changes to the same row, the later one has the greater text, compared byte by byte. All
//! numbers are padded with zeros.
//!
//! | connector | order |
//! |---|---|
//! | PostgreSQL | the end of the previous transaction, the kind, the LSN |
//! | MySQL, MariaDB | the number of the binlog file, the position in the file, the kind, the row of the event |
//! | SQL Server | the commit LSN, the kind, the change LSN, the serial number of the event |
//! | MongoDB | the seconds and the ordinal of the cluster time, the kind, the offset in Kafka |
//! | others | the offset in Kafka |
//!
//! The kind is 0 for a row of a snapshot and 1 for a change. A snapshot reads a row at a position of the log. Changes
//! at this position come after the snapshot has read the row, so they are greater.
//!
//! PostgreSQL sends transactions in the order in which they end, but the LSN of a change is its place in the log, which
//! may be before the end of an earlier transaction. If a row of a snapshot were compared by LSN, it could hide a change
//! whose transaction was open during the snapshot. Debezium's `sequence` contains the end of the previous transaction,
//! which is null until one has ended.
//!
//! A transaction of MongoDB may change a document several times at one cluster time, so the offset in Kafka decides.
//! Debezium sends all changes of a key to one partition.
//!
//! The id is a hash of the position, the key and the rows. Debezium sends changes again after a crash, with the same
//! position, key and rows. The hash contains the key because several rows may share a position: the rows of a snapshot,
//! the rows of one `COPY`, and the two changes to which Debezium converts a changed key.
//!
//! **Invariant:** the order and the id are never null. The order and the id of a change that is sent again are
//! unchanged, except for the offset in Kafka.

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::change_event::ChangeEvent;
use super::object_fields::ObjectFields;
use crate::sql::functions::json_path::{int, text};
use crate::transform::Message;

/// The position of a change in the log of its database.
#[derive(Debug, PartialEq, Eq)]
enum LogPosition {
    Postgres { previous_commit: Option<u64>, lsn: u64 },
    Binlog { file: u32, position: u64, row: u32 },
    SqlServer { commit: String, change: Option<String>, serial: u32 },
    Mongo { seconds: u32, ordinal: u32 },
}

/// The fields of `source` that identify the table. They are part of every id.
const TABLE_FIELDS: [&str; 6] = ["connector", "name", "db", "schema", "table", "collection"];
/// The LSN of a SQL Server change that has no change LSN.
const ZERO_LSN: &str = "00000000:00000000:0000";
/// The number of hexadecimal digits in each part of a SQL Server LSN.
const LSN_DIGITS: [usize; 3] = [8, 8, 4];

impl ChangeEvent<'_> {
    /// Returns a text that orders the changes of a row.
    pub(in crate::transform) fn order(&self, message: &Message<'_>) -> String {
        let kind = if self.is_snapshot() { 0 } else { 1 };
        let offset = message.offset;
        match LogPosition::of(&self.source_fields) {
            Some(LogPosition::Postgres { previous_commit, lsn }) => {
                format!("{:020}-{kind}-{lsn:020}", previous_commit.unwrap_or(lsn))
            }
            Some(LogPosition::Binlog { file, position, row }) => format!("{file:010}-{position:020}-{kind}-{row:010}"),
            Some(LogPosition::SqlServer { commit, change, serial }) => {
                format!("{commit}-{kind}-{}-{serial:010}", change.as_deref().unwrap_or(ZERO_LSN))
            }
            Some(LogPosition::Mongo { seconds, ordinal }) => {
                format!("{seconds:010}-{ordinal:010}-{kind}-{offset:020}")
            }
            None => format!("{offset:020}"),
        }
    }

    /// Returns a text that identifies the change.
    pub(in crate::transform) fn id(&self, message: &Message<'_>) -> String {
        let (fields, mut id) = (&self.source_fields, IdHasher::default());
        let position_fields: &[&str] = match LogPosition::of(fields) {
            Some(LogPosition::Postgres { .. }) => &["lsn", "txId"],
            Some(LogPosition::Binlog { .. }) => &["file", "pos", "row"],
            Some(LogPosition::SqlServer { .. }) => &["commit_lsn", "change_lsn", "event_serial_no"],
            Some(LogPosition::Mongo { .. }) => &["ts_ms", "ord", "lsid", "txnNumber"],
            None => &[],
        };
        TABLE_FIELDS.iter().chain(position_fields).for_each(|field| id.add(fields.get(field).map(str::as_bytes)));
        if fields.0.is_empty() {
            id.add(Some(message.topic.as_bytes()));
            id.add(Some(&message.partition.to_be_bytes()));
            id.add(Some(&message.offset.to_be_bytes()));
        } else if position_fields.is_empty() {
            // The position of a connector that this module does not know is somewhere in `source`.
            for (name, value) in fields.0.iter().filter(|(name, _)| name != "version") {
                id.add(Some(name.as_bytes()));
                id.add(Some(value.as_bytes()));
            }
        }
        let raw = |value: Option<&RawValue>| value.map(|value| value.get().as_bytes().to_vec());
        let envelope = &self.envelope;
        id.add(Some(self.op.as_bytes()));
        id.add(message.key);
        for value in [envelope.before, envelope.after, envelope.update_description] {
            id.add(raw(value).as_deref());
        }
        id.finish()
    }

    /// Returns true if a snapshot read the row. Older connectors send such rows as created rows.
    fn is_snapshot(&self) -> bool {
        let stated = self.source_fields.get("snapshot").and_then(text);
        self.op == "r" || stated.is_some_and(|stated| stated != "false")
    }
}

impl LogPosition {
    /// Returns the position, or `None` if the connector is unknown or a field is missing.
    fn of(fields: &ObjectFields<'_>) -> Option<Self> {
        let number = |key: &str| fields.get(key).and_then(int);
        match &*text(fields.get("connector")?)? {
            "postgresql" => Some(Self::Postgres {
                previous_commit: fields.get("sequence").and_then(previous_commit),
                lsn: u64::try_from(number("lsn")?).ok()?,
            }),
            "mysql" | "mariadb" => Some(Self::Binlog {
                file: text(fields.get("file")?)?.rsplit('.').next()?.parse().ok()?,
                position: u64::try_from(number("pos")?).ok()?,
                row: u32::try_from(number("row").unwrap_or(0)).ok()?,
            }),
            "sqlserver" => Some(Self::SqlServer {
                commit: sql_server_lsn(fields.get("commit_lsn")?)?,
                change: fields.get("change_lsn").and_then(sql_server_lsn),
                serial: u32::try_from(number("event_serial_no").unwrap_or(0)).ok()?,
            }),
            "mongodb" => Some(Self::Mongo {
                seconds: u32::try_from(number("ts_ms")? / 1_000).ok().filter(|seconds| *seconds > 0)?,
                ordinal: u32::try_from(number("ord")?).ok()?,
            }),
            _ => None,
        }
    }
}

/// Hashes a sequence of values. No two different sequences are hashed as the same bytes.
#[derive(Default)]
struct IdHasher(Sha256);

impl IdHasher {
    fn add(&mut self, value: Option<&[u8]>) {
        let length = value.map_or(u64::MAX, |value| value.len() as u64);
        self.0.update(length.to_be_bytes());
        self.0.update(value.unwrap_or_default());
    }

    /// Returns the first 128 bits of the hash as hexadecimal digits.
    fn finish(self) -> String {
        let hash = self.0.finalize();
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns the end of the previous transaction from Debezium's `sequence`, which is a string such as `"[\"7\",\"9\"]"`.
fn previous_commit(sequence: &str) -> Option<u64> {
    let list: Vec<Option<String>> = serde_json::from_str(&text(sequence)?).ok()?;
    list.into_iter().next()??.parse().ok()
}

/// Returns an LSN such as `"00000027:00000758:0005"` with its parts padded to a fixed width.
fn sql_server_lsn(value: &str) -> Option<String> {
    let text = text(value)?.to_ascii_lowercase();
    let parts: Vec<&str> = text.split(':').collect();
    let is_part = |(part, digits): (&&str, &usize)| {
        (1..=*digits).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if parts.len() != LSN_DIGITS.len() || !parts.iter().zip(&LSN_DIGITS).all(is_part) {
        return None;
    }
    Some(format!("{:0>8}:{:0>8}:{:0>4}", parts[0], parts[1], parts[2]))
}
