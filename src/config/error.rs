//! Collects all errors of a configuration, each with its location.
//!
//! In: keys (`ingest.batch_rows_max`) and messages, in any order. Out: one line per error, sorted by location:
//!
//! ```text
//! glasshouse.toml:12:1: ingest.batch_rowz_max: unknown key, did you mean `batch_rows_max`?
//! GLASSHOUSE__QUERY__ROWS_MAX: query.rows_max: must be at least 1 row, is 0
//! ```
//!
//! **Invariant:** a message never contains a secret: only values of keys that are not secret are quoted.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;

/// Where a value was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyLocation {
    /// Nowhere: it is missing.
    #[default]
    Nowhere,
    /// In the file; both count from 1.
    File {
        /// Its line.
        line: usize,
        /// Its column, in characters.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(String),
}

/// One error: its location, its key, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    place: KeyLocation,
    key: String,
    message: String,
}

/// All errors of one configuration. As an `Err` it contains at least one.
#[derive(Debug, Default)]
pub struct ConfigErrors {
    file: String,
    places: BTreeMap<String, KeyLocation>,
    list: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Without errors; `file` names the text.
    pub(super) fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::default() }
    }

    /// Records where `key` was written. A later location replaces an earlier one, as for the value.
    pub(super) fn place(&mut self, key: impl Into<String>, place: KeyLocation) {
        self.places.insert(key.into(), place);
    }

    /// Whether `key` was written anywhere.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Adds an error of `key`, at its location or that of the closest enclosing key.
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        let mut around = Some(key);
        let place = loop {
            let Some(candidate) = around else { break KeyLocation::Nowhere };
            if let Some(place) = self.places.get(candidate) {
                break place.clone();
            }
            around = candidate.rfind(['.', '[']).map(|end| &candidate[..end]);
        };
        self.add_at(place, key, message);
    }

    /// Adds an error at a location.
    pub(super) fn add_at(&mut self, place: KeyLocation, key: &str, message: impl Into<String>) {
        self.list.push(ConfigError { place, key: key.to_owned(), message: message.into() });
    }

    /// Whether there are no errors.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of errors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// `value` if there are no errors, otherwise all errors in the order of locations.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.list.is_empty() { Ok(value) } else { Err(self.sorted()) }
    }

    /// The same in the order of locations, without duplicates.
    pub(super) fn sorted(mut self) -> Self {
        self.list.sort();
        self.list.dedup();
        self
    }
}

impl fmt::Display for ConfigErrors {
    /// One line per error, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { place, key, message }) in self.list.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n" })?;
            match place {
                KeyLocation::Nowhere => f.write_str(&self.file)?,
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
    fn from(faults: ConfigErrors) -> Self {
        Self::invalid(faults.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_placed_at_the_closest_known_key() {
        let mut faults = ConfigErrors::new("a.toml");
        faults.place("policy", KeyLocation::File { line: 1, column: 1 });
        faults.place("policy.calls.rows[1]", KeyLocation::File { line: 7, column: 3 });
        faults.place("lake.url", KeyLocation::Variable("GLASSHOUSE__LAKE__URL".into()));
        faults.add("policy.calls.rows[1].claim", "is missing");
        faults.add("policy.flights.rows[0]", "is odd");
        faults.add("lake.url", "is wrong");
        faults.add("auth.issuers", "are missing");
        let text = faults.or(()).unwrap_err().to_string();
        assert_eq!(
            text,
            "a.toml: auth.issuers: are missing\n\
             a.toml:1:1: policy.flights.rows[0]: is odd\n\
             a.toml:7:3: policy.calls.rows[1].claim: is missing\n\
             GLASSHOUSE__LAKE__URL: lake.url: is wrong"
        );
    }
}
