//! Tests of decimals, lists, UUIDs, times of day and JSON in every format: the smallest and greatest values, and values
//! that are refused.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryArray, Decimal128Array, Decimal256Array, DictionaryArray, FixedSizeBinaryArray,
    FixedSizeListArray, Float64Array, Int32Array, Int64Array, LargeListArray, LargeStringArray, ListArray, RecordBatch,
    StringArray, StringViewArray, Time32SecondArray, Time64MicrosecondArray, Time64NanosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Int32Type, i256};
use arrow::util::display::array_value_to_string;

use crate::config::{ColumnConfig, TableConfig, TimeUnit};
use crate::contract::testing::*;
use crate::contract::{ColumnKind, Contract, Decoded, Reason, decode_arrow};

/// A value as text, or the reason for which its event is rejected.
type Expected = Result<&'static str, Reason>;

const NULL: &str = "<null>";
const HIGH: &str = "9999999999999999999999999999.9999999999";
const UUID: &str = "550e8400-e29b-41d4-a716-446655440000";

fn contract(kind: &str) -> Contract {
    let columns = [("who", "text"), ("at", "timestamp"), ("key", "text"), ("value", kind)];
    let column =
        |(name, kind): (&str, &str)| ColumnConfig { name: name.into(), kind: kind.into(), ..Default::default() };
    let config = TableConfig {
        columns: columns.into_iter().map(column).collect(),
        tenant: "who".into(),
        time: "at".into(),
        time_unit: TimeUnit::Seconds,
        id: "key".into(),
        ..TableConfig::default()
    };
    Contract::new("t", &config, Path::new("")).unwrap()
}

/// Returns the value of the only event, or the reason for rejecting it.
fn outcome(contract: &Contract, decoded: &Decoded) -> Result<String, Reason> {
    match decoded.rejects.first() {
        Some(reject) => Err(reject.reason),
        None => {
            let index = contract.column("value").unwrap();
            let column = decoded.batch.column(index);
            assert_eq!(column.data_type(), &contract.columns[index].kind.stored_type());
            if column.is_null(0) {
                return Ok(NULL.to_owned());
            }
            Ok(array_value_to_string(column, 0).unwrap())
        }
    }
}

#[test]
fn json_values() {
    use Reason::{InvalidUtf8, NotFinite, OutOfRange, WrongType};
    let cases: &[(&str, &str, Expected)] = &[
        ("decimal(12, 2)", "12.5", Ok("12.50")),
        ("decimal(12, 2)", "-0", Ok("0.00")),
        ("decimal(12, 2)", "9999999999.99", Ok("9999999999.99")),
        ("decimal(12, 2)", "10000000000", Err(OutOfRange)),
        ("decimal(12, 2)", "0.005", Err(WrongType)),
        ("decimal(12, 2)", "1.5e3", Ok("1500.00")),
        ("decimal(12, 2)", "\"12.50\"", Ok("12.50")),
        ("decimal(12, 2)", "\"12,50\"", Err(WrongType)),
        ("decimal(12, 2)", "\"AcnDgA==\"", Err(WrongType)),
        ("decimal(12, 2)", "true", Err(WrongType)),
        ("decimal(12, 2)", "NaN", Err(NotFinite)),
        ("decimal(12, 2)", "null", Ok(NULL)),
        ("decimal(38, 10)", HIGH, Ok(HIGH)),
        // The nearest double of this number is 9007199254740992.
        ("decimal(38, 0)", "9007199254740993", Ok("9007199254740993")),
        ("decimal(38, 0)", "-99999999999999999999999999999999999999", Ok("-99999999999999999999999999999999999999")),
        ("decimal(38, 0)", "99999999999999999999999999999999999999.5", Err(WrongType)),
        ("uuid", "\"550e8400-e29b-41d4-a716-446655440000\"", Ok(UUID)),
        ("uuid", "\"550E8400-E29B-41D4-A716-446655440000\"", Ok(UUID)),
        ("uuid", "\"{550e8400e29b41d4a716446655440000}\"", Err(WrongType)),
        ("uuid", "\"550e8400e29b41d4a716446655440000\"", Ok(UUID)),
        ("uuid", "\"{550e8400-e29b-41d4-a716-446655440000}\"", Err(WrongType)),
        ("uuid", "\"urn:uuid:550e8400-e29b-41d4-a716-446655440000\"", Err(WrongType)),
        ("uuid", "\"550e8400-e29b-41d4-a716-44665544000\"", Err(WrongType)),
        ("uuid", "\"\"", Err(WrongType)),
        ("uuid", "7", Err(WrongType)),
        ("time", "\"23:59:59.999999\"", Ok("86399999999")),
        ("time", "\"00:00\"", Ok("0")),
        ("time", "\"24:00:00\"", Err(WrongType)),
        ("time", "\"12:00:00Z\"", Err(WrongType)),
        ("time", "43200000000", Err(WrongType)),
        ("json", "{\"b\": 1.50, \"a\": [ null ] }", Ok("{\"b\": 1.50, \"a\": [ null ] }")),
        ("json", "\"a\\u00e9\\\"\"", Ok("\"a\\u00e9\\\"\"")),
        ("json", "123456789012345678901234567890.10", Ok("123456789012345678901234567890.10")),
        ("json", "false", Ok("false")),
        ("json", "[]", Ok("[]")),
        ("json", "null", Ok(NULL)),
        ("json", "[NaN]", Err(NotFinite)),
        ("json", "Infinity", Err(NotFinite)),
        ("json", "{\"a\": \"\\ud800\"}", Err(InvalidUtf8)),
        ("list<text>", "[\"a\", null, \"\", \"\\u00e9\"]", Ok("[a, , , é]")),
        ("list<text>", "[]", Ok("[]")),
        ("list<text>", "null", Ok(NULL)),
        ("list<text>", "[\"a\", 1]", Err(WrongType)),
        ("list<text>", "\"a\"", Err(WrongType)),
        ("list<text>", "[[\"a\"]]", Err(WrongType)),
        ("list<text>", "[\"\\ud800\"]", Err(InvalidUtf8)),
        ("list<int32>", "[2147483647, -2147483648]", Ok("[2147483647, -2147483648]")),
        ("list<int32>", "[0, 2147483648]", Err(OutOfRange)),
        ("list<float64>", "[1.5, NaN]", Err(NotFinite)),
        ("list<bool>", "[true, false, null]", Ok("[true, false, ]")),
        ("list<decimal(4, 2)>", "[1, \"2.50\", -99.99]", Ok("[1.00, 2.50, -99.99]")),
        ("list<decimal(4, 2)>", "[100]", Err(OutOfRange)),
        ("list<uuid>", "[\"550E8400-E29B-41D4-A716-446655440000\"]", Ok("[550e8400-e29b-41d4-a716-446655440000]")),
        ("list<time>", "[\"00:00:01\", null]", Ok("[1000000, ]")),
        ("list<date>", "[\"2026-03-01\"]", Ok("[2026-03-01]")),
        (
            "list<timestamp>",
            "[1767225600, \"2026-01-01T01:00:00+01:00\"]",
            Ok("[2026-01-01T00:00:00Z, 2026-01-01T00:00:00Z]"),
        ),
        ("list<bytes>", "[\"AP8=\"]", Ok("[00ff]")),
    ];
    for (kind, value, expected) in cases {
        let contract = contract(kind);
        let body = format!(r#"{{"at":1767225600,"key":"k","value":{value}}}"#);
        let found = outcome(&contract, &json(&contract, &body, &acme()));
        assert_eq!(found, expected.map(str::to_owned), "{kind}: {value}");
    }
}

#[test]
fn lists_of_rejected_events_leave_no_elements() {
    let contract = contract("list<text>");
    let line = |key: &str, value: &str| format!("{{\"at\":1767225600,\"key\":\"{key}\",\"value\":{value}}}\n");
    let body = [
        line("a", "[\"1\", \"2\"]"),
        line("b", "[\"3\", 4]"),
        line("c", "null"),
        line("", "[\"5\"]"),
        line("d", "[\"6\", null]"),
        line("e", "[\"7\"], \"value\": [\"8\"]"),
        line("f", "[]"),
    ];
    let decoded = json(&contract, body.concat(), &acme());
    assert_eq!(reasons(&decoded), [(1, "wrong_type"), (3, "missing_id"), (5, "duplicate_key")]);
    let values = decoded.batch.column(contract.column("value").unwrap());
    let texts: Vec<_> = (0..4).map(|row| array_value_to_string(values, row).unwrap()).collect();
    assert_eq!(texts, ["[1, 2]", "", "[6, ]", "[]"]);
    assert!(values.is_null(1) && values.is_valid(3));
    let detail = &decoded.rejects[0].detail;
    assert_eq!(detail, "column `value` expects list<text>, got 4 as an element");
}

#[test]
fn protobuf_values() {
    use Reason::{InvalidUtf8, OutOfRange, WrongType};
    let message = |field: &str| {
        format!(
            "message E {{ string who = 1; int64 at = 2; string key = 3; {field} value = 4; }} enum Colour {{ RED = 0; BLUE = 1; }}"
        )
    };
    let packed = |values: &[u64]| bytes(4, values.iter().map(|value| *value as u8).collect::<Vec<_>>());
    let cases: Vec<(&str, &str, Vec<u8>, Expected)> = vec![
        ("string", "decimal(12, 2)", bytes(4, "12.5"), Ok("12.50")),
        ("string", "decimal(12, 2)", bytes(4, "12.505"), Err(WrongType)),
        ("string", "decimal(12, 2)", bytes(4, ""), Err(WrongType)),
        ("string", "decimal(12, 2)", Vec::new(), Ok(NULL)),
        ("uint64", "decimal(20, 0)", varint(4, u64::MAX), Ok("18446744073709551615")),
        ("uint64", "decimal(19, 0)", varint(4, u64::MAX), Err(OutOfRange)),
        ("int64", "decimal(4, 2)", varint(4, 99), Ok("99.00")),
        ("int64", "decimal(4, 2)", varint(4, 100), Err(OutOfRange)),
        ("int64", "decimal(4, 2)", Vec::new(), Ok("0.00")),
        ("string", "uuid", bytes(4, "550E8400-E29B-41D4-A716-446655440000"), Ok(UUID)),
        ("string", "uuid", bytes(4, "x"), Err(WrongType)),
        ("bytes", "uuid", bytes(4, uuid::Uuid::parse_str(UUID).unwrap().as_bytes()), Ok(UUID)),
        ("bytes", "uuid", bytes(4, "short"), Err(WrongType)),
        ("string", "time", bytes(4, "12:34:56.789"), Ok("45296789000")),
        ("string", "date", bytes(4, "2026-03-01"), Ok("2026-03-01")),
        ("string", "json", bytes(4, "{\"a\": [1]}"), Ok("{\"a\": [1]}")),
        ("bytes", "json", bytes(4, "[1"), Err(WrongType)),
        ("bytes", "json", bytes(4, [0xff]), Err(InvalidUtf8)),
        ("repeated string", "", [bytes(4, "a"), bytes(4, "")].concat(), Ok("[a, ]")),
        ("repeated string", "", bytes(4, [0xff]), Err(InvalidUtf8)),
        ("repeated string", "", Vec::new(), Ok("[]")),
        ("repeated string", "list<uuid>", bytes(4, UUID), Ok("[550e8400-e29b-41d4-a716-446655440000]")),
        ("repeated string", "list<decimal(3, 1)>", [bytes(4, "1"), bytes(4, "2.5")].concat(), Ok("[1.0, 2.5]")),
        ("repeated int32", "", packed(&[1, 2]), Ok("[1, 2]")),
        ("repeated int32", "", [varint(4, 1), packed(&[2, 3]), varint(4, u64::MAX)].concat(), Ok("[1, 2, 3, -1]")),
        ("repeated int32", "", bytes(4, [0x80]), Err(Reason::Malformed)),
        ("repeated bool", "", packed(&[1, 0]), Ok("[true, false]")),
        ("repeated Colour", "", packed(&[1, 0, 7]), Ok("[BLUE, RED, 7]")),
        ("repeated double", "", bytes(4, 1.5_f64.to_le_bytes()), Ok("[1.5]")),
        ("repeated double", "", bytes(4, f64::NAN.to_le_bytes()), Err(Reason::NotFinite)),
        ("repeated bytes", "", bytes(4, [0, 0xff]), Ok("[00ff]")),
    ];
    for (field, kind, value, expected) in cases {
        let contract = of_proto(&message(field), kind).unwrap();
        let body = delimited(&[bytes(3, "k"), varint(2, 1_767_225_600), value]);
        let found = outcome(&contract, &protobuf(&contract, body, &acme()));
        assert_eq!(found, expected.map(str::to_owned), "{field} as {kind}");
    }
}

#[test]
fn a_number_is_not_a_list_of_enum_values() {
    let proto = "message E { string who = 1; int64 at = 2; string key = 3; repeated Colour value = 4; } enum Colour { RED = 0; }";
    let contract = of_proto(proto, "").unwrap();
    for (value, expected) in
        [("[0, \"RED\", 7]", Ok("[RED, RED, 7]")), ("0", Err(Reason::WrongType)), ("\"RED\"", Err(Reason::WrongType))]
    {
        let body = format!(r#"{{"at":1767225600,"key":"k","value":{value}}}"#);
        let found = outcome(&contract, &json(&contract, &body, &acme()));
        assert_eq!(found, expected.map(str::to_owned), "{value}");
    }
}

#[test]
fn canonical_texts_are_those_of_stored_values() {
    for (kind, text, expected) in [
        ("decimal(12, 2)", "12.5", Some("12.50")),
        ("decimal(12, 2)", "-1e1", Some("-10.00")),
        ("decimal(12, 2)", "12.505", None),
        ("decimal(3, 2)", "10", None),
        ("uuid", "550E8400E29B41D4A716446655440000", Some(UUID)),
        ("uuid", "x", None),
        ("time", "01:02", Some("01:02:00.000000")),
        ("time", "23:59:59.9999999", Some("23:59:59.999999")),
        ("time", "24:00", None),
        ("text", "12.5", Some("12.5")),
        ("int64", "9007199254740993.0", Some("9007199254740993")),
        ("int64", "1e3", Some("1000")),
        ("int32", "1.5", None),
        ("int32", "three", None),
    ] {
        assert_eq!(ColumnKind::parse(kind).unwrap().canonical_text(text).as_deref(), expected, "{kind}: {text}");
    }
}

#[test]
fn types_that_lose_values_are_refused() {
    let message =
        |field: &str| format!("message E {{ string who = 1; int64 at = 2; string key = 3; {field} value = 4; }}");
    for (field, kind) in [
        ("double", "decimal(12, 2)"),
        ("float", "decimal(12, 2)"),
        ("bool", "text"),
        ("string", "int64"),
        ("string", "list<text>"),
        ("int64", "time"),
        ("int64", "int32"),
        ("bytes", "text"),
        ("repeated string", "text"),
        ("repeated double", "list<decimal(9, 2)>"),
    ] {
        let error = of_proto(&message(field), kind).unwrap_err();
        assert!(error.message().contains("without loss"), "{field} as {kind}: {error}");
    }
    let error = of_proto(&message("string"), "decimal").unwrap_err();
    assert!(error.message().contains("`types.value`: `decimal` needs a precision and a scale"), "{error}");
}

/// Returns the contract of a table whose column `value` has the declared type `kind`, or the one that follows from the
/// `.proto` file if `kind` is empty.
fn of_proto(proto: &str, kind: &str) -> crate::error::Result<Contract> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.proto"), format!("syntax = \"proto3\"; package t; {proto}")).unwrap();
    let types = Some(("value".to_owned(), kind.to_owned())).filter(|_| !kind.is_empty());
    let config = TableConfig {
        proto: Some("t.proto".into()),
        message: Some("t.E".into()),
        types: types.into_iter().collect(),
        tenant: "who".into(),
        time: "at".into(),
        time_unit: TimeUnit::Seconds,
        id: "key".into(),
        ..TableConfig::default()
    };
    Contract::new("t", &config, folder.path())
}

fn decimal_array(value: i128, precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).unwrap())
}

fn text_array(text: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![text]))
}

fn list_array(values: Vec<Option<i32>>) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(values)]))
}

/// Decodes each array, which has one value, for a column of the given kind.
fn check_arrays(cases: Vec<(&str, ArrayRef, Expected)>) {
    for (kind, value, expected) in cases {
        let contract = contract(kind);
        let given = value.data_type().clone();
        let found = outcome(&contract, &arrow_rows(&contract, &events(value), &acme()));
        assert_eq!(found, expected.map(str::to_owned), "{kind} from {given}");
    }
}

#[test]
fn arrow_values() {
    use Reason::{OutOfRange, WrongType};
    let wide = |value: i256, scale: i8| -> ArrayRef {
        Arc::new(Decimal256Array::from(vec![value]).with_precision_and_scale(76, scale).unwrap())
    };
    let uuid = uuid::Uuid::parse_str(UUID).unwrap();
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])], 2);
    let large = LargeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(7)])]);
    check_arrays(vec![
        ("decimal(12, 2)", decimal_array(1_250, 12, 2), Ok("12.50")),
        ("decimal(12, 2)", decimal_array(125_000, 30, 4), Ok("12.50")),
        ("decimal(12, 2)", decimal_array(125_001, 30, 4), Err(WrongType)),
        // Rounded to two digits after the point, this value would have too many digits before it.
        ("decimal(4, 2)", decimal_array(99_999, 5, 3), Err(WrongType)),
        ("decimal(4, 2)", decimal_array(100_001, 6, 3), Err(WrongType)),
        ("decimal(12, 2)", decimal_array(10_i128.pow(12), 38, 2), Err(OutOfRange)),
        // Arrow does not check that a value has at most the declared number of digits.
        ("decimal(3, 2)", decimal_array(1_000, 3, 2), Err(OutOfRange)),
        ("decimal(12, 2)", decimal_array(5, 5, -3), Ok("5000.00")),
        ("decimal(12, 2)", wide(i256::from_i128(1_250), 2), Ok("12.50")),
        ("decimal(38, 0)", wide(i256::MAX, 0), Err(OutOfRange)),
        ("decimal(20, 0)", Arc::new(UInt64Array::from(vec![u64::MAX])), Ok("18446744073709551615")),
        ("decimal(4, 2)", Arc::new(Int32Array::from(vec![-99])), Ok("-99.00")),
        ("decimal(4, 2)", text_array("1.5"), Ok("1.50")),
        ("uuid", text_array("550E8400-E29B-41D4-A716-446655440000"), Ok(UUID)),
        ("uuid", Arc::new(LargeStringArray::from(vec![UUID])), Ok(UUID)),
        ("uuid", text_array("x"), Err(WrongType)),
        ("uuid", Arc::new(FixedSizeBinaryArray::try_from_iter([uuid.as_bytes()].into_iter()).unwrap()), Ok(UUID)),
        ("uuid", Arc::new(BinaryArray::from(vec![b"short".as_slice()])), Err(WrongType)),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![86_399_999_999])), Ok("86399999999")),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![86_400_000_000])), Err(OutOfRange)),
        ("time", Arc::new(Time64NanosecondArray::from(vec![1_999])), Ok("1")),
        ("time", Arc::new(Time32SecondArray::from(vec![1])), Ok("1000000")),
        ("time", text_array("12:00"), Ok("43200000000")),
        ("json", text_array("{\"a\": 1.0}"), Ok("{\"a\": 1.0}")),
        ("json", Arc::new(StringViewArray::from(vec!["[]"])), Ok("[]")),
        ("json", text_array("{"), Err(WrongType)),
        ("list<int32>", list_array(vec![Some(1), None]), Ok("[1, ]")),
        ("list<int64>", list_array(vec![Some(1), None]), Ok("[1, ]")),
        ("list<int32>", Arc::new(fixed), Ok("[1, ]")),
        ("list<int32>", Arc::new(large), Ok("[7]")),
        ("list<decimal(3, 1)>", list_array(vec![Some(99)]), Ok("[99.0]")),
        ("list<decimal(3, 1)>", list_array(vec![Some(1), Some(100)]), Err(OutOfRange)),
    ]);
}

#[test]
fn dictionaries_of_decimals_and_times_keep_all_digits() {
    let dictionary = |values: ArrayRef| -> ArrayRef {
        Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0]), values))
    };
    check_arrays(vec![
        (
            "decimal(38, 0)",
            dictionary(decimal_array(10_i128.pow(38) - 1, 38, 0)),
            Ok("99999999999999999999999999999999999999"),
        ),
        ("decimal(12, 2)", dictionary(decimal_array(1_250, 12, 2)), Ok("12.50")),
        ("int64", dictionary(decimal_array(900_719_925_474_099_300, 20, 2)), Ok("9007199254740993")),
        ("time", dictionary(Arc::new(Time32SecondArray::from(vec![1]))), Ok("1000000")),
    ]);
}

#[test]
fn arrow_types_that_lose_values_are_refused() {
    let refused: Vec<(&str, ArrayRef)> = vec![
        ("decimal(12, 2)", Arc::new(Float64Array::from(vec![1.5]))),
        ("time", Arc::new(Int64Array::from(vec![0]))),
        ("uuid", Arc::new(Int64Array::from(vec![0]))),
        ("json", Arc::new(Int64Array::from(vec![0]))),
        ("list<int32>", text_array("[1]")),
        (
            "list<int32>",
            Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Date32Type, _, _>([Some([Some(1)])])),
        ),
        ("text", list_array(vec![Some(1)])),
    ];
    for (kind, value) in refused {
        let contract = contract(kind);
        let error = decode_arrow(&contract, &events(Arc::clone(&value)), 0, &acme()).unwrap_err();
        assert!(error.message().contains("cast it before sending"), "{kind} from {}: {error}", value.data_type());
    }
}

/// Returns a batch with one event per value.
fn events(values: ArrayRef) -> RecordBatch {
    let keys: StringArray = (0..values.len()).map(|row| Some(format!("k{row}"))).collect();
    let times = TimestampSecondArray::from(vec![1_767_225_600; values.len()]).with_timezone("UTC");
    RecordBatch::try_from_iter([
        ("at", Arc::new(times) as ArrayRef),
        ("key", Arc::new(keys) as ArrayRef),
        ("value", values),
    ])
    .unwrap()
}

#[test]
fn an_invalid_element_rejects_only_its_row() {
    let contract = contract("list<decimal(3, 0)>");
    // The first element is before the first list, and the elements of a null row are not part of it.
    let elements: ArrayRef = Arc::new(Int64Array::from(vec![5_000, 1, 2, 6_000, 3, 7_000, 8_000, 4]));
    let field = Arc::new(Field::new("item", DataType::Int64, true));
    let offsets = OffsetBuffer::new(vec![0, 1, 3, 4, 4, 5, 7, 8].into());
    let nulls = NullBuffer::from(vec![true, true, false, true, true, true, true]);
    let lists = ListArray::new(field, offsets, elements, Some(nulls));
    let decoded = arrow_rows(&contract, &events(Arc::new(lists.slice(1, 6))), &acme());
    assert_eq!(reasons(&decoded), [(4, "out_of_range")]);
    let values = decoded.batch.column(contract.column("value").unwrap());
    let texts: Vec<_> = (0..5).map(|row| array_value_to_string(values, row).unwrap()).collect();
    assert_eq!(texts, ["[1, 2]", "", "[]", "[3]", "[4]"]);
}

#[test]
fn a_uuid_can_be_the_id() {
    let mut config = plain_config("");
    config.columns.iter_mut().filter(|column| column.name == "key").for_each(|column| column.kind = "uuid".into());
    let contract = Contract::new("t", &config, Path::new("")).unwrap();
    assert_eq!(contract.columns[contract.id].kind, ColumnKind::Uuid);
    let body = r#"[{"at":1767225600,"key":"550E8400-E29B-41D4-A716-446655440000"},{"at":1767225600,"key":""},{"at":1767225600}]"#;
    let decoded = json(&contract, body, &acme());
    assert_eq!(reasons(&decoded), [(1, "wrong_type"), (2, "missing_id")]);
    assert_eq!(array_value_to_string(decoded.batch.column(contract.id), 0).unwrap(), UUID);
}
