"""Compares the rows that two restaurants see over ADBC with PostgreSQL: the current orders, and the history of changes.

The facts contain PostgreSQL's port (`postgres`) and the tenants. Changes may still be in transit, so each query is repeated until
the results are equal or a time limit has passed.
"""

import itertools
import pathlib
import sys
import time

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import deltalake

from checks import check, equal, main

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "demo/tacosoft"))

import services  # noqa: E402: the demo is not an installed package

# The time limit in seconds. A change passes through Debezium and Kafka before a query returns it, and both may have crashed.
SHOWN_SECONDS_MAX = 180


def ask(facts, tenant, sql):
    """Runs a query as a tenant and returns its rows."""
    options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {facts['tokens'][tenant]}"}
    with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


def database(facts, sql, *values):
    """Runs a query in PostgreSQL and returns its rows."""
    with services.connect(facts["postgres"]) as connection:
        return connection.execute(sql, values).fetchall()


def same(facts, ours, theirs):
    """Queries as each tenant until the result equals that of the database, whose orders no longer change. Returns the number of rows."""
    total = 0
    for tenant in facts["tenants"]:
        expected = database(facts, theirs, tenant)
        assert expected, f"{tenant} has no rows to compare"
        until = time.monotonic() + SHOWN_SECONDS_MAX
        found = None
        while found != expected and time.monotonic() < until:
            found = ask(facts, tenant, ours)
        pairs = enumerate(itertools.zip_longest(found, expected))
        different = next((f"row {at} is {one} instead of {other}" for at, (one, other) in pairs if one != other), None)
        equal(different, None, f"{tenant}, {len(found)} rows instead of {len(expected)}")
        total += len(expected)
    return f"{total} rows"


@check
def orders_by_state_match_the_database(facts):
    return same(
        facts,
        "SELECT state, count(*), sum(total) FROM orders GROUP BY state ORDER BY state",
        "SELECT state, count(*), sum(total) FROM orders WHERE restaurant_id = %s GROUP BY state ORDER BY state",
    )


@check
def each_order_is_flattened_and_enriched(facts):
    return same(
        facts,
        """SELECT order_id, state, total, placed_at, channel, courier, courier_distance_m, items, restaurant,
                  city, time_zone, cuisine
           FROM orders ORDER BY order_id""",
        """SELECT order_id, state, total, placed_at, details ->> 'channel', details -> 'courier' ->> 'vehicle',
                  (details -> 'courier' ->> 'distance_m')::bigint,
                  ARRAY(SELECT item ->> 'dish' FROM jsonb_array_elements(details -> 'items') WITH ORDINALITY AS i (item, n) ORDER BY n),
                  name, city, time_zone, cuisine
           FROM orders JOIN restaurants USING (restaurant_id) WHERE restaurant_id = %s ORDER BY order_id""",
    )


@check
def the_history_has_each_change_once(facts):
    return same(
        facts,
        "SELECT order_id, state, deleted FROM orders_changes ORDER BY order_id, change_order",
        "SELECT order_id, state, deleted FROM journal WHERE restaurant_id = %s ORDER BY order_id, number",
    )


@check
def deleted_orders_are_in_the_history_only(facts):
    deleted = 0
    for tenant in facts["tenants"]:
        gone = "SELECT order_id FROM orders_changes WHERE deleted"
        equal(ask(facts, tenant, f"SELECT count(*) FROM orders WHERE deleted OR order_id IN ({gone})"), [(0,)], tenant)
        deleted += len(ask(facts, tenant, gone))
    assert deleted, "no order was deleted, so nothing was tested"
    return f"{deleted} deleted"


@check
def a_restaurant_sees_its_own_orders_only(facts):
    for tenant in facts["tenants"]:
        others = [other for other in facts["tenants"] if other != tenant]
        for table in ("orders", "orders_changes"):
            equal(ask(facts, tenant, f"SELECT DISTINCT restaurant_id FROM {table}"), [(tenant,)], table)
            for other in others:
                equal(ask(facts, tenant, f"SELECT count(*) FROM {table} WHERE restaurant_id = '{other}'"), [(0,)], table)
                equal(ask(facts, tenant, f"SELECT count(*) FROM {table} WHERE change_order > '' OR restaurant_id = '{other}'"),
                      ask(facts, tenant, f"SELECT count(*) FROM {table}"), table)


@check
def nothing_is_stored_twice_or_refused(facts):
    changes = deltalake.DeltaTable(f"{facts['lake']}/orders").to_pyarrow_table(columns=["event_id"]).column(0).to_pylist()
    equal(len(changes), len(set(changes)), "ids of changes")
    equal(len(changes), database(facts, "SELECT count(*) FROM journal")[0][0], "changes of all restaurants")
    refused = deltalake.DeltaTable(f"{facts['lake']}/orders_quarantine").to_pyarrow_table(columns=["reason", "detail"])
    equal(refused.to_pylist(), [], "quarantine")
    return f"{len(changes)} changes"


if __name__ == "__main__":
    main()
