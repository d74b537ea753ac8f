"""Checks messages of prepared statements: statement handles, and parameters as JDBC, ADBC and flightsql-dbapi bind them."""

import datetime

import pyarrow as pa
import pyarrow.flight as flight

import rows
from checks import check, equal, main, refused
from flightsql import Forbidden, Refused, client, packed


def parameter_types(one, sql):
    """Returns the parameter types of a statement."""
    return [field.type for field in one.prepare(sql).parameter_schema]


@check
def parameters_are_described(facts):
    one = client(facts)
    for sql, expected in (
        ("SELECT id FROM samples WHERE small = ?", [pa.int32()]),
        ("SELECT id FROM samples WHERE small = $1 AND label = $2", [pa.int32(), pa.string()]),
        ("SELECT id FROM samples WHERE ratio > ? AND big < ?", [pa.float64(), pa.int64()]),
        ("SELECT id FROM samples WHERE flag = ? AND day = ?", [pa.bool_(), pa.date32()]),
    ):
        equal(parameter_types(one, sql), expected, sql)
    equal(parameter_types(one, "SELECT id FROM samples WHERE at >= ?"), [pa.timestamp("us", "UTC")])
    for sql in ("SELECT ?", "SELECT coalesce(?, ?)", "SELECT id FROM samples WHERE ? IS NULL"):
        assert all(pa.types.is_null(each) for each in parameter_types(one, sql)), sql


@check
def bound_parameters_have_any_type(facts):
    one = client(facts, "globex")
    at = rows.START + datetime.timedelta(minutes=30)
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([30], pa.int64())])
    for condition, array in (
        ("small = ?", pa.array([30], pa.int8())),
        ("small = ?", pa.array([30], pa.int64())),
        ("small = ?", pa.array(["30"])),
        ("small = ?", union),
        ("day = ?", pa.array(["2024-01-31"])),
        ("id = ?", pa.array(["globex-00030"], pa.large_string())),
        ("at = ?", pa.array([at], pa.timestamp("ns", "UTC"))),
        ("at = ?", pa.array([at], pa.timestamp("ms"))),
        ("ratio = ?", pa.array([3.75], pa.float32())),
    ):
        prepared = one.prepare(f"SELECT id FROM samples WHERE {condition} AND id NOT LIKE '%-shared-%'")
        handles = prepared.bind(pa.record_batch([array], names=["0"]))
        equal(len(handles), 1, condition)
        if handles[0]:
            prepared.handle = handles[0]
        equal(prepared.run().column(0).to_pylist(), ["globex-00030"], (condition, array.type))


@check
def unbound_parameters_are_refused(facts):
    prepared = client(facts).prepare("SELECT id FROM samples WHERE small = ?")
    refused(prepared.run, Refused)
    refused(lambda: prepared.bind(pa.record_batch([pa.array(["thirty"])], names=["0"])) and prepared.run(), Refused)
    refused(lambda: prepared.bind(pa.record_batch([], names=[])) and prepared.run(), Refused)


@check
def the_old_handle_never_returns_wrong_rows(facts):
    """Some clients ignore the updated handle. The old handle must run with the new parameters, or return an error that names them."""
    prepared = client(facts).prepare("SELECT id FROM samples WHERE small = ?")
    prepared.bind(pa.record_batch([pa.array([5], pa.int32())], names=["0"]))
    try:
        equal(prepared.run().column(0).to_pylist(), ["acme-00005"])
    except Refused as error:
        assert "parameter" in str(error).lower(), error


@check
def several_parameter_rows_run_in_order(facts):
    prepared = client(facts).prepare("SELECT id FROM samples WHERE small = ?")
    (handle,) = prepared.bind(pa.record_batch([pa.array([2, 1, 2], pa.int32())], names=["0"]))
    prepared.handle = handle or prepared.handle
    equal(prepared.run().column(0).to_pylist(), ["acme-00002", "acme-00001", "acme-00002"])


@check
def the_schema_follows_the_bound_types(facts):
    one = client(facts)
    prepared = one.prepare("SELECT ? AS x, ? / 2 AS half")
    for x, half, types in (
        (pa.array([5]), pa.array([5.0]), [pa.int64(), pa.float64()]),
        (pa.array(["a"]), pa.array([5]), [pa.string(), pa.int64()]),
    ):
        (handle,) = prepared.bind(pa.record_batch([x, half], names=["0", "1"]))
        prepared.handle = handle or prepared.handle
        info = one.info(prepared.command())
        equal(info.schema.types, types)
        equal(one.schema(prepared.command()).types, types)
        equal(prepared.run().schema.types, types)


@check
def handles_outlive_their_connection(facts):
    prepared = client(facts).prepare("SELECT count(*) AS n FROM samples")
    prepared.client = client(facts)
    assert prepared.run().column("n")[0].as_py() >= rows.ROWS["acme"]
    prepared.client = client(facts, "globex")
    refused(prepared.run, Forbidden)


@check
def tampered_handles_are_refused(facts):
    prepared = client(facts).prepare("SELECT 1")
    good = prepared.handle
    for at in range(0, len(good), max(1, len(good) // 40)):
        bad = bytearray(good)
        bad[at] ^= 1
        prepared.handle = bytes(bad)
        refused(prepared.run, Refused)


@check
def closing_is_idempotent(facts):
    prepared = client(facts).prepare("SELECT 1")
    prepared.close()
    prepared.close()
    prepared.handle = b"nobody's"
    prepared.close()


@check
def statements_report_whether_they_are_updates(facts):
    one = client(facts)
    prepared = one.prepare("SELECT id FROM samples")
    equal(prepared.dataset_schema.names, ["id"])
    equal(prepared.is_update, [0])
    for sql in ("INSERT INTO samples VALUES (1)", "DELETE FROM samples", "CREATE TABLE t (a INT)", "SET x = 1"):
        def execute(sql=sql):
            update = one.prepare(sql)
            equal((update.is_update, update.dataset_schema), ([1], None), sql)
            descriptor = flight.FlightDescriptor.for_command(packed("CommandPreparedStatementUpdate", _1=update.handle))
            empty = pa.record_batch([], schema=pa.schema([]))
            writer, reader = one.connection.do_put(descriptor, empty.schema, one.options)
            with writer:
                writer.write_batch(empty)
                writer.done_writing()
                return reader.read()

        refused(execute, Forbidden)


@check
def updates_are_forbidden(facts):
    one = client(facts)
    descriptor = flight.FlightDescriptor.for_command(packed("CommandStatementUpdate", _1="DELETE FROM samples"))

    def put():
        writer, reader = one.connection.do_put(descriptor, pa.schema([]), one.options)
        with writer:
            writer.done_writing()
            return reader.read()

    refused(put, Forbidden)
    assert one.query("SELECT id FROM samples").num_rows >= rows.ROWS["acme"]


if __name__ == "__main__":
    main()
