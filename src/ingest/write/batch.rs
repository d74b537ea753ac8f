//! A batch being collected: the requests that share one commit, and when that commit is due.
//!
//! In: requests ([`Pending`]). Out: a [`Batch`] that is full, or due according to its [`Pace`].
//!
//! A request to an idle table is committed at once. Under load one commit per `batch_age_max` is made, even if the requests
//! are small: many tiny files would make the lake slow to read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::reservation::MemoryReservation;
use crate::error::Result;
use crate::ingest::dedupe::Part;
use crate::lake::Progress;

/// The number of commits in quick succession before the rate of one per `batch_age_max` applies.
const BURST_COMMITS: u32 = 8;

/// The outcome of one request's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Stored {
    /// Rows stored by this commit.
    pub(in crate::ingest) accepted: u64,
    /// Rows that were already stored.
    pub(in crate::ingest) duplicate: u64,
    /// Duplicate rows whose content differs from the stored one, as far as that is known.
    pub(in crate::ingest) conflict: u64,
    /// The table version that holds the rows; 0 if nothing was stored.
    pub(in crate::ingest) version: u64,
}

/// One request's rows, queued for a table. Only [`TableQueue`](super::queue::TableQueue) creates one.
#[derive(Debug)]
pub(in crate::ingest) struct Pending {
    /// The rows, with their event keys.
    pub(super) part: Arc<Part>,
    /// The source offsets to commit with the rows; empty for a client's request.
    pub(super) progress: Vec<Progress>,
    /// Whether the rows form a batch of their own, because more of the same source are waiting.
    pub(super) is_whole: bool,
    /// Their memory reservation, held until the answer.
    pub(super) reservation: MemoryReservation,
    /// The channel for the answer.
    pub(super) reply: oneshot::Sender<Result<Stored>>,
}

/// Requests that will share a commit.
#[derive(Debug)]
pub(super) struct Batch {
    /// In order of arrival.
    pub(super) requests: Vec<Pending>,
    rows: usize,
    bytes: usize,
    /// Whether one of the requests is a batch of its own.
    is_whole: bool,
    opened: Instant,
}

impl Batch {
    /// Creates a batch of one request.
    pub(super) fn open(first: Pending, now: Instant) -> Self {
        let mut batch = Self { requests: Vec::new(), rows: 0, bytes: 0, is_whole: false, opened: now };
        batch.push(first);
        batch
    }

    /// Adds a request.
    pub(super) fn push(&mut self, request: Pending) {
        self.rows += request.part.rows.num_rows();
        self.bytes += request.part.bytes;
        self.is_whole |= request.is_whole;
        self.requests.push(request);
    }

    /// Whether no more requests should be added. The last request may exceed the limits.
    pub(super) fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.is_whole || self.rows >= rows_max || self.bytes >= bytes_max
    }

    /// When its commit should begin, unless another commit is still running.
    pub(super) fn due(&self, pace: &Pace, now: Instant) -> Instant {
        pace.earliest(now).min(self.opened + pace.interval)
    }
}

/// Limits commits to one per interval on average, with a burst of [`BURST_COMMITS`] after an idle period.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// The time up to which the commits so far have used the allowed rate.
    used_until: Instant,
}

impl Pace {
    /// Creates an idle pace.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, used_until: now }
    }

    /// When the next commit may begin: `now` after an idle period.
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
