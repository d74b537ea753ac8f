//! Tests of the JSON and protobuf decoders. Each reject reason is tested in both formats. One event is tested in all
//! formats.

use std::path::Path;

use arrow::array::AsArray as _;
use bytes::Bytes;
use protox::prost_reflect::{DynamicMessage, MapKey, Value as Dynamic, prost::Message};
use serde_json::{Value, json as value};

use crate::contract::testing::*;
use crate::contract::{Contract, DecodeOptions, Decoded, Format, decode};
use crate::error::Kind;

const EVENT: &str = r#"{"event_time": 1767225600000, "logged_event_time": "2026-01-01T00:00:00.25Z", "event_id": "e-1",
    "routeId": "r-1", "event_type": "QUALITY", "duration_ms": "61000", "signaling": {"name": "RINGING", "type": 3,
    "pdd": {"pdd_ms": 900}}, "quality": {"jitter_ms": 4.25, "packet_loss_ratio": 0.01, "mos": 4},
    "dimensions": {"direction": "inbound", "sip_response_code": 200, "other": {"campaign": "spring \u00e9", "tier": "2"}}}"#;

/// Encodes the event [`EVENT`] with an independent protobuf library.
fn event_by_prost() -> Vec<u8> {
    let mut compiler = protox::Compiler::new([Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")]).unwrap();
    compiler.open_file("glasshouse/voice/v1/call_event.proto").unwrap();
    let pool = compiler.descriptor_pool();
    let of = |name: &str, fields: Vec<(&str, Dynamic)>| {
        let descriptor = pool.get_message_by_name(&format!("glasshouse.voice.v1.{name}")).unwrap();
        let mut message = DynamicMessage::new(descriptor);
        fields.into_iter().for_each(|(name, value)| message.set_field_by_name(name, value));
        message
    };
    let text = |text: &str| Dynamic::String(text.into());
    let entry = |key: &str, value: &str| (MapKey::String(key.into()), text(value));
    let pdd = of("PddEvent", vec![("pdd_ms", Dynamic::U32(900))]);
    let signaling = vec![("name", text("RINGING")), ("type", Dynamic::EnumNumber(3)), ("pdd", Dynamic::Message(pdd))];
    let quality =
        vec![("jitter_ms", Dynamic::F64(4.25)), ("packet_loss_ratio", Dynamic::F64(0.01)), ("mos", Dynamic::F64(4.0))];
    let dimensions = vec![("direction", text("inbound")), ("sip_response_code", Dynamic::U32(200))];
    let other = [entry("campaign", "spring é"), entry("tier", "2")].into_iter().map(|(key, value)| {
        let MapKey::String(key) = key else { unreachable!() };
        let Dynamic::String(value) = value else { unreachable!() };
        bytes(15, [bytes(1, key), bytes(2, value)].concat())
    });
    // The library would encode map entries in random order, because it keeps them in a hash map. This function
    // therefore encodes each entry itself and appends it to the message.
    let dimensions = [of("Dimensions", dimensions).encode_to_vec(), other.collect::<Vec<_>>().concat()].concat();
    let mut event = of(
        "CallEvent",
        vec![
            ("event_time", Dynamic::U64(NOW_MS)),
            ("logged_event_time", Dynamic::U64(NOW_MS + 250)),
            ("event_id", text("e-1")),
            ("route_id", text("r-1")),
            ("event_type", Dynamic::EnumNumber(2)),
            ("duration_ms", Dynamic::U64(61_000)),
            ("quality", Dynamic::Message(of("QualityEvent", quality))),
        ],
    )
    .encode_to_vec();
    // In the library, `payload` is a oneof, so only one of its members can be set. The table stores every member that
    // was sent, so the test appends a second member as encoded bytes.
    event.extend(bytes(16, of("SignalingEvent", signaling).encode_to_vec()));
    event.extend(bytes(8, dimensions));
    delimited(&[event])
}

#[test]
fn the_same_event_is_the_same_row_in_every_format() {
    let contract = voice();
    let from_json = json(&contract, EVENT, &acme());
    assert_eq!(reasons(&from_json), []);
    let expected = value!({
        "account_id": "acme", "event_time": "2026-01-01T00:00:00Z", "event_id": "e-1",
        "received_time": "2026-01-01T00:00:00Z", "logged_event_time": "2026-01-01T00:00:00.250Z", "route_id": "r-1",
        "event_type": "QUALITY", "duration_ms": 61000, "signaling_name": "RINGING", "signaling_type": "INTERNAL",
        "pdd_ms": 900, "jitter_ms": 4.25, "packet_loss_ratio": 0.01, "mos": 4.0, "direction": "inbound",
        "sip_response_code": 200, "other": {"campaign": "spring é", "tier": "2"}
    });
    assert_eq!(rows(&from_json.batch), [expected]);
    let from_protobuf = protobuf(&contract, event_by_prost(), &acme());
    assert_eq!(from_protobuf.batch, from_json.batch);
    // Send the accepted batch again in the Arrow formats: first as a record batch, and then as an IPC stream.
    assert_eq!(arrow_rows(&contract, &from_json.batch, &acme()).batch, from_json.batch);
    let stream = Bytes::from(ipc(std::slice::from_ref(&*from_json.batch)));
    assert_eq!(decode(&contract, Format::ArrowIpc, &stream, &acme()).unwrap().batch, from_json.batch);
    // Dictionary columns are accepted too.
    let encoded = decode(&contract, Format::Json, &Bytes::from_static(EVENT.as_bytes()), &acme()).unwrap().batch;
    assert_ne!(encoded.schema(), from_json.batch.schema());
    let stream = Bytes::from(ipc(std::slice::from_ref(&*encoded)));
    assert_eq!(decode(&contract, Format::ArrowIpc, &stream, &acme()).unwrap().batch, from_json.batch);
    // A column can be sent at the top level by its name, even if the contract takes it from a nested message.
    let flat = rows(&from_json.batch)[0].to_string();
    assert_eq!(json(&contract, flat, &acme()).batch, from_json.batch);
}

/// An invalid event, the expected reason, and a part of the expected detail.
type Bad = (&'static str, &'static str, &'static str);

fn check_json(contract: &Contract, options: &DecodeOptions, good: &str, cases: &[Bad]) {
    for (bad, reason, detail) in cases {
        let decoded = json(contract, [good, bad, good].join("\n"), options);
        assert_eq!(reasons(&decoded), [(1, *reason)], "{bad}: {:?}", decoded.rejects);
        let reject = &decoded.rejects[0];
        assert!(reject.detail.contains(detail), "expected {detail:?} in {:?}", reject.detail);
        assert_eq!(reject.bytes, bad.as_bytes());
        assert_eq!(decoded.batch.num_rows(), 2, "the events around {bad} are accepted");
        // If the event has valid syntax, the test also sends it as an element of an array.
        if *reason != "malformed" {
            let decoded = json(contract, format!("[{good},\n{bad} ,{good}]"), options);
            assert_eq!((reasons(&decoded), decoded.batch.num_rows()), (vec![(1, *reason)], 2), "{bad} in an array");
        }
    }
}

#[test]
fn json_events_are_rejected_with_every_reason() {
    let good = r#"{"at": 1767225600, "key": "k"}"#;
    let long = format!(r#"{{"at": 1, "key": "{}"}}"#, "x".repeat(5_000));
    let cases: [Bad; 47] = [
        (r#"{"at": 1, "key": "k""#, "malformed", "expected `,` or `}`"),
        (r#"{"at": 1, "key": "k"}}"#, "malformed", "more than one value"),
        (r#"{"at": 1 "key": "k"}"#, "malformed", "expected `,`"),
        (r#"{"at": 1, "key": "k",}"#, "malformed", "expected a key in quotes"),
        (r#"{"at": 01, "key": "k"}"#, "malformed", "leading zero"),
        (r#"{"at": 1., "key": "k"}"#, "malformed", "expected a digit"),
        (r#"{"at": 1, "key": "\x"}"#, "malformed", "unknown escape"),
        (r#"{"at": 1, "key": tru}"#, "malformed", "expected a value"),
        ("{\"at\": 1, \"key\": \"a\tb\"}", "malformed", "control character"),
        (r#"[1]"#, "malformed", "an event must be a JSON object"),
        (r#""text""#, "malformed", "an event must be a JSON object"),
        ("\u{0}", "malformed", "expected a value"),
        (r#"{"at": 1, "key": "\ud800"}"#, "invalid_utf8", "`key`"),
        (r#"{"at": 1, "key": 5}"#, "wrong_type", "column `key` expects text, got 5"),
        (r#"{"at": 1, "key": "k", "large": "5"}"#, "wrong_type", "column `large` expects int64, got text"),
        (r#"{"at": 1, "key": "k", "large": 1.5}"#, "wrong_type", "got 1.5"),
        (r#"{"at": 1, "key": "k", "flag": 1}"#, "wrong_type", "`flag`"),
        (r#"{"at": 1, "key": "k", "double": true}"#, "wrong_type", "got true"),
        (r#"{"at": 1, "key": "k", "double": {"a": [1]}}"#, "wrong_type", "an object"),
        (r#"{"at": 1, "key": "k", "day": "2026-02-30"}"#, "wrong_type", "`day`"),
        (r#"{"at": 1, "key": "k", "data": "?"}"#, "wrong_type", "`data`"),
        (r#"{"at": "2026-01-01T00:00:00", "key": "k"}"#, "wrong_type", "`at`"),
        (
            r#"{"at": 1, "key": "k", "small": 2147483648}"#,
            "out_of_range",
            "2147483648 is out of range for column `small`",
        ),
        (r#"{"at": 1, "key": "k", "large": 9223372036854775808}"#, "out_of_range", "`large`"),
        (r#"{"at": 1, "key": "k", "large": -9223372036854775809}"#, "out_of_range", "`large`"),
        (r#"{"at": 1, "key": "k", "large": 1e19}"#, "out_of_range", "`large`"),
        (r#"{"at": 1, "key": "k", "single": 1e39}"#, "out_of_range", "`single`"),
        (r#"{"at": 1, "key": "k", "double": 1e400}"#, "out_of_range", "`double`"),
        (r#"{"at": 1, "key": "k", "double": NaN}"#, "not_finite", "`double`"),
        (r#"{"at": 1, "key": "k", "double": -Infinity}"#, "not_finite", "`double`"),
        (r#"{"at": 1, "key": "k", "x": [Infinity]}"#, "not_finite", "NaN"),
        (r#"{"at": 1}"#, "missing_id", "`key`"),
        (r#"{"at": 1, "key": ""}"#, "missing_id", "`key`"),
        (r#"{"at": 1, "key": null}"#, "missing_id", "`key`"),
        (r#"{}"#, "missing_time", "`at`"),
        (r#"{"key": "k"}"#, "missing_time", "`at`"),
        (r#"{"at": null, "key": "k"}"#, "missing_time", "`at`"),
        (r#"{"at": -1, "key": "k"}"#, "time_out_of_range", "before 1970"),
        (r#"{"at": "1969-12-31T23:59:59Z", "key": "k"}"#, "time_out_of_range", "before 1970"),
        (r#"{"at": "2026-01-01T01:00:01Z", "key": "k"}"#, "time_out_of_range", "too far ahead"),
        (r#"{"at": 9e99, "key": "k"}"#, "time_out_of_range", "`at`"),
        (r#"{"at": 1, "key": "k", "who": "evil"}"#, "foreign_tenant", "`who`"),
        (r#"{"at": 1, "key": "k", "key": "k"}"#, "duplicate_key", "`key`"),
        (r#"{"at": 1, "key": "k", "x": 1, "\u0078": 2}"#, "duplicate_key", "`x`"),
        (
            r#"{"at": 1, "key": "k", "a": 1, "b": 1, "c": 1, "d": 1, "e": 1}"#,
            "too_large",
            "more than 4 undeclared fields",
        ),
        (Box::leak(long.into_boxed_str()), "too_large", "at most 4096 are allowed"),
        (r#"{"at": 1, "key": "k", "x": "\udc00"}"#, "invalid_utf8", ""),
    ];
    check_json(&plain("more"), &acme(), good, &cases);
    let unknown = r#"{"at": 1, "key": "k", "lagre": 1}"#;
    check_json(&plain(""), &acme(), good, &[(unknown, "unknown_field", "`lagre`, did you mean `large`?")]);
    let owned = r#"{"at": 1, "key": "k", "who": "acme"}"#;
    let cases: [Bad; 3] = [
        (r#"{"at": 1, "key": "k"}"#, "missing_tenant", "`who`"),
        (r#"{"at": 1, "key": "k", "who": ""}"#, "missing_tenant", "`who`"),
        (r#"{"at": 1, "key": "k", "who": "a\nb"}"#, "missing_tenant", "control characters"),
    ];
    check_json(&plain("more"), &operator(), owned, &cases);
}

#[test]
fn json_values_are_accepted_in_several_notations() {
    let contract = plain("more");
    for (sent, stored) in [
        (r#""who": "", "small": 3.0"#, value!({"small": 3})),
        (r#""who": null, "large": -9223372036854775808"#, value!({"large": i64::MIN})),
        (r#""who": "acme", "large": 1e3"#, value!({"large": 1000})),
        (r#""double": 0.1, "single": 1"#, value!({"double": 0.1, "single": 1.0})),
        (r#""double": 123456789012345678901234567890"#, value!({"double": 1.2345678901234568e29})),
        (r#""double": -0, "single": -0, "large": -0"#, value!({"double": -0.0, "single": -0.0, "large": 0})),
        (r#""double": 0.30000000000000004"#, value!({"double": 0.30000000000000004})),
        (r#""double": -1.7976931348623157e308"#, value!({"double": f64::MIN})),
        (r#""day": "2026-01-01", "flag": false"#, value!({"day": "2026-01-01", "flag": false})),
        (r#""data": "AP8=", "flag": null"#, value!({"data": "00ff"})),
        (r#""data": "_-8""#, value!({"data": "ffef"})),
        (r#""x": {"a": [1, "b c\"", {}]}, "y": 1.50"#, value!({"more": {"x": r#"{"a":[1,"b c\"",{}]}"#, "y": "1.50"}})),
        // The JSON writer of this test omits nulls.
        (r#""x": null, "y": true"#, value!({"more": {"y": "true"}})),
        (
            r#""more": {"a": "1", "b": 2}, "c": "\u0041\ud83d\ude00\n""#,
            value!({"more": {"a": "1", "b": "2", "c": "A😀\n"}}),
        ),
        (r#""more": {}"#, value!({})),
        (r#""\u0066lag": true, "received_time": "1999", "event_date": 3"#, value!({"flag": true})),
    ] {
        let decoded = json(&contract, format!("{{\"at\": 0, \"key\": \"k\", {sent}}}"), &acme());
        assert_eq!(reasons(&decoded), [], "{sent}: {:?}", decoded.rejects);
        let mut expected =
            value!({"who": "acme", "at": "1970-01-01T00:00:00Z", "key": "k", "received_time": "2026-01-01T00:00:00Z"});
        expected.as_object_mut().unwrap().extend(stored.as_object().unwrap().clone());
        assert_eq!(rows(&decoded.batch), [expected], "{sent}");
    }
}

#[test]
fn json_bodies_may_be_an_object_an_array_or_lines() {
    let contract = plain("more");
    let good = r#"{"at": 1, "key": "k"}"#;
    for (body, accepted, rejected) in [
        (String::new(), 0, vec![]),
        (" \n\r\n\t".into(), 0, vec![]),
        ("[]".into(), 0, vec![]),
        (good.into(), 1, vec![]),
        (format!("\u{feff}{good}"), 1, vec![]),
        (good.replace(' ', "\n "), 1, vec![]),
        (format!("\n{good}\r\n\n{good}\n"), 2, vec![]),
        (format!("garbage\n{good}"), 1, vec![(0, "malformed")]),
        (format!("{good}{good}\n{good}"), 1, vec![(0, "malformed")]),
        (format!("[{good}, {good}]\n"), 2, vec![]),
        (format!("[{good}, 5, {good}]"), 2, vec![(1, "malformed")]),
        (format!("[{good}, {good}"), 2, vec![(2, "malformed")]),
        (format!("[{good}, {{\"at\": , {good}]"), 1, vec![(1, "malformed")]),
        (format!("[{good},]"), 1, vec![(1, "malformed")]),
        (format!("[{good}] {good}"), 1, vec![(1, "malformed")]),
        (format!("[{good} {good}]"), 1, vec![(1, "malformed")]),
        (format!("[{}]", "[".repeat(100_000)), 0, vec![(0, "malformed")]),
        (format!("{good}\n{{\"x\": {}", "{\"a\":".repeat(100_000)), 1, vec![(1, "malformed")]),
    ] {
        let decoded = json(&contract, &body, &acme());
        let shown: String = body.chars().take(80).collect();
        assert_eq!((decoded.batch.num_rows(), reasons(&decoded)), (accepted, rejected), "{shown}");
    }
    // After a syntax error in an array, all remaining bytes are recorded as a single reject.
    let decoded = json(&contract, format!("[{good}, {{\"at\": ?}}, {good}]  "), &acme());
    assert_eq!(decoded.rejects[0].bytes, format!("{{\"at\": ?}}, {good}]"));
    for body in ["<html>", "5", "\u{0}", "a,b\n1,2"] {
        let error = decode(&contract, Format::Json, &Bytes::from_static(body.as_bytes()), &acme()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{body}");
    }
}

#[test]
fn invalid_utf8_rejects_only_its_event() {
    let contract = plain("more");
    let good = b"{\"at\": 1, \"key\": \"k\xc3\xa9\"}";
    let bad = b"{\"at\": 1, \"key\": \"k\xff\"}";
    let decoded = json(&contract, [&good[..], &bad[..], &good[..]].join(&b'\n'), &acme());
    assert_eq!((decoded.batch.num_rows(), reasons(&decoded)), (2, vec![(1, "invalid_utf8")]));
    assert_eq!(decoded.rejects[0].bytes, &bad[..]);
    let array = [b"[", &good[..], b",", &bad[..], b",", &good[..], b"]"].concat();
    assert_eq!(reasons(&json(&contract, array, &acme())), [(1, "invalid_utf8")]);
    for bad in [&b"{\"at\": 1, \"key\": \"k\", \"\xff\": 1}"[..], b"{\"at\": 1, \"key\": \"k\", \"x\": [\"\xff\"]}"] {
        assert_eq!(reasons(&json(&contract, bad, &acme())), [(0, "invalid_utf8")]);
    }
}

#[test]
fn unknown_fields_of_nested_objects_keep_their_path() {
    let sent = r#"{"event_time": 0, "event_id": "e", "note": "n", "signaling": {"cause": {"a": 1}}, "dimensions": {"team": "x"}}"#;
    let decoded = json(&voice(), sent, &acme());
    assert_eq!(rows(&decoded.batch)[0]["other"], value!({"note": "n", "signaling.cause": "{\"a\":1}", "team": "x"}));
    for (twice, key) in [(r#""quality": {}, "quality": {}"#, "quality"), (r#""mos": 1, "quality": {"mos": 2}"#, "mos")]
    {
        let decoded = json(&voice(), format!("{{\"event_time\": 0, \"event_id\": \"e\", {twice}}}"), &acme());
        assert_eq!(reasons(&decoded), [(0, "duplicate_key")], "{key}");
    }
    let decoded = json(&voice(), r#"{"event_time": 0, "event_id": "e", "quality": 5}"#, &acme());
    assert_eq!(
        (reasons(&decoded), decoded.rejects[0].detail.as_str()),
        (vec![(0, "wrong_type")], "field `quality` expects an object, got a number")
    );
}

#[test]
fn protobuf_events_are_rejected_with_every_reason() {
    let contract = voice();
    let keys = [varint(1, NOW_MS), bytes(3, "e")];
    let with = |more: Vec<u8>| [keys.concat(), more].concat();
    let dimension = |name: &str| bytes(15, [bytes(1, name), bytes(2, "v")].concat());
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (with(vec![0x22, 5, b'x']), "malformed", "route_id"),
        (with(vec![0x23]), "malformed", "field 4 (`route_id`) has wire type 3"),
        (with(varint(4, 1)), "malformed", "field 4 (`route_id`) has wire type 0"),
        (with(vec![0x9b, 0x06]), "malformed", "group"),
        (with(vec![0]), "malformed", "number"),
        (with(vec![0x08, 0xff]), "malformed", "event_time"),
        (with([vec![0x08], vec![0xff; 10]].concat()), "malformed", "event_time"),
        (with(bytes(17, [9, 1])), "malformed", "jitter_ms"),
        (with(bytes(4, [0xff])), "invalid_utf8", "`route_id`"),
        (with(bytes(8, bytes(15, bytes(1, [0xc3])))), "invalid_utf8", "`other`"),
        (with(bytes(8, bytes(15, [bytes(1, [0xc3]), bytes(1, "a")].concat()))), "invalid_utf8", "`other`"),
        (with(bytes(8, bytes(15, [0, 1]))), "malformed", "number"),
        (with(varint(7, u64::MAX)), "out_of_range", "18446744073709551615 is out of range for column `duration_ms`"),
        (with(varint(2, u64::MAX / 4)), "out_of_range", "`logged_event_time`"),
        (with(bytes(17, double(3, f64::NAN))), "not_finite", "`mos`"),
        (with(bytes(17, double(1, f64::INFINITY))), "not_finite", "`jitter_ms`"),
        (varint(1, NOW_MS), "missing_id", "`event_id`"),
        ([varint(1, NOW_MS), bytes(3, "")].concat(), "missing_id", "`event_id`"),
        (bytes(3, "e"), "missing_time", "`event_time`"),
        (Vec::new(), "missing_time", "`event_time`"),
        (with(varint(1, 568_971_820_800_000)), "time_out_of_range", "too far ahead"),
        (with(varint(1, u64::MAX)), "time_out_of_range", "`event_time`"),
        (with(bytes(5, "evil")), "foreign_tenant", "`account_id`"),
        (with(bytes(8, ["a", "b", "c", "d", "e"].map(dimension).concat())), "too_large", "4 undeclared fields"),
        (with(bytes(4, "x".repeat(5_000))), "too_large", "4096"),
    ];
    let good = delimited(&keys);
    for (bad, reason, detail) in cases {
        let body = [good.clone(), delimited(std::slice::from_ref(&bad)), good.clone()].concat();
        let decoded = protobuf(&contract, body, &acme());
        assert_eq!((decoded.batch.num_rows(), reasons(&decoded)), (2, vec![(1, reason)]), "{:?}", decoded.rejects);
        assert!(decoded.rejects[0].detail.contains(detail), "expected {detail:?} in {:?}", decoded.rejects[0].detail);
        assert_eq!(decoded.rejects[0].bytes, bad);
    }
    let tail = protobuf(&contract, [good.clone(), good[..good.len() - 1].to_vec()].concat(), &acme());
    assert_eq!((tail.batch.num_rows(), reasons(&tail)), (1, vec![(1, "malformed")]));
    assert_eq!(tail.rejects[0].bytes, good[..good.len() - 1]);
    assert_eq!(reasons(&protobuf(&contract, &good, &operator())), [(0, "missing_tenant")]);
}

#[test]
fn unknown_and_repeated_fields_are_read_according_to_proto3() {
    let contract = voice();
    let future = [varint(99, 7), bytes(100, "new"), double(101, 1.0), vec![0xb5, 0x06, 1, 2, 3, 4]].concat();
    let quality = bytes(17, [double(3, 1.0), varint(50, 1)].concat());
    let twice = bytes(8, [bytes(15, [bytes(1, "a"), bytes(2, "1")].concat()), bytes(15, bytes(1, "b"))].concat());
    let again = bytes(8, bytes(15, [bytes(2, "2"), bytes(1, "a"), varint(9, 9)].concat()));
    let body = delimited(&[
        future,
        bytes(3, "old"),
        bytes(3, "e"),
        varint(1, 5),
        varint(1, NOW_MS),
        quality,
        bytes(17, double(1, 2.0)),
        twice,
        again,
        varint(6, 77),
        bytes(5, ""),
    ]);
    let decoded = protobuf(&contract, body, &acme());
    assert_eq!(
        rows(&decoded.batch),
        [
            value!({"account_id": "acme", "event_time": "2026-01-01T00:00:00Z", "event_id": "e", "mos": 1.0, "jitter_ms": 2.0,
            "received_time": "2026-01-01T00:00:00Z", "event_type": "77", "other": {"a": "2", "b": ""}})
        ],
        "{:?}",
        decoded.rejects
    );
}

#[test]
fn map_entries_of_adjacent_rows_are_kept_separate() {
    let contract = voice();
    let entry = |key: &str, value: &str| bytes(15, [bytes(1, key), bytes(2, value)].concat());
    let event =
        |id: &str, entries: &[Vec<u8>]| delimited(&[varint(1, NOW_MS), bytes(3, id), bytes(8, entries.concat())]);
    let body = [
        event("a", &[entry("k", "1"), entry("l", "2"), entry("k", "3")]),
        // An event without an id. The decoder notices that the id is missing only after it has read two entries with
        // the same key.
        event("", &[entry("k", "4"), entry("k", "5"), entry("m", "6")]),
        event("b", &[]),
        event("c", &[entry("m", "7"), entry("k", "a text that is longer than most")]),
    ];
    let decoded = protobuf(&contract, body.concat(), &acme());
    assert_eq!(reasons(&decoded), [(1, "missing_id")]);
    let maps: Vec<_> = rows(&decoded.batch).iter().map(|row| row.get("other").cloned().unwrap_or_default()).collect();
    let last = value!({"m": "7", "k": "a text that is longer than most"});
    assert_eq!(maps, [value!({"k": "3", "l": "2"}), Value::Null, last]);

    let lines = [r#"{"x": null, "y": "1"}"#, r#"{"key": "", "x": "2"}"#, r#"{"y": "3", "x": null, "z": "4"}"#];
    let lines = lines.iter().enumerate().map(|(line, fields)| {
        fields.replacen('{', &format!("{{\"at\": 0, {}", if line == 1 { "" } else { "\"key\": \"k\", " }), 1)
    });
    let decoded = json(&plain("more"), lines.collect::<Vec<_>>().join("\n"), &acme());
    assert_eq!(reasons(&decoded), [(1, "missing_id")]);
    let more = decoded.batch.column_by_name("more").unwrap().as_map();
    let entries = |row: usize| -> Vec<_> {
        let entries = more.value(row);
        let texts = |column: usize| entries.column(column).as_string::<i32>().clone();
        let (keys, values) = (texts(0), texts(1));
        keys.iter().flatten().zip(&values).map(|(key, value)| format!("{key}={value:?}")).collect()
    };
    assert_eq!(entries(0), ["x=None", "y=Some(\"1\")"]);
    assert_eq!(entries(1), ["y=Some(\"3\")", "x=None", "z=Some(\"4\")"]);
}

#[test]
fn bodies_with_too_many_invalid_events_are_refused() {
    let zeros = Bytes::from(vec![0; super::accept_or_reject::BODY_REJECTS_MAX + 1]);
    let error = decode(&voice(), Format::Protobuf, &zeros, &acme()).unwrap_err();
    assert!(error.message().contains("missing_time"), "{error}");
    let lines = Bytes::from("{}\n".repeat(super::accept_or_reject::BODY_REJECTS_MAX + 1));
    assert_eq!(decode(&voice(), Format::Json, &lines, &acme()).unwrap_err().kind(), Kind::Invalid);
}

/// Decodes randomly changed bodies. No decoder may panic. Accepted rows are sent again as Arrow, and none of them may
/// be rejected.
#[test]
fn decoders_do_not_panic_on_mutated_bodies() {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};
    let contract = voice();
    let good = json(&contract, EVENT, &acme()).batch;
    let one_line = EVENT.replace('\n', " ");
    let bodies: Vec<(Format, Vec<u8>)> = vec![
        (Format::Json, [&*one_line, &*one_line, &*one_line].join("\n").into_bytes()),
        (Format::Json, format!("[{EVENT},{EVENT}]").into_bytes()),
        (Format::Protobuf, [event_by_prost(), event_by_prost(), event_by_prost()].concat()),
        (Format::ArrowIpc, ipc(&[(*good).clone(), (*good).clone()])),
    ];
    let mut random = SmallRng::seed_from_u64(7);
    let (mut accepted, mut rejected, mut refused) = (0, 0, 0);
    for (format, body) in &bodies {
        for _ in 0..3_000 {
            let mut body = body.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..body.len());
                match random.random_range(0..4) {
                    0 => body[at] = random.random(),
                    1 => body[at] ^= 1 << random.random_range(0..8),
                    2 => body.truncate(at.max(1)),
                    _ => drop(body.remove(at)),
                }
                if body.is_empty() {
                    body.push(b' ');
                }
            }
            match decode(&contract, *format, &Bytes::from(body), &acme()) {
                Ok(Decoded { batch, rejects }) => {
                    accepted += batch.num_rows();
                    rejected += rejects.len();
                    assert_eq!(reasons(&arrow_rows(&contract, &batch, &acme())), []);
                }
                Err(error) => {
                    assert_ne!(error.kind(), Kind::Internal, "{error:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(accepted > 5_000 && rejected > 3_000 && refused > 100, "{accepted} {rejected} {refused}");
}
