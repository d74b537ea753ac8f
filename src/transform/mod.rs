//! Transforms: a source's SELECT over each message batch, joined with lookup tables.
//!
//! ```text
//!   messages ─► debezium? ─► table `messages` ─┐
//!                                              ├─► plan (made once) ─► run ─► rows, and the message of each row
//!   file │ url │ query ─► lookup tables ───────┘              │
//!                                                             └─► bad messages, each with its reason
//! ```
//!
//! **Invariant:** a row comes from exactly one message. The rows of a message depend on that message and on the lookup
//! tables, never on the other messages of the batch: a batch may be split anywhere, and read again with other boundaries.
//! **Invariant:** a bad message does not affect the others, and is reported with its own reason.
//! **Invariant:** `transform` does not depend on Kafka, the lake or queries: its caller passes in the messages, and the function
//! that runs the query of a lookup.

mod plan;

mod messages;

mod debezium;
mod json;
mod json_path;

mod batch_table;
mod deadline;
mod provenance;

mod execute;

mod error;

mod lookup;
mod lookup_fetch;
mod lookup_file;

#[cfg(test)]
mod lookup_tests;
#[cfg(test)]
mod tests;

pub use lookup::{LookupQuery, Lookups};

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::clock::Micros;
use crate::config::{Envelope, IngestConfig, SourceConfig, TenantFrom};
use crate::contract::{Contract, Reason};
use crate::error::{Error, Result, did_you_mean};
use crate::supervise;

use execute::BatchRun;
use lookup::LoadedLookup;
use messages::MESSAGES;
use plan::{PlanTarget, TransformPlan};

/// A header of a message: its name and its value.
pub type Header = (String, Option<Vec<u8>>);

/// One message, as read from its source.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The payload; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The headers, in their original order.
    pub headers: &'a [Header],
    /// The topic it was read from.
    pub topic: &'a str,
    /// The partition, from 0.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: i64,
    /// The message's timestamp.
    pub time: Option<Micros>,
}

/// Rows that a transform produced.
#[derive(Debug)]
pub struct Rows {
    /// The rows, with the column names of the SELECT.
    pub batch: RecordBatch,
    /// For each row, the index of its message in the batch.
    pub messages: Vec<u32>,
}

/// A message that cannot be transformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageError {
    /// Its index in the batch.
    pub message: usize,
    /// The reason, as a code.
    pub reason: Reason,
    /// The reason, as text.
    pub detail: String,
}

/// The outcome of a batch.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The accepted rows.
    pub parts: Vec<T>,
    /// Its bad messages, in order.
    pub faults: Vec<MessageError>,
    /// The number of messages the statement has processed, without bad messages and tombstones.
    pub messages: usize,
}

/// The limits of one batch.
#[derive(Debug, Clone, Copy)]
struct TransformLimits {
    time_max: Duration,
    bytes_max: usize,
    rows_max: usize,
}

/// The transform of one source.
pub struct Transform {
    source: String,
    contract: Arc<Contract>,
    is_owned: bool,
    envelope: Envelope,
    /// Parsed again each time it is planned, which is rare: holding the parsed tree would slow down compilation of every future.
    sql: String,
    lookups: Arc<Lookups>,
    /// The lookups that the statement reads.
    names: Vec<String>,
    bounds: TransformLimits,
    prepared: Mutex<Option<Arc<Prepared>>>,
}

/// A plan, and the contents of its lookups when it was last checked.
struct Prepared {
    plan: Arc<TransformPlan>,
    loaded: Vec<(String, Arc<LoadedLookup>)>,
    /// Contents for which planning failed: logged once.
    refused: Vec<(String, Arc<LoadedLookup>)>,
}

impl Transform {
    /// The transform of a source, if it has one. Planning blocks: do not call this on a runtime thread. `Invalid` if the
    /// statement is not one SELECT, or does not fit the table as far as that can be checked before all lookups are loaded
    /// ([`Transform::waits_for`]).
    pub fn new(
        source: &str,
        config: &SourceConfig,
        contract: &Arc<Contract>,
        lookups: &Arc<Lookups>,
        limits: &IngestConfig,
    ) -> Result<Option<Arc<Self>>> {
        let (key, sql) = match (&config.transform, &config.transform_file) {
            (Some(sql), _) => (format!("sources.{source}.transform"), sql.clone()),
            (None, Some(path)) => {
                let sql = std::fs::read_to_string(path);
                let sql = sql.map_err(|error| Error::invalid(format!("{} cannot be read: {error}", path.display())));
                let key = format!("sources.{source}.transform_file");
                (key.clone(), sql.map_err(|fault| fault.at(key))?)
            }
            (None, None) => return Ok(None),
        };
        let names = names(&sql, lookups).map_err(|fault| fault.at(&key))?;
        let transform = Self {
            source: source.to_owned(),
            contract: Arc::clone(contract),
            is_owned: config.tenant != TenantFrom::Event,
            envelope: config.envelope,
            sql,
            lookups: Arc::clone(lookups),
            names,
            bounds: TransformLimits {
                time_max: limits.transform_time_max,
                bytes_max: limits.transform_memory_bytes_max,
                rows_max: limits.transform_rows_max,
            },
            prepared: Mutex::default(),
        };
        if let Ok(expected) = lookups.expected(&transform.names) {
            transform.plan(&expected).map_err(|fault| fault.at(&key))?;
        }
        Ok(Some(Arc::new(transform)))
    }

    /// The envelope around the events.
    pub fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Lookups that must be loaded before the statement can be checked.
    pub fn waits_for(&self) -> Vec<String> {
        self.lookups.expected(&self.names).err().unwrap_or_default()
    }

    /// Waits without a time limit until there is a plan. Returns `false` if the server stops first.
    pub async fn ready(self: &Arc<Self>, stop: &CancellationToken) -> bool {
        loop {
            let mut changes = self.lookups.changes();
            let source = &self.source;
            match self.lookups.now(&self.names) {
                Ok(loaded) => {
                    let transform = Arc::clone(self);
                    match supervise::blocking("planning", move || transform.prepare(loaded)).await {
                        Ok(_) => return true,
                        Err(error) => {
                            tracing::error!(%source, ?error, "the transform does not fit its lookups: the source waits")
                        }
                    }
                }
                Err(missing) => {
                    tracing::warn!(%source, lookups = %missing.join(", "), "the source waits for its lookups");
                }
            }
            match stop.run_until_cancelled(changes.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    /// Transforms messages into rows and passes them to `accept`, which may refuse them. Blocks: do not call this on a runtime
    /// thread. `Limited` without a retry delay if the batch as a whole exceeds a limit; smaller batches may succeed.
    pub fn run<T>(
        &self,
        messages: &[Message<'_>],
        runtime: &Handle,
        accept: impl FnMut(Rows) -> Result<T>,
    ) -> Result<Outcome<T>> {
        let prepared = self.now()?;
        let is_read = &prepared.plan.is_read;
        let table = messages::table(self.envelope, messages, |column| is_read.get(column).copied().unwrap_or(false))?;
        let filled =
            |(name, loaded): &(String, Arc<LoadedLookup>)| (Arc::from(name.as_str()), Arc::clone(&loaded.batches));
        let lookups = prepared.loaded.iter().map(filled).collect();
        let run = BatchRun { plan: &prepared.plan, lookups: &lookups, bounds: self.bounds, runtime };
        run.all(table, accept)
    }

    /// The plan for the current contents of the lookups. If these cannot be planned, the last plan that worked.
    fn now(&self) -> Result<Arc<Prepared>> {
        let loaded = self
            .lookups
            .now(&self.names)
            .map_err(|missing| Error::unavailable(format!("lookups are not loaded yet: {}", missing.join(", "))))?;
        self.prepare(loaded)
    }

    fn prepare(&self, loaded: Vec<(String, Arc<LoadedLookup>)>) -> Result<Arc<Prepared>> {
        // A panic while planning leaves the previous plan in place.
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let last = prepared.clone();
        let next = match last {
            Some(last) if all_same(&last.loaded, &loaded, Arc::ptr_eq) => return Ok(last),
            Some(last) if all_same(&last.refused, &loaded, Arc::ptr_eq) && !loaded.is_empty() => return Ok(last),
            Some(last) if all_same(&last.loaded, &loaded, |one, other| one.schema == other.schema) => {
                Prepared { plan: Arc::clone(&last.plan), loaded, refused: Vec::new() }
            }
            last => match (self.plan(&loaded), last) {
                (Ok(plan), _) => Prepared { plan: Arc::new(plan), loaded, refused: Vec::new() },
                (Err(error), None) => return Err(error),
                (Err(error), Some(last)) => {
                    let source = &self.source;
                    tracing::error!(%source, ?error, "a lookup has changed and the transform does not fit it: the previous contents stay");
                    Prepared { plan: Arc::clone(&last.plan), loaded: last.loaded.clone(), refused: loaded }
                }
            },
        };
        let next = Arc::new(next);
        *prepared = Some(Arc::clone(&next));
        Ok(next)
    }

    fn plan(&self, lookups: &[(String, Arc<LoadedLookup>)]) -> Result<TransformPlan> {
        let target = PlanTarget { contract: &self.contract, is_owned: self.is_owned, envelope: self.envelope };
        TransformPlan::new(&self.sql, target, lookups)
    }
}

/// The lookups that a statement reads.
fn names(sql: &str, lookups: &Lookups) -> Result<Vec<String>> {
    let (_, mut names) = plan::parse(sql)?;
    names.retain(|name| name != MESSAGES);
    names.sort();
    names.dedup();
    if let Some(unknown) = names.iter().find(|name| !lookups.has(name)) {
        let known: Vec<&str> = std::iter::once(MESSAGES).chain(lookups.names()).collect();
        let near = did_you_mean(unknown, known.iter().copied());
        let known = known.join(", ");
        return Err(Error::invalid(format!("unknown table or lookup `{unknown}`{near}; a transform can read {known}")));
    }
    Ok(names)
}

/// Whether both lists hold the same lookups in the same order.
fn all_same(
    one: &[(String, Arc<LoadedLookup>)],
    other: &[(String, Arc<LoadedLookup>)],
    is_same: impl Fn(&Arc<LoadedLookup>, &Arc<LoadedLookup>) -> bool,
) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|((_, one), (_, other))| is_same(one, other))
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transform").field("source", &self.source).field("lookups", &self.names).finish_non_exhaustive()
    }
}
