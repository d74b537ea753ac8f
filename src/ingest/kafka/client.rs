//! The Kafka client of a source: its settings, and what it tells of itself between messages.
//!
//! In: a checked [`SourceConfig`]. Out: a [`KafkaClient`] in its group, whose assignments are not carried out by the client's own
//! thread but noted ([`ClientEvent`]) for the source, which alone knows where a partition goes on.
//!
//! **Invariant:** the client never decides where to read: it stores no offsets, and has no place to go by itself.
//! **Invariant:** values of options are in no message: they may be secrets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::error::{ClientError, LoggedTroubles};
use super::oauth_token::OauthTokens;
use super::partition_end::{PartitionEnd, end_in};
use super::source::Source;
use crate::config::SourceConfig;
use crate::error::{Error, Kind, Result};
use crate::ingest::source::{SourceMonitor, TopicPartition};
use crate::outbound::Roots;
use crate::supervise::catch;
use crate::telemetry::SourceTrouble;

/// How often the client tells the ends of its partitions, from which the lag is counted.
const STATISTICS_INTERVAL_MS: &str = "2000";

/// What the client fetches ahead, and how long a partition waits when that is full. By default it is eight times as much, which
/// falls out of the processor's caches, and a second, in which the source may have nothing to read.
const QUEUE_KIB: &str = "8192";
const QUEUE_BACKOFF_MS: &str = "2";

/// What the client calls a group whose coordinator answers.
const GROUP_UP: &str = "up";
/// With what the client's own words begin when we gave it no token, which we have told already.
const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token";

/// A consumer with our context.
pub(super) type KafkaClient = BaseConsumer<ClientContextState>;

/// What happened between two messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientEvent {
    /// These partitions are ours from now on; the source has to assign them.
    Assigned(Vec<TopicPartition>),
    /// These are not ours any more; they are unassigned already.
    Revoked(Vec<TopicPartition>),
    /// The end of a partition.
    End(TopicPartition, PartitionEnd),
}

/// Takes what the client tells, and gives it the tokens that it asks for.
pub(super) struct ClientContextState {
    source: String,
    watch: Arc<SourceMonitor>,
    tokens: Option<Arc<OauthTokens>>,
    runtime: Handle,
    stop: CancellationToken,
    notes: Mutex<Vec<ClientEvent>>,
    /// The end that the client has reached last, until the session takes it.
    end: Mutex<Option<i64>>,
    told: LoggedTroubles,
}

/// The settings of a source's client. `Invalid` names the option that librdkafka does not take.
pub(super) fn settings(name: &str, config: &SourceConfig) -> Result<ClientConfig> {
    let mut settings = ClientConfig::new();
    settings
        .set("client.id", format!("glasshouse-{name}"))
        .set("queued.max.messages.kbytes", QUEUE_KIB)
        .set("fetch.queue.backoff.ms", QUEUE_BACKOFF_MS);
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
        // The event moves positions past records that are no messages.
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    // What it says of connections that are closed is told from then on; the rest of it is for debugging.
    settings.set_log_level(RDKafkaLogLevel::Info);
    if config.oauth.is_some() {
        settings.set("sasl.mechanism", "OAUTHBEARER");
    }
    if let Some(file) = &config.ca_file {
        // The client's own setting for a file replaces the system's authorities.
        let roots = Roots::load(Some(file)).map_err(|error| error.at(format!("sources.{name}.ca_file")))?;
        settings.set("ssl.ca.pem", roots.pem());
    }
    check(name, &settings)?;
    Ok(settings)
}

/// Makes a client that knows no brokers, and so asks nobody: what does not fit together, and files that are not there, are
/// told before anything runs.
fn check(name: &str, settings: &ClientConfig) -> Result<()> {
    let mut alone = settings.clone();
    alone.remove("bootstrap.servers");
    alone.remove("group.id");
    match alone.set_log_level(RDKafkaLogLevel::Emerg).create::<BaseConsumer>() {
        Ok(_) => Ok(()),
        // The client's words name files and options, no values of secret ones.
        Err(KafkaError::ClientCreation(why)) => Err(Error::invalid(format!("sources.{name}.options: {why}"))),
        Err(cause) => Err(no_client(name)(cause)),
    }
}

/// A client that joins its group and subscribes to its topics. Its context may wait in `runtime`, until `stop`.
pub(super) fn connect(source: &Source, runtime: Handle, stop: CancellationToken) -> Result<KafkaClient> {
    let name = &source.route.source;
    let context = ClientContextState {
        source: name.clone(),
        watch: source.watch.clone(),
        tokens: source.tokens.clone(),
        runtime,
        stop,
        notes: Mutex::default(),
        end: Mutex::default(),
        told: LoggedTroubles::default(),
    };
    let client: KafkaClient = source.settings.create_with_context(context).map_err(no_client(name))?;
    let topics: Vec<&str> = source.config.topics.iter().map(String::as_str).collect();
    client.subscribe(&topics).map_err(no_client(name))?;
    Ok(client)
}

fn no_client(source: &str) -> impl Fn(KafkaError) -> Error {
    move |cause| Error::invalid(format!("sources.{source}: no Kafka client can be made")).with_source(cause)
}

impl ClientContextState {
    /// What happened since the last call, in order.
    pub(super) fn take_notes(&self) -> Vec<ClientEvent> {
        std::mem::take(&mut *self.notes())
    }

    /// The end of the event that `poll` has just returned.
    pub(super) fn take_end(&self) -> Option<i64> {
        self.end().take()
    }

    /// Notes a fault for operators, and logs it unless that was done a moment ago.
    fn tell(&self, ClientError { trouble, message }: ClientError) {
        let (source, kind) = (&self.source, trouble.as_str());
        let is_news = self.told.is_news(trouble, Instant::now());
        match trouble {
            _ if !is_news => tracing::debug!(%source, kind, "a source has trouble: {message}"),
            SourceTrouble::Connection | SourceTrouble::Other => {
                tracing::warn!(%source, kind, "a source has trouble, and goes on trying: {message}");
            }
            _ => tracing::error!(%source, kind, "a source has trouble, and goes on trying: {message}"),
        }
        self.watch.failed(trouble, message);
    }

    /// Does what the C library calls for. A panic must not reach it: it would end the process.
    fn fenced(&self, what: &str, work: impl FnOnce()) {
        if let Err(panic) = catch(work) {
            tracing::error!(source = %self.source, "taking the Kafka client's {what} panicked: {panic}");
        }
    }

    fn take_statistics(&self, statistics: Statistics) {
        self.watch.connected(statistics.cgrp.is_some_and(|group| group.state == GROUP_UP));
        // What the client says of a partition whose leader is away is what it heard before.
        let up = statistics.brokers.values().filter(|broker| broker.state == "UP").map(|broker| broker.nodeid);
        let up: BTreeSet<i32> = up.collect();
        let ends = statistics.topics.into_iter().flat_map(|(topic, statistics)| {
            let (topic, up): (Arc<str>, _) = (topic.into(), &up);
            statistics.partitions.into_iter().filter_map(move |(partition, statistics)| {
                let offset = if statistics.ls_offset >= 0 { statistics.ls_offset } else { statistics.hi_offset };
                let end = PartitionEnd { offset, low: Some(statistics.lo_offset).filter(|low| *low >= 0) };
                let told = partition >= 0 && offset >= 0 && up.contains(&statistics.leader);
                told.then(|| ClientEvent::End(TopicPartition { topic: topic.clone(), partition }, end))
            })
        });
        self.notes().extend(ends);
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Vec<ClientEvent>> {
        // A poisoned list is still a list: nothing in it can be half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poisoned offset is still one.
    fn end(&self) -> std::sync::MutexGuard<'_, Option<i64>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ClientContextState {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Called by the thread that polls. A token that cannot be had is asked for again by the client, ten seconds later.
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let source = &self.source;
        let Some(tokens) = &self.tokens else {
            return Err(format!("there is no [sources.{source}.oauth] to say where tokens come from").into());
        };
        // A panic must not reach the C library that calls this: it would end the process.
        let fetched = catch(|| self.runtime.block_on(self.stop.run_until_cancelled(tokens.fetch())));
        let fetched =
            fetched.unwrap_or_else(|panic| Some(Err(Error::internal("fetching a token panicked").with_source(panic))));
        match fetched.unwrap_or_else(|| Err(Error::cancelled("the source stops"))) {
            Ok(token) => {
                tracing::debug!(%source, "a new token to log in with");
                Ok(OAuthToken { token: token.text, principal_name: token.principal, lifetime_ms: token.ends })
            }
            Err(error) => {
                if error.kind() != Kind::Cancelled {
                    let message = format!("no token to log in with: {error}; check sources.{source}.oauth");
                    self.tell(ClientError { trouble: SourceTrouble::Token, message });
                }
                Err(error.message().replace('\0', "").into())
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let source = &self.source;
        match level {
            // Told as an error as well, in better words.
            RDKafkaLogLevel::Error if matches!(facility, "FAIL" | "ERROR") => {
                tracing::debug!(%source, facility, text, "kafka client");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info if facility == "FAIL" => {
                match ClientError::of_line(source, self.tokens.is_some(), text) {
                    Some(fault) => self.tell(fault),
                    None => tracing::debug!(%source, facility, text, "kafka client"),
                }
            }
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
        self.fenced("statistics", || self.take_statistics(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if reason.starts_with(NO_TOKEN) {
            return;
        }
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if code == RDKafkaErrorCode::PartitionEOF {
            *self.end() = end_in(reason);
            return;
        }
        let is_known = matches!(
            code,
            // The source looks for gaps then, and tells what it finds.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::LogTruncation
            // What befell each of them was told before.
            | RDKafkaErrorCode::AllBrokersDown
        );
        if is_known {
            tracing::debug!(source = %self.source, %error, reason, "kafka client");
            return;
        }
        self.fenced("error", || self.tell(ClientError::new(&self.source, self.tokens.is_some(), code, reason)));
    }
}

impl ConsumerContext for ClientContextState {
    fn rebalance(&self, client: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let spots = spots(list);
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.notes().push(ClientEvent::Assigned(spots));
            return;
        }
        // At once, since a client that closes waits for it: what was read of them is then left to their next reader.
        if let Err(error) = client.incremental_unassign(list) {
            tracing::warn!(source = %self.source, %error, "partitions could not be given back");
        }
        self.notes().push(ClientEvent::Revoked(spots));
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = outcome {
            // They are for tools that look at the lag; the table has the true ones.
            tracing::debug!(source = %self.source, %error, "Kafka did not take the offsets");
        }
    }
}

/// The partitions of a list.
fn spots(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let topic_partition = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
    elements.iter().map(|element| topic_partition(element.topic(), element.partition())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaOptions;
    use crate::outbound::testing::AUTHORITY;

    #[test]
    fn a_ca_file_is_added_to_the_systems_authorities() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let options = KafkaOptions::new([("security.protocol".to_owned(), "SSL".to_owned())]);
        let mut config = SourceConfig { options, ..SourceConfig::default() };
        assert_eq!(settings("voice", &config).unwrap().get("ssl.ca.pem"), None, "the client's own default");
        config.ca_file = Some(file.clone());
        let missing = settings("voice", &config).unwrap_err();
        assert!(missing.message().starts_with("sources.voice.ca_file: cannot read"), "{missing}");
        std::fs::write(&file, AUTHORITY).unwrap();
        let expected = format!("{}{AUTHORITY}", Roots::system().pem());
        assert_eq!(settings("voice", &config).unwrap().get("ssl.ca.pem"), Some(expected.as_str()));
    }
}
