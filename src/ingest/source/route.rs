//! Where a source's events go, and how its table calls what it remembers of the source.

use std::sync::Arc;

use super::message_batch::TopicPartition;
use crate::contract::{Format, Kept, Owner};
use crate::ingest::schemas::SchemaReader;
use crate::lake::PartitionFeed;
use crate::transform::Transform;

/// Where a source's events go.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct Route {
    /// The source's name.
    pub(in crate::ingest) source: String,
    pub(in crate::ingest) table: String,
    pub(in crate::ingest) format: Format,
    /// Whose its events are, as far as the operator says it.
    pub(in crate::ingest) owner: Owner,
    /// What makes events of messages that the contract cannot read by itself.
    pub(in crate::ingest) reader: Option<Arc<SchemaReader>>,
    /// What makes the table's columns of the messages; none when they have them.
    pub(in crate::ingest) transform: Option<Arc<Transform>>,
}

impl Route {
    /// How the quarantine calls what the source has received.
    pub(super) fn kept_as(&self) -> Kept {
        self.reader.as_ref().map_or(self.format.kept_as(), |reader| reader.kept_as())
    }

    /// The transaction that holds a partition's offset.
    pub(super) fn app(&self, topic_partition: &TopicPartition) -> String {
        format!("{}{}:{}", self.app_prefix(), topic_partition.topic, topic_partition.partition)
    }

    /// What the names of the source's transactions begin with.
    pub(super) fn app_prefix(&self) -> String {
        format!("kafka:{}:", self.source)
    }

    /// The transaction that holds when the source was first started. No topic has a colon in its name.
    pub(super) fn started_app(&self) -> String {
        format!("{}started", self.app_prefix())
    }

    /// The transaction that says whether the source is paused.
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
