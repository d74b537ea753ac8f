//! How far one partition of a source is behind its broker.
//!
//! In: what its reader sees: messages as they are read, commits, and now and then the partition's end. Out: a [`LagState`],
//! for whoever asks how fresh the table is. Pure: times are arguments.
//!
//! **Invariant:** it is never told to be nearer than it is: what is not known is not guessed.

use crate::clock::Micros;
use crate::lake::LagState;

/// One partition, as its reader sees it.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Lag {
    /// Its end, and when the broker told it.
    end: Option<(i64, Micros)>,
    /// A time before which no message waits: that of the first message that was read after the last commit, or what was
    /// known before it was read.
    oldest: Option<Micros>,
    /// Whether a message was read that is not committed.
    has_unsettled: bool,
    /// The offset of the first message that was read.
    first: Option<i64>,
}

impl Lag {
    /// The message at `offset` was read; `time` is its own. Whether it is the first one since the last commit.
    pub(in crate::ingest) fn read(&mut self, offset: i64, time: impl FnOnce() -> Option<Micros>) -> bool {
        let first = !self.has_unsettled;
        if first {
            self.has_unsettled = true;
            self.oldest = time();
            self.first.get_or_insert(offset);
        }
        first
    }

    /// What was read is read again.
    pub(in crate::ingest) fn dropped(&mut self) {
        self.has_unsettled = false;
    }

    /// All that was read is committed.
    pub(in crate::ingest) fn committed(&mut self) {
        self.has_unsettled = false;
    }

    /// The next message will have the offset `end`, the broker said at `now`; the table goes on from `stored`.
    pub(in crate::ingest) fn heard(&mut self, end: i64, stored: Option<i64>, now: Micros) {
        if let LagState::Complete(before) = self.standing(stored) {
            // What waits now was not there then.
            self.oldest = Some(before);
        }
        self.end = Some((end, now));
    }

    /// How far the partition is, when the table goes on from `stored`, or holds nothing of it yet.
    pub(in crate::ingest) fn standing(&self, stored: Option<i64>) -> LagState {
        let stored = stored.or(self.first).unwrap_or(0);
        match self.end {
            None => LagState::Unknown,
            Some((end, heard)) if stored >= end && !self.has_unsettled => LagState::Complete(heard),
            // The end may be older than what was read since: then no message is known to wait, but the oldest is.
            Some((end, _)) => {
                LagState::Behind { messages: u64::try_from(end - stored).unwrap_or(0), oldest: self.oldest }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_behind_by_its_oldest_message() {
        let mut partition = Lag::default();
        let behind = |messages, oldest| LagState::Behind { messages, oldest };
        assert_eq!(partition.standing(Some(4)), LagState::Unknown);
        partition.heard(10, Some(4), 40);
        assert_eq!(partition.standing(Some(4)), behind(6, None), "none was read");
        assert!(partition.read(4, || Some(50)) && !partition.read(5, || Some(55)));
        assert_eq!(partition.standing(Some(4)), behind(6, Some(50)));
        assert_eq!(partition.standing(None), behind(6, Some(50)), "it began with the fourth");
        partition.committed();
        assert_eq!(partition.standing(Some(7)), behind(3, Some(50)), "until the next is read");
        assert!(partition.read(7, || Some(60)));
        assert_eq!(partition.standing(Some(7)), behind(3, Some(60)));
        partition.dropped();
        assert!(partition.read(7, || Some(60)), "it is read again");
        partition.committed();
        assert_eq!(partition.standing(Some(12)), LagState::Complete(40), "all that there was when it was heard");
        partition.heard(15, Some(12), 70);
        assert_eq!(partition.standing(Some(12)), behind(3, Some(40)), "what waits came after that");
        assert!(partition.read(12, || None));
        assert_eq!(partition.standing(Some(12)), behind(3, None), "a message without a time");
        let mut empty = Lag::default();
        empty.heard(0, None, 60);
        assert_eq!(empty.standing(None), LagState::Complete(60));
    }
}
