//! Tests of a shutdown while clients do not respond. The server must close the connections of these clients in time,
//! and commit all acknowledged events.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementIngest, CommandStatementQuery, ProstMessageExt as _, TableDefinitionOptions};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::server::{Server, Setup};

/// The default of `shutdown.time_max`, within which the server must stop.
const TIME_MAX: Duration = Duration::from_secs(25);
/// The number of events, each in its own request. The first events are committed immediately. The number is high enough
/// for later events to wait for `batch_age_max`.
const EVENTS: usize = 40;
/// A query with a result that is larger than any flow-control window.
const ENDLESS: &str = "SELECT value, repeat('x', 200) AS text FROM generate_series(1, 50000000)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_with_hung_clients_loses_no_acknowledged_event() {
    let lake = tempfile::tempdir().unwrap();
    let settings = [("INGEST__BATCH_AGE_MAX", "5m".to_owned())];
    let setup = Setup {
        lake: Some(lake.path().display().to_string()),
        settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
        ..Setup::default()
    };
    let server = Server::start(&setup);
    let token = server.token("acme");
    send_events(&server, &token).await;

    let unfinished = unfinished_body(&server.http, &token);
    let reader = never_reads(&server.http, &token);
    let mut flight = FlightServiceClient::new(channel(&server.flight).await);
    let stalled = stalled_result(&mut flight, &token).await;
    let uploading = stalled_upload(flight, token.clone()).await;

    let started = Instant::now();
    let http = server.http.clone();
    let succeeded = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    let took = started.elapsed();
    assert!(succeeded, "the server did not commit everything, or did not stop cleanly");
    assert!(took > Duration::from_secs(3), "the clients did not hang: the shutdown took only {took:?}");
    assert!(took < TIME_MAX, "the shutdown took {took:?}; the limit is {TIME_MAX:?}");
    assert!(TcpStream::connect(http).is_err(), "the server still accepts connections");
    drop((unfinished, stalled, uploading));
    reader.join().unwrap();

    let restarted = Server::start(&setup);
    let count = restarted.ask("acme", "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM samples").unwrap();
    assert_eq!(count, format!("n,ids\n{EVENTS},{EVENTS}"), "each acknowledged event is stored once");
    assert!(restarted.stop());
}

/// Sends events that are acknowledged before they are stored.
async fn send_events(server: &Server, token: &str) {
    let (client, url) =
        (reqwest::Client::new(), format!("http://{}/v1/tables/samples/events?ack=received", server.http));
    for event in 0..EVENTS {
        let body = format!("{{\"id\":\"{event}\",\"at\":\"2026-03-01T12:00:00Z\"}}\n");
        let request = client.post(&url).bearer_auth(token).header("content-type", "application/x-ndjson").body(body);
        assert_eq!(request.send().await.unwrap().status(), 202);
    }
    let lines = server.log_lines();
    assert!(!lines.iter().any(|line| line.contains("\"ERROR\"")), "{lines:?}");
}

/// Sends a request with a body that never ends.
fn unfinished_body(address: &str, token: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/tables/samples/events HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n{{\"id\":"
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection
}

/// Sends requests without reading the responses, on a thread that writes until the server closes the connection.
fn never_reads(address: &str, token: &str) -> thread::JoinHandle<()> {
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!("GET /v1/tables HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\r\n");
    // Wait for the first response, to be sure that the server has accepted the connection.
    connection.write_all(request.as_bytes()).unwrap();
    connection.read_exact(&mut [0; 12]).unwrap();
    thread::spawn(move || while connection.write_all(request.as_bytes()).is_ok() {})
}

async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn signed<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Starts a query and reads only the first message of its result.
async fn stalled_result(flight: &mut FlightServiceClient<Channel>, token: &str) -> Streaming<FlightData> {
    let query = CommandStatementQuery { query: ENDLESS.to_owned(), transaction_id: None };
    let described = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
    let info = flight.get_flight_info(signed(described, token)).await.unwrap().into_inner();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut rows = flight.do_get(signed(ticket, token)).await.unwrap().into_inner();
    assert!(rows.message().await.unwrap().is_some());
    rows
}

/// Starts an upload that stalls after its first messages, and waits until the server has received these messages.
async fn stalled_upload(mut flight: FlightServiceClient<Channel>, token: String) -> JoinSet<()> {
    let command = CommandStatementIngest {
        table: "samples".to_owned(),
        table_definition_options: Some(TableDefinitionOptions { if_not_exist: 1, if_exists: 2 }),
        ..CommandStatementIngest::default()
    };
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["unfinished"]));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_772_366_400_000_000]).with_timezone("UTC"));
    let rows = RecordBatch::try_from_iter([("id", ids), ("at", times)]).unwrap();
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
        .build(stream::iter([Ok(rows)]))
        .try_collect()
        .await
        .unwrap();
    let (taken, is_taken) = oneshot::channel();
    let rest = stream::once(async move {
        let _waiting = taken.send(());
        std::future::pending::<FlightData>().await
    });
    let uploading = async move {
        let _cut = flight.do_put(signed(stream::iter(messages).chain(rest), &token)).await;
    };
    let mut uploads = JoinSet::new();
    uploads.spawn(uploading);
    is_taken.await.unwrap();
    uploads
}
