//! The reason why a file could not be read.

use parquet::errors::ParquetError;

use crate::contract::Contract;
use crate::error::Error;
use crate::lake::DataFile;

/// The reason why a file could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The store does not have the file. If another version of the table replaced the file some time ago, its rows are
    /// in other files.
    Missing(Error),
    /// The read failed for any other reason.
    Failed(Error),
}

impl ReadError {
    /// Creates the error for a file of the table that `contract` declares.
    pub(in crate::lake) fn new(contract: &Contract, file: &DataFile, error: ParquetError) -> Self {
        let unreadable =
            |problem: &str| Error::unavailable(format!("table `{}`: {problem} `{}`", contract.name, file.path));
        match is_missing_file(&error) {
            true => Self::Missing(unreadable("the object store does not have file").with_source(error)),
            false => Self::Failed(unreadable("cannot read file").with_source(error)),
        }
    }
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing(error) | ReadError::Failed(error) => error,
        }
    }
}

/// Returns true if the error, or one of its causes, means that the object store does not have a file.
pub fn is_missing_file(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<object_store::Error>())
        .any(|cause| matches!(cause, object_store::Error::NotFound { .. }))
}
