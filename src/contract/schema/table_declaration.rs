//! Reads and checks a table's declaration, and returns its columns, keys and field tree in declared order.
//!
//! The input is a [`TableConfig`], which lists columns or names a `.proto` file (read by `proto.rs`). The output is
//! checked columns, or a single `Invalid` error. The error lists all problems in the declaration, so that an operator
//! can fix them all at once.

use std::path::Path;

use super::column::{Column, EVENT_DATE, RECEIVED_TIME};
use super::declared_columns::{COLUMNS_MAX, DeclarationErrors, DeclaredColumns};
use super::fields::{Field, FieldEncoding, Leaf, Node, Target, Tree};
use super::latest::{self, LatestColumns};
use super::proto;
use super::quarantine_resolution::{RESOLUTION, RESOLVED_BY, RESOLVES};
use crate::config::{ColumnConfig, ColumnKind, TableConfig, TimeUnit};
use crate::error::{Error, Result};

/// The maximum length of a column name, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The name, kind and description of each quarantine column except the tenant column.
const QUARANTINE_COLUMNS: [(&str, ColumnKind, &str); 11] = [
    ("event_time", ColumnKind::Timestamp, "The time at which the event was received and rejected"),
    ("quarantine_id", ColumnKind::Text, "The id of the rejected event's quarantine entry"),
    ("source_table", ColumnKind::Text, "The table that the event was sent to"),
    ("reason", ColumnKind::Text, "The reason code of the rejection"),
    ("detail", ColumnKind::Text, "What is wrong with the event, and how to fix it"),
    (
        "place",
        ColumnKind::Text,
        "The endpoint or source that received the event, the request, and the event's index in the request",
    ),
    ("payload", ColumnKind::Bytes, "The bytes as received"),
    (
        "format",
        ColumnKind::Text,
        "The format of the payload: json, protobuf, or, for a message in a source's own encoding, avro or source_protobuf",
    ),
    (RESOLVES, ColumnKind::Text, "The `quarantine_id` of the entry that this row closes"),
    (RESOLUTION, ColumnKind::Text, "How the entry was closed: replayed or dropped"),
    (RESOLVED_BY, ColumnKind::Text, "The subject of the token whose request closed the entry"),
];

/// The key columns, as indexes into [`DeclaredColumns::columns`].
#[derive(Debug, Clone)]
pub(in crate::contract) struct KeyColumns {
    pub(in crate::contract) tenant: usize,
    pub(in crate::contract) time: usize,
    pub(in crate::contract) id: usize,
    /// The columns of the `latest` section, or `None` if there is no such section.
    pub(in crate::contract) latest: Option<LatestColumns>,
}

/// Parses and checks a declaration. Relative `.proto` paths are resolved against `base`.
pub(in crate::contract) fn declare(config: &TableConfig, base: &Path) -> Result<(DeclaredColumns, KeyColumns)> {
    let mut errors = DeclarationErrors::new();
    let declared = match &config.proto {
        Some(path) => proto::declare(config, &base.join(path), base, &mut errors),
        None => Some(from_columns(config, &mut errors)),
    };
    // If the columns could not be read, skip the other checks, which would only report consequences of the first error.
    let keys = declared.as_ref().and_then(|declared| check(declared, config, &mut errors));
    match (declared, keys) {
        (Some(declared), Some(keys)) if errors.is_empty() => Ok((declared, keys)),
        _ => Err(Error::invalid(errors.join("; "))),
    }
}

/// Returns the columns and keys of the quarantine of `table`. `tenant` is the tenant column of `table`. The quarantine
/// gets the same column.
pub(in crate::contract) fn quarantine(table: &str, tenant: Column) -> (DeclaredColumns, KeyColumns) {
    let others = QUARANTINE_COLUMNS.map(|(name, kind, description)| Column {
        name: name.into(),
        kind,
        unit: String::new(),
        description: description.into(),
    });
    let columns: Vec<_> = [tenant].into_iter().chain(others).collect();
    let declared = DeclaredColumns {
        description: format!("Events sent to `{table}` that were rejected, each with its reason"),
        paths: columns.iter().map(|column| column.name.clone()).collect(),
        tree: flat_tree(&columns, TimeUnit::Micros),
        columns,
        unknown_to_map: false,
        message: None,
    };
    (declared, KeyColumns { tenant: 0, time: 1, id: 2, latest: None })
}

/// Reads the columns that the configuration lists.
fn from_columns(config: &TableConfig, errors: &mut DeclarationErrors) -> DeclaredColumns {
    if config.columns.is_empty() {
        errors.push("the table has no columns: list them in `columns`, or set `proto` and `message`".into());
    }
    for (list, given) in [("flatten", &config.flatten), ("ignore", &config.ignore)] {
        if !given.is_empty() {
            errors.push(format!("`{list}` applies only to a table with a `proto`: remove `{list}`, or set `proto`"));
        }
    }
    let mut columns: Vec<_> = config.columns.iter().map(|column| from_column(column, config, errors)).collect();
    let map = &config.dimensions_map;
    match columns.iter().find(|column| column.name == *map) {
        Some(column) if column.kind != ColumnKind::Map => {
            let kind = column.kind;
            errors.push(format!(
                "`dimensions_map` names `{map}`, which is {kind}: change its type to map, or remove it from `columns`"
            ));
        }
        Some(_) => {}
        None if map.is_empty() => {}
        None => columns.push(Column {
            name: map.clone(),
            kind: ColumnKind::Map,
            unit: String::new(),
            description: "The event's undeclared fields, by name".into(),
        }),
    }
    DeclaredColumns {
        description: config.description.clone(),
        paths: columns.iter().map(|column| column.name.clone()).collect(),
        tree: flat_tree(&columns, config.time_unit),
        columns,
        unknown_to_map: !map.is_empty(),
        message: None,
    }
}

fn from_column(column: &ColumnConfig, config: &TableConfig, errors: &mut DeclarationErrors) -> Column {
    let name = &column.name;
    let kind = ColumnKind::parse(&column.kind).unwrap_or_else(|error| {
        errors.push(format!("column `{name}`: {error}"));
        ColumnKind::Text
    });
    let is_time = config.time == *name || config.times.contains(name);
    let kind = if is_time && kind == ColumnKind::Int64 { ColumnKind::Timestamp } else { kind };
    Column { name: name.clone(), kind, unit: column.unit.clone(), description: column.description.clone() }
}

/// Returns a field tree with a single object, which has one field per column.
fn flat_tree(columns: &[Column], unit: TimeUnit) -> Tree {
    let fields = columns.iter().enumerate().map(|(index, column)| Field {
        name: column.name.clone(),
        json_name: String::new(),
        number: 0,
        target: match column.kind {
            ColumnKind::Map => Target::Map(FieldEncoding::Undeclared, FieldEncoding::Undeclared),
            kind => Target::Column(Leaf { column: index, kind, encoding: FieldEncoding::Undeclared, unit }),
        },
    });
    // Columns beyond the maximum number are left out. This has no effect, because `check` reports them as an error.
    let fields = fields.take(COLUMNS_MAX).collect();
    Tree { nodes: vec![Node::new(String::new(), fields, Vec::new())], enums: Vec::new() }
}

/// Checks the names of columns, the key columns, and the settings that contain lists of columns. Returns `None` if a
/// key column is missing.
fn check(declared: &DeclaredColumns, config: &TableConfig, errors: &mut DeclarationErrors) -> Option<KeyColumns> {
    check_columns(&declared.columns, errors);
    let is_id = |kind| matches!(kind, ColumnKind::Text | ColumnKind::Uuid);
    let tenant = key_column(declared, "tenant", &config.tenant, "text", |kind| kind == ColumnKind::Text, errors);
    let is_time = |kind| kind == ColumnKind::Timestamp;
    let time = key_column(declared, "time", &config.time, "timestamp", is_time, errors);
    let id = key_column(declared, "id", &config.id, "text or uuid", is_id, errors);
    if tenant.is_some() && tenant == id {
        errors.push(format!("`tenant` and `id` both name `{}`: name two different columns", config.id));
    }
    if QUARANTINE_COLUMNS.iter().any(|(name, ..)| *name == config.tenant) {
        errors.push(format!(
            "the tenant column cannot be named `{}`, because the quarantine has a column of that name: rename it",
            config.tenant
        ));
    }
    for name in &config.times {
        declared.check_kind("times", name, "timestamp or int64", |kind| kind == ColumnKind::Timestamp, errors);
    }
    for name in &config.dimensions {
        declared.check_kind("dimensions", name, "any type except map", |kind| kind != ColumnKind::Map, errors);
    }
    for name in &config.metrics {
        declared.check_kind("metrics", name, "a number", ColumnKind::is_number, errors);
    }
    let latest = latest::check(declared, config, errors);
    Some(KeyColumns { tenant: tenant?, time: time?, id: id?, latest })
}

fn check_columns(columns: &[Column], errors: &mut DeclarationErrors) {
    if columns.len() > COLUMNS_MAX {
        errors.push(format!("the table has {} columns; at most {COLUMNS_MAX} are allowed", columns.len()));
        return;
    }
    for (index, Column { name, .. }) in columns.iter().enumerate() {
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word || name.is_empty() || name.len() > NAME_BYTES_MAX || name.as_bytes()[0].is_ascii_digit() {
            errors.push(format!("column `{name}`: a name must consist of letters, digits and `_`, must not begin with a digit, and may have at most {NAME_BYTES_MAX} bytes"));
        }
        if [RECEIVED_TIME, EVENT_DATE].contains(&name.as_str()) {
            errors.push(format!("column name `{name}` is reserved: choose another name"));
        }
        // Delta treats column names that differ only in case as equal.
        if columns[..index].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(name)) {
            errors
                .push(format!("column `{name}` is declared more than once: rename one, or do not flatten its message"));
        }
    }
    let maps: Vec<_> = columns.iter().filter(|column| column.kind == ColumnKind::Map).map(|map| &*map.name).collect();
    if maps.len() > 1 {
        errors.push(format!("the table has {} map columns ({}): at most one is allowed", maps.len(), maps.join(", ")));
    }
}

fn key_column(
    declared: &DeclaredColumns,
    role: &str,
    name: &str,
    wanted: &str,
    fits: impl Fn(ColumnKind) -> bool,
    errors: &mut DeclarationErrors,
) -> Option<usize> {
    if name.is_empty() {
        errors.push(format!("`{role}` is not set: name the {role} column"));
        return None;
    }
    let Some(index) = declared.find(name) else {
        errors.push(declared.unknown(role, name));
        return None;
    };
    let column = &declared.columns[index];
    if !fits(column.kind) {
        errors.push(format!("`{role}` names `{name}`, which is {}; it must be {wanted}", column.kind,));
    }
    Some(index)
}
