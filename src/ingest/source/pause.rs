//! The pause of a source: a fact in its table, which all servers of the lake read there.
//!
//! It is one application transaction, `pause:<source>`. Its number says when the source was last paused or set going again,
//! in milliseconds since 1970: an odd number says paused, an even one running. The number only grows.
//!
//! In: what the operator wants. Out: a log entry without rows; and for each batch of a source the [`Progress`] that holds
//! its commit to the mark under which it was read.
//!
//! **Invariant:** behind a pause nothing of the source is committed to its table, by any server, before it goes on: a batch
//! that was read before is refused, as one of an overtaken server is.

use super::route::Route;
use crate::clock::Micros;
use crate::error::{Error, Kind, Result};
use crate::lake::{Progress, Snapshot, Table};

/// Attempts of one change, each lost to another operator's.
const ATTEMPTS_MAX: usize = 10;
/// Microseconds in the unit of the marks.
const MILLISECOND: Micros = 1_000;

/// What the table says of a source's pause; nothing before its first commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Pause(Option<i64>);

impl Pause {
    /// As the table says it.
    pub(super) fn of(snapshot: &Snapshot, route: &Route) -> Self {
        Self(snapshot.txns.get(&route.pause_app()).copied())
    }

    /// Since when the source is paused; none while it runs.
    pub(in crate::ingest) fn since(self) -> Option<Micros> {
        self.0.filter(|mark| mark % 2 != 0).map(|mark| mark.saturating_mul(MILLISECOND))
    }

    /// Holds a commit to this mark. A source's first commit makes it.
    pub(in crate::ingest) fn guard(self, route: &Route, now: Micros) -> Progress {
        Progress { app: route.pause_app(), after: self.0, next: self.0.unwrap_or_else(|| Self(None).mark(false, now)) }
    }

    /// The next mark after this one.
    fn mark(self, is_paused: bool, now: Micros) -> i64 {
        let least = self.0.map_or(0, |mark| mark.saturating_add(1)).max(now / MILLISECOND);
        if (least % 2 != 0) == is_paused { least } else { least.saturating_add(1) }
    }
}

/// Pauses the source of `route`, or sets it going again, and returns what its table says then. Nothing is written when it is
/// so already. `Unavailable` when the lake does not answer: the same again does no harm.
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
        "source `{}`: others pause it and set it going at once, look at it again",
        route.source
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_grow_and_say_what_is_so() {
        // The mark before, the time in milliseconds, what is wanted, the mark.
        let cases = [
            (None, 1_000, true, 1_001),
            (None, 1_001, true, 1_001),
            (None, 1_001, false, 1_002),
            (Some(1_001), 5_000, false, 5_000),
            (Some(1_001), 5_001, false, 5_002),
            // A clock that has gone back.
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
