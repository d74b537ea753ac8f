//! Tests of the conversion of Avro messages to JSON. They cover every type, references between schemas, and malicious
//! messages.
//!
//! The messages are written by the `apache_avro` library, which shares no code with the decoder under test.

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Days, Decimal, Duration, Millis, Months, Schema};

use super::avro::AvroSchema;
use crate::contract::decode::reject_reason::Reason;
use crate::contract::testing::{acme, json, plain, reasons, rows};

/// Encodes a value with the `apache_avro` library.
fn written(schema: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

/// Decodes a message to JSON text with the decoder under test.
fn read(schema: &str, bytes: &[u8], bytes_max: usize) -> Result<String, (Reason, String)> {
    let mut out = b"before".to_vec();
    AvroSchema::parse(schema, &[]).unwrap().write_json(bytes, &mut out, bytes_max)?;
    let text = String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned();
    serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Ok(text)
}

fn logical(kind: &str, name: &str) -> String {
    format!("{{\"type\":{kind},\"logicalType\":\"{name}\"}}")
}

fn decimal(unscaled: &[u8]) -> Value {
    Value::Decimal(Decimal::from(unscaled))
}

/// Checks that each value is converted to the expected JSON text.
fn check(cases: Vec<(String, Value, &str)>) {
    for (schema, value, expected) in cases {
        let bytes = written(&schema, value);
        assert_eq!(read(&schema, &bytes, 1_000).unwrap(), expected, "{schema}");
    }
}

#[test]
fn each_type_is_converted_to_json() {
    let (int, long) = ("\"int\"", "\"long\"");
    let cases: Vec<(String, Value, &str)> = vec![
        ("\"null\"".into(), Value::Null, "null"),
        ("\"boolean\"".into(), Value::Boolean(true), "true"),
        (int.into(), Value::Int(i32::MIN), "-2147483648"),
        (long.into(), Value::Long(i64::MAX), "9223372036854775807"),
        (long.into(), Value::Long(i64::MIN), "-9223372036854775808"),
        ("\"float\"".into(), Value::Float(0.1), "0.1"),
        ("\"double\"".into(), Value::Double(0.1), "0.1"),
        ("\"double\"".into(), Value::Double(f64::NAN), "\"NaN\""),
        ("\"float\"".into(), Value::Float(f32::NEG_INFINITY), "\"-Infinity\""),
        ("\"bytes\"".into(), Value::Bytes(vec![0, 255, 254]), "\"AP/+\""),
        ("\"string\"".into(), Value::String("a\"\n\u{1f32e}".into()), "\"a\\\"\\n\u{1f32e}\""),
        ("{\"type\":\"fixed\",\"name\":\"F\",\"size\":2}".into(), Value::Fixed(2, vec![1, 2]), "\"AQI=\""),
        ("{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"A\",\"B\"]}".into(), Value::Enum(1, "B".into()), "\"B\""),
        (
            "{\"type\":\"array\",\"items\":[\"null\",\"int\"]}".into(),
            Value::Array(vec![Value::Union(1, Box::new(Value::Int(7))), Value::Union(0, Box::new(Value::Null))]),
            "[7,null]",
        ),
        ("{\"type\":\"array\",\"items\":\"int\"}".into(), Value::Array(Vec::new()), "[]"),
        (
            "{\"type\":\"map\",\"values\":\"double\"}".into(),
            Value::Map([("a b".to_owned(), Value::Double(1.5))].into()),
            "{\"a b\":1.5}",
        ),
    ];
    check(cases);
}

#[test]
fn each_logical_type_is_converted_to_json() {
    let (int, long) = ("\"int\"", "\"long\"");
    let money = "{\"type\":\"bytes\",\"logicalType\":\"decimal\",\"precision\":30,\"scale\":2}";
    let fixed_money =
        "{\"type\":\"fixed\",\"name\":\"Money\",\"size\":4,\"logicalType\":\"decimal\",\"precision\":9,\"scale\":4}";
    let fixed = |name: &str, size: u32, kind: &str| {
        format!("{{\"type\":\"fixed\",\"name\":\"{name}\",\"size\":{size},\"logicalType\":\"{kind}\"}}")
    };
    let uuid = uuid::Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
    let cases: Vec<(String, Value, &str)> = vec![
        (money.into(), decimal(&[0xff, 0x85]), "\"-1.23\""),
        (money.into(), decimal(&[0x05]), "\"0.05\""),
        (money.into(), decimal(&[0x00]), "\"0.00\""),
        // 2^80, exactly.
        (money.into(), decimal(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "\"12089258196146291747061.76\""),
        (fixed_money.into(), decimal(&[0x00, 0x01, 0xe2, 0x40]), "\"12.3456\""),
        (logical("\"string\"", "uuid"), Value::Uuid(uuid), "\"00010203-0405-0607-0809-0a0b0c0d0e0f\""),
        (fixed("U", 16, "uuid"), Value::Uuid(uuid), "\"00010203-0405-0607-0809-0a0b0c0d0e0f\""),
        (logical(int, "date"), Value::Date(20_514), "\"2026-03-02\""),
        (logical(int, "date"), Value::Date(-1), "\"1969-12-31\""),
        (logical(int, "time-millis"), Value::TimeMillis(45_296_007), "\"12:34:56.007\""),
        (logical(long, "time-micros"), Value::TimeMicros(45_296_000_007), "\"12:34:56.000007\""),
        (logical(int, "time-millis"), Value::TimeMillis(-1), "-1"),
        (logical(long, "timestamp-millis"), Value::TimestampMillis(1_772_366_400_001), "\"2026-03-01T12:00:00.001Z\""),
        (
            logical(long, "timestamp-micros"),
            Value::TimestampMicros(1_772_366_400_000_001),
            "\"2026-03-01T12:00:00.000001Z\"",
        ),
        (
            logical(long, "timestamp-nanos"),
            Value::TimestampNanos(1_772_366_400_000_000_001),
            "\"2026-03-01T12:00:00.000000001Z\"",
        ),
        (
            logical(long, "local-timestamp-millis"),
            Value::LocalTimestampMillis(1_772_366_400_000),
            "\"2026-03-01T12:00:00.000\"",
        ),
        (logical(long, "timestamp-millis"), Value::TimestampMillis(i64::MAX), "9223372036854775807"),
        (
            fixed("D", 12, "duration"),
            Value::Duration(Duration::new(Months::new(1), Days::new(2), Millis::new(3_004))),
            "\"P1M2DT3.004S\"",
        ),
    ];
    check(cases);
}

#[test]
fn big_decimals_are_written_with_their_own_scale() {
    // Each message is the number -12345 as bytes with a length prefix, followed by its scale as an Avro `long`.
    let schema = logical("\"bytes\"", "big-decimal");
    let cases: [(&[u8], &str); 4] = [
        (&[8, 4, 0xcf, 0xc7, 4], "\"-123.45\""),
        (&[8, 4, 0xcf, 0xc7, 0], "\"-12345\""),
        (&[8, 4, 0xcf, 0xc7, 3], "\"-12345E2\""),
        (&[10, 4, 0xcf, 0xc7, 0xd0, 0x1f], "\"-12345E-2024\""),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(&schema, bytes, 100).unwrap(), expected, "{bytes:?}");
    }
}

#[test]
fn a_record_becomes_an_event() {
    let schema = r#"{"type":"record","name":"Sample","namespace":"shop","fields":[
        {"name":"key","type":"string"},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"flag","type":["null","boolean"]},
        {"name":"large","type":["null","long"]},
        {"name":"double","type":"float"},
        {"name":"day","type":{"type":"int","logicalType":"date"}},
        {"name":"data","type":"bytes"},
        {"name":"more","type":{"type":"record","name":"More","fields":[
            {"name":"next","type":["null","More"]},{"name":"tags","type":{"type":"array","items":"string"}}]}}]}"#;
    let more = |next: Value, tag: &str| {
        Value::Record(vec![("next".into(), next), ("tags".into(), Value::Array(vec![Value::String(tag.into())]))])
    };
    let inner = Value::Union(1, Box::new(more(Value::Union(0, Box::new(Value::Null)), "b")));
    let bytes = written(
        schema,
        Value::Record(vec![
            ("key".into(), Value::String("k".into())),
            ("at".into(), Value::TimestampMicros(7)),
            ("flag".into(), Value::Union(1, Box::new(Value::Boolean(true)))),
            ("large".into(), Value::Union(0, Box::new(Value::Null))),
            ("double".into(), Value::Float(1.25)),
            ("day".into(), Value::Date(1)),
            ("data".into(), Value::Bytes(vec![0, 255])),
            ("more".into(), more(inner, "a")),
        ]),
    );
    let text = read(schema, &bytes, 4_096).unwrap();
    let decoded = json(&plain("rest"), &text, &acme());
    let expected = serde_json::json!({
        "who": "acme", "at": "1970-01-01T00:00:00.000007Z", "key": "k", "received_time": "2026-01-01T00:00:00Z",
        "flag": true, "double": 1.25, "day": "1970-01-02", "data": "00ff",
        "rest": { "more": "{\"next\":{\"next\":null,\"tags\":[\"b\"]},\"tags\":[\"a\"]}" },
    });
    assert_eq!((rows(&decoded.batch), reasons(&decoded)), (vec![expected], vec![]));
}

#[test]
fn names_are_resolved_in_referenced_schemas() {
    let order = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"of","type":"shop.people.Guest"},{"name":"for","type":["null","shop.people.Guest"]}]}"#;
    let guest = r#"{"type":"record","name":"Guest","namespace":"shop.people","fields":[
        {"name":"name","type":"string"},{"name":"kind","type":"Kind"}]}"#;
    let kind = r#"{"type":"enum","name":"Kind","namespace":"shop.people","symbols":["NEW","OLD"]}"#;
    let schema = AvroSchema::parse(order, &[guest.to_owned(), kind.to_owned()]).unwrap();
    let mut out = Vec::new();
    schema.write_json(b"\x02a\x00\x02\x02b\x02", &mut out, 100).unwrap();
    let expected = r#"{"of":{"name":"a","kind":"NEW"},"for":{"name":"b","kind":"OLD"}}"#;
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let missing = AvroSchema::parse(order, &[guest.to_owned()]).unwrap_err();
    assert!(missing.message().contains("Avro schema"), "{missing}");
}

#[test]
fn an_invalid_schema_is_refused() {
    let decimal = "{\"type\":\"bytes\",\"logicalType\":\"decimal\",\"precision\":5000,\"scale\":2000}";
    let cases = [("{", "invalid"), ("{\"type\":\"recrod\"}", "invalid"), (decimal, "at most 1000 is allowed")];
    for (schema, expected) in cases {
        let error = AvroSchema::parse(schema, &[]).unwrap_err();
        assert!(error.message().contains(expected), "{schema}: {error}");
    }
}

#[test]
fn invalid_messages_are_refused_within_limits() {
    let nulls = "{\"type\":\"array\",\"items\":\"null\"}";
    let deep = r#"{"type":"record","name":"Deep","fields":[{"name":"in","type":["null","Deep"]}]}"#;
    let lists = "{\"type\":\"array\",\"items\":\"string\"}";
    let money = "{\"type\":\"bytes\",\"logicalType\":\"decimal\",\"precision\":30,\"scale\":2}";
    let many = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let cases: Vec<(&str, Vec<u8>, Reason, &str)> = vec![
        ("\"int\"", vec![], Reason::Malformed, "truncated"),
        ("\"int\"", vec![2, 2], Reason::Malformed, "1 bytes follow the message"),
        ("\"int\"", vec![0x80, 0x80, 0x80, 0x80, 0x20], Reason::Malformed, "an int is"),
        ("\"long\"", vec![0xff; 11], Reason::Malformed, "ten bytes"),
        ("\"long\"", [vec![0xff; 9], vec![0x02]].concat(), Reason::Malformed, "64 bits"),
        ("\"long\"", vec![0xff; 9], Reason::Malformed, "truncated"),
        ("\"boolean\"", vec![2], Reason::Malformed, "neither"),
        ("\"string\"", vec![1], Reason::Malformed, "a length is -1"),
        ("\"string\"", vec![4, 0xc3, 0x28], Reason::InvalidUtf8, "not valid UTF-8"),
        ("\"string\"", many.to_vec(), Reason::Malformed, "a length is"),
        ("[\"null\",\"int\"]", vec![4], Reason::Malformed, "union has 2 values"),
        ("[\"null\",\"int\"]", vec![1], Reason::Malformed, "union has 2 values"),
        ("{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"A\"]}", vec![2], Reason::Malformed, "enum has 1"),
        // A message with the maximum number of nulls. It is short, because only the number of nulls is encoded.
        (nulls, [vec![0xfe], many[1..].to_vec()].concat(), Reason::TooLarge, "1000 bytes"),
        (lists, vec![0xfe, 0xff, 0xff, 0xff, 0x0f, 0], Reason::Malformed, "truncated"),
        (deep, vec![2; 1_000], Reason::Malformed, "more than 64 levels"),
        (money, [vec![0x84, 0x04], vec![0x7f; 300]].concat(), Reason::Malformed, "at most 256 are allowed"),
    ];
    for (schema, bytes, reason, expected) in cases {
        let (given, detail) = read(schema, &bytes, 1_000).unwrap_err();
        assert!(given == reason && detail.contains(expected), "{schema} {bytes:?}\n  got {given:?}: {detail}");
    }
    let long = written("\"string\"", Value::String("x".repeat(999)));
    assert_eq!(read("\"string\"", &long, 1_000).unwrap_err().0, Reason::TooLarge);
    assert_eq!(read("\"string\"", &long, 1_001).unwrap().len(), 1_001);
}

#[test]
fn logical_types_of_debezium_are_decoded_if_requested() {
    let named = |kind: &str, name: &str| format!(r#"{{"type":"{kind}","connect.name":"io.debezium.time.{name}"}}"#);
    let decimal = r#"{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[
        {"name":"scale","type":"int"},{"name":"value","type":"bytes"}]}"#;
    let fields = [
        (named("int", "Date"), &[0xc2, 0xc0, 0x02][..], r#""2026-03-01""#),
        (format!("[\"null\",{}]", named("int", "Time")), &[2, 2], r#""00:00:00.001""#),
        (named("long", "MicroTime"), &[2], r#""00:00:00.000001""#),
        (named("long", "Timestamp"), &[2], r#""1970-01-01T00:00:00.001""#),
        (named("long", "MicroTimestamp"), &[1], r#""1969-12-31T23:59:59.999999""#),
        (named("long", "NanoTimestamp"), &[2], r#""1970-01-01T00:00:00.000000001""#),
        (named("long", "NanoTime"), &[2], "1"),
        (named("string", "ZonedTimestamp"), &[2, b'x'], r#""x""#),
        (decimal.to_owned(), &[4, 6, 0x01, 0xe2, 0x40], r#""1234.56""#),
        (
            r#"{"type":"array","items":"io.debezium.data.VariableScaleDecimal"}"#.to_owned(),
            &[2, 0, 2, 7, 0],
            r#"["7"]"#,
        ),
    ];
    let (mut list, mut bytes, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (kind, encoded, json)) in fields.iter().enumerate() {
        list.push(format!(r#"{{"name":"f{index}","type":{kind}}}"#));
        bytes.extend_from_slice(encoded);
        expected.push(format!(r#""f{index}":{json}"#));
    }
    let schema = format!(r#"{{"type":"record","name":"Value","namespace":"shop","fields":[{}]}}"#, list.join(","));
    let write = |schema: AvroSchema| {
        let mut out = Vec::new();
        schema.write_json(&bytes, &mut out, 10_000).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(write(AvroSchema::parse_debezium(&schema, &[]).unwrap()), format!("{{{}}}", expected.join(",")));
    let plain = write(AvroSchema::parse(&schema, &[]).unwrap());
    assert!(plain.starts_with(r#"{"f0":20513,"f1":1,"#) && plain.contains(r#"{"scale":2,"value":"AeJA"}"#), "{plain}");
    assert!(AvroSchema::parse_debezium("{", &[]).is_err());
}
