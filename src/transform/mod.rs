//! A transform is the SELECT statement of a source. It runs over each batch of messages, and may join the messages with
//! lookup tables.
//!
//! ```text
//!   messages ─► debezium? ─► table `messages` ─┐
//!                                              ├─► plan (once) ─► run per batch ─► rows, and the message of each row
//!   file │ url │ query ─► lookup tables ───────┤                       │
//!                                              │                       └─► rejected messages, each with its reason
//!                                              └─► queries, if the configuration permits it
//! ```
//!
//! **Invariant:** a row comes from exactly one message. The rows depend only on this message and on the lookup tables.
//! A batch can therefore be split anywhere, or read again with different boundaries.
//! **Invariant:** a message that cannot be transformed does not affect other messages, and is reported with its own
//! reason.
//! **Invariant:** `transform` does not depend on Kafka, the lake or queries. The caller passes in the messages, and a
//! function that runs the queries of lookups.

mod plan;

mod messages_table;

mod base64_guard;
mod debezium;

mod deadline;
mod placeholder_table;
mod provenance;

mod execute;

mod error;

mod lookup;
mod lookup_contents;
mod lookup_fault;
mod lookup_fetch;
mod lookup_file;
mod lookup_queryable;

#[cfg(test)]
mod lookup_queryable_tests;
#[cfg(test)]
mod lookup_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use lookup::{LookupQuery, Lookups, QueryableLookup};
pub use lookup_contents::LoadedLookup;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::clock::Micros;
use crate::config::{DecimalEncoding, Envelope, IngestConfig, OnTruncate, SourceConfig, SourceFormat, TenantFrom};
use crate::contract::{Contract, Reason};
use crate::error::{Error, Result, did_you_mean};
use crate::supervise;

use debezium::{ChangeReader, DebeziumMessage, UnavailableValue};
use execute::BatchRun;
use messages_table::MESSAGES;
use plan::{PlanTarget, TransformPlan};

/// The name and the value of a message header.
pub type Header = (String, Option<Vec<u8>>);

/// A message, as read from its source.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The payload, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The headers, in the order in which the producer added them.
    pub headers: &'a [Header],
    /// The topic from which the message was read.
    pub topic: &'a str,
    /// The partition number, starting at 0.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: i64,
    /// The message's timestamp, if any.
    pub time: Option<Micros>,
}

/// Rows that a transform has produced.
#[derive(Debug)]
pub struct Rows {
    /// The rows, with the column names of the SELECT statement.
    pub batch: RecordBatch,
    /// For each row, the index of its message in the batch.
    pub messages: Vec<u32>,
}

/// A message that cannot be transformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageError {
    /// The message's index in the batch.
    pub message: usize,
    /// The reason code.
    pub reason: Reason,
    /// Why the message cannot be transformed, as text for the operator.
    pub detail: String,
}

/// The result of transforming a batch.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The results of the function `accept`, one for each part of the batch that was transformed successfully.
    pub parts: Vec<T>,
    /// The messages that cannot be transformed, in the order of the batch.
    pub errors: Vec<MessageError>,
    /// The number of messages that became rows of the table `messages`. Invalid messages and Debezium's tombstones are
    /// not counted.
    pub messages: usize,
    /// The index of the first message that reports the truncation of a database table, if the source stops at such a
    /// message. In this case, no message of the batch was transformed.
    pub truncation: Option<usize>,
}

/// The limits on the transform of one batch.
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
    /// True if the source, not the statement, determines the tenant of a message.
    is_owned: bool,
    envelope: Envelope,
    /// True if a JSON string that may be base64 must not be read as a number.
    guards_base64: bool,
    /// The placeholder for unavailable values. `None` if the messages are not in Debezium's envelope.
    unavailable: Option<UnavailableValue>,
    on_truncate: OnTruncate,
    /// The text of the statement, which is parsed each time the statement is planned. Planning is rare, and storing the
    /// syntax tree instead would increase the compile time of every future that holds a transform.
    sql: String,
    lookups: Arc<Lookups>,
    /// The names of the lookups that the statement reads.
    names: Vec<String>,
    limits: TransformLimits,
    prepared: Mutex<Option<Arc<Prepared>>>,
}

/// A plan, and the contents that its lookups had when the plan was last checked.
struct Prepared {
    plan: Arc<TransformPlan>,
    loaded: Vec<(String, Arc<LoadedLookup>)>,
    /// The newest lookup contents for which planning failed. Planning is not attempted again with the same contents.
    rejected: Vec<(String, Arc<LoadedLookup>)>,
}

impl Transform {
    /// Creates the transform of a source. Returns `None` if the source has no transform. Planning blocks the calling
    /// thread, which must not be a worker thread of the async runtime.
    ///
    /// Fails with `Invalid` if the statement is not a single SELECT, or if its result does not fit the table. If the
    /// columns of a lookup are not known yet ([`Transform::waits_for`]), the result is checked later.
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
                (key.clone(), sql.map_err(|error| error.at(key))?)
            }
            (None, None) => return Ok(None),
        };
        let names = names(&sql, lookups).map_err(|error| error.at(&key))?;
        let transform = Self {
            source: source.to_owned(),
            contract: Arc::clone(contract),
            is_owned: config.tenant != TenantFrom::Event,
            envelope: config.envelope,
            guards_base64: config.envelope == Envelope::Debezium
                && config.format == SourceFormat::Json
                && config.decimals == DecimalEncoding::Base64,
            unavailable: (config.envelope == Envelope::Debezium)
                .then(|| UnavailableValue::new(&config.unavailable_value)),
            on_truncate: config.on_truncate,
            sql,
            lookups: Arc::clone(lookups),
            names,
            limits: TransformLimits {
                time_max: limits.transform_time_max,
                bytes_max: limits.transform_memory_bytes_max,
                rows_max: limits.transform_rows_max,
            },
            prepared: Mutex::default(),
        };
        if let Ok(expected) = lookups.expected(&transform.names) {
            transform.plan(&expected).map_err(|error| error.at(&key))?;
        }
        Ok(Some(Arc::new(transform)))
    }

    /// Returns the format of the messages' envelope.
    pub fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Returns true if a message in Debezium's envelope is valid, but is not a change of a row. Such a message names no
    /// tenant.
    pub fn is_without_row(&self, message: &Message<'_>) -> bool {
        let (Some(unavailable), Some(value)) = (&self.unavailable, message.value) else { return false };
        let json = std::str::from_utf8(value).ok();
        let read = json.and_then(|json| ChangeReader::new(unavailable).read(json).ok());
        matches!(read, Some(DebeziumMessage::Truncate | DebeziumMessage::Other))
    }

    /// Returns the names of the lookups that must be loaded before the statement can be checked.
    pub fn waits_for(&self) -> Vec<String> {
        self.lookups.expected(&self.names).err().unwrap_or_default()
    }

    /// Waits, without a time limit, until all lookups are loaded and the statement is planned. Returns `false` if the
    /// server stops during the wait.
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
                            tracing::error!(%source, ?error, "the transform cannot be planned with its lookups; the source waits until they change")
                        }
                    }
                }
                Err(missing) => {
                    tracing::warn!(%source, lookups = %missing.join(", "), "the source waits until its lookups are loaded");
                }
            }
            match stop.run_until_cancelled(changes.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    /// Transforms messages into rows and passes them to `accept`, which may refuse them. This function blocks the
    /// calling thread, which must not be a worker thread of the async runtime. If the batch as a whole exceeds a limit,
    /// returns `Limited`. This error contains no retry time, because the caller can retry immediately with smaller
    /// batches.
    pub fn run<T>(
        &self,
        messages: &[Message<'_>],
        runtime: &Handle,
        accept: impl FnMut(Rows) -> Result<T>,
    ) -> Result<Outcome<T>> {
        let prepared = self.now()?;
        let is_read = &prepared.plan.is_read;
        let is_needed = |column: usize| is_read.get(column).copied().unwrap_or(false);
        let table = messages_table::table(self.unavailable.as_ref(), messages, is_needed)?;
        if let Some(first) = table.truncations.first() {
            if self.on_truncate == OnTruncate::Stop {
                return Ok(Outcome { parts: Vec::new(), errors: Vec::new(), messages: 0, truncation: Some(*first) });
            }
            let (source, Message { topic, partition, offset, .. }) = (&self.source, &messages[*first]);
            tracing::warn!(%source, %topic, partition, offset, "a database table was truncated; the rows that were stored before stay visible, because on_truncate is \"ignore\"");
        }
        let contents =
            |(name, loaded): &(String, Arc<LoadedLookup>)| (Arc::from(name.as_str()), Arc::clone(&loaded.batches));
        let lookups = prepared.loaded.iter().map(contents).collect();
        let run = BatchRun { plan: &prepared.plan, lookups: &lookups, limits: self.limits, runtime };
        run.run_all(table, accept)
    }

    /// Returns the plan for the current contents of the lookups, or the previous plan if planning with these contents
    /// fails.
    fn now(&self) -> Result<Arc<Prepared>> {
        let loaded = self
            .lookups
            .now(&self.names)
            .map_err(|missing| Error::unavailable(format!("lookups are not loaded yet: {}", missing.join(", "))))?;
        self.prepare(loaded)
    }

    fn prepare(&self, loaded: Vec<(String, Arc<LoadedLookup>)>) -> Result<Arc<Prepared>> {
        // A poisoned lock is safe to use, because a panic during planning leaves the previous plan in place.
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let last = prepared.clone();
        let next = match last {
            Some(last) if all_same(&last.loaded, &loaded, Arc::ptr_eq) => return Ok(last),
            Some(last) if all_same(&last.rejected, &loaded, Arc::ptr_eq) && !loaded.is_empty() => return Ok(last),
            Some(last) if all_same(&last.loaded, &loaded, |one, other| one.schema == other.schema) => {
                Prepared { plan: Arc::clone(&last.plan), loaded, rejected: Vec::new() }
            }
            last => match (self.plan(&loaded), last) {
                (Ok(plan), _) => Prepared { plan: Arc::new(plan), loaded, rejected: Vec::new() },
                (Err(error), None) => return Err(error),
                (Err(error), Some(last)) => {
                    let source = &self.source;
                    tracing::error!(%source, ?error, "the transform cannot be planned with the new contents of a lookup; the previous contents stay in use");
                    Prepared { plan: Arc::clone(&last.plan), loaded: last.loaded.clone(), rejected: loaded }
                }
            },
        };
        let next = Arc::new(next);
        *prepared = Some(Arc::clone(&next));
        Ok(next)
    }

    fn plan(&self, lookups: &[(String, Arc<LoadedLookup>)]) -> Result<TransformPlan> {
        let target = PlanTarget {
            contract: &self.contract,
            is_owned: self.is_owned,
            envelope: self.envelope,
            guards_base64: self.guards_base64,
        };
        TransformPlan::new(&self.sql, target, lookups)
    }
}

/// Returns the names of the lookups that a statement reads. Fails with `Invalid` if the statement reads another table.
fn names(sql: &str, lookups: &Lookups) -> Result<Vec<String>> {
    let (_, mut names) = plan::parse(sql)?;
    names.retain(|name| name != MESSAGES);
    names.sort();
    names.dedup();
    if let Some(unknown) = names.iter().find(|name| !lookups.has(name)) {
        let known: Vec<&str> = std::iter::once(MESSAGES).chain(lookups.names()).collect();
        let guess = did_you_mean(unknown, known.iter().copied());
        let known = known.join(", ");
        return Err(Error::invalid(format!(
            "unknown table or lookup `{unknown}`{guess}; a transform can read {known}"
        )));
    }
    Ok(names)
}

/// Returns true if both lists have the same length and `is_same` returns true for the two lookups at each position.
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
