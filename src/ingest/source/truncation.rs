//! The error of a batch with a message that reports the truncation of a database table.
//!
//! Such a message names neither a row nor a tenant, so no event can represent it. Unless `on_truncate` is `ignore`, the
//! source stores the messages before it, and then stops reading the partition.

use std::fmt;

use super::message_batch::TopicPartition;
use crate::error::Error;

/// The position of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct Truncation {
    pub(in crate::ingest) topic_partition: TopicPartition,
    pub(in crate::ingest) offset: i64,
}

impl Truncation {
    /// Returns the position if a truncation is the cause of the error.
    pub(in crate::ingest) fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// Describes the problem and the two ways to continue.
    pub(in crate::ingest) fn message(&self, source: &str) -> String {
        let option = if source.is_empty() { "on_truncate".to_owned() } else { format!("sources.{source}.on_truncate") };
        format!(
            "{self}; the rows that were stored before are still visible; to load the table again, use another topic, \
             source and table; to continue and keep the rows, set {option} = \"ignore\" and restart"
        )
    }
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic_partition: TopicPartition { topic, partition }, offset } = self;
        write!(
            f,
            "the database table was truncated (`op` is `t` in topic {topic}, partition {partition}, offset {offset})"
        )
    }
}

impl std::error::Error for Truncation {}

impl From<Truncation> for Error {
    fn from(truncation: Truncation) -> Self {
        Self::invalid(truncation.message("")).with_source(truncation)
    }
}
