//! Derives a table's columns from a `.proto` file, which is compiled in memory at startup. Nested messages are
//! flattened.
//!
//! The input is the file, the message name, and the paths to flatten and to ignore. The output is the columns, and the
//! field tree that the decoders of protobuf and JSON events use. The comments in the file become the column
//! descriptions. A repeated field becomes a list. Repeated messages and recursive fields are errors unless they are listed
//! in `ignore`, because no column type can store them.

use std::path::Path;

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};

use super::column::Column;
use super::declared_columns::{COLUMNS_MAX, DeclarationErrors, DeclaredColumns};
use super::fields::{EnumNames, Fallback, Field, FieldEncoding, Leaf, Node, Target, Tree};
use crate::config::{ColumnKind, TableConfig};
use crate::error::did_you_mean;

/// The maximum number of objects in a tree, and of fields in an object. The limit is needed because the number of
/// objects can grow exponentially with the depth of nested messages.
const TREE_MAX: usize = 4 * COLUMNS_MAX;

/// Reads the message type that the configuration names. Returns `None` if the file does not compile or does not declare
/// the type.
pub(in crate::contract) fn declare(
    config: &TableConfig,
    file: &Path,
    base: &Path,
    errors: &mut DeclarationErrors,
) -> Option<DeclaredColumns> {
    if !config.columns.is_empty() {
        errors.push("the table has both `proto` and `columns`: set only one of them".into());
    }
    let message = compile(config.message.as_deref(), file, base).map_err(|error| errors.push(error)).ok()?;
    let mut walk = ProtoWalk::new(config);
    walk.message(&message, "", "");
    walk.check_lists();
    errors.append(&mut walk.errors);
    let ProtoWalk { columns, paths, nodes, enums, .. } = walk;
    let map = columns.iter().position(|column| column.kind == ColumnKind::Map);
    check_map(&config.dimensions_map, map.map(|index| (&*columns[index].name, &*paths[index])), errors);
    let description = match &config.description {
        given if given.is_empty() => comment(&message.parent_file(), message.path()).0,
        given => given.clone(),
    };
    Some(DeclaredColumns {
        description,
        columns,
        paths,
        tree: Tree { nodes, enums: enums.into_iter().map(|(_, names)| names).collect() },
        unknown_to_map: map.is_some(),
        message: Some(message),
    })
}

/// Compiles a file and returns the message type whose full name is `message`. The error message is intended for
/// operators.
pub(in crate::contract) fn compile(
    message: Option<&str>,
    file: &Path,
    base: &Path,
) -> Result<MessageDescriptor, String> {
    let path = file.display();
    // The compiler searches for imports in the file's folder and in every folder above it, up to the folder `base`.
    let mut includes: Vec<_> = file.ancestors().skip(1).take_while(|folder| folder.starts_with(base)).collect();
    if includes.is_empty() {
        includes.extend(file.parent());
    }
    let mut compiler = protox::Compiler::new(includes).map_err(|error| format!("`proto` {path}: {error}"))?;
    compiler.open_file(file).map_err(|error| format!("`proto` {path} does not compile: {error}"))?;
    let pool = compiler.descriptor_pool();
    let names: Vec<_> = pool.all_messages().map(|message| message.full_name().to_owned()).collect();
    let Some(name) = message else {
        return Err(format!("`message` is not set: name one of {} in {path}", names.join(", ")));
    };
    pool.get_message_by_name(name).ok_or_else(|| {
        let hint = did_you_mean(name, names.iter().map(String::as_str));
        format!("`message` names `{name}`, which {path} does not declare{hint}")
    })
}

fn check_map(named: &str, map: Option<(&str, &str)>, errors: &mut DeclarationErrors) {
    match map {
        _ if named.is_empty() => {}
        None => errors.push(format!("`dimensions_map` names `{named}`, but the message has no map field")),
        Some((name, path)) if named != name && named != path => {
            errors.push(format!("`dimensions_map` names `{named}`, but the map field of the message is `{name}`"));
        }
        Some(_) => {}
    }
}

/// Collects columns from a message and its nested messages.
struct ProtoWalk<'a> {
    config: &'a TableConfig,
    columns: Vec<Column>,
    paths: Vec<String>,
    nodes: Vec<Node>,
    enums: Vec<(String, EnumNames)>,
    /// The messages that enclose the current field. A field whose type is one of them is recursive.
    inside: Vec<MessageDescriptor>,
    /// The paths in `flatten` and `ignore` that matched a field.
    matched: Vec<String>,
    errors: DeclarationErrors,
}

impl<'a> ProtoWalk<'a> {
    fn new(config: &'a TableConfig) -> Self {
        let (columns, paths, nodes, enums) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { config, columns, paths, nodes, enums, inside: Vec::new(), matched: Vec::new(), errors: Vec::new() }
    }

    /// Adds the message at `path` and returns the index of its node. The names of the columns in this message begin
    /// with `prefix`. `path` and `prefix` are each empty or end in a dot.
    fn message(&mut self, message: &MessageDescriptor, path: &str, prefix: &str) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node::new(String::new(), Vec::new(), Vec::new()));
        if self.nodes.len() == TREE_MAX || message.fields().len() > TREE_MAX {
            self.errors.push(format!(
                "message `{}` exceeds the limit of {TREE_MAX} messages or of {TREE_MAX} fields per message: list some of its fields in `ignore`",
                message.full_name()
            ));
        }
        if self.nodes.len() >= TREE_MAX || message.fields().len() > TREE_MAX {
            return index;
        }
        self.inside.push(message.clone());
        let mut defaults = Vec::new();
        let mut fields = Vec::new();
        for field in message.fields() {
            let target = self.field(&field, &format!("{path}{}", field.name()), prefix);
            if let Target::Column(leaf) = target {
                defaults.extend(fallback(&field, leaf).map(|value| (leaf.column, value)));
            }
            fields.push(Field {
                name: field.name().into(),
                json_name: if field.json_name() == field.name() { String::new() } else { field.json_name().into() },
                number: field.number(),
                target,
            });
        }
        self.inside.pop();
        self.nodes[index] = Node::new(prefix.into(), fields, defaults);
        index
    }

    fn field(&mut self, field: &FieldDescriptor, path: &str, prefix: &str) -> Target {
        if self.listed(&self.config.ignore, path) {
            return Target::Ignored;
        }
        let kind = field.kind();
        match &kind {
            Kind::Message(entry) if field.is_map() => self.map(field, entry, path, prefix),
            Kind::Message(message) if field.is_list() && message.full_name() != "google.protobuf.Timestamp" => {
                self.errors.push(format!(
                    "field `{path}` repeats a message, which no column type supports: list it in `ignore`"
                ));
                Target::Ignored
            }
            _ if field.is_group() => {
                self.errors
                    .push(format!("field `{path}` is a group, which no column type supports: list it in `ignore`"));
                Target::Ignored
            }
            Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
                self.column(field, path, prefix, ColumnKind::Timestamp, FieldEncoding::Time)
            }
            Kind::Message(message) if self.inside.contains(message) => {
                self.errors
                    .push(format!("field `{path}` is recursive, which no column type supports: list it in `ignore`"));
                Target::Ignored
            }
            Kind::Message(message) => {
                let flat = self.listed(&self.config.flatten, path);
                let prefix = if flat { String::new() } else { format!("{prefix}{}.", field.name()) };
                Target::Node(self.message(message, &format!("{path}."), &prefix))
            }
            kind => {
                let (column, encoding) = self.scalar(kind);
                self.column(field, path, prefix, column, encoding)
            }
        }
    }

    fn column(
        &mut self,
        field: &FieldDescriptor,
        path: &str,
        prefix: &str,
        kind: ColumnKind,
        encoding: FieldEncoding,
    ) -> Target {
        let name = format!("{prefix}{}", field.name()).replace('.', "_");
        let is_time = [&name, path]
            .iter()
            .any(|name| self.config.time == **name || self.config.times.iter().any(|time| time == name));
        let is_integer = matches!(kind, ColumnKind::Int32 | ColumnKind::Int64);
        let kind = if is_time && is_integer && !field.is_list() { ColumnKind::Timestamp } else { kind };
        let listed = if field.is_list() { ColumnKind::list_of(kind).unwrap_or(kind) } else { kind };
        let kind = self.declared_type(&name, path, listed, encoding);
        let (description, unit) = comment(&field.parent_file(), field.path());
        // The unit in the comment applies to the integer in the message, and not to the resulting timestamp.
        let unit = if kind == ColumnKind::Timestamp { String::new() } else { unit };
        let column = self.columns.len();
        self.columns.push(Column { name, kind, unit, description });
        self.paths.push(path.into());
        Target::Column(Leaf { column, kind, encoding, unit: self.config.time_unit })
    }

    /// Returns the type that `types` declares for a column, or `natural`, which follows from the field's type. Adds an
    /// error if values of the field cannot be stored in a column of the declared type.
    fn declared_type(&mut self, name: &str, path: &str, natural: ColumnKind, encoding: FieldEncoding) -> ColumnKind {
        let types = &self.config.types;
        let Some((key, declared)) = types.get_key_value(name).or_else(|| types.get_key_value(path)) else {
            return natural;
        };
        self.matched.push(key.clone());
        let kind = match ColumnKind::parse(declared) {
            Ok(kind) => kind,
            Err(error) => {
                self.errors.push(format!("`types.{key}`: {error}"));
                return natural;
            }
        };
        let fits = match (natural, kind) {
            (ColumnKind::List(_), ColumnKind::List(element)) => can_store(encoding, *element),
            (ColumnKind::List(_), _) | (_, ColumnKind::List(_)) => false,
            (_, kind) => can_store(encoding, kind),
        };
        if kind != natural && !fits {
            self.errors.push(format!(
                "`types.{key}` is {kind}, but the field's type in the `.proto` file is read as {natural}: declare a type \
                 that stores the field's values without loss"
            ));
            return natural;
        }
        kind
    }

    fn map(&mut self, field: &FieldDescriptor, entry: &MessageDescriptor, path: &str, prefix: &str) -> Target {
        let (_, key) = self.scalar(&entry.map_entry_key_field().kind());
        let value = entry.map_entry_value_field().kind();
        if matches!(value, Kind::Message(_) | Kind::Bytes) {
            self.errors.push(format!(
                "field `{path}` is a map of messages or bytes, which no column type supports: list it in `ignore`"
            ));
            return Target::Ignored;
        }
        let (_, value) = self.scalar(&value);
        self.column(field, path, prefix, ColumnKind::Map, FieldEncoding::Undeclared);
        Target::Map(key, value)
    }

    fn scalar(&mut self, kind: &Kind) -> (ColumnKind, FieldEncoding) {
        match kind {
            Kind::Bool => (ColumnKind::Bool, FieldEncoding::Bool),
            Kind::Int32 => (ColumnKind::Int32, FieldEncoding::Int32),
            Kind::Sint32 => (ColumnKind::Int32, FieldEncoding::Sint32),
            Kind::Sfixed32 => (ColumnKind::Int32, FieldEncoding::Sfixed32),
            Kind::Uint32 => (ColumnKind::Int64, FieldEncoding::Uint32),
            Kind::Fixed32 => (ColumnKind::Int64, FieldEncoding::Fixed32),
            Kind::Int64 => (ColumnKind::Int64, FieldEncoding::Int64),
            Kind::Sint64 => (ColumnKind::Int64, FieldEncoding::Sint64),
            Kind::Sfixed64 => (ColumnKind::Int64, FieldEncoding::Sfixed64),
            Kind::Uint64 => (ColumnKind::Int64, FieldEncoding::Uint64),
            Kind::Fixed64 => (ColumnKind::Int64, FieldEncoding::Fixed64),
            Kind::Float => (ColumnKind::Float32, FieldEncoding::Float),
            Kind::Double => (ColumnKind::Float64, FieldEncoding::Double),
            Kind::String => (ColumnKind::Text, FieldEncoding::Text),
            Kind::Bytes | Kind::Message(_) => (ColumnKind::Bytes, FieldEncoding::Bytes),
            Kind::Enum(names) => (ColumnKind::Text, FieldEncoding::Enum(self.enumeration(names))),
        }
    }

    fn enumeration(&mut self, names: &EnumDescriptor) -> usize {
        if let Some(index) = self.enums.iter().position(|(name, _)| name == names.full_name()) {
            return index;
        }
        let values = names.values().map(|value| (value.number(), value.name().to_owned())).collect();
        self.enums.push((names.full_name().to_owned(), EnumNames::new(values)));
        self.enums.len() - 1
    }

    fn listed(&mut self, list: &[String], path: &str) -> bool {
        let listed = list.iter().any(|listed| listed == path);
        if listed {
            self.matched.push(path.into());
        }
        listed
    }

    /// Adds an error for each path in `flatten` and `ignore` that did not match a field.
    fn check_lists(&mut self) {
        for (list, paths) in [("flatten", &self.config.flatten), ("ignore", &self.config.ignore)] {
            for path in paths.iter().filter(|path| !self.matched.contains(path)) {
                let wanted = if list == "flatten" { "message field" } else { "field" };
                self.errors.push(format!("`{list}` names `{path}`, which is not a {wanted} of the message"));
            }
        }
        for name in self.config.types.keys().filter(|name| !self.matched.contains(name)) {
            let hint = did_you_mean(name, self.columns.iter().map(|column| column.name.as_str()));
            self.errors.push(format!("`types` names the unknown column `{name}`{hint}"));
        }
    }
}

/// Returns true if a column of this kind can store the values of a field with this encoding without loss.
fn can_store(encoding: FieldEncoding, kind: ColumnKind) -> bool {
    use ColumnKind::{Date, Decimal, Json, Text, Time, Timestamp, Uuid};
    match encoding {
        FieldEncoding::Text => matches!(kind, Text | Date | Decimal { .. } | Json | Time | Timestamp | Uuid),
        FieldEncoding::Bytes => matches!(kind, ColumnKind::Bytes | Json | Uuid),
        FieldEncoding::Int32
        | FieldEncoding::Int64
        | FieldEncoding::Uint32
        | FieldEncoding::Uint64
        | FieldEncoding::Sint32
        | FieldEncoding::Sint64
        | FieldEncoding::Fixed32
        | FieldEncoding::Fixed64
        | FieldEncoding::Sfixed32
        | FieldEncoding::Sfixed64 => matches!(kind, Decimal { .. } | ColumnKind::Int64),
        _ => false,
    }
}

/// Returns the default value of a field without presence, or `None` if the field has presence. If the value of such a
/// field is the default, encoders leave the field out.
fn fallback(field: &FieldDescriptor, leaf: Leaf) -> Option<Fallback> {
    match (leaf.kind, leaf.encoding) {
        (ColumnKind::List(_), _) => Some(Fallback::EmptyList),
        _ if field.supports_presence() => None,
        (_, FieldEncoding::Enum(names)) => Some(Fallback::Enum(names)),
        // An absent string is empty, and an empty string is not a number.
        (ColumnKind::Decimal { .. }, FieldEncoding::Text) => None,
        (ColumnKind::Decimal { .. }, _) => Some(Fallback::Decimal),
        (ColumnKind::Int32 | ColumnKind::Int64, _) => Some(Fallback::Int),
        (ColumnKind::Float32 | ColumnKind::Float64, _) => Some(Fallback::Float),
        (ColumnKind::Bool, _) => Some(Fallback::False),
        (ColumnKind::Text, _) => Some(Fallback::EmptyText),
        (ColumnKind::Bytes, _) => Some(Fallback::EmptyBytes),
        // An absent time becomes null, because the default value 0 would be the year 1970. An empty string is neither a
        // date nor a time, a UUID or JSON.
        (
            ColumnKind::Timestamp
            | ColumnKind::Date
            | ColumnKind::Time
            | ColumnKind::Uuid
            | ColumnKind::Json
            | ColumnKind::Map,
            _,
        ) => None,
    }
}

/// Returns the comment of the item at `path` as one line, and the unit that the comment states (`Unit: ms.`).
fn comment(file: &FileDescriptor, path: &[i32]) -> (String, String) {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let text = location.map_or("", |location| match location.leading_comments() {
        "" => location.trailing_comments(),
        leading => leading,
    });
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.split_once("Unit: ") {
        None => (text, String::new()),
        Some((before, after)) => {
            let (unit, after) = after.split_once('.').unwrap_or((after, ""));
            let prose = format!("{} {}", before.trim_end(), after.trim_start());
            (prose.trim().to_owned(), unit.to_owned())
        }
    }
}
