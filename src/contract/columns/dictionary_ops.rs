//! Operations on columns that may be dictionary-encoded. They concatenate columns, decode them to plain strings, and
//! compare their types.
//!
//! A column is plain, a dictionary, or a map whose keys and values are each plain or a dictionary. `EventBatch` applies
//! these operations to all columns of a batch.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, MapArray, NullBufferBuilder, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UInt16Type};
use arrow::error::ArrowError;

use super::dictionary::{DictionaryBuilder, as_dictionary};
use super::padded_slice::PaddedSlice;

/// Decodes the dictionaries in a column to plain strings. Fails if the strings have more than 2 GiB.
pub fn plain_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match plain_type(column.data_type()) {
        kind if kind == *column.data_type() => Ok(Arc::clone(column)),
        kind => cast(column, &kind),
    }
}

/// Returns the keys and the values of a map column. If the column is a slice, the result contains only the entries of
/// the slice's rows.
pub fn map_leaves(map: &MapArray) -> [ArrayRef; 2] {
    let offsets = map.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[map.len()] as usize);
    [map.keys(), map.values()].map(|leaf| leaf.slice(first, last - first))
}

/// Returns the size that a column would have if its dictionaries were decoded to plain strings. If a buffer is shared
/// with other columns, only the range that this column uses is counted.
pub(super) fn plain_bytes(column: &ArrayRef) -> usize {
    let own =
        |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    if let Some(map) = column.as_map_opt() {
        let leaves: usize = map_leaves(map).iter().map(plain_bytes).sum();
        return size_of_val(map.value_offsets()) + leaves;
    }
    if let Some(list) = column.as_list_opt::<i32>() {
        let offsets = list.value_offsets();
        let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
        return size_of_val(offsets) + plain_bytes(&list.values().slice(first, last - first));
    }
    let Some(dictionary) = as_dictionary(column) else { return own(column) };
    let lengths: Vec<usize> = dictionary.values().as_string::<i32>().offsets().lengths().collect();
    let (indexes, length) =
        (dictionary.keys().values(), |index: u16| lengths.get(usize::from(index)).copied().unwrap_or(0));
    let texts: usize = match dictionary.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => indexes.iter().map(|index| length(*index)).sum(),
        Some(nulls) => nulls.valid_indices().map(|row| length(indexes[row])).sum(),
    };
    texts + size_of::<i32>() * indexes.len()
}

/// Returns true if two schemas are equal apart from dictionary encoding.
pub(super) fn same_except_encoding(one: &Schema, other: &Schema) -> bool {
    let same = |(one, other): (&FieldRef, &FieldRef)| {
        one.name() == other.name() && plain_type(one.data_type()) == plain_type(other.data_type())
    };
    one.fields().len() == other.fields().len() && one.fields().iter().zip(other.fields()).all(same)
}

/// Returns `schema` with the data types of `columns`.
pub(in crate::contract) fn with_column_types(schema: &SchemaRef, columns: &[ArrayRef]) -> SchemaRef {
    let fields = schema.fields().iter().zip(columns);
    if fields.clone().all(|(field, column)| field.data_type() == column.data_type()) {
        return Arc::clone(schema);
    }
    let fields: Fields = fields.map(|(field, column)| with_type(field, column.data_type().clone())).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn with_type(field: &FieldRef, kind: DataType) -> FieldRef {
    if *field.data_type() == kind { Arc::clone(field) } else { Arc::new(field.as_ref().clone().with_data_type(kind)) }
}

/// Returns the type that results from decoding all dictionaries in `kind`.
fn plain_type(kind: &DataType) -> DataType {
    let plain = |field: &FieldRef| with_type(field, plain_type(field.data_type()));
    match kind {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::Map(entries, ordered) => DataType::Map(plain(entries), *ordered),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        kind => kind.clone(),
    }
}

/// Concatenates columns of the same type, of which there must be at least one. The result is a dictionary if all
/// columns are dictionaries and their values fit into a single dictionary.
pub fn concat_columns(columns: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    // Skip empty columns. The result is a dictionary only if every input column is a dictionary, and an empty column of
    // another type must not prevent this.
    let filled: Vec<ArrayRef> = columns.iter().filter(|column| !column.is_empty()).cloned().collect();
    let filled = if filled.is_empty() { &columns[..1] } else { &filled };
    if filled.iter().all(|column| as_dictionary(column).is_some()) {
        if let Some(dictionary) = concat_dictionaries(filled)? {
            return Ok(dictionary);
        }
    } else if matches!(filled[0].data_type(), DataType::Map(..)) {
        return concat_maps(filled);
    }
    let plain = filled.iter().map(plain_column).collect::<Result<Vec<_>, _>>()?;
    concat(&plain.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// Concatenates dictionary columns. Returns `None` if their values do not fit into a single dictionary.
fn concat_dictionaries(columns: &[ArrayRef]) -> Result<Option<ArrayRef>, ArrowError> {
    let rows = columns.iter().map(|column| column.len()).sum();
    let (mut dictionary, mut indexes, mut nulls) =
        (DictionaryBuilder::default(), Vec::with_capacity(rows), NullBufferBuilder::new(rows));
    for column in columns {
        let column = column.as_dictionary::<UInt16Type>();
        let texts = column.values().as_string::<i32>();
        let ends = texts.value_offsets().windows(2).map(|ends| (ends[0] as usize, ends[1] as usize));
        let known =
            ends.map(|(start, end)| dictionary.index(PaddedSlice::new(texts.value_data(), start, end), usize::MAX));
        let Some(known) = known.collect::<Option<Vec<u16>>>() else { return Ok(None) };
        // The index at a null position is arbitrary and may be out of range.
        let index = |index: &u16| known.get(usize::from(*index)).copied().unwrap_or(0);
        indexes.extend(column.keys().values().iter().map(index));
        match column.nulls() {
            Some(more) => nulls.append_buffer(more),
            None => nulls.append_n_non_nulls(column.len()),
        }
    }
    Ok(Some(Arc::new(dictionary.column(indexes, nulls.finish())?)))
}

fn concat_maps(columns: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    let maps: Vec<&MapArray> = columns.iter().map(|column| column.as_map()).collect();
    let DataType::Map(entries, ordered) = columns[0].data_type() else {
        return Err(ArrowError::SchemaError(format!("{} is not a map", columns[0].data_type())));
    };
    let rows = columns.iter().map(|column| column.len()).sum();
    let (mut lengths, mut nulls) = (Vec::with_capacity(rows), NullBufferBuilder::new(rows));
    for map in &maps {
        lengths.extend(map.value_offsets().windows(2).map(|ends| (ends[1] - ends[0]) as usize));
        match map.nulls() {
            Some(more) => nulls.append_buffer(more),
            None => nulls.append_n_non_nulls(map.len()),
        }
    }
    let (keys, values): (Vec<_>, Vec<_>) =
        maps.iter().map(|map| map_leaves(map)).map(|[keys, values]| (keys, values)).unzip();
    let leaves = vec![concat_columns(&keys)?, concat_columns(&values)?];
    let fields = maps[0].entries().fields().iter().zip(&leaves);
    let fields: Fields = fields.map(|(field, leaf)| with_type(field, leaf.data_type().clone())).collect();
    let concatenated = StructArray::try_new(fields, leaves, None)?;
    let entries: FieldRef = Arc::new(Field::clone(entries).with_data_type(concatenated.data_type().clone()));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(MapArray::try_new(entries, offsets, concatenated, nulls.finish(), *ordered)?))
}
