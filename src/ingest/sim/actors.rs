//! The actors in a schedule, their operations, and the results of the operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::workload::SimBody;
use crate::error::Result;
use crate::ingest::source::{StoredBatch, StoredOffsets, TopicPartition};
use crate::ingest::{Ingest, Receipt};
use crate::tenancy::Access;

/// The actor that started an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    Server(usize),
    Client(usize),
    /// The topic reader of a server.
    Reader(usize),
}

/// The result of an operation.
#[derive(Debug)]
pub(super) enum SimOutcome {
    Started(Result<Arc<Ingest>>),
    Stopped,
    Sent(Result<Receipt>),
    /// The partitions for which a reader requested offsets, and their stored offsets.
    OffsetsLoaded(Vec<usize>, Result<BTreeMap<TopicPartition, StoredOffsets>>),
    /// The partitions in a message batch, and the result of storing the batch.
    BatchStored(Vec<usize>, Result<StoredBatch>),
}

/// An operation in progress.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) actor: Actor,
    pub(super) process: usize,
    pub(super) task: AbortHandle,
}

/// A client, which sends its bodies in order, and repeats each body until it is stored.
pub(super) struct SimClient {
    pub(super) access: Arc<Access>,
    /// The server to which the client sends.
    pub(super) server: usize,
    pub(super) bodies: Vec<SimBody>,
    /// The number of this client's bodies that are stored.
    pub(super) done: usize,
    /// The number of the operation in progress, and the step at which the client gives up on it.
    pub(super) attempt: Option<(u64, usize)>,
    /// The step at which the client sends its next request.
    pub(super) idle_until: usize,
}
