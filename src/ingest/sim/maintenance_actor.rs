//! The maintenance actors in a schedule, which rewrite random files. Each server has one actor.
//!
//! An actor reads one to three live files of one day, writes their rows to one or two new files, and replaces the old
//! files with [`Table::replace`]. Its choices are random, and unlike those of real compaction, they depend on nothing:
//! it also rewrites files that were added a moment ago, or whose commit is still in doubt.
//!
//! **Invariant:** the choices do not depend on the names of files, which differ from run to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::memory::InMemory;
use serde_json::Value;

use super::actors::{Actor, SimOutcome};
use super::audit::{names, read};
use super::random::SeededRandom;
use super::schedule::Schedule;
use super::server::ServerState;
use crate::error::{Kind, Result};
use crate::ingest::testing::{QUARANTINE, TABLE, rewrite};
use crate::lake::{DataFile, Replaced, Table};

/// The maximum number of rewrites that begin in one schedule.
const REWRITES_MAX: usize = 40;
/// The maximum number of files that one rewrite replaces.
const FILES_MAX: usize = 3;

/// The maintenance of all servers in a schedule.
#[derive(Debug)]
pub(super) struct Maintenance {
    random: SeededRandom,
    /// The probability, in percent, that an idle actor begins a rewrite in a step.
    rewrite_percent: usize,
    rewrites_left: usize,
    /// For each server, the number of its actor's last operation.
    operations: BTreeMap<usize, u64>,
    /// The number of rewrites that were committed.
    pub(super) replaced: usize,
}

impl Maintenance {
    /// Creates the maintenance for a seed. Some schedules have no rewrites.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = SeededRandom::of(seed, "maintenance");
        let rewrite_percent = random.pick(&[0, 3, 10, 10, 30, 100]);
        Self { random, rewrite_percent, rewrites_left: REWRITES_MAX, operations: BTreeMap::new(), replaced: 0 }
    }
}

impl Schedule {
    /// Starts a rewrite on a server, at random. Does nothing if the server is not up, or if its last rewrite is in
    /// progress.
    pub(super) async fn maintain(&mut self, server: usize) {
        let ServerState::Up(ingest) = &self.servers[server].state else { return };
        let Maintenance { random, rewrite_percent, rewrites_left, operations, .. } = &mut self.maintenance;
        let busy = operations.get(&server).is_some_and(|operation| self.waiting.contains_key(operation));
        if busy || *rewrites_left == 0 || !random.percent(*rewrite_percent) {
            return;
        }
        let name = random.pick(&[TABLE, TABLE, TABLE, QUARANTINE]);
        let table = Arc::clone(&ingest.writer.tables()[name]);
        let from = choose_files(&self.bucket.archive(), &table, random);
        if from.is_empty() {
            return;
        }
        *rewrites_left -= 1;
        let parts = 1 + random.below(2);
        self.bucket.trace_line(|| format!("server {server} rewrites {} files of {name} as {parts}", from.len()));
        let rewriting = async move { SimOutcome::Rewritten(rewrite(&table, &from, parts).await) };
        let operation = self.start_operation(Actor::Maintenance(server), rewriting).await;
        self.maintenance.operations.insert(server, operation);
    }

    /// Handles the result of a rewrite.
    pub(super) fn rewritten(&mut self, server: usize, outcome: Result<Replaced>) {
        self.bucket.trace_line(|| match &outcome {
            Ok(Replaced::At(version)) => format!("server {server} has rewritten files in version {version}"),
            Ok(Replaced::Void) => format!("server {server} cannot rewrite files"),
            Err(_) => format!("server {server} fails to rewrite files"),
        });
        match outcome {
            Ok(Replaced::At(_)) => self.maintenance.replaced += 1,
            Ok(Replaced::Void) => {}
            Err(error) if error.kind() == Kind::Unavailable => {}
            Err(error) => self.failures.push(format!("the rewrite on server {server} failed: {error:?}")),
        }
    }
}

/// Chooses random live files of one day.
fn choose_files(objects: &InMemory, table: &Table, random: &mut SeededRandom) -> Vec<Arc<DataFile>> {
    let positions = log_positions(objects, &table.contract().name);
    let mut live: Vec<_> = table.snapshot().files().cloned().collect();
    live.sort_by_key(|file| positions[&*file.path]);
    if live.is_empty() {
        return live;
    }
    let day = live[random.below(live.len())].day;
    live.retain(|file| file.day == day);
    // Half of the rewrites choose among the newest files, because the commits of these files may still be in doubt.
    if random.percent(50) {
        live.drain(..live.len().saturating_sub(FILES_MAX));
    }
    let count = 1 + random.below(FILES_MAX);
    while live.len() > count {
        live.remove(random.below(live.len()));
    }
    live
}

/// Returns the version that added each file, and the position of the file in the log entry.
fn log_positions(objects: &InMemory, table: &str) -> BTreeMap<String, (usize, usize)> {
    let mut positions = BTreeMap::new();
    let entries = names(objects, &format!("{table}/_delta_log"));
    for (version, name) in entries.iter().filter(|name| name.ends_with(".json")).enumerate() {
        for (line, text) in std::str::from_utf8(&read(objects, name)).unwrap().lines().enumerate() {
            let action: Value = serde_json::from_str(text).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                positions.insert(path.to_owned(), (version, line));
            }
        }
    }
    positions
}
