//! How an entry of a quarantine is closed: by a second row, since the lake only grows.
//!
//! ```text
//!   entry   (tenant, event_time, quarantine_id)            reason, detail, place, payload, format
//!   closed  (tenant, event_time, <quarantine_id>/<time>)   resolves = quarantine_id, resolution, resolved_by
//! ```
//!
//! **Invariant:** the row that closes an entry has the entry's tenant and `event_time`: it rests on the same day, and a
//! condition on time holds for both or for none. Its `received_time` says when it was closed.
//! **Invariant:** an entry is its tenant, time and id. The same bytes that are rejected again later are another entry.

use crate::contract::Contract;

/// Of a row that closes an entry: the entry's id. Null in entries.
pub const RESOLVES: &str = "resolves";
/// Of a row that closes an entry: how.
pub const RESOLUTION: &str = "resolution";
/// Of a row that closes an entry: the subject of the token that closed it.
pub const RESOLVED_BY: &str = "resolved_by";

impl Contract {
    /// Whether callers see this column. Of a quarantine they see entries, and not what closes them.
    pub fn is_shown(&self, column: &str) -> bool {
        self.resolves.is_none() || ![RESOLVES, RESOLUTION, RESOLVED_BY].contains(&column)
    }
}
