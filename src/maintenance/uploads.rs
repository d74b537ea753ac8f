//! Stores the new files of a merge while they are encoded.
//!
//! ```text
//!   encoded bytes ─► parts of the open file ─► end of the file ─► listed
//! ```
//!
//! **Invariant:** a file is listed before it is complete, so that a failed merge deletes every file that may exist.

use std::sync::Arc;

use crate::error::Result;
use crate::lake::{DataFile, FileSummary, FileUpload, Table};
use crate::maintenance::output::Stored;
use crate::maintenance::policy::Unit;

/// The new files of a unit.
pub(super) struct Uploads<'u> {
    table: Arc<Table>,
    unit: &'u Unit,
    open: Option<(FileUpload, Arc<str>)>,
    files: Vec<DataFile>,
}

impl<'u> Uploads<'u> {
    pub(super) fn new(table: Arc<Table>, unit: &'u Unit) -> Self {
        Self { table, unit, open: None, files: Vec::new() }
    }

    /// Returns the new files, which are all complete after the last bytes have been stored.
    pub(super) fn into_files(self) -> Vec<DataFile> {
        self.files
    }

    /// Stores encoded bytes, and starts and completes files.
    pub(super) async fn store(&mut self, stored: Vec<Stored>) -> Result<()> {
        for next in stored {
            match next {
                Stored::Bytes { bytes, range } => {
                    let (upload, _) = match &mut self.open {
                        Some(open) => open,
                        none => none.insert(self.table.start_file(self.unit.day, self.unit.level, range)?),
                    };
                    upload.write(bytes).await?;
                }
                Stored::End(summary) => self.end(&summary).await?,
            }
        }
        Ok(())
    }

    async fn end(&mut self, summary: &FileSummary) -> Result<()> {
        let Some((upload, path)) = self.open.take() else { return Ok(()) };
        // The file is listed before it is complete, so it is deleted even if the outcome of the last put is unknown.
        self.files.push(self.table.stored_file(&path, self.unit.day, summary));
        upload.complete().await
    }

    /// Returns the number of bytes that wait for a put.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |(upload, _)| upload.waiting_bytes())
    }

    /// Deletes all files and parts, on a best-effort basis.
    pub(super) async fn discard(self) {
        if let Some((upload, _)) = self.open {
            upload.abort().await;
        }
        match self.table.draft(self.files, Vec::new()) {
            Ok(draft) => self.table.discard(draft).await,
            Err(error) => {
                tracing::debug!(%error, "cannot delete the files of a failed merge, which remain in the store")
            }
        }
    }
}
