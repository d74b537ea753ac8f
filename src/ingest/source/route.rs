//! The route of a source. It determines the table to which the source writes, and the names of the application
//! transactions that store the source's state in this table.

use std::sync::Arc;

use super::message_batch::TopicPartition;
use crate::contract::{Format, Owner, PayloadFormat};
use crate::ingest::schema_registry::MessageDecoder;
use crate::lake::PartitionFeed;
use crate::transform::Transform;

/// Where a source writes its events, and how it decodes its messages.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct Route {
    /// The source's name in the configuration.
    pub(in crate::ingest) source: String,
    pub(in crate::ingest) table: String,
    pub(in crate::ingest) format: Format,
    /// The owner of the source's events. [`Owner::PerEvent`] unless the configuration names a tenant.
    pub(in crate::ingest) owner: Owner,
    /// The decoder for messages that have schemas. `None` if the contract alone can decode the messages.
    pub(in crate::ingest) reader: Option<Arc<MessageDecoder>>,
    /// The transform that converts messages to the table's columns. `None` if the messages already have these columns.
    pub(in crate::ingest) transform: Option<Arc<Transform>>,
}

impl Route {
    /// Returns the format in which the quarantine stores rejected messages.
    pub(super) fn kept_as(&self) -> PayloadFormat {
        self.reader.as_ref().map_or(self.format.payload_format(), |reader| reader.kept_as())
    }

    /// Returns the name of the application transaction that stores a partition's offset.
    pub(super) fn app(&self, topic_partition: &TopicPartition) -> String {
        format!("{}{}:{}", self.app_prefix(), topic_partition.topic, topic_partition.partition)
    }

    /// Returns the common prefix of the transaction names of all partitions.
    pub(super) fn app_prefix(&self) -> String {
        format!("kafka:{}:", self.source)
    }

    /// Returns the name of the transaction that stores the time of the source's first start. No partition's transaction
    /// has this name, because the names of those transactions end with a colon and a number.
    pub(super) fn started_app(&self) -> String {
        format!("{}started", self.app_prefix())
    }

    /// Returns the name of the transaction that stores the source's pause number.
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
