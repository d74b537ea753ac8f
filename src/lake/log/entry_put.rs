//! Puts one log entry at one version after another until it is committed. Remembers the version at which it may be in
//! the log.
//!
//! ```text
//!   put at version v ─► written ─► committed
//!        │ taken, or no clear result: read the entry of v back
//!        ├─ ours ─► committed
//!        ├─ missing ─► in doubt: put it again, at v only
//!        └─ another writer's ─► lost: never committed at v, so v + 1 may be tried
//! ```
//!
//! **Invariant:** only the log entry at the tried version decides whether the entry is committed. Files are no
//! evidence: another entry may have rewritten them already.
//! **Invariant:** an entry is put at a later version only after another writer's entry has been read at the tried
//! version. A delayed put can therefore never commit the entry twice.

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::log::delta_log::{Log, LogEntry, PutOutcome};
use crate::lake::log::table_state::TableState;

/// A log entry that is being put.
#[derive(Debug)]
pub(in crate::lake) struct EntryPut {
    /// The unique id by which the writer recognizes its own log entry.
    operation: String,
    /// The encoded log entry.
    bytes: Bytes,
    /// The version at which the entry may be in the log, or may still arrive. `None` if it is certain that no version
    /// contains the entry.
    tried: Option<u64>,
}

/// The result of one attempt to put an entry.
#[derive(Debug)]
pub(in crate::lake) enum Attempt {
    /// The entry is in the log at the tried version.
    Committed,
    /// Another writer's entry is in the log at the tried version.
    Lost,
    /// The entry may be in the log, or may arrive later. It must be put again at the same version.
    InDoubt(Error),
}

/// What is known about an entry from an earlier attempt, given a later state of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lake) enum Fate {
    /// No version contains the entry, and none will.
    NotCommitted,
    /// The tried version directly follows the state, so the entry must be put again at that version.
    InDoubt,
    /// The entry is in the log at this version.
    Committed(u64),
    /// The log no longer shows whether the entry was committed, because the state was loaded from a checkpoint of the
    /// tried version or a later one. The state includes the entry if it was committed.
    Unknown,
}

impl EntryPut {
    /// Encodes an entry. `kind` and `parameters` describe the operation to people who read the log.
    pub(in crate::lake) fn new(entry: LogEntry, kind: &str, parameters: Value, now_ms: i64) -> Result<Self> {
        let operation = Uuid::now_v7();
        let bytes = entry.encode(operation, kind, parameters, now_ms)?;
        Ok(Self { operation: operation.to_string(), bytes, tried: None })
    }

    /// Returns true if the entry may be in the log, or may still arrive.
    pub(in crate::lake) fn is_in_doubt(&self) -> bool {
        self.tried.is_some()
    }

    /// Records that the entry is not in the log and can no longer arrive.
    pub(in crate::lake) fn rule_out(&mut self) {
        self.tried = None;
    }

    /// Puts the entry at `version`, which must be the tried version if there is one. If the result is unclear, reads
    /// the entry of that version back.
    pub(in crate::lake) async fn put(&mut self, log: &Log, version: u64) -> Result<Attempt> {
        if self.tried.is_some_and(|tried| tried != version) {
            return Err(Error::internal("a log entry in doubt was put at another version"));
        }
        self.tried = Some(version);
        let error = match log.create(version, self.bytes.clone()).await? {
            PutOutcome::Written => return Ok(Attempt::Committed),
            PutOutcome::Taken => None,
            PutOutcome::InDoubt(error) => Some(error),
        };
        Ok(match log.read(version).await {
            Ok(Some(entry)) if self.wrote(&entry) => Attempt::Committed,
            Ok(Some(_)) => {
                self.tried = None;
                Attempt::Lost
            }
            Ok(None) => Attempt::InDoubt(error.unwrap_or_else(|| {
                Error::unavailable(format!("log entry {version} exists, but the object store does not return it"))
            })),
            Err(error) => Attempt::InDoubt(error),
        })
    }

    /// Puts an entry without changes at the tried version, unless that version already has an entry. Afterwards, the
    /// entry at that version decides whether this entry is committed.
    ///
    /// An entry in doubt may no longer be put again once its files are past the commit deadline, not even at the same
    /// version. Its first put was sent within the deadline, so it fails if it arrives after a later fence of vacuum,
    /// because the tried version is then taken. A repeated put could be sent after such a fence to a version above it,
    /// and would name files that vacuum may delete.
    pub(in crate::lake) async fn block(&self, log: &Log, now_ms: i64) -> Result<Attempt> {
        let Some(tried) = self.tried else { return Ok(Attempt::Lost) };
        let entry = LogEntry::default().encode(Uuid::now_v7(), "ABANDON WRITE", json!({}), now_ms)?;
        Ok(match log.create(tried, entry).await? {
            PutOutcome::Written | PutOutcome::Taken => Attempt::Lost,
            PutOutcome::InDoubt(error) => Attempt::InDoubt(error),
        })
    }

    /// Finds out what became of the entry that earlier attempts have put. `state` is the table's newest known state.
    pub(in crate::lake) async fn fate(&mut self, log: &Log, state: &TableState) -> Result<Fate> {
        let Some(tried) = self.tried else { return Ok(Fate::NotCommitted) };
        if tried > state.snapshot.version {
            return Ok(Fate::InDoubt);
        }
        // An entry at a version that a checkpoint includes need not be a part of the table: if the log had been cleaned
        // up before the put, the version was free again, but no reader reads the entry.
        if tried <= state.loaded_at {
            return Ok(Fate::Unknown);
        }
        match log.read(tried).await? {
            Some(entry) if self.wrote(&entry) => Ok(Fate::Committed(tried)),
            Some(_) => {
                self.tried = None;
                Ok(Fate::NotCommitted)
            }
            None => Ok(Fate::Unknown),
        }
    }

    /// Returns true if `entry`, which was read from the log, is this entry.
    fn wrote(&self, entry: &LogEntry) -> bool {
        entry.operation.as_deref() == Some(&*self.operation)
    }
}
