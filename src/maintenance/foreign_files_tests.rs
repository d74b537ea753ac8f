//! Tests merges of files that other writers wrote, and of files that cannot be merged.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::{SortColumn, cast, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use object_store::ObjectStoreExt as _;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::file_cuts::FileCuts;
use super::merge::merge;
use super::testing::{COLUMNS, DAY_NUMBER, check_rows, options, random_rows, read, stored, table, unit};
use crate::lake::{DataFile, Table};

/// Stores a file as another writer would.
async fn store_foreign(table: &Table, rows: &RecordBatch, properties: WriterProperties) -> Arc<DataFile> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    let file = DataFile {
        path: format!("event_date=2026-03-01/{}.parquet", uuid::Uuid::new_v4()).into(),
        size: bytes.len() as u64,
        rows: rows.num_rows() as u64,
        day: DAY_NUMBER,
        tenants: None,
        times: None,
        ids: None,
        received: None,
        modified: 0,
    };
    table.location().0.objects.put(&table.file_path(&file), bytes.into()).await.unwrap();
    Arc::new(file)
}

fn sorted(rows: &RecordBatch) -> RecordBatch {
    let column = |column: usize| SortColumn { values: Arc::clone(rows.column(column)), options: None };
    let order = lexsort_to_indices(&[column(0), column(1), column(2)], None).unwrap();
    take_record_batch(rows, &order).unwrap()
}

/// Returns the rows with another type for one column.
fn with_type(rows: &RecordBatch, name: &str, kind: &DataType) -> RecordBatch {
    let schema = rows.schema();
    let fields = schema.fields().iter().map(|field| match field.name() == name {
        true => Arc::new(Field::new(name, kind.clone(), true)),
        false => Arc::clone(field),
    });
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns =
        rows.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()).unwrap());
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

fn without(rows: &RecordBatch, name: &str) -> RecordBatch {
    let kept: Vec<usize> =
        (0..rows.num_columns()).filter(|column| rows.schema().field(*column).name() != name).collect();
    rows.project(&kept).unwrap()
}

#[tokio::test]
async fn files_of_other_writers_are_merged() {
    let table = table(COLUMNS, 100_000).await;
    let mut rng = StdRng::seed_from_u64(3);
    let rows = random_rows(table.contract(), 900, 12, &mut rng).to_plain().unwrap();
    let plain =
        || WriterProperties::builder().set_dictionary_enabled(false).set_statistics_enabled(EnabledStatistics::None);
    let (small, second) = (
        plain().set_max_row_group_row_count(Some(57)).build(),
        WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_max_row_group_row_count(Some(400))
            .build(),
    );
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let few = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let cases: [(&str, RecordBatch, WriterProperties); 9] = [
        ("unsorted", rows.clone(), plain().build()),
        ("sorted, small row groups", sorted(&rows), small.clone()),
        ("unsorted, small row groups", rows.clone(), small),
        ("data pages of version 2", sorted(&rows), second),
        ("a wider integer", with_type(&rows, "small", &DataType::Int64), plain().build()),
        ("nanoseconds", with_type(&rows, "at", &nanos), plain().build()),
        (
            "other text types",
            with_type(&with_type(&rows, "many", &DataType::LargeUtf8), "few", &few),
            WriterProperties::builder().build(),
        ),
        ("a wider decimal", with_type(&rows, "price", &DataType::Decimal128(20, 5)), plain().build()),
        ("no column", without(&without(&rows, "labels"), "double"), plain().build()),
    ];
    for (case, given, properties) in cases {
        println!("{case}");
        let file = store_foreign(&table, &given, properties).await;
        let own = random_rows(table.contract(), 300, 12, &mut rng);
        let own_rows = own.to_plain().unwrap();
        let own = table.write(own).await.unwrap().into_iter().map(Arc::new);
        let files = std::iter::once(file).chain(own).collect();
        let merged = merge(&table, &unit(files, FileCuts::by_size(u64::MAX)), &options()).await.unwrap();
        // The expected values are those of the original types.
        let expected = match case {
            "no column" => given,
            _ => rows.clone(),
        };
        check_rows(&table, &merged, &[expected, own_rows]).await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_merged_are_named_and_left_alone() {
    let table = table(COLUMNS, 100_000).await;
    let mut rng = StdRng::seed_from_u64(4);
    let rows = random_rows(table.contract(), 500, 5, &mut rng).to_plain().unwrap();
    let properties = || WriterProperties::builder().build();
    let mut files: Vec<(&str, Arc<DataFile>)> = Vec::new();
    let foreign = [
        ("a value that does not fit", with_type(&rows, "small", &DataType::Float64)),
        ("an unknown column", RecordBatch::try_new(renamed(&rows, "few", "unknown"), rows.columns().to_vec()).unwrap()),
        ("no tenant", without(&rows, "tenant")),
        ("a larger integer", with_value(&rows, "small", i64::from(i32::MAX) + 1)),
    ];
    for (case, rows) in foreign {
        files.push((case, store_foreign(&table, &rows, properties()).await));
    }
    // Without compression or checksums, other bytes in a page can be other values, which nobody can detect.
    let compressed = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let good = store_foreign(&table, &rows, compressed).await;
    let wrong_count = DataFile { rows: good.rows + 1, ..DataFile::clone(&good) };
    files.push(("another row count", Arc::new(wrong_count)));
    let (bytes, _) = read(&table, &good).await;
    let end = bytes.len();
    for (case, range) in [
        ("corrupt pages", 2_000..2_200),
        ("a corrupt footer length", end - 12..end - 4),
        ("no footer", end - 4..end),
        ("a truncated file", end / 2..end),
    ] {
        let (mut corrupt, at) = (bytes.to_vec(), range.start);
        match case {
            "a truncated file" => corrupt.truncate(at),
            _ => corrupt[range].fill(0xff),
        }
        let file = DataFile {
            path: format!("event_date=2026-03-01/{at}.parquet").into(),
            size: corrupt.len() as u64,
            ..DataFile::clone(&good)
        };
        table.location().0.objects.put(&table.file_path(&file), corrupt.into()).await.unwrap();
        files.push((case, Arc::new(file)));
    }
    for (case, file) in files {
        let before = stored(&table).await;
        let inputs = vec![Arc::clone(&good), Arc::clone(&file)];
        let error = merge(&table, &unit(inputs, FileCuts::by_size(1)), &options()).await.unwrap_err();
        assert_eq!(error.file.as_deref(), Some(&*file.path), "{case}: {error:?}");
        assert!(error.is_permanent() && error.error.message().contains(&*file.path), "{case}: {error:?}");
        assert_eq!(stored(&table).await, before, "{case}: no new file is left");
    }
    // A missing file may be readable later.
    let missing = Arc::new(DataFile { path: "event_date=2026-03-01/missing.parquet".into(), ..DataFile::clone(&good) });
    let error = merge(&table, &unit(vec![missing], FileCuts::by_size(1)), &options()).await.unwrap_err();
    assert!(error.file.is_some() && !error.is_permanent(), "{error:?}");
}

fn renamed(rows: &RecordBatch, name: &str, new: &str) -> SchemaRef {
    let schema = rows.schema();
    let fields = schema.fields().iter().map(|field| match field.name() == name {
        true => Arc::new(field.as_ref().clone().with_name(new)),
        false => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn with_value(rows: &RecordBatch, name: &str, value: i64) -> RecordBatch {
    let wide = with_type(rows, name, &DataType::Int64);
    let mut columns = wide.columns().to_vec();
    let column = wide.schema().index_of(name).unwrap();
    columns[column] = Arc::new(Int64Array::from(vec![value; rows.num_rows()]));
    RecordBatch::try_new(wide.schema(), columns).unwrap()
}
