//! The deadlines of a shutdown, and the two signals that a shutdown sends to the endpoints.
//!
//! ```text
//!   0 ───────────────── 60 % ──── 66 % ─────────────────── 90 % ──── 95 % ──── 100 % of `shutdown.time_max`
//!   requests and batches   │ clients │ admitted events are   │ other   │ the process
//!   finish                 │ cut off │ committed             │ tasks   │ ends
//! ```
//!
//! Each step begins as soon as the previous step is done, and ends no later than its own deadline. A client that hangs
//! therefore cannot delay the last commits.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The deadlines of the steps, as percentages of the total time.
const DRAIN_PERCENT: u32 = 60;
const CUT_PERCENT: u32 = 66;
const COMMIT_PERCENT: u32 = 90;
const END_PERCENT: u32 = 95;

/// The signals that an endpoint receives during a shutdown.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Asks the endpoint to accept no new connections or requests, and to finish the running requests.
    pub asked: CancellationToken,
    /// Asks the endpoint to abort all running requests, because their deadline has passed.
    pub cut: CancellationToken,
}

/// The deadline of each step of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The deadline for running requests and source batches to finish.
    pub drain: Instant,
    /// The deadline for aborted connections to close.
    pub cut: Instant,
    /// The deadline for the last commits.
    pub commit: Instant,
    /// The deadline for all other tasks to end.
    pub end: Instant,
}

impl From<CancellationToken> for Stop {
    fn from(asked: CancellationToken) -> Self {
        Self { asked, cut: CancellationToken::new() }
    }
}

impl Deadline {
    /// Computes the deadlines of a shutdown that begins at `begun` and takes at most `time_max`.
    pub fn new(begun: Instant, time_max: Duration) -> Self {
        let at = |percent: u32| begun + time_max / 100 * percent;
        Self { drain: at(DRAIN_PERCENT), cut: at(CUT_PERCENT), commit: at(COMMIT_PERCENT), end: at(END_PERCENT) }
    }
}
