//! [`EventBatch`]: events of one contract as columns, some of which are dictionaries.
//!
//! In: the columns that a decoder built, or batches of the same contract. Out: one batch, its rows as plain columns, or
//! their size as plain columns.
//!
//! **Invariant:** the columns are those of [`Contract::schema`], in its order. Only their encoding varies: a text
//! column, or the keys and values of the map, may be a dictionary (`TextDictionaryArray`) in one batch and plain text
//! in the next.

use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

use super::dictionary_ops::{concat_columns, is_same, plain_bytes, plain_column, typed};
use crate::contract::Contract;
use crate::error::{Error, Result};

/// Events of one contract. Dereferences to its `RecordBatch`, and ensures that the columns match the contract.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch(RecordBatch);

impl Deref for EventBatch {
    type Target = RecordBatch;

    fn deref(&self) -> &RecordBatch {
        &self.0
    }
}

impl EventBatch {
    /// Wraps rows that were built elsewhere, such as those of a quarantine. `Internal` if their columns do not match
    /// the contract.
    pub fn new(contract: &Contract, rows: RecordBatch) -> Result<Self> {
        if !is_same(rows.schema_ref(), contract.schema()) {
            return Err(Error::internal(format!("table `{}`: the rows do not match its contract", contract.name)));
        }
        Ok(Self(rows))
    }

    /// No rows.
    pub fn empty(contract: &Contract) -> Self {
        Self(contract.empty_batch())
    }

    /// Decoded columns in stored order, `rows` long. `Internal` if they are not those of the contract.
    pub(in crate::contract) fn of_columns(contract: &Contract, columns: Vec<ArrayRef>, rows: usize) -> Result<Self> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(typed(contract.schema(), &columns), columns, &options)
            .map_err(|cause| Error::internal("decoded columns do not match their contract").with_source(cause))
            .and_then(|rows| Self::new(contract, rows))
    }

    /// Wraps any columns, for tests of code that reads only some of them.
    #[cfg(test)]
    pub(crate) fn unchecked(rows: RecordBatch) -> Self {
        Self(rows)
    }

    /// The rows of all batches, in order. A column stays a dictionary if it is one in every batch and the values fit one
    /// dictionary. `Internal` for no batches or for batches of different contracts.
    pub fn concat(batches: &[&Self]) -> Result<Self> {
        let [first, rest @ ..] = batches else {
            return Err(Error::internal("there are no batches to concatenate"));
        };
        if rest.is_empty() {
            return Ok((*first).clone());
        }
        if let Some(other) = rest.iter().find(|other| !is_same(first.schema_ref(), other.schema_ref())) {
            let (one, other) = (first.schema(), other.schema());
            return Err(Error::internal(format!("batches of different contracts: {one:?} and {other:?}")));
        }
        let concatenated = |column: usize| {
            let columns: Vec<ArrayRef> = batches.iter().map(|batch| Arc::clone(batch.column(column))).collect();
            concat_columns(&columns)
        };
        let columns = (0..first.num_columns()).map(concatenated).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|cause| Error::internal("cannot concatenate batches").with_source(cause))?;
        first.with_columns(columns).map_err(|cause| Error::internal("cannot concatenate batches").with_source(cause))
    }

    /// Other rows of the same contract: the same columns with other values, each column of the same length.
    pub fn with_columns(&self, columns: Vec<ArrayRef>) -> Result<Self, ArrowError> {
        let schema = typed(self.schema_ref(), &columns);
        if !is_same(&schema, self.schema_ref()) {
            return Err(ArrowError::SchemaError(format!("the columns are {schema}, not {}", self.schema_ref())));
        }
        RecordBatch::try_new(schema, columns).map(Self)
    }

    /// The rows for which `keep` is true.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        filter_record_batch(&self.0, keep).map(Self)
    }

    /// `rows` rows from row `first` on, without a copy.
    pub fn slice(&self, first: usize, rows: usize) -> Self {
        Self(self.0.slice(first, rows))
    }

    /// The same rows, every dictionary replaced by plain text: exactly [`Contract::schema`].
    pub fn to_plain(&self) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns().iter().map(plain_column).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(typed(self.schema_ref(), &columns), columns)
    }

    /// One column, as plain text if it is a dictionary.
    pub fn plain_column(&self, column: usize) -> Result<ArrayRef, ArrowError> {
        plain_column(self.column(column))
    }

    /// Bytes that the rows take as plain columns, which is what concatenation may turn dictionaries into.
    pub fn plain_bytes(&self) -> usize {
        Self::plain_bytes_of(&self.0)
    }

    /// The same for rows that are not decoded yet.
    pub fn plain_bytes_of(rows: &RecordBatch) -> usize {
        rows.columns().iter().map(plain_bytes).sum()
    }
}
