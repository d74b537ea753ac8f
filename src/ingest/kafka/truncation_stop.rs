//! Stops a partition at a message that reports the truncation of a database table.
//!
//! ```text
//!   store ─► the batch contains the message ─► read the batch again ─► store the messages before it ─► stop the partition
//! ```
//!
//! **Invariant:** the messages before the truncation are stored, and the partition's offset in the table never advances
//! past the truncation.

use super::session::KafkaSession;
use crate::error::Result;
use crate::ingest::source::Truncation;
use crate::lake::LagState;
use crate::telemetry::SourceTrouble;

impl KafkaSession<'_> {
    /// Reads the messages of a dropped batch again. The partition stops when it reaches the truncation.
    pub(super) fn store_before(&mut self, truncation: &Truncation) -> Result<()> {
        match self.load_offsets(&self.running_partitions()) {
            Err(_) if self.stop.is_cancelled() => return Ok(()),
            list => {
                let list = list?;
                if let Some(reader) = self.readers.get_mut(&truncation.topic_partition) {
                    reader.truncation = Some(truncation.offset);
                }
                self.seek(list)?;
            }
        }
        self.check_pause()
    }

    /// Stops the partition of a truncation, and reports the ways to continue.
    pub(super) fn stop_at(&mut self, truncation: &Truncation) {
        let Truncation { topic_partition, offset } = truncation;
        let Some(reader) = self.readers.get_mut(topic_partition) else { return };
        reader.is_stopped = true;
        let (source, message) = (&self.source.route.source, truncation.message(&self.source.route.source));
        tracing::error!(%source, topic = %topic_partition.topic, partition = topic_partition.partition, offset, "{message}");
        self.writer.report_lag(topic_partition, LagState::Unknown);
        self.source.monitor.stopped(topic_partition);
        self.source.monitor.failed(SourceTrouble::Truncated, message);
    }
}
