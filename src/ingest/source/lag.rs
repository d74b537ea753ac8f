//! The lag of one partition of a source: how far it is behind the broker.
//!
//! In: its [`ReadPosition`], the times of messages as they are read, and from time to time the partition's end. Out: its lag,
//! and a [`LagState`] for the freshness of the table. Pure: times are arguments.
//!
//! **Invariant:** the lag is never reported smaller than it is: unknown values are not guessed.
//! **Invariant:** a partition that is read and stored up to its end has no lag, whatever its last records are.

use super::read_position::ReadPosition;
use crate::clock::Micros;
use crate::lake::LagState;

/// The end of a partition and the time of its oldest waiting message.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Lag {
    /// Its end, and when the broker reported it.
    end: Option<(i64, Micros)>,
    /// The oldest offset that the broker holds. The lag is measured from it until the first offset to read is known.
    low: Option<i64>,
    /// A lower bound of the times of waiting messages: the time of the first message that was read after the last commit, or
    /// the bound known before that message was read.
    oldest: Option<Micros>,
}

impl Lag {
    /// Records that the first message since the last commit was read, with this time.
    pub(in crate::ingest) fn read(&mut self, time: Option<Micros>) {
        self.oldest = time;
    }

    /// Records that the broker reported at `now` that the partition ends at `end`. `low` is the oldest offset, if known.
    pub(in crate::ingest) fn heard(&mut self, end: i64, low: Option<i64>, at: &ReadPosition, now: Micros) {
        if let LagState::Complete(before) = self.standing(at) {
            // Messages that wait now arrived after that time.
            self.oldest = Some(before);
        }
        (self.end, self.low) = (Some((end, now)), low.or(self.low));
    }

    /// The number of offsets from the settled one to the end: an upper bound of the waiting messages. `None` while either is
    /// unknown.
    pub(in crate::ingest) fn lag(&self, at: &ReadPosition) -> Option<i64> {
        let (end, _) = self.end?;
        Some((end - at.settled().or(self.low)?).max(0))
    }

    /// The lag state of the partition when it is read up to `at`.
    pub(in crate::ingest) fn standing(&self, at: &ReadPosition) -> LagState {
        match (self.end, self.lag(at)) {
            (Some((_, heard)), Some(0)) if !at.has_unsettled() => LagState::Complete(heard),
            // The reported end may precede messages read since: then the count is 0, but the oldest waiting time is known.
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
        let (mut partition, mut at) = (Lag::default(), ReadPosition::default());
        let behind = |messages, oldest| LagState::Behind { messages, oldest };
        at.open(Some(4), None);
        assert_eq!((partition.standing(&at), partition.lag(&at)), (LagState::Unknown, None));
        partition.heard(10, None, &at, 40);
        assert_eq!((partition.standing(&at), partition.lag(&at)), (behind(6, None), Some(6)), "no message was read");
        assert!(at.read(4));
        partition.read(Some(50));
        assert_eq!(partition.standing(&at), behind(6, Some(50)));
        assert!(!at.read(6));
        at.committed(7);
        assert_eq!(partition.standing(&at), behind(3, Some(50)), "until the next message is read");
        assert!(at.read(7));
        partition.read(Some(60));
        assert_eq!(partition.standing(&at), behind(3, Some(60)));
        at.open(Some(7), None);
        assert!(at.read(7), "the message is read again");
        at.committed(12);
        assert_eq!(partition.standing(&at), LagState::Complete(40), "complete up to the time of the report");
        partition.heard(15, None, &at, 70);
        assert_eq!(partition.standing(&at), behind(3, Some(40)), "waiting messages arrived after that report");
        assert!(at.read(12));
        partition.read(None);
        assert_eq!(partition.standing(&at), behind(3, None), "a message without a time");
    }

    #[test]
    fn control_records_are_not_lag() {
        let (mut partition, mut at) = (Lag::default(), ReadPosition::default());
        at.open(Some(4), None);
        at.read(4);
        at.committed(5);
        partition.heard(6, None, &at, 40);
        assert_eq!(partition.lag(&at), Some(1), "the offset may be a message");
        at.reached(6);
        assert_eq!((partition.standing(&at), partition.lag(&at)), (LagState::Complete(40), Some(0)));
        // The same after a restart, when the table does not hold the position.
        let mut again = ReadPosition::default();
        again.open(Some(5), None);
        assert_eq!(partition.lag(&again), Some(1));
        again.reached(6);
        assert_eq!(partition.standing(&again), LagState::Complete(40));
    }

    #[test]
    fn a_partition_that_was_never_read_is_measured_from_its_oldest_message() {
        let unread = ReadPosition::default();
        for (low, expected) in [
            (None, LagState::Unknown),
            (Some(60), LagState::Complete(7)),
            (Some(40), LagState::Behind { messages: 20, oldest: None }),
        ] {
            let mut partition = Lag::default();
            partition.heard(60, low, &unread, 7);
            assert_eq!(partition.standing(&unread), expected, "{low:?}");
        }
    }
}
