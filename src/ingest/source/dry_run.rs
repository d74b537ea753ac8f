//! Runs a source's transform on sample messages, without Kafka and without a lake.
//!
//! A dry run processes samples with the same code that a source runs on messages from a topic. The result contains the
//! rows that would be stored, and the rejects that would be written to the quarantine.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use super::message_batch::{MessageBatch, MessageMeta, TenantResolution, TopicPartition};
use super::truncation::Truncation;
use crate::clock::Clock;
use crate::config::{IngestConfig, SourceConfig, TenantFrom};
use crate::contract::{Contract, EventBatch, Format, Owner, PayloadFormat, TenantId};
use crate::error::{Error, Result};
use crate::ingest::dedupe::EventKeyHasher;
use crate::ingest::prepare::{Preparer, ReceivedMessages};
use crate::ingest::receipt::RejectNote;
use crate::ingest::writer::stamp;
use crate::transform::{Header, Transform};

/// A sample message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The payload. `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The key of the message. `None` if it has no key.
    pub key: Option<Vec<u8>>,
    /// The message headers, in the order in which the producer added them.
    pub headers: Vec<Header>,
}

/// The result of a dry run.
#[derive(Debug)]
pub struct DryRun {
    /// The rows that would be stored, in the contract's schema.
    pub rows: EventBatch,
    /// The samples that would be written to the quarantine. Each note contains the index of its sample, counted from 0.
    pub rejects: Vec<RejectNote>,
    /// The sample at which the source would stop, and the reason. The samples before it have been processed.
    pub stop: Option<(usize, Error)>,
}

/// Processes samples as if they were messages in partition 0 of the source's first topic. The offset of a sample is its
/// index. Blocks the calling thread.
pub fn dry_run(
    source: &SourceConfig,
    transform: &Transform,
    contract: &Arc<Contract>,
    samples: &[Sample],
    limits: &IngestConfig,
    clock: &Clock,
    runtime: &Handle,
) -> Result<DryRun> {
    let topic_partition =
        TopicPartition { topic: source.topics.first().map_or("", String::as_str).into(), partition: 0 };
    let (mut message_batch, received) = (MessageBatch::default(), clock.now());
    for (offset, sample) in (0..).zip(samples) {
        let meta = MessageMeta {
            is_tombstone: sample.value.is_none(),
            key: sample.key.clone(),
            headers: sample.headers.clone(),
            time: Some(received),
        };
        let payload = sample.value.as_deref().unwrap_or_default();
        message_batch.push(
            (topic_partition.clone(), offset),
            payload,
            tenant_resolution(source, sample)?,
            Some(Arc::new(meta)),
            Instant::now(),
        );
    }
    let preparer = Preparer {
        contract: Arc::clone(contract),
        quarantine: Arc::new(Contract::quarantine_of(contract)),
        key_hasher: EventKeyHasher::random(),
        notes_max: usize::MAX,
    };
    let (body, messages) = (message_batch.take_body(), std::mem::take(&mut message_batch.messages));
    let stamp = stamp(limits, received, Owner::PerEvent);
    let received = ReceivedMessages { body: &body, messages: &messages, kept_as: PayloadFormat::Json };
    let input = (Format::Json, &body, &*messages);
    match preparer.prepare_transformed(transform, input, &received, &stamp, "", runtime) {
        Ok(prepared) => Ok(DryRun { rows: prepared.good.rows, rejects: prepared.notes, stop: None }),
        Err(error) => match Truncation::of(&error).and_then(|truncation| usize::try_from(truncation.offset).ok()) {
            Some(index) if index < samples.len() => {
                let before = dry_run(source, transform, contract, &samples[..index], limits, clock, runtime)?;
                Ok(DryRun { stop: Some((index, error)), ..before })
            }
            _ => Err(error),
        },
    }
}

fn tenant_resolution(source: &SourceConfig, sample: &Sample) -> Result<TenantResolution> {
    Ok(match &source.tenant {
        TenantFrom::Event => TenantResolution::PerEvent,
        TenantFrom::Value(tenant) => TenantResolution::Tenant(TenantId::parse(tenant)?),
        TenantFrom::Key => TenantResolution::named(sample.key.as_deref(), "the message's key"),
        TenantFrom::Header(name) => {
            let values = sample.headers.iter().filter(|(found, _)| found == name);
            TenantResolution::of_header(name, values.map(|(_, value)| value.as_deref()))
        }
    })
}
