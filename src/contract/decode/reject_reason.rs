//! Rejected events, and the reasons for rejecting them.

use std::fmt::Display;

use bytes::Bytes;

use crate::contract::{Column, ColumnKind, TenantId};

/// The reason for rejecting an event. The reason appears in the quarantine's `reason` column and in receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The bytes are not well-formed. For example, they are truncated, or they have a syntax error or a wrong wire
    /// type.
    Malformed,
    /// A string is not valid UTF-8.
    InvalidUtf8,
    /// A value has a type that its column does not accept.
    WrongType,
    /// A number is outside the range of its column's type.
    OutOfRange,
    /// A number is NaN or infinite.
    NotFinite,
    /// The event's id is missing or empty.
    MissingId,
    /// The event's time is missing.
    MissingTime,
    /// The event's time is before 1970 or too far in the future.
    TimeOutOfRange,
    /// The event is older than the table's retention.
    TooOld,
    /// The event does not name a tenant, and its sender does not belong to one.
    MissingTenant,
    /// The message has several headers that name different tenants.
    AmbiguousTenant,
    /// The event names a tenant other than the sender's.
    ForeignTenant,
    /// A key appears more than once in the event.
    DuplicateKey,
    /// The event has an undeclared field, and the table has no map column for it.
    UnknownField,
    /// The event is too large or has too many undeclared fields.
    TooLarge,
    /// The source's transform failed for the event.
    TransformFailed,
}

impl Reason {
    /// Returns the reason's name, as it appears in tables, JSON and metrics.
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
            Self::TooOld => "too_old",
            Self::MissingTenant => "missing_tenant",
            Self::AmbiguousTenant => "ambiguous_tenant",
            Self::ForeignTenant => "foreign_tenant",
            Self::DuplicateKey => "duplicate_key",
            Self::UnknownField => "unknown_field",
            Self::TooLarge => "too_large",
            Self::TransformFailed => "transform_failed",
        }
    }

    /// Returns the reason to report if the value belongs to the time column.
    pub(in crate::contract) fn of_time(self) -> Self {
        if self == Self::OutOfRange { Self::TimeOutOfRange } else { self }
    }
}

/// A rejected event.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The index of the event in the body, from 0.
    pub index: u64,
    /// The tenant that owns the event, or `None` if it is unknown. This is the sender's tenant or, if the sender has
    /// none, the tenant that the event names.
    pub tenant: Option<TenantId>,
    /// The event's bytes as received. For a row of an Arrow batch, this is the row as JSON.
    pub bytes: Bytes,
    /// The reason for the rejection.
    pub reason: Reason,
    /// A human-readable message that names the column, the problem and the fix.
    pub detail: String,
}

/// The reason and detail of a rejection. Unlike a [`Reject`], it does not contain the event's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::contract) struct RejectCause {
    pub(in crate::contract) reason: Reason,
    pub(in crate::contract) detail: String,
}

impl RejectCause {
    pub(in crate::contract) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Returns the cause for rejecting an event with a value that `column` does not accept. `got` describes the value
    /// in the error message.
    pub(in crate::contract) fn value(reason: Reason, column: &Column, got: impl Display) -> Self {
        let (name, kind) = (&column.name, column.kind);
        let detail = match reason {
            Reason::OutOfRange => format!("{got} is out of range for column `{name}` of type {kind}"),
            Reason::TimeOutOfRange => format!("{got} is out of range for the time in column `{name}`: check its unit"),
            Reason::NotFinite => format!("column `{name}` expects a finite number, got {got}"),
            Reason::InvalidUtf8 => format!("column `{name}` expects valid UTF-8 text, got {got}"),
            _ => format!("column `{name}` expects {kind}{}, got {got}", form(kind)),
        };
        Self { reason, detail }
    }

    /// Returns the cause for rejecting an event with a list that has an element that `column` does not accept. `got`
    /// describes the element in the error message.
    pub(in crate::contract) fn element(reason: Reason, column: &Column, got: impl Display) -> Self {
        Self::value(reason, column, format_args!("{got} as an element"))
    }

    pub(in crate::contract) fn duplicate(key: &str) -> Self {
        Self::new(Reason::DuplicateKey, format!("key `{key}` appears more than once: send it once"))
    }

    pub(in crate::contract) fn too_large(bytes: usize, bytes_max: usize) -> Self {
        Self::new(Reason::TooLarge, format!("the event has {bytes} bytes; at most {bytes_max} are allowed"))
    }
}

/// Returns the form of the values of a column, for error messages. It is empty if the name of the type says enough.
fn form(kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Decimal { scale, .. } => format!(" (a number with at most {scale} digits after the point)"),
        ColumnKind::Uuid => " (32 hexadecimal digits, with or without hyphens)".to_owned(),
        ColumnKind::Time => " (HH:MM or HH:MM:SS, without a time zone)".to_owned(),
        ColumnKind::Json => " (one valid JSON value)".to_owned(),
        ColumnKind::List(element) => form(*element),
        _ => String::new(),
    }
}
