//! [`ColumnKind`]: the types that a column of a table or of a lookup table can have.

/// The type of a column. Times are microseconds in UTC, text is UTF-8, and a map has text keys and text values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// `Boolean`
    Bool,
    /// `Int32`
    Int32,
    /// `Int64`
    Int64,
    /// `Float32`
    Float32,
    /// `Float64`
    Float64,
    /// `Utf8`
    Text,
    /// `Binary`
    Bytes,
    /// `Timestamp(Microsecond, "UTC")`
    Timestamp,
    /// `Date32`
    Date,
    /// `Map<Utf8, Utf8>` (entries `key_value`, `key` not null, `value` nullable)
    Map,
}

impl ColumnKind {
    /// All kinds, in the order in which the documentation lists them.
    pub const ALL: [Self; 10] = [
        Self::Text,
        Self::Bool,
        Self::Int32,
        Self::Int64,
        Self::Float32,
        Self::Float64,
        Self::Timestamp,
        Self::Date,
        Self::Bytes,
        Self::Map,
    ];

    /// The names of all kinds, in the order of [`ColumnKind::ALL`].
    pub const NAMES: [&str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = Self::ALL[index].as_str();
            index += 1;
        }
        names
    };

    /// Returns the kind's name in the configuration and in error messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Map => "map",
        }
    }

    /// Parses a name that [`ColumnKind::as_str`] returns.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
