//! Implements GetXdbcTypeInfo, which lists the SQL types with the names and sizes that ODBC and JDBC drivers expect.
//! This file also determines the SQL types of table columns.
//!
//! **Invariant:** for each name in the list, `CAST(x AS name)` is valid and returns the Arrow type that the list
//! contains for this name.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

use super::error::metadata_error;
use crate::contract::ColumnKind;
use crate::error::Result;
use crate::sql::type_display::sql_type;

/// The reported size of types that have no maximum size. ODBC and JDBC interpret this size as "no limit".
const UNLIMITED: i32 = i32::MAX;

/// The number of characters of a UUID.
const UUID_CHARS: i32 = 36;

/// The SQL type of a column, and the size of its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ColumnType {
    /// The name of the type, as in `CAST(x AS name)`. Nested types have a descriptive name, because SQL has no syntax
    /// for them.
    pub(super) name: String,
    /// The maximum number of digits, characters or bytes. For times, it is the number of characters in their text form.
    pub(super) precision: Option<i32>,
    /// The number of digits after the decimal point. For times, the number of fractional digits of a second.
    pub(super) scale: Option<i32>,
}

impl ColumnType {
    /// Returns the SQL type of a column.
    pub(super) fn of_field(field: &Field) -> Self {
        let shown = Self::of(field.data_type());
        match ColumnKind::of_metadata(field) {
            Some(ColumnKind::Uuid) => Self { name: "UUID".to_owned(), precision: Some(UUID_CHARS), ..shown },
            Some(ColumnKind::Json) => Self { name: "JSON".to_owned(), ..shown },
            Some(ColumnKind::List(ColumnKind::Uuid)) => Self { name: "UUID ARRAY".to_owned(), ..shown },
            _ => shown,
        }
    }

    /// Returns the SQL type of a column with this Arrow type.
    pub(super) fn of(data_type: &DataType) -> Self {
        let (precision, scale) = match data_type {
            DataType::Boolean => (Some(1), None),
            DataType::Int8 | DataType::UInt8 => (Some(3), Some(0)),
            DataType::Int16 | DataType::UInt16 => (Some(5), Some(0)),
            DataType::Int32 | DataType::UInt32 => (Some(10), Some(0)),
            DataType::Int64 => (Some(19), Some(0)),
            DataType::UInt64 => (Some(20), Some(0)),
            DataType::Float16 | DataType::Float32 => (Some(7), None),
            DataType::Float64 => (Some(15), None),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => (Some(i32::from(*precision)), Some(i32::from(*scale))),
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView => (Some(UNLIMITED), None),
            DataType::FixedSizeBinary(bytes) => (Some(*bytes), None),
            DataType::Date32 | DataType::Date64 => (Some(10), None),
            DataType::Time32(unit) | DataType::Time64(unit) => {
                let scale = second_digits(*unit);
                (Some(8 + fraction_width(scale)), Some(scale))
            }
            DataType::Timestamp(unit, zone) => {
                let scale = second_digits(*unit);
                let width = if zone.is_some() { 25 } else { 19 }; // "+00:00" follows
                (Some(width + fraction_width(scale)), Some(scale))
            }
            DataType::Dictionary(_, values) => return Self::of(values),
            _ => (None, None),
        };
        Self { name: sql_type(data_type), precision, scale }
    }
}

fn second_digits(unit: TimeUnit) -> i32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Returns the number of characters that the fraction of a second takes, including the decimal point.
fn fraction_width(scale: i32) -> i32 {
    if scale == 0 { 0 } else { scale + 1 }
}

/// Returns the schema of GetXdbcTypeInfo.
pub(super) fn schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

/// Returns the types with the code `data_type` of the enum `XdbcDataType`, or all types if it is `None`. If no type has
/// this code, the result is empty.
pub(super) fn batch(data_type: Option<i32>) -> Result<RecordBatch> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for info in TYPES.iter() {
        builder.append(info.clone());
    }
    builder.build().and_then(|types| types.record_batch(data_type)).map_err(metadata_error)
}

static TYPES: LazyLock<Vec<XdbcTypeInfo>> = LazyLock::new(|| {
    use XdbcDataType as Code;
    use XdbcDatetimeSubcode as Subcode;
    vec![
        XdbcTypeInfo { searchable: Searchable::Basic, ..plain(&DataType::Boolean, Code::XdbcBit) },
        integer(&DataType::Int8, Code::XdbcTinyint),
        integer(&DataType::Int16, Code::XdbcSmallint),
        integer(&DataType::Int32, Code::XdbcInteger),
        integer(&DataType::Int64, Code::XdbcBigint),
        integer(&DataType::UInt8, Code::XdbcTinyint),
        integer(&DataType::UInt16, Code::XdbcSmallint),
        integer(&DataType::UInt32, Code::XdbcInteger),
        integer(&DataType::UInt64, Code::XdbcBigint),
        number(&DataType::Float32, Code::XdbcReal),
        number(&DataType::Float64, Code::XdbcDouble),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            minimum_scale: Some(0),
            maximum_scale: Some(38),
            ..number(&DataType::Decimal128(38, 0), Code::XdbcDecimal)
        },
        XdbcTypeInfo {
            create_params: Some(vec!["length".to_owned()]),
            case_sensitive: true,
            searchable: Searchable::Full,
            ..quoted(plain(&DataType::Utf8, Code::XdbcVarchar), "'")
        },
        quoted(plain(&DataType::Binary, Code::XdbcVarbinary), "X'"),
        // In the protocol, YEAR and DATE are both names of the subcode 1, but the generated enum has only the name
        // YEAR.
        time(&DataType::Date32, Code::XdbcDate, Subcode::XdbcSubcodeYear, "DATE '"),
        time(&DataType::Time64(TimeUnit::Microsecond), Code::XdbcTime, Subcode::XdbcSubcodeTime, "TIME '"),
        time(
            &DataType::Timestamp(TimeUnit::Microsecond, None),
            Code::XdbcTimestamp,
            Subcode::XdbcSubcodeTimestamp,
            "TIMESTAMP '",
        ),
        time(
            &DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Code::XdbcTimestamp,
            Subcode::XdbcSubcodeTimestampWithTimezone,
            "TIMESTAMP WITH TIME ZONE '",
        ),
        quoted(
            plain(&DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano), Code::XdbcInterval),
            "INTERVAL '",
        ),
    ]
});

/// Returns the description of a type that can be compared but cannot be used with LIKE.
fn plain(data_type: &DataType, code: XdbcDataType) -> XdbcTypeInfo {
    let column = ColumnType::of(data_type);
    XdbcTypeInfo {
        local_type_name: Some(column.name.clone()),
        type_name: column.name,
        data_type: code,
        sql_data_type: code,
        column_size: column.precision,
        minimum_scale: column.scale,
        maximum_scale: column.scale,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Basic,
        ..XdbcTypeInfo::default()
    }
}

fn number(data_type: &DataType, code: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(data_type.is_unsigned_integer()),
        auto_increment: Some(false),
        num_prec_radix: Some(10),
        ..plain(data_type, code)
    }
}

fn integer(data_type: &DataType, code: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo { fixed_prec_scale: true, ..number(data_type, code) }
}

fn quoted(info: XdbcTypeInfo, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo { literal_prefix: Some(prefix.to_owned()), literal_suffix: Some("'".to_owned()), ..info }
}

fn time(data_type: &DataType, code: XdbcDataType, subcode: XdbcDatetimeSubcode, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(subcode),
        minimum_scale: Some(0),
        ..quoted(plain(data_type, code), prefix)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, StringArray};
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    fn names(data_type: Option<i32>) -> Vec<String> {
        let batch = batch(data_type).unwrap();
        assert_eq!(batch.schema(), schema());
        let names = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        names.iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn types_are_filtered_by_code() {
        assert_eq!(names(Some(XdbcDataType::XdbcBigint as i32)), ["BIGINT", "BIGINT UNSIGNED"]);
        assert_eq!(names(Some(XdbcDataType::XdbcVarchar as i32)), ["VARCHAR"]);
        assert_eq!(names(Some(XdbcDataType::XdbcWchar as i32)), Vec::<String>::new());
        assert_eq!(names(Some(12345)), Vec::<String>::new());
        assert_eq!(names(None).len(), TYPES.len());
    }

    fn context() -> SessionContext {
        let options = SessionConfig::new()
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_str("datafusion.execution.time_zone", "UTC");
        SessionContext::new_with_config(options)
    }

    /// Checks that a cast to a name in the list returns a value of the type with that name.
    #[tokio::test]
    async fn every_name_casts_to_its_type() {
        let context = context();
        for name in names(None) {
            let frame = context.sql(&format!("SELECT CAST(NULL AS {name}) AS x")).await.unwrap();
            let cast = frame.schema().field(0).data_type().clone();
            assert_eq!(ColumnType::of(&cast).name, name, "{cast}");
        }
    }

    /// Puts the listed prefix and suffix around a value of each type, and checks that the engine accepts the resulting
    /// literal.
    #[tokio::test]
    async fn literals_with_prefix_and_suffix_parse() {
        let context = context();
        let text = |name: &str| match name {
            "VARCHAR" => "a",
            "BYTEA" => "ab",
            "DATE" => "2024-02-29",
            "TIME" => "12:30:00",
            "INTERVAL" => "1 day",
            _ => "2024-02-29T12:30:00",
        };
        let mut quoted = 0;
        for info in TYPES.iter() {
            if let (Some(prefix), Some(suffix)) = (&info.literal_prefix, &info.literal_suffix) {
                let sql = format!("SELECT {prefix}{}{suffix} AS x", text(&info.type_name));
                let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
                let column = batches[0].column(0);
                assert!(column.is_valid(0), "{sql}");
                assert_eq!(ColumnType::of(column.data_type()).name, info.type_name, "{sql}");
                quoted += 1;
            }
        }
        assert_eq!(quoted, 7);
    }

    #[test]
    fn columns_have_the_names_and_sizes_of_their_types() {
        let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
        for (data_type, name, precision, scale) in [
            (DataType::Utf8, "VARCHAR", Some(i32::MAX), None),
            (DataType::Int64, "BIGINT", Some(19), Some(0)),
            (micros(None), "TIMESTAMP", Some(26), Some(6)),
            (micros(Some("UTC")), "TIMESTAMP WITH TIME ZONE", Some(32), Some(6)),
            (DataType::Decimal128(12, 2), "DECIMAL", Some(12), Some(2)),
            (DataType::new_list(DataType::Utf8, true), "VARCHAR ARRAY", None, None),
        ] {
            assert_eq!(ColumnType::of(&data_type), ColumnType { name: name.to_owned(), precision, scale });
        }
    }
}
