//! A table's contract: its columns in stored order, its keys, and how fields of an event find their column.

use std::path::Path;

use arrow::datatypes::SchemaRef;

use crate::config::TableConfig;
use crate::error::Result;

/// The server's own receive time, in every table: `Timestamp(µs, "UTC")`, not null.
pub const RECEIVED_TIME: &str = "received_time";
/// The partition column, UTC day of the time column: `Date32`. Not stored in Parquet files, last in the table's schema.
pub const EVENT_DATE: &str = "event_date";

/// What kind of values a column holds. Times are microseconds UTC; text is UTF-8; a map is text to text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// `Boolean`
    Bool,
    /// `Int32`
    Int32,
    /// `Int64`
    Int64,
    /// `Float32`
    Float32,
    /// `Float64`
    Float64,
    /// `Utf8`
    Text,
    /// `Binary`
    Bytes,
    /// `Timestamp(Microsecond, "UTC")`
    Timestamp,
    /// `Date32`
    Date,
    /// `Map<Utf8, Utf8>` (entries `key_value`, `key` not null, `value` nullable)
    Map,
}

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name in SQL, Arrow, JSON and Parquet.
    pub name: String,
    /// Its values.
    pub kind: ColumnKind,
    /// Unit, or empty.
    pub unit: String,
    /// Prose: from the `.proto` comment or the configuration.
    pub description: String,
}

/// A table's contract. Stored column order: tenant, time, id, `received_time`, the rest as declared, the map last.
#[derive(Debug)]
pub struct Contract {
    /// The table's name.
    pub name: String,
    /// Prose.
    pub description: String,
    /// All columns of a file, in stored order.
    pub columns: Vec<Column>,
    /// The index of the tenant column: always 0.
    pub tenant: usize,
    /// The index of the time column: always 1.
    pub time: usize,
    /// The index of the id column: always 2.
    pub id: usize,
    /// The index of [`RECEIVED_TIME`]: always 3.
    pub received: usize,
    /// The index of the map column, if there is one.
    pub map: Option<usize>,
    schema: SchemaRef,
    table_schema: SchemaRef,
}

impl Contract {
    /// The contract of a declared table. Relative `.proto` paths start at `base`. All faults at once.
    pub fn new(name: &str, config: &TableConfig, base: &Path) -> Result<Self> {
        let _ = (name, config, base);
        todo!()
    }

    /// The contract of a table's quarantine, `<table>_quarantine`: tenant (nullable in fact as "" for unknown owners),
    /// `event_time` (= receive time), `quarantine_id`, `received_time`, `source_table`, `reason`, `detail`, `place`
    /// (door, request, index), `payload` (bytes).
    pub fn quarantine_of(table: &Contract) -> Self {
        let _ = table;
        todo!()
    }

    /// The Arrow schema of its files, without [`EVENT_DATE`]. Tenant, time, id and receive time are not null.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The Arrow schema of the table as queried: [`Contract::schema`] and [`EVENT_DATE`] last (`Date32`, nullable).
    pub fn table_schema(&self) -> &SchemaRef {
        &self.table_schema
    }
}
