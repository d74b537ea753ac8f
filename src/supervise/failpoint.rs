//! Injects panics into background tasks. The module is compiled for tests only.
//!
//! **Invariant:** a failpoint belongs to one supervisor, so tests that run in parallel do not affect each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::Task;

/// The tasks whose failpoints are armed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failpoints {
    armed: Arc<watch::Sender<BTreeSet<Task>>>,
}

impl Failpoints {
    /// Makes `task` panic immediately and after each restart, until [`Self::disarm`] is called.
    pub(crate) fn arm(&self, task: &Task) {
        self.armed.send_if_modified(|armed| armed.insert(task.clone()));
    }

    /// Disarms the failpoint for `task`, so the task no longer panics.
    pub(crate) fn disarm(&self, task: &Task) {
        self.armed.send_if_modified(|armed| armed.remove(task));
    }

    /// Wraps `work` in a future that panics as soon as the failpoint for `task` is armed.
    pub(super) fn wrap<F: Future>(&self, task: &Task, work: F) -> impl Future<Output = F::Output> + use<F> {
        let (task, mut armed) = (task.clone(), self.armed.subscribe());
        async move {
            let panics = async {
                if armed.wait_for(|armed| armed.contains(&task)).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = panics => panic!("a test makes the {task} panic"),
                value = work => value,
            }
        }
    }
}
