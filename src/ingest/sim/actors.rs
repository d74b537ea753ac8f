//! The actors of a schedule, and the results of their operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::workload::SimBody;
use crate::error::Result;
use crate::ingest::source::{Position, StoredBatch, TopicPartition};
use crate::ingest::{Ingest, Receipt};
use crate::tenancy::Access;

/// The actor that waits for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Server(usize),
    Client(usize),
    Reader(usize),
}

/// The result of an operation.
#[derive(Debug)]
pub(super) enum SimOutcome {
    Started(Result<Arc<Ingest>>),
    Stopped,
    Sent(Result<Receipt>),
    Asked(Vec<usize>, Result<BTreeMap<TopicPartition, Position>>),
    Hauled(Vec<usize>, Result<StoredBatch>),
}

/// An operation in progress.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) who: Who,
    pub(super) process: usize,
    pub(super) task: AbortHandle,
}

/// A client. It sends its bodies one after another, and repeats each until it is stored.
pub(super) struct SimClient {
    pub(super) access: Arc<Access>,
    pub(super) home: usize,
    pub(super) bodies: Vec<SimBody>,
    /// The number of stored bodies.
    pub(super) done: usize,
    /// The attempt in progress, and the step at which it times out.
    pub(super) attempt: Option<(u64, usize)>,
    pub(super) rests_until: usize,
}
