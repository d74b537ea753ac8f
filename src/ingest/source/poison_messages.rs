//! Isolates the messages on which decoding panics, so that only these messages are rejected.
//!
//! ```text
//!   all ─► decode ─┬─ returns ─► done
//!                  └─ panics ──► halves, quarters, … ─► the messages that panic on their own ─► rejected ─► decode the rest
//! ```
//!
//! [`isolate`] decodes messages with a function that may panic. This work is CPU-intensive, so it runs on the blocking
//! pool.
//!
//! **Invariant:** a message on which decoding panics is written to the quarantine, and the source continues to read its
//! partition. Otherwise, the whole batch would fail, and the source would read it again forever.

use std::ops::Range;

use super::message_batch::{BatchMessage, TenantResolution};
use crate::contract::Reason;
use crate::error::{Error, Result};
use crate::supervise::catch;

/// The `detail` column of the quarantine entry for a message on which decoding panics. Tenants can read this text.
const QUARANTINE_DETAIL: &str =
    "an internal error occurred while decoding this message; the server's log shows the cause";

/// Decodes messages. If `decode` panics, finds the messages that cause panics, marks them as refused, and calls
/// `decode` with all messages again. Fails with `Internal` if this second call also panics.
pub(super) fn isolate<T>(messages: &[BatchMessage], decode: impl Fn(&[BatchMessage]) -> Result<T>) -> Result<T> {
    let panic = match catch(|| decode(messages)) {
        Ok(decoded) => return decoded,
        Err(panic) => panic,
    };
    let panicking = find_panicking(messages.len(), |range| catch(|| decode(&messages[range])).is_err());
    let mut checked = messages.to_vec();
    for index in &panicking {
        let message = &mut checked[*index];
        let tenant = match &message.tenant_resolution {
            TenantResolution::Tenant(tenant) => Some(tenant.clone()),
            TenantResolution::Refused(tenant, ..) => tenant.clone(),
            TenantResolution::PerEvent => None,
        };
        message.tenant_resolution = TenantResolution::Refused(tenant, Reason::Malformed, QUARANTINE_DETAIL.to_owned());
    }
    let (messages, panic_text) = (panicking.len(), panic.to_string());
    let decoded = catch(|| decode(&checked));
    let decoded = decoded.map_err(|_| Error::internal("decoding a batch of messages panicked").with_source(panic))?;
    tracing::error!(
        messages,
        "decoding panicked on messages from a source, so they are written to the quarantine: {panic_text}"
    );
    decoded
}

/// Finds the messages on which decoding panics even if they are decoded alone. Searches by bisection, and returns the
/// indexes of these messages.
fn find_panicking(count: usize, panics: impl Fn(Range<usize>) -> bool) -> Vec<usize> {
    let (mut found, mut work) = (Vec::new(), Vec::from([Range { start: 0, end: count }]));
    while let Some(range) = work.pop().filter(|range| !range.is_empty()) {
        match range.len() {
            _ if !panics(range.clone()) => {}
            1 => found.push(range.start),
            length => {
                let middle = range.start + length / 2;
                work.extend([middle..range.end, range.start..middle]);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::TenantId;
    use crate::error::Kind;
    use crate::ingest::source::TopicPartition;

    /// Returns a message with this offset. The offset determines whether [`decode`] panics.
    fn message(offset: i64) -> BatchMessage {
        let topic_partition = TopicPartition { topic: "calls".into(), partition: 0 };
        let tenant_resolution = TenantResolution::Tenant(TenantId::parse("acme").unwrap());
        BatchMessage { range: 0..0, topic_partition, offset, tenant_resolution, meta: None }
    }

    /// Returns two lists of offsets: those of the decoded messages, and those of the refused messages. Panics on an
    /// offset that is a multiple of seven.
    fn decode(messages: &[BatchMessage]) -> Result<(Vec<i64>, Vec<i64>)> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for message in messages {
            match &message.tenant_resolution {
                TenantResolution::Refused(tenant, Reason::Malformed, _) => {
                    assert_eq!(tenant.as_ref().unwrap().as_str(), "acme");
                    bad.push(message.offset);
                }
                _ if message.offset % 7 == 0 => panic!("{} is a multiple of seven", message.offset),
                _ => good.push(message.offset),
            }
        }
        Ok((good, bad))
    }

    #[test]
    fn only_messages_that_panic_are_refused() {
        for (offsets, expected) in
            [(1..6, vec![]), (7..8, vec![7]), (1..8, vec![7]), (0..50, vec![0, 7, 14, 21, 28, 35, 42, 49])]
        {
            let messages: Vec<BatchMessage> = offsets.clone().map(message).collect();
            let (good, bad) = isolate(&messages, decode).unwrap();
            assert_eq!(bad, expected, "{offsets:?}");
            assert_eq!(good, offsets.filter(|offset| !expected.contains(offset)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_fails_if_its_messages_panic_only_together() {
        let together = |messages: &[BatchMessage]| {
            assert!(messages.len() < 3, "three messages are too many");
            Ok(())
        };
        let messages: Vec<BatchMessage> = (1..6).map(message).collect();
        assert_eq!(isolate(&messages, together).unwrap_err().kind(), Kind::Internal);
        assert_eq!(
            isolate(&messages, |_| Err::<(), _>(Error::limited("the batch is too large"))).unwrap_err().kind(),
            Kind::Limited
        );
    }
}
