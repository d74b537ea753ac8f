//! Casts an Arrow column to a column of the contract without loss.
//!
//! First, dictionaries, views, 64-bit offsets and narrow number types are converted to plain encodings. Then, columns that
//! have the contract's type are used unchanged, and timestamps are converted to the contract's unit and time zone. All
//! other types are converted value by value, with the same rules as JSON ([`Leaf`]).
//!
//! Nanoseconds are rounded down to microseconds, as in JSON. A decimal in a float column is rounded to the nearest
//! float, like a JSON number. A float is never cast to a decimal. If the cast would change any other value, the row is
//! rejected. Examples are a decimal with a fraction in an integer column, and a date with a time of day in a date column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Float32Type, Float64Type, Int64Type, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType, UInt64Type,
};

use super::accept_or_reject::RejectedRows;
use super::column_value::{ColumnValue, Text};
use super::reject_reason::{Reason, RejectCause};
use crate::clock::DAY;
use crate::config;
use crate::contract::columns::column_builder::ColumnBuilder;
use crate::contract::schema::fields::{FieldEncoding, Leaf};
use crate::contract::{Column, ColumnKind, Contract};
use crate::error::{Error, Result};

const DAY_MILLIS: i64 = 86_400_000;

/// What a column of a batch is cast to: a column of the contract, or the elements of a list column.
#[derive(Clone, Copy)]
struct CastTarget<'a> {
    /// The column, for error messages.
    column: &'a Column,
    /// The kind of the values. For the elements of a list, it differs from the column's kind.
    kind: ColumnKind,
    /// True for the contract's time column.
    is_event_time: bool,
    /// The unit of integers in a timestamp column.
    unit: config::TimeUnit,
}

impl CastTarget<'_> {
    fn reason(&self, reason: Reason) -> Reason {
        if self.is_event_time { reason.of_time() } else { reason }
    }

    fn cause(&self, reason: Reason, got: impl std::fmt::Display) -> RejectCause {
        RejectCause::value(self.reason(reason), self.column, got)
    }
}

/// Casts `source` to the contract's column at `index`. A value that cannot be cast without loss becomes null, and its
/// row is rejected.
pub(in crate::contract) fn column(
    contract: &Contract,
    index: usize,
    source: &ArrayRef,
    rejected: &mut RejectedRows,
) -> Result<ArrayRef> {
    let column = &contract.columns[index];
    let is_event_time = index == contract.time;
    convert(&CastTarget { column, kind: column.kind, is_event_time, unit: contract.time_unit }, source, rejected)
}

/// A value that cannot be cast, or a column whose type cannot be cast.
#[derive(Debug)]
pub struct InvalidValue {
    /// The index of the value's row. `None` if the whole column cannot be cast.
    pub row: Option<usize>,
    /// An error of the kind `Invalid`, which does not contain the value.
    pub error: Error,
}

impl From<Error> for InvalidValue {
    fn from(error: Error) -> Self {
        Self { row: None, error }
    }
}

/// Casts a column that does not belong to a table to `kind`, with the same rules. The result has the type of the kind in
/// queries. Fails if a value cannot be cast without loss.
pub fn exact_column(name: &str, kind: ColumnKind, source: &ArrayRef) -> Result<ArrayRef, InvalidValue> {
    let column = Column { name: name.to_owned(), kind, unit: String::new(), description: String::new() };
    let target = CastTarget { column: &column, kind, is_event_time: false, unit: config::TimeUnit::Auto };
    let mut rejected = RejectedRows::default();
    let cast = convert(&target, source, &mut rejected)?;
    match rejected.iter().next() {
        Some((row, cause)) => {
            let is_range = matches!(cause.reason, Reason::OutOfRange | Reason::TimeOutOfRange);
            let cause = RejectCause::value(cause.reason, &column, if is_range { "a value" } else { "another value" });
            Err(InvalidValue { row: Some(row), error: Error::invalid(cause.detail) })
        }
        None => Ok(cast_to(name, &cast, &kind.data_type())?),
    }
}

fn convert(target: &CastTarget<'_>, source: &ArrayRef, rejected: &mut RejectedRows) -> Result<ArrayRef> {
    let (name, kind) = (&target.column.name, target.kind);
    let (stored, source) = (kind.stored_type(), &without_dictionary(name, source)?);
    match (kind, source.data_type()) {
        (_, DataType::Null) => return Ok(new_null_array(&stored, source.len())),
        (ColumnKind::List(element), _) => return list(target, *element, source, rejected),
        (ColumnKind::Decimal { .. }, given) if is_decimal(given) => return rescale(target, source, rejected),
        (ColumnKind::Time, DataType::Time32(_) | DataType::Time64(_)) => return time_of_day(target, source, rejected),
        _ => {}
    }
    let plain = match source.data_type() {
        same if *same == stored => Arc::clone(source),
        given if is_decimal(given) => decimal(target, source, rejected)?,
        _ => plain(name, source)?,
    };
    reject_lost(target, source, &plain, rejected);
    let cast = match (plain.data_type(), kind) {
        (_, ColumnKind::Uuid | ColumnKind::Json | ColumnKind::Time) => by_value(target, &plain, rejected)?,
        (same, _) if *same == stored => plain,
        (DataType::Timestamp(TimeUnit::Nanosecond, _), ColumnKind::Timestamp) => {
            let nanos = plain.as_primitive::<TimestampNanosecondType>();
            let micros = nanos.unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1_000));
            Arc::new(micros.with_data_type(stored))
        }
        (DataType::Date64, ColumnKind::Date) => {
            let millis = plain.as_primitive::<Date64Type>();
            let days = millis.unary_opt::<_, Date32Type>(|millis| {
                let day = i32::try_from(millis.div_euclid(DAY_MILLIS)).ok();
                day.filter(|_| millis.rem_euclid(DAY_MILLIS) == 0)
            });
            for row in (0..millis.len()).filter(|row| millis.is_valid(*row) && days.is_null(*row)) {
                rejected.add(row, || target.cause(Reason::WrongType, "a date with a time of day"));
            }
            Arc::new(days)
        }
        (DataType::Timestamp(..) | DataType::Date32 | DataType::Date64, ColumnKind::Timestamp) => {
            let cast = cast_to(name, &plain, &stored)?;
            reject_lost(target, &plain, &cast, rejected);
            cast
        }
        _ => by_value(target, &plain, rejected)?,
    };
    check_finite(target, &cast, rejected);
    Ok(cast)
}

/// Casts the elements of lists. A row is rejected if one of its elements is.
fn list(
    target: &CastTarget<'_>,
    element: ColumnKind,
    source: &ArrayRef,
    rejected: &mut RejectedRows,
) -> Result<ArrayRef> {
    let (name, given) = (&target.column.name, source.data_type());
    let source = match given {
        DataType::List(_) => Arc::clone(source),
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            cast_to(name, source, &DataType::List(Arc::clone(field)))?
        }
        _ => {
            let kind = target.kind;
            return Err(Error::invalid(format!("column `{name}` expects {kind}, got {given}: cast it before sending")));
        }
    };
    let lists = source.as_list::<i32>();
    let mut rejected_elements = RejectedRows::default();
    let elements = convert(&CastTarget { kind: element, ..*target }, lists.values(), &mut rejected_elements)?;
    let offsets = lists.value_offsets();
    for (at, cause) in rejected_elements.iter() {
        // The row is the last one that does not begin after the element. Rows without elements begin at the same offset
        // as the row that follows them.
        let row = offsets.partition_point(|offset| *offset as usize <= at);
        if let Some(row) = row.checked_sub(1).filter(|row| *row < lists.len() && lists.is_valid(*row)) {
            rejected.add(row, || cause.clone());
        }
    }
    let DataType::List(field) = target.kind.stored_type() else {
        return Err(Error::internal(format!("column `{name}` is not a list")));
    };
    let cast = ListArray::try_new(field, lists.offsets().clone(), elements, lists.nulls().cloned());
    Ok(Arc::new(cast.map_err(|cause| Error::internal("cannot cast the elements of a list").with_source(cause))?))
}

/// Casts decimals to a decimal column. The value must not change.
fn rescale(target: &CastTarget<'_>, source: &ArrayRef, rejected: &mut RejectedRows) -> Result<ArrayRef> {
    let (name, stored) = (&target.column.name, target.kind.stored_type());
    // A sender may declare a smaller precision than its values have. Casting checks the precision of every value, unless
    // both types are equal.
    let wide = cast_to(name, source, &DataType::Decimal256(76, scale_of(source.data_type())))?;
    // Rounding can make a value too large, so the digits after the point are checked before the digits before it.
    let scaled = cast_to(name, &wide, &DataType::Decimal256(76, scale_of(&stored)))?;
    let back = cast_to(name, &scaled, wide.data_type())?;
    let is_same = not_distinct(&wide, &back)?;
    for row in (0..source.len()).filter(|row| !is_same.value(*row) && scaled.is_valid(*row)) {
        rejected.add(row, || target.cause(Reason::WrongType, displayed(source, row)));
    }
    let cast = cast_to(name, &scaled, &stored)?;
    reject_lost(target, source, &cast, rejected);
    Ok(cast)
}

/// Converts times of day to microseconds since midnight, as they are stored.
fn time_of_day(target: &CastTarget<'_>, source: &ArrayRef, rejected: &mut RejectedRows) -> Result<ArrayRef> {
    let name = &target.column.name;
    let micros: ArrayRef = match source.data_type() {
        DataType::Time64(TimeUnit::Nanosecond) => {
            let nanos = source.as_primitive::<Time64NanosecondType>();
            Arc::new(nanos.unary::<_, Int64Type>(|nanos| nanos.div_euclid(1_000)))
        }
        _ => {
            let micros = cast_to(name, source, &DataType::Time64(TimeUnit::Microsecond))?;
            cast_to(name, &micros, &DataType::Int64)?
        }
    };
    let values = micros.as_primitive::<Int64Type>();
    for row in (0..values.len()).filter(|row| values.is_valid(*row) && !(0..DAY).contains(&values.value(*row))) {
        rejected.add(row, || target.cause(Reason::OutOfRange, values.value(row)));
    }
    Ok(micros)
}

fn scale_of(kind: &DataType) -> i8 {
    match kind {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale,
        _ => 0,
    }
}

/// Rejects the rows in which a value was not null before the cast, but is null after it.
fn reject_lost(target: &CastTarget<'_>, source: &ArrayRef, cast: &ArrayRef, rejected: &mut RejectedRows) {
    let given = source.logical_nulls();
    if cast.logical_null_count() <= given.as_ref().map_or(0, NullBuffer::null_count) {
        return;
    }
    let is_given = |row: usize| given.as_ref().is_none_or(|given| given.is_valid(row));
    for row in (0..source.len()).filter(|row| is_given(*row) && cast.is_null(*row)) {
        rejected.add(row, || target.cause(Reason::OutOfRange, source.data_type()));
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
fn decimal(target: &CastTarget<'_>, source: &ArrayRef, rejected: &mut RejectedRows) -> Result<ArrayRef> {
    let name = &target.column.name;
    if !matches!(target.kind, ColumnKind::Int32 | ColumnKind::Int64 | ColumnKind::Timestamp) {
        return cast_to(name, source, &DataType::Float64);
    }
    let integers = cast_to(name, source, &DataType::Int64)?;
    let back = cast_to(name, &integers, source.data_type())?;
    let is_same = not_distinct(source, &back)?;
    let fractions: Vec<_> = (0..source.len()).filter(|row| !is_same.value(*row) && integers.is_valid(*row)).collect();
    if target.kind == ColumnKind::Timestamp && !fractions.is_empty() {
        return cast_to(name, source, &DataType::Float64);
    }
    for row in fractions {
        rejected.add(row, || target.cause(Reason::WrongType, displayed(source, row)));
    }
    Ok(integers)
}

/// Casts an undeclared column to strings.
pub(in crate::contract) fn as_text(name: &str, source: &ArrayRef) -> Result<StringArray> {
    let source = without_dictionary(name, source)?;
    let plain = if is_decimal(source.data_type()) { source } else { plain(name, &source)? };
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

/// Decodes a dictionary of decimals or times of day, whose values must not be converted to floats or integers. Any other
/// column is returned unchanged.
fn without_dictionary(name: &str, source: &ArrayRef) -> Result<ArrayRef> {
    match source.data_type() {
        DataType::Dictionary(_, values)
            if is_decimal(values) || matches!(**values, DataType::Time32(_) | DataType::Time64(_)) =>
        {
            cast_to(name, source, values)
        }
        _ => Ok(Arc::clone(source)),
    }
}

/// Decodes a column to `Int64`, `Float64`, `Utf8` or `Binary`. A column of any other type is returned unchanged.
fn plain(name: &str, source: &ArrayRef) -> Result<ArrayRef> {
    use DataType::{
        Binary, BinaryView, Dictionary, FixedSizeBinary, Float16, Float32, Float64, Int8, Int16, Int32, Int64,
        LargeBinary, LargeUtf8, UInt8, UInt16, UInt32, Utf8, Utf8View,
    };
    let target = match source.data_type() {
        Dictionary(..) => return decode_dictionary(name, source),
        Utf8View | LargeUtf8 => Utf8,
        BinaryView | LargeBinary | FixedSizeBinary(_) => Binary,
        Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 => Int64,
        Float16 | Float32 => Float64,
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

/// Casts an array. A value outside the range of `target` becomes null.
fn cast_to(name: &str, source: &dyn Array, target: &DataType) -> Result<ArrayRef> {
    cast_with_options(source, target, &CastOptions { safe: true, ..CastOptions::default() }).map_err(|error| {
        Error::invalid(format!("column `{name}` is {}, which cannot be cast to {target}", source.data_type()))
            .with_source(error)
    })
}

fn by_value(target: &CastTarget<'_>, plain: &ArrayRef, rejected: &mut RejectedRows) -> Result<ArrayRef> {
    let kind = target.kind;
    let leaf = Leaf { column: 0, kind, encoding: FieldEncoding::Undeclared, unit: target.unit };
    if !can_fit(plain.data_type(), kind) {
        let (name, given) = (&target.column.name, plain.data_type());
        let kind = target.column.kind;
        return Err(Error::invalid(format!("column `{name}` expects {kind}, got {given}: cast it before sending")));
    }
    let mut builder = ColumnBuilder::new(kind, true, plain.len());
    builder.grow(plain.len());
    for row in 0..plain.len() {
        if plain.is_valid(row) {
            match value_of(&leaf, plain, row) {
                Ok(value) => builder.set(row, value),
                Err(reason) => rejected.add(row, || target.cause(reason, displayed(plain, row))),
            }
        }
        builder.keep()?;
    }
    builder.finish(kind, plain.len())?.ok_or_else(|| Error::internal("a map column cannot be converted value by value"))
}

fn value_of<'a>(leaf: &Leaf, plain: &'a ArrayRef, row: usize) -> std::result::Result<ColumnValue<'a>, Reason> {
    match plain.data_type() {
        DataType::Int64 => leaf.int(plain.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => match plain.as_primitive::<UInt64Type>().value(row) {
            large if i64::try_from(large).is_err() => leaf.large(large),
            value => leaf.int(value.cast_signed()),
        },
        DataType::Float64 => leaf.float(plain.as_primitive::<Float64Type>().value(row)),
        DataType::Binary => leaf.bytes(plain.as_binary::<i32>().value(row)),
        _ => {
            let text = plain.as_string::<i32>().value(row);
            leaf.text(text, Text::Borrowed(text))
        }
    }
}

/// Returns true if columns of the Arrow type `given` can be converted to the kind `kind`. Individual values may still
/// be rejected, for example if they are out of range.
fn can_fit(given: &DataType, kind: ColumnKind) -> bool {
    use ColumnKind::{Date, Decimal, Float32, Float64, Int32, Int64, Json, Time, Timestamp, Uuid};
    match given {
        DataType::Int64 | DataType::UInt64 => {
            matches!(kind, Int32 | Int64 | Float32 | Float64 | Timestamp | Decimal { .. })
        }
        DataType::Float64 => matches!(kind, Int32 | Int64 | Float32 | Float64 | Timestamp),
        DataType::Utf8 => matches!(kind, Timestamp | Date | Decimal { .. } | Time | Uuid | Json),
        DataType::Binary => kind == Uuid,
        _ => false,
    }
}

fn displayed(array: &ArrayRef, row: usize) -> String {
    if *array.data_type() == DataType::Utf8 {
        return "text".into();
    }
    arrow::util::display::array_value_to_string(array, row).unwrap_or_else(|_| array.data_type().to_string())
}

fn check_finite(target: &CastTarget<'_>, array: &ArrayRef, rejected: &mut RejectedRows) {
    let bad: Vec<usize> = match array.data_type() {
        DataType::Float64 => not_finite(array.as_primitive::<Float64Type>().values(), |value| value.is_finite()),
        DataType::Float32 => not_finite(array.as_primitive::<Float32Type>().values(), |value| value.is_finite()),
        _ => return,
    };
    for row in bad.into_iter().filter(|row| array.is_valid(*row)) {
        rejected.add(row, || target.cause(Reason::NotFinite, "NaN or infinity"));
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
