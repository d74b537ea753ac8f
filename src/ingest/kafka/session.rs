//! One Kafka client from its start to its end: what is read becomes hauls, and hauls are stored with their offsets.
//!
//! ```text
//!   poll ─► haul ─ due ─► store with offsets ─┬─ stored ───► tell Kafka the offsets (for lag tools only)
//!     ▲                                       └─ refused ──► drop the haul
//!     │                                                         │
//!     └── read on from ◄── the table's own offsets ◄────────────┴── partitions that were assigned to us
//! ```
//!
//! In: a [`Source`] and its client. Out: rows, offsets and bad messages in the lake.
//!
//! One thread polls, decides and stores, in turns. So while a haul is being stored no partition comes or goes, and what was
//! read but not stored is in one place. Brokers send ahead meanwhile, into the client's own bounded queue.
//!
//! **Invariant:** where to read on is what the table says, never what Kafka remembers or this server believes.
//! **Invariant:** a haul is stored or dropped as a whole. A drop loses nothing: its messages are read again.
//! **Invariant:** messages that are gone before they were read are never passed over in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::client::{ClientEvent, KafkaClient};
use super::source::Source;
use crate::config::{OnGap, StartAt};
use crate::contract::MESSAGES_MAX;
use crate::error::{Error, Kind, Result};
use crate::ingest::source::{BatchLimits, Lag, MessageBatch, Pause, Position, TopicPartition};
use crate::ingest::{Ingest, stopping};
use crate::lake::LagState;
use crate::telemetry::SourceTrouble;

/// The longest time between two looks at what else there is to do, above all whether to stop.
const POLL_MAX: Duration = Duration::from_millis(100);
/// Messages that were waiting already and are taken under one look at the clock.
const TAKEN_MAX: u32 = 64;
/// The pause after a fault.
const PAUSE: Duration = Duration::from_millis(500);
/// Batches from the smallest to a whole one, after one was too much.
const ROWS_STEPS: usize = 64;
/// Time for one question to the brokers.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

/// A partition that is ours.
#[derive(Debug)]
pub(super) struct PartitionReader {
    position: Position,
    /// Where it begins, as long as the table does not say where it goes on; none when the first message will tell.
    first: Option<i64>,
    /// The next offset to read; none when the first message will tell.
    next: Option<i64>,
    /// A gap stopped it.
    pub(super) stopped: bool,
    behind: Lag,
}

/// One client from its start to its end.
pub(super) struct KafkaSession<'a> {
    pub(super) source: &'a Source,
    pub(super) ingest: &'a Ingest,
    pub(super) client: &'a KafkaClient,
    runtime: Handle,
    pub(super) stop: CancellationToken,
    pub(super) places: BTreeMap<TopicPartition, PartitionReader>,
    topics: BTreeSet<Arc<str>>,
    /// The partition of the last message.
    near: Option<TopicPartition>,
    pub(super) message_batch: MessageBatch,
    /// What the table said of the pause when it was looked at last.
    pub(super) pause: Pause,
    pub(super) pause_looked: Instant,
    /// When the brokers were asked last where the partitions end, while they are not read.
    pub(super) ends_asked: Instant,
    /// When the source was first started, in milliseconds since 1970, as long as the table does not say it.
    started: Option<i64>,
    bounds: BatchLimits,
    /// What `bounds` were before a batch was too much.
    rows_full: usize,
}

impl<'a> KafkaSession<'a> {
    pub(super) fn new(
        source: &'a Source,
        ingest: &'a Ingest,
        client: &'a KafkaClient,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Result<Self> {
        let bounds = BatchLimits {
            // Even if all of them are bad, they can be decoded at once.
            rows_max: ingest.limits.batch_rows_max.min(MESSAGES_MAX),
            bytes_max: ingest.haul_bytes_max(&source.route),
            age_max: ingest.limits.batch_age_max,
        };
        let topics = source.config.topics.iter().map(|topic| topic.as_str().into()).collect();
        let (now, rows_full) = (Instant::now(), bounds.rows_max);
        Ok(Self {
            source,
            ingest,
            client,
            runtime,
            stop,
            places: BTreeMap::new(),
            topics,
            near: None,
            message_batch: MessageBatch::default(),
            pause: ingest.pause_of(&source.route)?,
            pause_looked: now,
            ends_asked: now,
            started: None,
            bounds,
            rows_full,
        })
    }

    /// Until it is told to stop. An error is the end of this client, not of the source.
    pub(super) fn run(mut self) -> Result<()> {
        self.tell_pause();
        let outcome = self.read();
        self.source.watch.connected(false);
        for topic_partition in self.places.keys() {
            self.leave(topic_partition);
        }
        outcome
    }

    fn read(&mut self) -> Result<()> {
        while !self.stop.is_cancelled() {
            let now = Instant::now();
            self.mind_pause(now)?;
            match self.message_batch.due(&self.bounds, now) {
                Some(due) if due <= now => self.store()?,
                due => {
                    let wait = due.map_or(POLL_MAX, |due| (due - now).min(POLL_MAX));
                    self.take_waiting(now, wait)?;
                }
            }
            for note in self.client.context().take_notes() {
                self.note(note)?;
            }
        }
        Ok(())
    }

    /// Takes messages that are there already, a few under one look at the clock and at all else; waits for the first one
    /// when there is none.
    fn take_waiting(&mut self, now: Instant, wait: Duration) -> Result<()> {
        let client = self.client;
        for taken in 0..TAKEN_MAX {
            let polled = client.poll(Duration::ZERO).or_else(|| (taken == 0).then(|| client.poll(wait))?);
            match polled {
                Some(Ok(message)) => self.take(&message, now),
                Some(Err(error)) => return self.fault(&error),
                // Nothing is there, or something happened that has to be looked at before the next message.
                None => return Ok(()),
            }
            if self.message_batch.is_full(&self.bounds) {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn note(&mut self, note: ClientEvent) -> Result<()> {
        match note {
            ClientEvent::Assigned(spots) => {
                tracing::info!(source = %self.source.route.source, partitions = ?spots, "partitions were assigned");
                let list = match self.open(&spots) {
                    // It stops: but a client that closes waits for its assignment to be carried out.
                    Err(_) if self.stop.is_cancelled() => list_of(&spots, Offset::End)?,
                    list => list?,
                };
                // Also when there are none: the group waits for this answer.
                self.client.incremental_assign(&list).map_err(broken)?;
                if !spots.is_empty() {
                    self.source.watch.goes_on();
                }
                if self.is_paused() { self.client.pause(&list).map_err(broken) } else { Ok(()) }
            }
            ClientEvent::Revoked(spots) => {
                tracing::info!(source = %self.source.route.source, partitions = ?spots, "partitions went elsewhere");
                for topic_partition in spots {
                    self.message_batch.forget(&topic_partition);
                    self.places.remove(&topic_partition);
                    self.leave(&topic_partition);
                }
                Ok(())
            }
            ClientEvent::End(topic_partition, end) => {
                let Some(place) = self.places.get_mut(&topic_partition) else { return Ok(()) };
                // What stands behind our last message then is no message.
                let end = place.next.filter(|_| end.drained == place.next).unwrap_or(end.offset);
                if let Some(stored) = place.position.stored.or(place.next) {
                    self.source.watch.lag(&topic_partition, (end - stored).max(0));
                }
                place.behind.heard(end, place.position.stored, self.source.clock.now());
                self.tell(&topic_partition);
                Ok(())
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, now: Instant) {
        // Messages come in runs of one partition.
        let is_near = |near: &&TopicPartition| near.partition == message.partition() && *near.topic == *message.topic();
        let topic_partition = match self.near.as_ref().filter(is_near) {
            Some(near) => near.clone(),
            None => {
                let Some(topic) = self.topics.get(message.topic()) else { return };
                let topic_partition = TopicPartition { topic: topic.clone(), partition: message.partition() };
                self.near.insert(topic_partition).clone()
            }
        };
        // What is left in the client's queue of a partition that is not ours any more, or that was set back.
        let Some(place) = self.places.get_mut(&topic_partition) else { return };
        let offset = message.offset();
        if self.pause.since().is_some() || place.stopped || place.next.is_some_and(|next| offset < next) {
            return;
        }
        place.next = Some(offset + 1);
        if place.behind.read(offset, || message.timestamp().to_millis()?.checked_mul(1_000)) {
            self.tell(&topic_partition);
        }
        let ((payload, tenant_resolution), meta) = (self.source.read(message), self.source.meta(message));
        self.message_batch.push((topic_partition, offset), payload, tenant_resolution, meta, now);
    }

    /// Stores the haul, or drops it and goes on from where the table stands.
    fn store(&mut self) -> Result<()> {
        let next = MessageBatch::with_room(self.message_batch.bytes(), self.message_batch.messages.len());
        let mut message_batch = std::mem::replace(&mut self.message_batch, next);
        message_batch.is_whole =
            message_batch.messages.len() >= self.rows_full || message_batch.bytes() >= self.bounds.bytes_max;
        message_batch.guard = Some(self.pause.guard(&self.source.route, self.source.clock.now()));
        let (spans, count) = (message_batch.spans.clone(), message_batch.messages.len());
        let positions = spans
            .keys()
            .filter_map(|topic_partition| Some((topic_partition.clone(), self.places.get(topic_partition)?.position)))
            .collect();
        let storing = self.ingest.store_haul(&self.source.route, message_batch, &positions);
        let landed = match self.runtime.block_on(storing) {
            Ok(landed) => landed,
            Err(error) => return self.drop_haul(error, count),
        };
        // After a batch that was too much, slowly back to whole ones.
        self.bounds.rows_max = (self.bounds.rows_max + self.rows_full.div_ceil(ROWS_STEPS)).min(self.rows_full);
        let metrics = &self.source.metrics.sources;
        let mut offsets = TopicPartitionList::new();
        for (topic_partition, position) in landed.positions {
            if let Some(span) = spans.get(&topic_partition).filter(|span| span.messages > 0) {
                metrics.committed(self.source.label(&topic_partition), span.messages, span.begun.elapsed());
            }
            let next = Offset::Offset(position.stored.unwrap_or(0));
            offsets.add_partition_offset(&topic_partition.topic, topic_partition.partition, next).map_err(broken)?;
            if let Some(place) = self.places.get_mut(&topic_partition) {
                place.position = position;
                place.behind.committed();
                self.tell(&topic_partition);
            }
        }
        if let Err(error) = self.client.commit(&offsets, CommitMode::Async) {
            tracing::debug!(source = %self.source.route.source, %error, "Kafka did not take the offsets");
        }
        self.source.watch.goes_on();
        // The first commit has made the mark under which the next one is read.
        self.look_at_pause()
    }

    fn drop_haul(&mut self, error: Error, messages: usize) -> Result<()> {
        let source = &self.source.route.source;
        if error.kind() == Kind::Conflict && self.ingest.pause_of(&self.source.route)? != self.pause {
            tracing::info!(%source, messages, "the source was paused or set going: the batch is dropped");
        } else if error.kind() == Kind::Conflict {
            self.source.metrics.sources.overtaken(source);
            tracing::warn!(%source, messages, ?error, "another server went on with these partitions: the batch is dropped");
        } else {
            tracing::error!(%source, messages, ?error, "a batch was not stored: its messages are read again");
            self.source.watch.failed(SourceTrouble::Store, format!("{error:?}"));
            if error.kind() == Kind::Limited {
                // Its columns are larger than the queue can ever be, or its transform met a limit.
                self.bounds.rows_max = (self.bounds.rows_max.min(messages) / 2).max(1);
            }
            self.pause();
        }
        let spots: Vec<TopicPartition> = self
            .places
            .iter()
            .filter(|(_, place)| !place.stopped)
            .map(|(topic_partition, _)| topic_partition.clone())
            .collect();
        match self.open(&spots) {
            Err(_) if self.stop.is_cancelled() => return Ok(()),
            list => self.go_to(list?)?,
        }
        self.look_at_pause()
    }

    /// Looks up where partitions go on, for as long as it takes; they are ours then. `Unavailable` only when it stops.
    pub(super) fn open(&mut self, spots: &[TopicPartition]) -> Result<TopicPartitionList> {
        let spots: Vec<TopicPartition> = spots.iter().filter_map(|topic_partition| self.own(topic_partition)).collect();
        loop {
            let positions = self.ingest.positions(&self.source.route, spots.iter().cloned());
            match self.runtime.block_on(positions).and_then(|(positions, started)| self.begin(positions, started)) {
                Ok(list) => return Ok(list),
                Err(error) => {
                    let source = &self.source.route.source;
                    tracing::warn!(%source, ?error, "cannot find out where to read on, asking again");
                    self.source
                        .watch
                        .failed(SourceTrouble::Other, format!("cannot find out where to read on: {error:?}"));
                }
            }
            self.pause();
            if self.stop.is_cancelled() {
                return Err(stopping());
            }
        }
    }

    /// The same partition with the source's own topic; none when the source reads no such topic.
    fn own(&self, topic_partition: &TopicPartition) -> Option<TopicPartition> {
        Some(TopicPartition {
            topic: self.topics.get(&topic_partition.topic)?.clone(),
            partition: topic_partition.partition,
        })
    }

    /// Turns positions into places, and into the list that says where the client reads on.
    fn begin(
        &mut self,
        positions: BTreeMap<TopicPartition, Position>,
        started: Option<i64>,
    ) -> Result<TopicPartitionList> {
        // Asked once: what was dropped before it was stored does not make a partition begin later.
        let known = |topic_partition: &TopicPartition| self.places.get(topic_partition).and_then(|place| place.first);
        let unread =
            positions.iter().filter(|(topic_partition, position)| position.stored.or(known(topic_partition)).is_none());
        let unread: Vec<TopicPartition> = unread.map(|(topic_partition, _)| topic_partition.clone()).collect();
        let now = self.source.clock.now() / 1_000;
        let since = match self.source.config.start {
            StartAt::Earliest => None,
            StartAt::Latest => Some(started.unwrap_or_else(|| *self.started.get_or_insert(now))),
            StartAt::Time(time) => Some(time),
        };
        let firsts = match since {
            Some(since) => self.firsts(&unread, since)?,
            None => BTreeMap::new(),
        };
        let mut list = TopicPartitionList::new();
        for (topic_partition, position) in positions {
            let known = self.places.get(&topic_partition).and_then(|place| place.first);
            let next = position.stored.or(known).or(firsts.get(&topic_partition).copied());
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset).map_err(broken)?;
            if let (None, Some(first), false) = (position.stored, next, self.is_paused()) {
                // Stored although nothing was read yet: a restart must not begin later.
                self.message_batch.reach(&topic_partition, first, Instant::now());
                if started.is_none() {
                    self.message_batch.started = self.started;
                }
            }
            self.source.watch.reads(&topic_partition);
            let mut behind = self.places.remove(&topic_partition).map(|place| place.behind).unwrap_or_default();
            behind.dropped();
            self.places.insert(
                topic_partition.clone(),
                PartitionReader { position, first: next, next, stopped: false, behind },
            );
            self.tell(&topic_partition);
        }
        Ok(list)
    }

    /// Tells whoever asks how fresh the table is how far a partition has come.
    fn tell(&self, topic_partition: &TopicPartition) {
        if let Some(PartitionReader { position, stopped, behind, .. }) = self.places.get(topic_partition) {
            let standing = match stopped {
                true => LagState::Unknown,
                false => behind.standing(position.stored),
            };
            self.ingest.fed(&self.source.route, topic_partition, standing);
        }
    }

    /// Of a partition that is not ours any more, what was told would only grow old.
    fn leave(&self, topic_partition: &TopicPartition) {
        self.source.watch.released(topic_partition);
        self.ingest.not_fed(&self.source.route, topic_partition);
    }

    /// The first offsets of a time (milliseconds since 1970) or later; the end where there is none.
    fn firsts(&self, spots: &[TopicPartition], since: i64) -> Result<BTreeMap<TopicPartition, i64>> {
        if spots.is_empty() {
            return Ok(BTreeMap::new());
        }
        let list = list_of(spots, Offset::Offset(since))?;
        let found = self.client.offsets_for_times(list, ASK_TIME_MAX).map_err(broken)?;
        let mut firsts = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(broken)?;
            let topic_partition = TopicPartition { topic: element.topic().into(), partition: element.partition() };
            let first = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => {
                    self.client
                        .fetch_watermarks(&topic_partition.topic, topic_partition.partition, ASK_TIME_MAX)
                        .map_err(broken)?
                        .1
                }
            };
            firsts.insert(topic_partition, first);
        }
        Ok(firsts)
    }

    /// Reads on elsewhere. A partition that does not read at the moment cannot seek, and is assigned anew.
    pub(super) fn go_to(&self, list: TopicPartitionList) -> Result<()> {
        if list.count() == 0 {
            return Ok(());
        }
        let sought = self.client.seek_partitions(list, ASK_TIME_MAX).map_err(broken)?;
        let mut idle = TopicPartitionList::new();
        for element in sought.elements().iter().filter(|element| element.error().is_err()) {
            idle.add_partition_offset(element.topic(), element.partition(), element.offset()).map_err(broken)?;
        }
        if idle.count() > 0 {
            self.client.incremental_unassign(&idle).map_err(broken)?;
            self.client.incremental_assign(&idle).map_err(broken)?;
        }
        Ok(())
    }

    fn fault(&mut self, error: &KafkaError) -> Result<()> {
        match error {
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation,
            ) => self.find_gaps(),
            KafkaError::MessageConsumptionFatal(_) => Err(broken(error.clone())),
            // The client has told it and goes on by itself.
            _ => Ok(()),
        }
    }

    /// A partition has nothing to read where it should go on. The client does not say which: all are asked.
    fn find_gaps(&mut self) -> Result<()> {
        let (mut found, mut list) = (false, TopicPartitionList::new());
        for (topic_partition, place) in self.places.iter_mut().filter(|(_, place)| !place.stopped) {
            let next = place.next.or(place.position.stored);
            let (low, high) = match self.client.fetch_watermarks(
                &topic_partition.topic,
                topic_partition.partition,
                ASK_TIME_MAX,
            ) {
                Ok(watermarks) => watermarks,
                Err(error) => {
                    tracing::warn!(source = %self.source.route.source, ?topic_partition, %error, "the brokers do not tell what there is");
                    (0, i64::MAX)
                }
            };
            if let Some(next) = next.filter(|next| !(low..=high).contains(next)) {
                found = true;
                tell_gap(self.source, topic_partition, next, low, high);
                if self.source.config.on_gap == OnGap::Stop {
                    place.stopped = true;
                    self.ingest.fed(&self.source.route, topic_partition, LagState::Unknown);
                    self.source.watch.stopped(topic_partition);
                    continue;
                }
                let skipped = u64::try_from(low - next).unwrap_or(0);
                self.source.metrics.sources.skipped(self.source.label(topic_partition), skipped);
                place.next = Some(low);
                self.message_batch.reach(topic_partition, low, Instant::now());
            }
            let offset = place.next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset).map_err(broken)?;
        }
        if !found {
            self.pause();
        }
        self.go_to(list)
    }

    fn pause(&self) {
        let _stopped = self.runtime.block_on(self.stop.run_until_cancelled(tokio::time::sleep(PAUSE)));
    }
}

/// All of these partitions at one logical offset.
pub(super) fn list_of(spots: &[TopicPartition], offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for topic_partition in spots {
        list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset).map_err(broken)?;
    }
    Ok(list)
}

/// Says what is gone, and what can be done about it.
fn tell_gap(source: &Source, topic_partition: &TopicPartition, next: i64, low: i64, high: i64) {
    let (name, TopicPartition { topic, partition }) = (&source.route.source, topic_partition);
    let what = match next < low {
        true => "messages were deleted before they were read",
        false => "the topic was made anew, or has lost its newest messages",
    };
    let way = match source.config.on_gap {
        OnGap::Stop => format!(
            "the partition is stopped: set sources.{name}.on_gap = \"earliest\" and restart to go on from {low}"
        ),
        OnGap::Earliest => format!("the partition goes on from {low}, as sources.{name}.on_gap says"),
    };
    tracing::error!(source = %name, %topic, partition, next, low, high, "{what}; {way}");
}

/// The client cannot go on.
pub(super) fn broken(cause: KafkaError) -> Error {
    Error::unavailable("the Kafka client cannot go on").with_source(cause)
}
