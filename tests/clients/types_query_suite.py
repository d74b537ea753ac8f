"""Queries over decimals, UUIDs, times of day and lists: dimensions, metrics, filters, joins, parameters, keys, ids and row rules.

Python computes the expected results from the rows that the suite sends. The last check sends the rows that the JDBC checks read.
"""

import datetime
import decimal
import itertools
import json
import uuid

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import pyarrow as pa

import rows
from checks import check, equal, main, refused
from types_values import LAST, NINES, REF, UTC, D

HEADER = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
ROWS = 480
START = datetime.datetime(2026, 3, 1, tzinfo=UTC)
NIL = "00000000-0000-0000-0000-000000000000"


def connect(facts, caller="acme"):
    """Connects with the caller's token in a header."""
    options = {HEADER: f"Bearer {facts['tokens'][caller]}"}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def query(connection, sql, parameters=None):
    """Runs a query and returns its rows as tuples."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def clock(index):
    """Returns one of 24 times of day, of which some differ only in a microsecond."""
    return (datetime.datetime.min + datetime.timedelta(hours=index % 12, microseconds=index % 2)).time()


def many(index):
    """Returns row `index` of the table `many`. Every ninth row has no values."""
    row = {"id": f"m{index:04}", "at": START + datetime.timedelta(hours=index)}
    empty = {"amount": None, "wide": None, "ref": None, "clock": None, "names": None}
    if index % 9 == 4:
        return row | empty
    return row | {
        "amount": D(index * 7919 % 2_000 - 1_000) / 10_000,
        "wide": D((index * 104_729 % 997 - 500) * 10**24) + D(index % 13) / 10**10,
        "ref": str(uuid.uuid5(uuid.UUID(NIL), str(index % 40))),
        "clock": LAST if index % 50 == 7 else clock(index),
        "names": [None, "a", "b", ""][: index % 5],
    }


MANY = [many(index) for index in range(ROWS)]
DIMENSIONS = ("amount", "wide", "ref", "clock", "names")


def shown(value):
    """Writes a value for JSON. Decimals are strings, so that no digit is lost."""
    return value.isoformat() if isinstance(value, datetime.datetime | datetime.time) else str(value)


def post(facts, table, found):
    """Sends rows as NDJSON, which must all be accepted."""
    body = "\n".join(json.dumps(row, default=shown) for row in found).encode()
    receipt = rows.post(facts, table, facts["tokens"]["acme"], body)
    equal((receipt["accepted"], receipt["rejected"]), (len(found), 0), receipt)


@check
def rows_are_loaded(facts):
    # Several requests, so that the rows are in several files.
    for at in range(0, ROWS, 60):
        post(facts, "many", MANY[at : at + 60])
    with connect(facts) as connection:
        found = query(connection, "SELECT id, amount, wide, ref, clock, names FROM many ORDER BY id")
    equal(found, [(row["id"], *(row[name] for name in DIMENSIONS)) for row in MANY])


def key(value):
    """Returns a value that can be the key of a dictionary."""
    return tuple(value) if isinstance(value, list) else value


def average(values, like):
    """Returns the average, rounded half away from zero to the digits of `like`."""
    with decimal.localcontext(prec=100):
        return (sum(values) / len(values)).quantize(like, rounding=decimal.ROUND_HALF_UP)


@check
def dimensions_and_metrics_are_exact(facts):
    with connect(facts) as connection, decimal.localcontext(prec=100):
        for dimension, metric in itertools.product((*DIMENSIONS, None), ("amount", "wide")):
            groups = {}
            for row in MANY:
                group = groups.setdefault(key(row[dimension]) if dimension else None, [])
                group.append(row[metric])
            by = f"GROUP BY {dimension}" if dimension else ""
            metrics = f"sum({metric}), min({metric}), max({metric}), avg({metric})"
            sql = f"SELECT {dimension or 'NULL'}, count(*), count({metric}), {metrics} FROM many {by}"
            found = query(connection, sql)
            equal(len(found), len(groups), sql)
            for of, count, valid, total, least, greatest, mean in found:
                values = [value for value in groups[key(of)] if value is not None]
                equal((count, valid), (len(groups[key(of)]), len(values)), (sql, of))
                expected = (sum(values), min(values), max(values)) if values else (None, None, None)
                equal((total, least, greatest), expected, (sql, of))
                equal(mean, average(values, mean) if values else None, (sql, of))
                assert mean is None or -mean.as_tuple().exponent >= 10, (sql, mean)


@check
def a_sum_beyond_38_digits_is_never_wrong(facts):
    post(
        facts,
        "many",
        [{"id": f"z{index}", "at": START + datetime.timedelta(days=40), "wide": "9" * 28 + ".9999999999"} for index in range(3)],
    )
    with connect(facts) as connection:
        equal(query(connection, "SELECT max(wide), count(*) FROM many WHERE id LIKE 'z%'"), [(D("9" * 28 + "." + "9" * 10), 3)])
        for sql in ("SELECT sum(wide) FROM many WHERE id LIKE 'z%'", "SELECT wide + wide FROM many WHERE id = 'z0'"):
            try:
                found = query(connection, sql)
            except dbapi.Error:
                continue
            expected = D("9" * 28 + "." + "9" * 10)
            with decimal.localcontext(prec=100):
                equal([row[0] for row in found], [expected * (3 if "sum" in sql else 2)], sql)


def same(row, name, test):
    """Returns true if the row has a value that passes the test."""
    return row[name] is not None and test(row[name])


@check
def filters_find_the_same_rows(facts):
    amounts = sorted({row["amount"] for row in MANY if row["amount"] is not None})
    wides = sorted({row["wide"] for row in MANY if row["wide"] is not None})
    refs = sorted({row["ref"] for row in MANY if row["ref"] is not None})
    low, high, wide = amounts[100], amounts[300], wides[150]
    some = refs[3:9:2]
    early, late = datetime.time(3, 0, 0, 1), datetime.time(7)
    cases = [
        (f"amount = {low}", lambda row: same(row, "amount", lambda value: value == low)),
        (f"amount <> {low}", lambda row: same(row, "amount", lambda value: value != low)),
        (f"amount = {low}0001", lambda row: False),
        (f"amount < {low}00001", lambda row: same(row, "amount", lambda value: value < D(f"{low}00001"))),
        (f"amount > {low} AND amount <= {high}", lambda row: same(row, "amount", lambda value: low < value <= high)),
        (f"amount BETWEEN {low} AND {high}", lambda row: same(row, "amount", lambda value: low <= value <= high)),
        (f"amount IN ({low}, {high}, 7)", lambda row: same(row, "amount", lambda value: value in (low, high))),
        (f"amount NOT IN ({low}, {high})", lambda row: same(row, "amount", lambda value: value not in (low, high))),
        ("amount < 0", lambda row: same(row, "amount", lambda value: value < 0)),
        ("amount >= 0.05", lambda row: same(row, "amount", lambda value: value >= D("0.05"))),
        (f"amount = '{low}'", lambda row: same(row, "amount", lambda value: value == low)),
        ("amount IS NULL", lambda row: row["amount"] is None),
        (f"wide = {wide}", lambda row: same(row, "wide", lambda value: value == wide)),
        (f"wide >= {wide}", lambda row: same(row, "wide", lambda value: value >= wide)),
        (f"wide IN ({wide}, {wides[0]}, {wides[-1]})", lambda row: same(row, "wide", lambda value: value in (wide, wides[0], wides[-1]))),
        (f"ref = '{some[0]}'", lambda row: row["ref"] == some[0]),
        (f"ref = '{some[0].upper()}'", lambda row: row["ref"] == some[0]),
        (f"ref IN ('{some[0].upper()}', '{some[1].replace('-', '')}')", lambda row: row["ref"] in some[:2]),
        (f"ref <> '{some[0]}'", lambda row: same(row, "ref", lambda value: value != some[0])),
        (f"ref IN ('{some[0]}', '{some[1]}', '{some[2]}', '{NIL}')", lambda row: row["ref"] in some),
        (f"ref > '{some[0]}' AND ref < '{some[2]}'", lambda row: same(row, "ref", lambda value: some[0] < value < some[2])),
        ("ref IS NOT NULL", lambda row: row["ref"] is not None),
        (f"clock = TIME '{LAST}'", lambda row: row["clock"] == LAST),
        (f"clock = '{LAST}'", lambda row: row["clock"] == LAST),
        (f"clock >= TIME '{early}'", lambda row: same(row, "clock", lambda value: value >= early)),
        (f"clock < '{early}'", lambda row: same(row, "clock", lambda value: value < early)),
        (f"clock BETWEEN '{early}' AND '{late}'", lambda row: same(row, "clock", lambda value: early <= value <= late)),
        (f"clock IN (TIME '{early}', TIME '{late}')", lambda row: row["clock"] in (early, late)),
        (f"clock > TIME '{LAST}'", lambda row: False),
        ("names = ['a']", lambda row: False),
        ("names = []", lambda row: row["names"] == []),
        ("array_has(names, 'b')", lambda row: same(row, "names", lambda value: "b" in value)),
        ("cardinality(names) = 4", lambda row: same(row, "names", lambda value: len(value) == 4)),
        ("names[2] = 'a'", lambda row: same(row, "names", lambda value: value[1:2] == ["a"])),
        (f"amount < {low} OR clock > '{late}' AND ref < '{some[0]}'", lambda row: same(row, "amount", lambda value: value < low)
         or same(row, "clock", lambda value: value > late) and same(row, "ref", lambda value: value < some[0])),
    ]  # fmt: skip
    with connect(facts) as connection:
        for condition, test in cases:
            found = query(connection, f"SELECT id FROM many WHERE id LIKE 'm%' AND ({condition}) ORDER BY id")
            equal([name for (name,) in found], [row["id"] for row in MANY if test(row)], condition)
    return f"{len(cases)} filters"


@check
def order_distinct_and_joins(facts):
    with connect(facts) as connection:
        for name in ("amount", "wide", "ref", "clock"):
            values = [row[name] for row in MANY if row[name] is not None]
            nulls = [None] * (ROWS - len(values))
            for order, expected in (
                ("ASC NULLS LAST", sorted(values) + nulls),
                ("DESC NULLS LAST", sorted(values, reverse=True) + nulls),
                ("ASC NULLS FIRST", nulls + sorted(values)),
            ):
                found = query(connection, f"SELECT {name} FROM many WHERE id LIKE 'm%' ORDER BY {name} {order}")
                equal([value for (value,) in found], expected, (name, order))
            found = query(
                connection, f"SELECT DISTINCT {name} FROM many WHERE id LIKE 'm%' AND {name} IS NOT NULL ORDER BY 1 LIMIT 20"
            )
            equal([value for (value,) in found], sorted(set(values))[:20], f"DISTINCT {name}")
            join = f"many a JOIN many b ON a.{name} = b.{name} WHERE a.id LIKE 'm%' AND b.id LIKE 'm%'"
            found = query(connection, f"SELECT count(*), count(DISTINCT a.{name}) FROM {join}")
            equal(found, [(sum(values.count(value) ** 2 for value in set(values)), len(set(values)))], f"join on {name}")
        lists = {tuple(row["names"]) if row["names"] is not None else None for row in MANY}
        found = query(connection, "SELECT DISTINCT names FROM many WHERE id LIKE 'm%'")
        equal({key(value) for (value,) in found}, lists)


def matching(name, value):
    """Returns the ids of the rows that have this value."""
    return [row["id"] for row in MANY if row[name] == value]


@check
def parameters_of_each_type(facts):
    row = MANY[30]
    low = D("0.0100")
    with connect(facts) as connection:
        for condition, values, expected in (
            ("amount = ?", [row["amount"]], matching("amount", row["amount"])),
            ("amount = ?", [row["amount"].quantize(D("0.00000001"))], matching("amount", row["amount"])),
            ("amount = ?", [row["amount"] + D("0.00001")], []),
            ("amount < ?", [low], [each["id"] for each in MANY if same(each, "amount", lambda value: value < low)]),
            ("wide = ?", [row["wide"]], matching("wide", row["wide"])),
            ("wide IN (?, ?)", [row["wide"], D(1)], matching("wide", row["wide"])),
            ("amount = ?", [None], []),
            ("ref = ?", [row["ref"]], matching("ref", row["ref"])),
            ("ref = ?", [row["ref"].upper()], matching("ref", row["ref"])),
            ("ref IN (?, ?)", [row["ref"], NIL], matching("ref", row["ref"])),
            ("clock = ?", [row["clock"]], matching("clock", row["clock"])),
            ("clock = ?", [LAST], matching("clock", LAST)),
            ("clock = ?", [str(LAST)], matching("clock", LAST)),
            ("clock > ?", [datetime.time(11)], [each["id"] for each in MANY if same(each, "clock", lambda value: value > datetime.time(11))]),
            ("array_has(names, ?)", ["b"], [each["id"] for each in MANY if same(each, "names", lambda value: "b" in value)]),
        ):  # fmt: skip
            found = query(connection, f"SELECT id FROM many WHERE id LIKE 'm%' AND {condition} ORDER BY id", values)
            equal([name for (name,) in found], expected, (condition, values))
        bound = pa.record_batch([pa.array([row["names"]], pa.list_(pa.string()))], names=["0"])
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM many WHERE id LIKE 'm%' AND names = $1", bound)
            equal(cursor.fetchone(), (len(matching("names", row["names"])),))
        for kind in (pa.decimal128(20, 4), pa.decimal256(50, 6), pa.decimal32(9, 4), pa.decimal64(18, 4)):
            batch = pa.record_batch([pa.array([row["amount"]], kind)], names=["0"])
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM many WHERE amount = $1", batch)
                equal(cursor.fetchone(), (len(matching("amount", row["amount"])),), kind)
        for kind in (pa.time64("us"), pa.time64("ns")):
            batch = pa.record_batch([pa.array([LAST], kind)], names=["0"])
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM many WHERE clock = $1", batch)
                equal(cursor.fetchone(), (len(matching("clock", LAST)),), kind)
        echo = query(connection, "SELECT ?, ?, ?", [D("-0.050"), LAST, REF])
        equal(echo, [(D("-0.050"), LAST, REF)])


def change(number, version, ref=REF, amount="1.50", at="12:00", **more):
    """Returns an event of the table `states`."""
    return {
        "change": str(uuid.UUID(int=number)),
        "at": START,
        "amount": amount,
        "ref": ref,
        "clock": at,
        "version": version,
        **more,
    }


@check
def keys_of_each_type_identify_a_row(facts):
    # Different texts of the same key: the scale, the case and the fraction of a second differ.
    post(facts, "states", [
        change(1, 1), change(2, 3, ref=REF.upper(), amount="1.5", at="12:00:00.000"), change(3, 2, amount="15e-1"),
        change(4, 1, amount="1.51"), change(5, 1, at="12:00:00.000001"), change(6, 1, ref=NIL), change(7, 5, ref=None), change(8, 4, ref=None),
    ])  # fmt: skip
    expected = {
        (D("1.50"), REF, datetime.time(12), 3), (D("1.51"), REF, datetime.time(12), 1), (D("1.50"), REF, datetime.time(12, 0, 0, 1), 1),
        (D("1.50"), NIL, datetime.time(12), 1), (D("1.50"), None, datetime.time(12), 5),
    }  # fmt: skip
    with connect(facts) as connection:
        equal(set(query(connection, "SELECT amount, ref, clock, version FROM states")), expected)
        equal(query(connection, "SELECT count(*) FROM states_changes"), [(8,)])
        equal(query(connection, f"SELECT version FROM states WHERE ref = '{REF}' AND amount = 1.5 AND clock = '12:00'"), [(3,)])
        equal(query(connection, "SELECT version FROM states WHERE amount > 1.505"), [(1,)])
        equal(query(connection, "SELECT count(*) FROM states WHERE clock = TIME '12:00:00.000001'"), [(1,)])


@check
def the_same_uuid_in_another_form_is_a_duplicate(facts):
    text = str(uuid.UUID(int=0xABCDEF))
    first = {"change": text, "at": START.isoformat(), "amount": "1.50", "ref": REF, "clock": "12:00", "version": 9}
    for turn, form in enumerate((text, text.upper(), text.replace("-", ""), text)):
        body = json.dumps(first | {"change": form, "ref": form if turn == 3 else REF}).encode()
        receipt = rows.post(facts, "states", facts["tokens"]["acme"], body)
        counts = receipt["accepted"], receipt["duplicate"], receipt["conflict"], receipt["rejected"]
        equal(counts, (1, 0, 0, 0) if turn == 0 else (0, 1, int(turn == 3), 0), form)
    at = pa.array([START], pa.timestamp("us", "UTC"))
    data = pa.table({
        "change": pa.array([uuid.UUID(int=0xABCDEF).bytes], pa.binary(16)), "at": at, "amount": [D("1.50")],
        "ref": [REF.upper()], "clock": [datetime.time(12)], "version": [9],
    })  # fmt: skip
    with connect(facts) as connection:
        with connection.cursor() as cursor:
            cursor.adbc_ingest("states", data, mode="append")
        equal(query(connection, f"SELECT change, version FROM states_changes WHERE change = '{text}'"), [(text, 9)])


@check
def row_rules_compare_values_and_not_texts(facts):
    post(facts, "ruled", [
        {"id": "a", "at": START, "ref": REF, "amount": "12.50"}, {"id": "b", "at": START, "ref": NIL, "amount": "12.51"},
        {"id": "c", "at": START, "ref": None, "amount": None}, {"id": "d", "at": START, "ref": REF, "amount": "7"},
    ])  # fmt: skip
    for caller, expected in (
        ("acme", "abcd"), ("with_ref", "ad"), ("with_amount", "a"), ("with_amounts", "ad"), ("with_fraction", ""), ("with_no_ref", ""),
    ):  # fmt: skip
        with connect(facts, caller) as connection:
            found = query(connection, "SELECT id FROM ruled ORDER BY id")
            equal("".join(name for (name,) in found), expected, caller)


@check
def jdbc_rows_are_loaded(facts):
    """The JDBC checks read these rows of `kinds`."""
    full = {
        "amount": "-1234567890.12", "huge": NINES, "tiny": "-0." + NINES, "ref": REF.upper(), "clock": "23:59:59.999999",
        "doc": {"a": [1, None]}, "names": ["a", None, "東京"], "numbers": [2**63 - 1, None], "prices": ["1.5", None],
        "refs": [REF], "clocks": ["01:02:03.456789"],
    }  # fmt: skip
    post(
        facts,
        "kinds",
        [
            {"id": "jdbc-full", "at": START, **full},
            {"id": "jdbc-null", "at": START},
            {"id": "jdbc-empty", "at": START, "names": []},
        ],
    )


@check
def a_wrong_literal_is_an_error(facts):
    with connect(facts) as connection:
        for condition in ("amount = 'x'", "clock = 'noon'", "ref = 'x'"):
            refused(lambda condition=condition: query(connection, f"SELECT id FROM many WHERE {condition}"), dbapi.Error)


if __name__ == "__main__":
    main()
