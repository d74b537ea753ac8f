//! The retention of a schedule. In half of all schedules, the events of the first day expire at a random step, and the
//! servers then remove their files.
//!
//! ```text
//!   clock: two days ago ─► midnight_step ─► after the next midnight ─► events of the first day are rejected
//!                                                              └──► retention actors remove files
//! ```
//!
//! Requests that are in flight at midnight are not rejected. Their rows may be stored after the day has been removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::actors::{Actor, SimOutcome};
use super::random::SeededRandom;
use super::schedule::Schedule;
use super::server::ServerState;
use super::workload::FIRST_DAY;
use crate::clock::{Clock, DAY, Micros, SECOND};
use crate::contract::Retention;
use crate::error::{Kind, Result};
use crate::ingest::testing::TABLE;
use crate::maintenance::retention::{Expired, remove_expired};

/// The range of steps in which the day can end.
const MIDNIGHT_STEPS: std::ops::Range<usize> = 10..120;
/// The time after midnight to which the clock is set. Files are removed an hour after midnight.
const AFTER_MIDNIGHT: Micros = 3_700 * SECOND;
/// The maximum number of removals that begin in one schedule.
const REMOVALS_MAX: usize = 12;

/// The retention of a schedule, and the removals of all servers.
#[derive(Debug)]
pub(super) struct SimRetention {
    random: SeededRandom,
    /// For how long the table keeps events.
    pub(super) retention: Retention,
    /// The step at which the events of the first day expire. `None` if they never do.
    midnight_step: Option<usize>,
    /// True once the events of the first day have expired.
    pub(super) has_expired: bool,
    /// The probability, in percent, that an idle actor begins a removal in a step.
    removal_percent: usize,
    removals_left: usize,
    /// For each server, the number of its actor's last operation.
    operations: BTreeMap<usize, u64>,
    /// The number of files that were removed.
    pub(super) files_removed: usize,
}

impl SimRetention {
    /// Creates the retention for a seed. `now` is the time at which the schedule begins.
    pub(super) fn of(seed: u64, now: Micros) -> Self {
        let mut random = SeededRandom::of(seed, "retention");
        let days = u32::try_from(now.div_euclid(DAY) - FIRST_DAY).unwrap();
        let expires = random.percent(50);
        let midnight_step = MIDNIGHT_STEPS.start + random.below(MIDNIGHT_STEPS.len());
        Self {
            retention: if expires { Retention::days(days) } else { Retention::default() },
            midnight_step: expires.then_some(midnight_step),
            has_expired: false,
            removal_percent: random.pick(&[3, 20, 100]),
            removals_left: REMOVALS_MAX,
            operations: BTreeMap::new(),
            files_removed: 0,
            random,
        }
    }

    /// Returns true if the events of the first day expire in this schedule.
    pub(super) fn expires(&self) -> bool {
        self.midnight_step.is_some()
    }

    /// Returns the clock of a schedule. It begins in the past, so that tokens are still valid after midnight.
    pub(super) fn clock() -> Clock {
        Clock::fixed(Clock::System.now() - 2 * DAY)
    }
}

impl Schedule {
    /// Sets the clock to a time after midnight if the step for this has come.
    pub(super) fn pass_midnight(&mut self) {
        if self.retention.midnight_step.is_some_and(|step| step <= self.step) && !self.retention.has_expired {
            self.retention.has_expired = true;
            self.clock.set((self.clock.now().div_euclid(DAY) + 1) * DAY + AFTER_MIDNIGHT);
            self.bucket.trace_line(|| "midnight has passed".to_owned());
        }
    }

    /// Starts to remove expired files on a server, at random. Does nothing if the server is not up, or if its last
    /// removal is in progress.
    pub(super) async fn remove_expired(&mut self, server: usize) {
        let ServerState::Up(ingest) = &self.servers[server].state else { return };
        let SimRetention { random, removal_percent, removals_left, operations, has_expired, .. } = &mut self.retention;
        let busy = operations.get(&server).is_some_and(|operation| self.waiting.contains_key(operation));
        if !*has_expired || busy || *removals_left == 0 || !random.percent(*removal_percent) {
            return;
        }
        *removals_left -= 1;
        let (table, now) = (Arc::clone(&ingest.writer.tables()[TABLE]), self.clock.now());
        self.bucket.trace_line(|| format!("server {server} removes expired files"));
        let removing = async move { SimOutcome::Expired(remove_expired(&table, now).await) };
        let operation = self.start_operation(Actor::Retention(server), removing).await;
        self.retention.operations.insert(server, operation);
    }

    /// Handles the result of a removal.
    pub(super) fn expired_removed(&mut self, server: usize, outcome: Result<Expired>) {
        match outcome {
            Ok(expired) => {
                self.bucket.trace_line(|| format!("server {server} has removed {} files", expired.files));
                self.retention.files_removed += expired.files;
            }
            Err(error) if error.kind() == Kind::Unavailable => {}
            Err(error) => self.failures.push(format!("the removal on server {server} failed: {error:?}")),
        }
    }
}
