//! Declared tables and their policies: a new table needs these lines and no code.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::TimeUnit;
use super::error::ConfigErrors;
use super::key::{
    KeySpec, Section, SectionReader, ShownLine, ShownValue, Value, count, none, plain, required, section,
};
use super::raw::RawConfig;
use super::value::{quoted, wrong};

/// The map column of a table declared by columns that says nothing of it.
pub(super) const DIMENSIONS_MAP: &str = "dimensions";

/// What the name ends with under which all versions of a table's rows are asked, when the table shows the newest ones only.
pub const CHANGES_SUFFIX: &str = "_changes";

section! {
    /// One declared table.
    TableConfig {
        /// Prose for catalogs and BI tools.
        description: String = none(),
            "people who find the table in a catalog see nothing else";
        /// A `.proto` file that declares the events, from the folder of this file; excludes `columns`.
        proto: Option<PathBuf> = none(),
            "producers compile the same file, so that it is the contract";
        /// The full name of the message in `proto`.
        message: Option<String> = none(),
            "a file may hold several";
        /// Nested messages (dotted paths) whose fields become columns under their own names, without the path in front.
        flatten: Vec<String> = none(),
            "short column names are for people; a clash of names is refused";
        /// Fields of `proto` (dotted paths) that are not stored.
        ignore: Vec<String> = none(),
            "not everything that is sent has to be kept";
        /// Columns, when there is no `proto`: `name = "type"`, or `name = { type, unit, description }`.
        columns: Vec<ColumnConfig> = none(),
            "they are stored and shown in the order written here";
        /// The column that says whose event it is.
        tenant: String = required(""),
            "every row has one owner, and nobody else sees it";
        /// The column that says when it happened.
        time: String = required(""),
            "files are laid out, pruned and kept by it";
        /// The column that makes it one event: the dedupe key, unique per tenant.
        id: String = required(""),
            "an event that is sent again is counted once";
        /// Integer fields that are times as well.
        times: Vec<String> = none(),
            "an integer does not say by itself that it is a time";
        /// What an integer time counts; `auto` tells it by its size.
        time_unit: TimeUnit = plain(TimeUnit::Auto),
            "seconds, milliseconds, microseconds and nanoseconds of our age do not overlap";
        /// The map column that takes unknown fields; empty for none.
        dimensions_map: String = none(),
            "a table of columns has `dimensions` unless told otherwise, a contract's map is found by itself";
        /// Columns to group and filter by.
        dimensions: Vec<String> = none(),
            "what counters and rollups may be asked by";
        /// Columns to measure.
        metrics: Vec<String> = none(),
            "what is summed and whose percentiles are kept";
        /// Shows the newest version of each key only; all versions are asked as `NAME_changes`.
        latest: Option<LatestConfig> = none(),
            "a thing that changes is sent again as a whole, and should be counted once";
        /// Days to keep; 0 keeps for ever.
        retention_days: u32 = count("days", 0, 0..=36_500),
            "nothing is deleted unasked";
    }
}

section! {
    /// Which versions of its rows a table shows.
    LatestConfig {
        /// The columns that name a thing, together with the tenant.
        key: Vec<String> = required(Vec::new()),
            "rows with the same key are versions of the same thing; two tenants never share one";
        /// An integer, timestamp or date column, or `received_time`: its greatest value is the newest version.
        by: String = required(""),
            "versions may arrive in any order; of equal ones the one that was received last counts";
        /// A boolean column: a key whose newest version has it true is not shown.
        deleted: Option<String> = none(),
            "a thing is deleted by one more version of it";
    }
}

section! {
    /// Who sees what of one table. A table without a policy is invisible.
    PolicyConfig {
        /// The columns that may be read; empty for all.
        columns: Vec<String> = none(),
            "the rows are the tenant's own; hide what is internal to you";
        /// Extra row rules, all of which must hold: `{ column, claim, required }`.
        rows: Vec<RowRuleConfig> = none(),
            "the rule that the tenant column equals the token's tenant is always there and not written";
    }
}

section! {
    /// `column` must equal the value (or be one of the values) of `claim`.
    RowRuleConfig {
        /// A column of the table.
        column: String = required(""),
            "it is compared with a typed value, never with SQL text";
        /// A claim of the token: a string, a number, a boolean or a list of them.
        claim: String = required(""),
            "the token carries values; the rule stays here";
        /// Whether a token without the claim sees no row (true) or is not bound by this rule.
        required: bool = plain(true),
            "a claim that was forgotten must not open anything";
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

/// The types that a column may have.
pub const COLUMN_KINDS: [&str; 10] =
    ["text", "bool", "int32", "int64", "float32", "float64", "timestamp", "date", "bytes", "map"];

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
        "a table of columns, as in { caller = \"text\", duration = { type = \"int64\", unit = \"ms\" } }".to_owned()
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
        "a table, as in { key = [\"order_id\"], by = \"position\", deleted = \"deleted\" }".to_owned()
    }
}

/// Gives tables of columns their map column where `written` does not say whether they have one.
pub(super) fn default_dimensions_map(tables: &mut BTreeMap<String, TableConfig>, written: &ConfigErrors) {
    for (name, table) in tables {
        let said = written.knows(&format!("tables.{name}.dimensions_map"));
        // A map of another name is the table's one map, and a column of this name that is no map keeps its name.
        let taken = table.columns.iter().any(|column| (column.name == DIMENSIONS_MAP) != (column.kind == "map"));
        if table.proto.is_none() && !said && !taken {
            DIMENSIONS_MAP.clone_into(&mut table.dimensions_map);
        }
    }
}
