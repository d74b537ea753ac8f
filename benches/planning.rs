//! Benchmarks query planning (parse, prune, optimize, plan) for tables of up to 10,000 files. The benchmark does not
//! open the files. The plan cache has no effect, because each round's statement is unique.
//!
//! Run it with `cargo bench --bench planning`. For tables of increasing size, it prints the median time of each step in
//! milliseconds.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod support;

use std::time::Instant;

use support::Harness;

const ROUNDS: usize = 200;
const QUERY: &str = "select carrier, count(*), avg(jitter_ms) from call_events \
    where event_time >= timestamp '2026-01-05 00:00:00' and event_time < timestamp '2026-01-06 00:00:00' group by carrier";

fn main() {
    let runtime = support::runtime();
    println!("| files | logical plan, ms | physical plan with pruning, ms | sum |\n|---|---|---|---|");
    for files in [10, 1_000, 10_000] {
        runtime.block_on(measure(files));
    }
}

async fn measure(files: usize) {
    let harness = Harness::build().await;
    harness.add_virtual_files(files).await;
    let access = harness.access("tenant-0042").await;
    let (mut logical, mut physical) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let sql = format!("{QUERY} -- {round}");
        let started = Instant::now();
        let session = harness.engine.session(&access).expect("a session");
        let planned = session.plan(&sql).await.expect("a plan");
        logical.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        // The result stream is never polled, so no data is read.
        drop(session.run(&planned, None).await.expect("a result"));
        physical.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (logical, physical) = (median(&mut logical), median(&mut physical));
    println!("| {files} | {logical:.2} | {physical:.2} | {:.2} |", logical + physical);
}
