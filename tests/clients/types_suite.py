"""Sends decimals, UUIDs, times of day, JSON and lists in every format, and reads them with every client and lake reader.

`types_values.py` lists the values. The checks run in order: the first ones store rows, and the last ones compare what all readers
return with what was sent.
"""

import collections
import datetime
import json
import urllib.error

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager as manager
import deltalake
import duckdb
import polars
import pyarrow as pa
from google.protobuf.internal.encoder import _VarintBytes

import rows
from checks import check, equal, main, refused
from types_values import REFUSED_ARROW, REJECTS, UTC, VALUES, message_class

HEADER = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
STATUS = manager.AdbcStatusCode
AT = 1_772_366_400
MOMENT = datetime.datetime.fromtimestamp(AT, UTC)

# What was sent: for each table, the column and the expected value of each id.
sent = collections.defaultdict(dict)
# The rejected events: for each table, the number of entries with these bytes and this reason. Arrow has no bytes of its own.
quarantined = collections.defaultdict(collections.Counter)
# The rejected rows of Arrow batches: for each table, the number of entries by id and reason.
quarantined_arrow = collections.defaultdict(collections.Counter)


def connect(facts, caller="acme"):
    """Connects with the caller's token in a header."""
    options = {HEADER: f"Bearer {facts['tokens'][caller]}"}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def event(name, column, text):
    """Returns an event as JSON, in which the column has exactly this text."""
    return f'{{"id": "{name}", "at": {AT}, "{column}": {text}}}'.encode()


def expect(table, name, value):
    """Records that a value must be stored."""
    sent[table][name] = (value.column, value.expected)


def expect_reject(table, bytes, reject):
    """Records that the event with these bytes must be rejected."""
    quarantined[table][(bytes, reject.reason)] += 1


def store(facts, table, body, accepted, reasons=(), content_type="application/json"):
    """Sends a body and compares its receipt: the number of accepted events, and the reasons by index."""
    receipt = rows.post(facts, table, facts["tokens"]["acme"], body, content_type)
    found = {reject["index"]: reject["reason"] for reject in receipt["rejects"]}
    expected = dict(reasons)
    equal(found, expected, f"{table}: rejects of {body[:300]!r}: {receipt}")
    equal((receipt["accepted"], receipt["duplicate"], receipt["rejected"]), (accepted, 0, len(expected)), receipt)


def json_values(table):
    """Returns the values that JSON can send to a table."""
    own = {
        "kinds": lambda column: column not in ("ref_bytes", "implied"),
        "messages": lambda column: column not in ("days", "moments"),
    }
    return [value for value in VALUES if value.json is not None and own[table](value.column)]


@check
def json_objects_are_stored(facts):
    for table in ("kinds", "messages"):
        for index, value in enumerate(json_values(table)):
            expect(table, f"object-{index}", value)
            store(facts, table, event(f"object-{index}", value.column, value.json), 1)
    return len(sent["kinds"])


@check
def json_arrays_and_lines_are_stored(facts):
    for table in ("kinds", "messages"):
        for name, begin, between, end in (("array", b"[", b" ,\n", b"]"), ("lines", b"", b"\n", b"\n")):
            events = []
            for index, value in enumerate(json_values(table)):
                expect(table, f"{name}-{index}", value)
                events.append(event(f"{name}-{index}", value.column, value.json))
            store(facts, table, begin + between.join(events) + end, len(events))


@check
def absent_values_are_null(facts):
    store(facts, "kinds", f'{{"id": "absent", "at": {AT}}}'.encode(), 1)
    with connect(facts) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM kinds WHERE id = 'absent'")
        (row,) = cursor.fetch_arrow_table().to_pylist()
    given = {"tenant", "at", "id", "received_time", "event_date"}
    equal({name: value for name, value in row.items() if name not in given and value is not None}, {})
    assert set(row) >= given | {value.column for value in json_values("kinds")}, row.keys()


def delimited(messages):
    """Prefixes each message with its length."""
    return b"".join(_VarintBytes(len(message)) + message for message in messages)


@check
def protobuf_values_are_stored(facts):
    for packed in (True, False):
        kind, messages = message_class(packed), []
        for index, value in enumerate(VALUES):
            if value.column in kind.DESCRIPTOR.fields_by_name and (value.proto is not None or value.expected is None):
                name = f"{'packed' if packed else 'unpacked'}-{index}"
                fields = {} if value.proto is None else {value.column: value.proto}
                # An absent list is empty in protobuf.
                is_list = value.column in ("names", "numbers", "flags", "prices", "refs", "clocks", "ratios", "blobs")
                expect("messages", name, value._replace(expected=[]) if is_list and value.proto is None else value)
                messages.append(kind(id=name, at=AT, **fields).SerializeToString())
        assert len(messages) > 30, len(messages)
        store(facts, "messages", delimited(messages), len(messages), (), "application/x-protobuf")


def ingest(facts, table, data):
    """Ingests a table over ADBC and returns the number of rows that the driver reports."""
    with connect(facts) as connection, connection.cursor() as cursor:
        return cursor.adbc_ingest(table, data, mode="append")


def arrow_rows(names, column, values):
    """Returns a table with one row per id."""
    at = pa.array([MOMENT] * len(names), pa.timestamp("us", "UTC"))
    return pa.table({"id": pa.array(names), "at": at, column: values})


@check
def arrow_values_are_stored(facts):
    count = 0
    for index, value in enumerate(VALUES):
        for turn, array in enumerate(value.arrow):
            name = f"arrow-{index}-{turn}"
            expect("kinds", name, value)
            equal(ingest(facts, "kinds", arrow_rows([name], value.column, array)), 1, (value.column, str(array.type)))
            count += 1
    return f"{count} arrays"


@check
def an_arrow_batch_with_all_columns_is_stored(facts):
    """What a query returned can be ingested again under other ids."""
    with connect(facts) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM kinds WHERE id LIKE 'object-%' ORDER BY id")
        data = cursor.fetch_arrow_table()
    names = [f"again-{name}" for name in data.column("id").to_pylist()]
    for name in names:
        sent["kinds"][name] = sent["kinds"][name.removeprefix("again-")]
    data = data.set_column(data.schema.get_field_index("id"), "id", pa.array(names))
    equal(ingest(facts, "kinds", data), len(names))


@check
def malformed_json_is_quarantined(facts):
    """Of a body with valid and invalid events, exactly the invalid ones are rejected, with their bytes."""
    cases = [reject for reject in REJECTS if reject.json is not None]
    for table in ("kinds", "messages"):
        own = [reject for reject in cases if table == "kinds" or reject.column != "days"]
        for name, begin, between, end in (("array", b"[", b",", b"]"), ("lines", b"", b"\n", b"")):
            events, reasons = [], {}
            for index, reject in enumerate(own):
                bad = event(f"bad-{name}-{index}", reject.column, reject.json)
                expect_reject(table, bad, reject)
                reasons[len(events)] = reject.reason
                events += [bad, event(f"good-{name}-{index}", "amount", "1")]
                sent[table][f"good-{name}-{index}"] = ("amount", 1)
            store(facts, table, begin + between.join(events) + end, len(own), reasons)
    for index, reject in enumerate(cases):
        bad = event(f"bad-object-{index}", reject.column, reject.json)
        expect_reject("kinds", bad, reject)
        store(facts, "kinds", bad, 0, {0: reject.reason})
    return f"{len(cases)} values"


@check
def malformed_protobuf_is_quarantined(facts):
    kind = message_class()
    messages, reasons = [], {}
    for index, reject in enumerate(reject for reject in REJECTS if reject.proto is not None):
        bad = kind(id=f"bad-proto-{index}", at=AT, **{reject.column: reject.proto}).SerializeToString()
        expect_reject("messages", bad, reject)
        reasons[len(messages)] = reject.reason
        messages += [bad, kind(id=f"good-proto-{index}", at=AT, amount="1").SerializeToString()]
        sent["messages"][f"good-proto-{index}"] = ("amount", 1)
    # A string that is not valid UTF-8 in a field that is no text.
    bad = kind(id="bad-utf8", at=AT).SerializeToString() + b"\x42\x01\xff"
    reasons[len(messages)] = "invalid_utf8"
    quarantined["messages"][(bad, "invalid_utf8")] += 1
    store(facts, "messages", delimited([*messages, bad]), len(messages) // 2, reasons, "application/x-protobuf")
    return f"{len(reasons)} values"


@check
def malformed_arrow_is_quarantined(facts):
    count = 0
    for index, reject in enumerate(REJECTS):
        if reject.arrow is None:
            continue
        names = [f"arrow-good-{index}", f"arrow-bad-{index}"]
        values = pa.concat_arrays([pa.nulls(1, reject.arrow.type), reject.arrow])
        equal(ingest(facts, "kinds", arrow_rows(names, reject.column, values)), 1, reject)
        sent["kinds"][names[0]] = (reject.column, None)
        quarantined_arrow["kinds"][(names[1], reject.reason)] += 1
        count += 1
    return f"{count} values"


@check
def arrow_types_that_lose_values_are_refused(facts):
    for column, array in REFUSED_ARROW:
        data = arrow_rows(["refused"], column, array)
        error = refused(lambda data=data: ingest(facts, "kinds", data), dbapi.Error, column)
        equal(error.status_code, STATUS.ALREADY_EXISTS, (column, str(array.type), error))


@check
def bodies_that_are_unreadable_are_refused(facts):
    for body, content_type in ((b"\x05", "application/x-protobuf"), (b"nonsense", "application/vnd.apache.arrow.stream")):
        try:
            receipt = rows.post(facts, "kinds", facts["tokens"]["acme"], body, content_type)
        except urllib.error.HTTPError as error:
            equal(error.code, 400, (content_type, error))
        else:
            raise AssertionError(f"{content_type}: {receipt}")


@check
def the_quarantine_keeps_the_bytes(facts):
    for table in ("kinds", "messages"):
        lake = deltalake.DeltaTable(f"{facts['lake']}/{table}_quarantine")
        entries = lake.to_pyarrow_table(columns=["payload", "format", "reason", "tenant"]).to_pylist()
        equal({entry["tenant"] for entry in entries}, {"acme"})
        arrow = [entry for entry in entries if b'"id":"arrow-bad-' in entry["payload"]]
        equal(
            collections.Counter((json.loads(entry["payload"])["id"], entry["reason"]) for entry in arrow),
            quarantined_arrow[table],
        )
        others = [entry for entry in entries if entry not in arrow]
        equal(collections.Counter((entry["payload"], entry["reason"]) for entry in others), quarantined[table], table)
        with connect(facts) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table}_quarantine")
            equal(cursor.fetchone()[0], len(entries), f"{table}: entries over SQL")


def compare(table, found, reader, convert=lambda column, value: value):
    """Compares the rows that a reader returned with those that were sent. `convert` maps an expected value to the reader's type."""
    found = {row["id"]: row for row in found if row["id"] != "absent"}
    equal(set(found), set(sent[table]), f"{reader}: ids of {table}")
    wrong = []
    for name, (column, expected) in sent[table].items():
        expected, value = convert(column, expected), found[name][column]
        # The representation must be equal, too: 1.50 and 1.5 are equal decimals, and -0.0 equals 0.0.
        if value != expected or (column == "ratios" and repr(value) != repr(expected)):
            wrong.append((name, column, value, expected))
    assert not wrong, f"{reader}: {table}: {len(wrong)} of {len(found)} differ: {wrong[:5]}"
    return len(found)


def stored(column, value):
    """Returns a value as it is in data files: a time of day is the number of microseconds since midnight."""
    if isinstance(value, list):
        return [stored(column, element) for element in value]
    if isinstance(value, datetime.time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return value


@check
def queries_return_what_was_sent(facts):
    counts = []
    with connect(facts) as connection, connection.cursor() as cursor:
        for table in ("kinds", "messages"):
            cursor.execute(f"SELECT * FROM {table}")
            found = cursor.fetch_arrow_table()
            counts.append(compare(table, found.to_pylist(), "ADBC"))
            # The schema and the values are those of a row-wise read, too.
            cursor.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            compare(table, [dict(zip(names, row, strict=True)) for row in cursor.fetchall()], "DB-API")
        cursor.execute("SELECT * FROM kinds LIMIT 0")
        schema = cursor.fetch_arrow_table().schema
    expected = {
        "amount": pa.decimal128(12, 2), "huge": pa.decimal128(38, 0), "tiny": pa.decimal128(38, 38), "clock": pa.time64("us"),
        "ref": pa.string(), "names": pa.string(), "prices": pa.decimal128(9, 3), "clocks": pa.time64("us"), "refs": pa.string(),
    }  # fmt: skip
    of = {name: schema.field(name).type for name in expected}
    equal({name: kind.value_type if pa.types.is_list(kind) else kind for name, kind in of.items()}, expected)
    return f"{counts} rows"


@check
def delta_rs_reads_the_same_values(facts):
    for table in ("kinds", "messages"):
        found = deltalake.DeltaTable(f"{facts['lake']}/{table}").to_pyarrow_table().to_pylist()
        compare(table, found, "delta-rs", stored)


@check
def duckdb_reads_the_same_values(facts):
    for table in ("kinds", "messages"):
        files = [uri.removeprefix("file://") for uri in deltalake.DeltaTable(f"{facts['lake']}/{table}").file_uris()]
        found = duckdb.sql(f"SELECT * FROM read_parquet({files})").to_arrow_table().to_pylist()
        compare(table, found, "DuckDB", stored)


@check
def polars_reads_the_same_values(facts):
    for table in ("kinds", "messages"):
        uri = f"{facts['lake']}/{table}"
        compare(table, polars.read_delta(uri).to_dicts(), "Polars", stored)
        lazy = polars.scan_delta(uri).filter(polars.col("amount") == 1).select("id").collect()
        expected = sorted(name for name, (column, value) in sent[table].items() if column == "amount" and value == 1)
        equal(sorted(lazy["id"].to_list()), expected, f"Polars: {table} with a filter")


if __name__ == "__main__":
    main()
