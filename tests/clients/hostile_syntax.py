"""Hostile statements that are expensive to parse or plan: deep nesting, long lists, and many tables or columns."""

from hostile import (
    CHAIN, CROSS, FORMAT, LISTS, LITERALS, MEBI, NESTED, PLACEHOLDERS, ROWS, SETS, TABLES, TEXT, WINDOWS, chain_of_ctes, commas,
    named, nest, nest_most, other, unions, values,
)


def parsing():
    """Nested syntax, with and without a syntax error. A parser may try several interpretations at each level."""
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
        other(f"nested a few {name}", f"SELECT {nest(40, before, '1', after)}")
        other(f"nested a few {name} with an error", f"SELECT {nest(40, before, '1 1', after)}")
        other(f"nested very many {name}", f"SELECT {nest_most(before, '1', after)}")
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
        other(f"FROM with a few {name}", f"SELECT 1 FROM {nest(40, before, 'samples', after)}")
        other(f"FROM with a few {name} with an error", f"SELECT 1 FROM {nest(40, before, 'samples 1', after)}")
        other(f"FROM with very many {name}", f"SELECT 1 FROM {nest_most(before, 'samples', after)}")
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
        other(f"40 types: {name}", f"SELECT CAST(NULL AS {nest(40, before, 'INT', after)})")
        other(f"very many types: {name}", f"SELECT CAST(NULL AS {nest_most(before, 'INT', after)})")
    for name, before, after in (
        ("List", "List(", ")"),
        ("Struct", 'Struct("a": ', ")"),
        ("FixedSizeList", "FixedSizeList(2, ", ")"),
        ("Dictionary", "Dictionary(Int32, ", ")"),
        ("unknown types", "Unknown(", ")"),
    ):
        other(f"40 Arrow types: {name}", f"SELECT arrow_cast(NULL, '{nest(40, before, 'Int32', after)}')")
        other(f"very many Arrow types: {name}", f"SELECT arrow_cast(NULL, '{nest_most(before, 'Int32', after)}')")
    for name, sql in (
        ("MATCH_RECOGNIZE", f"SELECT * FROM samples MATCH_RECOGNIZE (PATTERN ({nest_most('(', 'a', ')')}) DEFINE a AS true)"),
        ("BEGIN", nest_most("BEGIN ", "SELECT 1", "")),
        ("PREPARE", nest_most("PREPARE a AS ", "SELECT 1", "")),
        ("DECLARE", nest_most("DECLARE a CURSOR FOR ", "SELECT 1", "")),
        ("IF", nest_most("IF true THEN ", "SELECT 1;", " END IF;")),
        ("WHILE", nest_most("WHILE true BEGIN ", "SELECT 1;", " END;")),
        ("CASE", nest_most("CASE WHEN true THEN ", "SELECT 1;", " END CASE;")),
        ("CREATE TABLE", f"CREATE TABLE a (b INT CHECK ({nest_most('(', 'true', ')')}))"),
        ("CREATE TABLE with types", f"CREATE TABLE a (b {nest_most('Nullable(', 'INT', ')')})"),
        ("CREATE VIEW", nest_most("CREATE VIEW a AS ", "SELECT 1", "")),
        ("CREATE SCHEMA", nest_most("CREATE SCHEMA a ", "SELECT 1", "")),
        ("EXPLAIN ANALYZE", nest_most("EXPLAIN ANALYZE VERBOSE ", "SELECT 1", "")),
        ("INSERT", nest_most("WITH a AS (INSERT INTO a ", "SELECT 1", ")")),
        ("MERGE", nest_most("MERGE INTO a USING (", "SELECT 1", ") AS b ON true")),
        ("COPY", nest_most("COPY (", "SELECT 1", ") TO 'a'")),
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
        ("types of casts", "SELECT CAST(NULL AS " + nest(5_000, "ARRAY<", "INT", ">") + ")"),
        ("types of lists", "SELECT CAST(NULL AS INT" + "[]" * 5_000 + ")"),
        ("intervals", "SELECT " + nest(5_000, "INTERVAL ", "'1 day'", "")),
        ("windows", "SELECT " + nest(deep, "sum(", "1", ") OVER ()")),
        ("ODBC calls", "SELECT " + nest(1_000, "{fn abs(", "1", ")}")),
        ("time zones", "SELECT now()" + " AT TIME ZONE 'UTC'" * 5_000),
        ("COLLATE", "SELECT 'a'" + " COLLATE c" * 5_000),
        ("IS NULL", "SELECT 1" + " IS NULL" * 5_000),
        ("lambdas", "SELECT " + nest(1_000, "x -> ", "1", "")),
        ("subquery aliases", nest(deep, "SELECT * FROM (", "SELECT 1 AS x", ") AS t")),
        ("VALUES", nest(deep, "SELECT * FROM (VALUES ((", "SELECT 1", "))) AS t")),
    ):
        named(f"{NESTED}|{CHAIN}", f"deep {name}", sql)
    for name, sql in (
        ("CASE", "SELECT " + nest(5_000, "CASE WHEN true THEN ", "1", " END")),
        ("types", "SELECT arrow_cast(NULL, '" + nest(5_000, "List(", "Int64", ")") + "')"),
        ("patterns", f"SELECT regexp_like(id, '{nest(5_000, '(', 'a', ')')}') FROM samples"),
        ("comments", "SELECT 1 " + nest(20_000, "/*", "", "*/")),
        ("extracts", "SELECT " + nest(1_000, "extract(year FROM ", "now()", ")")),
        ("EXPLAIN", "EXPLAIN " * 1_000 + "SELECT 1"),
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
        named(CHAIN, f"2,000 or more: {name}", sql)
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
    named(TABLES, "16 doubling WITH queries", chain_of_ctes(16, "SELECT 1 AS x", lambda last: f"SELECT * FROM {last} UNION ALL SELECT * FROM {last}") + " SELECT count(*) FROM c16")
    named(TABLES, "200 tables", "SELECT count(*) FROM samples AS s " + " ".join(f"JOIN samples AS s{index} ON s{index}.id = s.id" for index in range(200)))
    for name, sql in (
        ("9 doubling WITH queries", chain_of_ctes(9, "SELECT id FROM samples", lambda last: f"SELECT * FROM {last} UNION ALL SELECT * FROM {last}") + " SELECT count(*) FROM c9"),
        ("6 doubling joins", chain_of_ctes(6, "SELECT id AS x FROM samples LIMIT 2", lambda last: f"SELECT a.x FROM {last} AS a JOIN {last} AS b ON a.x = b.x") + " SELECT count(*) FROM c6"),
        ("9 intersecting WITH queries", chain_of_ctes(9, "SELECT id FROM samples", lambda last: f"SELECT * FROM {last} INTERSECT SELECT * FROM {last}") + " SELECT count(*) FROM c9"),
        ("EXPLAIN VERBOSE of 9 WITH queries", "EXPLAIN VERBOSE " + chain_of_ctes(9, "SELECT id FROM samples", lambda last: f"SELECT * FROM {last} UNION ALL SELECT * FROM {last}") + " SELECT count(*) FROM c9"),
        ("50 joins with an equality", "SELECT count(*) FROM samples AS e0 " + " ".join(f"JOIN samples AS e{index} ON e{index}.id = e{index - 1}.id" for index in range(1, 50))),
        ("50 left joins", "SELECT count(*) FROM samples AS e0 " + " ".join(f"LEFT JOIN samples AS e{index} ON e{index}.id = e0.id AND e{index}.ratio > e0.ratio" for index in range(1, 50))),
        ("50 natural joins", "SELECT count(*) FROM samples AS e0 " + " ".join(f"NATURAL JOIN samples AS e{index}" for index in range(1, 50))),
        ("50 joins with USING", "SELECT * FROM samples AS e0 " + " ".join(f"FULL JOIN samples AS e{index} USING (id, small, label)" for index in range(1, 50))),
        ("30 joins of all columns", "SELECT * FROM samples AS e0 " + " ".join(f"JOIN samples AS e{index} ON e{index}.id = e0.id" for index in range(1, 30)) + " ORDER BY " + commas(30, lambda index: f"e{index}.label")),
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
        ("nested correlated subqueries", nest(4, "SELECT count(*) FROM samples AS a WHERE a.small IN (SELECT b.small FROM samples AS b WHERE b.id = a.id AND b.small IN (", "SELECT 1", "))")),
        ("nested lateral joins", "SELECT count(*) FROM samples AS a0 " + " ".join(f"CROSS JOIN LATERAL (SELECT b.id, b.small FROM samples AS b WHERE b.id = a{index}.id) AS a{index + 1}" for index in range(10))),
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


parsing()
planning()
