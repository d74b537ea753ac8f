"""Shows today's orders by state for several tenants side by side, and updates them every second. All tenants run the same SQL.

    live.py --url grpc://127.0.0.1:8815 fuego=TOKEN verde=TOKEN
"""

import argparse
import concurrent.futures
import contextlib
import sys
import time

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi

STATES = ["placed", "cooking", "ready", "delivered", "cancelled"]
BY_STATE = """
SELECT state, count(*) AS orders, sum(total) AS total FROM orders
WHERE placed_at >= date_trunc('day', now()) GROUP BY state"""
VERSIONS = "SELECT count(*) FROM orders_changes"
ASK_SECONDS_MAX = 5
WIDTH = 26


class Tenant:
    """A tenant and its connection. The tenant's token determines which rows it sees."""

    def __init__(self, name, url, token):
        self.name, self.url, self.connection = name, url, None
        timeouts = driver.DatabaseOptions
        self.options = {
            timeouts.AUTHORIZATION_HEADER.value: f"Bearer {token}",
            timeouts.TIMEOUT_QUERY.value: str(ASK_SECONDS_MAX),
            timeouts.TIMEOUT_FETCH.value: str(ASK_SECONDS_MAX),
        }

    def ask(self, sql):
        """Runs a query and returns its rows, or `None` if the server does not respond."""
        try:
            if self.connection is None:
                self.connection = dbapi.connect(self.url, db_kwargs=self.options, autocommit=True)
            with self.connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()
        except dbapi.Error:
            self.close()
            return None

    def close(self):
        """Closes the connection. The next query opens a new one."""
        connection, self.connection = self.connection, None
        with contextlib.suppress(dbapi.Error):
            if connection is not None:
                connection.close()


def hush(unraisable, otherwise=sys.unraisablehook):
    """Suppresses the driver's messages about statements that it cannot close because the server is gone."""
    if not isinstance(unraisable.exc_value, dbapi.Error):
        otherwise(unraisable)


sys.unraisablehook = hush


def column(tenant):
    """Returns the lines that are shown for a tenant."""
    started = time.monotonic()
    states, versions = tenant.ask(BY_STATE), tenant.ask(VERSIONS)
    if states is None or versions is None:
        return [tenant.name, *["no response"] + [""] * (len(STATES) + 2)]
    asked_ms = (time.monotonic() - started) * 1000
    found = {state: (orders, total) for state, orders, total in states}
    lines = [tenant.name]
    for state in STATES:
        orders, total = found.get(state, (0, 0))
        lines.append(f"{orders:>6} {total:>14,.2f}")
    orders, total = (sum(values) for values in zip((0, 0), *found.values()))
    lines.append(f"{orders:>6} {total:>14,.2f}")
    lines.append(f"{versions[0][0]:>6}")
    return [*lines, f"{asked_ms:>6.0f} ms"]


def picture(tenants, pool):
    """Returns the lines of all tenants side by side. The pool runs the queries, because the driver would intercept ctrl-C on the
    main thread."""
    names = ["today", *STATES, "total", "all changes", "query time"]
    columns = list(pool.map(column, tenants))
    lines = [f"  {name:<14}" + "".join(f"{cells[at]:<{WIDTH}}" for cells in columns) for at, name in enumerate(names)]
    return [line.rstrip() for line in lines]


def draw(lines, over=0):
    """Prints the lines and returns their number. In a terminal, they replace the previous `over` lines."""
    if over and sys.stdout.isatty():
        sys.stdout.write(f"\x1b[{over}A\x1b[J")
    print("\n".join(lines), flush=True)
    return len(lines)


def main():
    """Updates the view until it is stopped."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--url", default="grpc://127.0.0.1:8815", help="URL of the server's Flight SQL endpoint")
    arguments.add_argument("tenants", nargs="+", metavar="NAME=TOKEN")
    given = arguments.parse_args()
    tenants = [Tenant(name, given.url, token) for name, token in (text.split("=", 1) for text in given.tenants)]
    shown = 0
    with contextlib.suppress(KeyboardInterrupt), concurrent.futures.ThreadPoolExecutor(len(tenants)) as pool:
        while True:
            shown = draw(picture(tenants, pool), shown)
            time.sleep(1)


if __name__ == "__main__":
    main()
