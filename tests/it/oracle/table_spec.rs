//! Generates random tables. Each table consists of its declaration and the contract that the server builds from it.
//!
//! A [`TableSpec`] is generated from [`Choices`]. The specification contains the server's contract, and the generated
//! tree of fields, which does not depend on the server's code. If a `.proto` declares the table, the specification also
//! contains the message descriptor for `prost-reflect`.

use std::fmt::Write as _;
use std::fs;

use glasshouse::config::{ColumnConfig, TableConfig, TimeUnit};
use glasshouse::contract::{ColumnKind, Contract};
use prost_reflect::MessageDescriptor;
use tempfile::TempDir;

use super::choices::Choices;

/// A generated table.
pub(super) struct TableSpec {
    pub(super) contract: Contract,
    pub(super) root: Object,
    pub(super) unit: TimeUnit,
    /// True if the table has a map column, which stores undeclared fields.
    pub(super) has_map: bool,
    /// The message descriptor for `prost-reflect`, or `None` for a table that is declared as a list of columns. The
    /// descriptor lacks the fields that the table ignores, because the oracle must treat them as unknown. Each member
    /// of a oneof is an optional field, because the table stores all members that a message contains.
    pub(super) message: Option<MessageDescriptor>,
}

/// An event, or a message that is nested in an event.
pub(super) struct Object {
    pub(super) fields: Vec<Field>,
    /// The prefix for the keys of unknown fields: either empty, or a path that ends with a dot.
    pub(super) prefix: String,
}

pub(super) struct Field {
    pub(super) name: String,
    pub(super) json_name: String,
    pub(super) number: u32,
    pub(super) role: Role,
    /// The field's type in a `.proto`, or an empty string in a table that is declared as a list of columns.
    proto: String,
    presence: Presence,
}

/// The role of a field in the table.
pub(super) enum Role {
    Column(Column),
    Object(Object),
    /// The key and value types of a `.proto` map.
    Map(&'static str, &'static str),
    Ignored,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// The column's index in the contract.
    pub(super) index: usize,
    pub(super) kind: ColumnKind,
    /// The column's protobuf type, or an empty string in a table that is declared as a list of columns.
    pub(super) wire: &'static str,
    /// True if an absent field means zero, as for a proto3 field without presence.
    pub(super) is_implicit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Presence {
    Implicit,
    Optional,
    OneOf,
}

/// The names and numbers of the enum that is declared in every message. The numbers include a negative one and are not
/// contiguous.
pub(super) const ENUM: [(i32, &str); 4] = [(0, "ZERO"), (1, "ONE"), (7, "SEVEN"), (-1, "MINUS")];

/// The kinds of columns in a table that is declared without a `.proto`.
const KINDS: [&str; 30] = [
    "text",
    "int64",
    "float64",
    "bool",
    "int32",
    "float32",
    "timestamp",
    "date",
    "bytes",
    "decimal(4, 2)",
    "decimal(12, 2)",
    "decimal(38, 10)",
    "decimal(38, 0)",
    "decimal(38, 38)",
    "uuid",
    "time",
    "json",
    "list<text>",
    "list<int64>",
    "list<float64>",
    "list<bool>",
    "list<int32>",
    "list<float32>",
    "list<timestamp>",
    "list<date>",
    "list<bytes>",
    "list<decimal(9, 3)>",
    "list<uuid>",
    "list<time>",
    "decimal(20, 0)",
];
/// The types that `types` can declare for fields of a `.proto`, each with the protobuf types of these fields. JSON is
/// the only one that a list cannot contain.
const DECLARED_TYPES: [(&str, &str); 12] = [
    ("decimal(12, 2)", "string"),
    ("uuid", "string"),
    ("time", "string"),
    ("json", "string"),
    ("date", "string"),
    ("timestamp", "string"),
    ("decimal(38, 10)", "string"),
    ("uuid", "bytes"),
    ("json", "bytes"),
    ("decimal(20, 0)", "int"),
    ("decimal(4, 2)", "int"),
    ("int64", "int"),
];

/// The types of `.proto` fields other than generated messages.
pub(super) const SCALARS: [&str; 17] = [
    "string", "int64", "double", "uint64", "bool", "int32", "uint32", "sint32", "sint64", "fixed32", "fixed64",
    "sfixed32", "sfixed64", "float", "bytes", "Names", TIME,
];
pub(super) const TIME: &str = "google.protobuf.Timestamp";
const MAP_KEYS: [&str; 5] = ["string", "int64", "bool", "uint32", "fixed64"];
const MAP_VALUES: [&str; 8] = ["string", "int64", "uint64", "double", "float", "bool", "Names", "sint32"];
const UNITS: [TimeUnit; 5] = [TimeUnit::Auto, TimeUnit::Seconds, TimeUnit::Millis, TimeUnit::Micros, TimeUnit::Nanos];

/// Generates a table that is declared as a list of columns.
pub(super) fn columns(choices: &mut Choices<'_>) -> TableSpec {
    let key = if choices.chance(30) { "uuid" } else { "text" };
    let mut declared = vec![("who".to_owned(), "text"), ("at".to_owned(), "timestamp"), ("key".to_owned(), key)];
    declared.extend((0..choices.below(12)).map(|index| (format!("c{index}"), choices.pick(&KINDS))));
    let has_map = !choices.chance(60);
    let unit = UNITS[choices.below(UNITS.len())];
    let config = TableConfig {
        columns: declared
            .iter()
            .map(|(name, kind)| ColumnConfig { name: name.clone(), kind: (*kind).into(), ..ColumnConfig::default() })
            .collect(),
        tenant: "who".into(),
        time: "at".into(),
        id: "key".into(),
        time_unit: unit,
        dimensions_map: if has_map { "more".into() } else { String::new() },
        ..TableConfig::default()
    };
    let contract =
        Contract::new("made", &config, std::path::Path::new("")).expect("the generated declaration is valid");
    let mut fields: Vec<Field> = declared
        .iter()
        .map(|(name, kind)| {
            let kind = self::kind(kind);
            let index = contract.column(name).expect("the column was declared");
            field(name, Role::Column(Column { index, kind, wire: "", is_implicit: false }))
        })
        .collect();
    if has_map {
        fields.push(field("more", Role::Map("", "")));
    }
    fields.extend(["received_time", "event_date"].map(|ours| field(ours, Role::Ignored)));
    TableSpec { contract, root: Object { fields, prefix: String::new() }, unit, has_map, message: None }
}

fn kind(name: &str) -> ColumnKind {
    ColumnKind::parse(name).expect("the name is valid")
}

fn field(name: &str, role: Role) -> Field {
    let (name, json_name, proto) = (name.to_owned(), String::new(), String::new());
    Field { name, json_name, number: 0, role, proto, presence: Presence::Optional }
}

/// Generates a table that is declared by a `.proto` with nested messages.
pub(super) fn message(choices: &mut Choices<'_>) -> TableSpec {
    let mut generator = Generator { choices, config: TableConfig::default(), names: 0, has_map: false };
    let mut root = generator.object("", "", 0);
    let is_integer_time = generator.choices.chance(128);
    for (name, proto) in [("who", "string"), ("at", if is_integer_time { "uint64" } else { TIME }), ("key", "string")] {
        let presence = if generator.choices.chance(128) { Presence::Optional } else { Presence::Implicit };
        let number = generator.number(root.fields.len());
        let role = generator.scalar(proto, name, presence);
        root.fields.push(Field { number, proto: proto.into(), presence, ..field(name, role) });
    }
    let Generator { choices, mut config, has_map, .. } = generator;
    let unit = UNITS[choices.below(UNITS.len())];
    config.time_unit = unit;
    config.times.push("at".into());
    (config.tenant, config.time, config.id) = ("who".into(), "at".into(), "key".into());

    let folder = TempDir::new().expect("a temporary folder can be created");
    let full = compile(&folder, "full.proto", &text(&root, true));
    (config.proto, config.message) = (Some("full.proto".into()), Some("made.Event".into()));
    let contract =
        Contract::new("made", &config, folder.path()).unwrap_or_else(|error| panic!("{error}\n{}", text(&root, true)));
    let stored = compile(&folder, "stored.proto", &text(&root, false));
    bind(&mut root, &full, &contract, "");
    let mut names = Vec::new();
    columns_of(&root, &contract, &mut names);
    root.fields.extend(names);
    root.fields.extend(["received_time", "event_date"].map(|ours| field(ours, Role::Ignored)));
    TableSpec { contract, root, unit, has_map, message: Some(stored) }
}

fn compile(folder: &TempDir, name: &str, text: &str) -> MessageDescriptor {
    fs::write(folder.path().join(name), text).expect("a file can be written");
    let mut compiler = protox::Compiler::new([folder.path()]).expect("the folder exists");
    compiler.open_file(name).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let pool = compiler.descriptor_pool();
    pool.get_message_by_name("made.Event").expect("the message was declared")
}

struct Generator<'d, 'b> {
    choices: &'d mut Choices<'b>,
    config: TableConfig,
    names: usize,
    has_map: bool,
}

impl Generator<'_, '_> {
    fn object(&mut self, path: &str, prefix: &str, depth: usize) -> Object {
        let mut fields = Vec::new();
        for _ in 0..self.choices.below(7) + usize::from(depth > 0) {
            let number = self.number(fields.len());
            self.names += 1;
            let name = match self.choices.below(3) {
                0 => format!("f{}", self.names),
                1 => format!("field_{}_x", self.names),
                _ => format!("aVeryLongNameOfAField_{}", self.names),
            };
            let path = format!("{path}{name}");
            let presence = [Presence::Implicit, Presence::Optional, Presence::OneOf][self.choices.below(3)];
            let made = match self.choices.below(20) {
                16..20 => {
                    let proto = self.choices.pick(&SCALARS);
                    (format!("repeated {proto}"), Presence::Implicit, self.repeated(proto, &path))
                }
                0..11 => {
                    let proto = self.choices.pick(&SCALARS);
                    if proto.contains("int") && self.choices.chance(64) {
                        self.config.times.push(path.clone());
                    }
                    (proto.to_owned(), presence, self.scalar(proto, &path, presence))
                }
                11 if !self.has_map => {
                    self.has_map = true;
                    let (key, value) = (self.choices.pick(&MAP_KEYS), self.choices.pick(&MAP_VALUES));
                    (format!("map<{key}, {value}>"), Presence::Implicit, Role::Map(key, value))
                }
                12 => {
                    self.config.ignore.push(path.clone());
                    let proto = self.choices.pick(&["int32", "string", "double", "Event", "Names"]);
                    (format!("repeated {proto}"), Presence::Implicit, Role::Ignored)
                }
                13 => {
                    self.config.ignore.push(path.clone());
                    (self.choices.pick(&["Event", "string", "uint64"]).to_owned(), presence, Role::Ignored)
                }
                _ if depth < 3 => {
                    let is_flat = self.choices.chance(128);
                    let inner = if is_flat { String::new() } else { format!("{prefix}{name}.") };
                    if is_flat {
                        self.config.flatten.push(path.clone());
                    }
                    let object = self.object(&format!("{path}."), &inner, depth + 1);
                    (format!("M{name}"), presence, Role::Object(object))
                }
                _ => ("string".to_owned(), presence, self.scalar("string", &path, presence)),
            };
            let (proto, presence, role) = made;
            fields.push(Field { name, json_name: String::new(), number, role, proto, presence });
        }
        Object { fields, prefix: prefix.to_owned() }
    }

    /// Returns a random number for the field at `index` in its message. Most of the numbers are small, with gaps
    /// between them. Some are large.
    fn number(&mut self, index: usize) -> u32 {
        let index = index as u32;
        match self.choices.below(8) {
            0..6 => index * 2 + 1,
            6 => index * 2 + 30 + 2,
            _ => index * 2 + 1_000_002,
        }
    }

    fn scalar(&mut self, proto: &'static str, path: &str, presence: Presence) -> Role {
        let is_time = path == "at" || self.config.times.iter().any(|time| time == path);
        let kind = match proto {
            "bool" => ColumnKind::Bool,
            TIME => ColumnKind::Timestamp,
            "string" | "Names" => ColumnKind::Text,
            "bytes" => ColumnKind::Bytes,
            "float" => ColumnKind::Float32,
            "double" => ColumnKind::Float64,
            _ if is_time => ColumnKind::Timestamp,
            "int32" | "sint32" | "sfixed32" => ColumnKind::Int32,
            _ => ColumnKind::Int64,
        };
        let is_key = ["who", "at", "key"].contains(&path);
        let declared = if is_time || is_key { None } else { self.declared_type(proto, false) };
        let kind = self.declare(declared, path).unwrap_or(kind);
        use ColumnKind::{Date, Decimal, Json, Time, Timestamp, Uuid};
        let is_text_number = matches!(kind, Decimal { .. }) && proto == "string";
        let is_null_if_absent = matches!(kind, Date | Json | Time | Timestamp | Uuid) || is_text_number;
        let is_implicit = presence == Presence::Implicit && !is_null_if_absent;
        // The contract does not exist yet, so `bind` sets the index later.
        Role::Column(Column { index: 0, kind, wire: proto, is_implicit })
    }

    /// Returns the role of a repeated field, which is a list.
    fn repeated(&mut self, proto: &'static str, path: &str) -> Role {
        let element = match proto {
            "bool" => "bool",
            TIME => "timestamp",
            "string" | "Names" => "text",
            "bytes" => "bytes",
            "float" => "float32",
            "double" => "float64",
            "int32" | "sint32" | "sfixed32" => "int32",
            _ => "int64",
        };
        let declared = self.declared_type(proto, true).map(|kind| format!("list<{kind}>"));
        let kind = self.declare(declared, path).unwrap_or_else(|| kind(&format!("list<{element}>")));
        Role::Column(Column { index: 0, kind, wire: proto, is_implicit: true })
    }

    /// Returns a type that can replace the type of a field, or `None` in most cases.
    fn declared_type(&mut self, proto: &str, is_element: bool) -> Option<String> {
        if !self.choices.chance(128) {
            return None;
        }
        let fits = |(kind, wire): &(&str, &str)| {
            let is_wire = *wire == proto || (*wire == "int" && (proto.contains("int") || proto.contains("fixed")));
            is_wire && !(is_element && *kind == "json")
        };
        let kinds: Vec<_> = DECLARED_TYPES.into_iter().filter(fits).map(|(kind, _)| kind).collect();
        if kinds.is_empty() { None } else { Some(self.choices.pick(&kinds).to_owned()) }
    }

    /// Adds the type of a column to the configuration.
    fn declare(&mut self, declared: Option<String>, path: &str) -> Option<ColumnKind> {
        let name = declared?;
        let parsed = kind(&name);
        self.config.types.insert(path.to_owned(), name);
        Some(parsed)
    }
}

/// For each field, sets its column index in the contract and its JSON name from `prost-reflect`. In the contract, a
/// column's name consists of `prefix` and the field's name, with `_` instead of each dot. A flattened message has an
/// empty prefix. The prefix of any other nested message is its parent's prefix, its field name, and a dot.
fn bind(object: &mut Object, message: &MessageDescriptor, contract: &Contract, prefix: &str) {
    debug_assert_eq!(object.prefix, prefix);
    for field in &mut object.fields {
        let known = message.get_field_by_name(&field.name).expect("the field was declared");
        field.json_name = known.json_name().to_owned();
        match &mut field.role {
            Role::Column(column) => {
                let name = format!("{prefix}{}", field.name).replace('.', "_");
                column.index = contract.column(&name).unwrap_or_else(|| panic!("the contract has no column {name}"));
                assert_eq!(contract.columns[column.index].kind, column.kind, "{name}");
            }
            Role::Object(inner) => {
                let kind = known.kind();
                let message = kind.as_message().expect("the field was declared as a message");
                let prefix = inner.prefix.clone();
                bind(inner, message, contract, &prefix);
            }
            Role::Map(..) | Role::Ignored => {}
        }
    }
}

/// Adds the columns of nested messages to `names`, each with the name that an event can use for the column in its root
/// object.
fn columns_of(object: &Object, contract: &Contract, names: &mut Vec<Field>) {
    for inner in &object.fields {
        let Role::Object(inner) = &inner.role else { continue };
        for deep in &inner.fields {
            match deep.role {
                Role::Column(column) => names.push(field(&contract.columns[column.index].name, Role::Column(column))),
                Role::Map(key, value) => {
                    let map = contract.map.expect("the table has a map");
                    names.push(field(&contract.columns[map].name, Role::Map(key, value)));
                }
                Role::Object(_) | Role::Ignored => {}
            }
        }
        columns_of(inner, contract, names);
    }
}

/// Returns the text of the `.proto`, either with all fields, as producers use it, or with only the stored fields.
fn text(root: &Object, is_full: bool) -> String {
    let mut text =
        "syntax = \"proto3\";\npackage made;\nimport \"google/protobuf/timestamp.proto\";\nenum Names {\n".to_owned();
    for (number, name) in ENUM {
        let _ = writeln!(text, "  {name} = {number};");
    }
    text += "}\n";
    message_text(&mut text, "Event", root, is_full);
    text
}

fn message_text(text: &mut String, name: &str, object: &Object, is_full: bool) {
    let mut inner = String::new();
    let _ = writeln!(text, "message {name} {{");
    let line = |field: &Field| format!("{} {} = {};", field.proto, field.name, field.number);
    let is_in_oneof = |field: &&Field| is_full && field.presence == Presence::OneOf;
    for field in object.fields.iter().filter(|field| !is_in_oneof(field)) {
        if matches!(field.role, Role::Ignored) && !is_full {
            continue;
        }
        let has_presence = field.presence != Presence::Implicit;
        let _ = writeln!(text, "  {}{}", if has_presence { "optional " } else { "" }, line(field));
    }
    let members: Vec<String> = object.fields.iter().filter(is_in_oneof).map(line).collect();
    if !members.is_empty() {
        let _ = writeln!(text, "  oneof one_{name} {{ {} }}", members.join(" "));
    }
    let _ = writeln!(text, "}}");
    for field in &object.fields {
        if let Role::Object(object) = &field.role {
            message_text(&mut inner, &field.proto, object, is_full);
        }
    }
    text.push_str(&inner);
}
