//! Tests the dictionary encoder by reading its chunks with Parquet's own reader.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, MapArray, MapBuilder, RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::compute::{cast, concat, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::basic::ZstdLevel;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::dictionary_encoder::{DictionaryEncoder, EncodedChunk, TextLeaf, TextLevels};
use crate::contract::{DICTIONARY_VALUES_MAX, EventBatch, map_leaves};

/// Parameters for generating random string columns.
struct RowTexts {
    rows: usize,
    distinct: usize,
    /// The percentage of nulls.
    nulls: u32,
    length: usize,
    /// The length of runs of equal strings.
    run: usize,
}

impl RowTexts {
    fn draw(&self, row: usize, rng: &mut StdRng) -> Option<String> {
        let number = if self.run > 1 { row / self.run % self.distinct } else { rng.random_range(0..self.distinct) };
        let text = format!("{number}{}", "é".repeat(self.length));
        (rng.random_range(0..100) >= self.nulls).then_some(text)
    }

    fn column(&self, rng: &mut StdRng) -> StringArray {
        (0..self.rows).map(|row| self.draw(row, rng)).collect()
    }

    /// Returns maps with zero to three entries each.
    fn maps(&self, rng: &mut StdRng) -> MapArray {
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for row in 0..self.rows {
            let entries = if rng.random_range(0..100) < self.nulls { 0 } else { rng.random_range(1..4) };
            for entry in 0..entries {
                maps.keys().append_value(format!("key {entry}"));
                maps.values().append_option(self.draw(row, rng));
            }
            maps.append(entries > 0).unwrap();
        }
        maps.finish()
    }
}

/// Encodes the rows in one row group.
fn encode_group(rows: &EventBatch) -> bytes::Bytes {
    encode_groups(std::slice::from_ref(rows), rows).unwrap()
}

/// Encodes the rows in two row groups, with the dictionary encoder for each leaf column that contains strings. Returns
/// `None` if a leaf has too many distinct strings.
fn encode(rows: &EventBatch) -> Option<bytes::Bytes> {
    let half = rows.num_rows() / 3;
    encode_groups(&[rows.slice(0, half), rows.slice(half, rows.num_rows() - half)], rows)
}

fn encode_groups(groups: &[EventBatch], rows: &EventBatch) -> Option<bytes::Bytes> {
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None).build();
    let schema = rows.to_plain().unwrap().schema();
    let writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
    let (mut file, _) = writer.into_serialized_writer().unwrap();
    let mut encoder = DictionaryEncoder::new(ZstdLevel::try_new(1).unwrap(), 20_000).unwrap();
    let leaves = file.schema_descr().columns().to_vec();
    for rows in groups {
        let mut group = file.next_row_group().unwrap();
        let map = rows.column(1).as_map();
        let entries = map_leaves(map).map(|leaf| TextLeaf::of(&leaf).unwrap());
        let (column, levels) = (TextLeaf::of(rows.column(0)).unwrap(), TextLevels::of(map).unwrap());
        for (leaf, (texts, levels)) in
            leaves.iter().zip([(&column, &TextLevels::Rows), (&entries[0], &levels), (&entries[1], &levels)])
        {
            let EncodedChunk { bytes, close } = encoder.chunk(leaf, texts, levels).unwrap()?;
            group.append_column(&bytes, close).unwrap();
        }
        group.close().unwrap();
    }
    file.close().unwrap();
    Some(bytes.into())
}

fn rows(texts: &RowTexts, seed: u64) -> RecordBatch {
    let mut rng = StdRng::seed_from_u64(seed);
    let columns: [ArrayRef; 2] = [Arc::new(texts.column(&mut rng)), Arc::new(texts.maps(&mut rng))];
    let names = ["text", "map"].iter().zip(&columns);
    let fields = names.map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns.to_vec()).unwrap()
}

/// Returns the same rows with dictionary-encoded columns. Their dictionaries also contain values that no row uses.
fn with_dictionaries(rows: &RecordBatch) -> RecordBatch {
    let kind = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
    let encoded = |texts: &ArrayRef| {
        let unused: ArrayRef = Arc::new(StringArray::from(vec!["unused", "also unused"]));
        let all = cast(&concat(&[&unused, texts]).unwrap(), &kind).unwrap();
        all.slice(unused.len(), texts.len())
    };
    let map = rows.column(1).as_map();
    let leaves: Vec<ArrayRef> = [map.keys(), map.values()].map(encoded).into();
    let fields = map.entries().fields().iter().zip(&leaves);
    let fields: Fields =
        fields.map(|(field, leaf)| field.as_ref().clone().with_data_type(leaf.data_type().clone())).collect();
    let entries = StructArray::new(fields, leaves, None);
    let DataType::Map(field, ordered) = map.data_type() else { unreachable!("it is a map") };
    let field = Arc::new(field.as_ref().clone().with_data_type(entries.data_type().clone()));
    let map = MapArray::new(field, map.offsets().clone(), entries, map.nulls().cloned(), *ordered);
    let columns: Vec<ArrayRef> = vec![encoded(rows.column(0)), Arc::new(map)];
    let fields = rows
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
        .collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn read(file: &bytes::Bytes, selection: Option<RowSelection>) -> RecordBatch {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
    let schema = reader.schema().clone();
    let reader = match selection {
        Some(selection) => reader.with_row_selection(selection),
        None => reader,
    };
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

#[test]
fn parquet_reads_back_the_same_strings() {
    let default = || RowTexts { rows: 70_000, distinct: 5, nulls: 10, length: 3, run: 1 };
    let cases = [
        default(),
        RowTexts { rows: 0, ..default() },
        RowTexts { rows: 1, nulls: 0, ..default() },
        RowTexts { nulls: 0, distinct: 1, length: 0, ..default() },
        RowTexts { nulls: 100, ..default() },
        RowTexts { distinct: 2, length: 7, ..default() },
        RowTexts { distinct: 9, length: 8, run: 37, ..default() },
        RowTexts { distinct: 300, nulls: 0, length: 30, ..default() },
        RowTexts { rows: 50_000, distinct: DICTIONARY_VALUES_MAX, length: 9, nulls: 1, run: 3 },
    ];
    for (seed, texts) in (0..).zip(cases) {
        let written = rows(&texts, seed);
        let file = encode(&EventBatch::unchecked(written.clone())).unwrap();
        assert_eq!(read(&file, None), written, "case {seed}");
        assert_eq!(
            file,
            encode(&EventBatch::unchecked(with_dictionaries(&written))).unwrap(),
            "case {seed}: dictionary columns give the same file"
        );
        // Compare a random selection of rows, too.
        let (mut selectors, mut row_numbers, mut rng) = (Vec::new(), Vec::new(), StdRng::seed_from_u64(seed));
        let mut at = 0;
        while at < texts.rows {
            let (skipped, taken) = (rng.random_range(0..30_000), rng.random_range(1..3_000));
            let begin = texts.rows.min(at + skipped);
            let end = texts.rows.min(begin + taken);
            selectors.extend([RowSelector::skip(begin - at), RowSelector::select(end - begin)]);
            row_numbers.extend(begin as u32..end as u32);
            at = end;
        }
        let selection = take_record_batch(&written, &arrow::array::UInt32Array::from(row_numbers)).unwrap();
        assert_eq!(read(&file, Some(selectors.into())), selection, "case {seed}: selected rows");
    }
}

#[test]
fn too_many_distinct_strings_are_not_encoded() {
    let texts = RowTexts { rows: 30_000, distinct: DICTIONARY_VALUES_MAX + 1, nulls: 0, length: 1, run: 2 };
    assert!(encode(&EventBatch::unchecked(rows(&texts, 0))).is_none());
}

#[test]
fn maps_with_entries_in_null_rows_are_not_encoded() {
    let map = rows(&RowTexts { rows: 10, distinct: 2, nulls: 50, length: 1, run: 1 }, 1).column(1).as_map().clone();
    assert!(TextLevels::of(&map).is_some());
    let DataType::Map(field, ordered) = map.data_type() else { unreachable!("it is a map") };
    let (offsets, entries) = (map.offsets().clone(), map.entries().clone());
    let hidden = MapArray::new(field.clone(), offsets, entries, Some(vec![false; 10].into()), *ordered);
    assert!(TextLevels::of(&hidden).is_none());
}

#[test]
fn columns_with_few_distinct_strings_are_detected() {
    let repeats = |texts: StringArray| {
        let texts: ArrayRef = Arc::new(texts);
        let kind = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
        [texts.clone(), cast(&texts, &kind).unwrap()].map(|leaf| TextLeaf::of(&leaf).unwrap().repeats())
    };
    let cases =
        [(3, 10_000, true), (60, 10_000, true), (5_000, 10_000, false), (50, 50, false), (5, 50, true), (1, 1, false)];
    for (distinct, rows, expected) in cases {
        let texts = StringArray::from_iter_values((0..rows).map(|row| format!("v{}", row * 7 % distinct)));
        assert_eq!(repeats(texts), [expected; 2], "{distinct} in {rows}");
    }
    assert_eq!([10_000, 0].map(|rows| repeats(StringArray::new_null(rows))), [[true; 2]; 2]);
}

#[test]
fn chunks_have_statistics_of_the_strings_that_rows_use() {
    let long = |last: &str| format!("{}{last}", "x".repeat(70));
    let (first, second) = (long("a"), long("b"));
    let cases: [(Vec<Option<&str>>, Option<(&str, &str)>, bool); 4] = [
        (vec![Some("b"), None, Some(""), Some("ü")], Some(("", "ü")), true),
        (vec![None, None], None, false),
        (vec![Some("same"); 3], Some(("same", "same")), true),
        (vec![Some(&first), Some(&second)], None, false),
    ];
    for (texts, expected, is_exact) in cases {
        let array: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        let maps = RowTexts { rows: texts.len(), distinct: 1, nulls: 0, length: 1, run: 1 };
        let maps: ArrayRef = Arc::new(maps.maps(&mut StdRng::seed_from_u64(1)));
        let columns = [("text", array, true), ("map", maps, true)];
        let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        for rows in [rows.clone(), with_dictionaries(&rows)] {
            let file = encode_group(&EventBatch::unchecked(rows));
            let metadata = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().metadata().clone();
            let chunk = metadata.row_group(0).column(0);
            let Some(Statistics::ByteArray(found)) = chunk.statistics() else { panic!("there are no statistics") };
            let nulls = texts.iter().filter(|text| text.is_none()).count() as u64;
            assert_eq!(found.null_count_opt(), Some(nulls));
            let bounds = found.min_opt().zip(found.max_opt());
            let bounds = bounds.map(|(least, most)| (least.as_utf8().unwrap(), most.as_utf8().unwrap()));
            assert_eq!((found.min_is_exact(), found.max_is_exact()), (is_exact, is_exact), "{texts:?}");
            match (expected, bounds) {
                (Some(expected), found) => assert_eq!(found, Some(expected)),
                // The bounds of long strings include every string.
                (None, Some((least, most))) => {
                    assert!(texts.iter().flatten().all(|text| least <= *text && *text <= most), "{least} {most}");
                }
                (None, None) => assert_eq!(nulls as usize, texts.len()),
            }
            assert!(metadata.row_group(0).column(1).statistics().is_none(), "map entries have no statistics");
        }
    }
}
