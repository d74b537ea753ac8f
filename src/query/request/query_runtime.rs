//! The threads that plan and run queries.
//!
//! In: the work of one query. Out: its result, on the caller's own runtime. The thread count is `query.threads`, and
//! each thread has a stack that is large enough for planning.
//!
//! ```text
//!   endpoint's runtime                            │ query runtime (lower priority)
//!   Session::plan ── run(work) ───────────────────┼─► parse, check, plan ─┐
//!            Planned ◄────────────────────────────┼───────────────────────┘
//!   Session::run ─── run(work) ───────────────────┼─► plan ► execute ──► spawn(result stream) ─┐
//!            ResultStream  ◄──── bounded channel ───────┼────────────────────────────────────────────┘
//! ```
//!
//! **Invariant:** nothing else runs on these threads, and no query runs on others. So an endpoint or a commit never
//! waits for a query to release the processor: the operating system schedules their threads first.
//! **Invariant:** work ends at its next await after its caller drops it. A panic in it becomes an error of that caller.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::query::request::statement::STACK_BYTES_MIN;

/// The nice value of these threads: a busy thread of other work gets three times the processor time of one of them.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// A runtime that runs only queries.
pub(in crate::query) struct QueryRuntime {
    handle: Handle,
    /// `None` after the stop.
    runtime: Mutex<Option<Runtime>>,
    /// Ends the waits of callers: otherwise they would wait until a busy thread yields.
    stopping: CancellationToken,
}

impl QueryRuntime {
    /// Starts `threads` threads; 0 means one per core.
    pub(in crate::query) fn start(threads: usize) -> Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES_MIN)
            .on_thread_start(lower_priority)
            .enable_all()
            .build()
            .map_err(|error| Error::internal("cannot start the query threads").with_source(error))?;
        let handle = runtime.handle().clone();
        Ok(Self { handle, runtime: Mutex::new(Some(runtime)), stopping: CancellationToken::new() })
    }

    /// Runs `work` on these threads and waits for its result. Dropping the wait ends the work.
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
            Err(error) if error.is_panic() => Err(Error::internal("the query panicked").with_source(error)),
            Err(_) => Err(stopped()),
        }
    }

    /// Starts `work` on these threads. Dropping the returned handle ends the work.
    pub(in crate::query) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.handle.spawn(work.in_current_span()))
    }

    /// Ends all work at its next await and accepts no more. Returns at once; busy threads end when they reach an await.
    pub(in crate::query) fn stop(&self) {
        self.stopping.cancel();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Drop for QueryRuntime {
    /// Dropping a tokio runtime directly waits for its threads, which async code must not do.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for QueryRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryRuntime").finish_non_exhaustive()
    }
}

/// The error of a query that ends because the runtime stopped.
pub(in crate::query) fn stopped() -> Error {
    Error::unavailable("the server is stopping: retry, possibly on another server")
}

/// Lowers the scheduling priority of the calling thread. If the system refuses, queries keep the normal priority.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        // On Linux a nice value belongs to a thread, and 0 means the calling thread.
        #[expect(
            unsafe_code,
            reason = "a C function without pointers; the safe wrappers would rebuild half of the tree"
        )]
        // SAFETY: `setpriority` takes three numbers and rejects invalid ones.
        let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        if outcome != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "cannot lower the priority of the query threads");
        }
    }
}
