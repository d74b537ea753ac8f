//! Encodes one column of a row group: text that repeats with our dictionary encoder, and all other values with
//! Parquet's writer. Also chooses the encoding of each type.
//!
//! ```text
//!   column ─► leaves ─┬─ dictionaries ─► dictionary_encoder ─┐
//!                     └─ others ─► Parquet's writer ─────────┴─► column chunks
//! ```

use std::io::Write;

use arrow::array::{ArrayRef, AsArray as _};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::arrow_writer::{ArrowColumnWriter, compute_leaves};
use parquet::basic::Encoding;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::{ColumnDescPtr, ColumnPath};

use crate::contract::{map_leaves, plain_column};
use crate::lake::parquet_writer::dictionary_encoder::{DictionaryEncoder, EncodedChunk, TextLeaf, TextLevels};

/// Parquet stores decimals with at most this number of digits as integers.
const DECIMAL_INT64_DIGITS_MAX: u8 = 18;

/// Encodes the chunks of a column, and appends them to a row group. `is_dictionary` has one element for each leaf of
/// the column (see [`dictionary_leaves`]). `leaves` has the descriptor and the writer of each leaf.
pub(in crate::lake) fn encode_column<W: Write + Send>(
    encoder: &mut DictionaryEncoder,
    group: &mut SerializedRowGroupWriter<'_, W>,
    field: &Field,
    values: &ArrayRef,
    is_dictionary: &[bool],
    leaves: impl IntoIterator<Item = (ColumnDescPtr, ArrowColumnWriter)>,
) -> Result<()> {
    let (leaf_strings, levels) = text_leaves(values);
    let (mut plain, mut leaves) = (None, leaves.into_iter());
    for (index, is_dictionary) in is_dictionary.iter().enumerate() {
        let (leaf, mut writer) = leaves.next().ok_or_else(|| leaf_mismatch(field))?;
        let chunk = match (leaf_strings.get(index), &levels) {
            (Some(strings), Some(levels)) if *is_dictionary => encoder.chunk(&leaf, strings, levels)?,
            _ => None,
        };
        if let Some(EncodedChunk { bytes, close }) = chunk {
            group.append_column(&bytes, close)?;
            continue;
        }
        let plain = match &mut plain {
            Some(plain) => plain,
            none => none.insert(compute_leaves(field, &plain_column(values)?)?),
        };
        writer.write(plain.get(index).ok_or_else(|| leaf_mismatch(field))?)?;
        writer.close()?.append_to_row_group(group)?;
    }
    Ok(())
}

pub(in crate::lake) fn leaf_mismatch(field: &Field) -> ParquetError {
    ParquetError::General(format!("the leaves of column `{}` do not match the file's schema", field.name()))
}

/// Returns, for each leaf of a column, whether the leaf should be dictionary-encoded. The tenant, the time and the id
/// are never dictionary-encoded by our encoder, because it does not write the statistics of pages.
pub(in crate::lake) fn dictionary_leaves(values: &ArrayRef, is_key: bool) -> Vec<bool> {
    let is_dictionary = |leaf: &ArrayRef| TextLeaf::of(leaf).is_some_and(|leaf| leaf.repeats());
    match values.as_map_opt() {
        Some(map) if is_text(map.keys()) && is_text(map.values()) => {
            [map.keys(), map.values()].map(is_dictionary).into()
        }
        Some(_) => vec![false; leaf_count(values.data_type())],
        None => vec![!is_key && is_dictionary(values); leaf_count(values.data_type())],
    }
}

fn is_text(values: &ArrayRef) -> bool {
    TextLeaf::of(values).is_some()
}

/// Returns the number of leaves that a column of this type has.
pub(in crate::lake) fn leaf_count(kind: &DataType) -> usize {
    match kind {
        DataType::Struct(fields) => fields.iter().map(|field| leaf_count(field.data_type())).sum(),
        DataType::List(inner) | DataType::Map(inner, _) => leaf_count(inner.data_type()),
        _ => 1,
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

/// Returns the paths of those leaves of a column for which statistics would not help pruning: the entries of maps and
/// the elements of lists.
pub(in crate::lake) fn unordered_leaves(field: &Field) -> Vec<ColumnPath> {
    let leaves: &[&[&str]] = match field.data_type() {
        DataType::Map(..) => &[&["key_value", "key"], &["key_value", "value"]],
        DataType::List(_) => &[&["list", "element"]],
        _ => &[],
    };
    let path = |leaf: &&[&str]| [field.name().as_str()].iter().chain(*leaf).map(|part| (*part).to_owned()).collect();
    leaves.iter().map(|leaf| ColumnPath::new(path(leaf))).collect()
}

/// Sets the encoding of a column.
pub(in crate::lake) fn set_encoding(builder: WriterPropertiesBuilder, field: &Field) -> WriterPropertiesBuilder {
    let column = ColumnPath::from(field.name().as_str());
    let plain = |encoding| {
        builder
            .clone()
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column.clone(), encoding)
    };
    match field.data_type() {
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
