//! Fences: log entries without changes. After a fence at version n, no entry that was sent before it can be committed at
//! a version up to n, because all these versions are taken.
//!
//! **Invariant:** a fence is an entry that every reader of the log reads. If the log was cleaned up while the fence was
//! put, another fence is put.

use std::sync::Arc;

use serde_json::json;

use crate::error::{Error, Result};
use crate::lake::log::delta_log::LogEntry;
use crate::lake::log::entry_put::{Attempt, EntryPut, Fate};
use crate::lake::log::table_state::Changes;
use crate::lake::{Snapshot, Table};

/// The maximum number of attempts. An attempt fails if another writer commits first, or if its result is in doubt.
const ATTEMPTS_MAX: usize = 100;
/// The maximum number of in-doubt results.
const IN_DOUBT_MAX: usize = 3;

/// A fence in the log.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    /// The snapshot of the fence's version, or of a later version.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The time at which the store received the fence, in milliseconds since 1970. It is a time of the store's clock,
    /// as the modification times of all objects are.
    pub(crate) now_ms: i64,
}

impl Table {
    /// Puts a fence in the log. Returns `Unavailable` if the store does not confirm it. Fences need not be removed.
    pub(crate) async fn fence(&self) -> Result<Fence> {
        let name = &self.contract.name;
        let _permit =
            self.commit_lock.acquire().await.map_err(|_| Error::internal("a table's commit lock was closed"))?;
        self.refresh().await?;
        let new = || EntryPut::new(LogEntry::default(), "VACUUM START", json!({}), self.now_ms());
        let (mut put, mut in_doubt) = (new()?, 0);
        for _ in 0..ATTEMPTS_MAX {
            let state = self.state();
            match put.fate(&self.log, &state).await? {
                Fate::Committed(version) => {
                    return Ok(Fence { snapshot: state.snapshot, now_ms: self.log.modified_ms(version).await? });
                }
                Fate::Unknown => put = new()?,
                Fate::InDoubt | Fate::NotCommitted => {}
            }
            let version = state.snapshot.version + 1;
            match put.put(&self.log, version).await? {
                Attempt::Committed if self.gap_check_due() => drop(self.reload().await?),
                Attempt::Committed => self.publish(Changes::at(version).apply(&self.contract, Some(&state))?),
                Attempt::Lost => drop(self.follow().await?),
                Attempt::InDoubt(error) if in_doubt >= IN_DOUBT_MAX => {
                    let message = format!("table `{name}`: a fence may or may not be in the log: retry");
                    return Err(Error::unavailable(message).with_source(error));
                }
                Attempt::InDoubt(_) => in_doubt += 1,
            }
        }
        Err(Error::unavailable(format!("table `{name}`: a fence lost to other writers {ATTEMPTS_MAX} times: retry")))
    }
}
