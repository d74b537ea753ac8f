//! The builder of the map column, in which each row has entries with distinct keys.
//!
//! Takes keys and values row by row and produces a map array. Keys are dictionary-encoded if there are few distinct
//! keys. The same applies to values.
//!
//! **Invariant:** values are only appended. The new value of a repeated key is also appended, so no other value has to
//! be moved.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, MapArray, NullBufferBuilder, StructArray, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Schema};

use super::dictionary_ops::with_column_types;
use super::padded_slice::PaddedSlice;
use super::text_builder::{NULL_POSITION, TextBuilder, column_error};
use crate::contract::ColumnKind;
use crate::contract::schema::column::entry_fields;
use crate::error::{Error, Result};

/// Builds the map column.
#[derive(Debug)]
pub(in crate::contract) struct MapBuilder {
    keys: TextBuilder,
    /// All values in the order in which they were added. Values that were replaced remain in the list.
    values: TextBuilder,
    /// The number of values, including the replaced ones.
    values_count: usize,
    /// For each key, the position of its value in `values`, or [`NULL_POSITION`].
    positions: Vec<u32>,
    /// For each kept row, the index at which its keys end (exclusive).
    ends: Vec<usize>,
    /// The index of the current row's first key.
    begin: usize,
    /// The index of the current row's first value.
    values_begin: usize,
}

impl MapBuilder {
    /// Creates an empty builder with capacity for `rows` rows.
    pub(in crate::contract) fn new(rows: usize) -> Self {
        Self {
            keys: TextBuilder::new(rows),
            values: TextBuilder::new(rows),
            values_count: 0,
            positions: Vec::with_capacity(rows),
            ends: Vec::with_capacity(rows),
            begin: 0,
            values_begin: 0,
        }
    }

    /// Adds an entry to the current row. If the row already has the key, its value is replaced only if `replace` is
    /// true. Returns false if the row already had the key. Returns a `Limited` error if the column would exceed its
    /// maximum size, or if the row would have more than `entries_max` entries.
    pub(in crate::contract) fn add(
        &mut self,
        key: PaddedSlice<'_>,
        value: Option<PaddedSlice<'_>>,
        replace: bool,
        entries_max: usize,
    ) -> Result<bool> {
        let open = self.positions.len();
        self.keys.put(open, key);
        let known = (self.begin..open).find(|entry| self.keys.is_same(*entry, open));
        if known.is_some() || open - self.begin == entries_max {
            self.keys.clear(open);
        }
        match known {
            Some(entry) if replace => self.positions[entry] = self.add_value(value)?,
            Some(_) => (),
            None if open - self.begin == entries_max => {
                return Err(Error::limited(format!(
                    "the event has more than {entries_max} undeclared fields: declare some of them as columns, or send fewer"
                )));
            }
            None => {
                self.keys.keep()?;
                let position = self.add_value(value)?;
                self.positions.push(position);
            }
        }
        Ok(known.is_none())
    }

    fn add_value(&mut self, value: Option<PaddedSlice<'_>>) -> Result<u32> {
        let Some(value) = value else { return Ok(NULL_POSITION) };
        let position = self.values_count;
        self.values.put(position, value);
        self.values.keep()?;
        self.values_count += 1;
        u32::try_from(position).map_err(|_| Error::limited("the body has too many map entries: send smaller bodies"))
    }

    /// Completes the current row and starts the next one.
    pub(in crate::contract) fn keep(&mut self) {
        (self.begin, self.values_begin) = (self.positions.len(), self.values_count);
        self.ends.push(self.begin);
    }

    /// Drops the entries of the current row.
    pub(in crate::contract) fn drop(&mut self) {
        self.keys.truncate(self.begin);
        self.values.truncate(self.values_begin);
        self.values_count = self.values_begin;
        self.positions.truncate(self.begin);
    }

    /// Converts the kept rows to a map array. A row without entries becomes null, because protobuf cannot distinguish
    /// an empty map from an absent one.
    pub(in crate::contract) fn finish(self) -> Result<ArrayRef> {
        let Self { keys, values, values_count, positions, ends, .. } = self;
        if positions.is_empty() {
            return Ok(new_null_array(&ColumnKind::Map.data_type(), ends.len()));
        }
        // If no key is repeated and no value is null, the values are already in the order of their keys.
        let in_order =
            positions.len() == values_count && (0..).zip(&positions).all(|(entry, position)| entry == *position);
        let values = if in_order { values } else { values.select(&positions)? };
        let nulls =
            NullBuffer::new(BooleanBuffer::collect_bool(positions.len(), |entry| positions[entry] != NULL_POSITION));
        let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
        let columns = vec![
            keys.finish(ColumnKind::Text, positions.len(), None)?,
            values.finish(ColumnKind::Text, positions.len(), nulls)?,
        ];
        let mut present = NullBufferBuilder::new(ends.len());
        let mut before = 0;
        let lengths = ends.iter().map(|end| end - std::mem::replace(&mut before, *end));
        let offsets = OffsetBuffer::from_lengths(lengths.inspect(|length| present.append(*length > 0)));
        let fields = with_column_types(&Arc::new(Schema::new(entry_fields())), &columns).fields().clone();
        let entries = StructArray::try_new(fields, columns, None).map_err(column_error)?;
        let field = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
        Ok(Arc::new(MapArray::try_new(field, offsets, entries, present.finish(), false).map_err(column_error)?))
    }
}
