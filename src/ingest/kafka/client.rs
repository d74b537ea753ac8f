//! The Kafka client of a source, and the events that the client reports between messages.
//!
//! [`connect`] creates a [`KafkaClient`] that joins the source's consumer group. The client runs its callbacks on its
//! own threads. The callbacks do not assign partitions, because only the session knows the offset at which a partition
//! continues. Instead, the callbacks record [`ClientEvent`]s for the session.
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

/// The state in the client's statistics for a group whose coordinator is reachable.
const GROUP_UP: &str = "up";
/// The start of the client's error message for a missing login token. `generate_oauth_token` has already reported why
/// there is no token.
const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token";

/// A consumer that reports its events through [`ClientContextState`].
pub(super) type KafkaClient = BaseConsumer<ClientContextState>;

/// An event that the client reports between two messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientEvent {
    /// The group assigned these partitions to this client. The session must apply the assignment.
    Assigned(Vec<TopicPartition>),
    /// The group revoked these partitions. The callback has already unassigned these partitions.
    Revoked(Vec<TopicPartition>),
    /// A partition's end offset, as the client's statistics report it.
    End(TopicPartition, EndOffset),
}

/// Receives the client's callbacks and supplies it with login tokens.
pub(super) struct ClientContextState {
    source: String,
    monitor: Arc<SourceMonitor>,
    tokens: Option<Arc<OauthTokens>>,
    runtime: Handle,
    stop: CancellationToken,
    /// The events that the session has not taken yet.
    events: Mutex<Vec<ClientEvent>>,
    /// The offset from the last "end reached" event, or `None` after the session has taken it.
    eof_offset: Mutex<Option<i64>>,
    logged: LoggedTroubles,
}

/// Creates a client that joins the source's group and subscribes to the source's topics. The client's callbacks may
/// block on `runtime` until `stop` is cancelled.
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
    /// Takes the events that were recorded since the last call, in order.
    pub(super) fn take_events(&self) -> Vec<ClientEvent> {
        std::mem::take(&mut *self.events())
    }

    /// Takes the offset of the "end reached" event that `poll` has just returned.
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
        self.monitor.connected(statistics.cgrp.is_some_and(|group| group.state == GROUP_UP));
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
        // The list of events is consistent even if its lock is poisoned, because no update can panic midway.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn eof_offset(&self) -> std::sync::MutexGuard<'_, Option<i64>> {
        // The offset is valid even if its lock is poisoned, because it is written in one step.
        self.eof_offset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ClientContextState {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Fetches a login token on the polling thread. If the fetch fails, the client calls this function again ten
    /// seconds later.
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let source = &self.source;
        let Some(tokens) = &self.tokens else {
            return Err(format!("the brokers require a token, but [sources.{source}.oauth] is not set").into());
        };
        // The C library calls this function. A panic that unwound into the C library would abort the process.
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
            // The error callback receives the same error with a better message.
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
            // The session also receives these errors, and then looks for gaps and reports them.
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
        // Unassign the partitions immediately, because closing the client waits for this call. The next owner of the
        // partitions reads the unstored messages again.
        if let Err(error) = client.incremental_unassign(list) {
            tracing::warn!(source = %self.source, %error, "cannot unassign the revoked partitions");
        }
        self.events().push(ClientEvent::Revoked(partitions));
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = outcome {
            // A failed commit is harmless, because only tools that show the lag read the offsets in Kafka. The
            // authoritative offsets are in the table.
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
