//! Chooses the decimal types in which numbers of different types can be combined or compared exactly.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};

/// Returns the common type of numbers whose types differ, if at least one of the types is a decimal or a double.
/// Returns `None` otherwise.
pub(crate) fn common_fraction(kinds: &[DataType]) -> Option<DataType> {
    let mut numbers = kinds.iter().filter(|kind| kind.is_numeric());
    let first = numbers.next()?;
    if numbers.all(|kind| kind == first) {
        return None;
    }
    if kinds.iter().any(DataType::is_floating) {
        return Some(DataType::Float64);
    }
    let decimals: Option<Vec<_>> = kinds.iter().filter(|kind| kind.is_numeric()).map(decimal128).collect();
    let (mut whole, mut places) = (0, 0);
    for decimal in decimals? {
        let DataType::Decimal128(precision, scale) = decimal else { return None };
        let scale = scale.unsigned_abs();
        (whole, places) = (whole.max(precision.saturating_sub(scale)), places.max(scale));
    }
    let precision = (whole + places).min(DECIMAL128_MAX_PRECISION);
    let has_decimal = kinds.iter().any(DataType::is_decimal);
    has_decimal.then_some(DataType::Decimal128(precision, places.cast_signed()))
}

/// Returns the type in which decimals and integers can be compared, if that type needs more than 38 digits. Returns `None`
/// if 38 digits are enough, or if there is no decimal or a type that is neither a decimal nor an integer.
pub(crate) fn wide_decimal(kinds: &[DataType]) -> Option<DataType> {
    let (mut whole, mut places) = (0, 0);
    for kind in kinds.iter().filter(|kind| !kind.is_null()) {
        let (precision, scale) = match kind {
            DataType::Decimal256(precision, scale) if *scale >= 0 => (*precision, *scale),
            kind => match decimal128(kind)? {
                DataType::Decimal128(precision, scale) => (precision, scale),
                _ => return None,
            },
        };
        let scale = scale.unsigned_abs();
        (whole, places) = (whole.max(precision.saturating_sub(scale)), places.max(scale));
    }
    let precision = whole + places;
    let is_wide = (DECIMAL128_MAX_PRECISION + 1..=DECIMAL256_MAX_PRECISION).contains(&precision);
    let has_decimal = kinds.iter().any(DataType::is_decimal);
    (is_wide && has_decimal).then_some(DataType::Decimal256(precision, places.cast_signed()))
}

/// Returns the 128-bit decimal type that represents all values of a numeric type exactly.
pub(crate) fn decimal128(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Decimal128(_, scale) if *scale >= 0 => Some(kind.clone()),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) if *scale >= 0 => {
            Some(DataType::Decimal128(*precision, *scale))
        }
        kind if kind.is_integer() => Some(DataType::Decimal128(20, 0)),
        DataType::Null => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
        _ => None,
    }
}
