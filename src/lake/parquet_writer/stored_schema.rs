//! Returns the Arrow schema of a file that contains all columns of a table.
//!
//! The columns of the contract come first, in stored order. They are followed by the columns that the Delta schema has
//! but the contract no longer has. A file that is merged from others needs the latter too: otherwise, their values
//! would be lost.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::Value;

use crate::contract::{Contract, EVENT_DATE};
use crate::error::{Error, Result};

/// Returns the schema. `delta_schema` is the `schemaString` of the table's metadata. Returns `Unsupported` if a column
/// that the contract does not have is of an unknown type.
pub(in crate::lake) fn stored_schema(contract: &Contract, delta_schema: &str) -> Result<SchemaRef> {
    let parsed: Value = serde_json::from_str(delta_schema).map_err(|error| {
        Error::unsupported(format!("the schema of table `{}` is not a valid Delta schema", contract.name))
            .with_source(error)
    })?;
    let mut fields: Vec<Arc<Field>> = contract.schema().fields().iter().cloned().collect();
    for column in parsed["fields"].as_array().into_iter().flatten() {
        let name = column["name"].as_str().unwrap_or_default();
        if name == EVENT_DATE || contract.column(name).is_some() {
            continue;
        }
        let Some(kind) = arrow_type(&column["type"]) else {
            return Err(Error::unsupported(format!(
                "table `{}`, column `{name}`: its files cannot be merged, because its type {} is not supported: drop \
                 the column with the engine that added it",
                contract.name, column["type"]
            )));
        };
        fields.push(Arc::new(Field::new(name, kind, true)));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Returns the Arrow type of a Delta type, or `None` if the type is unknown.
fn arrow_type(kind: &Value) -> Option<DataType> {
    let Some(name) = kind.as_str() else { return nested_type(kind) };
    Some(match name {
        "boolean" => DataType::Boolean,
        "byte" => DataType::Int8,
        "short" => DataType::Int16,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "string" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
        _ => {
            let digits = name.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = digits.split_once(',')?;
            DataType::Decimal128(precision.trim().parse().ok()?, scale.trim().parse().ok()?)
        }
    })
}

fn nested_type(kind: &Value) -> Option<DataType> {
    let field = |name: &str, kind: &Value, nullable: &Value| {
        Some(Arc::new(Field::new(name, arrow_type(kind)?, nullable.as_bool().unwrap_or(true))))
    };
    Some(match kind["type"].as_str()? {
        "array" => DataType::List(field("element", &kind["elementType"], &kind["containsNull"])?),
        "map" => {
            let key = field("key", &kind["keyType"], &Value::Bool(false))?;
            let value = field("value", &kind["valueType"], &kind["valueContainsNull"])?;
            let entries = DataType::Struct(Fields::from(vec![key, value]));
            DataType::Map(Arc::new(Field::new("key_value", entries, false)), false)
        }
        "struct" => {
            let fields = kind["fields"].as_array()?.iter();
            let fields = fields.map(|inner| field(inner["name"].as_str()?, &inner["type"], &inner["nullable"]));
            DataType::Struct(fields.collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::log::delta_schema::DeltaSchema;
    use crate::lake::tests::{contract, contract_of};

    #[test]
    fn columns_that_the_contract_lacks_come_last() {
        let kept = [("tenant_id", "text"), ("event_time", "timestamp"), ("event_id", "text"), ("mos", "float64")];
        let full = contract();
        let delta = DeltaSchema::of(&full).unwrap().to_json().unwrap();
        let schema = stored_schema(&contract_of(&kept), &delta).unwrap();
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["tenant_id", "event_time", "event_id", "received_time", "mos", "region", "hops", "labels"]);
        for field in schema.fields() {
            let declared = full.schema().field_with_name(field.name()).unwrap();
            assert_eq!(field.data_type(), declared.data_type(), "{}", field.name());
        }
    }

    #[test]
    fn types_of_other_engines_are_read_or_refused() {
        let of = |kind: &str| {
            let text = format!(r#"{{"type":"struct","fields":[{{"name":"x","type":{kind},"nullable":true}}]}}"#);
            stored_schema(&contract(), &text).map(|schema| schema.field_with_name("x").unwrap().data_type().clone())
        };
        let inner = r#"{"type":"struct","fields":[{"name":"a","type":"short","nullable":false}]}"#;
        let inner_type = DataType::Struct(vec![Field::new("a", DataType::Int16, false)].into());
        for (kind, expected) in [
            (r#""byte""#, DataType::Int8),
            (r#""decimal(12, 3)""#, DataType::Decimal128(12, 3)),
            (r#""timestamp_ntz""#, DataType::Timestamp(TimeUnit::Microsecond, None)),
            (inner, inner_type.clone()),
            (
                &format!(r#"{{"type":"array","elementType":{inner},"containsNull":false}}"#),
                DataType::List(Arc::new(Field::new("element", inner_type, false))),
            ),
        ] {
            assert_eq!(of(kind).unwrap(), expected, "{kind}");
        }
        let error = of(r#""variant""#).unwrap_err();
        assert!(error.message().contains("`x`") && error.message().contains("variant"), "{error}");
    }
}
