//! Tests of Debezium's envelope. The messages are written by hand after the documentation of the connectors.

use std::collections::BTreeSet;

use super::{ChangeEvent, ChangeReader, DebeziumMessage, UnavailableValue};
use crate::config::{DecimalEncoding, OnTruncate, SourceFormat, UNAVAILABLE_VALUE};
use crate::transform::testing::{Case, message};
use crate::transform::{Message, MessageError};

/// Reads a message and returns what `of` returns for its change.
fn with_change<T>(json: &str, of: impl FnOnce(&ChangeEvent<'_>) -> T) -> Result<T, String> {
    let unavailable = UnavailableValue::new(UNAVAILABLE_VALUE);
    match ChangeReader::new(&unavailable).read(json)? {
        DebeziumMessage::Change(change) => Ok(of(&change)),
        other => Err(format!("{other:?}")),
    }
}

fn order(json: &str, offset: usize) -> String {
    with_change(json, |change| change.order(&message(offset, json))).unwrap()
}

fn id(message: &Message<'_>) -> String {
    let json = std::str::from_utf8(message.value.unwrap()).unwrap();
    with_change(json, |change| change.id(message)).unwrap()
}

/// Returns the rows before and after a change.
fn rows(json: &str) -> Result<[Option<String>; 2], String> {
    with_change(json, |change| [&change.before, &change.after].map(|row| row.as_deref().map(str::to_owned)))
}

/// Returns the changes of a row in the order in which the database made them. Each change has an operation and the
/// fields of `source` that state its position.
fn histories() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let postgres = vec![
        ("r", r#""snapshot":"first","lsn":900,"txId":7,"sequence":"[null,\"900\"]""#),
        // The transaction was open during the snapshot. No transaction has ended since.
        ("u", r#""snapshot":"false","lsn":1000,"txId":6,"sequence":"[null,\"1000\"]""#),
        ("u", r#""snapshot":"false","lsn":9999,"txId":8,"sequence":"[\"1010\",\"9999\"]""#),
        ("d", r#""snapshot":"false","lsn":10000,"txId":8,"sequence":"[\"1010\",\"10000\"]""#),
        // An incremental snapshot has read the row while the transaction 9, which began earlier, was open.
        ("r", r#""snapshot":"incremental","lsn":10500,"txId":10,"sequence":"[\"10400\",\"10500\"]""#),
        ("u", r#""snapshot":"false","lsn":10100,"txId":9,"sequence":"[\"10510\",\"10100\"]""#),
        // A new connector begins with a new snapshot.
        ("r", r#""snapshot":"true","lsn":20000,"txId":11,"sequence":"[null,\"20000\"]""#),
        ("u", r#""snapshot":"false","lsn":24023128,"txId":12,"sequence":"[\"20000\",\"24023128\"]""#),
    ];
    let binlog = vec![
        ("r", r#""snapshot":"last","file":"mysql-bin.000001","pos":900,"row":0"#),
        ("u", r#""snapshot":"false","file":"mysql-bin.000001","pos":900,"row":0"#),
        ("u", r#""snapshot":"false","file":"mysql-bin.000001","pos":900,"row":9"#),
        ("u", r#""snapshot":"false","file":"mysql-bin.000001","pos":900,"row":10"#),
        ("u", r#""file":"mysql-bin.000001","pos":1000,"row":0"#),
        ("d", r#""snapshot":"false","file":"mysql-bin.000002","pos":4,"row":0"#),
        ("r", r#""snapshot":"incremental","file":"mysql-bin.000002","pos":500,"row":0"#),
        ("u", r#""snapshot":"false","file":"mysql-bin.000002","pos":500,"row":0"#),
        ("u", r#""snapshot":"false","file":"mysql-bin.999999","pos":4294967296,"row":0"#),
        ("u", r#""snapshot":"false","file":"mysql-bin.1000000","pos":4,"row":0"#),
    ];
    let sql_server = vec![
        ("r", r#""snapshot":"true","commit_lsn":"00000027:00000758:0003","change_lsn":null"#),
        (
            "u",
            r#""snapshot":"false","commit_lsn":"00000027:00000758:0003","change_lsn":"00000027:00000758:0001","event_serial_no":1"#,
        ),
        ("r", r#""snapshot":"incremental","commit_lsn":"00000027:00000758:0005""#),
        (
            "u",
            r#""snapshot":"false","commit_lsn":"00000027:00000758:0005","change_lsn":"00000027:00000758:0004","event_serial_no":"2""#,
        ),
        (
            "u",
            r#""snapshot":"false","commit_lsn":"00000027:00000758:0005","change_lsn":"00000027:00000758:0004","event_serial_no":"10""#,
        ),
        ("d", r#""commit_lsn":"00000028:00000100:000A","change_lsn":"00000027:00000100:0002","event_serial_no":1"#),
    ];
    let mongo = vec![
        ("r", r#""snapshot":"true","ts_ms":1772366400000,"ord":2"#),
        ("u", r#""snapshot":"false","ts_ms":1772366400000,"ord":2,"wallTime":1772366400123"#),
        ("u", r#""snapshot":"false","ts_ms":1772366400000,"ord":10,"lsid":null"#),
        // The two changes belong to one transaction.
        ("u", r#""snapshot":"false","ts_ms":1772366401000,"ord":1,"lsid":"a","txnNumber":3"#),
        ("u", r#""snapshot":"false","ts_ms":1772366401000,"ord":1,"lsid":"a","txnNumber":3"#),
    ];
    let unknown = vec![("r", r#""scn":"5""#), ("u", r#""scn":"4""#), ("u", r#""scn":"4""#)];
    vec![
        ("postgresql", postgres),
        ("mysql", binlog.clone()),
        ("mariadb", binlog),
        ("sqlserver", sql_server),
        ("mongodb", mongo),
        ("oracle", unknown),
    ]
}

/// Returns a message with these fields of `source`.
fn change(op: &str, source: &str, rows: &str) -> String {
    format!(r#"{{"op":"{op}","ts_ms":1772366500000,"source":{{{source},"db":"shop","table":"orders"}},{rows}}}"#)
}

#[test]
fn later_changes_of_a_row_have_greater_orders() {
    for (connector, history) in histories() {
        let orders: Vec<String> = history
            .iter()
            .enumerate()
            .map(|(offset, (op, source))| {
                let source = format!(r#""connector":"{connector}",{source}"#);
                order(&change(op, &source, r#""after":{"id":1}"#), 98 + offset)
            })
            .collect();
        assert!(orders.is_sorted_by(|one, other| one < other), "{connector}: {orders:#?}");
        assert!(orders.iter().all(|order| order.len() == orders[0].len()), "{connector}: {orders:#?}");
    }
    // Without a known position, the offset in Kafka decides.
    for json in [r#"{"op":"c"}"#, r#"{"op":"c","source":{"connector":"postgresql","lsn":null}}"#] {
        assert_eq!(order(json, 12), "00000000000000000012", "{json}");
    }
}

#[test]
fn orders_do_not_depend_on_kafka_if_the_log_is_precise() {
    for (connector, history) in histories() {
        let source = format!(r#""connector":"{connector}",{}"#, history[1].1);
        let json = change("u", &source, r#""after":{"id":1}"#);
        let is_same = order(&json, 1) == order(&json, 2);
        assert_eq!(is_same, !["mongodb", "oracle"].contains(&connector), "{connector}");
    }
}

#[test]
fn ids_differ_for_different_changes() {
    for (connector, history) in histories() {
        let mut ids = BTreeSet::new();
        let mut add = |json: &str, key: Option<&'static [u8]>| {
            let id = id(&Message { key, ..message(1, json) });
            assert!(id.len() == 32 && ids.insert(id), "{connector}: {json}");
        };
        for (index, (op, source)) in history.iter().enumerate() {
            let source = format!(r#""connector":"{connector}","name":"shop",{source}"#);
            let after = format!(r#""after":{{"id":1,"version":{index}}}"#);
            add(&change(op, &source, &after), Some(b"1"));
        }
        // A changed key becomes two changes at one position. The rows of one `COPY` share a position too.
        let source = format!(r#""connector":"{connector}",{}"#, history[1].1);
        add(&change("d", &source, r#""before":{"id":1},"after":null"#), Some(b"1"));
        add(&change("c", &source, r#""before":null,"after":{"id":2}"#), Some(b"2"));
        add(&change("c", &source, r#""before":null,"after":{"id":3}"#), Some(b"3"));
        add(&change("c", &source, r#""before":null,"after":{"id":3}"#), None);
        add(&change("c", &source, r#""before":{"id":3},"after":null"#), None);
        add(&change("u", &source, r#""updateDescription":{"updatedFields":"{}"}"#), None);
        // Two servers may have the same positions.
        add(&change("c", &format!(r#"{source},"name":"other""#), r#""after":{"id":2}"#), Some(b"2"));
        add(&change("c", &source, r#""after":{"id":2}"#).replace("orders", "lines"), Some(b"2"));
    }
}

#[test]
fn a_change_that_is_sent_again_has_the_same_id() {
    for (connector, history) in histories() {
        let source = format!(r#""version":"3.4.0","connector":"{connector}",{}"#, history[1].1);
        let json = change("u", &source, r#""before":{"id":1},"after":{"id":1,"n":2}"#);
        let again = json.replace("1772366500000", "1772366600000").replace("3.4.0", "3.5.0");
        let wrapped = format!(r#"{{"schema":null,"payload":{again}}}"#);
        // After a restart, the connector may not know the end of the previous transaction.
        let restarted = again.replace(r#""sequence":"[null,"#, r#""sequence":"[\"3\","#);
        assert_ne!(json, again);
        for (offset, json_again) in [(8, &again), (9, &wrapped), (10, &restarted)] {
            assert_eq!(id(&message(offset, json_again)), id(&message(1, &json)), "{connector}: {json_again}");
        }
    }
    let bare = r#"{"op":"c","after":{"id":1}}"#;
    assert_eq!(id(&message(1, bare)), id(&message(1, bare)));
    assert_ne!(id(&message(1, bare)), id(&message(2, bare)), "only the offset distinguishes these changes");
}

#[test]
fn changes_are_parsed_with_and_without_the_wrapper() {
    let plain = r#"{"before":{"id":1},"after":{"id":1,"n":"x"},"source":{"lsn":77,"snapshot":"false"},"op":"u"}"#;
    let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{plain}}}"#);
    for json in [plain, &wrapped] {
        let found = with_change(json, |change| {
            assert_eq!((change.op(), change.is_delete()), ("u", false));
            assert_eq!(change.source(), Some(r#"{"lsn":77,"snapshot":"false"}"#));
            change.row().map(str::to_owned)
        });
        assert_eq!(found.unwrap().as_deref(), Some(r#"{"id":1,"n":"x"}"#));
    }
    let deleted = r#"{"op":"d","before":{"id":1},"after":null,"source":null}"#;
    let found = with_change(deleted, |change| (change.is_delete(), change.row().map(str::to_owned)));
    assert_eq!(found.unwrap(), (true, Some(r#"{"id":1}"#.to_owned())));
}

#[test]
fn documents_of_mongodb_are_strings_of_json() {
    let json = r#"{"op":"u","before":"{\"_id\": {\"$oid\": \"65\"}}","after":"{\"_id\": 1, \"n\": \"a\\\"b\"}"}"#;
    let expected = [r#"{"_id": {"$oid": "65"}}"#, r#"{"_id": 1, "n": "a\"b"}"#];
    assert_eq!(rows(json).unwrap(), expected.map(|row| Some(row.to_owned())));
}

#[test]
fn other_messages_are_skipped_and_invalid_messages_are_errors() {
    let kind = |json: &str| {
        let unavailable = UnavailableValue::new(UNAVAILABLE_VALUE);
        ChangeReader::new(&unavailable).read(json).map(|message| match message {
            DebeziumMessage::Change(_) => "change",
            DebeziumMessage::Truncate => "truncate",
            DebeziumMessage::Other => "other",
        })
    };
    for json in ["null", " null ", r#"{"schema":null,"payload":null}"#, r#"{"payload":null}"#] {
        assert_eq!(kind(json), Ok("other"), "{json}");
    }
    assert_eq!(kind(r#"{"op":"m","message":{"prefix":"a","content":"YQ=="}}"#), Ok("other"));
    assert_eq!(kind(r#"{"op":"t","before":null,"after":null,"source":{"lsn":1}}"#), Ok("truncate"));
    assert_eq!(kind(r#"{"op":"c"}"#), Ok("change"));
    let cases = [
        ("{}", "no `op`"),
        ("[]", "not an object"),
        ("12", "not an object"),
        (r#"{"payload":{"a":1}}"#, "no `op`"),
        (r#"{"payload":7}"#, "not an object"),
        (r#"{"op":7}"#, "invalid type"),
        (r#"{"op":"x"}"#, "`op` is `x`; it must be c, u, d, r, t or m"),
        (r#"{"op":"c","after":[1]}"#, "`after` is not an object"),
        (r#"{"op":"c","after":"text"}"#, "`after` is not an object"),
        (r#"{"op":"c","after":"{\"a\":"}"#, "`after` is not an object"),
        (r#"{"op":"c","source":"text"}"#, "`source` is not an object"),
        (r#"{"op":"c","op":"d"}"#, "duplicate field"),
        (r#"{"schema":7,"payload":{"op":"c"}}"#, "not a schema of Kafka Connect"),
    ];
    for (json, expected) in cases {
        let error = kind(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn the_time_of_a_change_is_the_first_that_is_known() {
    let kafka = message(1, "").time;
    let cases = [
        (r#""source":{"ts_us":1772366400123456,"ts_ms":1}"#, Some(1_772_366_400_123_456)),
        (r#""source":{"ts_ns":1772366400123456999,"ts_ms":1}"#, Some(1_772_366_400_123_456)),
        (r#""source":{"ts_ms":3},"ts_us":9"#, Some(3_000)),
        // The rows of a snapshot may have the time 0.
        (r#""source":{"ts_ms":0,"ts_us":0,"ts_ns":0},"ts_ms":5"#, Some(5_000)),
        (r#""source":{"ts_ms":0},"ts_ns":7000"#, Some(7)),
        (r#""source":{"ts_ms":null},"ts_us":6"#, Some(6)),
        (r#""source":{"ts_ms":0},"ts_ms":0"#, kafka),
        (r#""source":{"ts_ms":9223372036854775807}"#, kafka),
        (r#""ts_ms":null"#, kafka),
    ];
    for (fields, expected) in cases {
        let json = format!(r#"{{"op":"r",{fields}}}"#);
        assert_eq!(with_change(&json, |change| change.changed(&message(1, &json))), Ok(expected), "{fields}");
    }
    let sql = "SELECT key AS tenant_id, changed_time AS event_time, change_id AS event_id FROM messages";
    let untimed = Message { time: None, ..message(1, r#"{"op":"r","after":{}}"#) };
    let (rows, errors) = Case::debezium(sql).run(&[untimed]).unwrap();
    assert!(rows.is_empty() && errors[0].detail.contains("has no time"), "{errors:?}");
}

#[test]
fn an_unavailable_value_is_the_previous_value_or_null() {
    let values = |placeholder: &str| {
        let bytes = placeholder.as_bytes();
        let encoded = serde_json::to_string(bytes).unwrap();
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        let map = format!(r#"{{"{placeholder}":"{placeholder}"}}"#);
        let map_text = serde_json::to_string(&map).unwrap();
        let [text, base64] = [placeholder, &base64].map(|text| format!("\"{text}\""));
        [text.clone(), format!("[{text}]"), base64.clone(), format!("[{base64}]"), encoded, map, map_text]
    };
    for value in values(UNAVAILABLE_VALUE).iter().chain([&r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#.to_owned()]) {
        let with = |before: &str| rows(&format!(r#"{{"op":"u","before":{before},"after":{{"id":1,"big":{value}}}}}"#));
        for (before, expected) in [
            ("null", "null"),
            (r#"{"id":1}"#, "null"),
            (r#"{"big":"was"}"#, r#""was""#),
            (r#"{"big":null}"#, "null"),
            (&format!(r#"{{"big":{value}}}"#), "null"),
        ] {
            let after = format!(r#"{{"id":1,"big":{expected}}}"#);
            assert_eq!(with(before).unwrap()[1].as_deref(), Some(&*after), "{value} {before}");
        }
        let before = rows(&format!(r#"{{"op":"d","before":{{"id":1,"big":{value}}}}}"#)).unwrap();
        assert_eq!(before[0].as_deref(), Some(r#"{"id":1,"big":null}"#), "{value}");
    }
    let other = UnavailableValue::new("gone");
    assert!(values("gone").iter().all(|value| other.is(value)) && !other.is("\"__debezium_unavailable_value\""));
    let kept = r#"{"op":"c","after":{"note":"see __debezium_unavailable_value"}}"#;
    assert!(
        rows(kept).unwrap()[1].as_ref().unwrap().contains("see __debezium"),
        "the text only contains the placeholder"
    );
}

/// Returns a message with a schema. The row has one column `v`.
fn typed(kind: &str, value: &str) -> String {
    let row = format!(r#"{{"type":"struct","optional":true,"fields":[{{"field":"v",{kind}}}]"#);
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{row},"field":"before"}},{row},"field":"after"}},
            {{"type":"string","field":"op"}}]}},"payload":{{"op":"u","before":{{"v":{value}}},"after":{{"v":{value}}}}}}}"#
    )
}

#[test]
fn logical_types_are_decoded_with_the_schema() {
    let named = |kind: &str, name: &str| format!(r#""type":"{kind}","name":"{name}","version":1"#);
    let decimal = |scale: i64| {
        let name = named("bytes", "org.apache.kafka.connect.data.Decimal");
        format!(r#"{name},"parameters":{{"scale":"{scale}","connect.decimal.precision":"10"}}"#)
    };
    let time = |kind: &str, name: &str| named(kind, &format!("io.debezium.time.{name}"));
    let connect = |kind: &str, name: &str| named(kind, &format!("org.apache.kafka.connect.data.{name}"));
    let variable = named("struct", "io.debezium.data.VariableScaleDecimal");
    let list = format!(r#""type":"array","items":{{{}}}"#, decimal(2));
    let map = format!(r#""type":"map","keys":{{"type":"string"}},"values":{{{}}}"#, time("int32", "Date"));
    let nested =
        format!(r#""type":"struct","fields":[{{"field":"a",{}}},{{"field":"b","type":"string"}}]"#, decimal(0));
    let cases = [
        (decimal(2), r#""AcnDgA==""#, "300000.00"),
        // As text, this value would be the number ten billion.
        (decimal(2), r#""1e10""#, "-27572.60"),
        (decimal(0), r#""AA==""#, "0"),
        (decimal(9), r#""////////////////////""#, "-0.000000001"),
        (decimal(9), r#""CUmw9vACMxPESZBQ5NhfFQ==""#, "12345678901234567890123456789.123456789"),
        (decimal(-2), r#""DA==""#, "12E2"),
        (decimal(2), "12.50", "12.50"),
        (decimal(2), "null", "null"),
        (variable.clone(), r#"{"scale":3,"value":"AeJA"}"#, "123.456"),
        (time("int32", "Date"), "20513", r#""2026-03-01""#),
        (connect("int32", "Date"), "-1", r#""1969-12-31""#),
        (time("int32", "Time"), "45296789", r#""12:34:56.789""#),
        (connect("int32", "Time"), "1", r#""00:00:00.001""#),
        (time("int64", "MicroTime"), "45296789012", r#""12:34:56.789012""#),
        (time("int64", "MicroTime"), "-3020399000000", r#""-838:59:59.000000""#),
        (time("int64", "NanoTime"), "45296789012345", r#""12:34:56.789012345""#),
        (time("int64", "Timestamp"), "1772366400123", r#""2026-03-01T12:00:00.123""#),
        (connect("int64", "Timestamp"), "1772366400123", r#""2026-03-01T12:00:00.123Z""#),
        (time("int64", "MicroTimestamp"), "1772366400123456", r#""2026-03-01T12:00:00.123456""#),
        (time("int64", "NanoTimestamp"), "-1", r#""1969-12-31T23:59:59.999999999""#),
        (time("int64", "MicroTimestamp"), "9223372036825200000", r#""+294247-01-10T04:00:25.200000""#),
        (time("string", "ZonedTimestamp"), r#""2026-03-01T12:00:00Z""#, r#""2026-03-01T12:00:00Z""#),
        (time("string", "ZonedTime"), r#""12:00:00Z""#, r#""12:00:00Z""#),
        (time("int64", "MicroDuration"), "3600000000", "3600000000"),
        (time("string", "Interval"), r#""P1Y2M3DT0H0M0S""#, r#""P1Y2M3DT0H0M0S""#),
        (time("int32", "Year"), "2026", "2026"),
        (named("string", "io.debezium.data.Json"), r#""{\"a\":1}""#, r#""{\"a\":1}""#),
        (named("bytes", "io.debezium.data.Bits"), r#""BQ==""#, r#""BQ==""#),
        (r#""type":"bytes""#.to_owned(), r#""AcnDgA==""#, r#""AcnDgA==""#),
        (list, r#"["AcnDgA==", null]"#, "[300000.00,null]"),
        (map.clone(), r#"{"a\"b": 1}"#, r#"{"a\"b":"1970-01-02"}"#),
        (map, r#"[[7, 1]]"#, r#"[[7,"1970-01-02"]]"#),
        (nested, r#"{"b":"x", "a":"AQ=="}"#, r#"{"b":"x","a":1}"#),
    ];
    for (kind, value, expected) in cases {
        let row = Some(format!("{{\"v\":{expected}}}"));
        assert_eq!(rows(&typed(&kind, value)), Ok([row.clone(), row]), "{kind} {value}");
    }
    let refused = [
        (decimal(2), r#""AcnDg""#, "column `v` cannot be decoded: `\"AcnDg\"` is not base64"),
        (decimal(2), r#""""#, "is not base64"),
        (decimal(2), "{}", "is not a decimal"),
        (decimal(2), "true", "is not a decimal"),
        (variable, r#"{"value":"AQ=="}"#, "is not a decimal"),
        (time("int32", "Date"), r#""2026-03-01""#, "is not an integer"),
        (time("int32", "Date"), "1.5", "is not an integer"),
        (connect("bytes", "Decimal"), r#""AQ==""#, "a decimal without a `scale`"),
    ];
    for (kind, value, expected) in refused {
        let error = rows(&typed(&kind, value)).unwrap_err();
        assert!(error.contains(expected), "{kind} {value}: {error}");
    }
}

/// Runs a statement whose column `total` is the given expression. Returns the value, or the error.
fn total(expression: &str, json: &str, edit: fn(&mut Case)) -> Result<serde_json::Value, String> {
    let sql = format!(
        "SELECT key AS tenant_id, time AS event_time, change_id AS event_id, CAST({expression} AS DOUBLE) AS total FROM messages"
    );
    let mut case = Case::debezium(&sql);
    edit(&mut case);
    let (rows, errors) = case.values(&[json]);
    if let Some(MessageError { detail, .. }) = errors.into_iter().next() {
        return Err(detail);
    }
    let row: serde_json::Value = serde_json::from_str(rows[0].split_once(": ").unwrap().1).unwrap();
    Ok(row["total"].clone())
}

/// Expressions that read `v` as a number.
const READS: [&str; 11] = [
    "json_float(row, 'v')",
    "json_int(after, 'v')",
    "json_float(value, 'after', 'v')",
    "row->>'v'",
    "CAST(row->>'v' AS DECIMAL(38, 9))",
    "TRY_CAST(trim(row->>'v') AS BIGINT)",
    "CASE WHEN op = 'c' THEN row->>'v' ELSE '0' END",
    "coalesce(row->>'none', row->>'v')",
    "(value->>'after')->>'v'",
    "json_float(value->>'after', 'v')",
    "(SELECT max(id) FROM restaurants WHERE id < CAST(row->>'v' AS BIGINT))",
];

#[test]
fn a_string_that_may_be_base64_is_not_read_as_a_number() {
    for value in ["1e10", "1000", "AcnDgA==", "Infinity", "12345678"] {
        let json = format!(r#"{{"op":"c","after":{{"v":"{value}"}}}}"#);
        for read in READS {
            let error = total(read, &json, |_| {}).unwrap_err();
            // The error of a statement that reads a lookup table contains no values.
            let shown = if read.contains("restaurants") { "a string".to_owned() } else { format!("`{value}`") };
            assert!(error.contains(&format!("{shown} cannot be read as a number")), "{read} {value}: {error}");
        }
        let through_columns = "SELECT key AS tenant_id, time AS event_time, change_id AS event_id, CAST(t AS DOUBLE) AS total \
             FROM (SELECT *, row->>'v' AS t FROM messages) AS m JOIN restaurants r ON r.id = 2 WHERE t <> r.name";
        let (rows, errors) = Case::debezium(through_columns).values(&[&json]);
        assert!(rows.is_empty() && errors[0].detail.contains("cannot be read as a number"), "{rows:?} {errors:?}");
        let list = format!(r#"{{"op":"c","after":{{"l":["1.5","{value}"]}}}}"#);
        let unnested = "SELECT key AS tenant_id, time AS event_time, change_id || t AS event_id, TRY_CAST(t AS DOUBLE) AS total \
             FROM (SELECT *, unnest(json_text_array(row, 'l')) AS t FROM messages) AS m";
        let (rows, errors) = Case::debezium(unnested).values(&[&list]);
        assert!(rows.is_empty() && errors[0].detail.contains("cannot be read as a number"), "{rows:?} {errors:?}");
    }
    // These texts are not base64, so they are numbers.
    for (value, expected) in [("12.50", 12.5), ("-100", -100.0), ("100", 100.0), (" 1000", 1000.0), ("1.5e3", 1500.0)] {
        let json = format!(r#"{{"op":"c","after":{{"v":"{value}"}}}}"#);
        assert_eq!(total("row->>'v'", &json, |_| {}), Ok(expected.into()), "{value}");
    }
    // Numbers in JSON that is itself a string, lookup tables and properties of messages are not checked.
    let json = r#"{"op":"c","after":{"v":"{\"n\":1000}","w":1000}}"#;
    let unchecked = [
        "json_text(json_text(row, 'v'), 'n')",
        "row->>'w'",
        "json_int(row, 'w')",
        "(SELECT max('100' || r.id) FROM restaurants r WHERE r.id = 1) || '.0'",
    ];
    for read in unchecked {
        let found = total(read, json, |_| {}).unwrap_or_else(|error| panic!("{read}: {error}"));
        assert!([1000.into(), 1000.0.into(), 1001.0.into()].contains(&found), "{read}: {found}");
    }
}

#[test]
fn decimals_with_a_schema_or_as_text_are_numbers() {
    let kind = r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"9"}"#;
    let json = typed(kind, r#""CUmw9vACMxPESZBQ5NhfFQ==""#);
    let sql = "SELECT key AS tenant_id, time AS event_time, change_id AS event_id, \
               CAST(CAST(row->>'v' AS DECIMAL(38, 9)) AS TEXT) AS city FROM messages";
    let (rows, errors) = Case::debezium(sql).values(&[&json]);
    assert_eq!(errors, []);
    assert!(rows[0].contains(r#""city":"12345678901234567890123456789.123456789""#), "{rows:?}");
    let exponent = typed(&kind.replace('9', "-2"), r#""DA==""#);
    assert_eq!(total("CAST(row->>'v' AS DECIMAL(38, 9))", &exponent, |_| {}), Ok(1200.0.into()));
    assert_eq!(total("json_int(row, 'v')", &exponent, |_| {}), Ok(1200.0.into()));
    let text = r#"{"op":"c","after":{"v":"1000"}}"#;
    for read in &READS[..10] {
        let accepts: [fn(&mut Case); 2] = [
            |case| case.source.decimals = DecimalEncoding::Text,
            // Avro and protobuf have schemas, so a string is never a decimal in base64.
            |case| case.source.format = SourceFormat::Avro,
        ];
        for edit in accepts {
            assert_eq!(total(read, text, edit), Ok(1000.0.into()), "{read}");
        }
    }
}

#[test]
fn a_truncation_stops_the_batch_unless_it_is_ignored() {
    let sql = "SELECT key AS tenant_id, changed_time AS event_time, change_id AS event_id, op AS city FROM messages";
    let json = [r#"{"op":"c","after":{"id":1}}"#, r#"{"op":"t"}"#, r#"{"op":"u","after":{"id":1}}"#, r#"{"op":"m"}"#];
    let messages: Vec<_> = json.iter().enumerate().map(|(offset, json)| message(offset, json)).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut case = Case::debezium(sql);
    let run = |case: &Case| {
        let accept = |rows: crate::transform::Rows| Ok(rows.messages);
        case.transform().unwrap().run(&messages, runtime.handle(), accept).unwrap()
    };
    let stopped = run(&case);
    assert_eq!((stopped.truncation, stopped.messages, stopped.parts.len()), (Some(1), 0, 0));
    case.source.on_truncate = OnTruncate::Ignore;
    let ignored = run(&case);
    assert_eq!((ignored.truncation, ignored.messages), (None, 2));
    assert_eq!((ignored.parts, ignored.errors), (vec![vec![0, 2]], vec![]));
}

#[test]
fn the_column_position_is_replaced() {
    let sql = "SELECT key AS tenant_id, changed_time AS event_time, CAST(position AS TEXT) AS event_id FROM messages";
    let error = Case::debezium(sql).transform().unwrap_err();
    assert!(error.message().contains("order changes by `change_order`"), "{error}");
}
