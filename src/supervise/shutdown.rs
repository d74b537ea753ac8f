//! Shutdown within a time limit: two signals to the endpoints, and one deadline for the whole shutdown.
//!
//! ```text
//!   0 ───────────────── 60 % ──── 66 % ─────────────────── 90 % ──── 95 % ──── 100 % of `shutdown.time_max`
//!   endpoints and sources  │ clients │ admitted events are   │ other   │ the process
//!   finish what runs       │ are cut │ committed             │ tasks   │ ends
//! ```
//!
//! Each step begins as soon as the previous one is done, and ends at its own deadline at the latest: so a client that hangs
//! cannot use up the time that the last commits need.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The deadlines of the steps, in percent of the whole time.
const DRAIN_PERCENT: u32 = 60;
const CUT_PERCENT: u32 = 66;
const COMMIT_PERCENT: u32 = 90;
const END_PERCENT: u32 = 95;

/// The shutdown signals to an endpoint.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Accept no new connections or requests, and finish the running ones.
    pub asked: CancellationToken,
    /// Cut all running requests: their time is over.
    pub cut: CancellationToken,
}

/// The deadline of each step of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Running requests and batches of sources finish.
    pub drain: Instant,
    /// Cut connections close.
    pub cut: Instant,
    /// The last commits finish.
    pub commit: Instant,
    /// All other tasks end.
    pub end: Instant,
}

impl From<CancellationToken> for Stop {
    fn from(asked: CancellationToken) -> Self {
        Self { asked, cut: CancellationToken::new() }
    }
}

impl Deadline {
    /// The deadlines of a shutdown that begins at `begun` and may take `time_max`.
    pub fn new(begun: Instant, time_max: Duration) -> Self {
        let at = |percent: u32| begun + time_max / 100 * percent;
        Self { drain: at(DRAIN_PERCENT), cut: at(CUT_PERCENT), commit: at(COMMIT_PERCENT), end: at(END_PERCENT) }
    }
}
