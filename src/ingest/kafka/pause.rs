//! A session whose source is paused: it stays in its group and reads nothing.
//!
//! ```text
//!   running ── the table says paused ──► drop what was read ► the client fetches no more ──┐
//!      ▲                                                                                 paused (lag is told)
//!      └── read on from the table's offsets ◄── the client fetches ◄── the table says running ─┘
//! ```
//!
//! In: what the table says, looked at several times a second. Out: partitions that rest, or are read again.
//!
//! The session goes on polling: so no partition moves because of a pause, and the group does not give the server up.
//!
//! **Invariant:** a paused session takes no message, and commits nothing.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::partition_end::PartitionEnd;
use super::session::{KafkaSession, broken, list_of};
use crate::error::Result;
use crate::ingest::source::{MessageBatch, TopicPartition};

/// How often the table is looked at, in memory: others follow its log.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the brokers are asked where partitions end that are not read: the client learns it only by reading.
const ENDS_INTERVAL: Duration = Duration::from_secs(2);
/// Time for their answer.
const ENDS_TIME_MAX: Duration = Duration::from_secs(2);

impl KafkaSession<'_> {
    pub(super) fn is_paused(&self) -> bool {
        self.pause.since().is_some()
    }

    /// Does what a pause asks for, when it is time to look.
    pub(super) fn mind_pause(&mut self, now: Instant) -> Result<()> {
        if now.saturating_duration_since(self.pause_looked) < LOOK_INTERVAL {
            return Ok(());
        }
        self.pause_looked = now;
        self.look_at_pause()?;
        if self.is_paused() && now.saturating_duration_since(self.ends_asked) >= ENDS_INTERVAL {
            self.ends_asked = now;
            self.ask_ends()?;
        }
        Ok(())
    }

    /// Follows what the table says now.
    pub(super) fn look_at_pause(&mut self) -> Result<()> {
        let seen = self.writer.pause()?;
        let before = std::mem::replace(&mut self.pause, seen);
        match (before.since().is_some(), self.is_paused()) {
            (false, true) => self.rest(),
            (true, false) => self.go_on(),
            _ => Ok(()),
        }
    }

    /// Says whether the source is paused.
    pub(super) fn tell_pause(&self) {
        let source = &self.source.route.source;
        self.source.watch.paused(self.is_paused());
        if self.is_paused() {
            tracing::info!(%source, "the source is paused: `glasshouse sources resume {source}` sets it going");
        }
    }

    fn rest(&mut self) -> Result<()> {
        self.message_batch = MessageBatch::default();
        let spots: Vec<TopicPartition> = self.places.keys().cloned().collect();
        self.client.pause(&list_of(&spots, Offset::Invalid)?).map_err(broken)?;
        self.tell_pause();
        Ok(())
    }

    fn go_on(&mut self) -> Result<()> {
        tracing::info!(source = %self.source.route.source, "the source goes on");
        let all: Vec<TopicPartition> = self.places.keys().cloned().collect();
        // Before it seeks: a client that is set going begins where it was paused.
        self.client.resume(&list_of(&all, Offset::Invalid)?).map_err(broken)?;
        self.tell_pause();
        let open = self.places.iter().filter(|(_, place)| !place.stopped);
        let spots: Vec<TopicPartition> = open.map(|(topic_partition, _)| topic_partition.clone()).collect();
        match self.open(&spots) {
            Err(_) if self.stop.is_cancelled() => Ok(()),
            list => self.go_to(list?),
        }
    }

    /// Asks the brokers where the partitions end, so that the lag is told.
    fn ask_ends(&mut self) -> Result<()> {
        let spots: Vec<TopicPartition> = self.places.keys().cloned().collect();
        if spots.is_empty() {
            return Ok(());
        }
        let ends = match self.client.offsets_for_times(list_of(&spots, Offset::End)?, ENDS_TIME_MAX) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::debug!(source = %self.source.route.source, %error, "the brokers do not tell where partitions end");
                return Ok(());
            }
        };
        for element in ends.elements() {
            if let (Ok(()), Offset::Offset(end)) = (element.error(), element.offset()) {
                let topic_partition = TopicPartition { topic: element.topic().into(), partition: element.partition() };
                self.set_end(&topic_partition, PartitionEnd { offset: end, low: None });
            }
        }
        Ok(())
    }
}
