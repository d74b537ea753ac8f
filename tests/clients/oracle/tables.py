"""The small tables that the oracle's questions read, in PostgreSQL and in Glasshouse.

All tables have the same columns. `te` has no rows of the tenant that asks. In Glasshouse, every table also contains rows of a
second tenant. PostgreSQL does not have these rows, so an answer that is based on one of them differs.
"""

import datetime
import json
import random
import urllib.request

# The tenant that asks, and the tenant whose rows must never appear in an answer.
TENANT, OTHER = "acme", "globex"
ROWS = {"ta": 14, "tb": 11, "tc": 9, "te": 0}
OTHER_ROWS = 7
# The number of requests, and therefore of files, into which the rows of a table are divided.
FILES = 3

# Each column, with its type in PostgreSQL and its kind of expression.
COLUMNS = {
    # A number that is unique within a table and never NULL.
    "n": ("integer", "int"),
    # A key with few values.
    "k": ("integer", "int"),
    # Small integers, and 32-bit integers that include the extremes.
    "i": ("integer", "int"),
    "x": ("integer", "wild_int"),
    # Large integers, and 64-bit integers that include the extremes.
    "b": ("bigint", "big"),
    "y": ("bigint", "wild_big"),
    # Doubles whose sums are exact, and doubles that include very large and very small values.
    "d": ("double precision", "double"),
    "z": ("double precision", "wild_double"),
    # Words, and text that looks like numbers.
    "s": ("text", "text"),
    "w": ("text", "digits"),
    "f": ("boolean", "bool"),
    # Dates and instants around 2024, and dates and instants in the years 1 to 9999.
    "day": ("date", "date"),
    "far": ("date", "far_date"),
    "ts": ("timestamptz", "time"),
    "tf": ("timestamptz", "far_time"),
}

WORDS = ["", "a", "b", "ab", "Ab", "abc", " b ", "a%b", "a_b", "Zürich", "東京", "x,y,z", "NULL", "b\\c", "aaa", "it's"]
DIGITS = ["0", "1", "-1", "12", " 7 ", "007", "3.5", "-2.5", "1e3", "2147483648", "99999999999999999999", "x", "", "+4", ".5"]
WILD = {
    "int": [-(2**31), 2**31 - 1, -1, 0, 1, 2, 65536, 46341],
    "big": [-(2**63), 2**63 - 1, 2**53, 2**53 + 1, -1, 0, 1, 3037000500, 2**31],
    "double": [0.0, -0.0, 1e300, -1e300, 1e-300, 2.0**53, 2.0**63, 0.1, 0.5, 1.5, 2.5, -2.5, 2147483647.5],
}
FAR_DAYS = ["0001-01-01", "0099-12-31", "1582-10-15", "1900-02-28", "1969-12-31", "1970-01-01", "2000-02-29", "9999-12-31"]
DAYS = ["2023-12-31", "2024-01-01", "2024-01-31", "2024-02-28", "2024-02-29", "2024-03-31", "2024-10-27", "2025-02-28"]
TIMES = [
    "2023-12-31T23:59:59.999999",
    "2024-01-01T00:00:00",
    "2024-02-29T12:30:15.25",
    "2024-03-31T00:59:59",
    "2024-03-31T01:00:00",
    "2024-10-27T00:30:00",
    "2024-10-27T01:30:00",
    "2024-03-10T07:00:00",
    "2024-11-03T05:30:00",
    "2024-06-15T18:45:30.000001",
    "2024-01-31T23:00:00",
]
FAR_TIMES = [
    "0001-01-01T00:00:00",
    "1883-11-18T12:00:00",
    "1969-12-31T23:59:59.999999",
    "1970-01-01T00:00:00",
    "1999-12-31T23:59:59",
    "2038-01-19T03:14:08",
    "9999-12-31T23:59:59.999999",
]


def _value(rng, kind):
    """Returns a value of a column, as JSON."""
    match kind:
        case "int":
            return rng.randint(-9, 20)
        case "big":
            return rng.choice([rng.randint(-1_000_000, 1_000_000), rng.randint(0, 5)])
        case "double":
            return rng.randint(-40, 80) / 4
        case "wild_int" | "wild_big" | "wild_double":
            return rng.choice(WILD[kind.removeprefix("wild_")])
        case "text":
            return rng.choice(WORDS)
        case "digits":
            return rng.choice(DIGITS)
        case "bool":
            return rng.random() < 0.5
        case "date":
            return rng.choice(DAYS)
        case "far_date":
            return rng.choice(FAR_DAYS)
        case "time":
            return rng.choice(TIMES) + "Z"
        case "far_time":
            return rng.choice(FAR_TIMES) + "Z"


def make_rows(seed, table, tenant):
    """Returns the rows of a table. About one value in five is NULL."""
    rng = random.Random(f"{seed} {table} {tenant}")
    rows = []
    for number in range(1, (ROWS[table] if tenant == TENANT else OTHER_ROWS) + 1):
        row = {"n": number, "k": rng.randint(1, 4) if rng.random() < 0.8 else None}
        for name, (_, kind) in COLUMNS.items():
            if name not in row:
                row[name] = _value(rng, kind) if rng.random() < 0.8 else None
        rows.append(row)
    return rows


def fill_postgres(connection, seed):
    """Creates the tables in PostgreSQL."""
    names = ", ".join(COLUMNS)
    for table in ROWS:
        kinds = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(f"CREATE TABLE {table} ({kinds})")
        for row in make_rows(seed, table, TENANT):
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(COLUMNS))})", list(row.values()))
        connection.execute(f"ANALYZE {table}")


def fill_glasshouse(facts, seed):
    """Ingests the rows of both tenants over HTTP, in several requests for each table. Returns after all rows are committed."""
    start = datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc)
    for table in ROWS:
        rows = [
            {
                "tenant": tenant,
                "id": f"{tenant}-{row['n']}",
                "at": (start + datetime.timedelta(hours=row["n"])).isoformat(),
                **row,
            }
            for tenant in (TENANT, OTHER)
            for row in make_rows(seed, table, tenant)
        ]
        for part in range(FILES):
            body = "\n".join(json.dumps(row) for row in rows[part::FILES]).encode()
            receipt = _post(facts, table, body)
            assert receipt["rejected"] == receipt["conflict"] == 0, receipt


def _post(facts, table, body):
    request = urllib.request.Request(
        f"http://{facts['http']}/v1/tables/{table}/events",
        data=body,
        headers={"authorization": f"Bearer {facts['tokens']['operator']}", "content-type": "application/x-ndjson"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)
