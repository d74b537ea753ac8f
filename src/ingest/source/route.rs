//! The route of a source: where its events go, and the names of the transactions that hold its state in the table.

use std::sync::Arc;

use super::message_batch::TopicPartition;
use crate::contract::{Format, Owner, PayloadFormat};
use crate::ingest::schema_registry::MessageDecoder;
use crate::lake::PartitionFeed;
use crate::transform::Transform;

/// The destination of a source's events, and how its messages are read.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct Route {
    /// The source's name.
    pub(in crate::ingest) source: String,
    pub(in crate::ingest) table: String,
    pub(in crate::ingest) format: Format,
    /// The owner of its events, as far as the configuration determines it.
    pub(in crate::ingest) owner: Owner,
    /// Reads messages with schemas, if the contract alone cannot decode them.
    pub(in crate::ingest) reader: Option<Arc<MessageDecoder>>,
    /// Transforms messages to the columns of the table; `None` if the messages already have them.
    pub(in crate::ingest) transform: Option<Arc<Transform>>,
}

impl Route {
    /// The format under which the quarantine keeps the received messages.
    pub(super) fn kept_as(&self) -> PayloadFormat {
        self.reader.as_ref().map_or(self.format.payload_format(), |reader| reader.kept_as())
    }

    /// The application transaction that holds a partition's offset.
    pub(super) fn app(&self, topic_partition: &TopicPartition) -> String {
        format!("{}{}:{}", self.app_prefix(), topic_partition.topic, topic_partition.partition)
    }

    /// The prefix of the source's transaction names.
    pub(super) fn app_prefix(&self) -> String {
        format!("kafka:{}:", self.source)
    }

    /// The transaction that holds the first start of the source. No partition's transaction has this name.
    pub(super) fn started_app(&self) -> String {
        format!("{}started", self.app_prefix())
    }

    /// The transaction that holds whether the source is paused.
    pub(super) fn pause_app(&self) -> String {
        format!("pause:{}", self.source)
    }

    pub(super) fn feed(&self, topic_partition: &TopicPartition) -> PartitionFeed {
        PartitionFeed {
            source: self.source.clone(),
            topic: topic_partition.topic.clone(),
            partition: topic_partition.partition,
        }
    }
}
