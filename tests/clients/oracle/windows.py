"""Questions about window functions: partitions, ties, and frames of all kinds."""


def _window(maker, name, is_total):
    """Returns a window. If `is_total`, its order has no ties."""
    partition = maker.pick("", f"PARTITION BY {name}.k ", f"PARTITION BY {name}.f ", f"PARTITION BY {name}.k, {name}.f ")
    key = f"{name}.{maker.pick('i', 'k', 'd', 'day', 's', 'ts', 'n')}{maker.nulls()}"
    return f"{partition}ORDER BY {key}{f', {name}.n' if is_total else ''}"


def functions(maker):
    """Ranking and value functions, with ties where the result does not depend on their order."""
    text, scope = maker.table()
    name = text.split()[-1]
    where = maker.where(scope)
    column = f"{name}.{maker.pick('i', 's', 'd', 'day', 'b')}"
    one = lambda: maker.pick(  # noqa: E731
        f"row_number() OVER ({_window(maker, name, True)})",
        f"{maker.pick('rank', 'dense_rank', 'percent_rank', 'cume_dist')}() OVER ({_window(maker, name, False)})",
        f"ntile({maker.number(1, 5)}) OVER ({_window(maker, name, True)})",
        f"{maker.pick('lag', 'lead')}({column}) OVER ({_window(maker, name, True)})",
        f"{maker.pick('lag', 'lead')}({column}, {maker.number(0, 3)}) OVER ({_window(maker, name, True)})",
        f"{maker.pick('lag', 'lead')}({name}.i, {maker.number(1, 2)}, {maker.number(-1, 1)}) OVER ({_window(maker, name, True)})",
        f"{maker.pick('first_value', 'last_value')}({column}) OVER ({_window(maker, name, True)})",
        f"nth_value({column}, {maker.number(1, 3)}) OVER ({_window(maker, name, True)})",
        f"sum({name}.i) OVER ({_window(maker, name, False)})",
        f"count(*) OVER (PARTITION BY {name}.k)",
        f"avg({name}.d) OVER ({_window(maker, name, False)})",
        f"sum({name}.i) FILTER (WHERE {name}.f) OVER ({_window(maker, name, False)})",
        f"max({name}.i) OVER ()",
    )
    maker.is_inexact = True
    values = ", ".join(one() for _ in range(maker.number(1, 2)))
    return maker.pick(
        f"SELECT {name}.n, {values} FROM {text}{where}",
        f"SELECT {name}.n, {values} FROM {text}{where}",
        f"SELECT * FROM (SELECT {name}.n AS n, row_number() OVER ({_window(maker, name, True)}) AS r FROM {text}{where}) AS q "
        f"WHERE r <= {maker.number(1, 3)}",
        f"SELECT {name}.k, count(*), rank() OVER (ORDER BY count(*) DESC), sum(count(*)) OVER () FROM {text}{where} "
        f"GROUP BY {name}.k",
        f"SELECT {name}.n, sum({name}.i) OVER w, count({name}.i) OVER (w ROWS 1 PRECEDING) FROM {text}{where} "
        f"WINDOW w AS ({_window(maker, name, True)})",
    )


def frames(maker):
    """ROWS, RANGE and GROUPS frames."""
    text, scope = maker.table()
    name = text.split()[-1]
    where = maker.where(scope)
    bound = lambda words, unit: maker.pick(*[word.replace("#", unit()) for word in words])  # noqa: E731
    kind = maker.pick("ROWS", "ROWS", "GROUPS", "RANGE", "RANGE DAYS")
    unit = lambda: "INTERVAL '30 days'" if kind == "RANGE DAYS" else str(maker.number(0, 3))  # noqa: E731
    first = bound(["UNBOUNDED PRECEDING", "# PRECEDING", "CURRENT ROW"], unit)
    last = bound(["CURRENT ROW", "# FOLLOWING", "UNBOUNDED FOLLOWING"], unit)
    frame = maker.pick(
        f"BETWEEN {first} AND {last}", f"BETWEEN {first} AND {last}", maker.pick("UNBOUNDED PRECEDING", "CURRENT ROW")
    )
    if kind in ("ROWS", "GROUPS"):
        frame = maker.pick(
            frame,
            f"BETWEEN {maker.number(2, 3)} PRECEDING AND {maker.number(0, 1)} PRECEDING",
            f"BETWEEN {maker.number(0, 1)} FOLLOWING AND {maker.number(1, 4)} FOLLOWING",
        )
    key = {"ROWS": f"{name}.i, {name}.n", "GROUPS": f"{name}.k", "RANGE": f"{name}.i", "RANGE DAYS": f"{name}.ts"}[kind]
    if kind != "ROWS":
        key += maker.nulls()
    partition = maker.pick("", f"PARTITION BY {name}.f ")
    value = maker.pick("i", "b", "d", "n")
    function = maker.pick("sum", "count", "avg", "min", "max", "sum")
    more = maker.pick("first_value", "last_value")
    window = f"({partition}ORDER BY {key} {kind.split()[0]} {frame})"
    maker.is_inexact = True
    values = f"{function}({name}.{value}) OVER {window}"
    if kind == "ROWS" and maker.chance(0.3):
        values += f", {more}({name}.{value}) OVER {window}"
    return f"SELECT {name}.n, {values} FROM {text}{where}"
