"""Compares the CPU time of small queries between two builds of the server, for example before and after a change.

    python bench/small_queries.py BEFORE AFTER

Both servers run at the same time and receive the queries alternately, over ADBC. A `planned` statement has a new text each
time, so it is parsed and planned. A `cached` statement has the same text each time.
"""

import contextlib
import statistics
import sys

import adbc_driver_flightsql.dbapi as dbapi
from adbc_driver_flightsql import DatabaseOptions

import events
import support

PAIRS = 12
QUERIES = 40
ROWS = 2_000
WINDOW = "event_time >= TIMESTAMP '2026-01-01 06:00:00' AND event_time < TIMESTAMP '2026-01-01 18:00:00'"
STATEMENTS = {
    "one": "SELECT 1",
    "counter": f"SELECT count(*), avg(jitter_ms), max(mos) FROM events WHERE {WINDOW}",
    "series": f"SELECT date_trunc('hour', event_time) AS hour, sum(duration_ms) FROM events WHERE {WINDOW} GROUP BY 1 ORDER BY 1",
    "leaders": f"SELECT carrier, count(*) AS calls, avg(pdd_ms) FROM events WHERE {WINDOW} GROUP BY carrier ORDER BY calls DESC LIMIT 5",
    "records": "SELECT * FROM events WHERE carrier IN ('atlas', 'beacon') AND mos > 3.5 ORDER BY event_time DESC LIMIT 20",
    "join": "SELECT a.carrier, count(*) FROM events a JOIN events b USING (event_id) WHERE a.mos < b.mos + 1 GROUP BY 1",
    "subquery": "SELECT carrier FROM events WHERE duration_ms > (SELECT avg(duration_ms) FROM events) GROUP BY carrier",
}


class Side:
    """One of the two builds, with its own lake."""

    def __init__(self, server):
        self.server = server
        token = server.token("big")
        server.post(token, events.ipc(events.table(ROWS, tenant="big")), "application/vnd.apache.arrow.stream")
        options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token}"}
        self.connection = dbapi.connect(server.flight, db_kwargs=options, autocommit=True)
        self.cursor = self.connection.cursor()
        self.asked = 0

    def close(self):
        self.cursor.close()
        self.connection.close()

    def cpu_ms(self, sql, is_new):
        """Returns the server's CPU time per query in milliseconds."""
        started = self.server.cpu_seconds()
        for _ in range(QUERIES):
            self.asked += 1
            self.cursor.execute(f"{sql} -- {self.asked}" if is_new else sql)
            self.cursor.fetch_arrow_table()
        return 1e3 * (self.server.cpu_seconds() - started) / QUERIES


def main(before, after):
    with support.server(before) as first, support.server(after) as second, contextlib.ExitStack() as stack:
        sides = Side(first), Side(second)
        stack.callback(sides[0].close)
        stack.callback(sides[1].close)
        print("| statement | before, ms | after, ms | ratio | quartiles |\n|---|---|---|---|---|")
        for name, sql in STATEMENTS.items():
            for kind, is_new in ("planned", True), ("cached", False):
                for side in sides:
                    side.cpu_ms(sql, is_new)
                pairs = [[side.cpu_ms(sql, is_new) for side in sides] for _ in range(PAIRS)]
                ratios = sorted(b / a for a, b in pairs if a > 0)
                low, middle, high = statistics.quantiles(ratios, n=4)
                old, new = (statistics.median(column) for column in zip(*pairs))
                print(f"| {name}, {kind} | {old:.2f} | {new:.2f} | {middle:.3f} | {low:.3f} to {high:.3f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 3 else sys.exit(__doc__)
