//! Rewrites type names that the engine's planner does not support, or understands differently from PostgreSQL.
//!
//! | in the statement | planned as |
//! |---|---|
//! | `TIMESTAMP` | `TIMESTAMP(6)`: microseconds instead of nanoseconds |
//! | `FLOAT`, `FLOAT(53)` | `DOUBLE` instead of `REAL` |
//! | `CHARACTER VARYING`, `NVARCHAR` | `VARCHAR` |
//! | `VARCHAR(3)` | `VARCHAR`, and the caller truncates the value to 3 characters |
//! | `BIGINT[3]` | `BIGINT[]` |

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};

/// The largest number of bits for which PostgreSQL stores a `FLOAT(bits)` in four bytes.
const REAL_BITS_MAX: u64 = 24;

/// Rewrites the name of a type. Returns the maximum number of characters if it is a text type with a length.
pub(super) fn rewrite(kind: &mut DataType) -> Option<String> {
    set_precision(kind);
    drop_array_sizes(kind);
    take_text_length(kind)
}

/// Sets the precision of a timestamp or float type if the engine interprets the type name differently from PostgreSQL.
fn set_precision(kind: &mut DataType) {
    match kind {
        DataType::Timestamp(precision @ None, _) => *precision = Some(6),
        DataType::Datetime(None) => *kind = DataType::Timestamp(Some(6), TimezoneInfo::None),
        DataType::Float(ExactNumberInfo::Precision(..=REAL_BITS_MAX)) => *kind = DataType::Real,
        DataType::Float(_) => *kind = DataType::DoublePrecision,
        _ => {}
    }
}

/// Removes the sizes from array types such as `BIGINT[3]`. PostgreSQL ignores them. The engine would allocate this
/// number of elements even for NULL.
fn drop_array_sizes(kind: &mut DataType) {
    match kind {
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, size)) => {
            *size = None;
            drop_array_sizes(element);
        }
        DataType::Array(ArrayElemTypeDef::AngleBracket(element) | ArrayElemTypeDef::Parenthesis(element)) => {
            drop_array_sizes(element);
        }
        DataType::Struct(fields, _) => fields.iter_mut().for_each(|field| drop_array_sizes(&mut field.field_type)),
        DataType::Map(key, item) => [key, item].into_iter().for_each(|kind| drop_array_sizes(kind)),
        _ => {}
    }
}

/// Replaces a text type with `VARCHAR`, and returns its length if it has one. The engine does not know some text types,
/// and ignores the length of all of them.
fn take_text_length(kind: &mut DataType) -> Option<String> {
    let (DataType::Varchar(length)
    | DataType::Nvarchar(length)
    | DataType::Character(length)
    | DataType::Char(length)
    | DataType::CharacterVarying(length)
    | DataType::CharVarying(length)) = kind
    else {
        return None;
    };
    let length = match length.take() {
        Some(CharacterLength::IntegerLength { length, unit: _ }) => Some(length.to_string()),
        Some(CharacterLength::Max) | None => None,
    };
    *kind = DataType::Varchar(None);
    length
}
