//! What a pull source does with the lake: where it stands, and how a haul is stored with its progress.
//!
//! ```text
//!   positions ◄── the table's snapshot (and its quarantine's)
//!   haul ─► room ─► decode ─┬─► quarantine, with how far it knows the partition ─┐
//!                           └─► (after it) the table, with the offsets ──────────┴─► landed
//! ```
//!
//! **Invariant:** offsets move in the very commit that holds the rows, and only from where the haul began.
//! **Invariant:** what cannot be accepted is in the quarantine before the offsets pass it.
//!
//! The quarantine remembers partitions as well, so that of two servers that read the same message one is refused there, too.
//! Its offsets say nothing of the rows: they are where its own next commit goes on from, and may be ahead or far behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::isolate::isolate;
use super::message_batch::{BatchMessage, MessageBatch, OffsetRange, TopicPartition};
use super::pause::Pause;
use crate::contract::{Format, Kept, Owner};
use crate::error::{Error, Kind, Result};
use crate::ingest::dedupe::Part;
use crate::ingest::prepare::{PreparedBatch, Preparer, ReceivedMessages};
use crate::ingest::schemas::{Forms, SchemaReader};
use crate::ingest::submit::interrupted;
use crate::ingest::write::{MemoryReservation, Pending, Stored};
use crate::ingest::{Ingest, TableQueue, quarantine_of, stopping};
use crate::lake::{LagState, PartitionFeed, Progress, Table};
use crate::telemetry::EventOutcome;
use crate::transform::Transform;

/// The metrics' name for the tenants of a source's events.
const SOURCE: &str = "(source)";
/// Of the queue's room, one haul asks for this part at most.
const QUEUE_SHARE: usize = 8;
/// How many times longer than binary messages their text is thought to be, when room for it is planned.
const TEXT_TIMES: usize = 4;
/// The text of one haul, in shares of the queue: more is for smaller hauls.
pub(in crate::ingest) const TEXT_TIMES_MAX: usize = 2;
/// The pause between two looks for room in the queue.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Where a source's events go.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct Route {
    /// The source's name.
    pub(in crate::ingest) source: String,
    pub(in crate::ingest) table: String,
    pub(in crate::ingest) format: Format,
    /// Whose its events are, as far as the operator says it.
    pub(in crate::ingest) owner: Owner,
    /// What makes events of messages that the contract cannot read by itself.
    pub(in crate::ingest) reader: Option<Arc<SchemaReader>>,
    /// What makes the table's columns of the messages; none when they have them.
    pub(in crate::ingest) transform: Option<Arc<Transform>>,
}

/// Where a partition stands, as the tables know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Position {
    /// The next offset to read; none when nothing was stored yet.
    pub(in crate::ingest) stored: Option<i64>,
    /// The same in the quarantine.
    pub(super) quarantined: Option<i64>,
}

/// What became of a haul.
#[derive(Debug, Default)]
pub(in crate::ingest) struct StoredBatch {
    /// Where its partitions stand now.
    pub(in crate::ingest) positions: BTreeMap<TopicPartition, Position>,
    pub(super) stored: Stored,
    pub(super) rejected: u64,
}

impl Route {
    /// How the quarantine calls what the source has received.
    fn kept_as(&self) -> Kept {
        self.reader.as_ref().map_or(self.format.kept_as(), |reader| reader.kept_as())
    }

    /// The transaction that holds a partition's offset.
    fn app(&self, topic_partition: &TopicPartition) -> String {
        format!("{}{}:{}", self.app_prefix(), topic_partition.topic, topic_partition.partition)
    }

    /// What the names of the source's transactions begin with.
    pub(super) fn app_prefix(&self) -> String {
        format!("kafka:{}:", self.source)
    }

    fn feed(&self, topic_partition: &TopicPartition) -> PartitionFeed {
        PartitionFeed {
            source: self.source.clone(),
            topic: topic_partition.topic.clone(),
            partition: topic_partition.partition,
        }
    }

    /// The transaction that holds when the source was first started. No topic has a colon in its name.
    fn started_app(&self) -> String {
        format!("{}started", self.app_prefix())
    }
}

impl Ingest {
    /// Where these partitions stand now, and when the source was first started (milliseconds since 1970) if that is known.
    /// Reads other servers' commits first. `Unavailable` when the lake does not answer.
    pub(in crate::ingest) async fn positions(
        &self,
        route: &Route,
        spots: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<(BTreeMap<TopicPartition, Position>, Option<i64>)> {
        let quarantine = self.table(&quarantine_of(&route.table))?.refresh().await?;
        let table = self.table(&route.table)?.refresh().await?;
        let position = |topic_partition: TopicPartition| {
            let app = route.app(&topic_partition);
            let [stored, quarantined] = [&table, &quarantine].map(|held| held.txns.get(&app).copied());
            (topic_partition, Position { stored, quarantined })
        };
        let started = table.txns.get(&route.started_app()).copied();
        Ok((spots.into_iter().map(position).collect(), started))
    }

    /// Stores a haul that was read from `positions` on. `Conflict` when another server went on with one of its partitions, or
    /// its guard does not hold any more;
    /// `Limited` without a time to wait when it is larger than the queue can ever be. After any error the haul may be stored
    /// or not: its partitions go on from their [`Ingest::positions`].
    pub(in crate::ingest) async fn store_haul(
        &self,
        route: &Route,
        mut message_batch: MessageBatch,
        positions: &BTreeMap<TopicPartition, Position>,
    ) -> Result<StoredBatch> {
        let (table_queue, preparer) = self.route_lane(&route.table)?;
        let mut reservation = self.memory_budget.empty();
        self.make_room(&mut reservation, message_batch.bytes()).await?;
        let (body, messages) = (message_batch.take_body(), Arc::new(std::mem::take(&mut message_batch.messages)));
        let (taker, way) = (preparer.clone(), route.clone());
        let (stamp, held) = self.stamp_held(&route.table, Owner::PerEvent)?;
        let forms = match &route.reader {
            Some(reader) => Some(self.read_messages(reader, &body, &messages, &mut reservation).await?),
            None => None,
        };
        let taken = messages.clone();
        let runtime = Handle::current();
        let decoding = move || {
            let received = ReceivedMessages { body: &body, messages: &taken, kept_as: way.kept_as() };
            let given = forms.as_ref().map_or((way.format, &body, &**taken), |forms| forms.given());
            let (format, body, messages) = given;
            isolate(messages, |messages| match &way.transform {
                Some(transform) => {
                    let given = (format, body, messages);
                    taker.take_transformed(transform, given, &received, &stamp, &way.source, &runtime)
                }
                None => taker.take_messages((format, body, messages), &received, &stamp, &way.source),
            })
        };
        let PreparedBatch { good, bad, places, .. } = self.decode(decoding).await?.held(held);
        let (good_bytes, bad_bytes) = (good.rows.plain_bytes(), bad.as_ref().map_or(0, |bad| bad.rows.plain_bytes()));
        // Columns may take more than the text they came from.
        self.make_room(&mut reservation, good_bytes + bad_bytes).await?;
        let bad_room = reservation.split(bad_bytes);

        let position = |topic_partition: &TopicPartition| positions.get(topic_partition).copied().unwrap_or_default();
        let mut landed = StoredBatch { rejected: places.len() as u64, ..StoredBatch::default() };
        landed.positions = message_batch
            .spans
            .keys()
            .map(|topic_partition| (topic_partition.clone(), position(topic_partition)))
            .collect();
        if let Some(bad) = bad {
            let spots: BTreeSet<&TopicPartition> =
                places.iter().map(|place| &messages[*place as usize].topic_partition).collect();
            let passed = spots.into_iter().filter_map(|topic_partition| {
                let after = position(topic_partition).quarantined;
                // Never back: what was read before is read again after a fault, and is known by its id.
                let next = message_batch.spans.get(topic_partition)?.next.max(after.unwrap_or(0));
                Some((topic_partition, Progress { app: route.app(topic_partition), after, next }))
            });
            let passed: Vec<_> = passed.collect();
            for (topic_partition, progress) in &passed {
                landed.positions.entry((*topic_partition).clone()).or_default().quarantined = Some(progress.next);
            }
            let progress = passed.into_iter().map(|(_, progress)| progress).collect();
            let quarantine = self
                .table_queues
                .get(&quarantine_of(&route.table))
                .map_or(&table_queue.queue, |table_queue| &table_queue.queue);
            hand_over(quarantine, (bad, false), bad_bytes, bad_room, progress).await?;
        }
        let offset = |(topic_partition, span): (&TopicPartition, &OffsetRange)| Progress {
            app: route.app(topic_partition),
            after: position(topic_partition).stored,
            next: span.next,
        };
        let started = message_batch.started.map(|next| Progress { app: route.started_app(), after: None, next });
        let progress =
            message_batch.spans.iter().map(offset).chain(started).chain(message_batch.guard.take()).collect();
        landed.stored =
            hand_over(&table_queue.queue, (good, message_batch.is_whole), good_bytes, reservation, progress).await?;
        for (topic_partition, span) in &message_batch.spans {
            landed.positions.entry(topic_partition.clone()).or_default().stored = Some(span.next);
        }
        self.count_haul(&route.table, &landed);
        Ok(landed)
    }

    /// A partition of a source has come so far.
    pub(in crate::ingest) fn fed(&self, route: &Route, topic_partition: &TopicPartition, standing: LagState) {
        if let Some(table) = self.tables.get(&route.table) {
            table.in_flight().feed(route.feed(topic_partition), &route.owner, standing);
        }
    }

    /// A partition is not read here any more.
    pub(in crate::ingest) fn not_fed(&self, route: &Route, topic_partition: &TopicPartition) {
        if let Some(table) = self.tables.get(&route.table) {
            table.in_flight().leave(&route.feed(topic_partition));
        }
    }

    /// What the table says of the source's pause, as far as this server has read it.
    pub(in crate::ingest) fn pause_of(&self, route: &Route) -> Result<Pause> {
        Ok(Pause::of(&self.table(&route.table)?.snapshot(), route))
    }

    /// Messages in the form in which they are decoded; their text takes room as well.
    async fn read_messages(
        &self,
        reader: &Arc<SchemaReader>,
        body: &Bytes,
        messages: &Arc<Vec<BatchMessage>>,
        reservation: &mut MemoryReservation,
    ) -> Result<Forms> {
        let schemas = reader.learn(reader.ids(messages.iter().map(|message| &body[message.place.clone()]))).await?;
        let bounds = (self.limits.event_bytes_max, self.share() * TEXT_TIMES_MAX);
        let (reader, from, messages) = (reader.clone(), body.clone(), messages.clone());
        let forms =
            self.decode(move || isolate(&messages, |messages| reader.read(&from, messages, &schemas, bounds))).await?;
        if forms.format == Format::Json {
            self.make_room(reservation, body.len() + forms.body.len()).await?;
        }
        Ok(forms)
    }

    /// How much one haul may hold, in bytes as they were received: its columns need room as well, and texts that are made
    /// of its messages are longer than they.
    pub(in crate::ingest) fn haul_bytes_max(&self, route: &Route) -> usize {
        let bytes_max = self.share();
        if route.reader.is_some() { (bytes_max / TEXT_TIMES).max(1) } else { bytes_max }
    }

    /// How much of a queue's room one haul may ask for.
    pub(in crate::ingest) fn share(&self) -> usize {
        self.limits.batch_bytes_max.min(self.limits.queue_bytes_max / QUEUE_SHARE).max(1)
    }

    fn table(&self, name: &str) -> Result<&Arc<Table>> {
        self.tables
            .get(name)
            .ok_or_else(|| Error::internal(format!("a source names the table `{name}`, which is not open")))
    }

    fn route_lane(&self, table: &str) -> Result<(&TableQueue, &Preparer)> {
        let table_queue =
            self.table_queues.get(table).and_then(|table_queue| Some((table_queue, table_queue.preparer.as_ref()?)));
        table_queue.ok_or_else(|| Error::internal(format!("a source names `{table}`, which takes no events")))
    }

    /// Waits for room as long as it takes: that is how a slow store slows a source down.
    async fn make_room(&self, reservation: &mut MemoryReservation, bytes: usize) -> Result<()> {
        loop {
            match reservation.resize(bytes).await {
                Err(error) if error.kind() == Kind::Limited && error.wait().is_some() => {
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn count_haul(&self, table: &str, landed: &StoredBatch) {
        let counts = [
            (EventOutcome::Accepted, landed.stored.accepted),
            (EventOutcome::Duplicate, landed.stored.duplicate),
            (EventOutcome::Rejected, landed.rejected),
        ];
        for (outcome, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.metrics.events(table, SOURCE, outcome, count);
        }
    }
}

/// Hands rows with their progress to a committer and waits for its answer, however long either takes. Rows may be a batch
/// of their own.
async fn hand_over(
    queue: &mpsc::Sender<Pending>,
    (part, is_whole): (Part, bool),
    bytes: usize,
    reservation: MemoryReservation,
    progress: Vec<Progress>,
) -> Result<Stored> {
    let (reply, answer) = oneshot::channel();
    let pending = Pending { part: Arc::new(part), progress, is_whole, bytes, reservation, reply };
    queue.send(pending).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| interrupted())?
}
