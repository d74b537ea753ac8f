//! The expected and the actual outcome of an event, in one form.
//!
//! This module holds the rules for every format: the tenant of an event, its time, and its maximum size. They are written a
//! second time, from the documentation, and do not call the server's code.

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::datatypes::{Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use glasshouse::contract::{ColumnKind, Contract, Decoded, Owner, Reason, Stamp};

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// An integer, microseconds, or days.
    Int(i64),
    /// Its bits, so that 0.0 and -0.0 differ.
    Single(u32),
    Double(u64),
    Text(String),
    Bytes(Vec<u8>),
    Map(Vec<(String, Option<String>)>),
}

/// The outcome of one event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// A row: a value for each column.
    Row(Vec<Cell>),
    /// A reject for this reason.
    Reject(Reason),
    /// A reject for one of these reasons: the oracle stopped at the first of several faults.
    OneOf(Vec<Reason>),
}

/// An event while an oracle reads it: values by column, and the first fault.
pub(super) struct Draft<'c> {
    pub(super) contract: &'c Contract,
    pub(super) stamp: &'c Stamp,
    /// `None` for a column that the event does not name.
    pub(super) cells: Vec<Option<Cell>>,
    pub(super) entries: Vec<(String, Option<String>)>,
    fault: Option<Reason>,
}

impl<'c> Draft<'c> {
    pub(super) fn new(contract: &'c Contract, stamp: &'c Stamp) -> Self {
        let cells = vec![None; contract.columns.len()];
        Self { contract, stamp, cells, entries: Vec::new(), fault: None }
    }

    /// Keeps a fault. The first of several faults is the reason.
    pub(super) fn fail(&mut self, reason: Reason) {
        self.fault.get_or_insert(reason);
    }

    /// Sets a column, or keeps the fault. An out-of-range value of the time column has its own reason, a time out of range.
    pub(super) fn set(&mut self, column: usize, read: Result<Cell, Reason>) {
        match read {
            Ok(cell) => self.cells[column] = Some(cell),
            Err(Reason::OutOfRange) if column == self.contract.time => self.fail(Reason::TimeOutOfRange),
            Err(reason) => self.fail(reason),
        }
    }

    /// Adds an entry to the map. Returns `false` if the key exists: then the entry changes only if `replace` is set.
    pub(super) fn add_entry(&mut self, key: String, value: Option<String>, replace: bool) -> bool {
        if let Some(known) = self.entries.iter_mut().find(|(known, _)| *known == key) {
            if replace {
                known.1 = value;
            }
            return false;
        }
        if self.entries.len() == self.stamp.dimensions_max {
            self.fail(Reason::TooLarge);
        } else {
            self.entries.push((key, value));
        }
        true
    }

    /// The outcome of the whole event, which has this size in bytes.
    pub(super) fn finish(mut self, bytes: usize) -> Outcome {
        if bytes > self.stamp.event_bytes_max {
            return Outcome::Reject(Reason::TooLarge);
        }
        let fault = self.fault.take().or_else(|| self.tenant()).or_else(|| self.time()).or_else(|| self.id());
        if let Some(reason) = fault {
            return Outcome::Reject(reason);
        }
        let Self { contract, stamp, cells, entries, .. } = self;
        let mut row: Vec<Cell> = cells.into_iter().map(|cell| cell.unwrap_or(Cell::Null)).collect();
        row[contract.received] = Cell::Int(stamp.received);
        if let Owner::Tenant(tenant) = &stamp.owner {
            row[contract.tenant] = Cell::Text(tenant.as_str().to_owned());
        }
        if let Some(map) = contract.map.filter(|_| !entries.is_empty()) {
            row[map] = Cell::Map(entries);
        }
        Outcome::Row(row)
    }

    fn text(&self, column: usize) -> Option<&str> {
        match &self.cells[column] {
            Some(Cell::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// An event belongs to its sender: one that names another tenant is refused. An operator's event must name its tenant.
    fn tenant(&self) -> Option<Reason> {
        match (&self.stamp.owner, self.text(self.contract.tenant)) {
            (Owner::Tenant(_), None) => None,
            (Owner::Tenant(owner), Some(given)) => (owner.as_str() != given).then_some(Reason::ForeignTenant),
            (Owner::PerEvent, None) => Some(Reason::MissingTenant),
            (Owner::PerEvent, Some(given)) => {
                (given.len() > 256 || given.contains(char::is_control)).then_some(Reason::MissingTenant)
            }
        }
    }

    fn time(&self) -> Option<Reason> {
        match self.cells[self.contract.time] {
            Some(Cell::Int(micros)) if micros < 0 || micros > self.stamp.time_max => Some(Reason::TimeOutOfRange),
            Some(Cell::Int(_)) => None,
            _ => Some(Reason::MissingTime),
        }
    }

    fn id(&self) -> Option<Reason> {
        self.text(self.contract.id).is_none().then_some(Reason::MissingId)
    }
}

/// The server's outcome of each event, in order, and the bytes of rejected events.
pub(super) fn outcomes(contract: &Contract, decoded: &Decoded) -> Vec<(Outcome, Option<Vec<u8>>)> {
    let batch = decoded.batch.to_plain().expect("dictionaries decode to plain text");
    let mut rows = (0..batch.num_rows()).map(|row| {
        let cells = batch.columns().iter().zip(&contract.columns).map(|(array, column)| cell(array, column.kind, row));
        Outcome::Row(cells.collect())
    });
    let mut all = Vec::new();
    for reject in &decoded.rejects {
        while all.len() < reject.index as usize {
            all.push((rows.next().expect("an event before a reject is a row or a reject"), None));
        }
        all.push((Outcome::Reject(reject.reason), Some(reject.bytes.to_vec())));
    }
    all.extend(rows.map(|row| (row, None)));
    all
}

fn cell(array: &ArrayRef, kind: ColumnKind, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match kind {
        ColumnKind::Bool => Cell::Bool(array.as_boolean().value(row)),
        ColumnKind::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
        ColumnKind::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        ColumnKind::Float32 => Cell::Single(array.as_primitive::<Float32Type>().value(row).to_bits()),
        ColumnKind::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row).to_bits()),
        ColumnKind::Text => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        ColumnKind::Bytes => Cell::Bytes(array.as_binary::<i32>().value(row).to_owned()),
        ColumnKind::Timestamp => Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        ColumnKind::Date => Cell::Int(array.as_primitive::<Date32Type>().value(row).into()),
        ColumnKind::Map => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            let entry = |(key, value): (Option<&str>, Option<&str>)| {
                (key.expect("a key is not null").to_owned(), value.map(str::to_owned))
            };
            Cell::Map(keys.iter().zip(values).map(entry).collect())
        }
    }
}
