//! A simulated server. It is down, starting, up or stopping, and it can crash at any time.
//!
//! Each start creates an [`Ingest`] with its own table handles, as in a separate process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;

use super::store_client::StoreClient;
use crate::clock::Clock;
use crate::config::{IngestConfig, LakeConfig};
use crate::contract::{Contract, Retention};
use crate::error::Result;
use crate::ingest::Ingest;
use crate::ingest::source::StoredOffsets;
use crate::ingest::testing::{contract, limits};
use crate::lake::{Store, Table, Tables};

/// The number of commits between two checkpoints. The number is small, so that even a short schedule writes several
/// checkpoints.
const CHECKPOINT_INTERVAL: u64 = 8;

/// A simulated server.
#[derive(Debug)]
pub(super) struct SimServer {
    /// The number of the server's current process.
    pub(super) process: usize,
    pub(super) state: ServerState,
    pub(super) reader: TopicReader,
}

/// The state of a simulated server.
#[derive(Debug)]
pub(super) enum ServerState {
    /// The server is down, and starts again at this step.
    Down(usize),
    Starting,
    Up(Arc<Ingest>),
    /// The server is shutting down gracefully.
    Stopping(Arc<Ingest>),
}

/// The topic reader of a server.
#[derive(Debug, Default)]
pub(super) struct TopicReader {
    /// The partitions that the reader reads, including those that have been moved to the other server without the
    /// reader's knowledge.
    pub(super) partitions: BTreeMap<usize, ReaderPartition>,
    /// Whether an operation of the reader is in progress.
    pub(super) busy: bool,
    /// The step at which the reader continues.
    pub(super) idle_until: usize,
}

/// A reader's state for one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct ReaderPartition {
    /// The partition's stored offsets. `None` until the reader loads the offsets from the tables.
    pub(super) offsets: Option<StoredOffsets>,
    /// After the partition has moved to the other server: the number of further batches that the reader stores before
    /// it learns of the move. `None` if the partition has not moved.
    pub(super) batches_left: Option<usize>,
}

impl SimServer {
    pub(super) fn new() -> Self {
        Self { process: usize::MAX, state: ServerState::Down(0), reader: TopicReader::default() }
    }

    /// Returns the running ingest service. Returns `None` if the server is down or starting.
    pub(super) fn ingest(&self) -> Option<&Arc<Ingest>> {
        match &self.state {
            ServerState::Up(ingest) | ServerState::Stopping(ingest) => Some(ingest),
            ServerState::Down(_) | ServerState::Starting => None,
        }
    }
}

/// Creates a store whose lake is in the bucket `objects`.
pub(super) fn lake(objects: Arc<dyn ObjectStore>, clock: Clock) -> Store {
    Store::wrap(objects, "memory:///".parse().unwrap(), Path::default()).with_clock(clock)
}

/// Opens the table and its quarantine.
pub(super) async fn open(store: &Store, retention: &Retention) -> Result<Arc<Tables>> {
    let config = LakeConfig { checkpoint_interval: CHECKPOINT_INTERVAL, ..LakeConfig::default() };
    let contract = contract().with_retention(retention.clone());
    let mut tables = BTreeMap::new();
    for contract in [Contract::quarantine_of(&contract), contract] {
        let name = contract.name.clone();
        tables.insert(name, Table::open(store, Arc::new(contract), &config).await?);
    }
    Ok(Arc::new(tables))
}

/// The values of `dedupe_ids_max` in a schedule. The dedupe window of a process contains no ids, a few ids, or all ids
/// of the schedule. The other ids are looked up in files.
pub(super) const DEDUPE_IDS_MAX: [usize; 3] = [0, 9, 10_000];

/// Starts a process that uses the given store client.
pub(super) async fn start(
    store_client: StoreClient,
    clock: Clock,
    dedupe_ids_max: usize,
    retention: Retention,
) -> Result<Arc<Ingest>> {
    let store = lake(Arc::new(store_client), clock.clone());
    // A batch must not wait for more events, because time does not pass in a schedule.
    let limits = IngestConfig { batch_age_max: Duration::ZERO, dedupe_ids_max, ..limits() };
    Ingest::start(open(&store, &retention).await?, Vec::new(), limits, clock, Arc::default()).await
}
