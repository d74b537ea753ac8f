//! Declared tables and their policies: a new table needs configuration only, and no code.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::TimeUnit;
use super::column_kind::ColumnKind;
use super::error::ConfigErrors;
use super::key::{
    KeySpec, Section, SectionReader, ShownLine, ShownValue, Value, count, none, plain, required, section,
};
use super::raw::RawConfig;
use super::value::{quoted, wrong};

/// The default map column of a table declared by columns.
pub(super) const DIMENSIONS_MAP: &str = "dimensions";

/// The end of the name of a table's quarantine.
pub const QUARANTINE_SUFFIX: &str = "_quarantine";
/// The suffix of the table with all versions of the rows, if a table shows only the newest versions.
pub const CHANGES_SUFFIX: &str = "_changes";

section! {
    /// One declared table.
    TableConfig {
        /// A description for catalogs and BI tools.
        description: String = none(),
            "it is all that a catalog shows of the table's purpose";
        /// A `.proto` file that declares the events, relative to the folder of this file; excludes `columns`.
        proto: Option<PathBuf> = none(),
            "producers compile the same file, so it is the contract";
        /// The full name of the message in `proto`.
        message: Option<String> = none(),
            "a file may contain several";
        /// Nested messages (dotted paths) whose fields become columns with their own names, without the path prefix.
        flatten: Vec<String> = none(),
            "short column names are easier to use; a conflict of names is an error";
        /// Fields of `proto` (dotted paths) that are not stored.
        ignore: Vec<String> = none(),
            "not all fields that producers send have to be stored";
        /// Columns of a table without `proto`: `name = "type"`, or `name = { type, unit, description }`.
        columns: Vec<ColumnConfig> = none(),
            "they are stored and shown in the order written here";
        /// The column with the tenant that owns the event.
        tenant: String = required(""),
            "every row belongs to one tenant, and no other tenant sees it";
        /// The column with the time of the event.
        time: String = required(""),
            "files are laid out, pruned and retained by it";
        /// The column with the id of the event: the dedupe key, unique per tenant.
        id: String = required(""),
            "an event that is sent again is counted once";
        /// Other integer fields that hold times.
        times: Vec<String> = none(),
            "an integer does not show that it is a time";
        /// The unit of integer times; `auto` infers it from the magnitude.
        time_unit: TimeUnit = plain(TimeUnit::Auto),
            "present-day times in seconds, milliseconds, microseconds and nanoseconds do not overlap";
        /// The map column for unknown fields; empty for none.
        dimensions_map: String = none(),
            "a table declared by columns has `dimensions` by default, the map of a `proto` is found automatically";
        /// Columns to group and filter by.
        dimensions: Vec<String> = none(),
            "counters and rollups can be queried by them";
        /// Columns to measure.
        metrics: Vec<String> = none(),
            "their sums and percentiles are kept";
        /// Show only the newest version of each key; `NAME_changes` shows all versions.
        latest: Option<LatestConfig> = none(),
            "a row that changes is sent again as a whole, and should be counted once";
        /// Days to keep events; 0 keeps them forever.
        retention_days: u32 = count("days", 0, 0..=36_500),
            "nothing is deleted by default";
    }
}

section! {
    /// Which versions of its rows a table shows.
    LatestConfig {
        /// The columns that, together with the tenant, identify a row.
        key: Vec<String> = required(Vec::new()),
            "rows with the same key are versions of one row; two tenants never share a key";
        /// An integer, timestamp or date column, or `received_time`: the greatest value is the newest version.
        by: String = required(""),
            "versions may arrive in any order; among equals, the last received one is the newest";
        /// A boolean column: a key is not shown if its newest version is true here.
        deleted: Option<String> = none(),
            "a delete is one more version of a row";
    }
}

section! {
    /// Access to one table. A table without a policy is invisible.
    PolicyConfig {
        /// The columns that may be read; empty for all.
        columns: Vec<String> = none(),
            "tenants own their rows; hide columns for internal use";
        /// Additional row rules, all of which must hold: `{ column, claim, required }`.
        rows: Vec<RowRuleConfig> = none(),
            "the rule that the tenant column equals the token's tenant always applies and is not written";
    }
}

section! {
    /// `column` must equal the value (or be one of the values) of `claim`.
    RowRuleConfig {
        /// A column of the table.
        column: String = required(""),
            "the server compares it with a typed value, never with SQL text";
        /// A claim of the token: a string, a number, a boolean or a list of them.
        claim: String = required(""),
            "the token contains only values; the rule is configured here";
        /// Whether a token without the claim sees no rows (true) or is exempt from this rule (false).
        required: bool = plain(true),
            "a forgotten claim must not grant access";
    }
}

/// One column of a table declared by columns.
#[derive(Debug, Clone, Default)]
pub struct ColumnConfig {
    /// Its name.
    pub name: String,
    /// Its type: one of [`COLUMN_KINDS`].
    pub kind: String,
    /// The unit of its values, if any ("ms", "bytes").
    pub unit: String,
    /// Prose for catalogs and BI tools.
    pub description: String,
}

/// The names of the types that a column may have.
pub const COLUMN_KINDS: [&str; 10] = ColumnKind::NAMES;

impl Value for Vec<ColumnConfig> {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let RawConfig::Table(entries) = raw else {
            faults.add(key, format!("must be {}, is {}", Self::form(), raw.kind()));
            return None;
        };
        let column = |(name, raw): (String, RawConfig)| {
            let key = format!("{key}.{name}");
            match raw {
                RawConfig::Table(entries) => {
                    let mut keys = SectionReader::new(&key, entries, faults);
                    let kind = keys.take("type", required(""));
                    let unit = keys.take("unit", none());
                    let description = keys.take("description", none());
                    keys.finish(&["type", "unit", "description"]);
                    ColumnConfig { name, kind, unit, description }
                }
                short => {
                    let kind = String::read(short, &key, &required(""), faults).unwrap_or_default();
                    ColumnConfig { name, kind, ..ColumnConfig::default() }
                }
            }
        };
        Some(entries.into_iter().map(column).collect())
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let line = |column: &ColumnConfig| {
            let texts = [("type", &column.kind), ("unit", &column.unit), ("description", &column.description)];
            let said = texts.into_iter().filter(|(_, text)| !text.is_empty());
            let parts: Vec<_> = said.map(|(key, text)| format!("{key} = {}", quoted(text))).collect();
            let shown = match parts.as_slice() {
                [_] => quoted(&column.kind),
                _ => format!("{{ {} }}", parts.join(", ")),
            };
            ShownLine { key: column.name.clone(), shown: ShownValue::Inline(shown), about: None }
        };
        if self.is_empty() { ShownValue::Absent } else { ShownValue::Table(self.iter().map(line).collect()) }
    }

    fn form() -> String {
        "a table of columns, such as { caller = \"text\", duration = { type = \"int64\", unit = \"ms\" } }".to_owned()
    }
}

impl Value for LatestConfig {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        match raw {
            RawConfig::Table(entries) => Some(Section::read(SectionReader::new(key, entries, faults))),
            other => wrong(&other, key, faults),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(ShownValue::Table(self.lines()).to_string())
    }

    fn form() -> String {
        "a table, such as { key = [\"order_id\"], by = \"position\", deleted = \"deleted\" }".to_owned()
    }
}

/// Gives tables of columns their map column where `written` does not say whether they have one.
pub(super) fn default_dimensions_map(tables: &mut BTreeMap<String, TableConfig>, written: &ConfigErrors) {
    for (name, table) in tables {
        let said = written.knows(&format!("tables.{name}.dimensions_map"));
        // A map of another name is the table's one map, and a column of this name with another type keeps its name.
        let taken = table.columns.iter().any(|column| (column.name == DIMENSIONS_MAP) != (column.kind == "map"));
        if table.proto.is_none() && !said && !taken {
            DIMENSIONS_MAP.clone_into(&mut table.dimensions_map);
        }
    }
}
