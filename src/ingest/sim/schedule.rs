//! Runs the schedule that a seed determines.
//!
//! In a schedule, servers start, crash and stop. A client sends each request again until a receipt confirms that the
//! events are stored. The partitions of a topic move between servers. Files are rewritten at random moments. In half of
//! the schedules, the events of one day expire, and their files are removed.
//!
//! ```text
//!   settle (until every task waits for the bucket) ─► take results ─► remove crashed processes ─► act ─► one request ─┐
//!     ▲                                                                                                               │
//!     └───────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The [`ScheduleResult`] contains the bucket and its expected contents.
//!
//! Faults stop after [`FAULTS_UNTIL_STEP`] steps, so every schedule ends.
//!
//! **Invariant:** no code in this file waits for time to pass, and an actor starts to run only when all others are
//! waiting. To find out whether the blocking pool is idle, the schedule adds a task to it. The pool has one thread and
//! runs its tasks in order, so all earlier tasks have finished when the added task runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::actors::{Actor, Operation, SimClient, SimOutcome};
use super::maintenance_actor::Maintenance;
use super::random::SeededRandom;
use super::retention_actor::SimRetention;
use super::server::{DEDUPE_IDS_MAX, ReaderPartition, ServerState, SimServer, TopicReader, lake, open, start};
use super::store_client::StoreClient;
use super::store_scheduler::{CrashPoint, StoreScheduler};
use super::vacuum_actor::{Vacuums, vacuum_all};
use super::workload::{Expected, PARTITIONS, SERVERS, Workload};
use crate::clock::{Clock, SECOND};
use crate::contract::{Format, Retention};
use crate::error::{Kind, Result};
use crate::ingest::testing::{TABLE, submit};
use crate::ingest::{Body, Receipt};
use crate::lake::{Store, Tables};
use crate::tenancy::Scope;
use crate::tenancy::testing::access;

/// No faults occur from this step on.
pub(super) const FAULTS_UNTIL_STEP: usize = 250;
/// A schedule fails if it has not ended by this step.
const STEPS_MAX: usize = 6_000;
/// If no task sends a request in this number of rounds, all tasks are waiting for the bucket. A task that is not
/// waiting sends its next request within fewer rounds.
const IDLE_ROUNDS_MIN: usize = 6;
/// The number of times that the schedule yields to the other tasks in one round.
const YIELDS_PER_ROUND: usize = 4;

/// The final state of a schedule.
#[derive(Debug)]
pub(crate) struct ScheduleResult {
    pub(super) bucket: Arc<StoreScheduler>,
    /// A store over the bucket, without injected faults.
    store: Store,
    retention: Retention,
    /// The clock at the end of the schedule.
    pub(crate) clock: Clock,
    pub(crate) expected: Expected,
    /// True if the events of the first day have expired.
    pub(crate) has_expired: bool,
    /// The number of expired files that were removed.
    pub(super) files_removed: usize,
    /// The number of processes that crashed.
    pub(super) crashes: usize,
    /// The number of rewrites that were committed.
    pub(super) rewrites: usize,
    /// The number of files that vacuums have deleted.
    pub(super) vacuumed: u64,
}

impl ScheduleResult {
    /// Opens the table and its quarantine, as a process does when it starts.
    pub(crate) async fn tables(&self) -> Arc<Tables> {
        open(&self.store, &self.retention).await.unwrap()
    }

    /// Returns the tenant and id of every event that queries return.
    pub(crate) fn visible_events(&self) -> impl Iterator<Item = &(String, String)> {
        let Expected { events, old, .. } = &self.expected;
        events.iter().filter(|event| !self.has_expired || !old.contains(*event))
    }
}

/// A schedule in progress.
pub(super) struct Schedule {
    pub(super) bucket: Arc<StoreScheduler>,
    pub(super) clock: Clock,
    pub(super) random: SeededRandom,
    pub(super) step: usize,
    pub(super) servers: Vec<SimServer>,
    clients: Vec<SimClient>,
    /// The messages in each partition.
    pub(super) partitions: Vec<Vec<String>>,
    /// The server to which each partition is assigned.
    owners: Vec<usize>,
    /// For each partition, the greatest stored offset that a reader has seen.
    pub(super) stored: Vec<i64>,
    pub(super) maintenance: Maintenance,
    pub(super) retention: SimRetention,
    pub(super) vacuums: Vacuums,
    /// The operations in progress, by number.
    pub(super) waiting: BTreeMap<u64, Operation>,
    tasks: JoinSet<(u64, SimOutcome)>,
    /// The number of the next operation.
    next: u64,
    /// True if a request was answered, so an actor can run again.
    needs_settling: bool,
    crashes: usize,
    pub(super) failures: Vec<String>,
}

/// Runs the schedule for a seed. Stops at the first step that fails, for example with a panic or an unexpected result,
/// and returns the descriptions of the failures.
pub(crate) fn run_schedule(seed: u64) -> std::result::Result<ScheduleResult, String> {
    let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let Workload { clients, partitions, expected } = Workload::of(seed);
        let clock = SimRetention::clock();
        let bucket = Arc::new(StoreScheduler::new(seed, clock.clone()));
        let mut sim_clients = Vec::new();
        for client in clients {
            let access = access(client.tenant, &[Scope::Ingest], &[TABLE]).await;
            sim_clients.push(SimClient {
                access: Arc::new(access),
                server: client.server,
                bodies: client.bodies,
                done: 0,
                attempt: None,
                idle_until: 0,
            });
        }
        let retention = SimRetention::of(seed, clock.now());
        let table_retention = retention.retention.clone();
        let schedule = Schedule {
            bucket: bucket.clone(),
            clock: clock.clone(),
            random: SeededRandom::of(seed, "play"),
            step: 0,
            servers: (0..SERVERS).map(|_| SimServer::new()).collect(),
            clients: sim_clients,
            owners: (0..PARTITIONS).map(|partition| partition % SERVERS).collect(),
            stored: vec![0; PARTITIONS],
            partitions,
            maintenance: Maintenance::of(seed),
            retention,
            vacuums: Vacuums::of(seed),
            waiting: BTreeMap::new(),
            tasks: JoinSet::new(),
            next: 0,
            needs_settling: false,
            crashes: 0,
            failures: Vec::new(),
        };
        let Ended { crashes, rewrites, has_expired, files_removed, vacuumed } = schedule.run().await?;
        let ended = clock.now();
        let vacuumed = vacuumed + vacuum_all(&bucket, &clock).await?;
        clock.set(ended);
        let store = lake(bucket.objects.clone(), Clock::System);
        let retention = table_retention;
        Ok(ScheduleResult {
            bucket,
            store,
            retention,
            clock,
            expected,
            has_expired,
            files_removed,
            crashes,
            rewrites,
            vacuumed,
        })
    })
}

/// What happened in a schedule that has ended.
struct Ended {
    crashes: usize,
    rewrites: usize,
    has_expired: bool,
    files_removed: usize,
    /// The number of files that vacuums have deleted.
    vacuumed: u64,
}

impl Schedule {
    /// Runs the schedule to its end.
    async fn run(mut self) -> std::result::Result<Ended, String> {
        while !self.is_done() {
            self.begin_step().await?;
            self.act().await;
            self.needs_settling = self.bucket.step();
        }
        // Stop all servers gracefully. A stopping server resolves its in-doubt commits.
        for server in 0..self.servers.len() {
            self.stop(server).await;
        }
        while !self.waiting.is_empty() {
            self.begin_step().await?;
            self.needs_settling = self.bucket.step();
        }
        self.bucket.arrive_all();
        let SimRetention { has_expired, files_removed, .. } = self.retention;
        let (rewrites, vacuumed) = (self.maintenance.replaced, self.vacuums.deleted);
        Ok(Ended { crashes: self.crashes, rewrites, has_expired, files_removed, vacuumed })
    }

    /// Runs until all actors are waiting, and handles the results of finished operations.
    async fn begin_step(&mut self) -> std::result::Result<(), String> {
        if std::mem::take(&mut self.needs_settling) {
            self.settle().await;
        }
        while let Some(joined) = self.tasks.try_join_next() {
            match joined {
                Ok((number, outcome)) => self.handle_outcome(number, outcome),
                Err(error) if error.is_cancelled() => {}
                Err(error) => self.failures.push(format!("a task panicked: {error}")),
            }
        }
        self.remove_crashed();
        self.step += 1;
        if self.step == FAULTS_UNTIL_STEP {
            self.bucket.trace_line(|| "calm".to_owned());
            self.bucket.end_faults();
        }
        if self.step > STEPS_MAX {
            self.failures.push(format!("the schedule does not end: {:?} are still in progress", self.waiting.values()));
        }
        if self.failures.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.failures).join("; ")) }
    }

    fn faults_ended(&self) -> bool {
        self.step >= FAULTS_UNTIL_STEP
    }

    fn is_done(&self) -> bool {
        let sent = self.clients.iter().all(|client| client.done == client.bodies.len());
        let read = (0..PARTITIONS).all(|partition| self.stored[partition] == self.end(partition));
        let up = self.servers.iter().all(|server| matches!(server.state, ServerState::Up(_)));
        sent && read && up && self.waiting.is_empty()
    }

    fn end(&self, partition: usize) -> i64 {
        i64::try_from(self.partitions[partition].len()).unwrap()
    }

    /// Runs the other tasks until all of them are waiting for the bucket.
    async fn settle(&self) {
        let (mut idle_rounds, mut before) = (0, (0, 0));
        while idle_rounds < IDLE_ROUNDS_MIN {
            // The pool has only one thread, so this task runs after all other work in the pool.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            for _ in 0..YIELDS_PER_ROUND {
                tokio::task::yield_now().await;
            }
            let now = (self.bucket.request_count(), self.tasks.len());
            idle_rounds = if now == before { idle_rounds + 1 } else { 0 };
            before = now;
        }
    }

    /// Starts an operation, and runs it until it waits for the bucket. Returns the number of the operation.
    pub(super) async fn start_operation(
        &mut self,
        actor: Actor,
        operation: impl Future<Output = SimOutcome> + Send + 'static,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        let task = self.tasks.spawn(async move { (number, operation.await) });
        let server = match actor {
            Actor::Server(server)
            | Actor::Reader(server)
            | Actor::Maintenance(server)
            | Actor::Retention(server)
            | Actor::Vacuum(server) => server,
            Actor::Client(client) => self.clients[client].server,
        };
        self.waiting.insert(number, Operation { actor, process: self.servers[server].process, task });
        self.settle().await;
        number
    }

    /// Marks the servers of crashed processes as down, and aborts their operations.
    fn remove_crashed(&mut self) {
        for server in 0..self.servers.len() {
            let SimServer { process, state, .. } = &self.servers[server];
            if matches!(state, ServerState::Down(_)) || !self.bucket.has_crashed(*process) {
                continue;
            }
            self.crashes += 1;
            let process = *process;
            let lost: Vec<u64> = self
                .waiting
                .iter()
                .filter(|(_, operation)| operation.process == process)
                .map(|(number, _)| *number)
                .collect();
            for number in lost {
                if let Some(Operation { actor, task, .. }) = self.waiting.remove(&number) {
                    task.abort();
                    if let Actor::Client(client) = actor {
                        self.pause_client(client);
                    }
                }
            }
            let until = self.step + self.random.below(12);
            self.servers[server].state = ServerState::Down(until);
            self.servers[server].reader = TopicReader::default();
        }
    }

    /// Ends the current attempt of a client. The client is idle for some steps, and then continues with a random
    /// server.
    fn pause_client(&mut self, client: usize) {
        self.clients[client].attempt = None;
        self.clients[client].idle_until = self.step + self.random.below(8);
        // The client may continue with any server, because every server recognizes events that another server has
        // stored.
        self.clients[client].server = self.random.below(SERVERS);
    }

    fn handle_outcome(&mut self, number: u64, outcome: SimOutcome) {
        // The operations of crashed processes and abandoned attempts have been removed. Ignore their results.
        let Some(Operation { actor, process, .. }) = self.waiting.remove(&number) else { return };
        if self.bucket.has_crashed(process) && !matches!(outcome, SimOutcome::Stopped) {
            // The process crashed in this step. `remove_crashed` handles its other operations.
            if let Actor::Client(client) = actor {
                self.pause_client(client);
            }
            return;
        }
        match (actor, outcome) {
            (Actor::Server(server), SimOutcome::Started(Ok(ingest))) => {
                self.servers[server].state = ServerState::Up(ingest);
                let own = (0..PARTITIONS).filter(|partition| self.owners[*partition] == server);
                self.servers[server].reader.partitions =
                    own.map(|partition| (partition, ReaderPartition::default())).collect();
            }
            (Actor::Server(server), SimOutcome::Started(Err(_)) | SimOutcome::Stopped) => {
                // The process has ended. Treat this as a crash, because its requests in flight may still take effect.
                self.bucket.crash_now(process);
                self.servers[server].state = ServerState::Down(self.step + self.random.below(12));
                self.servers[server].reader = TopicReader::default();
            }
            (Actor::Client(client), SimOutcome::Sent(outcome)) => self.request_finished(client, outcome),
            (Actor::Reader(server), SimOutcome::OffsetsLoaded(partitions, outcome)) => {
                self.offsets_loaded(server, &partitions, outcome)
            }
            (Actor::Reader(server), SimOutcome::BatchStored(partitions, outcome)) => {
                self.batch_stored(server, &partitions, outcome)
            }
            (Actor::Maintenance(server), SimOutcome::Rewritten(outcome)) => self.rewritten(server, outcome),
            (Actor::Retention(server), SimOutcome::Expired(outcome)) => self.expired_removed(server, outcome),
            (Actor::Vacuum(server), SimOutcome::Vacuumed(outcome)) => self.vacuumed(server, outcome),
            (actor, outcome) => self.failures.push(format!("{actor:?} got {outcome:?}")),
        }
    }

    fn request_finished(&mut self, client: usize, outcome: Result<Receipt>) {
        let SimClient { bodies, done, .. } = &self.clients[client];
        let body = &bodies[*done];
        match outcome {
            Ok(receipt) => {
                // Events of the first day may be rejected after they have expired.
                let too_old = receipt.rejected.saturating_sub(body.bad);
                let too_old_max = if self.retention.has_expired { body.old } else { 0 };
                let counted = (receipt.accepted + receipt.duplicate + too_old, receipt.rejected - too_old);
                if counted != (body.good, body.bad) || too_old > too_old_max {
                    self.failures.push(format!("client {client} sent {body:?} and got {receipt:?}"));
                }
                self.clients[client].done += 1;
            }
            // After `Unavailable`, the client retries.
            Err(error) if error.kind() == Kind::Unavailable => {}
            Err(error) => self.failures.push(format!("client {client} was refused: {error:?}")),
        }
        self.pause_client(client);
    }

    /// Chooses random actions for the actors, and starts them.
    async fn act(&mut self) {
        if !self.faults_ended() && self.random.percent(2) {
            // Advance the clock by more than the interval at which a table checks whether another process has cleaned
            // up its log.
            self.clock.set(self.clock.now() + 61 * SECOND);
        }
        self.pass_midnight();
        self.pass_time();
        for server in 0..self.servers.len() {
            match self.servers[server].state {
                ServerState::Down(until) if until <= self.step => self.start(server).await,
                ServerState::Up(_) if !self.faults_ended() && self.random.percent(1) => self.stop(server).await,
                ServerState::Up(_) => {
                    self.read(server).await;
                    self.maintain(server).await;
                    self.remove_expired(server).await;
                    self.vacuum(server).await;
                }
                ServerState::Stopping(_) | ServerState::Down(_) | ServerState::Starting => {}
            }
        }
        if !self.faults_ended() && self.random.percent(4) {
            self.hand_over();
        }
        for client in 0..self.clients.len() {
            self.send(client).await;
        }
    }

    async fn start(&mut self, server: usize) {
        let random = &mut self.random;
        let crash_points = [
            CrashPoint::QueuedRequest(1 + random.below(70)),
            // Half of the crashes happen during a commit, because bugs are most likely there.
            CrashPoint::Commit(1 + random.below(12)),
            CrashPoint::Commit(1 + random.below(12)),
            CrashPoint::KernelRequest(1 + random.below(60)),
        ];
        let crash_point = random.pick(&crash_points.map(Some));
        let can_crash = !self.faults_ended() && self.random.percent(80);
        let process = self.bucket.add_process(crash_point.filter(|_| can_crash));
        self.bucket.trace_line(|| format!("server {server} starts as process {process}"));
        (self.servers[server].process, self.servers[server].state) = (process, ServerState::Starting);
        let (store_client, clock) =
            (StoreClient { bucket: self.bucket.clone(), process: Some(process) }, self.clock.clone());
        let dedupe_ids_max = self.random.pick(&DEDUPE_IDS_MAX);
        let retention = self.retention.retention.clone();
        self.start_operation(Actor::Server(server), async move {
            SimOutcome::Started(start(store_client, clock, dedupe_ids_max, retention).await)
        })
        .await;
    }

    async fn stop(&mut self, server: usize) {
        let Some(ingest) = self.servers[server].ingest().cloned() else { return };
        self.bucket.trace_line(|| format!("server {server} stops"));
        self.servers[server].state = ServerState::Stopping(ingest.clone());
        self.start_operation(Actor::Server(server), async move {
            ingest.stop().await;
            SimOutcome::Stopped
        })
        .await;
    }

    /// Moves a partition to the other server. The previous owner does not learn of the move immediately, and continues
    /// to read the partition for a while.
    fn hand_over(&mut self) {
        let partition = self.random.below(PARTITIONS);
        let (from, to) = (self.owners[partition], (self.owners[partition] + 1) % SERVERS);
        self.bucket.trace_line(|| format!("partition {partition} goes to server {to}"));
        self.owners[partition] = to;
        let batches_left = Some(self.random.below(3));
        if let Some(partition) = self.servers[from].reader.partitions.get_mut(&partition) {
            partition.batches_left = batches_left;
        }
        if matches!(self.servers[to].state, ServerState::Up(_)) {
            self.servers[to].reader.partitions.insert(partition, ReaderPartition::default());
        }
    }

    async fn send(&mut self, number: usize) {
        let SimClient { server, bodies, done, attempt, idle_until, access } = &self.clients[number];
        if let Some((task, times_out)) = attempt {
            if *times_out <= self.step && !self.faults_ended() {
                let operation = self.waiting.remove(task);
                operation.inspect(|operation| operation.task.abort());
                self.pause_client(number);
            }
            return;
        }
        let ServerState::Up(ingest) = &self.servers[*server].state else { return };
        if *idle_until > self.step {
            return;
        }
        let Some(body) = bodies.get(*done) else { return };
        let (ingest, access, text) = (ingest.clone(), access.clone(), Bytes::from(body.text.clone()));
        let task = self.start_operation(Actor::Client(number), async move {
            SimOutcome::Sent(submit(&ingest, &access, TABLE, Body::Encoded(Format::Json, text)).await)
        });
        let task = task.await;
        self.clients[number].attempt = Some((task, self.step + 5 + self.random.below(120)));
    }
}
