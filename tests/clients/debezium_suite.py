"""Changes a PostgreSQL and a MariaDB database, and compares their rows with the rows that a tenant sees over ADBC.

Between the databases and the server are Debezium and Kafka (debezium_services.py). The changes are inserts, updates, deletes, changed
keys, rows that one statement writes, and transactions that are open during an incremental snapshot. The binlog of MariaDB is rotated,
and Debezium is killed. The checks run one after another, and each one depends on the changes of those before it.
"""

import contextlib
import datetime
import json
import os
import pathlib
import random
import signal
import time
import urllib.request

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import deltalake

import debezium_services as databases
from checks import check, equal, main
from debezium_services import DATABASE, INSERT, SNAPSHOT_ROWS, order

TENANT = "acme"
# The time limit in seconds until a change is visible. Debezium and the server may have to start again before that.
SHOWN_SECONDS_MAX = 180
# The number of statements in one round of changes, and the interval at which the binlog is rotated.
STATEMENTS, ROTATION = 120, 8
# The keys of the rows that one statement writes, and the number that is added to a key that changes.
BULK_KEYS, MOVED = range(500, 520), 10_000
# The number of rows that each kind of change has written, by table and operation.
changes = {}


def ask(facts, sql):
    """Runs a query as the tenant and returns its rows."""
    options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {facts['tokens'][TENANT]}"}
    with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


def shows(facts, sql, expected, what):
    """Repeats a query until its result equals the rows of a database, which no longer change. Returns the number of rows."""
    until, found = time.monotonic() + SHOWN_SECONDS_MAX, None
    while found != expected and time.monotonic() < until:
        found = ask(facts, sql)
    different = [pair for pair in zip(found, expected) if pair[0] != pair[1]][:1]
    equal((len(found), different), (len(expected), []), what)
    return len(expected)


@contextlib.contextmanager
def postgres(facts):
    """A cursor in PostgreSQL. Each statement is a transaction."""
    with databases.services.connect(facts["postgres"], database=DATABASE) as connection, connection.cursor() as cursor:
        yield cursor


@contextlib.contextmanager
def mariadb(facts):
    """A cursor in MariaDB. Each statement is a transaction."""
    with contextlib.closing(databases.connect_mariadb(facts["mariadb"])) as connection, connection.cursor() as cursor:
        yield cursor


SERVERS = {"postgres_orders": postgres, "mariadb_orders": mariadb}


def count(table, operation, rows=1):
    """Records that a statement has changed rows."""
    changes[table, operation] = changes.get((table, operation), 0) + rows


def make_changes(facts, table, seed):
    """Makes changes to random rows. The values of a row depend on its key and on its version, which each update increments."""
    choice = random.Random(seed)
    with SERVERS[table](facts) as cursor:
        for step in range(STATEMENTS):
            cursor.execute("SELECT id, version FROM orders WHERE id < 500 ORDER BY id")
            rows = list(cursor.fetchall())
            key, version = choice.choice(rows)
            kind = choice.random()
            if kind < 0.2:
                cursor.execute(INSERT, order(max(rows)[0] + 1, 1))
                count(table, "c")
            elif kind < 0.3:
                cursor.execute("DELETE FROM orders WHERE id = %s", [key])
                count(table, "d")
            elif kind < 0.4:
                # Debezium sends the change of a key as a delete and an insert.
                cursor.execute("UPDATE orders SET id = id + %s WHERE id = %s", [MOVED * (seed * STATEMENTS + step + 1), key])
                count(table, "d")
                count(table, "c")
            elif kind < 0.5:
                cursor.execute("UPDATE orders SET version = version + 1 WHERE id %% 7 = %s AND id < 500", [step % 7])
                count(table, "u", cursor.rowcount)
            else:
                values = order(key, version + 1)
                cursor.execute("UPDATE orders SET version = %s, total = %s, placed = %s WHERE id = %s", [*values[1:4], key])
                count(table, "u")
            if table == "mariadb_orders" and step % ROTATION == 0:
                cursor.execute("FLUSH BINARY LOGS")


def rows_of(facts, table):
    """Returns the rows of the database."""
    with SERVERS[table](facts) as cursor:
        cursor.execute("SELECT id, version, total, placed, day, at, note FROM orders ORDER BY id")
        return [(key, version, f"{total:f}", placed.replace(tzinfo=datetime.timezone.utc), day, clock(at), note)
                for key, version, total, placed, day, at, note in cursor.fetchall()]


def clock(at):
    """Returns a time of day as text with six digits. The MariaDB client returns a duration instead of a time."""
    if isinstance(at, datetime.timedelta):
        at = (datetime.datetime.min + at).time()
    return at.isoformat("microseconds")


def same_rows(facts, table):
    """Compares the rows of the tenant with those of the database."""
    sql = f"SELECT order_id, version, total, placed, day, at, note FROM {table} ORDER BY order_id"
    return shows(facts, sql, rows_of(facts, table), table)


@check
def rows_of_the_initial_snapshot_are_shown(facts):
    for table in SERVERS:
        equal(same_rows(facts, table), SNAPSHOT_ROWS, table)


@check
def changes_are_shown_in_their_order(facts):
    for table in SERVERS:
        make_changes(facts, table, 0)
    with postgres(facts) as cursor:
        # All rows of a COPY have the same position in PostgreSQL's log.
        with cursor.copy("COPY orders FROM STDIN") as copy:
            for key in BULK_KEYS:
                number, *values = order(key, 1)
                copy.write_row([number, TENANT, *values])
    with mariadb(facts) as cursor:
        cursor.executemany(INSERT, [order(key, 1) for key in BULK_KEYS])
    for table in SERVERS:
        count(table, "c", len(BULK_KEYS))
    return {table: same_rows(facts, table) for table in SERVERS}


@check
def changes_around_a_crash_of_debezium_are_stored_once(facts):
    make_changes(facts, "postgres_orders", 1)
    make_changes(facts, "mariadb_orders", 1)
    worker = json.loads(pathlib.Path(facts["services"]).read_text())["connect_id"]
    os.kill(worker, signal.SIGKILL)
    make_changes(facts, "postgres_orders", 2)
    make_changes(facts, "mariadb_orders", 2)
    shown = {table: same_rows(facts, table) for table in SERVERS}
    for table in SERVERS:
        sql = f"SELECT op, count(*) FROM {table}_changes WHERE op <> 'r' GROUP BY op ORDER BY op"
        expected = [(operation, changes[table, operation]) for operation in ("c", "d", "u")]
        shows(facts, sql, expected, f"changes of {table}")
    return shown


@check
def transactions_that_are_open_during_an_incremental_snapshot_are_newer(facts):
    for table, connect in SERVERS.items():
        schema = "public" if table == "postgres_orders" else DATABASE
        data = json.dumps({"data-collections": [f"{schema}.orders"], "type": "incremental"})
        snapshot_rows = ask(facts, f"SELECT count(*) FROM {table}_changes WHERE op = 'r'")[0][0]
        with connect(facts) as open_transaction, connect(facts) as cursor:
            cursor.execute("SELECT count(*) FROM orders")
            expected = [(snapshot_rows + cursor.fetchone()[0],)]
            open_transaction.execute("BEGIN")
            open_transaction.execute("UPDATE orders SET version = version + 100 WHERE id < 500")
            open_transaction.execute("DELETE FROM orders WHERE id = %s", [BULK_KEYS[0]])
            cursor.execute("INSERT INTO signals VALUES (%s, 'execute-snapshot', %s)", [f"snapshot of {table}", data])
            # Debezium has read every row while the transaction is open.
            shows(facts, f"SELECT count(*) FROM {table}_changes WHERE op = 'r'", expected, f"snapshot of {table}")
            open_transaction.execute("COMMIT")
        same_rows(facts, table)


@check
def unavailable_values_are_null(facts):
    with postgres(facts) as cursor:
        cursor.execute("UPDATE notes SET amount = 1000 WHERE id % 2 = 0")
        cursor.execute("UPDATE notes SET body = body || '!' WHERE id % 4 = 0")
        # Without REPLICA IDENTITY FULL, an update that leaves a large value unchanged does not contain the value.
        cursor.execute("SELECT id, to_char(amount, 'FM9990.00'), CASE WHEN id % 4 <> 2 THEN body END FROM notes ORDER BY id")
        expected = cursor.fetchall()
    assert sum(body is None for _, _, body in expected) == 5, "five values are unavailable"
    return shows(facts, "SELECT note_id, amount, body FROM notes ORDER BY note_id", expected, "notes")


@check
def a_truncation_stops_the_source(facts):
    with postgres(facts) as cursor:
        cursor.execute("TRUNCATE notes")
    headers = {"authorization": f"Bearer {facts['tokens']['admin']}"}
    until, stopped = time.monotonic() + SHOWN_SECONDS_MAX, []
    while not stopped and time.monotonic() < until:
        question = urllib.request.Request(f"http://{facts['http']}/metrics", headers=headers)
        with urllib.request.urlopen(question, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        stopped = [line for line in lines if line.startswith("glasshouse_source_stopped") and line.endswith(" 1")]
    equal(len(stopped), 1, "stopped partitions")
    assert 'source="notes"' in stopped[0], stopped
    equal(ask(facts, "SELECT count(*) FROM notes"), [(20,)], "rows before the truncation")


@check
def nothing_is_stored_twice_or_refused(facts):
    for table in (*SERVERS, "notes"):
        ids = deltalake.DeltaTable(f"{facts['lake']}/{table}").to_pyarrow_table(columns=["change_id"]).column(0).to_pylist()
        equal(len(ids), len(set(ids)), f"ids of {table}")
        refused = deltalake.DeltaTable(f"{facts['lake']}/{table}_quarantine").to_pyarrow_table(columns=["reason", "detail"])
        equal(refused.to_pylist(), [], f"quarantine of {table}")


if __name__ == "__main__":
    main()
