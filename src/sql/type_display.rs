//! The names of SQL types, for messages and for the metadata of columns.

use arrow::datatypes::DataType;

/// Returns the name of the SQL type of an Arrow type, as in `CAST(x AS name)`, without its parameters. Nested types have
/// a descriptive name, because SQL has no syntax for them.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "DECIMAL"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Struct(_) => "STRUCT",
        DataType::Dictionary(_, values) => return sql_type(values),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            return format!("{} ARRAY", sql_type(item.data_type()));
        }
        DataType::Map(entries, _) => {
            return match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => {
                    format!("MAP({}, {})", sql_type(fields[0].data_type()), sql_type(fields[1].data_type()))
                }
                _ => "MAP".to_owned(),
            };
        }
        other => return other.to_string().to_uppercase(),
    };
    name.to_owned()
}

/// Returns the name of the SQL type for the text of an Arrow type in an error of the engine. Returns other texts
/// unchanged.
pub(crate) fn sql_type_of_text(text: &str) -> String {
    let text = text.trim();
    // The engine writes the name of the field with the elements, which Arrow's parser does not accept.
    let list = text.strip_prefix("List(").and_then(|list| list.strip_suffix(')'));
    if let Some((element, _)) = list.map(|list| list.rsplit_once(", field: ").unwrap_or((list, ""))) {
        return format!("{} ARRAY", sql_type_of_text(element));
    }
    text.parse().map_or_else(|_| text.to_owned(), |data_type| sql_type(&data_type))
}
