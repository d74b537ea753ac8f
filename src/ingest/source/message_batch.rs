//! A message batch: the messages that a source has read since its last commit, and the next offset of each partition.
//!
//! In: messages one by one. Out: a [`MessageBatch`] that is due by rows, bytes or age. Pure: no client, no clock.
//!
//! **Invariant:** a batch holds all messages of a partition that were read from the start of the batch up to its `next`. So it
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

/// The tenant of a message, as far as it is known before decoding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ingest) enum TenantResolution {
    /// The tenant field of each event names the tenant.
    PerEvent,
    /// The message belongs to this tenant.
    Tenant(TenantId),
    /// The message goes to the quarantine without decoding, under this tenant if one is known.
    Refused(Option<TenantId>, Reason, String),
}

/// One message.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct BatchMessage {
    /// Its byte range in the body.
    pub(in crate::ingest) place: Range<usize>,
    pub(in crate::ingest) topic_partition: TopicPartition,
    pub(in crate::ingest) offset: i64,
    pub(in crate::ingest) tenant_resolution: TenantResolution,
    /// Its metadata, if a transform may use it.
    pub(in crate::ingest) meta: Option<Arc<MessageMeta>>,
}

/// The metadata of a message besides its payload.
#[derive(Debug, Default)]
pub(in crate::ingest) struct MessageMeta {
    /// Whether the message has no payload.
    pub(in crate::ingest) is_tombstone: bool,
    pub(in crate::ingest) key: Option<Vec<u8>>,
    pub(in crate::ingest) headers: Vec<Header>,
    pub(in crate::ingest) time: Option<Micros>,
}

/// The messages of one partition in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct OffsetRange {
    /// The next offset to read.
    pub(super) next: i64,
    pub(in crate::ingest) messages: u64,
    /// When the first message was read.
    pub(in crate::ingest) begun: Instant,
}

/// The limits at which a batch is due.
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
    /// Bytes of metadata, outside the body.
    meta: usize,
    pub(in crate::ingest) messages: Vec<BatchMessage>,
    pub(in crate::ingest) spans: BTreeMap<TopicPartition, OffsetRange>,
    /// When the source was first started, in milliseconds since 1970, if that must be stored.
    pub(in crate::ingest) started: Option<i64>,
    /// Whether the batch is full. More messages are waiting, so it is committed without waiting for other requests.
    pub(in crate::ingest) is_whole: bool,
    /// A further condition that the table must still meet at the commit.
    pub(in crate::ingest) guard: Option<Progress>,
    begun: Option<Instant>,
}

/// By partition, then by topic: each message looks up its partition, and numbers compare faster than names.
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
    /// The tenant that `bytes` name. `what` describes the bytes in the error message.
    pub(in crate::ingest) fn named(bytes: Option<&[u8]>, what: &str) -> Self {
        let refused = |why: String| Self::Refused(None, Reason::MissingTenant, why);
        let Some(bytes) = bytes else { return refused(format!("{what} is missing, but must name the tenant")) };
        let Ok(text) = std::str::from_utf8(bytes) else { return refused(format!("{what} is not UTF-8")) };
        match TenantId::parse(text) {
            Ok(tenant) => Self::Tenant(tenant),
            Err(fault) => refused(format!("{what}: {}", fault.message())),
        }
    }
}

impl MessageBatch {
    /// Creates an empty batch with capacity for a little more than the previous one, because growing copies the whole body.
    pub(in crate::ingest) fn with_room(bytes: usize, messages: usize) -> Self {
        Self {
            body: BytesMut::with_capacity(bytes + bytes / 8),
            messages: Vec::with_capacity(messages),
            ..Self::default()
        }
    }

    /// Adds a message.
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
        // Separates messages, so that an incomplete character at the end of one is not completed by the next one.
        self.body.extend_from_slice(b"\n");
        self.meta += meta.as_ref().map_or(0, |meta| meta.bytes());
        self.advance(&topic_partition, offset + 1, 1, now);
        self.messages.push(BatchMessage { place, topic_partition, offset, tenant_resolution, meta });
    }

    /// Sets the next offset of a partition without adding a message.
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

    /// Drops the messages of a partition that another server reads now.
    pub(in crate::ingest) fn forget(&mut self, topic_partition: &TopicPartition) {
        if self.spans.remove(topic_partition).is_some() {
            self.messages.retain(|message| message.topic_partition != *topic_partition);
        }
    }

    /// The latest time at which the batch must be stored; `None` if it is empty.
    pub(in crate::ingest) fn due(&self, bounds: &BatchLimits, now: Instant) -> Option<Instant> {
        let begun = self.begun.filter(|_| !self.spans.is_empty())?;
        Some(if self.is_full(bounds) { now } else { begun + bounds.age_max })
    }

    /// Whether no more messages should be added. The last message may exceed the limits.
    pub(in crate::ingest) fn is_full(&self, bounds: &BatchLimits) -> bool {
        self.messages.len() >= bounds.rows_max || self.bytes() >= bounds.bytes_max
    }

    /// The size of the payloads and metadata in bytes.
    pub(in crate::ingest) fn bytes(&self) -> usize {
        self.body.len() + self.meta
    }

    /// Takes the body, which contains the payloads of all messages.
    pub(super) fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.body).freeze()
    }
}

impl MessageMeta {
    /// The approximate size in bytes.
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        size_of::<Self>() + self.key.as_ref().map_or(0, Vec::len) + headers.sum::<usize>()
    }
}

/// Strips the header that clients of a Confluent schema registry write: a zero byte, a four-byte schema id, and for protobuf
/// the path of the message's type in its file (a count and that number of indexes, all zigzag varints).
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
    let cut_off = "the schema registry's header is truncated";
    let (count, mut rest) = varint(rest).ok_or(cut_off)?;
    // The count is written as a zigzag varint: twice its value.
    for _ in 0..count / 2 {
        rest = varint(rest).ok_or(cut_off)?.1;
    }
    Ok(rest)
}

/// Splits off a varint of at most five bytes. Returns its value and the rest.
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
    fn a_message_batch_is_due_by_rows_bytes_or_age() {
        let bounds = BatchLimits { rows_max: 3, bytes_max: 100, age_max: Duration::from_secs(1) };
        let now = Instant::now();
        let mut message_batch = MessageBatch::default();
        assert_eq!(message_batch.due(&bounds, now), None);
        message_batch.push((topic_partition(0), 7), b"a", TenantResolution::PerEvent, None, now);
        let later = now + Duration::from_millis(10);
        message_batch.push((topic_partition(1), 2), b"b", TenantResolution::PerEvent, None, later);
        assert_eq!(
            message_batch.due(&bounds, later),
            Some(now + bounds.age_max),
            "the age counts from the first message"
        );
        message_batch.push((topic_partition(0), 9), b"c", TenantResolution::PerEvent, None, later);
        assert_eq!(message_batch.due(&bounds, later), Some(later));
        assert_eq!(message_batch.spans[&topic_partition(0)], OffsetRange { next: 10, messages: 2, begun: now });

        message_batch.forget(&topic_partition(0));
        assert_eq!((message_batch.messages.len(), message_batch.spans.len()), (1, 1));
        message_batch.forget(&topic_partition(1));
        assert_eq!(message_batch.due(&bounds, later + bounds.age_max), None, "nothing is left to store");

        message_batch.reach(&topic_partition(2), 40, later);
        assert!(message_batch.due(&bounds, later).is_some(), "progress without messages is stored as well");
        message_batch.push((topic_partition(2), 40), &[b'x'; 200], TenantResolution::PerEvent, None, later);
        assert_eq!(message_batch.due(&bounds, later), Some(later), "a large message fills the batch");
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
        assert!(std::str::from_utf8(&body).is_err(), "two halves of a character in two messages stay separate");
    }

    #[test]
    fn a_registrys_header_is_skipped() {
        let json = Format::Json;
        assert_eq!(without_header(json, b"\0\0\0\0\x07{}"), Ok(&b"{}"[..]));
        assert_eq!(
            without_header(Format::Protobuf, b"\0\0\0\0\x07\0\x08\x01"),
            Ok(&b"\x08\x01"[..]),
            "the first message type"
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
