//! Deletes files in batches, one after another. Stops early if the store refuses deletes.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use object_store::path::Path;

use crate::lake::Table;

/// The number of files in a batch. Buckets delete up to 1,000 objects with one request.
const BATCH_FILES: usize = 500;
/// The number of batches in a row that the store may refuse completely.
const REFUSED_BATCHES_MAX: u32 = 3;

/// The result of [`Table::delete_files`].
#[derive(Debug, Default)]
pub(crate) struct DeletedFiles {
    /// The paths of the files that no longer exist.
    pub(crate) paths: HashSet<Arc<str>>,
    /// The number of deletes that failed.
    pub(crate) refused: u64,
    /// True if the rest of the files was not tried, because the store refused several batches in a row.
    pub(crate) has_stopped: bool,
}

impl Table {
    /// Deletes files, whose paths are relative to the table. A file that does not exist counts as deleted. Logs only the
    /// first refusal.
    pub(crate) async fn delete_files(&self, paths: &[Arc<str>]) -> DeletedFiles {
        let mut deleted = DeletedFiles::default();
        let mut refused_batches = 0;
        for batch in paths.chunks(BATCH_FILES) {
            let locations: Vec<Path> = batch.iter().map(|path| self.path_of(path)).collect();
            let requests = futures::stream::iter(locations.clone().into_iter().map(Ok)).boxed();
            let results: Vec<_> = self.location().0.objects.delete_stream(requests).collect().await;
            let (mut gone, mut missing, mut refused) = (HashSet::new(), 0, 0);
            for result in results {
                match result {
                    Ok(path) => {
                        gone.insert(path);
                    }
                    Err(object_store::Error::NotFound { .. }) => missing += 1,
                    Err(error) => {
                        if deleted.refused + refused == 0 {
                            let table = &self.contract.name;
                            tracing::warn!(%table, %error, "the store refuses to delete files that are no longer needed");
                        }
                        refused += 1;
                    }
                }
            }
            // An error does not name its object reliably. Missing files are found again in the next run, unless all files
            // of the batch are gone.
            let are_all_gone = refused == 0 && gone.len() + missing >= batch.len();
            let is_gone = |(location, _): &(&Path, &Arc<str>)| are_all_gone || gone.contains(*location);
            let paths = locations.iter().zip(batch).filter(is_gone);
            deleted.paths.extend(paths.map(|(_, path)| Arc::clone(path)));
            deleted.refused += refused;
            refused_batches = if refused > 0 && gone.is_empty() { refused_batches + 1 } else { 0 };
            if refused_batches >= REFUSED_BATCHES_MAX {
                deleted.has_stopped = true;
                break;
            }
        }
        deleted
    }
}
