//! Cancelling: finds the running query behind a FlightInfo.
//!
//! In: a FlightInfo with our ticket in it. Out: whether a query was stopped. Tickets name a flight; while its answer runs
//! on this server, [`RunningAnswers`] knows which query that is. A caller can cancel its own flights only: others' tickets do not
//! unseal for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use crate::query::QueryId;

/// The flights whose answers run now. A flight can be fetched more than once at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningAnswers(Arc<Mutex<BTreeSet<(Uuid, QueryId)>>>);

/// One running answer; dropping it takes it off the list.
#[derive(Debug)]
pub(super) struct RunningEntry {
    running: RunningAnswers,
    key: (Uuid, QueryId),
}

impl RunningAnswers {
    /// Puts an answer on the list.
    pub(super) fn enter(&self, flight: Uuid, query: QueryId) -> RunningEntry {
        let key = (flight, query);
        self.lock().insert(key);
        RunningEntry { running: self.clone(), key }
    }

    /// The queries that answer this flight now.
    pub(super) fn queries(&self, flight: Uuid) -> Vec<QueryId> {
        let all = (flight, QueryId(Uuid::nil()))..=(flight, QueryId(Uuid::max()));
        self.lock().range(all).map(|(_, query)| *query).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Uuid, QueryId)>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Drop for RunningEntry {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_is_known_while_it_runs() {
        let running = RunningAnswers::default();
        let (flight, first, second) = (Uuid::new_v4(), QueryId(Uuid::from_u128(1)), QueryId(Uuid::from_u128(2)));
        let one = running.enter(flight, first);
        let two = running.enter(flight, second);
        let other = running.enter(Uuid::new_v4(), first);
        assert_eq!(running.queries(flight), [first, second]);
        drop(one);
        assert_eq!(running.queries(flight), [second]);
        drop((two, other));
        assert!(running.lock().is_empty());
    }
}
