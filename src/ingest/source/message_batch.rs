//! What a source has read since its last commit: messages, and how far each of its partitions has come with them.
//!
//! In: messages one by one. Out: a [`MessageBatch`] that is due by rows, bytes or age. Pure: it knows no client and no clock.
//!
//! **Invariant:** a haul's messages of a partition are all that were read from where the haul began up to its `next`. So it
//! can be stored with that `next` as progress, or be dropped as a whole and read again.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::clock::Micros;
use crate::contract::{Format, Reason, TenantId};
use crate::lake::Progress;
use crate::transform::Header;

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct TopicPartition {
    pub(in crate::ingest) topic: Arc<str>,
    pub(in crate::ingest) partition: i32,
}

/// What is known of a message before it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ingest) enum TenantResolution {
    /// Its own field says whose it is.
    PerEvent,
    /// It is this tenant's.
    Tenant(TenantId),
    /// It goes to the quarantine, whatever is in it; as this tenant's, if it is somebody's.
    Refused(Option<TenantId>, Reason, String),
}

/// One message.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct BatchMessage {
    /// Where it stands in the body.
    pub(in crate::ingest) place: Range<usize>,
    pub(in crate::ingest) topic_partition: TopicPartition,
    pub(in crate::ingest) offset: i64,
    pub(in crate::ingest) tenant_resolution: TenantResolution,
    /// What else is known of it, when a transform may ask for it.
    pub(in crate::ingest) meta: Option<Arc<MessageMeta>>,
}

/// What stands beside a message's payload.
#[derive(Debug, Default)]
pub(in crate::ingest) struct MessageMeta {
    /// Whether there is no payload at all.
    pub(in crate::ingest) is_tombstone: bool,
    pub(in crate::ingest) key: Option<Vec<u8>>,
    pub(in crate::ingest) headers: Vec<Header>,
    pub(in crate::ingest) time: Option<Micros>,
}

/// How far a partition has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct OffsetRange {
    /// The next offset to read.
    pub(super) next: i64,
    pub(in crate::ingest) messages: u64,
    /// When the first of them was read.
    pub(in crate::ingest) begun: Instant,
}

/// When a haul is due.
#[derive(Debug, Clone, Copy)]
pub(in crate::ingest) struct BatchLimits {
    pub(in crate::ingest) rows_max: usize,
    pub(in crate::ingest) bytes_max: usize,
    pub(in crate::ingest) age_max: Duration,
}

/// Messages that will share a commit.
#[derive(Debug, Default)]
pub(in crate::ingest) struct MessageBatch {
    body: BytesMut,
    /// Bytes beside the body.
    meta: usize,
    pub(in crate::ingest) messages: Vec<BatchMessage>,
    pub(in crate::ingest) spans: BTreeMap<TopicPartition, OffsetRange>,
    /// When the source was first started, in milliseconds since 1970, if that has to be stored.
    pub(in crate::ingest) started: Option<i64>,
    /// It is as large as a haul may be: more is waiting, and it need not wait for company.
    pub(in crate::ingest) is_whole: bool,
    /// What else must still be so in the table when it is committed.
    pub(in crate::ingest) guard: Option<Progress>,
    begun: Option<Instant>,
}

/// By partition, then by topic: each message looks its partition up, and numbers are quicker to compare than names.
impl Ord for TopicPartition {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_topic =
            || if Arc::ptr_eq(&self.topic, &other.topic) { Ordering::Equal } else { self.topic.cmp(&other.topic) };
        self.partition.cmp(&other.partition).then_with(by_topic)
    }
}

impl PartialOrd for TopicPartition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TenantResolution {
    /// It is the tenant's that these bytes name; `what` they are is told when they name none.
    pub(in crate::ingest) fn named(bytes: Option<&[u8]>, what: &str) -> Self {
        let refused = |why: String| Self::Refused(None, Reason::MissingTenant, why);
        let Some(bytes) = bytes else { return refused(format!("{what}, which should name the tenant, is missing")) };
        let Ok(text) = std::str::from_utf8(bytes) else { return refused(format!("{what} is not UTF-8")) };
        match TenantId::parse(text) {
            Ok(tenant) => Self::Tenant(tenant),
            Err(fault) => refused(format!("{what}: {}", fault.message())),
        }
    }
}

impl MessageBatch {
    /// An empty haul with room for as much as the one before it had, and a little more: to grow is to copy all of it.
    pub(in crate::ingest) fn with_room(bytes: usize, messages: usize) -> Self {
        Self {
            body: BytesMut::with_capacity(bytes + bytes / 8),
            messages: Vec::with_capacity(messages),
            ..Self::default()
        }
    }

    /// Takes a message.
    pub(in crate::ingest) fn push(
        &mut self,
        (topic_partition, offset): (TopicPartition, i64),
        payload: &[u8],
        tenant_resolution: TenantResolution,
        meta: Option<Arc<MessageMeta>>,
        now: Instant,
    ) {
        let start = self.body.len();
        self.body.extend_from_slice(payload);
        let place = start..self.body.len();
        // So that a message that ends inside a character does not find the rest of it in the next one.
        self.body.extend_from_slice(b"\n");
        self.meta += meta.as_ref().map_or(0, |meta| meta.bytes());
        self.advance(&topic_partition, offset + 1, 1, now);
        self.messages.push(BatchMessage { place, topic_partition, offset, tenant_resolution, meta });
    }

    /// The partition goes on from `next`, whatever was read of it.
    pub(in crate::ingest) fn reach(&mut self, topic_partition: &TopicPartition, next: i64, now: Instant) {
        self.advance(topic_partition, next, 0, now);
    }

    fn advance(&mut self, topic_partition: &TopicPartition, next: i64, messages: u64, now: Instant) {
        self.begun.get_or_insert(now);
        match self.spans.get_mut(topic_partition) {
            Some(span) => (span.next, span.messages) = (next, span.messages + messages),
            None => drop(self.spans.insert(topic_partition.clone(), OffsetRange { next, messages, begun: now })),
        }
    }

    /// Drops what was read of a partition: another server has it now.
    pub(in crate::ingest) fn forget(&mut self, topic_partition: &TopicPartition) {
        if self.spans.remove(topic_partition).is_some() {
            self.messages.retain(|message| message.topic_partition != *topic_partition);
        }
    }

    /// When it is due, at the latest; never when there is nothing in it.
    pub(in crate::ingest) fn due(&self, bounds: &BatchLimits, now: Instant) -> Option<Instant> {
        let begun = self.begun.filter(|_| !self.spans.is_empty())?;
        Some(if self.is_full(bounds) { now } else { begun + bounds.age_max })
    }

    /// Whether it takes no more. It may be over its bounds by one message.
    pub(in crate::ingest) fn is_full(&self, bounds: &BatchLimits) -> bool {
        self.messages.len() >= bounds.rows_max || self.bytes() >= bounds.bytes_max
    }

    /// Bytes held.
    pub(in crate::ingest) fn bytes(&self) -> usize {
        self.body.len() + self.meta
    }

    /// The bytes in which the messages stand.
    pub(super) fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.body).freeze()
    }
}

impl MessageMeta {
    /// Bytes held, about.
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        size_of::<Self>() + self.key.as_ref().map_or(0, Vec::len) + headers.sum::<usize>()
    }
}

/// A message without the header that clients of a Confluent schema registry write: a zero, four bytes of schema id, and for
/// protobuf the path of the message's type in its file (a count and as many indexes, all zigzag varints).
///
/// Source: Confluent's documentation of the wire format of schema serializers.
pub(in crate::ingest) fn without_header(format: Format, payload: &[u8]) -> Result<&[u8], &'static str> {
    let rest = match payload {
        [0, _, _, _, _, rest @ ..] => rest,
        _ => return Err("the message does not begin with a schema registry's header (a zero and a schema id)"),
    };
    if format != Format::Protobuf {
        return Ok(rest);
    }
    let cut_off = "the schema registry's header is cut off";
    let (count, mut rest) = varint(rest).ok_or(cut_off)?;
    // The count is written as a zigzag varint: twice its value.
    for _ in 0..count / 2 {
        rest = varint(rest).ok_or(cut_off)?.1;
    }
    Ok(rest)
}

/// A varint of at most five bytes, and what stands behind it.
pub(in crate::ingest) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(5).position(|byte| *byte < 0x80)?;
    let (varint, rest) = bytes.split_at(end + 1);
    Some((varint.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic_partition(partition: i32) -> TopicPartition {
        TopicPartition { topic: "calls".into(), partition }
    }

    #[test]
    fn a_haul_is_due_by_rows_bytes_or_age() {
        let bounds = BatchLimits { rows_max: 3, bytes_max: 100, age_max: Duration::from_secs(1) };
        let now = Instant::now();
        let mut message_batch = MessageBatch::default();
        assert_eq!(message_batch.due(&bounds, now), None);
        message_batch.push((topic_partition(0), 7), b"a", TenantResolution::PerEvent, None, now);
        let later = now + Duration::from_millis(10);
        message_batch.push((topic_partition(1), 2), b"b", TenantResolution::PerEvent, None, later);
        assert_eq!(message_batch.due(&bounds, later), Some(now + bounds.age_max), "the age is that of the first");
        message_batch.push((topic_partition(0), 9), b"c", TenantResolution::PerEvent, None, later);
        assert_eq!(message_batch.due(&bounds, later), Some(later));
        assert_eq!(message_batch.spans[&topic_partition(0)], OffsetRange { next: 10, messages: 2, begun: now });

        message_batch.forget(&topic_partition(0));
        assert_eq!((message_batch.messages.len(), message_batch.spans.len()), (1, 1));
        message_batch.forget(&topic_partition(1));
        assert_eq!(message_batch.due(&bounds, later + bounds.age_max), None, "nothing is left to be stored");

        message_batch.reach(&topic_partition(2), 40, later);
        assert!(message_batch.due(&bounds, later).is_some(), "progress alone is stored as well");
        message_batch.push((topic_partition(2), 40), &[b'x'; 200], TenantResolution::PerEvent, None, later);
        assert_eq!(message_batch.due(&bounds, later), Some(later), "a large message fills it");
    }

    #[test]
    fn messages_keep_their_bytes() {
        let now = Instant::now();
        let mut message_batch = MessageBatch::default();
        let payloads: [&[u8]; 4] = [b"{\"a\":1}", b"", b"\xc3", b"\xa9"];
        for (offset, payload) in (0..).zip(payloads) {
            message_batch.push((topic_partition(0), offset), payload, TenantResolution::PerEvent, None, now);
        }
        let body = message_batch.take_body();
        let found: Vec<_> = message_batch.messages.iter().map(|message| &body[message.place.clone()]).collect();
        assert_eq!(found, payloads);
        assert!(std::str::from_utf8(&body).is_err(), "two halves of a character in two messages make none");
    }

    #[test]
    fn a_registrys_header_is_skipped() {
        let json = Format::Json;
        assert_eq!(without_header(json, b"\0\0\0\0\x07{}"), Ok(&b"{}"[..]));
        assert_eq!(
            without_header(Format::Protobuf, b"\0\0\0\0\x07\0\x08\x01"),
            Ok(&b"\x08\x01"[..]),
            "the first message"
        );
        assert_eq!(without_header(Format::Protobuf, b"\0\0\0\0\x07\x04\x02\x80\x01\x08\x01"), Ok(&b"\x08\x01"[..]));
        for bad in [&b"{}"[..], b"", b"\0\0\0\0", b"\x01\0\0\0\x07{}"] {
            assert!(without_header(json, bad).is_err(), "{bad:?}");
        }
        for bad in [&b"\0\0\0\0\x07"[..], b"\0\0\0\0\x07\x04\x02", b"\0\0\0\0\x07\xff\xff\xff\xff\xff\xff"] {
            assert!(without_header(Format::Protobuf, bad).is_err(), "{bad:?}");
        }
    }
}
