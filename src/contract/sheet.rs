//! Events while they are decoded: column by column, eight bytes a value.
//!
//! ```text
//!   wire | json ─ fill ─► the open row ─ check ─┬─ keep ─► the next one ─► … ─► Arrow columns
//!                                               └─ drop ─► the same one, empty again
//! ```
//!
//! A value is written once, where its column will be: a number as its bits, a text as its place in the body. Texts that do
//! not stand in the body as they are (escapes, numbers, names) stand in the sheet's own. So a field costs no allocation,
//! and bytes are moved once, when all rows are there.
//!
//! **Invariant:** a row that is dropped leaves nothing behind.

use arrow::record_batch::RecordBatch;

use super::columns::{Cells, Entries, Texts, place};
use super::fields::{Fallback, Node};
use super::reject::{Fault, Reason};
use super::table::ColumnKind;
use super::value::{Slot, Text};
use super::{Contract, Owner, Stamp, columns};
use crate::error::{Error, Result};

/// Rows that there is room for at first, when nobody knows how many there will be.
const ROWS_MIN: usize = 1 << 10;
/// The sheet's own texts together.
const OWN_BYTES_MAX: usize = 1 << 30;

/// Rows in the making.
#[derive(Debug)]
pub(super) struct Sheet<'a> {
    body: &'a [u8],
    /// One per stored column; the map's stays empty.
    columns: Vec<Cells>,
    map: Option<usize>,
    entries: Entries,
    /// Rows kept so far, which is the place of the open one.
    rows: usize,
    room: usize,
    open: Open,
    /// Text that does not stand in the body as it is.
    pub(super) own: String,
    /// Bytes that do not stand in the body as they are (base64).
    pub(super) blob: Vec<u8>,
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
    fault: Option<Box<Fault>>,
    /// Where its own text and bytes begin.
    own: usize,
    blob: usize,
}

impl<'a> Sheet<'a> {
    /// A sheet with room for `rows`; it grows beyond it.
    pub(super) fn new(contract: &Contract, body: &'a [u8], stamp: &Stamp, rows: usize) -> Self {
        let columns = contract.columns.iter().map(|column| match column.kind {
            ColumnKind::Map => Cells::default(),
            _ => Cells::with_room(rows),
        });
        Self {
            body,
            columns: columns.collect(),
            map: contract.map,
            entries: Entries::default(),
            rows: 0,
            room: rows,
            open: Open {
                named: vec![false; contract.columns.len()],
                nodes: vec![false; contract.tree.nodes.len()],
                fault: None,
                own: 0,
                blob: 0,
            },
            own: String::new(),
            blob: Vec::new(),
            entries_max: stamp.dimensions_max,
        }
    }

    /// Opens a row that says nothing. The one before it was kept or dropped.
    pub(super) fn open(&mut self) {
        if self.rows == self.room {
            self.room = (self.room * 2).max(ROWS_MIN);
            let columns = self.columns.iter_mut().enumerate().filter(|(column, _)| Some(*column) != self.map);
            columns.for_each(|(_, cells)| cells.grow(self.room));
        }
        self.open.named.fill(false);
        self.open.nodes.fill(false);
    }

    /// Keeps the open row. `Limited` when the rows' own texts are more than cells can tell apart.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.rows += 1;
        self.entries.keep();
        self.open.own = self.own.len();
        self.open.blob = self.blob.len();
        if self.own.len() > OWN_BYTES_MAX { Err(too_much_text()) } else { Ok(()) }
    }

    /// Empties the open row.
    #[cold]
    pub(super) fn drop(&mut self) {
        self.columns.iter_mut().for_each(|cells| cells.clear(self.rows));
        self.entries.drop();
        self.own.truncate(self.open.own);
        self.blob.truncate(self.open.blob);
        self.open.fault = None;
    }

    /// Keeps the first fault. Decoding goes on, so that the rest of the event is known (above all, whose it is).
    #[cold]
    pub(super) fn fail(&mut self, fault: impl FnOnce() -> Fault) {
        self.open.fault.get_or_insert_with(|| Box::new(fault()));
    }

    /// The fault of the open row, if it has one.
    pub(super) fn fault(&mut self) -> Option<Fault> {
        self.open.fault.take().map(|fault| *fault)
    }

    /// Whether the open row has named a column before, be it with null.
    pub(super) fn is_named(&self, column: usize) -> bool {
        self.open.named[column]
    }

    /// Notes that the open row has an object. Whether it had it before.
    pub(super) fn enter(&mut self, node: usize) -> bool {
        std::mem::replace(&mut self.open.nodes[node], true)
    }

    /// Writes a value, or that there is none.
    pub(super) fn set(&mut self, column: usize, slot: Slot<'a>) {
        let bits = match slot {
            Slot::Null => {
                self.open.named[column] = true;
                return self.columns[column].clear(self.rows);
            }
            Slot::Bool(value) => u64::from(value),
            Slot::Int(value) => value as u64,
            Slot::Float(value) => value.to_bits(),
            Slot::Text(text) => self.cell(text),
            Slot::Bytes(bytes) => self.cell(Text::Checked(bytes)),
            Slot::Blob(start, end) => place(start, end - start, true),
        };
        self.put(column, bits);
    }

    /// Writes a text that stands in the body.
    pub(super) fn set_text(&mut self, column: usize, text: &'a [u8]) {
        let bits = self.cell(Text::Checked(text));
        self.put(column, bits);
    }

    /// Writes a value's bits.
    pub(super) fn put(&mut self, column: usize, bits: u64) {
        self.columns[column].set(self.rows, bits);
        self.open.named[column] = true;
    }

    /// The place of a text, for a cell. What stands nowhere else is written to the sheet's own.
    fn cell(&mut self, text: Text<'a>) -> u64 {
        let bytes = match text {
            Text::Own(start, end) => return place(start, end - start, true),
            Text::Borrowed(text) => text.as_bytes(),
            Text::Checked(bytes) => bytes,
        };
        // Where it lies tells whether it is of the body: names are of the contract.
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.body.as_ptr() as usize);
        if start < self.body.len() && bytes.len() <= self.body.len() - start {
            return place(start, bytes.len(), false);
        }
        let start = self.own.len();
        if let Text::Borrowed(text) = text {
            self.own.push_str(text);
        }
        place(start, self.own.len() - start, true)
    }

    /// Where everything stands.
    fn texts(&self) -> Texts<'_> {
        Texts { body: self.body, own: self.own.as_bytes() }
    }

    /// The characters of a text.
    pub(super) fn text(&self, text: Text<'a>) -> &str {
        match text {
            Text::Borrowed(text) => text,
            Text::Checked(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Text::Own(start, end) => &self.own[start..end],
        }
    }

    /// The bytes of a column's text in the open row, when it has one.
    pub(super) fn text_of(&self, column: usize) -> Option<&[u8]> {
        self.columns[column].get(self.rows).map(|cell| self.texts().of(cell))
    }

    /// The number that stands in a column of the open row.
    pub(super) fn int_of(&self, column: usize) -> Option<i64> {
        self.columns[column].get(self.rows).map(|bits| bits as i64)
    }

    /// The text appended to the sheet's own since it had `start` bytes.
    pub(super) fn owned(&self, start: usize) -> Text<'a> {
        Text::Own(start, self.own.len())
    }

    /// A number as text.
    pub(super) fn number(&mut self, number: impl std::fmt::Debug) -> Text<'a> {
        use std::fmt::Write;
        let start = self.own.len();
        // `Debug` writes floats in their shortest form, with an exponent when they are very large or small.
        write!(self.own, "{number:?}").expect("writing to a string cannot fail");
        self.owned(start)
    }

    /// `prefix` in front of a text.
    pub(super) fn join(&mut self, prefix: &str, text: Text<'a>) -> Text<'a> {
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
    pub(super) fn add_entry(&mut self, key: Text<'a>, value: Option<Text<'a>>, replace: bool) -> bool {
        let key = self.cell(key);
        let value = value.map(|value| self.cell(value));
        let texts = Texts { body: self.body, own: self.own.as_bytes() };
        if let Some(entry) = self.entries.find(key, &texts) {
            if replace {
                self.entries.replace(entry, value);
            }
            return false;
        }
        if self.entries.open() == self.entries_max {
            let entries_max = self.entries_max;
            let detail = move || format!("the event has more than {entries_max} dimensions that are not declared");
            self.fail(|| Fault::new(Reason::TooLarge, detail()));
        } else {
            self.entries.push(key, value);
        }
        true
    }

    /// Gives the fields of present objects that have no presence of their own the value that absence stands for.
    pub(super) fn fall_back(&mut self, contract: &'a Contract) {
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
                    Fallback::Int => Slot::Int(0),
                    Fallback::Float => Slot::Float(0.0),
                    Fallback::False => Slot::Bool(false),
                    Fallback::EmptyText => Slot::Text(Text::Borrowed("")),
                    Fallback::EmptyBytes => Slot::Bytes(&[]),
                    Fallback::Enum(names) => {
                        Slot::Text(Text::Borrowed(contract.tree.enums[names].name(0).unwrap_or("0")))
                    }
                };
                self.set(*column, slot);
            }
        }
    }

    /// The rows that were kept, as columns. What is the same in all of them is written now.
    pub(super) fn finish(self, contract: &Contract, stamp: &Stamp) -> Result<RecordBatch> {
        let Self { body, columns, entries, rows, own, blob, .. } = self;
        let texts = Texts { body, own: own.as_bytes() };
        let bytes = Texts { body, own: &blob };
        let mut entries = Some(entries);
        let arrays = contract.columns.iter().zip(columns).enumerate().map(|(index, (column, cells))| {
            Ok(match column.kind {
                _ if index == contract.received => columns::received_column(stamp, rows),
                _ if index == contract.tenant && stamp.owner != Owner::PerEvent => columns::tenant_column(stamp, rows),
                ColumnKind::Map => entries.take().unwrap_or_default().finish(&texts)?,
                ColumnKind::Text => cells.texts(rows, &texts)?,
                ColumnKind::Bytes => cells.bytes(rows, &bytes)?,
                kind => cells.numbers(kind, rows),
            })
        });
        columns::batch_of(contract, arrays.collect::<Result<_>>()?, rows)
    }
}

#[cold]
fn too_much_text() -> Error {
    Error::limited(format!("the body's texts are more than {OWN_BYTES_MAX} bytes without escapes: send smaller bodies"))
}
