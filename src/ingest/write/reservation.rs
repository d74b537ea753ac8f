//! Memory reservations: the limit on the bytes that wait for a commit, across all tables and requests.
//!
//! In: the number of bytes that a request holds as it grows. Out: a reservation for them, or `Limited` with a retry time.
//!
//! **Invariant:** the memory of a request is accounted for from its first received byte until its receipt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// The unit of accounting: a semaphore counts in 32 bits, so bytes are rounded up to this unit.
const UNIT_BYTES: usize = 1024;
/// The retry time sent with a refusal.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory shared by all requests.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct MemoryBudget {
    free: Arc<Semaphore>,
    units: usize,
    wait_max: Duration,
    metrics: Arc<Metrics>,
}

impl MemoryBudget {
    /// A budget of `bytes_max` bytes. Each time a request grows, it waits at most `wait_max` for memory.
    pub(in crate::ingest) fn new(bytes_max: usize, wait_max: Duration, metrics: Arc<Metrics>) -> Self {
        let units = units(bytes_max).min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(units)), units, wait_max, metrics }
    }

    /// An empty reservation.
    pub(in crate::ingest) fn empty(&self) -> MemoryReservation {
        MemoryReservation { memory_budget: self.clone(), taken: None }
    }

    /// The reserved bytes, rounded up.
    pub(in crate::ingest) fn taken_bytes(&self) -> usize {
        (self.units - self.free.available_permits()) * UNIT_BYTES
    }

    /// How long a request waits for memory, or for a free slot in a queue.
    pub(super) fn wait_max(&self) -> Duration {
        self.wait_max
    }

    /// The error for a request for which no memory or queue slot is free.
    pub(in crate::ingest) fn full(&self) -> Error {
        self.metrics.limited("ingest.queue_bytes_max");
        Error::limited("the ingest queue is full: send it again later, or send smaller requests")
            .retry_after(RETRY_AFTER)
    }
}

/// The memory that one request has reserved. Dropping it releases the memory.
#[derive(Debug)]
pub struct MemoryReservation {
    memory_budget: MemoryBudget,
    taken: Option<OwnedSemaphorePermit>,
}

impl MemoryReservation {
    /// Grows or shrinks to `bytes` in total. Growing waits at most `queue_wait_max`, then fails with `Limited` and a retry time.
    pub async fn resize(&mut self, bytes: usize) -> Result<()> {
        let (wanted, taken) = (units(bytes), self.units());
        if wanted < taken {
            drop(self.taken.as_mut().and_then(|permit| permit.split(taken - wanted)));
            return Ok(());
        }
        if wanted > self.memory_budget.units {
            self.memory_budget.metrics.limited("ingest.queue_bytes_max");
            let bytes_max = self.memory_budget.units * UNIT_BYTES;
            let message =
                format!("the request needs {bytes} bytes of the ingest queue's {bytes_max}: send smaller requests");
            return Err(Error::limited(message));
        }
        let more = u32::try_from(wanted - taken).map_err(|_| self.memory_budget.full())?;
        let waiting = Arc::clone(&self.memory_budget.free).acquire_many_owned(more);
        let permit =
            tokio::time::timeout(self.memory_budget.wait_max, waiting).await.map_err(|_| self.memory_budget.full())?;
        let permit =
            permit.map_err(|_| Error::unavailable("the server is stopping: retry, possibly on another server"))?;
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        Ok(())
    }

    /// Grows to at least `bytes` in total, like [`MemoryReservation::resize`]; never shrinks.
    pub(in crate::ingest) async fn grow(&mut self, bytes: usize) -> Result<()> {
        if units(bytes) > self.units() { self.resize(bytes).await } else { Ok(()) }
    }

    /// Adds the memory of `other` to this reservation.
    pub fn merge(&mut self, other: Self) {
        match (&mut self.taken, other.taken) {
            (Some(taken), Some(more)) => taken.merge(more),
            (taken @ None, more) => *taken = more,
            (Some(_), None) => {}
        }
    }

    /// Splits off a reservation of `bytes`, or all if less is reserved.
    pub(in crate::ingest) fn split(&mut self, bytes: usize) -> Self {
        let share = units(bytes).min(self.units());
        let taken = self.taken.as_mut().and_then(|permit| permit.split(share));
        Self { memory_budget: self.memory_budget.clone(), taken }
    }

    fn units(&self) -> usize {
        self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn memory_is_bounded_and_released() {
        let memory_budget = MemoryBudget::new(8 * UNIT_BYTES, Duration::ZERO, Arc::default());
        let mut one = memory_budget.empty();
        one.resize(6 * UNIT_BYTES).await.unwrap();
        let mut other = memory_budget.empty();
        let refused = other.resize(3 * UNIT_BYTES).await.unwrap_err();
        assert_eq!((refused.kind(), refused.wait()), (Kind::Limited, Some(RETRY_AFTER)));

        one.resize(4 * UNIT_BYTES + 1).await.unwrap();
        other.resize(3 * UNIT_BYTES).await.unwrap();
        assert_eq!(memory_budget.taken_bytes(), 8 * UNIT_BYTES);

        let share = one.split(2 * UNIT_BYTES);
        drop(one);
        assert_eq!(memory_budget.taken_bytes(), 5 * UNIT_BYTES);
        other.merge(share);
        other.grow(UNIT_BYTES).await.unwrap();
        assert_eq!(memory_budget.taken_bytes(), 5 * UNIT_BYTES, "growing never shrinks");
        let mut none = memory_budget.empty();
        none.merge(other);
        assert_eq!(memory_budget.taken_bytes(), 5 * UNIT_BYTES);
        drop(none);
        assert_eq!(memory_budget.taken_bytes(), 0);
    }

    #[tokio::test]
    async fn a_request_larger_than_the_queue_is_refused_at_once() {
        let memory_budget = MemoryBudget::new(8 * UNIT_BYTES, Duration::from_secs(3600), Arc::default());
        let refused = memory_budget.empty().resize(8 * UNIT_BYTES + 1).await.unwrap_err();
        assert_eq!((refused.kind(), refused.wait()), (Kind::Limited, None));
    }

    #[tokio::test]
    async fn a_waiting_request_gets_the_memory_that_another_releases() {
        let memory_budget = MemoryBudget::new(UNIT_BYTES, Duration::from_secs(3600), Arc::default());
        let mut one = memory_budget.empty();
        one.resize(1).await.unwrap();
        let mut other = memory_budget.empty();
        let waiting = other.resize(1);
        let (waited, ()) = tokio::join!(waiting, async { drop(one) });
        waited.unwrap();
    }
}
