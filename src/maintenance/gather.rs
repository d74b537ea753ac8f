//! Gathers the rows of several batches into one column, in a given order.
//!
//! The order is a sequence of runs of consecutive rows. The values of a run are copied together. Text that is stored as
//! dictionaries in all batches stays a dictionary: only numbers are copied, and each distinct text is looked up once.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, BooleanBufferBuilder, ListArray, MapArray, PrimitiveArray,
    StringArray, StructArray, downcast_primitive_array, make_array,
};
use arrow::array::{Capacities, MutableArrayData};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use crate::contract::{
    DICTIONARY_VALUES_MAX, DictionaryBuilder, PaddedSlice, SHORT_BYTES_MAX, TextDictionaryArray, as_dictionary,
    plain_column,
};

/// Consecutive rows of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The index of the batch.
    pub(super) batch: u32,
    pub(super) start: u32,
    pub(super) length: u32,
}

impl Run {
    fn rows(self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.length) as usize
    }
}

/// Returns the rows of `runs`. All batches must have the same type, except that text may be dictionary-encoded in some
/// of them. Fails if the text of the result has more than 2 GiB.
pub(super) fn gather(batches: &[&ArrayRef], runs: &[Run]) -> Result<ArrayRef, ArrowError> {
    let rows = runs.iter().map(|run| run.length as usize).sum();
    let Some(first) = batches.first() else { return Err(ArrowError::ComputeError("there are no batches".into())) };
    match first.data_type() {
        DataType::Utf8 | DataType::Dictionary(..) => gather_texts(batches, runs, rows),
        DataType::Map(..) => gather_maps(batches, runs, rows),
        DataType::List(element) => gather_lists(batches, runs, rows, element),
        kind if kind.is_primitive() => gather_primitives(batches, runs, rows),
        _ => gather_any(batches, runs, rows),
    }
}

fn gather_nulls(batches: &[&ArrayRef], runs: &[Run], rows: usize) -> Option<NullBuffer> {
    let nulls: Vec<Option<&NullBuffer>> =
        batches.iter().map(|batch| batch.nulls().filter(|nulls| nulls.null_count() > 0)).collect();
    if nulls.iter().all(Option::is_none) {
        return None;
    }
    let mut gathered = BooleanBufferBuilder::new(rows);
    for run in runs {
        match nulls[run.batch as usize] {
            None => gathered.append_n(run.length as usize, true),
            Some(nulls) if run.length == 1 => gathered.append(nulls.is_valid(run.start as usize)),
            Some(nulls) => {
                let (start, rows) = (nulls.offset(), run.rows());
                gathered.append_packed_range(start + rows.start..start + rows.end, nulls.validity());
            }
        }
    }
    Some(NullBuffer::new(gathered.finish())).filter(|nulls| nulls.null_count() > 0)
}

fn gather_primitives(batches: &[&ArrayRef], runs: &[Run], rows: usize) -> Result<ArrayRef, ArrowError> {
    let nulls = gather_nulls(batches, runs, rows);
    let first = batches[0];
    downcast_primitive_array!(
        first => gather_values(first, batches, runs, rows, nulls),
        _ => gather_any(batches, runs, rows)
    )
}

fn gather_values<T: ArrowPrimitiveType>(
    first: &PrimitiveArray<T>,
    batches: &[&ArrayRef],
    runs: &[Run],
    rows: usize,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let sources = batches.iter().map(|batch| batch.as_primitive_opt::<T>().map(|batch| &batch.values()[..]));
    let sources = sources.collect::<Option<Vec<&[T::Native]>>>().ok_or_else(|| mismatch(batches))?;
    let mut values: Vec<T::Native> = Vec::with_capacity(rows);
    for run in runs {
        copy(&sources[run.batch as usize][run.rows()], &mut values);
    }
    let gathered = PrimitiveArray::<T>::try_new(values.into(), nulls)?;
    Ok(Arc::new(gathered.with_data_type(first.data_type().clone())))
}

/// Appends values. Most runs are short, and copying one value at a time is faster for them.
#[inline]
fn copy<T: Copy>(from: &[T], into: &mut Vec<T>) {
    match from {
        [one] => into.push(*one),
        [one, other] => into.extend([*one, *other]),
        more => into.extend_from_slice(more),
    }
}

/// The text of one batch.
enum Texts<'a> {
    Plain(&'a StringArray),
    Dictionary(&'a TextDictionaryArray, &'a StringArray),
}

fn gather_texts(batches: &[&ArrayRef], runs: &[Run], rows: usize) -> Result<ArrayRef, ArrowError> {
    let texts = batches.iter().map(|batch| match as_dictionary(batch) {
        Some(texts) => Some(Texts::Dictionary(texts, texts.values().as_string_opt()?)),
        None => batch.as_string_opt().map(Texts::Plain),
    });
    let texts = texts.collect::<Option<Vec<_>>>().ok_or_else(|| mismatch(batches))?;
    let nulls = gather_nulls(batches, runs, rows);
    if let Some(gathered) = gather_dictionaries(&texts, runs, rows, nulls.as_ref())? {
        return Ok(Arc::new(gathered));
    }
    let (mut bytes, mut offsets) = (Vec::new(), Vec::with_capacity(rows + 1));
    offsets.push(0_i32);
    let end_of = |bytes: &Vec<u8>| i32::try_from(bytes.len()).map_err(|_| ArrowError::OffsetOverflowError(bytes.len()));
    for run in runs {
        match &texts[run.batch as usize] {
            Texts::Plain(texts) => {
                let ends = texts.value_offsets();
                let (start, end) = (ends[run.start as usize], ends[(run.start + run.length) as usize]);
                let shift = end_of(&bytes)?;
                append(&mut bytes, texts.value_data(), start, end);
                end_of(&bytes)?;
                offsets.extend(ends[run.rows().start + 1..=run.rows().end].iter().map(|end| end - start + shift));
            }
            Texts::Dictionary(texts, values) => {
                let (keys, ends) = (texts.keys().values(), values.value_offsets());
                for row in run.rows() {
                    if texts.is_valid(row) {
                        let key = usize::from(keys[row]);
                        append(&mut bytes, values.value_data(), ends[key], ends[key + 1]);
                    }
                    offsets.push(end_of(&bytes)?);
                }
            }
        }
    }
    Ok(Arc::new(StringArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), nulls)?))
}

#[inline]
fn append(bytes: &mut Vec<u8>, source: &[u8], start: i32, end: i32) {
    if bytes.capacity() - bytes.len() < SHORT_BYTES_MAX {
        bytes.reserve(bytes.len().max(1_024));
    }
    PaddedSlice::new(source, start as usize, end as usize).append_to(bytes);
}

/// A number that no dictionary has.
const UNKNOWN: u16 = u16::MAX;

/// Gathers dictionaries. Returns `None` if a batch is not a dictionary, or if the rows have too many distinct texts.
fn gather_dictionaries(
    texts: &[Texts<'_>],
    runs: &[Run],
    rows: usize,
    nulls: Option<&NullBuffer>,
) -> Result<Option<TextDictionaryArray>, ArrowError> {
    let mut dictionary = DictionaryBuilder::default();
    // The new number of each old number. Batches of one row group share a dictionary.
    let mut tables: Vec<(*const i32, Vec<u16>)> = Vec::new();
    let mut sources = Vec::with_capacity(texts.len());
    for texts in texts {
        let Texts::Dictionary(texts, values) = texts else { return Ok(None) };
        let identity = values.value_offsets().as_ptr();
        let table = tables.iter().position(|(other, table)| *other == identity && table.len() == values.len());
        let table = table.unwrap_or_else(|| {
            tables.push((identity, vec![UNKNOWN; values.len()]));
            tables.len() - 1
        });
        sources.push((&texts.keys().values()[..], texts.nulls(), *values, table));
    }
    let mut numbers: Vec<u16> = Vec::with_capacity(rows);
    for run in runs {
        let (keys, nulls, values, table) = &sources[run.batch as usize];
        let table = &mut tables[*table].1;
        for row in run.rows() {
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                numbers.push(0);
                continue;
            }
            let key = usize::from(keys[row]);
            if table[key] == UNKNOWN {
                let ends = values.value_offsets();
                let text = PaddedSlice::new(values.value_data(), ends[key] as usize, ends[key + 1] as usize);
                let Some(number) = dictionary.index(text, DICTIONARY_VALUES_MAX) else { return Ok(None) };
                table[key] = number;
            }
            numbers.push(table[key]);
        }
    }
    if dictionary.is_empty() && !numbers.is_empty() {
        // Only null rows: Arrow still requires a value to which their numbers refer.
        dictionary.index(PaddedSlice::unpadded(b""), DICTIONARY_VALUES_MAX);
    }
    dictionary.column(numbers, nulls.cloned()).map(Some)
}

/// Returns the runs of the elements of lists or the entries of maps, and the length of each list.
fn element_runs(offsets: &[&[i32]], runs: &[Run], rows: usize) -> (Vec<Run>, Vec<usize>) {
    let (mut elements, mut lengths) = (Vec::with_capacity(runs.len()), Vec::with_capacity(rows));
    for run in runs {
        let ends = &offsets[run.batch as usize][run.start as usize..=(run.start + run.length) as usize];
        let (first, last) = (ends[0].cast_unsigned(), ends[ends.len() - 1].cast_unsigned());
        if last > first {
            elements.push(Run { batch: run.batch, start: first, length: last - first });
        }
        lengths.extend(ends.windows(2).map(|ends| (ends[1] - ends[0]) as usize));
    }
    (elements, lengths)
}

fn gather_maps(batches: &[&ArrayRef], runs: &[Run], rows: usize) -> Result<ArrayRef, ArrowError> {
    let maps = batches.iter().map(|batch| batch.as_map_opt()).collect::<Option<Vec<&MapArray>>>();
    let maps = maps.ok_or_else(|| mismatch(batches))?;
    let offsets: Vec<&[i32]> = maps.iter().map(|map| map.value_offsets()).collect();
    let (entries, lengths) = element_runs(&offsets, runs, rows);
    let leaf = |leaf: usize| gather(&maps.iter().map(|map| map.entries().column(leaf)).collect::<Vec<_>>(), &entries);
    let columns = vec![leaf(0)?, leaf(1)?];
    let DataType::Map(field, ordered) = maps[0].data_type() else { return Err(mismatch(batches)) };
    let fields = maps[0].entries().fields().iter().zip(&columns);
    let fields: Fields = fields.map(|(field, leaf)| with_type(field, leaf.data_type())).collect();
    let entries = StructArray::try_new(fields, columns, None)?;
    let field = with_type(field, entries.data_type());
    let nulls = gather_nulls(batches, runs, rows);
    Ok(Arc::new(MapArray::try_new(field, OffsetBuffer::from_lengths(lengths), entries, nulls, *ordered)?))
}

fn gather_lists(
    batches: &[&ArrayRef],
    runs: &[Run],
    rows: usize,
    element: &Arc<Field>,
) -> Result<ArrayRef, ArrowError> {
    let lists = batches.iter().map(|batch| batch.as_list_opt::<i32>()).collect::<Option<Vec<_>>>();
    let lists = lists.ok_or_else(|| mismatch(batches))?;
    let offsets: Vec<&[i32]> = lists.iter().map(|list| list.value_offsets()).collect();
    let (runs_of_elements, lengths) = element_runs(&offsets, runs, rows);
    let elements = gather(&lists.iter().map(|list| list.values()).collect::<Vec<_>>(), &runs_of_elements)?;
    let nulls = gather_nulls(batches, runs, rows);
    Ok(Arc::new(ListArray::try_new(Arc::clone(element), OffsetBuffer::from_lengths(lengths), elements, nulls)?))
}

/// Gathers columns of any type.
fn gather_any(batches: &[&ArrayRef], runs: &[Run], rows: usize) -> Result<ArrayRef, ArrowError> {
    let plain = batches.iter().map(|batch| plain_column(batch)).collect::<Result<Vec<_>, _>>()?;
    if plain.iter().any(|batch| batch.data_type() != plain[0].data_type()) {
        return Err(mismatch(batches));
    }
    let data: Vec<_> = plain.iter().map(|batch| batch.to_data()).collect();
    let mut gathered = MutableArrayData::with_capacities(data.iter().collect(), false, Capacities::Array(rows));
    for run in runs {
        gathered.try_extend(run.batch as usize, run.rows().start, run.rows().end)?;
    }
    Ok(make_array(gathered.freeze()))
}

fn with_type(field: &Arc<Field>, kind: &DataType) -> Arc<Field> {
    if field.data_type() == kind {
        Arc::clone(field)
    } else {
        Arc::new(field.as_ref().clone().with_data_type(kind.clone()))
    }
}

fn mismatch(batches: &[&ArrayRef]) -> ArrowError {
    let kinds: Vec<String> = batches.iter().map(|batch| batch.data_type().to_string()).collect();
    ArrowError::SchemaError(format!("cannot gather rows of different types: {}", kinds.join(", ")))
}
