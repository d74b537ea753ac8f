//! Checked rows become Arrow columns.
//!
//! **Invariant:** what is the same in all rows (the receive time, the token's tenant) is written once, at the end.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, Int32Builder,
    Int64Builder, MapArray, MapBuilder, MapFieldNames, NullBufferBuilder, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::row::Row;
use super::table::{ColumnKind, Contract, entry_fields};
use super::value::Slot;
use super::{Owner, Stamp};
use crate::error::{Error, Result};

/// Room for the characters of one text, where the number of rows is known.
const TEXT_BYTES: usize = 8;

/// Columns that grow row by row, in stored order.
#[derive(Debug)]
pub(super) struct Columns {
    builders: Vec<Builder>,
    rows: usize,
}

/// One growing column.
#[derive(Debug)]
pub(super) enum Builder {
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    /// Bytes that are UTF-8: they are checked again as a whole, which is quicker than one by one.
    Text(BinaryBuilder),
    Bytes(BinaryBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Map(Box<Entries>),
    /// The token's tenant, in every row.
    Tenant,
    /// The receive time, in every row.
    Received,
}

/// A growing map column.
#[derive(Debug)]
pub(super) struct Entries {
    keys: BinaryBuilder,
    values: BinaryBuilder,
    /// Where each row's entries end.
    ends: Vec<usize>,
    present: NullBufferBuilder,
}

impl Columns {
    /// Columns with room for `rows`; they grow beyond it.
    pub(super) fn new(contract: &Contract, stamp: &Stamp, rows: usize) -> Self {
        let builders = contract.columns.iter().enumerate().map(|(index, column)| match column.kind {
            _ if index == contract.received => Builder::Received,
            _ if index == contract.tenant && stamp.owner != Owner::PerEvent => Builder::Tenant,
            kind => Builder::new(kind, rows),
        });
        Self { builders: builders.collect(), rows: 0 }
    }

    /// Adds a row that passed every check.
    pub(super) fn append(&mut self, row: &Row<'_>) {
        for (builder, slot) in self.builders.iter_mut().zip(&row.slots) {
            builder.append(*slot, row);
        }
        self.rows += 1;
    }

    pub(super) fn finish(self, contract: &Contract, stamp: &Stamp) -> Result<RecordBatch> {
        let rows = self.rows;
        let arrays = self.builders.into_iter().map(|builder| builder.finish(stamp, rows)).collect::<Result<_>>()?;
        batch_of(contract, arrays, rows)
    }
}

impl Builder {
    /// A column with room for `rows`.
    pub(super) fn new(kind: ColumnKind, rows: usize) -> Self {
        match kind {
            ColumnKind::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            ColumnKind::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            ColumnKind::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            ColumnKind::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            ColumnKind::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            ColumnKind::Text => Self::Text(BinaryBuilder::with_capacity(rows, rows * TEXT_BYTES)),
            ColumnKind::Bytes => Self::Bytes(BinaryBuilder::with_capacity(rows, 0)),
            ColumnKind::Timestamp => {
                Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"))
            }
            ColumnKind::Date => Self::Date(Date32Builder::with_capacity(rows)),
            ColumnKind::Map => Self::Map(Box::new(Entries::new(rows))),
        }
    }

    pub(super) fn append(&mut self, slot: Slot<'_>, row: &Row<'_>) {
        match (self, slot) {
            (Self::Tenant | Self::Received, _) => {}
            (Self::Map(entries), _) => entries.append(row),
            (Self::Text(builder), Slot::Text(text)) => builder.append_value(row.bytes(text)),
            (Self::Int64(builder), Slot::Int(value)) => builder.append_value(value),
            (Self::Float64(builder), Slot::Float(value)) => builder.append_value(value),
            (Self::Timestamp(builder), Slot::Int(micros)) => builder.append_value(micros),
            (Self::Bool(builder), Slot::Bool(value)) => builder.append_value(value),
            // Both were checked to fit by the leaf that made the slot.
            (Self::Int32(builder), Slot::Int(value)) => builder.append_value(value as i32),
            (Self::Date(builder), Slot::Int(days)) => builder.append_value(days as i32),
            (Self::Float32(builder), Slot::Float(value)) => builder.append_value(value as f32),
            (Self::Bytes(builder), Slot::Bytes(bytes)) => builder.append_value(bytes),
            (Self::Bytes(builder), Slot::Blob(start, end)) => builder.append_value(&row.blob[start..end]),
            (builder, slot) => {
                debug_assert!(matches!(slot, Slot::Absent | Slot::Null), "{slot:?} is of another kind than its column");
                builder.append_null();
            }
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Text(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Bool(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Map(_) | Self::Tenant | Self::Received => {}
        }
    }

    pub(super) fn finish(self, stamp: &Stamp, rows: usize) -> Result<ArrayRef> {
        Ok(match self {
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Int32(mut builder) => Arc::new(builder.finish()),
            Self::Int64(mut builder) => Arc::new(builder.finish()),
            Self::Float32(mut builder) => Arc::new(builder.finish()),
            Self::Float64(mut builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(texts(builder).map_err(unfit)?),
            Self::Bytes(mut builder) => Arc::new(builder.finish()),
            Self::Timestamp(mut builder) => Arc::new(builder.finish()),
            Self::Date(mut builder) => Arc::new(builder.finish()),
            Self::Map(entries) => Arc::new(entries.finish().map_err(unfit)?),
            Self::Tenant => tenant_column(stamp, rows),
            Self::Received => received_column(stamp, rows),
        })
    }
}

impl Entries {
    fn new(rows: usize) -> Self {
        let texts = || BinaryBuilder::with_capacity(rows, rows * TEXT_BYTES);
        Self { keys: texts(), values: texts(), ends: Vec::with_capacity(rows), present: NullBufferBuilder::new(rows) }
    }

    /// No entries is no map: protobuf cannot tell the two apart.
    fn append(&mut self, row: &Row<'_>) {
        for (key, value) in &row.entries {
            self.keys.append_value(row.bytes(*key));
            self.values.append_option(value.map(|value| row.bytes(value)));
        }
        let before = self.ends.last().copied().unwrap_or(0);
        self.ends.push(before + row.entries.len());
        self.present.append(!row.entries.is_empty());
    }

    fn finish(mut self) -> Result<MapArray, ArrowError> {
        let columns: Vec<ArrayRef> = vec![Arc::new(texts(self.keys)?), Arc::new(texts(self.values)?)];
        let entries = StructArray::try_new(entry_fields(), columns, None)?;
        let field = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
        let mut before = 0;
        let lengths = self.ends.iter().map(|end| end - std::mem::replace(&mut before, *end));
        let offsets = OffsetBuffer::from_lengths(lengths);
        MapArray::try_new(field, offsets, entries, self.present.finish(), false)
    }
}

/// Bytes as text. An error would be a fault of a decoder: it has looked at each of them.
fn texts(mut bytes: BinaryBuilder) -> Result<StringArray, ArrowError> {
    StringArray::try_from_binary(bytes.finish())
}

fn unfit(cause: ArrowError) -> Error {
    Error::internal("decoded values do not fit their column").with_source(cause)
}

/// A builder of the map column's exact type.
pub(super) fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// The token's tenant in every row.
pub(super) fn tenant_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    match &stamp.owner {
        Owner::Tenant(tenant) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(tenant.as_str(), rows))),
        Owner::PerEvent => Arc::new(StringArray::new_null(rows)),
    }
}

/// The receive time in every row.
pub(super) fn received_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(stamp.received, rows).with_timezone("UTC"))
}

/// Columns in stored order as one batch.
pub(super) fn batch_of(contract: &Contract, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(contract.schema()), columns, &options)
        .map_err(|fault| Error::internal("decoded columns do not fit their contract").with_source(fault))
}
