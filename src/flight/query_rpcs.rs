//! The RPCs for queries: GetFlightInfo, PollFlightInfo, GetSchema and DoGet. A query is a statement, a prepared
//! statement or a metadata command.
//!
//! GetFlightInfo plans a statement without running it. It returns the schema of the result, and a ticket that contains
//! the statement. DoGet plans the statement of a ticket again, with the rights of the caller of DoGet, and returns the
//! result.
//!
//! **Invariant:** a single function, [`wire_schema`], computes the schema for FlightInfo, GetSchema and the result
//! stream.
//! **Invariant:** a result has exactly one endpoint, and the endpoint has no locations. If there were several
//! endpoints, some clients would read only the first one, and others would not preserve the order of the rows.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, PollInfo, SchemaAsIpc, SchemaResult, Ticket,
};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use uuid::Uuid;

use super::command_decoder::{QueryCommand, decode_metadata_command, decode_query};
use super::result_arrow_types::{ResultTypes, wire_schema};
use super::result_encoder::encode_result;
use super::service::{FlightHandler, RpcCaller};
use super::signed_handle::{Handle, Purpose, Statement};
use super::unread_stream::expiring;
use crate::clock::{Micros, SECOND};
use crate::error::{Error, Result};
use crate::query::{Planned, Session};

/// The description of a result that has not been computed yet.
struct ResultInfo {
    schema: SchemaRef,
    /// True if the rows have an order that clients must preserve.
    ordered: bool,
    /// The content of the ticket that the client sends to fetch the result.
    purpose: Purpose,
    /// The freshness of the tables as JSON, or an empty value if it is unknown.
    freshness: Bytes,
}

impl FlightHandler {
    /// Handles GetFlightInfo.
    pub(super) async fn info(&self, caller: &RpcCaller, descriptor: FlightDescriptor) -> Result<FlightInfo> {
        let result = self.result_info(caller, decode_query(&descriptor)?).await?;
        let handle = Handle { id: Uuid::new_v4(), types: caller.types, purpose: result.purpose };
        let ticket = self.signer.sign(&caller.access, &handle)?;
        let endpoint = FlightEndpoint {
            ticket: Some(Ticket { ticket }),
            expiration_time: Some(timestamp(self.signer.expiry(&caller.access))),
            ..FlightEndpoint::default()
        };
        Ok(FlightInfo {
            schema: schema_bytes(&result.schema)?,
            ordered: result.ordered,
            app_metadata: result.freshness,
            ..FlightInfo::new().with_descriptor(descriptor).with_endpoint(endpoint)
        })
    }

    /// Handles PollFlightInfo. The first response is final, because planning takes only a short time.
    pub(super) async fn poll(&self, caller: &RpcCaller, descriptor: FlightDescriptor) -> Result<PollInfo> {
        Ok(PollInfo {
            info: Some(self.info(caller, descriptor).await?),
            progress: Some(1.0),
            expiration_time: Some(timestamp(self.signer.expiry(&caller.access))),
            ..PollInfo::default()
        })
    }

    /// Handles GetSchema. If a statement has unbound parameters, the types of columns that depend on them may still
    /// change.
    pub(super) async fn schema(&self, caller: &RpcCaller, descriptor: &FlightDescriptor) -> Result<SchemaResult> {
        let schema = match decode_query(descriptor)? {
            QueryCommand::Statement(sql) => self.planned_schema(caller, &Statement::new(sql, None)?).await?,
            QueryCommand::Prepared(handle) => self.planned_schema(caller, &self.prepared(caller, &handle)?).await?,
            QueryCommand::Catalog(command, _) => command.schema(),
        };
        Ok(SchemaResult { schema: schema_bytes(&schema)? })
    }

    /// Handles DoGet.
    pub(super) async fn get(
        &self,
        caller: &RpcCaller,
        ticket: &Ticket,
    ) -> Result<BoxStream<'static, Result<FlightData>>> {
        let handle = self.signer.verify(&caller.access, &ticket.ticket)?;
        match handle.purpose {
            Purpose::QueryResult(statement) => self.run(caller, handle.id, handle.types, &statement).await,
            Purpose::Catalog(command) => {
                let session = self.services.engine.session(&caller.access)?;
                let command = decode_metadata_command(&command)?;
                let batch = command.batch(&session, handle.types, &self.limits).await?;
                Ok(self.catalog_messages(batch, command.schema()))
            }
            Purpose::Prepared(_) => {
                Err(Error::invalid("a prepared statement handle is not a ticket: call GetFlightInfo with it first"))
            }
        }
    }

    async fn result_info(&self, caller: &RpcCaller, query: QueryCommand) -> Result<ResultInfo> {
        let statement = match query {
            QueryCommand::Statement(sql) => Statement::new(sql, None)?,
            QueryCommand::Prepared(handle) => self.prepared(caller, &handle)?,
            QueryCommand::Catalog(command, bytes) => {
                let (schema, purpose) = (command.schema(), Purpose::Catalog(bytes));
                return Ok(ResultInfo { schema, ordered: true, purpose, freshness: Bytes::new() });
            }
        };
        let session = self.services.engine.session(&caller.access)?;
        let planned = plan_bound(&session, &statement).await?;
        Ok(ResultInfo {
            schema: wire_schema(&planned.schema, caller.types),
            ordered: planned.ordered,
            freshness: self.freshness(caller, &planned),
            purpose: Purpose::QueryResult(statement),
        })
    }

    /// Returns `{"complete_until": "…"}`. For each table in the statement, the result contains all events that this
    /// server received before that time. Lookup tables do not count. Returns an empty value if the statement reads no
    /// other tables, or if it reads anything that is not a table of events.
    fn freshness(&self, caller: &RpcCaller, planned: &Planned) -> Bytes {
        let writer = &self.services.writer;
        let tables: Result<Vec<_>> =
            planned.sources().into_iter().map(|table| writer.freshness(&caller.access, &table)).collect();
        let until = tables.unwrap_or_default().into_iter().map(|table| table.watermark.complete_until).min();
        until.and_then(DateTime::from_timestamp_micros).map_or_else(Bytes::new, |until| {
            let until = until.to_rfc3339_opts(SecondsFormat::Micros, true);
            serde_json::json!({ "complete_until": until }).to_string().into()
        })
    }

    async fn planned_schema(&self, caller: &RpcCaller, statement: &Statement) -> Result<SchemaRef> {
        let session = self.services.engine.session(&caller.access)?;
        let planned = session.plan(&statement.sql).await?;
        let planned = match statement.parameters()? {
            Some(rows) => session.bind(&planned, &rows).await?,
            None => planned,
        };
        Ok(wire_schema(&planned.schema, caller.types))
    }

    /// Runs a statement and encodes its result.
    async fn run(
        &self,
        caller: &RpcCaller,
        flight: Uuid,
        types: ResultTypes,
        statement: &Statement,
    ) -> Result<BoxStream<'static, Result<FlightData>>> {
        let session = self.services.engine.session(&caller.access)?;
        let planned = plan_bound(&session, statement).await?;
        let result = session.run(&planned, None).await?;
        let entry = self.running.enter(flight, result.id);
        let wire = wire_schema(&planned.schema, types);
        let batches = match types.zone {
            Some(zone) => result.batches.map(move |batch| zone.localize(&batch?)).boxed(),
            None => result.batches,
        };
        let messages = encode_result(batches, wire, self.config.message_bytes_max);
        // The stream holds the entry of the query in the list of running queries. The query can therefore be cancelled
        // until the stream ends or the client disconnects.
        let cut = self.cut.clone();
        let stopped = stream::once(async move { cut.is_cancelled() }).filter_map(|cut| async move {
            cut.then(|| Err(Error::unavailable("the server is stopping: retry, possibly on another server")))
        });
        let messages = messages.inspect(move |_| _ = &entry).take_until(self.cut.clone().cancelled_owned());
        // If a client stops reading, `expiring` ends the query at its deadline and releases its memory.
        let deadline = result.deadline;
        Ok(expiring(messages.chain(stopped).boxed(), deadline.at(), move || deadline.error()))
    }

    fn catalog_messages(&self, batch: RecordBatch, schema: SchemaRef) -> BoxStream<'static, Result<FlightData>> {
        encode_result(stream::iter([Ok(batch)]).boxed(), schema, self.config.message_bytes_max).boxed()
    }
}

/// Plans a statement and binds its parameters. Returns `Invalid` if the statement requires parameters but none are
/// bound.
async fn plan_bound(session: &Session, statement: &Statement) -> Result<Planned> {
    let planned = session.plan(&statement.sql).await?;
    if let Some(rows) = statement.parameters()? {
        return session.bind(&planned, &rows).await;
    }
    match planned.parameters.fields().len() {
        0 => Ok(planned),
        expected => Err(Error::invalid(format!(
            "parameter 1 is not bound: bind all {expected} parameters, then run the handle that the server returns"
        ))),
    }
}

/// Encodes a schema as an encapsulated IPC message. FlightInfo, GetSchema and prepared statements send schemas as such
/// messages.
pub(super) fn schema_bytes(schema: &Schema) -> Result<Bytes> {
    IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()))
        .map(|message| message.0)
        .map_err(|error| Error::internal("cannot encode a schema").with_source(error))
}

fn timestamp(at: Micros) -> prost_types::Timestamp {
    let nanos =
        i32::try_from(at.rem_euclid(SECOND) * 1_000).expect("the fraction of a second is less than 1e9 nanoseconds");
    prost_types::Timestamp { seconds: at.div_euclid(SECOND), nanos }
}
