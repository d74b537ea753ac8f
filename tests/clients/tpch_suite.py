"""Compares the 22 queries of TPC-H with DuckDB, as two tenants with different orders.

`tpch_suite.py facts.json` generates the data at the scale `facts["scale"]`, loads it with bulk ingest, and runs the queries in
`tpch/`. These have the standard's text and its validation parameters. Orders with even keys and their line items belong to one
tenant, and those with odd keys to the other. Both tenants have all rows of the other tables. DuckDB has one schema for each
tenant, with the standard's types.

The server stores the standard's decimals as doubles. Each query therefore runs twice: over the stored doubles, and over views of
the tables in which the doubles are cast to the standard's type DECIMAL(15, 2). All results are compared exactly, including their
order, with two exceptions: numbers computed from doubles, and averages and quotients, which are doubles in DuckDB. These may
differ by a factor of 1 ± 1e-9. At the scales 0.01 and 0.1, no query has two rows that are equal in its ORDER BY.

Q6 needs exact numeric literals, and Q15 needs sums that do not depend on the number of partitions.
"""

import datetime
import decimal
import functools
import itertools
import math
import pathlib
import subprocess
import sys
import tempfile
import time

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from checks import check, equal, main

FOLDER = pathlib.Path(__file__).resolve().parent / "tpch"
QUERIES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("q*.sql"))}
HEADER = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
# The columns of each table's primary key, from which the ids of its rows are made.
KEYS = {
    "region": ["r_regionkey"],
    "nation": ["n_nationkey"],
    "supplier": ["s_suppkey"],
    "customer": ["c_custkey"],
    "part": ["p_partkey"],
    "partsupp": ["ps_partkey", "ps_suppkey"],
    "orders": ["o_orderkey"],
    "lineitem": ["l_orderkey", "l_linenumber"],
}
# The tables that are split between the tenants by the parity of the order key.
SPLIT = ("orders", "lineitem")
TENANTS = {"acme": 0, "globex": 1}
# The rows are loaded on several days, so that each table consists of several files.
DAYS = [datetime.datetime(2025, 1, day, tzinfo=datetime.timezone.utc) for day in (1, 2, 3)]
# The number of rows in one request.
BATCH_ROWS = 50_000


@functools.cache
def generated(scale):
    """Generates the data and returns the tables."""
    with tempfile.TemporaryDirectory() as folder:
        command = [pathlib.Path(sys.executable).with_name("tpchgen-cli"), "parquet", "-s", str(scale), "--output-dir", folder]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        return {name: with_plain_text(pq.read_table(f"{folder}/{name}.parquet")) for name in KEYS}


def with_plain_text(table):
    """Converts string views, which Arrow's functions do not support, to strings."""
    fields = [(field.name, pa.string() if pa.types.is_string_view(field.type) else field.type) for field in table.schema]
    return table.cast(pa.schema(fields))


def rows_of(table, name, tenant):
    """Returns the rows of a table that belong to a tenant."""
    if name not in SPLIT:
        return table
    return table.filter(pc.equal(pc.bit_wise_and(table.column(KEYS[name][0]), 1), TENANTS[tenant]))


def is_decimal(field):
    return pa.types.is_decimal(field.type)


def stored(table, name, tenant):
    """Returns a tenant's rows with the columns of the declared table."""
    table = rows_of(table, name, tenant)
    columns = {"tenant": pa.repeat(tenant, table.num_rows)}
    columns["loaded"] = pa.array([DAYS[index % len(DAYS)] for index in range(table.num_rows)], pa.timestamp("us", "UTC"))
    columns["row_id"] = pc.binary_join_element_wise(*(pc.cast(table.column(key), pa.string()) for key in KEYS[name]), "-")
    for field in table.schema:
        column = table.column(field.name)
        columns[field.name] = pc.cast(column, pa.float64()) if is_decimal(field) else column
    return pa.table(columns)


@functools.cache
def oracle(scale):
    """Returns a DuckDB connection with one schema for each tenant."""
    connection = duckdb.connect()
    for tenant in TENANTS:
        connection.execute(f"CREATE SCHEMA {tenant}")
        for name, table in generated(scale).items():
            connection.register("source", rows_of(table, name, tenant))
            connection.execute(f"CREATE TABLE {tenant}.{name} AS SELECT * FROM source")
            connection.unregister("source")
    return connection


@functools.cache
def expected(scale, tenant, query):
    """Returns DuckDB's rows for a query, and the seconds that it took."""
    connection = oracle(scale)
    connection.execute(f"SET schema = '{tenant}'")
    started = time.monotonic()
    return connection.execute(QUERIES[query]).fetchall(), time.monotonic() - started


def connect(facts, caller):
    """Connects with the caller's token."""
    options = {HEADER: f"Bearer {facts['tokens'][caller]}"}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def standard_column(field):
    """Returns an expression for a stored column, with the standard's type."""
    kind = field.type
    return f"CAST({field.name} AS DECIMAL({kind.precision}, {kind.scale})) AS {field.name}" if is_decimal(field) else field.name


def over_decimals(scale, query):
    """Returns a query that reads the standard's types from views of the stored tables."""
    views = []
    for name, table in generated(scale).items():
        views.append(f"{name} AS (SELECT {', '.join(map(standard_column, table.schema))} FROM public.{name})")
    text = "\n".join(line for line in QUERIES[query].splitlines() if not line.startswith("--"))
    rest = ", " + text.removeprefix("with ") if text.startswith("with ") else "\n" + text
    return f"WITH {', '.join(views)}{rest}"


def same(ours, oracles):
    """Returns whether two values are equal. Only numbers that are doubles here or in DuckDB may differ a little."""
    numbers = (int, float, decimal.Decimal)
    if (isinstance(ours, float) or isinstance(oracles, float)) and isinstance(ours, numbers) and isinstance(oracles, numbers):
        return math.isclose(float(ours), float(oracles), rel_tol=1e-9)
    return ours == oracles


def same_rows(ours, oracles):
    return len(ours) == len(oracles) and all(map(same, ours, oracles))


def compare(facts, statement):
    """Runs all queries as both tenants and compares their rows, in order. Returns a table of times."""
    scale, wrong, times = facts["scale"], [], []
    for tenant in TENANTS:
        with connect(facts, tenant) as connection, connection.cursor() as cursor:
            for query in QUERIES:
                right, oracle_seconds = expected(scale, tenant, query)
                started = time.monotonic()
                try:
                    cursor.execute(statement(query))
                    rows = cursor.fetchall()
                except dbapi.Error as error:
                    wrong.append(f"{tenant} {query}: {error}")
                    continue
                times.append(f"{tenant} {query}: {len(rows)} rows, {time.monotonic() - started:.3f} s, DuckDB {oracle_seconds:.3f} s")
                if len(rows) != len(right):
                    wrong.append(f"{tenant} {query}: {len(rows)} rows instead of {len(right)}")
                    continue
                different = (pair for pair in zip(rows, right) if not same_rows(*pair))
                wrong.extend(f"{tenant} {query}: {one} instead of {other}" for one, other in itertools.islice(different, 1))
    assert not wrong, "\n".join(wrong)
    return "\n" + "\n".join(times)


@check
def load(facts):
    with connect(facts, "operator") as connection, connection.cursor() as cursor:
        for name, table in generated(facts["scale"]).items():
            for tenant in TENANTS:
                data = stored(table, name, tenant)
                for at in range(0, data.num_rows, BATCH_ROWS):
                    batch = data.slice(at, BATCH_ROWS)
                    equal(cursor.adbc_ingest(name, batch, mode="append"), batch.num_rows, name)


@check
def tenants_have_their_own_rows(facts):
    for tenant in TENANTS:
        with connect(facts, tenant) as connection, connection.cursor() as cursor:
            for name, table in generated(facts["scale"]).items():
                cursor.execute(f"SELECT count(*) FROM {name}")
                equal(cursor.fetchall(), [(rows_of(table, name, tenant).num_rows,)], (tenant, name))


@check
def all_queries_over_doubles(facts):
    equal(len(QUERIES), 22)
    return compare(facts, QUERIES.get)


@check
def all_queries_over_decimals(facts):
    return compare(facts, lambda query: over_decimals(facts["scale"], query))


if __name__ == "__main__":
    main()
