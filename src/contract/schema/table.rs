//! A table's contract: its columns in stored order, its keys, and the mapping of event fields to columns.
//!
//! In: a table declaration ([`TableConfig`]). Out: a checked [`Contract`], or all faults of the declaration.
//! **Invariant:** the stored order of columns is tenant, time, id, [`RECEIVED_TIME`], the rest as declared, the map.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use prost_reflect::MessageDescriptor;

use super::declare::{self, Declared, KeyColumns};
use super::fields::{Target, Tree};
use super::latest::Latest;
use super::quarantine_resolution::RESOLVES;
use crate::config::{QUARANTINE_SUFFIX, TableConfig};
use crate::error::Result;

/// The server's receive time, in every table: `Timestamp(µs, "UTC")`, not null.
pub const RECEIVED_TIME: &str = "received_time";
/// The partition column, UTC day of the time column: `Date32`. Not stored in Parquet files, last in the table's schema.
pub const EVENT_DATE: &str = "event_date";

/// The type of a column. Times are microseconds UTC, text is UTF-8, and a map is from text to text.
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
    /// The name in SQL, Arrow, JSON and Parquet.
    pub name: String,
    /// The type of its values.
    pub kind: ColumnKind,
    /// The unit of its values, or empty.
    pub unit: String,
    /// The description, from the `.proto` comment or the configuration.
    pub description: String,
}

/// A table's contract. Stored column order: tenant, time, id, `received_time`, the rest as declared, the map last.
#[derive(Debug)]
pub struct Contract {
    /// The table's name.
    pub name: String,
    /// The description.
    pub description: String,
    /// All columns of a data file, in stored order.
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
    /// How the table shows the newest version of each key; `None` if it shows all rows.
    pub latest: Option<Latest>,
    /// In a quarantine: the index of the column with the id of the entry that a row closes.
    pub resolves: Option<usize>,
    /// The mapping of fields to columns.
    pub(in crate::contract) tree: Tree,
    /// Whether undeclared fields go to the map column. If not, events with such fields are rejected.
    pub(in crate::contract) unknown_to_map: bool,
    /// The message type with the protobuf field numbers, if the table is declared by a `.proto`.
    pub(in crate::contract) message: Option<MessageDescriptor>,
    /// The unit of integers in an Arrow column for a timestamp.
    pub(in crate::contract) time_unit: crate::config::TimeUnit,
    schema: SchemaRef,
    table_schema: SchemaRef,
}

impl Contract {
    /// Checks a table declaration. Relative `.proto` paths start at `base`. The error lists all faults.
    pub fn new(name: &str, config: &TableConfig, base: &Path) -> Result<Self> {
        let (declared, keys) = declare::declare(config, base).map_err(|fault| fault.at(format!("table `{name}`")))?;
        Ok(Self::assemble(name.into(), declared, keys, config.time_unit))
    }

    /// The contract of a table's quarantine, `<table>_quarantine`: tenant ("" for unknown owners), `event_time` (the
    /// receive time), `quarantine_id`, `received_time`, `source_table`, `reason`, `detail`, `place` (endpoint, request,
    /// index), `payload` (bytes), its `format`; and three columns for rows that close an entry. Those rows are not
    /// events, and SQL does not show the columns (see [`Contract::is_shown`]).
    pub fn quarantine_of(table: &Contract) -> Self {
        let (declared, keys) = declare::quarantine(table);
        let name = format!("{}{QUARANTINE_SUFFIX}", table.name);
        let contract = Self::assemble(name, declared, keys, crate::config::TimeUnit::Micros);
        Self { resolves: contract.column(RESOLVES), ..contract }
    }

    /// The Arrow schema of data files, without [`EVENT_DATE`]. Tenant, time, id and receive time are not null.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The Arrow schema of queries: [`Contract::schema`] and then [`EVENT_DATE`] (`Date32`, nullable).
    pub fn table_schema(&self) -> &SchemaRef {
        &self.table_schema
    }

    /// The index of a column, by name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// An empty batch with [`Contract::schema`].
    pub fn empty_batch(&self) -> RecordBatch {
        RecordBatch::new_empty(Arc::clone(&self.schema))
    }

    /// Puts declared columns into stored order and updates the tree's leaves.
    fn assemble(name: String, declared: Declared, keys: KeyColumns, time_unit: crate::config::TimeUnit) -> Self {
        let Declared { description, columns: given, mut tree, unknown_to_map, message, .. } = declared;
        let order = stored_order(&given, &keys);
        let mut positions = vec![0; given.len()];
        for (position, column) in order.iter().enumerate() {
            // Index 3 is the receive time, which is not a declared column.
            positions[*column] = if position < 3 { position } else { position + 1 };
        }
        tree.reorder(&positions);
        let latest = keys.latest.map(|chosen| chosen.stored(&positions, 3));
        let mut columns: Vec<_> = order.iter().map(|column| given[*column].clone()).collect();
        columns.insert(3, received_column());
        let schema = schema_of(&columns);
        let table_schema = with_event_date(&schema, &columns[1].name);
        let tree = with_column_names(tree, &columns);
        let map = columns.iter().position(|column| column.kind == ColumnKind::Map);
        Self {
            name,
            description,
            tenant: 0,
            time: 1,
            id: 2,
            received: 3,
            map,
            latest,
            resolves: None,
            columns,
            tree,
            unknown_to_map,
            message,
            time_unit,
            schema: Arc::new(schema),
            table_schema: Arc::new(table_schema),
        }
    }
}

/// The fields of a map's entries.
pub(in crate::contract) fn entry_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)].into()
}

impl ColumnKind {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::Map => {
                let entries = DataType::Struct(entry_fields());
                DataType::Map(Arc::new(Field::new("key_value", entries, false)), false)
            }
        }
    }

    /// The name in the configuration and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Map => "map",
        }
    }

    /// Parses a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Text,
        Self::Bool,
        Self::Int32,
        Self::Int64,
        Self::Float32,
        Self::Float64,
        Self::Timestamp,
        Self::Date,
        Self::Bytes,
        Self::Map,
    ];
}

/// Declared columns in stored order: keys first, the map last.
fn stored_order(given: &[Column], keys: &KeyColumns) -> Vec<usize> {
    let keys = [keys.tenant, keys.time, keys.id];
    let is_map = |column: &usize| given[*column].kind == ColumnKind::Map;
    let rest = (0..given.len()).filter(|column| !keys.contains(column));
    let map = rest.clone().filter(is_map);
    keys.into_iter().chain(rest.filter(|column| !is_map(column))).chain(map).collect()
}

fn received_column() -> Column {
    Column {
        name: RECEIVED_TIME.into(),
        kind: ColumnKind::Timestamp,
        unit: String::new(),
        description: "When the server received the event, by the server's clock".into(),
    }
}

fn schema_of(columns: &[Column]) -> Schema {
    let fields = columns.iter().enumerate().map(|(index, column)| {
        let field = Field::new(&column.name, column.kind.data_type(), index > 3);
        field.with_metadata(metadata(&column.description, &column.unit))
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn with_event_date(schema: &Schema, time: &str) -> Schema {
    let comment = format!("The UTC day of `{time}`");
    let date = Field::new(EVENT_DATE, DataType::Date32, true).with_metadata(metadata(&comment, ""));
    let fields = schema.fields().iter().cloned().chain([Arc::new(date)]);
    Schema::new(fields.collect::<Vec<_>>())
}

fn metadata(comment: &str, unit: &str) -> HashMap<String, String> {
    let pairs = [("comment", comment), ("unit", unit)].into_iter().filter(|(_, text)| !text.is_empty());
    pairs.map(|(key, text)| (key.to_owned(), text.to_owned())).collect()
}

/// Adds each nested column's name to the root object, so that a top-level key can name it; and ignores columns that
/// only the server sets.
fn with_column_names(mut tree: Tree, columns: &[Column]) -> Tree {
    let map = columns.iter().find(|column| column.kind == ColumnKind::Map);
    let nested = tree.nodes.iter().skip(1).flat_map(|node| &node.fields).filter_map(|field| {
        let name = match field.target {
            Target::Column(leaf) => &columns[leaf.column].name,
            Target::Map(..) => &map?.name,
            Target::Node(_) | Target::Ignored => return None,
        };
        Some(super::fields::Field { name: name.clone(), json_name: String::new(), number: 0, target: field.target })
    });
    let server_columns = [RECEIVED_TIME, EVENT_DATE].map(|name| super::fields::Field {
        name: name.into(),
        json_name: String::new(),
        number: 0,
        target: Target::Ignored,
    });
    let names: Vec<_> = nested.chain(server_columns).collect();
    let root = tree.nodes.remove(0);
    tree.nodes.insert(0, root.extend(names));
    tree
}
