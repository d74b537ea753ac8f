"""Checks ADBC (the Python DB-API over the Go driver): connections, queries, parameters, metadata, ingest and cancellation."""

import datetime
import decimal
import threading
import time
import warnings

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager as manager
import pyarrow as pa

import rows
from checks import check, equal, main, refused

HEADER = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
STATUS = manager.AdbcStatusCode
# A query that would run for hours.
ENDLESS = "SELECT count(*) FROM samples a, samples b, samples c, samples d, samples e WHERE a.id || e.id <> b.id || c.id || d.id"


def connect(facts, caller="acme", headers=(), **kwargs):
    """Connects with the caller's token in a header."""
    named = {driver.DatabaseOptions.RPC_CALL_HEADER_PREFIX.value + name: value for name, value in headers}
    options = {HEADER: f"Bearer {facts['tokens'][caller]}", **named, **kwargs}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def table(connection, sql, parameters=None):
    """Runs a query and returns its result."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def value(connection, sql, parameters=None):
    """Runs a query and returns the single value of its result."""
    found = table(connection, sql, parameters)
    equal((found.num_rows, found.num_columns), (1, 1), sql)
    return found.column(0)[0].as_py()


def ids(connection, name="samples"):
    """Returns all ids of a table that a connection can see."""
    return set(table(connection, f"SELECT id FROM {name}").column(0).to_pylist())


@check
def connect_by_header(facts):
    with connect(facts) as connection:
        equal(value(connection, "SELECT count(*) FROM samples"), rows.ROWS["acme"])


@check
def connect_by_password(facts):
    for user in ("token", "someone@example.org"):
        options = {"username": user, "password": facts["tokens"]["globex"]}
        with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True) as connection:
            equal(value(connection, "SELECT count(*) FROM samples"), rows.ROWS["globex"], user)


@check
def bad_callers_are_refused(facts):
    def ask(**options):
        with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True) as connection:
            return value(connection, "SELECT 1")

    refused(ask, dbapi.Error)
    for caller in ("expired", "forged", "other_audience"):
        token = facts["tokens"][caller]
        for options in ({HEADER: f"Bearer {token}"}, {"username": "u", "password": token}):
            error = refused(lambda options=options: ask(**options), dbapi.Error)
            equal(error.status_code, STATUS.UNAUTHENTICATED, f"{caller}: {error}")
    for header in ("", "Bearer", "Bearer ", "Basic !!!", "Negotiate abc"):
        error = refused(lambda header=header: ask(**{HEADER: header}), dbapi.Error)
        equal(error.status_code, STATUS.UNAUTHENTICATED, f"{header!r}: {error}")


@check
def token_without_tenant_is_refused(facts):
    for caller in ("no_tenant", "empty_tenant", "null_tenant", "list_tenant"):
        def ask(caller=caller):
            with connect(facts, caller) as connection:
                return value(connection, "SELECT count(*) FROM samples")

        error = refused(ask, dbapi.Error)
        assert error.status_code in (STATUS.UNAUTHENTICATED, STATUS.UNAUTHORIZED), (caller, error)


@check
def operators_may_not_query(facts):
    error = refused(lambda: value(connect(facts, "operator"), "SELECT count(*) FROM samples"), dbapi.Error)
    assert error.status_code in (STATUS.UNAUTHENTICATED, STATUS.UNAUTHORIZED), error


@check
def tenants_are_disjoint(facts):
    seen = {tenant: ids(connect(facts, tenant)) for tenant in rows.ROWS}
    for tenant, found in seen.items():
        expected = {row["id"] for row in rows.samples(tenant)}
        assert expected <= found, (tenant, "does not see all of its rows")
        assert all(name.startswith(f"{tenant}-") for name in found), (tenant, "sees rows of another tenant")


@check
def headers_never_change_the_tenant(facts):
    names = ("x-tenant", "x-tenant-id", "tenant", "database", "catalog", "schema", "x-forwarded-user")
    with connect(facts, "globex", headers=[(name, "acme") for name in names]) as connection:
        equal(value(connection, "SELECT count(*) FROM samples"), rows.ROWS["globex"])


@check
def values_come_back_as_sent(facts):
    with connect(facts, "globex") as connection:
        sql = "SELECT id, at, flag, small, big, ratio32, ratio, label, day FROM samples ORDER BY id"
        found = table(connection, sql).to_pylist()
    expected = [{name: row.get(name) for name in found[0]} for row in rows.samples("globex")]
    equal(found, expected)


@check
def column_types_are_portable(facts):
    with connect(facts) as connection:
        schema = table(connection, "SELECT * FROM samples LIMIT 0").schema
    expected = {
        "tenant": pa.string(), "at": pa.timestamp("us", "UTC"), "id": pa.string(), "flag": pa.bool_(),
        "small": pa.int32(), "big": pa.int64(), "ratio32": pa.float32(), "ratio": pa.float64(),
        "label": pa.string(), "day": pa.date32(), "payload": pa.binary(), "event_date": pa.date32(),
    }
    equal({name: schema.field(name).type for name in expected}, expected)


@check
def freshness_is_a_table_function(facts):
    with connect(facts) as connection:
        found = table(connection, "SELECT * FROM freshness('samples')").to_pylist()
        names = ["table_name", "complete_until", "now", "newest_event_time", "newest_received_time", "source_lag_seconds"]
        equal([list(row) for row in found], [names])
        (row,) = found
        newest = value(connection, "SELECT max(at) FROM samples")
        equal((row["table_name"], row["newest_event_time"], row["source_lag_seconds"]), ("samples", newest, None))
        assert row["newest_received_time"] <= row["complete_until"] <= row["now"], row
        later = value(connection, "SELECT now FROM freshness('samples')")
        assert later > row["now"], "repeating the statement must return a later time"
        hidden, nowhere = (
            refused(lambda name=name: value(connection, f"SELECT now FROM freshness('{name}')"), dbapi.Error)
            for name in ("hidden", "nowhere")
        )
        equal((hidden.status_code, nowhere.status_code), (STATUS.NOT_FOUND, STATUS.NOT_FOUND))
        equal(str(hidden).replace("hidden", "nowhere"), str(nowhere))
        error = refused(lambda: value(connection, "SELECT now FROM freshness(?)", ("samples",)), dbapi.Error)
        equal(error.status_code, STATUS.INVALID_ARGUMENT, error)


@check
def order_by_is_kept(facts):
    with connect(facts) as connection:
        found = table(connection, "SELECT id FROM samples ORDER BY id DESC").column(0).to_pylist()
    equal(found, sorted(found, reverse=True))
    assert len(found) >= rows.ROWS["acme"]


@check
def zero_rows_keep_their_types_in_pandas(facts):
    with connect(facts, "initech") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, at, small, ratio, flag FROM samples WHERE small > 5")
        frame = cursor.fetch_df()
    equal(len(frame), 0)
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    equal(kinds["at"], "datetime64[us, UTC]", kinds)
    equal((kinds["small"], kinds["ratio"], kinds["flag"]), ("int32", "float64", "bool"), kinds)


@check
def get_objects_of_all_depths(facts):
    with connect(facts) as connection:
        for depth in ("catalogs", "db_schemas", "tables", "all"):
            found = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
            equal([catalog["catalog_name"] for catalog in found], ["glasshouse"], depth)
            if depth == "catalogs":
                continue
            schemas = {schema["db_schema_name"]: schema for schema in found[0]["catalog_db_schemas"]}
            equal(set(schemas), {"public", "information_schema"}, depth)
            if depth == "db_schemas":
                continue
            tables = {each["table_name"]: each for each in schemas["public"]["db_schema_tables"]}
            assert {"samples", "net_flow", "net2flow"} <= set(tables), tables.keys()
            assert "hidden" not in tables, tables.keys()
            equal(tables["samples"]["table_type"], "TABLE")
            if depth == "all":
                columns = {each["column_name"]: each for each in tables["samples"]["table_columns"]}
                equal(columns["small"]["xdbc_type_name"], "INTEGER")
                equal(columns["at"]["xdbc_type_name"], "TIMESTAMP WITH TIME ZONE")
                equal(columns["ratio"]["xdbc_type_name"], "DOUBLE")


@check
def get_objects_filters(facts):
    def names(**filters):
        with connect(facts) as connection:
            found = connection.adbc_get_objects(depth="tables", **filters).read_all().to_pylist()
        return sorted(
            each["table_name"]
            for catalog in found
            for schema in catalog["catalog_db_schemas"] or []
            for each in schema["db_schema_tables"] or []
        )

    equal(names(table_name_filter="net_flow"), ["net2flow", "net_flow"])
    equal(names(table_name_filter=r"net\_flow"), ["net_flow"])
    equal(names(table_name_filter="net%flow"), ["net2flow", "net_flow"])
    equal(names(table_name_filter="net%flow", db_schema_filter="public"), ["net2flow", "net_flow"])
    equal(names(table_name_filter="net%flow", db_schema_filter="pub%"), ["net2flow", "net_flow"])
    equal(names(table_name_filter="net%flow", db_schema_filter="nowhere"), [])
    equal(names(table_name_filter="net%flow", catalog_filter="glasshouse"), ["net2flow", "net_flow"])
    equal(names(table_name_filter="net%flow", catalog_filter="other"), [])
    for types, expected in (
        (["TABLE"], 2), (["table"], 2), (["BASE TABLE"], 2), (["base table", "view"], 2), (["VIEW"], 0), (["SYNONYM"], 0),
    ):
        equal(len(names(table_name_filter="net%flow", table_types_filter=types)), expected, types)
    assert "columns" in names(table_types_filter=["SYSTEM TABLE"])


@check
def get_table_types(facts):
    with connect(facts) as connection:
        equal(connection.adbc_get_table_types(), ["SYSTEM TABLE", "TABLE", "VIEW"])


@check
def get_table_schema_escapes_underscores(facts):
    with connect(facts) as connection:
        for name in ("net_flow", "net2flow"):
            for place in ({}, {"db_schema_filter": "public"}):
                schema = connection.adbc_get_table_schema(name, **place)
                assert f"of_{name}" in schema.names, (name, schema.names)
        refused(lambda: connection.adbc_get_table_schema("hidden"), dbapi.Error)
        schema = connection.adbc_get_table_schema("samples")
        queried = table(connection, "SELECT * FROM samples LIMIT 0").schema
        equal(schema.names, queried.names)
        equal(schema.types, queried.types)
        field = schema.field("ratio")
        equal(field.metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"], b"DOUBLE")
        equal(field.metadata[b"ARROW:FLIGHT:SQL:PRECISION"], b"15")
        equal(field.metadata[b"ARROW:FLIGHT:SQL:REMARKS"], b"an eighth of the index (unit: ms)")


@check
def execute_schema_matches_the_result(facts):
    queries = ("SELECT count(*), min(at), max(ratio) FROM samples", "SELECT * FROM samples", "SELECT 'a' AS x, 1.5, NULL")
    with connect(facts) as connection:
        for sql in queries:
            with connection.cursor() as cursor:
                schema = cursor.adbc_execute_schema(sql)
            equal(schema, table(connection, sql).schema, sql)


@check
def get_info_names_the_server(facts):
    with connect(facts) as connection:
        info = connection.adbc_get_info()
    equal(info["vendor_name"], "Glasshouse", info)
    assert info["vendor_version"], info


@check
def current_catalog_and_schema(facts):
    with connect(facts) as connection:
        equal(connection.adbc_current_catalog, "glasshouse")
        equal(connection.adbc_current_db_schema, "public")


@check
def missing_transactions_cause_a_warning(facts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = {HEADER: f"Bearer {facts['tokens']['acme']}"}
        with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options) as connection:
            equal(value(connection, "SELECT 1"), 1)
    assert any("autocommit" in str(each.message) for each in caught), [str(each.message) for each in caught]


@check
def parameters_of_many_types(facts):
    at = rows.START + datetime.timedelta(minutes=30)
    with connect(facts, "globex") as connection:
        for condition, bound, expected in (
            ("small = ?", [30], ["globex-00030"]),
            ("small = $1", [30], ["globex-00030"]),
            ("small = ?", ["30"], ["globex-00030"]),
            ("big = ?", [300_000_000_000], ["globex-00030"]),
            ("ratio = ?", [3.75], ["globex-00030"]),
            ("ratio = ?", [decimal.Decimal("3.75")], ["globex-00030"]),
            ("ratio32 = ?", [7.5], ["globex-00030"]),
            ("id = ?", ["globex-00030"], ["globex-00030"]),
            ("label = ? AND small = ?", ["東京", 5], ["globex-00005"]),
            ("flag = ? AND small < ?", [True, 3], ["globex-00000", "globex-00002"]),
            ("day = ?", [datetime.date(2024, 1, 31)], ["globex-00030"]),
            ("day = ?", ["2024-01-31"], ["globex-00030"]),
            ("at = ?", [at], ["globex-00030"]),
            ("at = ?", ["2024-01-01T00:30:00Z"], ["globex-00030"]),
            ("at >= ? AND at < ?", [at, at + datetime.timedelta(minutes=2)], ["globex-00030", "globex-00031"]),
            ("small = ?", [None], []),
            ("label = ?", ["' OR 1=1 --"], []),
            ("small BETWEEN $1 AND $1", [30], ["globex-00030"]),
        ):
            found = table(connection, f"SELECT id FROM samples WHERE {condition} ORDER BY id", bound)
            equal(found.column(0).to_pylist(), expected, (condition, bound))
        equal(value(connection, "SELECT ? || 'b'", ["a"]), "ab")
        refused(lambda: table(connection, "SELECT id FROM samples WHERE small = ?", ["thirty"]), dbapi.Error)
        refused(lambda: table(connection, "SELECT id FROM samples WHERE small = ? AND big = ?", [1]), dbapi.Error)


@check
def executemany_is_refused(facts):
    with connect(facts) as connection, connection.cursor() as cursor:
        sql = "SELECT id FROM samples WHERE small = ?"
        refused(lambda: cursor.executemany(sql, [(1,), (2,)]), dbapi.Error)


@check
def errors_have_their_codes(facts):
    with connect(facts) as connection:
        for sql, status, text in (
            ("SELEC 1", STATUS.INVALID_ARGUMENT, None),
            ("SELECT 1; SELECT 2", STATUS.INVALID_ARGUMENT, None),
            ("SELECT nothing FROM samples", STATUS.INVALID_ARGUMENT, "nothing"),
            ("SELECT * FROM nowhere", STATUS.NOT_FOUND, "nowhere"),
            ("SELECT * FROM hidden", STATUS.NOT_FOUND, "hidden"),
            ("SELECT * FROM other.public.samples", STATUS.NOT_FOUND, None),
            ("INSERT INTO samples VALUES (1)", STATUS.UNAUTHORIZED, None),
            ("DELETE FROM samples", STATUS.UNAUTHORIZED, None),
            ("DROP TABLE samples", STATUS.UNAUTHORIZED, None),
            ("CREATE TABLE mine AS SELECT 1", STATUS.UNAUTHORIZED, None),
            ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'", STATUS.UNAUTHORIZED, None),
            ("COPY samples TO '/tmp/x.csv'", STATUS.UNAUTHORIZED, None),
            ("SET datafusion.execution.batch_size = 1", STATUS.UNAUTHORIZED, None),
        ):
            error = refused(lambda sql=sql: table(connection, sql), dbapi.Error, text)
            equal(error.status_code, status, f"{sql}: {error}")
            assert "panicked" not in str(error) and ".rs:" not in str(error), error


@check
def a_hidden_table_looks_absent(facts):
    with connect(facts) as connection:
        texts = [str(refused(lambda name=name: table(connection, f"SELECT * FROM {name}"), dbapi.Error)).replace(name, "T")
                 for name in ("hidden", "absent")]
    equal(texts[0], texts[1])


@check
def cancel_stops_the_query_and_frees_its_slot(facts):
    """Cancels more queries than a tenant may run at the same time. If a slot were not released, a later query would have to wait."""
    with connect(facts) as connection:
        for turn in range(facts["tenant_queries_max"] + 1):
            with connection.cursor() as cursor:
                outcome = []

                def ask(cursor=cursor, outcome=outcome):
                    try:
                        cursor.execute(ENDLESS)
                        outcome.append(cursor.fetchall())
                    except Exception as error:  # noqa: BLE001
                        outcome.append(error)

                asking = threading.Thread(target=ask)
                asking.start()
                until = time.monotonic() + 120
                while asking.is_alive() and time.monotonic() < until:
                    cursor.adbc_cancel()
                    asking.join(0.2)
                assert not asking.is_alive(), f"turn {turn}: the query was still running after two minutes"
                equal(len(outcome), 1)
                error = outcome[0]
                assert isinstance(error, dbapi.Error), error
                assert getattr(error, "status_code", None) == STATUS.CANCELLED or "cancel" in str(error).lower(), error
        equal(value(connection, "SELECT 1"), 1)


@check
def a_partition_is_read_on_another_connection(facts):
    with connect(facts) as one, one.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("SELECT id FROM samples")
        equal(len(partitions), 1)
        with connect(facts) as two, two.cursor() as other:
            other.adbc_read_partition(partitions[0])
            found = other.fetch_arrow_table()
            equal(found.schema, schema)
            assert found.num_rows >= rows.ROWS["acme"]
        with connect(facts, "globex") as foreign, foreign.cursor() as other:
            def read():
                other.adbc_read_partition(partitions[0])
                return other.fetch_arrow_table()

            equal(refused(read, dbapi.Error).status_code, STATUS.UNAUTHORIZED)


@check
def default_message_limit_is_enough(facts):
    """A client that accepts messages of 4 MiB can read wide rows, long strings and filtered columns."""
    limit = {driver.DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(4 << 20)}
    with connect(facts, **limit) as connection:
        found = table(connection, "SELECT a.id, repeat(a.id, 1 + b.small % 50) AS t FROM samples a, samples b WHERE b.small < 200")
        assert found.nbytes > 40 << 20, found.nbytes
        equal(value(connection, f"SELECT repeat('x', {7 << 19})"), "x" * (7 << 19))


@check
def concurrent_callers(facts):
    wrong = []

    def ask(tenant):
        try:
            with connect(facts, tenant) as connection:
                for _ in range(5):
                    found = table(connection, "SELECT id FROM samples WHERE small IS NOT NULL").column(0).to_pylist()
                    if not found or not all(name.startswith(f"{tenant}-") for name in found):
                        wrong.append((tenant, found[:3]))
        except Exception as error:  # noqa: BLE001
            wrong.append((tenant, error))

    threads = [threading.Thread(target=ask, args=(tenant,)) for tenant in ["acme", "globex"] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [])


def batch(prefix, count, **columns):
    """Returns rows to ingest into `samples`."""
    at = [rows.START + datetime.timedelta(days=400, seconds=second) for second in range(count)]
    names = [f"{prefix}-{index}" for index in range(count)]
    return pa.table({"id": names, "at": pa.array(at, pa.timestamp("us", "UTC")), "small": pa.array(range(count), pa.int32()), **columns})


def ingest(connection, data, mode, name="samples"):
    """Ingests rows and returns the number of rows that the driver reports."""
    with connection.cursor() as cursor:
        return cursor.adbc_ingest(name, data, mode=mode)


@check
def ingest_appends(facts):
    with connect(facts) as connection:
        for turn, mode in enumerate(("append", "create_append")):
            equal(ingest(connection, batch(f"acme-in{turn}", 500), mode), 500, mode)
            equal(value(connection, f"SELECT count(*) FROM samples WHERE id LIKE 'acme-in{turn}-%'"), 500, mode)
        payload = pa.array([b"\x00\xff", None], pa.binary())
        ingest(connection, batch("acme-bytes", 2, payload=payload), "append")
        found = table(connection, "SELECT payload FROM samples WHERE id LIKE 'acme-bytes-%' ORDER BY id")
        equal(found.column(0).to_pylist(), [b"\x00\xff", None])
    with connect(facts, "globex") as connection:
        equal(value(connection, "SELECT count(*) FROM samples WHERE id LIKE 'acme-%'"), 0)


@check
def repeated_ingest_stores_once(facts):
    with connect(facts) as connection:
        for _ in range(2):
            ingest(connection, batch("acme-twice", 50), "append")
        equal(value(connection, "SELECT count(*) FROM samples WHERE id LIKE 'acme-twice-%'"), 50)


@check
def ingest_never_creates_or_replaces_a_table(facts):
    with connect(facts) as connection:
        before = value(connection, "SELECT count(*) FROM samples")
        for mode, name in (("create", "samples"), ("replace", "samples"), ("create", "fresh"), ("create_append", "fresh"),
                           ("replace", "fresh"), ("append", "fresh"), ("append", "hidden")):
            refused(lambda mode=mode, name=name: ingest(connection, batch("acme-x", 3), mode, name), dbapi.Error)
        equal(value(connection, "SELECT count(*) FROM samples"), before)


@check
def ingest_never_stores_rows_of_other_tenants(facts):
    with connect(facts) as connection:
        foreign = batch("acme-forged", 3, tenant=["globex", "acme", "globex"])
        try:
            ingest(connection, foreign, "append")
        except dbapi.Error:
            pass  # the server may refuse the whole batch, or quarantine only the forged rows
        assert value(connection, "SELECT count(*) FROM samples WHERE id LIKE 'acme-forged-%'") <= 1
    with connect(facts, "globex") as connection:
        equal(value(connection, "SELECT count(*) FROM samples WHERE id LIKE 'acme-forged-%'"), 0)


@check
def ingest_requires_its_scope(facts):
    with connect(facts, "reader") as connection:
        equal(value(connection, "SELECT count(*) > 0 FROM samples"), True)
        error = refused(lambda: ingest(connection, batch("acme-reader", 3), "append"), dbapi.Error)
        equal(error.status_code, STATUS.UNAUTHORIZED, error)
    error = refused(lambda: value(connect(facts, "writer"), "SELECT count(*) FROM samples"), dbapi.Error)
    equal(error.status_code, STATUS.UNAUTHORIZED, error)


@check
def operator_ingest_takes_the_tenant_from_each_row(facts):
    options = {HEADER: f"Bearer {facts['tokens']['operator']}"}
    with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True) as connection:
        tenants = ["acme", "globex", "acme", "acme"]
        data = batch("x", 4, tenant=tenants).drop_columns("id")
        data = data.append_column("id", [[f"{tenant}-shared-{index}" for index, tenant in enumerate(tenants)]])
        equal(ingest(connection, data, "append"), 4)
    for tenant, expected in (("acme", 3), ("globex", 1)):
        with connect(facts, tenant) as connection:
            equal(value(connection, "SELECT count(*) FROM samples WHERE id LIKE '%-shared-%'"), expected, tenant)


if __name__ == "__main__":
    main()
