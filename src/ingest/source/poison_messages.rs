//! Isolates the messages on which decoding panics, so that only they are refused.
//!
//! ```text
//!   all ─► decode ─┬─ returns ─► done
//!                  └─ panics ──► halves, their halves, … ─► the messages that panic alone ─► refused ─► decode the rest
//! ```
//!
//! In: a source's messages, and the decoder. Out: the decoded messages. CPU-intensive: it runs on the blocking pool.
//!
//! **Invariant:** a message on which decoding panics goes to the quarantine, and its partition continues. Otherwise the batch
//! would be read again forever.

use std::ops::Range;

use super::message_batch::{BatchMessage, TenantResolution};
use crate::contract::Reason;
use crate::error::{Error, Result};
use crate::supervise::catch;

/// The detail of such a message in the quarantine, shown to the tenant.
const DETAIL: &str = "an internal error occurred while decoding this message; the server's log has the cause";

/// Decodes messages. If `decode` panics, marks the messages that panic on their own as refused and decodes again. `Internal`
/// if that panics as well.
pub(super) fn isolate<T>(messages: &[BatchMessage], decode: impl Fn(&[BatchMessage]) -> Result<T>) -> Result<T> {
    let first = match catch(|| decode(messages)) {
        Ok(decoded) => return decoded,
        Err(panic) => panic,
    };
    let panicking = find(messages.len(), |range| catch(|| decode(&messages[range])).is_err());
    let mut marked = messages.to_vec();
    for index in &panicking {
        let message = &mut marked[*index];
        let tenant = match &message.tenant_resolution {
            TenantResolution::Tenant(tenant) => Some(tenant.clone()),
            TenantResolution::Refused(tenant, ..) => tenant.clone(),
            TenantResolution::PerEvent => None,
        };
        message.tenant_resolution = TenantResolution::Refused(tenant, Reason::Malformed, DETAIL.to_owned());
    }
    let (messages, panic) = (panicking.len(), first.to_string());
    let decoded = catch(|| decode(&marked));
    let decoded = decoded.map_err(|_| Error::internal("decoding a batch of messages panicked").with_source(first))?;
    tracing::error!(messages, "decoding of a source's messages panicked; the messages go to the quarantine: {panic}");
    decoded
}

/// The indexes of the messages that panic on their own.
fn find(count: usize, panics: impl Fn(Range<usize>) -> bool) -> Vec<usize> {
    let (mut found, mut work) = (Vec::new(), Vec::from([Range { start: 0, end: count }]));
    while let Some(range) = work.pop().filter(|range| !range.is_empty()) {
        match range.len() {
            _ if !panics(range.clone()) => {}
            1 => found.push(range.start),
            half => {
                let middle = range.start + half / 2;
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

    /// A message whose offset determines the behaviour of the test decoder.
    fn message(offset: i64) -> BatchMessage {
        let topic_partition = TopicPartition { topic: "calls".into(), partition: 0 };
        let tenant_resolution = TenantResolution::Tenant(TenantId::parse("acme").unwrap());
        BatchMessage { place: 0..0, topic_partition, offset, tenant_resolution, meta: None }
    }

    /// The decoded and the refused offsets. Multiples of seven panic.
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
    fn only_the_message_that_panics_is_refused() {
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
    fn messages_that_panic_only_together_fail_as_a_batch() {
        let together = |messages: &[BatchMessage]| {
            assert!(messages.len() < 3, "three messages are too many");
            Ok(())
        };
        let messages: Vec<BatchMessage> = (1..6).map(message).collect();
        assert_eq!(isolate(&messages, together).unwrap_err().kind(), Kind::Internal);
        assert_eq!(isolate(&messages, |_| Err::<(), _>(Error::limited("too much"))).unwrap_err().kind(), Kind::Limited);
    }
}
