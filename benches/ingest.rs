//! Events per CPU-second from body to committed Parquet, by format, on one core's worth of work.
//!
//! The whole way in is measured: decode, check, dedupe, sort, Parquet, commit to a local folder. CPU time of the process is
//! counted, not the wall clock, so that other load on the machine falls out. `cargo bench --bench ingest [FORMAT …]`.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod house;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use glasshouse::cli::call_traffic::{TENANTS, Traffic};
use glasshouse::contract::Format;
use glasshouse::ingest::Payload;
use glasshouse::tenancy::Access;

use house::{House, cpu_seconds};

/// Events of one request, and requests of one round.
const EVENTS: usize = 20_000;
const REQUESTS: usize = 20;
const ROUNDS: usize = 5;
/// Requests under way: enough that commits are shared.
const CONCURRENT: usize = 4;

fn main() {
    let runtime = house::runtime();
    println!("| format | bytes per event | events per CPU-second (median of {ROUNDS}) |\n|---|---|---|");
    let selection: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, format) in [("ndjson", Format::Json), ("protobuf", Format::Protobuf), ("arrow", Format::ArrowIpc)] {
        if selection.is_empty() || selection.iter().any(|word| word == name) {
            runtime.block_on(measure(name, format));
        }
    }
}

async fn measure(name: &str, format: Format) {
    let house = House::build().await;
    let access = house.access(TENANTS[0].0).await;
    let mut rates = Vec::new();
    let mut size = 0;
    for round in 0..ROUNDS as u64 {
        let bodies: Vec<Bytes> = (0..REQUESTS as u64)
            .map(|request| house.body(format, &mut Traffic::new(round, round * 1_000 + request), EVENTS))
            .collect();
        size = bodies[0].len() / EVENTS;
        let before = cpu_seconds();
        submit_all(&house, &access, format, bodies).await;
        rates.push((EVENTS * REQUESTS) as f64 / (cpu_seconds() - before));
    }
    rates.sort_by(f64::total_cmp);
    println!("| {name} | {size} | {:.0} |", rates[ROUNDS / 2]);
}

async fn submit_all(house: &House, access: &Access, format: Format, bodies: Vec<Bytes>) {
    let mut receipts = stream::iter(bodies)
        .map(|body| house.ingest.submit(access, "call_events", Payload::Encoded(format, body), "bench"))
        .buffer_unordered(CONCURRENT);
    let mut accepted = 0;
    while let Some(receipt) = receipts.next().await {
        accepted += receipt.expect("the server accepts").accepted;
    }
    assert_eq!(accepted, (EVENTS * REQUESTS) as u64, "every event is stored");
}
