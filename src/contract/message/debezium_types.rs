//! Recognizes the logical types of Debezium in Avro schemas.
//!
//! The Avro converter writes the name of a logical type of Kafka Connect as the attribute `connect.name`. Avro has no
//! such types, so the type would be a number without a unit. [`with_logical_types`] adds the logical type of Avro that has
//! the same meaning. There is none for `NanoTime` and for durations, which therefore stay numbers.

use serde_json::Value;

/// The full name of a record that is a decimal.
pub(super) const VARIABLE_SCALE_DECIMAL: &str = "io.debezium.data.VariableScaleDecimal";

/// For each logical type of Debezium: its name, its Avro type, and the logical type of Avro.
const LOGICAL_TYPES: [(&str, &str, &str); 6] = [
    ("io.debezium.time.Date", "int", "date"),
    ("io.debezium.time.Time", "int", "time-millis"),
    ("io.debezium.time.MicroTime", "long", "time-micros"),
    ("io.debezium.time.Timestamp", "long", "local-timestamp-millis"),
    ("io.debezium.time.MicroTimestamp", "long", "local-timestamp-micros"),
    ("io.debezium.time.NanoTimestamp", "long", "local-timestamp-nanos"),
];

/// Adds the attribute `logicalType` to types that Debezium has named. Returns text that is not JSON unchanged, because
/// the Avro library reports the error.
pub(super) fn with_logical_types(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(mut schema) => {
            add_logical_types(&mut schema);
            schema.to_string()
        }
        Err(_) => text.to_owned(),
    }
}

fn add_logical_types(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(add_logical_types),
        Value::Object(attributes) => {
            let attribute = |name: &str| attributes.get(name).and_then(Value::as_str);
            let is_same = |(name, kind, _): &&(&str, &str, &str)| {
                attribute("connect.name") == Some(*name) && attribute("type") == Some(*kind)
            };
            if let Some((.., logical)) = LOGICAL_TYPES.iter().find(is_same) {
                attributes.insert("logicalType".to_owned(), (*logical).into());
            }
            attributes.values_mut().for_each(add_logical_types);
        }
        _ => {}
    }
}
