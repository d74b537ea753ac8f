//! Metrics of sources: of each as a whole, and by topic and partition.
//!
//! **Invariant:** labels are the operator's own names: the configured topics bound them.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::label_value::{Label, Labels};
use super::metrics::{MetricsRegistry, durations};

/// One partition of a source's topic.
#[derive(Debug, Clone, Copy)]
pub struct PartitionLabel<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The partition, from 0.
    pub partition: i32,
}

/// What an error of a source is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceTrouble {
    /// The brokers are not reached.
    Connection,
    /// There is no TLS connection.
    Tls,
    /// The brokers refuse the user or its token.
    Login,
    /// No token is to be had.
    Token,
    /// The user may not read.
    Rights,
    /// A topic is not there.
    Topic,
    /// What was read cannot be stored.
    Store,
    /// Anything else.
    Other,
}

impl SourceTrouble {
    /// As it is written in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Token => "token",
            Self::Rights => "rights",
            Self::Topic => "topic",
            Self::Store => "store",
            Self::Other => "other",
        }
    }

    /// Whether it is over as soon as the brokers answer.
    pub fn ends_with_connection(self) -> bool {
        matches!(self, Self::Connection | Self::Tls | Self::Login | Self::Token)
    }
}

/// What is told of each source, and of each partition that this server reads.
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
    registry: Family<Labels<2>, Counter>,
}

/// How a schema registry has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryAnswer {
    /// With a schema.
    Found,
    /// That it knows no such schema.
    Unknown,
    /// Not at all, or not in its protocol.
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
    pub(super) fn new(page: &mut MetricsRegistry) -> Self {
        let messages = || Unit::Other("messages".to_owned());
        let durations = Family::new_with_constructor(durations as fn() -> Histogram);
        Self {
            messages: page.add_in(
                messages(),
                "source",
                "Messages read, with their offsets committed",
                Family::default(),
            ),
            lag: page.add_in(messages(), "source_lag", "Messages of a partition not committed yet", Family::default()),
            commit_duration: page.add_in(
                Unit::Seconds,
                "source_commit_duration",
                "From the first message of a batch to its commit",
                durations,
            ),
            stopped: page.add("source_stopped", "Whether a partition is stopped by a gap", Family::default()),
            skipped: page.add_in(
                messages(),
                "source_skipped",
                "Messages that were gone before they were read",
                Family::default(),
            ),
            overtaken: page.add(
                "source_overtaken",
                "Batches dropped because another server went on with their partitions",
                Family::default(),
            ),
            paused: page.add("source_paused", "Whether the source is paused", Family::default()),
            failing: page.add("source_failing", "Whether the source cannot go on", Family::default()),
            errors: page.add("source_errors", "Errors of the source, by what they are about", Family::default()),
            registry: page.add("source_schemas", "Schemas asked of the registry", Family::default()),
        }
    }

    /// So many messages were committed, the first of which was read `took` ago.
    pub fn committed(&self, partition: PartitionLabel<'_>, messages: u64, took: Duration) {
        let labels = partition.labels();
        self.messages.get_or_create(&labels).inc_by(messages);
        self.commit_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// So many messages of the partition are not committed yet.
    pub fn lag(&self, partition: PartitionLabel<'_>, messages: i64) {
        self.lag.get_or_create(&partition.labels()).set(messages);
    }

    /// A gap has stopped the partition.
    pub fn stopped(&self, partition: PartitionLabel<'_>) {
        self.stopped.get_or_create(&partition.labels()).set(1);
    }

    /// So many messages were gone before they were read, and were passed over.
    pub fn skipped(&self, partition: PartitionLabel<'_>, messages: u64) {
        self.skipped.get_or_create(&partition.labels()).inc_by(messages);
    }

    /// A batch was dropped because another server went on with its partitions.
    pub fn overtaken(&self, source: &str) {
        self.overtaken.get_or_create(&[("source", Label::owned(source))]).inc();
    }

    /// Whether the source is paused.
    pub fn paused(&self, source: &str, is_paused: bool) {
        self.paused.get_or_create(&[("source", Label::owned(source))]).set(i64::from(is_paused));
    }

    /// Whether the source cannot go on.
    pub fn failing(&self, source: &str, is_failing: bool) {
        self.failing.get_or_create(&[("source", Label::owned(source))]).set(i64::from(is_failing));
    }

    /// The source has met an error.
    pub fn failed(&self, source: &str, trouble: SourceTrouble) {
        let labels = [("source", Label::owned(source)), ("kind", Label::from(trouble.as_str()))];
        self.errors.get_or_create(&labels).inc();
    }

    /// The source's schema registry was asked for a schema.
    pub fn registry(&self, source: &str, answer: RegistryAnswer) {
        let outcome = match answer {
            RegistryAnswer::Found => "found",
            RegistryAnswer::Unknown => "unknown",
            RegistryAnswer::Failed => "failed",
        };
        let labels = [("source", Label::owned(source)), ("outcome", Label::from(outcome))];
        self.registry.get_or_create(&labels).inc();
    }

    /// The partition is another server's from now on: what this one said of it would only grow old.
    pub fn released(&self, partition: PartitionLabel<'_>) {
        let labels = partition.labels();
        self.lag.remove(&labels);
        self.stopped.remove(&labels);
    }
}
