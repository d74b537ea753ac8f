//! The lag of one partition of a source: how far the source is behind the broker.
//!
//! [`Lag`] computes the lag, and a [`LagState`] for the freshness of the table. The computation needs the partition's
//! [`PartitionOffsets`], the times of messages that were read, and the end offset that the broker reports from time to
//! time. The code in this file does not read the clock: all times are arguments.
//!
//! **Invariant:** the reported lag is never smaller than the actual lag at the time of the broker's report. If one of
//! the offsets is unknown, the lag is unknown too.
//! **Invariant:** a partition whose messages are all stored has no lag, even if control records follow its last
//! message.

use super::partition_offsets::PartitionOffsets;
use crate::clock::Micros;
use crate::lake::LagState;

/// The end offset of a partition, and a lower bound for the times of its waiting messages.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Lag {
    /// The end offset, and the time at which the broker reported it.
    end: Option<(i64, Micros)>,
    /// The oldest offset that the broker has. As long as the source's own offset is unknown, the lag is measured from
    /// this offset.
    low: Option<i64>,
    /// A lower bound for the times of the waiting messages: the time of the first message that was read after the last
    /// commit. The bound stays valid until the first message after the next commit is read.
    oldest: Option<Micros>,
}

impl Lag {
    /// Records that the first message since the last commit was read. `time` is the message's time.
    pub(in crate::ingest) fn first_read(&mut self, time: Option<Micros>) {
        self.oldest = time;
    }

    /// Records that the broker reported the end offset `end` at the time `now`. `low` is the oldest offset, if it is
    /// known.
    pub(in crate::ingest) fn set_end(&mut self, end: i64, low: Option<i64>, offsets: &PartitionOffsets, now: Micros) {
        if let LagState::Complete(complete_until) = self.state(offsets) {
            // Nothing was waiting at `complete_until`, so all messages that are waiting now arrived later.
            self.oldest = Some(complete_until);
        }
        (self.end, self.low) = (Some((end, now)), low.or(self.low));
    }

    /// Returns the number of offsets between the partition's `settled` offset and its end offset. The result is an
    /// upper bound for the number of waiting messages. Returns `None` while either offset is unknown.
    pub(in crate::ingest) fn messages(&self, offsets: &PartitionOffsets) -> Option<i64> {
        let (end, _) = self.end?;
        Some((end - offsets.settled().or(self.low)?).max(0))
    }

    /// Returns the lag state of a partition that is read and stored up to `offsets`.
    pub(in crate::ingest) fn state(&self, offsets: &PartitionOffsets) -> LagState {
        match (self.end, self.messages(offsets)) {
            (Some((_, reported)), Some(0)) if !offsets.has_unstored() => LagState::Complete(reported),
            // `lag` can be 0 even though some messages are not stored yet, because these messages may have arrived
            // after the end offset was reported. The time of the oldest such message is known.
            (Some(_), Some(lag)) => LagState::Behind { messages: lag.unsigned_abs(), oldest: self.oldest },
            _ => LagState::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_state_has_the_time_of_the_oldest_waiting_message() {
        let (mut partition, mut offsets) = (Lag::default(), PartitionOffsets::default());
        let behind = |messages, oldest| LagState::Behind { messages, oldest };
        offsets.reset(Some(4), None);
        assert_eq!((partition.state(&offsets), partition.messages(&offsets)), (LagState::Unknown, None));
        partition.set_end(10, None, &offsets, 40);
        assert_eq!(
            (partition.state(&offsets), partition.messages(&offsets)),
            (behind(6, None), Some(6)),
            "no message has been read yet"
        );
        assert!(offsets.read(4));
        partition.first_read(Some(50));
        assert_eq!(partition.state(&offsets), behind(6, Some(50)));
        assert!(!offsets.read(6));
        offsets.committed(7);
        assert_eq!(partition.state(&offsets), behind(3, Some(50)), "the time stays until the next message is read");
        assert!(offsets.read(7));
        partition.first_read(Some(60));
        assert_eq!(partition.state(&offsets), behind(3, Some(60)));
        offsets.reset(Some(7), None);
        assert!(offsets.read(7), "the message is read again");
        offsets.committed(12);
        assert_eq!(partition.state(&offsets), LagState::Complete(40), "complete up to the time of the broker's report");
        partition.set_end(15, None, &offsets, 70);
        assert_eq!(partition.state(&offsets), behind(3, Some(40)), "waiting messages arrived after that report");
        assert!(offsets.read(12));
        partition.first_read(None);
        assert_eq!(partition.state(&offsets), behind(3, None), "a message without a time");
    }

    #[test]
    fn control_records_are_not_lag() {
        let (mut partition, mut offsets) = (Lag::default(), PartitionOffsets::default());
        offsets.reset(Some(4), None);
        offsets.read(4);
        offsets.committed(5);
        partition.set_end(6, None, &offsets, 40);
        assert_eq!(partition.messages(&offsets), Some(1), "offset 5 may be a message");
        offsets.reach_end(6);
        assert_eq!((partition.state(&offsets), partition.messages(&offsets)), (LagState::Complete(40), Some(0)));
        // After a restart, the lag becomes 0 when the end is reached again. This does not require that offset 6 was
        // stored in the table.
        let mut again = PartitionOffsets::default();
        again.reset(Some(5), None);
        assert_eq!(partition.messages(&again), Some(1));
        again.reach_end(6);
        assert_eq!(partition.state(&again), LagState::Complete(40));
    }

    #[test]
    fn the_lag_of_an_unread_partition_counts_from_its_oldest_message() {
        let unread = PartitionOffsets::default();
        for (low, expected) in [
            (None, LagState::Unknown),
            (Some(60), LagState::Complete(7)),
            (Some(40), LagState::Behind { messages: 20, oldest: None }),
        ] {
            let mut partition = Lag::default();
            partition.set_end(60, low, &unread, 7);
            assert_eq!(partition.state(&unread), expected, "{low:?}");
        }
    }
}
