//! Reads the event keys (tenant and id) of one file. The dedupe index is built from these keys.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::lake::read::object_reader::read_columns;
use crate::lake::{DataFile, ReadError, Table};

impl Table {
    /// Reads a file's tenant and id columns. The file need not be live.
    pub async fn keys(&self, file: &DataFile) -> Result<Vec<RecordBatch>, ReadError> {
        let (contract, (store, _)) = (self.contract(), self.location());
        let names = [contract.tenant, contract.id].map(|column| contract.columns[column].name.as_str());
        let objects = Arc::clone(&store.objects);
        let read = read_columns(&objects, self.file_path(file), file.size, &names).await;
        read.map_err(|error| ReadError::new(contract, file, error))
    }
}
