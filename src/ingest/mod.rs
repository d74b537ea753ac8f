//! Ingest: endpoints submit events to a [`Writer`]; each [`Source`] reads its events from a topic and uses the same writer.
//!
//! ```text
//!   endpoint ─► Writer: authorize ─► memory ─► prepare (decode) ─┬─► a table's queue ─► batch ─► dedupe ─► write ─► commit ─┐
//!                 │                              ▲               └─► its quarantine's queue ─► the same ────────────────────┤
//!                 └── receipt ◄──────────────────┼──────────────────────────────────────────────────────────────────────────┤
//!   kafka ─► MessageBatch ─► SourceWriter (with its offsets) ◄── the offsets of the table ◄─────────────────────────────────┘
//!                              └─► reader (Avro, protobuf by schemas) ◄─► registry
//!   operators ─► Sources (list, pause)
//!   operators, tenants ─► Quarantine ─► an entry, decoded again ─► a table's queue, then its resolution ─► the quarantine's
//! ```
//!
//! The types that carry an event, in order:
//!
//! ```text
//!   Body ─► EventBatch ─► PreparedBatch ─► DedupedBatch ─► DataFile ─► commit
//!   (received)  (decoded)   (good and rejected rows, keyed)   (new rows)   (stored)   (visible)
//! ```
//!
//! [`Ingest`] builds, starts and stops three parts, which endpoints use separately: the [`Writer`] (submit, commit, dedupe,
//! acknowledge early), the [`Sources`] of this server, and the [`Quarantine`]. The files of this folder implement the path of
//! a request from its endpoint to its receipt. Each subfolder has one subject:
//!
//! - `write`: group commit, from the queue and its memory reservation to the answer.
//! - `dedupe`: which events a table already holds.
//! - `source`: the logic of sources that read topics, independent of the client.
//! - `kafka`: the Kafka client and its sessions.
//! - `schemas`: decoding of messages with the schemas of a registry or a file.
//! - `quarantine`: listing, replaying and dropping rejected events.
//! - `sim`: simulation of crashes and faults from a seed, for tests.
//!
//! **Invariant:** a receipt is sent after the commit: accepted events are durable and visible, and rejected events are in the
//! quarantine. Only a [`Promise`] precedes the commit, for senders that request one.
//! **Invariant:** the progress of a source is part of the commit that holds its rows.
//! **Invariant:** dedupe precedes all counting.
//! **Invariant:** `ingest` does not depend on queries or rollups; they share only the lake.

mod body;
mod target;

mod writer;

mod early_ack;

mod acknowledged_events;

mod prepare;

mod write;

mod dedupe;

mod receipt;

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

pub use body::Body;
pub use freshness::{Freshness, TableFreshness};
pub use kafka::Source;
pub use quarantine::{
    DropResult, EntryCount, EntryCursor, EntryFilter, EntryPage, Quarantine, QuarantineEntry, QuarantineListing,
    ReplayNote, ReplayResult,
};
pub use receipt::{Promise, Receipt, RejectNote};
pub use source::{DryRun, PartitionProgress, Sample, SourceError, SourceState, Sources, dry_run};
pub use target::IngestTarget;
pub use write::MemoryReservation;
pub use writer::Writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::IngestConfig;
use crate::error::{Error, Result};
use crate::lake::{Table, Tables};
use crate::supervise::{AtStop, Supervisor, Task, TaskKind};
use crate::telemetry::Metrics;

use dedupe::EventKeyHasher;
use prepare::Preparer;
use target::{IngestTable, IngestTables, is_quarantine, quarantine_of};
use write::{Committer, Ending, MemoryBudget, Opening, TableQueue};

/// The number of tables whose ids are read concurrently at startup.
const OPENING_MAX: usize = 4;

/// Builds, starts and stops the ingest components. Owns one committer task per table.
#[derive(Debug)]
pub struct Ingest {
    /// Accepts events.
    pub writer: Arc<Writer>,
    /// The configured sources, which read events from topics.
    pub sources: Arc<Sources>,
    /// Rejected events.
    pub quarantine: Arc<Quarantine>,
    /// The committers and the maintenance tasks of their tables.
    tasks: TaskTracker,
    ending: Ending,
}

impl Ingest {
    /// Rebuilds the dedupe windows from the lake and starts the committers. `tables` includes the quarantines. Does not start
    /// the sources.
    pub async fn start(
        tables: Arc<Tables>,
        sources: Vec<Source>,
        config: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let supervisor = Supervisor::new(metrics.clone());
        Self::start_under(supervisor, tables, sources, config, clock, metrics).await
    }

    /// Like [`Ingest::start`], but runs the committers and the table maintenance under `supervisor`.
    pub async fn start_under(
        supervisor: Supervisor,
        tables: Arc<Tables>,
        sources: Vec<Source>,
        config: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let key_hasher = EventKeyHasher::random();
        // The futures that open the tables own their names and tables, so that any task can await a start.
        let named: Vec<_> = tables.iter().map(|(name, table)| (name.clone(), table.clone())).collect();
        let opening = named.into_iter().map(|(name, table)| {
            let opening = Opening {
                is_quarantine: is_quarantine(&name, &tables),
                table,
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
        let memory_budget = MemoryBudget::new(config.queue_bytes_max, config.queue_wait_max, metrics.clone());
        let mut queues = BTreeMap::new();
        for (name, opening, table_writer) in opened {
            let (queue, pending) = TableQueue::new(&name, memory_budget.clone());
            tasks.spawn(maintenance(supervisor.clone(), opening.clone(), ending.clone()));
            let committer = Arc::new(Committer::new(pending, table_writer, opening, ending.clone()));
            let (supervisor, hurry, task) =
                (supervisor.clone(), ending.hurry.clone(), Task::new(TaskKind::Committer, &name));
            tasks.spawn(async move {
                let run = || {
                    let committer = committer.clone();
                    async move { committer.run().await }
                };
                supervisor.keep(task, &hurry, AtStop::Finish, run).await
            });
            queues.insert(name, queue);
        }
        let tables = ingest_tables(tables, queues, key_hasher, config.receipt_rejects_max);
        let writer = Writer::new(tables, memory_budget, config, clock, metrics, ending.clone(), supervisor);
        let writer = Arc::new(writer);
        let sources = Arc::new(Sources::new(writer.clone(), sources));
        let quarantine = Arc::new(Quarantine::new(writer.clone(), sources.clone()));
        Ok(Arc::new(Self { writer, sources, quarantine, tasks, ending }))
    }

    /// Prepares for shutdown: from now on admitted events are committed at once. Requests are still accepted.
    pub fn flush(&self) {
        self.ending.flush.cancel();
    }

    /// Stops accepting requests, commits all admitted events, and ends the tasks.
    pub async fn stop(&self) {
        self.flush();
        self.ending.hurry.cancel();
        self.writer.submits.close();
        self.writer.submits.wait().await;
        self.ending.close.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Like [`Ingest::stop`], but gives up at `deadline`: then it logs what was not committed and returns `Unavailable`.
    pub async fn stop_by(&self, deadline: tokio::time::Instant) -> Result<()> {
        if tokio::time::timeout_at(deadline, self.stop()).await.is_ok() {
            return Ok(());
        }
        let requests = self.writer.submits.len();
        for (table, events) in self.writer.acknowledged.take() {
            tracing::error!(%table, events, "acknowledged events are lost: not stored before the shutdown deadline");
            self.writer.metrics.events_lost(&table, events);
        }
        tracing::error!(
            requests,
            bytes = self.writer.queued_bytes(),
            "stopped before all admitted events were committed: senders without a receipt must send them again"
        );
        Err(Error::unavailable(
            "the server stopped at its deadline (limit shutdown.time_max) before all events were committed",
        ))
    }
}

/// The tables that accept events, each with its quarantine. Tables without a quarantine are omitted.
fn ingest_tables(
    lake: Arc<Tables>,
    queues: BTreeMap<String, TableQueue>,
    key_hasher: EventKeyHasher,
    notes_max: usize,
) -> IngestTables {
    let declared = lake.iter().filter_map(|(name, table)| {
        let quarantine_name = quarantine_of(name);
        let (queue, quarantine_queue) = (queues.get(name)?.clone(), queues.get(&quarantine_name)?.clone());
        let quarantine = lake.get(&quarantine_name)?.clone();
        let preparer = Preparer {
            contract: table.contract().clone(),
            quarantine: quarantine.contract().clone(),
            key_hasher,
            notes_max,
        };
        let table = IngestTable { table: table.clone(), queue, quarantine, quarantine_queue, preparer };
        Some((name.clone(), Arc::new(table)))
    });
    let declared = declared.collect();
    IngestTables { lake, queues, declared }
}

/// Runs [`maintain`] under the supervisor.
async fn maintenance(supervisor: Supervisor, opening: Opening, ending: Ending) {
    let task = Task::new(TaskKind::Maintenance, &opening.table.contract().name);
    let run = || maintain(opening.table.clone(), opening.committed.clone(), opening.metrics.clone(), ending.clone());
    supervisor.keep(task, &ending.close, AtStop::End, run).await;
}

/// Writes checkpoints and cleans up the log when commits make that due.
async fn maintain(table: Arc<Table>, committed: Arc<Notify>, metrics: Arc<Metrics>, ending: Ending) {
    if let Err(error) = table.sweep().await {
        tracing::warn!(?error, "could not delete unreferenced files of the table");
    }
    while ending.close.run_until_cancelled(committed.notified()).await.is_some() {
        let name = &table.contract().name;
        match table.maintain().await {
            Ok(None) => {}
            Ok(Some(version)) => {
                tracing::debug!(table = %name, version, "wrote a checkpoint");
                metrics.lake_checkpoint(name);
            }
            Err(error) => {
                tracing::warn!(table = %name, ?error, "table maintenance failed; it is retried after the next commit")
            }
        }
    }
}
