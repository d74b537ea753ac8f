//! Metrics of lake maintenance, per table.
//!
//! **Invariant:** a label value is the name of a declared table, a level, or an outcome.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use super::label_value::{Label, Labels};
use super::metrics_registry::MetricsRegistry;

/// The names of the levels of files.
const LEVELS: [&str; 4] = ["0", "1", "2", "3"];

/// The outcome of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeOutcome {
    /// The new files are part of the table.
    Merged,
    /// Another writer removed one of the files first, so nothing was replaced.
    Void,
    /// The merge failed.
    Failed,
}

/// The number of files of one level, and their size in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelSize {
    /// The number of files.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Metrics of lake maintenance.
#[derive(Debug)]
pub struct MaintenanceMetrics {
    files: Family<Labels<2>, Gauge>,
    file_bytes: Family<Labels<2>, Gauge>,
    merges: Family<Labels<2>, Counter>,
    merged_rows: Family<Labels<1>, Counter>,
    merge_read: Family<Labels<1>, Counter>,
    merge_written: Family<Labels<1>, Counter>,
    expired_files: Family<Labels<1>, Counter>,
    expired_rows: Family<Labels<1>, Counter>,
    vacuum: VacuumMetrics,
    units_due: Family<Labels<1>, Gauge>,
    left_alone: Family<Labels<1>, Gauge>,
    suspended: Family<Labels<1>, Gauge>,
}

/// Metrics of vacuum and of the clean-up of logs.
#[derive(Debug)]
struct VacuumMetrics {
    vacuumed_files: Family<Labels<1>, Counter>,
    vacuumed_bytes: Family<Labels<1>, Counter>,
    vacuum_refused: Family<Labels<1>, Counter>,
    vacuum_time: Family<Labels<1>, Gauge>,
    foreign_files: Family<Labels<1>, Gauge>,
    log_deleted: Family<Labels<2>, Counter>,
}

impl VacuumMetrics {
    fn new(registry: &mut MetricsRegistry) -> Self {
        Self {
            vacuumed_files: registry.add("vacuumed_files", "Deleted files that no version needed", Family::default()),
            vacuumed_bytes: registry.add_in(
                Unit::Bytes,
                "vacuumed",
                "Size of deleted files that no version needed",
                Family::default(),
            ),
            vacuum_refused: registry.add(
                "vacuum_refused",
                "Deletes of files that the object store refused",
                Family::default(),
            ),
            vacuum_time: registry.add_in(
                Unit::Seconds,
                "vacuum_last_run_timestamp",
                "Time of the last vacuum by this server, in seconds since 1970",
                Family::default(),
            ),
            foreign_files: registry.add(
                "lake_foreign_files",
                "Files in the folder of a table with names that Glasshouse does not use",
                Family::default(),
            ),
            log_deleted: registry.add(
                "lake_log_deleted",
                "Deleted log entries and checkpoints, by kind",
                Family::default(),
            ),
        }
    }
}

impl MaintenanceMetrics {
    pub(super) fn new(registry: &mut MetricsRegistry) -> Self {
        Self {
            files: registry.add("lake_files", "Live files, by level", Family::default()),
            file_bytes: registry.add_in(
                Unit::Bytes,
                "lake_file",
                "Size of the live files, by level",
                Family::default(),
            ),
            merges: registry.add("merges", "Merges of files, by outcome", Family::default()),
            merged_rows: registry.add("merged_rows", "Rows of merged files", Family::default()),
            merge_read: registry.add_in(
                Unit::Bytes,
                "merge_read",
                "Size of the files that were merged",
                Family::default(),
            ),
            merge_written: registry.add_in(
                Unit::Bytes,
                "merge_written",
                "Size of the files that merges have written",
                Family::default(),
            ),
            expired_files: registry.add(
                "expired_files",
                "Files that were removed because all rows had expired",
                Family::default(),
            ),
            expired_rows: registry.add(
                "expired_rows",
                "Rows of files that were removed because they had expired",
                Family::default(),
            ),
            vacuum: VacuumMetrics::new(registry),
            units_due: registry.add("merge_units_due", "Merges that are due", Family::default()),
            left_alone: registry.add(
                "lake_files_left_alone",
                "Files that cannot be merged, for example because they are corrupt",
                Family::default(),
            ),
            suspended: registry.add(
                "merges_suspended",
                "1 if the merges of a table are suspended because a proof failed",
                Family::default(),
            ),
        }
    }

    /// Counts a merge whose files were replaced. `read` and `written` are bytes.
    pub fn merged(&self, table: &str, rows: u64, read: u64, written: u64) {
        self.merge_ended(table, MergeOutcome::Merged);
        self.merged_rows.get_or_create(&named(table)).inc_by(rows);
        self.merge_read.get_or_create(&named(table)).inc_by(read);
        self.merge_written.get_or_create(&named(table)).inc_by(written);
    }

    /// Counts a merge that replaced nothing.
    pub fn merge_ended(&self, table: &str, outcome: MergeOutcome) {
        let outcome = match outcome {
            MergeOutcome::Merged => "merged",
            MergeOutcome::Void => "void",
            MergeOutcome::Failed => "failed",
        };
        self.merges.get_or_create(&[("table", Label::owned(table)), ("outcome", outcome.into())]).inc();
    }

    /// Counts files that were removed because all rows had expired.
    pub fn expired(&self, table: &str, files: u64, rows: u64) {
        self.expired_files.get_or_create(&named(table)).inc_by(files);
        self.expired_rows.get_or_create(&named(table)).inc_by(rows);
    }

    /// Records a vacuum. `refused` is the number of deletes that the store refused, `foreign` the number of files with
    /// unknown names if the folder was listed, and `now` the time in seconds since 1970.
    pub fn vacuumed(&self, table: &str, files: u64, bytes: u64, refused: u64, foreign: Option<u64>, now: i64) {
        self.vacuum.vacuumed_files.get_or_create(&named(table)).inc_by(files);
        self.vacuum.vacuumed_bytes.get_or_create(&named(table)).inc_by(bytes);
        self.vacuum.vacuum_refused.get_or_create(&named(table)).inc_by(refused);
        self.vacuum.vacuum_time.get_or_create(&named(table)).set(now);
        if let Some(foreign) = foreign {
            self.vacuum.foreign_files.get_or_create(&named(table)).set(gauge(foreign));
        }
    }

    /// Counts deleted log entries and checkpoints.
    pub fn log_cleaned(&self, table: &str, entries: u64, checkpoints: u64) {
        for (kind, count) in [("entry", entries), ("checkpoint", checkpoints)] {
            let labels = [("table", Label::owned(table)), ("kind", kind.into())];
            self.vacuum.log_deleted.get_or_create(&labels).inc_by(count);
        }
    }

    /// Records the live files of a table, by level.
    pub fn live_files(&self, table: &str, levels: &[LevelSize; 4]) {
        for (level, size) in LEVELS.into_iter().zip(levels) {
            let labels = [("table", Label::owned(table)), ("level", level.into())];
            self.files.get_or_create(&labels).set(gauge(size.files));
            self.file_bytes.get_or_create(&labels).set(gauge(size.bytes));
        }
    }

    /// Records the state of a table's merges.
    pub fn merge_state(&self, table: &str, units_due: usize, left_alone: usize, is_suspended: bool) {
        self.units_due.get_or_create(&named(table)).set(gauge(units_due as u64));
        self.left_alone.get_or_create(&named(table)).set(gauge(left_alone as u64));
        self.suspended.get_or_create(&named(table)).set(is_suspended.into());
    }
}

fn named(table: &str) -> Labels<1> {
    [("table", Label::owned(table))]
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
