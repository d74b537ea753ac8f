//! Counts of events that are acknowledged but neither stored nor lost yet.
//!
//! In: events as they are promised, stored or given up. Out: the events that are lost if the server stops without waiting longer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of such events by table.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedEvents(Mutex<BTreeMap<String, u64>>);

impl AcknowledgedEvents {
    /// Removes and returns all counts. The caller treats these events as lost.
    pub(super) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.lock())
    }

    /// Adds acknowledged events.
    pub(super) fn add(&self, table: &str, events: u64) {
        *self.lock().entry(table.to_owned()).or_default() += events;
    }

    /// Subtracts events that are stored or lost.
    pub(super) fn settle(&self, table: &str, events: u64) {
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
