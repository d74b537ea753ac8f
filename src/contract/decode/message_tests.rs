//! Tests of the decoders for messages, each of which is one event. A source and a replay of the quarantine pass several
//! messages in one body.

use bytes::Bytes;

use crate::contract::testing::*;
use crate::contract::{Contract, Decoded, Format, TenantId, decode_messages};
use crate::error::Kind;

/// Decodes messages in the form in which a source passes them, separated by line breaks.
fn messages(contract: &Contract, format: Format, messages: &[&[u8]]) -> Decoded {
    let (mut body, mut ranges) = (Vec::new(), Vec::new());
    for message in messages {
        ranges.push(body.len()..body.len() + message.len());
        body.extend_from_slice(message);
        body.push(b'\n');
    }
    decode_messages(contract, format, &body.into(), &ranges, &operator()).unwrap()
}

#[test]
fn messages_are_decoded_separately() {
    let event =
        |key: &str| format!("{{\n \"who\": \"acme\",\n \"at\": {}, \"key\": \"{key}\"}}", NOW_MS / 1_000).into_bytes();
    let (a, b) = (event("a"), event("b"));
    let cut: &[u8] = b"{\"who\": \"acme\", \"key\": \"\xc3";
    let two = [a.as_slice(), &b].concat();
    let sent: &[&[u8]] = &[&a, b"", cut, b"\xa9\"}", &b, b"[]", &two, b" 7 "];
    let decoded = messages(&plain(""), Format::Json, sent);
    assert_eq!(rows(&decoded.batch).iter().map(|row| row["key"].clone()).collect::<Vec<_>>(), ["a", "b"]);
    let malformed: Vec<_> = [1, 2, 3, 5, 6, 7].map(|index| (index, "malformed")).into();
    assert_eq!(reasons(&decoded), malformed);
    assert_eq!((&decoded.rejects[1].bytes[..], &decoded.rejects[4].bytes[..]), (cut, two.as_slice()));

    let event = |id: &str| [varint(1, NOW_MS), bytes(5, "acme"), bytes(3, id)].concat();
    let sent: &[&[u8]] = &[&event("a"), b"\x0b", b"", &event("b")];
    let decoded = messages(&voice(), Format::Protobuf, sent);
    assert_eq!(rows(&decoded.batch).iter().map(|row| row["event_id"].clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(reasons(&decoded), [(1, "malformed"), (2, "missing_tenant")], "{:?}", decoded.rejects);
    let refused = decode_messages(&plain(""), Format::Protobuf, &Bytes::new(), &[], &operator()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
}

#[test]
fn positions_in_errors_are_relative_to_the_message() {
    let good: &[u8] = br#"{"who": "acme", "at": 1, "key": "k"}"#;
    // The message, and the expected detail.
    let cases: [(&[u8], &str); 6] = [
        (br#"{"at": 1 "key": "k"}"#, "expected `,` or `}` at byte 9 of the message"),
        (b"  {\"at\": ?}", "expected a value at byte 9 of the message"),
        (b"\xef\xbb\xbf{\"at\": ?}", "expected a value at byte 10 of the message"),
        (b"{\"at\": ", "expected a value at byte 6 of the message, which ends there"),
        (b"", "expected a value at byte 0 of the message, which ends there"),
        (b"{\"key\": \"k\x01\"}", "unescaped control character in a string at byte 10 of the message"),
    ];
    for (bad, detail) in cases {
        // The position must not depend on the messages before it.
        for before in [&[][..], &[good], &[good, bad, good]] {
            let decoded = messages(&plain("more"), Format::Json, &[before, &[bad, good]].concat());
            assert_eq!(decoded.rejects.last().unwrap().detail, detail, "after {} messages", before.len());
        }
    }
    // In a body, positions are relative to the body, because the sender has sent all of it.
    let body = [good, b"\n{\"at\": ?}"].concat();
    let position = good.len() + "\n{\"at\": ".len();
    let expected = format!("expected a value at byte {position} of the body");
    assert_eq!(json(&plain("more"), body, &operator()).rejects[0].detail, expected);
}

#[test]
fn a_byte_order_mark_at_the_start_of_a_message_is_skipped() {
    let event = |key: &str| format!(r#"{{"who": "acme", "at": 1, "key": "{key}"}}"#);
    let sent =
        ["\u{feff}", "\u{feff} \r\n", "\u{feff}\u{feff}", " \u{feff}", ""].map(|mark| format!("{mark}{}", event("k")));
    let sent: Vec<&[u8]> = sent.iter().map(String::as_bytes).collect();
    let decoded = messages(&plain(""), Format::Json, &sent);
    assert_eq!(decoded.batch.num_rows(), 3, "{:?}", decoded.rejects);
    assert_eq!(reasons(&decoded), [(2, "malformed"), (3, "malformed")], "only one mark, at the start, is skipped");
    let decoded = messages(&plain(""), Format::Json, &[b"\xef\xbb\xbf", b"\xef\xbb", b"\xef\xbb\xbf5"]);
    assert_eq!(reasons(&decoded), [(0, "malformed"), (1, "malformed"), (2, "malformed")]);
}

#[test]
fn a_tenant_id_has_no_byte_order_mark() {
    for text in ["\u{feff}acme", "ac\u{feff}me", "acme\u{feff}", "\u{feff}"] {
        let error = TenantId::parse(text).unwrap_err();
        assert!(error.message().contains("byte order mark"), "{error}");
        let event = format!(r#"{{"who": "{text}", "at": 1, "key": "k"}}"#);
        assert_eq!(reasons(&json(&plain(""), event, &operator())), [(0, "missing_tenant")]);
    }
}
