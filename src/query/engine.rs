//! What all queries share: tables, caches, slots per tenant, and the list of what runs.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::QueryConfig;
use crate::error::Result;
use crate::lake::Tables;
use crate::query::Session;
use crate::telemetry::Metrics;
use crate::tenancy::Access;

/// Names one running query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub uuid::Uuid);

/// The engine.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// Registers the lake's store, sizes the caches.
    pub fn new(tables: Arc<Tables>, config: QueryConfig, clock: Clock, metrics: Arc<Metrics>) -> Result<Arc<Self>> {
        let _ = (tables, config, clock, metrics);
        todo!()
    }

    /// A session for one request. `Forbidden` without the read scope or a tenant. Costs tens of microseconds.
    pub fn session(self: &Arc<Self>, access: &Access) -> Result<Session> {
        let _ = access;
        todo!()
    }

    /// Cancels a running query of this caller (same tenant and subject). False when it is unknown, foreign or done.
    pub fn cancel(&self, access: &Access, id: QueryId) -> bool {
        let _ = (access, id);
        todo!()
    }
}
