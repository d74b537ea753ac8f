//! The list of running queries. A caller can cancel its own queries by their ids. The queries of revoked tokens are
//! cancelled when the revocations change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::telemetry::{QueryMeter, QueryOutcome};
use crate::tenancy::{Access, Slot};

/// The id of one running query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub uuid::Uuid);

/// The running queries by id. Each entry contains the caller and a cancellation token.
#[derive(Debug, Default)]
pub(in crate::query) struct RunningQueries(Mutex<HashMap<QueryId, RunningQuery>>);

#[derive(Debug)]
struct RunningQuery {
    caller: QueryCaller,
    access: Access,
    stop: CancellationToken,
}

/// The caller of a query. Only the same subject from the same issuer and tenant can cancel a query.
#[derive(Debug, PartialEq, Eq)]
struct QueryCaller {
    tenant: String,
    issuer: String,
    subject: String,
}

/// The resources of a running query, which are freed when the ticket is dropped: the entry in the list of running
/// queries, the slot and the metrics.
#[derive(Debug)]
pub(in crate::query) struct QueryTicket {
    pub(in crate::query) id: QueryId,
    pub(in crate::query) stop: CancellationToken,
    /// The access of the caller, whose token may be revoked while the query runs.
    pub(in crate::query) access: Access,
    meter: Option<QueryMeter>,
    running: Arc<RunningQueries>,
    _slot: Slot,
}

impl RunningQueries {
    /// Adds a query to the list. `access` identifies the caller.
    pub(in crate::query) fn add(
        self: &Arc<Self>,
        access: &Access,
        slot: Slot,
        meter: QueryMeter,
    ) -> Result<QueryTicket> {
        let id = QueryId(uuid::Uuid::new_v4());
        let stop = CancellationToken::new();
        let entry = RunningQuery { caller: QueryCaller::of(access)?, access: access.clone(), stop: stop.clone() };
        self.lock().insert(id, entry);
        let access = access.clone();
        Ok(QueryTicket { id, stop, access, meter: Some(meter), running: Arc::clone(self), _slot: slot })
    }

    /// Cancels a running query of this caller. Returns false if the query is unknown, has ended, or belongs to another
    /// caller.
    pub(in crate::query) fn cancel(&self, access: &Access, id: QueryId) -> bool {
        let Ok(caller) = QueryCaller::of(access) else { return false };
        self.lock().get(&id).filter(|entry| entry.caller == caller).is_some_and(|entry| {
            entry.stop.cancel();
            true
        })
    }

    /// Cancels the running queries of revoked tokens.
    pub(in crate::query) fn cancel_revoked(&self) {
        self.lock().values().filter(|entry| entry.access.is_revoked()).for_each(|entry| entry.stop.cancel());
    }

    /// Returns the number of running queries, across all tenants.
    pub(in crate::query) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Locks the list. No code panics while it changes the list, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<QueryId, RunningQuery>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueryTicket {
    /// Adds `rows` to the number of rows that the client has received.
    pub(in crate::query) fn rows(&mut self, rows: usize) {
        if let Some(meter) = &mut self.meter {
            meter.rows(rows as u64);
        }
    }

    /// Records how the query ended. If the ticket is dropped without a call to this function, the query is recorded as
    /// cancelled.
    pub(in crate::query) fn end(mut self, outcome: QueryOutcome) {
        if let Some(meter) = self.meter.take() {
            meter.end(outcome);
        }
    }
}

impl Drop for QueryTicket {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

impl QueryCaller {
    fn of(access: &Access) -> Result<Self> {
        let (issuer, subject, _) = access.identity();
        let tenant = access.tenant()?.as_str().to_owned();
        Ok(Self { tenant, issuer: issuer.to_owned(), subject: subject.to_owned() })
    }
}
