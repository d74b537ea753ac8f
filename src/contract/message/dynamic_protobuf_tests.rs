//! Tests of protobuf types that are known only at run time. They convert messages to JSON, and check schemas for
//! compatibility with a contract.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto};

use super::dynamic_protobuf::{MessageType, ProtoFile};
use crate::config::TableConfig;
use crate::contract::decode::reject_reason::Reason;
use crate::contract::schema::table::Contract;
use crate::contract::testing::{bytes, varint, voice};

const ORDER: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    import "people/guest.proto";
    import "confluent/meta.proto";
    message Other { message Inner { int32 at = 1; } Inner inner = 1; }
    message Order {
      option (confluent.message_meta) = { doc: "An order" };
      string order_id = 1;
      int64 total = 2;
      optional int32 tip = 3;
      repeated Line lines = 4;
      map<string, double> rates = 5;
      google.protobuf.Timestamp at = 6;
      people.Guest guest = 7;
      bytes raw = 8;
      State state = 9;
      message Line { string sku = 1; uint32 count = 2; }
      message Note { string text = 1; }
    }
    enum State { NEW = 0; DONE = 1; }"#;
const GUEST: &str = "syntax = \"proto3\"; package people; message Guest { string name = 1; }";

fn orders(path: &[usize]) -> Vec<MessageType> {
    let imports = vec![("people/guest.proto".to_owned(), GUEST.to_owned())];
    ProtoFile::compile(ORDER, imports).unwrap().messages(path)
}

fn json(kind: &MessageType, message: &[u8], bytes_max: usize) -> Result<String, (Reason, String)> {
    let mut out = Vec::new();
    kind.write_json(message, &mut out, bytes_max).map(|()| String::from_utf8(out).unwrap())
}

#[test]
fn a_path_of_indexes_selects_a_message_type() {
    let cases: [(&[usize], &[&str]); 9] = [
        (&[0], &["shop.Other"]),
        (&[1], &["shop.Order"]),
        (&[0, 0], &["shop.Other.Inner"]),
        // The first nested message type of `Order` is the entry type of its map field, which only some serializers
        // count.
        (&[1, 0], &["shop.Order.Line"]),
        (&[1, 1], &["shop.Order.Note", "shop.Order.Line"]),
        (&[1, 2], &["shop.Order.Note"]),
        (&[2], &[]),
        (&[0, 0, 0], &[]),
        (&[], &[]),
    ];
    for (path, expected) in cases {
        let candidates = orders(path);
        assert_eq!(candidates.iter().map(MessageType::name).collect::<Vec<_>>(), expected, "{path:?}");
    }
}

#[test]
fn json_text_has_the_proto_field_names_and_all_digits() {
    let kind = &orders(&[1])[0];
    let message = [
        bytes(1, "a"),
        varint(2, u64::MAX),
        bytes(4, [bytes(1, "x"), varint(2, 3)].concat()),
        bytes(5, [bytes(1, "k"), crate::contract::testing::double(2, 0.5)].concat()),
        bytes(6, varint(1, 1_772_366_400)),
        bytes(7, bytes(1, "Ann")),
        bytes(8, [0, 255]),
        varint(9, 1),
        varint(99, 1),
    ];
    let expected = r#"{"order_id":"a","total":-1,"lines":[{"sku":"x","count":3}],"rates":{"k":0.5},"at":"2026-03-01T12:00:00Z","guest":{"name":"Ann"},"raw":"AP8=","state":"DONE"}"#;
    assert_eq!(json(kind, &message.concat(), 1_000).unwrap(), expected);
    let empty = r#"{"order_id":"","total":0,"lines":[],"rates":{},"raw":"","state":"NEW"}"#;
    assert_eq!(json(kind, &[], 1_000).unwrap(), empty, "fields without presence are always included");

    let (reason, detail) = json(kind, &message.concat(), 100).unwrap_err();
    assert!(reason == Reason::TooLarge && detail.contains("100 bytes"), "{detail}");
    let (reason, detail) = json(kind, &[0x0a, 0x05, b'a'], 100).unwrap_err();
    assert!(reason == Reason::Malformed && detail.contains("`shop.Order`"), "{detail}");
}

#[test]
fn a_schema_that_does_not_compile_is_refused() {
    let deep = format!("option (a) = {}", "{ a: ".repeat(100_000));
    for (text, expected) in
        [("message {", "does not compile"), ("import \"gone.proto\";", "gone.proto"), (&*deep, "more than 200 levels")]
    {
        let error = ProtoFile::compile(text, Vec::new()).unwrap_err();
        assert!(error.message().contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_compiled_file_descriptor_is_accepted_as_a_schema() {
    let message = |name: &str| DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() };
    let file = FileDescriptorProto {
        name: Some("elsewhere.proto".to_owned()),
        package: Some("shop".to_owned()),
        message_type: vec![message("A"), message("B")],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    let text = BASE64.encode(file.encode_to_vec());
    let imports = vec![("a.proto".to_owned(), text.clone())];
    let alone = ProtoFile::compile(&text, Vec::new()).unwrap();
    assert_eq!(alone.messages(&[1])[0].name(), "shop.B");
    let uses = "syntax = \"proto3\"; import \"a.proto\"; message C { shop.A a = 1; }";
    assert_eq!(ProtoFile::compile(uses, imports).unwrap().messages(&[0])[0].name(), "C");
}

/// Checks whether the first message type in `written` is compatible with a table whose contract is the message type
/// `shop.Call`.
fn compatibility(written: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let own = "syntax = \"proto3\"; package shop; import \"google/protobuf/timestamp.proto\";
        message Call { string who = 1; google.protobuf.Timestamp at = 2; string key = 3; int64 size = 4; Kind kind = 5;
                       Part part = 6; map<string, string> more = 7; repeated string gone = 8; }
        message Part { double value = 1; } enum Kind { A = 0; B = 1; }";
    std::fs::write(folder.path().join("call.proto"), own).unwrap();
    let config = TableConfig {
        proto: Some("call.proto".into()),
        message: Some("shop.Call".into()),
        ignore: vec!["gone".into()],
        tenant: "who".into(),
        time: "at".into(),
        id: "key".into(),
        dimensions_map: "more".into(),
        ..TableConfig::default()
    };
    let contract = Contract::new("calls", &config, folder.path()).unwrap();
    let text = format!(
        "syntax = \"proto3\"; package shop; import \"google/protobuf/timestamp.proto\"; {written}
         message Part {{ double value = 1; }} enum Kind {{ A = 0; B = 1; }} enum Sort {{ C = 0; D = 1; }}"
    );
    contract.agrees(&ProtoFile::compile(&text, Vec::new()).unwrap().messages(&[0])[0])
}

#[test]
fn a_contract_is_compatible_with_newer_and_older_versions_of_its_type() {
    let keys = "string who = 1; google.protobuf.Timestamp at = 2; string key = 3;";
    for fields in [
        "int64 size = 4; Kind kind = 5; Part part = 6; map<string, string> more = 7; repeated string gone = 8;",
        "",
        "optional int64 size = 4;",
        "string later = 20; Part part = 6;",
        "int64 bytes = 4;",
        "int32 gone = 8;",
    ] {
        assert_eq!(compatibility(&format!("message Call {{ {keys} {fields} }}")), Ok(()), "{fields}");
    }
    assert_eq!(
        compatibility(&format!("message Ring {{ {keys} int64 size = 4; }}")),
        Ok(()),
        "a message type with a different name"
    );

    for (fields, expected) in [
        ("int32 size = 4;", "field 4 (`size`) is int32"),
        ("sint64 size = 4;", "is sint64"),
        ("repeated int64 size = 4;", "is repeated int64"),
        ("int64 size = 14;", "`size` is field 14, not 4"),
        ("int64 other = 4; int32 size = 5;", "field 4 is `other`, not `size`"),
        ("Sort kind = 5;", "names value 0 `C`, not `A`"),
        ("string kind = 5;", "is string"),
        ("Kind part = 6;", "is enum `shop.Kind`"),
        ("map<string, int32> more = 7;", "is a map"),
        ("string more = 7;", "is string"),
    ] {
        let error = compatibility(&format!("message Call {{ {keys} {fields} }}")).unwrap_err();
        assert!(error.contains(expected) && error.contains("`calls`"), "{fields}: {error}");
    }
    let part = "message Call { string who = 1; google.protobuf.Timestamp at = 2; string key = 3; Share part = 6; }
                message Share { float value = 1; }";
    assert!(compatibility(part).unwrap_err().contains("field 1 (`value`) is float"), "{part}");
    for other in ["string key = 1; string who = 3;", "string name = 1;", "google.protobuf.Timestamp who = 1;"] {
        assert!(compatibility(&format!("message Ring {{ {other} }}")).is_err(), "{other}");
    }
}

#[test]
fn the_voice_contract_is_compatible_with_its_own_message_type() {
    let contract = voice();
    assert_eq!(contract.agrees(&contract.message().unwrap()), Ok(()));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/glasshouse/voice/v1/call_event.proto");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let opened = MessageType::open(&file, "glasshouse.voice.v1.CallEvent", &base).unwrap();
    assert_eq!(contract.agrees(&opened), Ok(()));
    assert!(MessageType::open(&file, "glasshouse.voice.v1.CalEvent", &base).is_err());
}
