//! Determines the offsets at which the client starts to read the assigned partitions, and moves the client to them.
//!
//! ```text
//!   the table's offset ──► if it has none: the offset found at the last assignment
//!                             └──► if there is none: the brokers' offset for `start` ──► the client
//! ```
//!
//! The input is the list of partitions that the consumer group assigned to this server. The output is a
//! [`PartitionReader`](super::session::PartitionReader) and a fetch offset for each of these partitions.
//!
//! **Invariant:** a source always starts to read a new partition at the same offset, even after a restart, because the
//! offset for `start` is looked up only once and then stored.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::session::{KafkaSession, PartitionReader, REQUEST_TIME_MAX, client_failed, offset_list};
use crate::config::StartAt;
use crate::error::Result;
use crate::ingest::group_commit::stopping;
use crate::ingest::source::{StoredOffsets, TopicPartition};
use crate::telemetry::SourceTrouble;

impl KafkaSession<'_> {
    /// Loads the stored offsets of partitions and resets the readers of these partitions. Returns the offsets from
    /// which the client must read. Retries until it succeeds, and fails with `Unavailable` if the session stops.
    pub(super) fn load_offsets(&mut self, partitions: &[TopicPartition]) -> Result<TopicPartitionList> {
        let partitions = partitions.iter().filter_map(|topic_partition| self.with_own_topic(topic_partition));
        let partitions: Vec<TopicPartition> = partitions.collect();
        loop {
            let stored = self.writer.stored_offsets(partitions.iter().cloned());
            match self.runtime.block_on(stored).and_then(|(stored, started)| self.reset_readers(stored, started)) {
                Ok(list) => return Ok(list),
                Err(error) => {
                    let source = &self.source.route.source;
                    tracing::warn!(%source, ?error, "cannot load partition offsets; retrying");
                    let message = format!("cannot load partition offsets: {error:?}");
                    self.source.monitor.failed(SourceTrouble::Other, message);
                }
            }
            self.wait_after_error();
            if self.stop.is_cancelled() {
                return Err(stopping());
            }
        }
    }

    /// Replaces the topic string of a partition with the copy that the whole session shares. Returns `None` if the
    /// source does not read the topic.
    fn with_own_topic(&self, topic_partition: &TopicPartition) -> Option<TopicPartition> {
        Some(TopicPartition {
            topic: self.topics.get(&topic_partition.topic)?.clone(),
            partition: topic_partition.partition,
        })
    }

    /// Resets the readers of partitions to the stored offsets. Returns the offsets from which the client must read.
    fn reset_readers(
        &mut self,
        stored: BTreeMap<TopicPartition, StoredOffsets>,
        started: Option<i64>,
    ) -> Result<TopicPartitionList> {
        // Look up a partition's start offset only once. If the first batch is dropped, its messages must be read again,
        // but a second lookup could return a later offset.
        let known =
            |topic_partition: &TopicPartition| self.readers.get(topic_partition).and_then(|reader| reader.start);
        let unknown =
            stored.iter().filter(|(topic_partition, offsets)| offsets.table.or(known(topic_partition)).is_none());
        let unknown: Vec<TopicPartition> = unknown.map(|(topic_partition, _)| topic_partition.clone()).collect();
        let now = self.source.clock.now() / 1_000;
        let since = match self.source.config.start {
            StartAt::Earliest => None,
            StartAt::Latest => Some(started.unwrap_or_else(|| *self.started.get_or_insert(now))),
            StartAt::Time(time) => Some(time),
        };
        let starts = match since {
            Some(since) => self.start_offsets(&unknown, since)?,
            None => BTreeMap::new(),
        };
        let mut list = TopicPartitionList::new();
        for (topic_partition, stored) in stored {
            let PartitionReader { start, mut offsets, lag, .. } =
                self.readers.remove(&topic_partition).unwrap_or_default();
            let start = stored.table.or(start).or(starts.get(&topic_partition).copied());
            let next = offsets.reset(stored.table, start);
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset)
                .map_err(client_failed)?;
            if let (None, Some(_), Some(next), false) = (stored.table, start, next, self.is_paused()) {
                // Store the start offset before the first message is read. Otherwise, a restart could look up a later
                // start offset and skip messages.
                self.message_batch.advance_to(&topic_partition, next, Instant::now());
                if started.is_none() {
                    self.message_batch.started = self.started;
                }
            }
            if offsets.offset_to_store().is_some() {
                self.unstored_since.get_or_insert_with(Instant::now);
            }
            self.source.monitor.assigned(&topic_partition);
            let reader = PartitionReader { stored, start, offsets, truncation: None, is_stopped: false, lag };
            self.readers.insert(topic_partition.clone(), reader);
            self.report_lag(&topic_partition);
        }
        Ok(list)
    }

    /// Returns the start offset of each partition: the offset of the first message at or after the time `since` (in
    /// milliseconds since 1970), or the end offset if there is no such message.
    fn start_offsets(&self, partitions: &[TopicPartition], since: i64) -> Result<BTreeMap<TopicPartition, i64>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let list = offset_list(partitions, Offset::Offset(since))?;
        let found = self.client.offsets_for_times(list, REQUEST_TIME_MAX).map_err(client_failed)?;
        let mut starts = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(client_failed)?;
            let topic_partition = TopicPartition { topic: element.topic().into(), partition: element.partition() };
            let start = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => {
                    let TopicPartition { topic, partition } = &topic_partition;
                    let watermarks = self.client.fetch_watermarks(topic, *partition, REQUEST_TIME_MAX);
                    watermarks.map_err(client_failed)?.1
                }
            };
            starts.insert(topic_partition, start);
        }
        Ok(starts)
    }

    /// Moves the client to the offsets in `list`. The client cannot seek in a partition that it is not fetching. Such
    /// partitions are therefore unassigned and assigned again with the new offset.
    pub(super) fn seek(&self, list: TopicPartitionList) -> Result<()> {
        if list.count() == 0 {
            return Ok(());
        }
        let sought = self.client.seek_partitions(list, REQUEST_TIME_MAX).map_err(client_failed)?;
        let mut idle = TopicPartitionList::new();
        for element in sought.elements().iter().filter(|element| element.error().is_err()) {
            idle.add_partition_offset(element.topic(), element.partition(), element.offset()).map_err(client_failed)?;
        }
        if idle.count() > 0 {
            self.client.incremental_unassign(&idle).map_err(client_failed)?;
            self.client.incremental_assign(&idle).map_err(client_failed)?;
        }
        Ok(())
    }

    /// Stops reporting the lag of a partition that this server no longer reads.
    pub(super) fn release(&self, topic_partition: &TopicPartition) {
        self.source.monitor.released(topic_partition);
        self.writer.release(topic_partition);
    }
}
