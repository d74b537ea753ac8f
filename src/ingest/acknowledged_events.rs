//! Counts the events that were acknowledged before their commit and are not stored yet.
//!
//! Early acknowledgement adds events here when it promises to store them. It removes them when they are stored or lost.
//! If the server stops at its deadline, the events that remain here are lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of acknowledged events that are not stored yet, by table.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedEvents(Mutex<BTreeMap<String, u64>>);

impl AcknowledgedEvents {
    /// Removes and returns the counts of all tables. The caller reports these events as lost.
    pub(super) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.lock())
    }

    /// Adds events that were acknowledged.
    pub(super) fn add(&self, table: &str, events: u64) {
        *self.lock().entry(table.to_owned()).or_default() += events;
    }

    /// Removes events that are stored or lost.
    pub(super) fn remove(&self, table: &str, events: u64) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(table) {
            *count = count.saturating_sub(events);
        }
        counts.retain(|_, count| *count > 0);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
