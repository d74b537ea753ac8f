//! The state of a table at one version, and the changes that log entries make to it.
//!
//! ```text
//!   LogEntry ─► Changes ─► TableState ─► Snapshot (for queries), FileHistory (for ingest), Metadata (for evolving)
//! ```
//!
//! Each log entry is judged by itself, also when several entries are read at once: an entry that only moves rows to
//! other files is a rewrite, one that only removes rows is a deletion, and any other entry that adds files adds rows.
//!
//! Refuses a table if this server does not support its protocol, partitioning, schema or files. Otherwise, query
//! results could lack rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Days};
use object_store::path::Path;

use crate::contract::{Contract, EVENT_DATE};
use crate::error::{Error, Result};
use crate::lake::DataFile;
use crate::lake::log::day_files::read_day;
use crate::lake::log::delta_log::{Add, LogEntry, Metadata, Protocol, Remove};
use crate::lake::log::delta_schema::DeltaSchema;
use crate::lake::log::file_history::FileHistory;
use crate::lake::log::live_files::LiveFiles;
use crate::lake::log::snapshot::Snapshot;
use crate::lake::log::stats::FileBounds;

/// The Delta reader version that this crate implements.
pub(in crate::lake) const READER_VERSION: u32 = 1;
/// The Delta writer version that this crate implements.
pub(in crate::lake) const WRITER_VERSION: u32 = 2;

/// The state of a table at one version. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(in crate::lake) struct TableState {
    pub(in crate::lake) snapshot: Arc<Snapshot>,
    /// A version after which no log entry has added rows. It may be later than the version that added the last rows.
    pub(in crate::lake) last_addition: u64,
    /// The version of the checkpoint from which the table was loaded, or 0 if there was none. All later versions were
    /// read from their log entries.
    pub(in crate::lake) loaded_at: u64,
    /// The most recent changes of the table's files.
    pub(in crate::lake) history: Arc<FileHistory>,
    pub(in crate::lake) metadata: Arc<Metadata>,
}

/// The changes of a checkpoint and of the log entries after it, up to `version`. The changes of a later entry override
/// those of an earlier one.
#[derive(Debug, Default)]
pub(in crate::lake) struct Changes {
    version: u64,
    /// The version of the checkpoint that the changes include, or 0 if they include none.
    checkpoint: u64,
    checkpoint_files: Vec<Arc<DataFile>>,
    /// The files of each log entry that adds or removes files, in the order of the versions.
    entries: Vec<EntryFiles>,
    txns: BTreeMap<String, i64>,
    metadata: Option<Metadata>,
}

/// The files that one log entry adds and removes.
#[derive(Debug, Default)]
pub(in crate::lake) struct EntryFiles {
    pub(in crate::lake) added: Vec<Arc<DataFile>>,
    /// The paths of the removed files.
    pub(in crate::lake) removed: Vec<Arc<str>>,
    /// False if all actions say that the entry only moves rows to other files.
    pub(in crate::lake) changes_data: bool,
    /// True if the writer says that the entry only deletes rows.
    pub(in crate::lake) is_delete: bool,
    pub(in crate::lake) version: u64,
}

impl Changes {
    /// Creates an empty set of changes up to `version`.
    pub(in crate::lake) fn at(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// Creates an empty set of changes, to which the content of the checkpoint of `version` is added.
    pub(in crate::lake) fn of_checkpoint(version: u64) -> Self {
        Self { version, checkpoint: version, ..Self::default() }
    }

    /// Adds the changes of the next log entry.
    pub(in crate::lake) fn push(&mut self, contract: &Contract, version: u64, entry: LogEntry) -> Result<()> {
        self.version = version;
        if let Some(protocol) = entry.protocol {
            check_protocol(contract, &protocol)?;
        }
        if let Some(metadata) = entry.metadata {
            check_layout(contract, &metadata)?;
            self.metadata = Some(metadata);
        }
        let is_delete = entry.is_delete;
        let changes_data =
            entry.adds.iter().any(|add| add.data_change) || entry.removes.iter().any(|remove| remove.data_change);
        let removed = entry.removes.iter().map(|remove| Ok(decode_path(contract, &remove.path)?.into()));
        let removed = removed.collect::<Result<_>>()?;
        let added = entry.adds.into_iter().map(|add| read_add(contract, add).map(Arc::new)).collect::<Result<_>>()?;
        self.push_files(EntryFiles { added, removed, changes_data, is_delete, version });
        for txn in entry.txns {
            self.txns.insert(txn.app_id, txn.version);
        }
        Ok(())
    }

    /// Adds the files of the next log entry.
    pub(in crate::lake) fn push_files(&mut self, files: EntryFiles) {
        if !files.added.is_empty() || !files.removed.is_empty() {
            self.entries.push(files);
        }
    }

    /// Adds a live file of the checkpoint.
    pub(in crate::lake) fn push_checkpoint_file(&mut self, file: DataFile) {
        self.checkpoint_files.push(Arc::new(file));
    }

    /// Adds the progress of a source.
    pub(in crate::lake) fn push_txn(&mut self, app: String, version: i64) {
        self.txns.insert(app, version);
    }

    /// Sets the table's metadata.
    pub(in crate::lake) fn push_metadata(&mut self, metadata: Metadata) {
        self.metadata = Some(metadata);
    }

    /// Applies these changes to `before`, which is `None` if they include the first log entry or a checkpoint. Returns
    /// `Conflict` if rows that follow the contract cannot be stored with the changed schema.
    pub(in crate::lake) fn apply(self, contract: &Contract, before: Option<&TableState>) -> Result<TableState> {
        let metadata = match (self.metadata, before) {
            (Some(metadata), Some(_)) => {
                DeltaSchema::parse(contract, &metadata.schema_string)?.evolve(contract)?;
                Arc::new(metadata)
            }
            (Some(metadata), None) => Arc::new(metadata),
            (None, Some(before)) => Arc::clone(&before.metadata),
            (None, None) => {
                return Err(Error::unavailable(format!(
                    "table `{}`: its log does not start with metadata",
                    contract.name
                )));
            }
        };
        let (mut live, mut txns, mut history, mut last_addition) = match before {
            Some(TableState { snapshot, history, last_addition, .. }) => {
                (snapshot.live.clone(), Arc::clone(&snapshot.txns), FileHistory::clone(history), *last_addition)
            }
            None => (
                LiveFiles::of_checkpoint(self.checkpoint, self.checkpoint_files),
                Arc::default(),
                FileHistory::after(self.checkpoint),
                self.checkpoint,
            ),
        };
        if !self.txns.is_empty() {
            Arc::make_mut(&mut txns).extend(self.txns);
        }
        for EntryFiles { added, removed, changes_data, is_delete, version } in self.entries {
            let change = live.apply(version, added, &removed, changes_data, is_delete);
            if change.adds_rows() {
                last_addition = version;
            }
            history.push(change);
        }
        let loaded_at = before.map_or(self.checkpoint, |before| before.loaded_at);
        let snapshot = Arc::new(Snapshot { version: self.version, live, txns });
        Ok(TableState { snapshot, last_addition, loaded_at, history: Arc::new(history), metadata })
    }
}

/// Returns the log action that adds a file that this server wrote.
pub(in crate::lake) fn write_add(contract: &Contract, file: &DataFile) -> Result<Add> {
    let bounds = FileBounds {
        rows: file.rows,
        tenants: file.tenants.clone(),
        times: file.times,
        ids: file.ids.clone(),
        received: file.received,
    };
    Ok(Add {
        path: file.path.to_string(),
        partition_values: [(EVENT_DATE.to_owned(), Some(day_text(file.day)?))].into(),
        size: file.size,
        modification_time: file.modified,
        data_change: true,
        stats: Some(bounds.to_json(contract)?),
        deletion_vector: None,
    })
}

/// Returns the log action that removes a file whose rows are in other files of the same version. Returns `Unsupported`
/// if the file has no plain name ([`DataFile::has_plain_name`]).
pub(in crate::lake) fn write_remove(contract: &Contract, file: &DataFile, now_ms: i64) -> Result<Remove> {
    if !file.has_plain_name() {
        return Err(Error::unsupported(format!(
            "table `{}`: cannot remove file `{}`, because its name has other characters than letters, digits, `-_.=/`",
            contract.name, file.path
        )));
    }
    Ok(Remove {
        path: file.path.to_string(),
        deletion_timestamp: Some(now_ms),
        data_change: false,
        extended_file_metadata: Some(true),
        partition_values: Some([(EVENT_DATE.to_owned(), Some(day_text(file.day)?))].into()),
        size: i64::try_from(file.size).ok(),
    })
}

/// Converts a log action to a `DataFile`. Any Delta writer may have written the action.
pub(in crate::lake) fn read_add(contract: &Contract, add: Add) -> Result<DataFile> {
    let path = decode_path(contract, &add.path)?;
    let refuse = |why: &str| Error::unsupported(format!("table `{}`: `{path}` {why}", contract.name));
    if add.deletion_vector.is_some() {
        return Err(refuse("has a deletion vector, which is not supported: purge deletion vectors and turn them off"));
    }
    let day = add.partition_values.get(EVENT_DATE).and_then(|day| read_day(day.as_deref()?));
    let day = day.ok_or_else(|| refuse("has no event_date: rewrite it, partitioned by event_date"))?;
    let bounds = FileBounds::from_json(contract, &path, add.stats.as_deref())?;
    Ok(DataFile {
        path: path.into(),
        size: add.size,
        rows: bounds.rows,
        day,
        tenants: bounds.tenants,
        times: bounds.times,
        ids: bounds.ids,
        received: bounds.received,
        modified: add.modification_time,
    })
}

/// Refuses a protocol that requires newer versions than this crate implements.
pub(in crate::lake) fn check_protocol(contract: &Contract, protocol: &Protocol) -> Result<()> {
    let Protocol { min_reader_version: reader, min_writer_version: writer } = *protocol;
    if reader <= READER_VERSION && writer <= WRITER_VERSION {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "table `{}` requires Delta reader version {reader} and writer version {writer}, but {READER_VERSION} and \
         {WRITER_VERSION} are supported: drop the table feature that another engine turned on",
        contract.name
    )))
}

/// Refuses a table that is not partitioned by the column `event_date` alone.
pub(in crate::lake) fn check_layout(contract: &Contract, metadata: &Metadata) -> Result<()> {
    if metadata.partition_columns == [EVENT_DATE] {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "table `{}` is partitioned by {:?}, not by `{EVENT_DATE}`: another program created it; choose another lake.url",
        contract.name, metadata.partition_columns
    )))
}

/// Formats a day as `YYYY-MM-DD`.
pub(crate) fn day_text(day: i32) -> Result<String> {
    let date = DateTime::UNIX_EPOCH.date_naive();
    let date = match u64::try_from(day) {
        Ok(days) => date.checked_add_days(Days::new(days)),
        Err(_) => date.checked_sub_days(Days::new(u64::from(day.unsigned_abs()))),
    };
    date.map(|date| date.format("%Y-%m-%d").to_string())
        .ok_or_else(|| Error::invalid(format!("day {day}, counted from 1970-01-01, is outside the range of dates")))
}

/// Decodes a file path from the log. Refuses absolute paths, which occur in Delta tables that were created as shallow
/// clones.
pub(in crate::lake) fn decode_path(contract: &Contract, encoded: &str) -> Result<String> {
    let refuse = || {
        Error::unsupported(format!(
            "table `{}`: file `{encoded}` is outside the table's folder, which is not supported: copy it into the table",
            contract.name
        ))
    };
    if encoded.contains("://") || encoded.starts_with('/') {
        return Err(refuse());
    }
    Path::from_url_path(encoded).map(String::from).map_err(|error| refuse().with_source(error))
}
