//! Limits the size of a batch whose strings share bytes.
//!
//! In a dictionary or a view, many rows can refer to the same string. When the strings are decoded, each row gets its own
//! copy, so a small batch could become very large.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};

/// The maximum size of a batch's decoded strings, in bytes.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Refuses a batch if decoding its dictionaries and views would take too many bytes.
pub(in crate::contract) fn check_expansion(batch: &RecordBatch) -> Result<()> {
    let bytes: usize = batch.columns().iter().map(|column| expanded_bytes(column)).fold(0, usize::saturating_add);
    if bytes <= BATCH_BYTES_MAX {
        return Ok(());
    }
    Err(Error::limited(format!(
        "the strings of one batch expand to {bytes} bytes; at most {BATCH_BYTES_MAX} are allowed: send smaller batches"
    )))
}

/// Returns the number of bytes that the strings in dictionaries and views take after they are decoded. In the encoded
/// form, several rows may share one copy of a string. Strings in other encodings are not counted, because their size
/// does not change.
fn expanded_bytes(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8View => view_bytes(array.as_string_view().views()),
        DataType::BinaryView => view_bytes(array.as_binary_view().views()),
        DataType::Map(..) => {
            let map = array.as_map();
            expanded_bytes(map.keys()).saturating_add(expanded_bytes(map.values()))
        }
        DataType::List(_) => expanded_bytes(array.as_list::<i32>().values()),
        DataType::LargeList(_) => expanded_bytes(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => expanded_bytes(array.as_fixed_size_list().values()),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let lengths = lengths(dictionary.values());
            if lengths.is_empty() {
                return 0;
            }
            let keys = dictionary.normalized_keys().into_iter().enumerate();
            keys.filter(|(row, _)| array.is_valid(*row)).map(|(_, key)| lengths[key]).fold(0, usize::saturating_add)
        }
        _ => 0,
    }
}

/// Returns the length of each string or byte string. Returns an empty list for numbers and booleans.
fn lengths(values: &ArrayRef) -> Vec<usize> {
    fn of<T: TryInto<usize> + Copy + std::ops::Sub<Output = T>>(offsets: &[T]) -> Vec<usize> {
        offsets.windows(2).map(|ends| (ends[1] - ends[0]).try_into().unwrap_or(usize::MAX)).collect()
    }
    match values.data_type() {
        DataType::Utf8 => of(values.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => of(values.as_string::<i64>().value_offsets()),
        DataType::Binary => of(values.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => of(values.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => values.as_string_view().views().iter().map(view_length).collect(),
        DataType::BinaryView => values.as_binary_view().views().iter().map(view_length).collect(),
        DataType::FixedSizeBinary(size) => vec![usize::try_from(*size).unwrap_or(0); values.len()],
        _ => Vec::new(),
    }
}

fn view_bytes(views: &[u128]) -> usize {
    views.iter().map(view_length).sum()
}

/// Returns the length of a view's value, which is in the low four bytes of the view.
fn view_length(view: &u128) -> usize {
    *view as u32 as usize
}
