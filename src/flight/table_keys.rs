//! The Flight SQL commands for keys. BI tools use them to read the primary and foreign keys of the caller's tables.
//!
//! The server reports the id column as the primary key of a table. In the lake, an id is unique only within its tenant.
//! However, a caller sees only the rows of one tenant, and BI tools work best with a single key column. If the id
//! column is hidden from the caller, the table has no key.
//!
//! **Invariant:** no table refers to another table. The commands for foreign keys therefore return no rows.

use std::sync::{Arc, LazyLock};

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::CommandGetPrimaryKeys;

use super::error::metadata_error;
use super::metadata_filter::is_catalog;
use crate::error::Result;
use crate::query::{CATALOG, SCHEMA, VisibleTable};

/// A Flight SQL command for the primary or foreign keys of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KeyCommand {
    /// The primary key of one table.
    Primary(CommandGetPrimaryKeys),
    /// The foreign keys of a table, or the foreign keys that refer to it. The result is always empty.
    Foreign,
}

static PRIMARY: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

static FOREIGN: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

impl KeyCommand {
    /// Returns the schema of the command's result.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(match self {
            Self::Primary(_) => &PRIMARY,
            Self::Foreign => &FOREIGN,
        })
    }

    /// Returns the result of the command. `tables` contains the tables that the caller sees.
    pub(super) fn batch(&self, tables: &[VisibleTable]) -> Result<RecordBatch> {
        match self {
            Self::Primary(command) => primary(command, tables),
            Self::Foreign => Ok(RecordBatch::new_empty(self.schema())),
        }
    }
}

fn primary(command: &CommandGetPrimaryKeys, tables: &[VisibleTable]) -> Result<RecordBatch> {
    let is_here =
        is_catalog(command.catalog.as_deref()) && command.db_schema.as_deref().is_none_or(|schema| schema == SCHEMA);
    let id = tables.iter().find(|table| is_here && table.name == command.table).and_then(|table| table.id.as_deref());
    let Some(id) = id else { return Ok(RecordBatch::new_empty(Arc::clone(&PRIMARY))) };
    let text = |value: &str| Arc::new(StringArray::from(vec![value]));
    RecordBatch::try_new(
        Arc::clone(&PRIMARY),
        vec![
            text(CATALOG),
            text(SCHEMA),
            text(&command.table),
            text(id),
            text(&format!("{}_pkey", command.table)),
            Arc::new(Int32Array::from(vec![1])),
        ],
    )
    .map_err(metadata_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(id: Option<&str>) -> [VisibleTable; 1] {
        [VisibleTable {
            name: "calls".to_owned(),
            description: String::new(),
            is_lookup: false,
            schema: Arc::new(Schema::empty()),
            id: id.map(str::to_owned),
        }]
    }

    /// Returns the names of the columns in the primary key that a command returns.
    fn columns(catalog: Option<&str>, schema: Option<&str>, table: &str, id: Option<&str>) -> Vec<String> {
        let command = KeyCommand::Primary(CommandGetPrimaryKeys {
            catalog: catalog.map(str::to_owned),
            db_schema: schema.map(str::to_owned),
            table: table.to_owned(),
        });
        let batch = command.batch(&calls(id)).unwrap();
        assert_eq!(batch.schema(), command.schema());
        let columns = batch.column(3).as_any().downcast_ref::<StringArray>().unwrap();
        columns.iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn the_primary_key_is_the_visible_id() {
        let id = Some("event_id");
        for (catalog, schema, table, id, expected) in [
            (None, None, "calls", id, vec!["event_id"]),
            (Some("glasshouse"), Some("public"), "calls", id, vec!["event_id"]),
            (Some(""), None, "calls", id, vec![]),
            (None, Some(""), "calls", id, vec![]),
            (None, Some("information_schema"), "calls", id, vec![]),
            (None, None, "call_", id, vec![]), // a name and not a pattern
            (None, None, "calls", None, vec![]),
        ] {
            assert_eq!(columns(catalog, schema, table, id), expected, "{catalog:?} {schema:?} {table} {id:?}");
        }
    }

    #[test]
    fn foreign_keys_have_their_schema_and_no_rows() {
        let batch = KeyCommand::Foreign.batch(&calls(Some("event_id"))).unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (0, 13));
        assert_eq!(batch.schema(), KeyCommand::Foreign.schema());
    }
}
