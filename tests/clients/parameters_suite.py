"""Checks bound parameters over ADBC: binding a value has the same result as writing it as a literal."""

import datetime
import decimal

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager as manager
import pyarrow as pa

import rows
from checks import check, equal, main, refused

HEADER = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
STATUS = manager.AdbcStatusCode
MOMENT = datetime.datetime(2024, 1, 1, 12, 34, 56, tzinfo=datetime.timezone.utc)


def connect(facts, caller="globex"):
    """Connects with the caller's token in a header."""
    options = {HEADER: f"Bearer {facts['tokens'][caller]}"}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def bound(connection, sql, array):
    """Runs a statement with one column of bound values. Returns the first column of the result."""
    with connection.cursor() as cursor:
        cursor.execute(sql, pa.record_batch([array], names=["0"]))
        return cursor.fetch_arrow_table().column(0)


def literal(connection, sql):
    """Runs a statement without parameters. Returns the first column of the result."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().column(0)


def outcome(run, *arguments):
    """Returns the type and the values of a query, or None if the server refused it. The values are returned as text, because
    Python cannot represent some of them."""
    try:
        column = run(*arguments)
        return str(column.type), column.to_string()
    except dbapi.InternalError as error:
        raise AssertionError(f"{arguments}: {error}") from error
    except dbapi.Error:
        return None


def typed(text, kind):
    """Writes a literal of an Arrow type."""
    return f"arrow_cast({text}, '{kind}')"


def values():
    """Returns values of all types, each with its literal."""
    for kind, name in (
        (pa.int8(), "Int8"), (pa.int16(), "Int16"), (pa.int32(), "Int32"), (pa.int64(), "Int64"),
        (pa.uint8(), "UInt8"), (pa.uint16(), "UInt16"), (pa.uint32(), "UInt32"), (pa.uint64(), "UInt64"),
        (pa.float32(), "Float32"), (pa.float64(), "Float64"),
    ):  # fmt: skip
        yield pa.array([5], kind), typed("5", name)
        yield pa.array([None], kind), typed("NULL", name)
    yield pa.array([1_704_110_400]), "1704110400"
    yield pa.array([3_000_000_000]), "3000000000"
    yield pa.array([5.5]), "CAST(5.5 AS DOUBLE)"
    yield pa.array([0.1], pa.float32()), typed("0.1", "Float32")
    yield pa.array([0.1]), "CAST(0.1 AS DOUBLE)"
    yield pa.array([decimal.Decimal("5.25")], pa.decimal128(9, 2)), typed("'5.25'", "Decimal128(9, 2)")
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        yield pa.array(["abc"], kind), "'abc'"
    yield pa.array(["5"]), "'5'"
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        yield pa.array([b"\x01\x02"], kind), "X'0102'"
    yield pa.array([True]), "TRUE"
    yield pa.nulls(1), "NULL"
    yield pa.array([datetime.date(2024, 1, 31)]), "DATE '2024-01-31'"
    yield pa.array([datetime.time(12, 34, 56)], pa.time32("ms")), typed("'12:34:56'", "Time32(Millisecond)")
    yield pa.array([datetime.time(12, 34, 56)], pa.time64("us")), typed("'12:34:56'", "Time64(Microsecond)")
    for unit, name in (("s", "Second"), ("ms", "Millisecond"), ("us", "Microsecond"), ("ns", "Nanosecond")):
        naive = MOMENT.replace(tzinfo=None)
        yield pa.array([naive], pa.timestamp(unit)), typed("'2024-01-01T12:34:56'", f"Timestamp({name}, None)")
        for zone in ("UTC", "+02:00"):
            yield pa.array([MOMENT], pa.timestamp(unit, zone)), typed("'2024-01-01T12:34:56Z'", f'Timestamp({name}, Some("{zone}"))')
        yield pa.array([7], pa.duration(unit)), typed("7", f"Duration({name})")
    yield pa.array([pa.MonthDayNano((0, 0, 3_600_000_000_000))], pa.month_day_nano_interval()), "INTERVAL '1 hour'"
    yield pa.array([[1, 2]], pa.list_(pa.int64())), "make_array(1, 2)"
    yield pa.array([{"a": 1}], pa.struct([("a", pa.int64())])), "named_struct('a', 1)"


EXPRESSIONS = (
    "SELECT {} AS x",
    "SELECT -{} AS x",
    "SELECT {} / 2 AS x",
    "SELECT {} + 1 AS x",
    "SELECT max({}) AS x",
    "SELECT coalesce(NULL, {}) AS x",
    "SELECT upper({}) AS x",
    "SELECT substr({}, 1, 2) AS x",
    "SELECT {} || 'x' AS x",
    "SELECT abs({}) AS x",
    "SELECT round({}) AS x",
    "SELECT CAST({} AS TIMESTAMP) AS x",
    "SELECT CAST({} AS BIGINT) AS x",
    "SELECT CAST({} AS DATE) AS x",
    "SELECT CAST({} AS VARCHAR) AS x",
    "SELECT {} IS NULL AS x",
    "SELECT small + {} AS x FROM samples WHERE id = 'globex-00005'",
    "SELECT sum(small) / {} AS x FROM samples WHERE id = 'globex-00005'",
    "SELECT at - {} AS x FROM samples WHERE id = 'globex-00005'",
    "SELECT count(*) AS x FROM samples WHERE small > {}",
    "SELECT count(*) AS x FROM samples WHERE small IN (1, {})",
    "SELECT count(*) AS x FROM samples WHERE big < {}",
    "SELECT count(*) AS x FROM samples WHERE ratio32 = {}",
    "SELECT count(*) AS x FROM samples WHERE ratio < {}",
    "SELECT count(*) AS x FROM samples WHERE label = {}",
    "SELECT count(*) AS x FROM samples WHERE flag = {}",
    "SELECT count(*) AS x FROM samples WHERE at > {}",
    "SELECT count(*) AS x FROM samples WHERE day = {}",
)


@check
def every_type_in_every_expression_equals_the_literal(facts):
    different, equals = [], 0
    with connect(facts) as connection:
        for expression in EXPRESSIONS:
            for array, text in values():
                expected = outcome(literal, connection, expression.replace("{}", text))
                found = outcome(bound, connection, expression.replace("{}", "?"), array)
                if found != expected:
                    different.append((expression, str(array.type), text, expected, found))
                equals += found is not None and found == expected
    assert not different, f"{len(different)} differ: {different[:20]}"
    return f"{equals} equal values"


@check
def a_bound_value_keeps_its_type(facts):
    hour = pa.array([pa.MonthDayNano((0, 0, 3_600_000_000_000))], pa.month_day_nano_interval())
    five = "FROM (SELECT arrow_cast(5, 'Int32') AS i32)"
    tenth = "FROM (SELECT arrow_cast(0.1, 'Float32') AS f32)"
    count = "SELECT count(*) FROM samples WHERE id LIKE 'globex-0%'"
    utc = datetime.timezone.utc
    noon = pa.array([datetime.datetime(2024, 1, 1, 12, tzinfo=utc)], pa.timestamp("us", "+02:00"))
    with connect(facts) as connection:
        for sql, array, expected in (
            ("SELECT $1 / 2", pa.array([5.0]), 2.5),
            ("SELECT $1 / 2", pa.array([5.5]), 2.75),
            (f"SELECT i32 / $1 {five}", pa.array([2.0]), 2.5),
            (f"SELECT sum(i32) / $1 {five}", pa.array([2.0]), 2.5),
            (f"SELECT i32 + $1 {five}", pa.array([2_147_483_647]), 2_147_483_652),
            ("SELECT CAST($1 AS TIMESTAMP)", pa.array([1_704_110_400]), datetime.datetime(2024, 1, 1, 12)),
            (f"SELECT count(*) {tenth} WHERE f32 = $1", pa.array([0.1]), 0),
            ("SELECT $1", pa.array([5]), 5),
            ("SELECT -$1", pa.array([5]), -5),
            ("SELECT max($1)", pa.array([1.5]), 1.5),
            ("SELECT coalesce(NULL, $1)", pa.array([True]), True),
            ("SELECT $1", pa.array([b"\x00\xff"]), b"\x00\xff"),
            ("SELECT $1", pa.array([{"a": 1}]), {"a": 1}),
            ("SELECT $1", pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [("k", 1)]),
            ("SELECT upper($1)", pa.array(["a"]), "A"),
            ("SELECT lower($1)", pa.array(["A"]), "a"),
            ("SELECT trim($1)", pa.array([" a "]), "a"),
            ("SELECT substr($1, 2)", pa.array(["abc"]), "bc"),
            ("SELECT split_part($1, '-', 2)", pa.array(["a-b"]), "b"),
            ("SELECT abs($1)", pa.array([-5]), 5),
            (f"SELECT count(*) {five} WHERE i32 > $1", pa.array([5.5]), 0),
            (f"SELECT count(*) {five} WHERE i32 < $1", pa.array([3_000_000_000]), 1),
            ("SELECT CAST($1 AS DATE)", pa.array([MOMENT], pa.timestamp("us", "UTC")), datetime.date(2024, 1, 1)),
            ("SELECT CAST($1 AS TIMESTAMP)", noon, datetime.datetime(2024, 1, 1, 12)),
            (f"{count} AND at - $1 < at", hour, rows.ROWS["globex"]),
            (f"{count} AND at < now() - $1", hour, rows.ROWS["globex"]),
        ):
            equal(bound(connection, sql, array).to_pylist(), [expected], (sql, str(array)))
        error = refused(lambda: bound(connection, "SELECT count(*) FROM samples WHERE at > $1", pa.array([1])), dbapi.Error)
        equal(error.status_code, STATUS.INVALID_ARGUMENT, error)


@check
def a_statement_runs_for_each_row_of_parameters(facts):
    with connect(facts) as connection:
        sql = "SELECT id FROM samples WHERE small = $1 AND id LIKE 'globex-0%'"
        found = bound(connection, sql, pa.array([7, None, 999_999, 5, 7]))
        equal(found.to_pylist(), ["globex-00007", "globex-00005", "globex-00007"])
        found = bound(connection, "SELECT $1 * 2", pa.array([1.5, 2.5, 3.5]))
        equal((found.type, found.to_pylist()), (pa.float64(), [3.0, 5.0, 7.0]))


@check
def parameter_types_are_exact_or_unknown(facts):
    with connect(facts) as connection, connection.cursor() as cursor:
        for sql, kind in (
            ("SELECT $1", pa.null()),
            ("SELECT coalesce(NULL, $1)", pa.null()),
            ("SELECT id FROM samples WHERE at > $1", pa.timestamp("us", "UTC")),
            ("SELECT at - $1 FROM samples", pa.null()),
            ("SELECT id FROM samples WHERE small = $1", pa.int32()),
        ):
            equal([field.type for field in cursor.adbc_prepare(sql)], [kind], sql)


@check
def an_append_with_another_schema_is_refused(facts):
    at = pa.array([rows.START + datetime.timedelta(days=500)], pa.timestamp("us", "UTC"))
    with connect(facts, "acme") as connection, connection.cursor() as cursor:
        for name, column in (("small", pa.array(["one"])), ("label", pa.array([1]))):
            data = pa.table({"id": ["acme-mismatch"], "at": at, name: column})
            error = refused(lambda data=data: cursor.adbc_ingest("samples", data, mode="append"), dbapi.Error)
            equal(error.status_code, STATUS.ALREADY_EXISTS, (name, error))
        found = literal(connection, "SELECT count(*) FROM samples WHERE id = 'acme-mismatch'")
        equal(found.to_pylist(), [0])


@check
def arrow_values_are_stored_exactly_or_rejected(facts):
    at = pa.array([datetime.datetime(2025, 6, 1, tzinfo=datetime.timezone.utc)] * 3, pa.timestamp("us", "UTC"))
    day = datetime.date(1969, 12, 31)
    with connect(facts, "acme") as connection, connection.cursor() as cursor:
        for turn, (name, column, stored) in enumerate((
            ("big", pa.array([decimal.Decimal(1), decimal.Decimal(10**20), None], pa.decimal128(30, 0)), [1, None]),
            ("big", pa.array([decimal.Decimal("9007199254740993.00"), decimal.Decimal("1.50"), None]), [9_007_199_254_740_993, None]),
            ("day", pa.array([-86_400_000, 1, None], pa.date64()), [day, None]),
        )):  # fmt: skip
            data = pa.table({"id": [f"acme-exact-{turn}-{index}" for index in range(3)], "at": at, name: column})
            equal(cursor.adbc_ingest("samples", data, mode="append"), 2, (turn, name))
            found = literal(connection, f"SELECT {name} FROM samples WHERE id LIKE 'acme-exact-{turn}-%' ORDER BY id")
            equal(found.to_pylist(), stored, (turn, name))


if __name__ == "__main__":
    main()
