//! The metadata commands of Flight SQL. These commands list catalogs, schemas, tables, table types, keys, types and
//! SqlInfo.
//!
//! A [`CatalogCommand`] is decoded from a message in `FlightSql.proto` and runs on the caller's [`Session`]. The result
//! is a single batch. Its schema, including nullability, is the one that the protocol specifies. ADBC checks this
//! schema, and JDBC and ODBC cast the columns to it.
//!
//! There is one catalog, [`CATALOG`], with two schemas. [`SCHEMA`] contains the declared tables, which have the type
//! `TABLE`. `information_schema` contains its views, which have the type `SYSTEM TABLE`. A BI tool that lists only
//! tables and views therefore shows only the declared tables. A tool that lists all types also shows
//! `information_schema`.
//!
//! **Invariant:** all names, keys and types in a result come from the session. An object that the caller cannot query
//! is therefore never listed. Only a malformed message leads to an error. An unknown name or type leads to an empty
//! result.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow_flight::sql::metadata::{GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder};
use arrow_flight::sql::{
    Any, Command, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo,
};
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, INFORMATION_SCHEMA_TABLES};

use super::error::metadata_error;
use super::metadata_filter::{is_catalog, is_like};
use super::result_arrow_types::{ResultTypes, wire_schema};
use super::sqlinfo::ServerLimits;
use super::table_keys::KeyCommand;
use super::{sqlinfo, xdbc_type_info};
use crate::error::{Error, Kind, Result};
use crate::query::{CATALOG, SCHEMA, Session};

/// The type of declared tables. A client may also filter by `BASE TABLE`, the SQL standard's name for this type.
const TABLE: &str = "TABLE";
/// The type of the views in `information_schema`.
const SYSTEM_TABLE: &str = "SYSTEM TABLE";
/// The table types that the server lists. There are no views, but tools that filter by the type `VIEW` expect it in the
/// list.
const TABLE_TYPES: [&str; 3] = [SYSTEM_TABLE, TABLE, "VIEW"];

/// A metadata command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CatalogCommand {
    Catalogs,
    Schemas(CommandGetDbSchemas),
    Tables(CommandGetTables),
    TableTypes,
    Keys(KeyCommand),
    TypeInfo(CommandGetXdbcTypeInfo),
    SqlInfo(CommandGetSqlInfo),
}

impl CatalogCommand {
    /// Decodes a metadata command. Returns `None` if the message is not a metadata command, and `Invalid` if it cannot
    /// be decoded.
    pub(super) fn decode(any: &Any) -> Option<Result<Self>> {
        let command = match Command::try_from(any.clone()) {
            Ok(command) => command,
            Err(error) => {
                return Some(Err(Error::invalid("malformed Flight SQL command").with_source(error)));
            }
        };
        Some(Ok(match command {
            Command::CommandGetCatalogs(_) => Self::Catalogs,
            Command::CommandGetDbSchemas(command) => Self::Schemas(command),
            Command::CommandGetTables(command) => Self::Tables(command),
            Command::CommandGetTableTypes(_) => Self::TableTypes,
            Command::CommandGetPrimaryKeys(command) => Self::Keys(KeyCommand::Primary(command)),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Self::Keys(KeyCommand::Foreign),
            Command::CommandGetXdbcTypeInfo(command) => Self::TypeInfo(command),
            Command::CommandGetSqlInfo(command) => Self::SqlInfo(command),
            _ => return None,
        }))
    }

    /// Returns the schema of the result. FlightInfo, GetSchema and the result stream all contain this schema.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Catalogs => GetCatalogsBuilder::new().schema(),
            Self::Schemas(_) => GetDbSchemasBuilder::new(None::<String>, None::<String>).schema(),
            Self::Tables(command) => tables_builder(command.include_schema).schema(),
            Self::TableTypes => CommandGetTableTypes {}.into_builder().schema(),
            Self::Keys(command) => command.schema(),
            Self::TypeInfo(_) => xdbc_type_info::schema(),
            Self::SqlInfo(_) => sqlinfo::schema(),
        }
    }

    /// Runs the command. The schema of the rows is [`CatalogCommand::schema`], and their order is the one that the
    /// protocol specifies. Table columns are shown with the types that they have in this caller's results.
    pub(super) async fn batch(
        &self,
        session: &Session,
        types: ResultTypes,
        limits: &ServerLimits,
    ) -> Result<RecordBatch> {
        match self {
            Self::Catalogs => catalogs(),
            Self::Schemas(command) => schemas(command),
            Self::Tables(command) => tables(command, session, types).await,
            Self::TableTypes => table_types(),
            Self::Keys(command) => command.batch(&session.tables()),
            Self::TypeInfo(command) => xdbc_type_info::batch(command.data_type),
            Self::SqlInfo(command) => sqlinfo::batch(&command.info, &session.functions(), limits),
        }
    }
}

fn catalogs() -> Result<RecordBatch> {
    let mut builder = GetCatalogsBuilder::new();
    builder.append(CATALOG);
    builder.build().map_err(metadata_error)
}

fn schemas(command: &CommandGetDbSchemas) -> Result<RecordBatch> {
    let mut builder = GetDbSchemasBuilder::new(None::<String>, None::<String>);
    for schema in [INFORMATION_SCHEMA, SCHEMA] {
        if is_catalog(command.catalog.as_deref()) && is_like(command.db_schema_filter_pattern.as_deref(), schema)? {
            builder.append(CATALOG, schema);
        }
    }
    builder.build().map_err(metadata_error)
}

fn table_types() -> Result<RecordBatch> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    for table_type in TABLE_TYPES {
        builder.append(table_type);
    }
    builder.build().map_err(metadata_error)
}

async fn tables(command: &CommandGetTables, session: &Session, types: ResultTypes) -> Result<RecordBatch> {
    let mut builder = tables_builder(command.include_schema);
    if is_wanted(command, SCHEMA, TABLE)? {
        for table in session.tables() {
            if is_like(command.table_name_filter_pattern.as_deref(), &table.name)? {
                let schema = described(&wire_schema(&table.schema, types), SCHEMA, &table.name, &table.description);
                builder.append(CATALOG, SCHEMA, &table.name, TABLE, &schema).map_err(metadata_error)?;
            }
        }
    }
    if is_wanted(command, INFORMATION_SCHEMA, SYSTEM_TABLE)? {
        for name in INFORMATION_SCHEMA_TABLES {
            if !is_like(command.table_name_filter_pattern.as_deref(), name)? {
                continue;
            }
            // The views in a session depend on the caller, and only the engine knows them. The server therefore plans a
            // query on each view to find out whether it exists.
            let planned = match session.plan(&format!("SELECT * FROM {INFORMATION_SCHEMA}.{name}")).await {
                Ok(planned) => planned,
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Forbidden | Kind::Unsupported) => continue,
                Err(error) => return Err(error),
            };
            let schema = described(&wire_schema(&planned.schema, types), INFORMATION_SCHEMA, name, "");
            builder.append(CATALOG, INFORMATION_SCHEMA, name, SYSTEM_TABLE, &schema).map_err(metadata_error)?;
        }
    }
    builder.build().map_err(metadata_error)
}

/// Returns a builder that applies no filters. Callers filter the tables themselves, because the builder does not know
/// the aliases of table types.
fn tables_builder(include_schema: bool) -> GetTablesBuilder {
    GetTablesBuilder::new(None::<String>, None::<String>, None::<String>, None::<String>, include_schema)
}

/// Returns true if the filters in `command` match tables with this schema and type.
fn is_wanted(command: &CommandGetTables, schema: &str, table_type: &str) -> Result<bool> {
    Ok(is_catalog(command.catalog.as_deref())
        && is_like(command.db_schema_filter_pattern.as_deref(), schema)?
        && is_type(&command.table_types, table_type))
}

/// Returns true if `filter` contains `table_type`. Case is ignored. An empty filter matches all types, and `BASE TABLE`
/// is an alias of `TABLE`.
fn is_type(filter: &[String], table_type: &str) -> bool {
    filter.is_empty()
        || filter.iter().any(|wanted| {
            let wanted = if wanted.eq_ignore_ascii_case("BASE TABLE") { TABLE } else { wanted };
            wanted.eq_ignore_ascii_case(table_type)
        })
}

/// Adds the column metadata that Flight SQL defines. This metadata consists of the table, the type name, the precision,
/// the scale and the remarks.
fn described(schema: &Schema, schema_name: &str, table: &str, description: &str) -> Schema {
    let table_name = [("CATALOG_NAME", CATALOG), ("DB_SCHEMA_NAME", schema_name), ("TABLE_NAME", table)];
    let fields = schema.fields().iter().map(|field| {
        let mut metadata: HashMap<String, String> =
            table_name.iter().map(|(key, value)| (flight_sql_key(key), (*value).to_owned())).collect();
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                metadata.insert(flight_sql_key(key), value);
            }
        };
        let column = xdbc_type_info::ColumnType::of_field(field);
        set("TYPE_NAME", Some(column.name));
        set("PRECISION", column.precision.map(|digits| digits.to_string()));
        set("SCALE", column.scale.map(|digits| digits.to_string()));
        set("IS_AUTO_INCREMENT", Some("0".to_owned()));
        set("IS_CASE_SENSITIVE", Some(if field.data_type().is_string() { "1" } else { "0" }.to_owned()));
        set("IS_READ_ONLY", Some("1".to_owned()));
        set("IS_SEARCHABLE", Some("1".to_owned()));
        set("REMARKS", remarks(field));
        Arc::new(Field::new(field.name(), field.data_type().clone(), field.is_nullable()).with_metadata(metadata))
    });
    let comment = Some(("comment".to_owned(), description.to_owned())).filter(|(_, text)| !text.is_empty());
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), comment.into_iter().collect())
}

/// Returns the comment and the unit that are declared for a column, as one string.
fn remarks(field: &Field) -> Option<String> {
    let declared = |key| field.metadata().get(key).map(String::as_str).filter(|text: &&str| !text.is_empty());
    match (declared("comment"), declared("unit")) {
        (Some(comment), Some(unit)) => Some(format!("{comment} (unit: {unit})")),
        (Some(comment), None) => Some(comment.to_owned()),
        (None, Some(unit)) => Some(format!("unit: {unit}")),
        (None, None) => None,
    }
}

/// Returns the metadata key that Flight SQL defines for a column property.
fn flight_sql_key(property: &str) -> String {
    format!("ARROW:FLIGHT:SQL:{property}")
}
