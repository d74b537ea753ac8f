"""Questions about subqueries in every clause, and about fixed forms of correlation."""

from .expressions import COMPARISONS
from .ordered import Ordered


def subqueries(maker):
    """Subqueries in every clause, up to three levels deep."""
    maker.levels = maker.pick(1, 2, 2, 3)
    text, scope = maker.table()
    name = text.split()[-1]
    condition = lambda: maker.condition(scope, 2)  # noqa: E731
    kind = maker.pick("int", "big", "text", "double", "date", "bool")
    single = lambda kind=kind: f"({maker.inside(lambda: maker.single(kind, scope))})"  # noqa: E731
    return maker.pick(
        lambda: f"SELECT {name}.n, {condition()} FROM {text}",
        lambda: f"SELECT {name}.n FROM {text} WHERE {condition()}",
        lambda: f"SELECT {name}.n FROM {text} WHERE {condition()} {maker.pick('AND', 'OR')} {condition()}",
        lambda: f"SELECT {name}.n FROM {text} WHERE NOT ({condition()} {maker.pick('AND', 'OR')} {name}.i > 4)",
        lambda: f"SELECT {name}.n, {single()} FROM {text}",
        lambda: f"SELECT {name}.n, coalesce({single('int')}, -1) + {name}.n FROM {text}",
        lambda: f"SELECT {name}.n, CASE WHEN {condition()} THEN {single('int')} ELSE 0 END FROM {text}",
        lambda: f"SELECT {single('int')} AS g, count(*) FROM {text} GROUP BY 1",
        lambda: f"SELECT {name}.k, count(*) FROM {text} GROUP BY {name}.k "
        f"HAVING count(*) > ({maker.inside(lambda: maker.single('int', [(f'{name}.k', 'int')]))})",
        lambda: f"SELECT sum({single('int')}), count(*) FILTER (WHERE {condition()}) FROM {text}",
        lambda: Ordered(f"SELECT {name}.n FROM {text} ORDER BY {single('int')}{maker.nulls()}, {name}.n"),
        lambda: _joined_on(maker),
        lambda: f"SELECT {name}.n FROM {text} WHERE ({name}.k, {name}.f) {maker.pick('', 'NOT ')}IN "
        f"({maker.inside(lambda: maker.select(['int', 'bool'], scope))})",
        lambda: f"SELECT {name}.n FROM {text} WHERE {name}.i {maker.pick(*COMPARISONS)} {single('int')} + {single('int')}",
    )


def _joined_on(maker):
    """Returns a join whose ON clause contains a subquery that refers to one side, or to both."""
    left, scope = maker.table()
    right, columns = maker.table()
    kind = maker.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "JOIN")
    side = maker.pick(scope, columns, scope + columns) if kind == "JOIN" else maker.pick(scope, columns)
    one, other = left.split()[-1], right.split()[-1]
    return f"SELECT {one}.n, {other}.n FROM {left} {kind} {right} ON {one}.k = {other}.k AND {maker.condition(side, 1)}"


def correlated(maker):
    """Fixed forms of correlation for which an engine can easily return wrong results."""
    left, scope = maker.table()
    right, inner = maker.table()
    one, other = left.split()[-1], right.split()[-1]
    link = f"{other}.k = {one}.k"
    third, _ = maker.table()
    last = third.split()[-1]
    body = maker.pick(
        f"SELECT count(*) FROM {right} WHERE {link}",
        f"SELECT count({other}.i) FROM {right} WHERE {link} HAVING count(*) {maker.pick('=', '>')} 0",
        f"SELECT max({other}.i) FROM {right} WHERE {link} GROUP BY {other}.f HAVING count(*) > 1",
        f"SELECT {other}.i FROM {right} WHERE {link} ORDER BY {other}.n OFFSET {maker.number(0, 2)}",
        f"SELECT {other}.i FROM {right} WHERE {link} ORDER BY {other}.n LIMIT {maker.number(0, 2)}",
        f"SELECT {one}.i FROM {right} WHERE {link}",
        f"SELECT {other}.i + {one}.i FROM {right}",
        f"SELECT {other}.i FROM {right} WHERE {other}.i > {one}.i AND {link}",
        f"SELECT {other}.i FROM {right} WHERE {link} UNION SELECT {one}.n",
        f"SELECT {other}.i FROM {right} WHERE {link} EXCEPT ALL SELECT {last}.i FROM {third} WHERE {last}.f = {one}.f",
        f"SELECT {other}.i FROM {right} LEFT JOIN {third} ON {last}.k = {one}.k AND {last}.n = {other}.n",
        f"SELECT {other}.i FROM {right} JOIN {third} ON {last}.n = {other}.n AND {last}.k = {one}.k",
        f"SELECT rank() OVER (ORDER BY {other}.i) FROM {right} WHERE {link}",
        f"SELECT sum({other}.n) OVER (PARTITION BY {other}.f ORDER BY {other}.n) FROM {right} WHERE {link}",
        f"SELECT DISTINCT {other}.i FROM {right} WHERE {link}",
        f"SELECT {other}.i FROM {right} WHERE EXISTS (SELECT 1 FROM {third} WHERE {last}.k = {other}.k AND {last}.i = {one}.i)",
        f"SELECT {other}.i FROM {right} WHERE {other}.n IN (SELECT {last}.n FROM {third} WHERE {last}.k = {one}.k)",
        f"SELECT (SELECT max({last}.i) FROM {third} WHERE {last}.k = {other}.k AND {last}.n > {one}.n) FROM {right} WHERE {link}",
        f"SELECT s.c FROM (SELECT count(*) AS c FROM {right} WHERE {link}) AS s",
        f"SELECT CAST({other}.n AS BIGINT) FROM {right} WHERE {other}.i IS NOT DISTINCT FROM {one}.i",
        f"WITH w AS (SELECT {other}.i AS v, {other}.k AS k FROM {right}) SELECT v FROM w WHERE w.k = {one}.k",
        f"SELECT {one}.i",
        f"SELECT v FROM (VALUES (1), (2), ({one}.i)) AS s(v)",
    )
    n = f"{one}.n"
    return maker.pick(
        f"SELECT {n} FROM {left} WHERE EXISTS ({body})",
        f"SELECT {n}, NOT EXISTS ({body}) FROM {left}",
        f"SELECT {n} FROM {left} WHERE {maker.pick(0, 1, 2)} IN ({body})",
        f"SELECT {n} FROM {left} WHERE {one}.i NOT IN ({body})",
        f"SELECT {n}, {one}.i IN ({body}) FROM {left}",
        f"SELECT {n} FROM {left} WHERE {one}.i NOT IN ({body}) OR {one}.i > 9",
        f"SELECT {n} FROM {left} WHERE NOT ({one}.i IN ({body}) AND {one}.f)",
        f"SELECT {n} FROM {left} WHERE ({one}.i IN ({body})) {maker.pick('= false', '<> true', 'IS NULL', 'IS FALSE')}",
        f"SELECT {n}, CASE WHEN {one}.i NOT IN ({body}) THEN 1 ELSE 2 END FROM {left}",
        f"SELECT {n}, {one}.i {maker.pick(*COMPARISONS)} {maker.pick('ANY', 'ALL')} ({body}) FROM {left}",
        f"SELECT {n}, (SELECT sum(q.v) FROM ({body}) AS q(v)) FROM {left}",
        f"SELECT {n}, q.v FROM {left} CROSS JOIN LATERAL ({body}) AS q(v)",
        f"SELECT {n}, q.v FROM {left} LEFT JOIN LATERAL ({body}) AS q(v) ON q.v > {one}.n",
        f"SELECT {n}, ({body}) FROM {left}",
        f"SELECT {one}.f, sum((SELECT count(*) FROM ({body}) AS q(v))) FROM {left} GROUP BY {one}.f",
    )
