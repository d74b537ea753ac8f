//! [`Contract`]: a table's columns in stored order, its keys, and the mapping from event fields to columns.
//!
//! The input is a table declaration ([`TableConfig`]). The output is a checked [`Contract`], or one error that lists
//! all problems in the declaration.
//!
//! **Invariant:** columns are stored in this order: tenant, time, id, [`RECEIVED_TIME`], all other columns as declared,
//! and finally the map column.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use prost_reflect::MessageDescriptor;

use super::column::{Column, EVENT_DATE, RECEIVED_TIME};
use super::declared_columns::DeclaredColumns;
use super::fields::{Target, Tree};
use super::latest::Latest;
use super::quarantine_resolution::{RESOLUTION, RESOLVED_BY, RESOLVES};
use super::retention::Retention;
use super::table_declaration::{self, KeyColumns};
use crate::config::{CHANGES_SUFFIX, ColumnKind, QUARANTINE_SUFFIX, TableConfig};
use crate::error::Result;

/// The checked declaration of a table: its columns, keys and event fields.
#[derive(Debug)]
pub struct Contract {
    /// The table's name.
    pub name: String,
    /// The table's description, for catalogs and BI tools.
    pub description: String,
    /// The columns of each data file, in stored order.
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
    /// The columns that determine the latest version of each key, or `None` if the table shows all versions.
    pub latest: Option<Latest>,
    /// The index of the column [`RESOLVES`], which only a quarantine has.
    pub resolves: Option<usize>,
    /// For how long the table keeps events.
    pub retention: Retention,
    /// The mapping from event fields to columns.
    pub(in crate::contract) tree: Tree,
    /// If true, undeclared fields are stored in the map column. If false, an event with such a field is rejected.
    pub(in crate::contract) unknown_to_map: bool,
    /// The message type that declares the table, or `None` if the table is not declared by a `.proto` file.
    pub(in crate::contract) message: Option<MessageDescriptor>,
    /// The unit of integers that an Arrow batch contains for a timestamp column.
    pub(in crate::contract) time_unit: crate::config::TimeUnit,
    schema: SchemaRef,
    table_schema: SchemaRef,
}

impl Contract {
    /// Reads and checks a table declaration. Relative `.proto` paths are resolved against `base`. The error lists all
    /// problems.
    pub fn new(name: &str, config: &TableConfig, base: &Path) -> Result<Self> {
        let (declared, keys) =
            table_declaration::declare(config, base).map_err(|error| error.at(format!("table `{name}`")))?;
        let retention = Retention::of(config).map_err(|error| error.at(format!("table `{name}`")))?;
        Ok(Self { retention, ..Self::assemble(name.into(), declared, keys, config.time_unit) })
    }

    /// Returns the contract of a table's quarantine, `<table>_quarantine`.
    ///
    /// The columns of a quarantine are the tenant, `event_time`, `quarantine_id`, `received_time`, `source_table`,
    /// `reason`, `detail`, `place`, `payload` and `format`. The tenant is `""` if the owner is unknown. `event_time` is
    /// the time at which the event was rejected. `place` contains the endpoint, the request and the event's index.
    /// `payload` contains the event's bytes, and `format` names their format. A row that closes an entry uses three
    /// further columns. Such a row is not an event, so SQL shows neither the row nor the three columns (see
    /// [`Contract::is_shown`]).
    pub fn quarantine_of(table: &Contract) -> Self {
        let (declared, keys) = table_declaration::quarantine(&table.name, table.columns[table.tenant].clone());
        let name = format!("{}{QUARANTINE_SUFFIX}", table.name);
        let contract = Self::assemble(name, declared, keys, crate::config::TimeUnit::Micros);
        Self { resolves: contract.column(RESOLVES), ..contract }
    }

    /// Returns the contract with another retention.
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Returns the Arrow schema of data files, which do not contain [`EVENT_DATE`]. The columns tenant, time, id and
    /// receive time are not nullable.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the Arrow schema of queries: the columns of [`Contract::schema`] followed by [`EVENT_DATE`] (`Date32`,
    /// nullable). The types are those of [`ColumnKind::data_type`].
    pub fn table_schema(&self) -> &SchemaRef {
        &self.table_schema
    }

    /// Returns the index of the column with this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Returns a batch without rows whose schema is [`Contract::schema`].
    pub fn empty_batch(&self) -> RecordBatch {
        RecordBatch::new_empty(Arc::clone(&self.schema))
    }

    /// Returns true if queries show the column with this name. Queries hide three columns of a quarantine, which only
    /// the rows that close entries use.
    pub fn is_shown(&self, column: &str) -> bool {
        self.resolves.is_none() || ![RESOLVES, RESOLUTION, RESOLVED_BY].contains(&column)
    }

    /// Returns the name of the table that shows all versions, or `None` if this table is not declared with `latest`.
    pub fn changes_name(&self) -> Option<String> {
        self.latest.as_ref().map(|_| format!("{}{CHANGES_SUFFIX}", self.name))
    }

    /// Returns the description of the table that shows all versions.
    pub fn changes_description(&self) -> String {
        format!("All versions of the rows of `{}`: {}", self.name, self.description)
    }

    /// Builds a contract from declared columns, which it puts into stored order. The column indexes in the field tree
    /// are changed accordingly.
    fn assemble(name: String, declared: DeclaredColumns, keys: KeyColumns, time_unit: crate::config::TimeUnit) -> Self {
        let DeclaredColumns { description, columns: given, mut tree, unknown_to_map, message, .. } = declared;
        let order = stored_order(&given, &keys);
        let mut positions = vec![0; given.len()];
        for (position, column) in order.iter().enumerate() {
            // The stored column 3 is the receive time, which is not a declared column.
            positions[*column] = if position < 3 { position } else { position + 1 };
        }
        tree.reorder(&positions);
        let latest = keys.latest.map(|columns| columns.stored(&positions, 3));
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
            retention: Retention::default(),
            tree,
            unknown_to_map,
            message,
            time_unit,
            schema: Arc::new(stored_schema(&schema, &columns)),
            columns,
            table_schema: Arc::new(table_schema),
        }
    }
}

/// Returns the indexes of the declared columns in stored order. The tenant, time and id come first, and the map comes
/// last.
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
        description: "The time at which the server received the event, according to the server's clock".into(),
    }
}

fn schema_of(columns: &[Column]) -> Schema {
    let fields = columns.iter().enumerate().map(|(index, column)| {
        let field = column.kind.field(&column.name).with_nullable(index > 3);
        let metadata = field.metadata().clone().into_iter().chain(metadata(&column.description, &column.unit));
        field.with_metadata(metadata.collect())
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Returns the schema of data files. It contains only types that Delta Lake has, and not the metadata that queries need.
fn stored_schema(queried: &Schema, columns: &[Column]) -> Schema {
    let fields = queried.fields().iter().zip(columns).map(|(field, column)| {
        let stored = Field::new(field.name(), column.kind.stored_type(), field.is_nullable());
        stored.with_metadata(metadata(&column.description, &column.unit))
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

/// For each nested field that has a column, adds a field with the column's name to the root object, so that an event
/// can also supply the column at the top level. Also adds a field for each column that only the server may set. Values
/// that events contain for these columns are ignored.
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
