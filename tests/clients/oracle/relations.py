"""Questions about single relations: expressions, three-valued logic, ORDER BY, set operations and common table expressions."""

from .expressions import KINDS
from .ordered import Ordered

OPERATIONS = ("UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL")


def expressions(maker):
    """Expressions of every kind in SELECT and WHERE."""
    maker.levels = 0
    text, scope = maker.table()
    kinds = [maker.pick(*KINDS) for _ in range(maker.number(1, 3))]
    values = ", ".join(maker.expression(kind, scope, 3) for kind in kinds)
    return f"SELECT {values} FROM {text}{maker.where(scope)}"


def logic(maker):
    """Three-valued logic over conditions with NULLs."""
    text, scope = maker.table()
    condition = maker.expression("bool", scope, 3)
    name = text.split()[-1]
    return maker.pick(
        f"SELECT {name}.n, {condition} FROM {text}",
        f"SELECT {name}.n FROM {text} WHERE {condition}",
        f"SELECT {name}.n FROM {text} WHERE NOT ({condition})",
        f"SELECT {name}.n FROM {text} WHERE ({condition}) IS {maker.pick('NULL', 'NOT TRUE', 'UNKNOWN', 'FALSE', 'NOT FALSE')}",
        f"SELECT {name}.n, CASE WHEN {condition} THEN 'yes' ELSE 'no' END FROM {text}",
        f"SELECT count(*) FILTER (WHERE {condition}), count(*) FROM {text}",
        f"SELECT {condition}, count(*) FROM {text} GROUP BY 1",
    )


def ordered(maker):
    """ORDER BY with NULLS, LIMIT and OFFSET, and DISTINCT ON."""
    maker.levels = maker.pick(0, 0, 1)
    text, scope = maker.table()
    name = text.split()[-1]
    first = maker.expression(maker.pick(*KINDS), scope, 1)
    while first.startswith(("'", "(-")) or first[0].isdigit() or first in ("true", "false"):
        # PostgreSQL interprets a constant in ORDER BY as the position of a column.
        first = maker.column(scope, maker.pick("int", "text", "time"))
    order = f"{first}{maker.nulls()}, {name}.n{maker.pick('', ' DESC')}"
    end = maker.pick(
        "",
        f" LIMIT {maker.number(0, 9)}",
        f" LIMIT {maker.number(1, 9)} OFFSET {maker.number(0, 9)}",
        f" OFFSET {maker.number(0, 12)}",
        f" OFFSET {maker.number(0, 3)} ROWS FETCH NEXT {maker.number(1, 4)} ROWS ONLY",
    )
    value = maker.expression(maker.pick(*KINDS), scope, 1)
    where = maker.where(scope)
    return maker.pick(
        lambda: Ordered(f"SELECT {value}, {name}.n FROM {text}{where} ORDER BY {order}{end}"),
        lambda: Ordered(f"SELECT {first} AS v, {name}.n FROM {text}{where} ORDER BY 1{maker.nulls()}, 2{end}"),
        lambda: Ordered(f"SELECT DISTINCT {first} AS v FROM {text}{where} ORDER BY v{maker.nulls()}{end}"),
        lambda: f"SELECT DISTINCT ON ({name}.k) {name}.k, {value}, {name}.n FROM {text}{where} ORDER BY {name}.k, {order}",
        lambda: Ordered(
            f"SELECT v, n FROM (SELECT {value} AS v, {name}.n AS n FROM {text}{where} ORDER BY {order}{end}) AS o ORDER BY n"
        ),
        lambda: f"SELECT {name}.k FROM {text}{where} ORDER BY {name}.k{maker.nulls()} FETCH FIRST {maker.number(1, 5)} ROWS "
        f"WITH TIES",
    )


def set_operations(maker):
    """UNION, INTERSECT and EXCEPT, ALL and distinct, nested, with ORDER BY and LIMIT."""
    maker.levels = maker.pick(0, 1)
    kinds = [maker.pick("int", "int", "bool", "text", "big", "dec", "date") for _ in range(maker.number(1, 2))]

    def small():
        table = maker.pick("ta", "tb", "tc", "te")
        values = (maker.pick("k", "i", "n") if kind == "int" else maker.plain(kind, _columns(kind), 0) for kind in kinds)
        return f"SELECT {', '.join(values)} FROM {table}"

    member = lambda: maker.pick(small, small, lambda: f"({maker.select(kinds)})")  # noqa: E731
    operation = lambda: maker.pick(*OPERATIONS)  # noqa: E731
    names = ", ".join(f"c{at}" for at in range(len(kinds)))
    order = ", ".join(f"{at + 1}{maker.nulls()}" for at in range(len(kinds)))
    return maker.pick(
        lambda: f"{member()} {operation()} {member()}",
        lambda: f"{member()} {operation()} {member()} {operation()} {member()}",
        lambda: f"({member()} {operation()} {member()}) {operation()} {member()}",
        lambda: f"{member()} {operation()} ({member()} {operation()} {member()})",
        lambda: Ordered(f"{member()} {operation()} {member()} ORDER BY {order}"),
        lambda: Ordered(f"{member()} {operation()} {member()} ORDER BY {order} LIMIT {maker.number(0, 6)}"),
        lambda: f"SELECT {names}, count(*) FROM ({member()} {operation()} {member()}) AS s({names}) GROUP BY {names}",
        lambda: f"SELECT count(*) FROM ({member()} {operation()} {member()}) AS s",
    )


def _columns(kind):
    """Returns the scope of a small query."""
    return [(name, kind) for name in {"big": "b", "text": "s", "bool": "f", "date": ["day"]}.get(kind, "")]


def ctes(maker):
    """Common table expressions: several, used twice, nested, with column names, shadowing a table."""
    kinds = ["int", maker.pick("int", "text", "double")]
    first, second = maker.select(kinds), maker.select(kinds)
    one, other = maker.name("w"), maker.name("w")
    operation = maker.pick(*OPERATIONS)
    return maker.pick(
        f"WITH {one} AS ({first}) SELECT c0, c1 FROM {one} WHERE c0 > 1",
        f"WITH {one} AS ({first}), {other} AS ({second}) SELECT * FROM {one} {operation} SELECT * FROM {other}",
        f"WITH {one}(p, q) AS ({first}) SELECT q, count(*), sum(p) FROM {one} GROUP BY q",
        f"WITH {one} AS ({first}), {other} AS (SELECT c0 AS v FROM {one}) SELECT a.v, b.c1 FROM {other} AS a "
        f"JOIN {one} AS b ON a.v = b.c0",
        f"WITH {one} AS ({first}) SELECT x.c0 FROM {one} AS x WHERE x.c0 NOT IN (SELECT y.c0 + 1 FROM {one} AS y "
        f"WHERE y.c0 IS NOT NULL)",
        "WITH ta AS (SELECT n, k FROM tb) SELECT n, k FROM ta",
        f"SELECT n, (WITH {one} AS (SELECT i FROM tb WHERE tb.k = ta.k) SELECT max(i) FROM {one}) FROM ta",
        f"SELECT * FROM (WITH {one} AS ({first}) SELECT * FROM {one}) AS z",
        f"WITH {one} AS MATERIALIZED ({first}) SELECT count(*), max(c0) FROM {one}",
    )


def recursion(maker):
    """Recursive common table expressions."""
    most, step = maker.number(3, 12), maker.number(1, 3)
    every = maker.pick("UNION ALL", "UNION")
    return maker.pick(
        f"WITH RECURSIVE r(v) AS (SELECT 1 UNION ALL SELECT v + {step} FROM r WHERE v < {most}) SELECT v FROM r",
        f"WITH RECURSIVE r AS (SELECT 1 AS v, 1 AS w {every} SELECT w, v + w FROM r WHERE v < {most}) SELECT v, w FROM r",
        f"WITH RECURSIVE r(n, depth) AS (SELECT n, 0 FROM ta WHERE n = {maker.number(1, 5)} {every} SELECT t.n, r.depth + 1 "
        f"FROM r JOIN ta AS t ON t.n = r.n + {step} WHERE r.depth < 4) SELECT * FROM r",
        f"WITH RECURSIVE r(v) AS (SELECT {maker.number(0, 3)} UNION SELECT (v * 2 + 1) % {most} FROM r) SELECT count(*), sum(v) "
        f"FROM r",
        f"WITH RECURSIVE r(v, t) AS (SELECT 1, 'a' UNION ALL SELECT v + 1, t || 'b' FROM r WHERE v < {most}) "
        f"SELECT max(t), count(*) FROM r",
        f"WITH RECURSIVE r(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM r WHERE v < {most}) SELECT r.v, ta.i FROM r LEFT "
        f"JOIN ta ON ta.n = r.v",
        f"WITH RECURSIVE r(day, left_days) AS (SELECT DATE '2024-01-30', {most} UNION ALL SELECT day + 1, left_days - 1 FROM r "
        f"WHERE left_days > 0) SELECT day, left_days FROM r",
    )
