//! A batch in the making: requests that share one commit, and when that commit is due.
//!
//! In: requests ([`Pending`]). Out: a [`Batch`] that is full, or due by [`Pace`].
//!
//! A request that finds its table at rest is committed at once. Under load commits follow each other once per
//! `batch_age_max`, however small the requests are: a lake of many tiny files would be slow to read for ever.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::dedupe::Part;
use super::room::Room;
use crate::error::Result;

/// Commits in quick succession before the pace of one per `batch_age_max` holds.
const BURST_COMMITS: u32 = 8;

/// What became of one request's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Rows stored now.
    pub(super) accepted: u64,
    /// Rows stored before.
    pub(super) duplicate: u64,
    /// The version that holds them; 0 when nothing was stored.
    pub(super) version: u64,
}

/// One request's rows on their way into a table.
#[derive(Debug)]
pub(super) struct Pending {
    /// The rows.
    pub(super) part: Part,
    /// What they take of the memory.
    pub(super) bytes: usize,
    /// Their room in the queue, held until the answer.
    pub(super) room: Room,
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
    opened: Instant,
}

impl Batch {
    /// A batch of one.
    pub(super) fn open(first: Pending, now: Instant) -> Self {
        let mut batch = Self { requests: Vec::new(), rows: 0, bytes: 0, opened: now };
        batch.push(first);
        batch
    }

    /// Takes one more request.
    pub(super) fn push(&mut self, request: Pending) {
        self.rows += request.part.rows.num_rows();
        self.bytes += request.bytes;
        self.requests.push(request);
    }

    /// Whether it takes no more. It may be over its bounds by one request.
    pub(super) fn is_full(&self, rows_max: usize, bytes_max: usize) -> bool {
        self.rows >= rows_max || self.bytes >= bytes_max
    }

    /// When its commit should begin, if nothing else is being committed.
    pub(super) fn due(&self, pace: &Pace) -> Instant {
        pace.earliest().min(self.opened + pace.interval)
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

    /// When the next commit may begin.
    fn earliest(&self) -> Instant {
        let credit = self.interval * (BURST_COMMITS - 1);
        self.used_until.checked_sub(credit).unwrap_or(self.used_until)
    }

    /// A commit begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.used_until = self.used_until.max(now) + self.interval;
    }
}
