//! Measures the throughput of ingest, in events per CPU-second, for each format.
//!
//! The benchmark covers the whole path from the request body to the commit: decode, validate, dedupe, sort, encode
//! Parquet, and commit to a local folder. It measures the CPU time of the process instead of wall-clock time, so that
//! other load on the machine does not distort the result.
//!
//! Run it with `cargo bench --bench ingest [FORMAT …]`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod support;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use glasshouse::cli::demo_events::{EventGenerator, TENANTS};
use glasshouse::contract::Format;
use glasshouse::ingest::Body;
use glasshouse::tenancy::Access;

use support::{Harness, cpu_seconds};

/// The number of events per request.
const EVENTS: usize = 20_000;
/// The number of requests per round.
const REQUESTS: usize = 20;
const ROUNDS: usize = 5;
/// The number of concurrent requests. It is large enough that several requests share a commit.
const CONCURRENT: usize = 4;

fn main() {
    let runtime = support::runtime();
    println!("| format | bytes per event | events per CPU-second (median of {ROUNDS}) |\n|---|---|---|");
    let selection: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, format) in [("ndjson", Format::Json), ("protobuf", Format::Protobuf), ("arrow", Format::ArrowIpc)] {
        if selection.is_empty() || selection.iter().any(|word| word == name) {
            runtime.block_on(measure(name, format));
        }
    }
}

async fn measure(name: &str, format: Format) {
    let harness = Harness::build().await;
    let access = harness.access(TENANTS[0].0).await;
    let mut rates = Vec::new();
    let mut size = 0;
    for round in 0..ROUNDS as u64 {
        let bodies: Vec<Bytes> = (0..REQUESTS as u64)
            .map(|request| harness.body(format, &mut EventGenerator::new(round, round * 1_000 + request), EVENTS))
            .collect();
        size = bodies[0].len() / EVENTS;
        let before = cpu_seconds();
        submit_all(&harness, &access, format, bodies).await;
        rates.push((EVENTS * REQUESTS) as f64 / (cpu_seconds() - before));
    }
    rates.sort_by(f64::total_cmp);
    println!("| {name} | {size} | {:.0} |", rates[ROUNDS / 2]);
}

async fn submit_all(harness: &Harness, access: &Access, format: Format, bodies: Vec<Bytes>) {
    let writer = &harness.ingest.writer;
    let target = writer.authorize(access, "call_events").expect("the tenant may send events");
    let mut receipts = stream::iter(bodies)
        .map(|body| writer.submit(writer.reservation(), &target, Body::Encoded(format, body), "bench"))
        .buffer_unordered(CONCURRENT);
    let mut accepted = 0;
    while let Some(receipt) = receipts.next().await {
        accepted += receipt.expect("the request is accepted").accepted;
    }
    assert_eq!(accepted, (EVENTS * REQUESTS) as u64, "some events were not accepted");
}
