//! The outcome of an event. Expected and actual outcomes have the same type.
//!
//! The module implements the rules about the tenant, the time and the maximum size of an event, which are the same for
//! all formats. The implementation follows the documentation, and does not use the server's code.

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use glasshouse::contract::{ColumnKind, Contract, DecodeOptions, Decoded, Owner, Reason};

/// The value of one column in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// An integer, a time in microseconds, or a date in days.
    Int(i64),
    /// The bits of a float, because 0.0 and -0.0 must count as different.
    Single(u32),
    Double(u64),
    /// The unscaled value of a decimal.
    Decimal(i128),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Map(Vec<(String, Option<String>)>),
}

/// The outcome of one event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// A row, with a value for each column.
    Row(Vec<Cell>),
    /// The event is rejected for this reason.
    Reject(Reason),
    /// The event is rejected for one of these reasons. The oracle stops at the first of several errors, so it does not
    /// know which of the reasons the server reports.
    OneOf(Vec<Reason>),
}

/// An event that an oracle is reading: the values by column, and the rejection reason from the first error.
pub(super) struct EventBuilder<'c> {
    pub(super) contract: &'c Contract,
    pub(super) options: &'c DecodeOptions,
    /// The value for each column. `None` if the event does not contain the column.
    pub(super) cells: Vec<Option<Cell>>,
    pub(super) entries: Vec<(String, Option<String>)>,
    reason: Option<Reason>,
}

impl<'c> EventBuilder<'c> {
    pub(super) fn new(contract: &'c Contract, options: &'c DecodeOptions) -> Self {
        let cells = vec![None; contract.columns.len()];
        Self { contract, options, cells, entries: Vec::new(), reason: None }
    }

    /// Records an error. The first error determines the reason for the rejection.
    pub(super) fn fail(&mut self, reason: Reason) {
        self.reason.get_or_insert(reason);
    }

    /// Sets a column, or records the error. If the value of the time column is out of range, the reason is
    /// `TimeOutOfRange`.
    pub(super) fn set(&mut self, column: usize, read: Result<Cell, Reason>) {
        match read {
            Ok(cell) => self.cells[column] = Some(cell),
            Err(Reason::OutOfRange) if column == self.contract.time => self.fail(Reason::TimeOutOfRange),
            Err(reason) => self.fail(reason),
        }
    }

    /// Adds an entry to the value of the map column. If the key already exists, returns false, and replaces the value
    /// only if `replace` is true.
    pub(super) fn add_entry(&mut self, key: String, value: Option<String>, replace: bool) -> bool {
        if let Some(known) = self.entries.iter_mut().find(|(known, _)| *known == key) {
            if replace {
                known.1 = value;
            }
            return false;
        }
        if self.entries.len() == self.options.dimensions_max {
            self.fail(Reason::TooLarge);
        } else {
            self.entries.push((key, value));
        }
        true
    }

    /// Returns the outcome of an event of `bytes` bytes.
    pub(super) fn finish(mut self, bytes: usize) -> Outcome {
        if bytes > self.options.event_bytes_max {
            return Outcome::Reject(Reason::TooLarge);
        }
        let reason = self.reason.take().or_else(|| self.tenant()).or_else(|| self.time()).or_else(|| self.id());
        if let Some(reason) = reason {
            return Outcome::Reject(reason);
        }
        let Self { contract, options, cells, entries, .. } = self;
        let mut row: Vec<Cell> = cells.into_iter().map(|cell| cell.unwrap_or(Cell::Null)).collect();
        row[contract.received] = Cell::Int(options.received);
        if let Owner::Tenant(tenant) = &options.owner {
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

    /// Checks the tenant. An event belongs to its sender, so an event that names another tenant is rejected. An event
    /// from an operator must name its tenant.
    fn tenant(&self) -> Option<Reason> {
        match (&self.options.owner, self.text(self.contract.tenant)) {
            (Owner::Tenant(_), None) => None,
            (Owner::Tenant(owner), Some(given)) => (owner.as_str() != given).then_some(Reason::ForeignTenant),
            (Owner::PerEvent, None) => Some(Reason::MissingTenant),
            (Owner::PerEvent, Some(given)) => (given.len() > 256
                || given.contains(|c: char| c.is_control() || c == '\u{feff}'))
            .then_some(Reason::MissingTenant),
        }
    }

    fn time(&self) -> Option<Reason> {
        match self.cells[self.contract.time] {
            Some(Cell::Int(micros)) if micros < 0 || micros > self.options.time_max => Some(Reason::TimeOutOfRange),
            Some(Cell::Int(_)) => None,
            _ => Some(Reason::MissingTime),
        }
    }

    fn id(&self) -> Option<Reason> {
        self.text(self.contract.id).is_none().then_some(Reason::MissingId)
    }
}

/// Returns the server's outcome for each event, in order, and the bytes of rejected events.
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
        ColumnKind::Decimal { .. } => Cell::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        ColumnKind::Text | ColumnKind::Uuid | ColumnKind::Json => {
            Cell::Text(array.as_string::<i32>().value(row).to_owned())
        }
        ColumnKind::Bytes => Cell::Bytes(array.as_binary::<i32>().value(row).to_owned()),
        ColumnKind::Timestamp => Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        ColumnKind::Time => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        ColumnKind::List(element) => {
            let elements = array.as_list::<i32>().value(row);
            Cell::List((0..elements.len()).map(|at| cell(&elements, *element, at)).collect())
        }
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
