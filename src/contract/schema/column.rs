//! [`Column`] describes a column of a table. This file also names the two columns that the server adds to every table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use crate::config::ColumnKind;

/// The column with the time at which the server received the event. Every table has this column. Its Arrow type is
/// `Timestamp(µs, "UTC")`, and its values are never null.
pub const RECEIVED_TIME: &str = "received_time";
/// The partition column, which contains the UTC day of the time column as `Date32`. The partition column is the last
/// column of the table's schema and is not stored in Parquet files.
pub const EVENT_DATE: &str = "event_date";

/// The metadata key of an Arrow field, and of a column in the Delta schema, whose value is the column's kind.
pub const KIND_KEY: &str = "glasshouse.type";

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
    /// Returns the Arrow type of a column of this kind in queries.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale.cast_signed()),
            Self::Text | Self::Uuid | Self::Json => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::List(element) => list_of(element.data_type()),
            Self::Map => {
                let entries = DataType::Struct(entry_fields());
                DataType::Map(Arc::new(Field::new("key_value", entries, false)), false)
            }
        }
    }

    /// Returns the first kind whose Arrow type in queries is `data_type`, or `None` if there is no such kind. For strings,
    /// this is [`ColumnKind::Text`].
    pub fn of_data_type(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Decimal128(precision, scale) => Self::decimal(*precision, u8::try_from(*scale).ok()?),
            DataType::List(element) => Self::list_of(Self::of_data_type(element.data_type())?),
            _ => {
                let mut plain = Self::NAMES.into_iter().filter_map(|name| Self::parse(name).ok());
                plain.find(|kind| kind.data_type() == *data_type)
            }
        }
    }

    /// Returns the Arrow type of a column of this kind in data files. It differs from [`ColumnKind::data_type`] only for
    /// times of day, because Delta Lake has no such type.
    pub fn stored_type(self) -> DataType {
        match self {
            Self::Time => DataType::Int64,
            Self::List(element) => list_of(element.stored_type()),
            kind => kind.data_type(),
        }
    }

    /// Returns true if Delta Lake has a type for columns of this kind.
    pub fn is_delta_type(self) -> bool {
        !matches!(self, Self::Uuid | Self::Json | Self::Time | Self::List(Self::Uuid | Self::Time))
    }

    /// Returns the nullable Arrow field of a column of this kind in queries. The metadata of the field contains the kind
    /// if the Arrow type does not determine it.
    pub fn field(self, name: &str) -> Field {
        let field = Field::new(name, self.data_type(), true);
        let mut metadata = HashMap::new();
        if matches!(self, Self::Uuid | Self::Json | Self::List(Self::Uuid)) {
            metadata.insert(KIND_KEY.to_owned(), self.to_string());
        }
        if self == Self::Json {
            // The canonical Arrow extension type for JSON, which stores the text.
            metadata.insert("ARROW:extension:name".to_owned(), "arrow.json".to_owned());
            metadata.insert("ARROW:extension:metadata".to_owned(), String::new());
        }
        field.with_metadata(metadata)
    }

    /// Returns the kind that [`ColumnKind::field`] has stored in the metadata of a field, or `None` if the Arrow type of
    /// the field determines the kind.
    pub fn of_metadata(field: &Field) -> Option<Self> {
        Self::parse(field.metadata().get(KIND_KEY)?).ok()
    }
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, true)))
}

/// Returns the Arrow fields of the map column's entries: `key` and `value`.
pub(in crate::contract) fn entry_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)].into()
}
