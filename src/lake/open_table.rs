//! Opens a table: loads it if it exists, creates it if it does not, adds columns that are new in the contract, and sets
//! the retention that other tools respect when they clean up the table.
//!
//! When [`load_or_create`] returns, the stored schema contains every column of the contract. Several processes may open
//! a table concurrently, because each step is a conditional put. A process whose put is refused loads the table again.

use std::time::Duration;

use object_store::path::Path;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::LakeConfig;
use crate::contract::{Contract, EVENT_DATE};
use crate::error::{Error, Result};
use crate::lake::log::checkpoint::{LoadedTable, load};
use crate::lake::log::delta_log::{Log, LogEntry, Metadata, Protocol, PutOutcome};
use crate::lake::log::delta_schema::DeltaSchema;
use crate::lake::log::stats;
use crate::lake::log::table_state::{READER_VERSION, TableState, WRITER_VERSION};
use crate::lake::store::client::Store;

/// The maximum number of attempts to create or evolve a table. An attempt fails if another writer commits first.
const ATTEMPTS_MAX: usize = 32;

/// Loads the table of `contract`. Creates the table first if it does not exist, and adds missing columns.
pub(super) async fn load_or_create(
    store: &Store,
    folder: &Path,
    log: &Log,
    contract: &Contract,
    config: &LakeConfig,
) -> Result<LoadedTable> {
    for _ in 0..ATTEMPTS_MAX {
        let loaded = load(store, folder, contract).await?;
        let (version, kind, entry) = match &loaded {
            None => (0, "CREATE TABLE", creation(contract, config, &store.clock)?),
            Some(LoadedTable { state, .. }) => match evolution(contract, config, state)? {
                Some((kind, entry)) => (state.snapshot.version + 1, kind, entry),
                None => return loaded.ok_or_else(|| Error::internal("a loaded table has no state")),
            },
        };
        let bytes = entry.encode(Uuid::now_v7(), kind, json!({}), store.clock.now() / 1_000)?;
        if let PutOutcome::InDoubt(error) = log.create(version, bytes).await? {
            return Err(error);
        }
        // Either this put succeeded or another writer's entry has the same version. In both cases, load the table
        // again.
    }
    Err(Error::unavailable(format!(
        "cannot open table `{}`: all {ATTEMPTS_MAX} attempts conflicted with other writers: start the server again",
        contract.name
    )))
}

/// Returns the log entry that creates a table.
fn creation(contract: &Contract, config: &LakeConfig, clock: &Clock) -> Result<LogEntry> {
    let mut configuration = Map::from_iter(retention(config));
    configuration.insert("delta.checkpointInterval".into(), config.checkpoint_interval.max(1).to_string().into());
    configuration.insert("delta.dataSkippingStatsColumns".into(), stats::columns(contract).join(",").into());
    let rest = json!({
        "id": Uuid::new_v4().to_string(),
        "name": contract.name,
        "description": contract.description,
        "format": { "provider": "parquet", "options": {} },
        "configuration": configuration,
        "createdTime": clock.now() / 1_000,
    });
    let Value::Object(rest) = rest else {
        return Err(Error::internal("table metadata is not a JSON object"));
    };
    Ok(LogEntry {
        protocol: Some(Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION }),
        metadata: Some(Metadata {
            schema_string: DeltaSchema::of(contract)?.to_json()?,
            partition_columns: vec![EVENT_DATE.to_owned()],
            rest,
        }),
        ..LogEntry::default()
    })
}

/// Returns the log entry that adds the contract's missing columns and sets the retention, with the name of its
/// operation. Returns `None` if the table has all of them.
fn evolution(contract: &Contract, config: &LakeConfig, state: &TableState) -> Result<Option<(&'static str, LogEntry)>> {
    let stored = DeltaSchema::parse(contract, &state.metadata.schema_string)?;
    let schema = stored.evolve(contract)?;
    let mut metadata = Metadata::clone(&state.metadata);
    let has_changed = set_retention(config, &mut metadata.rest);
    let kind = match (&schema, has_changed) {
        (Some(_), _) => "ADD COLUMNS",
        (None, true) => "SET TBLPROPERTIES",
        (None, false) => return Ok(None),
    };
    if let Some(schema) = schema {
        metadata.schema_string = schema.to_json()?;
    }
    Ok(Some((kind, LogEntry { metadata: Some(metadata), ..LogEntry::default() })))
}

/// Sets the retention in a table's metadata, and keeps all other properties. Returns true if it has changed.
fn set_retention(config: &LakeConfig, metadata: &mut Map<String, Value>) -> bool {
    let properties = metadata.entry("configuration").or_insert_with(|| json!({}));
    if !properties.is_object() {
        *properties = json!({});
    }
    let Some(properties) = properties.as_object_mut() else { return false };
    let mut has_changed = false;
    for (key, value) in retention(config) {
        has_changed |= properties.get(&key) != Some(&value);
        properties.insert(key, value);
    }
    has_changed
}

/// Returns the table properties that say how long log entries and removed files are kept. Other tools respect them.
fn retention(config: &LakeConfig) -> [(String, Value); 2] {
    let interval = |time: Duration| format!("interval {} seconds", time.as_secs()).into();
    [
        ("delta.logRetentionDuration".to_owned(), interval(config.log_retention)),
        ("delta.deletedFileRetentionDuration".to_owned(), interval(config.removed_retention)),
    ]
}
