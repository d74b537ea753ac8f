//! Stores one batch after the other: dedupe, write, commit, answer.
//!
//! In: the requests of a batch. Out: an answer to each; the same error to all when the batch could not be stored.
//!
//! A commit whose answer is lost may have happened. The keeper therefore never turns to the next batch before it knows:
//! the same files are committed again, which the lake counts once.
//!
//! **Invariant:** ids enter the window when, and only when, their rows are committed.
//! **Invariant:** no batch is deduped while it is unknown what became of the one before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use tokio::sync::Notify;
use uuid::Uuid;

use super::batch::{Pending, Stored};
use super::dedupe::{IdHash, Keyer, Part, Sifted, Window, sift};
use crate::config::IngestConfig;
use crate::contract::Contract;
use crate::error::{Error, Kind, Result};
use crate::lake::{DataFile, Table};
use crate::telemetry::Metrics;

/// The pause after the first failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// When a request of a failed batch is worth sending again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Keeps a table's window and its place in the log.
#[derive(Debug)]
pub(super) struct Keeper {
    table: Arc<Table>,
    keyer: Keyer,
    /// None after a fault in the middle of a dedupe: it is rebuilt from the lake.
    window: Option<Window>,
    ids_max: usize,
    attempts_max: u32,
    unsettled: Option<Unsettled>,
    metrics: Arc<Metrics>,
    /// Told after each commit.
    committed: Arc<Notify>,
}

/// A written batch that is not known to be committed.
#[derive(Debug)]
struct Unsettled {
    files: Vec<DataFile>,
    ids: Vec<IdHash>,
}

impl Keeper {
    /// A keeper with the window rebuilt from the lake.
    pub(super) async fn open(
        table: Arc<Table>,
        keyer: Keyer,
        limits: &IngestConfig,
        metrics: Arc<Metrics>,
        committed: Arc<Notify>,
    ) -> Result<Self> {
        let mut keeper = Self {
            table,
            keyer,
            window: None,
            ids_max: limits.dedupe_ids_max,
            attempts_max: limits.commit_attempts_max,
            unsettled: None,
            metrics,
            committed,
        };
        keeper.window = Some(keeper.rebuild().await?);
        Ok(keeper)
    }

    /// Stores the rows of all requests in one commit and answers each.
    pub(super) async fn store(&mut self, requests: Vec<Pending>) {
        let (parts, waiting): (Vec<_>, Vec<_>) =
            requests.into_iter().map(|request| (request.part, (request.room, request.reply))).unzip();
        match self.store_parts(parts).await {
            Ok(answers) => {
                for ((room, reply), stored) in waiting.into_iter().zip(answers) {
                    drop(room);
                    // Whoever has gone meanwhile will ask again, and be told of duplicates.
                    let _gone = reply.send(Ok(stored));
                }
            }
            Err(error) => {
                let incident = Uuid::new_v4();
                tracing::error!(%incident, table = self.name(), requests = waiting.len(), ?error, "a batch was not stored");
                for (room, reply) in waiting {
                    drop(room);
                    let _gone = reply.send(Err(refusal(incident)));
                }
            }
        }
    }

    /// Makes a last attempt to settle a batch whose commit is in doubt.
    pub(super) async fn close(mut self: Box<Self>) {
        if let Err(error) = self.settle().await {
            tracing::warn!(
                table = self.name(),
                ?error,
                "stopped with a commit in doubt: its senders were told to retry"
            );
        }
    }

    async fn store_parts(&mut self, parts: Vec<Part>) -> Result<Vec<Stored>> {
        let begun = Instant::now();
        self.settle().await?;
        let sizes: Vec<usize> = parts.iter().map(|part| part.ids.len()).collect();
        let Sifted { rows, ids, kept } = self.sift(parts).await?;
        let row_count = rows.num_rows();
        let mut version = 0;
        if row_count > 0 {
            let files = self.write(rows).await?;
            self.unsettled = Some(Unsettled { files, ids });
            version = self.settle().await?;
            self.metrics.committed(self.name(), row_count, begun.elapsed());
            self.committed.notify_one();
        }
        let answer = |(size, kept): (usize, usize)| Stored {
            accepted: kept as u64,
            duplicate: (size - kept) as u64,
            version: if kept > 0 { version } else { 0 },
        };
        Ok(sizes.into_iter().zip(kept).map(answer).collect())
    }

    /// Drops duplicates, on the blocking pool: the window goes there and comes back.
    async fn sift(&mut self, parts: Vec<Part>) -> Result<Sifted> {
        let window = match self.window.take() {
            Some(window) => window,
            None => self.rebuild().await?,
        };
        let sifting = tokio::task::spawn_blocking(move || {
            let sifted = sift(&window, &parts);
            (window, sifted)
        });
        let (window, sifted) =
            sifting.await.map_err(|cause| Error::internal("dropping duplicates failed").with_source(cause))?;
        self.window = Some(window);
        sifted
    }

    async fn write(&self, rows: RecordBatch) -> Result<Vec<DataFile>> {
        let mut pauses = Pauses::new(self.attempts_max);
        loop {
            match self.table.write(rows.clone()).await {
                Err(error) if error.kind() == Kind::Unavailable && pauses.next().await => {
                    tracing::warn!(table = self.name(), ?error, "could not write a batch, trying again");
                }
                outcome => return outcome,
            }
        }
    }

    /// Commits the unsettled batch, if there is one; returns its version. After an error it stays unsettled, unless the
    /// lake has refused it for good.
    async fn settle(&mut self) -> Result<u64> {
        let Some(unsettled) = &self.unsettled else { return Ok(0) };
        let outcome = self.commit(&unsettled.files).await;
        let stored = outcome.is_ok();
        let refused = outcome.as_ref().is_err_and(|error| !may_still_happen(error));
        let settled = self.unsettled.take_if(|_| stored || refused);
        if let (true, Some(settled)) = (stored, settled) {
            self.remember(settled.ids).await;
        }
        outcome
    }

    /// Lets committed ids into the window.
    async fn remember(&mut self, ids: Vec<IdHash>) {
        let Some(mut window) = self.window.take() else { return };
        // On the blocking pool: a window that grows moves all its ids.
        let remembering = tokio::task::spawn_blocking(move || {
            window.extend(ids);
            window
        });
        self.window = remembering.await.ok();
    }

    async fn commit(&self, files: &[DataFile]) -> Result<u64> {
        let mut pauses = Pauses::new(self.attempts_max);
        loop {
            match self.table.commit(files.to_vec(), Vec::new()).await {
                Err(error) if may_still_happen(&error) && pauses.next().await => {
                    tracing::warn!(table = self.name(), ?error, "could not commit a batch, trying again");
                }
                outcome => return outcome,
            }
        }
    }

    /// The newest ids of the lake. They come newest first and enter oldest first.
    async fn rebuild(&self) -> Result<Window> {
        let newest_first = self.table.recent(self.ids_max).await?;
        let (contract, keyer, ids_max) = (self.table.contract().clone(), self.keyer, self.ids_max);
        let rebuilding = tokio::task::spawn_blocking(move || {
            let mut window = Window::new(ids_max);
            for rows in newest_first.into_iter().rev() {
                let (tenant, id) =
                    (position(&rows, &contract, contract.tenant)?, position(&rows, &contract, contract.id)?);
                window.extend(keyer.hashes(&rows, tenant, id)?);
            }
            Ok(window)
        });
        let window: Result<Window> =
            rebuilding.await.map_err(|cause| Error::internal("rebuilding the window failed").with_source(cause))?;
        let window = window?;
        tracing::debug!(table = self.name(), ids = window.len(), "rebuilt the dedupe window");
        Ok(window)
    }

    fn name(&self) -> &str {
        &self.table.contract().name
    }
}

/// Whether a commit that failed so may have gone through, or may go through later.
fn may_still_happen(error: &Error) -> bool {
    !matches!(error.kind(), Kind::Conflict | Kind::Invalid | Kind::Unsupported)
}

/// A bounded number of growing pauses.
struct Pauses {
    left: u32,
    pause: Duration,
}

impl Pauses {
    fn new(attempts_max: u32) -> Self {
        Self { left: attempts_max.saturating_sub(1), pause: PAUSE_MIN }
    }

    /// Waits, and says whether another attempt is left.
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

/// Where a column of the contract stands in rows that hold only some columns.
fn position(rows: &RecordBatch, contract: &Contract, column: usize) -> Result<usize> {
    let name = &contract.columns[column].name;
    rows.schema().index_of(name).map_err(|cause| Error::internal(format!("no column `{name}`")).with_source(cause))
}

/// What the senders of a failed batch are told. The log knows more under the same incident.
fn refusal(incident: Uuid) -> Error {
    let message =
        format!("the events could not be stored (incident {incident}): send them again, none is stored twice");
    Error::unavailable(message).retry_after(RETRY_AFTER)
}
