//! The builder of a list column, in which each row has any number of elements.
//!
//! Takes elements one by one and produces a list array. The elements of all rows are in one [`ColumnBuilder`], in which
//! each element takes up a row.
//!
//! **Invariant:** the elements of the current row follow the elements of all kept rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;

use super::column_builder::ColumnBuilder;
use super::text_builder::column_error;
use crate::contract::ColumnKind;
use crate::error::{Error, Result};

/// The smallest number of elements by which the capacity grows.
const ELEMENTS_STEP: usize = 256;

/// Builds a list column.
#[derive(Debug)]
pub(in crate::contract) struct ListBuilder {
    elements: Box<ColumnBuilder>,
    /// The number of elements, including those of the current row.
    count: usize,
    /// The number of elements for which `elements` has space.
    capacity: usize,
    /// The number of elements before each kept row, and before the current row.
    offsets: Vec<i32>,
}

impl ListBuilder {
    /// Creates a builder for lists of `element`, with capacity for `rows` rows.
    pub(in crate::contract) fn new(element: ColumnKind, rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { elements: Box::new(ColumnBuilder::new(element, false, 0)), count: 0, capacity: 0, offsets }
    }

    /// Adds an element to the current row. `write` writes its value at the given index, or nothing if the element is
    /// null. Returns a `Limited` error if the strings of the column exceed their maximum size.
    pub(in crate::contract) fn push(&mut self, write: impl FnOnce(&mut ColumnBuilder, usize)) -> Result<()> {
        if self.count == self.capacity {
            self.capacity += self.capacity.max(ELEMENTS_STEP);
            self.elements.grow(self.capacity);
        }
        write(&mut self.elements, self.count);
        self.elements.keep()?;
        self.count += 1;
        Ok(())
    }

    /// Removes the elements of the current row.
    pub(in crate::contract) fn clear(&mut self) {
        let kept = self.offsets.last().map_or(0, |end| *end as usize);
        self.elements.truncate(kept, self.count);
        self.count = kept;
    }

    /// Keeps the elements of the current row. Returns a `Limited` error if the column has too many elements.
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        let end = i32::try_from(self.count).map_err(|_| {
            Error::limited(format!("the lists of one column have more than {} elements: send smaller bodies", i32::MAX))
        })?;
        self.offsets.push(end);
        Ok(())
    }

    /// Converts the kept rows to an array of lists of `element`, as they are stored.
    pub(in crate::contract) fn finish(self, element: ColumnKind, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let kept = self.offsets.last().map_or(0, |end| *end as usize);
        let elements = self.elements.finish(element, kept)?;
        let elements = elements.ok_or_else(|| Error::internal("a list cannot contain maps"))?;
        // The type of a text column depends on its values, but lists are always plain.
        let elements = super::dictionary_ops::plain_column(&elements).map_err(column_error)?;
        let kind = ColumnKind::list_of(element).map(ColumnKind::stored_type);
        let Some(DataType::List(field)) = kind else {
            return Err(Error::internal(format!("a list cannot contain {element}")));
        };
        let offsets = OffsetBuffer::new(self.offsets.into());
        Ok(Arc::new(ListArray::try_new(field, offsets, elements, nulls).map_err(column_error)?))
    }
}
