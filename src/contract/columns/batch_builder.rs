//! The builder of an event batch: values of the open row are written directly into the columns.
//!
//! ```text
//!   protobuf | json ─ fill ─► open row ─ check ─┬─ keep ─► next row ─► … ─► Arrow columns
//!                                               └─ drop ─► the same row, empty again
//! ```
//!
//! A value is written once, at its final position in the column. A field costs no allocation, and its bytes are copied
//! while they are in the processor's cache.
//!
//! **Invariant:** a dropped row leaves no values behind.

use super::column_builder;
use super::column_builder::ColumnBuilder;
use super::event_batch::EventBatch;
use super::map_builder::MapBuilder;
use super::padded_slice::PaddedSlice;
use crate::contract::decode::reject::{Reason, RejectCause};
use crate::contract::decode::value::{ColumnValue, Text};
use crate::contract::schema::fields::{Fallback, Node};
use crate::contract::schema::table::ColumnKind;
use crate::contract::{Contract, Owner, Stamp};
use crate::error::Result;

/// Rows by which the columns grow: few enough to stay in the processor's caches while they are written.
const ROWS_STEP: usize = 1 << 10;

/// Builds the columns of an [`EventBatch`], one row at a time.
#[derive(Debug)]
pub(in crate::contract) struct BatchBuilder<'a> {
    body: &'a [u8],
    /// One per stored column.
    columns: Vec<ColumnBuilder>,
    /// The indexes of the text and bytes columns.
    texts: Vec<usize>,
    entries: MapBuilder,
    /// Rows kept so far, which is also the index of the open row.
    rows: usize,
    /// Rows that the columns can hold before they grow.
    capacity: usize,
    open: Open,
    /// Text of the open row that the body does not contain verbatim (unescaped strings, numbers).
    pub(in crate::contract) own: String,
    /// Bytes of the open row that the body does not contain verbatim (decoded base64).
    pub(in crate::contract) blob: Vec<u8>,
    entries_max: usize,
}

/// The state of the open row.
#[derive(Debug)]
struct Open {
    /// Whether each column was named, by its index.
    named: Vec<bool>,
    /// Whether each object is present, by its index in the tree.
    nodes: Vec<bool>,
    /// The first fault.
    fault: Option<Box<RejectCause>>,
}

impl<'a> BatchBuilder<'a> {
    /// A builder with capacity for `rows` rows; it grows if needed.
    pub(in crate::contract) fn new(contract: &Contract, body: &'a [u8], stamp: &Stamp, rows: usize) -> Self {
        let is_bytes = |kind| matches!(kind, ColumnKind::Text | ColumnKind::Bytes);
        let is_key = |column| column == contract.tenant || column == contract.id;
        let columns = contract.columns.iter().enumerate();
        Self {
            body,
            columns: columns
                .clone()
                .map(|(index, column)| ColumnBuilder::new(column.kind, is_key(index), rows))
                .collect(),
            texts: columns.filter(|(_, column)| is_bytes(column.kind)).map(|(index, _)| index).collect(),
            entries: MapBuilder::new(rows),
            rows: 0,
            capacity: 0,
            open: Open {
                named: vec![false; contract.columns.len()],
                nodes: vec![false; contract.tree.nodes.len()],
                fault: None,
            },
            own: String::new(),
            blob: Vec::new(),
            entries_max: stamp.dimensions_max,
        }
    }

    /// Opens an empty row. The previous row must have been kept or dropped.
    #[inline]
    pub(in crate::contract) fn open(&mut self) {
        if self.rows == self.capacity {
            self.capacity += ROWS_STEP;
            self.columns.iter_mut().for_each(|cells| cells.grow(self.capacity));
        }
        self.open.named.fill(false);
        self.open.nodes.fill(false);
        self.own.clear();
        self.blob.clear();
    }

    /// Keeps the open row. `Limited` if a column would exceed its maximum size.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        self.texts.iter().try_for_each(|column| self.columns[*column].keep())?;
        self.entries.keep();
        self.rows += 1;
        Ok(())
    }

    /// Drops the values of the open row.
    #[cold]
    pub(in crate::contract) fn drop(&mut self) {
        self.columns.iter_mut().for_each(|cells| cells.clear(self.rows));
        self.entries.drop();
        self.open.fault = None;
    }

    /// Records a fault, unless the row already has one. Decoding continues, so that the rest of the event, above all
    /// its tenant, is known.
    #[cold]
    pub(in crate::contract) fn fail(&mut self, fault: impl FnOnce() -> RejectCause) {
        self.open.fault.get_or_insert_with(|| Box::new(fault()));
    }

    /// Takes the fault of the open row.
    pub(in crate::contract) fn fault(&mut self) -> Option<RejectCause> {
        self.open.fault.take().map(|fault| *fault)
    }

    /// Whether the open row has already named a column, even with null.
    #[inline]
    pub(in crate::contract) fn is_named(&self, column: usize) -> bool {
        self.open.named[column]
    }

    /// Marks an object as present in the open row. Returns whether it was present before.
    #[inline]
    pub(in crate::contract) fn enter(&mut self, node: usize) -> bool {
        std::mem::replace(&mut self.open.nodes[node], true)
    }

    /// Writes a value or null.
    pub(in crate::contract) fn set(&mut self, column: usize, slot: ColumnValue<'a>) {
        match slot {
            ColumnValue::Null => {
                self.open.named[column] = true;
                self.columns[column].clear(self.rows);
            }
            ColumnValue::Bool(value) => self.put(column, u64::from(value)),
            ColumnValue::Int(value) => self.put(column, value.cast_unsigned()),
            ColumnValue::Float(value) => self.put(column, value.to_bits()),
            ColumnValue::Text(text) => self.put_text(column, text),
            ColumnValue::Bytes(bytes) => self.put_text(column, Text::Checked(bytes)),
            ColumnValue::Blob(start, end) => {
                self.columns[column].put_text(self.rows, PaddedSlice::alone(&self.blob[start..end]));
                self.open.named[column] = true;
            }
        }
    }

    /// Writes a text.
    #[inline]
    pub(in crate::contract) fn put_text(&mut self, column: usize, text: Text<'a>) {
        self.columns[column].put_text(self.rows, padded(self.body, &self.own, text));
        self.open.named[column] = true;
    }

    /// Writes a text of the body if the column's dictionary contains it, in which case it is valid UTF-8. Returns
    /// whether it does.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, column: usize, text: &'a [u8]) -> bool {
        let known = self.columns[column].put_known(self.rows, padded(self.body, &self.own, Text::Checked(text)));
        self.open.named[column] |= known;
        known
    }

    /// Writes a number's bits.
    #[inline]
    pub(in crate::contract) fn put(&mut self, column: usize, bits: u64) {
        self.columns[column].put(self.rows, bits);
        self.open.named[column] = true;
    }

    /// The characters of a text.
    pub(in crate::contract) fn text(&self, text: Text<'a>) -> &str {
        match text {
            Text::Borrowed(text) => text,
            Text::Checked(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Text::Own(start, end) => &self.own[start..end],
        }
    }

    /// The bytes of a key column's text in the open row, if present.
    #[inline]
    pub(in crate::contract) fn text_of(&self, column: usize) -> Option<&[u8]> {
        self.columns[column].text(self.rows)
    }

    /// The integer in a column of the open row, if present.
    #[inline]
    pub(in crate::contract) fn int_of(&self, column: usize) -> Option<i64> {
        self.columns[column].number(self.rows).map(u64::cast_signed)
    }

    /// The part of [`BatchBuilder::own`] that begins at `start`.
    pub(in crate::contract) fn owned(&self, start: usize) -> Text<'a> {
        Text::Own(start, self.own.len())
    }

    /// Formats a number as text of the open row.
    pub(in crate::contract) fn number(&mut self, number: impl std::fmt::Debug) -> Text<'a> {
        use std::fmt::Write;
        let start = self.own.len();
        // `Debug` writes floats in their shortest form, with an exponent when they are very large or small.
        write!(self.own, "{number:?}").expect("writing to a string cannot fail");
        self.owned(start)
    }

    /// Concatenates `prefix` and a text.
    pub(in crate::contract) fn join(&mut self, prefix: &str, text: Text<'a>) -> Text<'a> {
        let start = self.own.len();
        self.own.push_str(prefix);
        match text {
            Text::Borrowed(text) => self.own.push_str(text),
            Text::Checked(bytes) => self.own.push_str(std::str::from_utf8(bytes).unwrap_or_default()),
            Text::Own(from, to) => self.own.extend_from_within(from..to),
        }
        self.owned(start)
    }

    /// Adds an entry to the map, or records a fault if the row has too many entries. Returns whether the key is new. For an
    /// existing key no entry is added; its value is replaced if `replace` is set.
    pub(in crate::contract) fn add_entry(&mut self, key: Text<'a>, value: Option<Text<'a>>, replace: bool) -> bool {
        let key = padded(self.body, &self.own, key);
        let value = value.map(|value| padded(self.body, &self.own, value));
        match self.entries.add(key, value, replace, self.entries_max) {
            Ok(is_new) => is_new,
            Err(fault) => {
                self.fail(|| RejectCause::new(Reason::TooLarge, fault.message()));
                true
            }
        }
    }

    /// Sets absent fields without presence (proto3) to their default value, in all objects that are present.
    pub(in crate::contract) fn set_defaults(&mut self, contract: &'a Contract) {
        for (index, node) in contract.tree.nodes.iter().enumerate() {
            if !node.defaults.is_empty() && (index == 0 || self.open.nodes[index]) {
                self.set_node_defaults(contract, node);
            }
        }
    }

    fn set_node_defaults(&mut self, contract: &'a Contract, node: &Node) {
        for (column, fallback) in &node.defaults {
            if !self.is_named(*column) {
                let slot = match *fallback {
                    Fallback::Int => ColumnValue::Int(0),
                    Fallback::Float => ColumnValue::Float(0.0),
                    Fallback::False => ColumnValue::Bool(false),
                    Fallback::EmptyText => ColumnValue::Text(Text::Borrowed("")),
                    Fallback::EmptyBytes => ColumnValue::Bytes(&[]),
                    Fallback::Enum(names) => {
                        ColumnValue::Text(Text::Borrowed(contract.tree.enums[names].name(0).unwrap_or("0")))
                    }
                };
                self.set(*column, slot);
            }
        }
    }

    /// Finishes the kept rows as columns. Columns with the same value in every row are written here.
    pub(in crate::contract) fn finish(self, contract: &Contract, stamp: &Stamp) -> Result<EventBatch> {
        let Self { columns, entries, rows, .. } = self;
        let mut entries = Some(entries);
        let arrays = contract.columns.iter().zip(columns).enumerate().map(|(index, (column, cells))| {
            Ok(match cells.finish(column.kind, rows)? {
                _ if index == contract.received => column_builder::received_column(stamp, rows),
                _ if index == contract.tenant && stamp.owner != Owner::PerEvent => {
                    column_builder::tenant_column(stamp, rows)
                }
                Some(column) => column,
                None => entries.take().unwrap_or_else(|| MapBuilder::new(0)).finish()?,
            })
        });
        EventBatch::of_columns(contract, arrays.collect::<Result<_>>()?, rows)
    }
}

/// A text as a slice of its buffer: short texts are copied in one step together with the bytes that follow them.
#[inline]
fn padded<'s>(body: &'s [u8], own: &'s str, text: Text<'s>) -> PaddedSlice<'s> {
    let bytes = match text {
        Text::Own(start, end) => return PaddedSlice::new(own.as_bytes(), start, end),
        Text::Borrowed(text) => text.as_bytes(),
        Text::Checked(bytes) => bytes,
    };
    // The address shows whether the text is part of the body: names belong to the contract.
    let start = (bytes.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    match body.get(start..) {
        Some(rest) if bytes.len() <= rest.len() => PaddedSlice::new(body, start, start + bytes.len()),
        _ => PaddedSlice::alone(bytes),
    }
}
