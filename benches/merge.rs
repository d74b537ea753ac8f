//! Measures merges of level-0 files: rows per CPU-second, and memory.
//!
//! The benchmark writes files of calls as ingest writes them, one for each second, and merges them with various
//! layouts. The events belong to 5,000 tenants. The largest tenant has a tenth of them.
//!
//! Run it with `cargo bench --bench merge [ROWS PER FILE] [FILES]`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod support;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt16Array,
};
use arrow::datatypes::DataType;
use glasshouse::clock::SECOND;
use glasshouse::config::{ColumnConfig, LakeConfig, TableConfig};
use glasshouse::contract::{Contract, EventBatch, TextDictionaryArray};
use glasshouse::lake::{DataFile, Store, Table};
use glasshouse::maintenance::file_cuts::FileCuts;
use glasshouse::maintenance::merge::{MergeOptions, merge};
use glasshouse::maintenance::policy::Unit;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use support::cpu_seconds;

const TENANTS: usize = 5_000;
const DAY: i32 = 20_513;
const COLUMNS: &[(&str, &str)] = &[
    ("tenant_id", "text"),
    ("event_time", "timestamp"),
    ("event_id", "text"),
    ("call_sid", "text"),
    ("route_id", "text"),
    ("logged_event_time", "timestamp"),
    ("event_type", "text"),
    ("direction", "text"),
    ("call_state", "text"),
    ("carrier", "text"),
    ("country_from", "text"),
    ("country_to", "text"),
    ("edge", "text"),
    ("region", "text"),
    ("codec", "text"),
    ("duration_s", "float64"),
    ("pdd_ms", "float64"),
    ("jitter_ms", "float64"),
    ("mos", "float64"),
    ("packet_loss", "float64"),
    ("price", "decimal(10, 5)"),
];

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (rows, files) = (numbers.first().copied().unwrap_or(60_000), numbers.get(1).copied().unwrap_or(48));
    support::runtime().block_on(measure(rows, files));
}

async fn measure(rows: usize, count: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = LakeConfig { url: format!("file://{}", folder.path().display()), ..LakeConfig::default() };
    let store = Store::open(&config).expect("a store");
    let table = Table::open(&store, contract(), &config).await.expect("a table");
    let calls = Calls::new();
    let mut inputs: Vec<Arc<DataFile>> = Vec::new();
    let before = cpu_seconds();
    for second in 0..count {
        let batch = calls.batch(table.contract(), second as i64, rows);
        inputs.extend(table.write(batch).await.expect("files").into_iter().map(Arc::new));
    }
    let size: u64 = inputs.iter().map(|file| file.size).sum();
    let total = rows * count;
    println!(
        "wrote {total} rows, {:.1} bytes per row, {:.1} CPU-seconds",
        size as f64 / total as f64,
        cpu_seconds() - before
    );
    println!(
        "| page rows | zstd | rows per CPU-second | bytes per row | held MiB | resident MiB |\n|---|---|---|---|---|---|"
    );
    for (page_rows, compression_level) in [(8_192, 1), (8_192, 1), (4_096, 1), (16_384, 1), (8_192, 3)] {
        let unit = Unit { day: DAY, level: 1, inputs: inputs.clone(), cuts: FileCuts::by_size(256_000_000) };
        let options = MergeOptions { page_rows, compression_level, ..MergeOptions::default() };
        let (resident, before) = (reset_resident(), cpu_seconds());
        let merged = merge(&table, &unit, &options).await.expect("a merge");
        let seconds = cpu_seconds() - before;
        let bytes: u64 = merged.files.iter().map(|file| file.size).sum();
        println!(
            "| {page_rows} | {compression_level} | {:.0} | {:.1} | {} | {} |",
            total as f64 / seconds,
            bytes as f64 / total as f64,
            merged.memory_bytes >> 20,
            (resident_max() - resident) >> 10,
        );
        assert_eq!(merged.files.iter().map(|file| file.rows).sum::<u64>(), total as u64);
        table.discard(table.draft(merged.files, Vec::new()).expect("a draft")).await;
    }
}

fn contract() -> Arc<Contract> {
    let column = |(name, kind): &(&str, &str)| ColumnConfig {
        name: (*name).into(),
        kind: (*kind).into(),
        ..ColumnConfig::default()
    };
    let config = TableConfig {
        columns: COLUMNS.iter().map(column).collect(),
        tenant: "tenant_id".into(),
        time: "event_time".into(),
        id: "event_id".into(),
        ..TableConfig::default()
    };
    Arc::new(Contract::new("calls", &config, Path::new(".")).expect("a contract"))
}

/// Generates calls.
struct Calls {
    /// The name of each tenant, and the total share of all tenants up to it.
    tenants: Vec<(String, f64)>,
}

impl Calls {
    fn new() -> Self {
        let mut random = StdRng::seed_from_u64(1);
        // With this exponent, the largest of 5,000 tenants has 10 %.
        let weights: Vec<f64> = (1..=TENANTS).map(|rank| (rank as f64).powf(-0.97)).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let tenants = weights.into_iter().map(|weight| {
            sum += weight / total;
            (hex("AC", &mut random), sum)
        });
        Self { tenants: tenants.collect() }
    }

    /// Returns the calls of one second, in the order in which they were received.
    fn batch(&self, contract: &Contract, second: i64, rows: usize) -> EventBatch {
        let mut random = StdRng::seed_from_u64(second as u64);
        let noon = i64::from(DAY) * 86_400 * SECOND + 43_200 * SECOND + second * SECOND;
        let tenants: Vec<&str> = (0..rows)
            .map(|_| {
                let share: f64 = random.random();
                let index = self.tenants.partition_point(|(_, sum)| *sum < share).min(TENANTS - 1);
                self.tenants[index].0.as_str()
            })
            .collect();
        let kinds: Vec<u32> = (0..rows).map(|_| random.random_range(0..4)).collect();
        let delays: Vec<i64> = (0..rows).map(|_| (random.random::<f64>().powi(4) * 30e6) as i64).collect();
        let times = |delayed: bool| {
            let time = |row: usize| noon + (row as i64 * SECOND / rows as i64) - if delayed { delays[row] } else { 0 };
            Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows).map(time)).with_timezone("UTC")) as ArrayRef
        };
        let columns = contract.schema().fields().iter().map(|field| -> ArrayRef {
            match (field.name().as_str(), field.data_type()) {
                ("tenant_id", _) => Arc::new(StringArray::from_iter_values(&tenants)),
                ("event_time", _) => times(true),
                (_, DataType::Timestamp(..)) => times(false),
                ("event_id", _) => Arc::new(StringArray::from_iter_values((0..rows).map(|_| hex("EV", &mut random)))),
                ("call_sid", _) => Arc::new(StringArray::from_iter_values((0..rows).map(|_| hex("CA", &mut random)))),
                ("route_id", _) => {
                    // A tenant has up to 2,000 routes.
                    let route = |random: &mut StdRng| (2_000.0 * random.random::<f64>().powi(3)) as u32;
                    let routes = tenants.iter().map(|tenant| format!("RT{}{:08x}", &tenant[2..26], route(&mut random)));
                    Arc::new(StringArray::from_iter_values(routes))
                }
                ("carrier", _) => few(200, "Carrier ", rows, &mut random),
                ("country_from" | "country_to", _) => few(120, "C", rows, &mut random),
                ("direction", _) => few(5, "trunking-", rows, &mut random),
                ("call_state", _) => few(8, "state-", rows, &mut random),
                ("codec", _) => few(6, "pcm", rows, &mut random),
                (_, DataType::Utf8) => few(12, "ashburn-", rows, &mut random),
                ("price", _) => {
                    let price = |row: usize| (kinds[row] == 3).then(|| random.random_range(40..1_400_i128) * 60);
                    let prices = (0..rows).map(price).collect::<Decimal128Array>();
                    Arc::new(prices.with_precision_and_scale(10, 5).expect("a decimal"))
                }
                (name, _) => {
                    let from = match name {
                        "duration_s" => 3,
                        "pdd_ms" => 1,
                        _ => 2,
                    };
                    let value = |row: usize| {
                        (kinds[row] >= from).then(|| (random.random::<f64>().powi(2) * 5_000.0).round() / 100.0)
                    };
                    Arc::new((0..rows).map(value).collect::<Float64Array>())
                }
            }
        });
        let columns: Vec<ArrayRef> = columns.collect();
        let fields = contract.schema().fields().iter().zip(&columns);
        let fields: Vec<_> =
            fields.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone())).collect();
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        EventBatch::new(contract, RecordBatch::try_new(schema, columns).expect("a batch")).expect("events")
    }
}

/// Returns a dictionary column. The first values are the most frequent.
fn few(values: usize, prefix: &str, rows: usize, random: &mut StdRng) -> ArrayRef {
    let names = StringArray::from_iter_values((0..values).map(|value| format!("{prefix}{value:03}")));
    let index = |_| (values as f64 * random.random::<f64>().powi(2)) as u16;
    let indexes = UInt16Array::from_iter_values((0..rows).map(index));
    Arc::new(TextDictionaryArray::new(indexes, Arc::new(names)))
}

fn hex(prefix: &str, random: &mut StdRng) -> String {
    format!("{prefix}{:032x}", random.random::<u128>())
}

/// Resets the largest resident size of this process, and returns the current one, in KiB.
fn reset_resident() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
    resident_max()
}

/// Returns the largest resident size of this process since it was reset, in KiB.
fn resident_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
