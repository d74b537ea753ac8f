//! [`EventBatch`]: the events of one table as columns, some of which are dictionary-encoded.
//!
//! A batch is built from the columns of a decoder, or by concatenating batches of the same table. It can be decoded to
//! plain columns, and the size of these columns can be computed beforehand.
//!
//! **Invariant:** the columns are those of [`Contract::schema`], in the same order. A text column may be a dictionary
//! (`TextDictionaryArray`) in one batch and contain plain strings in the next. The same applies to the keys and the
//! values of the map.

use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

use super::dictionary_ops::{concat_columns, plain_bytes, plain_column, same_except_encoding, with_column_types};
use crate::contract::Contract;
use crate::error::{Error, Result};

/// The events of one table. Dereferences to a `RecordBatch` whose columns match the table's contract.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch(RecordBatch);

impl Deref for EventBatch {
    type Target = RecordBatch;

    fn deref(&self) -> &RecordBatch {
        &self.0
    }
}

impl EventBatch {
    /// Creates a batch from rows that were not built by a decoder, such as quarantined rows. Returns an `Internal`
    /// error if their columns do not match the contract.
    pub fn new(contract: &Contract, rows: RecordBatch) -> Result<Self> {
        if !same_except_encoding(rows.schema_ref(), contract.schema()) {
            return Err(Error::internal(format!("the rows do not match the contract of table `{}`", contract.name)));
        }
        Ok(Self(rows))
    }

    /// Returns a batch without rows.
    pub fn empty(contract: &Contract) -> Self {
        Self(contract.empty_batch())
    }

    /// Makes a batch of `rows` rows from decoded columns in stored order. Returns an `Internal` error if the columns do
    /// not match the contract.
    pub(in crate::contract) fn of_columns(contract: &Contract, columns: Vec<ArrayRef>, rows: usize) -> Result<Self> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(with_column_types(contract.schema(), &columns), columns, &options)
            .map_err(|cause| Error::internal("decoded columns do not match their contract").with_source(cause))
            .and_then(|rows| Self::new(contract, rows))
    }

    /// Creates a batch without checking its columns, for tests of code that reads only some of the columns.
    #[cfg(test)]
    pub(crate) fn unchecked(rows: RecordBatch) -> Self {
        Self(rows)
    }

    /// Concatenates the rows of all batches, in order. A column stays a dictionary if it is a dictionary in every batch
    /// and all values fit into a single dictionary. Returns an `Internal` error if there are no batches, or if they
    /// belong to different tables.
    pub fn concat(batches: &[&Self]) -> Result<Self> {
        let [first, rest @ ..] = batches else {
            return Err(Error::internal("there are no batches to concatenate"));
        };
        if rest.is_empty() {
            return Ok((*first).clone());
        }
        if let Some(other) = rest.iter().find(|other| !same_except_encoding(first.schema_ref(), other.schema_ref())) {
            let (one, other) = (first.schema(), other.schema());
            return Err(Error::internal(format!("cannot concatenate batches with schemas {one:?} and {other:?}")));
        }
        let concatenated = |column: usize| {
            let columns: Vec<ArrayRef> = batches.iter().map(|batch| Arc::clone(batch.column(column))).collect();
            concat_columns(&columns)
        };
        let columns = (0..first.num_columns()).map(concatenated).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|cause| Error::internal("cannot concatenate batches").with_source(cause))?;
        first.with_columns(columns).map_err(|cause| Error::internal("cannot concatenate batches").with_source(cause))
    }

    /// Replaces the columns, and returns the resulting batch. All columns must have the same length. A column may
    /// change its encoding, but not its type.
    pub fn with_columns(&self, columns: Vec<ArrayRef>) -> Result<Self, ArrowError> {
        let schema = with_column_types(self.schema_ref(), &columns);
        if !same_except_encoding(&schema, self.schema_ref()) {
            return Err(ArrowError::SchemaError(format!("expected columns {}, got {schema}", self.schema_ref())));
        }
        RecordBatch::try_new(schema, columns).map(Self)
    }

    /// Returns the rows for which `keep` is true.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        filter_record_batch(&self.0, keep).map(Self)
    }

    /// Returns the `rows` rows that begin at row `first`. The data is not copied.
    pub fn slice(&self, first: usize, rows: usize) -> Self {
        Self(self.0.slice(first, rows))
    }

    /// Decodes all dictionaries to plain strings. The schema of the result is equal to [`Contract::schema`].
    pub fn to_plain(&self) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns().iter().map(plain_column).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(with_column_types(self.schema_ref(), &columns), columns)
    }

    /// Returns one column, decoded to plain strings if it is a dictionary.
    pub fn plain_column(&self, column: usize) -> Result<ArrayRef, ArrowError> {
        plain_column(self.column(column))
    }

    /// Returns the number of bytes that the rows take after all dictionaries have been decoded. Memory limits use this
    /// size, because concatenation may decode dictionaries.
    pub fn plain_bytes(&self) -> usize {
        Self::plain_bytes_of(&self.0)
    }

    /// Returns the same size as [`EventBatch::plain_bytes`], for rows that are not in an [`EventBatch`].
    pub fn plain_bytes_of(rows: &RecordBatch) -> usize {
        rows.columns().iter().map(plain_bytes).sum()
    }
}
