//! Queries: GetFlightInfo, GetSchema and DoGet for statements, prepared statements and metadata commands.
//!
//! In: a caller and a command, or a ticket. Out: the description of a result, or the result itself. GetFlightInfo plans
//! and runs nothing. The ticket holds the statement, and DoGet plans it with the rights of the caller that presents it.
//!
//! **Invariant:** FlightInfo, GetSchema and the stream take their schema from one function ([`wire_schema`]).
//! **Invariant:** a result is one endpoint without locations: some clients read only the first, others lose the order.

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

use super::command::{self, QueryCommand};
use super::handle::{Handle, Purpose, Statement};
use super::profile::wire_schema;
use super::service::{FlightHandler, RpcCaller};
use super::stream::messages;
use super::unread_stream::expiring;
use crate::clock::{Micros, SECOND};
use crate::config::TypeProfile;
use crate::error::{Error, Result};
use crate::query::{Planned, Session};

/// The description of a result, and the ticket that fetches it.
struct Outline {
    schema: SchemaRef,
    ordered: bool,
    purpose: Purpose,
    /// How fresh its tables are, as JSON; may be empty.
    freshness: Bytes,
}

impl FlightHandler {
    /// Handles GetFlightInfo.
    pub(super) async fn info(&self, caller: &RpcCaller, descriptor: FlightDescriptor) -> Result<FlightInfo> {
        let outline = self.outline(caller, command::query(&descriptor)?).await?;
        let handle = Handle { id: Uuid::new_v4(), types: caller.types, purpose: outline.purpose };
        let ticket = self.sealer.seal(&caller.access, &handle)?;
        let endpoint = FlightEndpoint {
            ticket: Some(Ticket { ticket }),
            expiration_time: Some(timestamp(self.sealer.expiry(&caller.access))),
            ..FlightEndpoint::default()
        };
        Ok(FlightInfo {
            schema: schema_bytes(&outline.schema)?,
            ordered: outline.ordered,
            app_metadata: outline.freshness,
            ..FlightInfo::new().with_descriptor(descriptor).with_endpoint(endpoint)
        })
    }

    /// Handles PollFlightInfo: planning is quick, so the first response is final.
    pub(super) async fn poll(&self, caller: &RpcCaller, descriptor: FlightDescriptor) -> Result<PollInfo> {
        Ok(PollInfo {
            info: Some(self.info(caller, descriptor).await?),
            progress: Some(1.0),
            expiration_time: Some(timestamp(self.sealer.expiry(&caller.access))),
            ..PollInfo::default()
        })
    }

    /// Handles GetSchema. It does not require bound parameters.
    pub(super) async fn schema(&self, caller: &RpcCaller, descriptor: &FlightDescriptor) -> Result<SchemaResult> {
        let schema = match command::query(descriptor)? {
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
        let handle = self.sealer.unseal(&caller.access, &ticket.ticket)?;
        match handle.purpose {
            Purpose::Answer(statement) => self.answer(caller, handle.id, handle.types, &statement).await,
            Purpose::Catalog(command) => {
                let session = self.services.engine.session(&caller.access)?;
                let command = command::catalog(&command)?;
                let batch = command.batch(&session, handle.types, &self.facts).await?;
                Ok(self.catalog_messages(batch, command.schema()))
            }
            Purpose::Prepared(_) => {
                Err(Error::invalid("a prepared statement handle is not a ticket: call GetFlightInfo with it first"))
            }
        }
    }

    async fn outline(&self, caller: &RpcCaller, query: QueryCommand) -> Result<Outline> {
        let statement = match query {
            QueryCommand::Statement(sql) => Statement::new(sql, None)?,
            QueryCommand::Prepared(handle) => self.prepared(caller, &handle)?,
            QueryCommand::Catalog(command, bytes) => {
                let (schema, purpose) = (command.schema(), Purpose::Catalog(bytes));
                return Ok(Outline { schema, ordered: true, purpose, freshness: Bytes::new() });
            }
        };
        let session = self.services.engine.session(&caller.access)?;
        let (planned, _) = plan_bound(&session, &statement).await?;
        Ok(Outline {
            schema: wire_schema(&planned.schema, caller.types),
            ordered: planned.ordered,
            freshness: self.freshness(caller, &planned),
            purpose: Purpose::Answer(statement),
        })
    }

    /// `{"complete_until": "…"}`: the result contains everything that this server received before this time for the
    /// tables of the statement. Empty if the statement reads no table, or anything that is not an event table.
    fn freshness(&self, caller: &RpcCaller, planned: &Planned) -> Bytes {
        let told = planned.sources().into_iter().map(|table| self.services.writer.freshness(&caller.access, &table));
        let told: Result<Vec<_>> = told.collect();
        let until = told.unwrap_or_default().into_iter().map(|told| told.watermark.complete_until).min();
        until.and_then(DateTime::from_timestamp_micros).map_or_else(Bytes::new, |until| {
            let until = until.to_rfc3339_opts(SecondsFormat::Micros, true);
            serde_json::json!({ "complete_until": until }).to_string().into()
        })
    }

    async fn planned_schema(&self, caller: &RpcCaller, statement: &Statement) -> Result<SchemaRef> {
        let session = self.services.engine.session(&caller.access)?;
        Ok(wire_schema(&session.plan(&statement.sql).await?.schema, caller.types))
    }

    async fn answer(
        &self,
        caller: &RpcCaller,
        flight: Uuid,
        types: TypeProfile,
        statement: &Statement,
    ) -> Result<BoxStream<'static, Result<FlightData>>> {
        let session = self.services.engine.session(&caller.access)?;
        let (planned, parameters) = plan_bound(&session, statement).await?;
        let answer = session.run(&planned, parameters.as_ref()).await?;
        let entry = self.running.enter(flight, answer.id);
        let wire = wire_schema(&planned.schema, types);
        let messages = messages(answer.batches, wire, self.config.message_bytes_max);
        // The entry lives as long as the stream: until its end, or until the client disconnects.
        let cut = self.cut.clone();
        let stopped = stream::once(async move { cut.is_cancelled() }).filter_map(|cut| async move {
            cut.then(|| Err(Error::unavailable("the server is stopping: retry, possibly on another server")))
        });
        let messages = messages.inspect(move |_| _ = &entry).take_until(self.cut.clone().cancelled_owned());
        // Without this, a client that stops reading would hold the query and an encoded batch beyond the time limit.
        Ok(expiring(messages.chain(stopped).boxed(), answer.deadline))
    }

    fn catalog_messages(&self, batch: RecordBatch, schema: SchemaRef) -> BoxStream<'static, Result<FlightData>> {
        messages(stream::iter([Ok(batch)]).boxed(), schema, self.config.message_bytes_max).boxed()
    }
}

/// Plans a statement to run. `Invalid` if it has unbound parameters.
async fn plan_bound(session: &Session, statement: &Statement) -> Result<(Planned, Option<RecordBatch>)> {
    let planned = session.plan(&statement.sql).await?;
    let parameters = statement.parameters()?;
    let bound = parameters.as_ref().map_or(0, RecordBatch::num_columns);
    let wanted = planned.parameters.fields().len();
    if bound < wanted {
        return Err(Error::invalid(format!(
            "parameter {} is not bound: bind {wanted} to the prepared statement, and run the handle that binding returned",
            bound + 1
        )));
    }
    Ok((planned, parameters))
}

/// A schema as FlightInfo, GetSchema and prepared statements carry it: an encapsulated IPC message.
pub(super) fn schema_bytes(schema: &Schema) -> Result<Bytes> {
    IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()))
        .map(|message| message.0)
        .map_err(|error| Error::internal("cannot encode a schema").with_source(error))
}

fn timestamp(at: Micros) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.rem_euclid(SECOND) * 1_000).expect("a part of a second is below 1e9 nanoseconds");
    prost_types::Timestamp { seconds: at.div_euclid(SECOND), nanos }
}
