//! Counts the events that the server has acknowledged but not stored yet.
//!
//! If a client requests early acknowledgement, its events are added to the counts when they are acknowledged, and are
//! removed when they are stored or lost. When a stopping server reaches its shutdown deadline, the events that are
//! still counted are lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of acknowledged events that are not stored yet, by table.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedEvents(Mutex<BTreeMap<String, u64>>);

impl AcknowledgedEvents {
    /// Returns the counts of all tables and resets them. The caller reports these events as lost.
    pub(super) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.lock())
    }

    /// Adds acknowledged events to the count of a table.
    pub(super) fn add(&self, table: &str, events: u64) {
        *self.lock().entry(table.to_owned()).or_default() += events;
    }

    /// Subtracts events from the count of a table, after they are stored or lost.
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
