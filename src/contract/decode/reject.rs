//! Rejected events and their reasons.

use std::fmt::Display;

use bytes::Bytes;

use crate::contract::{Column, TenantId};

/// The reason for rejecting an event, as shown in the quarantine's `reason` column and in receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not well-formed: truncated, a syntax error, or a wrong wire type.
    Malformed,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// A value whose type does not match its column.
    WrongType,
    /// A number outside its column's range.
    OutOfRange,
    /// NaN or infinite.
    NotFinite,
    /// The id is missing or empty.
    MissingId,
    /// The time is missing.
    MissingTime,
    /// A time before 1970, or too far in the future.
    TimeOutOfRange,
    /// An operator's event without a tenant.
    MissingTenant,
    /// An event that names a tenant other than the token's.
    ForeignTenant,
    /// A key that appears more than once.
    DuplicateKey,
    /// An undeclared field in a table without a map column.
    UnknownField,
    /// An event that is too large or has too many undeclared fields.
    TooLarge,
    /// The source's transform failed on the event.
    TransformFailed,
}

impl Reason {
    /// The name of the reason in tables, JSON and metrics.
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

    /// The reason if the value was in the time column.
    pub(in crate::contract) fn of_time(self) -> Self {
        if self == Self::OutOfRange { Self::TimeOutOfRange } else { self }
    }
}

/// One rejected event.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The index of the event in the body, from 0.
    pub index: u64,
    /// The owner, if known: the token's tenant, or the tenant named by an operator's event.
    pub tenant: Option<TenantId>,
    /// The bytes as received. An Arrow row is kept as JSON.
    pub bytes: Bytes,
    /// The reason.
    pub reason: Reason,
    /// A message for people: the column, the problem, and the fix.
    pub detail: String,
}

/// The reason and detail of a rejection, without the event's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::contract) struct RejectCause {
    pub(in crate::contract) reason: Reason,
    pub(in crate::contract) detail: String,
}

impl RejectCause {
    pub(in crate::contract) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// A value that does not fit its column. `got` is the value or its type.
    pub(in crate::contract) fn value(reason: Reason, column: &Column, got: impl Display) -> Self {
        let (name, kind) = (&column.name, column.kind.as_str());
        let detail = match reason {
            Reason::OutOfRange => format!("{got} is out of range for column `{name}` of type {kind}"),
            Reason::TimeOutOfRange => format!("{got} is not a time that column `{name}` can store: check its unit"),
            Reason::NotFinite => format!("column `{name}` expects finite numbers, got {got}"),
            Reason::InvalidUtf8 => format!("column `{name}` expects UTF-8 text, got {got}"),
            _ => format!("column `{name}` expects {kind}, got {got}"),
        };
        Self { reason, detail }
    }

    pub(in crate::contract) fn duplicate(key: &str) -> Self {
        Self::new(Reason::DuplicateKey, format!("key `{key}` appears more than once: send it once"))
    }

    pub(in crate::contract) fn too_large(bytes: usize, bytes_max: usize) -> Self {
        Self::new(Reason::TooLarge, format!("the event has {bytes} bytes; at most {bytes_max} are allowed"))
    }
}
