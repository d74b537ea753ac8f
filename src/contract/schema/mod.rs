//! Table declarations: columns, keys and field tree, from `glasshouse.toml` or a `.proto` file.
//!
//! ```text
//!   [tables.NAME] ─► declare ─┬─► latest ────────────────┬─► table: Contract (columns in stored order, field tree)
//!                   .proto ─► proto ─► fields ───────────┘        │
//!                                       compatibility ◄───────────┘   does a registry's message type match?
//! ```
//!
//! **Invariant:** a `Contract` is immutable and fully checked; all errors in a declaration are reported together.

pub(super) mod compatibility;
pub(super) mod declare;
pub(super) mod fields;
pub(super) mod latest;
pub(super) mod proto;
pub(super) mod quarantine_resolution;
pub(super) mod table;
