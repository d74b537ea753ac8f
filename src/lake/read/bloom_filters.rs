//! A cache of the bloom filters of data files, with a maximum size.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::bloom_filter::Sbbf;

/// The maximum size of a table's cached filters, in bytes. A filter needs 10 to 20 bits per id, so filters for about 30
/// million events fit.
const FILTER_BYTES_MAX: usize = 64 << 20;
/// The size of one filter block, in bytes.
const BLOCK_BYTES: usize = 32;
/// The approximate size of a cache entry without its filter, in bytes.
const ENTRY_BYTES: usize = 256;

/// The bloom filters for a file's event ids. There is one element per row group, which is `None` if the row group has
/// no filter.
#[derive(Debug)]
pub(in crate::lake) struct FileBloomFilters {
    groups: Vec<Option<Sbbf>>,
}

impl FileBloomFilters {
    pub(in crate::lake) fn new(groups: Vec<Option<Sbbf>>) -> Self {
        Self { groups }
    }

    /// Returns false if the file certainly does not contain the id, and true if the file may contain it.
    pub(in crate::lake) fn may_contain(&self, id: &str) -> bool {
        self.groups.iter().any(|group| group.as_ref().is_none_or(|filter| filter.check(id)))
    }

    fn bytes(&self) -> usize {
        let blocks: usize = self.groups.iter().flatten().map(Sbbf::num_blocks).sum();
        blocks * BLOCK_BYTES + ENTRY_BYTES
    }
}

/// A cache of filters, keyed by file path. When it is full, it evicts the filters that were loaded first.
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

    /// Caches a file's filters, and evicts the oldest filters if the cache exceeds its limit.
    pub(in crate::lake) fn insert(&self, path: &Arc<str>, filter: FileBloomFilters) -> Arc<FileBloomFilters> {
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
        // If a thread panics while it holds the lock, the cache stays consistent, so poisoning can be ignored.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
