//! The table writer: stores batches one after another in four steps: dedupe, write, commit, answer.
//!
//! In: the requests of a batch. Out: an answer to each; the same error to all if the batch could not be stored.
//!
//! A commit whose answer is lost may have happened. The table writer therefore resolves such a commit in doubt before it
//! starts the next batch: it commits the same files again, which the lake applies only once.
//!
//! Rows of a source are committed together with its progress. If another server has taken over the source, only that request
//! is refused: the other requests of its batch are stored without it.
//!
//! A batch is deduped against one version of the table, and committed only directly after that version. If another server has
//! added rows since, the batch is deduped against them and committed again.
//!
//! **Invariant:** an event that two servers receive is stored once.
//! **Invariant:** no batch is deduped while the outcome of the previous one is unknown.
//! **Invariant:** rows of a source are committed with its progress or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

use super::batch::{Pending, Stored};
use crate::config::IngestConfig;
use crate::error::{Error, Kind, Result};
use crate::ingest::dedupe::{Counts, DedupeIndex, DedupedBatch, EventKey, EventKeyHasher};
use crate::lake::{Committed, DataFile, Progress, RowSelection, Table};
use crate::telemetry::Metrics;

/// The pause after the first failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The minimum number of ids kept in memory for a quarantine: it has no event times by which older ids could be looked up.
const QUARANTINE_IDS_MIN: usize = 100_000;
/// The maximum number of attempts for one batch that lose to commits of other writers.
const RACES_MAX: usize = 100;
/// The retry time sent to the requests of a failed batch.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes the batches of one table, and holds its dedupe index and the commit in doubt, if any.
#[derive(Debug)]
pub(in crate::ingest) struct TableWriter {
    table: Arc<Table>,
    memory: DedupeIndex,
    attempts_max: u32,
    in_doubt: Option<InDoubtCommit>,
    metrics: Arc<Metrics>,
    /// Notified after each commit.
    committed: Arc<Notify>,
}

/// A written batch that is not known to be committed.
#[derive(Debug)]
struct InDoubtCommit {
    files: Vec<DataFile>,
    marks: Vec<EventKey>,
    progress: Vec<Progress>,
    /// The version against which its rows were deduped.
    seen: u64,
}

/// The outcome of a commit in doubt.
enum InDoubtOutcome {
    /// It is committed, in this version.
    At(u64),
    /// It is not committed, and must be deduped against the rows that others have added since.
    Behind(InDoubtCommit),
}

impl TableWriter {
    /// Opens a table writer, with the dedupe window rebuilt from the lake.
    pub(in crate::ingest) async fn open(
        table: Arc<Table>,
        quarantine: bool,
        key_hasher: EventKeyHasher,
        limits: &IngestConfig,
        metrics: Arc<Metrics>,
        committed: Arc<Notify>,
    ) -> Result<Self> {
        let ids_max = match quarantine {
            true => limits.dedupe_ids_max.max(QUARANTINE_IDS_MIN),
            false => limits.dedupe_ids_max,
        };
        let memory = DedupeIndex::open(table.clone(), key_hasher, ids_max).await?;
        Ok(Self { table, memory, attempts_max: limits.commit_attempts_max, in_doubt: None, metrics, committed })
    }

    /// Stores the rows of all requests in one commit and answers each.
    pub(super) async fn store(&mut self, mut requests: Vec<Pending>) {
        let outcome = match self.clear().await {
            Ok(()) => loop {
                requests = self.refuse_overtaken(requests);
                match self.store_together(&requests).await {
                    // A source was overtaken during the commit: the other requests are stored without it.
                    Err(error) if error.kind() == Kind::Conflict && requests.iter().any(|one| self.overtaken(one)) => {}
                    outcome => break outcome,
                }
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok(answers) => {
                for (Pending { part, reservation, reply, .. }, stored) in requests.into_iter().zip(answers) {
                    // Before the answer: its receiver may ask for the freshness of the table.
                    drop((part, reservation));
                    // A client that has disconnected will retry, and its events are then duplicates.
                    let _gone = reply.send(Ok(stored));
                }
            }
            Err(error) => refuse(self.name(), requests, &error),
        }
    }

    /// Makes a last attempt to resolve a commit in doubt.
    pub(super) async fn close(mut self: Box<Self>) {
        if let Err(error) = self.clear().await {
            tracing::warn!(
                table = self.name(),
                ?error,
                "stopped with a commit in doubt; its senders were asked to retry"
            );
        }
    }

    /// Resolves the commit in doubt of the previous batch, if any.
    async fn clear(&mut self) -> Result<()> {
        if self.in_doubt.is_none() {
            return Ok(());
        }
        match self.settle().await {
            Ok(InDoubtOutcome::At(_)) => Ok(()),
            Ok(InDoubtOutcome::Behind(in_doubt)) => {
                self.discard(Some(in_doubt)).await;
                tracing::warn!(
                    table = self.name(),
                    "a batch in doubt was not committed; its senders were asked to retry"
                );
                Ok(())
            }
            Err(error) if !may_still_happen(&error) => {
                tracing::warn!(
                    table = self.name(),
                    ?error,
                    "a batch in doubt was not committed; its senders were asked to retry"
                );
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses requests whose source was taken over by another server; returns the others.
    fn refuse_overtaken(&self, requests: Vec<Pending>) -> Vec<Pending> {
        let (overtaken, others): (Vec<_>, Vec<_>) = requests.into_iter().partition(|one| self.overtaken(one));
        for Pending { reservation, reply, .. } in overtaken {
            drop(reservation);
            let message = format!("table `{}`: another server has taken over this source", self.name());
            let _gone = reply.send(Err(Error::conflict(message)));
        }
        others
    }

    fn overtaken(&self, request: &Pending) -> bool {
        let snapshot = self.table.snapshot();
        request.progress.iter().any(|progress| !progress.fits(&snapshot))
    }

    async fn store_together(&mut self, requests: &[Pending]) -> Result<Vec<Stored>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let progress: Vec<Progress> = requests.iter().flat_map(|one| one.progress.iter().cloned()).collect();
        let parts: Vec<_> = requests.iter().map(|one| one.part.clone()).collect();
        let mut written: Option<InDoubtCommit> = None;
        for _ in 0..RACES_MAX {
            let DedupedBatch { rows, marks, counts, repeats, seen } = self.memory.compare(parts.clone()).await?;
            if rows.is_empty() && !progress.iter().any(Progress::moves) {
                self.discard(written).await;
                self.count(&repeats);
                return Ok(answers(&counts, 0));
            }
            let row_count = rows.len();
            let files = match written.take() {
                Some(before) if before.marks == marks => before.files,
                before => {
                    self.discard(before).await;
                    self.write(rows).await?
                }
            };
            self.in_doubt = Some(InDoubtCommit { files, marks, progress: progress.clone(), seen });
            match self.settle().await? {
                InDoubtOutcome::At(version) => {
                    self.metrics.committed(self.name(), row_count, begun.elapsed());
                    self.committed.notify_one();
                    self.count(&repeats);
                    return Ok(answers(&counts, version));
                }
                // Others have added rows since, which may include the same events.
                InDoubtOutcome::Behind(in_doubt) => written = Some(in_doubt),
            }
        }
        self.discard(written).await;
        let message = format!("table `{}`: {RACES_MAX} commit attempts in a row lost to other writers", self.name());
        Err(Error::unavailable(message))
    }

    async fn write(&self, rows: RowSelection) -> Result<Vec<DataFile>> {
        let mut pauses = RetryDelays::new(self.attempts_max);
        loop {
            let outcome = self.table.write(rows.clone()).await;
            self.count_failure(&outcome);
            match outcome {
                Err(error) if error.kind() == Kind::Unavailable && pauses.next().await => {
                    tracing::warn!(table = self.name(), ?error, "could not write a batch; trying again");
                }
                outcome => return outcome,
            }
        }
    }

    /// Commits the batch in doubt. After an error it stays in doubt, unless the lake has refused it permanently.
    async fn settle(&mut self) -> Result<InDoubtOutcome> {
        let in_doubt = self.in_doubt.take().ok_or_else(|| Error::internal("no commit is in doubt"))?;
        match self.commit(&in_doubt).await {
            Ok(Committed::At(version)) => {
                self.memory.remember(in_doubt.marks, in_doubt.files).await;
                Ok(InDoubtOutcome::At(version))
            }
            Ok(Committed::Behind) => Ok(InDoubtOutcome::Behind(in_doubt)),
            Err(error) => {
                self.in_doubt = Some(in_doubt).filter(|_| may_still_happen(&error));
                Err(error)
            }
        }
    }

    async fn commit(&self, in_doubt: &InDoubtCommit) -> Result<Committed> {
        let (files, progress) = (&in_doubt.files, &in_doubt.progress);
        let mut pauses = RetryDelays::new(self.attempts_max);
        loop {
            let outcome = self.table.commit_after(in_doubt.seen, files.clone(), progress.clone()).await;
            self.count_failure(&outcome);
            match outcome {
                Err(error) if may_still_happen(&error) && pauses.next().await => {
                    tracing::warn!(table = self.name(), ?error, "could not commit a batch; trying again");
                }
                outcome => return outcome,
            }
        }
    }

    fn count_failure<T>(&self, outcome: &Result<T>) {
        if outcome.as_ref().is_err_and(|error| error.kind() == Kind::Unavailable) {
            self.metrics.commit_failed(self.name());
        }
    }

    /// Deletes the files of a batch that will not be committed.
    async fn discard(&self, written: Option<InDoubtCommit>) {
        if let Some(InDoubtCommit { files, .. }) = written {
            self.table.discard(&files).await;
        }
    }

    /// Adds duplicate rows to the metrics.
    fn count(&self, repeats: &BTreeMap<String, Counts>) {
        for (tenant, Counts { repeated, conflict, .. }) in repeats {
            self.metrics.repeats(self.name(), tenant, repeated - conflict, *conflict);
        }
    }

    fn name(&self) -> &str {
        &self.table.contract().name
    }
}

/// Refuses requests that could not be stored, and logs the error.
pub(super) fn refuse(table: &str, requests: Vec<Pending>, error: &Error) {
    let incident = Uuid::new_v4();
    tracing::error!(%incident, table, requests = requests.len(), ?error, "a batch was not stored");
    for Pending { reservation, reply, .. } in requests {
        drop(reservation);
        let _gone = reply.send(Err(refusal(incident)));
    }
}

/// The answer to each request.
fn answers(counts: &[Counts], version: u64) -> Vec<Stored> {
    let answer = |counts: &Counts| Stored {
        accepted: counts.new,
        duplicate: counts.repeated,
        conflict: counts.conflict,
        version: if counts.new > 0 { version } else { 0 },
    };
    counts.iter().map(answer).collect()
}

/// Whether a commit that failed with this error may have happened, or may happen later.
fn may_still_happen(error: &Error) -> bool {
    !matches!(error.kind(), Kind::Conflict | Kind::Invalid | Kind::Unsupported)
}

/// A bounded number of increasing pauses between attempts.
struct RetryDelays {
    left: u32,
    pause: Duration,
}

impl RetryDelays {
    fn new(attempts_max: u32) -> Self {
        Self { left: attempts_max.saturating_sub(1), pause: PAUSE_MIN }
    }

    /// Waits if another attempt is left; returns whether one is.
    async fn next(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.left -= 1;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

/// The error sent to the requests of a failed batch. The log has the cause under the same incident id.
fn refusal(incident: Uuid) -> Error {
    let message =
        format!("the events could not be stored (incident {incident}): send them again; no event is stored twice");
    Error::unavailable(message).retry_after(RETRY_AFTER)
}
