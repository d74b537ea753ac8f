"""The statements of a hostile tenant, by name. hostile_statements.py and hostile_syntax.py add them.

Each statement tries to use a lot of processor time or memory, to cause deep recursion, or to make the server panic.
`NAMED` contains the statements that the server must refuse, each with the error of its limit. `OTHERS` contains
statements that may return rows, or fail with the error of any limit.

A statement is a text, or a pair of a text and a bound value. The table `samples` has 300,000 rows (see
bounds_suite.py).
"""

ROWS = "generate_series(1, 8192) AS g(value)"
ONE = "generate_series(1, 1) AS g(value)"
MEBI = 1 << 20
# A size that is just below the default of `query.sql_bytes_max`, 256 KiB.
SQL_BYTES_MAX = 255_000

# The errors of limits, as regular expressions.
TIME = r"limit query\.time_max"
MEMORY = r"limit query\.memory_bytes_max"
RESULT = r"more than 33554432 bytes for one batch"
LISTS = r"would return more than 33554432 bytes for one batch"
LITERALS = r"literals of the plan have \d+ bytes|values of a column exceed 2 GiB"
TEXT = r"limit query\.sql_bytes_max"
NESTED = r"nested (too deeply|more than)"
CHAIN = r"chains more than \d+ operators"
WINDOWS = r"more than \d+ window functions"
TABLES = r"(names|reads) more than \d+ tables"
CROSS = r"more than (\d+ joins without an equality|2\^63 rows)"
STATES = r"more than \d+ states"
SETS = r"more than \d+ grouping sets"
FRAMES = r"windows of .* have more than"
PLACEHOLDERS = r"placeholders, but at most"
FORMAT = r"format of `\w+` has more than"
ROW = r"one row takes \d+ bytes"

NAMED = {}
OTHERS = {}


def named(limit, name, statement):
    """Adds a statement that must be refused with an error that matches `limit`."""
    assert name not in NAMED and name not in OTHERS, name
    NAMED[name] = (statement, limit)


def other(name, statement):
    """Adds a statement that may return rows or exceed a limit."""
    assert name not in NAMED and name not in OTHERS, name
    OTHERS[name] = statement


def commas(count, each):
    """Joins `count` texts with commas. `each` returns the text for an index."""
    return ", ".join(each(index) for index in range(count))


def unions(count, each):
    return " UNION ALL ".join(each(index) for index in range(count))


def nest(count, before, inner, after):
    return before * count + inner + after * count


def chain_of_ctes(count, first, each):
    """Returns a statement with `count` WITH queries. `each` returns a query for the name of the previous one."""
    queries = [f"c0 AS ({first})"] + [f"c{index} AS ({each(f'c{index - 1}')})" for index in range(1, count + 1)]
    return "WITH " + ", ".join(queries)


def nest_most(before, inner, after):
    """Nests as often as possible in a statement of `SQL_BYTES_MAX` bytes."""
    return nest(SQL_BYTES_MAX // len(before + after), before, inner, after)


def values(count):
    return commas(count, lambda index: f"(VALUES (1), (2), (3)) AS v{index}(x)")
