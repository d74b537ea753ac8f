//! Tests of the limits of the Flight endpoint. They cover connections, calls, headers and the memory for uploads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array as _, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::sql::{
    CommandStatementIngest, DoPutUpdateResult, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::testing::*;
use super::*;
use crate::config::{IngestConfig, PolicyConfig, QueryConfig};
use crate::ingest::testing as lake;

const KIB: usize = 1024;

/// Starts a server whose only table is `calls`.
async fn start(config: FlightConfig, query: QueryConfig, limits: IngestConfig) -> FlightTestServer {
    let tables = lake::open(&lake::memory()).await;
    let policy = BTreeMap::from([(lake::TABLE.to_owned(), PolicyConfig::default())]);
    FlightTestServer::with(config, query, limits, tables, &policy).await
}

async fn start_with(config: FlightConfig) -> FlightTestServer {
    start(config, QueryConfig::default(), lake::limits()).await
}

/// Repeats `attempt` until it succeeds. After a client has disconnected, the server needs a moment to release the
/// client's resources.
async fn until_ok<T>(mut attempt: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let trying = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.expect("the attempt is refused until the timeout")
}

#[tokio::test]
async fn query_of_a_client_that_does_not_read_ends_at_the_time_limit() {
    let query = QueryConfig { time_max: Duration::from_secs(2), tenant_queries_max: 1, ..QueryConfig::default() };
    let server = start(FlightConfig::default(), query, lake::limits()).await;
    let mut call = server.caller("acme").await;
    let info = call.info(&statement(ENDLESS)).await.unwrap();
    let request = call.request(info.endpoint[0].ticket.clone().unwrap());
    let mut rows = call.client.do_get(request).await.unwrap().into_inner();
    assert!(rows.message().await.unwrap().is_some());
    assert_eq!(server.engine.running(), 1);

    // The client does not read its result and stays connected. The tenant's only query slot is released anyway.
    until_idle(&server.engine).await;
    let mut other = server.caller("acme").await;
    assert_eq!(other.value(&statement("SELECT 1")).await.unwrap().len(), 1);

    let end = rows.by_ref().try_for_each(|_| std::future::ready(Ok(()))).await.unwrap_err();
    assert_eq!(end.code(), Code::ResourceExhausted);
    assert!(end.message().contains("query.time_max"), "{end}");
    drop((call, other));
    server.close().await.unwrap();
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_on_every_connection() {
    let server = start_with(FlightConfig { streams_max: 1, ..FlightConfig::default() }).await;
    let mut call = server.caller("acme").await;
    let info = call.info(&statement(ENDLESS)).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let request = call.request(ticket);
    let mut rows = until_ok(async || call.client.clone().do_get(call.request(request.get_ref().clone())).await).await;
    assert!(rows.get_mut().message().await.unwrap().is_some());

    let mut other = server.caller("acme").await;
    let refused = other.info(&statement("SELECT 1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("flight.streams_max"), "{refused}");
    assert_eq!(refused.metadata().get("retry-after").unwrap(), "1");
    let alive = HealthClient::new(server.channel().await).check(HealthCheckRequest::default()).await;
    assert_eq!(alive.unwrap().into_inner().status, 1, "a server at its limit is healthy");

    drop(rows);
    until_ok(async || other.info(&statement("SELECT 1")).await).await;
    drop((call, other));
    server.close().await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_get_a_goaway() {
    let server = start_with(FlightConfig { connections_max: 1, ..FlightConfig::default() }).await;
    let mut first = server.caller("acme").await;
    first.info(&statement("SELECT 1")).await.unwrap();

    let mut wire = TcpStream::connect(server.url.trim_start_matches("grpc://")).await.unwrap();
    wire.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut frames = Vec::new();
    wire.read_to_end(&mut frames).await.unwrap();
    let text = String::from_utf8_lossy(&frames);
    assert_eq!((frames[3], frames[9 + 3]), (4, 7), "SETTINGS and GOAWAY");
    assert!(text.ends_with("the server has 1 connections (limit flight.connections_max): retry later"), "{text}");
    drop(wire);
    let refused = server.caller("acme").await.info(&statement("SELECT 1")).await.unwrap_err();
    assert!(matches!(refused.code(), Code::ResourceExhausted | Code::Unavailable), "{refused:?}");

    drop(first);
    until_ok(async || server.caller("acme").await.info(&statement("SELECT 1")).await).await;
    server.close().await.unwrap();
}

#[tokio::test]
async fn headers_beyond_the_limit_get_a_grpc_status() {
    let server = start_with(FlightConfig { header_bytes_max: 8 * 1024, ..FlightConfig::default() }).await;
    let mut call = server.caller("acme").await;
    let with = |call: &TestCall, bytes: usize| {
        let mut request = call.request(described(&statement("SELECT 1")));
        request.metadata_mut().insert("x-long", "y".repeat(bytes).parse().unwrap());
        request
    };
    assert!(call.client.get_flight_info(with(&call, 6 * KIB)).await.is_ok());
    let request = with(&call, 12 * KIB);
    let refused = call.client.get_flight_info(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("limit flight.header_bytes_max"), "{refused}");
    // If headers exceed four times the limit, the HTTP/2 library responds with HTTP status 431, and there is no gRPC
    // status. The connection stays open.
    let request = with(&call, 40 * KIB);
    let refused = call.client.get_flight_info(request).await.unwrap_err();
    assert!(!refused.message().contains("flight.header_bytes_max"), "{refused:?}");
    assert_eq!(call.value(&statement("SELECT 1")).await.unwrap().len(), 1);
    drop(call);
    server.close().await.unwrap();
}

/// An upload whose request body consists of raw bytes that the test writes.
struct RawUpload {
    parts: mpsc::Sender<Bytes>,
    response: JoinSet<Result<(), Status>>,
}

impl RawUpload {
    /// Opens an upload with its first message, which names the table.
    async fn open(server: &FlightTestServer) -> Self {
        let (parts, sent) = mpsc::channel::<Bytes>(4);
        let body = ReceiverStream::new(sent).map(|part| Ok::<_, Status>(Frame::data(part)));
        let mut request = http::Request::new(Body::new(StreamBody::new(body)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() =
            format!("{}/arrow.flight.protocol.FlightService/DoPut", server.url.replace("grpc", "http"))
                .parse()
                .unwrap();
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("authorization", &format!("Bearer {}", token("acme"))),
        ] {
            request
                .headers_mut()
                .insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let mut channel = server.channel().await;
        let mut response = JoinSet::new();
        response.spawn(async move {
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
            let response = channel.call(request).await.map_err(|error| Status::from_error(error.into()))?;
            Status::from_header_map(response.headers()).map_or(Ok(()), |status| match status.code() {
                Code::Ok => Ok(()),
                _ => Err(status),
            })
        });
        let upload = Self { parts, response };
        let first = FlightData { flight_descriptor: Some(described(&append())), ..FlightData::default() };
        upload.send(&framed(&first.encode_to_vec())).await;
        upload
    }

    async fn send(&self, bytes: &[u8]) {
        // Ignore an error here: after the server has responded, it may stop reading.
        let _ = self.parts.send(Bytes::copy_from_slice(bytes)).await;
    }

    /// Ends the upload and returns the server's response.
    async fn end(mut self) -> Status {
        drop(self.parts);
        let response = self.response.join_next().await.unwrap().unwrap();
        response.expect_err("the upload is refused")
    }

    /// Waits for the server to refuse an upload whose client has not finished sending.
    async fn refusal(mut self) -> Status {
        let response = self.response.join_next().await.unwrap().unwrap();
        response.expect_err("the upload is refused")
    }
}

fn append() -> CommandStatementIngest {
    let options = TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Fail.into(),
        if_exists: TableExistsOption::Append.into(),
    };
    CommandStatementIngest {
        table: lake::TABLE.to_owned(),
        table_definition_options: Some(options),
        ..CommandStatementIngest::default()
    }
}

fn prefix(flag: u8, bytes: usize) -> Vec<u8> {
    let mut prefix = BytesMut::new();
    prefix.put_u8(flag);
    prefix.put_u32(bytes.try_into().unwrap());
    prefix.to_vec()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [prefix(0, message.len()), message.to_vec()].concat()
}

/// Waits until uploads have reserved exactly `bytes` bytes of the ingest queue.
async fn until_queued(server: &FlightTestServer, bytes: usize) {
    let waiting = async {
        while server.ingest.writer.queued_bytes() != bytes {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("{} bytes are still queued", server.ingest.writer.queued_bytes()));
}

#[tokio::test]
async fn memory_is_reserved_before_a_message_is_read() {
    let limits = IngestConfig { queue_bytes_max: KIB * KIB, queue_wait_max: Duration::ZERO, ..lake::limits() };
    let server = start(FlightConfig::default(), QueryConfig::default(), limits).await;
    let idle = RawUpload::open(&server).await;
    let begun = RawUpload::open(&server).await;
    begun.send(&prefix(0, 600 * KIB)).await;
    until_queued(&server, 600 * KIB).await;

    let other = RawUpload::open(&server).await;
    other.send(&prefix(0, 600 * KIB)).await;
    let refused = other.refusal().await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("the ingest queue is full"), "{refused}");

    // The first upload ends in the middle of a message. The second upload has sent no events yet.
    let broken = begun.end().await;
    assert_eq!(
        (broken.code(), broken.message()),
        (Code::InvalidArgument, "the upload ends in the middle of a message")
    );
    until_queued(&server, 0).await;
    drop(idle);

    // After an upload has been committed, no memory is reserved for it.
    let ids = StringArray::from_iter_values((0..100).map(|id| format!("e{id}")));
    let times = TimestampMicrosecondArray::from(vec![1_772_366_400_000_000; ids.len()]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] = [("event_id", Arc::new(ids)), ("event_time", Arc::new(times))];
    let events = RecordBatch::try_from_iter(columns).unwrap();
    let mut call = server.caller("acme").await;
    let result = call.put(&append(), vec![events.clone(), events]).await.unwrap();
    assert_eq!(DoPutUpdateResult::decode(result).unwrap().record_count, 200);
    until_queued(&server, 0).await;
    drop(call);
    server.close().await.unwrap();
}

#[tokio::test]
async fn messages_that_are_too_large_too_slow_or_compressed_are_refused() {
    let config = FlightConfig { message_in_time_max: Duration::from_millis(200), ..FlightConfig::default() };
    let message_in_bytes_max = config.message_in_bytes_max;
    let server = start_with(config).await;
    let cases = [
        (prefix(0, message_in_bytes_max + 1), Code::ResourceExhausted, "flight.message_in_bytes_max"),
        (prefix(0, message_in_bytes_max), Code::ResourceExhausted, "flight.message_in_time_max"),
        (prefix(1, 10), Code::Unimplemented, "compressed gRPC messages"),
        (framed(&[0xff; 10]), Code::InvalidArgument, "not a valid FlightData"),
    ];
    for (sent, code, text) in cases {
        let upload = RawUpload::open(&server).await;
        upload.send(&sent).await;
        let refused = upload.refusal().await;
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(text), "{refused}");
    }
    until_queued(&server, 0).await;
    server.close().await.unwrap();
}

#[tokio::test]
async fn first_message_is_small_and_reserves_no_memory() {
    let server = start_with(FlightConfig::default()).await;
    let command = FlightDescriptor::new_cmd(vec![0; FlightConfig::REQUEST_BYTES_MAX]);
    let first = FlightData { flight_descriptor: Some(command), ..FlightData::default() };
    let call = server.caller("acme").await;
    let mut request = tonic::Request::new(futures::stream::iter([first]));
    call.sign(request.metadata_mut());
    let refused = call.client.clone().do_put(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("first message"), "{refused}");
    drop(call);
    server.close().await.unwrap();
}
