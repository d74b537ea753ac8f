//! Message batches, offsets, lag and pauses of sources, independent of the client library.
//!
//! ```text
//!   a client ─► MessageBatch ─► source writer ─► message decoder ─► transform ─► the queues of the table, with the offsets
//!      │ ▲
//!      │ └── next offsets, paused or not ◄── source writer, pause ◄── the table
//!      └───► partition offsets, lag ─► the freshness of the table
//!   operators ─► overview (monitor, offsets, pause)      a transform and samples ─► dry run
//! ```
//!
//! This module takes the messages that a client has read. The module writes rows, offsets and pauses to the source's
//! table, and rejected messages to the table's quarantine. Operators see and change the state of the sources through
//! [`Sources`].
//!
//! **Invariant:** no code in this module depends on `rdkafka`, so batches and offsets can be tested without a broker.
//! **Invariant:** the offsets of a source, and whether it is paused, are stored only in its table.

mod message_batch;
mod route;

mod poison_messages;

mod source_writer;

mod apply_transform;
mod dry_run;

mod lag;
mod partition_offsets;

mod pause;

mod monitor;
mod source_control;

pub use dry_run::{DryRun, Sample, dry_run};
pub use monitor::SourceError;
pub use source_control::{PartitionProgress, SourceState, Sources};

pub(super) use lag::Lag;
pub(super) use message_batch::{
    BatchLimits, BatchMessage, MessageBatch, MessageMeta, TenantResolution, TopicPartition, varint, without_header,
};
pub(super) use monitor::SourceMonitor;
pub(super) use partition_offsets::PartitionOffsets;
pub(super) use pause::Pause;
pub(super) use route::Route;
#[cfg(test)]
pub(super) use source_writer::StoredBatch;
pub(super) use source_writer::{SourceWriter, StoredOffsets, text_bytes_max};
