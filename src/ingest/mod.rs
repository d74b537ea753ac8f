//! How events come in: every push door calls [`Ingest::submit`] and nothing else; [`Source`]s fetch theirs.
//!
//! ```text
//!   submit ─► room ─► intake (decode) ─┬─► a table's queue ─► batch ─► dedupe ─► table.write ─► table.commit ─┐
//!             (bytes)   ▲              │                    (rows, bytes, pace)                               │
//!                       │              └─► its quarantine's queue ─► the same ────────────────────────────────┤
//!   receipt ◄───────────┼─────────────────────────────────────────────────────────────────────────────────────┤
//!   replay ─► an entry of a quarantine, decoded again ─► a table's queue, then what closes it ─► the quarantine's queue
//!   kafka ─► haul ─► pull (with its offsets) ◄──── the offsets of the table ◄─────────────────────────────────┘
//!                      └─► reader (Avro, protobuf by schemas) ◄─► registry
//! ```
//!
//! The files of this folder are the way of a request from its door to its receipt. Each folder in it is one idea:
//!
//! - `commit`: group commit, from the queue and its room to the answer.
//! - `dedupe`: which events a table holds already.
//! - `sources`: what every source that is read from a topic does, whatever client reads it.
//! - `kafka`: the one client there is, and its sessions.
//! - `schemas`: messages that are read by the schemas of a registry or a file.
//! - `quarantine`: what becomes of rejected events.
//! - `sim`: crashes and faults by seed, for tests.
//!
//! **Invariant:** a receipt follows the commit: what it calls accepted is durable and visible, what it calls rejected is
//! in the quarantine. Only a [`Promise`] goes before it, to senders who asked for one.
//! **Invariant:** the progress of a source is in the very commit that holds its rows.
//! **Invariant:** dedupe happens before anything is counted.
//! **Invariant:** `ingest` does not know that queries or rollups exist; they meet in the lake.

mod submit;

mod early_ack;

mod prepare;

mod write;

mod dedupe;

mod source;

mod kafka;

mod schemas;

mod quarantine;

mod freshness;

#[cfg(test)]
mod early_ack_tests;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use freshness::{Freshness, TableFreshness};
pub use kafka::Source;
pub use quarantine::{
    DropResult, EntryCount, EntryCursor, EntryFilter, EntryPage, QuarantineEntry, QuarantineListing, ReplayNote,
    ReplayResult,
};
pub use source::{DryRun, PartitionProgress, Sample, SourceError, SourceState, Sources, dry_run};
pub use write::MemoryReservation;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::IngestConfig;
use crate::contract::{Format, Reason};
use crate::error::{Error, Result};
use crate::lake::{Table, Tables};
use crate::supervise::{AtStop, Supervisor, Task, TaskKind};
use crate::telemetry::Metrics;
use crate::tenancy::Slots;

use dedupe::EventKeyHasher;
use early_ack::Owed;
use prepare::Preparer;
use schemas::SchemaReader;
use write::{Committer, Ending, MemoryBudget, Opening, Pending};

/// Requests that wait in one table's queue; their bytes are bounded by `queue_bytes_max`.
const QUEUE_REQUESTS_MAX: usize = 1024;
/// Requests of one tenant that wait to look through a quarantine.
const LOOKS_WAITING_MAX: usize = 4;
/// Tables whose ids are read at once at the start.
const OPENING_MAX: usize = 4;

/// What a door hands in.
#[derive(Debug)]
pub enum Payload {
    /// A decompressed body.
    Encoded(Format, Bytes),
    /// Columns (Flight).
    Arrow(Vec<RecordBatch>),
}

/// What became of a request's events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// Stored now.
    pub accepted: u64,
    /// Stored before, or twice in this request.
    pub duplicate: u64,
    /// Of the duplicates, those with another content than the event that was stored first, as far as that is remembered.
    pub conflict: u64,
    /// In quarantine.
    pub rejected: u64,
    /// The first rejected ones, in order: at most `receipt_rejects_max`.
    pub rejects: Vec<RejectNote>,
    /// The table's version that holds them (0 when nothing had to be committed).
    pub version: u64,
}

/// What is known of a request's events before they are stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Promise {
    /// Decoded and in the queue: to be stored, unless they were before.
    pub received: u64,
    /// On their way to the quarantine.
    pub rejected: u64,
    /// The first rejected ones, in order: at most `receipt_rejects_max`.
    pub rejects: Vec<RejectNote>,
}

/// One rejected event in a receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectNote {
    /// Its place in the request, from 0.
    pub index: u64,
    /// Why.
    pub reason: Reason,
    /// For a person.
    pub detail: String,
}

/// The one way in. Owns a committer task per table.
#[derive(Debug)]
pub struct Ingest {
    tables: Arc<Tables>,
    table_queues: BTreeMap<String, TableQueue>,
    memory_budget: MemoryBudget,
    /// Decoding takes as many cores as there are, and no more.
    decoders: Arc<Semaphore>,
    /// Who looks through quarantines, and changes them, takes turns.
    looks: Semaphore,
    lookers: Slots,
    /// What reads the messages of sources that run here, by their names, where the contract alone cannot.
    readers: Mutex<BTreeMap<String, Arc<SchemaReader>>>,
    limits: IngestConfig,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Requests on their way.
    submits: TaskTracker,
    /// Committers and their tables' maintenance.
    tasks: TaskTracker,
    ending: Ending,
    /// Events that were acknowledged and are not stored yet.
    owed: Owed,
    supervisor: Supervisor,
}

/// The way into one table.
#[derive(Debug)]
struct TableQueue {
    queue: mpsc::Sender<Pending>,
    /// None for a quarantine: nobody sends events into it.
    preparer: Option<Preparer>,
}

/// What the name of a table's quarantine ends with.
const QUARANTINE_SUFFIX: &str = "_quarantine";

/// The name of a table's quarantine.
fn quarantine_of(table: &str) -> String {
    format!("{table}{QUARANTINE_SUFFIX}")
}

impl Ingest {
    /// Rebuilds the dedupe windows from the lake and starts the committers. `tables` holds quarantines as well.
    pub async fn start(
        tables: Arc<Tables>,
        config: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let supervisor = Supervisor::new(metrics.clone());
        Self::start_under(supervisor, tables, config, clock, metrics).await
    }

    /// The same, with the committers and their tables' maintenance under this supervisor.
    pub async fn start_under(
        supervisor: Supervisor,
        tables: Arc<Tables>,
        config: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let key_hasher = EventKeyHasher::random();
        // Owned by the futures that open them, so that any task can wait for a start.
        let named: Vec<_> = tables.iter().map(|(name, table)| (name.clone(), table.clone())).collect();
        let opening = named.into_iter().map(|(name, table)| {
            let opening = Opening {
                table,
                is_quarantine: name.strip_suffix(QUARANTINE_SUFFIX).is_some_and(|table| tables.contains_key(table)),
                key_hasher,
                limits: config.clone(),
                metrics: metrics.clone(),
                committed: Arc::new(Notify::new()),
            };
            async move {
                let table_writer = opening.table_writer().await.map_err(|e| e.at(format!("table `{name}`")))?;
                Ok::<_, Error>((name, opening, table_writer))
            }
        });
        let opened: Vec<_> = futures::stream::iter(opening).buffered(OPENING_MAX).try_collect().await?;

        let (tasks, ending) = (TaskTracker::new(), Ending::default());
        let mut table_queues = BTreeMap::new();
        for (name, opening, table_writer) in opened {
            let (sender, queue) = mpsc::channel(QUEUE_REQUESTS_MAX);
            let quarantine = tables.get(&quarantine_of(&name));
            let preparer = quarantine.map(|quarantine| Preparer {
                contract: opening.table.contract().clone(),
                quarantine: quarantine.contract().clone(),
                key_hasher,
                notes_max: config.receipt_rejects_max,
            });
            tasks.spawn(maintenance(supervisor.clone(), opening.clone(), ending.clone()));
            let committer = Arc::new(Committer::new(queue, table_writer, opening, ending.clone()));
            let (supervisor, hurry, task) =
                (supervisor.clone(), ending.hurry.clone(), Task::new(TaskKind::Committer, &name));
            tasks.spawn(async move {
                let run = || {
                    let committer = committer.clone();
                    async move { committer.run().await }
                };
                supervisor.keep(task, &hurry, AtStop::Finish, run).await
            });
            table_queues.insert(name, TableQueue { queue: sender, preparer });
        }
        Ok(Arc::new(Self {
            table_queues,
            memory_budget: MemoryBudget::new(config.queue_bytes_max, config.queue_wait_max, metrics.clone()),
            decoders: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
            looks: Semaphore::new(1),
            lookers: Slots::new(1, LOOKS_WAITING_MAX, config.queue_wait_max),
            readers: Mutex::default(),
            limits: config,
            clock,
            metrics,
            submits: TaskTracker::new(),
            tasks,
            ending,
            owed: Owed::default(),
            supervisor,
            tables,
        }))
    }

    /// All tables, quarantines as well.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Bytes that wait for a commit now.
    pub fn queued_bytes(&self) -> usize {
        self.memory_budget.taken_bytes()
    }

    /// Whether events can come in now: `Unavailable`, with the reason, when not.
    pub fn ready(&self) -> Result<()> {
        if self.ending.hurry.is_cancelled() {
            return Err(stopping());
        }
        match self.table_queues.iter().find(|(_, table_queue)| table_queue.queue.is_closed()) {
            Some((table, _)) => Err(Error::unavailable(format!("the committer of `{table}` has ended"))),
            None => Ok(()),
        }
    }

    /// The server is about to stop: from now on what is admitted is committed at once. Requests are taken as before.
    pub fn flush(&self) {
        self.ending.flush.cancel();
    }

    /// Stops taking requests, commits what was admitted, and ends the tasks.
    pub async fn stop(&self) {
        self.flush();
        self.ending.hurry.cancel();
        self.submits.close();
        self.submits.wait().await;
        self.ending.close.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The same, but gives up at `deadline`, and then logs what was not committed. `Unavailable` when that is so.
    pub async fn stop_by(&self, deadline: tokio::time::Instant) -> Result<()> {
        if tokio::time::timeout_at(deadline, self.stop()).await.is_ok() {
            return Ok(());
        }
        let requests = self.submits.len();
        for (table, events) in self.owed.take() {
            tracing::error!(%table, events, "acknowledged events are lost: the store did not take them before the deadline of the stop");
            self.metrics.events_lost(&table, events);
        }
        tracing::error!(
            requests,
            bytes = self.queued_bytes(),
            "stopped without committing all that was admitted: senders that have no receipt send again"
        );
        Err(Error::unavailable("the server stopped at its deadline (limit shutdown.time_max) before all was committed"))
    }
}

/// Checkpoints and log clean-up in the background, under the supervisor.
async fn maintenance(supervisor: Supervisor, opening: Opening, ending: Ending) {
    let task = Task::new(TaskKind::Maintenance, &opening.table.contract().name);
    let run = || maintain(opening.table.clone(), opening.committed.clone(), opening.metrics.clone(), ending.clone());
    supervisor.keep(task, &ending.close, AtStop::End, run).await;
}

/// Checkpoints and log clean-up, when commits have made them due.
async fn maintain(table: Arc<Table>, committed: Arc<Notify>, metrics: Arc<Metrics>, ending: Ending) {
    if let Err(error) = table.sweep().await {
        tracing::warn!(?error, "files that nothing names are left behind");
    }
    while ending.close.run_until_cancelled(committed.notified()).await.is_some() {
        let name = &table.contract().name;
        match table.maintain().await {
            Ok(None) => {}
            Ok(Some(version)) => {
                tracing::debug!(table = %name, version, "wrote a checkpoint");
                metrics.lake_checkpoint(name);
            }
            Err(error) => tracing::warn!(table = %name, ?error, "maintenance failed, it is tried again after a commit"),
        }
    }
}

fn stopping() -> Error {
    Error::unavailable("the server is stopping: send it to another one, or again later")
}
