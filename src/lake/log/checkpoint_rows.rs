//! Reads single columns of a checkpoint, batch by batch, so that a large checkpoint is never in memory as a whole.

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt as _;
use object_store::ObjectMeta;
use parquet::errors::ParquetError;

use crate::error::{Error, Result};
use crate::lake::read::object_reader::stream_leaves;
use crate::lake::store::client::Store;

/// An action in a checkpoint. Paths are percent-encoded, as in the log.
#[derive(Debug)]
pub(in crate::lake) enum CheckpointRow<'a> {
    /// A live file, with its size in bytes.
    Add { path: &'a str, size: Option<i64> },
    /// A removed file, with the time of its removal in milliseconds since 1970.
    Remove { path: &'a str, removed_ms: Option<i64>, size: Option<i64> },
    /// An application transaction.
    Txn { app: &'a str, version: i64 },
}

/// Calls `each` with the actions of a checkpoint. `leaves` are the Parquet columns to read, such as `remove.path`.
/// Without the `path` or `appId` of an action, the action is skipped.
pub(in crate::lake) async fn checkpoint_rows(
    store: &Store,
    files: &[ObjectMeta],
    leaves: &[&str],
    each: &mut (dyn FnMut(CheckpointRow<'_>) + Send),
) -> Result<()> {
    for file in files {
        let unreadable = |error: ParquetError| {
            Error::unavailable(format!("cannot read checkpoint `{}`", file.location)).with_source(error)
        };
        let mut batches =
            stream_leaves(&store.objects, file.location.clone(), file.size, leaves).await.map_err(unreadable)?;
        while let Some(batch) = batches.try_next().await.map_err(unreadable)? {
            rows_of(&batch, each);
        }
    }
    Ok(())
}

fn rows_of(batch: &RecordBatch, each: &mut (dyn FnMut(CheckpointRow<'_>) + Send)) {
    let action = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt());
    if let Some(adds) = action("add") {
        for (row, path) in texts(adds, "path") {
            each(CheckpointRow::Add { path, size: number(adds, "size", row) });
        }
    }
    if let Some(removes) = action("remove") {
        for (row, path) in texts(removes, "path") {
            let (removed_ms, size) = (number(removes, "deletionTimestamp", row), number(removes, "size", row));
            each(CheckpointRow::Remove { path, removed_ms, size });
        }
    }
    if let Some(txns) = action("txn") {
        for (row, app) in texts(txns, "appId") {
            if let Some(version) = number(txns, "version", row) {
                each(CheckpointRow::Txn { app, version });
            }
        }
    }
}

/// Returns the values of a text column that are not null, with their rows.
fn texts<'a>(action: &'a StructArray, name: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let texts = action.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    texts.into_iter().flat_map(move |texts| {
        (0..texts.len())
            .filter(|row| action.is_valid(*row) && texts.is_valid(*row))
            .map(move |row| (row, texts.value(row)))
    })
}

fn number(action: &StructArray, name: &str, row: usize) -> Option<i64> {
    let numbers = action.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
    numbers.is_valid(row).then(|| numbers.value(row))
}
