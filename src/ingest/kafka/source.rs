//! The Kafka source (`[sources.NAME]` with `kind = "kafka"`). It stores each message from its topics in a table,
//! exactly once.
//!
//! This file creates sources from the configuration, and extracts the payload, tenant and metadata of messages.
//! `session_loop.rs` runs the sessions that read and store the messages.
//!
//! **Invariant:** a source keeps no offsets of its own. No matter why a session ended, the next session continues from
//! the offsets in the table.

use std::fmt;
use std::sync::Arc;

use rdkafka::config::ClientConfig;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use super::client_settings::settings;
use super::oauth_token::OauthTokens;
use crate::clock::Clock;
use crate::config::{SourceConfig, SourceFormat, TenantFrom};
use crate::contract::{Contract, Format, Owner, Reason, TenantId};
use crate::error::Result;
use crate::ingest::schema_registry::MessageDecoder;
use crate::ingest::source::{MessageMeta, Route, SourceMonitor, TenantResolution, TopicPartition, without_header};
use crate::supervise::catch;
use crate::telemetry::{Metrics, PartitionLabel};
use crate::transform::{Header, Transform};

/// A Kafka source with a validated configuration.
pub struct Source {
    pub(in crate::ingest) route: Route,
    pub(super) config: SourceConfig,
    /// The owner of all messages. `None` if the tenant is determined for each message.
    tenant: Option<TenantId>,
    pub(super) settings: ClientConfig,
    /// Fetches the tokens with which the source logs in to the brokers. `None` if the source does not use tokens.
    pub(super) tokens: Option<Arc<OauthTokens>>,
    pub(in crate::ingest) monitor: Arc<SourceMonitor>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

/// Formats only the route, because the client's settings contain secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.route)
    }
}

impl Source {
    /// Creates a source that writes to the table of `contract`. Fails with `Invalid` if librdkafka rejects an option,
    /// or if the tenant or a schema is invalid.
    pub fn new(
        name: &str,
        config: &SourceConfig,
        contract: Option<&Arc<Contract>>,
        transform: Option<Arc<Transform>>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let tenant = match &config.tenant {
            TenantFrom::Value(tenant) => {
                Some(TenantId::parse(tenant).map_err(|error| error.at(format!("sources.{name}.tenant")))?)
            }
            TenantFrom::Event | TenantFrom::Key | TenantFrom::Header(_) => None,
        };
        let format = match config.format {
            // The message decoder converts Avro messages to JSON before the contract decodes them.
            SourceFormat::Json | SourceFormat::Avro => Format::Json,
            SourceFormat::Protobuf => Format::Protobuf,
        };
        let owner = tenant.clone().map_or(Owner::PerEvent, Owner::Tenant);
        let reader = MessageDecoder::new(name, config, contract, &metrics)?.map(Arc::new);
        let route = Route { source: name.to_owned(), table: config.table.clone(), format, owner, reader, transform };
        let tokens = config.oauth.as_ref().map(|oauth| OauthTokens::new(name, oauth, clock.clone())).transpose()?;
        let monitor = Arc::new(SourceMonitor::new(name, clock.clone(), metrics.clone()));
        let (settings, tokens) = (settings(name, config)?, tokens.map(Arc::new));
        Ok(Self { route, tenant, settings, tokens, monitor, config: config.clone(), clock, metrics })
    }

    /// Returns the source's name in the configuration.
    pub fn name(&self) -> &str {
        &self.route.source
    }

    pub(super) fn label<'a>(&'a self, topic_partition: &'a TopicPartition) -> PartitionLabel<'a> {
        PartitionLabel {
            source: &self.route.source,
            topic: &topic_partition.topic,
            partition: topic_partition.partition,
        }
    }

    /// Returns the payload and the tenant of a message. The payload includes the schema registry's header only if the
    /// source has a message decoder.
    pub(super) fn read<'m>(&self, message: &'m BorrowedMessage<'_>) -> (&'m [u8], TenantResolution) {
        let payload = message.payload().unwrap_or_default();
        // A message decoder needs the header, because the header contains the schema id. The quarantine then stores the
        // message with its header.
        let has_header = self.config.confluent && self.route.reader.is_none();
        let strips_header = has_header && (message.payload().is_some() || self.route.transform.is_none());
        let stripped = if strips_header { without_header(self.route.format, payload) } else { Ok(payload) };
        let payload = match stripped {
            Ok(payload) => payload,
            Err(why) => return (payload, TenantResolution::Refused(None, Reason::Malformed, why.to_owned())),
        };
        let tenant_resolution = match (&self.tenant, &self.config.tenant) {
            (Some(tenant), _) => TenantResolution::Tenant(tenant.clone()),
            (None, TenantFrom::Key) => TenantResolution::named(message.key(), "the message's key"),
            (None, TenantFrom::Header(name)) => TenantResolution::of_header(name, header_values(message, name)),
            (None, TenantFrom::Event | TenantFrom::Value(_)) => TenantResolution::PerEvent,
        };
        (payload, tenant_resolution)
    }

    /// Returns the key, headers and time of a message, which a transform can read in addition to the payload. `None` if
    /// the source has no transform.
    pub(super) fn meta(&self, message: &BorrowedMessage<'_>) -> Option<Arc<MessageMeta>> {
        self.route.transform.as_ref()?;
        let millis = message.timestamp().to_millis();
        Some(Arc::new(MessageMeta {
            is_tombstone: message.payload().is_none(),
            key: message.key().map(<[u8]>::to_vec),
            headers: headers(message),
            time: millis.and_then(|millis| millis.checked_mul(1_000)),
        }))
    }
}

/// Returns the values of all headers with this name.
fn header_values<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> impl Iterator<Item = Option<&'m [u8]>> {
    let count = message.headers().map_or(0, |headers| headers.count());
    let headers = (0..count).filter_map(|index| header_at(message, index));
    headers.filter_map(move |(found, value)| (found == name).then_some(value))
}

/// Returns all headers whose names are valid UTF-8.
fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let count = message.headers().map_or(0, |headers| headers.count());
    let owned = |(name, value): (&str, Option<&[u8]>)| (name.to_owned(), value.map(<[u8]>::to_vec));
    (0..count).filter_map(|index| header_at(message, index).map(owned)).collect()
}

/// Returns a header, or `None` if its name is not valid UTF-8. The client library panics when it reads such a name, and
/// any producer can send one.
fn header_at<'m>(message: &'m BorrowedMessage<'_>, index: usize) -> Option<(&'m str, Option<&'m [u8]>)> {
    let headers = message.headers()?;
    let header = catch(|| headers.get(index)).ok()?;
    Some((header.key, header.value))
}
