//! Accounts for the memory of function results.
//!
//! A plan node evaluates its functions on one batch of rows at a time. The engine reserves memory for the rows that
//! sorts, joins and aggregates keep, but not for the results of functions. Each call therefore adds the size of its
//! result to the [`BatchMemory`] of its node, which reserves that much in the memory pool of the query. The node
//! releases the reservation when it asks its input for the next batch.
//!
//! ```text
//!   node with functions ──► AdaptiveBatchExec (one BatchMemory) ──► input of the node
//!         │                      │ returns a batch, and makes its memory the current one of the thread
//!         └─ calls functions     │
//!              └─ grow(bytes) ──►│ reserves
//!   the node asks for a batch ──►│ releases
//! ```
//!
//! While a thread plans a statement, its current [`BatchMemory`] counts the constants that the planner computes.

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation};

use crate::error::Error;

/// The maximum size in bytes of the constants that the planner computes for one statement.
const CONSTANT_BYTES_MAX: usize = 8 << 20;

thread_local! {
    static CURRENT: RefCell<Option<Arc<BatchMemory>>> = const { RefCell::new(None) };
}

/// The memory of the function results of one plan node and partition, or of the constants of one statement.
#[derive(Debug)]
pub(crate) struct BatchMemory {
    reservation: MemoryReservation,
    is_planning: bool,
}

impl BatchMemory {
    /// Returns the memory of a plan node, which is part of the memory of its query.
    pub(super) fn of_node(pool: &Arc<dyn MemoryPool>) -> Arc<Self> {
        let reservation = MemoryConsumer::new("function results").register(pool);
        Arc::new(Self { reservation, is_planning: false })
    }

    /// Returns the memory of the constants of one statement.
    pub(crate) fn of_constants() -> Arc<Self> {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(CONSTANT_BYTES_MAX));
        let reservation = MemoryConsumer::new("constants").register(&pool);
        Arc::new(Self { reservation, is_planning: true })
    }

    /// Makes this the current memory of the thread.
    pub(super) fn enter(self: &Arc<Self>) {
        CURRENT.set(Some(Arc::clone(self)));
    }

    /// Reserves memory. Fails if the query would exceed its memory limit.
    pub(super) fn grow(&self, bytes: usize) -> Result<()> {
        self.reservation.try_grow(bytes).map_err(|error| if self.is_planning { too_many_constants() } else { error })
    }

    /// Releases the reserved memory, and returns its size in bytes.
    pub(super) fn release(&self) -> usize {
        self.reservation.free()
    }
}

/// Reserves `bytes` in the current memory of the thread. Does nothing if the thread has none.
pub(super) fn grow(bytes: usize) -> Result<()> {
    CURRENT.with_borrow(|current| current.as_ref().map_or(Ok(()), |memory| memory.grow(bytes)))
}

/// Returns true if the current thread is planning a statement.
pub(super) fn is_planning() -> bool {
    CURRENT.with_borrow(|current| current.as_ref().is_some_and(|memory| memory.is_planning))
}

/// Makes `memory` the current memory of the thread, calls `call`, and restores the previous memory.
pub(super) fn during<T>(memory: Option<Arc<BatchMemory>>, call: impl FnOnce() -> T) -> T {
    let _restored = Restored(CURRENT.replace(memory));
    call()
}

/// A guard that restores the previous memory of the thread when it is dropped, even after a panic.
struct Restored(Option<Arc<BatchMemory>>);

impl Drop for Restored {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

fn too_many_constants() -> DataFusionError {
    DataFusionError::External(Box::new(Error::limited(format!(
        "the constants of the statement take up more than {CONSTANT_BYTES_MAX} bytes: use shorter constants"
    ))))
}
