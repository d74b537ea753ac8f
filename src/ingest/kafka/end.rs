//! Where partitions end: what the brokers have, and what the client has handed out up to there.
//!
//! ```text
//!   statistics ─► the end of a partition ─┐
//!                                         ├─► lag ─► metrics, operators, freshness
//!   the client reached the end ─► position ┘
//! ```
//!
//! In: ends from the client's statistics, and its events that an end was reached. Out: positions that move over what is no
//! message (see [`ReadPosition`](crate::ingest::source::ReadPosition)), and the lag.
//!
//! The client hides the ends of transactions and aborted messages. It sends its event behind every message before the end, and
//! drops the event when the partition is read from elsewhere, as it does with messages: so the event alone proves that nothing
//! before the end is still to come. Statistics prove nothing: they are computed by another thread, at another time.
//!
//! **Invariant:** a position moves to an end only behind all messages before it.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::session::{KafkaSession, broken};
use crate::error::Result;
use crate::ingest::source::TopicPartition;
use crate::lake::LagState;

/// In front of the offset in the client's own words.
const END_WORDS: &str = "reached end of partition at offset ";

/// What a partition's leader has said of it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionEnd {
    /// The offset that its next message will have; of a client that reads committed messages only, the first offset of the
    /// oldest open transaction.
    pub(super) offset: i64,
    /// The oldest offset that it has, if the leader said so.
    pub(super) low: Option<i64>,
}

impl KafkaSession<'_> {
    /// The brokers have said where a partition ends.
    pub(super) fn hear_end(&mut self, topic_partition: &TopicPartition, end: PartitionEnd) {
        let Some(place) = self.places.get_mut(topic_partition) else { return };
        place.behind.heard(end.offset, end.low, &place.read, self.source.clock.now());
        self.tell(topic_partition);
    }

    /// The client has handed out every message before the end of a partition with this number.
    pub(super) fn reach_end(&mut self, partition: i32) -> Result<()> {
        let Some(end) = self.client.context().take_end() else { return Ok(()) };
        if self.is_paused() {
            // Messages before the end were dropped.
            return Ok(());
        }
        let reading = self.places.iter().filter(|(topic_partition, place)| {
            topic_partition.partition == partition && !place.stopped && place.read.may_reach(end)
        });
        let mut spots: Vec<TopicPartition> = reading.map(|(topic_partition, _)| topic_partition.clone()).collect();
        if self.source.config.topics.len() > 1 {
            // The library does not pass on which topic it is. One whose own position is the end has reached it in any case.
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

    /// Tells operators, and whoever asks how fresh the table is, how far a partition has come.
    pub(super) fn tell(&self, topic_partition: &TopicPartition) {
        let Some(place) = self.places.get(topic_partition) else { return };
        if let Some(lag) = place.behind.lag(&place.read) {
            self.source.watch.lag(topic_partition, lag);
        }
        let standing = if place.stopped { LagState::Unknown } else { place.behind.standing(&place.read) };
        self.ingest.fed(&self.source.route, topic_partition, standing);
    }
}

/// The end that the client has reached, in its own words: the library passes on the partition, and not the offset.
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

    /// What the client has said, in its own words.
    #[derive(Default)]
    struct Reasons(Mutex<Vec<String>>);

    impl ClientContext for Reasons {
        fn error(&self, _error: KafkaError, reason: &str) {
            self.0.lock().unwrap().push(reason.to_owned());
        }
    }

    impl ConsumerContext for Reasons {}

    /// A new version of the client may say it in other words: this test notices.
    #[test]
    fn the_client_says_which_end_it_has_reached() {
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
            match client.poll(Duration::from_secs(60)).expect("the ends come within a minute") {
                Ok(_) => messages += 1,
                Err(KafkaError::PartitionEOF(partition)) => {
                    let reasons = client.context().0.lock().unwrap();
                    ends.insert(partition, (end_in(reasons.last().unwrap()), messages));
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(ends[&1].0, Some(0), "{ends:?}");
        assert_eq!(ends[&0], (Some(3), 3), "behind all messages");
        assert_eq!(end_in("something else"), None);
    }
}
