//! A tokio runtime whose threads plan and run queries. Each active tenant has its own (see `tenant_runtimes.rs`).
//!
//! Endpoints wait for the results on their own runtime. A query runtime has `query.threads` threads. Their stacks are
//! large enough for planning.
//!
//! ```text
//!   endpoint's runtime                            │ query runtime (lower priority)
//!   Session::plan ── run(work) ───────────────────┼─► parse, check, plan ─┐
//!            Planned ◄────────────────────────────┼───────────────────────┘
//!   Session::run ─── run(work) ───────────────────┼─► plan ► execute ──► spawn(result stream) ─┐
//!            ResultStream ◄───── bounded channel ─┼────────────────────────────────────────────┘
//! ```
//!
//! **Invariant:** every query runs on one of these threads, and nothing else does. Threads with a higher priority get
//! the processor first, so endpoints and commits need not wait until a query yields.
//! **Invariant:** if a caller drops the future or the handle that represents its work, the work ends when it next
//! yields. If the work panics, the caller receives an error.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::query::planning::statement::STACK_BYTES_MIN;
use crate::sql::engine_error_text::panicked;
use crate::supervise::{nice, set_nice};

/// The nice value of the query threads is the server's nice value plus this number. If a query thread and another
/// thread compete for a processor, the other thread gets about three times as much processor time.
const NICE: i32 = 5;

/// A tokio runtime that runs only queries.
pub(in crate::query) struct QueryRuntime {
    handle: Handle,
    /// The tokio runtime, or `None` after it has been stopped.
    runtime: Mutex<Option<Runtime>>,
    /// A token that is cancelled when the runtime stops. Without it, a caller would have to wait until the thread of
    /// its query yields.
    stopping: CancellationToken,
}

impl QueryRuntime {
    /// Starts a runtime with `threads` threads.
    pub(in crate::query) fn start(threads: usize) -> Result<Self> {
        // The runtime's threads for blocking work also call `set_nice`. Query threads start them, so they inherit the
        // lowered priority, and the call has no effect.
        let own = nice();
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES_MIN)
            .on_thread_start(move || set_nice(own, NICE))
            .enable_all()
            .build()
            .map_err(|error| Error::internal("cannot start the query threads").with_source(error))?;
        let handle = runtime.handle().clone();
        Ok(Self { handle, runtime: Mutex::new(Some(runtime)), stopping: CancellationToken::new() })
    }

    /// Runs `work` on the query threads and waits for its result. If the returned future is dropped, the work ends.
    pub(in crate::query) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let outcome = tokio::select! {
            biased;
            outcome = self.spawn(work) => outcome,
            () = self.stopping.cancelled() => return Err(stopped()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => Err(panicked(error)),
            Err(_) => Err(stopped()),
        }
    }

    /// Starts `work` on the query threads. If the returned handle is dropped, the work ends.
    pub(in crate::query) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.handle.spawn(work.in_current_span()))
    }

    /// Stops accepting new work and cancels running work, which ends when it next yields. Does not wait for it to end.
    pub(in crate::query) fn stop(&self) {
        self.stopping.cancel();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Drop for QueryRuntime {
    /// Stops the runtime without waiting. By default, dropping a tokio runtime blocks until its threads have ended,
    /// which async code must not do.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for QueryRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryRuntime").finish_non_exhaustive()
    }
}

/// Returns the error for a query that ended because the runtime stopped.
pub(in crate::query) fn stopped() -> Error {
    Error::unavailable("the server is stopping: retry, possibly on another server")
}
