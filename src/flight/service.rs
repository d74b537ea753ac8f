//! The Flight service: each RPC authenticates first, then calls the module that implements it. It computes nothing
//! itself.
//!
//! In: gRPC requests. Out: gRPC responses. **Invariant:** every RPC runs inside a [`RpcCall`] and starts with
//! [`FlightHandler::caller`]; only Handshake checks its own credentials instead.

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

use super::cancel::RunningAnswers;
use super::catalog::ServerFacts;
use super::command::{self, ActionCommand, PutCommand};
use super::handle::{HANDLE_BYTES_MAX, Sealer};
use super::message_reader::MessageReader;
use super::options::{Options, parse_types};
use super::rpc::{Messages, RpcCall};
use super::upload::Upload;
use super::{FlightServices, auth};
use crate::config::{FlightConfig, Secret, TypeProfile};
use crate::error::{Error, Result};
use crate::tenancy::Access;

/// The type profile of one call, for clients that set headers but no session options.
const TYPES_HEADER: &str = "x-glasshouse-types";

/// The Flight service. The only state it keeps of its callers is their session options and running queries.
pub(super) struct FlightHandler {
    pub(super) services: FlightServices,
    pub(super) config: FlightConfig,
    pub(super) sealer: Sealer,
    pub(super) facts: ServerFacts,
    pub(super) running: RunningAnswers,
    /// Ends running streams after the grace period of a server stop.
    pub(super) cut: CancellationToken,
    options: Options,
}

/// The caller, and the type profile of its results.
pub(super) struct RpcCaller {
    pub(super) access: Access,
    pub(super) types: TypeProfile,
}

/// How long Handshake waits for the client's first message, or the end of its side, before it responds. A client built
/// on Arrow's C++ (pyarrow, ODBC) aborts its whole process if the call ends before that message is sent.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(1);

impl FlightHandler {
    pub(super) fn new(services: FlightServices, config: FlightConfig, secret: &Secret, cut: CancellationToken) -> Self {
        let age_max = i64::try_from(config.handle_age_max.as_micros()).unwrap_or(i64::MAX);
        Self {
            sealer: Sealer::new(secret, age_max, services.clock.clone()),
            facts: ServerFacts {
                handle_age_max: config.handle_age_max,
                sql_bytes_max: services.engine.sql_bytes_max().min(HANDLE_BYTES_MAX),
                row_bytes_max: config.message_bytes_max,
            },
            running: RunningAnswers::default(),
            options: Options::new(config.types),
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
        let types = match headers.get(TYPES_HEADER) {
            Some(value) => value
                .to_str()
                .ok()
                .and_then(parse_types)
                .ok_or_else(|| Error::invalid(format!("header `{TYPES_HEADER}` is not `compat` or `native`")))?,
            None => self.options.types(&access),
        };
        Ok(RpcCaller { access, types })
    }

    /// Handles DoPut: returns its only result, and headers.
    async fn put(&self, caller: &RpcCaller, upload: Upload) -> Result<(PutResult, MetadataMap)> {
        let (result, headers) = match command::put(&upload.descriptor)? {
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

    /// Handles DoAction: returns the body of its only result, if any.
    async fn act(&self, caller: &RpcCaller, action: &Action) -> Result<Option<Vec<u8>>> {
        let access = &caller.access;
        let body = match command::act(action)? {
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

    /// Cancels the running queries of the caller's own FlightInfo. False if none runs on this server.
    fn cancel(&self, access: &Access, info: &FlightInfo) -> Result<bool> {
        let mut cancelled = false;
        for ticket in info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref()) {
            let flight = self.sealer.unseal(access, &ticket.ticket)?.id;
            for query in self.running.queries(flight) {
                cancelled |= self.services.engine.cancel(access, query);
            }
        }
        Ok(cancelled)
    }
}

/// `CancelResult` of `ActionCancelQueryResult`, an enum that the bindings keep private.
const QUERY_CANCELLED: i32 = 1;
const QUERY_NOT_CANCELLABLE: i32 = 3;

fn packed(message: &impl ProstMessageExt) -> Vec<u8> {
    let any: Any = message.as_any();
    any.encode_to_vec()
}

/// A response whose messages are all known.
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
        let (credentials, _, mut spoken) = request.into_parts();
        let call = async {
            // The credentials are in the headers: the content of the client's message is irrelevant, only that it was
            // sent.
            let _ = tokio::time::timeout(HANDSHAKE_WAIT_MAX, spoken.message()).await;
            let verified = auth::handshake(&self.services.verifier, &credentials).await;
            verified.inspect_err(|error| self.services.metrics.auth_refused(error))
        };
        let headers = self.call("Handshake").answer(call).await?;
        let mut response = Response::new(items([]));
        *response.metadata_mut() = headers;
        Ok(response)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.info(&caller, request.into_inner()).await
        };
        self.call("GetFlightInfo").answer(call).await.map(Response::new)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.poll(&caller, request.into_inner()).await
        };
        self.call("PollFlightInfo").answer(call).await.map(Response::new)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.schema(&caller, request.get_ref()).await
        };
        self.call("GetSchema").answer(call).await.map(Response::new)
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.get(&caller, request.get_ref()).await
        };
        self.call("DoGet").stream(call).await.map(Response::new)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            let messages = MessageReader::new(&request, self.config.message_in_time_max)?;
            let work = async { self.put(&caller, Upload::open(messages).await?).await };
            let stopped = Error::unavailable("the server is stopping: send the upload again");
            self.cut.run_until_cancelled(work).await.unwrap_or(Err(stopped))
        };
        let (result, headers) = self.call("DoPut").answer(call).await?;
        let mut response = Response::new(items([result]));
        *response.metadata_mut() = headers;
        Ok(response)
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let call = async {
            let caller = self.caller(request.metadata()).await?;
            self.act(&caller, request.get_ref()).await
        };
        let body = self.call("DoAction").answer(call).await?;
        Ok(Response::new(items(body.map(|body| arrow_flight::Result { body: body.into() }))))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.call("ListActions").answer(self.caller(request.metadata())).await?;
        Ok(Response::new(items(command::action_types())))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let call = async {
            self.caller(request.metadata()).await?;
            Err(Error::unsupported("ListFlights is not supported: list the tables with GetTables of Flight SQL"))
        };
        self.call("ListFlights").answer(call).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let call = async {
            self.caller(request.metadata()).await?;
            Err(Error::unsupported("DoExchange is not part of Flight SQL"))
        };
        self.call("DoExchange").answer(call).await
    }
}
