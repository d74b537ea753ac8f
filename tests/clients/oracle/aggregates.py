"""Questions about aggregates: FILTER, DISTINCT, ordered aggregates, and grouping sets."""

import re

PAIRED = ("corr", "covar_pop", "covar_samp", "regr_slope", "regr_count", "regr_intercept")


def _many(maker, scope):
    """Returns a list of aggregates."""
    value = lambda kind: maker.plain(kind, scope, 1)  # noqa: E731
    one = lambda: maker.pick(  # noqa: E731
        "count(*)",
        lambda: f"count({value(maker.pick('int', 'text', 'bool', 'date'))})",
        lambda: f"count(DISTINCT {value(maker.pick('int', 'text', 'bool', 'date', 'double'))})",
        lambda: f"sum({value(maker.pick('int', 'big', 'dec', 'double'))})",
        lambda: f"sum(DISTINCT {value('int')})",
        lambda: f"avg({value(maker.pick('int', 'big', 'double', 'dec'))})",
        lambda: f"{maker.pick('min', 'max')}({value(maker.pick('int', 'big', 'dec', 'double', 'text', 'date', 'time'))})",
        lambda: f"{maker.pick('bool_and', 'bool_or', 'every')}({value('bool')})",
        lambda: f"{maker.pick('stddev', 'var_pop', 'variance', 'stddev_pop', 'stddev_samp', 'var_samp')}({value('int')})",
        lambda: f"{maker.pick(*PAIRED)}({maker.leaf('double', scope)}, {maker.leaf('double', scope)})",
        lambda: f"{maker.pick('bit_and', 'bit_or', 'bit_xor')}({value('int')})",
    )
    filtered = lambda: f"{one()} FILTER (WHERE {value('bool')})" if maker.chance(0.3) else one()  # noqa: E731
    maker.is_inexact = True
    return ", ".join(filtered() for _ in range(maker.number(1, 3)))


def grouped(maker):
    """Aggregates with GROUP BY and HAVING."""
    text, scope = maker.source()
    where = maker.where(scope)
    many = _many(maker, scope)
    key = maker.plain(maker.pick("int", "bool", "text", "date"), scope, 1)
    column = maker.column(scope, "int") or maker.column(scope, maker.pick(*{kind for _, kind in scope}))
    return maker.pick(
        f"SELECT {many} FROM {text}{where}",
        # A constant in GROUP BY would be the position of a column.
        f"SELECT {key} AS g, {many} FROM {text}{where} GROUP BY {key if re.search('[a-z][0-9]+[.]', key) else 1}",
        f"SELECT {column}, {many} FROM {text}{where} GROUP BY {column} HAVING {maker.having(scope)}",
        f"SELECT {many} FROM {text}{where} HAVING {maker.having(scope)}",
        f"SELECT {many} FROM {text}{where} GROUP BY {column}, {maker.column(scope, 'bool') or column}",
    )


def grouping_sets(maker):
    """GROUPING SETS, ROLLUP and CUBE, with grouping()."""
    text, scope = maker.table()
    name = text.split()[-1]
    keys = maker.rng.sample(["k", "f", "day", "s"], 2)
    one, other = (f"{name}.{key}" for key in keys)
    clause = maker.pick(
        f"ROLLUP ({one}, {other})",
        f"CUBE ({one}, {other})",
        f"GROUPING SETS (({one}), ({other}), ())",
        f"GROUPING SETS (({one}, {other}), ({one}), ())",
        f"{one}, ROLLUP ({other})",
        f"GROUPING SETS (({one}), ())",
        "ROLLUP (1, 2)",
        f"GROUPING SETS (({one}), ({one}))",
    )
    where = maker.where(scope)
    aggregate = maker.pick(
        "count(*)", f"sum({name}.i)", f"count(DISTINCT {name}.i)", f"max({name}.b)", f"count(*) FILTER (WHERE {name}.i > 3)"
    )
    uses_both = other in clause or "(1, 2)" in clause
    values = f"{one}, {other}" if uses_both else one
    grouping = maker.pick("", f", grouping({one})", f", grouping({one}, {other})" if uses_both else "")
    having = maker.pick("", "", f" HAVING count(*) > {maker.number(0, 2)}", f" HAVING {one} IS NULL")
    return maker.pick(
        f"SELECT {values}, {aggregate}{grouping} FROM {text}{where} GROUP BY {clause}{having}",
        f"SELECT {values}, {aggregate}{grouping} FROM {text}{where} GROUP BY {clause}{having}",
        (
            f"SELECT count(*), max(v) FROM (SELECT {one} AS g, {aggregate} AS v FROM {text}{where} "
            f"GROUP BY {clause}{having}) AS q"
            if "1, 2" not in clause
            else f"SELECT {values}, {aggregate} FROM {text} GROUP BY {clause}"
        ),
    )


def ordered(maker):
    """Aggregates whose result depends on an order, and percentiles."""
    text, scope = maker.table()
    name = text.split()[-1]
    where = maker.where(scope)
    order = f"{maker.leaf('int', scope)}{maker.nulls()}, {name}.n{maker.pick('', ' DESC')}"
    direction = maker.pick("", " DESC")
    fraction = maker.pick("0", "0.25", "0.5", "0.9", "0.33", "1")
    maker.is_inexact = True
    one = lambda: maker.pick(  # noqa: E731
        f"string_agg({name}.s, '{maker.pick(',', '', '-')}' ORDER BY {order})",
        f"string_agg(DISTINCT {name}.s, ',' ORDER BY {name}.s{direction})",
        f"array_agg({name}.i ORDER BY {order})",
        f"array_agg({name}.n ORDER BY {order}) FILTER (WHERE {name}.i > 2)",
        f"array_agg(DISTINCT {name}.k ORDER BY {name}.k{direction})",
        f"percentile_cont({fraction}) WITHIN GROUP (ORDER BY {name}.d{direction})",
        f"percentile_disc({fraction}) WITHIN GROUP (ORDER BY {name}.{maker.pick('i', 'd', 'n', 's', 'day')}{direction})",
        f"mode() WITHIN GROUP (ORDER BY {name}.{maker.pick('k', 'f', 's')}{direction})",
        f"count(DISTINCT ({name}.k, {name}.f))",
    )
    values = ", ".join(one() for _ in range(maker.number(1, 3)))
    group = maker.pick("", f" GROUP BY {name}.k", f" GROUP BY {name}.f")
    return f"SELECT {values} FROM {text}{where}{group}"
