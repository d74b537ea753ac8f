//! The section `[lookups.NAME]`: a lookup table that transforms can join. The rows of a lookup table come from a file,
//! a URL or a query. Tenants can query a lookup table that sets `tenant` or `shared` and has a policy.
//!
//! **Invariant:** the columns of a lookup table with `tenant` are declared. Columns that are inferred from the rows of
//! all tenants would tell each tenant something about the rows of the others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::Config;
use super::collection_values::check_name;
use super::column_kind::ColumnKind;
use super::error::ConfigErrors;
use super::loopback::has_credentials;
use super::section_macro::{none, plain, section, time};
use super::server_sections::{DAY, MINUTE, SECOND};
use super::tables::{CHANGES_SUFFIX, ColumnConfig, PolicyConfig, QUARANTINE_SUFFIX};
use crate::error::did_you_mean;

section! {
    /// One lookup table. Exactly one of `file`, `url` and `query` provides its rows.
    LookupConfig {
        /// The description of the lookup table in catalogs and BI tools.
        description: String = none(),
            "Catalogs contain no other information about the purpose of the table";
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
        /// The text column that contains the tenant to which a row belongs. With it, tenants can query their own rows
        /// of the lookup table, if it has a policy. Needs `columns`.
        tenant: Option<String> = none(),
            "Each tenant sees only the rows whose value in this column equals its name. A row with a null belongs to no \
             tenant";
        /// If true, all tenants can query all rows of the lookup table, if it has a policy. Cannot be combined with
        /// `tenant`.
        shared: bool = plain(false),
            "By default, only transforms can read a lookup table";
    }
}

impl LookupConfig {
    /// Returns true if queries can read the lookup table.
    pub fn is_queryable(&self) -> bool {
        self.shared || self.tenant.is_some()
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
        if lookup.is_queryable() {
            queryable(name, lookup, config, errors);
        }
    }
}

/// Checks a lookup table that queries can read. In a catalog, it is one of the tables.
fn queryable(name: &str, lookup: &LookupConfig, config: &Config, errors: &mut ConfigErrors) {
    let key = format!("lookups.{name}");
    let changes = name.strip_suffix(CHANGES_SUFFIX).and_then(|table| config.tables.get(table));
    if config.tables.contains_key(name) {
        errors.add(&key, "a table has the same name: rename one of the two, because queries can read both");
    } else if name.ends_with(QUARANTINE_SUFFIX) {
        let message =
            format!("a name that ends in `{QUARANTINE_SUFFIX}` is reserved for rejected events: use another name");
        errors.add(&key, message);
    } else if changes.is_some_and(|table| table.latest.is_some()) {
        errors.add(&key, "is reserved for all versions of a table with `latest`: use another name");
    }
    if lookup.shared && lookup.tenant.is_some() {
        errors.add(&format!("{key}.shared"), "cannot be combined with `tenant`: remove one of them");
    }
    if !config.policy.contains_key(name) {
        let set = if lookup.shared { "shared" } else { "tenant" };
        let message = format!("has no effect without a policy: add the section [policy.{name}], which can be empty");
        errors.add(&format!("{key}.{set}"), message);
    }
    if let Some(tenant) = &lookup.tenant {
        check_tenant(&format!("{key}.tenant"), tenant, &lookup.columns, errors);
    }
}

fn check_tenant(key: &str, tenant: &str, columns: &[ColumnConfig], errors: &mut ConfigErrors) {
    if columns.is_empty() {
        return errors
            .add(key, "needs `columns`: columns that are inferred from all rows would reveal other tenants' rows");
    }
    match columns.iter().find(|column| column.name == tenant) {
        Some(column) if ColumnKind::parse(&column.kind) == Ok(ColumnKind::Text) => {}
        Some(column) => {
            errors.add(key, format!("column `{tenant}` must have the type `text`, but has `{}`", column.kind));
        }
        None => {
            let guess = did_you_mean(tenant, columns.iter().map(|column| column.name.as_str()));
            errors.add(key, format!("unknown column `{tenant}`{guess}"));
        }
    }
}

/// Checks the policy `key` of the lookup table `name`.
pub(super) fn policy(key: &str, name: &str, lookup: &LookupConfig, policy: &PolicyConfig, errors: &mut ConfigErrors) {
    if !lookup.is_queryable() {
        return errors.add(
            key,
            format!("queries cannot read the lookup table `{name}`: set `tenant` or `shared` in [lookups.{name}]"),
        );
    }
    let named = policy.columns.iter().enumerate().map(|(index, name)| (format!("{key}.columns[{index}]"), name));
    let rules = policy.rows.iter().enumerate().filter(|(_, rule)| !rule.column.is_empty());
    let ruled = rules.map(|(index, rule)| (format!("{key}.rows[{index}].column"), &rule.column));
    for (key, column) in named.chain(ruled) {
        if lookup.columns.is_empty() {
            errors.add(&key, format!("needs `columns` in [lookups.{name}], so that the name can be checked"));
        } else if !lookup.columns.iter().any(|declared| declared.name == *column) {
            let guess = did_you_mean(column, lookup.columns.iter().map(|column| column.name.as_str()));
            errors.add(&key, format!("unknown column `{column}`{guess}"));
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

    /// The columns of a lookup table with a tenant column.
    const OWNED: &str = "columns = { id = \"int64\", owner = \"text\" }\n";

    /// Returns the errors of a configuration with the lookup table `places`, and with the sections `more`.
    fn places(lines: &str, more: &str) -> String {
        errors(&format!("[lookups.places]\nfile = \"a.csv\"\n{lines}\n{more}"))
    }

    #[test]
    fn a_lookup_table_that_tenants_query_has_a_policy() {
        let columns = OWNED;
        for (lines, policy) in [
            ("shared = true".to_owned(), "[policy.places]"),
            (format!("shared = true\n{columns}"), "[policy.places]\ncolumns = [\"id\"]"),
            (format!("tenant = \"owner\"\n{columns}"), "[policy.places]\nrows = [{ column = \"id\", claim = \"c\" }]"),
            ("shared = false".to_owned(), ""),
        ] {
            assert!(!places(&lines, policy).contains("places"), "{lines}: {}", places(&lines, policy));
        }
    }

    #[test]
    fn errors_of_a_lookup_table_that_tenants_query_are_reported() {
        let (columns, tenant) = (OWNED, format!("tenant = \"owner\"\n{OWNED}"));
        let cases = [
            (
                format!("{tenant}shared = true"),
                "[policy.places]",
                "lookups.places.shared: cannot be combined with `tenant`",
            ),
            (
                tenant.clone(),
                "",
                "lookups.places.tenant: has no effect without a policy: add the section [policy.places]",
            ),
            ("shared = true".to_owned(), "", "lookups.places.shared: has no effect without a policy"),
            ("tenant = \"owner\"".to_owned(), "[policy.places]", "lookups.places.tenant: needs `columns`"),
            (
                format!("tenant = \"ower\"\n{columns}"),
                "[policy.places]",
                "unknown column `ower`, did you mean `owner`?",
            ),
            (
                format!("tenant = \"id\"\n{columns}"),
                "[policy.places]",
                "column `id` must have the type `text`, but has `int64`",
            ),
            (
                String::new(),
                "[policy.places]",
                "policy.places: queries cannot read the lookup table `places`: set `tenant` or",
            ),
            (
                "shared = true".to_owned(),
                "[policy.places]\ncolumns = [\"id\"]",
                "policy.places.columns[0]: needs `columns`",
            ),
            (
                tenant.clone(),
                "[policy.places]\ncolumns = [\"ide\"]",
                "policy.places.columns[0]: unknown column `ide`, did you",
            ),
            (
                tenant,
                "[policy.places]\nrows = [{ column = \"x\", claim = \"c\" }]",
                "policy.places.rows[0].column: unknown",
            ),
        ];
        for (lines, policy, expected) in cases {
            let given = places(&lines, policy);
            assert!(given.contains(expected), "{lines}\n{policy}\n  gives {given}\n  not   {expected}");
        }
    }

    #[test]
    fn a_lookup_table_that_tenants_query_has_a_name_of_its_own() {
        let latest = "[tables.trips]\ntenant = \"who\"\ntime = \"at\"\nid = \"key\"\n\
                      latest = { key = [\"trip\"], by = \"at\" }\n\
                      columns = { who = \"text\", at = \"timestamp\", key = \"text\", trip = \"text\" }\n";
        for (name, expected) in [
            ("calls", "lookups.calls: a table has the same name"),
            ("calls_quarantine", "lookups.calls_quarantine: a name that ends in `_quarantine` is reserved"),
            ("trips_changes", "lookups.trips_changes: is reserved for all versions of a table"),
        ] {
            let named =
                |line: &str| errors(&format!("{latest}[policy.{name}]\n[lookups.{name}]\nfile = \"a.csv\"\n{line}"));
            assert!(named("shared = true").contains(expected), "{}", named("shared = true"));
            assert!(!named("").contains(expected), "only queries see a lookup table and a table in one catalog");
        }
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
