//! Rows of one file as they are stored: named columns, batch by batch, all rows or those at given places.
//!
//! For those who keep a table (its quarantine's operator), not for queries: whose rows they are is not looked at here.

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

/// Streams the columns of `names` that the file has. `places` are row numbers from 0, ascending; none for all rows.
pub(in crate::lake) async fn read(
    table: &Table,
    file: &DataFile,
    names: &[&str],
    places: Option<&[usize]>,
    batch_rows: usize,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let (name, path) = (table.contract().name.clone(), file.path.clone());
    let unreadable =
        move |error| Error::unavailable(format!("table `{name}`: `{path}` cannot be read")).with_source(error);
    let rows = open(table, file, names, places, batch_rows).await.map_err(&unreadable)?;
    Ok(rows.map_err(unreadable).boxed())
}

async fn open(
    table: &Table,
    file: &DataFile,
    names: &[&str],
    places: Option<&[usize]>,
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
    let builder = match places {
        None => builder,
        Some(places) => {
            let ranges = places.iter().map(|place| *place..place + 1);
            builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, rows))
        }
    };
    Ok(builder.build()?.boxed())
}
