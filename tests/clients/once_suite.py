"""Checks with SQL and delta-rs that every acknowledged event is stored exactly once.

The facts list the batches that were sent. Their ids are `<prefix>-<batch>-<index>`, with `events` events per batch. A prefix
begins with its tenant.
"""

import time

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import deltalake

from checks import check, equal, main

# A server polls for the commits of other servers, so it may show them with this delay.
SHOWN_SECONDS_MAX = 120

# A condition that holds for every event of `typed_body` in tests/it/senders.rs.
TYPED = """amount = small + 0.25
    AND names[1] = id AND names[2] IS NULL AND cardinality(names) = 2
    AND ref = '00000000-0000-4000-8000-' || lpad(to_hex(small), 12, '0')
    AND extract(hour FROM clock) = 12 AND extract(minute FROM clock) = small % 60
    AND json_int(doc, 'n') = small"""


def tenants(facts):
    """Returns the tenants whose events were acknowledged."""
    return sorted({sent["prefix"].partition("-")[0] for sent in facts["sent"]})


def expected(facts, tenant):
    """Returns all acknowledged ids of a tenant."""
    return {
        f"{sent['prefix']}-{batch}-{index}"
        for sent in facts["sent"]
        if sent["prefix"].startswith(f"{tenant}-")
        for batch in range(sent["batches"])
        for index in range(sent["events"])
    }


@check
def sql_counts_each_event_once(facts):
    for tenant in tenants(facts):
        ids = expected(facts, tenant)
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
                    cursor.execute("SELECT id FROM samples")
                    equal(set(cursor.fetch_arrow_table().column(0).to_pylist()) ^ ids, set(), f"{tenant} at {address}")
                    if facts.get("typed"):
                        cursor.execute(f"SELECT count(*) FROM samples WHERE {TYPED}")
                        equal(cursor.fetchone(), (len(ids),), f"rows with the values that were sent, {tenant} at {address}")


@check
def the_lake_holds_each_event_once(facts):
    ids = set().union(*(expected(facts, tenant) for tenant in tenants(facts)))
    table = deltalake.DeltaTable(f"{facts['lake']}/samples", storage_options=facts.get("storage_options"))
    found = table.to_pyarrow_table(columns=["id"]).column("id").to_pylist()
    equal((len(found), len(set(found))), (len(ids), len(ids)))
    equal(set(found) ^ ids, set())
    return f"{len(found)} events, version {table.version()}"


if __name__ == "__main__":
    main()
