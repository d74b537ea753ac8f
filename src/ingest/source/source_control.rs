//! Lets operators list, pause and resume the sources of this server.
//!
//! ```text
//!   list   ◄── the table (offsets, pause) and the monitor (errors, lag) of each source
//!   pause  ──► the table of the source ──► every server that reads it, through the log
//! ```
//!
//! The methods of [`Sources`] return the [`SourceState`] of a source. They do not check the caller's access, so the
//! endpoints must restrict them to operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message_batch::TopicPartition;
use super::monitor::SourceError;
use super::route::Route;
use super::source_pause::{self, Pause};
use crate::clock::Micros;
use crate::error::{Error, Result, did_you_mean};
use crate::ingest::kafka::Source;
use crate::ingest::schema_registry::MessageDecoder;
use crate::ingest::writer::Writer;
use crate::lake::Table;

/// All sources that the configuration declares.
#[derive(Debug)]
pub struct Sources {
    writer: Arc<Writer>,
    sources: BTreeMap<String, Arc<Source>>,
}

/// The state of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// The source's name.
    pub name: String,
    /// The table to which the source writes.
    pub table: String,
    /// The time at which the source was paused. A pause applies to all servers. `None` if the source is not paused.
    pub paused_since: Option<Micros>,
    /// Whether an error currently prevents the source from reading or storing messages on this server.
    pub is_failing: bool,
    /// The last error on this server, which may already be resolved.
    pub error: Option<SourceError>,
    /// The partitions for which the table has an offset, and those that this server reads.
    pub partitions: Vec<PartitionProgress>,
}

/// The progress of a source in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition number, starting at 0.
    pub partition: i32,
    /// The next offset to read, according to the table. `None` if the table has no offset for the partition.
    pub offset: Option<i64>,
    /// The number of offsets between the committed offset and the partition's end. The value is an upper bound for the
    /// number of waiting messages. `None` on servers that do not read the partition, and until the brokers have
    /// reported the end.
    pub lag: Option<i64>,
    /// Whether this server reads the partition.
    pub is_here: bool,
    /// Whether the partition has stopped because of a gap or a truncated table.
    pub is_stopped: bool,
}

impl Sources {
    /// Creates the collection of all sources. The sources store their events through `writer`.
    pub(in crate::ingest) fn new(writer: Arc<Writer>, sources: Vec<Source>) -> Self {
        let named = sources.into_iter().map(|source| (source.route.source.clone(), Arc::new(source)));
        Self { writer, sources: named.collect() }
    }

    /// Returns all sources, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values()
    }

    /// Returns the message decoder of a source. `None` if the source has no message decoder, or if it has a transform.
    pub(in crate::ingest) fn reader(&self, name: &str) -> Option<&Arc<MessageDecoder>> {
        let route = &self.sources.get(name)?.route;
        route.reader.as_ref().filter(|_| route.transform.is_none())
    }

    /// Returns the state of all sources, ordered by name. Performs no I/O: the offsets and pauses come from the table
    /// versions that this server last read or committed.
    pub fn list(&self) -> Result<Vec<SourceState>> {
        self.sources.keys().map(|name| self.state(name)).collect()
    }

    /// Pauses or resumes a source on all servers, and returns its new state. Fails with `NotFound` if the source is
    /// unknown.
    pub async fn set_paused(&self, name: &str, is_paused: bool) -> Result<SourceState> {
        let route = &self.source(name)?.route;
        source_pause::set(self.table(route)?, route, is_paused, self.writer.clock.now()).await?;
        self.state(name)
    }

    fn state(&self, name: &str) -> Result<SourceState> {
        let Source { route, monitor, .. } = &**self.source(name)?;
        let snapshot = self.table(route)?.snapshot();
        let (is_failing, error, read_here) = monitor.snapshot();
        let mut partitions: BTreeMap<TopicPartition, PartitionProgress> = BTreeMap::new();
        let prefix = route.app_prefix();
        let known = snapshot.txns.range(prefix.clone()..).take_while(|(app, _)| app.starts_with(&prefix));
        for (app, offset) in known {
            let Some(topic_partition) = topic_partition(&app[prefix.len()..]) else { continue };
            partition(&mut partitions, &topic_partition).offset = Some(*offset);
        }
        for (topic_partition, reader) in read_here {
            let entry = partition(&mut partitions, &topic_partition);
            (entry.is_here, entry.lag, entry.is_stopped) = (true, reader.lag, reader.is_stopped);
        }
        Ok(SourceState {
            name: name.to_owned(),
            table: route.table.clone(),
            paused_since: Pause::of(&snapshot, route).since(),
            is_failing,
            error,
            partitions: partitions.into_values().collect(),
        })
    }

    fn source(&self, name: &str) -> Result<&Arc<Source>> {
        self.sources.get(name).ok_or_else(|| {
            let guess = did_you_mean(name, self.sources.keys().map(String::as_str));
            Error::not_found(format!("there is no source `{name}`{guess}"))
        })
    }

    fn table(&self, route: &Route) -> Result<&Table> {
        let table = self.writer.tables().get(&route.table);
        table
            .map(|table| &**table)
            .ok_or_else(|| Error::internal(format!("table `{}` of a source is not open", route.table)))
    }
}

/// Returns the entry of a partition, and creates it if it is missing.
fn partition<'a>(
    partitions: &'a mut BTreeMap<TopicPartition, PartitionProgress>,
    topic_partition: &TopicPartition,
) -> &'a mut PartitionProgress {
    partitions.entry(topic_partition.clone()).or_insert_with(|| PartitionProgress {
        topic: topic_partition.topic.clone(),
        partition: topic_partition.partition,
        offset: None,
        lag: None,
        is_here: false,
        is_stopped: false,
    })
}

/// Parses `topic:partition`. Returns `None` for any other text. The result is unambiguous, because a topic name cannot
/// contain a colon.
fn topic_partition(text: &str) -> Option<TopicPartition> {
    let (topic, partition) = text.split_once(':')?;
    Some(TopicPartition { topic: topic.into(), partition: partition.parse().ok()? })
}
