//! Collects the errors of a configuration, each with its key and its location.
//!
//! Errors can be added in any order. The output has one line per error, sorted by location:
//!
//! ```text
//! glasshouse.toml:12:1: ingest.batch_rowz_max: unknown key, did you mean `batch_rows_max`?
//! GLASSHOUSE__QUERY__ROWS_MAX: query.rows_max: must be 1 to 1000000000000 rows, but is 0
//! ```
//!
//! **Invariant:** a message never contains a secret, because messages never quote the values of secret keys.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;

/// The location of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyLocation {
    /// The value is missing.
    #[default]
    Missing,
    /// A position in the file. Lines and columns are counted from 1.
    File {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// The environment variable with this name.
    Variable(String),
}

/// An error with its location, its key, and a message that says how to fix the problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    location: KeyLocation,
    key: String,
    message: String,
}

/// All errors of one configuration. When a function returns this type as an `Err`, the list contains at least one
/// error.
#[derive(Debug, Default)]
pub struct ConfigErrors {
    file: String,
    locations: BTreeMap<String, KeyLocation>,
    list: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Creates an empty list of errors for the file with this name.
    pub(super) fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::default() }
    }

    /// Records the location of `key`. A later call replaces the location, because the later value overrides the earlier
    /// one.
    pub(super) fn record_location(&mut self, key: impl Into<String>, location: KeyLocation) {
        self.locations.insert(key.into(), location);
    }

    /// Returns true if the file or the environment sets `key`.
    pub(super) fn has_location(&self, key: &str) -> bool {
        self.locations.contains_key(key)
    }

    /// Returns true if an environment variable sets `key`.
    pub(super) fn is_variable(&self, key: &str) -> bool {
        matches!(self.locations.get(key), Some(KeyLocation::Variable(_)))
    }

    /// Adds an error about `key`. If `key` has no location, the error gets the location of the closest enclosing key.
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        let mut enclosing = Some(key);
        let location = loop {
            let Some(candidate) = enclosing else { break KeyLocation::Missing };
            if let Some(location) = self.locations.get(candidate) {
                break location.clone();
            }
            enclosing = candidate.rfind(['.', '[']).map(|end| &candidate[..end]);
        };
        self.add_at(location, key, message);
    }

    /// Adds an error about `key` at `location`.
    pub(super) fn add_at(&mut self, location: KeyLocation, key: &str, message: impl Into<String>) {
        self.list.push(ConfigError { location, key: key.to_owned(), message: message.into() });
    }

    /// Returns true if there are no errors.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the number of errors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns `value` if there are no errors. Otherwise returns the errors, sorted by location.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.list.is_empty() { Ok(value) } else { Err(self.sorted()) }
    }

    /// Sorts the errors by location and removes duplicates.
    pub(super) fn sorted(mut self) -> Self {
        self.list.sort();
        self.list.dedup();
        self
    }
}

impl fmt::Display for ConfigErrors {
    /// Writes one line per error, without a newline after the last line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { location, key, message }) in self.list.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n" })?;
            match location {
                KeyLocation::Missing => f.write_str(&self.file)?,
                KeyLocation::File { line, column } => write!(f, "{}:{line}:{column}", self.file)?,
                KeyLocation::Variable(name) => f.write_str(name)?,
            }
            let colon = if key.is_empty() { "" } else { ": " };
            write!(f, "{colon}{key}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for Error {
    fn from(errors: ConfigErrors) -> Self {
        Self::invalid(errors.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_gets_the_location_of_the_closest_enclosing_key() {
        let mut errors = ConfigErrors::new("a.toml");
        errors.record_location("policy", KeyLocation::File { line: 1, column: 1 });
        errors.record_location("policy.calls.rows[1]", KeyLocation::File { line: 7, column: 3 });
        errors.record_location("lake.url", KeyLocation::Variable("GLASSHOUSE__LAKE__URL".into()));
        errors.add("policy.calls.rows[1].claim", "is missing");
        errors.add("policy.flights.rows[0]", "is odd");
        errors.add("lake.url", "is wrong");
        errors.add("auth.issuers", "are missing");
        let text = errors.or(()).unwrap_err().to_string();
        assert_eq!(
            text,
            "a.toml: auth.issuers: are missing\n\
             a.toml:1:1: policy.flights.rows[0]: is odd\n\
             a.toml:7:3: policy.calls.rows[1].claim: is missing\n\
             GLASSHOUSE__LAKE__URL: lake.url: is wrong"
        );
    }
}
