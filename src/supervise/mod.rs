//! Supervision of background tasks. The supervisor restarts a task after a panic, and `/readyz` reports the tasks that
//! are down.
//!
//! ```text
//!   owner (JoinSet) ─► Supervisor::keep ─► start() ─► fence ─┬─ ended ─► the owner
//!                          ▲                                 └─ panic ─► log once, count, not ready
//!                          └──────── doubling pause ◄─────────────┘            │
//!   GET /readyz ◄──────────────────────────────────────────── Supervisor::down_tasks
//!
//!   request, batch, message ─► catch, catch_future, blocking ─► an error instead of a panic
//! ```
//!
//! The supervisor does not spawn tasks. A task belongs to the `JoinSet` or `TaskTracker` of its owner, and the owner
//! waits for the task to end.
//!
//! **Invariant:** [`Supervisor::keep`] and [`Supervisor::once`] catch every panic in a task. A panic in a task
//! therefore cannot cause a step of the shutdown to be skipped.
//! **Invariant:** a panic is logged once. If a fence (see `panic_fence.rs`) catches the panic, the code that handles
//! the returned [`Panic`] logs it. The panic hook logs all other panics.

mod panic_fence;

mod shutdown;

mod thread_priority;

#[cfg(test)]
mod failpoint;
#[cfg(test)]
mod tests;

pub use panic_fence::{Panic, blocking, catch, catch_future, install_panic_hook, on_thread};
pub use shutdown::{Deadline, Stop};
pub use thread_priority::{nice, set_nice};

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// After this many consecutive panics of a task, the server is reported as not ready until the restarted task has run
/// for [`Backoff::steady_after`].
const PANICS_MAX: u32 = 5;

/// The parameters of the exponential backoff between restarts.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    /// The pause before the first restart. The pause doubles with each further panic, up to `pause_max`.
    pause_min: Duration,
    /// The longest pause between two restarts.
    pause_max: Duration,
    /// The time that a task must run before it counts as healthy and its panic count is reset.
    steady_after: Duration,
}

/// A task that panics once is restarted after a short pause. If the task keeps panicking, longer pauses limit the CPU
/// use and the size of the log.
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
    /// Merges the files of one table.
    Merges,
    /// Removes the expired rows of one table.
    Retention,
    /// Deletes files of one table that are no longer needed.
    Vacuum,
    /// Waits until acknowledged events of one table are stored, and queues them again after a failure.
    Acknowledged,
    /// Reads one source.
    Source,
    /// Refreshes one lookup table.
    LookupTable,
    /// Reads other writers' commits to one table.
    Follower,
    /// Reads the file with the revoked tokens.
    Revocations,
    /// Accepts the connections of one endpoint.
    Endpoint,
}

/// A background task, identified by its kind and the name of the table, source, endpoint or setting that it works on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    kind: TaskKind,
    name: String,
}

/// What the supervisor does if a task panics during the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// The supervisor does not restart the task, because the server repeats the work the next time it starts.
    End,
    /// The supervisor restarts the task until it ends without a panic, because the work must be finished.
    Finish,
}

/// Supervises background tasks. Clones share their state.
#[derive(Debug, Clone)]
pub struct Supervisor {
    metrics: Arc<Metrics>,
    backoff: Backoff,
    down: Arc<Mutex<BTreeMap<Task, Down>>>,
    #[cfg(test)]
    pub(crate) failpoints: failpoint::Failpoints,
}

/// The reason why a task is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    /// The task has panicked and will be restarted after a pause.
    Restarting,
    /// The task has panicked at least [`PANICS_MAX`] times in a row.
    Failing,
    /// The task has panicked and cannot be restarted.
    Ended,
}

impl TaskKind {
    /// Returns the kind as a label value for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committer => "committer",
            Self::Maintenance => "maintenance",
            Self::Merges => "merges",
            Self::Retention => "retention",
            Self::Vacuum => "vacuum",
            Self::Acknowledged => "acknowledged_events",
            Self::Source => "source",
            Self::LookupTable => "lookup_table",
            Self::Follower => "follower",
            Self::Revocations => "revocations",
            Self::Endpoint => "endpoint",
        }
    }
}

impl Task {
    /// Creates a task of `kind` for the table, source, endpoint or setting `name`.
    pub fn new(kind: TaskKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// Formats the kind and the name, for example "committer `calls`".
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind.as_str().replace('_', " "), self.name)
    }
}

impl Supervisor {
    /// Creates a supervisor without tasks. The supervisor counts panics and restarts in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            backoff: BACKOFF,
            down: Arc::default(),
            #[cfg(test)]
            failpoints: failpoint::Failpoints::default(),
        }
    }

    /// Runs a task until it ends without a panic, and restarts it after each panic. Returns the task's value, or `None`
    /// if the task panicked during the shutdown and `at_stop` is [`AtStop::End`].
    pub async fn keep<F: Future>(
        &self,
        task: Task,
        stop: &CancellationToken,
        at_stop: AtStop,
        mut start: impl FnMut() -> F,
    ) -> Option<F::Output> {
        let mut panics = 0;
        loop {
            let panic = match self.run_once(&task, start(), &mut panics).await {
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

    /// Runs a task that cannot be restarted. If the task panics, returns an `Internal` error, and `/readyz` reports the
    /// server as not ready from then on.
    pub async fn once<T>(&self, task: Task, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.run_once(&task, work, &mut 0).await {
            Ok(outcome) => outcome,
            Err(panic) => {
                self.panicked(&task, Down::Ended);
                tracing::error!(%task, "a background task panicked and cannot be restarted: {panic}");
                Err(Error::internal(format!("the {task} panicked: see the log for the cause")))
            }
        }
    }

    /// Describes each task that is down, for `/readyz`. The descriptions omit the causes, because `/readyz` requires no
    /// authentication.
    pub fn down_tasks(&self) -> Vec<String> {
        let describe = |(task, down): (&Task, &Down)| match down {
            Down::Restarting => format!("the {task} panicked and is being restarted"),
            Down::Failing => format!("the {task} panicked at least {PANICS_MAX} times in a row"),
            Down::Ended => format!("the {task} panicked and has ended"),
        };
        self.lock().iter().map(describe).collect()
    }

    /// Runs a task until it ends or panics. Resets `panics` once the task counts as healthy (see
    /// [`Backoff::steady_after`]).
    async fn run_once<F: Future>(&self, task: &Task, work: F, panics: &mut u32) -> Result<F::Output, Panic> {
        #[cfg(test)]
        let work = self.failpoints.wrap(task, work);
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

    /// Locks the map of tasks that are down. No code panics while it holds the lock, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Task, Down>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backoff {
    /// Returns the pause after the given number of consecutive panics.
    fn pause_after(&self, panics: u32) -> Duration {
        self.pause_min.saturating_mul(1 << panics.saturating_sub(1).min(16)).min(self.pause_max)
    }
}
