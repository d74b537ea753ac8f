//! Finds the running queries that belong to a FlightInfo, so that they can be cancelled.
//!
//! The ticket in a FlightInfo contains the id of a flight. While a query of that flight runs on this server,
//! [`RunningQueries`] contains the flight's id together with the query's id. A caller can cancel only its own flights,
//! because the server rejects tickets that were issued to another caller.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use crate::query::QueryId;

/// The running queries, each with the id of its flight. A flight has several running queries if clients fetch it
/// several times concurrently.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningQueries(Arc<Mutex<BTreeSet<(Uuid, QueryId)>>>);

/// The entry for a running query in [`RunningQueries`]. Dropping this value removes the entry.
#[derive(Debug)]
pub(super) struct RunningQuery {
    running: RunningQueries,
    key: (Uuid, QueryId),
}

impl RunningQueries {
    /// Adds an entry for a query.
    pub(super) fn enter(&self, flight: Uuid, query: QueryId) -> RunningQuery {
        let key = (flight, query);
        self.lock().insert(key);
        RunningQuery { running: self.clone(), key }
    }

    /// Returns the running queries that belong to `flight`.
    pub(super) fn queries(&self, flight: Uuid) -> Vec<QueryId> {
        let all = (flight, QueryId(Uuid::nil()))..=(flight, QueryId(Uuid::max()));
        self.lock().range(all).map(|(_, query)| *query).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Uuid, QueryId)>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flight_is_listed_while_its_query_runs() {
        let running = RunningQueries::default();
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
