//! The threads on which merges run, and the limit on their CPU time.
//!
//! ```text
//!   merge ─► wait for the turn ─► one step on a thread of low priority ─► its CPU time moves the next turn
//! ```
//!
//! **Invariant:** over time, all merges together use at most the CPU time of the limit. After a step that used more than
//! its share, the next step of any merge waits.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::supervise::{Panic, catch, nice, set_nice};

/// The nice value of the merge threads is the server's nice value plus this number. Query threads add 5, so a merge
/// gets about a third of the time of a query.
const NICE: i32 = 10;
/// The maximum number of steps that run at the same time: one for each slot.
const STEPS_MAX: usize = 2;
/// The factor by which the limit grows while a table has too many unmerged files.
const URGENT_FACTOR: f64 = 2.0;

/// Runs the steps of merges.
pub struct MergeThreads {
    handle: Handle,
    /// The runtime, or `None` after it has been stopped.
    runtime: Mutex<Option<Runtime>>,
    /// The limit, in cores.
    cores: f64,
    /// The number of tables that have too many unmerged files.
    urgent: AtomicUsize,
    /// The time at which the next step may begin.
    next: Mutex<Instant>,
    stopping: CancellationToken,
}

impl MergeThreads {
    /// Starts the threads. `cpu_percent_max` is the limit in percent of one core. The value 0 means a quarter of all
    /// cores, but at least half a core.
    pub fn start(cpu_percent_max: u32) -> Result<Self> {
        let own = nice();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(STEPS_MAX)
            .thread_name("merge")
            .on_thread_start(move || set_nice(own, NICE))
            .build()
            .map_err(|error| Error::internal("cannot start the threads for merges").with_source(error))?;
        let handle = runtime.handle().clone();
        let cores = match cpu_percent_max {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) as f64 / 4.0).max(0.5),
            percent => f64::from(percent) / 100.0,
        };
        Ok(Self {
            handle,
            runtime: Mutex::new(Some(runtime)),
            cores,
            urgent: AtomicUsize::new(0),
            next: Mutex::new(Instant::now()),
            stopping: CancellationToken::new(),
        })
    }

    /// Waits until the CPU limit allows another step, and runs it. `what` is the start of the error message after a
    /// panic. Returns `Unavailable` if the threads are stopping.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        step: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = *self.lock();
        let waited = self.stopping.run_until_cancelled(tokio::time::sleep_until(turn)).await;
        if waited.is_none() {
            return Err(stopping());
        }
        let began = Instant::now();
        let timed = move || {
            let before = ThreadTime::now();
            let outcome = catch(step);
            (outcome, before.elapsed())
        };
        let (outcome, used): (Result<Result<T>, Panic>, Duration) =
            self.handle.spawn_blocking(timed).await.map_err(|_| stopping())?;
        self.charge(began, used);
        outcome.unwrap_or_else(|panic| Err(Error::internal(format!("{what} panicked")).with_source(panic)))
    }

    /// Records that one more table has too many unmerged files, or one fewer.
    pub(super) fn set_urgent(&self, is_urgent: bool) {
        match is_urgent {
            true => self.urgent.fetch_add(1, Ordering::Relaxed),
            false => self.urgent.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Returns the current limit, in cores.
    pub fn cores(&self) -> f64 {
        let factor = if self.urgent.load(Ordering::Relaxed) > 0 { URGENT_FACTOR } else { 1.0 };
        self.cores * factor
    }

    /// Ends the merges at their next step. Does not wait for them.
    pub fn stop(&self) {
        self.stopping.cancel();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }

    /// Moves the next turn by the share of a step that used this CPU time.
    fn charge(&self, began: Instant, used: Duration) {
        let share = used.div_f64(self.cores());
        let mut next = self.lock();
        *next = (*next).max(began) + share;
    }

    /// Locks the time of the next turn. No code panics while it holds the lock, so poisoning can be ignored.
    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MergeThreads {
    /// Stops the runtime without waiting. By default, dropping a tokio runtime blocks until its threads have ended,
    /// which async code must not do.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for MergeThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeThreads").field("cores", &self.cores).finish_non_exhaustive()
    }
}

fn stopping() -> Error {
    Error::unavailable("the server is stopping, so the merge ends")
}

/// The CPU time that the calling thread has used, or the time of day if the operating system does not report it.
struct ThreadTime {
    used: Option<Duration>,
    began: std::time::Instant,
}

impl ThreadTime {
    fn now() -> Self {
        Self { used: thread_time(), began: std::time::Instant::now() }
    }

    /// Returns the CPU time since `self` was created by the same thread.
    fn elapsed(&self) -> Duration {
        match (self.used, thread_time()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.began.elapsed(),
        }
    }
}

/// Returns the CPU time of the calling thread, which Linux reports in nanoseconds.
fn thread_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses the processor for this time.
    fn spin(time: Duration) {
        let (before, mut number) = (ThreadTime::now(), 0_u64);
        while before.elapsed() < time {
            number = std::hint::black_box(number.wrapping_mul(31) + 1);
        }
    }

    #[tokio::test]
    async fn steps_wait_until_the_limit_allows_them() {
        let threads = MergeThreads::start(10).unwrap();
        let began = Instant::now();
        for _ in 0..3 {
            threads
                .run("a step", || {
                    spin(Duration::from_millis(5));
                    Ok(())
                })
                .await
                .unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(100), "two steps of 5 ms take 50 ms each");
        threads.set_urgent(true);
        assert!((threads.cores() - 0.2).abs() < 1e-9);
        threads.set_urgent(false);
        assert!((threads.cores() - 0.1).abs() < 1e-9);
        threads.stop();
        let error = threads.run("a step", || Ok(())).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Unavailable);
    }

    #[tokio::test]
    async fn steps_run_at_low_priority_and_a_panic_is_an_error() {
        let threads = MergeThreads::start(100).unwrap();
        let found = threads.run("a step", || Ok(nice())).await.unwrap();
        assert_eq!(found, (nice() + NICE).min(19));
        let error = threads.run("a step", || -> Result<()> { panic!("a bug") }).await.unwrap_err();
        assert_eq!(error.to_string(), "a step panicked");
        assert_eq!(threads.run("a step", || Ok(7)).await.unwrap(), 7);
    }
}
