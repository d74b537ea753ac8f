//! Why an event was not accepted.

use bytes::Bytes;

use super::TenantId;

/// The reason, as it stands in the quarantine's `reason` column and in receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not well-formed: truncated, broken syntax, wrong wire type.
    Malformed,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// A value of another type than its column's.
    WrongType,
    /// A number outside its column's range.
    OutOfRange,
    /// NaN or infinite.
    NotFinite,
    /// No id, or an empty one.
    MissingId,
    /// No time.
    MissingTime,
    /// A time before 1970, or too far ahead.
    TimeOutOfRange,
    /// An operator's event that names no tenant.
    MissingTenant,
    /// An event that names another tenant than the token's.
    ForeignTenant,
    /// A key that stands twice.
    DuplicateKey,
    /// A field that the table does not know and has no map for.
    UnknownField,
    /// Larger than an event may be, or with too many dimensions.
    TooLarge,
}

impl Reason {
    /// The word for it in tables, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::NotFinite => "not_finite",
            Self::MissingId => "missing_id",
            Self::MissingTime => "missing_time",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::MissingTenant => "missing_tenant",
            Self::ForeignTenant => "foreign_tenant",
            Self::DuplicateKey => "duplicate_key",
            Self::UnknownField => "unknown_field",
            Self::TooLarge => "too_large",
        }
    }
}

/// One event that was not accepted.
#[derive(Debug, Clone)]
pub struct Reject {
    /// Its place in the body, from 0.
    pub index: u64,
    /// Whose it is, when that is known: the token's tenant, or the one a good event of an operator would have.
    pub tenant: Option<TenantId>,
    /// The bytes received (an Arrow row as JSON).
    pub bytes: Bytes,
    /// Why.
    pub reason: Reason,
    /// Where and what, for a person: names the column and the way out.
    pub detail: String,
}
