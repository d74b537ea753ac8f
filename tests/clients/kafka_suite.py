"""Checks with SQL and delta-rs that every message of a topic is stored exactly once, in the table or in its quarantine.

The facts contain the number of events sent for each tenant (`events`, with the ids `<tenant>-<index>`) and the payloads that
cannot be stored.
"""

import collections
import time

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import deltalake

from checks import check, equal, main

# A server polls for the commits of other servers, so it may show them with this delay.
SHOWN_SECONDS_MAX = 120


def sent(facts, tenant):
    """Returns all ids of a tenant."""
    return {f"{tenant}-{index}" for index in range(facts["events"])}


def read(facts, table, columns):
    """Reads columns of a table of the lake."""
    rows = deltalake.DeltaTable(f"{facts['lake']}/{table}").to_pyarrow_table(columns=columns)
    return [rows.column(name).to_pylist() for name in columns]


@check
def each_tenant_sees_its_messages_once(facts):
    for tenant in facts["tenants"]:
        ids = sent(facts, tenant)
        options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {facts['tokens'][tenant]}"}
        for address in facts["flights"]:
            with dbapi.connect(f"grpc://{address}", db_kwargs=options, autocommit=True) as connection:
                with connection.cursor() as cursor:
                    until = time.monotonic() + SHOWN_SECONDS_MAX
                    found = None
                    while found != (len(ids), len(ids)) and time.monotonic() < until:
                        cursor.execute("SELECT count(*), count(DISTINCT id) FROM samples")
                        found = cursor.fetchone()
                    equal(found, (len(ids), len(ids)), f"{tenant} at {address}")


@check
def sources_have_no_lag(facts):
    options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {facts['tokens'][facts['tenants'][0]]}"}
    for address in facts["flights"]:
        with dbapi.connect(f"grpc://{address}", db_kwargs=options, autocommit=True) as connection:
            with connection.cursor() as cursor:
                until = time.monotonic() + SHOWN_SECONDS_MAX
                found = None
                while found != (0,) and time.monotonic() < until:
                    cursor.execute("SELECT source_lag_seconds FROM freshness('samples')")
                    found = cursor.fetchone()
                equal(found, (0,), address)


@check
def the_lake_holds_each_message_once(facts):
    tenants, ids = read(facts, "samples", ["tenant", "id"])
    counts = collections.Counter(zip(tenants, ids))
    doubled = {key: count for key, count in counts.items() if count > 1}
    equal(doubled, {}, "stored more than once")
    expected = {(tenant, key) for tenant in facts["tenants"] for key in sent(facts, tenant)}
    equal(set(counts) ^ expected, set(), "lost, or never sent")
    return f"{len(counts)} events"


@check
def the_quarantine_holds_each_bad_message_once(facts):
    payloads, places, sources = read(facts, "samples_quarantine", ["payload", "place", "source_table"])
    counts = collections.Counter(payload.decode() for payload in payloads)
    equal(counts, collections.Counter(facts["bad"]))
    equal(len(set(places)), len(places), "two entries have the same place")
    equal([place for place in places if not place.startswith("kafka events, events/")], [])
    equal(set(sources), {"samples"})


if __name__ == "__main__":
    main()
