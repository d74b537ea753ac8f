//! [`Column`] describes a column of a table. This file also names the two columns that the server adds to every table.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use crate::config::ColumnKind;

/// The column with the time at which the server received the event. Every table has this column. Its Arrow type is
/// `Timestamp(µs, "UTC")`, and its values are never null.
pub const RECEIVED_TIME: &str = "received_time";
/// The partition column, which contains the UTC day of the time column as `Date32`. The partition column is the last
/// column of the table's schema and is not stored in Parquet files.
pub const EVENT_DATE: &str = "event_date";

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// The column's name in SQL, Arrow, JSON and Parquet.
    pub name: String,
    /// The type of its values.
    pub kind: ColumnKind,
    /// The unit of its values, such as `ms`, or an empty string.
    pub unit: String,
    /// The description of the column. It comes from a comment in the `.proto` file or from the configuration.
    pub description: String,
}

impl ColumnKind {
    /// Returns the Arrow type of a column of this kind.
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
}

/// Returns the Arrow fields of the map column's entries: `key` and `value`.
pub(in crate::contract) fn entry_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)].into()
}
