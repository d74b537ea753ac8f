//! The read position of one partition of a source, and how much of what was read is stored.
//!
//! Not every offset belongs to a message that a reader sees. Control records (the ends of transactions), messages of aborted
//! transactions, and messages removed by compaction have offsets as well. So the next offset to read, the *position*, may be
//! greater than the offset after the last message:
//!
//! ```text
//!   offset   7         8         9        10
//!            message   message   marker
//!                                ▲         ▲
//!                 stored = 9 ────┘         └──── position = settled = end = 10: the lag is 0
//! ```
//!
//! In: the offset in the table, messages as they are read, ends that the client reaches, commits. Out: the next offset to read,
//! the offset from which the lag is measured, and the offset to store. Pure: no client, no clock.
//!
//! **Invariant:** `stored <= settled <= position`, except after a gap that restarts a topic from its beginning.
//! **Invariant:** no offset from `stored` up to `settled` belongs to a message that can still be read.

/// The read position of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ingest) struct ReadPosition {
    /// The next offset to read, as the table holds it.
    stored: Option<i64>,
    /// The offset before which every message is stored. `None` until the start of the partition is known.
    settled: Option<i64>,
    /// The next offset to read. `None` until the start of the partition is known.
    position: Option<i64>,
    /// Whether a message was read that is not stored.
    has_unsettled: bool,
}

impl ReadPosition {
    /// Restarts from the offset in the table: messages that were read but not stored are read again. `first` is the first
    /// offset to read if the table has none. Returns the next offset to read; `None` means the oldest existing one.
    pub(in crate::ingest) fn open(&mut self, stored: Option<i64>, first: Option<i64>) -> Option<i64> {
        // Offsets after the stored one that turned out not to be messages are not read again: they may be deleted by now.
        let settled = self.settled.filter(|_| self.stored == stored);
        self.settled = settled.or(stored).or(first);
        (self.stored, self.position, self.has_unsettled) = (stored, self.settled, false);
        self.position
    }

    /// Whether a message with this offset has not been read yet.
    pub(in crate::ingest) fn expects(&self, offset: i64) -> bool {
        self.position.is_none_or(|position| position <= offset)
    }

    /// Records that the message at `offset` was read. Returns whether it is the first one that is not stored.
    pub(in crate::ingest) fn read(&mut self, offset: i64) -> bool {
        self.settled.get_or_insert(offset);
        self.position = Some(offset + 1);
        !std::mem::replace(&mut self.has_unsettled, true)
    }

    /// Whether `end` is at or after the position.
    pub(in crate::ingest) fn may_reach(&self, end: i64) -> bool {
        self.position.is_none_or(|position| position <= end)
    }

    /// Records that every message before `end` was read. Returns whether that advanced `settled`.
    pub(in crate::ingest) fn reached(&mut self, end: i64) -> bool {
        if !self.may_reach(end) {
            return false;
        }
        self.position = Some(end);
        if self.has_unsettled { false } else { self.settled.replace(end) != Some(end) }
    }

    /// Skips to `low`, because the messages before it were deleted.
    pub(in crate::ingest) fn skip_to(&mut self, low: i64) {
        self.position = Some(low);
        if !self.has_unsettled {
            self.settled = Some(low);
        }
    }

    /// Records that all messages read are stored, and that the table holds the offset `stored`.
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

    /// The position, if it differs from the stored offset. The first offset of a table is stored together with a message.
    pub(in crate::ingest) fn to_store(&self) -> Option<i64> {
        let is_due = self.stored.is_some() || self.has_unsettled;
        self.position.filter(|position| is_due && self.stored != Some(*position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event in the life of a partition.
    enum Step {
        /// Opened with the stored offset and the first offset; the third is the expected next offset.
        Open(Option<i64>, Option<i64>, Option<i64>),
        Read(i64),
        Reached(i64),
        Skip(i64),
        Committed(i64),
    }

    use Step::{Committed, Open, Reached, Read, Skip};

    /// A description and its steps; then the expected settled offset, position, and offset to store.
    const CASES: [(&str, &[Step], [Option<i64>; 3]); 15] = [
        ("nothing is known", &[Open(None, None, None)], [None, None, None]),
        ("an empty log that begins at 0", &[Open(None, None, None), Reached(0)], [Some(0), Some(0), None]),
        ("a log that was emptied", &[Open(None, None, None), Reached(70)], [Some(70), Some(70), None]),
        ("the first message determines the start", &[Open(None, None, None), Read(7)], [Some(7), Some(8), Some(8)]),
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
            "dropped messages are read again, from after the marker before them",
            &[Open(Some(7), None, Some(7)), Reached(8), Read(8), Open(Some(7), None, Some(8))],
            [Some(8), Some(8), Some(8)],
        ),
        (
            "another server took over",
            &[Open(Some(7), None, Some(7)), Reached(9), Open(Some(30), None, Some(30))],
            [Some(30), Some(30), None],
        ),
        (
            "reading begins at the configured offset, also the second time",
            &[Open(None, Some(5), Some(5)), Read(6), Open(None, Some(5), Some(5))],
            [Some(5), Some(5), None],
        ),
        (
            "a gap is skipped, also after its progress was dropped",
            &[Open(Some(7), None, Some(7)), Skip(50), Open(Some(7), None, Some(50))],
            [Some(50), Some(50), Some(50)],
        ),
        (
            "a recreated topic is read from its start",
            &[Open(Some(90), None, Some(90)), Skip(0), Read(0), Committed(1)],
            [Some(1), Some(1), None],
        ),
    ];

    #[test]
    fn a_position_skips_offsets_without_messages() {
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
    fn the_first_message_after_a_commit_is_recognised() {
        let mut partition = ReadPosition::default();
        partition.open(Some(4), None);
        assert!(!partition.expects(3) && partition.expects(4));
        assert!(partition.read(4) && !partition.read(6), "offset 5 has no message");
        assert!(!partition.reached(8), "what was read is not stored");
        assert!(
            partition.has_unsettled() && !partition.expects(7) && partition.may_reach(8) && !partition.may_reach(7)
        );
        partition.committed(8);
        assert!(!partition.has_unsettled() && !partition.reached(8) && partition.reached(9) && partition.read(9));
    }
}
