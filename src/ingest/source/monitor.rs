//! The state of one source on this server: its last error, its connection to the brokers, and its lag.
//!
//! In: events in the life of the source. Out: metrics immediately, and the state for operators on request.
//!
//! **Invariant:** memory is bounded: one last error, and the partitions that this server reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message_batch::TopicPartition;
use crate::clock::{Clock, Micros};
use crate::telemetry::{Metrics, PartitionLabel, SourceTrouble};

/// Records the state of one source.
#[derive(Debug)]
pub(in crate::ingest) struct SourceMonitor {
    source: String,
    clock: Clock,
    metrics: Arc<Metrics>,
    seen: Mutex<Seen>,
}

/// The last error of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// When it happened.
    pub time: Micros,
    /// The category of the error.
    pub trouble: SourceTrouble,
    /// A description for humans: the problem and the fix.
    pub message: String,
}

/// A partition that this server reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReadPartition {
    /// The number of offsets not committed yet, once the brokers have reported the end of the partition.
    pub(super) lag: Option<i64>,
    /// Whether a gap has stopped the partition.
    pub(super) is_stopped: bool,
}

#[derive(Debug, Default)]
struct Seen {
    error: Option<SourceError>,
    /// Whether the brokers accept this reader and answer.
    is_connected: bool,
    /// Whether an error persists that a connection does not resolve. Cleared when a partition is assigned or a batch is stored.
    is_stuck: bool,
    readings: BTreeMap<TopicPartition, ReadPartition>,
}

impl Seen {
    fn is_failing(&self) -> bool {
        self.is_stuck || (!self.is_connected && self.error.is_some())
    }
}

impl SourceMonitor {
    pub(in crate::ingest) fn new(source: &str, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { source: source.to_owned(), clock, metrics, seen: Mutex::default() }
    }

    /// Records an error: counts it and makes it the last error.
    pub(in crate::ingest) fn failed(&self, trouble: SourceTrouble, message: impl Into<String>) {
        self.metrics.sources.failed(&self.source, trouble);
        let error = SourceError { time: self.clock.now(), trouble, message: message.into() };
        self.change(|seen| {
            seen.is_stuck |= !trouble.ends_with_connection();
            seen.error = Some(error);
        });
    }

    /// Records whether the brokers answer.
    pub(in crate::ingest) fn connected(&self, is_connected: bool) {
        self.change(|seen| seen.is_connected = is_connected);
    }

    /// Records progress: a partition was assigned or a batch was stored.
    pub(in crate::ingest) fn goes_on(&self) {
        self.change(|seen| seen.is_stuck = false);
    }

    pub(in crate::ingest) fn paused(&self, is_paused: bool) {
        self.metrics.sources.paused(&self.source, is_paused);
    }

    pub(in crate::ingest) fn lag(&self, topic_partition: &TopicPartition, messages: i64) {
        self.metrics.sources.lag(self.label(topic_partition), messages);
        self.lock().readings.entry(topic_partition.clone()).or_default().lag = Some(messages);
    }

    pub(in crate::ingest) fn stopped(&self, topic_partition: &TopicPartition) {
        self.metrics.sources.stopped(self.label(topic_partition));
        self.lock().readings.entry(topic_partition.clone()).or_default().is_stopped = true;
    }

    /// Records that this server reads the partition.
    pub(in crate::ingest) fn reads(&self, topic_partition: &TopicPartition) {
        self.lock().readings.entry(topic_partition.clone()).or_default();
    }

    /// Records that this server no longer reads the partition.
    pub(in crate::ingest) fn released(&self, topic_partition: &TopicPartition) {
        self.metrics.sources.released(self.label(topic_partition));
        self.lock().readings.remove(topic_partition);
    }

    /// Whether the source fails now, its last error, and the partitions that it reads.
    pub(super) fn look(&self) -> (bool, Option<SourceError>, BTreeMap<TopicPartition, ReadPartition>) {
        let seen = self.lock();
        (seen.is_failing(), seen.error.clone(), seen.readings.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        let is_failing = {
            let mut seen = self.lock();
            change(&mut seen);
            seen.is_failing()
        };
        self.metrics.sources.failing(&self.source, is_failing);
    }

    fn label<'a>(&'a self, topic_partition: &'a TopicPartition) -> PartitionLabel<'a> {
        PartitionLabel { source: &self.source, topic: &topic_partition.topic, partition: topic_partition.partition }
    }

    /// Ignores poisoning: no update leaves the state half done.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_fails_until_its_error_is_resolved() {
        let watch = SourceMonitor::new("voice", Clock::fixed(7), Arc::default());
        let is_failing = || watch.look().0;
        assert!(!is_failing(), "no error yet");
        watch.failed(SourceTrouble::Login, "no");
        assert!(is_failing());
        watch.connected(true);
        assert!(!is_failing());
        watch.failed(SourceTrouble::Topic, "none such");
        assert!(is_failing(), "a connection does not create a missing topic");
        watch.goes_on();
        assert!(!is_failing());
        let error = SourceError { time: 7, trouble: SourceTrouble::Topic, message: "none such".to_owned() };
        assert_eq!(watch.look().1, Some(error), "the last error stays visible afterwards");
        watch.connected(false);
        assert!(is_failing());
    }
}
