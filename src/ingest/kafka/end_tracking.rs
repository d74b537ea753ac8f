//! The ends of partitions: where they are, and whether the client has returned every message before them.
//!
//! ```text
//!   statistics ─► the end of a partition ─┐
//!                                         ├─► lag ─► metrics, operators, freshness
//!   event "end reached" ─► read position ─┘
//! ```
//!
//! In: ends from the client's statistics, and the client's "end reached" events. Out: positions that move past control
//! records and aborted messages (see [`ReadPosition`](crate::ingest::source::ReadPosition)), and the lag.
//!
//! The client never returns control records and aborted messages. It queues the event after every message before the end,
//! and drops the event, like the messages, when the partition is sought or revoked. So the event proves that the client has
//! returned every message before the end. The statistics cannot prove that: another thread computes them at another time.
//!
//! **Invariant:** a position moves to an end only after the session took every message before that end.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::partition_end::PartitionEnd;
use super::session::{KafkaSession, broken};
use crate::error::Result;
use crate::ingest::source::TopicPartition;
use crate::lake::LagState;

impl KafkaSession<'_> {
    /// Records the end of a partition as the brokers reported it.
    pub(super) fn set_end(&mut self, topic_partition: &TopicPartition, end: PartitionEnd) {
        let Some(place) = self.places.get_mut(topic_partition) else { return };
        place.behind.heard(end.offset, end.low, &place.read, self.source.clock.now());
        self.tell(topic_partition);
    }

    /// Handles the event that the client has returned every message before the end of a partition with this number.
    pub(super) fn reach_end(&mut self, partition: i32) -> Result<()> {
        let Some(end) = self.client.context().take_end() else { return Ok(()) };
        if self.is_paused() {
            // A paused session drops the messages that it receives, so messages before the end may be missing.
            return Ok(());
        }
        let reading = self.places.iter().filter(|(topic_partition, place)| {
            topic_partition.partition == partition && !place.stopped && place.read.may_reach(end)
        });
        let mut spots: Vec<TopicPartition> = reading.map(|(topic_partition, _)| topic_partition.clone()).collect();
        if self.source.config.topics.len() > 1 {
            // The event does not name the topic. A partition whose own position in the client is the end has reached it.
            let positions = self.client.position().map_err(broken)?;
            let position = |topic_partition: &TopicPartition| {
                Some(positions.find_partition(&topic_partition.topic, topic_partition.partition)?.offset())
            };
            spots.retain(|topic_partition| position(topic_partition) == Some(Offset::Offset(end)));
        }
        let mut settled = Vec::new();
        for topic_partition in spots {
            let Some(place) = self.places.get_mut(&topic_partition) else { continue };
            let has_moved = place.read.reached(end);
            if place.read.to_store().is_some() && has_moved {
                self.moved.get_or_insert_with(Instant::now);
            }
            self.tell(&topic_partition);
            if has_moved {
                settled.push((topic_partition, end));
            }
        }
        self.tell_kafka(&settled)
    }

    /// Updates the lag of a partition, for operators and for the table's freshness.
    pub(super) fn tell(&self, topic_partition: &TopicPartition) {
        let Some(place) = self.places.get(topic_partition) else { return };
        if let Some(lag) = place.behind.lag(&place.read) {
            self.source.watch.lag(topic_partition, lag);
        }
        let standing = if place.stopped { LagState::Unknown } else { place.behind.standing(&place.read) };
        self.writer.fed(topic_partition, standing);
    }
}
