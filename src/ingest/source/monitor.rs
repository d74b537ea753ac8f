//! What one source does on this server: the last error, whether it gets through to its brokers, and what it has not read.
//!
//! In: what happens to the source. Out: metrics at once, and what operators are told when they ask.
//!
//! **Invariant:** what is bounded by the configuration stays so: one last error, and the partitions that this server reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message_batch::TopicPartition;
use crate::clock::{Clock, Micros};
use crate::telemetry::{Metrics, PartitionLabel, SourceTrouble};

/// Watches one source.
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
    /// What it is about.
    pub trouble: SourceTrouble,
    /// For a person: what is wrong, and the way out.
    pub message: String,
}

/// A partition that this server reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReadPartition {
    /// Offsets that are not committed yet, when the brokers have told where it ends.
    pub(super) lag: Option<i64>,
    /// A gap has stopped it.
    pub(super) is_stopped: bool,
}

#[derive(Debug, Default)]
struct Seen {
    error: Option<SourceError>,
    /// Whether the brokers know this reader and answer it.
    is_connected: bool,
    /// What no connection mends: it lasts until something was assigned or stored.
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

    /// Something went wrong. It is counted, and is the last error from now on.
    pub(in crate::ingest) fn failed(&self, trouble: SourceTrouble, message: impl Into<String>) {
        self.metrics.sources.failed(&self.source, trouble);
        let error = SourceError { time: self.clock.now(), trouble, message: message.into() };
        self.change(|seen| {
            seen.is_stuck |= !trouble.ends_with_connection();
            seen.error = Some(error);
        });
    }

    /// Whether the brokers answer.
    pub(in crate::ingest) fn connected(&self, is_connected: bool) {
        self.change(|seen| seen.is_connected = is_connected);
    }

    /// It has got something to read, or has stored something.
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

    /// The partition is this server's.
    pub(in crate::ingest) fn reads(&self, topic_partition: &TopicPartition) {
        self.lock().readings.entry(topic_partition.clone()).or_default();
    }

    /// The partition is not this server's any more.
    pub(in crate::ingest) fn released(&self, topic_partition: &TopicPartition) {
        self.metrics.sources.released(self.label(topic_partition));
        self.lock().readings.remove(topic_partition);
    }

    /// Whether it fails now, its last error, and what it reads.
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

    /// A poisoned note is still a note: nothing in it can be half done.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fails_until_what_was_wrong_has_ended() {
        let watch = SourceMonitor::new("voice", Clock::fixed(7), Arc::default());
        let is_failing = || watch.look().0;
        assert!(!is_failing(), "not before anything has gone wrong");
        watch.failed(SourceTrouble::Login, "no");
        assert!(is_failing());
        watch.connected(true);
        assert!(!is_failing());
        watch.failed(SourceTrouble::Topic, "none such");
        assert!(is_failing(), "a connection makes no topic");
        watch.goes_on();
        assert!(!is_failing());
        let error = SourceError { time: 7, trouble: SourceTrouble::Topic, message: "none such".to_owned() };
        assert_eq!(watch.look().1, Some(error), "the last error is told afterwards as well");
        watch.connected(false);
        assert!(is_failing());
    }
}
