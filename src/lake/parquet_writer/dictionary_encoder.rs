//! Encodes dictionary columns as Parquet column chunks with a dictionary page and bit-packed indexes.
//!
//! ```text
//!   strings or dictionary ─► indexes ─► pages: levels, bit-packed indexes ─► column chunk
//! ```
//!
//! The encoder accepts a dictionary array or plain strings, with their repetition and definition levels, and returns a
//! column chunk. It looks up each plain string once in a hash table. If there are too many distinct strings, the
//! encoder returns `None`, and Parquet's writer encodes the column instead. Most columns of events are dictionary
//! columns. Parquet's writer would look up every value of such a column in a hash table, which takes longer than the
//! rest of the encoding.
//!
//! The format is specified by Apache Parquet in `Encodings.md` (plain, RLE and bit-packing hybrid) and `README.md`
//! (data pages).

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, AsArray as _, MapArray, StringArray};
use arrow::buffer::NullBuffer;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use crate::contract::{DICTIONARY_VALUES_MAX, DictionaryBuilder, PaddedSlice, TextDictionaryArray, as_dictionary};
use crate::lake::log::stats::string_bound;

/// The number of values that are sampled to estimate whether a column has few distinct strings.
const SAMPLE: usize = 256;
/// A column is encoded as a dictionary if, in the sample, each distinct string occurs at least this many times on
/// average. Columns with mostly distinct strings, such as ids, are therefore left to Parquet's writer, which also
/// writes the statistics of their pages. This encoder writes only the statistics of the whole chunk.
const REPEATS: usize = 4;
/// The number of values that are bit-packed together.
const GROUP: usize = 8;
/// The minimum length of a run-length encoded run, in groups.
const RUN_GROUPS_MIN: usize = 4;

/// Encodes the dictionary columns of one file.
pub(in crate::lake) struct DictionaryEncoder {
    compressor: Compressor<'static>,
    compression: Compression,
    page_rows: usize,
}

/// The mapping between a leaf column's strings and the rows. It determines the repetition and definition levels.
pub(in crate::lake) enum TextLevels {
    /// Each row has one string, or null.
    Rows,
    /// The strings are the keys or the values of map entries. Row `i` has the entries from offset `i` to offset `i +
    /// 1`, and is a null map if there are none.
    Entries(Vec<usize>),
}

/// An encoded column chunk.
pub(in crate::lake) struct EncodedChunk {
    pub(in crate::lake) bytes: bytes::Bytes,
    pub(in crate::lake) close: ColumnCloseResult,
}

impl DictionaryEncoder {
    /// Creates an encoder that compresses pages with zstd at this level. A page has at most `page_rows` rows, which
    /// should be the same number as in all other columns.
    pub(in crate::lake) fn new(level: ZstdLevel, page_rows: usize) -> Result<Self> {
        let compressor = Compressor::new(level.compression_level())?;
        Ok(Self { compressor, compression: Compression::ZSTD(level), page_rows: page_rows.max(1) })
    }

    /// Encodes the chunk of a column in one row group. Returns `None` if there are too many distinct strings.
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
        let mut packed = 0;
        // Write a page even if the chunk has no rows.
        for start in (0..rows.max(1)).step_by(self.page_rows) {
            let page_rows = self.page_rows.min(rows - start);
            let mut plain = Vec::new();
            let (page_values, non_null) = levels.write(column, leaf.array().nulls(), start, page_rows, &mut plain);
            plain.push(indexed.bits);
            pack(&indexed.indexes[packed..packed + non_null], indexed.bits, &mut plain);
            packed += non_null;
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
            .set_data_page_offset(data_offset as i64);
        let metadata = match levels {
            TextLevels::Rows => metadata.set_statistics(indexed.statistics(values - packed)),
            // The statistics of map entries would not help pruning.
            TextLevels::Entries(_) => metadata,
        };
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
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

/// The strings of a leaf column.
#[derive(Debug)]
pub(in crate::lake) enum TextLeaf {
    /// A plain string array.
    Plain(StringArray),
    /// A dictionary-encoded string array.
    Dictionary(TextDictionaryArray),
}

impl TextLeaf {
    /// Returns the strings of an array, or `None` if it has another type.
    pub(in crate::lake) fn of(array: &ArrayRef) -> Option<Self> {
        match array.as_string_opt() {
            Some(strings) => Some(Self::Plain(strings.clone())),
            None => as_dictionary(array).cloned().map(Self::Dictionary),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Plain(strings) => strings,
            Self::Dictionary(dictionary) => dictionary,
        }
    }

    /// Returns true if a sample suggests that the column has few distinct strings.
    pub(in crate::lake) fn repeats(&self) -> bool {
        let array = self.array();
        let step = array.len().div_ceil(SAMPLE).max(1);
        let sample = (0..array.len()).step_by(step).filter(|row| array.is_valid(*row));
        match self {
            Self::Plain(strings) => has_few_distinct(sample.map(|row| strings.value(row))),
            Self::Dictionary(dictionary) => has_few_distinct(sample.map(|row| dictionary.keys().value(row))),
        }
    }

    fn indexed(&self) -> Option<IndexedTexts> {
        match self {
            Self::Plain(strings) => IndexedTexts::of_strings(strings),
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

/// Strings that are encoded as indexes into a dictionary.
struct IndexedTexts {
    /// The distinct strings in index order, each preceded by its length.
    dictionary: Vec<u8>,
    /// The number of distinct strings.
    distinct: usize,
    /// The bit width of an index.
    bits: u8,
    /// The index of each non-null string.
    indexes: Vec<u16>,
    /// The smallest and the largest string, or `None` if there are no strings.
    bounds: Option<(Vec<u8>, Vec<u8>)>,
}

impl IndexedTexts {
    fn new<'t>(strings: impl ExactSizeIterator<Item = &'t [u8]>, indexes: Vec<u16>) -> Self {
        let (distinct, mut dictionary) = (strings.len(), Vec::new());
        let mut bounds: Option<(&[u8], &[u8])> = None;
        for string in strings {
            dictionary.extend_from_slice(&(string.len() as u32).to_le_bytes());
            dictionary.extend_from_slice(string);
            bounds = Some(bounds.map_or((string, string), |(least, most)| (least.min(string), most.max(string))));
        }
        let bounds = bounds.map(|(least, most)| (least.to_vec(), most.to_vec()));
        Self { dictionary, distinct, bits: bits_of(distinct.saturating_sub(1)), indexes, bounds }
    }

    /// Returns the statistics of the chunk. Long bounds are shortened: a shortened upper bound is increased, so that it
    /// remains an upper bound.
    fn statistics(&self, nulls: usize) -> Statistics {
        let nulls = Some(nulls as u64);
        let exact = self.bounds.as_ref().and_then(|(least, most)| Some((str_of(least)?, str_of(most)?)));
        let Some(((least, most), stored)) =
            exact.and_then(|(least, most)| Some(((least, most), string_bound(least, most)?)))
        else {
            return Statistics::ByteArray(ValueStatistics::new(None, None, None, nulls, false));
        };
        let bytes = |text: &str| Some(ByteArray::from(text.as_bytes().to_vec()));
        let statistics = ValueStatistics::new(bytes(&stored.0), bytes(&stored.1), None, nulls, false);
        let statistics = statistics.with_min_is_exact(*stored.0 == *least);
        Statistics::ByteArray(statistics.with_max_is_exact(*stored.1 == *most))
    }

    /// Builds a dictionary and its indexes from plain strings. Returns `None` if there are more than
    /// [`DICTIONARY_VALUES_MAX`] distinct strings.
    fn of_strings(strings: &StringArray) -> Option<Self> {
        let (mut dictionary, mut indexes) =
            (DictionaryBuilder::default(), Vec::with_capacity(strings.len() - strings.null_count()));
        let (bytes, ends) = (strings.value_data(), strings.value_offsets());
        for (row, ends) in ends.windows(2).enumerate() {
            if strings.is_valid(row) {
                indexes.push(
                    dictionary
                        .index(PaddedSlice::new(bytes, ends[0] as usize, ends[1] as usize), DICTIONARY_VALUES_MAX)?,
                );
            }
        }
        Some(Self::new((0..dictionary.len()).map(|index| dictionary.get(index as u16).bytes()), indexes))
    }

    /// Builds the indexes from a dictionary column, and a dictionary that contains only the values that rows use.
    fn of_dictionary(column: &TextDictionaryArray) -> Option<Self> {
        let strings = column.values().as_string_opt::<i32>().filter(|strings| strings.null_count() == 0)?;
        // `new_indexes` contains the new index of each key that rows use, and `used` contains the key of each new
        // index.
        let (mut new_indexes, mut used) = (vec![None; strings.len()], Vec::new());
        let mut new_index = |key: u16| {
            *new_indexes[usize::from(key)].get_or_insert_with(|| {
                used.push(key);
                used.len() as u16 - 1
            })
        };
        let keys = column.keys().values();
        let indexes = match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => keys.iter().map(|key| new_index(*key)).collect(),
            Some(nulls) => nulls.valid_indices().map(|row| new_index(keys[row])).collect(),
        };
        Some(Self::new(used.iter().map(|key| strings.value(usize::from(*key)).as_bytes()), indexes))
    }
}

fn str_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

impl TextLevels {
    /// Returns the levels of a map's entries. Returns `None` if a null row has entries or if a map that is not null is
    /// empty, because [`TextLevels::Entries`] cannot represent such rows.
    pub(in crate::lake) fn of(map: &MapArray) -> Option<Self> {
        let offsets = map.value_offsets();
        let is_plain = |row: usize| map.is_null(row) == (offsets[row] == offsets[row + 1]);
        let ends = offsets.iter().map(|end| (end - offsets[0]) as usize).collect();
        (0..map.len()).all(is_plain).then_some(Self::Entries(ends))
    }

    /// Writes the levels of `rows` rows, beginning at `start`. Returns the number of levels, and the number of non-null
    /// strings.
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
                let non_null = levels.iter().filter(|level| **level == 1).count();
                write_levels(&levels, 1, into);
                (rows, non_null)
            }
            Self::Entries(ends) => {
                let (mut repeats, mut definitions, mut non_null) = (Vec::new(), Vec::new(), 0);
                for row in start..start + rows {
                    let entries = ends[row]..ends[row + 1];
                    if entries.is_empty() {
                        repeats.push(0);
                        definitions.push(0);
                    }
                    for entry in entries.clone() {
                        let is_present = is_valid(entry);
                        non_null += usize::from(is_present);
                        repeats.push(u16::from(entry > entries.start));
                        definitions.push(if is_present { defined } else { defined - 1 });
                    }
                }
                write_levels(&repeats, 1, into);
                write_levels(&definitions, bits_of(usize::from(defined)), into);
                (repeats.len(), non_null)
            }
        }
    }
}

/// Returns the number of bits that are needed for numbers from 0 to `largest`.
fn bits_of(largest: usize) -> u8 {
    (usize::BITS - largest.leading_zeros()) as u8
}

/// Writes levels, preceded by their length in bytes.
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

/// Bit-packs numbers in groups of eight. The last group is padded.
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
