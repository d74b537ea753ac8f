//! The threads on which queries are planned and run.
//!
//! In: the work of one query. Out: its outcome, on the caller's own runtime. The threads are the engine's: as many as
//! `query.threads`, with a stack that planning can rely on.
//!
//! ```text
//!   endpoint's runtime                            │ query runtime (lower priority)
//!   Session::plan ── run(work) ───────────────────┼─► parse, check, plan ─┐
//!            Planned ◄────────────────────────────┼───────────────────────┘
//!   Session::run ─── run(work) ───────────────────┼─► plan ► execute ──► spawn(result stream) ─┐
//!            ResultStream  ◄──── bounded channel ───────┼────────────────────────────────────────────┘
//! ```
//!
//! **Invariant:** nothing else runs on these threads, and no query runs on others. So an endpoint or a commit never waits for
//! a query's processor time: the operating system gives its threads the processor first.
//! **Invariant:** work ends when its caller drops it, at its next await. A panic in it is that caller's error.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::query::request::statement::STACK_BYTES_MIN;

/// The nice value of these threads: a busy thread of other work gets three times as much of a processor as one of them.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// A runtime for queries alone.
pub(in crate::query) struct QueryRuntime {
    handle: Handle,
    /// `None` once it was stopped.
    runtime: Mutex<Option<Runtime>>,
    /// Ends the waits of callers: a thread that is busy would let them wait until its work yields.
    stopping: CancellationToken,
}

impl QueryRuntime {
    /// Starts `threads` threads; 0 for one per core.
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
            .map_err(|error| Error::internal("cannot start the threads of queries").with_source(error))?;
        let handle = runtime.handle().clone();
        Ok(Self { handle, runtime: Mutex::new(Some(runtime)), stopping: CancellationToken::new() })
    }

    /// Runs `work` on these threads and waits for its outcome. Dropping the wait ends the work.
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

    /// Starts `work` on these threads. Its owner holds the handle: dropping it ends the work.
    pub(in crate::query) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.handle.spawn(work.in_current_span()))
    }

    /// Ends all work at its next await, and takes no more. Returns at once: threads that are busy end when they get there.
    pub(in crate::query) fn stop(&self) {
        self.stopping.cancel();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Drop for QueryRuntime {
    /// A runtime that is dropped otherwise waits for its threads, which no async code may do.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for QueryRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryRuntime").finish_non_exhaustive()
    }
}

/// Why a query ends that the runtime no longer runs.
pub(in crate::query) fn stopped() -> Error {
    Error::unavailable("the server is stopping: ask again, another one may answer")
}

/// Lowers the scheduling priority of the calling thread. Where the system refuses, queries run with the same priority.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        // On Linux a nice value belongs to a thread, and 0 is the calling one.
        #[expect(
            unsafe_code,
            reason = "a C function without pointers; the safe wrappers would rebuild half of the tree"
        )]
        // SAFETY: `setpriority` takes three numbers and refuses what it does not know.
        let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        if outcome != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "queries keep the priority of other work");
        }
    }
}
