//! Opens a table: loads it if it exists, creates it if it does not, and adds columns that are new in the contract.
//!
//! When [`load_or_create`] returns, the stored schema contains every column of the contract. Several processes may open
//! a table concurrently, because each step is a conditional put. A process whose put is refused loads the table again.

use object_store::path::Path;
use serde_json::{Value, json};
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
            Some(LoadedTable { state, .. }) => match evolution(contract, state)? {
                Some(entry) => (state.snapshot.version + 1, "ADD COLUMNS", entry),
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
    let configuration = json!({
        "delta.checkpointInterval": config.checkpoint_interval.max(1).to_string(),
        "delta.logRetentionDuration": format!("interval {} seconds", config.log_retention.as_secs()),
        "delta.dataSkippingStatsColumns": stats::columns(contract).join(","),
    });
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

/// Returns the log entry that adds the contract's missing columns, or `None` if the table has all of them.
fn evolution(contract: &Contract, state: &TableState) -> Result<Option<LogEntry>> {
    let stored = DeltaSchema::parse(contract, &state.metadata.schema_string)?;
    let Some(schema) = stored.evolve(contract)? else {
        return Ok(None);
    };
    let metadata = Metadata { schema_string: schema.to_json()?, ..Metadata::clone(&state.metadata) };
    Ok(Some(LogEntry { metadata: Some(metadata), ..LogEntry::default() }))
}
