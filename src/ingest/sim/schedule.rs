//! Plays the schedule of one seed: servers start, crash and stop, clients repeat a request until the receipt says that it is
//! stored, and the partitions of a topic move between servers.
//!
//! ```text
//!   settle (until every task waits for the bucket) ─► take results ─► remove crashed processes ─► act ─► one request ─┐
//!     ▲                                                                                                               │
//!     └───────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! In: a seed. Out: a [`PlayedSchedule`]: the bucket and its expected contents.
//!
//! After [`CALM_AFTER`] steps no more faults occur, so that every schedule ends.
//!
//! **Invariant:** nothing here waits for time to pass, and an actor acts only while all others wait. The blocking pool runs its
//! tasks in order; when a task that the schedule adds after the last one runs, the pool is idle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::actors::{SimClient, SimOutcome, Waiting, Who};
use super::random::SeededRandom;
use super::server::{Life, ReaderPartition, SimServer, TopicReader, WINDOWS, lake, open, start};
use super::store_client::StoreClient;
use super::store_scheduler::{Death, StoreScheduler};
use super::workload::{Expected, PARTITIONS, SERVERS, Workload};
use crate::clock::{Clock, SECOND};
use crate::contract::{Format, Owner};
use crate::error::{Kind, Result};
use crate::ingest::source::{
    MessageBatch, Position, Route, SourceWriter, StoredBatch, TenantResolution, TopicPartition,
};
use crate::ingest::testing::{TABLE, submit};
use crate::ingest::{Body, Receipt};
use crate::lake::{Store, Tables};
use crate::tenancy::Scope;
use crate::tenancy::testing::access;

/// No faults occur from this step on.
const CALM_AFTER: usize = 250;
/// A schedule that has not ended by this step counts as stuck.
const STEPS_MAX: usize = 6_000;
/// The number of rounds without activity after which every task waits for the bucket. A task needs fewer polls between two
/// requests.
const QUIET_ROUNDS: usize = 6;
/// How often the other tasks can run in one round.
const ROUND_TURNS: usize = 4;

/// The result of a schedule.
#[derive(Debug)]
pub(crate) struct PlayedSchedule {
    pub(super) bucket: Arc<StoreScheduler>,
    /// The lake, without faults.
    store: Store,
    pub(crate) expected: Expected,
    pub(super) deaths: usize,
}

impl PlayedSchedule {
    /// The table and its quarantine, as a newly started process sees them.
    pub(crate) async fn tables(&self) -> Arc<Tables> {
        open(&self.store).await.unwrap()
    }
}

struct Schedule {
    bucket: Arc<StoreScheduler>,
    clock: Clock,
    random: SeededRandom,
    step: usize,
    servers: Vec<SimServer>,
    clients: Vec<SimClient>,
    partitions: Vec<Vec<String>>,
    /// The server that each partition is assigned to.
    owners: Vec<usize>,
    /// The stored offsets that were reported to the owners.
    stored: Vec<i64>,
    waiting: BTreeMap<u64, Waiting>,
    tasks: JoinSet<(u64, SimOutcome)>,
    next: u64,
    /// Whether any actor got a result since all of them last waited.
    restless: bool,
    deaths: usize,
    faults: Vec<String>,
}

/// Plays the schedule of a seed. `Err` holds the failures and the trace up to them.
pub(crate) fn play(seed: u64) -> std::result::Result<PlayedSchedule, String> {
    let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let Workload { clients, partitions, expected } = Workload::of(seed);
        let bucket = Arc::new(StoreScheduler::new(seed));
        let mut known = Vec::new();
        for client in clients {
            let access = access(client.tenant, &[Scope::Ingest], &[TABLE]).await;
            known.push(SimClient {
                access: Arc::new(access),
                home: client.home,
                bodies: client.bodies,
                done: 0,
                attempt: None,
                rests_until: 0,
            });
        }
        let play = Schedule {
            bucket: bucket.clone(),
            clock: Clock::fixed(Clock::System.now()),
            random: SeededRandom::of(seed, "play"),
            step: 0,
            servers: (0..SERVERS).map(|_| SimServer::new()).collect(),
            clients: known,
            owners: (0..PARTITIONS).map(|partition| partition % SERVERS).collect(),
            stored: vec![0; PARTITIONS],
            partitions,
            waiting: BTreeMap::new(),
            tasks: JoinSet::new(),
            next: 0,
            restless: false,
            deaths: 0,
            faults: Vec::new(),
        };
        let deaths = play.run().await?;
        let store = lake(bucket.objects.clone(), Clock::System);
        Ok(PlayedSchedule { bucket, store, expected, deaths })
    })
}

fn topic_partition(partition: usize) -> TopicPartition {
    TopicPartition { topic: "calls".into(), partition: i32::try_from(partition).unwrap() }
}

fn partition(topic_partition: &TopicPartition) -> usize {
    usize::try_from(topic_partition.partition).unwrap()
}

fn route() -> Route {
    Route {
        source: "voice".to_owned(),
        table: TABLE.to_owned(),
        format: Format::Json,
        owner: Owner::PerEvent,
        reader: None,
        transform: None,
    }
}

impl Schedule {
    async fn run(mut self) -> std::result::Result<usize, String> {
        while !self.is_done() {
            self.turn().await?;
            self.act().await;
            self.restless = self.bucket.step();
        }
        // Stop all servers gracefully, which resolves commits in doubt.
        for server in 0..self.servers.len() {
            self.stop(server).await;
        }
        while !self.waiting.is_empty() {
            self.turn().await?;
            self.restless = self.bucket.step();
        }
        self.bucket.arrive_all();
        Ok(self.deaths)
    }

    async fn turn(&mut self) -> std::result::Result<(), String> {
        if std::mem::take(&mut self.restless) {
            self.settle().await;
        }
        while let Some(joined) = self.tasks.try_join_next() {
            match joined {
                Ok((number, outcome)) => self.take(number, outcome),
                Err(error) if error.is_cancelled() => {}
                Err(error) => self.faults.push(format!("a task panicked: {error}")),
            }
        }
        self.bury();
        self.step += 1;
        if self.step == CALM_AFTER {
            self.bucket.note(|| "calm".to_owned());
            self.bucket.calm_down();
        }
        if self.step > STEPS_MAX {
            self.faults.push(format!("the schedule does not end: {:?} are still in progress", self.waiting.values()));
        }
        if self.faults.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.faults).join("; ")) }
    }

    fn is_calm(&self) -> bool {
        self.step >= CALM_AFTER
    }

    fn is_done(&self) -> bool {
        let sent = self.clients.iter().all(|client| client.done == client.bodies.len());
        let read = (0..PARTITIONS).all(|partition| self.stored[partition] == self.end(partition));
        let up = self.servers.iter().all(|server| matches!(server.life, Life::Up(_)));
        sent && read && up && self.waiting.is_empty()
    }

    fn end(&self, partition: usize) -> i64 {
        i64::try_from(self.partitions[partition].len()).unwrap()
    }

    /// Runs the other tasks until all of them wait for the bucket.
    async fn settle(&self) {
        let (mut quiet, mut before) = (0, (0, 0));
        while quiet < QUIET_ROUNDS {
            // Queued after all other work of the pool's only thread.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            for _ in 0..ROUND_TURNS {
                tokio::task::yield_now().await;
            }
            let now = (self.bucket.activity(), self.tasks.len());
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
    }

    /// Starts an operation, and lets it run as far as it can before the next one starts.
    async fn begin(&mut self, who: Who, doing: impl Future<Output = SimOutcome> + Send + 'static) -> u64 {
        let number = self.next;
        self.next += 1;
        let task = self.tasks.spawn(async move { (number, doing.await) });
        let server = match who {
            Who::Server(server) | Who::Reader(server) => server,
            Who::Client(client) => self.clients[client].home,
        };
        self.waiting.insert(number, Waiting { who, process: self.servers[server].process, task });
        self.settle().await;
        number
    }

    /// Removes crashed processes. Their operations get no result.
    fn bury(&mut self) {
        for server in 0..self.servers.len() {
            let SimServer { process, life, .. } = &self.servers[server];
            if matches!(life, Life::Down(_)) || !self.bucket.is_dead(*process) {
                continue;
            }
            self.deaths += 1;
            let process = *process;
            let lost: Vec<u64> =
                self.waiting.iter().filter(|(_, one)| one.process == process).map(|(number, _)| *number).collect();
            for number in lost {
                if let Some(Waiting { who, task, .. }) = self.waiting.remove(&number) {
                    task.abort();
                    if let Who::Client(client) = who {
                        self.rest(client);
                    }
                }
            }
            let until = self.step + self.random.below(12);
            self.servers[server].life = Life::Down(until);
            self.servers[server].reader = TopicReader::default();
        }
    }

    fn rest(&mut self, client: usize) {
        self.clients[client].attempt = None;
        self.clients[client].rests_until = self.step + self.random.below(8);
        // Any server is fine: each sees the events of the others.
        self.clients[client].home = self.random.below(SERVERS);
    }

    fn take(&mut self, number: u64, outcome: SimOutcome) {
        // Results of crashed processes and of abandoned attempts are ignored.
        let Some(Waiting { who, process, .. }) = self.waiting.remove(&number) else { return };
        if self.bucket.is_dead(process) && !matches!(outcome, SimOutcome::Stopped) {
            // The process crashed at this moment: `bury` handles its other operations.
            if let Who::Client(client) = who {
                self.rest(client);
            }
            return;
        }
        match (who, outcome) {
            (Who::Server(server), SimOutcome::Started(Ok(ingest))) => {
                self.servers[server].life = Life::Up(ingest);
                let own = (0..PARTITIONS).filter(|partition| self.owners[*partition] == server);
                self.servers[server].reader.places =
                    own.map(|partition| (partition, ReaderPartition::default())).collect();
            }
            (Who::Server(server), SimOutcome::Started(Err(_)) | SimOutcome::Stopped) => {
                // The process ends; its requests in flight may still arrive.
                self.bucket.kill(process);
                self.servers[server].life = Life::Down(self.step + self.random.below(12));
                self.servers[server].reader = TopicReader::default();
            }
            (Who::Client(client), SimOutcome::Sent(outcome)) => self.sent(client, outcome),
            (Who::Reader(server), SimOutcome::Asked(partitions, outcome)) => self.asked(server, &partitions, outcome),
            (Who::Reader(server), SimOutcome::Hauled(partitions, outcome)) => self.hauled(server, &partitions, outcome),
            (who, outcome) => self.faults.push(format!("{who:?} got {outcome:?}")),
        }
    }

    fn sent(&mut self, client: usize, outcome: Result<Receipt>) {
        let SimClient { bodies, done, .. } = &self.clients[client];
        let body = &bodies[*done];
        match outcome {
            Ok(receipt) => {
                if (receipt.accepted + receipt.duplicate, receipt.rejected) != (body.good, body.bad) {
                    self.faults.push(format!("client {client} sent {body:?} and got {receipt:?}"));
                }
                self.clients[client].done += 1;
            }
            // Errors that tell the client to retry.
            Err(error) if error.kind() == Kind::Unavailable => {}
            Err(error) => self.faults.push(format!("client {client} was refused: {error:?}")),
        }
        self.rest(client);
    }

    /// Takes the positions of partitions from a table, and checks that they never move backward.
    fn asked(&mut self, server: usize, partitions: &[usize], outcome: Result<BTreeMap<TopicPartition, Position>>) {
        let reader = &mut self.servers[server].reader;
        reader.busy = false;
        let Ok(positions) = outcome else {
            reader.rests_until = self.step + self.random.below(8);
            return;
        };
        for place in partitions {
            let Some(place) = reader.places.get_mut(place) else { continue };
            place.position = None;
        }
        for (topic_partition, position) in positions {
            if let Some(place) = reader.places.get_mut(&partition(&topic_partition)) {
                place.position = Some(position);
            }
            let stored = &mut self.stored[partition(&topic_partition)];
            *stored = (*stored).max(position.stored.unwrap_or(0));
        }
    }

    fn hauled(&mut self, server: usize, partitions: &[usize], outcome: Result<StoredBatch>) {
        let reader = &mut self.servers[server].reader;
        reader.busy = false;
        match outcome {
            Ok(landed) => self.asked(server, &[], Ok(landed.positions)),
            Err(error) => {
                if !matches!(error.kind(), Kind::Unavailable | Kind::Conflict) {
                    self.faults.push(format!("reader {server} was refused: {error:?}"));
                }
                reader.rests_until = self.step + self.random.below(8);
                for place in partitions {
                    if let Some(place) = reader.places.get_mut(place) {
                        place.position = None;
                    }
                }
            }
        }
    }

    /// Starts random actions of the actors.
    async fn act(&mut self) {
        if !self.is_calm() && self.random.percent(2) {
            // So that tables check whether their log was cleaned up concurrently.
            self.clock.set(self.clock.now() + 61 * SECOND);
        }
        for server in 0..self.servers.len() {
            match self.servers[server].life {
                Life::Down(until) if until <= self.step => self.start(server).await,
                Life::Up(_) if !self.is_calm() && self.random.percent(1) => self.stop(server).await,
                Life::Up(_) => self.read(server).await,
                Life::Stopping(_) | Life::Down(_) | Life::Starting => {}
            }
        }
        if !self.is_calm() && self.random.percent(4) {
            self.hand_over();
        }
        for client in 0..self.clients.len() {
            self.send(client).await;
        }
    }

    async fn start(&mut self, server: usize) {
        let random = &mut self.random;
        let deaths = [
            Death::Turn(1 + random.below(70)),
            // Usually in the middle of a commit, the most interesting moment for a crash.
            Death::Commit(1 + random.below(12)),
            Death::Commit(1 + random.below(12)),
            Death::Kernel(1 + random.below(60)),
        ];
        let death = random.pick(&deaths.map(Some));
        let mortal = !self.is_calm() && self.random.percent(80);
        let process = self.bucket.enter(death.filter(|_| mortal));
        self.bucket.note(|| format!("server {server} starts as process {process}"));
        (self.servers[server].process, self.servers[server].life) = (process, Life::Starting);
        let (line, clock) = (StoreClient { bucket: self.bucket.clone(), process }, self.clock.clone());
        let window = self.random.pick(&WINDOWS);
        self.begin(Who::Server(server), async move { SimOutcome::Started(start(line, clock, window).await) }).await;
    }

    async fn stop(&mut self, server: usize) {
        let Some(ingest) = self.servers[server].ingest().cloned() else { return };
        self.bucket.note(|| format!("server {server} stops"));
        self.servers[server].life = Life::Stopping(ingest.clone());
        self.begin(Who::Server(server), async move {
            ingest.stop().await;
            SimOutcome::Stopped
        })
        .await;
    }

    /// Moves a partition to the other server. The previous owner continues until it notices.
    fn hand_over(&mut self) {
        let partition = self.random.below(PARTITIONS);
        let (from, to) = (self.owners[partition], (self.owners[partition] + 1) % SERVERS);
        self.bucket.note(|| format!("partition {partition} goes to server {to}"));
        self.owners[partition] = to;
        let hauls_left = Some(self.random.below(3));
        if let Some(place) = self.servers[from].reader.places.get_mut(&partition) {
            place.hauls_left = hauls_left;
        }
        if matches!(self.servers[to].life, Life::Up(_)) {
            self.servers[to].reader.places.insert(partition, ReaderPartition::default());
        }
    }

    async fn send(&mut self, number: usize) {
        let SimClient { home, bodies, done, attempt, rests_until, access } = &self.clients[number];
        if let Some((task, gives_up)) = attempt {
            if *gives_up <= self.step && !self.is_calm() {
                let given_up = self.waiting.remove(task);
                given_up.inspect(|one| one.task.abort());
                self.rest(number);
            }
            return;
        }
        let Life::Up(ingest) = &self.servers[*home].life else { return };
        if *rests_until > self.step {
            return;
        }
        let Some(body) = bodies.get(*done) else { return };
        let (ingest, access, text) = (ingest.clone(), access.clone(), Bytes::from(body.text.clone()));
        let task = self.begin(Who::Client(number), async move {
            SimOutcome::Sent(submit(&ingest, &access, TABLE, Body::Encoded(Format::Json, text)).await)
        });
        let task = task.await;
        self.clients[number].attempt = Some((task, self.step + 5 + self.random.below(120)));
    }

    async fn read(&mut self, server: usize) {
        let SimServer { life: Life::Up(ingest), reader, .. } = &mut self.servers[server] else { return };
        if reader.busy || reader.rests_until > self.step {
            return;
        }
        let writer = SourceWriter::new(ingest.writer.clone(), route());
        reader.places.retain(|_, place| place.hauls_left != Some(0));
        let unknown: Vec<usize> =
            reader.places.iter().filter(|(_, place)| place.position.is_none()).map(|(number, _)| *number).collect();
        if !unknown.is_empty() {
            reader.busy = true;
            let spots: BTreeSet<TopicPartition> = unknown.iter().copied().map(topic_partition).collect();
            self.begin(Who::Reader(server), async move {
                let asked = writer.positions(spots).await.map(|(positions, _)| positions);
                SimOutcome::Asked(unknown, asked)
            })
            .await;
            return;
        }
        let (mut message_batch, mut positions) = (MessageBatch::default(), BTreeMap::new());
        for (number, place) in &mut reader.places {
            let messages = &self.partitions[*number];
            let position = place.position.unwrap_or_default();
            let first = usize::try_from(position.stored.unwrap_or(0)).unwrap();
            if first == messages.len() || self.random.percent(20) {
                continue;
            }
            let count = 1 + self.random.below(6);
            for (offset, message) in messages.iter().enumerate().skip(first).take(count) {
                let offset = i64::try_from(offset).unwrap();
                message_batch.push(
                    (topic_partition(*number), offset),
                    message.as_bytes(),
                    TenantResolution::PerEvent,
                    None,
                    Instant::now(),
                );
            }
            positions.insert(topic_partition(*number), position);
            place.hauls_left = place.hauls_left.map(|message_batches| message_batches - 1);
        }
        if positions.is_empty() {
            return;
        }
        reader.busy = true;
        self.begin(Who::Reader(server), async move {
            let partitions = positions.keys().map(partition).collect();
            SimOutcome::Hauled(partitions, writer.store(message_batch, &positions).await)
        })
        .await;
    }
}
