//! Collects the rows of one row group.
//!
//! Columns whose text repeats are kept as dictionaries until the row group ends, because a chunk has one dictionary.
//! All other columns are encoded as rows arrive, so that a large row group takes little more memory than its encoded
//! size.

use std::io::Write;

use arrow::array::{Array as _, ArrayRef};
use arrow::datatypes::{Field, SchemaRef};
use parquet::arrow::arrow_writer::{ArrowColumnWriter, compute_leaves};
use parquet::errors::Result;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::ColumnDescPtr;

use crate::contract::{concat_columns, plain_column};
use crate::lake::parquet_writer::column_encoder::{dictionary_leaves, encode_column, leaf_count, leaf_mismatch};
use crate::lake::parquet_writer::dictionary_encoder::DictionaryEncoder;

/// The rows of a row group that has not ended.
pub(in crate::lake) struct RowGroupBuffer {
    leaves: Vec<ColumnDescPtr>,
    writers: Vec<ArrowColumnWriter>,
    /// The columns of the tenant, the time and the id.
    keys: [usize; 3],
    /// The state of each column. Empty before the first rows.
    columns: Vec<BufferedColumn>,
    rows: usize,
}

/// A column of a row group that has not ended.
enum BufferedColumn {
    /// The column has been encoded as rows arrived.
    Encoded,
    /// The column is encoded when the row group ends. `is_dictionary` has one element for each leaf.
    Waiting { batches: Vec<ArrayRef>, is_dictionary: Vec<bool> },
}

impl RowGroupBuffer {
    /// `leaves` and `writers` have one element for each leaf column of the file.
    pub(in crate::lake) fn new(leaves: Vec<ColumnDescPtr>, writers: Vec<ArrowColumnWriter>, keys: [usize; 3]) -> Self {
        Self { leaves, writers, keys, columns: Vec::new(), rows: 0 }
    }

    pub(in crate::lake) fn rows(&self) -> usize {
        self.rows
    }

    /// Appends rows.
    pub(in crate::lake) fn write(&mut self, schema: &SchemaRef, columns: &[ArrayRef]) -> Result<()> {
        if self.columns.is_empty() {
            self.columns = columns.iter().enumerate().map(|(at, values)| self.state_of(at, values)).collect();
        }
        let mut writers = self.writers.iter_mut();
        for ((field, values), state) in schema.fields().iter().zip(columns).zip(&mut self.columns) {
            let mut writers = writers.by_ref().take(leaf_count(field.data_type()));
            match state {
                BufferedColumn::Waiting { batches, .. } => {
                    batches.push(ArrayRef::clone(values));
                    writers.by_ref().for_each(drop);
                }
                BufferedColumn::Encoded => encode(field, values, writers)?,
            }
        }
        self.rows += columns.first().map_or(0, |column| column.len());
        Ok(())
    }

    fn state_of(&self, column: usize, values: &ArrayRef) -> BufferedColumn {
        let is_dictionary = dictionary_leaves(values, self.keys.contains(&column));
        match is_dictionary.contains(&true) {
            true => BufferedColumn::Waiting { batches: Vec::new(), is_dictionary },
            false => BufferedColumn::Encoded,
        }
    }

    /// Encodes the waiting columns, and appends all columns to a row group.
    pub(in crate::lake) fn encode<W: Write + Send>(
        self,
        schema: &SchemaRef,
        encoder: &mut DictionaryEncoder,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let mut leaves = self.leaves.into_iter().zip(self.writers);
        for (field, state) in schema.fields().iter().zip(self.columns) {
            let leaves = leaves.by_ref().take(leaf_count(field.data_type()));
            match state {
                BufferedColumn::Encoded => {
                    for (_, writer) in leaves {
                        writer.close()?.append_to_row_group(group)?;
                    }
                }
                BufferedColumn::Waiting { batches, is_dictionary } => {
                    let values = concat_columns(&batches)?;
                    encode_column(encoder, group, field, &values, &is_dictionary, leaves)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the memory that the rows take, in bytes.
    pub(in crate::lake) fn memory_bytes(&self) -> usize {
        let waiting = |state: &BufferedColumn| match state {
            BufferedColumn::Encoded => 0,
            BufferedColumn::Waiting { batches, .. } => batches.iter().map(slice_bytes).sum(),
        };
        let encoded: usize = self.writers.iter().map(ArrowColumnWriter::memory_size).sum();
        encoded + self.columns.iter().map(waiting).sum::<usize>()
    }
}

fn slice_bytes(values: &ArrayRef) -> usize {
    values.to_data().get_slice_memory_size().unwrap_or_else(|_| values.get_array_memory_size())
}

fn encode<'w>(
    field: &Field,
    values: &ArrayRef,
    writers: impl Iterator<Item = &'w mut ArrowColumnWriter>,
) -> Result<()> {
    let mut leaves = compute_leaves(field, &plain_column(values)?)?.into_iter();
    for writer in writers {
        writer.write(&leaves.next().ok_or_else(|| leaf_mismatch(field))?)?;
    }
    match leaves.next() {
        Some(_) => Err(leaf_mismatch(field)),
        None => Ok(()),
    }
}
