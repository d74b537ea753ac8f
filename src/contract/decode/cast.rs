//! Casts an Arrow column to a column of the contract without loss.
//!
//! First, dictionaries, views, 64-bit offsets and narrow number types are converted to plain encodings. The decoded
//! strings must not exceed a size limit. The limit is needed because a dictionary can refer to one long string a
//! million times. Then, columns that have the contract's type are used unchanged, and timestamps are converted to the
//! contract's unit and time zone. All other types are converted value by value, with the same rules as JSON ([`Leaf`]).
//!
//! Nanoseconds are rounded down to microseconds, as in JSON. A decimal in a float column is rounded to the nearest
//! float, like a JSON number. If the cast would change any other value, the row is rejected. Examples are a decimal
//! with a fraction in an integer column, and a date with a time of day in a date column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType, UInt64Type,
};
use arrow::record_batch::RecordBatch;

use super::accept_or_reject::RejectedRows;
use super::column_value::{ColumnValue, Text};
use super::reject_reason::{Reason, RejectCause};
use crate::contract::ColumnKind;
use crate::contract::Contract;
use crate::contract::columns::column_builder::ColumnBuilder;
use crate::contract::schema::fields::{FieldEncoding, Leaf};
use crate::error::{Error, Result};

/// The maximum size of a batch's decoded strings, in bytes.
const BATCH_BYTES_MAX: usize = 256 << 20;
const DAY_MILLIS: i64 = 86_400_000;

/// Casts `source` to the contract's column at `index`. A value that cannot be cast without loss becomes null, and its
/// row is rejected.
pub(in crate::contract) fn column(
    contract: &Contract,
    index: usize,
    source: &ArrayRef,
    rejected: &mut RejectedRows,
) -> Result<ArrayRef> {
    let (name, kind) = (&contract.columns[index].name, contract.columns[index].kind);
    let target = kind.data_type();
    let plain = match source.data_type() {
        same if *same == target => Arc::clone(source),
        given if is_decimal(given) => decimal(contract, index, source, rejected)?,
        _ => plain(name, source)?,
    };
    reject_lost(contract, index, source, &plain, rejected);
    let cast = match (plain.data_type(), kind) {
        (same, _) if *same == target => plain,
        (DataType::Null, _) => new_null_array(&target, plain.len()),
        (DataType::Timestamp(TimeUnit::Nanosecond, _), ColumnKind::Timestamp) => {
            let nanos = plain.as_primitive::<TimestampNanosecondType>();
            let micros = nanos.unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1_000));
            Arc::new(micros.with_data_type(target))
        }
        (DataType::Date64, ColumnKind::Date) => {
            let millis = plain.as_primitive::<Date64Type>();
            let days = millis.unary_opt::<_, Date32Type>(|millis| {
                let day = i32::try_from(millis.div_euclid(DAY_MILLIS)).ok();
                day.filter(|_| millis.rem_euclid(DAY_MILLIS) == 0)
            });
            for row in (0..millis.len()).filter(|row| millis.is_valid(*row) && days.is_null(*row)) {
                let given = "a date with a time of day";
                rejected.add(row, || RejectCause::value(Reason::WrongType, &contract.columns[index], given));
            }
            Arc::new(days)
        }
        (DataType::Timestamp(..) | DataType::Date32 | DataType::Date64, ColumnKind::Timestamp) => {
            let cast = cast_to(name, &plain, &target)?;
            reject_lost(contract, index, &plain, &cast, rejected);
            cast
        }
        _ => by_value(contract, index, &plain, rejected)?,
    };
    check_finite(contract, index, &cast, rejected);
    Ok(cast)
}

/// Rejects the rows in which a value was not null before the cast, but is null after it.
fn reject_lost(contract: &Contract, index: usize, source: &ArrayRef, cast: &ArrayRef, rejected: &mut RejectedRows) {
    let given = source.logical_nulls();
    if cast.logical_null_count() <= given.as_ref().map_or(0, NullBuffer::null_count) {
        return;
    }
    let is_given = |row: usize| given.as_ref().is_none_or(|given| given.is_valid(row));
    for row in (0..source.len()).filter(|row| is_given(*row) && cast.is_null(*row)) {
        let reason = if index == contract.time { Reason::TimeOutOfRange } else { Reason::OutOfRange };
        rejected.add(row, || RejectCause::value(reason, &contract.columns[index], source.data_type()));
    }
}

fn is_decimal(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// Converts decimals to integers for an integer column, and to floats for other columns. In an integer column, rejects
/// each row whose decimal has a fraction.
fn decimal(contract: &Contract, index: usize, source: &ArrayRef, rejected: &mut RejectedRows) -> Result<ArrayRef> {
    let column = &contract.columns[index];
    if !matches!(column.kind, ColumnKind::Int32 | ColumnKind::Int64 | ColumnKind::Timestamp) {
        return cast_to(&column.name, source, &DataType::Float64);
    }
    let integers = cast_to(&column.name, source, &DataType::Int64)?;
    let back = cast_to(&column.name, &integers, source.data_type())?;
    let is_same = not_distinct(source, &back)?;
    let fractions: Vec<_> = (0..source.len()).filter(|row| !is_same.value(*row) && integers.is_valid(*row)).collect();
    if column.kind == ColumnKind::Timestamp && !fractions.is_empty() {
        return cast_to(&column.name, source, &DataType::Float64);
    }
    for row in fractions {
        rejected.add(row, || RejectCause::value(Reason::WrongType, column, displayed(source, row)));
    }
    Ok(integers)
}

/// Casts an undeclared column to strings.
pub(in crate::contract) fn as_text(name: &str, source: &ArrayRef) -> Result<StringArray> {
    let plain = if is_decimal(source.data_type()) { Arc::clone(source) } else { plain(name, source)? };
    match plain.data_type() {
        DataType::Utf8 => Ok(plain.as_string::<i32>().clone()),
        DataType::Null => Ok(StringArray::new_null(plain.len())),
        scalar if scalar.is_primitive() || *scalar == DataType::Boolean => {
            Ok(cast_to(name, &plain, &DataType::Utf8)?.as_string::<i32>().clone())
        }
        other => {
            let fix = "send only text, numbers, booleans or times in undeclared columns";
            Err(Error::invalid(format!("undeclared column `{name}` is {other}, which cannot be stored as text: {fix}")))
        }
    }
}

/// Decodes a column to `Int64`, `Float64`, `Utf8` or `Binary`. A column of any other type is returned unchanged. A
/// decimal outside the range of the new type becomes null. Decimals reach this function only as the values of a
/// dictionary.
fn plain(name: &str, source: &ArrayRef) -> Result<ArrayRef> {
    use DataType::{
        Binary, BinaryView, Decimal32, Decimal64, Decimal128, Decimal256, Dictionary, FixedSizeBinary, Float16,
        Float32, Float64, Int8, Int16, Int32, Int64, LargeBinary, LargeUtf8, UInt8, UInt16, UInt32, Utf8, Utf8View,
    };
    let target = match source.data_type() {
        Dictionary(..) => return decode_dictionary(name, source),
        Utf8View | LargeUtf8 => Utf8,
        BinaryView | LargeBinary | FixedSizeBinary(_) => Binary,
        Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 => Int64,
        Decimal32(_, 0) | Decimal64(_, 0) | Decimal128(_, 0) | Decimal256(_, 0) => Int64,
        Float16 | Float32 | Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => Float64,
        _ => return Ok(Arc::clone(source)),
    };
    cast_to(name, source, &target)
}

fn decode_dictionary(name: &str, source: &ArrayRef) -> Result<ArrayRef> {
    let dictionary = source.as_any_dictionary();
    let given = dictionary.values().data_type();
    if given.is_nested() || matches!(given, DataType::Dictionary(..)) {
        return Err(Error::invalid(format!(
            "column `{name}` is a dictionary of {given}: send its values without a dictionary"
        )));
    }
    let values = plain(name, dictionary.values())?;
    cast_to(name, &dictionary.with_values(Arc::clone(&values)), values.data_type())
}

/// Refuses a batch if decoding its dictionaries and views would take too many bytes.
pub(in crate::contract) fn check_expansion(batch: &RecordBatch) -> Result<()> {
    let bytes: usize = batch.columns().iter().map(|column| expanded_bytes(column)).fold(0, usize::saturating_add);
    if bytes <= BATCH_BYTES_MAX {
        return Ok(());
    }
    Err(Error::limited(format!(
        "the strings of one batch expand to {bytes} bytes; at most {BATCH_BYTES_MAX} are allowed: send smaller batches"
    )))
}

/// Returns the number of bytes that the strings in dictionaries and views take after they are decoded. In the encoded
/// form, several rows may share one copy of a string. Strings in other encodings are not counted, because their size
/// does not change.
fn expanded_bytes(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8View => view_bytes(array.as_string_view().views()),
        DataType::BinaryView => view_bytes(array.as_binary_view().views()),
        DataType::Map(..) => {
            let map = array.as_map();
            expanded_bytes(map.keys()).saturating_add(expanded_bytes(map.values()))
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let lengths = lengths(dictionary.values());
            if lengths.is_empty() {
                return 0;
            }
            let keys = dictionary.normalized_keys().into_iter().enumerate();
            keys.filter(|(row, _)| array.is_valid(*row)).map(|(_, key)| lengths[key]).fold(0, usize::saturating_add)
        }
        _ => 0,
    }
}

/// Returns the length of each string or byte string. Returns an empty list for numbers and booleans.
fn lengths(values: &ArrayRef) -> Vec<usize> {
    fn of<T: TryInto<usize> + Copy + std::ops::Sub<Output = T>>(offsets: &[T]) -> Vec<usize> {
        offsets.windows(2).map(|ends| (ends[1] - ends[0]).try_into().unwrap_or(usize::MAX)).collect()
    }
    match values.data_type() {
        DataType::Utf8 => of(values.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => of(values.as_string::<i64>().value_offsets()),
        DataType::Binary => of(values.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => of(values.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => values.as_string_view().views().iter().map(view_length).collect(),
        DataType::BinaryView => values.as_binary_view().views().iter().map(view_length).collect(),
        DataType::FixedSizeBinary(size) => vec![usize::try_from(*size).unwrap_or(0); values.len()],
        _ => Vec::new(),
    }
}

fn view_bytes(views: &[u128]) -> usize {
    views.iter().map(view_length).sum()
}

/// Returns the length of a view's value, which is in the low four bytes of the view.
fn view_length(view: &u128) -> usize {
    *view as u32 as usize
}

/// Casts an array. A value outside the range of `target` becomes null.
fn cast_to(name: &str, source: &dyn Array, target: &DataType) -> Result<ArrayRef> {
    cast_with_options(source, target, &CastOptions { safe: true, ..CastOptions::default() }).map_err(|error| {
        Error::invalid(format!("column `{name}` is {}, which cannot be cast to {target}", source.data_type()))
            .with_source(error)
    })
}

fn by_value(contract: &Contract, index: usize, plain: &ArrayRef, rejected: &mut RejectedRows) -> Result<ArrayRef> {
    let column = &contract.columns[index];
    let leaf = Leaf { column: index, kind: column.kind, encoding: FieldEncoding::Undeclared, unit: contract.time_unit };
    if !can_fit(plain.data_type(), column.kind) {
        let (name, kind, given) = (&column.name, column.kind.as_str(), plain.data_type());
        return Err(Error::invalid(format!("column `{name}` expects {kind}, got {given}: cast it before sending")));
    }
    let mut builder = ColumnBuilder::new(column.kind, true, plain.len());
    builder.grow(plain.len());
    for index in (0..plain.len()).filter(|index| plain.is_valid(*index)) {
        let read = match plain.data_type() {
            DataType::Int64 => leaf.int(plain.as_primitive::<Int64Type>().value(index)),
            DataType::UInt64 => match i64::try_from(plain.as_primitive::<UInt64Type>().value(index)) {
                Ok(value) => leaf.int(value),
                Err(_) => Err(Reason::OutOfRange),
            },
            DataType::Float64 => leaf.float(plain.as_primitive::<Float64Type>().value(index)),
            _ => {
                let text = plain.as_string::<i32>().value(index);
                leaf.text(text, Text::Borrowed(text))
            }
        };
        match read {
            Ok(ColumnValue::Int(value)) => builder.put(index, value.cast_unsigned()),
            Ok(ColumnValue::Float(value)) => builder.put(index, value.to_bits()),
            Ok(_) => {}
            Err(reason) => {
                let reason = if leaf.column == contract.time { reason.of_time() } else { reason };
                rejected.add(index, || RejectCause::value(reason, column, displayed(plain, index)));
            }
        }
    }
    builder
        .finish(column.kind, plain.len())?
        .ok_or_else(|| Error::internal("a map column cannot be converted value by value"))
}

/// Returns true if columns of the Arrow type `given` can be converted to the kind `kind`. Individual values may still
/// be rejected, for example if they are out of range.
fn can_fit(given: &DataType, kind: ColumnKind) -> bool {
    use ColumnKind::{Date, Float32, Float64, Int32, Int64, Timestamp};
    match given {
        DataType::Int64 | DataType::UInt64 | DataType::Float64 => {
            matches!(kind, Int32 | Int64 | Float32 | Float64 | Timestamp)
        }
        DataType::Utf8 => matches!(kind, Timestamp | Date),
        _ => false,
    }
}

fn displayed(array: &ArrayRef, row: usize) -> String {
    if *array.data_type() == DataType::Utf8 {
        return "text".into();
    }
    arrow::util::display::array_value_to_string(array, row).unwrap_or_else(|_| array.data_type().to_string())
}

fn check_finite(contract: &Contract, index: usize, array: &ArrayRef, rejected: &mut RejectedRows) {
    let bad: Vec<usize> = match array.data_type() {
        DataType::Float64 => not_finite(array.as_primitive::<Float64Type>().values(), |value| value.is_finite()),
        DataType::Float32 => not_finite(array.as_primitive::<Float32Type>().values(), |value| value.is_finite()),
        _ => return,
    };
    for row in bad.into_iter().filter(|row| array.is_valid(*row)) {
        rejected.add(row, || RejectCause::value(Reason::NotFinite, &contract.columns[index], "NaN or infinity"));
    }
}

/// Returns for each row whether both arrays have the same value.
fn not_distinct(left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
    arrow::compute::kernels::cmp::not_distinct(left, right)
        .map_err(|error| Error::internal("cannot compare two columns of the same type").with_source(error))
}

fn not_finite<T>(values: &[T], is_finite: impl Fn(&T) -> bool) -> Vec<usize> {
    if values.iter().all(&is_finite) {
        return Vec::new();
    }
    (0..values.len()).filter(|row| !is_finite(&values[*row])).collect()
}
