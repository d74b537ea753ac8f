//! Reads the event keys (tenant, id) of one file, from which a dedupe window is built.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::lake::read::object_reader::read_columns;
use crate::lake::{DataFile, Table};

/// Reads only the tenant and id columns of a file.
pub(in crate::lake) async fn read(table: &Table, file: &DataFile) -> Result<Vec<RecordBatch>> {
    let (contract, (store, _)) = (table.contract(), table.location());
    let names = [contract.tenant, contract.id].map(|column| contract.columns[column].name.as_str());
    let objects = Arc::clone(&store.objects);
    let read = read_columns(&objects, table.file_path(file), file.size, &names).await;
    read.map_err(|error| {
        Error::unavailable(format!("table `{}`: cannot read file `{}`", contract.name, file.path)).with_source(error)
    })
}
