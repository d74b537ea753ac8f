//! Reads and checks the columns, keys and event fields that each `[tables.NAME]` section declares.
//!
//! Here, a *schema* is what the operator declares for a table, in `glasshouse.toml` or in a `.proto` file. Two other
//! modules have similar names: `lake/log/delta_schema.rs` writes the schema of a Delta table, and
//! `ingest/schema_registry/` fetches the schemas of messages from a schema registry.
//!
//! ```text
//!   [tables.NAME] ─► declare ─┬─► declared_columns, fields ─► latest ─► table: Contract (columns in stored order, field tree)
//!          .proto ─► proto ───┘                                            │
//!   a registry's message type ──────────────────────────► compatibility ◄──┘
//! ```
//!
//! **Invariant:** every `Contract` has passed all checks, and it does not change afterwards. If a declaration has
//! several errors, all of them are reported together.

pub(super) mod column;
pub(super) mod compatibility;
mod declared_columns;
pub(super) mod fields;
pub(super) mod latest;
pub(super) mod proto;
pub(super) mod quarantine_resolution;
pub(super) mod retention;
pub(super) mod table;
mod table_declaration;
