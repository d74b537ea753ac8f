//! The client-independent part of sources: message batches, offsets, lag and pauses.
//!
//! ```text
//!   a client ─► MessageBatch ─► pull ─┬─► reader ─► a transform ─► the queues of the table, with the offsets
//!      ▲                              └─► read position, lag ─► the freshness of the table
//!      └── next offsets, paused or not ◄── pull, pause ◄── the table
//!   operators ─► overview (monitor, offsets, pause)      a transform and samples ─► dry run
//! ```
//!
//! In: messages, as a client has read them. Out: rows, offsets and pauses in the table, bad messages in its quarantine; and the
//! state of the sources for operators ([`Sources`]).
//!
//! **Invariant:** no code here depends on `rdkafka`: the logic of batches and offsets is tested without a broker.
//! **Invariant:** the offsets of a source, and whether it is paused, are stored only in its table.

mod message_batch;
mod route;

mod poison_messages;

mod pull;

mod apply_transform;
mod dry_run;

mod lag;
mod read_position;

mod pause;

mod monitor;
mod overview;

pub use dry_run::{DryRun, Sample, dry_run};
pub use monitor::SourceError;
pub use overview::{PartitionProgress, SourceState, Sources};

pub(super) use lag::Lag;
pub(super) use message_batch::{
    BatchLimits, BatchMessage, MessageBatch, MessageMeta, TenantResolution, TopicPartition, varint, without_header,
};
pub(super) use monitor::SourceMonitor;
pub(super) use pause::Pause;
#[cfg(test)]
pub(super) use pull::StoredBatch;
pub(super) use pull::{Position, SourceWriter, text_bytes_max};
pub(super) use read_position::ReadPosition;
pub(super) use route::Route;
