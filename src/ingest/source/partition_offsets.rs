//! The offsets up to which one partition of a source has been read and stored.
//!
//! Not every offset belongs to a message that a consumer sees. Control records (the ends of transactions), messages
//! from aborted transactions, and messages that compaction has removed also have offsets. The next offset to read may
//! therefore be greater than the offset after the last message:
//!
//! ```text
//!   offset   7         8         9        10
//!            message   message   control record
//!                                ▲         ▲
//!                 stored = 9 ────┘         └──── next = settled = end = 10: the lag is 0
//! ```
//!
//! The session reports to [`PartitionOffsets`] which offset the table contains, which messages it has read, which end
//! offsets the client has reached, and which offsets were committed. From these, [`PartitionOffsets`] determines the
//! next offset to read (`next`), the offset from which the lag is measured (`settled`), and the offset to store. It
//! performs no I/O.
//!
//! **Invariant:** `stored <= settled <= next`. The exception is a recreated topic: its offsets are lower than the
//! stored offset until the next commit.
//! **Invariant:** no offset in `stored..settled` belongs to a message that can still be read.

/// The offsets of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ingest) struct PartitionOffsets {
    /// The next offset to read, according to the table. `None` if the table has no offset for the partition.
    stored: Option<i64>,
    /// The offset before which every message is stored. `None` until the first offset to read is known.
    settled: Option<i64>,
    /// The next offset to read. `None` until the first offset to read is known.
    next: Option<i64>,
    /// Whether a message was read but is not stored yet.
    has_unstored: bool,
}

impl PartitionOffsets {
    /// Restarts from the offset in the table, so that messages that were read but not stored are read again. If the
    /// table has no offset, restarts from `start`. Returns the next offset to read, or `None` if this is the oldest
    /// offset that the brokers have.
    pub(in crate::ingest) fn reset(&mut self, stored: Option<i64>, start: Option<i64>) -> Option<i64> {
        // Do not reread offsets that are known to have no message. If retention has deleted them in the meantime,
        // reading them would look like a gap.
        let settled = self.settled.filter(|_| self.stored == stored);
        self.settled = settled.or(stored).or(start);
        (self.stored, self.next, self.has_unstored) = (stored, self.settled, false);
        self.next
    }

    /// Returns true if a message with this offset has not been read yet.
    pub(in crate::ingest) fn is_unread(&self, offset: i64) -> bool {
        self.next.is_none_or(|next| next <= offset)
    }

    /// Records that the message at `offset` was read. Returns true if it is the first message that was read since the
    /// last commit.
    pub(in crate::ingest) fn read(&mut self, offset: i64) -> bool {
        self.settled.get_or_insert(offset);
        self.next = Some(offset + 1);
        !std::mem::replace(&mut self.has_unstored, true)
    }

    /// Returns true if `end` is at or after the next offset to read.
    pub(in crate::ingest) fn may_reach(&self, end: i64) -> bool {
        self.next.is_none_or(|next| next <= end)
    }

    /// Records that every message before `end` was read. Returns true if `settled` advanced.
    pub(in crate::ingest) fn reach_end(&mut self, end: i64) -> bool {
        if !self.may_reach(end) {
            return false;
        }
        self.next = Some(end);
        if self.has_unstored { false } else { self.settled.replace(end) != Some(end) }
    }

    /// Skips to the offset `low`, because the messages before it were deleted.
    pub(in crate::ingest) fn skip_to(&mut self, low: i64) {
        self.next = Some(low);
        if !self.has_unstored {
            self.settled = Some(low);
        }
    }

    /// Records a commit: all messages that have been read are stored, and the table contains the offset `stored`.
    pub(in crate::ingest) fn committed(&mut self, stored: i64) {
        (self.stored, self.has_unstored) = (Some(stored), false);
        self.settled = self.next.max(Some(stored));
    }

    /// Returns the next offset to read, or `None` if the first offset to read is not known yet.
    pub(in crate::ingest) fn next(&self) -> Option<i64> {
        self.next
    }

    /// Returns the offset before which every message is stored, or `None` if the first offset to read is not known yet.
    pub(in crate::ingest) fn settled(&self) -> Option<i64> {
        self.settled
    }

    /// Returns the offset before which every message is stored, if it is greater than the table's offset.
    pub(in crate::ingest) fn settled_to_store(&self) -> Option<i64> {
        self.settled.filter(|settled| self.stored.is_some_and(|stored| stored < *settled))
    }

    /// Returns true if a message was read but is not stored yet.
    pub(in crate::ingest) fn has_unstored(&self) -> bool {
        self.has_unstored
    }

    /// Returns the next offset to read if it differs from the stored offset. If the table has no offset yet, returns
    /// `None` until a message has been read. A partition's first offset is always stored together with a message.
    pub(in crate::ingest) fn offset_to_store(&self) -> Option<i64> {
        let is_due = self.stored.is_some() || self.has_unstored;
        self.next.filter(|next| is_due && self.stored != Some(*next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call to one method of [`PartitionOffsets`].
    enum Step {
        /// A call to `reset`: the stored offset, the start offset, and the expected result.
        Reset(Option<i64>, Option<i64>, Option<i64>),
        Read(i64),
        ReachEnd(i64),
        Skip(i64),
        Committed(i64),
    }

    use Step::{Committed, ReachEnd, Read, Reset, Skip};

    /// A description, the calls, and the expected results: the settled offset, the next offset, and the offset to
    /// store.
    const CASES: [(&str, &[Step], [Option<i64>; 3]); 15] = [
        ("nothing is known", &[Reset(None, None, None)], [None, None, None]),
        ("an empty log that begins at 0", &[Reset(None, None, None), ReachEnd(0)], [Some(0), Some(0), None]),
        ("a log whose messages were all deleted", &[Reset(None, None, None), ReachEnd(70)], [Some(70), Some(70), None]),
        (
            "the first message determines where the partition starts",
            &[Reset(None, None, None), Read(7)],
            [Some(7), Some(8), Some(8)],
        ),
        ("a message", &[Reset(Some(7), None, Some(7)), Read(7)], [Some(7), Some(8), Some(8)]),
        (
            "a message, then the end of its transaction, before the commit",
            &[Reset(Some(7), None, Some(7)), Read(7), ReachEnd(9), Committed(9)],
            [Some(9), Some(9), None],
        ),
        (
            "a message, then the end of its transaction, after the commit",
            &[Reset(Some(7), None, Some(7)), Read(7), Committed(8), ReachEnd(9)],
            [Some(9), Some(9), Some(9)],
        ),
        (
            "the end of a transaction was reached and not stored with the message",
            &[Reset(Some(7), None, Some(7)), Read(7), ReachEnd(9), Committed(8)],
            [Some(9), Some(9), Some(9)],
        ),
        (
            "an aborted transaction",
            &[Reset(Some(7), None, Some(7)), ReachEnd(7), ReachEnd(20)],
            [Some(20), Some(20), Some(20)],
        ),
        (
            "an end that is older than the last message",
            &[Reset(Some(7), None, Some(7)), Read(9), ReachEnd(8)],
            [Some(7), Some(10), Some(10)],
        ),
        (
            "dropped messages are read again, starting after the control record before them",
            &[Reset(Some(7), None, Some(7)), ReachEnd(8), Read(8), Reset(Some(7), None, Some(8))],
            [Some(8), Some(8), Some(8)],
        ),
        (
            "another server took over",
            &[Reset(Some(7), None, Some(7)), ReachEnd(9), Reset(Some(30), None, Some(30))],
            [Some(30), Some(30), None],
        ),
        (
            "reading begins at the configured offset, even after a reset",
            &[Reset(None, Some(5), Some(5)), Read(6), Reset(None, Some(5), Some(5))],
            [Some(5), Some(5), None],
        ),
        (
            "a gap stays skipped even if the batch with its progress is dropped",
            &[Reset(Some(7), None, Some(7)), Skip(50), Reset(Some(7), None, Some(50))],
            [Some(50), Some(50), Some(50)],
        ),
        (
            "a recreated topic is read from its start",
            &[Reset(Some(90), None, Some(90)), Skip(0), Read(0), Committed(1)],
            [Some(1), Some(1), None],
        ),
    ];

    #[test]
    fn the_next_offset_skips_offsets_without_messages() {
        for (what, steps, expected) in CASES {
            let mut partition = PartitionOffsets::default();
            for step in steps {
                match *step {
                    Reset(stored, start, next) => assert_eq!(partition.reset(stored, start), next, "{what}"),
                    Read(offset) => {
                        assert!(partition.is_unread(offset), "{what}");
                        partition.read(offset);
                    }
                    ReachEnd(end) => drop(partition.reach_end(end)),
                    Skip(low) => partition.skip_to(low),
                    Committed(stored) => partition.committed(stored),
                }
            }
            assert_eq!([partition.settled(), partition.next(), partition.offset_to_store()], expected, "{what}");
        }
    }

    #[test]
    fn the_first_message_after_a_commit_is_reported() {
        let mut partition = PartitionOffsets::default();
        partition.reset(Some(4), None);
        assert!(!partition.is_unread(3) && partition.is_unread(4));
        assert!(partition.read(4) && !partition.read(6), "offset 5 has no message");
        assert!(!partition.reach_end(8), "the messages that were read are not stored yet");
        assert!(
            partition.has_unstored() && !partition.is_unread(7) && partition.may_reach(8) && !partition.may_reach(7)
        );
        partition.committed(8);
        assert!(!partition.has_unstored() && !partition.reach_end(8) && partition.reach_end(9) && partition.read(9));
    }
}
