//! Reads database changes in Debezium's envelope.
//!
//! ```text
//!   message ─► envelope ─┬─► before, after ─► unavailable values ─► logical types ─► before, after, row
//!                        │                                              ▲
//!                        ├─► schema of the converter ─► value types ────┘
//!                        └─► source ─► log position ─► change_order, change_id
//! ```
//!
//! The input is the JSON of a message, with or without the converter's wrapper (`{"schema": …, "payload": …}`). The
//! result is a [`DebeziumMessage`], or an error message.
//!
//! The documentation of Debezium's connectors describes the format under "data change events".
//!
//! **Invariant:** the order of a change, its id and its rows depend on its message alone.

mod change_event;
mod log_position;
mod object_fields;
mod row_values;
#[cfg(test)]
mod tests;
mod unavailable_value;
mod value_type;

pub(super) use change_event::{ChangeEvent, ChangeReader, DebeziumMessage};
pub(super) use unavailable_value::UnavailableValue;
