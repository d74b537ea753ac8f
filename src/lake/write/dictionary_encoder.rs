//! The encoder of dictionary columns: Parquet column chunks with a dictionary page and bit-packed indexes.
//!
//! ```text
//!   texts | dictionary ─► indexes ─► pages: levels, bit-packed indexes ─► column chunk
//! ```
//!
//! In: a dictionary array, or texts (one hash lookup each), with their levels. Out: a column chunk, or `None` if there
//! are too many distinct texts; Parquet's writer then encodes the column. Most columns of an event are dictionaries,
//! and for them the general hash table of Parquet's writer takes longer than all other encoding together.
//!
//! Source: the Apache Parquet format, `Encodings.md` (plain, RLE and bit-packing hybrid) and `README.md` (data pages).

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, AsArray as _, MapArray, StringArray};
use arrow::buffer::NullBuffer;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use crate::contract::{DICTIONARY_VALUES_MAX, DictionaryBuilder, PaddedSlice, TextDictionaryArray, as_dictionary};

/// The sample size for estimating whether a column has few distinct texts.
const SAMPLE: usize = 256;
/// The average number of repetitions of each text in the sample that makes a column a dictionary. It also ensures that
/// a small file of distinct texts keeps its bounds.
const REPEATS: usize = 4;
/// The number of rows per page, as in all other columns.
const PAGE_ROWS: usize = 20_000;
/// The number of values in a bit-packed group.
const GROUP: usize = 8;
/// The minimum length of a run of one value, in groups.
const RUN_GROUPS_MIN: usize = 4;

/// Encodes the dictionary columns of one file.
pub(in crate::lake) struct DictionaryEncoder {
    compressor: Compressor<'static>,
    compression: Compression,
}

/// The relation of a leaf column's texts to rows, which determines repetition and definition levels.
pub(in crate::lake) enum TextLevels {
    /// One text or null per row.
    Rows,
    /// Keys or values of map entries: the offsets of each row's entries. A row without entries is a null map.
    Entries(Vec<usize>),
}

/// An encoded column chunk.
pub(in crate::lake) struct EncodedChunk {
    pub(in crate::lake) bytes: bytes::Bytes,
    pub(in crate::lake) close: ColumnCloseResult,
}

impl DictionaryEncoder {
    /// An encoder with this compression level.
    pub(in crate::lake) fn new(level: ZstdLevel) -> Result<Self> {
        let compressor = Compressor::new(level.compression_level())?;
        Ok(Self { compressor, compression: Compression::ZSTD(level) })
    }

    /// Encodes the chunk of a row group; `None` if there are too many distinct texts.
    pub(in crate::lake) fn chunk(
        &mut self,
        column: &ColumnDescPtr,
        leaf: &TextLeaf,
        levels: &TextLevels,
    ) -> Result<Option<EncodedChunk>> {
        let Some(indexed) = leaf.indexed() else { return Ok(None) };
        let rows = match levels {
            TextLevels::Rows => leaf.array().len(),
            TextLevels::Entries(ends) => ends.len() - 1,
        };
        let mut sink = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut sink);
        let (mut size, mut values, mut pages, mut offsets) = (0, 0, 0, OffsetIndexBuilder::new());
        let dictionary = Page::DictionaryPage {
            buf: self.compressor.compress(&indexed.dictionary)?.into(),
            num_values: count(indexed.distinct)?,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let written = writer.write_page(CompressedPage::new(dictionary, indexed.dictionary.len()))?;
        size += written.uncompressed_size;
        let data_offset = written.bytes_written;
        let mut taken = 0;
        // A chunk without rows has one page, too.
        for start in (0..rows.max(1)).step_by(PAGE_ROWS) {
            let page_rows = PAGE_ROWS.min(rows - start);
            let mut plain = Vec::new();
            let (page_values, filled) = levels.write(column, leaf.array().nulls(), start, page_rows, &mut plain);
            plain.push(indexed.bits);
            pack(&indexed.numbers[taken..taken + filled], indexed.bits, &mut plain);
            taken += filled;
            let page = Page::DataPage {
                buf: self.compressor.compress(&plain)?.into(),
                num_values: count(page_values)?,
                encoding: Encoding::RLE_DICTIONARY,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let written = writer.write_page(CompressedPage::new(page, plain.len()))?;
            offsets.append_row_count(page_rows as i64);
            offsets.append_offset_and_size(written.offset as i64, written.compressed_size as i32);
            size += written.uncompressed_size;
            values += page_values;
            pages += 1;
        }
        writer.close()?;
        let bytes = sink.into_inner()?;
        let stats =
            [(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1), (PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, pages)];
        let metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(self.compression)
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_page_encoding_stats(
                stats.map(|(page_type, encoding, count)| PageEncodingStats { page_type, encoding, count }).to_vec(),
            )
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(size as i64)
            .set_num_values(values as i64)
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(data_offset as i64)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(offsets.build()),
        };
        Ok(Some(EncodedChunk { bytes: bytes.into(), close }))
    }
}

fn count(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| ParquetError::General("the page has too many values".into()))
}

/// The texts of a leaf column.
#[derive(Debug)]
pub(in crate::lake) enum TextLeaf {
    /// Plain texts.
    Plain(StringArray),
    /// Dictionary-encoded texts.
    Dictionary(TextDictionaryArray),
}

impl TextLeaf {
    /// The texts of an array, if it is a text array.
    pub(in crate::lake) fn of(array: &ArrayRef) -> Option<Self> {
        match array.as_string_opt() {
            Some(texts) => Some(Self::Plain(texts.clone())),
            None => as_dictionary(array).cloned().map(Self::Dictionary),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Plain(texts) => texts,
            Self::Dictionary(dictionary) => dictionary,
        }
    }

    /// Whether a sample suggests that the column has few distinct texts.
    pub(in crate::lake) fn repeats(&self) -> bool {
        let array = self.array();
        let step = array.len().div_ceil(SAMPLE).max(1);
        let sample = (0..array.len()).step_by(step).filter(|row| array.is_valid(*row));
        match self {
            Self::Plain(texts) => has_few_distinct(sample.map(|row| texts.value(row))),
            Self::Dictionary(dictionary) => has_few_distinct(sample.map(|row| dictionary.keys().value(row))),
        }
    }

    fn indexed(&self) -> Option<IndexedTexts> {
        match self {
            Self::Plain(texts) => IndexedTexts::of_texts(texts),
            Self::Dictionary(dictionary) => IndexedTexts::of_dictionary(dictionary),
        }
    }
}

fn has_few_distinct<T: Eq + Hash>(sample: impl Iterator<Item = T>) -> bool {
    let (mut count, mut distinct) = (0, HashSet::new());
    for one in sample {
        count += 1;
        distinct.insert(one);
    }
    distinct.len() * REPEATS <= count
}

/// Texts as indexes in a dictionary.
struct IndexedTexts {
    /// The distinct texts by index, each with its length prefix.
    dictionary: Vec<u8>,
    /// The number of distinct texts.
    distinct: usize,
    /// The bit width of an index.
    bits: u8,
    /// The index of each non-null text.
    numbers: Vec<u16>,
}

impl IndexedTexts {
    fn new<'t>(texts: impl ExactSizeIterator<Item = &'t [u8]>, numbers: Vec<u16>) -> Self {
        let (distinct, mut dictionary) = (texts.len(), Vec::new());
        for text in texts {
            dictionary.extend_from_slice(&(text.len() as u32).to_le_bytes());
            dictionary.extend_from_slice(text);
        }
        Self { dictionary, distinct, bits: bits_of(distinct.saturating_sub(1)), numbers }
    }

    /// Indexes plain texts; `None` if there are more than [`DICTIONARY_VALUES_MAX`] distinct ones.
    fn of_texts(texts: &StringArray) -> Option<Self> {
        let (mut dictionary, mut numbers) =
            (DictionaryBuilder::default(), Vec::with_capacity(texts.len() - texts.null_count()));
        let (bytes, ends) = (texts.value_data(), texts.value_offsets());
        for (row, ends) in ends.windows(2).enumerate() {
            if texts.is_valid(row) {
                numbers.push(
                    dictionary
                        .index(PaddedSlice::new(bytes, ends[0] as usize, ends[1] as usize), DICTIONARY_VALUES_MAX)?,
                );
            }
        }
        Some(Self::new((0..dictionary.len()).map(|number| dictionary.get(number as u16).bytes()), numbers))
    }

    /// Compacts the dictionary to the values that these rows use. `None` if a dictionary value is null.
    fn of_dictionary(column: &TextDictionaryArray) -> Option<Self> {
        let texts = column.values().as_string_opt::<i32>().filter(|texts| texts.null_count() == 0)?;
        // The new index of each used value, and the used values by new index.
        let (mut known, mut used) = (vec![None; texts.len()], Vec::new());
        let mut number = |key: u16| {
            *known[usize::from(key)].get_or_insert_with(|| {
                used.push(key);
                used.len() as u16 - 1
            })
        };
        let keys = column.keys().values();
        let numbers = match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => keys.iter().map(|key| number(*key)).collect(),
            Some(nulls) => nulls.valid_indices().map(|row| number(keys[row])).collect(),
        };
        Some(Self::new(used.iter().map(|key| texts.value(usize::from(*key)).as_bytes()), numbers))
    }
}

impl TextLevels {
    /// The levels of a map's entries. `None` if a null row has entries, or a non-null row has none.
    pub(in crate::lake) fn of(map: &MapArray) -> Option<Self> {
        let offsets = map.value_offsets();
        let is_plain = |row: usize| map.is_null(row) == (offsets[row] == offsets[row + 1]);
        let ends = offsets.iter().map(|end| (end - offsets[0]) as usize).collect();
        (0..map.len()).all(is_plain).then_some(Self::Entries(ends))
    }

    /// Writes the levels of `rows` rows from `start` on. Returns the number of levels and of non-null texts.
    fn write(
        &self,
        column: &ColumnDescPtr,
        nulls: Option<&NullBuffer>,
        start: usize,
        rows: usize,
        into: &mut Vec<u8>,
    ) -> (usize, usize) {
        let is_valid = |index: usize| nulls.is_none_or(|nulls| nulls.is_valid(index));
        let defined = column.max_def_level() as u16;
        match self {
            Self::Rows if defined == 0 => (rows, rows),
            Self::Rows => {
                let levels: Vec<u16> = (start..start + rows).map(|row| u16::from(is_valid(row))).collect();
                let filled = levels.iter().filter(|level| **level == 1).count();
                write_levels(&levels, 1, into);
                (rows, filled)
            }
            Self::Entries(ends) => {
                let (mut repeats, mut definitions, mut filled) = (Vec::new(), Vec::new(), 0);
                for row in start..start + rows {
                    let entries = ends[row]..ends[row + 1];
                    if entries.is_empty() {
                        repeats.push(0);
                        definitions.push(0);
                    }
                    for entry in entries.clone() {
                        let is_present = is_valid(entry);
                        filled += usize::from(is_present);
                        repeats.push(u16::from(entry > entries.start));
                        definitions.push(if is_present { defined } else { defined - 1 });
                    }
                }
                write_levels(&repeats, 1, into);
                write_levels(&definitions, bits_of(usize::from(defined)), into);
                (repeats.len(), filled)
            }
        }
    }
}

/// The bit width of numbers up to `largest`.
fn bits_of(largest: usize) -> u8 {
    (usize::BITS - largest.leading_zeros()) as u8
}

/// Writes levels with a length prefix.
fn write_levels(levels: &[u16], bits: u8, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    pack(levels, bits, into);
    let length = (into.len() - start - 4) as u32;
    into[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Encodes numbers in Parquet's hybrid of run-length encoding and bit-packing.
fn pack(numbers: &[u16], bits: u8, into: &mut Vec<u8>) {
    let mut packed = 0;
    let mut at = 0;
    while at < numbers.len() {
        let first = numbers[at];
        let group = &numbers[at..numbers.len().min(at + GROUP)];
        if group.iter().all(|number| *number == first) {
            let run = numbers[at..].iter().take_while(|number| **number == first).count();
            if run >= RUN_GROUPS_MIN * GROUP || at + run == numbers.len() {
                pack_groups(&numbers[packed..at], bits, into);
                varint((run as u64) << 1, into);
                into.extend_from_slice(&first.to_le_bytes()[..usize::from(bits).div_ceil(8)]);
                at += run;
                packed = at;
                continue;
            }
        }
        at += group.len();
    }
    pack_groups(&numbers[packed..], bits, into);
}

/// Bit-packs groups of eight numbers. The last group is padded.
fn pack_groups(numbers: &[u16], bits: u8, into: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    varint((numbers.len().div_ceil(GROUP) as u64) << 1 | 1, into);
    for group in numbers.chunks(GROUP) {
        let packed = group.iter().rev().fold(0, |packed: u128, number| packed << bits | u128::from(*number));
        into.extend_from_slice(&packed.to_le_bytes()[..usize::from(bits)]);
    }
}

fn varint(mut number: u64, into: &mut Vec<u8>) {
    while number > 0x7f {
        into.push(number as u8 & 0x7f | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}
