//! A look at what a source's transform makes of samples, without Kafka and without a lake.
//!
//! In: samples, as if they had been read from a topic. Out: the rows that would be stored, and what would be in the
//! quarantine. The same code does it that does it in earnest.

use std::sync::Arc;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use tokio::runtime::Handle;

use super::message_batch::{Beside, Fate, Haul, Spot};
use crate::clock::Clock;
use crate::config::{IngestConfig, SourceConfig, TenantFrom};
use crate::contract::{Contract, Format, Kept, Owner, TenantId};
use crate::error::Result;
use crate::ingest::RejectNote;
use crate::ingest::dedupe::Keyer;
use crate::ingest::prepare::{Intaker, Received};
use crate::ingest::submit::stamp;
use crate::transform::{Header, Transform};

/// One message to try.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The payload; none for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<Header>,
}

/// What would become of samples.
#[derive(Debug)]
pub struct Trial {
    /// Rows that would be stored, in the contract's schema.
    pub rows: RecordBatch,
    /// Samples that would be in the quarantine, by their place among all, from 0.
    pub rejects: Vec<RejectNote>,
}

/// Tries samples as messages of partition 0 of the source's first topic, with their places as offsets. Blocks.
pub fn rehearse(
    source: &SourceConfig,
    transform: &Transform,
    contract: &Arc<Contract>,
    samples: &[Sample],
    limits: &IngestConfig,
    clock: &Clock,
    runtime: &Handle,
) -> Result<Trial> {
    let spot = Spot { topic: source.topics.first().map_or("", String::as_str).into(), partition: 0 };
    let (mut haul, received) = (Haul::default(), clock.now());
    for (offset, sample) in (0..).zip(samples) {
        let beside = Beside {
            is_tombstone: sample.value.is_none(),
            key: sample.key.clone(),
            headers: sample.headers.clone(),
            time: Some(received),
        };
        let payload = sample.value.as_deref().unwrap_or_default();
        haul.push((spot.clone(), offset), payload, fate(source, sample)?, Some(Arc::new(beside)), Instant::now());
    }
    let intaker = Intaker {
        contract: Arc::clone(contract),
        quarantine: Arc::new(Contract::quarantine_of(contract)),
        keyer: Keyer::random(),
        notes_max: usize::MAX,
    };
    let (body, messages) = (haul.take_body(), std::mem::take(&mut haul.messages));
    let stamp = stamp(limits, received, Owner::PerEvent);
    let received = Received { body: &body, messages: &messages, kept_as: Kept::Json };
    let given = (Format::Json, &body, &*messages);
    let intake = intaker.take_transformed(transform, given, &received, &stamp, "", runtime)?;
    Ok(Trial { rows: intake.good.rows, rejects: intake.notes })
}

fn fate(source: &SourceConfig, sample: &Sample) -> Result<Fate> {
    Ok(match &source.tenant {
        TenantFrom::Event => Fate::PerEvent,
        TenantFrom::Value(tenant) => Fate::Tenant(TenantId::parse(tenant)?),
        TenantFrom::Key => Fate::named(sample.key.as_deref(), "the message's key"),
        TenantFrom::Header(name) => {
            let found = sample.headers.iter().rev().find(|(found, _)| found == name);
            Fate::named(found.and_then(|(_, value)| value.as_deref()), &format!("the header `{name}`"))
        }
    })
}
