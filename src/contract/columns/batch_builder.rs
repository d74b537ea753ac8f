//! Events while they are decoded: column by column.
//!
//! ```text
//!   wire | json ─ fill ─► the open row ─ check ─┬─ keep ─► the next one ─► … ─► Arrow columns
//!                                               └─ drop ─► the same one, empty again
//! ```
//!
//! A value is written once, where its column will be. So a field costs no allocation, and what is read is moved while it is
//! at hand.
//!
//! **Invariant:** a row that is dropped leaves nothing behind.

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

/// Rows that are made writable at once: few enough to be in the processor's caches when they are written.
const ROWS_STEP: usize = 1 << 10;

/// Rows in the making.
#[derive(Debug)]
pub(in crate::contract) struct BatchBuilder<'a> {
    body: &'a [u8],
    /// One per stored column.
    columns: Vec<ColumnBuilder>,
    /// Those that hold bytes.
    texts: Vec<usize>,
    entries: MapBuilder,
    /// Rows kept so far, which is the place of the open one.
    rows: usize,
    room: usize,
    open: Open,
    /// Text of the open row that does not stand in the body as it is (escapes, numbers).
    pub(in crate::contract) own: String,
    /// Bytes of the open row that do not stand in the body as they are (base64).
    pub(in crate::contract) blob: Vec<u8>,
    entries_max: usize,
}

/// What is known of the row that is being read.
#[derive(Debug)]
struct Open {
    /// Which columns it names.
    named: Vec<bool>,
    /// Which objects it has, by their index in the tree.
    nodes: Vec<bool>,
    /// The first fault met.
    fault: Option<Box<RejectCause>>,
}

impl<'a> BatchBuilder<'a> {
    /// A sheet with room for `rows`; it grows beyond it.
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
            room: 0,
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

    /// Opens a row that says nothing. The one before it was kept or dropped.
    #[inline]
    pub(in crate::contract) fn open(&mut self) {
        if self.rows == self.room {
            self.room += ROWS_STEP;
            self.columns.iter_mut().for_each(|cells| cells.grow(self.room));
        }
        self.open.named.fill(false);
        self.open.nodes.fill(false);
        self.own.clear();
        self.blob.clear();
    }

    /// Keeps the open row. `Limited` when a column has more bytes than it can hold.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        self.texts.iter().try_for_each(|column| self.columns[*column].keep())?;
        self.entries.keep();
        self.rows += 1;
        Ok(())
    }

    /// Empties the open row.
    #[cold]
    pub(in crate::contract) fn drop(&mut self) {
        self.columns.iter_mut().for_each(|cells| cells.clear(self.rows));
        self.entries.drop();
        self.open.fault = None;
    }

    /// Keeps the first fault. Decoding goes on, so that the rest of the event is known (above all, whose it is).
    #[cold]
    pub(in crate::contract) fn fail(&mut self, fault: impl FnOnce() -> RejectCause) {
        self.open.fault.get_or_insert_with(|| Box::new(fault()));
    }

    /// The fault of the open row, if it has one.
    pub(in crate::contract) fn fault(&mut self) -> Option<RejectCause> {
        self.open.fault.take().map(|fault| *fault)
    }

    /// Whether the open row has named a column before, be it with null.
    #[inline]
    pub(in crate::contract) fn is_named(&self, column: usize) -> bool {
        self.open.named[column]
    }

    /// Notes that the open row has an object. Whether it had it before.
    #[inline]
    pub(in crate::contract) fn enter(&mut self, node: usize) -> bool {
        std::mem::replace(&mut self.open.nodes[node], true)
    }

    /// Writes a value, or that there is none.
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
        self.columns[column].put_text(self.rows, span(self.body, &self.own, text));
        self.open.named[column] = true;
    }

    /// Writes a text of the body, if the column knows it as a label: then it is UTF-8. Whether it does.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, column: usize, text: &'a [u8]) -> bool {
        let known = self.columns[column].put_known(self.rows, span(self.body, &self.own, Text::Checked(text)));
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

    /// The bytes of a key's text in the open row, when it has one.
    #[inline]
    pub(in crate::contract) fn text_of(&self, column: usize) -> Option<&[u8]> {
        self.columns[column].text(self.rows)
    }

    /// The integer that stands in a column of the open row.
    #[inline]
    pub(in crate::contract) fn int_of(&self, column: usize) -> Option<i64> {
        self.columns[column].number(self.rows).map(u64::cast_signed)
    }

    /// The text appended to the sheet's own since it had `start` bytes.
    pub(in crate::contract) fn owned(&self, start: usize) -> Text<'a> {
        Text::Own(start, self.own.len())
    }

    /// A number as text.
    pub(in crate::contract) fn number(&mut self, number: impl std::fmt::Debug) -> Text<'a> {
        use std::fmt::Write;
        let start = self.own.len();
        // `Debug` writes floats in their shortest form, with an exponent when they are very large or small.
        write!(self.own, "{number:?}").expect("writing to a string cannot fail");
        self.owned(start)
    }

    /// `prefix` in front of a text.
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

    /// Adds an entry to the map, or says that there are too many. Whether its key is a new one: else nothing is added, and
    /// `replace` says whether the value takes the place of the one before.
    pub(in crate::contract) fn add_entry(&mut self, key: Text<'a>, value: Option<Text<'a>>, replace: bool) -> bool {
        let key = span(self.body, &self.own, key);
        let value = value.map(|value| span(self.body, &self.own, value));
        match self.entries.add(key, value, replace, self.entries_max) {
            Ok(is_new) => is_new,
            Err(fault) => {
                self.fail(|| RejectCause::new(Reason::TooLarge, fault.message()));
                true
            }
        }
    }

    /// Gives the fields of present objects that have no presence of their own the value that absence stands for.
    pub(in crate::contract) fn fall_back(&mut self, contract: &'a Contract) {
        for (place, node) in contract.tree.nodes.iter().enumerate() {
            if !node.defaults.is_empty() && (place == 0 || self.open.nodes[place]) {
                self.fall_back_in(contract, node);
            }
        }
    }

    fn fall_back_in(&mut self, contract: &'a Contract, node: &Node) {
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

    /// The rows that were kept, as columns. What is the same in all of them is written now.
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

/// A text with what stands around it: short ones are moved together with what follows them.
#[inline]
fn span<'s>(body: &'s [u8], own: &'s str, text: Text<'s>) -> PaddedSlice<'s> {
    let bytes = match text {
        Text::Own(start, end) => return PaddedSlice::new(own.as_bytes(), start, end),
        Text::Borrowed(text) => text.as_bytes(),
        Text::Checked(bytes) => bytes,
    };
    // Where it lies tells whether it is of the body: names are of the contract.
    let start = (bytes.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    match body.get(start..) {
        Some(rest) if bytes.len() <= rest.len() => PaddedSlice::new(body, start, start + bytes.len()),
        _ => PaddedSlice::alone(bytes),
    }
}
