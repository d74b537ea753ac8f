//! The actors in a schedule, their operations, and the results of the operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::workload::SimBody;
use crate::error::Result;
use crate::ingest::source::{StoredBatch, StoredOffsets, TopicPartition};
use crate::ingest::{Ingest, Receipt};
use crate::lake::Replaced;
use crate::maintenance::retention::Expired;
use crate::maintenance::vacuum::VacuumReport;
use crate::tenancy::Access;

/// The actor that started an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    Server(usize),
    Client(usize),
    /// The topic reader of a server.
    Reader(usize),
    /// The maintenance actor of a server.
    Maintenance(usize),
    /// The actor of a server that removes expired files.
    Retention(usize),
    /// The vacuum of a server.
    Vacuum(usize),
}

/// The result of an operation.
#[derive(Debug)]
pub(super) enum SimOutcome {
    Started(Result<Arc<Ingest>>),
    Stopped,
    Sent(Result<Receipt>),
    /// A reader has loaded offsets. Contains the partitions that it asked for, and the stored offsets.
    OffsetsLoaded(Vec<usize>, Result<BTreeMap<TopicPartition, StoredOffsets>>),
    /// A reader has stored a message batch. Contains the partitions in the batch, and the result.
    BatchStored(Vec<usize>, Result<StoredBatch>),
    Rewritten(Result<Replaced>),
    Expired(Result<Expired>),
    Vacuumed(Result<VacuumReport>),
}

/// An operation that an actor has started and that has not ended yet.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) actor: Actor,
    pub(super) process: usize,
    pub(super) task: AbortHandle,
}

/// A client, which sends its bodies one after another and repeats each request until the body is stored.
pub(super) struct SimClient {
    pub(super) access: Arc<Access>,
    /// The server to which the client sends.
    pub(super) server: usize,
    pub(super) bodies: Vec<SimBody>,
    /// The number of bodies that are already stored.
    pub(super) done: usize,
    /// The number of the client's current operation, and the step at which the client stops waiting for it.
    pub(super) attempt: Option<(u64, usize)>,
    /// The step at which the client sends its next request.
    pub(super) idle_until: usize,
}
