//! Creates prepared statements, and binds parameters to them.
//!
//! A CreatePreparedStatement call sends the text of a statement. The server returns the schemas of the result and of
//! the parameters. It also returns a handle, which contains the text. To bind parameters, the client sends the handle
//! and rows of parameters, which may have any type. The server returns a second handle, which contains the text and the
//! parameters. The server stores neither handle.
//!
//! Binding does not change the first handle, so it never has parameters. If the statement requires parameters, running
//! the first handle returns an error. If a handle contains several rows of parameters, the statement runs once for each
//! row, and all rows form one result.
//!
//! **Invariant:** the types in the parameter schema are only suggestions. The server does not convert bound values to
//! these types. The schema of the result may therefore differ from the one that was returned with the first handle.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_flight::sql::{ActionCreatePreparedStatementResult, Any, DoPutPreparedStatementResult, ProstMessageExt};
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use uuid::Uuid;

use super::message_reader::REQUEST;
use super::query_rpcs::schema_bytes;
use super::result_arrow_types::{parameter_schema, wire_schema};
use super::service::{FlightHandler, RpcCaller};
use super::signed_handle::{HANDLE_BYTES_MAX, Handle, Purpose, Statement};
use super::upload::Upload;
use crate::error::{Error, Result};

/// The encoded field `is_update = false`, which is field 4 of `ActionCreatePreparedStatementResult`. The struct in
/// arrow-flight does not have this field. Its value is always false, because a statement that changes data cannot be
/// prepared.
const IS_NO_UPDATE: [u8; 2] = [4 << 3, 0];

/// The maximum size of the parameters in memory, in bytes. Their encoded size is limited by the maximum size of a
/// handle.
const PARAMETER_BYTES_MAX: usize = 16 * HANDLE_BYTES_MAX;

impl FlightHandler {
    /// Handles CreatePreparedStatement.
    pub(super) async fn prepare(&self, caller: &RpcCaller, sql: String) -> Result<Any> {
        let session = self.services.engine.session(&caller.access)?;
        let planned = session.plan(&sql).await?;
        let handle = self.sign_prepared(caller, Statement::new(sql, None)?)?;
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle,
            dataset_schema: schema_bytes(&wire_schema(&planned.schema, caller.types))?,
            parameter_schema: schema_bytes(&parameter_schema(&planned.parameters, caller.client))?,
        };
        let mut value = result.encode_to_vec();
        value.extend_from_slice(&IS_NO_UPDATE);
        Ok(Any { type_url: ActionCreatePreparedStatementResult::type_url().to_owned(), value: value.into() })
    }

    /// Handles an upload of parameters (DoPut). Returns a new handle with these parameters. The client must use the new
    /// handle instead of `handle`.
    pub(super) async fn bind(
        &self,
        caller: &RpcCaller,
        handle: &[u8],
        upload: Upload,
    ) -> Result<DoPutPreparedStatementResult> {
        let sql = self.prepared(caller, handle)?.sql;
        let session = self.services.engine.session(&caller.access)?;
        let planned = session.plan(&sql).await?;
        let rows = parameter_rows(upload).await?;
        let expected = planned.parameters.fields().len();
        if let Some(bound) = rows.as_ref().map(RecordBatch::num_columns).filter(|bound| *bound != expected) {
            return Err(Error::invalid(format!("expected {expected} parameters, but {bound} were bound")));
        }
        let handle = self.sign_prepared(caller, Statement::new(sql, rows.as_ref())?)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    /// Returns the error for a statement that a client runs as an update. Every such statement is refused: the engine
    /// accepts only queries, and a query is not an update.
    pub(super) async fn refuse_update(&self, caller: &RpcCaller, sql: &str) -> Error {
        let planned = match self.services.engine.session(&caller.access) {
            Ok(session) => session.plan(sql).await,
            Err(error) => Err(error),
        };
        match planned {
            Ok(_) => Error::invalid("the statement is a query, not an update: execute it as a query"),
            Err(error) => error,
        }
    }

    /// Returns the statement that a prepared handle contains.
    pub(super) fn prepared(&self, caller: &RpcCaller, handle: &[u8]) -> Result<Statement> {
        match self.signer.verify(&caller.access, handle)?.purpose {
            Purpose::Prepared(statement) => Ok(statement),
            Purpose::QueryResult(_) | Purpose::Catalog(_) => {
                Err(Error::invalid("the handle is a ticket, not a prepared statement"))
            }
        }
    }

    fn sign_prepared(&self, caller: &RpcCaller, statement: Statement) -> Result<Bytes> {
        let purpose = Purpose::Prepared(statement);
        self.signer.sign(&caller.access, &Handle { id: Uuid::nil(), types: caller.types, purpose })
    }
}

/// Reads the rows of bound parameters. Returns `None` if every batch lacks columns or rows.
async fn parameter_rows(upload: Upload) -> Result<Option<RecordBatch>> {
    let mut batches = upload.batches(REQUEST, None);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = batches.try_next().await? {
        if batch.num_columns() == 0 || batch.num_rows() == 0 {
            continue;
        }
        bytes += batch.get_array_memory_size();
        if bytes > PARAMETER_BYTES_MAX {
            return Err(Error::limited(format!(
                "the bound parameters take more than {PARAMETER_BYTES_MAX} bytes: bind fewer rows at a time"
            )));
        }
        rows.push(batch);
    }
    match &rows[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        [first, ..] => concat_batches(first.schema_ref(), &rows)
            .map(Some)
            .map_err(|error| Error::invalid("the batches of bound parameters cannot be combined").with_source(error)),
    }
}
