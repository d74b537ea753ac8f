"""Questions about joins of all kinds: ON, USING, NATURAL and LATERAL."""

from .expressions import COMPARISONS
from .ordered import Ordered


def joins(maker):
    """Joins of all kinds, including joins of derived tables."""
    text, scope = maker.joined(more=3)
    kinds = [maker.pick("int", "int", "text", "double", "bool", "date") for _ in range(maker.number(1, 4))]
    values = ", ".join(maker.plain(kind, scope, 1) for kind in kinds)
    where = maker.where(scope)
    return maker.pick(
        f"SELECT {values} FROM {text}{where}",
        f"SELECT count(*), count({scope[0][0]}), count({scope[-1][0]}) FROM {text}{where}",
        f"SELECT {maker.column(scope, 'int') or '1'}, count(*) FROM {text}{where} GROUP BY 1",
    )


def _named(maker, names):
    """Returns a derived table with these columns of a base table, under an alias."""
    alias = maker.name("u")
    where = maker.pick("", "", " WHERE n < 7", " WHERE k IS NOT NULL", " WHERE i > 3")
    return f"(SELECT {', '.join(names)} FROM {maker.pick('ta', 'tb', 'tc', 'te', 'ta')}{where}) AS {alias}", alias


def using(maker):
    """USING and NATURAL joins of two and three tables."""
    keys = maker.pick(["k"], ["k"], ["k", "f"], ["s"], ["day"])
    kinds = ("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
    is_natural = maker.chance(0.35)
    rest = ["n", "i", "d", "b"]
    tables, aliases = [], []
    for at in range(maker.pick(2, 2, 3)):
        own = [f"{name} AS {name}{at}" for name in maker.rng.sample(rest, 2)]
        text, alias = _named(maker, [*keys, *own])
        tables.append(text)
        aliases.append((alias, [each.split()[-1] for each in own]))
    on = "" if is_natural else f" USING ({', '.join(keys)})"
    text = tables[0]
    for table in tables[1:]:
        text += f" {'NATURAL ' if is_natural else ''}{maker.pick(*kinds)} {table}{on}"
    own = [f"{alias}.{name}" for alias, names in aliases for name in names]
    key = maker.pick(*keys)
    literal = {"k": "2", "f": "true", "s": "'ab'", "day": "DATE '2024-02-29'"}[key]
    kept = ", ".join(maker.rng.sample(own, 2))
    (first, _), (last, _) = aliases[0], aliases[-1]
    return maker.pick(
        f"SELECT * FROM {text}",
        f"SELECT {key}, {kept} FROM {text}",
        f"SELECT {key}, {first}.{key}, {last}.{key}, {kept} FROM {text}",
        f"SELECT {key}, {kept} FROM {text} WHERE {key} {maker.pick(*COMPARISONS)} {literal}",
        f"SELECT {key}, count(*), max({own[0]}) FROM {text} GROUP BY {key}",
        f"SELECT {key}, count(*) FROM {text} GROUP BY {key} HAVING {key} IS NOT NULL",
        Ordered(f"SELECT {key}, count(*) FROM {text} GROUP BY {key} ORDER BY {key}{maker.nulls()}"),
        f"SELECT DISTINCT {key} FROM {text} WHERE {key} IN (SELECT {key} FROM tb)",
        f"SELECT {first}.*, {key} FROM {text} WHERE {key} IS NULL OR {last}.{key} IS NULL",
        f"SELECT {key}, (SELECT count(*) FROM tc AS z WHERE z.{key} = {first}.{key}) FROM {text}",
    )


def lateral(maker):
    """LATERAL subqueries, with top-n, aggregates, windows and set operations."""
    left, scope = maker.table()
    right, inner = maker.table()
    alias, name = maker.name("l"), right.split()[-1]
    where = maker.where(inner, scope)
    order = f"{maker.column(inner, 'int')}{maker.nulls()}, {name}.n"
    body = maker.pick(
        f"SELECT {name}.i AS v, {name}.n AS m FROM {right}{where} ORDER BY {order} LIMIT {maker.number(1, 3)}",
        f"SELECT max({name}.i) AS v, count(*) AS m FROM {right}{where}",
        f"SELECT {name}.k AS v, count(*) AS m FROM {right}{where} GROUP BY {name}.k",
        f"SELECT {name}.i AS v, row_number() OVER (ORDER BY {order}) AS m FROM {right}{where}",
        f"SELECT {name}.i AS v, {maker.column(scope, 'int')} AS m FROM {right}{where}",
        f"SELECT {name}.i AS v, {name}.n AS m FROM {right}{where} UNION ALL SELECT 1, {maker.column(scope, 'int')}",
        f"SELECT {maker.column(scope, 'int')} + 1 AS v, {maker.column(scope, 'int')} AS m",
    )
    own = scope[0][0]
    return maker.pick(
        f"SELECT {own}, {alias}.v, {alias}.m FROM {left} CROSS JOIN LATERAL ({body}) AS {alias}",
        f"SELECT {own}, {alias}.v, {alias}.m FROM {left}, LATERAL ({body}) AS {alias}",
        f"SELECT {own}, {alias}.v, {alias}.m FROM {left} LEFT JOIN LATERAL ({body}) AS {alias} ON true",
        f"SELECT {own}, {alias}.v, {alias}.m FROM {left} LEFT "
        f"JOIN LATERAL ({body}) AS {alias} ON {alias}.v > {maker.leaf('int', scope)}",
        f"SELECT {own}, sum({alias}.v) FROM {left} JOIN LATERAL ({body}) AS {alias} ON {alias}.m > 1 GROUP BY {own}",
    )
