//! Bloom filters of files that were looked into lately, bounded by bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::bloom_filter::Sbbf;

/// Bytes of filters that a table keeps: at 10 to 20 bits an id, those of some 30 million events.
const FILTER_BYTES_MAX: usize = 64 << 20;
/// Bytes of one block of a filter.
const BLOCK_BYTES: usize = 32;
/// What an entry takes beside its filter, about.
const ENTRY_BYTES: usize = 256;

/// What a file says of its ids: one filter a row group, where it has one.
#[derive(Debug)]
pub(in crate::lake) struct FileBloomFilters {
    groups: Vec<Option<Sbbf>>,
}

impl FileBloomFilters {
    pub(in crate::lake) fn new(groups: Vec<Option<Sbbf>>) -> Self {
        Self { groups }
    }

    /// Whether the file may hold the id. It does not when this is false.
    pub(in crate::lake) fn may_hold(&self, id: &str) -> bool {
        self.groups.iter().any(|group| group.as_ref().is_none_or(|filter| filter.check(id)))
    }

    fn bytes(&self) -> usize {
        let blocks: usize = self.groups.iter().flatten().map(Sbbf::num_blocks).sum();
        blocks * BLOCK_BYTES + ENTRY_BYTES
    }
}

/// Filters by path. The one that was loaded first goes first.
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
        self.kept().by_path.get(path).cloned()
    }

    /// Keeps a filter, for as long as there is room.
    pub(in crate::lake) fn keep(&self, path: &Arc<str>, filter: FileBloomFilters) -> Arc<FileBloomFilters> {
        let (filter, mut kept) = (Arc::new(filter), self.kept());
        if kept.by_path.insert(path.clone(), filter.clone()).is_none() {
            kept.order.push_back(path.clone());
            kept.bytes += filter.bytes();
        }
        while kept.bytes > FILTER_BYTES_MAX {
            let Some(oldest) = kept.order.pop_front() else { break };
            let gone = kept.by_path.remove(&oldest);
            kept.bytes -= gone.map_or(0, |gone| gone.bytes());
        }
        filter
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, CachedFilters> {
        // A poisoned cache is still a cache.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
