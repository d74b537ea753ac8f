//! The parts of a source that do not depend on a client library: message batches, offsets, lag and pauses.
//!
//! ```text
//!   a client ─► MessageBatch ─► source writer ─► message decoder ─► transform ─► the queues of the table, with the offsets
//!      │ ▲
//!      │ └── next offsets, paused or not ◄── source writer, pause ◄── the table
//!      └───► partition offsets, lag ─► the freshness of the table
//!   operators ─► overview (monitor, offsets, pause)      a transform and samples ─► dry run
//! ```
//!
//! A client passes the messages that it has read to this module, which writes rows, offsets and pauses to the source's
//! table, and rejected messages to the table's quarantine. [`Sources`] lets operators see and change the state of
//! sources.
//!
//! **Invariant:** no code in this module depends on `rdkafka`, so batches and offsets can be tested without a broker.
//! **Invariant:** the offsets and the pause state of a source are stored only in its table.

mod message_batch;
mod route;

mod poison_messages;

mod source_writer;

mod apply_transform;
mod dry_run;
mod truncation;

mod lag;
mod partition_offsets;

mod source_pause;

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
pub(super) use route::Route;
pub(super) use source_pause::Pause;
#[cfg(test)]
pub(super) use source_writer::StoredBatch;
pub(super) use source_writer::{SourceWriter, StoredOffsets, text_bytes_max};
pub(super) use truncation::Truncation;
