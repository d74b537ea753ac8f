//! Event storage: Delta tables of Parquet files in one object store.
//!
//! ```text
//!   batch ─► parquet_writer (sorted rows, statistics) ─► log (put-if-absent of the next entry) ─► Snapshot
//!                                                          ▲                                   │
//!   other writers' entries ── refresh ─────────────────────┘            checkpoint, clean-up ◄─┘
//! ```
//!
//! Each table also tracks its in-flight events on this server ([`InFlight`]). Ingest registers events when they arrive,
//! and queries read the tracked events to compute freshness.
//!
//! **Invariant:** no state outside the Delta log is needed to recover a table, so a process may die at any time without
//! losing committed events.
//! **Invariant:** a snapshot is immutable and complete. A newer snapshot replaces it as a whole.
//! **Invariant:** a put returns only when the object is durable, and a log entry is written only if its version has no
//! entry yet.
//! **Invariant:** this is the only module that uses `deltalake`.

mod log;
mod parquet_writer;
mod read;
mod store;
mod table;

mod delete_files;
mod file_ages;
mod list_files;
mod merge_files;
mod open_table;
mod pins;

mod in_flight_events;
mod leases;

#[cfg(test)]
mod tests;

pub(crate) use delete_files::DeletedFiles;
pub(crate) use file_ages::COMMIT_DEADLINE;
pub use in_flight_events::{InFlight, InFlightGuard, LagState, PartitionFeed, SourceLag, Watermark};
pub(crate) use leases::Leases;
pub(crate) use list_files::{ForeignFiles, is_data_file};
pub use log::commit::{Committed, Draft};
pub use log::data_file::DataFile;
pub use log::day_files::DayFiles;
pub(crate) use log::fence::Fence;
pub use log::file_history::FileChange;
pub use log::log_maintenance::LogCleaned;
pub(crate) use log::removed_files::RemovedFile;
pub use log::replace::Replaced;
pub use log::snapshot::{Progress, Snapshot};
pub(crate) use log::table_state::day_text;
pub(crate) use merge_files::MergeInput;
pub use parquet_writer::parquet_file::WriteOptions;
pub use parquet_writer::sort::RowSelection;
pub(crate) use parquet_writer::sort::{common_prefix, eight_bytes};
pub use parquet_writer::streaming_file::FileLayout;
pub(crate) use parquet_writer::streaming_file::{EncodedGroup, FileSummary, StreamingFile};
pub use pins::Pin;
pub use read::event_lookup::EventKeys;
pub use read::read_error::{ReadError, is_missing_file};
pub(crate) use read::row_group_decoder::{FileBytes, RowGroupDecoder, RowGroupRows};
pub use store::client::Store;
pub(crate) use store::upload::FileUpload;
pub use table::{Table, Tables};
