//! Memory reservations. They limit the total size of the requests that wait for a commit, across all tables.
//!
//! A request reserves memory as it grows. If the memory does not become available in time, the reservation fails with
//! `Limited`, and the error says when to retry.
//!
//! **Invariant:** the memory of a request stays reserved from the arrival of its first byte until its receipt is sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// The unit of memory reservations. Sizes are rounded up to whole units. If a semaphore permit represented a byte
/// instead of a unit, no request could reserve more than 4 GiB, because the number of acquired permits is a 32-bit
/// integer.
const UNIT_BYTES: usize = 1024;
/// The delay before a retry, as given in the error for a refused request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory budget that all requests share.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct MemoryBudget {
    free: Arc<Semaphore>,
    units: usize,
    wait_max: Duration,
    metrics: Arc<Metrics>,
}

impl MemoryBudget {
    /// Creates a budget of `bytes_max` bytes. If too little memory is free, a request waits for at most `wait_max`.
    pub(in crate::ingest) fn new(bytes_max: usize, wait_max: Duration, metrics: Arc<Metrics>) -> Self {
        let units = units(bytes_max).min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(units)), units, wait_max, metrics }
    }

    /// Creates an empty reservation.
    pub(in crate::ingest) fn empty(&self) -> MemoryReservation {
        MemoryReservation { memory_budget: self.clone(), permit: None }
    }

    /// Returns the number of reserved bytes, rounded up to whole units.
    pub(in crate::ingest) fn reserved_bytes(&self) -> usize {
        (self.units - self.free.available_permits()) * UNIT_BYTES
    }

    /// Returns the maximum time that a request waits for memory or for a free slot in a queue.
    pub(super) fn wait_max(&self) -> Duration {
        self.wait_max
    }

    /// Counts a refused request, and creates its error. A request is refused if it gets no memory or no slot in a
    /// queue.
    pub(in crate::ingest) fn full(&self) -> Error {
        self.metrics.limited("ingest.queue_bytes_max");
        Error::limited("the ingest queue is full: send the request again later, or send smaller requests")
            .retry_after(RETRY_AFTER)
    }
}

/// The memory that one request has reserved. Dropping the reservation releases the memory.
#[derive(Debug)]
pub struct MemoryReservation {
    memory_budget: MemoryBudget,
    permit: Option<OwnedSemaphorePermit>,
}

impl MemoryReservation {
    /// Changes the total size of the reservation to `bytes`. If there is not enough free memory, waits up to
    /// `queue_wait_max`, and then fails with `Limited`. The error says when to retry. If `bytes` exceeds the whole
    /// budget, fails with `Limited` immediately.
    pub async fn resize(&mut self, bytes: usize) -> Result<()> {
        let (wanted, reserved) = (units(bytes), self.units());
        if wanted < reserved {
            drop(self.permit.as_mut().and_then(|permit| permit.split(reserved - wanted)));
            return Ok(());
        }
        if wanted > self.memory_budget.units {
            self.memory_budget.metrics.limited("ingest.queue_bytes_max");
            let bytes_max = self.memory_budget.units * UNIT_BYTES;
            let message = format!(
                "the request needs {bytes} bytes, but the ingest queue has only {bytes_max}: send smaller requests"
            );
            return Err(Error::limited(message));
        }
        let more = u32::try_from(wanted - reserved).map_err(|_| self.memory_budget.full())?;
        let waiting = Arc::clone(&self.memory_budget.free).acquire_many_owned(more);
        let permit =
            tokio::time::timeout(self.memory_budget.wait_max, waiting).await.map_err(|_| self.memory_budget.full())?;
        let permit =
            permit.map_err(|_| Error::unavailable("the server is stopping: retry, possibly on another server"))?;
        match &mut self.permit {
            Some(reserved) => reserved.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }

    /// Grows the reservation to a total of `bytes`, as [`MemoryReservation::resize`] would. Does nothing if the
    /// reservation is already larger.
    pub(in crate::ingest) async fn grow(&mut self, bytes: usize) -> Result<()> {
        if units(bytes) > self.units() { self.resize(bytes).await } else { Ok(()) }
    }

    /// Moves the memory of `other` into this reservation.
    pub fn merge(&mut self, other: Self) {
        match (&mut self.permit, other.permit) {
            (Some(permit), Some(more)) => permit.merge(more),
            (permit @ None, more) => *permit = more,
            (Some(_), None) => {}
        }
    }

    /// Splits `bytes` off into a new reservation. If less than `bytes` is reserved, moves the whole reservation.
    pub(in crate::ingest) fn split(&mut self, bytes: usize) -> Self {
        let share = units(bytes).min(self.units());
        let permit = self.permit.as_mut().and_then(|permit| permit.split(share));
        Self { memory_budget: self.memory_budget.clone(), permit }
    }

    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
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
        let mut first = memory_budget.empty();
        first.resize(6 * UNIT_BYTES).await.unwrap();
        let mut second = memory_budget.empty();
        let refused = second.resize(3 * UNIT_BYTES).await.unwrap_err();
        assert_eq!((refused.kind(), refused.wait()), (Kind::Limited, Some(RETRY_AFTER)));

        first.resize(4 * UNIT_BYTES + 1).await.unwrap();
        second.resize(3 * UNIT_BYTES).await.unwrap();
        assert_eq!(memory_budget.reserved_bytes(), 8 * UNIT_BYTES);

        let share = first.split(2 * UNIT_BYTES);
        drop(first);
        assert_eq!(memory_budget.reserved_bytes(), 5 * UNIT_BYTES);
        second.merge(share);
        second.grow(UNIT_BYTES).await.unwrap();
        assert_eq!(memory_budget.reserved_bytes(), 5 * UNIT_BYTES, "`grow` never shrinks a reservation");
        let mut none = memory_budget.empty();
        none.merge(second);
        assert_eq!(memory_budget.reserved_bytes(), 5 * UNIT_BYTES);
        drop(none);
        assert_eq!(memory_budget.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn a_request_larger_than_the_budget_is_refused_without_waiting() {
        let memory_budget = MemoryBudget::new(8 * UNIT_BYTES, Duration::from_secs(3600), Arc::default());
        let refused = memory_budget.empty().resize(8 * UNIT_BYTES + 1).await.unwrap_err();
        assert_eq!((refused.kind(), refused.wait()), (Kind::Limited, None));
    }

    #[tokio::test]
    async fn a_waiting_request_gets_the_memory_that_another_releases() {
        let memory_budget = MemoryBudget::new(UNIT_BYTES, Duration::from_secs(3600), Arc::default());
        let mut first = memory_budget.empty();
        first.resize(1).await.unwrap();
        let mut second = memory_budget.empty();
        let waiting = second.resize(1);
        let (waited, ()) = tokio::join!(waiting, async { drop(first) });
        waited.unwrap();
    }
}
