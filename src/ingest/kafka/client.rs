//! The Kafka client of a source: its settings, and the events it reports between messages.
//!
//! In: a checked [`SourceConfig`]. Out: a [`KafkaClient`] that has joined its group. The client's own thread does not apply
//! assignments. It records them as [`ClientEvent`]s for the source, because only the source knows where a partition continues.
//!
//! **Invariant:** the client never decides where to read: it stores no offsets and has no default start position.
//! **Invariant:** no message contains the value of an option, because it may be a secret.

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

/// How often the client reports the ends of its partitions, from which the lag is computed.
const STATISTICS_INTERVAL_MS: &str = "2000";

/// The size of the client's fetch queue, and how long a partition waits when the queue is full. The default size is eight times
/// larger and does not fit the processor's caches. The default wait is one second, in which the source may run out of messages.
const QUEUE_KIB: &str = "8192";
const QUEUE_BACKOFF_MS: &str = "2";

/// The client's name for the state of a group whose coordinator is reachable.
const GROUP_UP: &str = "up";
/// The start of the client's own message when it received no token. `generate_oauth_token` has already reported that error.
const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token";

/// A consumer with the context of this module.
pub(super) type KafkaClient = BaseConsumer<ClientContextState>;

/// An event between two messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientEvent {
    /// These partitions now belong to this client; the source has to assign them.
    Assigned(Vec<TopicPartition>),
    /// These partitions no longer belong to this client; they are already unassigned.
    Revoked(Vec<TopicPartition>),
    /// The end of a partition.
    End(TopicPartition, PartitionEnd),
}

/// Receives the client's callbacks and supplies it with login tokens.
pub(super) struct ClientContextState {
    source: String,
    watch: Arc<SourceMonitor>,
    tokens: Option<Arc<OauthTokens>>,
    runtime: Handle,
    stop: CancellationToken,
    notes: Mutex<Vec<ClientEvent>>,
    /// The partition end that the client reached last, until the session takes it.
    end: Mutex<Option<i64>>,
    told: LoggedTroubles,
}

/// The settings of a source's client. Fails with `Invalid`, naming the option, if librdkafka rejects an option.
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
                "sources.{name}.options: librdkafka rejects `{option}`: the option is unknown or its value is invalid"
            )));
        }
        settings.set(option, value);
    }
    settings
        .set("bootstrap.servers", config.brokers.join(","))
        .set("group.id", &config.group)
        // A rebalance does not interrupt the partitions that stay.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // `on_gap` decides what happens when messages are missing.
        .set("auto.offset.reset", "error")
        // The event moves positions past control records and aborted messages.
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    // The client logs closed connections at this level; its other messages at this level are for debugging.
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

/// Creates a client without brokers, which opens no connection. Inconsistent options and missing files are thus reported at
/// startup.
fn check(name: &str, settings: &ClientConfig) -> Result<()> {
    let mut alone = settings.clone();
    alone.remove("bootstrap.servers");
    alone.remove("group.id");
    match alone.set_log_level(RDKafkaLogLevel::Emerg).create::<BaseConsumer>() {
        Ok(_) => Ok(()),
        // The client's message names files and options, but no secret values.
        Err(KafkaError::ClientCreation(why)) => Err(Error::invalid(format!("sources.{name}.options: {why}"))),
        Err(cause) => Err(no_client(name)(cause)),
    }
}

/// Creates a client that joins its group and subscribes to its topics. Its context may block on `runtime` until `stop`.
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
    move |cause| Error::invalid(format!("sources.{source}: cannot create the Kafka client")).with_source(cause)
}

impl ClientContextState {
    /// The events since the last call, in order.
    pub(super) fn take_notes(&self) -> Vec<ClientEvent> {
        std::mem::take(&mut *self.notes())
    }

    /// The partition end that belongs to the event that `poll` has just returned.
    pub(super) fn take_end(&self) -> Option<i64> {
        self.end().take()
    }

    /// Records an error for operators, and logs it unless the same kind was logged recently.
    fn tell(&self, ClientError { trouble, message }: ClientError) {
        let (source, kind) = (&self.source, trouble.as_str());
        let is_news = self.told.is_news(trouble, Instant::now());
        match trouble {
            _ if !is_news => tracing::debug!(%source, kind, "source error: {message}"),
            SourceTrouble::Connection | SourceTrouble::Other => {
                tracing::warn!(%source, kind, "source error, the client retries: {message}");
            }
            _ => tracing::error!(%source, kind, "source error, the client retries: {message}"),
        }
        self.watch.failed(trouble, message);
    }

    /// Runs a callback of the C library. A panic must not unwind into the C library: it would abort the process.
    fn fenced(&self, what: &str, work: impl FnOnce()) {
        if let Err(panic) = catch(work) {
            tracing::error!(source = %self.source, "the Kafka client's {what} callback panicked: {panic}");
        }
    }

    fn take_statistics(&self, statistics: Statistics) {
        self.watch.connected(statistics.cgrp.is_some_and(|group| group.state == GROUP_UP));
        // The values of a partition whose leader is unreachable are stale.
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
        // A poisoned list is still consistent: no update leaves it half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poisoned lock is safe to use: the offset is written in one step.
    fn end(&self) -> std::sync::MutexGuard<'_, Option<i64>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ClientContextState {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// The polling thread calls this. If it fails, the client asks for a token again ten seconds later.
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let source = &self.source;
        let Some(tokens) = &self.tokens else {
            return Err(format!("the brokers require a token, but [sources.{source}.oauth] is not set").into());
        };
        // A panic must not unwind into the C library that calls this: it would abort the process.
        let fetched = catch(|| self.runtime.block_on(self.stop.run_until_cancelled(tokens.fetch())));
        let fetched =
            fetched.unwrap_or_else(|panic| Some(Err(Error::internal("fetching a token panicked").with_source(panic))));
        match fetched.unwrap_or_else(|| Err(Error::cancelled("the source is stopping"))) {
            Ok(token) => {
                tracing::debug!(%source, "fetched a new login token");
                Ok(OAuthToken { token: token.text, principal_name: token.principal, lifetime_ms: token.ends })
            }
            Err(error) => {
                if error.kind() != Kind::Cancelled {
                    let message = format!("cannot fetch a login token: {error}; check sources.{source}.oauth");
                    self.tell(ClientError { trouble: SourceTrouble::Token, message });
                }
                Err(error.message().replace('\0', "").into())
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let source = &self.source;
        match level {
            // The error callback receives the same error with a better message.
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
            // The source then looks for gaps and reports them.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::LogTruncation
            // The error of each broker was reported before.
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
        // Immediately, because closing a client waits for it. The next owner reads again what was not stored.
        if let Err(error) = client.incremental_unassign(list) {
            tracing::warn!(source = %self.source, %error, "cannot unassign the revoked partitions");
        }
        self.notes().push(ClientEvent::Revoked(spots));
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = outcome {
            // Only lag tools read these offsets; the table has the authoritative ones.
            tracing::debug!(source = %self.source, %error, "cannot commit offsets to Kafka");
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
