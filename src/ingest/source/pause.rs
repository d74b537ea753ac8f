//! The pause of a source. It is stored in the source's table, where all servers of the lake read it.
//!
//! A pause is one application transaction, `pause:<source>`. Its number is the time at which the source was last paused or
//! resumed, in milliseconds since 1970: an odd number means paused, an even one running. The number only grows.
//!
//! In: the operator's request. Out: a log entry without rows; and for each batch of a source the [`Progress`] that makes its
//! commit conditional on the pause number under which it was read.
//!
//! **Invariant:** after a pause no server commits rows of the source to its table until the source resumes: a batch that was
//! read before is refused, like that of an overtaken server.

use super::route::Route;
use crate::clock::Micros;
use crate::error::{Error, Kind, Result};
use crate::lake::{Progress, Snapshot, Table};

/// The maximum number of attempts to change a pause, each lost to a concurrent change.
const ATTEMPTS_MAX: usize = 10;
/// Microseconds per unit of the pause number.
const MILLISECOND: Micros = 1_000;

/// The pause number of a source in its table; `None` before the first commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Pause(Option<i64>);

impl Pause {
    /// Reads the pause from a snapshot of the table.
    pub(super) fn of(snapshot: &Snapshot, route: &Route) -> Self {
        Self(snapshot.txns.get(&route.pause_app()).copied())
    }

    /// Since when the source is paused; `None` while it runs.
    pub(in crate::ingest) fn since(self) -> Option<Micros> {
        self.0.filter(|mark| mark % 2 != 0).map(|mark| mark.saturating_mul(MILLISECOND))
    }

    /// Makes a commit conditional on this pause number. The first commit of a source creates the number.
    pub(in crate::ingest) fn guard(self, route: &Route, now: Micros) -> Progress {
        Progress { app: route.pause_app(), after: self.0, next: self.0.unwrap_or_else(|| Self(None).mark(false, now)) }
    }

    /// The next pause number after this one.
    fn mark(self, is_paused: bool, now: Micros) -> i64 {
        let least = self.0.map_or(0, |mark| mark.saturating_add(1)).max(now / MILLISECOND);
        if (least % 2 != 0) == is_paused { least } else { least.saturating_add(1) }
    }
}

/// Pauses or resumes the source of `route`, and returns the resulting pause. Writes nothing if the source is already in that
/// state. `Unavailable` if the lake does not answer; a retry is safe.
pub(super) async fn set(table: &Table, route: &Route, is_paused: bool, now: Micros) -> Result<Pause> {
    for _ in 0..ATTEMPTS_MAX {
        let pause = Pause::of(&*table.refresh().await?, route);
        if pause.since().is_some() == is_paused {
            return Ok(pause);
        }
        let next = pause.mark(is_paused, now);
        let progress = Progress { app: route.pause_app(), after: pause.0, next };
        match table.commit(Vec::new(), vec![progress]).await {
            Ok(_) => return Ok(Pause(Some(next))),
            Err(error) if error.kind() == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::conflict(format!(
        "source `{}`: {ATTEMPTS_MAX} attempts lost to concurrent pause or resume requests; check its state and retry",
        route.source
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_numbers_grow_and_encode_the_state() {
        // The previous number, the time in milliseconds, the requested state, the expected number.
        let cases = [
            (None, 1_000, true, 1_001),
            (None, 1_001, true, 1_001),
            (None, 1_001, false, 1_002),
            (Some(1_001), 5_000, false, 5_000),
            (Some(1_001), 5_001, false, 5_002),
            // The clock has gone back.
            (Some(9_001), 5_000, false, 9_002),
            (Some(9_002), 5_000, true, 9_003),
        ];
        for (before, now, is_paused, expected) in cases {
            let mark = Pause(before).mark(is_paused, now * MILLISECOND);
            assert_eq!(mark, expected, "{before:?} at {now}");
            assert_eq!(Pause(Some(mark)).since(), is_paused.then_some(expected * MILLISECOND));
        }
    }
}
