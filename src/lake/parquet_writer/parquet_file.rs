//! Encodes sorted rows as one Parquet file. Decides how each column is encoded, and which columns have statistics.
//!
//! ```text
//!   rows ─► row groups ─► columns ─► column_encoder ─► bytes
//! ```
//!
//! The encodings were chosen by measuring files of telephone call events. With these encodings, files are 20 % smaller
//! and are written 25 % faster than files in which all columns use dictionaries. One reason is that, with dictionaries
//! enabled, Parquet's writer begins to build a dictionary even for ids, times and measures, and discards it when it
//! becomes too large.

use std::sync::Arc;

use arrow::datatypes::Field;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::Result;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::config::LakeConfig;
use crate::contract::{Contract, EventBatch};
use crate::lake::parquet_writer::column_encoder::{dictionary_leaves, encode_column, set_encoding, unordered_leaves};
use crate::lake::parquet_writer::dictionary_encoder::DictionaryEncoder;

/// The false-positive rate of bloom filters. At this rate, a filter takes 10 bits per id.
pub(in crate::lake) const BLOOM_FPP: f64 = 0.01;
/// The name and version of this program, which each file contains.
pub(in crate::lake) const CREATED_BY: &str = concat!("glasshouse ", env!("CARGO_PKG_VERSION"));
/// The number of rows per page, which is the default of Parquet's writer.
const PAGE_ROWS: usize = 20_000;

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
    let mut encoder = DictionaryEncoder::new(level, PAGE_ROWS)?;
    let leaves = file.schema_descr().columns().to_vec();
    for (index, start) in (0..rows.num_rows()).step_by(options.row_group_rows_max.max(1)).enumerate() {
        let rows = rows.slice(start, options.row_group_rows_max.min(rows.num_rows() - start));
        let mut leaves = leaves.iter().cloned().zip(factory.create_column_writers(index)?);
        let mut group = file.next_row_group()?;
        for (column, (field, is_dictionary)) in schema.fields().iter().zip(&dictionaries).enumerate() {
            let leaves = leaves.by_ref().take(is_dictionary.len());
            encode_column(&mut encoder, &mut group, field, rows.column(column), is_dictionary, leaves)?;
        }
        group.close()?;
    }
    file.close()?;
    Ok(bytes)
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
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(options.row_group_rows_max))
        .set_sorting_columns(Some(sorting.to_vec()))
        .set_column_dictionary_enabled(id.clone(), false)
        .set_column_bloom_filter_enabled(id.clone(), true)
        .set_column_bloom_filter_fpp(id.clone(), BLOOM_FPP)
        .set_column_bloom_filter_max_ndv(id, rows.num_rows().min(options.row_group_rows_max) as u64);
    for (field, is_dictionary) in contract.schema().fields().iter().zip(dictionaries) {
        builder = set_encoding(builder, field);
        builder = set_statistics(builder, field, is_dictionary);
    }
    builder.build()
}

/// Disables the statistics of map entries and list elements, where they would not help pruning. Parquet's writer also
/// writes no statistics for dictionary columns, because its statistics take two comparisons per value. Our dictionary
/// encoder writes statistics of the whole chunk.
fn set_statistics(builder: WriterPropertiesBuilder, field: &Field, is_dictionary: &[bool]) -> WriterPropertiesBuilder {
    let mut leaves = unordered_leaves(field);
    if leaves.is_empty() && is_dictionary.contains(&true) {
        leaves.push(ColumnPath::from(field.name().as_str()));
    }
    leaves
        .into_iter()
        .fold(builder, |builder, leaf| builder.set_column_statistics_enabled(leaf, EnabledStatistics::None))
}
