//! Lookup tables, which transforms of sources can join: from a file, a URL or the lake itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::Config;
use super::collections::check_name;
use super::error::ConfigErrors;
use super::key::{none, section, time};
use super::loopback::has_credentials;
use super::server_sections::{DAY, MINUTE, SECOND};
use super::tables::{COLUMN_KINDS, ColumnConfig};
use crate::error::did_you_mean;

section! {
    /// One lookup table: exactly one of `file`, `url` and `query`.
    LookupConfig {
        /// A file, relative to the folder of this file: `.csv` with a header, `.json`, `.jsonl` or `.ndjson` (one object per
        /// line), or `.parquet`.
        file: Option<PathBuf> = none(),
            "for data that you edit by hand or write with a job";
        /// The same formats at an `https://` or `http://` URL.
        url: Option<String> = none(),
            "for data of another service; must not contain credentials, since it is shown";
        /// CA certificates (PEM) to trust for `url`, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "a private service often has a private CA";
        /// One SQL query over the tables of this lake, of all their tenants.
        query: Option<String> = none(),
            "for data that another source ingests; runs with the operator's rights";
        /// How often it is loaded again.
        refresh: Duration = time(MINUTE, SECOND..=7 * DAY),
            "a failed load is retried then, and the last valid version is used meanwhile";
        /// Its columns, as in a table; inferred from the data if omitted.
        columns: Vec<ColumnConfig> = none(),
            "fixes the types independently of the data, and lets the transform be checked before anything is loaded";
    }
}

/// The name of the batch's messages in transforms.
const MESSAGES: &str = "messages";

/// The file format of a lookup table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Json,
    /// Parquet.
    Parquet,
}

impl LookupFormat {
    /// The format of a path, by its extension.
    pub fn of(path: &str) -> Option<Self> {
        let end = Path::new(path).extension()?.to_str()?.to_ascii_lowercase();
        match end.as_str() {
            "csv" => Some(Self::Csv),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Checks keys against each other.
pub(super) fn across(config: &Config, faults: &mut ConfigErrors) {
    for (name, lookup) in &config.lookups {
        let key = format!("lookups.{name}");
        if name == MESSAGES {
            faults.add(&key, "is reserved for the batch's messages: use another name");
        }
        let said = [lookup.file.is_some(), lookup.url.is_some(), lookup.query.is_some()];
        if said.into_iter().filter(|said| *said).count() != 1 {
            faults.add(&key, "needs exactly one of `file`, `url` and `query`");
        }
        if let Some(file) = &lookup.file {
            format_of(&format!("{key}.file"), &file.to_string_lossy(), faults);
        }
        if let Some(url) = &lookup.url {
            check_url(&format!("{key}.url"), url, faults);
        }
        if lookup.ca_file.is_some() && lookup.url.is_none() {
            faults.add(&format!("{key}.ca_file"), "is for `url` only");
        }
        if lookup.query.as_ref().is_some_and(|query| query.trim().is_empty()) {
            faults.add(&format!("{key}.query"), "must not be empty");
        }
        for column in &lookup.columns {
            check_column(&format!("{key}.columns.{}", column.name), column, faults);
        }
    }
}

fn format_of(key: &str, path: &str, faults: &mut ConfigErrors) {
    if LookupFormat::of(path).is_none() {
        faults.add(key, "must end in .csv, .json, .jsonl, .ndjson or .parquet");
    }
}

fn check_url(key: &str, url: &str, faults: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return faults.add(key, format!("is not a valid URL: {error}")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        faults.add(key, format!("unknown scheme `{}`: use https or http", url.scheme()));
    }
    if has_credentials(&url) {
        faults.add(key, "must not contain credentials: it is shown by `config show` and in the log");
    }
    format_of(key, url.path(), faults);
}

fn check_column(key: &str, column: &ColumnConfig, faults: &mut ConfigErrors) {
    check_name(&column.name, key, faults);
    if column.kind.is_empty() || COLUMN_KINDS.contains(&column.kind.as_str()) && column.kind != "map" {
        return;
    }
    let guess = did_you_mean(&column.kind, COLUMN_KINDS.into_iter().filter(|kind| *kind != "map"));
    faults.add(key, format!("a lookup table cannot have a column of type `{}`{guess}", column.kind));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a configuration with these sections.
    fn faults(text: &str) -> String {
        let least = "[lake]\nurl = \"memory:///\"\n[tables.calls]\ntenant = \"who\"\ntime = \"at\"\nid = \"key\"\n\
                     columns = { who = \"text\", at = \"timestamp\", key = \"text\" }\n";
        let read = Config::parse(&format!("{least}{text}"), "t.toml", Path::new("/etc/glasshouse"), std::iter::empty());
        read.err().map(|faults| faults.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_lookup_table_says_where_it_comes_from() {
        let with = |lines: &str| faults(&format!("[lookups.places]\n{lines}"));
        for good in [
            "file = \"a.csv\"",
            "url = \"https://a.example/b.parquet?x=1\"\nrefresh = \"5s\"",
            "query = \"SELECT 1 AS id\"\ncolumns = { id = \"int64\" }",
        ] {
            let given = with(good);
            assert!(!given.contains("lookups"), "{good}: {given}");
        }
        let cases = [
            ("", "lookups.places: needs exactly one of `file`, `url` and `query`"),
            ("file = \"a.csv\"\nquery = \"SELECT 1\"", "needs exactly one"),
            ("file = \"a.txt\"", "lookups.places.file: must end in .csv"),
            ("url = \"https://a.example/\"", "must end in .csv"),
            ("file = \"a.csv\"\nca_file = \"ca.pem\"", "lookups.places.ca_file: is for `url` only"),
            ("url = \"ftp://a.example/b.csv\"", "unknown scheme `ftp`"),
            ("url = \"https://me:secret@a.example/b.csv\"", "must not contain credentials"),
            ("query = \" \"", "must not be empty"),
            ("file = \"a.csv\"\nrefresh = \"1ms\"", "lookups.places.refresh: must be 1s to 7d"),
            ("file = \"a.csv\"\ncolumns = { id = \"map\" }", "cannot have a column of type `map`"),
            ("file = \"a.csv\"\ncolumns = { id = \"int46\" }", "did you mean `int64`?"),
        ];
        for (lines, expected) in cases {
            let given = with(lines);
            assert!(given.contains(expected), "{lines}\n  gives {given}\n  not   {expected}");
        }
        assert!(faults("[lookups.messages]\nfile = \"a.csv\"").contains("reserved for the batch's messages"));
    }

    #[test]
    fn a_transform_is_written_once_and_an_envelope_needs_one() {
        let source = "[sources.one]\nkind = \"kafka\"\nbrokers = [\"a:1\"]\ntopics = [\"t\"]\ngroup = \"g\"\ntable = \"calls\"\n";
        let with = |lines: &str| faults(&format!("{source}{lines}"));
        let cases = [
            ("transform = \"SELECT 1\"", ""),
            ("transform = \"SELECT 1\"\nenvelope = \"debezium\"", ""),
            ("transform_file = \"a.sql\"", ""),
            ("transform = \"SELECT 1\"\ntransform_file = \"a.sql\"", "cannot be combined with `transform`"),
            ("transform = \" \"", "sources.one.transform: must not be empty"),
            ("envelope = \"debezium\"", "sources.one.envelope: needs a `transform`"),
            ("envelope = \"debezum\"", "did you mean `debezium`?"),
        ];
        for (lines, expected) in cases {
            let given = with(lines);
            let is_expected =
                if expected.is_empty() { !given.contains("sources.one") } else { given.contains(expected) };
            assert!(is_expected, "{lines}\n  gives {given}\n  not   {expected}");
        }
    }
}
