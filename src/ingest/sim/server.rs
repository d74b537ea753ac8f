//! A simulated server and its life cycle: down, starting, up, stopping, with a crash possible at any moment.
//!
//! In: a bucket. Out: a started [`Ingest`] with its own table handles, as in a separate process.

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

/// The number of commits between two checkpoints, small enough that a short schedule writes some.
const CHECKPOINT_INTERVAL: u64 = 8;

/// A simulated server.
#[derive(Debug)]
pub(super) struct SimServer {
    /// The number of its current process.
    pub(super) process: usize,
    pub(super) life: Life,
    pub(super) reader: TopicReader,
}

#[derive(Debug)]
pub(super) enum Life {
    /// Down until this step.
    Down(usize),
    Starting,
    Up(Arc<Ingest>),
    /// A graceful stop is in progress.
    Stopping(Arc<Ingest>),
}

/// The server's reader of the topic.
#[derive(Debug, Default)]
pub(super) struct TopicReader {
    /// The partitions that it believes are assigned to it.
    pub(super) places: BTreeMap<usize, ReaderPartition>,
    pub(super) busy: bool,
    pub(super) rests_until: usize,
}

/// A partition from a reader's point of view.
#[derive(Debug, Clone, Default)]
pub(super) struct ReaderPartition {
    /// The position; unknown until the reader loads it from the tables.
    pub(super) position: Option<Position>,
    /// Set if the partition moved to another server: this one notices after this number of message batches.
    pub(super) hauls_left: Option<usize>,
}

impl SimServer {
    pub(super) fn new() -> Self {
        Self { process: usize::MAX, life: Life::Down(0), reader: TopicReader::default() }
    }

    /// The ingest service that accepts events now.
    pub(super) fn ingest(&self) -> Option<&Arc<Ingest>> {
        match &self.life {
            Life::Up(ingest) | Life::Stopping(ingest) => Some(ingest),
            Life::Down(_) | Life::Starting => None,
        }
    }
}

/// Wraps a bucket as a lake.
pub(super) fn lake(objects: Arc<dyn ObjectStore>, clock: Clock) -> Store {
    Store::wrap(objects, "memory:///".parse().unwrap(), Path::default()).with_clock(clock)
}

/// Opens the table and its quarantine in a lake.
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

/// The number of ids that a process keeps in memory: none, few, or all of a schedule. It looks up other ids in the files.
pub(super) const WINDOWS: [usize; 3] = [0, 9, 10_000];

/// Starts a process that uses this store client.
pub(super) async fn start(line: StoreClient, clock: Clock, dedupe_ids_max: usize) -> Result<Arc<Ingest>> {
    let store = lake(Arc::new(line), clock.clone());
    // No batch waits for more events: no time passes in a schedule.
    let limits = IngestConfig { batch_age_max: Duration::ZERO, dedupe_ids_max, ..limits() };
    Ingest::start(open(&store).await?, Vec::new(), limits, clock, Arc::default()).await
}
