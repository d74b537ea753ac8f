//! The ends of partitions: what the brokers hold, and whether the client has returned all of it.
//!
//! ```text
//!   statistics ─► the end of a partition ─┐
//!                                         ├─► lag ─► metrics, operators, freshness
//!   event "end reached" ─► read position ─┘
//! ```
//!
//! In: ends from the client's statistics, and its events that an end was reached. Out: positions that move past control
//! records and aborted messages (see [`ReadPosition`](crate::ingest::source::ReadPosition)), and the lag.
//!
//! The client never returns control records and aborted messages. It queues the event behind every message before the end,
//! and drops it, like the messages, when the partition is sought or revoked. So the event proves that no message before the
//! end is still to come. The statistics cannot prove that: another thread computes them, at another time.
//!
//! **Invariant:** a position moves to an end only after every message before that end was taken.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::session::{KafkaSession, broken};
use crate::error::Result;
use crate::ingest::source::TopicPartition;
use crate::lake::LagState;

/// The text before the offset in the client's event.
const END_WORDS: &str = "reached end of partition at offset ";

/// The end of a partition, as its leader reported it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionEnd {
    /// The offset after the last record; with `read_committed`, the default, the last stable offset: a transaction that is
    /// open does not count.
    pub(super) offset: i64,
    /// The oldest offset that the leader holds, if it is known.
    pub(super) low: Option<i64>,
}

impl KafkaSession<'_> {
    /// Notes where the brokers say that a partition ends.
    pub(super) fn set_end(&mut self, topic_partition: &TopicPartition, end: PartitionEnd) {
        let Some(place) = self.places.get_mut(topic_partition) else { return };
        place.behind.heard(end.offset, end.low, &place.read, self.source.clock.now());
        self.tell(topic_partition);
    }

    /// The client has returned every message before the end of a partition with this number.
    pub(super) fn reach_end(&mut self, partition: i32) -> Result<()> {
        let Some(end) = self.client.context().take_end() else { return Ok(()) };
        if self.is_paused() {
            // A paused session drops what it takes, so messages before the end may be missing.
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

    /// Updates what operators and readers of the table's freshness see of a partition.
    pub(super) fn tell(&self, topic_partition: &TopicPartition) {
        let Some(place) = self.places.get(topic_partition) else { return };
        if let Some(lag) = place.behind.lag(&place.read) {
            self.source.watch.lag(topic_partition, lag);
        }
        let standing = if place.stopped { LagState::Unknown } else { place.behind.standing(&place.read) };
        self.ingest.fed(&self.source.route, topic_partition, standing);
    }
}

/// The offset in the text of an "end reached" event. The Rust binding passes on the partition's number, but not the offset.
pub(super) fn end_in(reason: &str) -> Option<i64> {
    let (_, end) = reason.split_once(END_WORDS)?;
    end.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use rdkafka::client::ClientContext;
    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, ConsumerContext};
    use rdkafka::error::KafkaError;

    use super::super::session::list_of;
    use super::super::tests::{Kafka, TOPIC, event};
    use super::*;

    /// The texts of the client's events.
    #[derive(Default)]
    struct Reasons(Mutex<Vec<String>>);

    impl ClientContext for Reasons {
        fn error(&self, _error: KafkaError, reason: &str) {
            self.0.lock().unwrap().push(reason.to_owned());
        }
    }

    impl ConsumerContext for Reasons {}

    /// Fails if a new version of the client changes the text.
    #[test]
    fn the_offset_is_in_the_text_of_the_event() {
        let kafka = Kafka::start();
        kafka.send(0, (0..3).map(event));
        let client: BaseConsumer<Reasons> = ClientConfig::new()
            .set("bootstrap.servers", kafka.source().brokers.join(","))
            .set("group.id", "ends")
            .set("enable.partition.eof", "true")
            .create_with_context(Reasons::default())
            .unwrap();
        let spots = [0, 1].map(|partition| TopicPartition { topic: TOPIC.into(), partition });
        client.assign(&list_of(&spots, Offset::Beginning).unwrap()).unwrap();
        let (mut ends, mut messages) = (BTreeMap::new(), 0);
        while ends.len() < 2 {
            match client.poll(Duration::from_secs(60)).expect("the ends are reached within a minute") {
                Ok(_) => messages += 1,
                Err(KafkaError::PartitionEOF(partition)) => {
                    let reasons = client.context().0.lock().unwrap();
                    ends.insert(partition, (end_in(reasons.last().unwrap()), messages));
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(ends[&1].0, Some(0), "{ends:?}");
        assert_eq!(ends[&0], (Some(3), 3), "after all messages");
        assert_eq!(end_in("something else"), None);
    }
}
