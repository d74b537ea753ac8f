"""The statements of a hostile tenant, for bounds_suite.py.

Each statement tries to take much processor time or memory, to recurse deeply, or to make the server panic. `NAMED` lists
the statements that the server must refuse, each with the error that names the limit. `OTHERS` lists statements that may
return rows, or fail with the error of any limit.

A statement is a text, or a pair of a text and a bound value. The table `samples` has 300,000 rows (see bounds_suite.py).
"""

import pyarrow as pa

ROWS = "generate_series(1, 8192) AS g(value)"
ONE = "generate_series(1, 1) AS g(value)"
MEBI = 1 << 20

# The errors of limits, as regular expressions.
TIME = r"limit query\.time_max"
MEMORY = r"limit query\.memory_bytes_max"
RESULT = r"more than 33554432 bytes for one batch"
LISTS = r"constant lists of the statement take up"
LITERALS = r"literals of the plan have \d+ bytes|values of a column exceed 2 GiB"
TEXT = r"limit query\.sql_bytes_max"
NESTED = r"nested (too deeply|more than)"
CHAIN = r"chains more than \d+ operators"
WINDOWS = r"more than \d+ window functions"
TABLES = r"(names|reads) more than \d+ tables"
CROSS = r"more than \d+ joins without an equality"
PARTS = r"more than \d+ nodes and expressions"
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
    """Joins `count` texts, which `each` makes from their index."""
    return ", ".join(each(index) for index in range(count))


def unions(count, each):
    return " UNION ALL ".join(each(index) for index in range(count))


def nest(count, before, inner, after):
    return before * count + inner + after * count


def chain_of_ctes(count, first, each):
    """Returns a statement with `count` WITH queries. Each one is made by `each` from the name of the previous one."""
    queries = [f"c0 AS ({first})"] + [f"c{index} AS ({each(f'c{index - 1}')})" for index in range(1, count + 1)]
    return "WITH " + ", ".join(queries)


def values(count):
    return commas(count, lambda index: f"(VALUES (1), (2), (3)) AS v{index}(x)")


def results():
    """Results of functions that are much larger than their arguments."""
    for name, call in (
        ("repeat", "repeat('x', 30000000 + value)"),
        ("lpad", "lpad('x', 30000000 + value, 'ab')"),
        ("rpad", "rpad('x', 30000000 + value, 'ab')"),
        ("range", "range(0, 1000000 + value)"),
        ("timestamps", "generate_series('2024-01-01'::timestamp, '2024-01-02'::timestamp, value * INTERVAL '1 microsecond')"),
        ("dates", "range('0001-01-01'::date, '9999-01-01'::date + CAST(value AS INT), INTERVAL '1 day')"),
        ("array_repeat", "array_repeat('abc', 1000000 + value)"),
        ("nested array_repeat", "array_repeat(array_repeat(1, 1000 + value), 1000)"),
        ("replace", "replace(repeat('a', 100 + value % 7), 'a', repeat('b', 1000))"),
        ("regexp_replace", "regexp_replace(repeat('a', 100 + value % 7), 'a', repeat('b', 1000), 'g')"),
        ("regexp_replace of nothing", "regexp_replace(repeat('a', 100 + value % 7), '', repeat('b', 1000), 'g')"),
        ("regexp_replace with groups", "regexp_replace(repeat('a', 100 + value % 7), '(.*)', repeat('\\1', 1000))"),
        ("concat_ws", "concat_ws(repeat('x', 100000), " + commas(100, lambda index: f"value + {index}") + ")"),
        ("array_to_string", "array_to_string(range(0, 100 + value % 7), repeat('x', 1000))"),
        ("array_replace_all", "cardinality(array_replace_all(array_repeat('a', 100 + value % 7), 'a', repeat('x', 1000)))"),
        ("array_sort", "array_sort(range(0, 1000000 + value))[1]"),
        ("array_distinct", "cardinality(array_distinct(range(0, 1000000 + value)))"),
        ("array_union", "cardinality(array_union(range(0, 1000000 + value), range(5, 1000000 - value)))"),
        ("array_except", "cardinality(array_except(range(0, 1000000 + value), range(5, 1000 + value)))"),
        ("array_intersect", "cardinality(array_intersect(range(0, 1000000 + value), range(5, 1000 + value)))"),
        ("array_position", "array_position(range(0, 1000000 + value), 999999)"),
        ("array_remove", "cardinality(array_remove(range(0, 1000000 + value), 5))"),
        ("array_has", "array_has(range(0, 1000000 + value), value)"),
        ("array_has_any", "array_has_any(range(0, 200 + value % 7), range(-200 - value % 7, -5))"),
        ("array_concat", "cardinality(array_concat(" + commas(100, lambda index: "range(0, 100 + value % 7)") + "))"),
        ("string_to_array", "cardinality(string_to_array(repeat('a,', 1000000 + value), ','))"),
        ("md5", "md5(repeat('a', 1000000 + value))"),
        ("levenshtein", "levenshtein(repeat('a', 1000 + value % 7), repeat('b', 1000))"),
        ("split_part", "split_part(repeat('a,', 1000000 + value), ',', 999999)"),
        ("upper", "upper(repeat('ŉ', 1000000 + value))"),
    ):
        named(RESULT, f"{name} per row", f"SELECT {call} AS s FROM {ROWS}")
    text = "repeat('x', 250000 + value)"
    named(RESULT, "8 columns of repeat", "SELECT " + commas(8, lambda index: f"repeat(chr(65 + {index}), 250000 + value)") + f" FROM {ROWS}")
    named(RESULT, "repeat as a group key", f"SELECT {text} AS s, count(*) FROM {ROWS} GROUP BY 1")
    named(RESULT, "repeat as a sort key", f"SELECT value FROM {ROWS} ORDER BY {text}")
    named(RESULT, "repeat in DISTINCT", f"SELECT count(DISTINCT {text}) FROM {ROWS}")
    named(RESULT, "repeat in max", f"SELECT min({text}), max({text}) FROM {ROWS}")
    named(RESULT, "repeat in string_agg", f"SELECT string_agg({text}, ',') FROM {ROWS}")
    named(RESULT, "repeat in array_agg", f"SELECT array_agg({text}) FROM {ROWS}")
    named(RESULT, "repeat in a window", f"SELECT lag({text}) OVER (ORDER BY value) FROM {ROWS}")
    named(RESULT, "repeat in a join", f"SELECT count(*) FROM {ROWS} JOIN samples ON id = {text}")
    named(RESULT, "unnest of a long list per row", f"SELECT count(*) FROM (SELECT unnest(range(0, 100000 + value)) FROM {ROWS}) AS t")
    named(RESULT, "regexp_count over a long text per row", f"SELECT sum(regexp_count(repeat('ab', 10000 + value), '(a|b)*c')) FROM {ROWS}")
    named(RESULT, "levenshtein of two long texts", f"SELECT levenshtein(repeat('a', 10000000 + value), repeat('b', 10000000)) FROM {ONE}")
    named(RESULT, "a value that 16 subqueries double", f"SELECT max(length(x)) FROM {nest(16, '(SELECT x || x AS x FROM ', '(SELECT id AS x FROM samples) AS t', ') AS t')}")
    named(RESULT, "a value that 40 WITH queries double", chain_of_ctes(40, "SELECT id AS x FROM samples", lambda last: f"SELECT x || x AS x FROM {last} OFFSET 1") + " SELECT max(length(x)) FROM c40")
    named(RESULT, "replace 12 times", "SELECT max(length(" + nest(12, "replace(", "id", ", '0', '00000000')") + ")) FROM samples")
    named(RESULT, "regexp_replace 12 times", "SELECT max(length(" + nest(12, "regexp_replace(", "id", ", '0', '00000000', 'g')") + ")) FROM samples")
    named(RESULT, "a range of 10^12", "SELECT cardinality(range(0, 1000000000000))")
    named(RESULT, "array_repeat of NULL", f"SELECT cardinality(array_repeat(NULL, 1000000000 + value)) FROM {ONE}")
    named(RESULT, "array_repeat of an empty list", f"SELECT cardinality(array_repeat(make_array(), 1000000000 + value)) FROM {ONE}")


def memory():
    """Values that operators copy for many rows, or keep."""
    wide = "SELECT repeat('x', 1000000 + value) AS s FROM generate_series(1, 1) AS w(value)"
    narrow = "SELECT repeat('x', 10000 + value) AS s FROM generate_series(1, 1) AS w(value)"
    for name, use in (
        ("cross join", f"SELECT max(length(s) + b.value) FROM ({wide}) AS a CROSS JOIN generate_series(1, 8192) AS b(value)"),
        ("cross join with concat", f"SELECT max(length(concat(s, b.value))) FROM ({wide}) AS a CROSS JOIN generate_series(1, 8192) AS b(value)"),
        ("cross join as the result", f"SELECT s, b.value FROM ({wide}) AS a CROSS JOIN generate_series(1, 8192) AS b(value)"),
        ("cross join with samples", f"SELECT max(concat(left(s, 5), id)), min(s || id) FROM ({wide}) AS a CROSS JOIN samples"),
        ("hash join", f"SELECT max(concat(s, id)) FROM (SELECT repeat('x', 1000000 + value) AS s, value AS k FROM generate_series(1, 1) AS w(value)) AS a JOIN (SELECT id, small * 0 + 1 AS k FROM samples) AS b ON a.k = b.k"),
        ("left join", f"SELECT max(concat(s, id)) FROM samples LEFT JOIN ({wide}) AS a ON length(s) > small"),
        ("scalar subquery", f"SELECT max(length(concat(id, (SELECT s FROM ({wide}) AS a)))) FROM samples"),
        ("coalesce", f"SELECT max(coalesce(nullif(label, label), s)) FROM samples CROSS JOIN ({wide}) AS a"),
        ("first_value", f"SELECT max(concat(f, value)) FROM (SELECT value, first_value(s) OVER (ORDER BY value) AS f FROM (SELECT value, CASE WHEN value = 1 THEN repeat('x', 1000000 + value) ELSE 'y' END AS s FROM {ROWS}) AS t) AS u"),
        ("max over all rows", f"SELECT max(concat(f, value)) FROM (SELECT value, max(s) OVER () AS f FROM (SELECT value, CASE WHEN value = 1 THEN repeat('z', 1000000 + value) ELSE 'y' END AS s FROM {ROWS}) AS t) AS u"),
        ("max of preceding rows", f"SELECT max(concat(f, value)) FROM (SELECT value, max(s) OVER (ORDER BY value) AS f FROM (SELECT value, CASE WHEN value = 1 THEN repeat('z', 1000000 + value) ELSE 'y' END AS s FROM {ROWS}) AS t) AS u"),
        ("nth_value", f"SELECT max(concat(f, value)) FROM (SELECT value, nth_value(s, 1) OVER (ORDER BY value) AS f FROM (SELECT value, CASE WHEN value = 1 THEN repeat('z', 1000000 + value) ELSE 'y' END AS s FROM {ROWS}) AS t) AS u"),
        ("any_value", f"SELECT max(concat(f, id)) FROM samples CROSS JOIN (SELECT any_value(s) AS f FROM ({wide}) AS a) AS b"),
        ("unnest", f"SELECT max(concat(s, v)) FROM (SELECT s, unnest(range(0, 1000000)) AS v FROM ({narrow}) AS a) AS t"),
        ("unnest as the result", f"SELECT s, unnest(range(0, 1000000)) AS v FROM ({narrow}) AS a"),
        ("lateral unnest", f"SELECT max(concat(s, v)) FROM ({narrow}) AS a CROSS JOIN unnest(range(0, 1000000)) AS u(v)"),
        ("group by with constants", f"SELECT max(length(s)) FROM (SELECT s, id, count(*) FROM samples CROSS JOIN ({narrow}) AS a GROUP BY s, id) AS t"),
        ("sort", f"SELECT s, id FROM samples CROSS JOIN ({narrow}) AS a ORDER BY s, id DESC"),
        ("top rows", f"SELECT s, id FROM samples CROSS JOIN ({narrow}) AS a ORDER BY s, id DESC LIMIT 1000"),
        ("array_agg", f"SELECT array_length(array_agg(s || id)) FROM samples CROSS JOIN ({narrow}) AS a"),
        ("string_agg", f"SELECT length(string_agg(s || id, ',')) FROM samples CROSS JOIN ({narrow}) AS a"),
        ("distinct", f"SELECT count(DISTINCT s || id) FROM samples CROSS JOIN ({narrow}) AS a"),
        ("union", f"SELECT count(*) FROM (SELECT s || id FROM samples CROSS JOIN ({narrow}) AS a UNION SELECT id || s FROM samples CROSS JOIN ({narrow}) AS b) AS t"),
    ):
        other(f"a long text: {name}", use)
    for name, use in (
        ("projection", "SELECT {} AS s, value FROM " + ROWS),
        ("maximum", "SELECT max(length(concat({}, value))) FROM " + ROWS),
        ("CASE", "SELECT max(length(CASE WHEN value > 0 THEN {} ELSE 'y' END)) FROM " + ROWS),
        ("coalesce", "SELECT max(length(coalesce(nullif(value, value)::text, {}))) FROM " + ROWS),
        ("struct", "SELECT max(length(named_struct('a', {}, 'b', value)['a'])) FROM " + ROWS),
        ("list", "SELECT max(cardinality(make_array({}, value::text))) FROM " + ROWS),
        ("union", "SELECT max(s) FROM (SELECT {} AS s FROM samples UNION ALL SELECT id FROM samples) AS t"),
        ("window", "SELECT max(length(s)) FROM (SELECT lead({}, 1) OVER (ORDER BY value) AS s FROM " + ROWS + ") AS t"),
        ("group key", "SELECT count(*) FROM (SELECT {}, id FROM samples GROUP BY 1, 2) AS t"),
        ("sort key", "SELECT id FROM samples ORDER BY {}, id"),
        ("array_agg", "SELECT array_length(array_agg({})) FROM samples"),
        ("string_agg", "SELECT length(string_agg(id, {})) FROM samples"),
        ("IN list", "SELECT count(*) FROM samples WHERE id IN ('a', 'b', {})"),
        ("LIKE", "SELECT count(*) FROM samples WHERE id LIKE {}"),
        ("pattern", "SELECT count(*) FROM samples WHERE id ~ {}"),
        ("replace", "SELECT max(length(replace(id, '0', {}))) FROM samples"),
        ("strpos", "SELECT max(strpos(id, {})) FROM samples"),
        ("translate", "SELECT max(translate(id, {}, 'x')) FROM samples"),
        ("cast", "SELECT TRY_CAST({} AS DECIMAL(38, 5)), TRY_CAST({} AS BIGINT), TRY_CAST({} AS DOUBLE), TRY_CAST({} AS TIMESTAMP)"),
    ):
        if name != "cast":
            other(f"a literal of 250,000 bytes: {name}", use.format("'" + "9" * 250_000 + "'"))
            other(f"a folded literal of 250,000 bytes: {name}", use.format("repeat('9', 250000)"))
            other(f"a bound text of 1,000,000 bytes: {name}", (use.format("$1"), "9" * 1_000_000))
        else:
            other(f"a literal of 60,000 bytes: {name}", use.format(*["'" + "9" * 60_000 + "'"] * 4))
    for count in (30, 300):
        other(f"{count} large columns of one row", "SELECT " + commas(count, lambda index: f"max(length(c{index}))") + " FROM (SELECT " + commas(count, lambda index: f"repeat(chr({200 + index}), 15000000 + value) AS c{index}") + f" FROM {ONE} OFFSET 0) AS t")
        other(f"concat of {count} large texts", "SELECT length(concat(" + commas(count, lambda index: f"repeat('x', 30000000 + value + {index})") + f")) FROM {ONE}")
        other(f"greatest of {count} large texts", "SELECT length(greatest(" + commas(count, lambda index: f"repeat('x', 30000000 + value + {index})") + f")) FROM {ONE}")
        other(f"a list of {count} large texts", "SELECT cardinality(make_array(" + commas(count, lambda index: f"repeat('x', 30000000 + value + {index})") + f")) FROM {ONE}")
        other(f"a struct of {count} large texts", "SELECT length(struct(" + commas(count, lambda index: f"repeat('x', 30000000 + value + {index})") + f")['c0']) FROM {ONE}")
    for name, before in (("maximum", "SELECT max(length(s))"), ("maximum of texts", "SELECT max(s)"), ("array_agg", "SELECT array_length(array_agg(s))"), ("string_agg", "SELECT length(string_agg(s, ','))"), ("window", "SELECT length(s), row_number() OVER (ORDER BY s)")):
        other(f"90 large rows: {name}", before + " FROM (" + unions(90, lambda index: f"SELECT repeat('x', 30000000 + value + {index}) AS s FROM {ONE}") + ") AS t")
    other("90 large rows: filter", "SELECT max(length(s)) FROM (" + unions(90, lambda index: f"SELECT repeat('x', 30000000 + value + {index}) AS s FROM {ONE}") + ") AS t WHERE s <> 'y'")
    other("90 large rows: sort", "SELECT length(s) FROM (" + unions(90, lambda index: f"SELECT repeat('x', 30000000 + value + {index}) AS s FROM {ONE}") + ") AS t ORDER BY s")
    other("90 large rows: distinct", "SELECT count(*) FROM (SELECT DISTINCT s FROM (" + unions(90, lambda index: f"SELECT repeat('x', 30000000 + value + {index}) AS s FROM {ONE}") + ") AS t) AS u")
    other("90 large rows: intersect", " INTERSECT ".join(f"SELECT repeat('x', 30000000 + value) AS s FROM {ONE}" for _ in range(90)))
    other("90 large scalar subqueries", "SELECT " + commas(90, lambda index: f"length((SELECT repeat('x', 30000000 + value + {index}) FROM {ONE}))"))
    other("12 copies of each long text in one row", "SELECT " + commas(12, lambda index: f"s || '{index}' AS c{index}") + f" FROM ({narrow}) AS a CROSS JOIN generate_series(1, 3000)")
    other("array_agg of all rows as lists", "SELECT array_length(array_agg(a)) FROM (SELECT array_agg(id) AS a FROM samples GROUP BY small) AS t")
    other("array_agg of all rows in order", "SELECT array_length(array_agg(concat(id, id, id) ORDER BY id DESC)) FROM samples")
    other("string_agg in order", "SELECT length(string_agg(DISTINCT id, ',' ORDER BY id)) FROM samples")
    other("mode of texts", "SELECT mode(id || id) FROM samples")
    other("percentile of texts", "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY id || id) FROM samples")
    other("200 percentiles", "SELECT " + commas(200, lambda index: f"percentile_cont({index / 1000}) WITHIN GROUP (ORDER BY ratio)") + " FROM samples")
    other("100 distinct counts", "SELECT " + commas(100, lambda index: f"count(DISTINCT id || '{index}')") + " FROM samples")
    other("approximate functions by group", "SELECT id, " + commas(20, lambda index: f"approx_distinct(small + {index}), approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY ratio + {index})") + " FROM samples GROUP BY id")
    other("cube of 10 columns", "SELECT count(*) FROM (SELECT count(*) FROM (SELECT " + commas(10, lambda index: f"small / {index + 1} AS c{index}") + " FROM samples) AS t GROUP BY CUBE (" + commas(10, lambda index: f"c{index}") + ")) AS u")
    other("group by 20 columns", "SELECT count(*) FROM (SELECT count(*) FROM samples GROUP BY " + commas(20, lambda index: f"id || '{index}'") + ") AS t")
    other("recursion that doubles a text", "WITH RECURSIVE r(s) AS (SELECT id FROM samples WHERE small = 1 UNION ALL SELECT s || s FROM r) SELECT count(*) FROM r")
    other("recursion that doubles the rows", "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT r.n + 1 FROM r, (VALUES (1), (2)) AS v(x)) SELECT count(*) FROM r")
    other("recursion over all rows", "WITH RECURSIVE r(s) AS (SELECT id FROM samples UNION ALL SELECT s || 'x' FROM r) SELECT count(*) FROM r")
    other("distinct recursion", "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r) SELECT count(*) FROM r")
    other("moving distinct count", "SELECT max(s) FROM (SELECT count(DISTINCT id) OVER (ORDER BY at ROWS 100000 PRECEDING) AS s FROM samples) AS t")
    other("three unnested lists", "SELECT count(*) FROM (SELECT unnest(range(0, 1000000)) AS a) AS a, (SELECT unnest(range(0, 1000000)) AS b) AS b WHERE a + b = 5")
    other("unnest of a list of lists", "SELECT count(*) FROM (SELECT unnest(unnest(array_repeat(array_repeat(1, 1000), 5))) FROM samples) AS t")
    other("full join of large tables", "SELECT count(*) FROM samples AS a FULL JOIN samples AS b ON a.id || 'x' = b.id || 'y'")
    other("except all of concatenations", "SELECT count(*) FROM (SELECT id || id FROM samples EXCEPT ALL SELECT id || 'x' FROM samples) AS t")


def groups():
    """Aggregates that keep much memory for each of 300,000 groups."""
    source = "samples CROSS JOIN (SELECT repeat('x', 10000 + value) AS s FROM generate_series(1, 1) AS w(value)) AS a"
    for name, call in (
        ("any_value", "any_value(s)"),
        ("first_value", "first_value(s ORDER BY at)"),
        ("last_value", "last_value(s)"),
        ("nth_value", "nth_value(s, 1 ORDER BY at)"),
        ("min", "min(s)"),
        ("max of concatenations", "max(s || id)"),
        ("min_by", "min_by(s, at)"),
        ("array_agg", "array_agg(s)"),
        ("string_agg", "string_agg(s, ',')"),
        ("mode", "mode(s)"),
        ("percentile_disc", "percentile_disc(0.5) WITHIN GROUP (ORDER BY s)"),
        ("count of distinct values", "count(DISTINCT s)"),
        ("max of lists", "max(make_array(s))"),
        ("array_agg of structs", "array_agg(named_struct('a', s, 'b', id))"),
    ):
        other(f"300,000 groups: {name}", f"SELECT count(v) FROM (SELECT id, {call} AS v FROM {source} GROUP BY id) AS t")
    for name, call in (
        ("approx_distinct", "approx_distinct(small)"),
        ("approx_percentile_cont", "approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY ratio)"),
        ("approx_median", "approx_median(ratio)"),
        ("percentile_cont", "percentile_cont(0.5) WITHIN GROUP (ORDER BY ratio)"),
        ("median", "median(ratio)"),
        ("distinct sums", "sum(DISTINCT small), sum(DISTINCT big), sum(DISTINCT ratio), count(DISTINCT label), count(DISTINCT day)"),
        ("statistics", commas(50, lambda index: f"corr(small + {index}, ratio), regr_slope(small + {index}, ratio)")),
    ):
        other(f"300,000 groups: {name}", f"SELECT id, {call} FROM samples GROUP BY id")


def extremes():
    """Arguments at the ends of their types, from which an engine may compute a size or a bound."""
    for name, sql in (
        ("LIMIT", "SELECT id FROM samples ORDER BY ratio LIMIT 9223372036854775807"),
        ("a large LIMIT", "SELECT id FROM samples ORDER BY ratio LIMIT 20000000000"),
        ("OFFSET", "SELECT id FROM samples ORDER BY ratio LIMIT 9223372036854775807 OFFSET 9223372036854775807"),
        ("FETCH", "SELECT id FROM samples ORDER BY ratio FETCH FIRST 9223372036854775807 ROWS WITH TIES"),
        ("centroids", "SELECT approx_percentile_cont(0.5, 2000000000) WITHIN GROUP (ORDER BY ratio) FROM samples"),
        ("centroids with weights", "SELECT approx_percentile_cont_with_weight(small, 0.5, 2000000000) WITHIN GROUP (ORDER BY ratio) FROM samples"),
        ("negative centroids", "SELECT approx_percentile_cont(0.5, -1) WITHIN GROUP (ORDER BY ratio) FROM samples"),
        ("no centroids", "SELECT approx_percentile_cont(0.5, 0) WITHIN GROUP (ORDER BY ratio) FROM samples"),
        ("more centroids", "SELECT approx_percentile_cont(0.5, 9223372036854775807) WITHIN GROUP (ORDER BY ratio) FROM samples"),
        ("centroids of groups", "SELECT id, approx_percentile_cont(0.5, 1000000) WITHIN GROUP (ORDER BY ratio) FROM samples GROUP BY id"),
        ("ntile", "SELECT max(n) FROM (SELECT ntile(9223372036854775807) OVER (ORDER BY id) AS n FROM samples) AS t"),
        ("lag", "SELECT max(n) FROM (SELECT lag(id, 9223372036854775807) OVER (ORDER BY id) AS n FROM samples) AS t"),
        ("negative lag", "SELECT max(n) FROM (SELECT lag(id, -9223372036854775808) OVER (ORDER BY id) AS n FROM samples) AS t"),
        ("lead", "SELECT max(n) FROM (SELECT lead(id, 9223372036854775807) OVER (ORDER BY id) AS n FROM samples) AS t"),
        ("nth_value", "SELECT max(n) FROM (SELECT nth_value(id, 9223372036854775807) OVER (ORDER BY id) AS n FROM samples) AS t"),
        ("negative nth_value", "SELECT max(n) FROM (SELECT nth_value(id, -9223372036854775808) OVER (ORDER BY id) AS n FROM samples) AS t"),
        ("frame of rows", "SELECT max(n) FROM (SELECT sum(small) OVER (ORDER BY id ROWS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 FOLLOWING) AS n FROM samples) AS t"),
        ("frame of following rows", "SELECT max(n) FROM (SELECT sum(small) OVER (ORDER BY id ROWS BETWEEN 9223372036854775807 FOLLOWING AND UNBOUNDED FOLLOWING) AS n FROM samples) AS t"),
        ("frame of groups", "SELECT max(n) FROM (SELECT sum(small) OVER (ORDER BY id GROUPS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 FOLLOWING) AS n FROM samples) AS t"),
        ("frame of a range", "SELECT max(n) FROM (SELECT sum(small) OVER (ORDER BY big RANGE BETWEEN 9223372036854775807 PRECEDING AND 9223372036854775807 FOLLOWING) AS n FROM samples) AS t"),
        ("frame of times", "SELECT max(n) FROM (SELECT sum(small) OVER (ORDER BY at RANGE BETWEEN INTERVAL '178000000 years' PRECEDING AND INTERVAL '99999999999 days' FOLLOWING) AS n FROM samples) AS t"),
        ("series at the end", "SELECT count(*) FROM generate_series(9223372036854775800, 9223372036854775807)"),
        ("series backwards", "SELECT count(*) FROM generate_series(9223372036854775807, -9223372036854775808, -9223372036854775808)"),
        ("series of a large step", "SELECT count(*) FROM generate_series(-9223372036854775808, 9223372036854775807, 9223372036854775807)"),
        ("times at the end", "SELECT cardinality(generate_series('2262-04-11'::timestamp, '2262-04-11 23:47:16'::timestamp, INTERVAL '1 hour'))"),
    ):
        other(f"extreme {name}", sql)
    for expression in (
        "generate_series(9223372036854775799 + value, 9223372036854775807)[1]",
        "generate_series(9223372036854775799 + value, 9223372036854775807, 9223372036854775807)[1]",
        "generate_series(9223372036854775806 + value, -9223372036854775808, -9223372036854775808)[1]",
        "generate_series(-9223372036854775807 - value, 9223372036854775807, 9223372036854775807)[1]",
        "range('0001-01-01'::date, '9999-12-31'::date, value * INTERVAL '2147483647 months')",
        "make_array(value, 2)[-9223372036854775808]",
        "make_array(value, 2)[9223372036854775807]",
        "array_slice(make_array(value), 9223372036854775807, -9223372036854775808, -9223372036854775808)",
        "array_slice(make_array(value), -9223372036854775808, 9223372036854775807, 9223372036854775807)",
        "array_resize(make_array(value), 9223372036854775807)",
        "array_resize(make_array(value), -9223372036854775808)",
        "array_remove_n(make_array(value), 1, -9223372036854775808)",
        "array_replace_n(make_array(value), 1, 2, 9223372036854775807)",
        "array_position(make_array(value), 1, -9223372036854775808)",
        "array_position(make_array(value), 1, 9223372036854775807)",
        "array_element(make_array(value), 9223372036854775807)",
        "array_repeat(value, -9223372036854775808)",
        "(-9223372036854775807 - value) / -1",
        "(-9223372036854775807 - value) % -1",
        "-(-9223372036854775807 - value)",
        "abs(-9223372036854775807 - value)",
        "div(-9223372036854775807 - value, -1)",
        "gcd(-9223372036854775807 - value, -9223372036854775807 - value)",
        "lcm(9223372036854775806 + value, -9223372036854775807 - value)",
        "factorial(9223372036854775806 + value)",
        "chr(9223372036854775806 + value)",
        "repeat('a', -9223372036854775807 - value)",
        "lpad('a', -9223372036854775807 - value)",
        "rpad('a', -9223372036854775807 - value)",
        "lpad('a', -1 * value)",
        "find_in_set('', repeat(',', 1000 + value))",
        "substring_index('a,b', '', value)",
        "split_part('a,b', '', value)",
        "replace('aaa', '', repeat('b', value))",
        "translate('', '', '')",
        "strpos('', '')",
        "initcap(chr(value + 65535))",
        "upper(chr(value + 64256))",
        "string_to_array('', '')",
        "string_to_array('a', NULL)",
        "array_to_string(make_array(NULL, value), '')",
        "array_sort(make_array(value, NULL), 'DESC', 'NULLS FIRST')",
        "flatten(make_array(make_array(make_array(value))))",
        "array_concat(make_array(), make_array(value), NULL)",
        "array_except(NULL, make_array(value))",
        "array_intersect(make_array(NULL), make_array(value))",
        "array_has_any(make_array(), make_array(value))",
        "map_extract(map(make_array('a'), make_array(value)), NULL)",
        "map(make_array('a', 'a'), make_array(value, value))",
        "array_min(array_repeat(NULL, value))",
        "array_sum(make_array(9223372036854775807, value))",
        "array_avg(make_array())",
        "encode(decode('', 'base64'), 'hex')",
        "digest('a', 'unknown' || value)",
        "get_field(named_struct('a', value), 'b')",
        "element_at(map(make_array('a'), make_array(value)), value)",
        "ascii('')",
        "bit_length(repeat('', value))",
        "levenshtein('', repeat('a', value))",
        "regexp_match('', '')",
        "regexp_replace('', '', '', 'gimsx')",
        "regexp_count('', '', 1, 'unknown')",
        "regexp_instr('', '', 1, 1, 0, '', 5)",
        "'' LIKE ''",
        "'a' LIKE 'a' ESCAPE ''",
        "'a' SIMILAR TO ''",
        "to_timestamp('', '')",
        "to_date('', '%')",
        "to_char(now(), '')",
        "to_char(now(), '%')",
        "to_char(now(), '%-')",
        "to_char(now(), NULL)",
        "date_part('', now())",
        "extract(millennium FROM '9999-12-31'::timestamp)",
        "CAST('' AS INTERVAL)",
        "CAST('' AS TIMESTAMP)",
        "CAST('' AS BOOLEAN)",
        "CAST('1e999999999' AS DOUBLE)",
        "CAST('-' AS DECIMAL(1, 1))",
        "CAST('.' AS DECIMAL(10, 2))",
        "CAST('24:00:00' AS TIME)",
        "CAST('23:59:60.999999999' AS TIME) + INTERVAL '1 day'",
        "CAST('+262143-12-31' AS DATE)",
        "CAST('-262144-01-01' AS DATE)",
        "CAST('294247-01-10T04:00:54.775807Z' AS TIMESTAMP)",
        "CAST(CAST(value AS DATE) AS TIME)",
        "left('abc', -9223372036854775807 - value)",
        "right('abc', -9223372036854775807 - value)",
        "substr('abc', -9223372036854775807 - value)",
        "substr('abc', 9223372036854775806 + value, 9223372036854775807)",
        "split_part('a,b', ',', -9223372036854775807 - value)",
        "substring_index('a,b', ',', -9223372036854775807 - value)",
        "overlay('abc' PLACING 'x' FROM 9223372036854775806 + value FOR 9223372036854775807)",
        "overlay('abc' PLACING 'x' FROM 1 FOR -9223372036854775807 - value)",
        "regexp_instr('abc', 'b', 9223372036854775807, 9223372036854775806 + value)",
        "regexp_instr('abc', 'b', 1, 9223372036854775806 + value)",
        "regexp_count('abc', 'b', 9223372036854775806 + value)",
        "round(value * 1.5, 9223372036854775807)",
        "round(value::double, -2147483648)",
        "trunc(value * 1.5, 2147483647)",
        "power(value + 1, 9223372036854775807)",
        "power(CAST(value AS DECIMAL(38, 10)) * 99999, 99999)",
        "log(value - 1, 0)",
        "CAST(value AS DECIMAL(38, 37)) / 3",
        "CAST(value AS DECIMAL(38, 0)) * 99999999999999999999999999999999999999",
        "arrow_cast(value, 'Decimal128(38, -128)')",
        "arrow_cast(value, 'Decimal256(76, 76)') / 3",
        "to_timestamp(1e300 * value)",
        "to_timestamp(9223372036854775806 + value)",
        "to_timestamp_micros(9223372036854775806 + value)",
        "from_unixtime(-9223372036854775807 - value)",
        "CAST(1e300 * value AS DECIMAL(38, 0))",
        "CAST('inf'::double * value AS BIGINT)",
        "value * INTERVAL '2147483647 months'",
        "(value + 1) * INTERVAL '2147483647 days'",
        "9223372036854775807 * INTERVAL '1 day' * value",
        "INTERVAL '1 day' / (value - 1)",
        "now() + value * INTERVAL '2147483647 months'",
        "now() - value * INTERVAL '2147483647 days'",
        "'9999-12-31'::date + CAST(value AS INT)",
        "'9999-12-31'::date + 2147483647",
        "age('9999-12-31'::timestamp, '0001-01-01'::timestamp)",
        "'9999-12-31'::timestamp - '0001-01-01'::timestamp",
        "date_diff('microsecond', '0001-01-01'::timestamp, '9999-12-31'::timestamp)",
        "date_trunc('millennium', '0001-01-01'::timestamp)",
        "date_trunc('week', '0001-01-01'::timestamp)",
        "last_day('9999-12-31'::date)",
        "time_bucket(INTERVAL '2147483647 months', now())",
        "date_bin(INTERVAL '2147483647 months', now(), '0001-01-01'::timestamp)",
        "date_bin(INTERVAL '1 microsecond', now(), '0001-01-01'::timestamp)",
        "date_bin(INTERVAL '-1 day', now())",
        "date_bin(INTERVAL '0 days', now())",
        "make_time(2147483647, CAST(value AS INT), -2147483648)",
        "make_date(-2147483648, CAST(value AS INT), 2147483647)",
        "make_date(9999, 12, 2147483647)",
        "to_char(now() + value * INTERVAL '1 day', '%999999999Y')",
        "now() AT TIME ZONE '+99:99'",
    ):
        other(f"extreme {expression}", f"SELECT {expression} AS v FROM {ONE}")
    for bounds in (
        "ROWS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 PRECEDING",
        "ROWS BETWEEN 18446744073709551614 FOLLOWING AND 18446744073709551615 FOLLOWING",
        "GROUPS BETWEEN 18446744073709551615 PRECEDING AND CURRENT ROW",
        "GROUPS BETWEEN CURRENT ROW AND 18446744073709551615 FOLLOWING",
        "GROUPS BETWEEN 9223372036854775807 PRECEDING AND 9223372036854775807 FOLLOWING",
        "RANGE BETWEEN INTERVAL '2147483647 months' PRECEDING AND INTERVAL '2147483647 days' FOLLOWING",
        "RANGE BETWEEN INTERVAL '-1 day' PRECEDING AND INTERVAL '-1 day' FOLLOWING",
    ):
        other(f"extreme frame: {bounds}", f"SELECT max(n) FROM (SELECT sum(small) OVER (ORDER BY at {bounds}) AS n FROM samples) AS t")


def time_limit():
    """Statements without an end, or with a very late one."""
    for name, sql in (
        ("endless recursion", "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"),
        ("count of 10^12 rows", "SELECT sum(value) FROM generate_series(1, 1000000000000) AS g(value)"),
        ("cross join of two series", "SELECT count(*) FROM generate_series(1, 10000000) AS a(x), generate_series(1, 10000000) AS b(y) WHERE x + y = 5"),
        ("join with an inequality", "SELECT count(*) FROM samples AS a JOIN samples AS b ON a.ratio > b.ratio + 1"),
        ("join with an inequality of texts", "SELECT count(*) FROM samples AS a JOIN samples AS b ON a.id || 'x' > b.id || a.label"),
        ("join of equal keys", "SELECT count(*) FROM samples AS a JOIN samples AS b ON a.small % 2 = b.small % 2 AND a.id > b.id"),
        ("full join with an inequality", "SELECT count(*) FROM samples AS a FULL JOIN samples AS b ON a.id > b.id"),
        ("semi join with an inequality", "SELECT count(*) FROM samples AS a WHERE EXISTS (SELECT 1 FROM samples AS b WHERE b.small > a.small + 400000)"),
        ("EXPLAIN ANALYZE of a cross join", "EXPLAIN ANALYZE SELECT count(*) FROM samples AS a JOIN samples AS b ON a.ratio > b.ratio + 1"),
        ("moving percentile", "SELECT max(s) FROM (SELECT median(ratio) OVER (ORDER BY at ROWS 100000 PRECEDING) AS s FROM samples) AS t"),
        ("cross join of 20 VALUES", f"SELECT count(*) FROM {values(20)} WHERE v0.x + v19.x > 1"),
    ):
        named(TIME, name, sql)
    for name, sql in (
        ("cross join of 8 tables", "SELECT count(*) FROM " + commas(8, lambda index: f"samples AS e{index}") + " WHERE e0.id || e7.id <> e3.id || e4.id"),
        ("cross join of 40 VALUES", f"SELECT count(*) FROM {values(40)}"),
        ("distinct of 10^12 rows", "SELECT count(DISTINCT value) FROM generate_series(1, 1000000000000) AS g(value)"),
        ("sort of 10^12 rows", "SELECT value FROM generate_series(1, 1000000000000) AS g(value) ORDER BY value % 7"),
        ("window over 10^12 rows", "SELECT max(n) FROM (SELECT sum(value) OVER (ORDER BY value % 7) AS n FROM generate_series(1, 1000000000000) AS g(value)) AS t"),
        ("microseconds of a century", "SELECT count(DISTINCT value) FROM generate_series('1924-01-01'::timestamp, '2024-01-01'::timestamp, INTERVAL '1 microsecond') AS g(value)"),
        ("moving max of texts", "SELECT max(s) FROM (SELECT max(id) OVER (ORDER BY at ROWS BETWEEN 100000 PRECEDING AND 100000 FOLLOWING) AS s FROM samples) AS t"),
        ("correlated subquery", "SELECT max((SELECT count(*) FROM samples AS b WHERE b.small > a.small)) FROM samples AS a"),
        ("lateral join", "SELECT count(*) FROM samples AS a CROSS JOIN LATERAL (SELECT b.id FROM samples AS b WHERE b.small > a.small) AS t"),
        ("NOT IN with many rows", "SELECT count(*) FROM samples WHERE id NOT IN (SELECT id || 'x' FROM samples)"),
        ("array_has of a constant range", "SELECT count(*) FROM samples WHERE array_has(range(0, 1000000), big)"),
        ("IN list of 30,000 numbers", "SELECT count(*) FROM samples WHERE big IN (" + commas(30_000, str) + ")"),
        ("IN list of 10,000 texts", "SELECT count(*) FROM samples WHERE id IN (" + commas(10_000, lambda index: f"'acme-{index}'") + ")"),
        ("IN list of 10,000 expressions", "SELECT count(*) FROM samples WHERE big IN (" + commas(10_000, lambda index: f"small+{index}") + ")"),
        ("conversion of each time", "SELECT " + commas(50, lambda index: f"count(DISTINCT date_trunc('hour', (at + INTERVAL '{index} days') AT TIME ZONE 'America/New_York'))") + " FROM samples"),
        ("time zone per row", f"SELECT max(CAST(value AS TIMESTAMP) AT TIME ZONE 'America/New_York') FROM generate_series('1700-01-01'::timestamp, '2200-01-01'::timestamp, INTERVAL '1 minute') AS g(value)"),
        ("to_char of each time", "SELECT max(length(to_char(at, repeat('%Y', 100)))) FROM samples"),
        ("time patterns of each time", "SELECT max(to_timestamp(CAST(at AS TEXT), '%c', '%+', '%Y-%m-%d', '%Y-%m-%dT%H:%M:%SZ')) FROM samples"),
        ("hashes of hashes", "SELECT count(DISTINCT " + nest(40, "sha512(", "id", ")") + ") FROM samples"),
    ):
        other(name, sql)


def batches():
    """Functions that work for long on one batch of rows."""
    for name, call in (
        ("btrim of many characters", "length(btrim(repeat('a', 10000000 + value), repeat('bcdefghijk', 1000000) || 'a'))"),
        ("ltrim of many characters", "length(ltrim(repeat('a', 10000000 + value), repeat('bcdefghijk', 1000000) || 'a'))"),
        ("translate of many characters", "length(translate(repeat('a', 10000000 + value), repeat('b', 10000000) || 'a', 'x'))"),
        ("strpos of a long text", "strpos(repeat('a', 10000000 + value), repeat('a', 5000000) || 'b')"),
        ("contains a long text", "contains(repeat('a', 10000000 + value), repeat('a', 5000000) || 'b')"),
        ("replace of a long text", "length(replace(repeat('a', 10000000 + value), repeat('a', 5000000) || 'b', 'c'))"),
        ("split_part by a long text", "split_part(repeat('a', 10000000 + value), repeat('a', 5000000) || 'b', 2)"),
        ("substring_index of a long text", "length(substring_index(repeat('a,', 10000000 + value), ',', 5000000))"),
        ("find_in_set of a long text", "find_in_set('b', repeat('a,', 10000000 + value))"),
        ("find_in_set of a long set", "find_in_set(repeat('b', 10000000), repeat('a,', 10000000 + value))"),
        ("LIKE with many wildcards", f"repeat('a', 20000000 + value) LIKE '{'%a' * 200}%b'"),
        ("LIKE with many underscores", f"repeat('a', 20000000 + value) LIKE '%{'_' * 500}b'"),
        ("ILIKE with many wildcards", f"repeat('a', 20000000 + value) ILIKE '{'%a' * 200}%b'"),
        ("SIMILAR TO", "repeat('a', 20000000 + value) SIMILAR TO '(a|aa)*b'"),
        ("quadratic regexp_count", "regexp_count(repeat('A', 10000000 + value), '.*[^A-Z]|[A-Z]')"),
        ("quadratic regexp_replace", "length(regexp_replace(repeat('A', 10000000 + value), '.*[^A-Z]|[A-Z]', 'x', 'g'))"),
        ("quadratic regexp_instr", "regexp_instr(repeat('A', 10000000 + value), '.*[^A-Z]|[A-Z]', 1, 9999999)"),
        ("regexp_like with large repetitions", "regexp_like(repeat('a', 20000000 + value), '(a{1,50}){1,50}b')"),
        ("regexp_match of a long text", "regexp_match(repeat('a', 20000000 + value), '(.*)(.*)(.*)(.*)(.*)b')"),
        ("regexp_count with words", "regexp_count(repeat('a ', 10000000 + value), '(\\w+\\s+)*\\d')"),
        ("array_intersect of long lists", "cardinality(array_intersect(range(0, 1000000 + value), range(500000, 1500000 + value)))"),
        ("array_union of long lists", "cardinality(array_union(range(0, 1000000 + value), range(500000, 1500000 + value)))"),
        ("array_except of long lists", "cardinality(array_except(range(0, 1000000 + value), range(500000, 1500000 + value)))"),
        ("array_has_all of long lists", "array_has_all(range(0, 1000000 + value), range(500000, 1000000 + value))"),
        ("array_has_any of long lists", "array_has_any(range(0, 1000000 + value), range(2000000, 3000000 + value))"),
        ("array_distinct of a long list", "cardinality(array_distinct(range(0, 1500000 + value)))"),
        ("array_sort of a long list", "array_sort(range(0, 1500000 + value), 'DESC')[1]"),
        ("array_remove of a long list", "cardinality(array_remove(range(0, 1500000 + value), 5))"),
        ("array_to_string of a nested list", "length(array_to_string(array_repeat(range(0, 1000 + value), 1000), ','))"),
        ("flatten", "cardinality(flatten(flatten(array_repeat(array_repeat(range(0, 100 + value), 100), 100))))"),
        ("map of a long list", "cardinality(map_keys(map(range(0, 500000 + value), range(0, 500000 + value))))"),
        ("map_extract of a long list", "map_extract(map(range(0, 500000 + value), range(0, 500000 + value)), 499999)"),
        ("array_slice with steps", "cardinality(array_slice(range(0, 1500000 + value), 1, 1500000, 1))"),
        ("array_reverse", "array_reverse(range(0, 1500000 + value))[1]"),
        ("string_to_array of single characters", "cardinality(string_to_array(repeat('a,', 15000000 + value), ','))"),
        ("encode twice", "length(encode(encode(repeat('a', 15000000 + value), 'hex'), 'hex'))"),
        ("upper of expanding characters", "length(upper(repeat('ΐ', 15000000 + value)))"),
        ("initcap of a long text", "length(initcap(repeat('ab ', 10000000 + value)))"),
        ("reverse of a long text", "length(reverse(repeat('ab ', 10000000 + value)))"),
        ("overlay of a long text", "length(overlay(repeat('ab ', 10000000 + value) PLACING 'x' FROM 9000000 FOR 2))"),
        ("cast to a decimal", "TRY_CAST(repeat('9', 30000000 + value) AS DECIMAL(38, 10))"),
        ("cast of decimals to a decimal", "TRY_CAST('0.' || repeat('9', 30000000 + value) AS DECIMAL(38, 10))"),
        ("cast of points to a decimal", "TRY_CAST(repeat('.', 30000000 + value) AS DECIMAL(38, 10))"),
        ("cast of an exponent to a decimal", "TRY_CAST('1e' || repeat('9', 30000000 + value) AS DECIMAL(38, 10))"),
        ("cast of bytes to a decimal", "value * 1.5 = repeat('9', 30000000 + value)"),
        ("cast to a double", "TRY_CAST(repeat('9', 30000000 + value) AS DOUBLE)"),
        ("cast to a timestamp", "TRY_CAST(repeat('9', 30000000 + value) AS TIMESTAMP)"),
        ("cast to an interval", "TRY_CAST(repeat('1 day ', 5000000 + value) AS INTERVAL)"),
        ("cast to a number, with an error", "CAST(repeat('9', 30000000 + value) AS BIGINT)"),
        ("cast to a date, with an error", "CAST(repeat('9', 30000000 + value) AS DATE)"),
        ("cast to an interval, with an error", "CAST(repeat('1 foo ', 5000000 + value) AS INTERVAL)"),
        ("cast to bytes", "length(encode(repeat('ab', 15000000 + value)::bytea, 'base64'))"),
        ("to_timestamp with an error", "to_timestamp(repeat('9', 30000000 + value))"),
        ("decode with an error", "decode(repeat('z', 30000000 + value), 'hex')"),
                ("pattern with an error", "regexp_like('a', repeat('(', 30000000 + value))"),
        ("pattern of many alternatives", "regexp_like('a', repeat('abc|', 20000 + value) || 'd')"),
        ("pattern of many groups", "regexp_like('a', repeat('(', 1000 + value) || repeat(')', 1000 + value))"),
        ("power tower", nest(40, "power(", "value", ", 2.5)")),
        ("repeat of nothing", "length(repeat('', 9223372036854775806 + value))"),
        ("lpad with nothing", "length(lpad('', 2147483646 + value, ''))"),
        ("array_repeat of nothing", "cardinality(array_repeat(make_array(), 9223372036854775806 + value))"),
        ("to_char with padding", "to_char(now() + value * INTERVAL '1 day', repeat('%A', 128))"),
        ("uuid of many rows", "count(DISTINCT uuid())"),
    ):
        other(f"one row: {name}", f"SELECT {call} FROM {ONE}")
    other("a call for each of 300,000 rows: levenshtein", "SELECT sum(levenshtein(repeat(id, 10), repeat(label, 10))) FROM samples")
    other("a call for each of 300,000 rows: regexp_replace", "SELECT max(regexp_replace(id, '(\\w+)(\\d+)(\\w*)-', '\\3\\2\\1', 'g')) FROM samples")
    other("a call for each of 300,000 rows: array_distinct", "SELECT max(cardinality(array_distinct(range(0, 100 + small % 2)))) FROM samples")
    other("a call for each of 300,000 rows: array_sort", "SELECT max(array_sort(range(0, 100 + small % 2), 'DESC')[1]) FROM samples")
    other("a call for each of 300,000 rows: map", "SELECT max(map_extract(map(range(0, 50 + small % 2), range(0, 50 + small % 2)), 5)[1]) FROM samples")
    other("a call for each of 300,000 rows: array_to_string", "SELECT max(length(array_to_string(array_repeat(array_repeat(small, 5), 10), ','))) FROM samples")
    other("a call for each of 300,000 rows: array_has", "SELECT count(*) FROM samples WHERE array_has(range(0, 1000 + small % 2), small)")
    other("a call for each of 300,000 rows: string_to_array", "SELECT max(cardinality(string_to_array(repeat(label || ',', 100), ','))) FROM samples")


def patterns():
    """Large regular expressions."""
    named(STATES, "100 large patterns", "SELECT " + commas(100, lambda index: f"regexp_like(id, '\\w{{90}}{index}\\w{{90}}')") + " FROM samples")
    named(STATES, "a large pattern per row", f"SELECT sum(CASE WHEN regexp_like('abc', '\\w{{' || (value % 90) || '}}\\w{{80}}' || value) THEN 1 ELSE 0 END) FROM {ROWS}")
    named(STATES, "nested repetitions", "SELECT regexp_like(id, '((((a{20}){20}){20}){20}){20}') FROM samples")
    named(STATES, "nested repetitions of words", "SELECT regexp_replace(id, '(\\w{50}){50}', 'x') FROM samples")
    named(STATES, "nested repetitions with an operator", "SELECT id ~ '(\\w{50}){50}' FROM samples")
    named(STATES, "nested repetitions with SIMILAR TO", "SELECT id SIMILAR TO '((\\w{50}){50}){50}' FROM samples")
    other("a small pattern per row", f"SELECT sum(CASE WHEN regexp_like('abc', '\\w' || value) THEN 1 ELSE 0 END) FROM {ROWS}")
    other("LIKE pattern per row", "SELECT count(*) FROM samples WHERE label LIKE '%' || id || '%a%b%c%'")
    other("ILIKE pattern per row", "SELECT count(*) FROM samples WHERE label ILIKE '%' || id || '%a%b%c%'")
    other("200 patterns", "SELECT " + commas(200, lambda index: f"regexp_like(id, '^acme-{index}[0-9]*$')") + " FROM samples LIMIT 10")
    other("500 LIKE conditions", "SELECT count(*) FROM samples WHERE " + " OR ".join(f"label LIKE '%{index}%a%b%'" for index in range(500)))


def parsing():
    """Nested syntax, with and without an error in it. A parser that tries several readings may try each one at each level."""
    for name, before, after in (
        ("CAST", "CAST(", " AS INT)"),
        ("TRY_CAST", "TRY_CAST(", " AS INT)"),
        ("SAFE_CAST", "SAFE_CAST(", " AS INT)"),
        ("CONVERT", "CONVERT(", ", INT)"),
        ("CASE", "CASE WHEN true THEN ", " END"),
        ("CASE operands", "CASE ", " WHEN 1 THEN 1 END"),
        ("EXTRACT", "EXTRACT(year FROM ", ")"),
        ("CEIL", "CEIL(", ")"),
        ("FLOOR", "FLOOR(", " TO DAY)"),
        ("POSITION", "POSITION('a' IN ", ")"),
        ("SUBSTRING", "SUBSTRING(", " FROM 1 FOR 2)"),
        ("OVERLAY", "OVERLAY(", " PLACING 'a' FROM 1)"),
        ("TRIM", "TRIM(BOTH 'a' FROM ", ")"),
        ("EXISTS", "EXISTS(SELECT ", ")"),
        ("NOT EXISTS", "NOT EXISTS(SELECT ", ")"),
        ("INTERVAL", "INTERVAL ", ""),
        ("INTERVAL with parentheses", "INTERVAL (", ") DAY"),
        ("DATE", "DATE ", ""),
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE ", ""),
        ("ARRAY", "ARRAY[", "]"),
        ("ARRAY of queries", "ARRAY(SELECT ", ")"),
        ("dictionaries", "{'a': ", "}"),
        ("STRUCT", "STRUCT(", " AS a)"),
        ("PRIOR", "PRIOR ", ""),
        ("MATCH", "MATCH (a) AGAINST (", ")"),
        ("LAMBDA", "LAMBDA a : ", ""),
        ("lambdas", "f(a -> ", ")"),
        ("lambdas with parentheses", "f((a, b) -> ", ")"),
        ("calls", "abs(", ")"),
        ("calls of named_struct", "named_struct('a', ", ")"),
        ("calls of struct", "struct(1, ", ")"),
        ("calls of make_array", "make_array(", ")"),
        ("calls of array_repeat", "array_repeat(", ", 2)"),
        ("calls of map", "map(['a'], [", "])"),
        ("calls of coalesce", "coalesce(NULL, ", ", 1)"),
        ("calls of nullif", "nullif(", ", 2)"),
        ("calls of greatest", "greatest(", ", 1, 2)"),
        ("calls of concat", "concat(", ", 'a')"),
        ("calls of regexp_replace", "regexp_replace(", ", 'a', 'aa', 'g')"),
        ("calls of arrow_cast", "arrow_cast(", ", 'Int64')"),
        ("calls of round", "round(", ", 2)"),
        ("calls of date_trunc", "date_trunc('day', ", ")"),
        ("calls with names", "abs(a => ", ")"),
        ("calls with a window", "sum(", ") OVER ()"),
        ("calls with a filter", "sum(", ") FILTER (WHERE true)"),
        ("windows", "sum(1) OVER (ORDER BY ", ")"),
        ("rows", "ROW(", ", 1)"),
        ("tuples", "(1, ", ")"),
        ("parentheses", "(", ")"),
        ("parentheses with casts", "(", "::int)"),
        ("lists", "[", "]"),
        ("subscripts", "[1][", "]"),
        ("signs", "+ - ", ""),
        ("NOT", "NOT ", ""),
        ("BETWEEN", "1 BETWEEN ", " AND 2"),
        ("IN", "1 IN (", ")"),
        ("LIKE", "'a' LIKE ", " ESCAPE '!'"),
        ("AT TIME ZONE", "now() AT TIME ZONE ", ""),
        ("ODBC calls", "{fn abs(", ")}"),
        ("subqueries", "(SELECT ", ")"),
        ("WITH", "(WITH a AS (SELECT 1) SELECT ", ")"),
        ("VALUES", "(VALUES (", "))"),
        ("quantifiers", "1 = ANY(SELECT ", ")"),
        ("GROUPING SETS", "(SELECT 1 GROUP BY GROUPING SETS ((", ")))"),
    ):
        for depth, inner, kind in ((40, "1", "a few"), (40, "1 1", "a few, with an error,"), (6_000, "1", "very many")):
            other(f"nested {kind} {name}", f"SELECT {nest(depth, before, inner, after)}")
    for name, before, after in (
        ("parentheses", "(", ")"),
        ("joins", "(a CROSS JOIN ", ")"),
        ("subqueries", "(SELECT * FROM ", ") AS t"),
        ("LATERAL", "LATERAL (SELECT * FROM ", ") AS t"),
        ("unnest", "unnest(", ")"),
        ("tables", "TABLE(", ")"),
        ("ODBC joins", "{oj ", "}"),
        ("PIVOT", "(SELECT * FROM ", ") PIVOT (sum(a) FOR b IN (1))"),
        ("WITH", "(WITH a AS (SELECT 1) SELECT * FROM ", ") AS t"),
        ("UNION", "(SELECT 1 UNION SELECT * FROM ", ") AS t"),
    ):
        for depth, inner, kind in ((40, "samples", "a few"), (40, "samples 1", "a few, with an error,"), (5_000, "samples", "very many")):
            other(f"FROM with {kind} {name}", f"SELECT 1 FROM {nest(depth, before, inner, after)}")
    for name, before, after in (
        ("ARRAY", "ARRAY<", ">"),
        ("STRUCT", "STRUCT<a ", ">"),
        ("structs with parentheses", "STRUCT(a ", ")"),
        ("MAP", "MAP(TEXT, ", ")"),
        ("Nullable", "Nullable(", ")"),
        ("Tuple", "Tuple(", ")"),
        ("Nested", "Nested(a ", ")"),
        ("UNION", "UNION(a ", ")"),
        ("TABLE", "TABLE(a ", ")"),
        ("brackets", "", "[]"),
    ):
        for depth in (40, 6_000):
            other(f"{depth} types: {name}", f"SELECT CAST(NULL AS {nest(depth, before, 'INT', after)})")
    for name, before, after in (
        ("List", "List(", ")"),
        ("Struct", 'Struct("a": ', ")"),
        ("FixedSizeList", "FixedSizeList(2, ", ")"),
        ("Dictionary", "Dictionary(Int32, ", ")"),
        ("unknown types", "Unknown(", ")"),
    ):
        for depth in (40, 6_000):
            other(f"{depth} Arrow types: {name}", f"SELECT arrow_cast(NULL, '{nest(depth, before, 'Int32', after)}')")
    for name, sql in (
        ("MATCH_RECOGNIZE", f"SELECT * FROM samples MATCH_RECOGNIZE (PATTERN ({nest(6_000, '(', 'a', ')')}) DEFINE a AS true)"),
        ("BEGIN", "BEGIN " * 6_000 + "SELECT 1"),
        ("PREPARE", "PREPARE a AS " * 6_000 + "SELECT 1"),
        ("DECLARE", "DECLARE a CURSOR FOR " * 6_000 + "SELECT 1"),
        ("IF", "IF true THEN " * 6_000 + "SELECT 1;" + " END IF;" * 6_000),
        ("CREATE TABLE", f"CREATE TABLE a (b INT CHECK ({nest(6_000, '(', 'true', ')')}))"),
        ("CREATE VIEW", nest(6_000, "CREATE VIEW a AS ", "SELECT 1", "")),
        ("ANALYZE", "EXPLAIN ANALYZE VERBOSE " * 6_000 + "SELECT 1"),
        ("INSERT", "WITH a AS (INSERT INTO a " * 6_000 + "SELECT 1" + ")" * 6_000),
    ):
        other(f"statements in statements: {name}", sql)


def planning():
    """Statements that are expensive to parse or plan."""
    deep = 60
    for name, sql in (
        ("parentheses", "SELECT " + nest(5_000, "(", "1", ")")),
        ("parentheses in FROM", "SELECT * FROM " + nest(5_000, "(", "samples", ")")),
        ("NOT", "SELECT " + nest(10_000, "NOT ", "true", "")),
        ("minus", "SELECT " + nest(10_000, "- ", "1", "")),
        ("CAST", "SELECT " + nest(5_000, "CAST(", "1", " AS INT)")),
        ("casts", "SELECT 1" + "::int" * 10_000),
        ("CASE", "SELECT " + nest(5_000, "CASE WHEN true THEN ", "1", " END")),
        ("functions", "SELECT " + nest(5_000, "abs(", "1", ")")),
        ("lists", "SELECT " + nest(5_000, "[", "1", "]")),
        ("subscripts", "SELECT a" + "[1]" * 5_000 + " FROM (SELECT [1] AS a) AS t"),
        ("subqueries", f"SELECT count(*) FROM {nest(deep, '(SELECT * FROM ', 'samples', ') AS t')}"),
        ("EXISTS", nest(deep, "SELECT 1 WHERE EXISTS (", "SELECT 1", ")")),
        ("scalar subqueries", "SELECT " + nest(deep, "(SELECT 1 + ", "1", ")")),
        ("IN subqueries", nest(deep, "SELECT 1 WHERE 1 IN (", "SELECT 1", ")")),
        ("WITH queries", nest(deep, "WITH t AS (", "SELECT 1 AS x", ") SELECT * FROM t")),
        ("set operations", nest(deep, "(SELECT 1 UNION ALL ", "SELECT 1", ")")),
        ("joins", f"SELECT 1 FROM {nest(deep, '(VALUES (1)) AS v(x) JOIN (', '(VALUES (1)) AS w(x)', ' CROSS JOIN (VALUES (1)) AS u(x)) ON true')}"),
        ("types", "SELECT arrow_cast(NULL, '" + nest(5_000, "List(", "Int64", ")") + "')"),
        ("types of casts", "SELECT CAST(NULL AS " + nest(5_000, "ARRAY<", "INT", ">") + ")"),
        ("types of lists", "SELECT CAST(NULL AS INT" + "[]" * 5_000 + ")"),
        ("patterns", f"SELECT regexp_like(id, '{nest(5_000, '(', 'a', ')')}') FROM samples"),
        ("intervals", "SELECT " + nest(5_000, "INTERVAL ", "'1 day'", "")),
        ("comments", "SELECT 1 " + nest(20_000, "/*", "", "*/")),
        ("windows", "SELECT " + nest(deep, "sum(", "1", ") OVER ()")),
        ("extracts", "SELECT " + nest(1_000, "extract(year FROM ", "now()", ")")),
        ("ODBC calls", "SELECT " + nest(1_000, "{fn abs(", "1", ")}")),
        ("time zones", "SELECT now()" + " AT TIME ZONE 'UTC'" * 5_000),
        ("COLLATE", "SELECT 'a'" + " COLLATE c" * 5_000),
        ("IS NULL", "SELECT 1" + " IS NULL" * 5_000),
        ("lambdas", "SELECT " + nest(1_000, "x -> ", "1", "")),
        ("subquery aliases", nest(deep, "SELECT * FROM (", "SELECT 1 AS x", ") AS t")),
        ("EXPLAIN", "EXPLAIN " * 1_000 + "SELECT 1"),
        ("VALUES", nest(deep, "SELECT * FROM (VALUES ((", "SELECT 1", "))) AS t")),
    ):
        other(f"deep {name}", sql)
    for name, sql in (
        ("AND", "SELECT count(*) FROM samples WHERE " + " AND ".join(f"small <> {index}" for index in range(2_000))),
        ("OR", "SELECT count(*) FROM samples WHERE " + " OR ".join(f"small = {index}" for index in range(2_000))),
        ("plus", "SELECT " + "+".join(["1"] * 5_000)),
        ("concatenations", "SELECT " + "||".join(["'a'"] * 5_000)),
        ("UNION", unions(2_000, lambda index: f"SELECT {index}")),
        ("branches", "SELECT CASE " + " ".join(f"WHEN small = {index} THEN {index}" for index in range(3_000)) + " END FROM samples"),
    ):
        other(f"2,000 or more: {name}", sql)
    named(TEXT, "a statement of 1 MB", f"SELECT '{'x' * MEBI}'")
    named(TEXT, "a list of 100,000 numbers", "SELECT 1 IN (" + commas(100_000, str) + ")")
    named(WINDOWS, "600 window functions", "SELECT " + commas(600, lambda index: f"sum(small + {index}) OVER (PARTITION BY label ORDER BY at, {index} + ratio)") + " FROM samples")
    named(CROSS, "cross join of 63 VALUES", f"SELECT count(*) FROM {values(63)}")
    named(CROSS, "cross join of 90 VALUES", f"SELECT count(*) FROM {values(90)}")
    named(LISTS, "a constant list for each row", f"SELECT range(0, 1000000) AS s FROM {ROWS}")
    named(LISTS, "a constant nested list", f"SELECT cardinality(array_repeat(array_repeat(array_repeat(1, 100), 100), 10 + value)) FROM {ROWS}")
    named(LITERALS, "a folded literal of 1 MB", f"SELECT repeat('x', 1000000) AS s FROM {ROWS}")
    named(SETS, "a cube of 12 columns", "SELECT count(*) FROM samples GROUP BY CUBE (" + commas(12, lambda index: f"small + {index}") + ")")
    named(SETS, "a cube of 40 columns", "SELECT count(*) FROM samples GROUP BY CUBE (" + commas(40, lambda index: f"small + {index}") + ")")
    named(SETS, "a product of cubes", "SELECT count(*) FROM samples GROUP BY " + commas(6, lambda index: f"CUBE (small + {index}, big + {index}, ratio + {index})"))
    named(SETS, "a rollup of 2,000 columns", "SELECT count(*) FROM samples GROUP BY ROLLUP (" + commas(2_000, lambda index: f"small + {index}") + ")")
    named(PLACEHOLDERS, "2,000 placeholders", ("SELECT " + commas(2_000, lambda index: "?"), "x"))
    named(FORMAT, "a long format of to_char", "SELECT to_char(at, repeat('%Y', 1000)) FROM samples")
    named(TABLES, "200 tables", "SELECT count(*) FROM samples AS s " + " ".join(f"JOIN samples AS s{index} ON s{index}.id = s.id" for index in range(200)))
    for name, sql in (
        ("16 doubling WITH queries", chain_of_ctes(16, "SELECT 1 AS x", lambda last: f"SELECT * FROM {last} UNION ALL SELECT * FROM {last}") + " SELECT count(*) FROM c16"),
        ("9 doubling WITH queries", chain_of_ctes(9, "SELECT id FROM samples", lambda last: f"SELECT * FROM {last} UNION ALL SELECT * FROM {last}") + " SELECT count(*) FROM c9"),
        ("6 doubling joins", chain_of_ctes(6, "SELECT id AS x FROM samples LIMIT 2", lambda last: f"SELECT a.x FROM {last} AS a JOIN {last} AS b ON a.x = b.x") + " SELECT count(*) FROM c6"),
        ("9 intersecting WITH queries", chain_of_ctes(9, "SELECT id FROM samples", lambda last: f"SELECT * FROM {last} INTERSECT SELECT * FROM {last}") + " SELECT count(*) FROM c9"),
        ("EXPLAIN VERBOSE of 9 WITH queries", "EXPLAIN VERBOSE " + chain_of_ctes(9, "SELECT id FROM samples", lambda last: f"SELECT * FROM {last} UNION ALL SELECT * FROM {last}") + " SELECT count(*) FROM c9"),
        ("99 joins with an equality", "SELECT count(*) FROM samples AS e0 " + " ".join(f"JOIN samples AS e{index} ON e{index}.id = e{index - 1}.id" for index in range(1, 99))),
        ("99 left joins", "SELECT count(*) FROM samples AS e0 " + " ".join(f"LEFT JOIN samples AS e{index} ON e{index}.id = e0.id AND e{index}.ratio > e0.ratio" for index in range(1, 99))),
        ("99 natural joins", "SELECT count(*) FROM samples AS e0 " + " ".join(f"NATURAL JOIN samples AS e{index}" for index in range(1, 99))),
        ("99 joins with USING", "SELECT * FROM samples AS e0 " + " ".join(f"FULL JOIN samples AS e{index} USING (id, small, label)" for index in range(1, 99))),
        ("60 joins of all columns", "SELECT * FROM samples AS e0 " + " ".join(f"JOIN samples AS e{index} ON e{index}.id = e0.id" for index in range(1, 60)) + " ORDER BY " + commas(60, lambda index: f"e{index}.label")),
        ("cross join of 90 equal VALUES", f"SELECT count(*) FROM {values(90)} WHERE " + " AND ".join(f"v{index}.x = v{index + 1}.x" for index in range(89))),
        ("information_schema 6 times", "SELECT count(*) FROM " + commas(6, lambda index: f"information_schema.columns AS c{index}")),
        ("freshness 40 times", "SELECT count(*) FROM " + commas(40, lambda index: f"freshness('samples') AS f{index}")),
        ("500 additions", "SELECT " + " + ".join(f"levenshtein(repeat('a', 500 + value), repeat('b', {index}))" for index in range(500)) + f" FROM {ROWS}"),
        ("200 calls", "SELECT " + " + ".join(f"length(concat(id, {index}))" for index in range(200)) + " FROM samples"),
        ("5,000 columns", "SELECT " + commas(5_000, lambda index: f"small + {index} AS c{index}") + " FROM samples LIMIT 1"),
        ("5,000 aggregates", "SELECT " + commas(5_000, lambda index: f"sum(small + {index})") + " FROM samples"),
        ("2,000 distinct aggregates", "SELECT " + commas(2_000, lambda index: f"count(DISTINCT small + {index})") + " FROM samples"),
        ("2,000 group keys", "SELECT count(*) FROM samples GROUP BY " + commas(2_000, lambda index: f"small + {index}")),
        ("2,000 sort keys", "SELECT id FROM samples ORDER BY " + commas(2_000, lambda index: f"small + {index}")),
        ("2,000 filters of aggregates", "SELECT " + commas(2_000, lambda index: f"count(*) FILTER (WHERE small > {index})") + " FROM samples"),
        ("15,000 rows of VALUES", "SELECT count(*) FROM (VALUES " + commas(15_000, lambda index: f"({index}, 'a')") + ") AS v(a, b)"),
        ("100 windows with different orders", "SELECT " + commas(99, lambda index: f"sum(small) OVER (ORDER BY small % {index + 2}, id)") + " FROM samples"),
        ("90 correlated subqueries", "SELECT " + commas(90, lambda index: f"(SELECT max(b.small) FROM samples AS b WHERE b.id = a.id AND b.small > {index})") + " FROM samples AS a"),
        ("90 EXISTS", "SELECT count(*) FROM samples AS a WHERE " + " OR ".join(f"EXISTS (SELECT 1 FROM samples AS b WHERE b.id = a.id AND b.small = {index})" for index in range(90))),
        ("10 nested scalar subqueries", "SELECT " + nest(10, "(SELECT max(small) + ", "1", " FROM samples)")),
        ("20 nested subqueries", f"SELECT count(*) FROM {nest(20, '(SELECT * FROM ', 'samples', ') AS t')}"),
        ("nested correlated subqueries", nest(6, "SELECT count(*) FROM samples AS a WHERE a.small IN (SELECT b.small FROM samples AS b WHERE b.id = a.id AND b.small IN (", "SELECT 1", "))")),
        ("nested lateral joins", "SELECT count(*) FROM samples AS a0 " + " ".join(f"CROSS JOIN LATERAL (SELECT b.id, b.small FROM samples AS b WHERE b.id = a{index}.id) AS a{index + 1}" for index in range(40))),
        ("conditions in conjunctive form", "SELECT count(*) FROM samples WHERE " + " OR ".join(f"(small > {index} AND big < {index})" for index in range(250))),
        ("conditions of two tables", "SELECT count(*) FROM samples AS a JOIN samples AS b ON " + " OR ".join(f"(a.small = {index} AND b.small = {index + 1})" for index in range(150))),
        ("a sum that subqueries double", f"SELECT max(x) FROM {nest(20, '(SELECT x + x AS x FROM ', '(SELECT small::double AS x FROM samples) AS t', ') AS t')}"),
        ("a condition that subqueries double", f"SELECT count(*) FROM {nest(20, '(SELECT (x AND NOT x OR x) AS x FROM ', '(SELECT flag AS x FROM samples) AS t', ') AS t')} WHERE x"),
        ("a CASE that subqueries double", f"SELECT max(x) FROM {nest(18, '(SELECT CASE WHEN x > 1 THEN x WHEN x < 0 THEN x + 1 ELSE x END AS x FROM ', '(SELECT small AS x FROM samples) AS t', ') AS t')}"),
        ("20 columns that subqueries mix", f"SELECT max(a) FROM {nest(20, '(SELECT a + b AS a, a - b AS b FROM ', '(SELECT small::double AS a, ratio AS b FROM samples) AS t', ') AS t')}"),
        ("a CASE that WITH queries double", chain_of_ctes(30, "SELECT small AS x FROM samples", lambda last: f"SELECT CASE WHEN x > 1 THEN x WHEN x < 0 THEN x + 1 ELSE x END AS x FROM {last}") + " SELECT max(x) FROM c30"),
        ("orders of 40 monotonic functions", "SELECT " + commas(40, lambda index: f"date_trunc('hour', at) + INTERVAL '{index} hours' AS c{index}") + " FROM samples ORDER BY " + commas(40, lambda index: f"c{index}")),
        ("equal columns", "SELECT count(*) FROM samples AS a JOIN samples AS b ON a.id = b.id AND a.small = b.small AND a.big = b.big AND a.label = b.label AND a.day = b.day AND a.ratio = b.ratio WHERE a.small = a.big AND a.big = a.ratio AND a.ratio = a.ratio32 AND b.small = b.big"),
        ("unions of 90 tables", "SELECT count(*) FROM (" + unions(90, lambda index: f"SELECT id, small + {index} FROM samples") + ") AS t"),
        ("distinct unions of 90 tables", "SELECT count(*) FROM (" + " UNION ".join(f"SELECT id, small + {index} FROM samples" for index in range(90)) + ") AS t"),
        ("intersections of 90 tables", " INTERSECT ALL ".join(f"SELECT id, small FROM samples WHERE small <> {index}" for index in range(90))),
        ("exceptions of 90 tables", " EXCEPT ALL ".join(f"SELECT id, small FROM samples WHERE small <> {index}" for index in range(90))),
        ("unions with 500 columns", "SELECT count(*) FROM (" + unions(20, lambda union: "SELECT " + commas(500, lambda index: f"{index} AS c{index}")) + ") AS t"),
        ("a name of 200,000 bytes", f'SELECT 1 AS "{"x" * 200_000}"'),
        ("an unknown name of 200,000 bytes", f'SELECT "{"x" * 200_000}" FROM samples'),
        ("an unknown table of 200,000 bytes", f'SELECT 1 FROM "{"x" * 200_000}"'),
        ("an unknown function of 200,000 bytes", f'SELECT "{"x" * 200_000}"(1)'),
        ("a wrong number of 200,000 digits", f"SELECT {'9' * 200_000}"),
        ("a wrong number of 200,000 decimals", f"SELECT 0.{'9' * 200_000}"),
        ("a wrong cast of 200,000 bytes", f"SELECT CAST('{'x' * 200_000}' AS INT)"),
        ("a wrong interval of 200,000 bytes", f"SELECT INTERVAL '{'x' * 200_000}'"),
        ("a wrong timestamp of 200,000 bytes", f"SELECT TIMESTAMP '{'x' * 200_000}'"),
        ("a wrong pattern of 200,000 bytes", f"SELECT regexp_like('a', '{'(' * 200_000}')"),
        ("a syntax error after 200,000 bytes", f"SELECT {'x, ' * 60_000} FROM FROM"),
        ("an open string", "SELECT '" + "x" * 200_000),
        ("200,000 semicolons", "SELECT 1" + ";" * 200_000),
        ("30,000 unknown columns", "SELECT " + commas(30_000, lambda index: f"x{index}") + " FROM samples"),
        ("stars of 50 tables", "SELECT " + commas(50, lambda index: f"s{index}.*") + " FROM " + commas(50, lambda index: f"samples AS s{index}") + " LIMIT 1"),
        ("5,000 stars", "SELECT " + commas(5_000, lambda index: "*") + " FROM samples LIMIT 1"),
        ("a large list type", "SELECT arrow_cast(make_array(1), 'FixedSizeList(2000000000, Int32)')"),
        ("a large binary type", "SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)')"),
        ("nulls of a large binary type", f"SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000)'), value FROM {ROWS}"),
        ("nulls of a large list type", f"SELECT arrow_cast(NULL, 'FixedSizeList(1000000, Int64)'), value FROM {ROWS}"),
        ("a large decimal type", "SELECT arrow_cast(value, 'Decimal256(76, -128)') * arrow_cast(value, 'Decimal256(76, 76)') FROM generate_series(1, 10) AS g(value)"),
        ("a large dictionary type", f"SELECT arrow_cast(value::text, 'Dictionary(UInt8, Utf8)') FROM {ROWS}"),
        ("a large run-end type", f"SELECT arrow_cast(value, 'RunEndEncoded(Int16, Int64)') FROM {ROWS}"),
        ("a large struct type", f"SELECT arrow_cast(NULL, 'Struct({commas(2_000, lambda index: chr(34) + f'c{index}' + chr(34) + ': Int64')})') FROM {ROWS}"),
    ):
        other(name, sql)


results()
memory()
groups()
extremes()
time_limit()
batches()
patterns()
parsing()
planning()

# Statements with constants that are evaluated during planning, and whose plans the server keeps.
KEPT = [f"SELECT max(length(repeat('x{index}', 100000))), max(id) FROM samples LIMIT 0" for index in range(20)]
KEPT += [f"SELECT length(concat(repeat('x{index}', 8000000), id)) FROM samples WHERE small < 0" for index in range(40)]
KEPT += [f"SELECT count(*) FROM samples WHERE big IN ({commas(5_000, lambda number, index=index: str(index + number))}) LIMIT 0" for index in range(20)]
# Values that a client binds to one prepared statement, which runs once for each of them.
BOUND_ROWS = ("SELECT max(length(repeat('x', 30000000 + $1))) FROM samples", pa.array(range(50_000), pa.int64()))
