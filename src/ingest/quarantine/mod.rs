//! Lists, replays and drops the entries in the quarantine of a table. An entry is a rejected event.
//!
//! ```text
//!   quarantine ─► session (authorization) ─► reader (finds open entries) ┬─► list
//!       ▲                                                                ├─► replay: decode again ─► store in the table ─┐
//!       │                                                                └─► drop ───────────────────────────────────────┤
//!       └───────────── a row that closes the entry ◄─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! An [`EntryFilter`] selects the entries. The methods of [`Quarantine`] list the selected entries, replay them or drop
//! them. An operator can select all entries. A tenant can select only its own entries.
//!
//! **Invariant:** a quarantine is append-only. An entry is closed by adding a second row for it. A replay adds this row
//! only after the event is stored.
//! **Invariant:** a tenant sees and changes only its own entries.

mod reader;

mod quarantine_access;

mod replay;

mod decode_payloads;

#[cfg(test)]
mod replay_tests;

pub use quarantine_access::EntryPage;
pub use reader::{EntryCount, EntryCursor, EntryFilter, QuarantineEntry};
pub use replay::{DropResult, Quarantine, QuarantineListing, ReplayNote, ReplayResult};
