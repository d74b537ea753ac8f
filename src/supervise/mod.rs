//! The supervisor of all background tasks: it names them, restarts them after a panic, and reports them to readiness.
//!
//! ```text
//!   owner (JoinSet) ─► Supervisor::keep ─► begin() ─► fence ─┬─ ended ─► the owner
//!                          ▲                                 └─ panic ─► log once, count, not ready
//!                          └──────── a pause that doubles ◄───────┘            │
//!   GET /readyz ◄──────────────────────────────────────────── Supervisor::faults
//!
//!   request, batch, message ─► catch, catch_future, blocking ─► an error in place of a panic
//! ```
//!
//! In: a [`Task`], and a closure that begins it. Out: what the task returned. The supervisor spawns nothing: a task belongs to
//! the JoinSet or TaskTracker of its owner, which awaits it.
//!
//! **Invariant:** no panic of a task leaves [`Supervisor::keep`] or [`Supervisor::once`], so that no panic can skip a step of
//! the server's stop.
//! **Invariant:** a panic is logged once: inside a fence by whoever handles it, elsewhere by the hook.

mod fence;

mod stop;

#[cfg(test)]
mod failpoint;
#[cfg(test)]
mod tests;

pub use fence::{Panic, blocking, catch, catch_future, install_panic_hook, on_thread};
pub use stop::{Deadline, Stop};

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// After so many panics in a row a restart alone does not make the server ready again.
const PANICS_MAX: u32 = 5;

/// How fast tasks are restarted.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    /// The pause before the first restart; it doubles up to `pause_max`.
    pause_min: Duration,
    /// The longest pause between two restarts.
    pause_max: Duration,
    /// A task that has run this long is sound again: its next panic counts as the first.
    steady_after: Duration,
}

/// A bug that comes and goes costs a moment; one that stays costs neither the processor nor the log.
const BACKOFF: Backoff = Backoff {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(30),
    steady_after: Duration::from_secs(60),
};

/// What a background task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKind {
    /// Writes and commits the batches of one table.
    Committer,
    /// Checkpoints one table and cleans up its log.
    Maintenance,
    /// Follows events that were acknowledged before their commit until they are stored.
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

/// One background task: its kind, and the name of what it works on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    kind: TaskKind,
    name: String,
}

/// What becomes of a task that panics while the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// It ends: the next start of the server does its work.
    End,
    /// It is restarted until it ends by itself: it holds what must be finished.
    Finish,
}

/// Watches background tasks. Clones watch together.
#[derive(Debug, Clone)]
pub struct Supervisor {
    metrics: Arc<Metrics>,
    backoff: Backoff,
    down: Arc<Mutex<BTreeMap<Task, Down>>>,
    #[cfg(test)]
    pub(crate) failpoints: failpoint::Failpoints,
}

/// Why a task does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    /// It waits for its restart.
    Restarting,
    /// It is restarted again and again.
    Failing,
    /// It cannot be restarted.
    Ended,
}

impl TaskKind {
    /// The word for it in metrics.
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

/// As in "committer `calls`".
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

    /// Runs a task until it ends by itself, and begins it anew after each panic. Returns its value, or `None` if it panicked
    /// while the server stops and `at_stop` lets it end.
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
                %task, panics, restart_in_ms = pause.as_millis(), "a background task panicked and is restarted: {panic}"
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

    /// Runs a task that cannot be restarted. A panic is `Internal`, and the server is not ready from then on.
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

    /// The tasks that do not work now, in words for readiness. Causes are in the log: anybody may read these.
    pub fn faults(&self) -> Vec<String> {
        let fault = |(task, down): (&Task, &Down)| match down {
            Down::Restarting => format!("the {task} panicked and is restarted"),
            Down::Failing => format!("the {task} panicked {PANICS_MAX} times in a row or more"),
            Down::Ended => format!("the {task} panicked and has ended"),
        };
        self.lock().iter().map(fault).collect()
    }

    /// One run of a task. Once it has run for a while, its panics so far are forgotten.
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

    /// Nothing panics while it is held, so a poisoned lock is as good as new.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Task, Down>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backoff {
    /// The pause after so many panics in a row.
    fn pause_after(&self, panics: u32) -> Duration {
        self.pause_min.saturating_mul(1 << panics.saturating_sub(1).min(16)).min(self.pause_max)
    }
}
