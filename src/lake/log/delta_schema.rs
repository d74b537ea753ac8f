//! Converts a contract to a Delta schema, and adds a contract's new columns to a stored schema.
//!
//! Compares a [`Contract`] with the schema in a table's metadata, and returns the schema to store. If rows that follow
//! the contract cannot be stored in the table, returns a `Conflict` error that names the column and the fix.
//!
//! A contract may add nullable columns. New columns are appended to the stored columns, and readers match columns by
//! name. If a column is removed from the contract, it stays in the table and is null in new files. External readers
//! still see the column, but queries do not. A contract must not change a column's type or nullability, and must not
//! add a column whose name differs from a stored one only in case.

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::contract::{ColumnKind, Contract, KIND_KEY};
use crate::error::{Error, Result};

/// A Delta schema: the JSON in a metadata action's `schemaString`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::lake) struct DeltaSchema {
    #[serde(rename = "type")]
    kind: String,
    fields: Vec<DeltaField>,
}

/// A column of a Delta schema. `kind` is a type name, or an object for a nested type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DeltaField {
    name: String,
    #[serde(rename = "type")]
    kind: Value,
    nullable: bool,
    #[serde(default)]
    metadata: Map<String, Value>,
}

impl DeltaSchema {
    /// Returns the Delta schema of a contract. It consists of all columns of the contract and the partition column. The
    /// description of each column is stored as the column's comment.
    pub(in crate::lake) fn of(contract: &Contract) -> Result<Self> {
        let fields = contract.table_schema().fields().iter().map(|field| {
            let column = contract.columns.iter().find(|column| column.name == *field.name());
            let mut metadata = Map::new();
            if let Some(column) = column.filter(|column| !column.description.is_empty()) {
                metadata.insert("comment".into(), column.description.as_str().into());
            }
            if let Some(column) = column.filter(|column| !column.unit.is_empty()) {
                metadata.insert("glasshouse.unit".into(), column.unit.as_str().into());
            }
            if let Some(column) = column.filter(|column| !column.kind.is_delta_type()) {
                metadata.insert(KIND_KEY.to_owned(), column.kind.to_string().into());
            }
            let kind = delta_type(field.data_type()).map_err(|error| error.at(column_path(contract, field.name())))?;
            Ok(DeltaField { name: field.name().clone(), kind, nullable: field.is_nullable(), metadata })
        });
        Ok(Self { kind: "struct".into(), fields: fields.collect::<Result<_>>()? })
    }

    /// Parses the `schemaString` of a table's metadata.
    pub(in crate::lake) fn parse(contract: &Contract, text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            Error::unsupported(format!("the schema of table `{}` is not a valid Delta schema", contract.name))
                .with_source(error)
        })
    }

    /// Returns the schema as the `schemaString` of a table's metadata.
    pub(in crate::lake) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::internal("a schema cannot be written as JSON").with_source(error))
    }

    /// Returns a copy of this stored schema to which the new columns of `contract` have been added, or `None` if there
    /// are no new columns. Returns `Conflict` if rows that follow `contract` cannot be stored in the table.
    pub(in crate::lake) fn evolve(&self, contract: &Contract) -> Result<Option<Self>> {
        let declared = Self::of(contract)?;
        let mut evolved = self.clone();
        for field in &declared.fields {
            match self.fields.iter().find(|stored| stored.name.eq_ignore_ascii_case(&field.name)) {
                Some(stored) => fits(contract, stored, field)?,
                None if field.nullable => evolved.fields.push(field.clone()),
                None => {
                    return Err(Error::conflict(format!(
                        "{}: a column that is not nullable cannot be added to an existing table: declare a new table",
                        column_path(contract, &field.name)
                    )));
                }
            }
        }
        let is_undeclared =
            |stored: &&DeltaField| !stored.nullable && !declared.fields.iter().any(|field| field.name == stored.name);
        if let Some(stored) = self.fields.iter().find(is_undeclared) {
            return Err(Error::conflict(format!(
                "{}: the table requires this column, but it is no longer declared: declare it again, or declare a new table",
                column_path(contract, &stored.name)
            )));
        }
        Ok((evolved != *self).then_some(evolved))
    }
}

fn column_path(contract: &Contract, column: &str) -> String {
    format!("column `{column}` of table `{}`", contract.name)
}

/// Checks that the values of a declared column can be stored in the existing column.
fn fits(contract: &Contract, stored: &DeltaField, field: &DeltaField) -> Result<()> {
    let column = column_path(contract, &field.name);
    Err(Error::conflict(if stored.name != field.name {
        format!(
            "{column}: the table has a column `{}`, and names must not differ only in case: rename the new column",
            stored.name
        )
    } else if stored.kind != field.kind || stored.metadata.get(KIND_KEY) != field.metadata.get(KIND_KEY) {
        let (stored, declared) = (stored.type_name(), field.type_name());
        format!(
            "{column} is stored as {stored} and cannot become {declared}: declare it as {stored}, or add a column with \
             another name"
        )
    } else if stored.nullable != field.nullable {
        let nullable = |nullable: bool| if nullable { "can be null" } else { "cannot be null" };
        format!(
            "{column} {} in the stored rows, but {} as it is declared: give the new column another name",
            nullable(stored.nullable),
            nullable(field.nullable)
        )
    } else {
        return Ok(());
    }))
}

impl DeltaField {
    /// Returns the name of the column's type in the configuration, or its Delta type if no column can be declared with
    /// this type.
    fn type_name(&self) -> String {
        match self.metadata.get(KIND_KEY).and_then(Value::as_str) {
            Some(kind) => kind.to_owned(),
            None => kind_name(&self.kind),
        }
    }
}

fn kind_name(delta: &Value) -> String {
    let Some(name) = delta.as_str() else {
        return match delta["type"].as_str() {
            Some("array") => format!("list<{}>", kind_name(&delta["elementType"])),
            Some("map") => "map".to_owned(),
            _ => delta.to_string(),
        };
    };
    match name {
        "boolean" => "bool".to_owned(),
        "integer" => "int32".to_owned(),
        "long" => "int64".to_owned(),
        "float" => "float32".to_owned(),
        "double" => "float64".to_owned(),
        "string" => "text".to_owned(),
        "binary" => "bytes".to_owned(),
        other => ColumnKind::parse(other).map_or_else(|_| other.to_owned(), |kind| kind.to_string()),
    }
}

/// Returns the Delta type of an Arrow type.
fn delta_type(kind: &DataType) -> Result<Value> {
    let name = match kind {
        DataType::Boolean => "boolean",
        DataType::Int32 => "integer",
        // Delta Lake has no type for a time of day, so it is stored as the number of microseconds since midnight.
        DataType::Int64 | DataType::Time64(TimeUnit::Microsecond) => "long",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 => "string",
        DataType::Binary => "binary",
        DataType::Date32 => "date",
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamp",
        DataType::Decimal128(precision, scale) => return Ok(format!("decimal({precision},{scale})").into()),
        DataType::List(element) => {
            let (kind, is_nullable) = (delta_type(element.data_type())?, element.is_nullable());
            return Ok(json!({ "type": "array", "elementType": kind, "containsNull": is_nullable }));
        }
        DataType::Map(entries, _) => return map_type(entries.data_type()),
        other => return Err(Error::unsupported(format!("{other} cannot be stored in a Delta table"))),
    };
    Ok(name.into())
}

fn map_type(entries: &DataType) -> Result<Value> {
    let DataType::Struct(fields) = entries else {
        return Err(Error::internal("the entries of a map are not a struct"));
    };
    let [key, value] = &fields[..] else {
        return Err(Error::internal("the entries of a map are not key-value pairs"));
    };
    Ok(json!({
        "type": "map",
        "keyType": delta_type(key.data_type())?,
        "valueType": delta_type(value.data_type())?,
        "valueContainsNull": value.is_nullable(),
    }))
}
