//! The end of a partition as its leader reports it, and the offset in the client's "end reached" event.

/// The text before the offset in the client's event.
const END_WORDS: &str = "reached end of partition at offset ";

/// The end of a partition, as its leader reported it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionEnd {
    /// The offset after the last record. With `read_committed`, the default, it is the last stable offset, which excludes open
    /// transactions.
    pub(super) offset: i64,
    /// The oldest offset that the leader holds, if known.
    pub(super) low: Option<i64>,
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
    use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
    use rdkafka::error::KafkaError;
    use rdkafka::topic_partition_list::Offset;

    use super::super::session::list_of;
    use super::super::tests::{Kafka, TOPIC, event};
    use super::*;
    use crate::ingest::source::TopicPartition;

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
    fn the_text_of_the_event_contains_the_offset() {
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
