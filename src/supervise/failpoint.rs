//! Panics that a test injects into background tasks. Compiled for tests only.
//!
//! **Invariant:** a failpoint belongs to one supervisor: tests that run beside each other do not meet.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::Task;

/// The tasks that panic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failpoints {
    armed: Arc<watch::Sender<BTreeSet<Task>>>,
}

impl Failpoints {
    /// From now on `task` panics whenever it runs.
    pub(crate) fn arm(&self, task: &Task) {
        self.armed.send_if_modified(|armed| armed.insert(task.clone()));
    }

    /// It does not any more.
    pub(crate) fn disarm(&self, task: &Task) {
        self.armed.send_if_modified(|armed| armed.remove(task));
    }

    /// The same work, which panics once `task` is armed.
    pub(super) fn beside<F: Future>(&self, task: &Task, work: F) -> impl Future<Output = F::Output> + use<F> {
        let (task, mut armed) = (task.clone(), self.armed.subscribe());
        async move {
            let panics = async {
                if armed.wait_for(|armed| armed.contains(&task)).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = panics => panic!("a test lets the {task} panic"),
                value = work => value,
            }
        }
    }
}
