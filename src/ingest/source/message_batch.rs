//! A message batch: the messages that a source has read since its last commit, and the next offset of each partition.
//!
//! A session adds messages one by one. The batch is due as soon as it has reached its maximum number of rows, size or
//! age. The code in this file performs no I/O and does not read the clock.
//!
//! **Invariant:** for each partition, a batch contains all messages between the offset at which the batch began and the
//! partition's `next` offset. The batch can therefore be stored together with the `next` offset, or dropped as a whole
//! and read again.

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

/// An error message shows at most this number of characters of a header's value.
const VALUE_SHOWN_MAX: usize = 64;

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct TopicPartition {
    pub(in crate::ingest) topic: Arc<str>,
    pub(in crate::ingest) partition: i32,
}

/// The tenant of a message, as far as it is known before the message is decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ingest) enum TenantResolution {
    /// Each event in the message names its own tenant.
    PerEvent,
    /// The whole message belongs to this tenant.
    Tenant(TenantId),
    /// The message is not decoded, but written to the quarantine for this reason. `None` if the tenant is unknown.
    Refused(Option<TenantId>, Reason, String),
}

/// A message in a batch.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct BatchMessage {
    /// The payload's byte range in the batch's body.
    pub(in crate::ingest) range: Range<usize>,
    pub(in crate::ingest) topic_partition: TopicPartition,
    pub(in crate::ingest) offset: i64,
    pub(in crate::ingest) tenant_resolution: TenantResolution,
    /// The message's metadata. `None` if the source has no transform, because only transforms use the metadata.
    pub(in crate::ingest) meta: Option<Arc<MessageMeta>>,
}

/// A message's key, headers and other metadata.
#[derive(Debug, Default)]
pub(in crate::ingest) struct MessageMeta {
    /// True if the message has no payload. False if the payload is empty.
    pub(in crate::ingest) is_tombstone: bool,
    pub(in crate::ingest) key: Option<Vec<u8>>,
    pub(in crate::ingest) headers: Vec<Header>,
    pub(in crate::ingest) time: Option<Micros>,
}

/// The progress of one partition in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct OffsetRange {
    /// The next offset to read after this batch.
    pub(super) next: i64,
    /// The number of the partition's messages in the batch.
    pub(in crate::ingest) messages: u64,
    /// When the partition's first message in the batch was read.
    pub(in crate::ingest) first_read: Instant,
}

/// The limits of a batch, which is due as soon as it reaches one of them.
#[derive(Debug, Clone, Copy)]
pub(in crate::ingest) struct BatchLimits {
    pub(in crate::ingest) rows_max: usize,
    pub(in crate::ingest) bytes_max: usize,
    pub(in crate::ingest) age_max: Duration,
}

/// The messages and offsets that will be stored in one commit.
#[derive(Debug, Default)]
pub(in crate::ingest) struct MessageBatch {
    body: BytesMut,
    /// The size of the messages' metadata in bytes. The metadata is not part of the body.
    metadata_bytes: usize,
    pub(in crate::ingest) messages: Vec<BatchMessage>,
    pub(in crate::ingest) ranges: BTreeMap<TopicPartition, OffsetRange>,
    /// When the source was first started, in milliseconds since 1970. `None` if this batch does not need to store the
    /// time.
    pub(in crate::ingest) started: Option<i64>,
    /// True if the commit must not wait for other requests. This is the case for a full batch, because more messages
    /// are already waiting.
    pub(in crate::ingest) commit_now: bool,
    /// Makes the commit fail if the pause number in the table has changed.
    pub(in crate::ingest) guard: Option<Progress>,
    first_read: Option<Instant>,
}

/// Compares partition numbers before topics, because numbers compare faster than strings. A map with this order is
/// searched once per message.
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
    /// Parses `bytes` as the name of the tenant. `what` describes the bytes in error messages.
    pub(in crate::ingest) fn named(bytes: Option<&[u8]>, what: &str) -> Self {
        let refused = |why: String| Self::Refused(None, Reason::MissingTenant, why);
        let Some(bytes) = bytes else { return refused(format!("{what} is missing, but it must name the tenant")) };
        let Ok(text) = std::str::from_utf8(bytes) else { return refused(format!("{what} is not valid UTF-8")) };
        match TenantId::parse(text) {
            Ok(tenant) => Self::Tenant(tenant),
            Err(error) => refused(format!("{what}: {}", error.message())),
        }
    }

    /// Parses the tenant from the header `name`. `values` contains the values of all headers with this name. Several
    /// headers are accepted if their values are equal. If their values differ, the tenant is ambiguous, and the message
    /// is refused.
    pub(in crate::ingest) fn of_header<'v>(name: &str, mut values: impl Iterator<Item = Option<&'v [u8]>>) -> Self {
        let first = values.next();
        if let (Some(first), Some(other)) = (first, values.find(|value| Some(*value) != first)) {
            let [first, other] = [first, other].map(displayed);
            return Self::Refused(
                None,
                Reason::AmbiguousTenant,
                format!(
                    "the header `{name}` has the values {first} and {other}, but must name one tenant: send it once"
                ),
            );
        }
        Self::named(first.flatten(), &format!("the header `{name}`"))
    }
}

impl MessageBatch {
    /// Creates an empty batch with capacity for slightly more than `bytes` bytes. A body that has to grow is copied, so
    /// the capacity should suffice for the next batch.
    pub(in crate::ingest) fn with_capacity(bytes: usize, messages: usize) -> Self {
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
        let range = start..self.body.len();
        // Separate the messages with newlines. Otherwise, a truncated UTF-8 character at the end of a message could be
        // completed by the start of the next one.
        self.body.extend_from_slice(b"\n");
        self.metadata_bytes += meta.as_ref().map_or(0, |meta| meta.bytes());
        self.advance(&topic_partition, offset + 1, 1, now);
        self.messages.push(BatchMessage { range, topic_partition, offset, tenant_resolution, meta });
    }

    /// Sets the next offset of a partition without adding a message.
    pub(in crate::ingest) fn advance_to(&mut self, topic_partition: &TopicPartition, next: i64, now: Instant) {
        self.advance(topic_partition, next, 0, now);
    }

    fn advance(&mut self, topic_partition: &TopicPartition, next: i64, messages: u64, now: Instant) {
        self.first_read.get_or_insert(now);
        match self.ranges.get_mut(topic_partition) {
            Some(range) => (range.next, range.messages) = (next, range.messages + messages),
            None => drop(self.ranges.insert(topic_partition.clone(), OffsetRange { next, messages, first_read: now })),
        }
    }

    /// Removes a partition and its messages. Another server reads the partition now.
    pub(in crate::ingest) fn remove_partition(&mut self, topic_partition: &TopicPartition) {
        if self.ranges.remove(topic_partition).is_some() {
            self.messages.retain(|message| message.topic_partition != *topic_partition);
        }
    }

    /// Returns the time by which the batch must be stored, or `None` if it is empty.
    pub(in crate::ingest) fn due(&self, limits: &BatchLimits, now: Instant) -> Option<Instant> {
        let first_read = self.first_read.filter(|_| !self.ranges.is_empty())?;
        Some(if self.is_full(limits) { now } else { first_read + limits.age_max })
    }

    /// Returns true if no more messages may be added. The last message may make the batch exceed its limits.
    pub(in crate::ingest) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.messages.len() >= limits.rows_max || self.bytes() >= limits.bytes_max
    }

    /// Returns the size of the payloads and metadata in bytes.
    pub(in crate::ingest) fn bytes(&self) -> usize {
        self.body.len() + self.metadata_bytes
    }

    /// Takes the body, which contains the payloads of all messages.
    pub(super) fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.body).freeze()
    }
}

impl MessageMeta {
    /// Returns the approximate size in bytes.
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        size_of::<Self>() + self.key.as_ref().map_or(0, Vec::len) + headers.sum::<usize>()
    }
}

/// Formats a header's value for an error message.
fn displayed(value: Option<&[u8]>) -> String {
    let Some(bytes) = value else { return "null".to_owned() };
    let text: String = String::from_utf8_lossy(bytes).chars().take(VALUE_SHOWN_MAX).collect();
    format!("`{}`", text.escape_debug())
}

/// Strips the header that clients of a Confluent schema registry write. The header consists of a zero byte and a
/// four-byte schema id. For protobuf, the path of the message type in its file follows. The path consists of a count
/// and that number of indexes, all of them zigzag varints.
///
/// Source: the wire format in Confluent's documentation for schema serializers.
pub(in crate::ingest) fn without_header(format: Format, payload: &[u8]) -> Result<&[u8], &'static str> {
    let rest = match payload {
        [0, _, _, _, _, rest @ ..] => rest,
        _ => return Err("the message does not begin with a schema registry's header (a zero byte and a schema id)"),
    };
    if format != Format::Protobuf {
        return Ok(rest);
    }
    let truncated = "the schema registry's header is truncated";
    let (count, mut rest) = varint(rest).ok_or(truncated)?;
    // The zigzag encoding of the count is twice the count.
    for _ in 0..count / 2 {
        rest = varint(rest).ok_or(truncated)?.1;
    }
    Ok(rest)
}

/// Decodes the varint at the start of `bytes`. Returns its value and the bytes after it, or `None` if it is incomplete
/// or has more than five bytes.
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
    fn a_message_batch_is_due_at_its_row_byte_or_age_limit() {
        let limits = BatchLimits { rows_max: 3, bytes_max: 100, age_max: Duration::from_secs(1) };
        let now = Instant::now();
        let mut message_batch = MessageBatch::default();
        assert_eq!(message_batch.due(&limits, now), None);
        message_batch.push((topic_partition(0), 7), b"a", TenantResolution::PerEvent, None, now);
        let later = now + Duration::from_millis(10);
        message_batch.push((topic_partition(1), 2), b"b", TenantResolution::PerEvent, None, later);
        assert_eq!(
            message_batch.due(&limits, later),
            Some(now + limits.age_max),
            "the age counts from the first message"
        );
        message_batch.push((topic_partition(0), 9), b"c", TenantResolution::PerEvent, None, later);
        assert_eq!(message_batch.due(&limits, later), Some(later));
        assert_eq!(message_batch.ranges[&topic_partition(0)], OffsetRange { next: 10, messages: 2, first_read: now });

        message_batch.remove_partition(&topic_partition(0));
        assert_eq!((message_batch.messages.len(), message_batch.ranges.len()), (1, 1));
        message_batch.remove_partition(&topic_partition(1));
        assert_eq!(message_batch.due(&limits, later + limits.age_max), None, "the batch is empty again");

        message_batch.advance_to(&topic_partition(2), 40, later);
        assert!(message_batch.due(&limits, later).is_some(), "progress without messages must be stored too");
        message_batch.push((topic_partition(2), 40), &[b'x'; 200], TenantResolution::PerEvent, None, later);
        assert_eq!(message_batch.due(&limits, later), Some(later), "a large message fills the batch");
    }

    #[test]
    fn a_header_must_name_one_tenant() {
        let tenant = |name: &str| TenantResolution::Tenant(TenantId::parse(name).unwrap());
        let of = |values: &[Option<&[u8]>]| TenantResolution::of_header("who", values.iter().copied());
        assert_eq!(of(&[Some(b"acme")]), tenant("acme"));
        assert_eq!(of(&[Some(b"acme"), Some(b"acme"), Some(b"acme")]), tenant("acme"));
        // The values of the headers, the expected reason, and a part of the expected detail.
        let cases: [(&[Option<&[u8]>], Reason, &str); 9] = [
            (&[], Reason::MissingTenant, "`who` is missing"),
            (&[None, None], Reason::MissingTenant, "`who` is missing"),
            (&[Some(b"acme"), Some(b"globex")], Reason::AmbiguousTenant, "`acme` and `globex`"),
            (&[Some(b"acme"), Some(b"acme"), Some(b"globex")], Reason::AmbiguousTenant, "`acme` and `globex`"),
            (&[Some(b"acme"), None], Reason::AmbiguousTenant, "`acme` and null"),
            (&[Some(b""), Some(b"acme")], Reason::AmbiguousTenant, "`` and `acme`"),
            (&[Some(b"acme"), Some(b"acme ")], Reason::AmbiguousTenant, "`acme` and `acme `"),
            (&[Some(b"acme"), Some(b"\xef\xbb\xbfacme")], Reason::AmbiguousTenant, "`acme` and `\\u{feff}acme`"),
            (&[Some(b"\xef\xbb\xbfacme")], Reason::MissingTenant, "byte order mark"),
        ];
        for (values, expected_reason, expected) in cases {
            let TenantResolution::Refused(None, reason, detail) = of(values) else { panic!("{values:?} is accepted") };
            assert!(reason == expected_reason && detail.contains(expected), "{values:?}: {reason:?}, {detail}");
        }
    }

    #[test]
    fn messages_are_stored_byte_for_byte() {
        let now = Instant::now();
        let mut message_batch = MessageBatch::default();
        let payloads: [&[u8]; 4] = [b"{\"a\":1}", b"", b"\xc3", b"\xa9"];
        for (offset, payload) in (0..).zip(payloads) {
            message_batch.push((topic_partition(0), offset), payload, TenantResolution::PerEvent, None, now);
        }
        let body = message_batch.take_body();
        let found: Vec<_> = message_batch.messages.iter().map(|message| &body[message.range.clone()]).collect();
        assert_eq!(found, payloads);
        assert!(std::str::from_utf8(&body).is_err(), "two halves of a character in two messages are not joined");
    }

    #[test]
    fn the_schema_registry_header_is_stripped() {
        let json = Format::Json;
        assert_eq!(without_header(json, b"\0\0\0\0\x07{}"), Ok(&b"{}"[..]));
        assert_eq!(
            without_header(Format::Protobuf, b"\0\0\0\0\x07\0\x08\x01"),
            Ok(&b"\x08\x01"[..]),
            "the path has a short form for the file's first message type"
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
