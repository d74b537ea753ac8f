//! The section `[lookups.NAME]`: a lookup table that transforms can join. The rows of a lookup table come from a file,
//! a URL or a query.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::Config;
use super::collection_values::check_name;
use super::column_kind::ColumnKind;
use super::error::ConfigErrors;
use super::loopback::has_credentials;
use super::section_macro::{none, section, time};
use super::server_sections::{DAY, MINUTE, SECOND};
use super::tables::ColumnConfig;

section! {
    /// One lookup table. Exactly one of `file`, `url` and `query` provides its rows.
    LookupConfig {
        /// A file: `.csv` with a header, `.json`, `.jsonl` or `.ndjson` (one object per line), or `.parquet`.
        file: Option<PathBuf> = none(),
            "Use it for data that you edit by hand or that a job writes";
        /// An `https://` or `http://` URL of a file in one of the formats of `file`.
        url: Option<String> = none(),
            "Use it for data that another service provides. The URL must not contain credentials, because it is not \
             redacted in output";
        /// CA certificates (PEM) to trust for `url`, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "A private service often has a private CA";
        /// A SQL query over the tables of this lake. It reads the rows of all tenants.
        query: Option<String> = none(),
            "Use it if the data is already stored in a table of this lake. The query runs with the operator's rights";
        /// How often the lookup table is reloaded.
        refresh: Duration = time(MINUTE, SECOND..=7 * DAY),
            "If a load fails, the previous version is used until the next refresh succeeds";
        /// The columns of the lookup table, in the same form as those of a table; inferred from the data if omitted.
        columns: Vec<ColumnConfig> = none(),
            "A declaration fixes the types, and allows the transform to be checked before any data is loaded";
    }
}

/// The name under which transforms refer to the messages of a batch. No lookup table may have this name.
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
    /// Returns the format that the extension of `path` denotes, or `None` if the extension is unknown.
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

/// Checks that the keys of each lookup table are consistent with each other.
pub(super) fn across(config: &Config, errors: &mut ConfigErrors) {
    for (name, lookup) in &config.lookups {
        let key = format!("lookups.{name}");
        if name == MESSAGES {
            errors.add(&key, "is reserved for the messages of a batch: use another name");
        }
        let origins = [lookup.file.is_some(), lookup.url.is_some(), lookup.query.is_some()];
        if origins.into_iter().filter(|is_set| *is_set).count() != 1 {
            errors.add(&key, "needs exactly one of `file`, `url` and `query`");
        }
        if let Some(file) = &lookup.file {
            format_of(&format!("{key}.file"), &file.to_string_lossy(), errors);
        }
        if let Some(url) = &lookup.url {
            check_url(&format!("{key}.url"), url, errors);
        }
        if lookup.ca_file.is_some() && lookup.url.is_none() {
            errors.add(&format!("{key}.ca_file"), "can only be used with `url`");
        }
        if lookup.query.as_ref().is_some_and(|query| query.trim().is_empty()) {
            errors.add(&format!("{key}.query"), "must not be empty");
        }
        for column in &lookup.columns {
            check_column(&format!("{key}.columns.{}", column.name), column, errors);
        }
    }
}

fn format_of(key: &str, path: &str, errors: &mut ConfigErrors) {
    if LookupFormat::of(path).is_none() {
        errors.add(key, "must end in .csv, .json, .jsonl, .ndjson or .parquet");
    }
}

fn check_url(key: &str, url: &str, errors: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return errors.add(key, format!("is not a valid URL: {error}")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        errors.add(key, format!("unknown scheme `{}`: use https or http", url.scheme()));
    }
    if has_credentials(&url) {
        errors.add(key, "must not contain credentials, because `config show` and the log show the URL");
    }
    format_of(key, url.path(), errors);
}

fn check_column(key: &str, column: &ColumnConfig, errors: &mut ConfigErrors) {
    check_name(&column.name, key, errors);
    match (!column.kind.is_empty()).then(|| ColumnKind::parse(&column.kind)) {
        None => {}
        Some(Ok(ColumnKind::Map)) => errors.add(key, "a lookup table cannot have a column of type `map`"),
        Some(Ok(_)) => {}
        Some(Err(error)) => errors.add(key, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the errors of a configuration with the given sections.
    fn errors(text: &str) -> String {
        let required = "[lake]\nurl = \"memory:///\"\n[tables.calls]\ntenant = \"who\"\ntime = \"at\"\nid = \"key\"\n\
                     columns = { who = \"text\", at = \"timestamp\", key = \"text\" }\n";
        let read =
            Config::parse(&format!("{required}{text}"), "t.toml", Path::new("/etc/glasshouse"), std::iter::empty());
        read.err().map(|errors| errors.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_lookup_table_has_exactly_one_origin() {
        let with = |lines: &str| errors(&format!("[lookups.places]\n{lines}"));
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
            ("file = \"a.csv\"\nca_file = \"ca.pem\"", "lookups.places.ca_file: can only be used with `url`"),
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
        assert!(errors("[lookups.messages]\nfile = \"a.csv\"").contains("reserved for the messages of a batch"));
    }

    #[test]
    fn a_source_has_at_most_one_transform_and_an_envelope_requires_one() {
        let source = "[sources.one]\nkind = \"kafka\"\nbrokers = [\"a:1\"]\ntopics = [\"t\"]\ngroup = \"g\"\ntable = \"calls\"\n";
        let with = |lines: &str| errors(&format!("{source}{lines}"));
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
