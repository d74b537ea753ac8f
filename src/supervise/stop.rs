//! How a server stops in time: two signals to its endpoints, and one deadline for all of it.
//!
//! ```text
//!   0 ───────────────── 60 % ──── 66 % ─────────────────── 90 % ──── 95 % ──── 100 % of `shutdown.time_max`
//!   endpoints and sources  │ clients │ admitted events are   │ other   │ the process
//!   finish what runs       │ are cut │ committed             │ tasks   │ ends
//! ```
//!
//! Each step begins as soon as the one before it is done, and ends at its mark at the latest: so a client that hangs cannot
//! take the time that the last commits need.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The marks, in percent of the whole time.
const DRAIN_PERCENT: u32 = 60;
const CUT_PERCENT: u32 = 66;
const COMMIT_PERCENT: u32 = 90;
const END_PERCENT: u32 = 95;

/// What an endpoint is told when the server stops.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Accept nothing more, and finish what runs.
    pub asked: CancellationToken,
    /// Cut what still runs: its clients have had their time.
    pub cut: CancellationToken,
}

/// When each step of a stop has to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Running requests and batches of sources.
    pub drain: Instant,
    /// Connections that were cut.
    pub cut: Instant,
    /// The last commits.
    pub commit: Instant,
    /// All other tasks.
    pub end: Instant,
}

impl From<CancellationToken> for Stop {
    fn from(asked: CancellationToken) -> Self {
        Self { asked, cut: CancellationToken::new() }
    }
}

impl Deadline {
    /// Of a stop that begins at `begun` and may take `time_max`.
    pub fn new(begun: Instant, time_max: Duration) -> Self {
        let at = |percent: u32| begun + time_max / 100 * percent;
        Self { drain: at(DRAIN_PERCENT), cut: at(CUT_PERCENT), commit: at(COMMIT_PERCENT), end: at(END_PERCENT) }
    }
}
