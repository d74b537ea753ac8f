//! How events come in: every push door calls [`Ingest::submit`] and nothing else.
//!
//! ```text
//!   submit ─► admit (bytes) ─► decode ─┐                       ┌─► table.write ─► table.commit ─► acknowledge all
//!   submit ─► admit (bytes) ─► decode ─┼─► batch ─► dedupe ─► sort ┘
//!   submit ─► …                        ┘  (rows, bytes, age)   rejects ─► quarantine.write ─► quarantine.commit
//! ```
//!
//! **Invariant:** a receipt follows the commit: what it calls accepted is durable and visible.
//! **Invariant:** dedupe happens before anything is counted.
//! **Invariant:** `ingest` does not know that queries or rollups exist; they meet in the lake.

mod batch;
mod dedupe;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::clock::Clock;
use crate::config::IngestConfig;
use crate::contract::{Format, Reason};
use crate::error::Result;
use crate::lake::Tables;
use crate::telemetry::Metrics;
use crate::tenancy::Access;

/// What a door hands in.
#[derive(Debug)]
pub enum Payload {
    /// A decompressed body.
    Encoded(Format, Bytes),
    /// Columns (Flight).
    Arrow(Vec<RecordBatch>),
}

/// What became of a request's events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// Stored now.
    pub accepted: u64,
    /// Stored before, or twice in this request.
    pub duplicate: u64,
    /// In quarantine.
    pub rejected: u64,
    /// The first rejected ones, in order: at most `receipt_rejects_max`.
    pub rejects: Vec<RejectNote>,
    /// The table's version that holds them (0 when nothing had to be committed).
    pub version: u64,
}

/// One rejected event in a receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectNote {
    /// Its place in the request, from 0.
    pub index: u64,
    /// Why.
    pub reason: Reason,
    /// For a person.
    pub detail: String,
}

/// The one way in. Owns a committer task per table.
#[derive(Debug)]
pub struct Ingest {}

impl Ingest {
    /// Rebuilds the dedupe windows from the lake and starts the committers. `tables` holds quarantines as well.
    pub async fn start(
        tables: Arc<Tables>,
        config: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let _ = (tables, config, clock, metrics);
        todo!()
    }

    /// Validates, stamps, dedupes, commits, and only then returns. `Limited` with a retry time when the queue is full;
    /// `NotFound` for a table that the caller may not see; `Forbidden` without the ingest scope. `door` names the way in
    /// ("http", "flight") for the quarantine's place. Dropping the future does not undo what was admitted.
    pub async fn submit(&self, access: &Access, table: &str, payload: Payload, door: &str) -> Result<Receipt> {
        let _ = (access, table, payload, door);
        todo!()
    }

    /// Stops taking requests, commits what was admitted, and ends the tasks.
    pub async fn stop(&self) {
        todo!()
    }
}
