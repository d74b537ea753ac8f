//! The Delta log of one table: puts entries conditionally, reads single entries, and lists the log when a table is
//! loaded.
//!
//! Encodes and decodes `_delta_log/<version>.json`, one action per line, as specified by the Delta protocol
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md>).
//!
//! **Invariant:** an entry is written only if its version has no entry yet, and a written entry is never changed. Two
//! writers therefore never commit the same version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::store::client::{Store, store_error};

/// The name of the log folder in a table's folder.
const FOLDER: &str = "_delta_log";
/// The name of the file that points to the newest checkpoint.
const HINT: &str = "_last_checkpoint";

/// The name of an operation that deletes rows, as all Delta writers use it.
pub(in crate::lake) const DELETE: &str = "DELETE";

/// One line of a log entry. Exactly one field is set, except for an unknown action, which leaves all fields unset.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ActionLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_info: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_data: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add: Option<Add>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remove: Option<Remove>,
}

/// The protocol versions that readers and writers must support.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lake) struct Protocol {
    pub(in crate::lake) min_reader_version: u32,
    pub(in crate::lake) min_writer_version: u32,
}

/// The table's metadata. Unknown fields are preserved when the metadata is changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lake) struct Metadata {
    pub(in crate::lake) schema_string: String,
    #[serde(default)]
    pub(in crate::lake) partition_columns: Vec<String>,
    #[serde(flatten)]
    pub(in crate::lake) rest: Map<String, Value>,
}

/// An application transaction: the progress of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lake) struct Txn {
    pub(in crate::lake) app_id: String,
    pub(in crate::lake) version: i64,
}

/// A file that this version adds to the table. `path` is percent-encoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lake) struct Add {
    pub(in crate::lake) path: String,
    pub(in crate::lake) partition_values: BTreeMap<String, Option<String>>,
    pub(in crate::lake) size: u64,
    pub(in crate::lake) modification_time: i64,
    pub(in crate::lake) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::lake) stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::lake) deletion_vector: Option<Value>,
}

/// A file that this version removes from the table. `path` is percent-encoded. Other writers may omit all fields except
/// the path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lake) struct Remove {
    pub(in crate::lake) path: String,
    /// The time of the removal, in milliseconds since 1970. Without this field, other tools take the file for one that
    /// was removed in 1970, and delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::lake) deletion_timestamp: Option<i64>,
    /// False if the same version adds the file's rows in other files.
    #[serde(default = "changes_data")]
    pub(in crate::lake) data_change: bool,
    /// True if the partition values and the size are present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::lake) extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::lake) partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::lake) size: Option<i64>,
}

/// The value of `dataChange` if a writer omits it: the safe assumption is that rows have changed.
fn changes_data() -> bool {
    true
}

/// All actions of one version.
#[derive(Debug, Default, PartialEq)]
pub(in crate::lake) struct LogEntry {
    /// The unique id that the writer gave to the entry, or `None` if the entry has no such id.
    pub(in crate::lake) operation: Option<String>,
    /// True if the writer says that the entry only deletes rows. The files that it adds then have the remaining rows of
    /// the files that it removes.
    pub(in crate::lake) is_delete: bool,
    pub(in crate::lake) protocol: Option<Protocol>,
    pub(in crate::lake) metadata: Option<Metadata>,
    pub(in crate::lake) txns: Vec<Txn>,
    pub(in crate::lake) adds: Vec<Add>,
    pub(in crate::lake) removes: Vec<Remove>,
}

/// The result of a conditional put.
#[derive(Debug)]
pub(in crate::lake) enum PutOutcome {
    /// The entry was written.
    Written,
    /// The version already has an entry. If the client retried a put, the existing entry may be the one that this put
    /// wrote.
    Taken,
    /// The put failed without a clear result. The entry may have been written, may be written later, or may never be
    /// written.
    InDoubt(Error),
}

/// The log's entries and checkpoints from a given version onwards.
#[derive(Debug, Default)]
pub(in crate::lake) struct LogListing {
    /// The complete checkpoints and their files, by version.
    pub(in crate::lake) checkpoints: BTreeMap<u64, Vec<ObjectMeta>>,
    /// The versions that have a log entry.
    pub(in crate::lake) entries: BTreeSet<u64>,
}

/// The log of one table.
#[derive(Debug, Clone)]
pub(in crate::lake) struct Log {
    objects: Arc<dyn ObjectStore>,
    folder: Path,
}

impl LogEntry {
    /// Encodes the entry as JSON, one action per line. The encoded entry contains the `operation` id, so that the
    /// writer can recognize its own entry when it reads the entry back.
    pub(in crate::lake) fn encode(self, operation: Uuid, kind: &str, parameters: Value, now_ms: i64) -> Result<Bytes> {
        let info = json!({
            "timestamp": now_ms,
            "operation": kind,
            "operationParameters": parameters,
            "isBlindAppend": kind == "WRITE" && self.removes.is_empty(),
            "engineInfo": concat!("glasshouse/", env!("CARGO_PKG_VERSION")),
            "txnId": operation.to_string(),
        });
        let lines = [ActionLine { commit_info: Some(info), ..ActionLine::default() }]
            .into_iter()
            .chain(self.protocol.map(|protocol| ActionLine { protocol: Some(protocol), ..ActionLine::default() }))
            .chain(self.metadata.map(|metadata| ActionLine { meta_data: Some(metadata), ..ActionLine::default() }))
            .chain(self.txns.into_iter().map(|txn| ActionLine { txn: Some(txn), ..ActionLine::default() }))
            .chain(self.removes.into_iter().map(|remove| ActionLine { remove: Some(remove), ..ActionLine::default() }))
            .chain(self.adds.into_iter().map(|add| ActionLine { add: Some(add), ..ActionLine::default() }));
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, &line)
                .map_err(|error| Error::internal("a log action cannot be written as JSON").with_source(error))?;
            bytes.push(b'\n');
        }
        Ok(bytes.into())
    }

    /// Parses a log entry. Any Delta writer may have written it.
    fn parse(version: u64, bytes: &[u8]) -> Result<Self> {
        let mut entry = Self::default();
        for line in serde_json::Deserializer::from_slice(bytes).into_iter::<ActionLine>() {
            let line = line.map_err(|error| {
                Error::unavailable(format!("log entry {version} is not a valid Delta log entry")).with_source(error)
            })?;
            if let Some(info) = line.commit_info {
                entry.operation = info.get("txnId").and_then(Value::as_str).map(str::to_owned);
                entry.is_delete = info.get("operation").and_then(Value::as_str) == Some(DELETE);
            }
            entry.protocol = line.protocol.or(entry.protocol);
            entry.metadata = line.meta_data.or(entry.metadata);
            entry.txns.extend(line.txn);
            entry.adds.extend(line.add);
            entry.removes.extend(line.remove);
        }
        Ok(entry)
    }
}

impl Log {
    /// Returns the log of the table in `folder`.
    pub(in crate::lake) fn of(store: &Store, folder: &Path) -> Self {
        Self { objects: Arc::clone(&store.objects), folder: folder.clone().join(FOLDER) }
    }

    /// Puts an entry, unless its version already has one.
    pub(in crate::lake) async fn create(&self, version: u64, bytes: Bytes) -> Result<PutOutcome> {
        let path = self.entry(version);
        match self.objects.put_opts(&path, PutPayload::from_bytes(bytes), PutMode::Create.into()).await {
            Ok(_) => Ok(PutOutcome::Written),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(PutOutcome::Taken)
            }
            Err(error @ (object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })) => {
                Err(store_error(&path, error))
            }
            Err(error) => Ok(PutOutcome::InDoubt(store_error(&path, error))),
        }
    }

    /// Reads the entry of a version, if it exists.
    pub(in crate::lake) async fn read(&self, version: u64) -> Result<Option<LogEntry>> {
        match self.get(&self.entry(version)).await? {
            Some(bytes) => LogEntry::parse(version, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the time at which the store received the entry of a version, in milliseconds since 1970.
    pub(in crate::lake) async fn modified_ms(&self, version: u64) -> Result<i64> {
        let path = self.entry(version);
        let object = self.objects.head(&path).await.map_err(|error| store_error(&path, error))?;
        Ok(object.last_modified.timestamp_millis())
    }

    /// Returns the version of the newest checkpoint according to the hint file, or `None` if there is no valid hint.
    /// The hint may be outdated, but the checkpoint that it names has always been written completely.
    pub(in crate::lake) async fn hint(&self) -> Result<Option<u64>> {
        let bytes = self.get(&self.folder.clone().join(HINT)).await?;
        let hint = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        Ok(hint.and_then(|hint| hint.get("version")?.as_u64()))
    }

    /// Lists the log from version `first` onwards, with one request per thousand objects.
    pub(in crate::lake) async fn list(&self, first: u64) -> Result<LogListing> {
        let offset = self.folder.clone().join(format!("{first:020}"));
        let mut objects = self.objects.list_with_offset(Some(&self.folder), &offset);
        let mut listing = LogListing::default();
        let mut parts: BTreeMap<u64, Vec<ObjectMeta>> = BTreeMap::new();
        while let Some(object) = objects.try_next().await.map_err(|error| store_error(&self.folder, error))? {
            let name = object.location.filename().unwrap_or_default();
            match LogFileName::parse(name) {
                Some(LogFileName::Entry(version)) => {
                    listing.entries.insert(version);
                }
                Some(LogFileName::Checkpoint { version, parts: 1 }) => {
                    listing.checkpoints.insert(version, vec![object]);
                }
                Some(LogFileName::Checkpoint { version, parts: all }) => {
                    let found = parts.entry(version).or_default();
                    found.push(object);
                    if found.len() == all && !listing.checkpoints.contains_key(&version) {
                        listing.checkpoints.insert(version, found.clone());
                    }
                }
                None => {}
            }
        }
        Ok(listing)
    }

    /// Deletes the hint file. Without it, readers list the log to find the newest checkpoint.
    pub(in crate::lake) async fn delete_hint(&self) -> Result<()> {
        let path = self.folder.clone().join(HINT);
        self.objects.delete(&path).await.map_err(|error| store_error(&path, error))
    }

    /// Returns the path of a version's entry.
    pub(in crate::lake) fn entry(&self, version: u64) -> Path {
        self.folder.clone().join(format!("{version:020}.json"))
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let response = match self.objects.get(path).await {
            Ok(found) => found.bytes().await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        response.map_err(|error| store_error(path, error))
    }
}

/// The kind and version of a log file, parsed from its name.
#[derive(Debug, PartialEq)]
enum LogFileName {
    Entry(u64),
    Checkpoint { version: u64, parts: usize },
}

impl LogFileName {
    /// Parses `<version>.json`, `<version>.checkpoint.parquet` or `<version>.checkpoint.<part>.<parts>.parquet`.
    fn parse(name: &str) -> Option<Self> {
        let (version, rest) = name.split_once('.').filter(|(version, _)| version.len() == 20)?;
        let version = version.parse().ok()?;
        match rest.split('.').collect::<Vec<_>>()[..] {
            ["json"] => Some(Self::Entry(version)),
            ["checkpoint", "parquet"] => Some(Self::Checkpoint { version, parts: 1 }),
            ["checkpoint", _, parts, "parquet"] => Some(Self::Checkpoint { version, parts: parts.parse().ok()? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_file_names_are_parsed() {
        let version = "00000000000000000042";
        for (name, expected) in [
            (format!("{version}.json"), Some(LogFileName::Entry(42))),
            (format!("{version}.checkpoint.parquet"), Some(LogFileName::Checkpoint { version: 42, parts: 1 })),
            (
                format!("{version}.checkpoint.0000000001.0000000003.parquet"),
                Some(LogFileName::Checkpoint { version: 42, parts: 3 }),
            ),
            (format!("{version}.json.tmp"), None),
            (format!("{version}.crc"), None),
            (format!("{version}.checkpoint.2a0b.json"), None),
            ("_last_checkpoint".to_owned(), None),
            ("42.json".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(LogFileName::parse(&name), expected, "{name}");
        }
    }

    #[test]
    fn unknown_actions_are_ignored_and_invalid_ones_refused() {
        let text = br#"{"commitInfo":{"txnId":"x","engineInfo":"another"}}
            {"domainMetadata":{"domain":"d","configuration":"{}","removed":false}}
            {"txn":{"appId":"a","version":7,"lastUpdated":1}}
            {"remove":{"path":"p","dataChange":true,"deletionTimestamp":1}}"#;
        let entry = LogEntry::parse(3, text).unwrap();
        assert_eq!(entry.operation.as_deref(), Some("x"));
        assert_eq!(entry.txns, [Txn { app_id: "a".into(), version: 7 }]);
        let remove = Remove {
            path: "p".into(),
            deletion_timestamp: Some(1),
            data_change: true,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
        };
        assert_eq!(entry.removes, std::slice::from_ref(&remove));
        let bare = LogEntry::parse(3, br#"{"remove":{"path":"p","partitionValues":null,"size":null}}"#).unwrap();
        assert_eq!(bare.removes, [Remove { deletion_timestamp: None, ..remove }]);
        for broken in [&b"{\"add\":{\"path\":1}}"[..], b"{\"add\"", b"\xff"] {
            assert!(LogEntry::parse(3, broken).is_err());
        }
        assert_eq!(LogEntry::parse(3, b"").unwrap(), LogEntry::default());
    }
}
