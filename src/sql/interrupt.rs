//! Ends a query inside an operation that does not yield.
//!
//! A query's task notices a cancellation and the query's deadline only when it yields. A join that compares all pairs of
//! rows, and a function that searches long texts, may not yield for minutes. Such operations call [`check`] regularly,
//! and it fails after the query has been cancelled or its deadline has passed.
//!
//! ```text
//!   Interrupt::cover(task) sets the interrupt of the thread while it polls the task
//!     └─► the engine spawns further tasks, which InterruptTracer covers with the same interrupt
//!           └─► join filters, function calls and window functions call check()
//! ```
//!
//! **Invariant:** the interrupt of a thread is the interrupt of the query whose task the thread polls, or `None`.

use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use datafusion::error::DataFusionError;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::sql::batch_memory::{self, BatchMemory};

thread_local! {
    static CURRENT: RefCell<Option<Interrupt>> = const { RefCell::new(None) };
}

/// The cancellation and the deadline of one query.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    stop: CancellationToken,
    deadline: Instant,
}

impl Interrupt {
    pub(crate) fn new(stop: CancellationToken, deadline: Instant) -> Self {
        Self { stop, deadline }
    }

    /// Returns a future that runs `task` and sets this interrupt while it polls the task.
    pub(crate) fn cover<F: Future>(self, task: F) -> impl Future<Output = F::Output> {
        Covered { task: Box::pin(task), interrupt: self, memory: None }
    }

    /// Like [`cover`](Self::cover), but for a task that plans one statement. Also limits the size of the constants that
    /// the planner computes.
    pub(crate) fn cover_planning<F: Future>(self, task: F) -> impl Future<Output = F::Output> {
        Covered { task: Box::pin(task), interrupt: self, memory: Some(BatchMemory::of_constants()) }
    }

    fn is_raised(&self) -> bool {
        self.stop.is_cancelled() || Instant::now() >= self.deadline
    }

    /// Calls `call` while this is the interrupt of the thread.
    fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        let _restored = Restored(CURRENT.replace(Some(self.clone())));
        call()
    }
}

/// Fails if the query whose task this thread polls has been cancelled or has reached its deadline.
pub(crate) fn check() -> Result<(), DataFusionError> {
    let is_raised = CURRENT.with_borrow(|current| current.as_ref().is_some_and(Interrupt::is_raised));
    if is_raised {
        // The reader of the query replaces this error with one that names the limit.
        return Err(DataFusionError::External(Box::new(Error::cancelled("the query was interrupted"))));
    }
    Ok(())
}

/// Installs the tracer that passes interrupts on to the tasks that the engine spawns.
pub(crate) fn install() {
    // This fails if an earlier call has already installed the tracer.
    let _ = set_join_set_tracer(&InterruptTracer);
}

/// Restores the previous interrupt of the thread when it is dropped, also after a panic.
struct Restored(Option<Interrupt>);

impl Drop for Restored {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// A task whose interrupt is set while it is polled.
struct Covered<F> {
    task: Pin<Box<F>>,
    interrupt: Interrupt,
    /// The memory that becomes the current memory of the thread at the start of each poll.
    memory: Option<Arc<BatchMemory>>,
}

impl<F: Future> Future for Covered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { task, interrupt, memory } = &mut *self;
        batch_memory::during(memory.clone(), || interrupt.during(|| task.as_mut().poll(context)))
    }
}

struct InterruptTracer;

type Outcome = Box<dyn Any + Send>;

impl JoinSetTracer for InterruptTracer {
    fn trace_future(&self, task: BoxFuture<'static, Outcome>) -> BoxFuture<'static, Outcome> {
        match CURRENT.with_borrow(Clone::clone) {
            Some(interrupt) => Box::pin(interrupt.cover(task)),
            None => task,
        }
    }

    fn trace_block(&self, call: Box<dyn FnOnce() -> Outcome + Send>) -> Box<dyn FnOnce() -> Outcome + Send> {
        match CURRENT.with_borrow(Clone::clone) {
            Some(interrupt) => Box::new(move || interrupt.during(call)),
            None => call,
        }
    }
}
