//! Builds an event batch row by row. Decoders write the values of the *current row*, the row that is being decoded,
//! directly into the columns.
//!
//! ```text
//!   protobuf | json ─ fill ─► current row ─ check ─┬─ keep ─► next row ─► … ─► Arrow columns
//!                                               └─ drop ─► the same row, empty again
//! ```
//!
//! A value is written once, at its final position in the column. Writing a field does not allocate. A field's bytes are
//! copied while they are still in the processor's cache.
//!
//! **Invariant:** when a row is dropped, all of its values are removed from the columns.

use super::column_builder;
use super::column_builder::ColumnBuilder;
use super::event_batch::EventBatch;
use super::map_builder::MapBuilder;
use super::padded_slice::PaddedSlice;
use crate::contract::ColumnKind;
use crate::contract::decode::column_value::{ColumnValue, Text};
use crate::contract::decode::reject_reason::{Reason, RejectCause};
use crate::contract::schema::fields::{Fallback, Node};
use crate::contract::{Contract, DecodeOptions, Owner};
use crate::error::Result;

/// The number of rows by which the capacity of the columns grows. It is small so that newly allocated memory is still
/// in the processor's caches when the rows are written.
const ROWS_STEP: usize = 1 << 10;

/// Builds the columns of an [`EventBatch`], one row at a time.
#[derive(Debug)]
pub(in crate::contract) struct BatchBuilder<'a> {
    body: &'a [u8],
    /// One builder per column, in stored order.
    columns: Vec<ColumnBuilder>,
    /// The indexes of the columns with strings and lists, for [`BatchBuilder::keep`].
    growing_columns: Vec<usize>,
    entries: MapBuilder,
    /// The number of rows kept so far, which is also the index of the current row.
    rows: usize,
    /// The number of rows that the columns can hold before they must grow.
    capacity: usize,
    open: OpenRow,
    /// The strings of the current row that are not slices of the body, such as unescaped strings and formatted numbers.
    pub(in crate::contract) derived: String,
    /// The byte strings of the current row that are not slices of the body, such as decoded base64.
    pub(in crate::contract) derived_bytes: Vec<u8>,
    entries_max: usize,
}

/// The state of the current row.
#[derive(Debug)]
struct OpenRow {
    /// For each column, true if the event contains a field for it, even if the field is null.
    seen: Vec<bool>,
    /// For each object of the field tree, true if the event contains the object.
    nodes: Vec<bool>,
    /// The first reason for rejecting the row.
    cause: Option<Box<RejectCause>>,
}

impl<'a> BatchBuilder<'a> {
    /// Creates a builder with an initial capacity for `rows` rows.
    pub(in crate::contract) fn new(contract: &Contract, body: &'a [u8], options: &DecodeOptions, rows: usize) -> Self {
        let is_growing = |kind: ColumnKind| kind.is_string() || matches!(kind, ColumnKind::Bytes | ColumnKind::List(_));
        let is_key = |column| column == contract.tenant || column == contract.id;
        let columns = contract.columns.iter().enumerate();
        Self {
            body,
            columns: columns
                .clone()
                .map(|(index, column)| ColumnBuilder::new(column.kind, is_key(index), rows))
                .collect(),
            growing_columns: columns.filter(|(_, column)| is_growing(column.kind)).map(|(index, _)| index).collect(),
            entries: MapBuilder::new(rows),
            rows: 0,
            capacity: 0,
            open: OpenRow {
                seen: vec![false; contract.columns.len()],
                nodes: vec![false; contract.tree.nodes.len()],
                cause: None,
            },
            derived: String::new(),
            derived_bytes: Vec::new(),
            entries_max: options.dimensions_max,
        }
    }

    /// Starts an empty row. Call this only after the previous row has been kept or dropped.
    #[inline]
    pub(in crate::contract) fn open(&mut self) {
        if self.rows == self.capacity {
            self.capacity += ROWS_STEP;
            self.columns.iter_mut().for_each(|column| column.grow(self.capacity));
        }
        self.open.seen.fill(false);
        self.open.nodes.fill(false);
        self.derived.clear();
        self.derived_bytes.clear();
    }

    /// Keeps the current row. If this would make a column exceed its maximum size, returns a `Limited` error.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        self.growing_columns.iter().try_for_each(|column| self.columns[*column].keep())?;
        self.entries.keep();
        self.rows += 1;
        Ok(())
    }

    /// Drops the values of the current row.
    #[cold]
    pub(in crate::contract) fn drop(&mut self) {
        self.columns.iter_mut().for_each(|column| column.clear(self.rows));
        self.entries.drop();
        self.open.cause = None;
    }

    /// Records that the current row must be rejected. Only the first cause is recorded. Afterwards, the decoder still
    /// reads the rest of the event, which may contain the tenant that the reject must name.
    #[cold]
    pub(in crate::contract) fn mark_rejected(&mut self, cause: impl FnOnce() -> RejectCause) {
        self.open.cause.get_or_insert_with(|| Box::new(cause()));
    }

    /// Removes and returns the reason for rejecting the current row, if there is one.
    pub(in crate::contract) fn take_cause(&mut self) -> Option<RejectCause> {
        self.open.cause.take().map(|cause| *cause)
    }

    /// Returns true if the event has already supplied a value or null for the column.
    #[inline]
    pub(in crate::contract) fn is_seen(&self, column: usize) -> bool {
        self.open.seen[column]
    }

    /// Records that the event contains an object of the field tree. Returns true if the object was already recorded,
    /// which means that the event contains it more than once.
    #[inline]
    pub(in crate::contract) fn enter(&mut self, node: usize) -> bool {
        std::mem::replace(&mut self.open.nodes[node], true)
    }

    /// Writes a value or null.
    pub(in crate::contract) fn set(&mut self, column: usize, slot: ColumnValue<'a>) {
        match slot {
            ColumnValue::Null => {
                self.open.seen[column] = true;
                self.columns[column].clear(self.rows);
            }
            ColumnValue::Bool(value) => self.put(column, u64::from(value)),
            ColumnValue::Int(value) => self.put(column, value.cast_unsigned()),
            ColumnValue::Float(value) => self.put(column, value.to_bits()),
            ColumnValue::Text(text) => self.put_text(column, text),
            value => {
                let Self { body, derived, derived_bytes, .. } = self;
                write(&mut self.columns[column], self.rows, value, (body, derived, derived_bytes));
                self.open.seen[column] = true;
            }
        }
    }

    /// Starts the current row's list in a column, which is empty at first.
    pub(in crate::contract) fn start_list(&mut self, column: usize) {
        self.open.seen[column] = true;
        self.columns[column].start_list(self.rows);
    }

    /// Adds an element to the current row's list in a column. If this would make the column exceed its maximum size,
    /// marks the row as rejected.
    pub(in crate::contract) fn push(&mut self, column: usize, value: ColumnValue<'a>) {
        let Self { body, derived, derived_bytes, .. } = self;
        let buffers = (*body, &**derived, &**derived_bytes);
        let pushed = self.columns[column].push(|elements, index| write(elements, index, value, buffers));
        if let Err(error) = pushed {
            self.mark_rejected(|| RejectCause::new(Reason::TooLarge, error.message()));
        }
    }

    /// Writes a string.
    #[inline]
    pub(in crate::contract) fn put_text(&mut self, column: usize, text: Text<'a>) {
        self.columns[column].put_text(self.rows, padded(self.body, &self.derived, text));
        self.open.seen[column] = true;
    }

    /// Writes `text`, a slice of the body, if the column's dictionary already contains it. A string in the dictionary
    /// has already been checked, so `text` is valid UTF-8 in this case. Returns true if the string was written.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, column: usize, text: &'a [u8]) -> bool {
        let known = self.columns[column].put_known(self.rows, padded(self.body, &self.derived, Text::Validated(text)));
        self.open.seen[column] |= known;
        known
    }

    /// Writes a number, boolean or time, given by its bit pattern.
    #[inline]
    pub(in crate::contract) fn put(&mut self, column: usize, bits: u64) {
        self.columns[column].put(self.rows, bits);
        self.open.seen[column] = true;
    }

    /// Returns the string that `text` refers to.
    pub(in crate::contract) fn text(&self, text: Text<'a>) -> &str {
        match text {
            Text::Borrowed(text) => text,
            Text::Validated(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Text::Derived(start, end) => &self.derived[start..end],
        }
    }

    /// Returns the string of the current row in a column, or `None` if it is null. The column must be the tenant or the
    /// id, which are never dictionary-encoded.
    #[inline]
    pub(in crate::contract) fn text_of(&self, column: usize) -> Option<&[u8]> {
        self.columns[column].text(self.rows)
    }

    /// Returns the current row's integer in a column, or `None` if it is null.
    #[inline]
    pub(in crate::contract) fn int_of(&self, column: usize) -> Option<i64> {
        self.columns[column].number(self.rows).map(u64::cast_signed)
    }

    /// Returns the part of [`BatchBuilder::derived`] that begins at `start`.
    pub(in crate::contract) fn derived_since(&self, start: usize) -> Text<'a> {
        Text::Derived(start, self.derived.len())
    }

    /// Formats a number as a string and stores it in [`BatchBuilder::derived`].
    pub(in crate::contract) fn number(&mut self, number: impl std::fmt::Debug) -> Text<'a> {
        use std::fmt::Write;
        let start = self.derived.len();
        // `Debug` writes floats in their shortest form, with an exponent if they are very large or very small.
        write!(self.derived, "{number:?}").expect("writing to a string cannot fail");
        self.derived_since(start)
    }

    /// Concatenates `prefix` and a string.
    pub(in crate::contract) fn join(&mut self, prefix: &str, text: Text<'a>) -> Text<'a> {
        let start = self.derived.len();
        self.derived.push_str(prefix);
        match text {
            Text::Borrowed(text) => self.derived.push_str(text),
            Text::Validated(bytes) => self.derived.push_str(std::str::from_utf8(bytes).unwrap_or_default()),
            Text::Derived(from, to) => self.derived.extend_from_within(from..to),
        }
        self.derived_since(start)
    }

    /// Adds an entry to the map. If the row already has the key, its value is replaced only if `replace` is true. Marks
    /// the row as rejected if it has too many entries. Returns false if the row already had the key.
    pub(in crate::contract) fn add_entry(&mut self, key: Text<'a>, value: Option<Text<'a>>, replace: bool) -> bool {
        let key = padded(self.body, &self.derived, key);
        let value = value.map(|value| padded(self.body, &self.derived, value));
        match self.entries.add(key, value, replace, self.entries_max) {
            Ok(is_new) => is_new,
            Err(cause) => {
                self.mark_rejected(|| RejectCause::new(Reason::TooLarge, cause.message()));
                true
            }
        }
    }

    /// In every object that the event contains, writes the default value of each absent field that has no presence
    /// (proto3).
    pub(in crate::contract) fn set_defaults(&mut self, contract: &'a Contract) {
        for (index, node) in contract.tree.nodes.iter().enumerate() {
            if !node.defaults.is_empty() && (index == 0 || self.open.nodes[index]) {
                self.set_node_defaults(contract, node);
            }
        }
    }

    fn set_node_defaults(&mut self, contract: &'a Contract, node: &Node) {
        for (column, fallback) in &node.defaults {
            if !self.is_seen(*column) {
                let slot = match *fallback {
                    Fallback::Int => ColumnValue::Int(0),
                    Fallback::Float => ColumnValue::Float(0.0),
                    Fallback::Decimal => ColumnValue::Decimal(0),
                    Fallback::False => ColumnValue::Bool(false),
                    Fallback::EmptyText => ColumnValue::Text(Text::Borrowed("")),
                    Fallback::EmptyBytes => ColumnValue::Bytes(&[]),
                    Fallback::EmptyList => {
                        self.start_list(*column);
                        continue;
                    }
                    Fallback::Enum(names) => {
                        ColumnValue::Text(Text::Borrowed(contract.tree.enums[names].name(0).unwrap_or("0")))
                    }
                };
                self.set(*column, slot);
            }
        }
    }

    /// Converts the kept rows to a batch. Fills the columns that have the same value in every row: the receive time
    /// and, if the sender belongs to a tenant, the tenant.
    pub(in crate::contract) fn finish(self, contract: &Contract, options: &DecodeOptions) -> Result<EventBatch> {
        let Self { columns, entries, rows, .. } = self;
        let mut entries = Some(entries);
        let arrays = contract.columns.iter().zip(columns).enumerate().map(|(index, (column, builder))| {
            Ok(match builder.finish(column.kind, rows)? {
                _ if index == contract.received => column_builder::received_column(options, rows),
                _ if index == contract.tenant && options.owner != Owner::PerEvent => {
                    column_builder::tenant_column(options, rows)
                }
                Some(column) => column,
                None => entries.take().unwrap_or_else(|| MapBuilder::new(0)).finish()?,
            })
        });
        EventBatch::of_columns(contract, arrays.collect::<Result<_>>()?, rows)
    }
}

/// Writes a value to a row of a column. The buffers are the body, and the builder's `derived` and `derived_bytes`.
fn write(column: &mut ColumnBuilder, row: usize, value: ColumnValue<'_>, buffers: (&[u8], &str, &[u8])) {
    let (body, derived, derived_bytes) = buffers;
    match value {
        ColumnValue::Text(text) => column.put_text(row, padded(body, derived, text)),
        ColumnValue::Bytes(bytes) => column.put_text(row, padded(body, derived, Text::Validated(bytes))),
        ColumnValue::DerivedBytes(start, end) => {
            column.put_text(row, PaddedSlice::unpadded(&derived_bytes[start..end]));
        }
        value => column.set(row, value),
    }
}

/// Returns a string together with the buffer that contains it. A short string can then be copied as one chunk of a
/// fixed size, which may include bytes that follow the string.
#[inline]
fn padded<'s>(body: &'s [u8], derived: &'s str, text: Text<'s>) -> PaddedSlice<'s> {
    let bytes = match text {
        Text::Derived(start, end) => return PaddedSlice::new(derived.as_bytes(), start, end),
        Text::Borrowed(text) => text.as_bytes(),
        Text::Validated(bytes) => bytes,
    };
    // The address shows whether the string is in the body. An enum name, for example, is part of the contract instead.
    let start = (bytes.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    match body.get(start..) {
        Some(rest) if bytes.len() <= rest.len() => PaddedSlice::new(body, start, start + bytes.len()),
        _ => PaddedSlice::unpadded(bytes),
    }
}
