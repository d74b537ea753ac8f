//! Metrics of sources, per source and per partition.
//!
//! **Invariant:** a label value is a partition number or a name from the configuration. The number of distinct values
//! is therefore limited by the number of partitions of the configured topics.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::label_value::{Label, Labels};
use super::metrics_registry::{MetricsRegistry, durations};

/// The labels of one partition that a source reads.
#[derive(Debug, Clone, Copy)]
pub struct PartitionLabel<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The partition number, starting at 0.
    pub partition: i32,
}

/// The category of a source error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceTrouble {
    /// The brokers cannot be reached.
    Connection,
    /// A TLS connection cannot be established.
    Tls,
    /// The brokers refuse the user or the token.
    Login,
    /// No token can be obtained.
    Token,
    /// The user is not authorized to read a topic or to use the consumer group.
    Rights,
    /// A topic does not exist.
    Topic,
    /// Messages have been read but cannot be stored.
    Store,
    /// A database table was truncated.
    Truncated,
    /// Any other error.
    Other,
}

impl SourceTrouble {
    /// Returns the name of the category in metrics and in HTTP responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Token => "token",
            Self::Rights => "rights",
            Self::Topic => "topic",
            Self::Store => "store",
            Self::Truncated => "truncated",
            Self::Other => "other",
        }
    }

    /// Returns true if any response from the brokers shows that the error is resolved.
    pub fn ends_with_connection(self) -> bool {
        matches!(self, Self::Connection | Self::Tls | Self::Login | Self::Token)
    }
}

/// Metrics of each source, and of each partition that this server reads.
#[derive(Debug)]
pub struct SourceMetrics {
    messages: Family<Labels<3>, Counter>,
    lag: Family<Labels<3>, Gauge>,
    commit_duration: Family<Labels<3>, Histogram>,
    stopped: Family<Labels<3>, Gauge>,
    skipped: Family<Labels<3>, Counter>,
    overtaken: Family<Labels<1>, Counter>,
    paused: Family<Labels<1>, Gauge>,
    failing: Family<Labels<1>, Gauge>,
    errors: Family<Labels<2>, Counter>,
    schema_requests: Family<Labels<2>, Counter>,
}

/// The outcome of a request to a schema registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryAnswer {
    /// The schema was found.
    Found,
    /// The registry does not have the schema.
    Unknown,
    /// The registry did not respond, or its response was invalid.
    Failed,
}

impl PartitionLabel<'_> {
    fn labels(self) -> Labels<3> {
        let Self { source, topic, partition } = self;
        [
            ("source", Label::owned(source)),
            ("topic", Label::owned(topic)),
            ("partition", Label::owned(partition.to_string())),
        ]
    }
}

impl SourceMetrics {
    pub(super) fn new(registry: &mut MetricsRegistry) -> Self {
        let messages = || Unit::Other("messages".to_owned());
        let durations = Family::new_with_constructor(durations as fn() -> Histogram);
        Self {
            messages: registry.add_in(messages(), "source", "Messages read and committed", Family::default()),
            lag: registry.add_in(messages(), "source_lag", "Uncommitted messages in a partition", Family::default()),
            commit_duration: registry.add_in(
                Unit::Seconds,
                "source_commit_duration",
                "Time from reading the first message of a batch to its commit",
                durations,
            ),
            stopped: registry.add(
                "source_stopped",
                "Whether a partition is stopped by a gap or a truncated table",
                Family::default(),
            ),
            skipped: registry.add_in(
                messages(),
                "source_skipped",
                "Messages that were deleted before they were read",
                Family::default(),
            ),
            overtaken: registry.add(
                "source_overtaken",
                "Batches dropped because another server took over their partitions",
                Family::default(),
            ),
            paused: registry.add("source_paused", "Whether the source is paused", Family::default()),
            failing: registry.add("source_failing", "Whether the source cannot make progress", Family::default()),
            errors: registry.add("source_errors", "Source errors, by kind", Family::default()),
            schema_requests: registry.add("source_schemas", "Schema registry requests, by outcome", Family::default()),
        }
    }

    /// Records the commit of `messages` messages. `took` is the time since the first of these messages was read.
    pub fn committed(&self, partition: PartitionLabel<'_>, messages: u64, took: Duration) {
        let labels = partition.labels();
        self.messages.get_or_create(&labels).inc_by(messages);
        self.commit_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Sets the number of messages in the partition that the source has not committed yet.
    pub fn lag(&self, partition: PartitionLabel<'_>, messages: i64) {
        self.lag.get_or_create(&partition.labels()).set(messages);
    }

    /// Records that the partition is stopped because messages are missing.
    pub fn stopped(&self, partition: PartitionLabel<'_>) {
        self.stopped.get_or_create(&partition.labels()).set(1);
    }

    /// Counts messages that were skipped because they were deleted before they were read.
    pub fn skipped(&self, partition: PartitionLabel<'_>, messages: u64) {
        self.skipped.get_or_create(&partition.labels()).inc_by(messages);
    }

    /// Counts a batch that was dropped because another server took over its partitions.
    pub fn overtaken(&self, source: &str) {
        self.overtaken.get_or_create(&[("source", Label::owned(source))]).inc();
    }

    /// Sets whether the source is paused.
    pub fn paused(&self, source: &str, is_paused: bool) {
        self.paused.get_or_create(&[("source", Label::owned(source))]).set(i64::from(is_paused));
    }

    /// Sets whether the source is unable to make progress.
    pub fn failing(&self, source: &str, is_failing: bool) {
        self.failing.get_or_create(&[("source", Label::owned(source))]).set(i64::from(is_failing));
    }

    /// Counts a source error.
    pub fn failed(&self, source: &str, trouble: SourceTrouble) {
        let labels = [("source", Label::owned(source)), ("kind", Label::from(trouble.as_str()))];
        self.errors.get_or_create(&labels).inc();
    }

    /// Counts a request to the source's schema registry.
    pub fn registry(&self, source: &str, answer: RegistryAnswer) {
        let outcome = match answer {
            RegistryAnswer::Found => "found",
            RegistryAnswer::Unknown => "unknown",
            RegistryAnswer::Failed => "failed",
        };
        let labels = [("source", Label::owned(source)), ("outcome", Label::from(outcome))];
        self.schema_requests.get_or_create(&labels).inc();
    }

    /// Removes the gauges of a partition that another server has taken over, because this server no longer updates
    /// them.
    pub fn released(&self, partition: PartitionLabel<'_>) {
        let labels = partition.labels();
        self.lag.remove(&labels);
        self.stopped.remove(&labels);
    }
}
