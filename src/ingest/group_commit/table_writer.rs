//! The table writer stores the batches of one table, one after another. Each batch goes through four steps: dedupe,
//! write, commit, answer.
//!
//! [`TableWriter::store`] takes the requests of a batch and answers each of them. If the batch cannot be stored, all of
//! its requests get the same error.
//!
//! If the response to a commit is lost, the commit is in doubt, because it may have succeeded. Before the table writer
//! starts the next batch, it resolves the in-doubt commit by committing the same draft again. The lake commits a draft
//! only once. In rare cases, the log no longer shows whether the draft was committed. Its rows are then deduped against
//! the newest version, which contains them if they were committed.
//!
//! Rows from a source are committed together with the source's progress. If another server has taken over the source,
//! only the source's request is refused. The other requests in the same batch are stored.
//!
//! The table writer dedupes a batch against one version of the table, and commits the batch only if no other server has
//! added rows since that version. Otherwise, it dedupes the batch against the added rows too, and tries the commit
//! again.
//!
//! **Invariant:** an event that is sent to two servers is stored once.
//! **Invariant:** no batch is deduped while the outcome of the previous batch is unknown.
//! **Invariant:** rows from a source are either committed together with the source's progress or not committed at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

use super::batch::{Pending, Stored};
use crate::config::IngestConfig;
use crate::error::{Error, Kind, Result};
use crate::ingest::dedupe::{Counts, DedupeIndex, DedupedBatch, EventKey, EventKeyHasher};
use crate::lake::{Committed, DataFile, Draft, Progress, RowSelection, Table};
use crate::telemetry::Metrics;

/// The pause after the first failed attempt. The pause doubles after each further failure, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The minimum number of ids in the dedupe window of a quarantine, even if `dedupe_ids_max` is lower. The rows in a
/// quarantine have no event times, so ids that are no longer in the window cannot be looked up in files.
const QUARANTINE_IDS_MIN: usize = 100_000;
/// The maximum number of commit attempts for one batch. An attempt fails if another writer commits first.
const RACES_MAX: usize = 100;
/// The delay before a retry, as given in the error for the requests of a failed batch.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes batches to one table. Owns the table's dedupe index, and the in-doubt commit if the outcome of the last
/// commit is unknown.
#[derive(Debug)]
pub(in crate::ingest) struct TableWriter {
    table: Arc<Table>,
    index: DedupeIndex,
    attempts_max: u32,
    in_doubt: Option<InDoubtCommit>,
    metrics: Arc<Metrics>,
    /// Notified after each commit to the table.
    committed: Arc<Notify>,
}

/// A batch whose files are written, but whose commit has an unknown outcome.
#[derive(Debug)]
struct InDoubtCommit {
    draft: Draft,
    keys: Vec<EventKey>,
    /// The table version against which the rows were deduped.
    compared_version: u64,
}

/// The outcome of an in-doubt commit.
enum InDoubtOutcome {
    /// The batch is committed in this table version.
    Committed(u64),
    /// The batch is not committed, because other servers have added rows since it was deduped. It must be deduped
    /// against these rows too.
    Outdated(InDoubtCommit),
    /// The log no longer shows whether the batch is committed. It must be deduped against the newest version.
    Unknown,
    /// The batch is not committed, because its files are too old. Its rows must be written anew.
    Expired,
    /// The batch was committed, but the store has lost some of its files. Its rows must be stored anew.
    Lost,
}

impl TableWriter {
    /// Opens a table writer and builds its dedupe index from the lake.
    pub(in crate::ingest) async fn open(
        table: Arc<Table>,
        is_quarantine: bool,
        key_hasher: EventKeyHasher,
        limits: &IngestConfig,
        metrics: Arc<Metrics>,
        committed: Arc<Notify>,
    ) -> Result<Self> {
        let ids_max = match is_quarantine {
            true => limits.dedupe_ids_max.max(QUARANTINE_IDS_MIN),
            false => limits.dedupe_ids_max,
        };
        let index = DedupeIndex::open(table.clone(), key_hasher, ids_max).await?;
        Ok(Self { table, index, attempts_max: limits.commit_attempts_max, in_doubt: None, metrics, committed })
    }

    /// Stores the rows of all requests in one commit and answers each request.
    pub(super) async fn store(&mut self, mut requests: Vec<Pending>) {
        let outcome = match self.resolve_in_doubt().await {
            Ok(()) => loop {
                requests = self.refuse_taken_over(requests);
                match self.try_store(&requests).await {
                    // Another server took over a source during the commit. The next iteration stores the requests from
                    // other sources and clients.
                    Err(error)
                        if error.kind() == Kind::Conflict
                            && requests.iter().any(|request| self.is_taken_over(request)) => {}
                    outcome => break outcome,
                }
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok(answers) => {
                for (Pending { prepared, reservation, reply, .. }, stored) in requests.into_iter().zip(answers) {
                    // The rows must not count as in flight when the sender receives the answer, because the sender may
                    // then ask for the table's freshness.
                    drop((prepared, reservation));
                    // Sending the answer fails if the client has disconnected. That is harmless: if the client sends
                    // the events again, they are recognized as duplicates.
                    let _gone = reply.send(Ok(stored));
                }
            }
            Err(error) => refuse(self.name(), requests, &error),
        }
    }

    /// Closes the table writer. If a commit is in doubt, first tries once more to resolve it.
    pub(super) async fn close(mut self: Box<Self>) {
        if let Err(error) = self.resolve_in_doubt().await {
            tracing::warn!(
                table = self.name(),
                ?error,
                "stopped without knowing whether the last batch was committed; its senders were asked to retry"
            );
        }
    }

    /// Resolves the in-doubt commit of the previous batch, if there is one.
    async fn resolve_in_doubt(&mut self) -> Result<()> {
        if self.in_doubt.is_none() {
            return Ok(());
        }
        match self.commit_in_doubt().await {
            Ok(InDoubtOutcome::Committed(_)) => return Ok(()),
            Ok(InDoubtOutcome::Outdated(in_doubt)) => self.discard(Some(in_doubt)).await,
            Ok(InDoubtOutcome::Unknown | InDoubtOutcome::Expired | InDoubtOutcome::Lost) => {}
            Err(error) if self.in_doubt.is_some() => return Err(error),
            Err(error) => tracing::debug!(table = self.name(), ?error, "an in-doubt commit was refused"),
        }
        tracing::warn!(
            table = self.name(),
            "the previous batch may not have been committed; its senders were asked to retry"
        );
        Ok(())
    }

    /// Refuses the requests from sources that another server has taken over, and returns the other requests.
    fn refuse_taken_over(&self, requests: Vec<Pending>) -> Vec<Pending> {
        let (taken_over, others): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| self.is_taken_over(request));
        for Pending { reservation, reply, .. } in taken_over {
            drop(reservation);
            let message = format!("table `{}`: another server has taken over this source", self.name());
            let _gone = reply.send(Err(Error::conflict(message)));
        }
        others
    }

    fn is_taken_over(&self, request: &Pending) -> bool {
        let snapshot = self.table.snapshot();
        request.progress.iter().any(|progress| !progress.fits(&snapshot))
    }

    /// Dedupes, writes and commits the rows of all requests. Returns the answer to each request.
    async fn try_store(&mut self, requests: &[Pending]) -> Result<Vec<Stored>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let mut progress: Vec<Progress> =
            requests.iter().flat_map(|request| request.progress.iter().cloned()).collect();
        let prepared: Vec<_> = requests.iter().map(|request| request.prepared.clone()).collect();
        let mut previous: Option<InDoubtCommit> = None;
        for _ in 0..RACES_MAX {
            let DedupedBatch { rows, keys, counts, duplicates, compared_version } =
                self.index.compare(prepared.clone()).await?;
            if rows.is_empty() && !progress.iter().any(Progress::moves) {
                self.discard(previous).await;
                self.count_duplicates(&duplicates);
                return Ok(answers(&counts, 0));
            }
            let row_count = rows.len();
            let draft = match previous.take() {
                Some(previous) if previous.keys == keys => previous.draft,
                previous => {
                    self.discard(previous).await;
                    self.table.draft(self.write(rows).await?, progress.clone())?
                }
            };
            self.in_doubt = Some(InDoubtCommit { draft, keys, compared_version });
            match self.commit_in_doubt().await? {
                InDoubtOutcome::Committed(version) => {
                    self.metrics.committed(self.name(), row_count, started.elapsed());
                    self.committed.notify_one();
                    self.count_duplicates(&duplicates);
                    return Ok(answers(&counts, version));
                }
                // Other servers have added rows since the batch was deduped, and these rows may include events of the
                // batch.
                InDoubtOutcome::Outdated(in_doubt) => previous = Some(in_doubt),
                InDoubtOutcome::Unknown | InDoubtOutcome::Expired => {}
                // The lost commit has moved the progress. If it could not be set back, the rows are stored without it.
                InDoubtOutcome::Lost => {
                    let snapshot = self.table.snapshot();
                    progress.retain(|progress| progress.fits(&snapshot));
                }
            }
        }
        self.discard(previous).await;
        let message =
            format!("table `{}`: other writers committed first {RACES_MAX} times in a row: retry", self.name());
        Err(Error::unavailable(message))
    }

    async fn write(&self, rows: RowSelection) -> Result<Vec<DataFile>> {
        let mut delays = RetryDelays::new(self.attempts_max);
        loop {
            let outcome = self.table.write(rows.clone()).await;
            self.count_failure(&outcome);
            match outcome {
                Err(error) if error.kind() == Kind::Unavailable && delays.next().await => {
                    tracing::warn!(table = self.name(), ?error, "could not write a batch; trying again");
                }
                outcome => return outcome,
            }
        }
    }

    /// Commits the in-doubt batch. If the commit fails, the batch stays in doubt, unless the log shows that the batch
    /// is not committed and never will be.
    async fn commit_in_doubt(&mut self) -> Result<InDoubtOutcome> {
        let mut in_doubt = self.in_doubt.take().ok_or_else(|| Error::internal("there is no in-doubt commit"))?;
        match self.commit(&mut in_doubt).await {
            Ok(Committed::At(version)) => {
                self.index.add_committed(in_doubt.keys, in_doubt.draft.files().to_vec()).await;
                Ok(InDoubtOutcome::Committed(version))
            }
            Ok(Committed::Behind) => Ok(InDoubtOutcome::Outdated(in_doubt)),
            Ok(Committed::Unknown) => {
                tracing::warn!(table = self.name(), "it is unknown whether a batch was committed; comparing it again");
                self.index.reset();
                Ok(InDoubtOutcome::Unknown)
            }
            Ok(Committed::Expired) => {
                tracing::warn!(
                    table = self.name(),
                    "the files of a batch are too old to be committed; writing them again"
                );
                self.discard(Some(in_doubt)).await;
                Ok(InDoubtOutcome::Expired)
            }
            Ok(Committed::Lost) => {
                self.index.reset();
                Ok(InDoubtOutcome::Lost)
            }
            Err(error) => {
                match in_doubt.draft.may_be_committed() {
                    true => self.in_doubt = Some(in_doubt),
                    false => self.discard(Some(in_doubt)).await,
                }
                Err(error)
            }
        }
    }

    async fn commit(&self, in_doubt: &mut InDoubtCommit) -> Result<Committed> {
        let mut delays = RetryDelays::new(self.attempts_max);
        loop {
            let outcome = self.table.commit_after(in_doubt.compared_version, &mut in_doubt.draft).await;
            self.count_failure(&outcome);
            match outcome {
                Err(error) if is_temporary(&error) && delays.next().await => {
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

    /// Deletes the files of a batch that will not be committed. If `batch` is `None`, does nothing.
    async fn discard(&self, batch: Option<InDoubtCommit>) {
        if let Some(InDoubtCommit { draft, .. }) = batch {
            self.table.discard(draft).await;
        }
    }

    /// Adds the duplicates of each tenant to the metrics.
    fn count_duplicates(&self, duplicates: &BTreeMap<String, Counts>) {
        for (tenant, Counts { duplicate, conflict, .. }) in duplicates {
            self.metrics.repeats(self.name(), tenant, duplicate - conflict, *conflict);
        }
    }

    fn name(&self) -> &str {
        &self.table.contract().name
    }
}

/// Answers the requests of a failed batch with an error, and logs `error`.
pub(super) fn refuse(table: &str, requests: Vec<Pending>, error: &Error) {
    let incident = Uuid::new_v4();
    tracing::error!(%incident, table, requests = requests.len(), ?error, "a batch was not stored");
    for Pending { reservation, reply, .. } in requests {
        drop(reservation);
        let _gone = reply.send(Err(refusal(incident)));
    }
}

/// Returns the answer to each request of a batch that was committed in `version`.
fn answers(counts: &[Counts], version: u64) -> Vec<Stored> {
    let answer = |counts: &Counts| Stored {
        accepted: counts.new,
        duplicate: counts.duplicate,
        conflict: counts.conflict,
        version: if counts.new > 0 { version } else { 0 },
    };
    counts.iter().map(answer).collect()
}

/// Returns true if a commit that failed with this error may succeed if it is tried again.
fn is_temporary(error: &Error) -> bool {
    !matches!(error.kind(), Kind::Conflict | Kind::Invalid | Kind::Unsupported)
}

/// The pauses between a limited number of attempts. Each pause is twice as long as the previous one, up to
/// [`PAUSE_MAX`].
struct RetryDelays {
    left: u32,
    pause: Duration,
}

impl RetryDelays {
    fn new(attempts_max: u32) -> Self {
        Self { left: attempts_max.saturating_sub(1), pause: PAUSE_MIN }
    }

    /// If an attempt is left, waits for the pause and returns true. Otherwise returns false immediately.
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

/// Creates the error for the requests of a failed batch. The log entry with the same incident id contains the cause.
fn refusal(incident: Uuid) -> Error {
    let message =
        format!("the events could not be stored (incident {incident}): send them again; no event is stored twice");
    Error::unavailable(message).retry_after(RETRY_AFTER)
}
