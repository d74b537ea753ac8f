//! Pausing a session: it stays in its consumer group and reads nothing.
//!
//! ```text
//!   running ── the table says paused ──► drop what was read ► the client fetches no more ──┐
//!      ▲                                                                              paused (lag is reported)
//!      └── continue at the table's offsets ◄─── the client fetches ◄── the table says running ─┘
//! ```
//!
//! In: the pause state in the table, checked several times a second. Out: paused or resumed partitions.
//!
//! The session continues to poll, so a pause moves no partition and the group keeps the server as a member.
//!
//! **Invariant:** a paused session takes no message and commits nothing.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::partition_end::PartitionEnd;
use super::session::{KafkaSession, broken, list_of};
use crate::error::Result;
use crate::ingest::source::{MessageBatch, TopicPartition};

/// How often the session checks the table's in-memory state; other tasks follow the table's log.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the session asks the brokers for the ends of paused partitions. The client learns ends only by fetching.
const ENDS_INTERVAL: Duration = Duration::from_secs(2);
/// The time limit of that request.
const ENDS_TIME_MAX: Duration = Duration::from_secs(2);

impl KafkaSession<'_> {
    pub(super) fn is_paused(&self) -> bool {
        self.pause.since().is_some()
    }

    /// Checks the pause state, if that is due.
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

    /// Pauses or resumes the session to match the table.
    pub(super) fn look_at_pause(&mut self) -> Result<()> {
        let seen = self.writer.pause()?;
        let before = std::mem::replace(&mut self.pause, seen);
        match (before.since().is_some(), self.is_paused()) {
            (false, true) => self.rest(),
            (true, false) => self.go_on(),
            _ => Ok(()),
        }
    }

    /// Reports whether the source is paused.
    pub(super) fn tell_pause(&self) {
        let source = &self.source.route.source;
        self.source.watch.paused(self.is_paused());
        if self.is_paused() {
            tracing::info!(%source, "the source is paused: run `glasshouse sources resume {source}` to resume it");
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
        tracing::info!(source = %self.source.route.source, "the source resumes");
        let all: Vec<TopicPartition> = self.places.keys().cloned().collect();
        // Resume before seeking: a resumed client begins where it was paused.
        self.client.resume(&list_of(&all, Offset::Invalid)?).map_err(broken)?;
        self.tell_pause();
        let open = self.places.iter().filter(|(_, place)| !place.stopped);
        let spots: Vec<TopicPartition> = open.map(|(topic_partition, _)| topic_partition.clone()).collect();
        match self.open(&spots) {
            Err(_) if self.stop.is_cancelled() => Ok(()),
            list => self.go_to(list?),
        }
    }

    /// Asks the brokers for the ends of the partitions, to report the lag.
    fn ask_ends(&mut self) -> Result<()> {
        let spots: Vec<TopicPartition> = self.places.keys().cloned().collect();
        if spots.is_empty() {
            return Ok(());
        }
        let ends = match self.client.offsets_for_times(list_of(&spots, Offset::End)?, ENDS_TIME_MAX) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::debug!(source = %self.source.route.source, %error, "cannot fetch the ends of partitions");
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
