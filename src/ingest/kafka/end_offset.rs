//! The end offset of a partition, and the parser for the end offset in the client's "end reached" event.

/// The text before the offset in the client's "end reached" event.
const EOF_PREFIX: &str = "reached end of partition at offset ";

/// A partition's end offset, as its leader last reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndOffset {
    /// The offset after the last record that a consumer may read. With the default isolation level, `read_committed`,
    /// this is the last stable offset, so records of open transactions are at this offset or later.
    pub(super) offset: i64,
    /// The oldest offset that the leader still has. `None` if unknown.
    pub(super) low: Option<i64>,
}

/// Parses the offset in the text of an "end reached" event. The Rust binding provides the partition number separately,
/// but the offset appears only in this text.
pub(super) fn parse_eof_offset(reason: &str) -> Option<i64> {
    let (_, end) = reason.split_once(EOF_PREFIX)?;
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

    use super::super::session::offset_list;
    use super::super::tests::{Kafka, TOPIC, event};
    use super::*;
    use crate::ingest::source::TopicPartition;

    /// A client context that collects the texts of error events.
    #[derive(Default)]
    struct Reasons(Mutex<Vec<String>>);

    impl ClientContext for Reasons {
        fn error(&self, _error: KafkaError, reason: &str) {
            self.0.lock().unwrap().push(reason.to_owned());
        }
    }

    impl ConsumerContext for Reasons {}

    /// Fails if a new version of librdkafka changes the text of the event.
    #[test]
    fn end_reached_events_contain_the_offset() {
        let kafka = Kafka::start();
        kafka.send(0, (0..3).map(event));
        let client: BaseConsumer<Reasons> = ClientConfig::new()
            .set("bootstrap.servers", kafka.source().brokers.join(","))
            .set("group.id", "ends")
            .set("enable.partition.eof", "true")
            .create_with_context(Reasons::default())
            .unwrap();
        let partitions = [0, 1].map(|partition| TopicPartition { topic: TOPIC.into(), partition });
        client.assign(&offset_list(&partitions, Offset::Beginning).unwrap()).unwrap();
        let (mut ends, mut messages) = (BTreeMap::new(), 0);
        while ends.len() < 2 {
            match client.poll(Duration::from_secs(60)).expect("the client reaches both ends within a minute") {
                Ok(_) => messages += 1,
                Err(KafkaError::PartitionEOF(partition)) => {
                    let reasons = client.context().0.lock().unwrap();
                    ends.insert(partition, (parse_eof_offset(reasons.last().unwrap()), messages));
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(ends[&1].0, Some(0), "{ends:?}");
        assert_eq!(ends[&0], (Some(3), 3), "the event follows all messages");
        assert_eq!(parse_eof_offset("something else"), None);
    }
}
