//! The Flight SQL client of the command-line tool.
//!
//! The client runs statements on a server and uploads events. It accepts results of any size, in messages of up to
//! `MESSAGE_BYTES_MAX`. No other part of the command-line tool uses gRPC types.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::upload::from_flight;
use crate::error::{Error, Kind, Result};
use crate::http_client::Roots;

/// The maximum size of a received message. A Glasshouse server sends messages of less than 4 MiB by default, but may be
/// configured to send larger ones.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The size of the flow-control windows of streams and connections. 8 MiB is large enough for a fast link with a
/// latency of 10 ms.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A connection to a Flight SQL server.
#[derive(Debug, Clone)]
pub struct FlightClient(FlightSqlServiceClient<Channel>);

/// The result of a statement.
pub struct ResultRows {
    /// The schema, which the server sends before the first row.
    pub schema: SchemaRef,
    /// The rows, in the order in which the server sends them.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl FlightClient {
    /// Connects to `url`, which is `grpc://host:port` (plain text) or `grpc+tls://host:port`. The schemes `http` and
    /// `https` are accepted as synonyms. The certificate authorities in `ca_file` (PEM) are trusted in addition to the
    /// system's authorities. Returns `Unavailable` if no server responds.
    pub async fn connect(url: &str, token: &str, ca_file: Option<&Path>) -> Result<Self> {
        let channel = endpoint(url, ca_file)?.connect().await.map_err(|error| {
            Error::unavailable(format!("cannot connect to {url}: is the server running there?")).with_source(error)
        })?;
        let client = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut client = FlightSqlServiceClient::new_from_inner(client);
        client.set_token(token.to_owned());
        Ok(Self(client))
    }

    /// Runs a statement, and returns its result as soon as the server begins to send it.
    pub async fn query(&mut self, sql: &str) -> Result<ResultRows> {
        let info = self.0.execute(sql.to_owned(), None).await.map_err(from_flight)?;
        self.fetch(info).await
    }

    /// Sends events to a table. Returns the number of uploaded events that are stored, no matter whether this upload or
    /// an earlier one stored them.
    pub async fn ingest(&mut self, table: &str, batches: BoxStream<'static, Result<RecordBatch>>) -> Result<i64> {
        let options = TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail.into(),
            if_exists: TableExistsOption::Append.into(),
        };
        let command = CommandStatementIngest {
            table: table.to_owned(),
            table_definition_options: Some(options),
            ..CommandStatementIngest::default()
        };
        let batches = batches.map_err(|error| FlightError::ExternalError(error.into()));
        self.0.execute_ingest(command, batches).await.map_err(from_flight)
    }

    async fn fetch(&mut self, info: FlightInfo) -> Result<ResultRows> {
        let endpoints = info.endpoint.clone();
        let schema = Schema::try_from(info).map_err(|error| unreadable().with_source(error))?;
        let mut streams = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let ticket = endpoint.ticket.ok_or_else(unreadable)?;
            streams.push(self.0.do_get(ticket).await.map_err(from_flight)?);
        }
        let batches = futures::stream::iter(streams).flatten().map_err(from_flight).boxed();
        Ok(ResultRows { schema: schema.into(), batches })
    }
}

fn unreadable() -> Error {
    Error::internal("the server's response is not valid Flight SQL")
}

fn endpoint(url: &str, ca_file: Option<&Path>) -> Result<Endpoint> {
    let expected =
        || Error::invalid(format!("`{url}` is not a server URL: expected `grpc://host:port` or `grpc+tls://…`"));
    let (scheme, address) = url.split_once("://").ok_or_else(expected)?;
    let is_tls = match scheme {
        "grpc" | "grpc+tcp" | "http" => false,
        "grpc+tls" | "https" => true,
        _ => return Err(expected()),
    };
    let uri = format!("{}://{address}", if is_tls { "https" } else { "http" });
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| expected().with_source(error))?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    if !is_tls {
        return Ok(endpoint);
    }
    let roots = Roots::load(ca_file)?;
    endpoint
        .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots.pem())))
        .map_err(|error| Error::new(Kind::Invalid, "cannot read the CA certificates").with_source(error))
}
