//! Quarantine resolutions: an entry is closed by appending a second row, because the lake is append-only.
//!
//! ```text
//!   entry   (tenant, event_time, quarantine_id)            reason, detail, place, payload, format
//!   closed  (tenant, event_time, <quarantine_id>/<time>)   resolves = quarantine_id, resolution, resolved_by
//! ```
//!
//! **Invariant:** the row that closes an entry has the entry's tenant and `event_time`, so that both are in the same daily
//! partition, and a condition on time selects both or neither. Its `received_time` is the time of closing.
//! **Invariant:** an entry is identified by tenant, time and id. If the same bytes are rejected again later, they get a
//! separate entry.

use crate::contract::Contract;

/// In a row that closes an entry: the entry's id. Null in entries.
pub const RESOLVES: &str = "resolves";
/// In a row that closes an entry: the resolution, `replayed` or `dropped`.
pub const RESOLUTION: &str = "resolution";
/// In a row that closes an entry: the subject of the token that closed it.
pub const RESOLVED_BY: &str = "resolved_by";

impl Contract {
    /// Whether queries show this column. In a quarantine, the columns of closing rows are hidden.
    pub fn is_shown(&self, column: &str) -> bool {
        self.resolves.is_none() || ![RESOLVES, RESOLUTION, RESOLVED_BY].contains(&column)
    }
}
