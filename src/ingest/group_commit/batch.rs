//! A batch collects the requests that will share a commit, and determines when that commit is due.
//!
//! The committer adds requests ([`Pending`]) to a [`Batch`] until the batch is full or its commit is due according to
//! the [`Pace`].
//!
//! A request to an idle table is committed immediately. Under load, the committer makes only one commit per
//! `batch_age_max`, however small the requests are, because many small files would slow down queries.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::reservation::MemoryReservation;
use crate::error::Result;
use crate::ingest::dedupe::PreparedRows;
use crate::lake::Progress;

/// The number of commits that may begin without a delay between them. Later commits are limited to one per
/// `batch_age_max`.
const BURST_COMMITS: u32 = 8;

/// The outcome of one request's commit: how many of its rows were stored, and how many were duplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Stored {
    /// The number of rows that the commit stored.
    pub(in crate::ingest) accepted: u64,
    /// The number of rows that were already stored.
    pub(in crate::ingest) duplicate: u64,
    /// The number of duplicates whose content is known to differ from the stored row.
    pub(in crate::ingest) conflict: u64,
    /// The table version that contains the rows, or 0 if the commit stored none of them.
    pub(in crate::ingest) version: u64,
}

/// One request's rows in a table's queue. Only [`TableQueue`](super::queue::TableQueue) creates a `Pending`.
#[derive(Debug)]
pub(in crate::ingest) struct Pending {
    /// The rows and their event keys.
    pub(super) prepared: Arc<PreparedRows>,
    /// The source offsets that are committed with the rows. Empty for requests from clients.
    pub(super) progress: Vec<Progress>,
    /// True if the batch must be committed without waiting for more requests. This field is set for a source that has
    /// more rows to store, because the source waits for this commit before it continues.
    pub(super) is_separate: bool,
    /// The memory reservation for the rows, which is held until the request is answered.
    pub(super) reservation: MemoryReservation,
    /// The channel for the answer.
    pub(super) reply: oneshot::Sender<Result<Stored>>,
}

/// Requests that will share a commit.
#[derive(Debug)]
pub(super) struct Batch {
    /// The requests in order of arrival.
    pub(super) requests: Vec<Pending>,
    rows: usize,
    bytes: usize,
    /// True if one of the requests must be committed immediately, without waiting for more requests.
    is_separate: bool,
    opened: Instant,
}

impl Batch {
    /// Creates a batch with one request.
    pub(super) fn open(first: Pending, now: Instant) -> Self {
        let mut batch = Self { requests: Vec::new(), rows: 0, bytes: 0, is_separate: false, opened: now };
        batch.push(first);
        batch
    }

    /// Adds a request.
    pub(super) fn push(&mut self, request: Pending) {
        self.rows += request.prepared.rows.num_rows();
        self.bytes += request.prepared.bytes;
        self.is_separate |= request.is_separate;
        self.requests.push(request);
    }

    /// Returns true if no more requests may be added. The last request may make the batch exceed the limits.
    pub(super) fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.is_separate || self.rows >= rows_max || self.bytes >= bytes_max
    }

    /// Returns the time at which the commit is due. The commit begins later if the previous commit is still running at
    /// that time.
    pub(super) fn due(&self, pace: &Pace, now: Instant) -> Instant {
        pace.earliest(now).min(self.opened + pace.interval)
    }
}

/// Limits the average rate of a table's commits to one per interval. After an idle period, allows a burst of
/// [`BURST_COMMITS`] commits.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// The time after which a full burst is available again. Each commit delays this time by one interval.
    used_until: Instant,
}

impl Pace {
    /// Creates a pace for a table without recent commits.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, used_until: now }
    }

    /// Returns the earliest time at which the next commit may begin. After an idle period, this time is `now`.
    fn earliest(&self, now: Instant) -> Instant {
        let credit = self.interval * (BURST_COMMITS - 1);
        now + self.used_until.saturating_duration_since(now).saturating_sub(credit)
    }

    /// Records that a commit begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.used_until = self.used_until.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_idle_period_allows_a_burst_and_load_keeps_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(SECOND, start);
        for rest in [0, 1_000] {
            let mut now = start + SECOND * rest;
            for commit in 0..BURST_COMMITS {
                assert_eq!(pace.earliest(now), now, "commit {commit} of a burst does not wait");
                pace.begin(now);
            }
            for _ in 0..20 {
                assert_eq!(pace.earliest(now), now + SECOND);
                now += SECOND;
                pace.begin(now);
            }
        }
    }

    #[test]
    fn early_commits_of_full_batches_delay_later_commits() {
        let now = Instant::now();
        let mut pace = Pace::new(SECOND, now);
        for _ in 0..BURST_COMMITS + 5 {
            pace.begin(now);
        }
        assert_eq!(pace.earliest(now), now + SECOND * 6);
    }
}
