//! The Kafka client of a source, and the events that the client's callbacks report.
//!
//! [`connect`] creates a [`KafkaClient`] that joins the source's consumer group. The callbacks do not assign
//! partitions, because only the session knows the offset from which a partition must be read. Instead, they record
//! [`ClientEvent`]s, which the session processes.
//!
//! **Invariant:** no log or error message contains the value of a configured option, because the value may be a secret.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::client_settings::cannot_create;
use super::end_offset::{EndOffset, parse_eof_offset};
use super::error::{ClientError, LoggedTroubles};
use super::oauth_token::OauthTokens;
use super::source::Source;
use crate::error::{Error, Kind, Result};
use crate::ingest::source::{SourceMonitor, TopicPartition};
use crate::supervise::catch;
use crate::telemetry::SourceTrouble;

/// The group state that the client's statistics contain while the group's coordinator is reachable.
const GROUP_UP: &str = "up";
/// The error message for a lost connection that no other error explains.
const CONNECTION_LOST: &str =
    "the connection to the coordinator of the consumer group is lost; check that the brokers are running and reachable";
/// The prefix of the client's error message for a missing login token. This error is ignored, because
/// `generate_oauth_token` has already reported why there is no token.
const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token";

/// A consumer whose callbacks are handled by [`ClientContextState`].
pub(super) type KafkaClient = BaseConsumer<ClientContextState>;

/// An event that a callback of the client reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientEvent {
    /// The group assigned these partitions to this client. The session must apply the assignment.
    Assigned(Vec<TopicPartition>),
    /// The group revoked these partitions. The callback has already unassigned them.
    Revoked(Vec<TopicPartition>),
    /// The client's statistics report this end offset for a partition.
    End(TopicPartition, EndOffset),
}

/// Receives the callbacks of the client, and supplies the client with login tokens.
pub(super) struct ClientContextState {
    source: String,
    monitor: Arc<SourceMonitor>,
    tokens: Option<Arc<OauthTokens>>,
    runtime: Handle,
    stop: CancellationToken,
    /// The events that the session has not taken yet.
    events: Mutex<Vec<ClientEvent>>,
    /// The offset of the latest "end reached" event. `None` after the session has taken it.
    eof_offset: Mutex<Option<i64>>,
    logged: LoggedTroubles,
}

/// Creates a client that joins the source's group and subscribes to the source's topics. A callback may block its
/// thread on `runtime`, but only until `stop` is cancelled.
pub(super) fn connect(source: &Source, runtime: Handle, stop: CancellationToken) -> Result<KafkaClient> {
    let name = &source.route.source;
    let context = ClientContextState {
        source: name.clone(),
        monitor: source.monitor.clone(),
        tokens: source.tokens.clone(),
        runtime,
        stop,
        events: Mutex::default(),
        eof_offset: Mutex::default(),
        logged: LoggedTroubles::default(),
    };
    let client: KafkaClient = source.settings.create_with_context(context).map_err(cannot_create(name))?;
    let topics: Vec<&str> = source.config.topics.iter().map(String::as_str).collect();
    client.subscribe(&topics).map_err(cannot_create(name))?;
    Ok(client)
}

impl ClientContextState {
    /// Takes the events that were recorded since the last call, oldest first.
    pub(super) fn take_events(&self) -> Vec<ClientEvent> {
        std::mem::take(&mut *self.events())
    }

    /// Takes the offset of the latest "end reached" event. The error that `poll` returns for this event does not
    /// contain the offset.
    pub(super) fn take_eof_offset(&self) -> Option<i64> {
        self.eof_offset().take()
    }

    /// Records an error for operators, and logs the error unless an error of the same kind was logged recently.
    fn report(&self, ClientError { trouble, message }: ClientError) {
        let (source, kind) = (&self.source, trouble.as_str());
        let should_log = self.logged.should_log(trouble, Instant::now());
        match trouble {
            _ if !should_log => tracing::debug!(%source, kind, "source error: {message}"),
            SourceTrouble::Connection | SourceTrouble::Other => {
                tracing::warn!(%source, kind, "source error; the client retries: {message}");
            }
            _ => tracing::error!(%source, kind, "source error; the client retries: {message}"),
        }
        self.monitor.failed(trouble, message);
    }

    /// Runs a callback from the C library and catches panics. A panic that unwound into the C library would abort the
    /// process.
    fn catch_panic(&self, what: &str, work: impl FnOnce()) {
        if let Err(panic) = catch(work) {
            tracing::error!(source = %self.source, "the Kafka client's {what} callback panicked: {panic}");
        }
    }

    fn take_statistics(&self, statistics: Statistics) {
        if self.monitor.connected(statistics.cgrp.is_some_and(|group| group.state == GROUP_UP)) {
            let (trouble, message) = (SourceTrouble::Connection, CONNECTION_LOST.to_owned());
            self.report(ClientError { trouble, message });
        }
        // If a partition's leader is unreachable, the partition's values in the statistics are stale.
        let up = statistics.brokers.values().filter(|broker| broker.state == "UP").map(|broker| broker.nodeid);
        let up: BTreeSet<i32> = up.collect();
        let ends = statistics.topics.into_iter().flat_map(|(topic, statistics)| {
            let (topic, up): (Arc<str>, _) = (topic.into(), &up);
            statistics.partitions.into_iter().filter_map(move |(partition, statistics)| {
                let offset = if statistics.ls_offset >= 0 { statistics.ls_offset } else { statistics.hi_offset };
                let end = EndOffset { offset, low: Some(statistics.lo_offset).filter(|low| *low >= 0) };
                let is_current = partition >= 0 && offset >= 0 && up.contains(&statistics.leader);
                is_current.then(|| ClientEvent::End(TopicPartition { topic: topic.clone(), partition }, end))
            })
        });
        self.events().extend(ends);
    }

    fn events(&self) -> std::sync::MutexGuard<'_, Vec<ClientEvent>> {
        // A poisoned lock can be ignored: no update can panic midway, so the list of events is always consistent.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn eof_offset(&self) -> std::sync::MutexGuard<'_, Option<i64>> {
        // A poisoned lock can be ignored, because the offset is written in one step.
        self.eof_offset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ClientContextState {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Fetches a login token. Runs on the thread that polls the client. After a failure, the client calls this function
    /// again ten seconds later.
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let source = &self.source;
        let Some(tokens) = &self.tokens else {
            return Err(format!("the brokers require a token, but [sources.{source}.oauth] is not set").into());
        };
        // Catch panics, because a panic that unwound into the C library, which calls this function, would abort the
        // process.
        let fetched = catch(|| self.runtime.block_on(self.stop.run_until_cancelled(tokens.fetch())));
        let fetched =
            fetched.unwrap_or_else(|panic| Some(Err(Error::internal("fetching a token panicked").with_source(panic))));
        match fetched.unwrap_or_else(|| Err(Error::cancelled("the source is stopping"))) {
            Ok(token) => {
                tracing::debug!(%source, "fetched a new login token");
                Ok(OAuthToken { token: token.text, principal_name: token.principal, lifetime_ms: token.expires })
            }
            Err(error) => {
                if error.kind() != Kind::Cancelled {
                    let message = format!("cannot fetch a login token: {error}; check sources.{source}.oauth");
                    self.report(ClientError { trouble: SourceTrouble::Token, message });
                }
                Err(error.message().replace('\0', "").into())
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let source = &self.source;
        match level {
            // Log these lines only at debug level, because the error callback receives the same errors with better
            // messages.
            RDKafkaLogLevel::Error if matches!(facility, "FAIL" | "ERROR") => {
                tracing::debug!(%source, facility, text, "message from the Kafka client library");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info if facility == "FAIL" => {
                match ClientError::of_line(source, self.tokens.is_some(), text) {
                    Some(error) => self.report(error),
                    None => tracing::debug!(%source, facility, text, "message from the Kafka client library"),
                }
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(%source, facility, text, "message from the Kafka client library");
            }
            RDKafkaLogLevel::Warning => {
                tracing::info!(%source, facility, text, "message from the Kafka client library")
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(%source, facility, text, "message from the Kafka client library");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.catch_panic("statistics", || self.take_statistics(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if reason.starts_with(NO_TOKEN) {
            return;
        }
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if code == RDKafkaErrorCode::PartitionEOF {
            *self.eof_offset() = parse_eof_offset(reason);
            return;
        }
        let is_reported_elsewhere = matches!(
            code,
            // The session receives these errors from `poll`, and reports a gap if messages are missing.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::LogTruncation
            // The client has already reported a separate error for each broker.
            | RDKafkaErrorCode::AllBrokersDown
        );
        if is_reported_elsewhere {
            tracing::debug!(source = %self.source, %error, reason, "message from the Kafka client library");
            return;
        }
        self.catch_panic("error", || self.report(ClientError::new(&self.source, self.tokens.is_some(), code, reason)));
    }
}

impl ConsumerContext for ClientContextState {
    fn rebalance(&self, client: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partitions_of(list);
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.events().push(ClientEvent::Assigned(partitions));
            return;
        }
        // Unassign the partitions here and not in the session, because closing the client blocks until they are
        // unassigned. The next owner of the partitions reads the unstored messages again.
        if let Err(error) = client.incremental_unassign(list) {
            tracing::warn!(source = %self.source, %error, "cannot unassign the revoked partitions");
        }
        self.events().push(ClientEvent::Revoked(partitions));
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = outcome {
            // A failed commit is harmless, because the authoritative offsets are in the table. The offsets in Kafka are
            // only for tools that show the lag.
            tracing::debug!(source = %self.source, %error, "cannot commit offsets to Kafka");
        }
    }
}

/// Returns the topic and number of each partition in a list.
fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let topic_partition = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
    elements.iter().map(|element| topic_partition(element.topic(), element.partition())).collect()
}
