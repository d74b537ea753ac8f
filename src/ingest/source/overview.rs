//! The sources of this server for operators: their state, and pausing.
//!
//! ```text
//!   list   ◄── the table (offsets, pause) and the monitor (errors, lag) of each source
//!   pause  ──► the table of the source ──► every server that reads it, through the log
//! ```
//!
//! In: the name of a source. Out: [`SourceState`]. The endpoints authorise callers: operators only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message_batch::TopicPartition;
use super::monitor::SourceError;
use super::pause::{self, Pause};
use super::route::Route;
use crate::clock::Micros;
use crate::error::{Error, Result, did_you_mean};
use crate::ingest::kafka::Source;
use crate::ingest::schema_registry::MessageDecoder;
use crate::ingest::writer::Writer;
use crate::lake::Table;

/// All declared sources.
#[derive(Debug)]
pub struct Sources {
    writer: Arc<Writer>,
    sources: BTreeMap<String, Arc<Source>>,
}

/// The state of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// Its name.
    pub name: String,
    /// The table that it writes to.
    pub table: String,
    /// Since when it is paused, on all servers; `None` while it runs.
    pub paused_since: Option<Micros>,
    /// Whether an error stops it on this server.
    pub is_failing: bool,
    /// The last error on this server, which may be resolved.
    pub error: Option<SourceError>,
    /// The partitions that the table has an offset of, or that this server reads.
    pub partitions: Vec<PartitionProgress>,
}

/// The progress of a partition of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
    /// The next offset to read, as the table holds it.
    pub offset: Option<i64>,
    /// The number of offsets up to its end that are not committed yet: an upper bound of the waiting messages. Known only to
    /// the server that reads the partition.
    pub lag: Option<i64>,
    /// Whether this server reads it.
    pub is_here: bool,
    /// Whether a gap has stopped it.
    pub is_stopped: bool,
}

impl Sources {
    /// Creates the sources, which write through `writer`.
    pub(in crate::ingest) fn new(writer: Arc<Writer>, sources: Vec<Source>) -> Self {
        let named = sources.into_iter().map(|source| (source.route.source.clone(), Arc::new(source)));
        Self { writer, sources: named.collect() }
    }

    /// All sources.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values()
    }

    /// The schema reader of a source, if it has one and has no transform.
    pub(in crate::ingest) fn reader(&self, name: &str) -> Option<&Arc<MessageDecoder>> {
        let route = &self.sources.get(name)?.route;
        route.reader.as_ref().filter(|_| route.transform.is_none())
    }

    /// The state of all sources, by name. Does no I/O: it reports the tables and partitions as this server knows them.
    pub fn list(&self) -> Result<Vec<SourceState>> {
        self.sources.keys().map(|name| self.state(name)).collect()
    }

    /// Pauses or resumes a source on all servers, and returns its new state. `NotFound` for an unknown source.
    pub async fn set_paused(&self, name: &str, is_paused: bool) -> Result<SourceState> {
        let route = &self.source(name)?.route;
        pause::set(self.table(route)?, route, is_paused, self.writer.clock.now()).await?;
        self.state(name)
    }

    fn state(&self, name: &str) -> Result<SourceState> {
        let Source { route, watch, .. } = &**self.source(name)?;
        let snapshot = self.table(route)?.snapshot();
        let (is_failing, error, readings) = watch.look();
        let mut partitions: BTreeMap<TopicPartition, PartitionProgress> = BTreeMap::new();
        let prefix = route.app_prefix();
        let known = snapshot.txns.range(prefix.clone()..).take_while(|(app, _)| app.starts_with(&prefix));
        for (app, offset) in known {
            let Some(topic_partition) = topic_partition(&app[prefix.len()..]) else { continue };
            partition(&mut partitions, &topic_partition).offset = Some(*offset);
        }
        for (topic_partition, reading) in readings {
            let told = partition(&mut partitions, &topic_partition);
            (told.is_here, told.lag, told.is_stopped) = (true, reading.lag, reading.is_stopped);
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

/// The entry of a partition, created if missing.
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

/// Parses `topic:partition`. Topic names contain no colon.
fn topic_partition(text: &str) -> Option<TopicPartition> {
    let (topic, partition) = text.split_once(':')?;
    Some(TopicPartition { topic: topic.into(), partition: partition.parse().ok()? })
}
