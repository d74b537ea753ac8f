//! Pauses and resumes a source. The source's table stores whether the source is paused, so the pause applies to all
//! servers that share the lake.
//!
//! The state is the version of the application transaction `pause:<source>`. This pause number is odd while the source
//! is paused, and even while it is running. The number is based on the time at which the source was last paused or
//! resumed, in milliseconds since 1970, but it never decreases.
//!
//! When an operator pauses or resumes a source, the server adds a log entry without rows. Every batch from the source
//! is committed with a [`Progress`], which makes the commit fail if the pause number has changed since the batch was
//! read.
//!
//! **Invariant:** after a source is paused, no server commits rows from it to the table until the source resumes. The
//! lake refuses batches that were read before the pause.

use super::route::Route;
use crate::clock::Micros;
use crate::error::{Error, Kind, Result};
use crate::lake::{Progress, Snapshot, Table};

/// The maximum number of attempts to pause or resume a source. An attempt fails if another server changes the state at
/// the same time.
const ATTEMPTS_MAX: usize = 10;
/// One millisecond, the unit of the pause number.
const MILLISECOND: Micros = 1_000;

/// A source's pause number in its table. `None` before the source's first commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Pause(Option<i64>);

impl Pause {
    /// Reads the pause number from a snapshot of the table.
    pub(super) fn of(snapshot: &Snapshot, route: &Route) -> Self {
        Self(snapshot.txns.get(&route.pause_app()).copied())
    }

    /// Returns the time at which the source was paused, or `None` if it is not paused.
    pub(in crate::ingest) fn since(self) -> Option<Micros> {
        self.0.filter(|number| number % 2 != 0).map(|number| number.saturating_mul(MILLISECOND))
    }

    /// Returns a [`Progress`] that makes a commit fail unless this is still the current pause number. The source's
    /// first commit creates the number.
    pub(in crate::ingest) fn guard(self, route: &Route, now: Micros) -> Progress {
        Progress {
            app: route.pause_app(),
            after: self.0,
            next: self.0.unwrap_or_else(|| Self(None).next_number(false, now)),
        }
    }

    /// Returns the number to store when the source is paused or resumed at the time `now`.
    fn next_number(self, is_paused: bool, now: Micros) -> i64 {
        let least = self.0.map_or(0, |number| number.saturating_add(1)).max(now / MILLISECOND);
        if (least % 2 != 0) == is_paused { least } else { least.saturating_add(1) }
    }
}

/// Pauses or resumes the source of `route`, and returns the resulting pause number. Writes nothing if the source is
/// already in the requested state. Fails with `Unavailable` if the lake does not respond. The caller may safely retry
/// after this error.
pub(super) async fn set(table: &Table, route: &Route, is_paused: bool, now: Micros) -> Result<Pause> {
    for _ in 0..ATTEMPTS_MAX {
        let pause = Pause::of(&*table.refresh().await?, route);
        if pause.since().is_some() == is_paused {
            return Ok(pause);
        }
        let next = pause.next_number(is_paused, now);
        let progress = Progress { app: route.pause_app(), after: pause.0, next };
        match table.commit(Vec::new(), vec![progress]).await {
            Ok(_) => return Ok(Pause(Some(next))),
            Err(error) if error.kind() == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::conflict(format!(
        "source `{}`: {ATTEMPTS_MAX} attempts failed because of concurrent pause or resume requests; check the source's state and retry",
        route.source
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_numbers_grow_and_encode_the_state() {
        // The previous number, the time in milliseconds, whether to pause, and the expected number.
        let cases = [
            (None, 1_000, true, 1_001),
            (None, 1_001, true, 1_001),
            (None, 1_001, false, 1_002),
            (Some(1_001), 5_000, false, 5_000),
            (Some(1_001), 5_001, false, 5_002),
            // The clock has moved backward.
            (Some(9_001), 5_000, false, 9_002),
            (Some(9_002), 5_000, true, 9_003),
        ];
        for (before, now, is_paused, expected) in cases {
            let number = Pause(before).next_number(is_paused, now * MILLISECOND);
            assert_eq!(number, expected, "{before:?} at {now}");
            assert_eq!(Pause(Some(number)).since(), is_paused.then_some(expected * MILLISECOND));
        }
    }
}
