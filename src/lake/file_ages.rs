//! The commit deadline: a writer names a file in a log entry only within [`COMMIT_DEADLINE`] of the start of its put.
//!
//! Vacuum relies on this. It puts a log entry of its own, a fence, before it lists candidates, and deletes only files
//! that are older than the deadline and that no entry up to the fence names. An entry is put at the next version that
//! its writer knows. If it was sent before the fence, that version is taken by the fence or by an earlier entry, so the
//! put fails whenever it arrives. If it was sent after the fence, its files are younger than the deadline.
//!
//! **Invariant:** a file whose age is unknown counts as too old.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::clock::{Clock, Micros, Moment, SECOND};
use crate::lake::DataFile;

/// The maximum age of a file that a writer names in a log entry. The age is measured from the
/// start of its put.
pub(crate) const COMMIT_DEADLINE: Micros = 3_600 * SECOND;
/// The number of files above which the files that are too old are dropped.
const FILES_MIN: usize = 1_024;

/// The files whose puts this process has started, with the moment before each put.
#[derive(Debug)]
pub(super) struct FileAges {
    clock: Clock,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    started: HashMap<Arc<str>, Moment>,
    /// The number of files at which the old ones are dropped again.
    drop_at: usize,
}

impl FileAges {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, files: Mutex::default() }
    }

    /// Records that the put of a file starts now.
    pub(super) fn start(&self, path: &Arc<str>) {
        let mut files = self.lock();
        if files.started.len() >= files.drop_at.max(FILES_MIN) {
            files.started.retain(|_, started| self.clock.longest_since(*started) < COMMIT_DEADLINE);
            files.drop_at = files.started.len() * 2;
        }
        files.started.insert(Arc::clone(path), self.clock.moment());
    }

    /// Returns true if a log entry may no longer name one of the files.
    pub(super) fn is_past_deadline(&self, files: &[Arc<DataFile>]) -> bool {
        let started = &self.lock().started;
        files.iter().any(|file| match started.get(&file.path) {
            Some(started) => self.clock.longest_since(*started) >= COMMIT_DEADLINE,
            None => true,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
