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

use super::message_batch::{Haul, Message, Span, Spot};
use super::pause::Pause;
use crate::contract::{Format, Kept, Owner};
use crate::error::{Error, Kind, Result};
use crate::ingest::dedupe::Part;
use crate::ingest::prepare::{Intake, Intaker, Received, bytes_of};
use crate::ingest::schemas::{Forms, Reader};
use crate::ingest::write::{Pending, Room, Stored};
use crate::ingest::{Ingest, Lane, quarantine_of, stopping};
use crate::lake::{Feed, Progress, Standing, Table};
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
    pub(in crate::ingest) reader: Option<Arc<Reader>>,
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
pub(in crate::ingest) struct Landed {
    /// Where its partitions stand now.
    pub(in crate::ingest) positions: BTreeMap<Spot, Position>,
    pub(super) stored: Stored,
    pub(super) rejected: u64,
}

impl Route {
    /// How the quarantine calls what the source has received.
    fn kept_as(&self) -> Kept {
        self.reader.as_ref().map_or(self.format.kept_as(), |reader| reader.kept_as())
    }

    /// The transaction that holds a partition's offset.
    fn app(&self, spot: &Spot) -> String {
        format!("{}{}:{}", self.app_prefix(), spot.topic, spot.partition)
    }

    /// What the names of the source's transactions begin with.
    pub(super) fn app_prefix(&self) -> String {
        format!("kafka:{}:", self.source)
    }

    fn feed(&self, spot: &Spot) -> Feed {
        Feed { source: self.source.clone(), topic: spot.topic.clone(), partition: spot.partition }
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
        spots: impl IntoIterator<Item = Spot>,
    ) -> Result<(BTreeMap<Spot, Position>, Option<i64>)> {
        let quarantine = self.table(&quarantine_of(&route.table))?.refresh().await?;
        let table = self.table(&route.table)?.refresh().await?;
        let position = |spot: Spot| {
            let app = route.app(&spot);
            let [stored, quarantined] = [&table, &quarantine].map(|held| held.txns.get(&app).copied());
            (spot, Position { stored, quarantined })
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
        mut haul: Haul,
        positions: &BTreeMap<Spot, Position>,
    ) -> Result<Landed> {
        let (lane, intaker) = self.route_lane(&route.table)?;
        let mut room = self.rooms.empty();
        self.make_room(&mut room, haul.bytes()).await?;
        let (body, messages) = (haul.take_body(), Arc::new(std::mem::take(&mut haul.messages)));
        let (taker, way) = (intaker.clone(), route.clone());
        let (stamp, held) = self.stamp_held(&route.table, Owner::PerEvent)?;
        let forms = match &route.reader {
            Some(reader) => Some(self.read_messages(reader, &body, &messages, &mut room).await?),
            None => None,
        };
        let taken = messages.clone();
        let runtime = Handle::current();
        let decoding = move || {
            let received = Received { body: &body, messages: &taken, kept_as: way.kept_as() };
            let given = forms.as_ref().map_or((way.format, &body, &**taken), |forms| forms.given());
            match &way.transform {
                Some(transform) => taker.take_transformed(transform, given, &received, &stamp, &way.source, &runtime),
                None => taker.take_messages(given, &received, &stamp, &way.source),
            }
        };
        let Intake { good, bad, places, .. } = self.decode(decoding).await?.held(held);
        let (good_bytes, bad_bytes) = (bytes_of(&good.rows), bad.as_ref().map_or(0, |bad| bytes_of(&bad.rows)));
        // Columns may take more than the text they came from.
        self.make_room(&mut room, good_bytes + bad_bytes).await?;
        let bad_room = room.split(bad_bytes);

        let position = |spot: &Spot| positions.get(spot).copied().unwrap_or_default();
        let mut landed = Landed { rejected: places.len() as u64, ..Landed::default() };
        landed.positions = haul.spans.keys().map(|spot| (spot.clone(), position(spot))).collect();
        if let Some(bad) = bad {
            let spots: BTreeSet<&Spot> = places.iter().map(|place| &messages[*place as usize].spot).collect();
            let passed = spots.into_iter().filter_map(|spot| {
                let after = position(spot).quarantined;
                // Never back: what was read before is read again after a fault, and is known by its id.
                let next = haul.spans.get(spot)?.next.max(after.unwrap_or(0));
                Some((spot, Progress { app: route.app(spot), after, next }))
            });
            let passed: Vec<_> = passed.collect();
            for (spot, progress) in &passed {
                landed.positions.entry((*spot).clone()).or_default().quarantined = Some(progress.next);
            }
            let progress = passed.into_iter().map(|(_, progress)| progress).collect();
            let quarantine = self.lanes.get(&quarantine_of(&route.table)).map_or(&lane.queue, |lane| &lane.queue);
            hand_over(quarantine, (bad, false), bad_bytes, bad_room, progress).await?;
        }
        let offset = |(spot, span): (&Spot, &Span)| Progress {
            app: route.app(spot),
            after: position(spot).stored,
            next: span.next,
        };
        let started = haul.started.map(|next| Progress { app: route.started_app(), after: None, next });
        let progress = haul.spans.iter().map(offset).chain(started).chain(haul.guard.take()).collect();
        landed.stored = hand_over(&lane.queue, (good, haul.is_whole), good_bytes, room, progress).await?;
        for (spot, span) in &haul.spans {
            landed.positions.entry(spot.clone()).or_default().stored = Some(span.next);
        }
        self.count_haul(&route.table, &landed);
        Ok(landed)
    }

    /// A partition of a source has come so far.
    pub(in crate::ingest) fn fed(&self, route: &Route, spot: &Spot, standing: Standing) {
        if let Some(table) = self.tables.get(&route.table) {
            table.inflow().feed(route.feed(spot), &route.owner, standing);
        }
    }

    /// A partition is not read here any more.
    pub(in crate::ingest) fn not_fed(&self, route: &Route, spot: &Spot) {
        if let Some(table) = self.tables.get(&route.table) {
            table.inflow().leave(&route.feed(spot));
        }
    }

    /// What the table says of the source's pause, as far as this server has read it.
    pub(in crate::ingest) fn pause_of(&self, route: &Route) -> Result<Pause> {
        Ok(Pause::of(&self.table(&route.table)?.snapshot(), route))
    }

    /// Messages in the form in which they are decoded; their text takes room as well.
    async fn read_messages(
        &self,
        reader: &Arc<Reader>,
        body: &Bytes,
        messages: &Arc<Vec<Message>>,
        room: &mut Room,
    ) -> Result<Forms> {
        let schemas = reader.learn(reader.ids(messages.iter().map(|message| &body[message.place.clone()]))).await?;
        let bounds = (self.limits.event_bytes_max, self.share() * TEXT_TIMES_MAX);
        let (reader, from, messages) = (reader.clone(), body.clone(), messages.clone());
        let forms = self.decode(move || reader.read(&from, &messages, &schemas, bounds)).await?;
        if forms.format == Format::Json {
            self.make_room(room, body.len() + forms.body.len()).await?;
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

    fn route_lane(&self, table: &str) -> Result<(&Lane, &Intaker)> {
        let lane = self.lanes.get(table).and_then(|lane| Some((lane, lane.intaker.as_ref()?)));
        lane.ok_or_else(|| Error::internal(format!("a source names `{table}`, which takes no events")))
    }

    /// Waits for room as long as it takes: that is how a slow store slows a source down.
    async fn make_room(&self, room: &mut Room, bytes: usize) -> Result<()> {
        loop {
            match room.resize(bytes).await {
                Err(error) if error.kind() == Kind::Limited && error.wait().is_some() => {
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn count_haul(&self, table: &str, landed: &Landed) {
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
    room: Room,
    progress: Vec<Progress>,
) -> Result<Stored> {
    let (reply, answer) = oneshot::channel();
    let pending = Pending { part: Arc::new(part), progress, is_whole, bytes, room, reply };
    queue.send(pending).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| Error::unavailable("the table's committer has ended"))?
}
