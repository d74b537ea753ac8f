//! Opening a table: loads it if it exists, creates it if not, and adds columns that the contract has gained.
//!
//! In: a contract. Out: the state of a table that matches the contract. Several processes may open a table
//! concurrently: each step is a conditional put, and a process that loses it loads the table again.

use object_store::path::Path;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::LakeConfig;
use crate::contract::{Contract, EVENT_DATE};
use crate::error::{Error, Result};
use crate::lake::log::checkpoint::{LoadedTable, load};
use crate::lake::log::delta_log::{Log, LogEntry, Metadata, Protocol, PutOutcome};
use crate::lake::log::schema::Schema;
use crate::lake::log::state::{READER_VERSION, State, WRITER_VERSION};
use crate::lake::log::stats;
use crate::lake::store::client::Store;

/// The maximum number of attempts to create or evolve a table; each failed one lost to another writer.
const ATTEMPTS_MAX: usize = 32;

/// Loads the table of `contract`, after creating or evolving it if needed.
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
        let text = entry.encode(Uuid::now_v7(), kind, json!({}), store.clock.now() / 1_000)?;
        if let PutOutcome::Unclear(error) = log.create(version, text).await? {
            return Err(error);
        }
        // Whether this put or another writer's succeeded, load the table again from the log.
    }
    Err(Error::unavailable(format!(
        "table `{}`: opening it conflicted with other writers {ATTEMPTS_MAX} times: start the server again",
        contract.name
    )))
}

/// The log entry that creates a table.
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
            schema_string: Schema::of(contract)?.text()?,
            partition_columns: vec![EVENT_DATE.to_owned()],
            rest,
        }),
        ..LogEntry::default()
    })
}

/// The log entry that adds missing columns of the contract; `None` if the table has all.
fn evolution(contract: &Contract, state: &State) -> Result<Option<LogEntry>> {
    let stored = Schema::parse(contract, &state.metadata.schema_string)?;
    let Some(schema) = stored.evolve(contract)? else {
        return Ok(None);
    };
    let metadata = Metadata { schema_string: schema.text()?, ..Metadata::clone(&state.metadata) };
    Ok(Some(LogEntry { metadata: Some(metadata), ..LogEntry::default() }))
}
