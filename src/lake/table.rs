//! One Delta table: open or create, evolve, write, commit, follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::config::LakeConfig;
use crate::contract::Contract;
use crate::error::Result;
use crate::lake::{DataFile, Snapshot, Store};

/// All tables of this server by name: declared ones and their quarantines (`<t>_quarantine`).
pub type Tables = BTreeMap<String, Arc<Table>>;

/// One open table.
#[derive(Debug)]
pub struct Table {}

impl Table {
    /// Opens the table of `contract` at `<prefix>/<name>`, creates it when it is absent, and adds new nullable columns.
    /// A column whose type changed is `Conflict`.
    pub async fn open(store: &Store, contract: Arc<Contract>, config: &LakeConfig) -> Result<Arc<Self>> {
        let _ = (store, contract, config);
        todo!()
    }

    /// The contract.
    pub fn contract(&self) -> &Arc<Contract> {
        todo!()
    }

    /// The store and the table's own prefix in it: file paths of a snapshot are relative to it.
    pub fn location(&self) -> (&Store, &object_store::path::Path) {
        todo!()
    }

    /// The newest known snapshot. Costs nothing.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        todo!()
    }

    /// Reads other writers' commits (one GET when there is none) and returns the newest snapshot.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>> {
        todo!()
    }

    /// Writes rows as Parquet: split by UTC day of the time column, each file sorted by (tenant, time, id). Rows may come
    /// in any order. Nothing is visible before [`Table::commit`]. Blocking work runs on the blocking pool.
    pub async fn write(&self, rows: RecordBatch) -> Result<Vec<DataFile>> {
        let _ = rows;
        todo!()
    }

    /// Commits files and application transactions in one log entry; returns its version. Retries when other writers were
    /// faster, after checking that they touched neither schema nor protocol nor the same transaction; an unclear answer
    /// of the store is settled by reading the entry back. The snapshot holds the files before this returns.
    pub async fn commit(&self, files: Vec<DataFile>, txns: Vec<(String, i64)>) -> Result<u64> {
        let _ = (files, txns);
        todo!()
    }

    /// Writes a checkpoint when one is due and removes expired log entries. Called in the background by the owner.
    pub async fn maintain(&self) -> Result<()> {
        todo!()
    }
}
