//! Limits per tenant: how many queries run at once, and how many may wait how long.
//!
//! ```text
//!   take ─► seat (running or waiting; counted) ─► permit (running; first come, first served) ─► Slot
//! ```
//!
//! **Invariant:** a seat is given back whenever its holder goes, also one that stops waiting half-way.
//! **Invariant:** a tenant without seats costs no memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::contract::TenantId;
use crate::error::{Error, Result};

/// When a refused query may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The slots of all tenants.
#[derive(Debug)]
pub struct Slots {
    running_max: usize,
    waiting_max: usize,
    wait_max: Duration,
    queues: Arc<TenantQueues>,
}

/// One taken slot; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a dropped slot is given back at once"]
pub struct Slot {
    // Dropped in this order: the permit before the lane that it belongs to.
    _permit: OwnedSemaphorePermit,
    _seat: QueuePosition,
}

/// One lane for each tenant that has a seat.
#[derive(Debug, Default)]
struct TenantQueues(Mutex<HashMap<TenantId, TenantQueue>>);

#[derive(Debug)]
struct TenantQueue {
    running: Arc<Semaphore>,
    seats: usize,
}

/// A place in a lane, running or waiting.
#[derive(Debug)]
struct QueuePosition {
    tenant: TenantId,
    queues: Arc<TenantQueues>,
}

impl Slots {
    /// `running_max` at once per tenant, `waiting_max` more may wait for at most `wait_max`.
    pub fn new(running_max: usize, waiting_max: usize, wait_max: Duration) -> Self {
        Self { running_max, waiting_max, wait_max, queues: Arc::default() }
    }

    /// Takes a slot, or says `Limited` with a retry time. First come, first served within a tenant; tenants do not wait
    /// for each other. Tenants without taken slots cost no memory. Dropping the future leaves the queue.
    pub async fn take(&self, tenant: &TenantId) -> Result<Slot> {
        let (seat, running) = self.sit(tenant)?;
        match tokio::time::timeout(self.wait_max, running.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Slot { _permit: permit, _seat: seat }),
            Ok(Err(closed)) => Err(Error::internal("a tenant's slots are closed").with_source(closed)),
            Err(_) => Err(Error::limited(format!(
                "all {} queries of this tenant are still running (limits query.tenant_queries_max, \
                 query.tenant_queue_wait_max): retry later",
                self.running_max
            ))
            .retry_after(RETRY_AFTER)),
        }
    }

    /// How many tenants have a query running or waiting.
    pub fn tenants(&self) -> usize {
        self.queues.lock().len()
    }

    fn sit(&self, tenant: &TenantId) -> Result<(QueuePosition, Arc<Semaphore>)> {
        let mut queues = self.queues.lock();
        let seats = queues.get(tenant).map_or(0, |queue| queue.seats);
        if seats >= self.running_max.saturating_add(self.waiting_max) {
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
            .or_insert_with(|| TenantQueue { running: Arc::new(Semaphore::new(permits)), seats: 0 });
        queue.seats += 1;
        let running = Arc::clone(&queue.running);
        Ok((QueuePosition { tenant: tenant.clone(), queues: Arc::clone(&self.queues) }, running))
    }
}

impl TenantQueues {
    /// A panic cannot leave a count half changed, so a poisoned lock is as good as new.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, TenantQueue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QueuePosition {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        if let Entry::Occupied(mut queue) = queues.entry(self.tenant.clone()) {
            queue.get_mut().seats -= 1;
            if queue.get().seats == 0 {
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
    async fn one_tenant_waits_and_another_does_not() {
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
        assert_eq!(slots.tenants(), 1, "an idle tenant costs no memory");
    }

    #[tokio::test]
    async fn who_stops_waiting_gives_its_place_back() {
        let slots = Slots::new(1, 1, Duration::from_secs(3_600));
        let acme = tenant("acme");
        let running = slots.take(&acme).await.unwrap();
        let mut first = Box::pin(slots.take(&acme));
        assert!(poll!(&mut first).is_pending());
        drop(first);
        let mut second = Box::pin(slots.take(&acme));
        assert!(poll!(&mut second).is_pending(), "the place is free again");
        drop(running);
        drop(second.await.unwrap());
        assert_eq!(slots.tenants(), 0);
    }

    #[tokio::test]
    async fn the_first_to_come_is_the_first_served() {
        let slots = Slots::new(1, 2, Duration::from_secs(3_600));
        let acme = tenant("acme");
        let running = slots.take(&acme).await.unwrap();
        let mut first = Box::pin(slots.take(&acme));
        let mut second = Box::pin(slots.take(&acme));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        drop(running);
        assert!(poll!(&mut second).is_pending(), "whoever polls first does not matter");
        let first = first.await.unwrap();
        drop(first);
        drop(second.await.unwrap());
    }

    #[tokio::test]
    async fn waiting_ends() {
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
