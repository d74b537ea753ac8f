"""Questions with the kinds of queries that people and BI tools write for reports, and questions that mix types."""

from .expressions import COMPARISONS, TINY
from .ordered import Ordered

DAILY = "generate_series(TIMESTAMP '2024-01-30 00:00:00', TIMESTAMP '2024-03-02 00:00:00', INTERVAL '1 day')"


def summaries(maker):
    """Shares, pivots, running totals, gaps filled from a series, and the latest row of each key."""
    table, other = maker.pick("ta", "tb", "tc"), maker.pick("ta", "tb", "tc")
    key = maker.pick("k", "f", "s")
    unit = maker.pick("day", "month", "year", "week")
    maker.is_inexact = True
    return maker.pick(
        f"SELECT {key}, 100.0 * count(*) / sum(count(*)) OVER () AS share FROM {table} GROUP BY {key}",
        f"SELECT {key}, sum(i) / count(*), sum(d) / count(d), avg(i) * 2 FROM {table} GROUP BY {key} HAVING count(d) > 0",
        f"SELECT {key}, sum(CASE WHEN f THEN i ELSE 0 END) AS yes, sum(CASE WHEN NOT f THEN i END) AS no FROM {table} "
        f"GROUP BY {key}",
        f"SELECT date_trunc('{unit}', ts) AS t, count(*), count(DISTINCT k), sum(d) FROM {table} WHERE ts >= '2024-01-01' "
        f"GROUP BY 1",
        f"SELECT CAST(g.v AS DATE), count(t.n) FROM {DAILY} AS g(v) LEFT "
        f"JOIN {table} AS t ON CAST(t.ts AS DATE) = CAST(g.v AS DATE) GROUP BY 1",
        f"SELECT * FROM (SELECT {key}, n, i, row_number() OVER (PARTITION BY {key} ORDER BY ts DESC NULLS LAST, n) AS r "
        f"FROM {table}) AS q "
        f"WHERE r = 1",
        f"SELECT {key}, n, ts FROM {table} AS a WHERE n = (SELECT max(n) FROM {table} AS b WHERE b.{key} = a.{key})",
        Ordered(f"SELECT {key}, count(*) AS c FROM {table} GROUP BY {key} ORDER BY c DESC, {key}{maker.nulls()} LIMIT 3"),
        f"SELECT DISTINCT {key}, count(*) OVER (PARTITION BY {key}), max(i) OVER (PARTITION BY {key}) FROM {table}",
        Ordered(f"SELECT n, i FROM {table} ORDER BY sum(i) OVER (PARTITION BY k), n"),
        f"WITH a AS (SELECT k, sum(i) AS x FROM {table} GROUP BY k), b AS (SELECT k, sum(i) AS y FROM {other} GROUP BY k) "
        f"SELECT coalesce(a.k, b.k), x, y, coalesce(x, 0) - coalesce(y, 0) FROM a FULL JOIN b ON a.k = b.k",
        f"SELECT n, i, i - lag(i) OVER (ORDER BY n) AS change, sum(i) OVER (ORDER BY n) AS total FROM {table}",
        f"SELECT k, count(*) FROM {table} WHERE day BETWEEN '2024-01-01' AND '2024-12-31' AND (s LIKE 'a%' OR s IS NULL) "
        f"GROUP BY k",
        f"SELECT extract(year FROM ts) AS yr, extract(month FROM ts) AS mo, count(*) FROM {table} GROUP BY yr, mo",
        f"SELECT CASE WHEN i < 0 THEN 'low' WHEN i < 10 THEN 'mid' ELSE 'high' END AS band, count(*), min(i), max(i) "
        f"FROM {table} GROUP BY band",
        f"SELECT g, count(*) FROM ((SELECT k AS g FROM {table} ORDER BY k) UNION ALL (SELECT k FROM {other} ORDER BY k)) AS q "
        f"GROUP BY GROUPING SETS ((g), ())",
        f"SELECT a.n, b.n FROM {table} AS a JOIN {other} AS b ON a.ts BETWEEN b.ts AND b.ts + INTERVAL '60 days'",
        f"SELECT a.k, count(DISTINCT b.k) FROM {table} AS a LEFT JOIN {other} AS b ON b.k > a.k GROUP BY a.k",
    )


def mixtures(maker):
    """Values of different types in comparisons, joins, CASE, IN and set operations, and literals of unknown type."""
    table, other = maker.pick("ta", "tb", "tc"), maker.pick("ta", "tb", "tc")
    one, second = maker.pick("i", "b", "n", "k"), maker.pick("d", "b", "i", "n")
    operator = maker.pick(*COMPARISONS)
    # A quotient of decimals.
    maker.is_inexact = True
    return maker.pick(
        f"SELECT a.n, b.n FROM {table} AS a JOIN {other} AS b ON a.{one} = b.{second}",
        f"SELECT {one} FROM {table} {maker.pick('UNION', 'UNION ALL', 'INTERSECT', 'EXCEPT')} SELECT {second} FROM {other}",
        f"SELECT {one} FROM {table} UNION SELECT {maker.pick('1.5', '2', 'NULL', '3000000000')}",
        f"SELECT n, {one} {operator} {second}, {one} IN (1, 2.5, NULL), {second} BETWEEN 0.5 AND 7 FROM {table}",
        f"SELECT n, CASE WHEN f THEN {one} ELSE {second} END, coalesce({one}, {second}, 0.5) FROM {table}",
        f"SELECT n FROM {table} WHERE {one} IN (SELECT {second} FROM {other}) OR {one} = 1.0",
        f"SELECT n FROM {table} WHERE {one} {operator} '{maker.pick('3', ' 7 ', '-1')}'",
        f"SELECT n FROM {table} WHERE d {operator} '{maker.pick('2.5', '1e1', '0')}' AND f = '{maker.pick('true', 'f', 'no')}'",
        f"SELECT n FROM {table} WHERE {one} = '{maker.pick('x', '', '1.5')}'",
        f"SELECT NULL, NULL = NULL, NULL IS NULL, count(NULL), max(NULL::int), coalesce(NULL, 3) FROM {table}",
        f"SELECT n, NULL || s, {one} + NULL, NULL AND f, NULL OR f, NOT NULL::boolean FROM {table}",
        f"SELECT n, s || n, n || s, s || {maker.pick('f', 'day')} FROM {table}",
        f"SELECT n, day {operator} ts, CAST(day AS TEXT) = '2024-02-29', ts::date = day FROM {table}",
        f"SELECT n FROM {table} WHERE day {operator} '2024-02-{maker.pick('29', '30')}'",
        f"SELECT max({one}) + min({second}), sum({one}) * 1.5, sum({second}) > 10, avg({one}) = avg({second}) FROM {table}",
        f"SELECT n, {one} * 1.0, {one} * CAST(1 AS DOUBLE PRECISION), {one} / 4, {one} / 4.0 FROM {table}",
        f"SELECT n FROM {table} WHERE {maker.pick('d', TINY, 'i', '0.5')} {maker.pick('', 'NOT ')}IN (SELECT "
        f"{maker.pick('i * 0.5', '0.0', 'd')} FROM {other})",
        f"SELECT v FROM (VALUES ({TINY}), ({maker.pick('0.5', '1', 'NULL')}), ({maker.pick('2.50', '3')})) AS q(v)",
        f"SELECT n, {second} = ANY (ARRAY[{maker.pick('1', '0.5', '2.0')}, {maker.pick('3', '7.5', 'NULL')}]) FROM {table}",
        f"SELECT n, CAST({one} AS SMALLINT) + CAST(1 AS SMALLINT), CAST({one} AS REAL) * 2 FROM {table} "
        f"WHERE {one} BETWEEN -100 AND 100",
        f"SELECT count(*) FROM {table} AS a, {other} AS b WHERE (a.{one}, a.k) = (b.{second}, b.k)",
    )
