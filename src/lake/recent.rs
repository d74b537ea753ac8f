//! The newest event ids of a table: what a dedupe window is rebuilt from.
//!
//! In: a snapshot. Out: batches of (tenant, id), newest files first. Only those two columns are read.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::lake::reader::read_columns;
use crate::lake::{DataFile, Snapshot, Table};

/// Files read at once.
const READS_MAX: usize = 8;

/// The (tenant, id) columns of the files with the latest receive times: whole files, until they hold `rows_max` rows.
pub(super) async fn read(table: &Table, rows_max: usize) -> Result<Vec<RecordBatch>> {
    read_files(table, newest(&table.snapshot(), rows_max as u64)).await
}

/// The (tenant, id) columns of `files`, in their order.
pub(super) async fn read_files(table: &Table, files: Vec<Arc<DataFile>>) -> Result<Vec<RecordBatch>> {
    let batches: Vec<Vec<RecordBatch>> =
        futures::stream::iter(files).map(|file| read_file(table, file)).buffered(READS_MAX).try_collect().await?;
    Ok(batches.into_iter().flatten().collect())
}

fn newest(snapshot: &Snapshot, rows_max: u64) -> Vec<Arc<DataFile>> {
    let mut files: Vec<_> = snapshot.files.iter().cloned().collect();
    files.sort_unstable_by_key(|file| Reverse((file.received.map(|(_, latest)| latest), file.modified)));
    let mut rows = 0;
    files.retain(|file| {
        let wanted = rows < rows_max;
        rows += file.rows;
        wanted
    });
    files
}

async fn read_file(table: &Table, file: Arc<DataFile>) -> Result<Vec<RecordBatch>> {
    let (contract, (store, _)) = (table.contract(), table.location());
    let names = [contract.tenant, contract.id].map(|column| contract.columns[column].name.as_str());
    read_columns(&store.objects, table.file_path(&file), file.size, &names).await.map_err(|error| {
        Error::unavailable(format!("table `{}`: `{}` cannot be read", contract.name, file.path)).with_source(error)
    })
}
