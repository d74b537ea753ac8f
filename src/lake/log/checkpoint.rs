//! Loads a table from its newest checkpoint and the log entries after it, and writes checkpoints.
//!
//! The result of loading a table is its complete [`TableState`]. `deltalake` reads and writes the checkpoints.
//! Log entries after a checkpoint are parsed by the same code as other writers' commits.
//!
//! **Invariant:** a gap in the log is an error, so a table is never loaded with missing rows.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use deltalake_core::checkpoints::create_checkpoint;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::log::delta_log::{Add, Log, LogEntry, LogListing};
use crate::lake::log::table_state::{Changes, TableState, check_layout, check_protocol, read_add};
use crate::lake::read::object_reader::read_columns;
use crate::lake::store::client::Store;

/// The maximum number of log entries that are read concurrently while a table is loaded.
const READS_MAX: usize = 16;

/// The result of loading a table.
#[derive(Debug)]
pub(in crate::lake) struct LoadedTable {
    pub(in crate::lake) state: TableState,
    /// The version of the checkpoint from which the table was loaded. `None` if the table was loaded from log entries
    /// alone.
    pub(in crate::lake) checkpoint: Option<u64>,
}

/// Loads the newest version. Returns `None` if there is no table.
pub(in crate::lake) async fn load(store: &Store, folder: &Path, contract: &Contract) -> Result<Option<LoadedTable>> {
    let log = Log::of(store, folder);
    let mut listing = log.list(log.hint().await?.unwrap_or(0)).await?;
    if listing.checkpoints.is_empty() {
        listing = log.list(0).await?;
    }
    let LogListing { mut checkpoints, entries } = listing;
    let checkpoint = checkpoints.pop_last();
    let base = match &checkpoint {
        Some((version, files)) => Some(replay(store, folder, contract, *version, files).await?),
        None => None,
    };
    let first = base.as_ref().map_or(0, |base| base.snapshot.version + 1);
    let following: Vec<u64> = entries.range(first..).copied().collect();
    if let Some(gap) = following.iter().zip(first..).find(|(found, expected)| *found != expected) {
        return Err(Error::unavailable(format!(
            "table `{}`: log entry {} is missing: restore it in the object store",
            contract.name, gap.1
        )));
    }
    let changes = read(&log, contract, &following).await?;
    let state = match (changes, base) {
        (Some(changes), base) => changes.apply(contract, base.as_ref())?,
        (None, Some(base)) => base,
        (None, None) => return Ok(None),
    };
    Ok(Some(LoadedTable { state, checkpoint: checkpoint.map(|(version, _)| version) }))
}

/// Writes a checkpoint of a version.
pub(in crate::lake) async fn write(store: &Store, folder: &Path, contract: &Contract, version: u64) -> Result<()> {
    let unavailable = |problem: &'static str| {
        move |error: DeltaTableError| {
            Error::unavailable(format!("table `{}`: {problem}", contract.name)).with_source(error)
        }
    };
    let mut table = DeltaTable::new(log_store(store, folder)?);
    table.load_version(version).await.map_err(unavailable("cannot load the table to write a checkpoint"))?;
    create_checkpoint(&table, None).await.map_err(unavailable("cannot write a checkpoint"))
}

/// Loads the state of the table at a checkpoint.
async fn replay(
    store: &Store,
    folder: &Path,
    contract: &Contract,
    version: u64,
    files: &[ObjectMeta],
) -> Result<TableState> {
    let unreadable = |error: DeltaTableError| {
        Error::unavailable(format!("table `{}`: cannot read checkpoint {version}", contract.name)).with_source(error)
    };
    let mut table = DeltaTable::new(log_store(store, folder)?);
    table.load_version(version).await.map_err(unreadable)?;
    let snapshot = table.snapshot().map_err(unreadable)?;
    check_protocol(contract, &convert(snapshot.protocol())?)?;
    let metadata = convert(snapshot.metadata())?;
    check_layout(contract, &metadata)?;

    let mut changes = Changes::of_checkpoint(version);
    changes.push_metadata(metadata);
    for file in snapshot.log_data().iter() {
        let add = Add {
            path: file.path().replace('%', "%25"),
            partition_values: file.partition_values_map().into_iter().collect(),
            size: u64::try_from(file.size()).unwrap_or(0),
            modification_time: file.modification_time(),
            data_change: false,
            stats: file.stats(),
            deletion_vector: file.deletion_vector_descriptor().map(|_| true.into()),
        };
        changes.push_checkpoint_file(read_add(contract, add)?);
    }
    for file in files {
        for (app, version) in read_txns(store, file).await? {
            changes.push_txn(app, version);
        }
    }
    changes.apply(contract, None)
}

/// Reads a checkpoint file's application transactions. `deltalake` can also return application transactions, but only
/// one at a time, and it replays the whole log for each.
async fn read_txns(store: &Store, file: &ObjectMeta) -> Result<Vec<(String, i64)>> {
    let batches = read_columns(&store.objects, file.location.clone(), file.size, &["txn"]).await.map_err(|error| {
        Error::unavailable(format!("cannot read checkpoint `{}`", file.location)).with_source(error)
    })?;
    let mut txns = Vec::new();
    for batch in batches {
        let Some(column) = batch.columns().first().and_then(|column| column.as_struct_opt()) else { continue };
        let apps = column.column_by_name("appId").and_then(|apps| apps.as_string_opt::<i32>());
        let versions = column.column_by_name("version").and_then(|versions| versions.as_primitive_opt::<Int64Type>());
        let (Some(apps), Some(versions)) = (apps, versions) else { continue };
        let present = (0..column.len()).filter(|row| column.is_valid(*row) && apps.is_valid(*row));
        txns.extend(present.map(|row| (apps.value(row).to_owned(), versions.value(row))));
    }
    Ok(txns)
}

/// Reads the log entries of `versions` concurrently and combines their changes in the order of the versions. Returns
/// `None` if `versions` is empty.
async fn read(log: &Log, contract: &Contract, versions: &[u64]) -> Result<Option<Changes>> {
    let mut entries = futures::stream::iter(versions.iter().copied())
        .map(|version| async move { Ok::<_, Error>((version, log.read(version).await?)) })
        .buffered(READS_MAX);
    let mut changes: Option<Changes> = None;
    while let Some((version, entry)) = entries.try_next().await? {
        let entry: LogEntry = entry.ok_or_else(|| {
            Error::unavailable(format!(
                "table `{}`: log entry {version} was removed while the table was being loaded: retry",
                contract.name
            ))
        })?;
        changes.get_or_insert_default().push(contract, version, entry)?;
    }
    Ok(changes)
}

/// Returns a `deltalake` log store for the table.
pub(in crate::lake) fn log_store(store: &Store, folder: &Path) -> Result<LogStoreRef> {
    let table = Arc::new(PrefixStore::new(Arc::clone(&store.objects), folder.clone()));
    Ok(default_logstore(table, Arc::clone(&store.objects), &store.url(folder)?, &StorageConfig::default()))
}

/// Converts a `deltalake` action to the type of this crate, through its JSON form in the Delta protocol.
fn convert<T: serde::Serialize, U: serde::de::DeserializeOwned>(action: &T) -> Result<U> {
    serde_json::to_value(action).and_then(serde_json::from_value).map_err(|error| {
        Error::unavailable("an action in a checkpoint does not follow the Delta protocol").with_source(error)
    })
}
