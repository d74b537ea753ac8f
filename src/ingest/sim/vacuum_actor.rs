//! The vacuums in a schedule. Each server runs the real [`Vacuum`] of its tables at random moments.
//!
//! The files of schedules with vacuums age quickly: the clock often jumps by more than the commit deadline, and sometimes
//! by more than the retention of removed files and of orphans. Servers sleep while their requests are in flight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::actors::{Actor, SimOutcome};
use super::random::SeededRandom;
use super::schedule::{FAULTS_UNTIL_STEP, Schedule};
use super::server::{ServerState, lake, open};
use super::store_client::StoreClient;
use super::store_scheduler::StoreScheduler;
use crate::clock::{Clock, DAY, Micros, SECOND};
use crate::contract::Retention;
use crate::error::{Kind, Result};
use crate::ingest::testing::{QUARANTINE, TABLE};
use crate::maintenance::vacuum::{Vacuum, VacuumConfig, VacuumReport};

/// How long the vacuums keep files.
pub(super) const VACUUM: VacuumConfig =
    VacuumConfig { removed_retention: Duration::from_secs(3_600), orphan_age_min: Duration::from_secs(86_400) };
/// The times by which the clock jumps.
const JUMPS: [Micros; 4] = [1_200 * SECOND, 3_660 * SECOND, 3_660 * SECOND, LONG_JUMP];
/// A jump that is longer than all times for which vacuum keeps files.
const LONG_JUMP: Micros = 90_000 * SECOND;
/// The maximum number of steps for which a server sleeps.
const SLEEP_MAX: usize = 80;

/// The vacuums of all servers in a schedule.
#[derive(Debug)]
pub(super) struct Vacuums {
    random: SeededRandom,
    /// The probability, in percent, that an idle server begins a run in a step. 0 if the schedule has no vacuums.
    run_percent: usize,
    /// For each process, the vacuums of its tables.
    running: BTreeMap<(usize, &'static str), Arc<Mutex<Vacuum>>>,
    /// For each server, the number of its last run.
    operations: BTreeMap<usize, u64>,
    /// The number of deleted files.
    pub(super) deleted: u64,
}

impl Vacuums {
    /// Creates the vacuums for a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = SeededRandom::of(seed, "vacuum");
        let run_percent = random.pick(&[0, 5, 10, 20]);
        Self { random, run_percent, running: BTreeMap::new(), operations: BTreeMap::new(), deleted: 0 }
    }
}

impl Schedule {
    /// Starts a run of a server's vacuum, at random. Does nothing if the server is not up, or if its last run is in
    /// progress.
    pub(super) async fn vacuum(&mut self, server: usize) {
        let ServerState::Up(ingest) = &self.servers[server].state else { return };
        let Vacuums { random, run_percent, running, operations, .. } = &mut self.vacuums;
        let busy = operations.get(&server).is_some_and(|operation| self.waiting.contains_key(operation));
        // Later runs would keep the schedule from ending. The last runs have no faults either.
        if busy || self.step >= FAULTS_UNTIL_STEP || !random.percent(*run_percent) {
            return;
        }
        let name = random.pick(&[TABLE, TABLE, QUARANTINE]);
        let table = Arc::clone(&ingest.writer.tables()[name]);
        let new = || Arc::new(Mutex::new(Vacuum::new(table, VACUUM)));
        let vacuum = running.entry((self.servers[server].process, name)).or_insert_with(new).clone();
        self.bucket.trace_line(|| format!("server {server} vacuums {name}"));
        let vacuuming = async move { SimOutcome::Vacuumed(vacuum.lock().await.run().await) };
        let operation = self.start_operation(Actor::Vacuum(server), vacuuming).await;
        self.vacuums.operations.insert(server, operation);
    }

    /// Lets the clock jump or a server sleep, at random. If the events of the first day expire in this schedule, the clock
    /// does not jump past midnight, so that no other events expire.
    pub(super) fn pass_time(&mut self) {
        let Vacuums { random, run_percent, .. } = &mut self.vacuums;
        if *run_percent == 0 || self.step >= FAULTS_UNTIL_STEP {
            return;
        }
        let now = self.clock.now();
        let can_jump = |jump: Micros| !self.retention.expires() || now.div_euclid(DAY) == (now + jump).div_euclid(DAY);
        let jump = random.pick(&JUMPS);
        if random.percent(4) && can_jump(jump) {
            self.bucket.trace_line(|| format!("the clock jumps by {} s", jump / SECOND));
            self.clock.set(self.clock.now() + jump);
        }
        if random.percent(2) && can_jump(JUMPS[1]) {
            let (server, steps) = (random.below(self.servers.len()), 1 + random.below(SLEEP_MAX));
            if self.servers[server].ingest().is_some() {
                self.bucket.trace_line(|| format!("server {server} sleeps for {steps} steps"));
                self.bucket.sleep(self.servers[server].process, steps);
                self.clock.set(self.clock.now() + JUMPS[1]);
            }
        }
    }

    /// Handles the result of a run.
    pub(super) fn vacuumed(&mut self, server: usize, outcome: Result<VacuumReport>) {
        match outcome {
            Ok(report) => {
                self.bucket.trace_line(|| format!("server {server} has deleted {} files", report.deleted_files));
                self.vacuums.deleted += report.deleted_files;
                if report.live_candidates > 0 {
                    self.failures.push(format!("the vacuum of server {server} found live files unused: {report:?}"));
                }
            }
            Err(error) if error.kind() == Kind::Unavailable => {}
            Err(error) => self.failures.push(format!("the vacuum of server {server} failed: {error:?}")),
        }
    }
}

/// Runs the vacuums of all tables until every file that is not live has reached its age, without faults. Returns an
/// error if a run fails.
pub(super) async fn vacuum_all(bucket: &Arc<StoreScheduler>, clock: &Clock) -> std::result::Result<u64, String> {
    let store = lake(Arc::new(StoreClient { bucket: Arc::clone(bucket), process: None }), clock.clone());
    let tables = open(&store, &Retention::default()).await.map_err(|error| error.to_string())?;
    let mut vacuums: Vec<_> = tables.values().map(|table| Vacuum::new(Arc::clone(table), VACUUM)).collect();
    let mut deleted = 0;
    for _ in 0..3 {
        for vacuum in &mut vacuums {
            let report = vacuum.run().await.map_err(|error| error.to_string())?;
            deleted += report.deleted_files;
            if report.live_candidates + report.refused > 0 {
                return Err(format!("the last vacuum failed: {report:?}"));
            }
        }
        clock.set(clock.now() + LONG_JUMP);
    }
    Ok(deleted)
}
