//! A Kafka session, the lifetime of one client: it collects messages in batches, and stores batches with their offsets.
//!
//! ```text
//!   poll ─► message batch ─ due ─► store with offsets ─┬─ stored ────► commit offsets to Kafka (for lag tools only)
//!     ▲                                                └─ rejected ──► drop the batch
//!     │                                                                   │
//!     └── continue at ◄── the table's own offsets ◄───────────────────────┴── newly assigned partitions
//! ```
//!
//! In: a [`Source`] and its client. Out: rows, offsets and bad messages in the lake.
//!
//! One thread alternates between polling and storing. So no partition is assigned or revoked while a batch is being stored, and
//! unstored messages are in one place. Meanwhile the client prefetches messages into its own bounded queue.
//!
//! **Invariant:** the table alone decides where reading continues, never the offsets in Kafka or in this server's memory.
//! **Invariant:** a message batch is stored or dropped as a whole. A drop loses nothing: the session reads its messages again.
//! **Invariant:** the session never skips deleted messages silently.

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
use crate::config::StartAt;
use crate::error::{Error, Kind, Result};
use crate::ingest::group_commit::stopping;
use crate::ingest::source::{
    BatchLimits, Lag, MessageBatch, Pause, Position, ReadPosition, SourceWriter, TopicPartition,
};
use crate::telemetry::SourceTrouble;

/// The longest wait in one poll. Afterwards the session checks for other work, above all whether to stop.
const POLL_MAX: Duration = Duration::from_millis(100);
/// How many waiting messages the session takes per reading of the clock.
const TAKEN_MAX: u32 = 64;
/// The pause after an error.
const PAUSE: Duration = Duration::from_millis(500);
/// The number of stored batches after which a reduced row limit is back at its full value.
const ROWS_STEPS: usize = 64;
/// The time limit of one request to the brokers.
pub(super) const ASK_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a position that moved without a message waits for a batch to share a commit with. Usually the session reads the end
/// of a transaction before it stores the messages, so the end needs no commit of its own. Without this limit, retention could
/// delete the records at the stored offset, which would look like a gap.
const POSITION_AGE_MAX: Duration = Duration::from_secs(60);

/// A partition that is assigned to this session.
#[derive(Debug, Default)]
pub(super) struct PartitionReader {
    pub(super) position: Position,
    /// The offset to begin at while the table has no offset of the partition. `None` if the first message determines it.
    first: Option<i64>,
    /// The read position.
    pub(super) read: ReadPosition,
    /// Whether a gap stopped the partition.
    pub(super) stopped: bool,
    pub(super) behind: Lag,
}

/// The lifetime of one client.
pub(super) struct KafkaSession<'a> {
    pub(super) source: &'a Source,
    pub(super) writer: &'a SourceWriter,
    pub(super) client: &'a KafkaClient,
    runtime: Handle,
    pub(super) stop: CancellationToken,
    pub(super) places: BTreeMap<TopicPartition, PartitionReader>,
    topics: BTreeSet<Arc<str>>,
    /// The partition of the last message.
    near: Option<TopicPartition>,
    pub(super) message_batch: MessageBatch,
    /// The pause state in the table at the last check.
    pub(super) pause: Pause,
    pub(super) pause_looked: Instant,
    /// When the session last asked the brokers for the ends of paused partitions.
    pub(super) ends_asked: Instant,
    /// When a position first moved past the stored one without a message. `None` if all positions are stored or in the batch.
    pub(super) moved: Option<Instant>,
    /// When the source first started, in milliseconds since 1970, while the table does not record it.
    started: Option<i64>,
    bounds: BatchLimits,
    /// The row limit of `bounds` before a batch was too large.
    rows_full: usize,
}

impl<'a> KafkaSession<'a> {
    pub(super) fn new(
        source: &'a Source,
        writer: &'a SourceWriter,
        client: &'a KafkaClient,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Result<Self> {
        let bounds = writer.limits();
        let topics = source.config.topics.iter().map(|topic| topic.as_str().into()).collect();
        let (now, rows_full) = (Instant::now(), bounds.rows_max);
        Ok(Self {
            source,
            writer,
            client,
            runtime,
            stop,
            places: BTreeMap::new(),
            topics,
            near: None,
            message_batch: MessageBatch::default(),
            pause: writer.pause()?,
            pause_looked: now,
            ends_asked: now,
            moved: None,
            started: None,
            bounds,
            rows_full,
        })
    }

    /// Runs until `stop`. An error ends this client, not the source.
    pub(super) fn run(mut self) -> Result<()> {
        self.tell_pause();
        while !self.stop.is_cancelled() {
            let now = Instant::now();
            self.mind_pause(now)?;
            match self.due(now) {
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

    /// When the next store is due. `None` if there is nothing to store, as in a paused session.
    fn due(&self, now: Instant) -> Option<Instant> {
        let moved = self.moved.filter(|_| !self.is_paused()).map(|moved| moved + POSITION_AGE_MAX);
        self.message_batch.due(&self.bounds, now).into_iter().chain(moved).min()
    }

    /// Takes up to [`TAKEN_MAX`] messages that are already queued. Waits for the first one if the queue is empty.
    fn take_waiting(&mut self, now: Instant, wait: Duration) -> Result<()> {
        let client = self.client;
        for taken in 0..TAKEN_MAX {
            let polled = client.poll(Duration::ZERO).or_else(|| (taken == 0).then(|| client.poll(wait))?);
            match polled {
                Some(Ok(message)) => self.take(&message, now),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.reach_end(partition)?,
                Some(Err(error)) => return self.fault(&error),
                // The queue is empty, or an event has to be handled before the next message.
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
                    // The session stops, but closing the client waits until its assignment is applied.
                    Err(_) if self.stop.is_cancelled() => list_of(&spots, Offset::End)?,
                    list => list?,
                };
                // Assign even an empty list, because the group waits for this call.
                self.client.incremental_assign(&list).map_err(broken)?;
                if !spots.is_empty() {
                    self.source.watch.goes_on();
                }
                if self.is_paused() { self.client.pause(&list).map_err(broken) } else { Ok(()) }
            }
            ClientEvent::Revoked(spots) => {
                tracing::info!(source = %self.source.route.source, partitions = ?spots, "partitions were revoked");
                for topic_partition in spots {
                    self.message_batch.forget(&topic_partition);
                    self.places.remove(&topic_partition);
                    self.leave(&topic_partition);
                }
                Ok(())
            }
            // The client does not update the ends of partitions that it does not fetch, so a paused session asks the brokers.
            ClientEvent::End(..) if self.is_paused() => Ok(()),
            ClientEvent::End(topic_partition, end) => {
                self.set_end(&topic_partition, end);
                Ok(())
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, now: Instant) {
        // Consecutive messages usually belong to one partition.
        let is_near = |near: &&TopicPartition| near.partition == message.partition() && *near.topic == *message.topic();
        let topic_partition = match self.near.as_ref().filter(is_near) {
            Some(near) => near.clone(),
            None => {
                let Some(topic) = self.topics.get(message.topic()) else { return };
                let topic_partition = TopicPartition { topic: topic.clone(), partition: message.partition() };
                self.near.insert(topic_partition).clone()
            }
        };
        // The client's queue may still hold messages of a partition that was revoked or sought back.
        let Some(place) = self.places.get_mut(&topic_partition) else { return };
        let offset = message.offset();
        if self.pause.since().is_some() || place.stopped || !place.read.expects(offset) {
            return;
        }
        if place.read.read(offset) {
            place.behind.read(message.timestamp().to_millis().and_then(|millis| millis.checked_mul(1_000)));
            self.tell(&topic_partition);
        }
        let ((payload, tenant_resolution), meta) = (self.source.read(message), self.source.meta(message));
        self.message_batch.push((topic_partition, offset), payload, tenant_resolution, meta, now);
    }

    /// Stores the message batch with the positions that have moved, or drops it and continues from the table's offsets.
    fn store(&mut self) -> Result<()> {
        self.moved = None;
        for (topic_partition, place) in self.places.iter().filter(|(_, place)| !place.stopped) {
            if let Some(position) = place.read.to_store() {
                self.message_batch.reach(topic_partition, position, Instant::now());
            }
        }
        if self.message_batch.spans.is_empty() {
            return Ok(());
        }
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
        let storing = self.writer.store(message_batch, &positions);
        let landed = match self.runtime.block_on(storing) {
            Ok(landed) => landed,
            Err(error) => return self.drop_haul(error, count),
        };
        // After a batch that was too large, raise the row limit step by step.
        self.bounds.rows_max = (self.bounds.rows_max + self.rows_full.div_ceil(ROWS_STEPS)).min(self.rows_full);
        let metrics = &self.source.metrics.sources;
        let mut offsets = Vec::new();
        for (topic_partition, position) in landed.positions {
            if let Some(span) = spans.get(&topic_partition).filter(|span| span.messages > 0) {
                metrics.committed(self.source.label(&topic_partition), span.messages, span.begun.elapsed());
            }
            if let (Some(place), Some(stored)) = (self.places.get_mut(&topic_partition), position.stored) {
                place.position = position;
                place.read.committed(stored);
                if place.read.to_store().is_some() {
                    self.moved.get_or_insert_with(Instant::now);
                }
                self.tell(&topic_partition);
                offsets.push((topic_partition, stored));
            }
        }
        self.tell_kafka(&offsets)?;
        self.source.watch.goes_on();
        // The first commit creates the transaction that the next check of the pause state reads.
        self.look_at_pause()
    }

    /// Commits offsets to Kafka, for tools that show the lag. This server never reads them.
    pub(super) fn tell_kafka(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (topic_partition, next) in offsets {
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, Offset::Offset(*next))
                .map_err(broken)?;
        }
        if let Err(error) = self.client.commit(&list, CommitMode::Async) {
            tracing::debug!(source = %self.source.route.source, %error, "cannot commit offsets to Kafka");
        }
        Ok(())
    }

    fn drop_haul(&mut self, error: Error, messages: usize) -> Result<()> {
        let source = &self.source.route.source;
        if error.kind() == Kind::Conflict && self.writer.pause()? != self.pause {
            tracing::info!(%source, messages, "the source was paused or resumed: the batch is dropped");
        } else if error.kind() == Kind::Conflict {
            self.source.metrics.sources.overtaken(source);
            tracing::warn!(%source, messages, ?error, "another server has continued these partitions: the batch is dropped");
        } else {
            tracing::error!(%source, messages, ?error, "cannot store a batch: its messages are read again");
            self.source.watch.failed(SourceTrouble::Store, format!("{error:?}"));
            if error.kind() == Kind::Limited {
                // Its columns are larger than the queue's limit, or its transform exceeded a limit.
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

    /// Loads the positions of partitions and takes them over. Retries until it succeeds; fails with `Unavailable` only when the
    /// session stops.
    pub(super) fn open(&mut self, spots: &[TopicPartition]) -> Result<TopicPartitionList> {
        let spots: Vec<TopicPartition> = spots.iter().filter_map(|topic_partition| self.own(topic_partition)).collect();
        loop {
            let positions = self.writer.positions(spots.iter().cloned());
            match self.runtime.block_on(positions).and_then(|(positions, started)| self.begin(positions, started)) {
                Ok(list) => return Ok(list),
                Err(error) => {
                    let source = &self.source.route.source;
                    tracing::warn!(%source, ?error, "cannot load the positions of partitions, retrying");
                    self.source
                        .watch
                        .failed(SourceTrouble::Other, format!("cannot load the positions of partitions: {error:?}"));
                }
            }
            self.pause();
            if self.stop.is_cancelled() {
                return Err(stopping());
            }
        }
    }

    /// The same partition with the source's own topic string; `None` if the source does not read the topic.
    fn own(&self, topic_partition: &TopicPartition) -> Option<TopicPartition> {
        Some(TopicPartition {
            topic: self.topics.get(&topic_partition.topic)?.clone(),
            partition: topic_partition.partition,
        })
    }

    /// Builds partition readers from positions, and the list of offsets where the client continues.
    fn begin(
        &mut self,
        positions: BTreeMap<TopicPartition, Position>,
        started: Option<i64>,
    ) -> Result<TopicPartitionList> {
        // Asked once, so that a batch dropped before it was stored does not make a partition begin later.
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
            let PartitionReader { first, mut read, behind, .. } =
                self.places.remove(&topic_partition).unwrap_or_default();
            let first = position.stored.or(first).or(firsts.get(&topic_partition).copied());
            let next = read.open(position.stored, first);
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset).map_err(broken)?;
            if let (None, Some(_), Some(next), false) = (position.stored, first, next, self.is_paused()) {
                // Store the offset although nothing was read yet, so that a restart does not begin later.
                self.message_batch.reach(&topic_partition, next, Instant::now());
                if started.is_none() {
                    self.message_batch.started = self.started;
                }
            }
            if read.to_store().is_some() {
                self.moved.get_or_insert_with(Instant::now);
            }
            self.source.watch.reads(&topic_partition);
            self.places
                .insert(topic_partition.clone(), PartitionReader { position, first, read, stopped: false, behind });
            self.tell(&topic_partition);
        }
        Ok(list)
    }

    /// Withdraws the reported lag of a revoked partition, which would become stale.
    fn leave(&self, topic_partition: &TopicPartition) {
        self.source.watch.released(topic_partition);
        self.writer.not_fed(topic_partition);
    }

    /// The first offset at or after a time (milliseconds since 1970) of each partition, or its end if there is none.
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

    /// Moves the client to other offsets. A partition that is not being fetched cannot seek, so it is assigned again.
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
            // The client has reported the error in a callback and recovers by itself.
            _ => Ok(()),
        }
    }

    pub(super) fn pause(&self) {
        let _stopped = self.runtime.block_on(self.stop.run_until_cancelled(tokio::time::sleep(PAUSE)));
    }
}

/// Withdraws everything that the session reported, however it ends, including by a panic.
impl Drop for KafkaSession<'_> {
    fn drop(&mut self) {
        self.source.watch.connected(false);
        for topic_partition in self.places.keys() {
            self.leave(topic_partition);
        }
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

/// The error of a client that cannot continue.
pub(super) fn broken(cause: KafkaError) -> Error {
    Error::unavailable("the Kafka client failed").with_source(cause)
}
