//! Columns of few different texts, again and again, as Parquet keeps them: a dictionary, and places in it.
//!
//! ```text
//!   texts | labels ─► numbers ─► pages: levels, numbers in as few bits as they need ─► a chunk
//! ```
//!
//! In: labels, or texts (one look into a small table each), with their levels. Out: a column chunk, or none when there are too many different texts: then Parquet's own
//! writer takes the column. Labels are most of an event's columns, and that writer's general table of values takes longer for
//! them than all else together.
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

/// Texts that tell whether a column holds few different ones.
const SAMPLE: usize = 256;
/// How often each of the few is in the sample, on average: so a small file of different texts keeps its bounds.
const REPEATS: usize = 4;
/// Rows of a page, as in all other columns.
const PAGE_ROWS: usize = 20_000;
/// Values that are packed together.
const GROUP: usize = 8;
/// Groups of one value that are worth a run of their own.
const RUN_GROUPS_MIN: usize = 4;

/// What encodes the label columns of one file.
pub(in crate::lake) struct DictionaryEncoder {
    compressor: Compressor<'static>,
    compression: Compression,
}

/// Where the texts of a leaf column stand among its rows.
pub(in crate::lake) enum TextLevels {
    /// One a row, or null.
    Rows,
    /// Keys or values of a map's entries: where each row's begin and end. A row without any has no map.
    Entries(Vec<usize>),
}

/// A column chunk that is encoded already.
pub(in crate::lake) struct EncodedChunk {
    pub(in crate::lake) bytes: bytes::Bytes,
    pub(in crate::lake) close: ColumnCloseResult,
}

impl DictionaryEncoder {
    /// A writer whose pages are compressed at this level.
    pub(in crate::lake) fn new(level: ZstdLevel) -> Result<Self> {
        let compressor = Compressor::new(level.compression_level())?;
        Ok(Self { compressor, compression: Compression::ZSTD(level) })
    }

    /// The chunk of a row group's texts; none when too many are different.
    pub(in crate::lake) fn chunk(
        &mut self,
        column: &ColumnDescPtr,
        leaf: &TextLeaf,
        levels: &TextLevels,
    ) -> Result<Option<EncodedChunk>> {
        let Some(numbered) = leaf.numbered() else { return Ok(None) };
        let rows = match levels {
            TextLevels::Rows => leaf.array().len(),
            TextLevels::Entries(ends) => ends.len() - 1,
        };
        let mut sink = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut sink);
        let (mut size, mut values, mut pages, mut offsets) = (0, 0, 0, OffsetIndexBuilder::new());
        let dictionary = Page::DictionaryPage {
            buf: self.compressor.compress(&numbered.dictionary)?.into(),
            num_values: count(numbered.labels)?,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let written = writer.write_page(CompressedPage::new(dictionary, numbered.dictionary.len()))?;
        size += written.uncompressed_size;
        let data_offset = written.bytes_written;
        let mut taken = 0;
        // A chunk without rows has a page, too.
        for start in (0..rows.max(1)).step_by(PAGE_ROWS) {
            let page_rows = PAGE_ROWS.min(rows - start);
            let mut plain = Vec::new();
            let (page_values, filled) = levels.write(column, leaf.array().nulls(), start, page_rows, &mut plain);
            plain.push(numbered.bits);
            pack(&numbered.numbers[taken..taken + filled], numbered.bits, &mut plain);
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
    u32::try_from(number).map_err(|_| ParquetError::General("a page has too many values".into()))
}

/// Texts of a leaf column.
#[derive(Debug)]
pub(in crate::lake) enum TextLeaf {
    /// As they are.
    Texts(StringArray),
    /// Numbered already.
    Labels(TextDictionaryArray),
}

impl TextLeaf {
    /// The texts of an array, if it holds some.
    pub(in crate::lake) fn of(array: &ArrayRef) -> Option<Self> {
        match array.as_string_opt() {
            Some(texts) => Some(Self::Texts(texts.clone())),
            None => as_dictionary(array).cloned().map(Self::Labels),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Texts(texts) => texts,
            Self::Labels(labels) => labels,
        }
    }

    /// Whether few different texts seem to come again and again: by a sample.
    pub(in crate::lake) fn repeats(&self) -> bool {
        let array = self.array();
        let step = array.len().div_ceil(SAMPLE).max(1);
        let sample = (0..array.len()).step_by(step).filter(|place| array.is_valid(*place));
        match self {
            Self::Texts(texts) => are_few(sample.map(|place| texts.value(place))),
            Self::Labels(labels) => are_few(sample.map(|place| labels.keys().value(place))),
        }
    }

    fn numbered(&self) -> Option<IndexedTexts> {
        match self {
            Self::Texts(texts) => IndexedTexts::of_texts(texts),
            Self::Labels(labels) => IndexedTexts::of_labels(labels),
        }
    }
}

fn are_few<T: Eq + Hash>(sample: impl Iterator<Item = T>) -> bool {
    let (mut count, mut distinct) = (0, HashSet::new());
    for one in sample {
        count += 1;
        distinct.insert(one);
    }
    distinct.len() * REPEATS <= count
}

/// Texts as numbers.
struct IndexedTexts {
    /// The different texts, in order of their numbers, each behind its length.
    dictionary: Vec<u8>,
    labels: usize,
    /// Bits of a number.
    bits: u8,
    /// One for each text that is not null.
    numbers: Vec<u16>,
}

impl IndexedTexts {
    fn new<'t>(texts: impl ExactSizeIterator<Item = &'t [u8]>, numbers: Vec<u16>) -> Self {
        let (labels, mut dictionary) = (texts.len(), Vec::new());
        for text in texts {
            dictionary.extend_from_slice(&(text.len() as u32).to_le_bytes());
            dictionary.extend_from_slice(text);
        }
        Self { dictionary, labels, bits: bits_of(labels.saturating_sub(1)), numbers }
    }

    /// None when there are more than [`DICTIONARY_VALUES_MAX`] different ones.
    fn of_texts(texts: &StringArray) -> Option<Self> {
        let (mut labels, mut numbers) =
            (DictionaryBuilder::default(), Vec::with_capacity(texts.len() - texts.null_count()));
        let (bytes, ends) = (texts.value_data(), texts.value_offsets());
        for (row, ends) in ends.windows(2).enumerate() {
            if texts.is_valid(row) {
                numbers.push(
                    labels
                        .number(PaddedSlice::new(bytes, ends[0] as usize, ends[1] as usize), DICTIONARY_VALUES_MAX)?,
                );
            }
        }
        Some(Self::new((0..labels.len()).map(|number| labels.get(number as u16).bytes()), numbers))
    }

    /// The labels that these rows have, numbered anew. None when a label is null itself.
    fn of_labels(column: &TextDictionaryArray) -> Option<Self> {
        let texts = column.values().as_string_opt::<i32>().filter(|texts| texts.null_count() == 0)?;
        // The new number of each label that was met, and these in the order of their new numbers.
        let (mut known, mut met) = (vec![None; texts.len()], Vec::new());
        let mut number = |label: u16| {
            *known[usize::from(label)].get_or_insert_with(|| {
                met.push(label);
                met.len() as u16 - 1
            })
        };
        let labels = column.keys().values();
        let numbers = match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => labels.iter().map(|label| number(*label)).collect(),
            Some(nulls) => nulls.valid_indices().map(|row| number(labels[row])).collect(),
        };
        Some(Self::new(met.iter().map(|label| texts.value(usize::from(*label)).as_bytes()), numbers))
    }
}

impl TextLevels {
    /// Where a map's entries stand among those alone that it has, from the first on; none when it has entries that are
    /// hidden, or none where there is a map.
    pub(in crate::lake) fn of(map: &MapArray) -> Option<Self> {
        let offsets = map.value_offsets();
        let is_plain = |row: usize| map.is_null(row) == (offsets[row] == offsets[row + 1]);
        let ends = offsets.iter().map(|end| (end - offsets[0]) as usize).collect();
        (0..map.len()).all(is_plain).then_some(Self::Entries(ends))
    }

    /// Writes the levels of `rows` rows from `start` on. How many they are, and how many texts stand behind them.
    fn write(
        &self,
        column: &ColumnDescPtr,
        nulls: Option<&NullBuffer>,
        start: usize,
        rows: usize,
        into: &mut Vec<u8>,
    ) -> (usize, usize) {
        let is_valid = |place: usize| nulls.is_none_or(|nulls| nulls.is_valid(place));
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
                        let is_there = is_valid(entry);
                        filled += usize::from(is_there);
                        repeats.push(u16::from(entry > entries.start));
                        definitions.push(if is_there { defined } else { defined - 1 });
                    }
                }
                write_levels(&repeats, 1, into);
                write_levels(&definitions, bits_of(usize::from(defined)), into);
                (repeats.len(), filled)
            }
        }
    }
}

/// Bits of numbers up to this one.
fn bits_of(largest: usize) -> u8 {
    (usize::BITS - largest.leading_zeros()) as u8
}

/// Levels behind their length in bytes.
fn write_levels(levels: &[u16], bits: u8, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    pack(levels, bits, into);
    let length = (into.len() - start - 4) as u32;
    into[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The hybrid of runs of one number and of numbers packed into their bits.
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

/// Groups of eight numbers, the last one filled up.
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
