//! Columns of few different texts, again and again, as Parquet keeps them: a dictionary, and places in it.
//!
//! ```text
//!   texts ─► numbers (one look into a small table each) ─► pages: levels, numbers in as few bits as they need ─► a chunk
//! ```
//!
//! In: texts with their levels. Out: a column chunk, or none when there are too many different texts: then Parquet's own
//! writer takes the column. Labels are most of an event's columns, and that writer's general table of values takes longer for
//! them than all else together.
//!
//! Source: the Apache Parquet format, `Encodings.md` (plain, RLE and bit-packing hybrid) and `README.md` (data pages).

use std::hash::Hasher as _;

use arrow::array::{Array as _, MapArray, StringArray};
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use zstd::bulk::Compressor;

/// Different texts of one column chunk.
pub(super) const LABELS_MAX: usize = 1 << 11;
/// Places of the table that finds them: it stays half empty.
const SLOTS: usize = LABELS_MAX * 2;
/// Bytes of a text that are its own key.
const SHORT: usize = 16;
/// Rows of a page, as in all other columns.
const PAGE_ROWS: usize = 20_000;
/// Values that are packed together.
const GROUP: usize = 8;
/// Groups of one value that are worth a run of their own.
const RUN_GROUPS_MIN: usize = 4;

/// What encodes the label columns of one file.
pub(super) struct LabelWriter {
    compressor: Compressor<'static>,
    compression: Compression,
    /// With a secret: nobody can choose texts that are slow to tell apart.
    hasher: SipHasher13,
}

/// Where the texts of a leaf column stand among its rows.
pub(super) enum Levels {
    /// One a row, or null.
    Rows,
    /// Keys or values of a map's entries: where each row's begin and end. A row without any has no map.
    Entries(Vec<usize>),
}

/// A column chunk that is encoded already.
pub(super) struct LabelChunk {
    pub(super) bytes: bytes::Bytes,
    pub(super) close: ColumnCloseResult,
}

impl LabelWriter {
    /// A writer whose pages are compressed at this level.
    pub(super) fn new(level: ZstdLevel) -> Result<Self> {
        let compressor = Compressor::new(level.compression_level())?;
        let hasher = SipHasher13::new_with_keys(rand::random(), rand::random());
        Ok(Self { compressor, compression: Compression::ZSTD(level), hasher })
    }

    /// The chunk of a row group's texts; none when too many are different.
    pub(super) fn chunk(
        &mut self,
        column: &ColumnDescPtr,
        texts: &StringArray,
        levels: &Levels,
    ) -> Result<Option<LabelChunk>> {
        let Some(numbered) = Numbered::of(texts, self.hasher) else { return Ok(None) };
        let rows = match levels {
            Levels::Rows => texts.len(),
            Levels::Entries(ends) => ends.len() - 1,
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
            let (page_values, filled) = levels.write(column, texts, start, page_rows, &mut plain);
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
        Ok(Some(LabelChunk { bytes: bytes.into(), close }))
    }
}

fn count(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| ParquetError::General("a page has too many values".into()))
}

/// Texts as numbers.
struct Numbered {
    /// The different texts, in order of their numbers, each behind its length.
    dictionary: Vec<u8>,
    labels: usize,
    /// Bits of a number.
    bits: u8,
    /// One for each text that is not null.
    numbers: Vec<u16>,
}

/// A place of the table: a text's key, its length, and its number.
#[derive(Clone, Copy)]
struct Slot {
    key: u128,
    length: u32,
    number: u16,
    is_taken: bool,
}

impl Numbered {
    /// None when there are more than [`LABELS_MAX`] different ones.
    fn of(texts: &StringArray, hasher: SipHasher13) -> Option<Self> {
        let seed = hasher.finish128().as_u128();
        let mut slots = vec![Slot { key: 0, length: 0, number: 0, is_taken: false }; SLOTS];
        // Where the texts begin in the dictionary.
        let (mut starts, mut dictionary) = (Vec::new(), Vec::new());
        let mut numbers = Vec::with_capacity(texts.len() - texts.null_count());
        let (bytes, ends) = (texts.value_data(), texts.value_offsets());
        for (row, ends) in ends.windows(2).enumerate() {
            if texts.is_null(row) {
                continue;
            }
            let (start, end) = (ends[0] as usize, ends[1] as usize);
            let text = &bytes[start..end];
            let key = match text.len() {
                ..=SHORT => short_key(bytes, start, end),
                _ => long_key(text, hasher),
            };
            let mut at = place(key, text.len(), seed);
            let number = loop {
                let slot = &mut slots[at];
                if !slot.is_taken {
                    if starts.len() == LABELS_MAX {
                        return None;
                    }
                    let number = starts.len() as u16;
                    *slot = Slot { key, length: text.len() as u32, number, is_taken: true };
                    dictionary.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    starts.push(dictionary.len());
                    dictionary.extend_from_slice(text);
                    break number;
                }
                if slot.key == key && slot.length as usize == text.len() {
                    let known = starts[usize::from(slot.number)];
                    if text.len() <= SHORT || dictionary[known..known + text.len()] == *text {
                        break slot.number;
                    }
                }
                at = (at + 1) % SLOTS;
            };
            numbers.push(number);
        }
        let labels = starts.len();
        let bits = bits_of(labels.saturating_sub(1));
        Some(Self { dictionary, labels, bits, numbers })
    }
}

/// The bytes of a short text as a number.
fn short_key(bytes: &[u8], start: usize, end: usize) -> u128 {
    let length = end - start;
    match bytes.get(start..start + SHORT) {
        _ if length == 0 => 0,
        // What stands behind it is cut off: one load is quicker than as many bytes as there are.
        Some(chunk) => chunk.try_into().map_or(0, u128::from_le_bytes) & (u128::MAX >> (8 * (SHORT - length))),
        None => {
            let mut chunk = [0; SHORT];
            chunk[..length].copy_from_slice(&bytes[start..end]);
            u128::from_le_bytes(chunk)
        }
    }
}

fn long_key(text: &[u8], mut hasher: SipHasher13) -> u128 {
    hasher.write(text);
    hasher.finish128().as_u128()
}

/// The first place where a key is looked for.
fn place(key: u128, length: usize, seed: u128) -> usize {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let halves = |number: u128| (number as u64, (number >> 64) as u64);
    let ((low, high), (one, other)) = (halves(key), halves(seed));
    // A product of two secrets: from outside nobody can tell what either half of a key does to it.
    let product = u128::from(low ^ one) * u128::from(high.rotate_left(29) ^ other ^ length as u64);
    let (low, high) = halves(product);
    ((low ^ high).wrapping_mul(MULTIPLIER) >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}

impl Levels {
    /// Where a map's entries stand among those alone that it has, from the first on; none when it has entries that are
    /// hidden, or none where there is a map.
    pub(super) fn of(map: &MapArray) -> Option<Self> {
        let offsets = map.value_offsets();
        let is_plain = |row: usize| map.is_null(row) == (offsets[row] == offsets[row + 1]);
        let ends = offsets.iter().map(|end| (end - offsets[0]) as usize).collect();
        (0..map.len()).all(is_plain).then_some(Self::Entries(ends))
    }

    /// Writes the levels of `rows` rows from `start` on. How many they are, and how many texts stand behind them.
    fn write(
        &self,
        column: &ColumnDescPtr,
        texts: &StringArray,
        start: usize,
        rows: usize,
        into: &mut Vec<u8>,
    ) -> (usize, usize) {
        let defined = column.max_def_level() as u16;
        match self {
            Self::Rows if defined == 0 => (rows, rows),
            Self::Rows => {
                let levels: Vec<u16> = (start..start + rows).map(|row| u16::from(texts.is_valid(row))).collect();
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
                        let is_valid = texts.is_valid(entry);
                        filled += usize::from(is_valid);
                        repeats.push(u16::from(entry > entries.start));
                        definitions.push(if is_valid { defined } else { defined - 1 });
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
