//! Events that were acknowledged and are neither stored nor lost yet.
//!
//! In: events as they are promised, stored or given up. Out: what is lost when the server stops without waiting any longer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many of them there are, by the table that they are for.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedEvents(Mutex<BTreeMap<String, u64>>);

impl AcknowledgedEvents {
    /// All of them, which are lost from now on.
    pub(super) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.lock())
    }

    /// These events are acknowledged.
    pub(super) fn add(&self, table: &str, events: u64) {
        *self.lock().entry(table.to_owned()).or_default() += events;
    }

    /// These events are stored, or lost.
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
