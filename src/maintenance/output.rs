//! Writes merged rows: decides where row groups and files end, and checks each row group after it has been encoded.
//!
//! ```text
//!   columns, rows per tenant ─► row groups ─► encode ─► decode again, check, add to the proof ─► bytes ─► upload
//!                                    └─► files
//! ```
//!
//! A row group ends after 131,072 rows or, once it has 65,536 rows, at the end of a tenant. A tenant with more than
//! 131,072 rows has row groups of its own. A file ends at a range boundary, or at the end of a tenant once it has its
//! target size.
//!
//! **Invariant:** the proof is computed from the encoded bytes, so it covers the merge and the encoder.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::{EncodedGroup, FileBytes, FileLayout, FileSummary, RowGroupDecoder, StreamingFile};
use crate::maintenance::cursor::sum_of;
use crate::maintenance::file_cuts::{FileCuts, GROUP_ROWS_MAX, GROUP_ROWS_MIN};
use crate::maintenance::gather::{Run, gather};
use crate::maintenance::order::{Key, Keys};
use crate::maintenance::proof::{RowHasher, RowSum};

/// The number of rows per batch while a row group is checked.
const CHECK_ROWS: usize = 16_384;

/// What the caller has to store next.
pub(super) enum Stored {
    /// The next bytes of the current file. `range` is the range of the file's rows.
    Bytes { bytes: Bytes, range: usize },
    /// The end of the current file.
    End(FileSummary),
}

/// The files that are being written.
pub(super) struct Output {
    contract: Arc<Contract>,
    schema: SchemaRef,
    layout: FileLayout,
    cuts: FileCuts,
    hasher: RowHasher,
    file: Option<StreamingFile>,
    /// The range of the current file.
    range: usize,
    /// Rows that have not been passed to the file.
    waiting: VecDeque<Vec<ArrayRef>>,
    /// The number of waiting rows that belong to the current row group. They are followed by rows of the current
    /// tenant.
    decided: usize,
    /// The number of waiting rows of the current tenant for which no row group has been chosen.
    undecided: usize,
    tenant: Option<String>,
    /// True if the current tenant has its own row groups.
    has_own_groups: bool,
    last: Option<Key>,
    pub(super) sum: RowSum,
    pub(super) stored: Vec<Stored>,
}

impl Output {
    pub(super) fn new(
        contract: &Arc<Contract>,
        schema: &SchemaRef,
        layout: FileLayout,
        cuts: FileCuts,
        hasher: RowHasher,
    ) -> Self {
        Self {
            contract: Arc::clone(contract),
            schema: Arc::clone(schema),
            layout,
            cuts,
            hasher,
            file: None,
            range: 0,
            waiting: VecDeque::new(),
            decided: 0,
            undecided: 0,
            tenant: None,
            has_own_groups: false,
            last: None,
            sum: RowSum::default(),
            stored: Vec::new(),
        }
    }

    /// Writes rows that follow the previous ones. `tenants` has the name and the number of rows of each tenant, in
    /// order.
    pub(super) fn write<'t>(
        &mut self,
        columns: Vec<ArrayRef>,
        tenants: impl IntoIterator<Item = (&'t str, usize)>,
    ) -> Result<()> {
        let total = columns.first().map_or(0, |column| column.len());
        self.waiting.push_back(columns);
        for (name, rows) in tenants {
            if self.tenant.as_deref() != Some(name) {
                self.end_tenant()?;
                self.start_tenant(name)?;
            }
            self.add(rows)?;
        }
        self.write_decided()?;
        self.copy_rest(total)
    }

    /// Copies the rows that wait, if they are a small part of the `total` rows that they keep in memory.
    fn copy_rest(&mut self, total: usize) -> Result<()> {
        let Some(columns) = self.waiting.back_mut() else { return Ok(()) };
        let rows = columns.first().map_or(0, |column| column.len());
        if rows * 2 < total {
            let run = Run { batch: 0, start: 0, length: rows as u32 };
            let copied = columns.iter().map(|column| gather(&[column], &[run])).collect::<Result<_, _>>();
            *columns = copied.map_err(|error| Error::internal("rows cannot be copied").with_source(error))?;
        }
        Ok(())
    }

    /// Ends the last file.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.end_tenant()?;
        self.end_file()
    }

    fn start_tenant(&mut self, name: &str) -> Result<()> {
        let range = self.cuts.boundaries.partition_point(|boundary| **boundary <= *name);
        if range != self.range {
            self.end_file()?;
            self.range = range;
        }
        self.tenant = Some(name.to_owned());
        Ok(())
    }

    /// Adds rows of the current tenant.
    fn add(&mut self, rows: usize) -> Result<()> {
        self.undecided += rows;
        if !self.has_own_groups && self.undecided > GROUP_ROWS_MAX {
            self.end_group()?;
            if self.has_file_size() {
                self.end_file()?;
            }
            self.has_own_groups = true;
        }
        if self.has_own_groups {
            self.fill_groups(self.cuts.tenant_group_rows_max)?;
        }
        Ok(())
    }

    fn end_tenant(&mut self) -> Result<()> {
        if self.has_own_groups {
            self.has_own_groups = false;
            self.end_group()?;
        } else {
            self.fill_groups(GROUP_ROWS_MAX)?;
            if self.group_rows() >= GROUP_ROWS_MIN {
                self.end_group()?;
            }
        }
        if self.has_file_size() { self.end_file() } else { Ok(()) }
    }

    /// Adds all undecided rows to row groups of at most `rows_max` rows.
    fn fill_groups(&mut self, rows_max: usize) -> Result<()> {
        while self.undecided > 0 {
            let rows = self.undecided.min(rows_max.saturating_sub(self.group_rows()));
            self.decided += rows;
            self.undecided -= rows;
            if self.undecided > 0 {
                self.end_group()?;
                // A tenant with its own row groups may fill several files.
                if self.has_own_groups && self.has_file_size() {
                    self.end_file()?;
                }
            }
        }
        Ok(())
    }

    fn group_rows(&self) -> usize {
        self.decided + self.file.as_ref().map_or(0, StreamingFile::group_rows)
    }

    fn has_file_size(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.bytes_written() >= self.cuts.file_bytes)
    }

    /// Passes the decided rows to the file.
    fn write_decided(&mut self) -> Result<()> {
        while self.decided > 0
            && let Some(mut columns) = self.waiting.pop_front()
        {
            let rows = columns.first().map_or(0, |column| column.len());
            let taken = rows.min(self.decided);
            if taken < rows {
                let rest = columns.iter().map(|column| column.slice(taken, rows - taken)).collect();
                self.waiting.push_front(rest);
                columns = columns.iter().map(|column| column.slice(0, taken)).collect();
            }
            self.decided -= taken;
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(StreamingFile::new(&self.contract, &self.schema, &self.layout)?),
            };
            file.write(&columns)?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        self.write_decided()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let Some(group) = file.end_group()? else { return Ok(()) };
        self.check(&group)?;
        self.stored.push(Stored::Bytes { bytes: group.bytes, range: self.range });
        Ok(())
    }

    fn end_file(&mut self) -> Result<()> {
        self.end_group()?;
        let Some(file) = self.file.take() else { return Ok(()) };
        let (bytes, summary) = file.finish()?;
        self.stored.push(Stored::Bytes { bytes, range: self.range });
        self.stored.push(Stored::End(summary));
        Ok(())
    }

    /// Decodes an encoded row group, adds its rows to the proof, and checks their order.
    fn check(&mut self, group: &EncodedGroup) -> Result<()> {
        let columns = match self.hasher.is_whole() {
            true => self.schema.fields().len(),
            false => 3,
        };
        let columns: Vec<usize> = (0..columns).collect();
        let decoder = RowGroupDecoder::new(&group.metadata, &self.schema, &columns)?;
        let bytes = FileBytes { offset: group.offset, bytes: group.bytes.clone() };
        let mut rows = decoder.decode(0, bytes, CHECK_ROWS).map_err(unreadable)?;
        while let Some(columns) = rows.next_batch().map_err(unreadable)? {
            let keys = Keys::new(&columns)?;
            self.sum.add(sum_of(&self.hasher, &keys, &columns)?);
            let follows = self.last.as_ref().is_none_or(|last| keys.len() == 0 || keys.compare(0, last).is_ge());
            if !follows || !keys.is_sorted() {
                return Err(Error::internal("the merged rows are not in order"));
            }
            if let Some(last) = keys.len().checked_sub(1) {
                self.last = Some(keys.key(last));
            }
        }
        Ok(())
    }

    /// Returns the memory that rows and encoded bytes take, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let waiting: usize = self.waiting.iter().flatten().map(|column| column.get_array_memory_size()).sum();
        let stored = self.stored.iter().map(|stored| match stored {
            Stored::Bytes { bytes, .. } => bytes.len(),
            Stored::End(_) => 0,
        });
        waiting + stored.sum::<usize>() + self.file.as_ref().map_or(0, StreamingFile::memory_bytes)
    }
}

fn unreadable(error: Error) -> Error {
    Error::internal("an encoded row group cannot be decoded").with_source(error)
}
