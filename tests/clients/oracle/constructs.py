"""Questions about single constructs: repeated names, VALUES, series, arrays, rows, LIMIT, quoted names and typed literals."""

from .expressions import COMPARISONS
from .ordered import Ordered
from .times import local_time


def names(maker):
    """Output names that are repeated, quoted or in mixed case, and * with additional columns."""
    text, _ = maker.table(("ta", "tb", "tc"))
    name = text.split()[-1]
    first, other = maker.rng.sample(["n", "k", "i", "s", "ts", "day", "f"], 2)
    return maker.pick(
        f"SELECT {name}.{first}, {name}.{first} FROM {text}",
        f"SELECT {name}.ts, {name}.ts::date, {name}.ts::date FROM {text}",
        f"SELECT count(*), count(*), sum({name}.i), sum(CAST({name}.i AS BIGINT)) FROM {text}",
        f"SELECT *, {first} FROM (SELECT {first}, {other} FROM {text}) AS q",
        f"SELECT q.*, q.{other} AS {first} FROM (SELECT {first}, {other} FROM {text}) AS q",
        f'SELECT "N", n FROM (SELECT {name}.n AS "N", {name}.k AS n FROM {text}) AS q WHERE "N" > 3 OR n IS NULL',
        f"SELECT {name}.{first.upper()} AS value, {name.upper()}.{other} FROM {text}",
        Ordered(f"SELECT DISTINCT {name}.ts::date FROM {text} ORDER BY {name}.ts::date{maker.nulls()}"),
        f"SELECT {name}.{first} AS {other}, count(*) FROM {text} GROUP BY {name}.{first}",
        Ordered(f"SELECT {name}.n AS k, {name}.k AS n FROM {text} ORDER BY k"),
        f"SELECT {name}.k + 1 AS v, count(*) FROM {text} GROUP BY v",
        f"SELECT {name}.i % 2 AS k, count(*) FROM {text} GROUP BY {name}.k, {name}.i % 2",
    )


def values(maker):
    """VALUES lists, series and arrays as tables."""
    rows = lambda: ", ".join(
        f"({maker.number(0, 4)}, {maker.pick('1.5', 'NULL', '2', '-3')})" for _ in range(maker.number(1, 4))
    )  # noqa: E731
    array = maker.pick("ARRAY[1, 2, NULL, 2]", "ARRAY[3]", "ARRAY[2, 1, 2]")
    low, high, step = maker.number(-2, 3), maker.number(0, 9), maker.pick("", ", 2", ", 3", ", -1")
    return maker.pick(
        lambda: f"VALUES {rows()}",
        lambda: Ordered(f"VALUES {rows()} ORDER BY 1{maker.nulls()}, 2 LIMIT 3"),
        lambda: f"SELECT a, sum(b) FROM (VALUES {rows()}) AS q(a, b) GROUP BY a",
        lambda: f"SELECT q.a, t.i FROM (VALUES {rows()}) AS q(a, b) {maker.pick('LEFT ', 'FULL ', '')}JOIN ta AS t ON t.k = q.a",
        lambda: f"SELECT n FROM ta WHERE k IN (VALUES (1), ({maker.number(0, 4)}))",
        lambda: f"SELECT n FROM ta WHERE (k, i) IN ({rows().replace('1.5', '5')})",
        lambda: f"SELECT v FROM generate_series({low}, {high}{step}) AS g(v)",
        lambda: f"SELECT g.v, count(t.n) FROM generate_series(1, {high}) AS g(v) LEFT JOIN ta AS t ON t.k = g.v GROUP BY g.v",
        lambda: f"SELECT v FROM unnest({array}) AS u(v)",
        lambda: f"SELECT v, count(*) FROM unnest({array}) AS u(v) GROUP BY v",
        lambda: f"SELECT n FROM ta WHERE k = ANY ({array})",
        lambda: f"SELECT n, k = ANY ({array}), k <> ALL (ARRAY[1, 2]) FROM ta",
        lambda: f"SELECT array_length({array}, 1), ({array})[1], cardinality({array})",
        lambda: f"VALUES (1, 1.5), {rows()} {maker.pick('UNION', 'UNION ALL', 'EXCEPT')} VALUES (2, 2.5), {rows()}",
        lambda: f"SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS x(k, s) NATURAL {maker.pick('LEFT ', 'FULL ', '')}JOIN (VALUES "
        f"(2, 2.5), (3, 1)) AS y(k, d)",
    )


def rows(maker):
    """Comparisons of rows, in conditions and as values."""
    text, _ = maker.table()
    name = text.split()[-1]
    left = maker.pick(f"({name}.k, {name}.i)", f"({name}.i, {name}.n)", f"({name}.k, {name}.k)")
    right = maker.pick("(2, 5)", "(1, NULL)", "(NULL, 3)", f"({name}.n, 2)", f"({name}.i, {name}.k)")
    condition = maker.pick(
        f"{left} {maker.pick(*COMPARISONS)} {right}",
        f"{left} {maker.pick('', 'NOT ')}IN ({right}, (3, 3))",
        f"NOT ({left} {maker.pick(*COMPARISONS)} {right})",
    )
    return maker.pick(f"SELECT {name}.n, {condition} FROM {text}", f"SELECT {name}.n FROM {text} WHERE {condition}")


def limits(maker):
    """LIMIT and OFFSET with unusual values, and ORDER BY expressions that are not selected."""
    text, _ = maker.table()
    name = text.split()[-1]
    end = maker.pick(
        "LIMIT 0",
        "LIMIT ALL",
        "LIMIT NULL",
        "LIMIT 2 + 1",
        "OFFSET 100",
        "LIMIT 3 OFFSET 100",
        "LIMIT 5 OFFSET 2",
        "OFFSET 2 LIMIT 5",
        "FETCH FIRST ROW ONLY",
        "FETCH NEXT 3 ROWS ONLY",
        "LIMIT -1",
        "OFFSET -1",
        "LIMIT 99999999999",
    )
    order = f"{maker.pick(name + '.i', name + '.k + 1', 'abs(' + name + '.i)', name + '.f')}{maker.nulls()}, {name}.n"
    return maker.pick(
        Ordered(f"SELECT {name}.n, {name}.i FROM {text} ORDER BY {order} {end}"),
        Ordered(f"SELECT {name}.k FROM {text} GROUP BY {name}.k ORDER BY count(*){maker.nulls()}, {name}.k {end}"),
        f"SELECT count(*) FROM (SELECT {name}.n FROM {text} ORDER BY {order} {end}) AS q",
        Ordered(f"SELECT {name}.n FROM {text} WHERE {name}.n IN (SELECT n FROM tb ORDER BY n {end}) ORDER BY {order}"),
        Ordered(f"SELECT {name}.k AS g, max({name}.i) FROM {text} GROUP BY g ORDER BY max({name}.i) DESC NULLS LAST, g {end}"),
        Ordered(
            f"(SELECT n FROM ta ORDER BY n DESC LIMIT 3) UNION ALL (SELECT n FROM tb ORDER BY n LIMIT 2) ORDER BY 1, 1 {end}"
        ),
    )


def grouped_subqueries(maker):
    """Subqueries in queries with GROUP BY, which refer to keys and to aggregates."""
    text, _ = maker.table(("ta", "tb", "tc"))
    name = text.split()[-1]
    right = maker.pick("ta", "tb", "tc", "te")
    key = maker.pick("k", "f")
    link = f"r.{key} {maker.pick('=', '=', '<=')} {name}.{key}"
    return maker.pick(
        f"SELECT {name}.{key}, count(*), (SELECT max(r.i) FROM {right} AS r WHERE {link}) FROM {text} GROUP BY {name}.{key}",
        f"SELECT {name}.{key}, sum({name}.i) FROM {text} GROUP BY {name}.{key} HAVING EXISTS (SELECT 1 FROM {right} AS r "
        f"WHERE {link})",
        f"SELECT {name}.{key} FROM {text} GROUP BY {name}.{key} HAVING count(*) IN (SELECT r.n FROM {right} AS r WHERE {link})",
        f"SELECT {name}.{key}, (SELECT count(*) FROM {right} AS r WHERE r.n < count({name}.n)) FROM {text} GROUP BY {name}.{key}",
        f"SELECT (SELECT max(r.n) FROM {right} AS r WHERE r.k = {name}.k) AS g, count(*), sum({name}.i) FROM {text} GROUP BY g",
        f"SELECT sum((SELECT count(*) FROM {right} AS r WHERE {link})), max((SELECT min(r.i) FROM {right} AS r)) FROM {text}",
        f"SELECT {name}.{key}, count(*) FILTER (WHERE EXISTS (SELECT 1 FROM {right} AS r WHERE r.n = {name}.n)) FROM {text} "
        f"GROUP BY {name}.{key}",
        f"SELECT {name}.n, sum({name}.i) OVER (ORDER BY {name}.n), (SELECT count(*) FROM {right} AS r WHERE {link}) FROM {text}",
        f"SELECT max(q.c) FROM (SELECT (SELECT count(*) FROM {right} AS r WHERE {link}) AS c FROM {text}) AS q",
        f"SELECT {name}.{key}, avg({name}.i) > (SELECT avg(r.i) FROM {right} AS r) FROM {text} GROUP BY {name}.{key}",
        f"SELECT DISTINCT (SELECT r.k FROM {right} AS r WHERE r.n = {name}.n) FROM {text}",
    )


def typed_literals(maker):
    """Time literals, with zones and in other forms."""
    moment = maker.pick(
        "TIMESTAMPTZ '2024-03-31 12:00:00+02'",
        "TIMESTAMPTZ '2024-03-31 12:00:00-05:30'",
        "TIMESTAMP '2024-02-29 10:00'",
        "TIMESTAMP '2024-02-29'",
        "CAST('2024-02-29T10:11:12.5Z' AS TIMESTAMPTZ)",
        "'2024-02-29 10:00:00'::timestamp",
        "TIMESTAMP WITH TIME ZONE '2024-02-29 10:00:00+01'",
        "TIMESTAMP '1900-01-01 00:00:00.000001'",
    )
    table = maker.pick("ta", "tb", "tc")
    return maker.pick(
        f"SELECT {moment}",
        f"SELECT n FROM {table} WHERE ts {maker.pick(*COMPARISONS)} {moment}",
        f"SELECT n, ts - {moment} FROM {table}",
        f"SELECT n FROM {table} WHERE ts BETWEEN {moment} AND {moment} + INTERVAL '1 year'",
        f"SELECT n FROM {table} WHERE ts > '2024-02-29' AND day < '2024-06-01'",
        f"SELECT n FROM {table} WHERE day IN ('2024-02-29', DATE '2024-01-01')",
        f"SELECT {moment} + INTERVAL '1' {maker.pick('DAY', 'MONTH', 'HOUR', 'YEAR', 'MINUTE')}",
        "SELECT INTERVAL '1 year 2 months' = INTERVAL '14 months', INTERVAL '1 day' < INTERVAL '25 hours', INTERVAL '30 days' = "
        "INTERVAL '1 month'",
        f"SELECT n, coalesce(ts, {moment}), greatest(ts, {moment}) FROM {table}",
        f"SELECT count(*), date_trunc('day', ts) AS g FROM {table} GROUP BY g HAVING date_trunc('day', ts) >= {moment}",
        Ordered(
            f"SELECT n FROM {table} ORDER BY date_trunc('{maker.pick('hour', 'day', 'month')}', "
            f"{local_time('ts', maker.pick('Europe/Berlin', 'Asia/Kolkata'))}){maker.nulls()}, n"
        ),
    )
