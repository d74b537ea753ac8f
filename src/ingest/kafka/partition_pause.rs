//! Pauses and resumes a session. A paused session stays in its consumer group but reads no messages.
//!
//! ```text
//!   running ── the table says paused ──► drop what was read ► the client stops fetching ───┐
//!      ▲                                                                              paused (lag is reported)
//!      └── continue at the table's offsets ◄─── the client fetches ◄── the table says running ─┘
//! ```
//!
//! Several times a second, the session checks the pause state of the source, which is stored in the table, and pauses
//! or resumes its partitions accordingly. A paused session continues to poll. The server therefore remains a member of
//! the group, and no partition moves to another server.
//!
//! **Invariant:** a paused session takes no messages and commits nothing.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::end_offset::EndOffset;
use super::session::{KafkaSession, client_failed, offset_list};
use crate::error::Result;
use crate::ingest::source::{MessageBatch, TopicPartition};
use crate::telemetry::SourceTrouble;

/// The interval at which the session checks whether the source is paused. The check is cheap: it reads the in-memory
/// copy of the table's state, which other tasks keep up to date.
const PAUSE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The interval at which the session requests the end offsets of paused partitions from the brokers. The client
/// receives end offsets only together with messages, and it does not fetch messages for paused partitions.
const END_OFFSETS_INTERVAL: Duration = Duration::from_secs(2);
/// The time limit for requesting end offsets.
const END_OFFSETS_TIME_MAX: Duration = Duration::from_secs(2);

impl KafkaSession<'_> {
    pub(super) fn is_paused(&self) -> bool {
        self.pause.since().is_some()
    }

    /// Checks at most once per [`PAUSE_CHECK_INTERVAL`] whether the source is paused.
    pub(super) fn check_pause_when_due(&mut self, now: Instant) -> Result<()> {
        if now.saturating_duration_since(self.pause_checked) < PAUSE_CHECK_INTERVAL {
            return Ok(());
        }
        self.pause_checked = now;
        self.check_pause()?;
        if self.is_paused() && now.saturating_duration_since(self.end_offsets_requested) >= END_OFFSETS_INTERVAL {
            self.end_offsets_requested = now;
            self.request_end_offsets()?;
        }
        Ok(())
    }

    /// Pauses or resumes the session if the pause state in the table has changed.
    pub(super) fn check_pause(&mut self) -> Result<()> {
        let pause = self.writer.pause()?;
        let previous = std::mem::replace(&mut self.pause, pause);
        match (previous.since().is_some(), self.is_paused()) {
            (false, true) => self.enter_pause(),
            (true, false) => self.leave_pause(),
            _ => Ok(()),
        }
    }

    /// Reports to operators whether the source is paused.
    pub(super) fn report_pause(&self) {
        let source = &self.source.route.source;
        self.source.monitor.paused(self.is_paused());
        if self.is_paused() {
            tracing::info!(%source, "the source is paused; run `glasshouse sources resume {source}` to resume it");
        }
    }

    fn enter_pause(&mut self) -> Result<()> {
        self.message_batch = MessageBatch::default();
        // The batch that could not be stored is dropped.
        self.source.monitor.resolved(&[SourceTrouble::Store]);
        let partitions: Vec<TopicPartition> = self.readers.keys().cloned().collect();
        self.client.pause(&offset_list(&partitions, Offset::Invalid)?).map_err(client_failed)?;
        self.report_pause();
        Ok(())
    }

    fn leave_pause(&mut self) -> Result<()> {
        tracing::info!(source = %self.source.route.source, "the source has resumed");
        let all: Vec<TopicPartition> = self.readers.keys().cloned().collect();
        // Resume before seeking. In the other order, resuming would move the client back to the offset at which it was
        // paused.
        self.client.resume(&offset_list(&all, Offset::Invalid)?).map_err(client_failed)?;
        self.report_pause();
        match self.load_offsets(&self.running_partitions()) {
            Err(_) if self.stop.is_cancelled() => Ok(()),
            list => self.seek(list?),
        }
    }

    /// Requests the end offsets of all assigned partitions from the brokers, and reports the lag.
    fn request_end_offsets(&mut self) -> Result<()> {
        let partitions: Vec<TopicPartition> = self.readers.keys().cloned().collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let ends = match self.client.offsets_for_times(offset_list(&partitions, Offset::End)?, END_OFFSETS_TIME_MAX) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::debug!(source = %self.source.route.source, %error, "cannot fetch the end offsets of partitions");
                return Ok(());
            }
        };
        for element in ends.elements() {
            if let (Ok(()), Offset::Offset(end)) = (element.error(), element.offset()) {
                let topic_partition = TopicPartition { topic: element.topic().into(), partition: element.partition() };
                self.set_end(&topic_partition, EndOffset { offset: end, low: None });
            }
        }
        Ok(())
    }
}
