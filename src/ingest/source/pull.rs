//! The source writer: reads a source's offsets from the lake, and stores message batches together with their offsets.
//!
//! ```text
//!   positions ◄── the table's snapshot (and its quarantine's)
//!   message batch ─► memory ─► decode ─┬─► quarantine, with its own offsets ────────┐
//!                                      └─► (after it) the table, with the offsets ──┴─► stored
//! ```
//!
//! **Invariant:** offsets advance in the commit that holds the rows, and only from the offset at which the batch began.
//! **Invariant:** rejected messages are in the quarantine before the offsets pass them.
//!
//! The quarantine stores offsets of partitions as well, so that it also refuses one of two servers that read the same message.
//! These offsets only guard the quarantine's next commit: they do not describe its rows, and may be ahead or far behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::message_batch::{BatchLimits, BatchMessage, MessageBatch, OffsetRange, TopicPartition};
use super::pause::Pause;
use super::poison_messages::isolate;
use super::route::Route;
use crate::config::IngestConfig;
use crate::contract::{Format, MESSAGES_MAX, Owner};
use crate::error::{Error, Kind, Result};
use crate::ingest::group_commit::{MemoryReservation, Stored, WriteRequest};
use crate::ingest::prepare::{PreparedBatch, ReceivedMessages};
use crate::ingest::schema_registry::{DecodedMessages, MessageDecoder};
use crate::ingest::target::IngestTable;
use crate::ingest::writer::Writer;
use crate::lake::{LagState, Progress};

/// The tenant label in metrics for the events of a source.
const SOURCE: &str = "(source)";
/// One batch reserves at most one part in this many of the queue's memory.
const QUEUE_SHARE: usize = 8;
/// The assumed ratio of text to binary messages, for the size limit of a batch.
const TEXT_TIMES: usize = 4;
/// The maximum text of one batch, in shares of the queue. Larger batches must be split.
const TEXT_TIMES_MAX: usize = 2;
/// The pause between attempts to reserve memory.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Stores the messages of one source.
#[derive(Debug)]
pub(in crate::ingest) struct SourceWriter {
    writer: Arc<Writer>,
    route: Route,
}

/// The offsets of a partition in the table and its quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Position {
    /// The next offset to read; `None` if nothing was stored yet.
    pub(in crate::ingest) stored: Option<i64>,
    /// The same offset in the quarantine.
    pub(super) quarantined: Option<i64>,
}

/// The outcome of a batch.
#[derive(Debug, Default)]
pub(in crate::ingest) struct StoredBatch {
    /// The new offsets of its partitions.
    pub(in crate::ingest) positions: BTreeMap<TopicPartition, Position>,
    pub(super) stored: Stored,
    pub(super) rejected: u64,
}

impl SourceWriter {
    pub(in crate::ingest) fn new(writer: Arc<Writer>, route: Route) -> Self {
        Self { writer, route }
    }

    /// The limits of its batches.
    pub(in crate::ingest) fn limits(&self) -> BatchLimits {
        let limits = &self.writer.limits;
        BatchLimits {
            // Even if all messages are bad, one decoding call can handle them.
            rows_max: limits.batch_rows_max.min(MESSAGES_MAX),
            bytes_max: self.batch_bytes_max(),
            age_max: limits.batch_age_max,
        }
    }

    /// The current offsets of these partitions, and when the source was first started (milliseconds since 1970) if known.
    /// Reads other servers' commits first. `Unavailable` if the lake does not answer.
    pub(in crate::ingest) async fn positions(
        &self,
        spots: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<(BTreeMap<TopicPartition, Position>, Option<i64>)> {
        let IngestTable { table, quarantine, .. } = &**self.table()?;
        let (quarantine, table) = (quarantine.refresh().await?, table.refresh().await?);
        let position = |topic_partition: TopicPartition| {
            let app = self.route.app(&topic_partition);
            let [stored, quarantined] = [&table, &quarantine].map(|held| held.txns.get(&app).copied());
            (topic_partition, Position { stored, quarantined })
        };
        let started = table.txns.get(&self.route.started_app()).copied();
        Ok((spots.into_iter().map(position).collect(), started))
    }

    /// Stores a batch that was read from `positions` on. `Conflict` if another server has taken over one of its partitions, or
    /// if its guard no longer holds; `Limited` without a retry time if it is larger than the whole queue. After any error it is
    /// unknown whether the batch is stored: its partitions continue from their [`SourceWriter::positions`].
    pub(in crate::ingest) async fn store(
        &self,
        mut message_batch: MessageBatch,
        positions: &BTreeMap<TopicPartition, Position>,
    ) -> Result<StoredBatch> {
        let (route, table) = (&self.route, self.table()?);
        let mut reservation = self.writer.reservation();
        make_room(&mut reservation, message_batch.bytes()).await?;
        let (body, messages) = (message_batch.take_body(), Arc::new(std::mem::take(&mut message_batch.messages)));
        let prepared = self.prepare(table, body, &messages, &mut reservation).await?;
        // Columns may occupy more memory than the text they were decoded from.
        make_room(&mut reservation, prepared.bytes()).await?;
        let PreparedBatch { good, bad, reject_indexes, .. } = prepared;

        let position = |topic_partition: &TopicPartition| positions.get(topic_partition).copied().unwrap_or_default();
        let mut landed = StoredBatch { rejected: reject_indexes.len() as u64, ..StoredBatch::default() };
        landed.positions = message_batch
            .spans
            .keys()
            .map(|topic_partition| (topic_partition.clone(), position(topic_partition)))
            .collect();
        if let Some(bad) = bad {
            let spots: BTreeSet<&TopicPartition> =
                reject_indexes.iter().map(|index| &messages[*index as usize].topic_partition).collect();
            let passed = spots.into_iter().filter_map(|topic_partition| {
                let after = position(topic_partition).quarantined;
                // Never back: messages that are read again after an error are recognised by their ids.
                let next = message_batch.spans.get(topic_partition)?.next.max(after.unwrap_or(0));
                Some((topic_partition, Progress { app: route.app(topic_partition), after, next }))
            });
            let passed: Vec<_> = passed.collect();
            for (topic_partition, progress) in &passed {
                landed.positions.entry((*topic_partition).clone()).or_default().quarantined = Some(progress.next);
            }
            let progress = passed.into_iter().map(|(_, progress)| progress).collect();
            let reservation = reservation.split(bad.bytes);
            let request = WriteRequest { prepared: Arc::new(bad), reservation, progress, is_separate: false };
            table.quarantine_queue.send(request).await?.stored().await?;
        }
        let offset = |(topic_partition, span): (&TopicPartition, &OffsetRange)| Progress {
            app: route.app(topic_partition),
            after: position(topic_partition).stored,
            next: span.next,
        };
        let started = message_batch.started.map(|next| Progress { app: route.started_app(), after: None, next });
        let progress =
            message_batch.spans.iter().map(offset).chain(started).chain(message_batch.guard.take()).collect();
        let request =
            WriteRequest { prepared: Arc::new(good), reservation, progress, is_separate: message_batch.is_whole };
        landed.stored = table.queue.send(request).await?.stored().await?;
        for (topic_partition, span) in &message_batch.spans {
            landed.positions.entry(topic_partition.clone()).or_default().stored = Some(span.next);
        }
        let counts = [landed.stored.accepted, landed.stored.duplicate, landed.rejected];
        self.writer.count_events(table.name(), SOURCE, counts);
        Ok(landed)
    }

    /// Decodes messages. Their rows count as in flight from now on.
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

    /// Reports the lag of a partition to the table's watermark.
    pub(in crate::ingest) fn fed(&self, topic_partition: &TopicPartition, standing: LagState) {
        if let Ok(IngestTable { table, .. }) = self.table().map(|table| &**table) {
            table.in_flight().report_lag(self.route.feed(topic_partition), &self.route.owner, standing);
        }
    }

    /// Removes a partition that this server no longer reads from the table's watermark.
    pub(in crate::ingest) fn not_fed(&self, topic_partition: &TopicPartition) {
        if let Ok(IngestTable { table, .. }) = self.table().map(|table| &**table) {
            table.in_flight().remove_partition(&self.route.feed(topic_partition));
        }
    }

    /// The source's pause, in the version of the table that this server knows.
    pub(in crate::ingest) fn pause(&self) -> Result<Pause> {
        Ok(Pause::of(&self.table()?.table.snapshot(), &self.route))
    }

    /// Reads messages with their schemas, and reserves memory for the resulting text.
    async fn read_messages(
        &self,
        reader: &Arc<MessageDecoder>,
        body: &Bytes,
        messages: &Arc<Vec<BatchMessage>>,
        reservation: &mut MemoryReservation,
    ) -> Result<DecodedMessages> {
        let schemas = reader
            .fetch_schemas(reader.schema_ids(messages.iter().map(|message| &body[message.place.clone()])))
            .await?;
        let bounds = (self.writer.limits.event_bytes_max, text_bytes_max(&self.writer.limits));
        let (reader, from, messages) = (reader.clone(), body.clone(), messages.clone());
        let read = move || isolate(&messages, |messages| reader.decode(&from, messages, &schemas, bounds));
        let forms = self.writer.decode(read).await?;
        if forms.format == Format::Json {
            make_room(reservation, body.len() + forms.body.len()).await?;
        }
        Ok(forms)
    }

    /// The maximum size of a batch in received bytes. It leaves memory for columns, and for text that is longer than the
    /// messages from which it is made.
    fn batch_bytes_max(&self) -> usize {
        let bytes_max = share(&self.writer.limits);
        if self.route.reader.is_some() { (bytes_max / TEXT_TIMES).max(1) } else { bytes_max }
    }

    fn table(&self) -> Result<&Arc<IngestTable>> {
        let table = &self.route.table;
        let found = self.writer.tables.get(table);
        found.ok_or_else(|| Error::internal(format!("the table `{table}` of a source does not accept events")))
    }
}

/// The share of the queue's memory that one batch may reserve, in bytes.
fn share(limits: &IngestConfig) -> usize {
    limits.batch_bytes_max.min(limits.queue_bytes_max / QUEUE_SHARE).max(1)
}

/// The maximum text in bytes that is made of the messages of one batch, or of entries that are replayed together.
pub(in crate::ingest) fn text_bytes_max(limits: &IngestConfig) -> usize {
    share(limits) * TEXT_TIMES_MAX
}

/// Waits for memory without a time limit, so that a slow store slows the source down.
async fn make_room(reservation: &mut MemoryReservation, bytes: usize) -> Result<()> {
    loop {
        match reservation.resize(bytes).await {
            Err(error) if error.kind() == Kind::Limited && error.wait().is_some() => {
                tokio::time::sleep(ROOM_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
