//! Decoders of messages whose schema is known only at run time. The schema is an Avro schema, or a protobuf type from a
//! schema registry or a file.
//!
//! ```text
//!   Avro schema ─► avro (debezium_types) ─► avro_json (logical_values) ─► JSON text
//!   .proto text ─► dynamic_protobuf ───────────────────────────────────► JSON text
//! ```
//!
//! **Invariant:** a message that does not match its schema is refused as a whole.

pub(super) mod avro;
pub(super) mod avro_json;
#[cfg(test)]
mod avro_tests;
mod debezium_types;
pub(super) mod dynamic_protobuf;
#[cfg(test)]
mod dynamic_protobuf_tests;
pub(super) mod logical_values;
