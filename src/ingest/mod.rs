//! Ingestion: receives events and stores them in tables. Endpoints submit events to a [`Writer`]. Each [`Source`] reads
//! events from a topic and passes them to the same writer.
//!
//! ```text
//!   endpoint ─► Writer: authorize ─► memory ─► prepare (decode) ─┬─► a table's queue ─► batch ─► dedupe ─► write ─► commit ─┐
//!                 │                              ▲               └─► its quarantine's queue ─► the same ────────────────────┤
//!                 └── receipt ◄──────────────────┼──────────────────────────────────────────────────────────────────────────┤
//!   kafka ─► MessageBatch ─► SourceWriter (with its offsets) ◄── the offsets of the table ◄─────────────────────────────────┘
//!                              └─► message decoder (Avro, protobuf) ◄─► schema registry
//!   operators ─► Sources (list, pause)
//!   operators, tenants ─► Quarantine ─► an entry, decoded again ─► a table's queue, then its closing row ─► the quarantine's
//! ```
//!
//! On its way to the table, an event is represented by these types:
//!
//! ```text
//!   Body ─► EventBatch ─► PreparedBatch ─► DedupedBatch ─► DataFile ─► commit
//!   (received)  (decoded)   (good and rejected rows, keyed)   (new rows)   (stored)   (visible)
//! ```
//!
//! [`Ingest`] starts and stops the [`Writer`], the [`Sources`] of this server, and the [`Quarantine`]. The files in
//! this folder process a request from its submission until its receipt is returned to the caller. The subfolders are:
//! - `group_commit`: the queue and the committer of each table, and memory reservations.
//! - `dedupe`: finds the events that a table already holds.
//! - `source`: message batches, offsets, lag and pauses of sources, independent of the Kafka client.
//! - `kafka`: the Kafka client and its sessions.
//! - `schema_registry`: decodes messages whose schemas are in a schema registry or a file.
//! - `quarantine`: lists, replays and drops rejected events.
//! - `sim`: tests that inject crashes and store failures at random. Each run can be reproduced from its seed.
//!
//! **Invariant:** a receipt is sent only after the commit. At that time, the accepted events are durable and visible,
//! and the rejected events are in the quarantine. If a sender asks for early acknowledgement, it gets a [`Promise`]
//! before the commit instead.
//! **Invariant:** rows from a source are committed together with the source's progress.
//! **Invariant:** `ingest` does not depend on the query and rollup modules, and shares only the lake with them.

mod body;
mod target;

mod writer;

mod early_ack;

mod acknowledged_events;

mod prepare;

mod group_commit;

mod dedupe;

mod receipt;

mod source;

mod kafka;

mod schema_registry;

mod quarantine;

mod freshness;

#[cfg(test)]
mod early_ack_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use body::Body;
pub use freshness::{Freshness, TableFreshness};
pub use group_commit::MemoryReservation;
pub use kafka::Source;
pub use quarantine::{
    DropResult, EntryCount, EntryCursor, EntryFilter, EntryPage, Quarantine, QuarantineEntry, QuarantineListing,
    ReplayNote, ReplayResult,
};
pub use receipt::{Promise, Receipt, RejectNote};
pub use source::{DryRun, PartitionProgress, Sample, SourceError, SourceHealth, SourceState, Sources, dry_run};
pub use target::IngestTarget;
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
use group_commit::{Committer, MemoryBudget, ShutdownSignals, TableQueue, TableWriterOpener};
use prepare::Preparer;
use target::{IngestTable, IngestTables, is_quarantine, quarantine_of};

/// The maximum number of tables that are opened concurrently at startup. The number is low because opening a table
/// reads many event ids into memory.
const TABLES_OPENED_MAX: usize = 4;

/// The ingest service: the writer, the sources and the quarantine. Owns one committer task and one maintenance task per
/// table.
#[derive(Debug)]
pub struct Ingest {
    /// Stores the events of requests.
    pub writer: Arc<Writer>,
    /// The configured sources, which read events from topics.
    pub sources: Arc<Sources>,
    /// Lists, replays and drops rejected events.
    pub quarantine: Arc<Quarantine>,
    /// The committer and maintenance tasks.
    tasks: TaskTracker,
    shutdown: ShutdownSignals,
}

impl Ingest {
    /// Builds the dedupe indexes from the lake and starts the committers. `tables` must include the quarantines. Does
    /// not start the sources.
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

    /// Like [`Ingest::start`], but runs the background tasks under `supervisor`.
    pub async fn start_under(
        supervisor: Supervisor,
        tables: Arc<Tables>,
        sources: Vec<Source>,
        config: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let key_hasher = EventKeyHasher::random();
        // Copy the names and handles of the tables, so that the futures below borrow nothing and are `Send`.
        let owned: Vec<_> = tables.iter().map(|(name, table)| (name.clone(), table.clone())).collect();
        let openers = owned.into_iter().map(|(name, table)| {
            let opener = TableWriterOpener {
                is_quarantine: is_quarantine(&name, &tables),
                table,
                key_hasher,
                limits: config.clone(),
                metrics: metrics.clone(),
                committed: Arc::new(Notify::new()),
            };
            async move {
                let table_writer = opener.table_writer().await.map_err(|e| e.at(format!("table `{name}`")))?;
                Ok::<_, Error>((name, opener, table_writer))
            }
        });
        let opened: Vec<_> = futures::stream::iter(openers).buffered(TABLES_OPENED_MAX).try_collect().await?;

        let (tasks, shutdown) = (TaskTracker::new(), ShutdownSignals::default());
        let memory_budget = MemoryBudget::new(config.queue_bytes_max, config.queue_wait_max, metrics.clone());
        let mut queues = BTreeMap::new();
        for (name, opener, table_writer) in opened {
            let (queue, pending) = TableQueue::new(&name, memory_budget.clone());
            tasks.spawn(maintenance(supervisor.clone(), opener.clone(), shutdown.clone()));
            let committer = Arc::new(Committer::new(pending, table_writer, opener, shutdown.clone()));
            let (supervisor, stop_admitting, task) =
                (supervisor.clone(), shutdown.stop_admitting.clone(), Task::new(TaskKind::Committer, &name));
            tasks.spawn(async move {
                let run = || {
                    let committer = committer.clone();
                    async move { committer.run().await }
                };
                supervisor.keep(task, &stop_admitting, AtStop::Finish, run).await
            });
            queues.insert(name, queue);
        }
        let tables = ingest_tables(tables, queues, key_hasher, config.receipt_rejects_max);
        let writer = Writer::new(tables, memory_budget, config, clock, metrics, shutdown.clone(), supervisor);
        let writer = Arc::new(writer);
        let sources = Arc::new(Sources::new(writer.clone(), sources));
        let quarantine = Arc::new(Quarantine::new(writer.clone(), sources.clone()));
        Ok(Arc::new(Self { writer, sources, quarantine, tasks, shutdown }))
    }

    /// Prepares for shutdown: after this call, batches are committed without waiting for more events. Requests are
    /// still accepted.
    pub fn flush(&self) {
        self.shutdown.flush.cancel();
    }

    /// Stops accepting requests, commits all events that were already accepted, and ends the tasks.
    pub async fn stop(&self) {
        self.flush();
        self.shutdown.stop_admitting.cancel();
        self.writer.submits.close();
        self.writer.submits.wait().await;
        self.shutdown.close.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Like [`Ingest::stop`], but waits only until `deadline`. If the deadline passes, logs how many events and
    /// requests are not committed, and fails with `Unavailable`.
    pub async fn stop_by(&self, deadline: tokio::time::Instant) -> Result<()> {
        if tokio::time::timeout_at(deadline, self.stop()).await.is_ok() {
            return Ok(());
        }
        let requests = self.writer.submits.len();
        for (table, events) in self.writer.acknowledged.take() {
            tracing::error!(
                %table,
                events,
                "acknowledged events are lost because they were not stored before the shutdown deadline"
            );
            self.writer.metrics.events_lost(&table, events);
        }
        tracing::error!(
            requests,
            bytes = self.writer.queued_bytes(),
            "the server stopped before all events were committed: senders without a receipt must send their events again"
        );
        Err(Error::unavailable(
            "the server stopped at its deadline (shutdown.time_max) before all events were committed",
        ))
    }
}

/// Combines the tables of the lake with their queues and quarantines. Only tables that have a quarantine accept events.
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

/// Runs [`maintain`] for one table under the supervisor.
async fn maintenance(supervisor: Supervisor, opener: TableWriterOpener, shutdown: ShutdownSignals) {
    let task = Task::new(TaskKind::Maintenance, &opener.table.contract().name);
    let run = || maintain(opener.table.clone(), opener.committed.clone(), opener.metrics.clone(), shutdown.clone());
    supervisor.keep(task, &shutdown.close, AtStop::End, run).await;
}

/// Deletes unreferenced files at startup. After each commit, writes a checkpoint if one is due and removes expired log
/// entries.
async fn maintain(table: Arc<Table>, committed: Arc<Notify>, metrics: Arc<Metrics>, shutdown: ShutdownSignals) {
    if let Err(error) = table.sweep().await {
        tracing::warn!(table = %table.contract().name, ?error, "could not delete the table's unreferenced files");
    }
    while shutdown.close.run_until_cancelled(committed.notified()).await.is_some() {
        let name = &table.contract().name;
        match table.maintain().await {
            Ok(None) => {}
            Ok(Some(version)) => {
                tracing::debug!(table = %name, version, "wrote a checkpoint");
                metrics.lake_checkpoint(name);
            }
            Err(error) => {
                tracing::warn!(table = %name, ?error, "table maintenance failed; it will be retried after the next commit")
            }
        }
    }
}
