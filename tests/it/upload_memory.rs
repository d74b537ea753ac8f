//! A memory test for slow uploads. Many connections slowly send large messages at the same time. The server's memory
//! must stay within the limits in `docs/memory.md` for uncommitted events, flow-control windows and connections.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    CommandStatementIngest, DoPutUpdateResult, ProstMessageExt as _, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{TryStreamExt as _, stream};
use glasshouse::config::{Config, EndpointMemory};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::server::{Server, Setup, until_async};

/// The number of clients, each with its own connection.
const CONNECTIONS: usize = 64;
/// The number of events in a message.
const EVENTS: usize = 127;
/// The size of an event in bytes.
const EVENT_BYTES: usize = 250 * 1024;
/// The size in bytes of one write to a connection.
const PIECE_BYTES: usize = 64 * 1024;
/// The number of bytes at the end of an upload that a slow client sends only after [`SlowClient::finish`] is set.
const TAIL_BYTES: usize = 16;

/// A client that sends one upload.
#[derive(Clone)]
struct SlowClient {
    address: String,
    token: String,
    /// The encoded messages of the upload. All clients share one copy, which saves memory in the test process.
    bytes: Bytes,
    /// True if the slow clients may send the last [`TAIL_BYTES`] of their uploads.
    finish: watch::Receiver<bool>,
    /// The number of clients that have sent everything except the last [`TAIL_BYTES`].
    waiting: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl SlowClient {
    /// Repeats the upload until the server accepts it or the test ends. Returns the number of accepted events, or `None`
    /// if the upload was not accepted.
    async fn run(mut self) -> Option<i64> {
        let channel = self.connect().await;
        loop {
            match self.send(&channel).await {
                Ok(count) => return Some(count),
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    if *self.finish.borrow() {
                        return None;
                    }
                    // A refused client waits as long as `retry-after` requires before it tries again.
                    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
                    let pause = tokio::time::timeout(Duration::from_secs(1), self.finish.wait_for(|finish| *finish));
                    drop(pause.await);
                }
            }
        }
    }

    async fn connect(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn send(&self, channel: &Channel) -> Result<i64, Status> {
        let begun = (self.bytes.clone(), self.clone());
        let pieces = stream::unfold(begun, |(mut left, mut client)| async move {
            if left.len() == TAIL_BYTES {
                client.waiting.fetch_add(1, Ordering::SeqCst);
                client.finish.wait_for(|finish| *finish).await.ok()?;
            }
            let until_tail = left.len().saturating_sub(TAIL_BYTES);
            let bytes = if until_tail > 0 { until_tail.min(PIECE_BYTES) } else { left.len() };
            (bytes > 0).then(|| (Ok::<_, Status>(Frame::data(left.split_to(bytes))), (left, client)))
        });
        let request = http::Request::post(format!("http://{}/arrow.flight.protocol.FlightService/DoPut", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Body::new(StreamBody::new(pieces)))
            .unwrap();
        let mut channel = channel.clone();
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
        let response = channel.call(request).await.map_err(|error| Status::from_error(error.into()))?;
        let (head, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
            return Err(status);
        }
        let answer = body.collect().await?.to_bytes();
        let result = PutResult::decode(answer.slice(5..)).unwrap();
        Ok(DoPutUpdateResult::decode(result.app_metadata).unwrap().record_count)
    }
}

/// Encodes an upload as gRPC messages. The upload is one batch of `events` events.
async fn upload(prefix: &str, events: usize) -> Bytes {
    let ids = StringArray::from_iter_values((0..events).map(|id| format!("{prefix}-{id}")));
    let times = TimestampMicrosecondArray::from(vec![1_772_366_400_000_000; events]).with_timezone("UTC");
    let payload = vec![b'x'; EVENT_BYTES];
    let payloads = BinaryArray::from_iter_values((0..events).map(|_| &payload));
    let columns: [(&str, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("at", Arc::new(times)), ("payload", Arc::new(payloads))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let command = CommandStatementIngest {
        table: "samples".to_owned(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail.into(),
            if_exists: TableExistsOption::Append.into(),
        }),
        ..CommandStatementIngest::default()
    };
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
        .with_max_flight_data_size(usize::MAX)
        .build(stream::iter([Ok(batch)]))
        .try_collect()
        .await
        .unwrap();
    let mut bytes = BytesMut::new();
    for message in messages {
        bytes.put_u8(0);
        bytes.put_u32(message.encoded_len().try_into().unwrap());
        message.encode(&mut bytes).unwrap();
    }
    bytes.freeze()
}

/// Returns the value of a line in the server's `/proc/<id>/status`, in bytes.
fn memory(server: &Server, line: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let value = status.lines().find_map(|status| status.strip_prefix(line)).unwrap();
    value.trim_matches(|char: char| !char.is_ascii_digit()).parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_stay_within_the_documented_memory() {
    let config = Config::default();
    let setting = |key: &str, value: usize| (key.to_owned(), value.to_string());
    // The time limit for a message is so long that no client is refused for being slow, even on a slow host.
    let time_max = ("FLIGHT__MESSAGE_IN_TIME_MAX".to_owned(), "1h".to_owned());
    let settings = vec![setting("FLIGHT__MESSAGE_IN_BYTES_MAX", config.flight.message_in_bytes_max), time_max];
    let server = Server::start(&Setup { settings, ..Setup::default() });
    let (finish, finishing) = watch::channel(false);
    let client = |bytes: &Bytes, finish: &watch::Receiver<bool>| SlowClient {
        address: server.flight.clone(),
        token: server.token("acme"),
        bytes: bytes.clone(),
        finish: finish.clone(),
        waiting: Arc::default(),
        refused: Arc::default(),
    };
    let at_once = watch::channel(true).1;
    let small = upload("small", 1).await;
    assert_eq!(client(&small, &at_once).run().await, Some(1));

    let (large, before) = (upload("large", EVENTS).await, memory(&server, "VmRSS:"));
    let fitting = config.ingest.queue_bytes_max / large.len();
    assert!(
        large.len() > 30 << 20 && fitting < CONNECTIONS / 4,
        "uploads of {} bytes; {fitting} of them fit into the queue",
        large.len()
    );
    let (mut clients, slow) = (JoinSet::new(), client(&large, &finishing));
    for _ in 0..CONNECTIONS {
        clients.spawn(slow.clone().run());
    }
    until_async(
        "the uploads that fit are complete except for their last bytes, and all others were refused",
        async || {
            slow.waiting.load(Ordering::SeqCst) == fitting
                && slow.refused.load(Ordering::SeqCst) >= CONNECTIONS - fitting
        },
    )
    .await;
    let EndpointMemory { ingest_queue, flight_windows, flight_connections, .. } = config.endpoint_memory();
    let (documented, grown) = (ingest_queue + flight_windows + flight_connections, memory(&server, "VmHWM:") - before);
    println!("{before} bytes before the uploads, {grown} more at the peak, {documented} documented");
    assert!(grown <= documented, "the server grew by {grown} bytes; the documented limit is {documented}");
    assert!(grown >= large.len() * fitting, "the uploads did not reach the server: it grew by only {grown} bytes");

    finish.send_replace(true);
    let taken = clients.join_all().await;
    assert!(taken.iter().flatten().all(|count| *count == EVENTS as i64), "{taken:?}");
    assert!(taken.iter().flatten().count() >= fitting, "{taken:?}");
    until_async("all memory of the queue is released", async || {
        server.metric("glasshouse_ingest_queue_bytes").await == 0.0
    })
    .await;
    assert_eq!(client(&small, &at_once).run().await, Some(1), "the next upload is not accepted");
    println!("{} bytes at the end, {} at the peak", memory(&server, "VmRSS:"), memory(&server, "VmHWM:"));
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
