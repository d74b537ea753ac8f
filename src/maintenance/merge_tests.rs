//! Tests merges of files that this server wrote: a merge equals a sort of all rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::file_cuts::FileCuts;
use super::merge::{MergeOptions, merge};
use super::order::MergedOrder;
use super::testing::{COLUMNS, MIDNIGHT, check_rows, contract, lake, options, random_rows, read, stored, table, unit};
use crate::contract::EventBatch;
use crate::error::Kind;
use crate::lake::{Store, Table};

#[tokio::test]
async fn a_merge_equals_a_sort_of_all_rows() {
    for seed in 0..10 {
        let mut rng = StdRng::seed_from_u64(seed);
        let table = table(COLUMNS, [40, 700, 100_000][seed as usize % 3]).await;
        let (mut files, mut batches) = (Vec::new(), Vec::new());
        for _ in 0..rng.random_range(1..7) {
            let (count, distinct) = (rng.random_range(1..1_500), rng.random_range(1..40));
            let rows = random_rows(table.contract(), count, distinct, &mut rng);
            batches.push(rows.to_plain().unwrap());
            files.extend(table.write(rows).await.unwrap().into_iter().map(Arc::new));
        }
        let file_bytes = [1, 100_000, u64::MAX][rng.random_range(0..3)];
        let boundaries = if seed % 2 == 0 { vec!["t003".into(), "t0055".into(), "t020".into()] } else { Vec::new() };
        let cuts = FileCuts { boundaries, ..FileCuts::by_size(file_bytes) };
        let options =
            MergeOptions { page_rows: 100, memory_bytes_max: [4 << 20, 512 << 20][seed as usize % 2], ..options() };
        let merged = merge(&table, &unit(files, cuts.clone()), &options).await.unwrap();
        check_rows(&table, &merged, &batches[..merged.inputs.len()]).await;
        for file in &merged.files {
            let (least, most) = file.tenants.as_ref().unwrap();
            assert!(!cuts.boundaries.iter().any(|it| least < it && it <= most), "{least} to {most}");
        }
    }
}

#[tokio::test]
async fn columns_that_the_contract_has_dropped_are_kept() {
    let config = lake(100_000);
    let store = Store::open(&config).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let old = Table::open(&store, contract(COLUMNS), &config).await.unwrap();
    let rows = random_rows(old.contract(), 300, 5, &mut rng);
    let mut batches = vec![rows.to_plain().unwrap()];
    let mut files = old.write(rows).await.unwrap();
    let fewer: Vec<(&str, &str)> =
        COLUMNS[..3].iter().chain(&COLUMNS[6..9]).copied().chain([("new", "text")]).collect();
    let new = Table::open(&store, contract(&fewer), &config).await.unwrap();
    let rows = random_rows(new.contract(), 200, 5, &mut rng);
    batches.push(rows.to_plain().unwrap());
    files.extend(new.write(rows).await.unwrap());
    let files = files.into_iter().map(Arc::new).collect();
    let merged = merge(&new, &unit(files, FileCuts::by_size(u64::MAX)), &options()).await.unwrap();
    assert_eq!(merged.files.len(), 1);
    check_rows(&new, &merged, &batches).await;
}

#[tokio::test]
async fn a_failed_proof_returns_nothing_and_leaves_no_files() {
    let table = table(COLUMNS, 100_000).await;
    let mut rng = StdRng::seed_from_u64(5);
    let mut files = Vec::new();
    for _ in 0..2 {
        let rows = random_rows(table.contract(), 400, 5, &mut rng);
        files.extend(table.write(rows).await.unwrap().into_iter().map(Arc::new));
    }
    let before = stored(&table).await;
    let tampers: [fn(&mut MergedOrder); 2] = [
        // A row is lost.
        |order| {
            order.runs.last_mut().unwrap().length -= 1;
            order.tenants.last_mut().unwrap().rows -= 1;
        },
        // A row is replaced by its neighbour.
        |order| {
            let run = order.runs.iter_mut().find(|run| run.length == 1 && run.start > 0).unwrap();
            run.start -= 1;
        },
    ];
    for tamper in tampers {
        let options = MergeOptions { tamper: Some(tamper), ..MergeOptions::default() };
        let error = merge(&table, &unit(files.clone(), FileCuts::by_size(u64::MAX)), &options).await.unwrap_err();
        assert_eq!((error.error.kind(), error.file), (Kind::Internal, None));
        assert_eq!(stored(&table).await, before);
    }
}

#[tokio::test]
async fn row_groups_end_at_tenants() {
    let columns = &COLUMNS[..3];
    let table = table(columns, 1_000_000).await;
    let counts = [10, 70_000, 5, 140_000, 20];
    let events = counts.iter().enumerate().flat_map(|(tenant, count)| (0..*count).map(move |row| (tenant, row)));
    let text: ArrayRef =
        Arc::new(events.clone().map(|(tenant, _)| Some(format!("t{tenant}"))).collect::<StringArray>());
    let times: ArrayRef = Arc::new(
        events.clone().map(|(_, row)| Some(MIDNIGHT + row)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
    );
    let ids: ArrayRef = Arc::new(events.map(|(_, row)| Some(format!("e{row:06}"))).collect::<StringArray>());
    let schema = Arc::clone(table.contract().schema());
    let rows = RecordBatch::try_new(schema, vec![text, Arc::clone(&times), ids, times]).unwrap();
    let rows = EventBatch::new(table.contract(), rows).unwrap();
    let (one, other) = (rows.slice(0, 100_000), rows.slice(100_000, rows.num_rows() - 100_000));
    let mut files = table.write(one).await.unwrap();
    files.extend(table.write(other).await.unwrap());
    let files: Vec<_> = files.into_iter().map(Arc::new).collect();
    for (rows_max, expected) in
        [(131_072, vec![70_010, 5, 131_072, 8_928, 20]), (1 << 20, vec![70_010, 5, 140_000, 20])]
    {
        let cuts = FileCuts { tenant_group_rows_max: rows_max, ..FileCuts::by_size(u64::MAX) };
        let merged = merge(&table, &unit(files.clone(), cuts), &MergeOptions::default()).await.unwrap();
        let [file] = &merged.files[..] else { panic!("one file") };
        let (bytes, batches) = read(&table, file).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let metadata = reader.metadata();
        assert_eq!(metadata.row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>(), expected);
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        assert!(pairs.iter().any(|pair| pair.key == "glasshouse.layout" && pair.value.as_deref() == Some("1")));
        let all = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(all.columns(), rows.to_plain().unwrap().columns());
    }
    let merged = merge(&table, &unit(files, FileCuts::by_size(1)), &MergeOptions::default()).await.unwrap();
    let counts: Vec<u64> = merged.files.iter().map(|file| file.rows).collect();
    assert_eq!(counts, [70_010, 5, 131_072, 8_928, 20]);
}

#[tokio::test]
async fn memory_is_bounded() {
    let table = table(COLUMNS, 2_000).await;
    let mut rng = StdRng::seed_from_u64(6);
    let (mut files, mut batches) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let rows = random_rows(table.contract(), 8_000, 300, &mut rng);
        batches.push(rows.to_plain().unwrap());
        files.extend(table.write(rows).await.unwrap().into_iter().map(Arc::new));
    }
    let total: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    // Twice the rows would not fit.
    let limit = 28 << 20;
    let options = MergeOptions { memory_bytes_max: limit, ..MergeOptions::default() };
    let merged = merge(&table, &unit(files.clone(), FileCuts::by_size(1_000_000)), &options).await.unwrap();
    println!("{total} bytes of rows, {} bytes held", merged.memory_bytes);
    assert!(merged.memory_bytes < limit, "{}", merged.memory_bytes);
    check_rows(&table, &merged, &batches).await;
    // Each file has four row groups of about the same size, of which half the memory must be enough for one per file.
    let group = files.iter().map(|file| file.size).max().unwrap() / 4;
    let merge_in = async |memory_bytes_max: u64| {
        let options = MergeOptions { memory_bytes_max, ..MergeOptions::default() };
        merge(&table, &unit(files.clone(), FileCuts::by_size(u64::MAX)), &options).await
    };
    let merged = merge_in(2 * (group * 7 / 2)).await.unwrap();
    assert_eq!(merged.inputs.len(), 3, "fewer files are merged");
    check_rows(&table, &merged, &batches[..3]).await;
    assert_eq!(merge_in(group).await.unwrap_err().error.kind(), Kind::Limited);
}
