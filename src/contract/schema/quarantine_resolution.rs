//! The columns that record how a quarantine entry was resolved.
//!
//! The lake is append-only, so an entry is never changed. To close an entry, the server appends a second row:
//!
//! ```text
//!   entry   (tenant, event_time, quarantine_id)            reason, detail, place, payload, format
//!   closed  (tenant, event_time, <quarantine_id>/<time>)   resolves = quarantine_id, resolution, resolved_by
//! ```
//!
//! **Invariant:** the row that closes an entry has the entry's tenant and `event_time`. Both rows are therefore in the
//! same daily partition, and a condition on `event_time` selects either both or neither. The closing row's
//! `received_time` is the time at which the entry was closed.
//! **Invariant:** an entry is identified by tenant, `event_time` and id. If the same bytes are rejected again later,
//! they get a separate entry.

/// The column that contains the id of the closed entry. It is set only in the closing row.
pub const RESOLVES: &str = "resolves";
/// The column that says how the entry was resolved: `replayed` or `dropped`. It is set only in the closing row.
pub const RESOLUTION: &str = "resolution";
/// The column that contains the subject of the token with which the entry was closed. It is set only in the closing
/// row.
pub const RESOLVED_BY: &str = "resolved_by";
