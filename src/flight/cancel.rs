//! Cancellation: finds the running query of a FlightInfo.
//!
//! In: a FlightInfo with a ticket of ours. Out: whether a query was cancelled. A ticket names a flight. While its query
//! runs on this server, [`RunningAnswers`] maps the flight to the query. A caller can cancel only its own flights: it
//! cannot unseal the tickets of others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use crate::query::QueryId;

/// The flights whose queries are running. A flight can be fetched several times at once.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningAnswers(Arc<Mutex<BTreeSet<(Uuid, QueryId)>>>);

/// A running query; dropping this removes it from the list.
#[derive(Debug)]
pub(super) struct RunningEntry {
    running: RunningAnswers,
    key: (Uuid, QueryId),
}

impl RunningAnswers {
    /// Adds a query to the list.
    pub(super) fn enter(&self, flight: Uuid, query: QueryId) -> RunningEntry {
        let key = (flight, query);
        self.lock().insert(key);
        RunningEntry { running: self.clone(), key }
    }

    /// The running queries of this flight.
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
    fn flight_is_listed_while_its_query_runs() {
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
