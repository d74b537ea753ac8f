//! The sections `[tables.NAME]` and `[policy.NAME]`: declared tables and their access policies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::TimeUnit;
use super::error::ConfigErrors;
use super::raw::RawValue;
use super::scalar_values::{quoted, wrong};
use super::section_macro::{
    KeySpec, Section, SectionReader, ShownLine, ShownValue, Value, count, none, plain, required, section,
};

/// The default name of the map column of a table that declares `columns`.
pub(super) const DIMENSIONS_MAP: &str = "dimensions";

/// The suffix of quarantine names: the quarantine of a table `NAME` is `NAME_quarantine`.
pub const QUARANTINE_SUFFIX: &str = "_quarantine";
/// The suffix of the name under which all versions of a `latest` table are shown. For the table `NAME`, this name is
/// `NAME_changes`.
pub const CHANGES_SUFFIX: &str = "_changes";
/// The prefix of the names of the server's own tables.
pub(super) const RESERVED_PREFIX: &str = "glasshouse_";

section! {
    /// One declared table.
    TableConfig {
        /// The description of the table in catalogs and BI tools.
        description: String = none(),
            "Catalogs contain no other information about the purpose of the table";
        /// A `.proto` file that declares the events. Cannot be combined with `columns`.
        proto: Option<PathBuf> = none(),
            "Producers compile the same file, so both sides share one declaration";
        /// The full name of the message type in `proto`.
        message: Option<String> = none(),
            "A file may declare several message types";
        /// The dotted paths of nested messages whose fields become columns without the path prefix.
        flatten: Vec<String> = none(),
            "Short column names are easier to use. Two columns with the same name are an error";
        /// The dotted paths of fields of `proto` that are not stored.
        ignore: Vec<String> = none(),
            "You do not have to store every field that producers send";
        /// The types of columns whose type does not follow from `proto`: `total = "decimal(12, 2)"`.
        types: BTreeMap<String, String> = none(),
            "Protobuf has no decimals, UUIDs, dates, times or JSON, so producers send them as strings, bytes or integers";
        /// The columns of a table without `proto`: `name = "type"`, or `name = { type, unit, description }`.
        columns: Vec<ColumnConfig> = none(),
            "They are stored and shown in this order";
        /// The column that contains the tenant to which the event belongs.
        tenant: String = required(""),
            "Every row belongs to one tenant and is invisible to all others";
        /// The column that contains the time of the event.
        time: String = required(""),
            "Rows are sorted by this time. It also determines which files a query reads and how long events are kept";
        /// The column that contains the event id. The id is unique per tenant and identifies duplicates.
        id: String = required(""),
            "An event that is sent again is stored only once";
        /// Integer fields that contain times, in addition to the field of `time`.
        times: Vec<String> = none(),
            "Without this list, they would be stored as plain integers";
        /// The unit of times that are sent as integers. `auto` infers the unit from the magnitude, and accepts the
        /// years 2001 to 2100.
        time_unit: TimeUnit = plain(TimeUnit::Auto),
            "The ranges of present-day times in seconds, milliseconds, microseconds and nanoseconds do not overlap";
        /// The map column that stores unknown fields; empty if there is none.
        dimensions_map: String = none(),
            "A table with `columns` gets the map `dimensions` by default. In a table with `proto`, the map field of \
             the message is used";
        /// The columns to group and filter by.
        dimensions: Vec<String> = none(),
            "The server checks these names, but does not use them yet";
        /// The columns to aggregate.
        metrics: Vec<String> = none(),
            "The server checks these names, but does not use them yet";
        /// If set, the table shows only the latest version of each key, and `NAME_changes` shows all versions.
        latest: Option<LatestConfig> = none(),
            "Use it if producers send the complete row again after each change, and queries should count each row only once";
        /// The number of days to keep events; 0 keeps them forever. An event expires at the end of a UTC day, by its
        /// event time. Cannot be used with `latest`.
        retention_days: u32 = count("days", 0, 0..=36_500),
            "By default, nothing is deleted";
        /// The number of days to keep the events of single tenants, at most `retention_days`: `{ acme = 30 }`. Cannot be
        /// used with `latest`.
        retention_tenants: BTreeMap<String, u32> = none(),
            "A contract with one customer may require that its events are deleted earlier";
    }
}

section! {
    /// The columns that determine the latest version of each row.
    LatestConfig {
        /// The columns that, together with the tenant, identify a row.
        key: Vec<String> = required(Vec::new()),
            "Rows with the same key are versions of the same row. Equal keys of two tenants identify two different \
             rows";
        /// The column that orders the versions of a row: a text, integer, timestamp or date column, or `received_time`. The
        /// version with the greatest value is the newest.
        by: String = required(""),
            "Versions may arrive in any order. Among versions with equal values, the last one received is the newest";
        /// A boolean column that marks deleted keys. While it is true in the latest version of a key, the table does
        /// not show the key.
        deleted: Option<String> = none(),
            "A delete is stored as one more version of the row";
    }
}

section! {
    /// The access policy of one table. A table without a policy is invisible to tenants.
    PolicyConfig {
        /// The columns that callers may read. An empty list allows all columns.
        columns: Vec<String> = none(),
            "Use it to hide internal columns from tenants";
        /// Additional rules, written as `{ column, claim, required }`. A row is visible only if it satisfies all of
        /// them.
        rows: Vec<RowRuleConfig> = none(),
            "One rule always applies and cannot be configured: a tenant sees only its own rows";
    }
}

section! {
    /// One additional row rule. A row is visible if the value of `column` equals the value of `claim`. If the claim is
    /// a list, the value must be in the list.
    RowRuleConfig {
        /// A column of the table.
        column: String = required(""),
            "The server compares the column with a typed value, and never inserts a claim into SQL text";
        /// A claim of the token: a string, a number, a boolean, or a list of them.
        claim: String = required(""),
            "The token contains only values; the rule itself is configured here";
        /// If true, a token without the claim sees no rows. If false, this rule does not apply to such a token.
        required: bool = plain(true),
            "By default, a missing claim does not grant access";
    }
}

/// One entry of a table's `columns`.
#[derive(Debug, Clone, Default)]
pub struct ColumnConfig {
    /// The name.
    pub name: String,
    /// The type, as [`ColumnKind::parse`](super::ColumnKind::parse) reads it.
    pub kind: String,
    /// The unit of the values, such as `ms` or `bytes`, or an empty string.
    pub unit: String,
    /// A description for catalogs and BI tools, or an empty string.
    pub description: String,
}

impl Value for Vec<ColumnConfig> {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let RawValue::Table(entries) = raw else {
            errors.add(key, format!("must be {}, but is {}", Self::form(), raw.kind()));
            return None;
        };
        let column = |(name, raw): (String, RawValue)| {
            let key = format!("{key}.{name}");
            match raw {
                RawValue::Table(entries) => {
                    let mut keys = SectionReader::new(&key, entries, errors);
                    let kind = keys.take("type", required(""));
                    let unit = keys.take("unit", none());
                    let description = keys.take("description", none());
                    keys.finish(&["type", "unit", "description"]);
                    ColumnConfig { name, kind, unit, description }
                }
                short => {
                    let kind = String::read(short, &key, &required(""), errors).unwrap_or_default();
                    ColumnConfig { name, kind, ..ColumnConfig::default() }
                }
            }
        };
        Some(entries.into_iter().map(column).collect())
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let line = |column: &ColumnConfig| {
            let properties = [("type", &column.kind), ("unit", &column.unit), ("description", &column.description)];
            let set = properties.into_iter().filter(|(_, text)| !text.is_empty());
            let parts: Vec<_> = set.map(|(key, text)| format!("{key} = {}", quoted(text))).collect();
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
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        match raw {
            RawValue::Table(entries) => Some(Section::read(SectionReader::new(key, entries, errors))),
            other => wrong(&other, key, errors),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(ShownValue::Table(self.lines()).to_string())
    }

    fn form() -> String {
        "a table, such as { key = [\"order_id\"], by = \"version\", deleted = \"deleted\" }".to_owned()
    }
}

/// Sets the default map column of each table that declares `columns` but does not set `dimensions_map`. `locations`
/// contains the keys that the configuration sets.
pub(super) fn default_dimensions_map(tables: &mut BTreeMap<String, TableConfig>, locations: &ConfigErrors) {
    for (name, table) in tables {
        let is_set = locations.has_location(&format!("tables.{name}.dimensions_map"));
        // There is no default if the table already has a map column with another name, or a column that has the default
        // name but is not a map.
        let has_conflict = table.columns.iter().any(|column| (column.name == DIMENSIONS_MAP) != (column.kind == "map"));
        if table.proto.is_none() && !is_set && !has_conflict {
            DIMENSIONS_MAP.clone_into(&mut table.dimensions_map);
        }
    }
}
