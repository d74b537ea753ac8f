//! Handles gaps. There is a gap in a partition if the brokers have deleted messages before the source read them.
//!
//! The client reports a gap as an error for an offset that is out of range. Depending on `on_gap`, the partition stops
//! or continues from the oldest message. In either case, the gap is logged as an error.
//!
//! An offset that has no message is not a gap in itself. Compaction removes messages, but it does not change the start
//! offset of the log, so the client continues with the next message that exists. Retention and a deletion of records
//! increase the start offset. Kafka does not record which offsets below the start offset had messages.
//!
//! **Invariant:** there is a gap if the next offset to read is below the start offset of the log or above its end, even
//! if this offset belongs to a control record and no message is lost.

use std::ops::Range;
use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::session::{KafkaSession, REQUEST_TIME_MAX, client_failed};
use super::source::Source;
use crate::config::OnGap;
use crate::error::Result;
use crate::ingest::source::TopicPartition;
use crate::lake::LagState;
use crate::telemetry::SourceTrouble;

impl KafkaSession<'_> {
    /// Finds the partitions whose next offset is out of range, and stops each of them or skips its gap. The check
    /// covers all partitions, because the client's error does not name the partition.
    pub(super) fn find_gaps(&mut self) -> Result<()> {
        let (mut has_gap, mut list) = (false, TopicPartitionList::new());
        for (topic_partition, reader) in self.readers.iter_mut().filter(|(_, reader)| !reader.is_stopped) {
            let (low, high) = match self.client.fetch_watermarks(
                &topic_partition.topic,
                topic_partition.partition,
                REQUEST_TIME_MAX,
            ) {
                Ok(watermarks) => watermarks,
                Err(error) => {
                    tracing::warn!(source = %self.source.route.source, ?topic_partition, %error, "cannot fetch the offset range of a partition");
                    (0, i64::MAX)
                }
            };
            if let Some(next) = reader.offsets.next().filter(|next| !(low..=high).contains(next)) {
                has_gap = true;
                let message = gap_message(self.source, topic_partition, next, low..high);
                tracing::error!(source = %self.source.route.source, ?topic_partition, next, low, high, "{message}");
                if self.source.config.on_gap == OnGap::Stop {
                    reader.is_stopped = true;
                    self.writer.report_lag(topic_partition, LagState::Unknown);
                    self.source.monitor.stopped(topic_partition, SourceTrouble::Gap, message);
                    continue;
                }
                let skipped = u64::try_from(low - next).unwrap_or(0);
                self.source.monitor.skipped(topic_partition, skipped, message);
                reader.offsets.skip_to(low);
                self.message_batch.advance_to(topic_partition, low, Instant::now());
            }
            let offset = reader.offsets.next().map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&topic_partition.topic, topic_partition.partition, offset)
                .map_err(client_failed)?;
        }
        if !has_gap {
            self.wait_after_error();
        }
        self.seek(list)
    }
}

/// Describes the cause of a gap, the offsets, and what the operator can do about it. `available` contains the offsets
/// that the brokers have.
fn gap_message(source: &Source, topic_partition: &TopicPartition, next: i64, available: Range<i64>) -> String {
    let (name, TopicPartition { topic, partition }) = (&source.route.source, topic_partition);
    let Range { start: low, end: high } = available;
    let problem = match next < low {
        true => "messages were deleted before they were read",
        false => "the topic was recreated or has lost its newest messages",
    };
    let consequence = match source.config.on_gap {
        OnGap::Stop => format!(
            "the partition is stopped; to continue from offset {low}, set sources.{name}.on_gap = \"earliest\" and restart"
        ),
        OnGap::Earliest => {
            format!("the partition continues from offset {low}, because sources.{name}.on_gap is \"earliest\"")
        }
    };
    format!(
        "topic `{topic}`, partition {partition}: {problem}: the next offset is {next}, but the brokers have the offsets \
         from {low} to before {high}; {consequence}"
    )
}
