//! The Kafka client of a source: its settings, and what it tells of itself between messages.
//!
//! In: a checked [`SourceConfig`]. Out: a [`Client`] in its group, whose assignments are not carried out by the client's own
//! thread but noted ([`Note`]) for the source, which alone knows where a partition goes on.
//!
//! **Invariant:** the client never decides where to read: it stores no offsets, and has no place to go by itself.
//! **Invariant:** values of options are in no message: they may be secrets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::haul::Spot;
use crate::config::SourceConfig;
use crate::error::{Error, Result};

/// How often the client tells the ends of its partitions, from which the lag is counted.
const STATISTICS_INTERVAL_MS: &str = "2000";

/// A consumer with our context.
pub(super) type Client = BaseConsumer<Context>;

/// What happened between two messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// These partitions are ours from now on; the source has to assign them.
    Assigned(Vec<Spot>),
    /// These are not ours any more; they are unassigned already.
    Revoked(Vec<Spot>),
    /// The end of a partition: the offset that its next message will have.
    End(Spot, End),
}

/// What a partition's leader has told of it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The offset after its last message.
    pub(super) offset: i64,
    /// When all up to there was fetched and handed out: the offset after the last message that was. Ends of transactions
    /// have offsets, too, and are no messages.
    pub(super) drained: Option<i64>,
}

/// Takes what the client tells.
#[derive(Debug)]
pub(super) struct Context {
    source: String,
    notes: Mutex<Vec<Note>>,
}

/// The settings of a source's client. `Invalid` names the option that librdkafka does not take.
pub(super) fn settings(name: &str, config: &SourceConfig) -> Result<ClientConfig> {
    let mut settings = ClientConfig::new();
    settings.set("client.id", format!("glasshouse-{name}"));
    for (option, value) in config.options.expose() {
        let mut alone = ClientConfig::new();
        alone.set(option, value);
        // The client's own message quotes the value.
        if alone.create_native_config().is_err() {
            return Err(Error::invalid(format!(
                "sources.{name}.options: librdkafka knows no option `{option}`, or does not take its value"
            )));
        }
        settings.set(option, value);
    }
    settings
        .set("bootstrap.servers", config.brokers.join(","))
        .set("group.id", &config.group)
        // Partitions that stay are not interrupted when others move.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Messages that are gone are for `on_gap`.
        .set("auto.offset.reset", "error")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    Ok(settings)
}

/// A client that joins its group and subscribes to `topics`.
pub(super) fn connect(source: &str, settings: &ClientConfig, topics: &[String]) -> Result<Client> {
    let fault =
        |cause: KafkaError| Error::invalid(format!("sources.{source}: no Kafka client can be made")).with_source(cause);
    let client: Client = settings.create_with_context(Context::new(source)).map_err(fault)?;
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    client.subscribe(&topics).map_err(fault)?;
    Ok(client)
}

impl Context {
    fn new(source: &str) -> Self {
        Self { source: source.to_owned(), notes: Mutex::default() }
    }

    /// What happened since the last call, in order.
    pub(super) fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes())
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Vec<Note>> {
        // A poisoned list is still a list: nothing in it can be half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let source = &self.source;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(%source, facility, text, "kafka client");
            }
            RDKafkaLogLevel::Warning => tracing::info!(%source, facility, text, "kafka client"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(%source, facility, text, "kafka client");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        // What the client says of a partition whose leader is away is what it heard before.
        let up = statistics.brokers.values().filter(|broker| broker.state == "UP").map(|broker| broker.nodeid);
        let up: BTreeSet<i32> = up.collect();
        let ends = statistics.topics.into_iter().flat_map(|(topic, statistics)| {
            let (topic, up): (Arc<str>, _) = (topic.into(), &up);
            statistics.partitions.into_iter().filter_map(move |(partition, statistics)| {
                let offset = if statistics.ls_offset >= 0 { statistics.ls_offset } else { statistics.hi_offset };
                let drained = statistics.fetchq_cnt == 0 && statistics.next_offset >= offset;
                let end = End { offset, drained: drained.then_some(statistics.app_offset) };
                let told = partition >= 0 && offset >= 0 && up.contains(&statistics.leader);
                told.then(|| Note::End(Spot { topic: topic.clone(), partition }, end))
            })
        });
        self.notes().extend(ends);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(source = %self.source, %error, reason, "the Kafka client has met an error, and goes on by itself");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, client: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let spots = spots(list);
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.notes().push(Note::Assigned(spots));
            return;
        }
        // At once, since a client that closes waits for it: what was read of them is then left to their next reader.
        if let Err(error) = client.incremental_unassign(list) {
            tracing::warn!(source = %self.source, %error, "partitions could not be given back");
        }
        self.notes().push(Note::Revoked(spots));
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = outcome {
            // They are for tools that look at the lag; the table has the true ones.
            tracing::debug!(source = %self.source, %error, "Kafka did not take the offsets");
        }
    }
}

/// The partitions of a list.
fn spots(list: &TopicPartitionList) -> Vec<Spot> {
    let elements = list.elements();
    let spot = |topic: &str, partition| Spot { topic: topic.into(), partition };
    elements.iter().map(|element| spot(element.topic(), element.partition())).collect()
}
