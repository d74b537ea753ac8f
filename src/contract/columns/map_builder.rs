//! The map column while rows are added: entries with different keys.
//!
//! In: keys and values of one row after the other. Out: a map array, its keys and values labels where few are different.
//!
//! **Invariant:** values are only ever added: a key that comes again moves nothing, however often it comes.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, MapArray, NullBufferBuilder, StructArray, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Schema};

use super::column_builder::unfit;
use super::dictionary_ops::typed;
use super::padded_slice::PaddedSlice;
use super::text_builder::{NOWHERE, TextBuilder};
use crate::contract::schema::table::{ColumnKind, entry_fields};
use crate::error::{Error, Result};

/// The map column while rows are added.
#[derive(Debug)]
pub(in crate::contract) struct MapBuilder {
    keys: TextBuilder,
    /// In the order in which they came: of a key that comes again the earlier value stays here, and nobody reads it.
    values: TextBuilder,
    /// How many values that is.
    values_count: usize,
    /// For each key the place of its value.
    places: Vec<u32>,
    /// Where the entries of each kept row end.
    ends: Vec<usize>,
    /// Where the keys and the values of the open row begin.
    begin: usize,
    values_begin: usize,
}

impl MapBuilder {
    /// No entries, with room for those of `rows` rows set aside.
    pub(in crate::contract) fn new(rows: usize) -> Self {
        Self {
            keys: TextBuilder::new(rows),
            values: TextBuilder::new(rows),
            values_count: 0,
            places: Vec::with_capacity(rows),
            ends: Vec::with_capacity(rows),
            begin: 0,
            values_begin: 0,
        }
    }

    /// Adds an entry to the open row. Whether its key is a new one: else `replace` says whether the value takes the place of
    /// the one before. `Limited` when there is no place for it, or when the row has `entries_max` already.
    pub(in crate::contract) fn add(
        &mut self,
        key: PaddedSlice<'_>,
        value: Option<PaddedSlice<'_>>,
        replace: bool,
        entries_max: usize,
    ) -> Result<bool> {
        let open = self.places.len();
        self.keys.put(open, key);
        let known = (self.begin..open).find(|entry| self.keys.is_same(*entry, open));
        if known.is_some() || open - self.begin == entries_max {
            self.keys.clear(open);
        }
        match known {
            Some(entry) if replace => self.places[entry] = self.add_value(value)?,
            Some(_) => (),
            None if open - self.begin == entries_max => {
                return Err(Error::limited(format!(
                    "the event has more than {entries_max} dimensions that are not declared"
                )));
            }
            None => {
                self.keys.keep()?;
                let place = self.add_value(value)?;
                self.places.push(place);
            }
        }
        Ok(known.is_none())
    }

    fn add_value(&mut self, value: Option<PaddedSlice<'_>>) -> Result<u32> {
        let Some(value) = value else { return Ok(NOWHERE) };
        let place = self.values_count;
        self.values.put(place, value);
        self.values.keep()?;
        self.values_count += 1;
        u32::try_from(place).map_err(|_| Error::limited("a body has too many entries: send smaller bodies"))
    }

    /// Keeps the open row, and opens the next.
    pub(in crate::contract) fn keep(&mut self) {
        (self.begin, self.values_begin) = (self.places.len(), self.values_count);
        self.ends.push(self.begin);
    }

    /// Empties the open row.
    pub(in crate::contract) fn drop(&mut self) {
        self.keys.truncate(self.begin);
        self.values.truncate(self.values_begin);
        self.values_count = self.values_begin;
        self.places.truncate(self.begin);
    }

    /// The map column. No entries is no map: protobuf cannot tell the two apart.
    pub(in crate::contract) fn finish(self) -> Result<ArrayRef> {
        let Self { keys, values, values_count, places, ends, .. } = self;
        if places.is_empty() {
            return Ok(new_null_array(&ColumnKind::Map.data_type(), ends.len()));
        }
        // Values are in the order of their keys, unless a key came again or a value is null.
        let in_order = places.len() == values_count && (0..).zip(&places).all(|(entry, place)| entry == *place);
        let values = if in_order { values } else { values.at(&places)? };
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(places.len(), |entry| places[entry] != NOWHERE));
        let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
        let columns = vec![
            keys.finish(ColumnKind::Text, places.len(), None)?,
            values.finish(ColumnKind::Text, places.len(), nulls)?,
        ];
        let mut present = NullBufferBuilder::new(ends.len());
        let mut before = 0;
        let lengths = ends.iter().map(|end| end - std::mem::replace(&mut before, *end));
        let offsets = OffsetBuffer::from_lengths(lengths.inspect(|length| present.append(*length > 0)));
        let fields = typed(&Arc::new(Schema::new(entry_fields())), &columns).fields().clone();
        let entries = StructArray::try_new(fields, columns, None).map_err(unfit)?;
        let field = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
        Ok(Arc::new(MapArray::try_new(field, offsets, entries, present.finish(), false).map_err(unfit)?))
    }
}
