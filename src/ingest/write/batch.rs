//! A batch in the making: requests that share one commit, and when that commit is due.
//!
//! In: requests ([`Pending`]). Out: a [`Batch`] that is full, or due by [`Pace`].
//!
//! A request that finds its table at rest is committed at once. Under load commits follow each other once per
//! `batch_age_max`, however small the requests are: a lake of many tiny files would be slow to read for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::reservation::MemoryReservation;
use crate::error::Result;
use crate::ingest::dedupe::Part;
use crate::lake::Progress;

/// Commits in quick succession before the pace of one per `batch_age_max` holds.
const BURST_COMMITS: u32 = 8;

/// What became of one request's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Stored {
    /// Rows stored now.
    pub(in crate::ingest) accepted: u64,
    /// Rows stored before.
    pub(in crate::ingest) duplicate: u64,
    /// Of these, rows with another content, as far as it is known.
    pub(in crate::ingest) conflict: u64,
    /// The version that holds them; 0 when nothing was stored.
    pub(in crate::ingest) version: u64,
}

/// One request's rows on their way into a table. Only [`TableQueue`](super::queue::TableQueue) makes one.
#[derive(Debug)]
pub(in crate::ingest) struct Pending {
    /// The rows.
    pub(super) part: Arc<Part>,
    /// How far a source has come with them; a request has none.
    pub(super) progress: Vec<Progress>,
    /// They are a batch of their own: more is waiting behind them.
    pub(super) is_whole: bool,
    /// Their room in the queue, held until the answer.
    pub(super) reservation: MemoryReservation,
    /// Where the answer goes.
    pub(super) reply: oneshot::Sender<Result<Stored>>,
}

/// Requests that will share a commit.
#[derive(Debug)]
pub(super) struct Batch {
    /// In order of arrival.
    pub(super) requests: Vec<Pending>,
    rows: usize,
    bytes: usize,
    /// One of them is a batch of its own.
    is_whole: bool,
    opened: Instant,
}

impl Batch {
    /// A batch of one.
    pub(super) fn open(first: Pending, now: Instant) -> Self {
        let mut batch = Self { requests: Vec::new(), rows: 0, bytes: 0, is_whole: false, opened: now };
        batch.push(first);
        batch
    }

    /// Takes one more request.
    pub(super) fn push(&mut self, request: Pending) {
        self.rows += request.part.rows.num_rows();
        self.bytes += request.part.bytes;
        self.is_whole |= request.is_whole;
        self.requests.push(request);
    }

    /// Whether it takes no more. It may be over its bounds by one request.
    pub(super) fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.is_whole || self.rows >= rows_max || self.bytes >= bytes_max
    }

    /// When its commit should begin, if nothing else is being committed.
    pub(super) fn due(&self, pace: &Pace, now: Instant) -> Instant {
        pace.earliest(now).min(self.opened + pace.interval)
    }
}

/// One commit an interval on average, and a burst of [`BURST_COMMITS`] after a rest.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// The time up to which the commits so far have used up their share.
    used_until: Instant,
}

impl Pace {
    /// A pace that is at rest.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, used_until: now }
    }

    /// When the next commit may begin: `now` after a rest.
    fn earliest(&self, now: Instant) -> Instant {
        let credit = self.interval * (BURST_COMMITS - 1);
        now + self.used_until.saturating_duration_since(now).saturating_sub(credit)
    }

    /// A commit begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.used_until = self.used_until.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rest_earns_a_burst_and_load_keeps_the_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(SECOND, start);
        for rest in [0, 1_000] {
            let mut now = start + SECOND * rest;
            for commit in 0..BURST_COMMITS {
                assert_eq!(pace.earliest(now), now, "commit {commit} of a burst is at once");
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
    fn an_early_start_of_a_full_batch_is_paid_back_later() {
        let now = Instant::now();
        let mut pace = Pace::new(SECOND, now);
        for _ in 0..BURST_COMMITS + 5 {
            pace.begin(now);
        }
        assert_eq!(pace.earliest(now), now + SECOND * 6);
    }
}
