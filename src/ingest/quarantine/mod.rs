//! Quarantine entries (rejected events): listing, replaying, fixing and dropping them.
//!
//! ```text
//!   quarantine ─► session (authorization) ─► reader (counts, finds and reads open entries) ─┬─► listed
//!       ▲                                                     ├─► replay (decode again) ─► table, stored ─┐
//!       │                                                     └─► drop ───────────────────────────────────┤
//!       └─────────── a row that closes the entry ◄────────────────────────────────────────────────────────┘
//! ```
//!
//! In: a filter ([`EntryFilter`]) from an operator, or from a tenant for its own entries. Out: counts, entries, and the results
//! of replays and drops.
//!
//! **Invariant:** a quarantine is append-only: a later row closes an entry. A replay writes that row after the event is stored.
//! **Invariant:** a tenant sees and changes only its own entries.

mod reader;

mod session;

mod replay;

mod decode_entry;

#[cfg(test)]
mod replay_tests;

pub use reader::{EntryCount, EntryCursor, EntryFilter, QuarantineEntry};
pub use replay::{DropResult, Quarantine, QuarantineListing, ReplayNote, ReplayResult};
pub use session::EntryPage;
