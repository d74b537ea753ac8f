//! Stores the offsets that have advanced past records without messages, when the server stops.
//!
//! While the source is running, such an offset is stored with the next message, or after a minute. If the server stopped
//! before that, retention could delete the records at the stored offset in the meantime. The next session would then
//! report a gap, although no message is missing.
//!
//! **Invariant:** messages that were read but not stored are not affected. The next session reads them again.

use std::time::{Duration, Instant};

use super::session::KafkaSession;
use crate::error::Error;
use crate::ingest::source::MessageBatch;

/// The time limit for storing the offsets. If the lake does not respond in time, the next session reads the records
/// again.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

impl KafkaSession<'_> {
    /// Stores the settled offset of each partition that is not stored yet. Failures are logged and otherwise ignored.
    pub(super) fn flush_offsets(&self) {
        if self.is_paused() {
            return;
        }
        let mut offsets_only = MessageBatch::with_capacity(0, 0);
        offsets_only.commit_now = true;
        for (topic_partition, reader) in self.readers.iter().filter(|(_, reader)| !reader.is_stopped) {
            if let Some(settled) = reader.offsets.settled_to_store() {
                offsets_only.advance_to(topic_partition, settled, Instant::now());
            }
        }
        if offsets_only.ranges.is_empty() {
            return;
        }
        let source = &self.source.route.source;
        offsets_only.guard = Some(self.pause.guard(&self.source.route, self.source.clock.now()));
        let stored = self.readers.iter().map(|(topic_partition, reader)| (topic_partition.clone(), reader.stored));
        let stored = stored.collect();
        let storing = async {
            let storing = tokio::time::timeout(FLUSH_TIME_MAX, self.writer.store(offsets_only, &stored));
            storing.await.unwrap_or_else(|_| Err(Error::unavailable("the lake did not respond in time")))
        };
        if let Err(error) = self.runtime.block_on(storing) {
            tracing::info!(%source, ?error, "cannot store the offsets of records without messages; they are read again");
        }
    }
}
