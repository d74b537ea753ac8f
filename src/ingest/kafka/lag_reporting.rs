//! Handles the end offsets of partitions. Uses them to compute the lag, and to advance past records that are not
//! messages.
//!
//! ```text
//!   statistics ─► the end offset of a partition ─┐
//!                                                ├─► lag ─► metrics, operators, freshness
//!   event "end reached" ─► partition offsets ────┘
//! ```
//!
//! The client reports end offsets in its statistics and in "end reached" events. The session computes the lag from
//! both. "End reached" events also advance [`PartitionOffsets`](crate::ingest::source::PartitionOffsets) past control
//! records and aborted messages.
//!
//! The client never returns control records or aborted messages. The client queues an "end reached" event after all
//! messages before the end. If the partition is revoked or the session seeks, the client drops the event together with
//! those messages. The event therefore proves that the client has returned every message before the end. The statistics
//! do not prove this, because another thread computes them independently of the queue.
//!
//! **Invariant:** the next offset of a partition advances to an end offset only after the session has taken every
//! message before it.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::end_offset::EndOffset;
use super::session::{KafkaSession, client_failed};
use crate::error::Result;
use crate::ingest::source::TopicPartition;
use crate::lake::LagState;

impl KafkaSession<'_> {
    /// Records the end offset of a partition, as the brokers reported it.
    pub(super) fn set_end(&mut self, topic_partition: &TopicPartition, end: EndOffset) {
        let Some(reader) = self.readers.get_mut(topic_partition) else { return };
        reader.lag.set_end(end.offset, end.low, &reader.offsets, self.source.clock.now());
        self.report_lag(topic_partition);
    }

    /// Handles an "end reached" event: the client has returned every message before the end of the partition. The event
    /// contains the partition number but not the topic.
    pub(super) fn reach_end(&mut self, partition: i32) -> Result<()> {
        let Some(end) = self.client.context().take_eof_offset() else { return Ok(()) };
        if self.is_paused() {
            // A paused session drops the messages that it receives, so it may have dropped messages before the end.
            return Ok(());
        }
        let candidates = self.readers.iter().filter(|(topic_partition, reader)| {
            topic_partition.partition == partition && !reader.is_stopped && reader.offsets.may_reach(end)
        });
        let mut partitions: Vec<TopicPartition> =
            candidates.map(|(topic_partition, _)| topic_partition.clone()).collect();
        if self.source.config.topics.len() > 1 {
            // The event does not name the topic. It belongs to a topic for which the client's position in this
            // partition is `end`.
            let positions = self.client.position().map_err(client_failed)?;
            let position = |topic_partition: &TopicPartition| {
                Some(positions.find_partition(&topic_partition.topic, topic_partition.partition)?.offset())
            };
            partitions.retain(|topic_partition| position(topic_partition) == Some(Offset::Offset(end)));
        }
        let mut advanced = Vec::new();
        for topic_partition in partitions {
            let Some(reader) = self.readers.get_mut(&topic_partition) else { continue };
            let has_advanced = reader.offsets.reach_end(end);
            if reader.offsets.offset_to_store().is_some() && has_advanced {
                self.unstored_since.get_or_insert_with(Instant::now);
            }
            self.report_lag(&topic_partition);
            if has_advanced {
                advanced.push((topic_partition, end));
            }
        }
        self.commit_to_kafka(&advanced)
    }

    /// Reports the lag of a partition to operators and to the table. The freshness of the table depends on the lag.
    pub(super) fn report_lag(&self, topic_partition: &TopicPartition) {
        let Some(reader) = self.readers.get(topic_partition) else { return };
        if let Some(messages) = reader.lag.messages(&reader.offsets).filter(|_| !reader.is_stopped) {
            self.source.monitor.lag(topic_partition, messages);
        }
        let state = if reader.is_stopped { LagState::Unknown } else { reader.lag.state(&reader.offsets) };
        self.writer.report_lag(topic_partition, state);
    }
}
