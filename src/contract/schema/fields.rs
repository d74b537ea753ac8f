//! The field tree of an event, which maps the event's JSON keys and protobuf field numbers to columns.
//!
//! ```text
//!   event ─► Tree ─ node 0 ─┬─ field ─► column
//!                           ├─ field ─► node 1 ─┬─ field ─► column
//!                           │                   └─ field ─► the map
//!                           └─ field ─► ignored (known, not stored)
//! ```
//!
//! The tree is built once per table, from a `.proto` file or from declared columns, and is read for every event.
//! Lookups do not allocate. The hash function is fast but has no secret key, so an attacker could construct keys that
//! collide. Such collisions are harmless, because the table contains only declared names.

use crate::config::{ColumnKind, TimeUnit};

/// All objects that an event may contain. Node 0 is the event itself, and the other nodes are its nested objects.
#[derive(Debug, Default)]
pub(in crate::contract) struct Tree {
    pub(in crate::contract) nodes: Vec<Node>,
    pub(in crate::contract) enums: Vec<EnumNames>,
}

/// One object of the tree. It is the event itself, or an object or message that is nested in the event.
#[derive(Debug)]
pub(in crate::contract) struct Node {
    /// The prefix of undeclared keys of this object in the map column. It is empty or a dotted path that ends in a dot.
    pub(in crate::contract) prefix: String,
    pub(in crate::contract) fields: Vec<Field>,
    /// The columns of fields without presence (proto3), each with the field's default value. The decoder writes the
    /// default value if an event contains the object but not the field.
    pub(in crate::contract) defaults: Vec<(usize, Fallback)>,
    names: Names,
    numbers: Numbers,
    tags: Vec<Option<(FastPath, u16)>>,
}

/// The specialized code path that reads a field of a common type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum FastPath {
    /// Reads a string into a text column.
    Text,
    /// Reads a double into a `float64` column.
    Double,
    /// Reads the low 32 bits of a varint into an `int64` column.
    Uint32,
    /// Reads a varint into an `int64` column.
    Int64,
    /// Reads an unsigned varint into an `int64` column, and rejects a number that is too large.
    Uint64,
    /// Reads an entry with a string key and a string value into the map column.
    Texts,
}

/// One field of an object.
#[derive(Debug, Clone)]
pub(in crate::contract) struct Field {
    /// The name in the `.proto` file or in the configuration.
    pub(in crate::contract) name: String,
    /// The JSON name in lowerCamelCase. The string is empty if the JSON name equals `name`, or if the field is not
    /// declared in a `.proto` file.
    pub(in crate::contract) json_name: String,
    /// The protobuf field number, or 0 if the field is not declared in a `.proto` file.
    pub(in crate::contract) number: u32,
    pub(in crate::contract) target: Target,
}

/// The destination of a field's value.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) enum Target {
    /// A column.
    Column(Leaf),
    /// The object that is stored in [`Tree::nodes`] at this index.
    Node(usize),
    /// The map column. The field is a protobuf map, and these are the encodings of its keys and its values.
    Map(FieldEncoding, FieldEncoding),
    /// No column, because the value of the field is not stored.
    Ignored,
}

/// A field whose value is stored in a column of its own.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) struct Leaf {
    /// The index of the column. While a declaration is read, it is the index in declared order. In a `Contract`, it is
    /// the index in stored order.
    pub(in crate::contract) column: usize,
    pub(in crate::contract) kind: ColumnKind,
    pub(in crate::contract) encoding: FieldEncoding,
    /// The unit of integers, if the column is a timestamp.
    pub(in crate::contract) unit: TimeUnit,
}

/// The type of a field in the `.proto` file. It determines how values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum FieldEncoding {
    /// A field that no `.proto` file declares, and that therefore has no encoding.
    Undeclared,
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Text,
    Bytes,
    /// The enum type that is stored in [`Tree::enums`] at this index.
    Enum(usize),
    /// `google.protobuf.Timestamp`.
    Time,
}

/// The default value of a field without presence (proto3). Events that do not contain the field have this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum Fallback {
    Int,
    Float,
    Decimal,
    False,
    EmptyText,
    EmptyBytes,
    /// A list without elements, which is the value of a repeated field that does not occur.
    EmptyList,
    /// The name of the value 0 of an enum type. The type is stored in [`Tree::enums`] at this index.
    Enum(usize),
}

/// The names of an enum's values, sorted by number.
#[derive(Debug)]
pub(in crate::contract) struct EnumNames(Vec<(i32, String)>);

impl Tree {
    /// Changes all column indexes from declared order to stored order. The new index of the column `index` is
    /// `positions[index]`.
    pub(in crate::contract) fn reorder(&mut self, positions: &[usize]) {
        for node in &mut self.nodes {
            for field in &mut node.fields {
                if let Target::Column(leaf) = &mut field.target {
                    leaf.column = positions[leaf.column];
                }
            }
            for (column, _) in &mut node.defaults {
                *column = positions[*column];
            }
        }
    }
}

impl Node {
    pub(in crate::contract) fn new(prefix: String, fields: Vec<Field>, defaults: Vec<(usize, Fallback)>) -> Self {
        let (names, numbers, tags) = (Names::new(&fields), Numbers::new(&fields), tags(&fields));
        Self { prefix, fields, defaults, names, numbers, tags }
    }

    /// Appends fields. If a new field has the same name as an existing field, lookups by that name find the existing
    /// field.
    pub(in crate::contract) fn extend(self, fields: impl IntoIterator<Item = Field>) -> Self {
        let mut all = self.fields;
        all.extend(fields);
        Self::new(self.prefix, all, self.defaults)
    }

    /// Returns the field with this protobuf key (field number and wire type) and its fast path. Returns `None` if the
    /// field is unknown or has no fast path.
    #[inline]
    pub(in crate::contract) fn tagged(&self, key: u64) -> Option<(FastPath, &Field)> {
        let (fast_path, field) = (*self.tags.get(usize::try_from(key).ok()?)?)?;
        Some((fast_path, &self.fields[usize::from(field)]))
    }

    /// Returns the field with this protobuf number.
    pub(in crate::contract) fn numbered(&self, number: u32) -> Option<&Field> {
        self.numbers.find(number).map(|index| &self.fields[index])
    }

    /// Looks up a JSON key and returns the index of its name, for [`Node::name`].
    pub(in crate::contract) fn find_name(&self, key: &[u8]) -> Option<usize> {
        self.names.find(key)
    }

    /// Returns the name at an index, and the field that it refers to.
    #[inline]
    pub(in crate::contract) fn name(&self, index: usize) -> Option<(&Name, &Field)> {
        let name = self.names.entries.get(index)?;
        Some((name, &self.fields[name.field]))
    }

    /// Returns how many different names the fields of this object have, including JSON names.
    pub(in crate::contract) fn names(&self) -> usize {
        self.names.entries.len()
    }
}

impl FastPath {
    /// Returns the wire type and the fast path of a field with this target, or `None` if there is no fast path for it.
    fn of(target: &Target) -> Option<(usize, Self)> {
        let leaf = match target {
            Target::Column(leaf) => leaf,
            Target::Map(FieldEncoding::Text, FieldEncoding::Text) => return Some((2, Self::Texts)),
            _ => return None,
        };
        Some(match (leaf.encoding, leaf.kind) {
            (FieldEncoding::Text, ColumnKind::Text) => (2, Self::Text),
            (FieldEncoding::Double, ColumnKind::Float64) => (1, Self::Double),
            (FieldEncoding::Uint32, ColumnKind::Int64) => (0, Self::Uint32),
            (FieldEncoding::Int64, ColumnKind::Int64) => (0, Self::Int64),
            (FieldEncoding::Uint64, ColumnKind::Int64) => (0, Self::Uint64),
            _ => return None,
        })
    }
}

/// Returns a lookup table for fields that have a small number and a fast path. It is indexed by protobuf key.
fn tags(fields: &[Field]) -> Vec<Option<(FastPath, u16)>> {
    let mut tags = vec![None; TAGS];
    for (index, field) in fields.iter().enumerate().filter(|(_, field)| field.number > 0) {
        let (Some((bits, fast_path)), Ok(index)) = (FastPath::of(&field.target), u16::try_from(index)) else {
            continue;
        };
        if let Some(tag) = tags.get_mut(field.number as usize * 8 + bits) {
            *tag = Some((fast_path, index));
        }
    }
    tags
}

impl EnumNames {
    pub(in crate::contract) fn new(mut names: Vec<(i32, String)>) -> Self {
        // The sort is stable, so of several names with the same number (aliases), the one that is declared first is
        // kept.
        names.sort_by_key(|(number, _)| *number);
        names.dedup_by_key(|(number, _)| *number);
        Self(names)
    }

    /// Returns the name of an enum value, or `None` if the contract declares no name for it.
    pub(in crate::contract) fn name(&self, number: i32) -> Option<&str> {
        let guess = usize::try_from(number).ok().and_then(|at| self.0.get(at)).filter(|(known, _)| *known == number);
        let found =
            guess.or_else(|| self.0.binary_search_by_key(&number, |(known, _)| *known).ok().map(|at| &self.0[at]));
        found.map(|(_, name)| name.as_str())
    }
}

/// A hash table that maps names to fields. The table uses open addressing and is at most a quarter full.
#[derive(Debug)]
struct Names {
    entries: Vec<Name>,
    table: Vec<u16>,
}

/// A name by which a field can be found.
#[derive(Debug)]
pub(in crate::contract) struct Name {
    text: Box<[u8]>,
    field: usize,
    /// The name and its closing quote as a 128-bit integer, or 0 if they are longer than 16 bytes.
    word: u128,
    /// The mask that selects the bits of the name and the quote, or 0 if they are longer than 16 bytes.
    mask: u128,
}

impl Name {
    fn new(text: &[u8], field: usize) -> Self {
        let mut word = [0; 16];
        let (word, mask) = match word.get_mut(..=text.len()) {
            Some(quoted) => {
                quoted[..text.len()].copy_from_slice(text);
                quoted[text.len()] = b'"';
                (u128::from_le_bytes(word), u128::MAX >> (8 * (15 - text.len())))
            }
            None => (0, 0),
        };
        Self { text: text.into(), field, word, mask }
    }

    /// Returns the bytes of the name.
    pub(in crate::contract) fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// Returns true if `bytes` starts with the name and a closing quote.
    #[inline]
    pub(in crate::contract) fn opens(&self, bytes: &[u8]) -> bool {
        match bytes.first_chunk() {
            Some(chunk) if self.mask != 0 => u128::from_le_bytes(*chunk) & self.mask == self.word,
            _ => bytes.get(self.text.len()) == Some(&b'"') && bytes.starts_with(&self.text),
        }
    }
}

/// The length of the lookup tables that are indexed by protobuf key. They contain the fields with numbers up to 31.
const TAGS: usize = 32 * 8;

/// Marks a free entry in [`Names`] or [`Numbers`].
const EMPTY: u16 = u16::MAX;

impl Names {
    fn new(fields: &[Field]) -> Self {
        let names = fields.iter().enumerate().map(|(index, field)| (field.name.as_bytes(), index));
        let json_names = fields.iter().enumerate().map(|(index, field)| (field.json_name.as_bytes(), index));
        let mut all = Self { entries: Vec::new(), table: vec![EMPTY; (fields.len() * 8 + 1).next_power_of_two()] };
        for (name, field) in names.chain(json_names) {
            if !name.is_empty() && all.find(name).is_none() {
                all.insert(name, field);
            }
        }
        all
    }

    fn insert(&mut self, name: &[u8], field: usize) {
        let entry = u16::try_from(self.entries.len()).expect("a declaration has at most a few thousand fields");
        let mut slot = self.slot(name);
        while self.table[slot] != EMPTY {
            slot = (slot + 1) & (self.table.len() - 1);
        }
        self.table[slot] = entry;
        self.entries.push(Name::new(name, field));
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let mut slot = self.slot(name);
        loop {
            let entry = usize::from(self.table[slot]);
            let known = self.entries.get(entry)?;
            if *known.text == *name {
                return Some(entry);
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
    }

    fn slot(&self, name: &[u8]) -> usize {
        let mut hash = name.len() as u64;
        for chunk in name.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        (hash >> 32) as usize & (self.table.len() - 1)
    }
}

/// Maps protobuf field numbers to fields. Small numbers are looked up in a table, and all others in a sorted list.
#[derive(Debug)]
struct Numbers {
    direct: Vec<u16>,
    sorted: Vec<(u32, usize)>,
}

impl Numbers {
    /// Numbers below this one are looked up in the table.
    const DIRECT: u32 = 256;

    fn new(fields: &[Field]) -> Self {
        let numbered = fields.iter().enumerate().filter(|(_, field)| field.number > 0);
        let mut sorted: Vec<_> = numbered.map(|(index, field)| (field.number, index)).collect();
        sorted.sort_unstable();
        let largest = sorted.iter().map(|(number, _)| *number).take_while(|number| *number < Self::DIRECT).last();
        let mut direct = vec![EMPTY; largest.map_or(0, |number| number as usize + 1)];
        for (number, index) in sorted.iter().filter(|(number, _)| *number < Self::DIRECT) {
            direct[*number as usize] = u16::try_from(*index).expect("a declaration has at most a few thousand fields");
        }
        Self { direct, sorted }
    }

    fn find(&self, number: u32) -> Option<usize> {
        if let Some(index) = self.direct.get(number as usize) {
            return (*index != EMPTY).then_some(usize::from(*index));
        }
        self.sorted.binary_search_by_key(&number, |(known, _)| *known).ok().map(|at| self.sorted[at].1)
    }
}
