//! Why an event was not accepted.

use std::fmt::Display;

use bytes::Bytes;

use crate::contract::{Column, TenantId};

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
    /// The source's transform failed on it.
    TransformFailed,
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
            Self::TransformFailed => "transform_failed",
        }
    }

    /// The same, met in the time column.
    pub(in crate::contract) fn of_time(self) -> Self {
        if self == Self::OutOfRange { Self::TimeOutOfRange } else { self }
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

/// What is wrong with an event, before it is tied to its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::contract) struct RejectCause {
    pub(in crate::contract) reason: Reason,
    pub(in crate::contract) detail: String,
}

impl RejectCause {
    pub(in crate::contract) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// A value that its column does not take; `got` shows it, or names its type.
    pub(in crate::contract) fn value(reason: Reason, column: &Column, got: impl Display) -> Self {
        let (name, kind) = (&column.name, column.kind.as_str());
        let detail = match reason {
            Reason::OutOfRange => format!("column `{name}` takes {kind}: {got} is out of its range"),
            Reason::TimeOutOfRange => format!("column `{name}`: {got} is no time that can be stored"),
            Reason::NotFinite => format!("column `{name}` takes finite numbers, got {got}"),
            Reason::InvalidUtf8 => format!("column `{name}` takes UTF-8 text, got {got}"),
            _ => format!("column `{name}` takes {kind}, got {got}"),
        };
        Self { reason, detail }
    }

    pub(in crate::contract) fn duplicate(key: &str) -> Self {
        Self::new(Reason::DuplicateKey, format!("key `{key}` stands twice; send it once"))
    }

    pub(in crate::contract) fn too_large(bytes: usize, bytes_max: usize) -> Self {
        Self::new(Reason::TooLarge, format!("the event has {bytes} bytes; {bytes_max} are allowed"))
    }
}
