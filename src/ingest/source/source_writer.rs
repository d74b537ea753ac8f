//! Reads a source's offsets from the lake, and stores message batches together with their offsets.
//!
//! ```text
//!   offsets ◄── the table's snapshot (and its quarantine's)
//!   message batch ─► memory ─► decode ─┬─► quarantine, with its own offsets ────────┐
//!                                      └─► then the table, with the offsets ────────┴─► stored
//! ```
//!
//! **Invariant:** a commit that advances a partition's offset also contains the rows read up to that offset. Such a
//! commit succeeds only if the table still has the offset at which the batch began.
//! **Invariant:** rejected messages are stored in the quarantine before the table's offset advances past them.
//!
//! The quarantine also stores offsets of partitions. If two servers read the same rejected message, both try to advance
//! the same quarantine offset, so only one of their commits succeeds. The quarantine's offsets have no other purpose,
//! and may be ahead of the table's offsets or far behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::message_batch::{BatchLimits, BatchMessage, MessageBatch, OffsetRange, TopicPartition};
use super::poison_messages::isolate;
use super::route::Route;
use super::source_pause::Pause;
use crate::config::IngestConfig;
use crate::contract::{Format, MESSAGES_MAX, Owner};
use crate::error::{Error, Kind, Result};
use crate::ingest::group_commit::{MemoryReservation, Stored, WriteRequest};
use crate::ingest::prepare::{PreparedBatch, ReceivedMessages};
use crate::ingest::schema_registry::{DecodedMessages, MessageDecoder};
use crate::ingest::target::IngestTable;
use crate::ingest::writer::Writer;
use crate::lake::{LagState, Progress};

/// The value of the `tenant` label in metrics that count events from a source.
const SOURCE: &str = "(source)";
/// The maximum memory of one batch is the queue's memory divided by this number.
const QUEUE_SHARE: usize = 8;
/// The assumed ratio of the size of decoded text to the size of the binary messages from which it was decoded. For a
/// source with binary messages, the maximum size of a batch is divided by this ratio.
const TEXT_RATIO: usize = 4;
/// The maximum size of a batch's decoded text, as a multiple of [`batch_share`].
const TEXT_SHARES_MAX: usize = 2;
/// The pause between two attempts to reserve memory.
const RESERVE_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Stores the messages of one source.
#[derive(Debug)]
pub(in crate::ingest) struct SourceWriter {
    writer: Arc<Writer>,
    route: Route,
}

/// The offsets of a partition in the table and its quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct StoredOffsets {
    /// The table's offset, which is the next offset to read. `None` if nothing has been stored yet.
    pub(in crate::ingest) table: Option<i64>,
    /// The quarantine's offset. `None` if no message from the partition has been rejected yet.
    pub(super) quarantine: Option<i64>,
}

/// The result of storing a batch.
#[derive(Debug, Default)]
pub(in crate::ingest) struct StoredBatch {
    /// The new offsets of the batch's partitions.
    pub(in crate::ingest) offsets: BTreeMap<TopicPartition, StoredOffsets>,
    /// The numbers of accepted and duplicate events.
    pub(super) stored: Stored,
    /// The number of rejected messages.
    pub(super) rejected: u64,
}

impl SourceWriter {
    pub(in crate::ingest) fn new(writer: Arc<Writer>, route: Route) -> Self {
        Self { writer, route }
    }

    /// Returns the limits on the rows, the bytes and the age of a batch.
    pub(in crate::ingest) fn limits(&self) -> BatchLimits {
        let limits = &self.writer.limits;
        BatchLimits {
            // The decoder can reject at most `MESSAGES_MAX` messages in one call.
            rows_max: limits.batch_rows_max.min(MESSAGES_MAX),
            bytes_max: self.batch_bytes_max(),
            age_max: limits.batch_age_max,
        }
    }

    /// Returns the stored offsets of these partitions. Also returns the time at which the source was first started (in
    /// milliseconds since 1970), if the table records it. First reads the commits of other servers. Fails with
    /// `Unavailable` if the lake does not respond.
    pub(in crate::ingest) async fn stored_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<(BTreeMap<TopicPartition, StoredOffsets>, Option<i64>)> {
        let IngestTable { table, quarantine, .. } = &**self.table()?;
        let (quarantine, table) = (quarantine.refresh().await?, table.refresh().await?);
        let offsets_of = |topic_partition: TopicPartition| {
            let app = self.route.app(&topic_partition);
            let [table, quarantine] = [&table, &quarantine].map(|snapshot| snapshot.txns.get(&app).copied());
            (topic_partition, StoredOffsets { table, quarantine })
        };
        let started = table.txns.get(&self.route.started_app()).copied();
        Ok((partitions.into_iter().map(offsets_of).collect(), started))
    }

    /// Stores a batch. `offsets` contains the stored offsets at which the batch began.
    ///
    /// Fails with `Conflict` if another server has taken over one of the partitions, or if the source was paused or
    /// resumed after the batch was read. Fails with `Limited` and no retry delay if the batch could not fit even into
    /// an empty queue. Fails with a [`Truncation`](super::Truncation) as the cause if the source stops at a message of the
    /// batch. After an error, it is unknown whether the batch is stored, so the caller must continue from
    /// [`SourceWriter::stored_offsets`].
    pub(in crate::ingest) async fn store(
        &self,
        mut message_batch: MessageBatch,
        offsets: &BTreeMap<TopicPartition, StoredOffsets>,
    ) -> Result<StoredBatch> {
        let (route, table) = (&self.route, self.table()?);
        let mut reservation = self.writer.reservation();
        reserve_memory(&mut reservation, message_batch.bytes()).await?;
        let (body, messages) = (message_batch.take_body(), Arc::new(std::mem::take(&mut message_batch.messages)));
        let prepared = self.prepare(table, body, &messages, &mut reservation).await?;
        // Columns may occupy more memory than the text from which they were decoded.
        reserve_memory(&mut reservation, prepared.bytes()).await?;
        let PreparedBatch { good, bad, reject_indexes, .. } = prepared;

        let offsets_of = |topic_partition: &TopicPartition| offsets.get(topic_partition).copied().unwrap_or_default();
        let mut stored_batch = StoredBatch { rejected: reject_indexes.len() as u64, ..StoredBatch::default() };
        stored_batch.offsets = message_batch
            .ranges
            .keys()
            .map(|topic_partition| (topic_partition.clone(), offsets_of(topic_partition)))
            .collect();
        if let Some(bad) = bad {
            let partitions: BTreeSet<&TopicPartition> =
                reject_indexes.iter().map(|index| &messages[*index as usize].topic_partition).collect();
            let advances = partitions.into_iter().filter_map(|topic_partition| {
                let after = offsets_of(topic_partition).quarantine;
                // The quarantine's offset never moves backward. After an error, messages may be read again. Their new
                // quarantine entries have the same ids as the old entries and are therefore duplicates.
                let next = message_batch.ranges.get(topic_partition)?.next.max(after.unwrap_or(0));
                Some((topic_partition, Progress { app: route.app(topic_partition), after, next }))
            });
            let advances: Vec<_> = advances.collect();
            for (topic_partition, progress) in &advances {
                stored_batch.offsets.entry((*topic_partition).clone()).or_default().quarantine = Some(progress.next);
            }
            let progress = advances.into_iter().map(|(_, progress)| progress).collect();
            let reservation = reservation.split(bad.bytes);
            let request = WriteRequest { prepared: Arc::new(bad), reservation, progress, is_separate: false };
            table.quarantine_queue.send(request).await?.stored().await?;
        }
        let offset = |(topic_partition, range): (&TopicPartition, &OffsetRange)| Progress {
            app: route.app(topic_partition),
            after: offsets_of(topic_partition).table,
            next: range.next,
        };
        let started = message_batch.started.map(|next| Progress { app: route.started_app(), after: None, next });
        let progress =
            message_batch.ranges.iter().map(offset).chain(started).chain(message_batch.guard.take()).collect();
        let request =
            WriteRequest { prepared: Arc::new(good), reservation, progress, is_separate: message_batch.commit_now };
        stored_batch.stored = table.queue.send(request).await?.stored().await?;
        for (topic_partition, range) in &message_batch.ranges {
            stored_batch.offsets.entry(topic_partition.clone()).or_default().table = Some(range.next);
        }
        let counts = [stored_batch.stored.accepted, stored_batch.stored.duplicate, stored_batch.rejected];
        self.writer.count_events(table.name(), SOURCE, counts);
        Ok(stored_batch)
    }

    /// Decodes messages. From this call on, the rows are in flight and hold back the table's freshness until they are
    /// stored.
    async fn prepare(
        &self,
        table: &Arc<IngestTable>,
        body: Bytes,
        messages: &Arc<Vec<BatchMessage>>,
        reservation: &mut MemoryReservation,
    ) -> Result<PreparedBatch> {
        let (stamp, in_flight) = self.writer.stamp_in_flight(table, Owner::PerEvent);
        let forms = match &self.route.reader {
            Some(reader) => Some(self.read_messages(reader, &body, messages, reservation).await?),
            None => None,
        };
        let (table, messages, route, runtime) =
            (table.clone(), messages.clone(), self.route.clone(), Handle::current());
        let decoding = move || {
            let received = ReceivedMessages { body: &body, messages: &messages, kept_as: route.kept_as() };
            let given = forms.as_ref().map_or((route.format, &body, &**messages), |forms| forms.parts());
            let (preparer, source, (format, body, messages)) = (&table.preparer, &route.source, given);
            isolate(messages, |messages| {
                let given = (format, body, messages);
                match &route.transform {
                    Some(transform) => {
                        preparer.prepare_transformed(transform, given, &received, &stamp, source, &runtime)
                    }
                    None => preparer.prepare_messages(given, &received, &stamp, source),
                }
            })
        };
        Ok(self.writer.decode(decoding).await?.with_in_flight(in_flight))
    }

    /// Reports the lag of a partition to the table, which computes its watermark from the lags of all partitions.
    pub(in crate::ingest) fn report_lag(&self, topic_partition: &TopicPartition, state: LagState) {
        if let Ok(IngestTable { table, .. }) = self.table().map(|table| &**table) {
            table.in_flight().report_lag(self.route.feed(topic_partition), &self.route.owner, state);
        }
    }

    /// Removes the lag of a partition from the table's watermark, because this server no longer reads the partition.
    pub(in crate::ingest) fn release(&self, topic_partition: &TopicPartition) {
        if let Ok(IngestTable { table, .. }) = self.table().map(|table| &**table) {
            table.in_flight().remove_partition(&self.route.feed(topic_partition));
        }
    }

    /// Returns the source's pause number in the newest table version that this server knows.
    pub(in crate::ingest) fn pause(&self) -> Result<Pause> {
        Ok(Pause::of(&self.table()?.table.snapshot(), &self.route))
    }

    /// Decodes messages with their schemas, and reserves memory for the resulting text.
    async fn read_messages(
        &self,
        reader: &Arc<MessageDecoder>,
        body: &Bytes,
        messages: &Arc<Vec<BatchMessage>>,
        reservation: &mut MemoryReservation,
    ) -> Result<DecodedMessages> {
        let schemas = reader
            .fetch_schemas(reader.schema_ids(messages.iter().map(|message| &body[message.range.clone()])))
            .await?;
        let limits = (self.writer.limits.event_bytes_max, text_bytes_max(&self.writer.limits));
        let (reader, from, messages) = (reader.clone(), body.clone(), messages.clone());
        let read = move || isolate(&messages, |messages| reader.decode(&from, messages, &schemas, limits));
        let forms = self.writer.decode(read).await?;
        if forms.format == Format::Json {
            reserve_memory(reservation, body.len() + forms.body.len()).await?;
        }
        Ok(forms)
    }

    /// Returns the maximum number of received bytes in a batch. The limit is small enough that memory remains for the
    /// columns, and for the decoded text, which can be longer than the messages.
    fn batch_bytes_max(&self) -> usize {
        let bytes_max = batch_share(&self.writer.limits);
        if self.route.reader.is_some() { (bytes_max / TEXT_RATIO).max(1) } else { bytes_max }
    }

    fn table(&self) -> Result<&Arc<IngestTable>> {
        let table = &self.route.table;
        let found = self.writer.tables.get(table);
        found.ok_or_else(|| {
            Error::internal(format!("table `{table}` does not accept events, but a source writes to it"))
        })
    }
}

/// Returns the maximum number of bytes that a batch may reserve for the messages that it contains.
fn batch_share(limits: &IngestConfig) -> usize {
    limits.batch_bytes_max.min(limits.queue_bytes_max / QUEUE_SHARE).max(1)
}

/// Returns the maximum size, in bytes, of the text decoded from the messages of one batch or one replay.
pub(in crate::ingest) fn text_bytes_max(limits: &IngestConfig) -> usize {
    batch_share(limits) * TEXT_SHARES_MAX
}

/// Resizes the reservation, and waits while too little memory is free. If commits are slow, memory is freed slowly, so
/// the source reads more slowly.
async fn reserve_memory(reservation: &mut MemoryReservation, bytes: usize) -> Result<()> {
    loop {
        match reservation.resize(bytes).await {
            Err(error) if error.kind() == Kind::Limited && error.wait().is_some() => {
                tokio::time::sleep(RESERVE_RETRY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
