//! The tree of fields of an event: how a JSON key or a protobuf field number finds its column.
//!
//! ```text
//!   event ─► Tree ─ node 0 ─┬─ field ─► column
//!                           ├─ field ─► node 1 ─┬─ field ─► column
//!                           │                   └─ field ─► the map
//!                           └─ field ─► nowhere (known, not stored)
//! ```
//!
//! Built once from a `.proto` or from declared columns, read for every event: lookups neither allocate nor hash with a
//! keyed hash. Only our own names are in the tables, so hostile keys can collide with a bounded number of them.

use super::table::ColumnKind;
use crate::config::TimeUnit;

/// All objects that an event may hold. Node 0 is the event itself.
#[derive(Debug, Default)]
pub(in crate::contract) struct Tree {
    pub(in crate::contract) nodes: Vec<Node>,
    pub(in crate::contract) enums: Vec<EnumNames>,
}

/// One object: the event, or a nested message.
#[derive(Debug)]
pub(in crate::contract) struct Node {
    /// Stands in front of the keys of unknown fields: empty, or a dotted path that ends in a dot.
    pub(in crate::contract) prefix: String,
    pub(in crate::contract) fields: Vec<Field>,
    /// Columns that hold a value whenever the object is there, because their fields have no presence (proto3).
    pub(in crate::contract) defaults: Vec<(usize, Fallback)>,
    names: Names,
    numbers: Numbers,
    tags: Vec<Option<(Short, u16)>>,
}

/// How a field is read that stands on the wire as most do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum Short {
    /// Text, into a column of text.
    Text,
    /// A double, into a column of doubles.
    Double,
    /// The low half of a varint, into a column of integers.
    Uint32,
    /// A varint, into a column of integers.
    Int64,
    /// The same, which may be too large for it.
    Uint64,
    /// An entry of text and text, into the map.
    Texts,
}

/// One field of an object.
#[derive(Debug, Clone)]
pub(in crate::contract) struct Field {
    /// Its name in a `.proto` or in the configuration.
    pub(in crate::contract) name: String,
    /// Its second name, in lowerCamelCase, or empty.
    pub(in crate::contract) json_name: String,
    /// Its protobuf number; 0 when there is none.
    pub(in crate::contract) number: u32,
    pub(in crate::contract) target: Target,
}

/// Where a field's value goes.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) enum Target {
    /// Into a column.
    Column(Leaf),
    /// Into the fields of another object, by its index in [`Tree::nodes`].
    Node(usize),
    /// Into the map column: keys and values in these encodings.
    Map(FieldEncoding, FieldEncoding),
    /// Nowhere: known, but not stored.
    Ignored,
}

/// A field that is a column.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) struct Leaf {
    /// Index in the stored columns.
    pub(in crate::contract) column: usize,
    pub(in crate::contract) kind: ColumnKind,
    pub(in crate::contract) encoding: FieldEncoding,
    /// What an integer counts, when the column is a timestamp.
    pub(in crate::contract) unit: TimeUnit,
}

/// How a value stands on the protobuf wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum FieldEncoding {
    /// It does not: the column is declared without a `.proto`.
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
    /// By its index in [`Tree::enums`].
    Enum(usize),
    /// `google.protobuf.Timestamp`.
    Time,
}

/// What an absent field without presence holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum Fallback {
    Int,
    Float,
    False,
    EmptyText,
    EmptyBytes,
    /// The name of number 0.
    Enum(usize),
}

/// The names of one enum's numbers.
#[derive(Debug)]
pub(in crate::contract) struct EnumNames(Vec<(i32, String)>);

impl Tree {
    /// Moves every column to `places[column]`: from declared to stored order.
    pub(in crate::contract) fn reorder(&mut self, places: &[usize]) {
        for node in &mut self.nodes {
            for field in &mut node.fields {
                if let Target::Column(leaf) = &mut field.target {
                    leaf.column = places[leaf.column];
                }
            }
            for (column, _) in &mut node.defaults {
                *column = places[*column];
            }
        }
    }
}

impl Node {
    pub(in crate::contract) fn new(prefix: String, fields: Vec<Field>, defaults: Vec<(usize, Fallback)>) -> Self {
        let (names, numbers, tags) = (Names::new(&fields), Numbers::new(&fields), tags(&fields));
        Self { prefix, fields, defaults, names, numbers, tags }
    }

    /// The same node with further fields behind its own; a name that is taken already stays with its first owner.
    pub(in crate::contract) fn extend(self, fields: impl IntoIterator<Item = Field>) -> Self {
        let mut all = self.fields;
        all.extend(fields);
        Self::new(self.prefix, all, self.defaults)
    }

    /// How the field with this protobuf key (its number and the type of its value) is read, and which it is.
    #[inline]
    pub(in crate::contract) fn tagged(&self, key: u64) -> Option<(Short, &Field)> {
        let (short, field) = (*self.tags.get(usize::try_from(key).ok()?)?)?;
        Some((short, &self.fields[usize::from(field)]))
    }

    /// The field with this protobuf number.
    pub(in crate::contract) fn numbered(&self, number: u32) -> Option<&Field> {
        self.numbers.find(number).map(|index| &self.fields[index])
    }

    /// The place of a name among [`Node::name`]s: first a guess, then a look-up.
    pub(in crate::contract) fn find_name(&self, key: &[u8]) -> Option<usize> {
        self.names.find(key)
    }

    /// The name at a place, and its field.
    #[inline]
    pub(in crate::contract) fn name(&self, place: usize) -> Option<(&Name, &Field)> {
        let name = self.names.entries.get(place)?;
        Some((name, &self.fields[name.field]))
    }

    /// How many names there are.
    pub(in crate::contract) fn names(&self) -> usize {
        self.names.entries.len()
    }
}

impl Short {
    /// The key's low bits, and the way, of a field that is read in a short way.
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

/// By key, the fields with a small number that are read in a short way.
fn tags(fields: &[Field]) -> Vec<Option<(Short, u16)>> {
    let mut tags = vec![None; TAGS];
    for (place, field) in fields.iter().enumerate().filter(|(_, field)| field.number > 0) {
        let (Some((bits, short)), Ok(place)) = (Short::of(&field.target), u16::try_from(place)) else { continue };
        if let Some(tag) = tags.get_mut(field.number as usize * 8 + bits) {
            *tag = Some((short, place));
        }
    }
    tags
}

impl EnumNames {
    pub(in crate::contract) fn new(mut names: Vec<(i32, String)>) -> Self {
        // Stable: of several names of one number (aliases) the first one declared is the name.
        names.sort_by_key(|(number, _)| *number);
        names.dedup_by_key(|(number, _)| *number);
        Self(names)
    }

    /// The name of a number that the contract knows.
    pub(in crate::contract) fn name(&self, number: i32) -> Option<&str> {
        let guess = usize::try_from(number).ok().and_then(|at| self.0.get(at)).filter(|(known, _)| *known == number);
        let found =
            guess.or_else(|| self.0.binary_search_by_key(&number, |(known, _)| *known).ok().map(|at| &self.0[at]));
        found.map(|(_, name)| name.as_str())
    }
}

/// Names to fields: open addressing over a table at most a quarter full.
#[derive(Debug)]
struct Names {
    entries: Vec<Name>,
    table: Vec<u16>,
}

/// One name of a field.
#[derive(Debug)]
pub(in crate::contract) struct Name {
    text: Box<[u8]>,
    field: usize,
    /// The name and the quote behind it as one number, and which of its bits count; none when it is too long for that.
    word: u128,
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

    /// The bytes of it.
    pub(in crate::contract) fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether bytes begin with it and a quote.
    #[inline]
    pub(in crate::contract) fn opens(&self, bytes: &[u8]) -> bool {
        match bytes.first_chunk() {
            Some(chunk) if self.mask != 0 => u128::from_le_bytes(*chunk) & self.mask == self.word,
            _ => bytes.get(self.text.len()) == Some(&b'"') && bytes.starts_with(&self.text),
        }
    }
}

/// Keys of protobuf fields up to number 31.
const TAGS: usize = 32 * 8;

/// No entry.
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

/// Protobuf numbers to fields: a direct table for the small ones, a sorted list for the rest.
#[derive(Debug)]
struct Numbers {
    direct: Vec<u16>,
    sorted: Vec<(u32, usize)>,
}

impl Numbers {
    /// Numbers below this one are looked up directly.
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
