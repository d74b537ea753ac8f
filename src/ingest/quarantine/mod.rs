//! What becomes of rejected events: they are shown, sent again as they were or fixed, or dropped.
//!
//! ```text
//!   quarantine ─► session (who may) ─► reader (open entries: counted, found, read) ─┬─► shown
//!       ▲                                                     ├─► replay (reread) ─► its table ─ stored ─┐
//!       │                                                     └─► drop ──────────────────────────────────┤
//!       └─────────── a row that closes the entry ◄───────────────────────────────────────────────────────┘
//! ```
//!
//! In: which entries ([`EntryFilter`]), by operators, and by tenants for their own. Out: counts, entries, and what became of them.
//!
//! **Invariant:** a quarantine only grows: an entry is closed by a row behind it; one that is sent again, after its event is
//! stored.
//! **Invariant:** a tenant sees and changes its own entries only.

mod reader;

mod session;

mod replay;

mod decode_entry;

#[cfg(test)]
mod replay_tests;

pub use reader::{EntryCount, EntryCursor, EntryFilter, QuarantineEntry};
pub use replay::{DropResult, Quarantine, QuarantineListing, ReplayNote, ReplayResult};
pub use session::EntryPage;
