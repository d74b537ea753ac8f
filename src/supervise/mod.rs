//! The supervisor of all background tasks: it names tasks, restarts them after a panic, and reports failures to readiness.
//!
//! ```text
//!   owner (JoinSet) ─► Supervisor::keep ─► begin() ─► fence ─┬─ ended ─► the owner
//!                          ▲                                 └─ panic ─► log once, count, not ready
//!                          └──────── doubling pause ◄─────────────┘            │
//!   GET /readyz ◄──────────────────────────────────────────── Supervisor::faults
//!
//!   request, batch, message ─► catch, catch_future, blocking ─► an error in place of a panic
//! ```
//!
//! In: a [`Task`], and a closure that starts it. Out: the task's return value. The supervisor spawns nothing: a task belongs to
//! the JoinSet or TaskTracker of its owner, which awaits it.
//!
//! **Invariant:** no panic of a task escapes [`Supervisor::keep`] or [`Supervisor::once`], so no panic can skip a step of the
//! shutdown.
//! **Invariant:** a panic is logged once: inside a fence by the code that handles it, elsewhere by the panic hook.

mod panic_fence;

mod shutdown;

#[cfg(test)]
mod failpoint;
#[cfg(test)]
mod tests;

pub use panic_fence::{Panic, blocking, catch, catch_future, install_panic_hook, on_thread};
pub use shutdown::{Deadline, Stop};

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// After this number of consecutive panics, a restart alone does not make the server ready again.
const PANICS_MAX: u32 = 5;

/// The pauses between restarts.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    /// The pause before the first restart; it doubles up to `pause_max`.
    pause_min: Duration,
    /// The longest pause between two restarts.
    pause_max: Duration,
    /// A task that has run this long counts as healthy: its next panic counts as the first.
    steady_after: Duration,
}

/// A transient bug costs a short pause; a permanent one does not load the processor or flood the log.
const BACKOFF: Backoff = Backoff {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(30),
    steady_after: Duration::from_secs(60),
};

/// The kind of a background task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKind {
    /// Writes and commits the batches of one table.
    Committer,
    /// Checkpoints one table and cleans up its log.
    Maintenance,
    /// Tracks events that were acknowledged before their commit until they are stored.
    Acknowledged,
    /// Reads a source.
    Source,
    /// Refreshes one lookup table.
    LookupTable,
    /// Reads other writers' commits to one table.
    Follower,
    /// Accepts connections.
    Endpoint,
}

/// One background task: its kind, and the name of the table, source or endpoint it works on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    kind: TaskKind,
    name: String,
}

/// How a task that panics during shutdown is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// It ends: the next start of the server repeats its work.
    End,
    /// It is restarted until it ends by itself: it holds work that must be finished.
    Finish,
}

/// Watches background tasks. Clones share their state.
#[derive(Debug, Clone)]
pub struct Supervisor {
    metrics: Arc<Metrics>,
    backoff: Backoff,
    down: Arc<Mutex<BTreeMap<Task, Down>>>,
    #[cfg(test)]
    pub(crate) failpoints: failpoint::Failpoints,
}

/// Why a task is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    /// It waits for its restart.
    Restarting,
    /// It panics after every restart.
    Failing,
    /// It cannot be restarted.
    Ended,
}

impl TaskKind {
    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committer => "committer",
            Self::Maintenance => "maintenance",
            Self::Acknowledged => "acknowledged_events",
            Self::Source => "source",
            Self::LookupTable => "lookup_table",
            Self::Follower => "follower",
            Self::Endpoint => "endpoint",
        }
    }
}

impl Task {
    /// A task of `kind` that works on `name`: a table, a source, an endpoint.
    pub fn new(kind: TaskKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// For example "committer `calls`".
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind.as_str().replace('_', " "), self.name)
    }
}

impl Supervisor {
    /// A supervisor without tasks. It counts panics and restarts in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            backoff: BACKOFF,
            down: Arc::default(),
            #[cfg(test)]
            failpoints: failpoint::Failpoints::default(),
        }
    }

    /// Runs a task until it ends by itself, and restarts it after each panic. Returns its value, or `None` if it panicked during
    /// shutdown and `at_stop` is [`AtStop::End`].
    pub async fn keep<F: Future>(
        &self,
        task: Task,
        stop: &CancellationToken,
        at_stop: AtStop,
        mut begin: impl FnMut() -> F,
    ) -> Option<F::Output> {
        let mut panics = 0;
        loop {
            let panic = match self.attempt(&task, begin(), &mut panics).await {
                Ok(value) => {
                    self.lock().remove(&task);
                    return Some(value);
                }
                Err(panic) => panic,
            };
            panics += 1;
            let pause = self.backoff.pause_after(panics);
            self.panicked(&task, if panics < PANICS_MAX { Down::Restarting } else { Down::Failing });
            tracing::error!(
                %task, panics, restart_in_ms = pause.as_millis(), "a background task panicked and will be restarted: {panic}"
            );
            if stop.is_cancelled() && at_stop == AtStop::Finish {
                tokio::time::sleep(self.backoff.pause_min).await;
            } else if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() && at_stop == AtStop::End {
                return None;
            }
            self.metrics.task_restarted(task.kind.as_str());
            let mut down = self.lock();
            if down.get(&task) == Some(&Down::Restarting) {
                down.remove(&task);
            }
        }
    }

    /// Runs a task that cannot be restarted. A panic is an `Internal` error, and the server stays not ready.
    pub async fn once<T>(&self, task: Task, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.attempt(&task, work, &mut 0).await {
            Ok(outcome) => outcome,
            Err(panic) => {
                self.panicked(&task, Down::Ended);
                tracing::error!(%task, "a background task panicked and cannot be restarted: {panic}");
                Err(Error::internal(format!("the {task} panicked: the log has the cause")))
            }
        }
    }

    /// The tasks that are down, as texts for the readiness endpoint. Anybody may read them, so they omit the causes.
    pub fn faults(&self) -> Vec<String> {
        let fault = |(task, down): (&Task, &Down)| match down {
            Down::Restarting => format!("the {task} panicked and is restarted"),
            Down::Failing => format!("the {task} panicked {PANICS_MAX} times in a row or more"),
            Down::Ended => format!("the {task} panicked and has ended"),
        };
        self.lock().iter().map(fault).collect()
    }

    /// One run of a task. Once it has run long enough, its panic count is reset.
    async fn attempt<F: Future>(&self, task: &Task, work: F, panics: &mut u32) -> Result<F::Output, Panic> {
        #[cfg(test)]
        let work = self.failpoints.beside(task, work);
        let mut running = pin!(catch_future(work));
        if let Ok(ended) = tokio::time::timeout(self.backoff.steady_after, &mut running).await {
            return ended;
        }
        *panics = 0;
        self.lock().remove(task);
        running.await
    }

    fn panicked(&self, task: &Task, down: Down) {
        self.metrics.task_panicked(task.kind.as_str());
        self.lock().insert(task.clone(), down);
    }

    /// Nothing panics while the lock is held, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Task, Down>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backoff {
    /// The pause after this number of consecutive panics.
    fn pause_after(&self, panics: u32) -> Duration {
        self.pause_min.saturating_mul(1 << panics.saturating_sub(1).min(16)).min(self.pause_max)
    }
}
