"""Checks that a tenant reads only its own rows of a lookup table with `tenant`, whatever it asks.

The lookup table `accounts` has rows of `acme` and many more rows of `globex`, whose values contain telltales. If the server
evaluated an expression on a row of `globex` for `acme`, most of the statements would fail or reveal a telltale. The lookup
table `plans` is shared, and `internal` has no policy. `tests/it/lookups.rs` writes their files.
"""

import urllib.error

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager

import rows
from checks import check, equal, main, refused

HEADER = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
Error = adbc_driver_manager.Error
# Texts that only rows of `globex` and the file of the lookup table contain.
TELLTALES = ["globex", "zebra", "777", "2031", "23:57", "accounts.json", "internal"]

# Statements that return rows, with their results for `acme`.
RETURNED = [
    ("SELECT count(*) FROM accounts", 3),
    ("SELECT count(*) FROM glasshouse.public.accounts", 3),
    ("SELECT count(*) FROM accounts WHERE owner = 'glo' || 'bex' OR owner IS NULL", 0),
    ("SELECT count(*) FROM (TABLE accounts) AS t WHERE owner <> 'acme'", 0),
    ("SELECT string_agg(DISTINCT owner, ',') FROM accounts", "acme"),
    ("SELECT max(seats) FROM accounts", 3),
    ("SELECT CAST(max(price) AS TEXT) FROM accounts", "3.50"),
    ("SELECT CAST(max(since) AS TEXT) FROM accounts", "2024-01-03"),
    ("SELECT CAST(max(opens) AS TEXT) FROM accounts", "03:00:00"),
    ("SELECT sum(CAST(secret AS BIGINT)) FROM accounts", 60),
    ("SELECT sum(1 / (seats - 700 - 77)) FROM accounts", 0),
    ("SELECT count(*) FROM accounts WHERE seats = 700 + 77 OR 1 / (seats - 700 - 77) = 0", 3),
    ("SELECT count(CAST(substr(plan, 1, 1) || '0' AS TEXT)) FROM accounts", 3),
    ("SELECT count(*) FROM accounts WHERE CAST(ref AS UUID) = ref", 3),
    ("SELECT count(*) FROM accounts WHERE array_has(tags, 'ze' || 'bra')", 0),
    ("SELECT string_agg(tag, ',' ORDER BY tag) FROM (SELECT unnest(tags) AS tag FROM accounts) AS t", "a,a,b"),
    ("SELECT max(cardinality(tags)) FROM accounts", 2),
    ("SELECT array_to_string(array_sort(array_distinct(flatten(array_agg(tags)))), ',') FROM accounts", "a,b"),
    ("SELECT count(*) FROM accounts WHERE array_to_string(tags, '') LIKE '%ze' || 'bra%'", 0),
    ("SELECT string_agg(DISTINCT doc->>'k', ',') FROM accounts", "own"),
    ("SELECT sum(CAST(doc->>'n' AS BIGINT)) FROM accounts", 6),
    ("SELECT sum(json_int(doc, 'n')) FROM accounts", 6),
    ("SELECT count(*) FROM accounts WHERE json_text(doc, 'k') = 'ze' || 'bra'", 0),
    ("SELECT count(*) FROM accounts WHERE json_array_length(doc, 'a') > 1", 0),
    ("SELECT string_agg(x, ',') FROM (SELECT unnest(json_text_array(doc, 'a', '*')) AS x FROM accounts) AS t", "own,own,own"),
    ("SELECT count(*) FROM (SELECT unnest(json_array(doc, 'a')) AS x FROM accounts) AS t", 3),
    ("SELECT string_agg(DISTINCT doc #>> '{a,0}', ',') FROM accounts", "own"),
    ("SELECT string_agg(DISTINCT json_typeof(doc, 'k'), ',') FROM accounts", "string"),
    ("SELECT count(DISTINCT CAST(CAST(doc AS TEXT) AS JSON)) FROM accounts", 3),
    ("SELECT count(CAST(arrow_cast(decode(encode(CAST(secret AS BYTEA), 'base64'), 'base64'), 'Utf8') AS BIGINT)) FROM accounts", 3),
    ("SELECT count(*) FROM accounts AS a JOIN accounts AS b ON a.seats <> b.seats", 6),
    ("SELECT count(*) FROM accounts AS a CROSS JOIN accounts AS b", 9),
    ("SELECT count(*) FROM plans AS p LEFT JOIN accounts AS a USING (plan)", 4),
    ("SELECT count(*) FROM plans AS p FULL JOIN accounts AS a ON a.plan = p.plan AND 1 / (a.seats - 700 - 77) = 0", 4),
    ("SELECT count(*) FROM plans WHERE plan NOT IN (SELECT plan FROM accounts)", 1),
    ("SELECT count(*) FROM plans AS p WHERE EXISTS (SELECT 1 FROM accounts AS a WHERE a.plan = p.plan)", 2),
    ("SELECT max((SELECT count(*) FROM accounts AS a WHERE a.plan = p.plan)) FROM plans AS p", 2),
    ("SELECT count(*) FROM plans AS p CROSS JOIN LATERAL (SELECT secret FROM accounts AS a WHERE a.plan >= p.plan) AS t", 4),
    ("SELECT count(*) FROM samples AS s RIGHT JOIN accounts AS a ON s.small = a.seats", 3),
    ("WITH a AS (SELECT * FROM accounts), b AS (SELECT * FROM a UNION ALL SELECT * FROM a) SELECT count(*) FROM b", 6),
    ("WITH RECURSIVE r(n) AS (SELECT min(seats) FROM accounts UNION ALL SELECT n + 1 FROM r, accounts WHERE n + 1 = seats) SELECT max(n) FROM r", 3),
    ("SELECT count(*) FROM (SELECT secret FROM accounts EXCEPT SELECT secret FROM accounts WHERE owner = 'acme') AS t", 0),
    ("SELECT count(*) FROM (SELECT secret FROM accounts INTERSECT ALL SELECT secret FROM accounts) AS t", 3),
    ("SELECT max(n) FROM (SELECT count(*) OVER () AS n FROM accounts) AS t", 3),
    ("SELECT max(n) FROM (SELECT lead(seats, 1, 0) OVER (ORDER BY secret) AS n FROM accounts) AS t", 3),
    ("SELECT count(*) FROM (SELECT owner, count(*) FROM accounts GROUP BY ROLLUP (owner)) AS t", 2),
    ("SELECT approx_distinct(secret) FROM accounts", 3),
    ("SELECT CAST(mode() WITHIN GROUP (ORDER BY seats) AS TEXT) FROM accounts", "1"),
    ("SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'inter%'", 0),
    ("SELECT data_type FROM information_schema.columns WHERE table_name = 'accounts' AND column_name = 'ref'", "UUID"),
]

# Statements whose rows or errors must not contain a telltale. `EXPLAIN` shows statistics, and the errors show values.
SHOWN = [
    "SELECT * FROM accounts",
    "SELECT * FROM accounts ORDER BY secret DESC LIMIT 1 OFFSET 2",
    "SELECT DISTINCT ON (owner) * FROM accounts",
    "SELECT min(secret), max(secret), min(plan), max(plan), array_agg(doc), array_agg(tags) FROM accounts",
    "SELECT * FROM samples AS s FULL JOIN accounts AS a ON s.small = a.seats",
    "SELECT * FROM plans AS p RIGHT JOIN accounts AS a ON p.plan < a.plan",
    "EXPLAIN SELECT * FROM accounts WHERE seats > 5",
    "EXPLAIN VERBOSE SELECT a.secret FROM accounts AS a JOIN plans AS p USING (plan) WHERE a.tags[1] = 'a'",
    "EXPLAIN ANALYZE SELECT sum(seats) FROM accounts WHERE secret > '1' GROUP BY plan",
    "EXPLAIN ANALYZE VERBOSE SELECT * FROM accounts AS a JOIN samples AS s ON s.small = a.seats",
    "SHOW TABLES",
    "SHOW COLUMNS FROM accounts",
    "DESCRIBE accounts",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT * FROM information_schema.views WHERE table_schema = 'public'",
]

# Statements that fail, because a value of `acme`, or the statement, has no answer. They must not reveal a telltale.
FAILING = [
    "SELECT CAST(plan AS BIGINT) FROM accounts",
    "SELECT CAST(account AS DECIMAL(5, 2)) FROM accounts",
    "SELECT CAST(account AS UUID) FROM accounts",
    "SELECT CAST(account AS JSON) FROM accounts",
    "SELECT CAST(account AS DATE) FROM accounts",
    "SELECT CAST(account AS TIME) FROM accounts",
    "SELECT CAST(doc->>'k' AS BIGINT) FROM accounts",
    "SELECT CAST(tags[1] AS BIGINT) FROM accounts",
    "SELECT decode(account, 'base64') FROM accounts",
    "SELECT decode(account, 'hex') FROM accounts",
    "SELECT 1 / (seats - 3) FROM accounts",
    "SELECT seats * 9223372036854775807 FROM accounts",
    "SELECT (SELECT secret FROM accounts) FROM plans",
    "SELECT regexp_like(account, '(' || account) FROM accounts",
    "SELECT repeat(secret, 2147483647) FROM accounts",
    "SELECT array_resize(tags, -seats) FROM accounts",
    "SELECT secret FROM accounts WHERE nothing = 1",
    "SELECT doc #> CAST(account AS TEXT) FROM accounts",
    "SELECT * FROM accounts AS a JOIN samples AS s USING (secret)",
    "SELECT * FROM freshness('accounts')",
    "SELECT * FROM accounts_changes",
    "SELECT * FROM accounts_quarantine",
    "SELECT * FROM '/accounts'",
    "SELECT * FROM public.accounts.secret",
    "DELETE FROM accounts",
    "COPY accounts TO 'x.csv'",
]


def connect(facts, caller):
    options = {HEADER: f"Bearer {facts['tokens'][caller]}"}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def fetch(cursor, sql, bound=None):
    """Runs a statement. Returns its rows, or the error as a text, and whether it failed."""
    try:
        cursor.execute(sql, bound)
        return cursor.fetch_arrow_table().to_pylist(), False
    except Error as error:
        return str(error), True


def reveals(sql, shown):
    """Returns a line for an outcome that contains a telltale, and an empty list for others."""
    found = [telltale for telltale in TELLTALES if telltale in str(shown)]
    return [f"{sql}: {found} in {str(shown)[:500]}"] if found else []


def none_of(problems):
    assert not problems, "\n".join(problems)


@check
def statements_return_only_own_rows(facts):
    problems = []
    with connect(facts, "acme") as connection, connection.cursor() as cursor:
        for sql, expected in RETURNED:
            found, failed = fetch(cursor, sql)
            value = None if failed else list(found[0].values())[0] if found else None
            if failed or value != expected:
                problems.append(f"{sql}: expected {expected!r}, got {found}")
            problems += reveals(sql, found)
    none_of(problems)
    return f"{len(RETURNED)} statements"


@check
def another_tenant_sees_its_rows(facts):
    with connect(facts, "globex") as connection, connection.cursor() as cursor:
        equal(fetch(cursor, "SELECT DISTINCT owner, secret FROM accounts"), ([{"owner": "globex", "secret": "zebra"}], False))
        equal(fetch(cursor, "SELECT count(*) AS n FROM accounts WHERE tags[1] = 'zebra' AND doc->>'k' = 'zebra'"), ([{"n": 500}], False))
    with connect(facts, "initech") as connection, connection.cursor() as cursor:
        equal(fetch(cursor, "SELECT count(*) AS n FROM accounts"), ([{"n": 0}], False))


@check
def outputs_contain_no_foreign_values(facts):
    problems = []
    with connect(facts, "acme") as connection, connection.cursor() as cursor:
        for sql in SHOWN:
            found, failed = fetch(cursor, sql)
            problems += [f"{sql}: {found}"] if failed or not found else reveals(sql, found)
    none_of(problems)


@check
def errors_contain_no_foreign_values(facts):
    problems = []
    with connect(facts, "acme") as connection, connection.cursor() as cursor:
        for sql in FAILING:
            found, failed = fetch(cursor, sql)
            # An error may quote the statement, but no statement contains a telltale.
            problems += reveals(sql, found)
            if not failed:
                problems.append(f"{sql}: expected an error, got {found}")
    none_of(problems)


@check
def bound_values_find_only_own_rows(facts):
    with connect(facts, "acme") as connection, connection.cursor() as cursor:
        for sql, bound in (
            ("SELECT count(*) AS n FROM accounts WHERE owner = ?", ["globex"]),
            ("SELECT count(*) AS n FROM accounts WHERE secret >= ?", ["z"]),
            ("SELECT count(*) AS n FROM accounts WHERE array_has(tags, ?)", ["zebra"]),
            ("SELECT count(*) AS n FROM accounts WHERE doc->>'k' = ?", ["zebra"]),
        ):
            equal(fetch(cursor, sql, bound), ([{"n": 0}], False), sql)


@check
def a_lookup_without_a_policy_looks_absent(facts):
    with connect(facts, "acme") as connection, connection.cursor() as cursor:
        for sql in ("SELECT * FROM {}", "DESCRIBE {}", "SELECT 1 FROM accounts WHERE EXISTS (SELECT 1 FROM {})"):
            hidden, missing = (fetch(cursor, sql.format(name)) for name in ("internal", "missing_"))
            equal(hidden[0].replace("internal", "missing_"), missing[0])
            equal((hidden[1], missing[1]), (True, True))


@check
def lookup_tables_accept_no_events(facts):
    for caller in ("acme", "operator"):
        error = refused(lambda: rows.post(facts, "accounts", facts["tokens"][caller], b"{}"), urllib.error.HTTPError)
        body = error.read().decode()
        assert error.code == 403 and "is a lookup table, which accepts no events" in body, (error.code, body)


if __name__ == "__main__":
    main()
