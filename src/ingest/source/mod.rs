//! What every source does that is read from a topic, whatever client reads it: batches, offsets, lag, pauses.
//!
//! ```text
//!   a client ─► MessageBatch ─► pull ─┬─► reader ─► a transform ─► the way of every event, with the offsets
//!      ▲                              └─► read position, lag ─► how fresh the table is
//!      └── where to read on, and whether ◄── pull, pause ◄── the table
//!   operators ─► overview (monitor, offsets, pause)      a transform and samples ─► dry run
//! ```
//!
//! In: messages, as a client has read them. Out: rows, offsets and pauses in the table, bad messages in its quarantine; and
//! what operators are told ([`Sources`]).
//!
//! **Invariant:** nothing here knows `rdkafka`: what is true of batches and offsets is proved without a broker.
//! **Invariant:** where a source stands, and whether it is paused, is in its table alone.

mod message_batch;
mod route;

mod isolate;

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
