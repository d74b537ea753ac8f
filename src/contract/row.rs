//! One event while it is decoded, and what becomes of it.
//!
//! ```text
//!   wire | json ─ fills ─► Row ─ check ─┬─► Columns ─► RecordBatch
//!                                       └─► Reject (its bytes, the first fault)
//! ```
//!
//! A [`Row`] is reused from event to event: its slots borrow from the body, so that a field costs no allocation.
//! **Invariant:** a row with a fault appends nothing to any column.

use std::ops::Range;

use bytes::Bytes;

use super::check;
use super::columns::Columns;
use super::fields::{Fallback, Node};
use super::reject::{Fault, Reason, Reject};
use super::value::{Slot, Text};
use super::{Contract, Decoded, Owner, Stamp, TenantId};
use crate::error::{Error, Result};

/// Events in one body: each costs about as many bytes in memory as its columns have, however small it was sent.
pub(super) const BODY_EVENTS_MAX: u64 = 1 << 20;
/// Bad events in one body; past it the body is refused as a whole, and stays with its sender.
pub(super) const BODY_REJECTS_MAX: usize = 1 << 16;

/// One event.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// One per stored column; the map's stays unused.
    pub(super) slots: Vec<Slot<'a>>,
    /// The map column: keys and values.
    pub(super) entries: Vec<(Text<'a>, Option<Text<'a>>)>,
    /// Text that does not stand in the body as it is (escapes, numbers).
    pub(super) scratch: String,
    /// Bytes that do not stand in the body as they are (base64).
    pub(super) blob: Vec<u8>,
    /// Which objects the event has, by their index in the tree.
    pub(super) nodes: Vec<bool>,
    /// The first fault met.
    pub(super) fault: Option<Box<Fault>>,
    entries_max: usize,
}

impl<'a> Row<'a> {
    pub(super) fn new(contract: &Contract, stamp: &Stamp) -> Self {
        Self {
            slots: vec![Slot::Absent; contract.columns.len()],
            entries: Vec::new(),
            scratch: String::new(),
            blob: Vec::new(),
            nodes: vec![false; contract.tree.nodes.len()],
            fault: None,
            entries_max: stamp.dimensions_max,
        }
    }

    /// Makes it an event that says nothing.
    pub(super) fn clear(&mut self) {
        self.slots.fill(Slot::Absent);
        self.entries.clear();
        self.scratch.clear();
        self.blob.clear();
        self.nodes.fill(false);
        self.fault = None;
    }

    /// Keeps the first fault. Decoding goes on, so that the rest of the event is known (above all, whose it is).
    #[cold]
    pub(super) fn fail(&mut self, fault: impl FnOnce() -> Fault) {
        self.fault.get_or_insert_with(|| Box::new(fault()));
    }

    /// The characters of a text.
    pub(super) fn text(&self, text: Text<'a>) -> &str {
        match text {
            Text::Borrowed(text) => text,
            Text::Checked(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Text::Scratch(start, end) => &self.scratch[start..end],
        }
    }

    /// The same as bytes, which costs nothing.
    pub(super) fn bytes(&self, text: Text<'a>) -> &[u8] {
        match text {
            Text::Borrowed(text) => text.as_bytes(),
            Text::Checked(bytes) => bytes,
            Text::Scratch(start, end) => &self.scratch.as_bytes()[start..end],
        }
    }

    /// Text appended to the scratch since it had `start` bytes.
    pub(super) fn scratched(&self, start: usize) -> Text<'a> {
        Text::Scratch(start, self.scratch.len())
    }

    /// A number as text.
    pub(super) fn number(&mut self, number: impl std::fmt::Debug) -> Text<'a> {
        use std::fmt::Write;
        let start = self.scratch.len();
        // `Debug` writes floats in their shortest form, with an exponent when they are very large or small.
        write!(self.scratch, "{number:?}").expect("writing to a string cannot fail");
        self.scratched(start)
    }

    /// `prefix` in front of a text.
    pub(super) fn join(&mut self, prefix: &str, text: Text<'a>) -> Text<'a> {
        let start = self.scratch.len();
        self.scratch.push_str(prefix);
        match text {
            Text::Borrowed(text) => self.scratch.push_str(text),
            Text::Checked(bytes) => self.scratch.push_str(std::str::from_utf8(bytes).unwrap_or_default()),
            Text::Scratch(from, to) => self.scratch.extend_from_within(from..to),
        }
        self.scratched(start)
    }

    /// Adds an entry to the map, or says that there are too many. The caller has looked for duplicates.
    pub(super) fn push_entry(&mut self, key: Text<'a>, value: Option<Text<'a>>) {
        if self.entries.len() == self.entries_max {
            let entries_max = self.entries_max;
            let detail = move || format!("the event has more than {entries_max} dimensions that are not declared");
            return self.fail(|| Fault::new(Reason::TooLarge, detail()));
        }
        self.entries.push((key, value));
    }

    /// The place of a key among the entries.
    pub(super) fn find_entry(&self, key: Text<'a>) -> Option<usize> {
        let key = self.bytes(key);
        self.entries.iter().position(|(known, _)| self.bytes(*known) == key)
    }

    /// The text of a column, when it has one.
    pub(super) fn text_of(&self, column: usize) -> Option<&str> {
        match self.slots[column] {
            Slot::Text(text) => Some(self.text(text)),
            _ => None,
        }
    }

    /// Gives the fields of a present object that have no presence of their own the value that absence stands for.
    fn fall_back(&mut self, contract: &'a Contract, node: &Node) {
        for (column, fallback) in &node.defaults {
            let slot = &mut self.slots[*column];
            if matches!(slot, Slot::Absent) {
                *slot = match *fallback {
                    Fallback::Int => Slot::Int(0),
                    Fallback::Float => Slot::Float(0.0),
                    Fallback::False => Slot::Bool(false),
                    Fallback::EmptyText => Slot::Text(Text::Borrowed("")),
                    Fallback::EmptyBytes => Slot::Bytes(&[]),
                    Fallback::Enum(names) => {
                        Slot::Text(Text::Borrowed(contract.tree.enums[names].name(0).unwrap_or("0")))
                    }
                };
            }
        }
    }
}

/// All events of one body: the good ones in columns, the bad ones as rejects.
#[derive(Debug)]
pub(super) struct Intake<'a> {
    contract: &'a Contract,
    stamp: &'a Stamp,
    body: &'a Bytes,
    columns: Columns,
    rejects: Vec<Reject>,
    /// Events met so far: the index of the next one.
    index: u64,
}

impl<'a> Intake<'a> {
    /// `rows` are as many as there may be, if that is known.
    pub(super) fn new(contract: &'a Contract, body: &'a Bytes, stamp: &'a Stamp, rows: usize) -> Self {
        Self { contract, stamp, body, columns: Columns::new(contract, stamp, rows), rejects: Vec::new(), index: 0 }
    }

    /// Takes a decoded event that stands at `place` in the body: checks it, and keeps or rejects it.
    pub(super) fn take(&mut self, row: &mut Row<'a>, place: Range<usize>) -> Result<()> {
        for (node, given) in self.contract.tree.nodes.iter().zip(0..) {
            if !node.defaults.is_empty() && (given == 0 || row.nodes[given]) {
                row.fall_back(self.contract, node);
            }
        }
        let fault = match row.fault.take() {
            _ if place.len() > self.stamp.event_bytes_max => {
                Some(Fault::too_large(place.len(), self.stamp.event_bytes_max))
            }
            Some(fault) => Some(*fault),
            None => check::row(self.contract, self.stamp, row),
        };
        match fault {
            Some(fault) => self.refuse(row, place, fault),
            None => {
                self.columns.append(row);
                self.count()
            }
        }
    }

    /// Rejects the bytes at `place`; `row` holds what was decoded of them.
    pub(super) fn refuse(&mut self, row: &Row<'a>, place: Range<usize>, fault: Fault) -> Result<()> {
        let tenant = match &self.stamp.owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent => row.text_of(self.contract.tenant).and_then(|text| TenantId::parse(text).ok()),
        };
        let Fault { reason, detail } = fault;
        refuse(&mut self.rejects, Reject { index: self.index, tenant, bytes: self.body.slice(place), reason, detail })?;
        self.count()
    }

    pub(super) fn finish(self) -> Result<Decoded> {
        Ok(Decoded { batch: self.columns.finish(self.contract, self.stamp)?, rejects: self.rejects })
    }

    fn count(&mut self) -> Result<()> {
        self.index += 1;
        if self.index > BODY_EVENTS_MAX { Err(too_many_events()) } else { Ok(()) }
    }
}

/// Adds a reject, or says that the body has too many.
pub(super) fn refuse(rejects: &mut Vec<Reject>, reject: Reject) -> Result<()> {
    if rejects.len() == BODY_REJECTS_MAX {
        let (reason, detail) = (reject.reason.as_str(), &reject.detail);
        let last = format!("the last one is {reason}: {detail}");
        return Err(Error::invalid(format!("the body has more than {BODY_REJECTS_MAX} bad events; {last}")));
    }
    rejects.push(reject);
    Ok(())
}

pub(super) fn too_many_events() -> Error {
    Error::limited(format!("the body has more than {BODY_EVENTS_MAX} events: send smaller bodies"))
}
