//! Gaps: partitions whose next message the brokers no longer have.
//!
//! In: the client's error that an offset is out of range. Out: a partition that stops or continues from the oldest message,
//! depending on `on_gap`, and an error in the log.
//!
//! **Invariant:** the offset that must exist is the position, not the offset after the last message. Retention may delete the
//! control records between the two without losing a message.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::session::{ASK_TIME_MAX, KafkaSession, broken};
use super::source::Source;
use crate::config::OnGap;
use crate::error::Result;
use crate::ingest::source::TopicPartition;
use crate::lake::LagState;

impl KafkaSession<'_> {
    /// Finds the partitions whose position is out of range. The client does not name the partition, so this checks all of them.
    pub(super) fn find_gaps(&mut self) -> Result<()> {
        let (mut found, mut list) = (false, TopicPartitionList::new());
        for (topic_partition, place) in self.places.iter_mut().filter(|(_, place)| !place.stopped) {
            let (low, high) = match self.client.fetch_watermarks(
                &topic_partition.topic,
                topic_partition.partition,
                ASK_TIME_MAX,
            ) {
                Ok(watermarks) => watermarks,
                Err(error) => {
                    tracing::warn!(source = %self.source.route.source, ?topic_partition, %error, "cannot fetch the offset range of a partition");
                    (0, i64::MAX)
                }
            };
            if let Some(next) = place.read.position().filter(|next| !(low..=high).contains(next)) {
                found = true;
                tell_gap(self.source, topic_partition, next, low, high);
                if self.source.config.on_gap == OnGap::Stop {
                    place.stopped = true;
                    self.writer.fed(topic_partition, LagState::Unknown);
                    self.source.watch.stopped(topic_partition);
                    continue;
                }
                let skipped = u64::try_from(low - next).unwrap_or(0);
                self.source.metrics.sources.skipped(self.source.label(topic_partition), skipped);
                place.read.skip_to(low);
                self.message_batch.reach(topic_partition, low, Instant::now());
            }
            let offset = place.read.position().map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset).map_err(broken)?;
        }
        if !found {
            self.pause();
        }
        self.go_to(list)
    }
}

/// Logs which messages are missing, and the fix.
fn tell_gap(source: &Source, topic_partition: &TopicPartition, next: i64, low: i64, high: i64) {
    let (name, TopicPartition { topic, partition }) = (&source.route.source, topic_partition);
    let what = match next < low {
        true => "messages were deleted before they were read",
        false => "the topic was recreated, or has lost its newest messages",
    };
    let way = match source.config.on_gap {
        OnGap::Stop => format!(
            "the partition is stopped: set sources.{name}.on_gap = \"earliest\" and restart to continue from {low}"
        ),
        OnGap::Earliest => format!("the partition continues from {low}, because of sources.{name}.on_gap"),
    };
    tracing::error!(source = %name, %topic, partition, next, low, high, "{what}; {way}");
}
