"""Hostile statements that are expensive to run.

They have large values, many groups, results without an end, and arguments at the limits of their types.
"""

import pyarrow as pa

from hostile import (
    CHAIN, FRAMES, MEMORY, NESTED, ONE, RESULT, ROW, ROWS, STATES, TIME, chain_of_ctes, commas, named, nest, other, unions, values,
)


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
        other(f"{name} per row", f"SELECT {call} AS s FROM {ROWS}")
    text = "repeat('x', 250000 + value)"
    other("8 columns of repeat", "SELECT " + commas(8, lambda index: f"repeat(chr(65 + {index}), 250000 + value)") + f" FROM {ROWS}")
    other("repeat as a group key", f"SELECT {text} AS s, count(*) FROM {ROWS} GROUP BY 1")
    other("repeat as a sort key", f"SELECT value FROM {ROWS} ORDER BY {text}")
    other("repeat in DISTINCT", f"SELECT count(DISTINCT {text}) FROM {ROWS}")
    other("repeat in max", f"SELECT min({text}), max({text}) FROM {ROWS}")
    other("repeat in string_agg", f"SELECT string_agg({text}, ',') FROM {ROWS}")
    other("repeat in array_agg", f"SELECT array_agg({text}) FROM {ROWS}")
    other("repeat in a window", f"SELECT lag({text}) OVER (ORDER BY value) FROM {ROWS}")
    other("repeat in a join", f"SELECT count(*) FROM {ROWS} JOIN samples ON id = {text}")
    named(RESULT, "unnest of a long list per row", f"SELECT count(*) FROM (SELECT unnest(range(0, 100000 + value)) FROM {ROWS}) AS t")
    named(RESULT, "regexp_count over a long text per row", f"SELECT sum(regexp_count(repeat('ab', 10000 + value), '(a|b)*c')) FROM {ROWS}")
    named(RESULT, "levenshtein of two long texts", f"SELECT levenshtein(repeat('a', 10000000 + value), repeat('b', 10000000)) FROM {ONE}")
    named(RESULT, "a value that 16 subqueries double", f"SELECT max(length(x)) FROM {nest(16, '(SELECT x || x AS x FROM ', '(SELECT id AS x FROM samples) AS t', ') AS t')}")
    named(RESULT, "a value that 40 WITH queries double", chain_of_ctes(40, "SELECT id AS x FROM samples", lambda last: f"SELECT x || x AS x FROM {last} OFFSET 1") + " SELECT max(length(x)) FROM c40")
    named(RESULT, "replace 12 times", "SELECT max(length(" + nest(12, "replace(", "id", ", '0', '00000000')") + ")) FROM samples")
    named(r"too long for `regexp_replace`", "regexp_replace 12 times", "SELECT max(length(" + nest(12, "regexp_replace(", "id", ", '0', '00000000', 'g')") + ")) FROM samples")
    for name, call in (
        ("array_agg", "array_agg(id) OVER (ORDER BY at ROWS 5000 PRECEDING)"),
        ("array_agg of all preceding rows", "array_agg(id) OVER (ORDER BY at)"),
        ("string_agg", "string_agg(id, ',') OVER (ORDER BY at ROWS 5000 PRECEDING)"),
        ("string_agg of all preceding rows", "string_agg(id, ',') OVER (ORDER BY at)"),
        ("mode", "mode(small) OVER (ORDER BY at ROWS 100000 PRECEDING)"),
    ):
        named(FRAMES, f"window of {name}", f"SELECT {call} AS v FROM samples")
    named(ROW, "a row of 8 MB", f"SELECT repeat('x', 8000000 + value) AS s FROM {ONE}")
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
    """Aggregates that keep a lot of memory for each of 300,000 groups."""
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
    """Arguments at the limits of their types. An engine may overflow when it computes a size or a bound from them."""
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
    """Statements that never end, or that run for a very long time."""
    named(MEMORY, "sort of 10^12 rows", "SELECT value FROM generate_series(1, 1000000000000) AS g(value) ORDER BY value % 7")
    named(MEMORY, "window over 10^12 rows", "SELECT max(n) FROM (SELECT sum(value) OVER (ORDER BY value % 7) AS n FROM generate_series(1, 1000000000000) AS g(value)) AS t")
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
    """Functions that take a long time for one batch of rows."""
    for name, call in (
        ("btrim of many characters", "length(btrim(repeat('a', 3000000 + value), repeat('bcdefghijk', 300000) || 'a'))"),
        ("ltrim of many characters", "length(ltrim(repeat('a', 3000000 + value), repeat('bcdefghijk', 300000) || 'a'))"),
        ("translate of many characters", "length(translate(repeat('a', 3000000 + value), repeat('b', 3000000) || 'a', 'x'))"),
        ("strpos of a long text", "strpos(repeat('a', 3000000 + value), repeat('a', 1500000) || 'b')"),
        ("contains a long text", "contains(repeat('a', 3000000 + value), repeat('a', 1500000) || 'b')"),
        ("replace of a long text", "length(replace(repeat('a', 3000000 + value), repeat('a', 1500000) || 'b', 'c'))"),
        ("split_part by a long text", "split_part(repeat('a', 3000000 + value), repeat('a', 1500000) || 'b', 2)"),
        ("substring_index of a long text", "length(substring_index(repeat('a,', 3000000 + value), ',', 1500000))"),
        ("find_in_set of a long text", "find_in_set('b', repeat('a,', 3000000 + value))"),
        ("find_in_set of a long set", "find_in_set(repeat('b', 3000000), repeat('a,', 3000000 + value))"),
        ("LIKE with many wildcards", f"repeat('a', 5000000 + value) LIKE '{'%a' * 200}%b'"),
        ("LIKE with many underscores", f"repeat('a', 5000000 + value) LIKE '%{'_' * 500}b'"),
        ("ILIKE with many wildcards", f"repeat('a', 5000000 + value) ILIKE '{'%a' * 200}%b'"),
        ("SIMILAR TO", "repeat('a', 5000000 + value) SIMILAR TO '(a|aa)*b'"),
        ("quadratic regexp_count", "regexp_count(repeat('A', 3000000 + value), '.*[^A-Z]|[A-Z]')"),
        ("quadratic regexp_replace", "length(regexp_replace(repeat('A', 3000000 + value), '.*[^A-Z]|[A-Z]', 'x', 'g'))"),
        ("quadratic regexp_instr", "regexp_instr(repeat('A', 3000000 + value), '.*[^A-Z]|[A-Z]', 1, 9999999)"),
        ("regexp_like with large repetitions", "regexp_like(repeat('a', 5000000 + value), '(a{1,50}){1,50}b')"),
        ("regexp_match of a long text", "regexp_match(repeat('a', 5000000 + value), '(.*)(.*)(.*)(.*)(.*)b')"),
        ("regexp_count with words", "regexp_count(repeat('a ', 3000000 + value), '(\\w+\\s+)*\\d')"),
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
        ("string_to_array of single characters", "cardinality(string_to_array(repeat('a,', 4000000 + value), ','))"),
        ("encode twice", "length(encode(encode(repeat('a', 4000000 + value), 'hex'), 'hex'))"),
        ("upper of expanding characters", "length(upper(repeat('ΐ', 4000000 + value)))"),
        ("initcap of a long text", "length(initcap(repeat('ab ', 3000000 + value)))"),
        ("reverse of a long text", "length(reverse(repeat('ab ', 3000000 + value)))"),
        ("overlay of a long text", "length(overlay(repeat('ab ', 3000000 + value) PLACING 'x' FROM 2500000 FOR 2))"),
        ("cast to a decimal", "TRY_CAST(repeat('9', 8000000 + value) AS DECIMAL(38, 10))"),
        ("cast of decimals to a decimal", "TRY_CAST('0.' || repeat('9', 8000000 + value) AS DECIMAL(38, 10))"),
        ("cast of points to a decimal", "TRY_CAST(repeat('.', 8000000 + value) AS DECIMAL(38, 10))"),
        ("cast of an exponent to a decimal", "TRY_CAST('1e' || repeat('9', 8000000 + value) AS DECIMAL(38, 10))"),
        ("comparison with a decimal", "value * 1.5 = repeat('9', 8000000 + value)"),
        ("cast to a double", "TRY_CAST(repeat('9', 8000000 + value) AS DOUBLE)"),
        ("cast to a timestamp", "TRY_CAST(repeat('9', 8000000 + value) AS TIMESTAMP)"),
        ("cast to an interval", "TRY_CAST(repeat('1 day ', 5000000 + value) AS INTERVAL)"),
        ("cast to a number, with an error", "CAST(repeat('9', 8000000 + value) AS BIGINT)"),
        ("cast to a date, with an error", "CAST(repeat('9', 8000000 + value) AS DATE)"),
        ("cast to an interval, with an error", "CAST(repeat('1 foo ', 5000000 + value) AS INTERVAL)"),
        ("cast to bytes", "length(encode(repeat('ab', 4000000 + value)::bytea, 'base64'))"),
        ("to_timestamp with an error", "to_timestamp(repeat('9', 8000000 + value))"),
        ("decode with an error", "decode(repeat('z', 8000000 + value), 'hex')"),
                ("pattern with an error", "regexp_like('a', repeat('(', 8000000 + value))"),
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


def documents():
    """Large and deep JSON documents, and long texts that are read as UUIDs and base64."""
    for name, call in (
        ("json_text of a long string", "length(json_text('{\"a\":\"' || repeat('x', 5000000 + value) || '\"}', 'a'))"),
        ("json_text of many escapes", "length(json_text('{\"a\":\"' || repeat('\\u0041', 1000000 + value) || '\"}', 'a'))"),
        ("json_raw of a deep array", "length(json_raw(repeat('[', 2000000 + value) || repeat(']', 2000000 + value), 0))"),
        ("json_typeof of an array that does not end", "json_typeof(repeat('[', 5000000 + value))"),
        ("json_typeof of a deep object", "json_typeof(repeat('{\"a\":', 1000000 + value) || '1' || repeat('}', 1000000 + value), 'a', 'a')"),
        ("json_int after many keys", "json_int('{' || repeat('\"a\":1,', 1000000 + value) || '\"z\":2}', 'z')"),
        ("json_extract_path with many steps", "json_extract_path(repeat('{\"a\":', 3000) || value || repeat('}', 3000), " + commas(3000, lambda index: "'a'") + ")"),
        ("json_array of many elements", "cardinality(json_array('[' || repeat('1,', 3000000 + value) || '1]'))"),
        ("json_array_length of many elements", "json_array_length('[' || repeat('1,', 4000000 + value) || '1]')"),
        ("json_text_array with two wildcards", "cardinality(json_text_array('[' || repeat('[1,1,1],', 500000 + value) || '[1]]', '*', '*'))"),
        ("json_text_array with many wildcards", "cardinality(json_text_array(repeat('[', 60) || value || repeat(']', 60), " + commas(60, lambda index: "'*'") + "))"),
        ("cast of a deep text to JSON", "length(CAST(CAST(repeat('[', 5000000 + value) AS JSON) AS TEXT))"),
        ("cast of a long text to JSON", "length(CAST(CAST('[' || repeat('1,', 3000000 + value) || '1]' AS JSON) AS TEXT))"),
        ("cast of a long text to JSON, with an error", "length(CAST(CAST('[' || repeat('1,', 3000000 + value) AS JSON) AS TEXT))"),
        ("cast to a UUID, with an error", "CAST(repeat('a', 8000000 + value) AS UUID)"),
        ("cast to a UUID", "TRY_CAST(repeat('a', 8000000 + value) AS UUID)"),
        ("comparison with a UUID", "CAST(uuid() AS UUID) = repeat('a', 8000000 + value)"),
        ("decode of base64", "octet_length(decode(repeat('QUJD', 2000000 + value), 'base64'))"),
        ("decode of base64, with an error", "octet_length(decode(repeat('QUJD', 2000000 + value) || '*', 'base64'))"),
    ):
        other(f"one row: {name}", f"SELECT {call} FROM {ONE}")
    named(f"{CHAIN}|{NESTED}", "a chain of JSON operators", "SELECT '{}'" + "->'a'" * 20_000)
    other("elements of a large array for each row", "SELECT count(*) FROM (SELECT unnest(json_array('[' || repeat('1,', 10000) || id || ']')) FROM samples) AS t")
    other("elements of a constant array for each row", "SELECT count(*) FROM (SELECT unnest(json_array('[' || repeat('1,', 100000) || '1]')) FROM samples) AS t")
    other("all documents in one array", "SELECT json_array_length('[' || string_agg('{\"a\":' || small || '}', ',') || ']') FROM samples")
    other("a call for each of 300,000 rows: json_int", "SELECT sum(json_int('{\"a\":[' || small || ',2,3]}', 'a', 0)) FROM samples")
    other("a call for each of 300,000 rows: json_text_array", "SELECT sum(cardinality(json_text_array('[' || repeat(small || ',', 20) || '1]', '*'))) FROM samples")
    other("a call for each of 300,000 rows: cast to a UUID", "SELECT count(TRY_CAST(md5(id) AS UUID)) FROM samples")


results()
memory()
groups()
extremes()
time_limit()
batches()
patterns()
documents()

# Statements with constants that are evaluated during planning, and whose plans the server keeps.
KEPT = [f"SELECT max(length(repeat('x{index}', 100000))), max(id) FROM samples LIMIT 0" for index in range(20)]
KEPT += [f"SELECT length(concat(repeat('x{index}', 8000000), id)) FROM samples WHERE small < 0" for index in range(40)]
KEPT += [f"SELECT count(*) FROM samples WHERE big IN ({commas(5_000, lambda number, index=index: str(index + number))}) LIMIT 0" for index in range(20)]
# A prepared statement, and the values that a client binds to it. The statement runs once for each value.
BOUND_ROWS = ("SELECT max(length(repeat('x', 30000000 + $1))) FROM samples", pa.array(range(50_000), pa.int64()))
