//! Decodes logical types, such as decimals and times, with the schema that the converter adds to each message.
//!
//! | logical type | JSON |
//! |---|---|
//! | `Decimal`, `VariableScaleDecimal` | number with all digits |
//! | `Date` | `"2026-03-01"` |
//! | `Time`, `MicroTime`, `NanoTime` | `"12:34:56.789"`; MySQL's times may be negative, or longer than a day |
//! | Debezium's `Timestamp`, `MicroTimestamp`, `NanoTimestamp` | `"2026-03-01T12:00:00.123"`, without a time zone |
//! | Kafka Connect's `Timestamp` | `"2026-03-01T12:00:00.123Z"` |
//!
//! The values of all other types are not changed. In particular, bytes are base64, and a duration is the number of
//! microseconds or nanoseconds that Debezium sends.
//!
//! Sources: the JSON converter of Kafka Connect (`JsonConverter`), and Debezium's documentation of data types.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::object_fields::ObjectFields;
use crate::contract::{LogicalTimeUnit, decimal_text, long_date_text, long_time_text, long_timestamp_text};
use crate::sql::functions::json_path::{elements, int, text};

/// The types of the rows before and after a change.
#[derive(Debug, Default)]
pub(super) struct RowTypes {
    pub(super) before: ValueType,
    pub(super) after: ValueType,
}

/// The type of a value, as far as its decoding depends on it.
#[derive(Debug, Default, PartialEq)]
pub(super) enum ValueType {
    /// The value is not changed.
    #[default]
    Plain,
    /// Base64 of the unscaled value. The number is the scale.
    Decimal(i64),
    /// An object with the fields `scale` and `value`.
    VariableScaleDecimal,
    /// The number of days since 1970.
    Date,
    /// The time since midnight.
    Time(LogicalTimeUnit),
    /// The time since the start of 1970 in an unknown time zone.
    LocalTimestamp(LogicalTimeUnit),
    /// The number of milliseconds since 1970 in UTC.
    UtcTimestamp,
    /// An object with these fields. Plain fields are omitted.
    Struct(HashMap<String, ValueType>),
    List(Box<ValueType>),
    Map(Box<ValueType>),
}

/// A schema of Kafka Connect as JSON.
#[derive(Deserialize)]
struct ConnectSchema {
    #[serde(rename = "type", default)]
    kind: String,
    /// The name of the logical type.
    name: Option<String>,
    #[serde(default)]
    parameters: HashMap<String, String>,
    /// The fields of a struct.
    #[serde(default)]
    fields: Vec<ConnectSchema>,
    /// The name of this field in its struct.
    field: Option<String>,
    /// The type of the elements of an array.
    items: Option<Box<ConnectSchema>>,
    /// The type of the values of a map.
    values: Option<Box<ConnectSchema>>,
}

impl RowTypes {
    /// Parses the schema of an envelope.
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        let schema: ConnectSchema = serde_json::from_str(json)
            .map_err(|error| format!("the `schema` of the message is not a schema of Kafka Connect: {error}"))?;
        let mut types = Self::default();
        for field in &schema.fields {
            match field.field.as_deref() {
                Some("before") => types.before = field.value_type()?,
                Some("after") => types.after = field.value_type()?,
                _ => {}
            }
        }
        Ok(types)
    }
}

impl ConnectSchema {
    fn value_type(&self) -> Result<ValueType, String> {
        use LogicalTimeUnit::{Micros, Millis, Nanos};
        let inner =
            |schema: &Option<Box<Self>>| schema.as_ref().map_or(Ok(ValueType::Plain), |inner| inner.value_type());
        let nested = |kind: ValueType, wrap: fn(Box<ValueType>) -> ValueType| match kind {
            ValueType::Plain => ValueType::Plain,
            kind => wrap(Box::new(kind)),
        };
        Ok(match self.name.as_deref().unwrap_or_default() {
            "org.apache.kafka.connect.data.Decimal" => ValueType::Decimal(self.scale()?),
            "io.debezium.data.VariableScaleDecimal" => ValueType::VariableScaleDecimal,
            "org.apache.kafka.connect.data.Date" | "io.debezium.time.Date" => ValueType::Date,
            "org.apache.kafka.connect.data.Time" | "io.debezium.time.Time" => ValueType::Time(Millis),
            "io.debezium.time.MicroTime" => ValueType::Time(Micros),
            "io.debezium.time.NanoTime" => ValueType::Time(Nanos),
            "org.apache.kafka.connect.data.Timestamp" => ValueType::UtcTimestamp,
            "io.debezium.time.Timestamp" => ValueType::LocalTimestamp(Millis),
            "io.debezium.time.MicroTimestamp" => ValueType::LocalTimestamp(Micros),
            "io.debezium.time.NanoTimestamp" => ValueType::LocalTimestamp(Nanos),
            _ => match &*self.kind {
                "struct" => self.struct_type()?,
                "array" => nested(inner(&self.items)?, ValueType::List),
                "map" => nested(inner(&self.values)?, ValueType::Map),
                _ => ValueType::Plain,
            },
        })
    }

    fn struct_type(&self) -> Result<ValueType, String> {
        let mut types = HashMap::new();
        for field in &self.fields {
            let kind = field.value_type()?;
            if let (Some(name), true) = (&field.field, kind != ValueType::Plain) {
                types.insert(name.clone(), kind);
            }
        }
        Ok(if types.is_empty() { ValueType::Plain } else { ValueType::Struct(types) })
    }

    fn scale(&self) -> Result<i64, String> {
        let scale = self.parameters.get("scale").and_then(|scale| scale.parse().ok());
        scale.ok_or_else(|| "the `schema` of the message has a decimal without a `scale`".to_owned())
    }
}

impl ValueType {
    /// Returns the type of a field of this struct.
    pub(super) fn field(&self, name: &str) -> &Self {
        match self {
            Self::Struct(types) => types.get(name).unwrap_or(&Self::Plain),
            _ => &Self::Plain,
        }
    }

    /// Appends the decoded value. Returns an error if the value does not fit the type.
    pub(super) fn write(&self, value: &str, out: &mut String) -> Result<(), String> {
        if value == "null" {
            out.push_str(value);
            return Ok(());
        }
        let number = || int(value).filter(|_| !value.starts_with('"')).ok_or_else(|| shown(value, "an integer"));
        let quoted = |out: &mut String, text: &str| {
            out.push('"');
            out.push_str(text);
            out.push('"');
        };
        match self {
            Self::Plain => out.push_str(value),
            // The converter writes decimals as numbers if its `decimal.format` is `NUMERIC`.
            Self::Decimal(_) if !value.starts_with('"') => match value.as_bytes()[0] {
                b'-' | b'0'..=b'9' => out.push_str(value),
                _ => return Err(shown(value, "a decimal")),
            },
            Self::Decimal(scale) => out.push_str(&decimal(value, *scale)?),
            Self::VariableScaleDecimal => {
                let fields = ObjectFields::parse(value).map_err(|_| shown(value, "a decimal"))?;
                let (scale, digits) = (fields.get("scale").and_then(int), fields.get("value"));
                let (Some(scale), Some(digits)) = (scale, digits) else { return Err(shown(value, "a decimal")) };
                out.push_str(&decimal(digits, scale)?);
            }
            Self::Date => quoted(out, &long_date_text(number()?)),
            Self::Time(unit) => quoted(out, &long_time_text(number()?, *unit)),
            Self::LocalTimestamp(unit) => quoted(out, &long_timestamp_text(number()?, *unit)),
            Self::UtcTimestamp => {
                quoted(out, &(long_timestamp_text(number()?, LogicalTimeUnit::Millis) + "Z"));
            }
            Self::Struct(_) => self.write_object(value, |name| self.field(name), out)?,
            // A map whose keys are not strings is a list of pairs of a key and a value.
            Self::Map(values) if value.starts_with('[') => write_list(value, out, |pair, out| {
                let pair = elements(pair).filter(|pair| pair.len() == 2).ok_or_else(|| shown(pair, "a map entry"))?;
                out.push('[');
                out.push_str(pair[0]);
                out.push(',');
                values.write(pair[1], out)?;
                out.push(']');
                Ok(())
            })?,
            Self::Map(values) => self.write_object(value, |_| values, out)?,
            Self::List(items) => write_list(value, out, |item, out| items.write(item, out))?,
        }
        Ok(())
    }

    fn write_object<'t>(
        &'t self,
        value: &str,
        kind_of: impl Fn(&str) -> &'t Self,
        out: &mut String,
    ) -> Result<(), String> {
        let fields = ObjectFields::parse(value).map_err(|_| shown(value, "an object"))?;
        out.push('{');
        for (index, (name, value)) in fields.0.iter().enumerate() {
            write_key(out, index, name);
            kind_of(name).write(value, out)?;
        }
        out.push('}');
        Ok(())
    }
}

/// Appends the key of an object's field, after a comma unless it is the first field.
pub(super) fn write_key(out: &mut String, index: usize, name: &str) {
    if index > 0 {
        out.push(',');
    }
    out.push_str(&serde_json::Value::from(name).to_string());
    out.push(':');
}

fn write_list(
    value: &str,
    out: &mut String,
    write: impl Fn(&str, &mut String) -> Result<(), String>,
) -> Result<(), String> {
    out.push('[');
    for (index, item) in elements(value).ok_or_else(|| shown(value, "an array"))?.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out)?;
    }
    out.push(']');
    Ok(())
}

/// Returns the digits of a decimal whose unscaled value is base64 in a JSON string.
fn decimal(value: &str, scale: i64) -> Result<String, String> {
    let encoded = text(value).filter(|_| value.starts_with('"'));
    let bytes = encoded.and_then(|encoded| BASE64.decode(&*encoded).ok()).filter(|bytes| !bytes.is_empty());
    decimal_text(&bytes.ok_or_else(|| shown(value, "base64"))?, scale)
}

/// Returns the error for a value that does not fit its type. Long values are truncated.
fn shown(value: &str, expected: &str) -> String {
    const CHARS_MAX: usize = 60;
    let start: String = value.chars().take(CHARS_MAX).collect();
    let dots = if start.len() < value.len() { "…" } else { "" };
    format!("`{start}{dots}` is not {expected}, which the schema of the message requires")
}
