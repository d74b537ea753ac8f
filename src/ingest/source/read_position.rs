//! How far one partition of a source was read, and how much of that is stored.
//!
//! Not every offset is a message. Control records (the ends of transactions), messages of aborted transactions and messages
//! that compaction removed have offsets too, and no reader sees them. So the next offset to read, the *position*, may be
//! greater than the offset after the last message:
//!
//! ```text
//!   offset   7         8         9        10
//!            message   message   marker
//!                                ▲         ▲
//!                 stored = 9 ────┘         └──── position = settled = end = 10: the lag is 0
//! ```
//!
//! In: the offset in the table, messages as they are read, ends that the client reaches, commits. Out: where to read on, the
//! offset from which the lag is measured, and the offset to store. Pure: it knows no client and no clock.
//!
//! **Invariant:** `stored <= settled <= position`, except after a gap that restarts a topic from its beginning.
//! **Invariant:** no offset from `stored` up to `settled` is a message that can still be read.

/// One partition, as its reader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ingest) struct ReadPosition {
    /// The next offset to read, as the table holds it.
    stored: Option<i64>,
    /// Every message before it is stored. `None` until it is known where the partition begins.
    settled: Option<i64>,
    /// The next offset to read. `None` until it is known where the partition begins.
    position: Option<i64>,
    /// Whether a message was read that is not stored.
    has_unsettled: bool,
}

impl ReadPosition {
    /// Starts over from the offset in the table: messages that were read and not stored are read again. `first` is where to
    /// begin if the table has none. Returns the next offset to read; `None` means the oldest one that exists.
    pub(in crate::ingest) fn open(&mut self, stored: Option<i64>, first: Option<i64>) -> Option<i64> {
        // Records after the stored offset that were found to be no messages are not read again: they may be deleted by now.
        let settled = self.settled.filter(|_| self.stored == stored);
        self.settled = settled.or(stored).or(first);
        (self.stored, self.position, self.has_unsettled) = (stored, self.settled, false);
        self.position
    }

    /// Whether a message with this offset has not been read yet.
    pub(in crate::ingest) fn expects(&self, offset: i64) -> bool {
        self.position.is_none_or(|position| position <= offset)
    }

    /// The message at `offset` was read. Returns whether it is the first one that is not stored.
    pub(in crate::ingest) fn read(&mut self, offset: i64) -> bool {
        self.settled.get_or_insert(offset);
        self.position = Some(offset + 1);
        !std::mem::replace(&mut self.has_unsettled, true)
    }

    /// Whether `end` is not before the position.
    pub(in crate::ingest) fn may_reach(&self, end: i64) -> bool {
        self.position.is_none_or(|position| position <= end)
    }

    /// Every message before `end` was read. Returns whether that moved what is settled.
    pub(in crate::ingest) fn reached(&mut self, end: i64) -> bool {
        if !self.may_reach(end) {
            return false;
        }
        self.position = Some(end);
        if self.has_unsettled { false } else { self.settled.replace(end) != Some(end) }
    }

    /// Messages before `low` were deleted, and reading goes on there.
    pub(in crate::ingest) fn skip_to(&mut self, low: i64) {
        self.position = Some(low);
        if !self.has_unsettled {
            self.settled = Some(low);
        }
    }

    /// All that was read is stored, and the table goes on from `stored`.
    pub(in crate::ingest) fn committed(&mut self, stored: i64) {
        (self.stored, self.has_unsettled) = (Some(stored), false);
        self.settled = self.position.max(Some(stored));
    }

    /// The next offset to read.
    pub(in crate::ingest) fn position(&self) -> Option<i64> {
        self.position
    }

    /// The offset before which every message is stored.
    pub(in crate::ingest) fn settled(&self) -> Option<i64> {
        self.settled
    }

    /// Whether a message was read that is not stored.
    pub(in crate::ingest) fn has_unsettled(&self) -> bool {
        self.has_unsettled
    }

    /// The position, if it differs from the stored offset. A table without an offset gets its first one with a message.
    pub(in crate::ingest) fn to_store(&self) -> Option<i64> {
        let is_due = self.stored.is_some() || self.has_unsettled;
        self.position.filter(|position| is_due && self.stored != Some(*position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to a partition.
    enum Step {
        /// Opened with what the table holds and where to begin otherwise; reads on from the third.
        Open(Option<i64>, Option<i64>, Option<i64>),
        Read(i64),
        Reached(i64),
        Skip(i64),
        Committed(i64),
    }

    use Step::{Committed, Open, Reached, Read, Skip};

    /// What happens; then the settled offset, the position, and the offset that is still to be stored.
    const CASES: [(&str, &[Step], [Option<i64>; 3]); 15] = [
        ("nothing is known", &[Open(None, None, None)], [None, None, None]),
        ("an empty log that begins at 0", &[Open(None, None, None), Reached(0)], [Some(0), Some(0), None]),
        ("a log that was emptied", &[Open(None, None, None), Reached(70)], [Some(70), Some(70), None]),
        ("the first message says where it begins", &[Open(None, None, None), Read(7)], [Some(7), Some(8), Some(8)]),
        ("a message", &[Open(Some(7), None, Some(7)), Read(7)], [Some(7), Some(8), Some(8)]),
        (
            "a message, then the end of its transaction, before the commit",
            &[Open(Some(7), None, Some(7)), Read(7), Reached(9), Committed(9)],
            [Some(9), Some(9), None],
        ),
        (
            "a message, then the end of its transaction, after the commit",
            &[Open(Some(7), None, Some(7)), Read(7), Committed(8), Reached(9)],
            [Some(9), Some(9), Some(9)],
        ),
        (
            "the end of a transaction was reached and not stored with the message",
            &[Open(Some(7), None, Some(7)), Read(7), Reached(9), Committed(8)],
            [Some(9), Some(9), Some(9)],
        ),
        (
            "an aborted transaction",
            &[Open(Some(7), None, Some(7)), Reached(7), Reached(20)],
            [Some(20), Some(20), Some(20)],
        ),
        (
            "an end that is older than the last message",
            &[Open(Some(7), None, Some(7)), Read(9), Reached(8)],
            [Some(7), Some(10), Some(10)],
        ),
        (
            "dropped messages are read again, from behind the marker before them",
            &[Open(Some(7), None, Some(7)), Reached(8), Read(8), Open(Some(7), None, Some(8))],
            [Some(8), Some(8), Some(8)],
        ),
        (
            "another server went on",
            &[Open(Some(7), None, Some(7)), Reached(9), Open(Some(30), None, Some(30))],
            [Some(30), Some(30), None],
        ),
        (
            "it begins where it was told to, also the second time",
            &[Open(None, Some(5), Some(5)), Read(6), Open(None, Some(5), Some(5))],
            [Some(5), Some(5), None],
        ),
        (
            "a gap is passed over, and is so when its progress was dropped",
            &[Open(Some(7), None, Some(7)), Skip(50), Open(Some(7), None, Some(50))],
            [Some(50), Some(50), Some(50)],
        ),
        (
            "a topic that was made anew is read from its start",
            &[Open(Some(90), None, Some(90)), Skip(0), Read(0), Committed(1)],
            [Some(1), Some(1), None],
        ),
    ];

    #[test]
    fn a_position_moves_over_offsets_that_are_no_messages() {
        for (what, steps, expected) in CASES {
            let mut partition = ReadPosition::default();
            for step in steps {
                match *step {
                    Open(stored, first, next) => assert_eq!(partition.open(stored, first), next, "{what}"),
                    Read(offset) => {
                        assert!(partition.expects(offset), "{what}");
                        partition.read(offset);
                    }
                    Reached(end) => drop(partition.reached(end)),
                    Skip(low) => partition.skip_to(low),
                    Committed(stored) => partition.committed(stored),
                }
            }
            assert_eq!([partition.settled(), partition.position(), partition.to_store()], expected, "{what}");
        }
    }

    #[test]
    fn the_first_message_after_a_commit_is_known() {
        let mut partition = ReadPosition::default();
        partition.open(Some(4), None);
        assert!(!partition.expects(3) && partition.expects(4));
        assert!(partition.read(4) && !partition.read(6), "offset 5 is no message");
        assert!(!partition.reached(8), "what was read is not stored");
        assert!(
            partition.has_unsettled() && !partition.expects(7) && partition.may_reach(8) && !partition.may_reach(7)
        );
        partition.committed(8);
        assert!(!partition.has_unsettled() && !partition.reached(8) && partition.reached(9) && partition.read(9));
    }
}
