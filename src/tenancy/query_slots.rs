//! Query slots limit how many queries of a tenant run at the same time, how many wait, and for how long.
//!
//! ```text
//!   take ─► queue position (running or waiting; counted) ─► permit (running; first come, first served) ─► Slot
//! ```
//!
//! **Invariant:** dropping a running or waiting query releases its queue position.
//! **Invariant:** a tenant without queries uses no memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::contract::TenantId;
use crate::error::{Error, Result};

/// The delay before a retry, as given in the error for a refused query.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The query slots of all tenants.
#[derive(Debug)]
pub struct Slots {
    running_max: usize,
    waiting_max: usize,
    wait_max: Duration,
    queues: Arc<TenantQueues>,
}

/// The slot of one query. Dropping it releases the slot.
#[derive(Debug)]
#[must_use = "a dropped slot is released immediately"]
pub struct Slot {
    // Fields are dropped in the order of their declaration, so the permit is dropped before its queue.
    _permit: OwnedSemaphorePermit,
    _position: QueuePosition,
}

/// The queue of each tenant with running or waiting queries.
#[derive(Debug, Default)]
struct TenantQueues(Mutex<HashMap<TenantId, TenantQueue>>);

#[derive(Debug)]
struct TenantQueue {
    /// A semaphore with one permit for each query that may run at the same time.
    running: Arc<Semaphore>,
    /// The number of running and waiting queries.
    queries: usize,
}

/// The position of a running or waiting query in the queue of its tenant.
#[derive(Debug)]
struct QueuePosition {
    tenant: TenantId,
    queues: Arc<TenantQueues>,
}

impl Slots {
    /// Allows `running_max` running queries per tenant. Up to `waiting_max` more queries may wait, each for at most
    /// `wait_max`.
    pub fn new(running_max: usize, waiting_max: usize, wait_max: Duration) -> Self {
        Self { running_max, waiting_max, wait_max, queues: Arc::default() }
    }

    /// Waits for a free slot if necessary, and takes the slot. Returns `Limited` if the queue is full, or if no slot
    /// becomes free within the maximum wait. The error states the delay after which the caller may retry. A tenant's
    /// queries get slots in the order in which they arrived. Queries of different tenants do not wait for each other.
    /// Dropping the returned future releases the queue position.
    pub async fn take(&self, tenant: &TenantId) -> Result<Slot> {
        let (position, running) = self.enqueue(tenant)?;
        match tokio::time::timeout(self.wait_max, running.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Slot { _permit: permit, _position: position }),
            Ok(Err(closed)) => Err(Error::internal("the semaphore of a tenant's queue was closed").with_source(closed)),
            Err(_) => Err(Error::limited(format!(
                "all {} queries of this tenant are still running (limits query.tenant_queries_max, \
                 query.tenant_queue_wait_max): retry later",
                self.running_max
            ))
            .retry_after(RETRY_AFTER)),
        }
    }

    /// Returns the number of tenants with running or waiting queries.
    pub fn tenants(&self) -> usize {
        self.queues.lock().len()
    }

    fn enqueue(&self, tenant: &TenantId) -> Result<(QueuePosition, Arc<Semaphore>)> {
        let mut queues = self.queues.lock();
        let queries = queues.get(tenant).map_or(0, |queue| queue.queries);
        if queries >= self.running_max.saturating_add(self.waiting_max) {
            return Err(Error::limited(format!(
                "this tenant has {} queries running and {} waiting (limits query.tenant_queries_max, \
                 query.tenant_queue_max): retry later",
                self.running_max, self.waiting_max
            ))
            .retry_after(RETRY_AFTER));
        }
        let permits = self.running_max.min(Semaphore::MAX_PERMITS);
        let queue = queues
            .entry(tenant.clone())
            .or_insert_with(|| TenantQueue { running: Arc::new(Semaphore::new(permits)), queries: 0 });
        queue.queries += 1;
        let running = Arc::clone(&queue.running);
        Ok((QueuePosition { tenant: tenant.clone(), queues: Arc::clone(&self.queues) }, running))
    }
}

impl TenantQueues {
    /// Locks the queues. A poisoned lock can be ignored, because a panic cannot leave the queues in an inconsistent
    /// state.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, TenantQueue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QueuePosition {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        if let Entry::Occupied(mut queue) = queues.entry(self.tenant.clone()) {
            queue.get_mut().queries -= 1;
            if queue.get().queries == 0 {
                queue.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;
    use crate::error::Kind;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[tokio::test]
    async fn tenants_do_not_wait_for_each_other() {
        let slots = Slots::new(1, 1, Duration::from_secs(3_600));
        let (acme, rival) = (tenant("acme"), tenant("rival"));
        let running = slots.take(&acme).await.unwrap();
        let mut waiting = Box::pin(slots.take(&acme));
        assert!(poll!(&mut waiting).is_pending());

        let refused = slots.take(&acme).await.unwrap_err();
        assert_eq!((refused.kind(), refused.wait()), (Kind::Limited, Some(RETRY_AFTER)));
        assert!(refused.message().contains("query.tenant_queue_max"), "{refused}");
        let _other = slots.take(&rival).await.unwrap();

        drop(running);
        let next = waiting.await.unwrap();
        assert_eq!(slots.tenants(), 2);
        drop(next);
        assert_eq!(slots.tenants(), 1, "an idle tenant uses no memory");
    }

    #[tokio::test]
    async fn a_cancelled_wait_releases_its_queue_position() {
        let slots = Slots::new(1, 1, Duration::from_secs(3_600));
        let acme = tenant("acme");
        let running = slots.take(&acme).await.unwrap();
        let mut first = Box::pin(slots.take(&acme));
        assert!(poll!(&mut first).is_pending());
        drop(first);
        let mut second = Box::pin(slots.take(&acme));
        assert!(poll!(&mut second).is_pending(), "the position is free again");
        drop(running);
        drop(second.await.unwrap());
        assert_eq!(slots.tenants(), 0);
    }

    #[tokio::test]
    async fn queries_are_served_in_arrival_order() {
        let slots = Slots::new(1, 2, Duration::from_secs(3_600));
        let acme = tenant("acme");
        let running = slots.take(&acme).await.unwrap();
        let mut first = Box::pin(slots.take(&acme));
        let mut second = Box::pin(slots.take(&acme));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        drop(running);
        assert!(poll!(&mut second).is_pending(), "the polling order does not matter");
        let first = first.await.unwrap();
        drop(first);
        drop(second.await.unwrap());
    }

    #[tokio::test]
    async fn waiting_times_out() {
        let slots = Slots::new(1, 1, Duration::ZERO);
        let acme = tenant("acme");
        let running = slots.take(&acme).await.unwrap();
        let refused = slots.take(&acme).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Limited);
        assert!(refused.message().contains("query.tenant_queue_wait_max"), "{refused}");
        drop(running);
        assert_eq!(slots.tenants(), 0);
        assert_eq!(Slots::new(0, 0, Duration::ZERO).take(&acme).await.unwrap_err().kind(), Kind::Limited);
    }
}
