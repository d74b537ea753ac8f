//! The Kafka source, which stores the messages of topics in a table exactly once: `[sources.NAME]` with `kind = "kafka"`.
//!
//! In: a checked [`SourceConfig`]. Out: rows and offsets in the table, bad messages in its quarantine. Sessions (`session.rs`)
//! do the work, with one client each. This file defines a source and resolves the tenant of its messages.
//!
//! **Invariant:** a source has no state of its own: whatever ends a session, the next one continues from the offsets in the
//! table.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::client::{connect, settings};
use super::oauth_token::OauthTokens;
use super::session::KafkaSession;
use crate::clock::Clock;
use crate::config::{SourceConfig, SourceFormat, TenantFrom};
use crate::contract::{Contract, Format, Owner, Reason, TenantId};
use crate::error::Result;
use crate::ingest::schema_registry::MessageDecoder;
use crate::ingest::source::{
    MessageMeta, Route, SourceMonitor, SourceWriter, TenantResolution, TopicPartition, without_header,
};
use crate::ingest::writer::Writer;
use crate::supervise::{catch, on_thread};
use crate::telemetry::{Metrics, PartitionLabel, SourceTrouble};
use crate::transform::{Header, Transform};

/// The pause after a session. It doubles up to [`PAUSE_MAX`] while sessions end immediately.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause between two sessions.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A source with a checked configuration.
pub struct Source {
    pub(in crate::ingest) route: Route,
    pub(super) config: SourceConfig,
    /// The tenant of all messages, if the configuration names one.
    tenant: Option<TenantId>,
    pub(super) settings: ClientConfig,
    /// The provider of its login tokens, if it logs in with tokens.
    pub(super) tokens: Option<Arc<OauthTokens>>,
    pub(in crate::ingest) watch: Arc<SourceMonitor>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

/// Without the client's settings, which hold secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.route)
    }
}

impl Source {
    /// Makes the checks that need more than the configuration. Fails with `Invalid` if librdkafka rejects an option, or if the
    /// tenant or a schema is invalid. `contract` is the table's.
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
                Some(TenantId::parse(tenant).map_err(|fault| fault.at(format!("sources.{name}.tenant")))?)
            }
            TenantFrom::Event | TenantFrom::Key | TenantFrom::Header(_) => None,
        };
        let format = match config.format {
            // Avro becomes JSON before it is decoded.
            SourceFormat::Json | SourceFormat::Avro => Format::Json,
            SourceFormat::Protobuf => Format::Protobuf,
        };
        let owner = tenant.clone().map_or(Owner::PerEvent, Owner::Tenant);
        let reader = MessageDecoder::new(name, config, contract, &metrics)?.map(Arc::new);
        let route = Route { source: name.to_owned(), table: config.table.clone(), format, owner, reader, transform };
        let tokens = config.oauth.as_ref().map(|oauth| OauthTokens::new(name, oauth, clock.clone())).transpose()?;
        let watch = Arc::new(SourceMonitor::new(name, clock.clone(), metrics.clone()));
        let (settings, tokens) = (settings(name, config)?, tokens.map(Arc::new));
        Ok(Self { route, tenant, settings, tokens, watch, config: config.clone(), clock, metrics })
    }

    /// Reads and stores messages until `stop`, once the lookup tables of its transform are loaded. The next session reads again
    /// what was not stored. After a session fails, a new one starts after a pause. The panic of a session propagates to the
    /// caller, which may call this again.
    pub async fn run(self: Arc<Self>, writer: Arc<Writer>, stop: CancellationToken) {
        let source = self;
        if let Some(transform) = &source.route.transform
            && !transform.ready(&stop).await
        {
            return;
        }
        // A session's thread cannot be aborted: it ends soon after this future is dropped.
        let stop = stop.child_token();
        let _ends = stop.clone().drop_guard();
        let mut pause = PAUSE_MIN;
        while !stop.is_cancelled() {
            let (source, ended) = (source.clone(), stop.clone());
            let writer = SourceWriter::new(writer.clone(), source.route.clone());
            let (name, watch, runtime) = (source.route.source.clone(), source.watch.clone(), Handle::current());
            let begun = Instant::now();
            let session = move || {
                let client = connect(&source, runtime.clone(), ended.clone())?;
                KafkaSession::new(&source, &writer, &client, runtime, ended)?.run()
            };
            match on_thread(session).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(source = %name, ?error, "a source failed and restarts");
                    watch.failed(SourceTrouble::Other, format!("{error:?}"));
                }
                Err(panic) => {
                    watch.failed(SourceTrouble::Other, "the source panicked: see the log for the cause");
                    panic.resume();
                }
            }
            pause = if begun.elapsed() > PAUSE_MAX { PAUSE_MIN } else { pause };
            let _stopped = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Its name in the configuration.
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

    /// The payload without its schema header, and the tenant that it belongs to.
    pub(super) fn read<'m>(&self, message: &'m BorrowedMessage<'_>) -> (&'m [u8], TenantResolution) {
        let payload = message.payload().unwrap_or_default();
        // A schema reader removes the header itself, and the quarantine keeps it.
        let is_skipped = self.config.confluent && self.route.reader.is_none();
        let is_wrapped = is_skipped && (message.payload().is_some() || self.route.transform.is_none());
        let whole = if is_wrapped { without_header(self.route.format, payload) } else { Ok(payload) };
        let payload = match whole {
            Ok(payload) => payload,
            Err(why) => return (payload, TenantResolution::Refused(None, Reason::Malformed, why.to_owned())),
        };
        let tenant_resolution = match (&self.tenant, &self.config.tenant) {
            (Some(tenant), _) => TenantResolution::Tenant(tenant.clone()),
            (None, TenantFrom::Key) => TenantResolution::named(message.key(), "the message's key"),
            (None, TenantFrom::Header(name)) => {
                TenantResolution::named(header(message, name), &format!("the header `{name}`"))
            }
            (None, TenantFrom::Event | TenantFrom::Value(_)) => TenantResolution::PerEvent,
        };
        (payload, tenant_resolution)
    }

    /// The fields of a message that a transform may read in addition to the payload.
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

/// The value of a header; the last one if several have this name.
fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m [u8]> {
    let count = message.headers()?.count();
    (0..count).rev().find_map(|index| {
        let (found, value) = header_at(message, index)?;
        value.filter(|_| found == name)
    })
}

/// All headers with UTF-8 names.
fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let count = message.headers().map_or(0, |headers| headers.count());
    let owned = |(name, value): (&str, Option<&[u8]>)| (name.to_owned(), value.map(<[u8]>::to_vec));
    (0..count).filter_map(|index| header_at(message, index).map(owned)).collect()
}

/// One header. The client library panics on a name that is not UTF-8, and producers may send one.
fn header_at<'m>(message: &'m BorrowedMessage<'_>, index: usize) -> Option<(&'m str, Option<&'m [u8]>)> {
    let headers = message.headers()?;
    let header = catch(|| headers.get(index)).ok()?;
    Some((header.key, header.value))
}
