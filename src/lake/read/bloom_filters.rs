//! A cache of files' bloom filters, bounded in size.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::bloom_filter::Sbbf;

/// The maximum size of a table's cached filters, in bytes. At 10 to 20 bits per id, that is about 30 million events.
const FILTER_BYTES_MAX: usize = 64 << 20;
/// The size of one filter block, in bytes.
const BLOCK_BYTES: usize = 32;
/// The approximate size of a cache entry without its filter.
const ENTRY_BYTES: usize = 256;

/// The id filters of a file: one per row group, if present.
#[derive(Debug)]
pub(in crate::lake) struct FileBloomFilters {
    groups: Vec<Option<Sbbf>>,
}

impl FileBloomFilters {
    pub(in crate::lake) fn new(groups: Vec<Option<Sbbf>>) -> Self {
        Self { groups }
    }

    /// Whether the file may contain the id. If this is false, it does not.
    pub(in crate::lake) fn may_hold(&self, id: &str) -> bool {
        self.groups.iter().any(|group| group.as_ref().is_none_or(|filter| filter.check(id)))
    }

    fn bytes(&self) -> usize {
        let blocks: usize = self.groups.iter().flatten().map(Sbbf::num_blocks).sum();
        blocks * BLOCK_BYTES + ENTRY_BYTES
    }
}

/// Filters by path. Evicts the filter that was loaded first.
#[derive(Debug, Default)]
pub(in crate::lake) struct BloomFilterCache(Mutex<CachedFilters>);

#[derive(Debug, Default)]
struct CachedFilters {
    by_path: HashMap<Arc<str>, Arc<FileBloomFilters>>,
    order: VecDeque<Arc<str>>,
    bytes: usize,
}

impl BloomFilterCache {
    pub(in crate::lake) fn get(&self, path: &str) -> Option<Arc<FileBloomFilters>> {
        self.cached().by_path.get(path).cloned()
    }

    /// Caches a filter, and evicts the oldest filters beyond the limit.
    pub(in crate::lake) fn keep(&self, path: &Arc<str>, filter: FileBloomFilters) -> Arc<FileBloomFilters> {
        let (filter, mut cached) = (Arc::new(filter), self.cached());
        if cached.by_path.insert(path.clone(), filter.clone()).is_none() {
            cached.order.push_back(path.clone());
            cached.bytes += filter.bytes();
        }
        while cached.bytes > FILTER_BYTES_MAX {
            let Some(oldest) = cached.order.pop_front() else { break };
            let evicted = cached.by_path.remove(&oldest);
            cached.bytes -= evicted.map_or(0, |evicted| evicted.bytes());
        }
        filter
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, CachedFilters> {
        // A poisoned cache is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
