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
    lanes: Arc<Lanes>,
}

/// One taken slot; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a dropped slot is given back at once"]
pub struct Slot {
    // Dropped in this order: the permit before the lane that it belongs to.
    _permit: OwnedSemaphorePermit,
    _seat: Seat,
}

/// One lane for each tenant that has a seat.
#[derive(Debug, Default)]
struct Lanes(Mutex<HashMap<TenantId, Lane>>);

#[derive(Debug)]
struct Lane {
    running: Arc<Semaphore>,
    seats: usize,
}

/// A place in a lane, running or waiting.
#[derive(Debug)]
struct Seat {
    tenant: TenantId,
    lanes: Arc<Lanes>,
}

impl Slots {
    /// `running_max` at once per tenant, `waiting_max` more may wait for at most `wait_max`.
    pub fn new(running_max: usize, waiting_max: usize, wait_max: Duration) -> Self {
        Self { running_max, waiting_max, wait_max, lanes: Arc::default() }
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
        self.lanes.lock().len()
    }

    fn sit(&self, tenant: &TenantId) -> Result<(Seat, Arc<Semaphore>)> {
        let mut lanes = self.lanes.lock();
        let seats = lanes.get(tenant).map_or(0, |lane| lane.seats);
        if seats >= self.running_max.saturating_add(self.waiting_max) {
            return Err(Error::limited(format!(
                "this tenant has {} queries running and {} waiting (limits query.tenant_queries_max, \
                 query.tenant_queue_max): retry later",
                self.running_max, self.waiting_max
            ))
            .retry_after(RETRY_AFTER));
        }
        let permits = self.running_max.min(Semaphore::MAX_PERMITS);
        let lane = lanes
            .entry(tenant.clone())
            .or_insert_with(|| Lane { running: Arc::new(Semaphore::new(permits)), seats: 0 });
        lane.seats += 1;
        let running = Arc::clone(&lane.running);
        Ok((Seat { tenant: tenant.clone(), lanes: Arc::clone(&self.lanes) }, running))
    }
}

impl Lanes {
    /// A panic cannot leave a count half changed, so a poisoned lock is as good as new.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lock();
        if let Entry::Occupied(mut lane) = lanes.entry(self.tenant.clone()) {
            lane.get_mut().seats -= 1;
            if lane.get().seats == 0 {
                lane.remove();
            }
        }
    }
}
