//! The Flight service. Each RPC method authenticates the caller and then calls its implementation.
//!
//! **Invariant:** every RPC runs inside an [`RpcCall`], and every RPC except Handshake starts with
//! [`FlightHandler::caller`]. Handshake also accepts credentials that no other RPC accepts.

use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{ActionCancelQueryResult, Any, DoPutUpdateResult, ProstMessageExt};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightData, FlightDescriptor,
    FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{StreamExt, stream};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::cancel::RunningQueries;
use super::command_decoder::{ActionCommand, PutCommand, action_types, decode_action, decode_put};
use super::message_reader::MessageReader;
use super::result_arrow_types::{ClientKind, ResultTypes};
use super::result_time_zone::ClientTimeZone;
use super::rpc_outcome::{Messages, RpcCall};
use super::session_options::{SessionOptions, parse_types};
use super::signed_handle::{HANDLE_BYTES_MAX, HandleSigner};
use super::sqlinfo::ServerLimits;
use super::upload::Upload;
use super::{FlightServices, auth};
use crate::config::{FlightConfig, Secret};
use crate::error::{Error, Result};
use crate::tenancy::Access;

/// The header that sets the type profile for one call. It is used by clients that can set headers, but not session
/// options.
const TYPES_HEADER: &str = "x-glasshouse-types";

/// The Flight service. For each caller, the service stores only its session options and its running queries.
pub(super) struct FlightHandler {
    pub(super) services: FlightServices,
    pub(super) config: FlightConfig,
    pub(super) signer: HandleSigner,
    pub(super) limits: ServerLimits,
    pub(super) running: RunningQueries,
    /// This token is cancelled during shutdown, to end the streams that are still running.
    pub(super) cut: CancellationToken,
    options: SessionOptions,
}

/// The verified caller of an RPC, and the settings that determine the column types of its results.
pub(super) struct RpcCaller {
    pub(super) access: Access,
    pub(super) types: ResultTypes,
    pub(super) client: ClientKind,
}

/// The maximum time that Handshake waits for the first message of the client before it responds. Clients with Arrow's
/// C++ library (pyarrow, ODBC) abort their whole process if the call ends before they have sent this message.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(1);

impl FlightHandler {
    pub(super) fn new(services: FlightServices, config: FlightConfig, secret: &Secret, cut: CancellationToken) -> Self {
        let age_max = i64::try_from(config.handle_age_max.as_micros()).unwrap_or(i64::MAX);
        Self {
            signer: HandleSigner::new(secret, age_max, services.clock.clone()),
            limits: ServerLimits {
                handle_age_max: config.handle_age_max,
                sql_bytes_max: services.engine.sql_bytes_max().min(HANDLE_BYTES_MAX),
                row_bytes_max: config.message_bytes_max,
            },
            running: RunningQueries::default(),
            options: SessionOptions::new(config.types),
            services,
            config,
            cut,
        }
    }

    fn call(&self, rpc: &'static str) -> RpcCall {
        RpcCall::begin(rpc, &self.services.metrics)
    }

    async fn caller(&self, headers: &MetadataMap) -> Result<RpcCaller> {
        let access = auth::access(&self.services.verifier, headers).await;
        let access = access.inspect_err(|error| self.services.metrics.auth_refused(error))?;
        let profile = match headers.get(TYPES_HEADER) {
            Some(value) => value
                .to_str()
                .ok()
                .and_then(parse_types)
                .ok_or_else(|| Error::invalid(format!("header `{TYPES_HEADER}` must be `compat` or `native`")))?,
            None => self.options.types(&access),
        };
        let types = ResultTypes { profile, zone: ClientTimeZone::of(headers)? };
        Ok(RpcCaller { access, types, client: ClientKind::of(headers) })
    }

    /// Handles DoPut. Returns the only result of the call and the response headers.
    async fn put(&self, caller: &RpcCaller, upload: Upload) -> Result<(PutResult, MetadataMap)> {
        let (result, headers) = match decode_put(&upload.descriptor)? {
            PutCommand::Bind(handle) => (self.bind(caller, &handle, upload).await?.encode_to_vec(), MetadataMap::new()),
            PutCommand::Ingest(command) => {
                let stored = self.ingest(caller, &command, upload).await?;
                (DoPutUpdateResult { record_count: stored.record_count() }.encode_to_vec(), stored.headers())
            }
            PutCommand::Update(sql) => return Err(self.refuse_update(caller, &sql).await),
            PutCommand::PreparedUpdate(handle) => {
                let sql = self.prepared(caller, &handle)?.sql;
                return Err(self.refuse_update(caller, &sql).await);
            }
        };
        Ok((PutResult { app_metadata: result.into() }, headers))
    }

    /// Handles DoAction. Returns the body of the action's only result, or `None` if the action has no result.
    async fn act(&self, caller: &RpcCaller, action: &Action) -> Result<Option<Vec<u8>>> {
        let access = &caller.access;
        let body = match decode_action(action)? {
            ActionCommand::Prepare(sql) => self.prepare(caller, sql).await?.encode_to_vec(),
            ActionCommand::ClosePrepared => return Ok(None),
            ActionCommand::CancelFlight(info) => {
                let status =
                    if self.cancel(access, &info)? { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
                CancelFlightInfoResult { status: status.into() }.encode_to_vec()
            }
            ActionCommand::CancelQuery(info) => {
                let result = if self.cancel(access, &info)? { QUERY_CANCELLED } else { QUERY_NOT_CANCELLABLE };
                packed(&ActionCancelQueryResult { result })
            }
            ActionCommand::SetOptions(request) => {
                self.options.set(access, &request, self.services.clock.now()).encode_to_vec()
            }
            ActionCommand::GetOptions => self.options.get(access).encode_to_vec(),
            ActionCommand::CloseSession => self.options.close(access).encode_to_vec(),
        };
        Ok(Some(body))
    }

    /// Cancels the running queries that belong to a FlightInfo. Returns an error if the FlightInfo was issued to
    /// another caller. Returns false if none of these queries is running on this server.
    fn cancel(&self, access: &Access, info: &FlightInfo) -> Result<bool> {
        let mut cancelled = false;
        for ticket in info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref()) {
            let flight = self.signer.verify(access, &ticket.ticket)?.id;
            for query in self.running.queries(flight) {
                cancelled |= self.services.engine.cancel(access, query);
            }
        }
        Ok(cancelled)
    }
}

/// Values of the enum `ActionCancelQueryResult.CancelResult`. arrow-flight does not export it.
const QUERY_CANCELLED: i32 = 1;
const QUERY_NOT_CANCELLABLE: i32 = 3;

fn packed(message: &impl ProstMessageExt) -> Vec<u8> {
    let any: Any = message.as_any();
    any.encode_to_vec()
}

/// Returns a stream that contains `items`.
fn items<T: Send + 'static>(items: impl IntoIterator<Item = T, IntoIter: Send + 'static>) -> Messages<T> {
    stream::iter(items.into_iter().map(Ok)).boxed()
}

#[tonic::async_trait]
impl FlightService for FlightHandler {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoExchangeStream = Messages<FlightData>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let (headers, _, mut messages) = request.into_parts();
        let call = async {
            // The credentials are in the headers. The content of the message is ignored: the server only waits until
            // the client has sent it.
            let _ = tokio::time::timeout(HANDSHAKE_WAIT_MAX, messages.message()).await;
            let verified = auth::handshake(&self.services.verifier, &headers).await;
            verified.inspect_err(|error| self.services.metrics.auth_refused(error))
        };
        let headers = self.call("Handshake").unary(call).await?;
        let mut response = Response::new(items([]));
        *response.metadata_mut() = headers;
        Ok(response)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.info(&caller, request.into_inner()).await
        };
        self.call("GetFlightInfo").unary(call).await.map(Response::new)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.poll(&caller, request.into_inner()).await
        };
        self.call("PollFlightInfo").unary(call).await.map(Response::new)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.schema(&caller, request.get_ref()).await
        };
        self.call("GetSchema").unary(call).await.map(Response::new)
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.get(&caller, request.get_ref()).await
        };
        self.call("DoGet").streaming(call).await.map(Response::new)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            let messages = MessageReader::new(&request, self.config.message_in_time_max)?;
            let work = async { self.put(&caller, Upload::open(messages).await?).await };
            let stopped = Error::unavailable("the server is stopping: send the upload again");
            self.cut.run_until_cancelled(work).await.unwrap_or(Err(stopped))
        };
        let (result, headers) = self.call("DoPut").unary(call).await?;
        let mut response = Response::new(items([result]));
        *response.metadata_mut() = headers;
        Ok(response)
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.act(&caller, request.get_ref()).await
        };
        let body = self.call("DoAction").unary(call).await?;
        Ok(Response::new(items(body.map(|body| arrow_flight::Result { body: body.into() }))))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.call("ListActions").unary(self.caller(request.metadata())).await?;
        Ok(Response::new(items(action_types())))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let call = async {
            self.caller(request.metadata()).await?;
            Err(Error::unsupported("ListFlights is not supported: use GetTables of Flight SQL to list the tables"))
        };
        self.call("ListFlights").unary(call).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let call = async {
            self.caller(request.metadata()).await?;
            Err(Error::unsupported("DoExchange is not part of Flight SQL"))
        };
        self.call("DoExchange").unary(call).await
    }
}
