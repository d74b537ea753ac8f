//! Tests of table declarations. They check columns, error messages, the quarantine, and the presence and types of
//! protobuf fields.

use std::path::Path;

use serde_json::json as value;

use super::testing::*;
use super::{ColumnKind, Contract, Format, Latest, TenantId, decode};
use crate::config::{ColumnConfig, LatestConfig, TableConfig, TimeUnit};
use crate::error::Kind;

#[test]
fn the_call_event_is_declared_by_columns_in_stored_order() {
    let contract = voice();
    let columns: Vec<_> =
        contract.columns.iter().map(|column| (&*column.name, column.kind.to_string(), &*column.unit)).collect();
    let columns: Vec<_> = columns.iter().map(|(name, kind, unit)| (*name, kind.as_str(), *unit)).collect();
    assert_eq!(
        columns,
        [
            ("account_id", "text", ""),
            ("event_time", "timestamp", ""),
            ("event_id", "text", ""),
            ("received_time", "timestamp", ""),
            ("logged_event_time", "timestamp", ""),
            ("route_id", "text", ""),
            ("event_type", "text", ""),
            ("duration_ms", "int64", "ms"),
            ("direction", "text", ""),
            ("carrier", "text", ""),
            ("country", "text", ""),
            ("region", "text", ""),
            ("codec", "text", ""),
            ("edge", "text", ""),
            ("sip_response_code", "int64", ""),
            ("signaling_name", "text", ""),
            ("signaling_type", "text", ""),
            ("pdd_ms", "int64", "ms"),
            ("call_state", "text", ""),
            ("end_reason", "text", ""),
            ("jitter_ms", "float64", "ms"),
            ("packet_loss_ratio", "float64", "ratio"),
            ("mos", "float64", "score"),
            ("round_trip_ms", "float64", "ms"),
            ("other", "map", ""),
        ]
    );
    assert_eq!(contract.map, Some(24));
    assert_eq!(contract.description, "One thing that happened to one call.");
    let jitter = contract.schema().field_with_name("jitter_ms").unwrap();
    assert_eq!(jitter.metadata()["unit"], "ms");
    assert_eq!(jitter.metadata()["comment"], "Mean interarrival jitter (RFC 3550, section 6.4.1).");
    for (index, column) in contract.columns.iter().enumerate() {
        assert!(!column.description.is_empty(), "{} has a description", column.name);
        assert_eq!(contract.schema().field(index).is_nullable(), index > 3, "{}", column.name);
        assert_eq!(contract.column(&column.name), Some(index));
    }
    assert_eq!(contract.empty_batch().schema(), *contract.schema());
}

#[test]
fn the_table_schema_ends_with_the_event_date() {
    let contract = plain("more");
    let (files, table) = (contract.schema(), contract.table_schema());
    assert_eq!(files.fields()[..], table.fields()[..files.fields().len()]);
    let day = table.fields().last().unwrap();
    assert_eq!(
        (day.name().as_str(), day.data_type(), day.is_nullable()),
        ("event_date", &ColumnKind::Date.data_type(), true)
    );
}

#[test]
fn the_quarantine_has_the_tenant_column_of_its_table_and_fixed_columns() {
    let quarantine = Contract::quarantine_of(&voice());
    let columns: Vec<_> = quarantine.columns.iter().map(|column| (&*column.name, column.kind.to_string())).collect();
    let columns: Vec<_> = columns.iter().map(|(name, kind)| (*name, kind.as_str())).collect();
    assert_eq!(quarantine.name, "call_events_quarantine");
    assert_eq!(
        columns,
        [
            ("account_id", "text"),
            ("event_time", "timestamp"),
            ("quarantine_id", "text"),
            ("received_time", "timestamp"),
            ("source_table", "text"),
            ("reason", "text"),
            ("detail", "text"),
            ("place", "text"),
            ("payload", "bytes"),
            ("format", "text"),
            ("resolves", "text"),
            ("resolution", "text"),
            ("resolved_by", "text"),
        ]
    );
    let hidden: Vec<_> = columns.iter().map(|(name, _)| *name).filter(|name| !quarantine.is_shown(name)).collect();
    assert_eq!(hidden, ["resolves", "resolution", "resolved_by"]);
    assert!(voice().is_shown("resolves"), "a table may have a column of that name");
}

/// A change that makes a valid declaration invalid, and the expected error message.
type DeclarationCase = (fn(&mut TableConfig), &'static str);

#[test]
fn all_errors_in_columns_are_reported_together() {
    let column = |name: &str, kind: &str| ColumnConfig { name: name.into(), kind: kind.into(), ..Default::default() };
    let mut config = plain_config("");
    config.columns.push(column("mos", "flaot64"));
    config.columns.push(column("FLAG", "bool"));
    config.columns.push(column("a b", "text"));
    config.columns.push(column("received_time", "timestamp"));
    config.columns.extend([column("one", "map"), column("two", "map")]);
    config.id = "kye".into();
    config.tenant = "large".into();
    config.metrics = vec!["day".into()];
    let error = Contract::new("plain", &config, Path::new("")).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    for part in [
        "table `plain`: ",
        "column `mos`: unknown type `flaot64`, did you mean `float64`?",
        "column `FLAG` is declared more than once",
        "column `a b`: a name must consist of letters",
        "column name `received_time` is reserved",
        "2 map columns (one, two): at most one is allowed",
        "`id` names the unknown column `kye`, did you mean `key`?",
        "`tenant` names `large`, which is int64; it must be text",
        "`metrics` names `day`, which is date; it must be a number",
    ] {
        assert!(error.message().contains(part), "expected {part:?} in {error}");
    }
}

#[test]
fn latest_accepts_only_suitable_columns() {
    let latest = |key: &[&str], by: &str, deleted: Option<&str>| {
        let mut config = plain_config("more");
        let key = key.iter().map(|name| (*name).to_owned()).collect();
        config.latest = Some(LatestConfig { key, by: by.to_owned(), deleted: deleted.map(str::to_owned) });
        Contract::new("plain", &config, Path::new(""))
    };
    // In stored order, the columns are: who, at, key, received_time, flag, small, large, single, double, day, data,
    // more.
    for (key, by, deleted, expected) in [
        (&["data"][..], "day", Some("flag"), Latest { key: vec![10], by: 9, deleted: Some(4) }),
        (&["large", "flag", "who"], "received_time", None, Latest { key: vec![6, 4, 0], by: 3, deleted: None }),
        (&["day", "at"], "small", None, Latest { key: vec![9, 1], by: 5, deleted: None }),
    ] {
        let contract = latest(key, by, deleted).unwrap();
        assert_eq!(contract.latest, Some(expected));
        assert_eq!(contract.changes_name().as_deref(), Some("plain_changes"));
        assert_eq!(Contract::quarantine_of(&contract).latest, None);
    }
    assert_eq!(plain("").changes_name(), None);
    for (key, by, deleted, expected) in [
        (&[][..], "day", None, "`latest.key` is empty: name the columns"),
        (&["dya"], "at", None, "`latest.key` names the unknown column `dya`, did you mean `day`?"),
        (&["single"], "at", None, "`latest.key` names `single`, which is float32; it must be text, uuid, bool, int32"),
        (&["double"], "at", None, "`latest.key` names `double`, which is float64"),
        (&["more"], "at", None, "`latest.key` names `more`, which is map"),
        (&["received_time"], "at", None, "`latest.key` names the unknown column `received_time`"),
        (&["large", "day", "large"], "at", None, "`latest.key` names `large` more than once"),
        (&["key"], "at", None, "which is the table's `id`; an event whose id is already stored is a duplicate"),
        (&["large"], "large", None, "`latest.by` names `large`, which is also in `latest.key`"),
        (
            &["large"],
            "data",
            None,
            "`latest.by` names `data`, which is bytes; it must be text, int32, int64, timestamp or date",
        ),
        (&["large"], "double", None, "`latest.by` names `double`, which is float64"),
        (&["large"], "gone", None, "`latest.by` names the unknown column `gone`"),
        (&["large"], "at", Some("small"), "`latest.deleted` names `small`, which is int32; it must be bool"),
        (&["large", "flag"], "at", Some("flag"), "`latest.deleted` names `flag`, which is also in `latest.key`"),
    ] {
        let error = latest(key, by, deleted).unwrap_err();
        assert!(error.message().contains(expected), "expected {expected:?} in {error}");
    }
}

#[test]
fn errors_in_a_proto_declaration_are_reported() {
    let cases: [DeclarationCase; 9] = [
        (|config| config.proto = Some("proto/none.proto".into()), "does not compile"),
        (|config| config.message = None, "`message` is not set: name one of glasshouse.voice.v1.CallEvent,"),
        (
            |config| config.message = Some("glasshouse.voice.v1.CalEvent".into()),
            "did you mean `glasshouse.voice.v1.CallEvent`?",
        ),
        (|config| config.flatten.push("qualty".into()), "`flatten` names `qualty`, which is not a message field"),
        (|config| config.ignore.push("event_time".into()), "`time` names the unknown column `event_time`"),
        (|config| config.dimensions_map = "dims".into(), "the map field of the message is `other`"),
        (|config| config.columns = plain_config("").columns, "both `proto` and `columns`"),
        (|config| config.time = "mos".into(), "`time` names `mos`, which is float64; it must be timestamp"),
        (|config| config.times = vec!["codec".into()], "`times` names `codec`, which is text"),
    ];
    for (change, message) in cases {
        let mut config = voice_config();
        change(&mut config);
        let error = Contract::new("calls", &config, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
        assert!(error.message().contains(message), "expected {message:?} in {error}");
    }
}

/// Writes `proto` to a `.proto` file, and returns the contract of a table that is declared by this file.
fn contract_of(proto: &str, change: impl FnOnce(&mut TableConfig)) -> crate::error::Result<Contract> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.proto"), format!("syntax = \"proto3\"; package t; {proto}")).unwrap();
    let mut config = TableConfig {
        proto: Some("t.proto".into()),
        message: Some("t.E".into()),
        tenant: "who".into(),
        time: "at".into(),
        time_unit: TimeUnit::Seconds,
        id: "key".into(),
        ..TableConfig::default()
    };
    change(&mut config);
    Contract::new("t", &config, folder.path())
}

const KEYS: &str = "optional string who = 1; optional string key = 3;";

#[test]
fn repeated_messages_and_recursive_fields_are_refused_unless_ignored() {
    let proto = format!(
        "message E {{ {KEYS} optional int64 at = 2; repeated Tag tags = 4; E parent = 5; map<string, E> by = 6; }} message Tag {{}}"
    );
    let error = contract_of(&proto, |_| {}).unwrap_err();
    for part in ["`tags` repeats a message", "`parent` is recursive", "`by` is a map of messages"] {
        assert!(error.message().contains(part), "expected {part:?} in {error}");
    }
    let ignored = ["tags", "parent", "by"].map(str::to_owned).to_vec();
    let contract = contract_of(&proto, |config| config.ignore = ignored).unwrap();
    assert_eq!(contract.columns.len(), 4);
    let body = delimited(&[varint(2, 5), bytes(3, "k"), bytes(4, "x"), bytes(5, [1, 2, 3]), bytes(6, "?")]);
    assert_eq!(protobuf(&contract, body, &acme()).batch.num_rows(), 1);
}

#[test]
fn absent_fields_without_presence_have_default_values_if_their_message_is_present() {
    let proto = format!(
        "enum Kind {{ NONE = 0; SOME = 1; }}
         message Inner {{ double loss = 1; optional double mos = 2; }}
         message E {{ {KEYS} int64 at = 2; int32 count = 4; string note = 5; Kind kind = 6; Inner inner = 7; int64 later = 8; }}"
    );
    let contract = contract_of(&proto, |config| config.times = vec!["later".into()]).unwrap();
    let keys = [varint(2, 1_000), bytes(3, "k")];
    let with_inner = [keys.to_vec(), vec![bytes(7, "")]].concat();
    let decoded = protobuf(&contract, [delimited(&keys), delimited(&with_inner)].concat(), &acme());
    let row = |rest: serde_json::Value| {
        let mut row = value!({"who": "acme", "at": "1970-01-01T00:16:40Z", "key": "k", "count": 0, "note": "", "kind": "NONE",
            "received_time": "2026-01-01T00:00:00Z"});
        row.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        row
    };
    assert_eq!(rows(&decoded.batch), [row(value!({})), row(value!({"inner_loss": 0.0}))]);
    let sent = r#"{"at": 1000, "key": "k"} "#.to_owned() + "\n" + r#"{"at": 1000, "key": "k", "inner": {}}"#;
    assert_eq!(json(&contract, sent, &acme()).batch, decoded.batch);
    // The absent time must not get the default value 0, which would be the year 1970.
    assert_eq!(reasons(&protobuf(&contract, delimited(&[bytes(3, "k")]), &acme())), [(0, "missing_time")]);
}

#[test]
fn every_protobuf_scalar_has_a_column_type() {
    let proto = format!(
        "import \"google/protobuf/timestamp.proto\";
         message E {{ {KEYS} google.protobuf.Timestamp at = 2; optional sint32 a = 4; optional sint64 b = 5; optional fixed32 c = 6;
         optional fixed64 d = 7; optional sfixed32 e = 8; optional sfixed64 f = 9; optional float g = 10; optional bool h = 11;
         optional bytes i = 300; optional int32 j = 13; optional uint32 k = 14; map<int64, bool> m = 15; }}"
    );
    let contract = contract_of(&proto, |_| {}).unwrap();
    let timestamp = [varint(1, 7), varint(2, 8_000)].concat();
    let fixed32 = |number: u64, value: u32| [vec![(number << 3 | 5) as u8], value.to_le_bytes().to_vec()].concat();
    let fixed64 = |number: u64, value: u64| [vec![(number << 3 | 1) as u8], value.to_le_bytes().to_vec()].concat();
    let body = delimited(&[
        bytes(2, timestamp),
        bytes(3, "k"),
        varint(4, 3),
        varint(5, 4),
        fixed32(6, u32::MAX),
        fixed64(7, 9),
        fixed32(8, u32::MAX),
        fixed64(9, u64::MAX),
        fixed32(10, 1.5f32.to_bits()),
        varint(11, 1),
        bytes(300, [0, 255]),
        varint(13, u64::MAX),
        varint(14, u64::from(u32::MAX)),
        bytes(15, [varint(1, u64::MAX), varint(2, 1)].concat()),
        bytes(15, varint(1, 5)),
    ]);
    let decoded = protobuf(&contract, body, &acme());
    assert_eq!(
        rows(&decoded.batch),
        [
            value!({"who": "acme", "at": "1970-01-01T00:00:07.000008Z", "key": "k", "received_time": "2026-01-01T00:00:00Z",
            "a": -2, "b": 2, "c": 4_294_967_295_u32, "d": 9, "e": -1, "f": -1, "g": 1.5, "h": true, "i": "00ff",
            "j": -1, "k": 4_294_967_295_u32, "m": {"-1": "true", "5": "false"}})
        ],
        "{:?}",
        decoded.rejects
    );
}

#[test]
fn a_tenant_id_is_short_and_printable() {
    for good in ["a", "Ünïcode 1", &"x".repeat(256)] {
        assert_eq!(TenantId::parse(good).unwrap().as_str(), good);
    }
    for bad in ["", "a\nb", "\u{7f}", &"x".repeat(257)] {
        assert_eq!(TenantId::parse(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
    }
}

#[test]
fn a_table_declared_by_columns_refuses_protobuf() {
    let error = decode(&plain(""), Format::Protobuf, &bytes::Bytes::from_static(&[0]), &acme()).unwrap_err();
    assert!(error.message().contains("send JSON or Arrow"), "{error}");
}
