//! Encodes sorted rows as one Parquet file. Decides how each column is encoded, and which columns have statistics.
//!
//! ```text
//!   rows ─► row groups ─► columns ─┬─ dictionaries ─► dictionary_encoder ─┐
//!                                  └─ others ─► Parquet's writer ─────────┴─► bytes
//! ```
//!
//! The encodings were chosen by measuring files of telephone call events. With these encodings, files are 20 % smaller
//! and are written 25 % faster than files in which all columns use dictionaries. One reason is that, with dictionaries
//! enabled, Parquet's writer begins to build a dictionary even for ids, times and measures, and discards it when it
//! becomes too large.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::compute_leaves;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::config::LakeConfig;
use crate::contract::{Contract, EventBatch, map_leaves};
use crate::lake::parquet_writer::dictionary_encoder::{DictionaryEncoder, EncodedChunk, TextLeaf, TextLevels};

/// The false-positive rate of bloom filters. At this rate, a filter takes 10 bits per id.
const BLOOM_FPP: f64 = 0.01;

/// Options for encoding Parquet files.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// The zstd compression level.
    pub compression_level: i32,
    /// The maximum number of rows per row group.
    pub row_group_rows_max: usize,
}

impl From<&LakeConfig> for WriteOptions {
    fn from(config: &LakeConfig) -> Self {
        Self { compression_level: config.compression_level, row_group_rows_max: config.row_group_rows_max }
    }
}

/// Parquet stores decimals with at most this number of digits as integers.
const DECIMAL_INT64_DIGITS_MAX: u8 = 18;

/// Encodes sorted rows as a Parquet file.
pub(in crate::lake) fn parquet_file(contract: &Contract, options: &WriteOptions, rows: &EventBatch) -> Result<Vec<u8>> {
    let level = ZstdLevel::try_new(options.compression_level)?;
    let is_key = |column: usize| [contract.tenant, contract.time, contract.id].contains(&column);
    let columns = rows.columns().iter().enumerate();
    let dictionaries: Vec<Vec<bool>> =
        columns.map(|(column, values)| dictionary_leaves(values, is_key(column))).collect();
    let properties = properties(contract, options, level, rows, &dictionaries);

    let mut bytes = Vec::new();
    let schema = contract.schema();
    let writer = ArrowWriter::try_new(&mut bytes, Arc::clone(schema), Some(properties))?;
    let (mut file, factory) = writer.into_serialized_writer()?;
    let mut dictionary_encoder = DictionaryEncoder::new(level)?;
    let leaves = file.schema_descr().columns().to_vec();
    for (index, start) in (0..rows.num_rows()).step_by(options.row_group_rows_max.max(1)).enumerate() {
        let rows = rows.slice(start, options.row_group_rows_max.min(rows.num_rows() - start));
        let mut leaves = leaves.iter().zip(factory.create_column_writers(index)?);
        let mut group = file.next_row_group()?;
        for (column, (field, is_dictionary)) in schema.fields().iter().zip(&dictionaries).enumerate() {
            let (leaf_strings, levels) = text_leaves(rows.column(column));
            let mut plain = None;
            for (index, is_dictionary) in is_dictionary.iter().enumerate() {
                let (leaf, mut writer) = leaves.next().ok_or_else(|| leaf_mismatch(field))?;
                let chunk = match (leaf_strings.get(index), &levels) {
                    (Some(strings), Some(levels)) if *is_dictionary => {
                        dictionary_encoder.chunk(leaf, strings, levels)?
                    }
                    _ => None,
                };
                if let Some(EncodedChunk { bytes, close }) = chunk {
                    group.append_column(&bytes, close)?;
                    continue;
                }
                let plain = match &mut plain {
                    Some(plain) => plain,
                    none => none.insert(compute_leaves(field, &rows.plain_column(column)?)?),
                };
                writer.write(plain.get(index).ok_or_else(|| leaf_mismatch(field))?)?;
                writer.close()?.append_to_row_group(&mut group)?;
            }
        }
        group.close()?;
    }
    file.close()?;
    Ok(bytes)
}

fn leaf_mismatch(field: &Field) -> ParquetError {
    ParquetError::General(format!("the leaves of column `{}` do not match the file's schema", field.name()))
}

/// Returns, for each leaf of a column, whether the leaf should be dictionary-encoded.
fn dictionary_leaves(values: &ArrayRef, is_key: bool) -> Vec<bool> {
    let is_dictionary = |leaf: &ArrayRef| TextLeaf::of(leaf).is_some_and(|leaf| leaf.repeats());
    match values.as_map_opt() {
        Some(map) => [map.keys(), map.values()].map(is_dictionary).into(),
        None => vec![!is_key && is_dictionary(values)],
    }
}

/// Returns those leaves of a column that contain strings, and the mapping between their strings and the rows. A column
/// that is neither a string nor a map has no such leaves.
fn text_leaves(values: &ArrayRef) -> (Vec<TextLeaf>, Option<TextLevels>) {
    let Some(map) = values.as_map_opt() else {
        return (TextLeaf::of(values).into_iter().collect(), Some(TextLevels::Rows));
    };
    (map_leaves(map).iter().filter_map(TextLeaf::of).collect(), TextLevels::of(map))
}

fn properties(
    contract: &Contract,
    options: &WriteOptions,
    level: ZstdLevel,
    rows: &EventBatch,
    dictionaries: &[Vec<bool>],
) -> WriterProperties {
    let sorting = [contract.tenant, contract.time, contract.id].map(|column| SortingColumn {
        // `column_idx` is the index of a leaf column. Here, this equals the index of the top-level column, because the
        // key columns and all columns before them have exactly one leaf each.
        column_idx: column as i32,
        descending: false,
        nulls_first: false,
    });
    let id = ColumnPath::from(contract.columns[contract.id].name.as_str());
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("glasshouse ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(options.row_group_rows_max))
        .set_sorting_columns(Some(sorting.to_vec()))
        .set_column_dictionary_enabled(id.clone(), false)
        .set_column_bloom_filter_enabled(id.clone(), true)
        .set_column_bloom_filter_fpp(id.clone(), BLOOM_FPP)
        .set_column_bloom_filter_max_ndv(id, rows.num_rows().min(options.row_group_rows_max) as u64);
    for (field, is_dictionary) in contract.schema().fields().iter().zip(dictionaries) {
        builder = set_encoding(builder, ColumnPath::from(field.name().as_str()), field.data_type());
        builder = set_statistics(builder, field, is_dictionary);
    }
    builder.build()
}

/// Disables page and row-group statistics for dictionary columns, map entries and list elements, where they would not
/// help pruning.
/// The values of a dictionary column occur in every page. Computing statistics takes two comparisons per value.
fn set_statistics(builder: WriterPropertiesBuilder, field: &Field, is_dictionary: &[bool]) -> WriterPropertiesBuilder {
    let leaves: &[&[&str]] = match field.data_type() {
        DataType::Map(..) => &[&["key_value", "key"], &["key_value", "value"]],
        DataType::List(_) => &[&["list", "element"]],
        _ if is_dictionary.contains(&true) => &[&[]],
        _ => &[],
    };
    leaves.iter().fold(builder, |builder, leaf| {
        let path = [field.name().as_str()].iter().chain(*leaf).map(|part| (*part).to_owned()).collect::<Vec<_>>();
        builder.set_column_statistics_enabled(ColumnPath::new(path), EnabledStatistics::None)
    })
}

fn set_encoding(builder: WriterPropertiesBuilder, column: ColumnPath, kind: &DataType) -> WriterPropertiesBuilder {
    let plain = |encoding| {
        builder
            .clone()
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column.clone(), encoding)
    };
    match kind {
        DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(..) => {
            plain(Encoding::DELTA_BINARY_PACKED)
        }
        // Decimals with more digits are stored as byte arrays.
        DataType::Decimal128(..=DECIMAL_INT64_DIGITS_MAX, _) => plain(Encoding::DELTA_BINARY_PACKED),
        DataType::Float32 | DataType::Float64 => plain(Encoding::BYTE_STREAM_SPLIT),
        DataType::Binary => plain(Encoding::PLAIN),
        _ => builder,
    }
}
