//! [`ColumnKind`]: the types that a column of a table or of a lookup table can have.

use std::fmt;

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
    /// `Decimal128(precision, scale)`: an exact number with at most `precision` digits, `scale` of them after the
    /// decimal point. `1 <= precision <= 38` and `scale <= precision`.
    Decimal {
        /// The maximum number of digits.
        precision: u8,
        /// The number of digits after the decimal point.
        scale: u8,
    },
    /// `Utf8`
    Text,
    /// `Utf8` with a UUID in lower case and with hyphens
    Uuid,
    /// `Utf8` with one JSON value, exactly as it was sent
    Json,
    /// `Binary`
    Bytes,
    /// `Timestamp(Microsecond, "UTC")`
    Timestamp,
    /// `Date32`
    Date,
    /// `Time64(Microsecond)`: the time of day without a time zone. It is stored as an `Int64`.
    Time,
    /// `List` of a kind other than a list, a map or JSON. Its elements (field `element`) are nullable.
    List(&'static ColumnKind),
    /// `Map<Utf8, Utf8>` (entries `key_value`, `key` not null, `value` nullable)
    Map,
}

/// The maximum number of digits of a decimal.
pub const DECIMAL_DIGITS_MAX: u8 = 38;

/// The kinds that need no parameters, in the order in which the documentation lists them.
static PLAIN: [ColumnKind; 13] = [
    ColumnKind::Text,
    ColumnKind::Bool,
    ColumnKind::Int32,
    ColumnKind::Int64,
    ColumnKind::Float32,
    ColumnKind::Float64,
    ColumnKind::Timestamp,
    ColumnKind::Date,
    ColumnKind::Time,
    ColumnKind::Uuid,
    ColumnKind::Json,
    ColumnKind::Bytes,
    ColumnKind::Map,
];

/// The names that other systems use for a kind, in lower case.
static OTHER_NAMES: [(&str, &[&str]); 12] = [
    ("text", &["varchar", "character varying", "char", "character", "string", "str", "utf8", "bpchar"]),
    ("bool", &["boolean"]),
    ("int32", &["int", "integer", "int4", "smallint", "int2"]),
    ("int64", &["bigint", "int8", "long"]),
    ("float32", &["real", "float4"]),
    ("float64", &["double", "double precision", "float", "float8"]),
    ("timestamp", &["timestamptz", "timestamp with time zone", "timestamp without time zone", "datetime"]),
    ("date", &["date32"]),
    ("time", &["time without time zone", "time64"]),
    ("json", &["jsonb", "object", "struct", "variant"]),
    ("bytes", &["bytea", "binary", "blob", "varbinary"]),
    ("uuid", &["guid", "uniqueidentifier"]),
];

/// All decimals. The decimal with the precision `p` and the scale `s` has the index [`decimal_index`].
static DECIMALS: [ColumnKind; decimal_index(DECIMAL_DIGITS_MAX + 1, 0)] = {
    let mut all = [ColumnKind::Bool; decimal_index(DECIMAL_DIGITS_MAX + 1, 0)];
    let mut precision = 1;
    while precision <= DECIMAL_DIGITS_MAX {
        let mut scale = 0;
        while scale <= precision {
            all[decimal_index(precision, scale)] = ColumnKind::Decimal { precision, scale };
            scale += 1;
        }
        precision += 1;
    }
    all
};

const fn decimal_index(precision: u8, scale: u8) -> usize {
    // Precision 1 has two scales, precision 2 has three, and so on.
    let before = precision as usize - 1;
    before * (before + 3) / 2 + scale as usize
}

impl ColumnKind {
    /// The names of all kinds, for error messages and the documentation.
    pub const NAMES: [&str; 15] = [
        "text",
        "bool",
        "int32",
        "int64",
        "float32",
        "float64",
        "decimal(precision, scale)",
        "timestamp",
        "date",
        "time",
        "uuid",
        "json",
        "bytes",
        "list<type>",
        "map",
    ];

    /// Parses the name of a kind, such as `int64`, `decimal(12, 2)` or `list<text>`. The error message describes what
    /// is wrong, without naming the column.
    pub fn parse(name: &str) -> Result<Self, String> {
        let name = name.trim();
        if let Some(kind) = PLAIN.iter().find(|kind| kind.plain_name() == name) {
            return Ok(*kind);
        }
        if let Some(arguments) = parameters(name, "decimal", '(', ')') {
            return Self::parse_decimal(arguments);
        }
        if let Some(element) = parameters(name, "list", '<', '>') {
            let kind = Self::parse(element)?;
            return Self::list_of(kind).ok_or_else(|| format!("a list cannot contain {kind}"));
        }
        match name {
            "decimal" => Err("`decimal` needs a precision and a scale, such as `decimal(12, 2)`".to_owned()),
            "list" => Err("`list` needs the type of its elements, such as `list<text>`".to_owned()),
            _ => {
                let hint = match Self::suggestion(name) {
                    Some(suggestion) => format!(", did you mean `{suggestion}`?"),
                    None => crate::error::did_you_mean(name, Self::NAMES),
                };
                Err(format!("unknown type `{name}`{hint} (one of {})", Self::NAMES.join(", ")))
            }
        }
    }

    /// Returns the name of the kind for a name in upper case or a name that another system uses, such as `UUID`,
    /// `varchar(20)` or `text[]`.
    fn suggestion(name: &str) -> Option<String> {
        let name = name.trim().to_lowercase();
        if let Some(element) = name.strip_suffix("[]").or_else(|| parameters(&name, "array", '<', '>')) {
            return Some(format!("list<{}>", Self::suggestion(element)?));
        }
        if let Some(element) = parameters(&name, "list", '<', '>') {
            return Some(format!("list<{}>", Self::suggestion(element)?));
        }
        let (base, arguments) = match name.split_once('(') {
            Some((base, arguments)) => (base.trim_end(), arguments.trim_end_matches(')')),
            None => (name.as_str(), ""),
        };
        if ["decimal", "numeric", "dec", "number"].contains(&base) {
            let mut numbers = arguments.split(',').map(str::trim).filter(|number| !number.is_empty());
            let precision = numbers.next().unwrap_or("12");
            return Some(format!(
                "decimal({precision}, {})",
                numbers.next().unwrap_or(if arguments.is_empty() { "2" } else { "0" })
            ));
        }
        let known = PLAIN.iter().map(|kind| kind.plain_name()).find(|kind| *kind == base);
        let other = || OTHER_NAMES.iter().find(|(_, names)| names.contains(&base)).map(|(kind, _)| *kind);
        known.or_else(other).map(str::to_owned)
    }

    fn parse_decimal(arguments: &str) -> Result<Self, String> {
        let mut parts = arguments.split(',').map(|part| part.trim().parse::<u8>());
        let (precision, scale) = match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(precision)), None, _) => {
                return Err(format!(
                    "`decimal({precision})` has no scale: write `decimal({precision}, 0)` for whole numbers, or for \
                     example `decimal({precision}, 2)` for two digits after the point"
                ));
            }
            (Some(Ok(precision)), Some(Ok(scale)), None) => (precision, scale),
            _ => {
                return Err(format!(
                    "`decimal({arguments})` is not valid: write a precision and a scale, such as `decimal(12, 2)`"
                ));
            }
        };
        Self::decimal(precision, scale).ok_or_else(|| {
            format!(
                "`decimal({precision}, {scale})` is not valid: the precision must be from 1 to {DECIMAL_DIGITS_MAX}, and the \
                 scale must not be greater than the precision"
            )
        })
    }

    /// Returns the kind of decimals with these parameters, or `None` if they are out of range.
    pub fn decimal(precision: u8, scale: u8) -> Option<Self> {
        let is_valid = (1..=DECIMAL_DIGITS_MAX).contains(&precision) && scale <= precision;
        is_valid.then_some(Self::Decimal { precision, scale })
    }

    /// Returns the kind of lists of `element`, or `None` if a list cannot contain this kind.
    pub fn list_of(element: Self) -> Option<Self> {
        let element = match element {
            Self::Decimal { precision, scale } => DECIMALS.get(decimal_index(precision, scale)),
            Self::Json | Self::Map => None,
            plain => PLAIN.iter().find(|kind| **kind == plain),
        };
        element.map(Self::List)
    }

    /// Returns true if the values are stored as strings: text, UUIDs and JSON.
    pub const fn is_string(self) -> bool {
        matches!(self, Self::Text | Self::Uuid | Self::Json)
    }

    /// Returns true if the values are numbers, which have a sum and an average.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64 | Self::Float32 | Self::Float64 | Self::Decimal { .. })
    }

    /// Returns the name without parameters.
    const fn plain_name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Decimal { .. } => "decimal",
            Self::Text => "text",
            Self::Uuid => "uuid",
            Self::Json => "json",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Time => "time",
            Self::List(_) => "list",
            Self::Map => "map",
        }
    }
}

/// Returns what is between `open` and `close` in a name such as `list<text>`.
fn parameters<'a>(name: &'a str, kind: &str, open: char, close: char) -> Option<&'a str> {
    name.strip_prefix(kind)?.trim_start().strip_prefix(open)?.strip_suffix(close)
}

/// Writes the name in the form that [`ColumnKind::parse`] reads.
impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::List(element) => write!(f, "list<{element}>"),
            plain => f.write_str(plain.plain_name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let scalars = PLAIN.iter().chain(&DECIMALS).copied();
        let lists: Vec<_> = scalars.clone().filter_map(ColumnKind::list_of).collect();
        assert_eq!(lists.len(), PLAIN.len() - 2 + DECIMALS.len(), "lists contain all kinds except JSON and maps");
        for kind in scalars.chain(lists) {
            assert_eq!(ColumnKind::parse(&kind.to_string()), Ok(kind));
        }
        let spaced = ColumnKind::parse(" list< decimal ( 9,4 ) > ").unwrap();
        assert_eq!(spaced.to_string(), "list<decimal(9, 4)>");
    }

    #[test]
    fn an_invalid_name_is_an_error_that_names_the_fix() {
        for (name, expected) in [
            ("decimal", "such as `decimal(12, 2)`"),
            ("decimal()", "such as `decimal(12, 2)`"),
            ("decimal(1,2,3)", "such as `decimal(12, 2)`"),
            ("decimal(39, 2)", "from 1 to 38"),
            ("decimal(0, 0)", "from 1 to 38"),
            ("decimal(3, 4)", "must not be greater than the precision"),
            ("decimal(12, -2)", "such as `decimal(12, 2)`"),
            ("list", "such as `list<text>`"),
            ("list<list<text>>", "a list cannot contain list<text>"),
            ("list<json>", "a list cannot contain json"),
            ("list<map>", "a list cannot contain map"),
            ("list<txt>", "did you mean `text`?"),
            ("uid", "did you mean `uuid`?"),
            ("decimal(5)", "`decimal(5)` has no scale: write `decimal(5, 0)` for whole numbers"),
            ("UUID", "did you mean `uuid`?"),
            ("numeric", "did you mean `decimal(12, 2)`?"),
            ("NUMERIC(9)", "did you mean `decimal(9, 0)`?"),
            ("DECIMAL(12,2)", "did you mean `decimal(12, 2)`?"),
            ("text[]", "did you mean `list<text>`?"),
            ("varchar", "did you mean `text`?"),
            ("VARCHAR(20)", "did you mean `text`?"),
            ("array<text>", "did you mean `list<text>`?"),
            ("list<VARCHAR>", "did you mean `text`?"),
            ("LIST<decimal(9,2)>", "did you mean `list<decimal(9, 2)>`?"),
            ("jsonb", "did you mean `json`?"),
            ("timestamptz", "did you mean `timestamp`?"),
            ("float", "did you mean `float64`?"),
            ("", "unknown type ``"),
        ] {
            let error = ColumnKind::parse(name).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
