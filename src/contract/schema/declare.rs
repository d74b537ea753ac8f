//! Checks a table's declaration: its columns, keys and field tree, before they are put into stored order.
//!
//! In: a [`TableConfig`] (columns, or a `.proto` that `proto.rs` reads). Out: checked columns, or one `Invalid` error
//! that lists every fault, so that an operator can fix all of them at once.

use std::path::Path;

use prost_reflect::MessageDescriptor;

use super::fields::{Field, FieldEncoding, Leaf, Node, Target, Tree};
use super::latest::{self, LatestColumns};
use super::proto;
use super::quarantine_resolution::{RESOLUTION, RESOLVED_BY, RESOLVES};
use super::table::{Column, ColumnKind, Contract, EVENT_DATE, RECEIVED_TIME};
use crate::config::{ColumnConfig, TableConfig, TimeUnit};
use crate::error::{Error, Result, did_you_mean};

/// The maximum number of columns of a table.
pub(in crate::contract) const COLUMNS_MAX: usize = 1024;
/// The maximum length of a column name, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The columns of every quarantine, besides the tenant column.
const QUARANTINE_COLUMNS: [(&str, ColumnKind, &str); 11] = [
    ("event_time", ColumnKind::Timestamp, "When the event was rejected: the receive time"),
    ("quarantine_id", ColumnKind::Text, "The id of the rejected event's quarantine entry"),
    ("source_table", ColumnKind::Text, "The table that the event was sent to"),
    ("reason", ColumnKind::Text, "The reason code of the rejection"),
    ("detail", ColumnKind::Text, "What is wrong with the event, and how to fix it"),
    ("place", ColumnKind::Text, "The endpoint or source that received the event, the request, and the index in it"),
    ("payload", ColumnKind::Bytes, "The bytes as received"),
    (
        "format",
        ColumnKind::Text,
        "The format of the payload: json or protobuf; avro or source_protobuf as the source reads it",
    ),
    (RESOLVES, ColumnKind::Text, "In a row that closes an entry: the entry's `quarantine_id`"),
    (RESOLUTION, ColumnKind::Text, "In a row that closes an entry: replayed or dropped"),
    (RESOLVED_BY, ColumnKind::Text, "In a row that closes an entry: the subject of the token that closed it"),
];

/// A table declaration, in declared order.
#[derive(Debug, Default)]
pub(in crate::contract) struct Declared {
    pub(in crate::contract) description: String,
    pub(in crate::contract) columns: Vec<Column>,
    /// The dotted path of each column's field.
    pub(in crate::contract) paths: Vec<String>,
    pub(in crate::contract) tree: Tree,
    pub(in crate::contract) unknown_to_map: bool,
    /// The message type, if the table is declared by one.
    pub(in crate::contract) message: Option<MessageDescriptor>,
}

/// The key columns, by their index in [`Declared::columns`].
#[derive(Debug, Clone)]
pub(in crate::contract) struct KeyColumns {
    pub(in crate::contract) tenant: usize,
    pub(in crate::contract) time: usize,
    pub(in crate::contract) id: usize,
    /// The columns of a table that shows only the newest version of each key.
    pub(in crate::contract) latest: Option<LatestColumns>,
}

/// All faults of a declaration.
pub(in crate::contract) type DeclarationErrors = Vec<String>;

/// Parses and checks a declaration.
pub(in crate::contract) fn declare(config: &TableConfig, base: &Path) -> Result<(Declared, KeyColumns)> {
    let mut faults = DeclarationErrors::new();
    let declared = match &config.proto {
        Some(path) => proto::declare(config, &base.join(path), base, &mut faults),
        None => Some(from_columns(config, &mut faults)),
    };
    // Without columns, every other fault would only be a consequence of the first.
    let keys = declared.as_ref().and_then(|declared| check(declared, config, &mut faults));
    match (declared, keys) {
        (Some(declared), Some(keys)) if faults.is_empty() => Ok((declared, keys)),
        _ => Err(Error::invalid(faults.join("; "))),
    }
}

/// The columns of a table's quarantine.
pub(in crate::contract) fn quarantine(table: &Contract) -> (Declared, KeyColumns) {
    let tenant = table.columns[table.tenant].clone();
    let others = QUARANTINE_COLUMNS.map(|(name, kind, description)| Column {
        name: name.into(),
        kind,
        unit: String::new(),
        description: description.into(),
    });
    let columns: Vec<_> = [tenant].into_iter().chain(others).collect();
    let declared = Declared {
        description: format!("Events sent to `{}` that were rejected, each with its reason", table.name),
        paths: columns.iter().map(|column| column.name.clone()).collect(),
        tree: flat_tree(&columns, TimeUnit::Micros),
        columns,
        unknown_to_map: false,
        message: None,
    };
    (declared, KeyColumns { tenant: 0, time: 1, id: 2, latest: None })
}

/// The columns that the configuration lists.
fn from_columns(config: &TableConfig, faults: &mut DeclarationErrors) -> Declared {
    if config.columns.is_empty() {
        faults.push("it has no columns: list them in `columns`, or set `proto` and `message`".into());
    }
    for (list, given) in [("flatten", &config.flatten), ("ignore", &config.ignore)] {
        if !given.is_empty() {
            faults
                .push(format!("`{list}` applies to fields of a `proto`, which is not set: remove it, or set `proto`"));
        }
    }
    let mut columns: Vec<_> = config.columns.iter().map(|column| from_column(column, config, faults)).collect();
    let map = &config.dimensions_map;
    match columns.iter().find(|column| column.name == *map) {
        Some(column) if column.kind != ColumnKind::Map => {
            let kind = column.kind.as_str();
            faults.push(format!(
                "`dimensions_map` names `{map}`, which is {kind}: declare it as map, or do not declare it"
            ));
        }
        Some(_) => {}
        None if map.is_empty() => {}
        None => columns.push(Column {
            name: map.clone(),
            kind: ColumnKind::Map,
            unit: String::new(),
            description: "Undeclared fields, by name".into(),
        }),
    }
    Declared {
        description: config.description.clone(),
        paths: columns.iter().map(|column| column.name.clone()).collect(),
        tree: flat_tree(&columns, config.time_unit),
        columns,
        unknown_to_map: !map.is_empty(),
        message: None,
    }
}

fn from_column(column: &ColumnConfig, config: &TableConfig, faults: &mut DeclarationErrors) -> Column {
    let name = &column.name;
    let kind = ColumnKind::parse(&column.kind).unwrap_or_else(|| {
        let known = ColumnKind::ALL.map(ColumnKind::as_str);
        let hint = did_you_mean(&column.kind, known);
        faults.push(format!("column `{name}`: unknown type `{}`{hint} (one of {})", column.kind, known.join(", ")));
        ColumnKind::Text
    });
    let is_time = config.time == *name || config.times.contains(name);
    let kind = if is_time && kind == ColumnKind::Int64 { ColumnKind::Timestamp } else { kind };
    Column { name: name.clone(), kind, unit: column.unit.clone(), description: column.description.clone() }
}

/// A tree of one object whose fields are the columns.
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
    // `check` reports more columns than that as a fault; the tree of an invalid table is never used.
    let fields = fields.take(COLUMNS_MAX).collect();
    Tree { nodes: vec![Node::new(String::new(), fields, Vec::new())], enums: Vec::new() }
}

/// Checks names, keys, and the lists of columns; `None` if a key column is missing.
fn check(declared: &Declared, config: &TableConfig, faults: &mut DeclarationErrors) -> Option<KeyColumns> {
    check_columns(&declared.columns, faults);
    let mut key = |role, name: &str, kind| key_column(declared, role, name, kind, faults);
    let tenant = key("tenant", &config.tenant, ColumnKind::Text);
    let time = key("time", &config.time, ColumnKind::Timestamp);
    let id = key("id", &config.id, ColumnKind::Text);
    if tenant.is_some() && tenant == id {
        faults.push(format!("`tenant` and `id` both name `{}`: name two different columns", config.id));
    }
    if QUARANTINE_COLUMNS.iter().any(|(name, ..)| *name == config.tenant) {
        faults.push(format!(
            "the tenant column cannot be named `{}`, because the quarantine has a column of that name: rename it",
            config.tenant
        ));
    }
    for name in &config.times {
        check_list(declared, "times", name, "timestamp or int64", |kind| kind == ColumnKind::Timestamp, faults);
    }
    for name in &config.dimensions {
        check_list(declared, "dimensions", name, "a plain value", |kind| kind != ColumnKind::Map, faults);
    }
    for name in &config.metrics {
        check_list(declared, "metrics", name, "a number", is_number, faults);
    }
    let latest = latest::check(declared, config, faults);
    Some(KeyColumns { tenant: tenant?, time: time?, id: id?, latest })
}

fn check_columns(columns: &[Column], faults: &mut DeclarationErrors) {
    if columns.len() > COLUMNS_MAX {
        faults.push(format!("it has {} columns; at most {COLUMNS_MAX} are allowed", columns.len()));
        return;
    }
    for (index, Column { name, .. }) in columns.iter().enumerate() {
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word || name.is_empty() || name.len() > NAME_BYTES_MAX || name.as_bytes()[0].is_ascii_digit() {
            faults.push(format!("column `{name}`: a name must consist of letters, digits and `_`, not begin with a digit, and have at most {NAME_BYTES_MAX} bytes"));
        }
        if [RECEIVED_TIME, EVENT_DATE].contains(&name.as_str()) {
            faults.push(format!("column name `{name}` is reserved for the server: choose another name"));
        }
        // Delta tables compare column names case-insensitively.
        if columns[..index].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(name)) {
            faults
                .push(format!("column `{name}` is declared more than once: rename one, or do not flatten its message"));
        }
    }
    let maps: Vec<_> = columns.iter().filter(|column| column.kind == ColumnKind::Map).map(|map| &*map.name).collect();
    if maps.len() > 1 {
        faults.push(format!("it has {} map columns ({}): at most one is allowed", maps.len(), maps.join(", ")));
    }
}

fn key_column(
    declared: &Declared,
    role: &str,
    name: &str,
    kind: ColumnKind,
    faults: &mut DeclarationErrors,
) -> Option<usize> {
    if name.is_empty() {
        faults.push(format!("`{role}` is not set: name the {role} column"));
        return None;
    }
    let Some(index) = find(declared, name) else {
        faults.push(unknown(declared, role, name));
        return None;
    };
    let column = &declared.columns[index];
    if column.kind != kind {
        faults.push(format!(
            "`{role}` names `{name}`, which is {}; it must be {}",
            column.kind.as_str(),
            kind.as_str()
        ));
    }
    Some(index)
}

pub(in crate::contract) fn check_list(
    declared: &Declared,
    list: &str,
    name: &str,
    wanted: &str,
    fits: impl Fn(ColumnKind) -> bool,
    faults: &mut DeclarationErrors,
) {
    match find(declared, name) {
        None => faults.push(unknown(declared, list, name)),
        Some(index) if !fits(declared.columns[index].kind) => {
            let kind = declared.columns[index].kind.as_str();
            faults.push(format!("`{list}` names `{name}`, which is {kind}; it must be {wanted}"));
        }
        Some(_) => {}
    }
}

/// A column by its name or by its field's dotted path.
pub(in crate::contract) fn find(declared: &Declared, name: &str) -> Option<usize> {
    let by_name = declared.columns.iter().position(|column| column.name == name);
    by_name.or_else(|| declared.paths.iter().position(|path| path == name))
}

fn unknown(declared: &Declared, list: &str, name: &str) -> String {
    let hint = did_you_mean(name, declared.columns.iter().map(|column| column.name.as_str()));
    format!("`{list}` names the unknown column `{name}`{hint}")
}

fn is_number(kind: ColumnKind) -> bool {
    use ColumnKind::{Float32, Float64, Int32, Int64};
    matches!(kind, Int32 | Int64 | Float32 | Float64)
}
