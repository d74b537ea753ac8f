//! Determines which Arrow types the server sends to a client, and converts values to these types.
//!
//! A JDBC client can also set its time zone. Timestamps are then sent as the wall-clock time in that zone
//! (`result_time_zone.rs`).
//!
//! The type profile `compat` allows only types that every known client can read. The profile `native` allows all types
//! of the engine.
//!
//! **Invariant:** the schema that is sent depends only on the planned schema and the caller's [`ResultTypes`].
//! FlightInfo, GetSchema, prepared statements and the result stream all call [`wire_schema`] to get it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use tonic::metadata::MetadataMap;

use super::result_time_zone::{ClientTimeZone, local_schema};
use super::xdbc_type_info::ColumnType;
use crate::config::TypeProfile;
use crate::contract::ColumnKind;
use crate::error::{Error, Result};

/// The maximum number of digits of a `Decimal128`.
const DECIMAL128_DIGITS_MAX: u8 = 38;
/// The prefix of the metadata keys for extension types. An extension type is defined for a particular storage type, so
/// its metadata is removed if the column gets another storage type.
const EXTENSION: &str = "ARROW:extension:";

/// Cast options that make a cast fail if a value is invalid for the new type. The default options would turn such a
/// value into a null.
pub(super) const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// The settings that determine the column types in a caller's results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ResultTypes {
    pub(super) profile: TypeProfile,
    /// The time zone in which a JDBC client reads timestamps, or `None` for all other clients.
    pub(super) zone: Option<ClientTimeZone>,
}

impl From<TypeProfile> for ResultTypes {
    fn from(profile: TypeProfile) -> Self {
        Self { profile, zone: None }
    }
}

/// Returns the schema that a client with these settings receives for a result whose schema is `planned`.
pub(super) fn wire_schema(planned: &Schema, types: impl Into<ResultTypes>) -> SchemaRef {
    let ResultTypes { profile, zone } = types.into();
    match zone {
        Some(_) => profile_schema(&local_schema(planned), profile),
        None => profile_schema(planned, profile),
    }
}

fn profile_schema(planned: &Schema, profile: TypeProfile) -> SchemaRef {
    let fields = planned.fields().iter().map(with_type_name);
    Arc::new(Schema::new(match profile {
        TypeProfile::Native => fields.collect::<Vec<_>>(),
        TypeProfile::Compat => fields.map(|field| compat_field(&field)).collect(),
    }))
}

/// Adds the name of the SQL type to the metadata of a field whose Arrow type does not determine it.
fn with_type_name(field: &FieldRef) -> FieldRef {
    if ColumnKind::of_metadata(field).is_none() {
        return Arc::clone(field);
    }
    let name = ("ARROW:FLIGHT:SQL:TYPE_NAME".to_owned(), ColumnType::of_field(field).name);
    let metadata = field.metadata().clone().into_iter().chain([name]).collect();
    Arc::new(field.as_ref().clone().with_metadata(metadata))
}

/// The kinds of clients. They differ in the parameter schema that they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// The JDBC driver. The driver converts each value to the type in the parameter schema.
    Jdbc,
    /// Any other client, such as ADBC. It binds values without converting them.
    Other,
}

impl ClientKind {
    /// Recognizes the JDBC driver by its user agent. In versions up to 18.3, the user agent names only the driver's
    /// gRPC library.
    pub(super) fn of(headers: &MetadataMap) -> Self {
        let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or("");
        if agent.contains("JDBC") || agent.starts_with("grpc-java") { Self::Jdbc } else { Self::Other }
    }
}

/// Returns the parameter schema that clients see. If the type of a parameter is unknown, its type in the schema is
/// `Null`.
///
/// For the JDBC driver, the schema contains only types that the driver can bind. The driver sends times and timestamps
/// in milliseconds regardless of the declared unit, and cannot bind a value to a field of type `Null`.
pub(super) fn parameter_schema(planned: &Schema, client: ClientKind) -> Schema {
    let declared = |field: &FieldRef| {
        let data_type = match (client, field.data_type()) {
            (ClientKind::Other, kind @ (DataType::Null | DataType::Interval(_))) => kind.clone(),
            (ClientKind::Other, kind) => compat(kind),
            (ClientKind::Jdbc, kind) => match compat(kind) {
                DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Millisecond, None),
                DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
                other => other,
            },
        };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(planned.fields().iter().map(declared).collect::<Vec<_>>())
}

/// Converts a batch to the schema `wire`, which must be the result of [`wire_schema`]. Time zones are not applied here.
pub(super) fn to_wire(batch: RecordBatch, wire: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == wire {
        return Ok(batch);
    }
    let rows = batch.num_rows();
    let (_, columns, _) = batch.into_parts();
    let columns = columns
        .iter()
        .zip(wire.fields())
        .map(|(column, field)| convert(column, field.data_type()).map_err(|error| unsendable(field, error)))
        .collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new_with_options(wire.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
        .map_err(|error| Error::internal("a batch does not match its planned schema").with_source(error))
}

fn unsendable(field: &Field, error: ArrowError) -> Error {
    Error::limited(format!(
        "column `{}` has a value that does not fit type {}: select fewer rows, or set the session option `types` to \
         `native`",
        field.name(),
        field.data_type()
    ))
    .with_source(error)
}

fn compat_field(field: &FieldRef) -> FieldRef {
    let data_type = compat(field.data_type());
    if data_type == *field.data_type() {
        return field.clone();
    }
    let metadata: HashMap<_, _> = field
        .metadata()
        .iter()
        .filter(|(key, _)| !key.starts_with(EXTENSION))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    // A column of type `Null` holds only nulls, even if its field is declared as not nullable.
    let is_nullable = field.is_nullable() || field.data_type().is_null();
    Arc::new(Field::new(field.name(), data_type, is_nullable).with_metadata(metadata))
}

/// Returns the type that is most similar to `data_type` among those that every known client can read.
fn compat(data_type: &DataType) -> DataType {
    use DataType as T;
    match data_type {
        T::Null | T::LargeUtf8 | T::Utf8View | T::Interval(_) => T::Utf8,
        T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Float16 => T::Float32,
        T::Decimal32(digits, scale) | T::Decimal64(digits, scale) => T::Decimal128(*digits, *scale),
        T::Decimal256(digits, scale) if *digits <= DECIMAL128_DIGITS_MAX => T::Decimal128(*digits, *scale),
        T::Decimal256(_, _) => T::Utf8,
        T::Dictionary(_, values) => compat(values),
        T::RunEndEncoded(_, values) => compat(values.data_type()),
        T::List(item) | T::LargeList(item) | T::ListView(item) | T::LargeListView(item) | T::FixedSizeList(item, _) => {
            T::List(compat_field(item))
        }
        T::Struct(fields) => T::Struct(fields.iter().map(compat_field).collect()),
        T::Map(entries, sorted) => T::Map(compat_field(entries), *sorted),
        other => other.clone(),
    }
}

/// Casts an array to the type `to`. Struct fields are matched by position. Arrow's own cast matches them by name, but
/// names may repeat.
pub(super) fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    match (array.data_type(), to) {
        (from, to) if from == to => Ok(array.clone()),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let array = array.as_struct();
            let columns = array
                .columns()
                .iter()
                .zip(fields)
                .map(|(column, field)| convert(column, field.data_type()))
                .collect::<Result<Vec<_>, _>>()?;
            let nulls = array.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len())?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let array = array.as_list::<i32>();
            let values = convert(array.values(), item.data_type())?;
            Ok(Arc::new(ListArray::try_new(item.clone(), array.offsets().clone(), values, array.nulls().cloned())?))
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let array = array.as_map();
            let values: ArrayRef = Arc::new(array.entries().clone());
            let values = convert(&values, entries.data_type())?.as_struct().clone();
            let nulls = array.nulls().cloned();
            Ok(Arc::new(MapArray::try_new(entries.clone(), array.offsets().clone(), values, nulls, *sorted)?))
        }
        (
            DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _),
            DataType::List(_),
        ) => {
            let list = cast_with_options(array, &DataType::List(item.clone()), &STRICT)?;
            convert(&list, to)
        }
        _ => cast_with_options(array, to, &STRICT),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal256Array, DictionaryArray, FixedSizeBinaryArray, Int32Array, IntervalMonthDayNanoArray, LargeListArray,
        NullArray, StringArray, StringViewArray,
    };
    use arrow::datatypes::{Int32Type, IntervalUnit, i256};

    use super::*;

    fn one(array: impl Array + 'static) -> RecordBatch {
        RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap()
    }

    #[test]
    fn compat_sends_only_types_that_all_clients_read() {
        let words = || vec![Some("a"), None];
        let view_struct = StructArray::from(vec![(
            Arc::new(Field::new("x", DataType::Utf8View, true)),
            Arc::new(StringViewArray::from(words())) as ArrayRef,
        )]);
        let cases: Vec<(RecordBatch, DataType)> = vec![
            (one(StringViewArray::from(words())), DataType::Utf8),
            (one(words().into_iter().collect::<DictionaryArray<Int32Type>>()), DataType::Utf8),
            (one(FixedSizeBinaryArray::try_from_iter([[1u8, 2]].into_iter()).unwrap()), DataType::Binary),
            (one(Decimal256Array::from(vec![i256::MAX]).with_precision_and_scale(76, 0).unwrap()), DataType::Utf8),
            (
                one(Decimal256Array::from(vec![i256::ONE]).with_precision_and_scale(20, 2).unwrap()),
                DataType::Decimal128(20, 2),
            ),
            (one(IntervalMonthDayNanoArray::from(vec![None])), DataType::Utf8),
            (one(NullArray::new(2)), DataType::Utf8),
            (
                one(LargeListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])])),
                DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))),
            ),
            (one(view_struct), DataType::Struct(vec![Field::new("x", DataType::Utf8, true)].into())),
        ];
        for (batch, expected) in cases {
            let rows = batch.num_rows();
            let wire = wire_schema(batch.schema_ref(), TypeProfile::Compat);
            assert_eq!(*wire.field(0).data_type(), expected);
            let sent = to_wire(batch, &wire).unwrap();
            assert_eq!((sent.schema(), sent.num_rows()), (wire, rows));
        }
    }

    #[test]
    fn native_keeps_types_and_compat_is_idempotent() {
        let batch = one(StringViewArray::from(vec!["a"]));
        assert_eq!(*wire_schema(batch.schema_ref(), TypeProfile::Native).field(0).data_type(), DataType::Utf8View);
        let once = wire_schema(batch.schema_ref(), TypeProfile::Compat);
        assert_eq!(wire_schema(&once, TypeProfile::Compat), once);
    }

    #[test]
    fn structs_are_cast_by_position() {
        let fields = vec![Field::new("a", DataType::Utf8View, true), Field::new("a", DataType::Int32, true)];
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringViewArray::from(vec!["x"])), Arc::new(Int32Array::from(vec![7]))];
        let batch = one(StructArray::new(fields.into(), columns, None));
        let wire = wire_schema(batch.schema_ref(), TypeProfile::Compat);
        let sent = to_wire(batch, &wire).unwrap();
        let sent = sent.column(0).as_struct();
        assert_eq!(sent.column(0).as_string::<i32>(), &StringArray::from(vec!["x"]));
        assert_eq!(sent.column(1).as_primitive::<Int32Type>().value(0), 7);
    }

    #[test]
    fn parameters_are_declared_as_clients_bind_them() {
        let utc = Some("UTC".into());
        let micros = DataType::Timestamp(TimeUnit::Microsecond, utc);
        let (nanos, days) = (DataType::Time64(TimeUnit::Nanosecond), DataType::Interval(IntervalUnit::DayTime));
        let cases = [
            (micros.clone(), DataType::Timestamp(TimeUnit::Millisecond, None), micros),
            (nanos.clone(), DataType::Time32(TimeUnit::Millisecond), nanos),
            (DataType::Null, DataType::Utf8, DataType::Null),
            (DataType::Utf8View, DataType::Utf8, DataType::Utf8),
            (days.clone(), DataType::Utf8, days),
            (DataType::Int64, DataType::Int64, DataType::Int64),
            (DataType::Date32, DataType::Date32, DataType::Date32),
        ];
        for (inferred, jdbc, other) in cases {
            let schema = Schema::new(vec![Field::new("$1", inferred.clone(), false)]);
            let declared = |client| parameter_schema(&schema, client).field(0).data_type().clone();
            assert_eq!((declared(ClientKind::Jdbc), declared(ClientKind::Other)), (jdbc, other), "{inferred}");
        }
    }

    #[test]
    fn jdbc_is_recognized_by_its_user_agent() {
        for (agent, kind) in [
            ("grpc-java-netty/1.71.0", ClientKind::Jdbc),
            ("JDBC Flight SQL Driver 19.0.0 grpc-java-netty/1.71.0", ClientKind::Jdbc),
            ("ADBC Flight SQL Driver v1.9.0 grpc-go/1.75.0", ClientKind::Other),
            ("grpc-c++/1.71.0 grpc-c/46.0.0 (linux; chttp2)", ClientKind::Other),
        ] {
            let mut headers = MetadataMap::new();
            headers.insert("user-agent", agent.parse().unwrap());
            assert_eq!(ClientKind::of(&headers), kind, "{agent}");
        }
        assert_eq!(ClientKind::of(&MetadataMap::new()), ClientKind::Other);
    }
}
