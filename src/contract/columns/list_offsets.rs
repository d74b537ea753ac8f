//! The offsets of a list column: the number of elements before each row.
//!
//! The elements of all rows are in one column, which the owner of the offsets builds.
//!
//! **Invariant:** the elements of the current row follow the elements of all kept rows.

use arrow::buffer::OffsetBuffer;

use crate::error::{Error, Result};

/// The smallest number of elements by which the capacity grows.
const ELEMENTS_STEP: usize = 256;

/// The offsets of the kept rows, and the number of elements of the current row.
#[derive(Debug)]
pub(in crate::contract) struct ListOffsets {
    /// The number of elements, including those of the current row.
    count: usize,
    /// The number of elements for which the column of the elements has space.
    capacity: usize,
    /// The number of elements before each kept row, and before the current row.
    offsets: Vec<i32>,
}

impl ListOffsets {
    /// Creates offsets without rows, with capacity for `rows` rows.
    pub(in crate::contract) fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { count: 0, capacity: 0, offsets }
    }

    /// Returns the index of the next element, and the capacity that the column of the elements must grow to first.
    pub(in crate::contract) fn next(&mut self) -> (usize, Option<usize>) {
        let index = self.count;
        self.count += 1;
        if index < self.capacity {
            return (index, None);
        }
        self.capacity += self.capacity.max(ELEMENTS_STEP);
        (index, Some(self.capacity))
    }

    /// Removes the elements of the current row, and returns their indexes.
    pub(in crate::contract) fn clear(&mut self) -> std::ops::Range<usize> {
        let removed = self.kept()..self.count;
        self.count = removed.start;
        removed
    }

    /// Keeps the elements of the current row. Returns a `Limited` error if the column has too many elements.
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        let end = i32::try_from(self.count).map_err(|_| {
            Error::limited(format!("the lists of one column have more than {} elements: send smaller bodies", i32::MAX))
        })?;
        self.offsets.push(end);
        Ok(())
    }

    /// Returns the number of elements of all kept rows.
    pub(in crate::contract) fn kept(&self) -> usize {
        self.offsets.last().map_or(0, |end| *end as usize)
    }

    /// Returns the offsets of the kept rows.
    pub(in crate::contract) fn finish(self) -> OffsetBuffer<i32> {
        OffsetBuffer::new(self.offsets.into())
    }
}
