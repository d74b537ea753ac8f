//! Planning one tenant's question over a table of 10,000 files: parse, prune, optimise, plan. No file is opened, and no
//! plan is found that was kept: each round's statement differs from all before.
//!
//! `cargo bench --bench planning`. Prints the median of each step in milliseconds, for growing tables.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod house;

use std::time::Instant;

use house::House;

const ROUNDS: usize = 200;
const QUESTION: &str = "select carrier, count(*), avg(jitter_ms) from call_events \
    where event_time >= timestamp '2026-01-05 00:00:00' and event_time < timestamp '2026-01-06 00:00:00' group by carrier";

fn main() {
    let runtime = house::runtime();
    println!("| files | logical plan, ms | physical plan with pruning, ms | sum |\n|---|---|---|---|");
    for files in [10, 1_000, 10_000] {
        runtime.block_on(measure(files));
    }
}

async fn measure(files: usize) {
    let house = House::build().await;
    house.pretend_files(files).await;
    let access = house.access("tenant-0042").await;
    let (mut logical, mut physical) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let question = format!("{QUESTION} -- {round}");
        let started = Instant::now();
        let session = house.engine.session(&access).expect("a session");
        let planned = session.plan(&question).await.expect("a plan");
        logical.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        // The answer is never polled: what is measured is everything before the first byte is read.
        drop(session.run(&planned, None).await.expect("an answer"));
        physical.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (logical, physical) = (median(&mut logical), median(&mut physical));
    println!("| {files} | {logical:.2} | {physical:.2} | {:.2} |", logical + physical);
}
