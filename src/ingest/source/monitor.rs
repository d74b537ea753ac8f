//! The state of one source on this server: its errors, its connection to the brokers, its gaps, and its lag.
//!
//! ```text
//!   errors, progress ─┐                                  ┌─► metrics
//!   connection ───────┼─► monitor ─► SourceHealth, error ┤
//!   partitions, gaps ─┘                                  └─► operators
//! ```
//!
//! The source reports errors and progress to its monitor. The monitor updates the metrics, and keeps the state so that
//! operators can query it.
//!
//! **Invariant:** the health and the error agree. If the source is not running normally, the error is the present one.
//! If it is, the error is resolved.
//! **Invariant:** the monitor keeps only the last errors and the partitions that this server reads, so its memory is
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

/// An error of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// When the error occurred.
    pub time: Micros,
    /// The category of the error.
    pub trouble: SourceTrouble,
    /// The message for operators: the problem and the fix.
    pub message: String,
}

/// Whether a source reads and stores messages on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceHealth {
    /// The source reads all partitions that are assigned to this server.
    Running,
    /// Gaps or truncated tables have stopped some of the partitions that are assigned to this server. The others are read.
    Degraded,
    /// Gaps or truncated tables have stopped all partitions that are assigned to this server.
    Stopped,
    /// An error prevents the source from reading or storing messages.
    Failing,
}

/// A partition that this server reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReadPartition {
    /// The number of offsets between the committed offset and the end of the partition. `None` until the brokers have
    /// reported the end offset, and if the partition has stopped.
    pub(super) lag: Option<i64>,
    /// The gap or the truncated table that has stopped the partition. `None` if the partition is read.
    pub(super) stop_cause: Option<SourceError>,
}

/// The state of a source, as the monitor knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MonitorSnapshot {
    pub(super) health: SourceHealth,
    /// The error that explains the health. If the source is running, the last error, which is resolved. `None` if there
    /// was no error.
    pub(super) error: Option<SourceError>,
    pub(super) partitions: BTreeMap<TopicPartition, ReadPartition>,
}

/// The state that the monitor's lock protects.
#[derive(Debug, Default)]
struct MonitorState {
    /// The last error, even if it is already resolved.
    last_error: Option<SourceError>,
    /// The last error of each category that is not known to be resolved.
    open_errors: BTreeMap<SourceTrouble, SourceError>,
    /// Whether the group's coordinator is reachable.
    is_connected: bool,
    partitions: BTreeMap<TopicPartition, ReadPartition>,
}

impl MonitorState {
    /// Returns the newest error that prevents the source from reading or storing messages. A connection error does so
    /// only if the group's coordinator is unreachable.
    fn failure(&self) -> Option<&SourceError> {
        let errors = self.open_errors.values();
        let present = errors.filter(|error| !(self.is_connected && error.trouble.ends_with_connection()));
        present.max_by_key(|error| error.time)
    }

    fn snapshot(&self) -> MonitorSnapshot {
        let causes = || self.partitions.values().filter_map(|partition| partition.stop_cause.as_ref());
        let (health, error) = match (self.failure(), causes().max_by_key(|cause| cause.time)) {
            (Some(failure), _) => (SourceHealth::Failing, Some(failure)),
            (None, Some(cause)) if causes().count() == self.partitions.len() => (SourceHealth::Stopped, Some(cause)),
            (None, Some(cause)) => (SourceHealth::Degraded, Some(cause)),
            (None, None) => (SourceHealth::Running, self.last_error.as_ref()),
        };
        MonitorSnapshot { health, error: error.cloned(), partitions: self.partitions.clone() }
    }
}

impl SourceMonitor {
    pub(in crate::ingest) fn new(source: &str, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { source: source.to_owned(), clock, metrics, state: Mutex::default() }
    }

    /// Counts an error and records it as the last error.
    pub(in crate::ingest) fn failed(&self, trouble: SourceTrouble, message: impl Into<String>) {
        let error = self.error(trouble, message);
        self.change(|state| {
            state.open_errors.insert(trouble, error.clone());
            state.last_error = Some(error);
        });
    }

    /// Records whether the group's coordinator is reachable. Returns true if the connection is lost and no error has
    /// been recorded that explains it.
    #[must_use]
    pub(in crate::ingest) fn connected(&self, is_connected: bool) -> bool {
        self.change(|state| {
            let was_connected = std::mem::replace(&mut state.is_connected, is_connected);
            if is_connected {
                state.open_errors.retain(|trouble, _| !trouble.ends_with_connection());
            }
            let is_explained = state.open_errors.keys().any(|trouble| trouble.ends_with_connection());
            was_connected && !is_connected && !is_explained
        })
    }

    /// Records that the client was closed. This is not an error.
    pub(in crate::ingest) fn closed(&self) {
        self.change(|state| state.is_connected = false);
    }

    /// Records that errors of these categories are resolved.
    pub(in crate::ingest) fn resolved(&self, troubles: &[SourceTrouble]) {
        self.change(|state| state.open_errors.retain(|trouble, _| !troubles.contains(trouble)));
    }

    /// Returns true if an error of one of these categories is not known to be resolved.
    pub(in crate::ingest) fn has_error(&self, troubles: &[SourceTrouble]) -> bool {
        self.lock().open_errors.keys().any(|trouble| troubles.contains(trouble))
    }

    pub(in crate::ingest) fn paused(&self, is_paused: bool) {
        self.metrics.sources.paused(&self.source, is_paused);
    }

    pub(in crate::ingest) fn lag(&self, topic_partition: &TopicPartition, messages: i64) {
        self.metrics.sources.lag(self.label(topic_partition), messages);
        self.lock().partitions.entry(topic_partition.clone()).or_default().lag = Some(messages);
    }

    /// Records that a gap or a truncated table has stopped the partition. Its lag is unknown from now on.
    pub(in crate::ingest) fn stopped(
        &self,
        topic_partition: &TopicPartition,
        cause: SourceTrouble,
        message: impl Into<String>,
    ) {
        self.metrics.sources.stopped(self.label(topic_partition));
        let error = self.error(cause, message);
        let stopped = ReadPartition { lag: None, stop_cause: Some(error.clone()) };
        self.change(|state| {
            state.partitions.insert(topic_partition.clone(), stopped);
            state.last_error = Some(error);
        });
    }

    /// Records that the source has skipped a gap in a partition. The error is resolved at once.
    pub(in crate::ingest) fn skipped(
        &self,
        topic_partition: &TopicPartition,
        offsets: u64,
        message: impl Into<String>,
    ) {
        self.metrics.sources.skipped(self.label(topic_partition), offsets);
        let error = self.error(SourceTrouble::Gap, message);
        self.change(|state| state.last_error = Some(error));
    }

    /// Records that this server reads the partition.
    pub(in crate::ingest) fn assigned(&self, topic_partition: &TopicPartition) {
        self.metrics.sources.assigned(self.label(topic_partition));
        self.lock().partitions.entry(topic_partition.clone()).or_default().stop_cause = None;
    }

    /// Records that this server no longer reads the partition.
    pub(in crate::ingest) fn released(&self, topic_partition: &TopicPartition) {
        self.metrics.sources.released(self.label(topic_partition));
        self.lock().partitions.remove(topic_partition);
    }

    /// Returns the state of the source.
    pub(super) fn snapshot(&self) -> MonitorSnapshot {
        self.lock().snapshot()
    }

    /// Counts an error and returns it with the current time.
    fn error(&self, trouble: SourceTrouble, message: impl Into<String>) -> SourceError {
        self.metrics.sources.failed(&self.source, trouble);
        SourceError { time: self.clock.now(), trouble, message: message.into() }
    }

    fn change<T>(&self, change: impl FnOnce(&mut MonitorState) -> T) -> T {
        let (result, is_failing) = {
            let mut state = self.lock();
            (change(&mut state), state.failure().is_some())
        };
        self.metrics.sources.failing(&self.source, is_failing);
        result
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
    use SourceHealth::{Degraded, Failing, Running, Stopped};

    use super::*;

    fn monitor() -> SourceMonitor {
        SourceMonitor::new("voice", Clock::fixed(7), Arc::default())
    }

    /// Returns the health and the category of the error.
    fn state(monitor: &SourceMonitor) -> (SourceHealth, Option<SourceTrouble>) {
        let MonitorSnapshot { health, error, .. } = monitor.snapshot();
        (health, error.map(|error| error.trouble))
    }

    #[test]
    fn a_source_is_failing_until_its_error_is_resolved() {
        let monitor = monitor();
        assert_eq!(state(&monitor), (Running, None));
        monitor.failed(SourceTrouble::Login, "no");
        assert_eq!(state(&monitor), (Failing, Some(SourceTrouble::Login)));
        assert!(!monitor.connected(true));
        assert_eq!(state(&monitor), (Running, Some(SourceTrouble::Login)));
        monitor.failed(SourceTrouble::Topic, "none such");
        assert_eq!(
            state(&monitor),
            (Failing, Some(SourceTrouble::Topic)),
            "a working connection does not resolve a missing topic"
        );
        monitor.failed(SourceTrouble::Connection, "one of the brokers is down");
        assert_eq!(state(&monitor), (Failing, Some(SourceTrouble::Topic)), "the connection works");
        monitor.failed(SourceTrouble::Store, "the disk is full");
        monitor.resolved(&[SourceTrouble::Store, SourceTrouble::Other]);
        assert_eq!(state(&monitor), (Failing, Some(SourceTrouble::Topic)), "only another error is resolved");
        assert!(monitor.has_error(&[SourceTrouble::Topic]) && !monitor.has_error(&[SourceTrouble::Store]));
        monitor.failed(SourceTrouble::Connection, "one of the brokers is down");
        monitor.resolved(&[SourceTrouble::Topic]);
        assert_eq!(state(&monitor), (Running, Some(SourceTrouble::Connection)));
        assert!(!monitor.connected(false), "the error explains the lost connection");
        assert_eq!(state(&monitor), (Failing, Some(SourceTrouble::Connection)));
        assert!(!monitor.connected(true) && monitor.connected(false), "no error explains the lost connection");
        assert_eq!(state(&monitor).0, Running, "a resolved error is not present again");
        monitor.failed(SourceTrouble::Store, "the disk is full");
        monitor.resolved(&[SourceTrouble::Store]);
        monitor.closed();
        assert_eq!(state(&monitor), (Running, Some(SourceTrouble::Store)));
    }

    #[test]
    fn gaps_stop_a_source_or_a_part_of_it() {
        let monitor = monitor();
        let [first, second] = [0, 1].map(|partition| TopicPartition { topic: "calls".into(), partition });
        monitor.assigned(&first);
        monitor.assigned(&second);
        monitor.lag(&first, 5);
        monitor.skipped(&second, 3, "skipped");
        assert_eq!(state(&monitor), (Running, Some(SourceTrouble::Gap)), "the gap is resolved");
        monitor.stopped(&first, SourceTrouble::Gap, "deleted");
        assert_eq!(state(&monitor), (Degraded, Some(SourceTrouble::Gap)));
        assert_eq!(monitor.snapshot().partitions[&first].lag, None, "the lag is unknown");
        monitor.failed(SourceTrouble::Store, "the disk is full");
        assert_eq!(state(&monitor), (Failing, Some(SourceTrouble::Store)));
        monitor.resolved(&[SourceTrouble::Store]);
        assert_eq!(state(&monitor), (Degraded, Some(SourceTrouble::Gap)), "the gap is still the present error");
        assert_eq!(monitor.snapshot().error.unwrap().message, "deleted");
        monitor.released(&second);
        assert_eq!(state(&monitor), (Stopped, Some(SourceTrouble::Gap)), "all partitions on this server are stopped");
        monitor.assigned(&first);
        assert_eq!(state(&monitor), (Running, Some(SourceTrouble::Store)), "the partition is read again");
    }
}
