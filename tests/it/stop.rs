//! A signal to stop while clients hang: they are cut in time, and what was acknowledged on receipt is committed.

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

/// What `shutdown.time_max` is here: shorter than in production, so that the test is short.
const TIME_MAX: Duration = Duration::from_secs(6);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(6);
/// Events, each in a request of its own: more than are committed at once before the pace of `batch_age_max` holds.
const EVENTS: usize = 40;
/// A long answer: more than any window holds.
const ENDLESS: &str = "SELECT value, repeat('x', 200) AS text FROM generate_series(1, 50000000)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_clients_cost_no_acknowledged_event() {
    let lake = tempfile::tempdir().unwrap();
    let settings = [("SHUTDOWN__TIME_MAX", format!("{}s", TIME_MAX.as_secs())), ("INGEST__BATCH_AGE_MAX", "5m".into())];
    let setup = Setup {
        lake: Some(lake.path().display().to_string()),
        settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
        ..Setup::default()
    };
    let server = Server::start(&setup);
    let token = server.token("acme");
    send_events(&server, &token).await;

    let unfinished = unfinished_body(&server.http, &token);
    let deaf = never_reads(&server.http, &token);
    let mut flight = FlightServiceClient::new(channel(&server.flight).await);
    let stalled = stalled_answer(&mut flight, &token).await;
    let uploading = stalled_upload(flight, token.clone()).await;

    let begun = Instant::now();
    let http = server.http.clone();
    let ended_well = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    let took = begun.elapsed();
    assert!(ended_well, "all is committed");
    assert!(took > TIME_MAX / 2, "the clients hang: {took:?}");
    assert!(took < TIME_MAX + SLACK, "the stop took {took:?}, and may take {TIME_MAX:?}");
    assert!(TcpStream::connect(http).is_err(), "nothing is left behind");
    drop((unfinished, stalled, uploading));
    deaf.join().unwrap();

    let again = Server::start(&setup);
    let count = again.ask("acme", "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM samples").unwrap();
    assert_eq!(count, format!("n,ids\n{EVENTS},{EVENTS}"), "each acknowledged event is there once");
    assert!(again.stop());
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

/// A request whose body never ends.
fn unfinished_body(address: &str, token: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/tables/samples/events HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n{{\"id\":"
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection
}

/// Requests whose answers are never read: written until the server takes no more, which is when it is gone.
fn never_reads(address: &str, token: &str) -> thread::JoinHandle<()> {
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!("GET /v1/tables HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\r\n");
    // The first answer says that the server has begun to answer this client.
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

/// An answer of which the first message is read, and no more.
async fn stalled_answer(flight: &mut FlightServiceClient<Channel>, token: &str) -> Streaming<FlightData> {
    let query = CommandStatementQuery { query: ENDLESS.to_owned(), transaction_id: None };
    let described = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
    let info = flight.get_flight_info(signed(described, token)).await.unwrap().into_inner();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut rows = flight.do_get(signed(ticket, token)).await.unwrap().into_inner();
    assert!(rows.message().await.unwrap().is_some());
    rows
}

/// An upload whose first messages are sent, and no more. Returns when the server takes them.
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
