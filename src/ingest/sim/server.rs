//! One server of a schedule, through its lives: down, starting, up, stopping, and dead at any moment in between.
//!
//! In: a bucket. Out: a started [`Ingest`] over tables of its own, as a process of its own would have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;

use super::store_client::StoreClient;
use crate::clock::Clock;
use crate::config::{IngestConfig, LakeConfig};
use crate::contract::Contract;
use crate::error::Result;
use crate::ingest::Ingest;
use crate::ingest::source::Position;
use crate::ingest::testing::{contract, limits};
use crate::lake::{Store, Table, Tables};

/// Commits between two checkpoints: few, so that a short schedule has some.
const CHECKPOINT_INTERVAL: u64 = 8;

/// A server.
#[derive(Debug)]
pub(super) struct SimServer {
    /// The number of its present process.
    pub(super) process: usize,
    pub(super) life: Life,
    pub(super) reader: TopicReader,
}

#[derive(Debug)]
pub(super) enum Life {
    /// Until this step.
    Down(usize),
    Starting,
    Up(Arc<Ingest>),
    /// It was told to.
    Stopping(Arc<Ingest>),
}

/// What reads the topic for it.
#[derive(Debug, Default)]
pub(super) struct TopicReader {
    /// Partitions that it believes to be its own.
    pub(super) places: BTreeMap<usize, ReaderPartition>,
    pub(super) busy: bool,
    pub(super) rests_until: usize,
}

/// A partition in the eyes of a reader.
#[derive(Debug, Clone, Default)]
pub(super) struct ReaderPartition {
    /// Unknown until the tables were asked.
    pub(super) position: Option<Position>,
    /// It went to another server, and this one will find out after so many hauls.
    pub(super) hauls_left: Option<usize>,
}

impl SimServer {
    pub(super) fn new() -> Self {
        Self { process: usize::MAX, life: Life::Down(0), reader: TopicReader::default() }
    }

    /// What takes events now.
    pub(super) fn ingest(&self) -> Option<&Arc<Ingest>> {
        match &self.life {
            Life::Up(ingest) | Life::Stopping(ingest) => Some(ingest),
            Life::Down(_) | Life::Starting => None,
        }
    }
}

/// The lake in a bucket.
pub(super) fn lake(objects: Arc<dyn ObjectStore>, clock: Clock) -> Store {
    Store::wrap(objects, "memory:///".parse().unwrap(), Path::default()).with_clock(clock)
}

/// The table and its quarantine in a lake.
pub(super) async fn open(store: &Store) -> Result<Arc<Tables>> {
    let config = LakeConfig { checkpoint_interval: CHECKPOINT_INTERVAL, ..LakeConfig::default() };
    let contract = contract();
    let mut tables = BTreeMap::new();
    for contract in [Contract::quarantine_of(&contract), contract] {
        let name = contract.name.clone();
        tables.insert(name, Table::open(store, Arc::new(contract), &config).await?);
    }
    Ok(Arc::new(tables))
}

/// Ids that a process keeps in memory: none, few, or all of a schedule. What it has forgotten it looks up.
pub(super) const WINDOWS: [usize; 3] = [0, 9, 10_000];

/// Starts a process at the end of its line.
pub(super) async fn start(line: StoreClient, clock: Clock, dedupe_ids_max: usize) -> Result<Arc<Ingest>> {
    let store = lake(Arc::new(line), clock.clone());
    // Nothing waits for company or for another attempt: no time passes in a schedule.
    let limits = IngestConfig { batch_age_max: Duration::ZERO, dedupe_ids_max, ..limits() };
    Ingest::start(open(&store).await?, Vec::new(), limits, clock, Arc::default()).await
}
