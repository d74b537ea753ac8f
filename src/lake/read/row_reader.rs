//! Reads some columns of one file in batches. Returns either all rows or only the rows with the given row numbers.
//!
//! This reader is for maintenance tasks, such as the operator commands for the quarantine. Queries must not use this
//! reader, because it does not filter by tenant.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parquet::arrow::arrow_reader::RowSelection;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::Result as ParquetResult;

use crate::error::{Error, Result};
use crate::lake::read::object_reader::ObjectReader;
use crate::lake::{DataFile, Table};

impl Table {
    /// Streams rows of a file in batches of at most `batch_rows` rows. Reads the columns in `names` that the file has.
    /// Reads all rows, or only the rows at `row_numbers`, which must be ascending. The first row of a file has the
    /// number 0. Returns `Unavailable` if the file cannot be read.
    pub async fn rows(
        &self,
        file: &DataFile,
        names: &[&str],
        row_numbers: Option<&[usize]>,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let (name, path) = (self.contract().name.clone(), file.path.clone());
        let unreadable =
            move |error| Error::unavailable(format!("table `{name}`: cannot read file `{path}`")).with_source(error);
        let rows = open(self, file, names, row_numbers, batch_rows).await.map_err(&unreadable)?;
        Ok(rows.map_err(unreadable).boxed())
    }
}

async fn open(
    table: &Table,
    file: &DataFile,
    names: &[&str],
    row_numbers: Option<&[usize]>,
    batch_rows: usize,
) -> ParquetResult<BoxStream<'static, ParquetResult<RecordBatch>>> {
    let objects = &table.location().0.objects;
    let object = ObjectReader::new(objects, table.file_path(file), file.size);
    let builder = ParquetRecordBatchStreamBuilder::new(object).await?;
    let fields = Arc::clone(builder.schema());
    let wanted = fields.fields().iter().enumerate().filter(|(_, field)| names.contains(&field.name().as_str()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(column, _)| column));
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(usize::MAX);
    let builder = builder.with_projection(mask).with_batch_size(batch_rows);
    let builder = match row_numbers {
        None => builder,
        Some(row_numbers) => {
            let ranges = row_numbers.iter().map(|row| *row..row + 1);
            builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, rows))
        }
    };
    Ok(builder.build()?.boxed())
}
