//! Measures how the cost of a commit depends on the number of live files.
//!
//! The files have log entries but do not exist, and the store is in memory. So the benchmark measures only the encoding
//! of an entry and the update of the table's state:
//!
//! - `append`: the commit of one file.
//! - `replace`: the commit that replaces 48 files by one.
//! - `follow`: the read of such an entry by another server.
//!
//! Each figure is the median of the wall-clock times of single operations, which other load on the machine hardly
//! changes.
//!
//! Run it with `cargo bench --bench commit [LIVE FILES …]`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasshouse::config::{ColumnConfig, LakeConfig, TableConfig};
use glasshouse::contract::Contract;
use glasshouse::lake::{DataFile, Replaced, Store, Table};

/// The last day of the table, 2026-03-01, in days since 1970-01-01.
const LAST_DAY: i32 = 20_513;
/// The number of files that one replacement removes.
const REPLACED: usize = 48;
const REPLACEMENTS: usize = 20;
const COMMITS: usize = REPLACED * REPLACEMENTS;

fn main() {
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 100_000];
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("| live files | days | append µs | replace µs | follow µs |\n|---|---|---|---|---|");
    for live in sizes {
        for days in [30, 1] {
            runtime.block_on(measure(live, days));
        }
    }
}

async fn measure(live: usize, days: usize) {
    let config = LakeConfig { url: "memory:///".to_owned(), ..LakeConfig::default() };
    let store = Store::open(&config).expect("a store");
    let table = Table::open(&store, contract(), &config).await.expect("a table");
    let mut names = 0..;
    let mut new_file = |day: usize, rows: u64| file(LAST_DAY - day as i32, names.next().expect("a name"), rows);
    let files = (0..live).map(|index| new_file(index * days / live, 1)).collect();
    table.commit(files, Vec::new()).await.expect("a commit");
    let follower = Table::open(&store, contract(), &config).await.expect("a table");

    let (mut append, mut replace, mut follow) = (Vec::new(), Vec::new(), Vec::new());
    let mut committed = Vec::new();
    for _ in 0..COMMITS {
        let file = new_file(0, 1);
        committed.push(Arc::new(file.clone()));
        let start = Instant::now();
        table.commit(vec![file], Vec::new()).await.expect("a commit");
        append.push(start.elapsed());
    }
    follower.refresh().await.expect("a snapshot");
    for from in committed.chunks(REPLACED) {
        let to = vec![new_file(0, REPLACED as u64)];
        let start = Instant::now();
        let replaced = table.replace(from, to).await.expect("a replacement");
        replace.push(start.elapsed());
        assert!(matches!(replaced, Replaced::At(_)), "{replaced:?}");
        let start = Instant::now();
        let snapshot = follower.refresh().await.expect("a snapshot");
        follow.push(start.elapsed());
        assert_eq!(snapshot.version, table.snapshot().version);
    }
    let rows = (live + COMMITS) as u64;
    assert_eq!((table.snapshot().rows(), follower.snapshot().rows()), (rows, rows));
    println!("| {live} | {days} | {} | {} | {} |", median(append), median(replace), median(follow));
}

fn median(mut times: Vec<Duration>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2].as_micros()
}

/// Returns a file of one tenant. Names increase with `number`, as those of real files increase with the time.
fn file(day: i32, number: u64, rows: u64) -> DataFile {
    let date = chrono::DateTime::UNIX_EPOCH.date_naive() + chrono::Days::new(day as u64);
    let tenant = |name: &str| Arc::from(format!("AC0123456789abcdef0123456789abcde{name}"));
    let id = |name: &str| Arc::from(format!("EV0123456789abcdef0123456789abcde{name}"));
    let start = i64::from(day) * glasshouse::clock::DAY;
    DataFile {
        path: format!("event_date={date}/part-0193f3a0-7b1c-7def-8123-{number:012x}.zstd.parquet").into(),
        size: 600_000,
        rows,
        day,
        tenants: Some((tenant("0"), tenant("f"))),
        times: Some((start, start + 1_000_000)),
        ids: Some((id("0"), id("f"))),
        received: Some((start, start + 1_000_000)),
        modified: start / 1_000,
    }
}

fn contract() -> Arc<Contract> {
    let columns = [("tenant_id", "text"), ("event_time", "timestamp"), ("event_id", "text")];
    let column =
        |(name, kind): (&str, &str)| ColumnConfig { name: name.into(), kind: kind.into(), ..ColumnConfig::default() };
    let config = TableConfig {
        columns: columns.map(column).to_vec(),
        tenant: "tenant_id".into(),
        time: "event_time".into(),
        id: "event_id".into(),
        ..TableConfig::default()
    };
    Arc::new(Contract::new("calls", &config, Path::new(".")).expect("a contract"))
}
