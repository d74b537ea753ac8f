//! Handles the command CommandStatementIngest, which appends uploaded events to a table. ADBC calls it `adbc_ingest`.
//!
//! The batches of an upload go to [`Writer::submit`] in groups of limited size. Only a few groups are submitted at a
//! time. A client that sends events faster than the lake can store them therefore has to wait. The response contains
//! the number of uploaded events that are in the table after the upload.
//!
//! Tables are declared in the configuration. A client can append events to a table, but cannot create, replace or drop
//! tables. Rejected events go to the quarantine, and the other events are stored. If all events are rejected, the
//! upload fails, and the error contains the first reasons. If the token is revoked during the upload, the upload ends
//! with an error. Groups that were submitted before the revocation are still stored.
//!
//! [`Writer::submit`]: crate::ingest::Writer::submit

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use futures::{StreamExt, TryStreamExt};
use tonic::metadata::{MetadataMap, MetadataValue};

use super::message_reader::SizeLimit;
use super::service::{FlightHandler, RpcCaller};
use super::upload::Upload;
use super::upload_memory::{MessageReservation, UploadMemory};
use crate::error::{Error, Kind, Result};
use crate::ingest::{Body, IngestTarget, Receipt, Writer};
use crate::query::{CATALOG, SCHEMA};

/// A group of batches is submitted when it has reached this size in memory.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// The maximum number of groups of one upload that wait for their commits at the same time. Several groups are allowed
/// because they can share a commit. The number is limited because the messages of all groups are in memory.
const GROUPS_MAX: usize = 8;
/// The maximum number of rejected events that one error message describes.
const REASONS_MAX: usize = 3;
/// The name of this endpoint in quarantine entries.
const ENDPOINT: &str = "flight";

/// The number of uploaded events with each outcome.
#[derive(Debug, Default)]
pub(super) struct IngestResult {
    accepted: u64,
    duplicate: u64,
    conflict: u64,
    rejected: u64,
    /// Descriptions of the first few rejected events.
    reasons: Vec<String>,
}

impl IngestResult {
    /// Returns the number of uploaded events that are in the table after the upload. This number includes events that
    /// were in the table before, so repeating an upload returns the same number.
    pub(super) fn record_count(&self) -> i64 {
        i64::try_from(self.accepted + self.duplicate).unwrap_or(i64::MAX)
    }

    /// Returns the counts of stored and rejected events as response headers.
    pub(super) fn headers(&self) -> MetadataMap {
        let mut headers = MetadataMap::new();
        headers.insert("x-glasshouse-accepted", MetadataValue::from(self.accepted));
        headers.insert("x-glasshouse-duplicate", MetadataValue::from(self.duplicate));
        headers.insert("x-glasshouse-conflict", MetadataValue::from(self.conflict));
        headers.insert("x-glasshouse-rejected", MetadataValue::from(self.rejected));
        headers
    }

    fn add(&mut self, first_index: u64, receipt: Receipt) {
        self.accepted += receipt.accepted;
        self.duplicate += receipt.duplicate;
        self.conflict += receipt.conflict;
        self.rejected += receipt.rejected;
        let missing = REASONS_MAX.saturating_sub(self.reasons.len());
        self.reasons.extend(receipt.rejects.iter().take(missing).map(|reject| {
            format!("event {}: {} ({})", first_index + reject.index, reject.detail, reject.reason.as_str())
        }));
    }
}

impl FlightHandler {
    /// Handles an upload of events (DoPut).
    pub(super) async fn ingest(
        &self,
        caller: &RpcCaller,
        command: &CommandStatementIngest,
        upload: Upload,
    ) -> Result<IngestResult> {
        let target = &self.target(caller, command)?;
        let mut stored = IngestResult::default();
        let limit =
            SizeLimit { bytes_max: self.config.message_in_bytes_max, name: "limit flight.message_in_bytes_max" };
        // A revocation ends the upload. Groups that were already submitted are still stored and counted.
        let is_revoked = AtomicBool::new(false);
        let revoked = async {
            caller.access.revoked().await;
            is_revoked.store(true, Ordering::Relaxed);
        };
        let receipts = groups(upload, limit, self.services.writer.clone())
            .take_until(Box::pin(revoked))
            .map_ok(|UploadGroup { first_index, batches, memory }| async move {
                let writer = &self.services.writer;
                if let Some(batch) = batches.first() {
                    writer.check_schema(target, batch.schema_ref()).map_err(mismatched)?;
                }
                let (reservation, _upload_permit) = match memory.map(MessageReservation::into_parts) {
                    Some((reservation, upload_permit)) => (reservation, Some(upload_permit)),
                    None => (writer.reservation(), None),
                };
                let receipt = writer.submit(reservation, target, Body::Arrow(batches), ENDPOINT).await?;
                Ok((first_index, receipt))
            })
            .try_buffered(GROUPS_MAX);
        let outcome = receipts
            .try_for_each(|(first_index, receipt)| {
                stored.add(first_index, receipt);
                std::future::ready(Ok(()))
            })
            .await;
        let outcome = outcome.and_then(|()| match is_revoked.load(Ordering::Relaxed) {
            true => Err(Error::unauthenticated("the token was revoked during the upload: get a new token")),
            false => Ok(()),
        });
        if let Err(error) = outcome {
            let count = stored.record_count();
            return Err(if count == 0 {
                error
            } else {
                error.at(format!("the upload failed after {count} events had been stored; send the whole upload again"))
            });
        }
        if stored.rejected > 0 && stored.record_count() == 0 {
            return Err(Error::invalid(format!(
                "all {} events were rejected: {}",
                stored.rejected,
                stored.reasons.join("; ")
            )));
        }
        Ok(stored)
    }

    /// Returns the table that the command names. Returns an error if the caller may not append to it.
    fn target(&self, caller: &RpcCaller, command: &CommandStatementIngest) -> Result<IngestTarget> {
        let target = match self.services.writer.authorize(&caller.access, &command.table) {
            Ok(target) => Some(target),
            Err(error) if error.kind() == Kind::NotFound => {
                match self.services.engine.lookup_accepts_no_events(&caller.access, &command.table) {
                    Some(refused) => return Err(refused),
                    None => None,
                }
            }
            Err(error) => return Err(error),
        };
        check_mode(command, target)
    }
}

/// A group of consecutive batches of an upload, which is submitted as a whole.
struct UploadGroup {
    /// The position of the group's first event in the upload.
    first_index: u64,
    batches: Vec<RecordBatch>,
    /// The memory that is reserved for the batches' messages.
    memory: Option<MessageReservation>,
}

/// Collects the batches of an upload into groups of about [`GROUP_BYTES`].
fn groups(upload: Upload, limit: SizeLimit, writer: Arc<Writer>) -> impl futures::Stream<Item = Result<UploadGroup>> {
    let memory = Arc::new(UploadMemory::new(writer, GROUPS_MAX * GROUP_BYTES));
    let start = (upload.batches(limit, Some(memory.clone())), memory, 0_u64);
    futures::stream::try_unfold(start, |(mut batches, memory, first_index)| async move {
        let mut group = UploadGroup { first_index, batches: Vec::new(), memory: None };
        let (mut rows, mut bytes) = (0_u64, 0_usize);
        while bytes < GROUP_BYTES {
            let Some(batch) = batches.try_next().await? else { break };
            rows += batch.num_rows() as u64;
            bytes += batch.get_array_memory_size();
            if batch.num_rows() > 0 {
                group.batches.push(batch);
            }
        }
        group.memory = memory.take();
        let next = (batches, memory, first_index + rows);
        Ok((!group.batches.is_empty()).then_some((group, next)))
    })
}

/// Converts the error for a schema that does not match the table. ADBC expects the status `AlreadyExists`, which says
/// that the table exists with a different schema.
fn mismatched(error: Error) -> Error {
    if error.kind() == Kind::Invalid { Error::conflict(error.message().to_owned()).with_source(error) } else { error }
}

/// Returns the table. Returns an error if it does not exist, or if the server does not support the command's mode.
fn check_mode<T>(command: &CommandStatementIngest, table: Option<T>) -> Result<T> {
    use TableExistsOption as IfExists;
    use TableNotExistOption as IfNot;
    let name = &command.table;
    if command.temporary {
        return Err(Error::invalid("temporary tables are not supported"));
    }
    let matches = |given: Option<&str>, known: &str| given.is_none_or(|given| given.is_empty() || given == known);
    if !matches(command.catalog.as_deref(), CATALOG) || !matches(command.schema.as_deref(), SCHEMA) {
        return Err(Error::not_found(format!("unknown catalog or schema: all tables are in `{CATALOG}.{SCHEMA}`")));
    }
    let options = command.table_definition_options.as_ref();
    let (if_not, if_exists) = options
        .map_or((IfNot::Unspecified, IfExists::Unspecified), |options| (options.if_not_exist(), options.if_exists()));
    match (table, if_not, if_exists) {
        (_, IfNot::Unspecified, _) | (_, _, IfExists::Unspecified) => {
            Err(Error::invalid("the command must set both `if_exists` and `if_not_exist`: use mode `append`"))
        }
        (Some(table), _, IfExists::Append) => Ok(table),
        (Some(_), _, IfExists::Fail) => {
            Err(Error::conflict(format!("table `{name}` already exists: use mode `append` or `create_append`")))
        }
        (Some(_), _, IfExists::Replace) => {
            Err(Error::forbidden(format!("table `{name}` cannot be replaced: use mode `append` to add events")))
        }
        (None, IfNot::Fail, _) => Err(Error::not_found(format!("unknown table `{name}`"))),
        (None, IfNot::Create, _) => Err(Error::forbidden(format!(
            "unknown table `{name}`: an upload cannot create a table; declare it in glasshouse.toml"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::TableDefinitionOptions;

    use super::*;
    use crate::error::Kind;

    fn mode(if_not: TableNotExistOption, if_exists: TableExistsOption) -> CommandStatementIngest {
        let options = TableDefinitionOptions { if_not_exist: if_not.into(), if_exists: if_exists.into() };
        CommandStatementIngest {
            table: "calls".into(),
            table_definition_options: Some(options),
            ..CommandStatementIngest::default()
        }
    }

    #[test]
    fn ingest_modes_of_adbc_are_checked() {
        use TableExistsOption as IfExists;
        use TableNotExistOption as IfNot;
        let append = mode(IfNot::Fail, IfExists::Append);
        let create = mode(IfNot::Create, IfExists::Fail);
        let replace = mode(IfNot::Create, IfExists::Replace);
        let create_append = mode(IfNot::Create, IfExists::Append);
        let unspecified = CommandStatementIngest { table_definition_options: None, ..append.clone() };
        let temporary = CommandStatementIngest { temporary: true, ..append.clone() };
        let elsewhere = CommandStatementIngest { schema: Some("private".into()), ..append.clone() };
        let here =
            CommandStatementIngest { schema: Some(SCHEMA.into()), catalog: Some(CATALOG.into()), ..append.clone() };
        let cases = [
            (&append, true, None),
            (&append, false, Some(Kind::NotFound)),
            (&create, true, Some(Kind::Conflict)),
            (&create, false, Some(Kind::Forbidden)),
            (&replace, true, Some(Kind::Forbidden)),
            (&replace, false, Some(Kind::Forbidden)),
            (&create_append, true, None),
            (&create_append, false, Some(Kind::Forbidden)),
            (&unspecified, true, Some(Kind::Invalid)),
            (&temporary, true, Some(Kind::Invalid)),
            (&elsewhere, true, Some(Kind::NotFound)),
            (&here, true, None),
        ];
        for (command, exists, kind) in cases {
            assert_eq!(
                check_mode(command, exists.then_some(())).err().map(|error| error.kind()),
                kind,
                "{command:?} {exists}"
            );
        }
    }
}
