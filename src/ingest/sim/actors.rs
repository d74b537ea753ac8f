//! Who takes part in a schedule, and what comes back to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::workload::SimBody;
use crate::error::Result;
use crate::ingest::source::{Position, StoredBatch, TopicPartition};
use crate::ingest::{Ingest, Receipt};
use crate::tenancy::Access;

/// Who waits for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Server(usize),
    Client(usize),
    Reader(usize),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum SimOutcome {
    Started(Result<Arc<Ingest>>),
    Stopped,
    Sent(Result<Receipt>),
    Asked(Vec<usize>, Result<BTreeMap<TopicPartition, Position>>),
    Hauled(Vec<usize>, Result<StoredBatch>),
}

/// One of those who wait.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) who: Who,
    pub(super) process: usize,
    pub(super) task: AbortHandle,
}

/// A client: it sends one body after the other, each until it is stored.
pub(super) struct SimClient {
    pub(super) access: Arc<Access>,
    pub(super) home: usize,
    pub(super) bodies: Vec<SimBody>,
    /// Bodies that are stored.
    pub(super) done: usize,
    /// The attempt under way, and the step at which it is given up.
    pub(super) attempt: Option<(u64, usize)>,
    pub(super) rests_until: usize,
}
