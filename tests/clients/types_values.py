"""Values of decimals, UUIDs, times of day, JSON and lists: how each format sends a value, and what every reader must return.

`VALUES` contains values that are stored, and `REJECTS` contains values for which the event is rejected. Both are plain data. If
a format is None in a row, it cannot send the value, or another row has the same value.
"""

import datetime
import decimal
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

D = decimal.Decimal
UTC = datetime.timezone.utc
REF = "550e8400-e29b-41d4-a716-446655440000"
OTHER_REF = "00000000-0000-0000-0000-0000000000ff"
NINES = "9" * 38
TINY = "0." + "0" * 37 + "1"
LAST = datetime.time(23, 59, 59, 999999)
DOC = '{"b" : 1.50,\t"a":[ null, "\\u00e9\\"", 1e400 ], "b": -0}'


class Value(NamedTuple):
    column: str
    # The value that a query returns. A JSON text, a UUID and a time are a str, a str and a datetime.time.
    expected: object
    json: str | None = None
    proto: object = None
    arrow: tuple = ()


class Reject(NamedTuple):
    column: str
    reason: str
    json: str | None = None
    proto: object = None
    arrow: pa.Array | None = None


def one(value, kind):
    """Returns an array with one value."""
    return pa.array([value], kind)


def uuid_array(text):
    """Returns a UUID as an array of the extension type."""
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(text).bytes], pa.binary(16)))


def micros(hour, minute=0, second=0, micro=0):
    """Returns a time of day in microseconds, for Arrow types that Python's times do not cover."""
    return ((hour * 60 + minute) * 60 + second) * 1_000_000 + micro


VALUES = [
    Value("amount", D("12.50"), "12.5", "12.5", (
        one(D("12.50"), pa.decimal128(12, 2)), one(D("12.5"), pa.decimal32(6, 1)), one(D("12.50"), pa.decimal64(12, 2)),
        one(D("12.5000"), pa.decimal256(60, 4)), one(D("12.50"), pa.decimal128(12, 2)).dictionary_encode(),
        one("12.50", pa.string()), one("1.25e1", pa.large_string()), one("12.5", pa.string()).dictionary_encode(),
    )),
    Value("amount", D("0.00"), "-0.00", "-0.000", (one(D("0"), pa.decimal128(38, 0)), one(0, pa.int8()))),
    Value("amount", D("9999999999.99"), "9999999999.99", "9999999999.990", (one(D("9999999999.99"), pa.decimal256(76, 2)),)),
    Value("amount", D("-9999999999.99"), '"-9999999999.99"', "-999999999999E-2", (one("-9999999999.99", pa.string_view()),)),
    Value("amount", D("1500.00"), "1.5e3", "1.5E+3", (one(1500, pa.uint16()), one(1500, pa.int64()))),
    Value("amount", D("0.10"), "0.1000000000000000000000000000000000000000000000", "0.1"),
    Value("amount", None, "null", None, (one(None, pa.decimal128(12, 2)), one(None, pa.decimal256(60, 4)), pa.nulls(1))),
    Value("huge", D(NINES), NINES, NINES, (one(D(NINES), pa.decimal128(38, 0)), one(D(NINES), pa.decimal256(76, 0)))),
    Value("huge", D("-" + NINES), f'"-{NINES}"', f"-{NINES}", (one(D("-" + NINES), pa.decimal128(38, 0)),)),
    # The nearest double is 9007199254740992.
    Value("huge", D("9007199254740993"), "9007199254740993", "9007199254740993.0", (one(9007199254740993, pa.int64()),)),
    Value("huge", D(2**64 - 1), "18446744073709551615", str(2**64 - 1), (one(2**64 - 1, pa.uint64()),)),
    Value("tiny", D(TINY), TINY, "1e-38", (one(D(TINY), pa.decimal128(38, 38)), one(D(TINY), pa.decimal256(76, 38)))),
    Value("tiny", D("-0." + NINES), "-0." + NINES, "-0." + NINES, (one(D("-0." + NINES), pa.decimal128(38, 38)),)),
    Value("count", D(2**64 - 1), "18446744073709551615", 2**64 - 1, (one(2**64 - 1, pa.uint64()),)),
    Value("count", D(0), "0", 0, (one(0, pa.int32()),)),
    Value("ref", REF, f'"{REF}"', REF, (one(REF, pa.string()), uuid_array(REF), one(uuid.UUID(REF).bytes, pa.binary(16)))),
    Value("ref", REF, f'"{REF.upper()}"', REF.upper(), (one(REF.upper(), pa.large_string()),)),
    Value("ref", REF, f'"{REF.replace("-", "")}"', REF.replace("-", ""), (
        one(REF.replace("-", ""), pa.string_view()), one(uuid.UUID(REF).bytes, pa.binary()),
        one(REF.upper(), pa.string()).dictionary_encode(), one(uuid.UUID(REF).bytes, pa.binary(16)).dictionary_encode(),
    )),
    Value("ref", OTHER_REF, f'"{OTHER_REF}"', OTHER_REF, (uuid_array(OTHER_REF),)),
    Value("ref", None, "null", None, (pa.nulls(1), pa.nulls(1, pa.uuid()))),
    Value("ref_bytes", REF, f'"{REF}"', uuid.UUID(REF).bytes),
    Value("clock", datetime.time(0), '"00:00"', "00:00:00", (one(datetime.time(0), pa.time64("us")), one(0, pa.time32("s")))),
    Value("clock", LAST, '"23:59:59.999999"', "23:59:59.9999999", (
        one(LAST, pa.time64("us")), one(micros(23, 59, 59, 999999) * 1_000 + 999, pa.time64("ns")), one("23:59:59.999999", pa.string()),
    )),
    Value("clock", datetime.time(12, 34, 56, 789000), '"12:34:56.789"', "12:34:56.789", (
        one(datetime.time(12, 34, 56, 789000), pa.time32("ms")), one(datetime.time(12, 34, 56, 789000), pa.time64("ns")),
        one(datetime.time(12, 34, 56, 789000), pa.time32("ms")).dictionary_encode(),
    )),
    Value("clock", None, "null", None, (one(None, pa.time64("us")), one(None, pa.time32("s")))),
    Value("doc", DOC, DOC, DOC, (one(DOC, pa.string()), pa.ExtensionArray.from_storage(pa.json_(), one(DOC, pa.string())))),
    Value("doc", '"text"', '"text"', '"text"', (one('"text"', pa.large_string()),)),
    Value("doc", "123456789012345678901234567890.10", "123456789012345678901234567890.10", "123456789012345678901234567890.10"),
    Value("doc", "false", "false", "false", (one("false", pa.string()).dictionary_encode(),)),
    # In a JSON body, null is NULL. As a text, it is a JSON value.
    Value("doc", None, "null", None, (one(None, pa.string()),)),
    Value("doc", "null", None, "null", (one("null", pa.string()),)),
    Value("doc", " [ ] ", None, " [ ] ", (one(" [ ] ", pa.string()),)),
    Value("names", ["a", None, "", "東京"], '["a", null, "", "\\u6771京"]', None, (
        one(["a", None, "", "東京"], pa.list_(pa.string())), one(["a", None, "", "東京"], pa.large_list(pa.large_string())),
        one(["a", None, "", "東京"], pa.list_(pa.string(), 4)),
        one(["a", None, "", "東京"], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    )),
    Value("names", ["x"], '["x"]', ["x"], (one(["x"], pa.list_(pa.string_view())),)),
    Value("names", [], "[]", [], (one([], pa.list_(pa.string())), one([], pa.large_list(pa.string())), one([], pa.list_(pa.null())))),
    Value("names", [None], "[null]", None, (one([None], pa.list_(pa.null())),)),
    Value("names", None, "null", None, (one(None, pa.list_(pa.string())), one(None, pa.list_(pa.string(), 4)), pa.nulls(1))),
    Value("numbers", [2**63 - 1, -(2**63), 0], f"[{2**63 - 1}, {-(2**63)}, 0]", [2**63 - 1, -(2**63), 0], (
        one([2**63 - 1, -(2**63), 0], pa.list_(pa.int64())),
    )),
    Value("numbers", [1, None, 3], "[1, null, 3.0]", None, (one([1, None, 3], pa.list_(pa.int8())), one([1, None, 3], pa.list_(pa.uint64())))),
    Value("flags", [True, False], "[true,false]", [True, False], (one([True, False], pa.list_(pa.bool_())),)),
    Value("prices", [D("1.000"), D("2.500"), D("-999999.999")], '[1, "2.5", -999999.999]', ["1", "2.5", "-999999.999"], (
        one([D("1"), D("2.5"), D("-999999.999")], pa.list_(pa.decimal128(9, 3))),
        one([D("1"), D("2.5"), D("-999999.999")], pa.large_list(pa.decimal256(40, 5))),
    )),
    Value("prices", [None, D("7.000")], "[null, 7]", None, (one([None, 7], pa.list_(pa.int32())),)),
    Value("refs", [REF, OTHER_REF], f'["{REF.upper()}", "{OTHER_REF}"]', [REF.upper(), OTHER_REF], (
        one([REF.upper(), OTHER_REF], pa.list_(pa.string())),
        one([uuid.UUID(REF).bytes, uuid.UUID(OTHER_REF).bytes], pa.list_(pa.binary(16))),
    )),
    Value("clocks", [datetime.time(0, 0, 1), LAST], '["00:00:01", "23:59:59.999999"]', ["00:00:01", "23:59:59.999999"], (
        one([datetime.time(0, 0, 1), LAST], pa.list_(pa.time64("us"))),
    )),
    Value("clocks", [None, datetime.time(9)], '[null, "09:00"]', None, (one([None, datetime.time(9)], pa.list_(pa.time32("s"))),)),
    Value("days", [datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)], '["0001-01-01", null, "9999-12-31"]', None, (
        one([datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)], pa.list_(pa.date32())),
    )),
    Value("moments", [datetime.datetime(2026, 1, 1, tzinfo=UTC), None], '["2026-01-01T01:00:00+01:00", null]', None, (
        one([datetime.datetime(2026, 1, 1, tzinfo=UTC), None], pa.list_(pa.timestamp("ms", "UTC"))),
    )),
    Value("blobs", [b"\x00\xff", b""], '["AP8=", ""]', [b"\x00\xff", b""], (one([b"\x00\xff", b""], pa.list_(pa.binary())),)),
    Value("ratios", [0.1, -0.0, 1.7976931348623157e308], "[0.1, -0.0, 1.7976931348623157e308]", [0.1, -0.0, 1.7976931348623157e308], (
        one([0.1, -0.0, 1.7976931348623157e308], pa.list_(pa.float64())),
    )),
    # An empty text is not a number, so an absent proto3 string is null.
    Value("implied", None, None, None),
]  # fmt: skip

REJECTS = [
    Reject("amount", "wrong_type", "0.005", "0.005", one(D("0.005"), pa.decimal128(12, 3))),
    # Rounded to two digits, the value would have too many digits before the point.
    Reject("amount", "wrong_type", "9999999999.995", "9999999999.995", one(D("9999999999.995"), pa.decimal128(13, 3))),
    Reject("amount", "out_of_range", "10000000000", "10000000000", one(D("10000000000.00"), pa.decimal128(20, 2))),
    Reject("amount", "out_of_range", "-1e10", "-1e10", one(10_000_000_000, pa.int64())),
    Reject("amount", "wrong_type", '"12,50"', "12,50", one("12,50", pa.string())),
    Reject("amount", "wrong_type", '""', "", one("", pa.string())),
    Reject("amount", "wrong_type", '" 1"', " 1", one("+1", pa.string())),
    Reject("amount", "wrong_type", "true", "0x10", one("NaN", pa.string())),
    Reject("amount", "not_finite", "NaN"),
    Reject("huge", "out_of_range", "1" + "0" * 38, "1" + "0" * 38, one(D("1" + "0" * 38), pa.decimal256(76, 0))),
    Reject("huge", "wrong_type", "0.5", "0.5", one(D("0.5"), pa.decimal128(38, 1))),
    Reject("huge", "out_of_range", "1e99999999999999999999", "1e99999999999999999999", one("1e99", pa.string())),
    Reject("tiny", "out_of_range", "1", "1.0", one(1, pa.int32())),
    Reject("tiny", "wrong_type", "1e-39", "1e-39", one(D("1e-39"), pa.decimal256(76, 39))),
    Reject("count", "out_of_range", "100000000000000000000"),
    Reject("ref", "wrong_type", '"550e8400-e29b-41d4-a716-44665544000"', "x", one("x", pa.string())),
    Reject("ref", "wrong_type", '"{550e8400-e29b-41d4-a716-446655440000}"', "{550e8400-e29b-41d4-a716-446655440000}", one(b"short", pa.binary())),
    Reject("ref", "wrong_type", '"urn:uuid:550e8400-e29b-41d4-a716-446655440000"', "", one("", pa.string())),
    Reject("ref", "wrong_type", "7", "550e8400e29b-41d4-a716-446655440000"),
    Reject("ref_bytes", "wrong_type", None, b"short"),
    Reject("clock", "wrong_type", '"24:00"', "24:00", one("24:00", pa.string())),
    Reject("clock", "wrong_type", '"12:34:56Z"', "12:34:56+02:00", one("12:34:56Z", pa.string())),
    Reject("clock", "wrong_type", "43200000000", "23:59:60", one("noon", pa.string())),
    Reject("clock", "wrong_type", '"1:02"', "12:34:"),
    Reject("clock", "out_of_range", None, None, pa.array([micros(24)]).view(pa.time64("us"))),
    Reject("doc", "wrong_type", None, "{", one("{", pa.string())),
    Reject("doc", "wrong_type", None, "", one("", pa.string())),
    Reject("doc", "not_finite", "[NaN]"),
    Reject("doc", "wrong_type", None, "[NaN]", one("[NaN]", pa.string())),
    Reject("doc", "invalid_utf8", '"\\ud800"'),
    Reject("names", "wrong_type", '["a", 1]'),
    Reject("names", "wrong_type", '"a"'),
    Reject("names", "wrong_type", '[["a"]]'),
    Reject("names", "wrong_type", '{"0": "a"}'),
    Reject("numbers", "out_of_range", "[1, 9223372036854775808]", None, one([1, 2**63], pa.list_(pa.uint64()))),
    Reject("numbers", "wrong_type", "[1.5]", None, one([1.5], pa.list_(pa.float64()))),
    Reject("flags", "wrong_type", "[0]"),
    Reject("prices", "out_of_range", "[1, 1000000]", ["1", "1000000"], one([1, 1_000_000], pa.list_(pa.int64()))),
    Reject("prices", "wrong_type", "[0.0001]", ["0.0001"], one([D("0.0001")], pa.list_(pa.decimal128(9, 4)))),
    Reject("refs", "wrong_type", f'["{REF}", "x"]', [REF, "x"], one([REF, "x"], pa.list_(pa.string()))),
    Reject("clocks", "wrong_type", '["00:00", "24:00"]', ["00:00", "24:00"], one(["00:00", "24:00"], pa.list_(pa.string()))),
    Reject("days", "wrong_type", '["2026-02-29"]'),
    Reject("blobs", "wrong_type", '["?"]'),
    Reject("ratios", "not_finite", "[1, Infinity]", [1.0, float("inf")], one([float("nan")], pa.list_(pa.float64()))),
]  # fmt: skip

# Arrow columns whose type cannot be stored in the column, so the whole request fails.
REFUSED_ARROW = [
    ("amount", one(1.5, pa.float64())), ("amount", one(1.5, pa.float32())), ("amount", one(True, pa.bool_())),
    ("clock", one(0, pa.int64())), ("ref", one(7, pa.int64())), ("doc", one(7, pa.int64())), ("doc", one(b"{}", pa.binary())),
    ("names", one("[]", pa.string())), ("numbers", one(["1"], pa.list_(pa.string()))), ("names", one([["a"]], pa.list_(pa.list_(pa.string())))),
    ("prices", one([1.5], pa.list_(pa.float64()))), ("doc", one([1], pa.list_(pa.int64()))),
]  # fmt: skip


def message_class(packed=True):
    """Returns the class of the message in types.proto. Without `packed`, each element of a list is a field of its own."""
    text = (Path(__file__).parent / "types.proto").read_text(encoding="utf-8")
    file = descriptor_pb2.FileDescriptorProto(name="types.proto", package="tests", syntax="proto3")
    message = file.message_type.add(name="Kinds")
    kinds = descriptor_pb2.FieldDescriptorProto
    for label, kind, name, number in re.findall(r"^  (optional |repeated )?(\w+) (\w+) = (\d+);$", text, re.MULTILINE):
        field = message.field.add(name=name, number=int(number), type=getattr(kinds, f"TYPE_{kind.upper()}"))
        field.label = kinds.LABEL_REPEATED if label == "repeated " else kinds.LABEL_OPTIONAL
        if label == "optional ":
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
        if label == "repeated " and not packed and kind not in ("string", "bytes"):
            field.options.packed = False
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tests.Kinds"))
