//! A Kafka session reads messages from one client. If the session fails, both are dropped, and a new session gets a new
//! client. The session collects messages in batches, and stores each batch together with its offsets.
//!
//! ```text
//!   poll ─► message batch ─ due ─► store with offsets ─┬─ stored ────► commit offsets to Kafka (for lag tools only)
//!     ▲                                                └─ rejected ──► drop the batch
//!     │                                                                   │
//!     └── continue at ◄── the table's own offsets ◄───────────────────────┴── newly assigned partitions
//! ```
//!
//! Besides rows and offsets, the session writes rejected messages to the quarantine.
//!
//! One thread alternates between polling and storing. While the thread stores a batch, it therefore does not handle
//! assignments or revocations of partitions, and takes no new messages. Meanwhile, the client prefetches messages into
//! its own bounded queue.
//!
//! **Invariant:** after a restart or an error, reading continues from the offsets in the table. Offsets in Kafka or in
//! this server's memory are never used for this purpose.
//! **Invariant:** a message batch is either stored or dropped as a whole. Dropping a batch loses nothing, because the
//! session reads the batch's messages again.
//! **Invariant:** if messages were deleted before they were read, the session reports the gap before it continues.

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
use crate::error::{Error, Kind, Result};
use crate::ingest::source::{
    BatchLimits, Lag, MessageBatch, PartitionOffsets, Pause, SourceWriter, StoredOffsets, TopicPartition, Truncation,
};
use crate::telemetry::SourceTrouble;

/// The maximum time that one poll waits. After each poll, the session checks whether it has to stop, store a batch or
/// handle an event.
const POLL_MAX: Duration = Duration::from_millis(100);
/// The maximum number of queued messages that the session takes before it checks again whether the batch is due.
const MESSAGES_PER_TURN: u32 = 64;
/// The pause after a session error.
const ERROR_PAUSE: Duration = Duration::from_millis(500);
/// The number of batches that must be stored before a reduced row limit is back at the configured value.
const ROW_LIMIT_STEPS: usize = 64;
/// The time limit of one request to the brokers.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// The maximum time that the session waits before it stores an offset that advanced without a message, for example past
/// the end of a transaction. The wait saves commits, because the next batch usually stores the offset too. If the wait
/// were longer, retention could delete the records at the stored offset, which would look like a gap.
const OFFSET_AGE_MAX: Duration = Duration::from_secs(60);

/// The state of a partition that is assigned to this session.
#[derive(Debug, Default)]
pub(super) struct PartitionReader {
    /// The offsets that are stored in the table and in its quarantine.
    pub(super) stored: StoredOffsets,
    /// The start offset, which is used if the table has no offset for the partition. `None` means the oldest
    /// message.
    pub(super) start: Option<i64>,
    /// The offsets up to which messages were read and stored.
    pub(super) offsets: PartitionOffsets,
    /// The offset of a message at which the partition stops, because the message reports the truncation of a database
    /// table.
    pub(super) truncation: Option<i64>,
    /// True if the partition has stopped because of a gap or a truncation.
    pub(super) is_stopped: bool,
    /// The partition's lag behind its end offset.
    pub(super) lag: Lag,
}

/// The state of a running session.
pub(super) struct KafkaSession<'a> {
    pub(super) source: &'a Source,
    pub(super) writer: &'a SourceWriter,
    pub(super) client: &'a KafkaClient,
    pub(super) runtime: Handle,
    pub(super) stop: CancellationToken,
    /// The assigned partitions.
    pub(super) readers: BTreeMap<TopicPartition, PartitionReader>,
    /// The names of the source's topics. The [`TopicPartition`]s in `readers` share these strings.
    pub(super) topics: BTreeSet<Arc<str>>,
    /// The partition of the previous message. The next message is usually from the same partition, so its topic need
    /// not be looked up.
    last_partition: Option<TopicPartition>,
    /// The messages that were read since the last commit.
    pub(super) message_batch: MessageBatch,
    /// The source's pause number in the table, as of the last check.
    pub(super) pause: Pause,
    /// The time at which the session last checked whether the source is paused.
    pub(super) pause_checked: Instant,
    /// The time at which the session last requested the end offsets of paused partitions.
    pub(super) end_offsets_requested: Instant,
    /// The time at which an offset first advanced without a message. `None` if there is no such offset, or if it is
    /// already stored.
    pub(super) unstored_since: Option<Instant>,
    /// The time at which the source first started, in milliseconds since 1970. `None` if the table already contains
    /// this time, or if `start` does not depend on it.
    pub(super) started: Option<i64>,
    /// The current limits for a batch. The row limit is reduced when a batch is too large.
    limits: BatchLimits,
    /// The row limit from the configuration.
    rows_max: usize,
}

impl<'a> KafkaSession<'a> {
    pub(super) fn new(
        source: &'a Source,
        writer: &'a SourceWriter,
        client: &'a KafkaClient,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Result<Self> {
        let limits = writer.limits();
        let topics = source.config.topics.iter().map(|topic| topic.as_str().into()).collect();
        let (now, rows_max) = (Instant::now(), limits.rows_max);
        Ok(Self {
            source,
            writer,
            client,
            runtime,
            stop,
            readers: BTreeMap::new(),
            topics,
            last_partition: None,
            message_batch: MessageBatch::default(),
            pause: writer.pause()?,
            pause_checked: now,
            end_offsets_requested: now,
            unstored_since: None,
            started: None,
            limits,
            rows_max,
        })
    }

    /// Reads and stores messages until `stop` is cancelled. After an error, the caller starts a new session.
    pub(super) fn run(mut self) -> Result<()> {
        self.report_pause();
        while !self.stop.is_cancelled() {
            let now = Instant::now();
            self.check_pause_when_due(now)?;
            match self.due(now) {
                Some(due) if due <= now => self.store()?,
                due => {
                    let wait = due.map_or(POLL_MAX, |due| (due - now).min(POLL_MAX));
                    self.take_queued(now, wait)?;
                }
            }
            for event in self.client.context().take_events() {
                self.handle_event(event)?;
            }
        }
        Ok(())
    }

    /// Returns the time at which the session must store the batch. Returns `None` if there is nothing to store, for
    /// example while the session is paused.
    fn due(&self, now: Instant) -> Option<Instant> {
        let offsets_due = self.unstored_since.filter(|_| !self.is_paused()).map(|since| since + OFFSET_AGE_MAX);
        self.message_batch.due(&self.limits, now).into_iter().chain(offsets_due).min()
    }

    /// Takes up to [`MESSAGES_PER_TURN`] messages that are already queued. If the queue is empty, waits for the first
    /// message.
    fn take_queued(&mut self, now: Instant, wait: Duration) -> Result<()> {
        let client = self.client;
        for taken in 0..MESSAGES_PER_TURN {
            let polled = client.poll(Duration::ZERO).or_else(|| (taken == 0).then(|| client.poll(wait))?);
            match polled {
                Some(Ok(message)) => self.take(&message, now),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.reach_end(partition)?,
                Some(Err(error)) => return self.handle_error(&error),
                // The queue is empty, or a callback recorded an event that the session must handle before the next
                // message.
                None => return Ok(()),
            }
            if self.message_batch.is_full(&self.limits) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn handle_event(&mut self, event: ClientEvent) -> Result<()> {
        match event {
            ClientEvent::Assigned(partitions) => {
                tracing::info!(source = %self.source.route.source, ?partitions, "partitions were assigned");
                let list = match self.load_offsets(&partitions) {
                    // Assign the partitions even if the session is stopping, because closing the client waits for the
                    // assignment.
                    Err(_) if self.stop.is_cancelled() => offset_list(&partitions, Offset::End)?,
                    list => list?,
                };
                // Assign the partitions even if the list is empty, because the rebalance finishes only after this call.
                self.client.incremental_assign(&list).map_err(client_failed)?;
                if !partitions.is_empty() {
                    self.source.monitor.progressed();
                }
                if self.is_paused() { self.client.pause(&list).map_err(client_failed) } else { Ok(()) }
            }
            ClientEvent::Revoked(partitions) => {
                tracing::info!(source = %self.source.route.source, ?partitions, "partitions were revoked");
                for topic_partition in partitions {
                    self.message_batch.remove_partition(&topic_partition);
                    self.readers.remove(&topic_partition);
                    self.release(&topic_partition);
                }
                Ok(())
            }
            // The client does not update the end offsets of partitions that it does not fetch. A paused session
            // therefore requests the end offsets from the brokers.
            ClientEvent::End(..) if self.is_paused() => Ok(()),
            ClientEvent::End(topic_partition, end) => {
                self.set_end(&topic_partition, end);
                Ok(())
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, now: Instant) {
        // Consecutive messages usually belong to the same partition.
        let is_same = |last: &&TopicPartition| last.partition == message.partition() && *last.topic == *message.topic();
        let topic_partition = match self.last_partition.as_ref().filter(is_same) {
            Some(last) => last.clone(),
            None => {
                let Some(topic) = self.topics.get(message.topic()) else { return };
                let topic_partition = TopicPartition { topic: topic.clone(), partition: message.partition() };
                self.last_partition.insert(topic_partition).clone()
            }
        };
        // Skip messages from a revoked partition, and messages that were fetched before a seek. The client's queue may
        // still contain such messages.
        let Some(reader) = self.readers.get_mut(&topic_partition) else { return };
        let offset = message.offset();
        if self.pause.since().is_some() || reader.is_stopped || !reader.offsets.is_unread(offset) {
            return;
        }
        if reader.truncation == Some(offset) {
            return self.stop_at(&Truncation { topic_partition, offset });
        }
        if reader.offsets.read(offset) {
            reader.lag.first_read(message.timestamp().to_millis().and_then(|millis| millis.checked_mul(1_000)));
            self.report_lag(&topic_partition);
        }
        let ((payload, tenant_resolution), meta) = (self.source.read(message), self.source.meta(message));
        self.message_batch.push((topic_partition, offset), payload, tenant_resolution, meta, now);
    }

    /// Stores the message batch and all offsets that have advanced. If storing fails, drops the batch and continues
    /// from the offsets in the table.
    fn store(&mut self) -> Result<()> {
        self.unstored_since = None;
        for (topic_partition, reader) in self.readers.iter().filter(|(_, reader)| !reader.is_stopped) {
            if let Some(next) = reader.offsets.offset_to_store() {
                self.message_batch.advance_to(topic_partition, next, Instant::now());
            }
        }
        if self.message_batch.ranges.is_empty() {
            return Ok(());
        }
        let next = MessageBatch::with_capacity(self.message_batch.bytes(), self.message_batch.messages.len());
        let mut message_batch = std::mem::replace(&mut self.message_batch, next);
        message_batch.commit_now =
            message_batch.messages.len() >= self.rows_max || message_batch.bytes() >= self.limits.bytes_max;
        message_batch.guard = Some(self.pause.guard(&self.source.route, self.source.clock.now()));
        let (ranges, count) = (message_batch.ranges.clone(), message_batch.messages.len());
        let offsets = ranges
            .keys()
            .filter_map(|topic_partition| Some((topic_partition.clone(), self.readers.get(topic_partition)?.stored)))
            .collect();
        let storing = self.writer.store(message_batch, &offsets);
        let stored_batch = match self.runtime.block_on(storing) {
            Ok(stored_batch) => stored_batch,
            Err(error) => {
                return match Truncation::of(&error) {
                    Some(truncation) => self.store_before(truncation),
                    None => self.drop_batch(error, count),
                };
            }
        };
        // If the row limit was reduced because a batch was too large, raise the limit step by step.
        self.limits.rows_max = (self.limits.rows_max + self.rows_max.div_ceil(ROW_LIMIT_STEPS)).min(self.rows_max);
        let metrics = &self.source.metrics.sources;
        let mut committed = Vec::new();
        for (topic_partition, offsets) in stored_batch.offsets {
            if let Some(range) = ranges.get(&topic_partition).filter(|range| range.messages > 0) {
                metrics.committed(self.source.label(&topic_partition), range.messages, range.first_read.elapsed());
            }
            if let (Some(reader), Some(next)) = (self.readers.get_mut(&topic_partition), offsets.table) {
                reader.stored = offsets;
                reader.offsets.committed(next);
                if reader.offsets.offset_to_store().is_some() {
                    self.unstored_since.get_or_insert_with(Instant::now);
                }
                self.report_lag(&topic_partition);
                committed.push((topic_partition, next));
            }
        }
        self.commit_to_kafka(&committed)?;
        self.source.monitor.progressed();
        // The source's first commit creates its pause number. Read this number now, because the next commit must name
        // the current number.
        self.check_pause()
    }

    /// Commits offsets to Kafka for tools that show the consumer lag. This server never reads these offsets.
    pub(super) fn commit_to_kafka(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (topic_partition, next) in offsets {
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, Offset::Offset(*next))
                .map_err(client_failed)?;
        }
        if let Err(error) = self.client.commit(&list, CommitMode::Async) {
            tracing::debug!(source = %self.source.route.source, %error, "cannot commit offsets to Kafka");
        }
        Ok(())
    }

    /// Drops a batch that could not be stored, and continues from the offsets in the table.
    fn drop_batch(&mut self, error: Error, messages: usize) -> Result<()> {
        let source = &self.source.route.source;
        if error.kind() == Kind::Conflict && self.writer.pause()? != self.pause {
            tracing::info!(%source, messages, "dropped a batch because the source was paused or resumed");
        } else if error.kind() == Kind::Conflict {
            self.source.metrics.sources.overtaken(source);
            tracing::warn!(%source, messages, ?error, "dropped a batch because another server has taken over one of its partitions");
        } else {
            tracing::error!(%source, messages, ?error, "cannot store a batch; the source will read its messages again");
            self.source.monitor.failed(SourceTrouble::Store, format!("{error:?}"));
            if error.kind() == Kind::Limited {
                // The columns of the batch exceeded the memory limit of the queue, or the transform exceeded a limit.
                // Continue with smaller batches.
                self.limits.rows_max = (self.limits.rows_max.min(messages) / 2).max(1);
            }
            self.wait_after_error();
        }
        match self.load_offsets(&self.running_partitions()) {
            Err(_) if self.stop.is_cancelled() => return Ok(()),
            list => self.seek(list?)?,
        }
        self.check_pause()
    }

    /// Returns the assigned partitions that have not stopped.
    pub(super) fn running_partitions(&self) -> Vec<TopicPartition> {
        let running = self.readers.iter().filter(|(_, reader)| !reader.is_stopped);
        running.map(|(topic_partition, _)| topic_partition.clone()).collect()
    }

    fn handle_error(&mut self, error: &KafkaError) -> Result<()> {
        match error {
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation,
            ) => self.find_gaps(),
            KafkaError::MessageConsumptionFatal(_) => Err(client_failed(error.clone())),
            // The client has already reported the error in a callback, and recovers on its own.
            _ => Ok(()),
        }
    }

    pub(super) fn wait_after_error(&self) {
        let _stopped = self.runtime.block_on(self.stop.run_until_cancelled(tokio::time::sleep(ERROR_PAUSE)));
    }
}

/// Resets the state that the session has reported to operators. This happens even if the session fails or panics.
impl Drop for KafkaSession<'_> {
    fn drop(&mut self) {
        self.source.monitor.connected(false);
        for topic_partition in self.readers.keys() {
            self.release(topic_partition);
        }
    }
}

/// Returns a list that contains each partition with the same `offset`.
pub(super) fn offset_list(partitions: &[TopicPartition], offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for topic_partition in partitions {
        list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset).map_err(client_failed)?;
    }
    Ok(list)
}

/// Creates the error for a session that ends because a call to the Kafka client failed.
pub(super) fn client_failed(cause: KafkaError) -> Error {
    Error::unavailable("the Kafka client failed").with_source(cause)
}
