//! Test support for the Flight endpoint. It provides a server on a loopback port, and a client for its RPCs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, Ticket};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use prost::Message;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{IntoRequest, Request, Status};

use super::*;
use crate::config::{IngestConfig, PolicyConfig, QueryConfig};
use crate::ingest::Ingest;
use crate::lake::Tables;
use crate::tenancy::{DevelopmentToken, Scope, testing as tokens};
use crate::transform::Lookups;

/// The time limit for each wait in a test. It is longer than any wait should take. If a test hangs, the test fails
/// after this time instead of blocking the suite.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long clients may keep their connections after the server has been asked to stop.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// A running Flight server with an engine and a writer.
pub(super) struct FlightTestServer {
    pub(super) url: String,
    pub(super) engine: Arc<Engine>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) stop: CancellationToken,
    pub(super) cut: CancellationToken,
    pub(super) serving: JoinSet<Result<()>>,
}

impl FlightTestServer {
    /// Starts a server without tables.
    pub(super) async fn open(config: FlightConfig) -> Self {
        Self::over(config, Arc::new(Tables::new()), &BTreeMap::new()).await
    }

    /// Starts a server with tables.
    pub(super) async fn over(
        config: FlightConfig,
        tables: Arc<Tables>,
        policy: &BTreeMap<String, PolicyConfig>,
    ) -> Self {
        Self::with(config, QueryConfig::default(), IngestConfig::default(), tables, policy).await
    }

    /// Starts a server with these tables and limits.
    pub(super) async fn with(
        config: FlightConfig,
        query: QueryConfig,
        limits: IngestConfig,
        tables: Arc<Tables>,
        policy: &BTreeMap<String, PolicyConfig>,
    ) -> Self {
        Self::with_lookups(config, query, limits, (tables, Lookups::none()), policy).await
    }

    /// Starts a server with these tables, lookup tables and limits.
    pub(super) async fn with_lookups(
        config: FlightConfig,
        query: QueryConfig,
        limits: IngestConfig,
        (tables, lookups): (Arc<Tables>, Arc<Lookups>),
        policy: &BTreeMap<String, PolicyConfig>,
    ) -> Self {
        let (clock, metrics) = (Clock::System, Arc::new(Metrics::default()));
        let engine = Engine::with_lookups(tables.clone(), lookups, query, clock.clone(), metrics.clone()).unwrap();
        let ingest = Ingest::start(tables, Vec::new(), limits, clock.clone(), metrics.clone()).await.unwrap();
        let verifier = Arc::new(Verifier::new(&tokens::auth(), policy, clock.clone()).unwrap());
        let services =
            FlightServices { verifier, engine: engine.clone(), writer: ingest.writer.clone(), metrics, clock };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        let stops = Stop::from(stop.clone());
        let cut = stops.cut.clone();
        serving.spawn(serve(listener, services, config, Secret::new("a secret for handles"), stops));
        Self { url, engine, ingest, stop, cut, serving }
    }

    pub(super) async fn default() -> Self {
        Self::open(FlightConfig::default()).await
    }

    /// Connects a client that uses gRPC's default limits and therefore reads messages of up to 4 MiB.
    pub(super) async fn grpc(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel().await)
    }

    pub(super) async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.replace("grpc://", "http://")).unwrap().connect().await.unwrap()
    }

    /// Connects a client that uses a token for `tenant`.
    pub(super) async fn caller(&self, tenant: &str) -> TestCall {
        TestCall { client: self.grpc().await, token: token(tenant), headers: Vec::new() }
    }

    /// Stops the server and returns the result of `serve`.
    pub(super) async fn close(mut self) -> Result<()> {
        self.stop.cancel();
        if let Ok(served) = tokio::time::timeout(DRAIN_MAX, self.serving.join_next()).await {
            return served.unwrap().unwrap();
        }
        self.cut.cancel();
        tokio::time::timeout(PATIENCE, self.serving.join_next()).await.unwrap().unwrap().unwrap()
    }
}

pub(super) fn token(tenant: &str) -> String {
    let mint = DevelopmentToken {
        issuer: String::new(),
        tenant: Some(tenant.to_owned()),
        subject: "user".to_owned(),
        scopes: vec![Scope::Read, Scope::Ingest],
        age: Duration::from_secs(600),
        claims: serde_json::Map::new(),
    };
    mint.sign(&tokens::auth(), &Clock::System).unwrap()
}

/// A client that calls RPCs directly, without a Flight SQL client library.
pub(super) struct TestCall {
    pub(super) client: FlightServiceClient<Channel>,
    pub(super) token: String,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

impl TestCall {
    pub(super) fn request<T>(&self, message: impl IntoRequest<T>) -> Request<T> {
        let mut request = message.into_request();
        self.sign(request.metadata_mut());
        request
    }

    pub(super) fn sign(&self, headers: &mut tonic::metadata::MetadataMap) {
        headers.insert("authorization", format!("bearer {}", self.token).parse().unwrap());
        for (name, value) in &self.headers {
            headers.insert(*name, MetadataValue::from_static(value));
        }
    }

    pub(super) async fn info(&mut self, command: &impl ProstMessageExt) -> Result<FlightInfo, Status> {
        let request = self.request(described(command));
        Ok(self.client.get_flight_info(request).await?.into_inner())
    }

    pub(super) async fn schema(&mut self, command: &impl ProstMessageExt) -> Result<Schema, Status> {
        let request = self.request(described(command));
        Ok(Schema::try_from(self.client.get_schema(request).await?.into_inner()).unwrap())
    }

    pub(super) async fn get(&mut self, ticket: Ticket) -> Result<Vec<FlightData>, Status> {
        let request = self.request(ticket);
        self.client.do_get(request).await?.into_inner().try_collect().await
    }

    /// Fetches a result. Returns the schema of the FlightInfo, the schema of the stream, and the rows.
    pub(super) async fn fetch(
        &mut self,
        command: &impl ProstMessageExt,
    ) -> Result<(Schema, Schema, Vec<RecordBatch>), Status> {
        let info = self.info(command).await?;
        assert_eq!(info.endpoint.len(), 1);
        assert!(info.endpoint[0].location.is_empty());
        let messages = self.get(info.endpoint[0].ticket.clone().unwrap()).await?;
        let promised = Schema::try_from(info).unwrap();
        let sent = Schema::try_from(&messages[0]).unwrap();
        let messages = stream::iter(messages.into_iter().map(Ok));
        let rows = arrow_flight::decode::FlightRecordBatchStream::new_from_flight_data(messages);
        Ok((promised, sent, rows.try_collect().await.unwrap()))
    }

    /// Fetches a result with one row and one column, and returns its value.
    pub(super) async fn value(&mut self, command: &impl ProstMessageExt) -> Result<ArrayRef, Status> {
        let (_, _, rows) = self.fetch(command).await?;
        let rows = concat_batches(rows[0].schema_ref(), &rows).unwrap();
        assert_eq!((rows.num_rows(), rows.num_columns()), (1, 1));
        Ok(rows.column(0).clone())
    }

    pub(super) async fn act(&mut self, name: &str, body: Vec<u8>) -> Result<Vec<arrow_flight::Result>, Status> {
        let request = self.request(Action { r#type: name.to_owned(), body: body.into() });
        self.client.do_action(request).await?.into_inner().try_collect().await
    }

    pub(super) async fn prepare(&mut self, sql: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let results = self.act("CreatePreparedStatement", request.as_any().encode_to_vec()).await?;
        Ok(Any::decode(&*results[0].body).unwrap().unpack().unwrap().unwrap())
    }

    /// Uploads a command and batches, and returns the server's only response message.
    pub(super) async fn put(
        &mut self,
        command: &impl ProstMessageExt,
        batches: Vec<RecordBatch>,
    ) -> Result<Bytes, Status> {
        self.put_messages(encoded(command, batches).await).await
    }

    /// Uploads messages that have already been encoded, and returns the server's only response message.
    pub(super) async fn put_messages(&mut self, messages: Vec<FlightData>) -> Result<Bytes, Status> {
        let mut request = Request::new(stream::iter(messages));
        self.sign(request.metadata_mut());
        let results: Vec<_> = self.client.do_put(request).await?.into_inner().try_collect().await?;
        assert_eq!(results.len(), 1);
        Ok(results[0].app_metadata.clone())
    }

    /// Sends an update as ADBC does: as a single message without a schema. Returns the error.
    pub(super) async fn update(&mut self, sql: &str) -> Status {
        let update = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None };
        let message = FlightData { flight_descriptor: Some(described(&update)), ..FlightData::default() };
        let mut request = Request::new(stream::iter([message]));
        self.sign(request.metadata_mut());
        self.client.do_put(request).await.unwrap_err()
    }

    pub(super) async fn bind(&mut self, handle: &Bytes, batches: Vec<RecordBatch>) -> Result<Bytes, Status> {
        let result = self.put(&prepared(handle), batches).await?;
        Ok(DoPutPreparedStatementResult::decode(result).unwrap().prepared_statement_handle.unwrap())
    }
}

/// Encodes the messages of an upload.
pub(super) async fn encoded(command: &impl ProstMessageExt, batches: Vec<RecordBatch>) -> Vec<FlightData> {
    let builder = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(described(command)));
    builder.build(stream::iter(batches.into_iter().map(Ok))).try_collect().await.unwrap()
}

pub(super) fn described(command: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

pub(super) fn statement(sql: &str) -> CommandStatementQuery {
    CommandStatementQuery { query: sql.to_owned(), transaction_id: None }
}

pub(super) fn prepared(handle: &Bytes) -> CommandPreparedStatementQuery {
    CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() }
}

pub(super) fn row(columns: Vec<ArrayRef>) -> RecordBatch {
    let names = ["a", "b", "c"];
    RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap()
}

/// Waits until no query is running.
pub(super) async fn until_idle(engine: &Engine) {
    let idle = async {
        while engine.running() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.expect("no query is running");
}

/// A statement whose result is larger than any flow-control window.
pub(super) const ENDLESS: &str = "SELECT value, repeat('x', 200) AS text FROM generate_series(1, 50000000)";
