//! The state of one source on this server: its last error, its connection to the brokers, and its lag.
//!
//! The source reports errors and progress to its monitor. The monitor updates the metrics, and keeps the state so that
//! operators can query it.
//!
//! **Invariant:** the monitor keeps only the last error and the partitions that this server reads, so its memory is
//! bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message_batch::TopicPartition;
use crate::clock::{Clock, Micros};
use crate::telemetry::{Metrics, PartitionLabel, SourceTrouble};

/// The monitor of one source.
#[derive(Debug)]
pub(in crate::ingest) struct SourceMonitor {
    source: String,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Mutex<MonitorState>,
}

/// The last error of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// When the error occurred.
    pub time: Micros,
    /// The category of the error.
    pub trouble: SourceTrouble,
    /// The message for operators: the problem and the fix.
    pub message: String,
}

/// A partition that this server reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReadPartition {
    /// The number of offsets between the committed offset and the end of the partition. `None` until the brokers have
    /// reported the end offset.
    pub(super) lag: Option<i64>,
    /// Whether the partition has stopped because of a gap or a truncated table.
    pub(super) is_stopped: bool,
}

/// The state that the monitor's lock protects.
#[derive(Debug, Default)]
struct MonitorState {
    /// The last error, even if it is already resolved.
    error: Option<SourceError>,
    /// Whether the group's coordinator is reachable.
    is_connected: bool,
    /// Whether there is an error that may persist even though the connection works. Set to false when a partition is
    /// assigned or a batch is stored.
    is_stuck: bool,
    partitions: BTreeMap<TopicPartition, ReadPartition>,
}

impl MonitorState {
    fn is_failing(&self) -> bool {
        self.is_stuck || (!self.is_connected && self.error.is_some())
    }
}

impl SourceMonitor {
    pub(in crate::ingest) fn new(source: &str, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { source: source.to_owned(), clock, metrics, state: Mutex::default() }
    }

    /// Counts an error and records it as the last error.
    pub(in crate::ingest) fn failed(&self, trouble: SourceTrouble, message: impl Into<String>) {
        self.metrics.sources.failed(&self.source, trouble);
        let error = SourceError { time: self.clock.now(), trouble, message: message.into() };
        self.change(|state| {
            state.is_stuck |= !trouble.ends_with_connection();
            state.error = Some(error);
        });
    }

    /// Records whether the group's coordinator is reachable.
    pub(in crate::ingest) fn connected(&self, is_connected: bool) {
        self.change(|state| state.is_connected = is_connected);
    }

    /// Records that a partition was assigned or a batch was stored.
    pub(in crate::ingest) fn progressed(&self) {
        self.change(|state| state.is_stuck = false);
    }

    pub(in crate::ingest) fn paused(&self, is_paused: bool) {
        self.metrics.sources.paused(&self.source, is_paused);
    }

    pub(in crate::ingest) fn lag(&self, topic_partition: &TopicPartition, messages: i64) {
        self.metrics.sources.lag(self.label(topic_partition), messages);
        self.lock().partitions.entry(topic_partition.clone()).or_default().lag = Some(messages);
    }

    pub(in crate::ingest) fn stopped(&self, topic_partition: &TopicPartition) {
        self.metrics.sources.stopped(self.label(topic_partition));
        self.lock().partitions.entry(topic_partition.clone()).or_default().is_stopped = true;
    }

    /// Records that this server reads the partition.
    pub(in crate::ingest) fn assigned(&self, topic_partition: &TopicPartition) {
        self.lock().partitions.entry(topic_partition.clone()).or_default();
    }

    /// Records that this server no longer reads the partition.
    pub(in crate::ingest) fn released(&self, topic_partition: &TopicPartition) {
        self.metrics.sources.released(self.label(topic_partition));
        self.lock().partitions.remove(topic_partition);
    }

    /// Returns the state of the source: whether it is failing, its last error, and the partitions that this server
    /// reads.
    pub(super) fn snapshot(&self) -> (bool, Option<SourceError>, BTreeMap<TopicPartition, ReadPartition>) {
        let state = self.lock();
        (state.is_failing(), state.error.clone(), state.partitions.clone())
    }

    fn change(&self, change: impl FnOnce(&mut MonitorState)) {
        let is_failing = {
            let mut state = self.lock();
            change(&mut state);
            state.is_failing()
        };
        self.metrics.sources.failing(&self.source, is_failing);
    }

    fn label<'a>(&'a self, topic_partition: &'a TopicPartition) -> PartitionLabel<'a> {
        PartitionLabel { source: &self.source, topic: &topic_partition.topic, partition: topic_partition.partition }
    }

    fn lock(&self) -> MutexGuard<'_, MonitorState> {
        // A poisoned lock can be ignored: no update can panic midway, so the state is always consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_failing_until_its_error_is_resolved() {
        let monitor = SourceMonitor::new("voice", Clock::fixed(7), Arc::default());
        let is_failing = || monitor.snapshot().0;
        assert!(!is_failing(), "no error yet");
        monitor.failed(SourceTrouble::Login, "no");
        assert!(is_failing());
        monitor.connected(true);
        assert!(!is_failing());
        monitor.failed(SourceTrouble::Topic, "none such");
        assert!(is_failing(), "a working connection does not resolve a missing topic");
        monitor.progressed();
        assert!(!is_failing());
        let error = SourceError { time: 7, trouble: SourceTrouble::Topic, message: "none such".to_owned() };
        assert_eq!(monitor.snapshot().1, Some(error), "the last error stays visible after it is resolved");
        monitor.connected(false);
        assert!(is_failing());
    }
}
