"""Questions about numbers: overflow and division by zero, casts, literals, mathematical functions, and guards against errors."""

from .tables import ROWS

INTEGERS = ("SMALLINT", "INT", "BIGINT")
NUMBERS = (*INTEGERS, "DECIMAL(12, 3)", "DECIMAL(38, 0)", "DOUBLE PRECISION", "REAL")
EXTREMES = {
    "SMALLINT": ("-32768", "32767", "0", "-1", "181", "182"),
    "INT": ("-2147483648", "2147483647", "0", "-1", "46341", "2"),
    "BIGINT": ("-9223372036854775808", "9223372036854775807", "0", "-1", "3037000500", "2"),
    "DECIMAL(12, 3)": ("999999999.999", "0.001", "-0.5", "0", "1.005", "2.5", "3.5"),
    "DECIMAL(38, 0)": ("99999999999999999999999999999999999999", "0", "-1", "2"),
    "DOUBLE PRECISION": ("0.1", "0", "-0.0", "1e15", "2.5", "3.5", "-2.5", "9007199254740993", "1e-5"),
    "REAL": ("0.1", "0.5", "16777217", "-2", "0"),
}
DATE_TEXTS = (
    "2024-02-29",
    "2023-02-29",
    "2024-1-5",
    "20240105",
    "2024-01-05 10:00",
    "9999-12-31",
    "0001-01-01",
    "10000-01-01",
    "x",
    "",
)
TIME_TEXTS = (
    "2024-02-29 10:00",
    "2024-02-29T10:00:00Z",
    "2024-02-29",
    "2024-02-29 24:00:00",
    "2024-02-29 25:00",
    "2024-02-30 00:00",
    "1998-03-02 10:00:00.1234567",
)


def _row(maker):
    """Returns a table and the number of one of its rows. A question about failures reads only one row."""
    table = maker.pick("ta", "tb", "tc")
    return table, maker.number(1, ROWS[table])


def _typed(maker, kind):
    return f"CAST('{maker.pick(*EXTREMES[kind])}' AS {kind})"


def overflow(maker):
    """Operators on the extremes of each type, as constants and as columns."""
    table, row = _row(maker)
    one, other = maker.pick(*INTEGERS), maker.pick(*INTEGERS)
    operator = maker.pick("+", "-", "*", "/", "%")
    column, second = maker.pick("x", "y", "i", "b"), maker.pick("x", "y", "k")
    where = f"FROM {table} WHERE n = {row}"
    return maker.pick(
        lambda: f"SELECT {_typed(maker, one)} {operator} {_typed(maker, other)}",
        lambda: f"SELECT {_typed(maker, one)} {operator} {_typed(maker, other)}",
        lambda: f"SELECT {column} {operator} {second} {where}",
        lambda: f"SELECT {column} {operator} {maker.pick('0', '1', '(-1)', '2', '2147483647', '3000000000')} {where}",
        lambda: f"SELECT - {column}, abs({second}) {where}",
        lambda: f"SELECT {maker.pick('-', 'abs')}({_typed(maker, one)})",
        lambda: f"SELECT sum(x), sum(CAST(y AS DECIMAL(38, 0))) FROM {table} WHERE n < {maker.number(1, 14)}",
        lambda: f"SELECT {_typed(maker, 'DECIMAL(12, 3)')} {maker.pick('+', '-', '*')} "
        f"{_typed(maker, maker.pick('DECIMAL(12, 3)', 'INT', 'BIGINT'))}",
        lambda: _inexact(
            maker, f"SELECT {_typed(maker, 'DECIMAL(12, 3)')} / {_typed(maker, maker.pick('DECIMAL(12, 3)', 'INT'))}"
        ),
        lambda: f"SELECT {_typed(maker, 'DECIMAL(12, 3)')} % {_typed(maker, maker.pick('DECIMAL(12, 3)', 'INT'))}",
        lambda: _inexact(maker, f"SELECT d {operator if operator != '%' else '/'} {maker.pick('z', 'i', 'k', '0.5')} {where}"),
        lambda: f"SELECT n, {column} {maker.pick('=', '<', '>=', '<>')} {maker.pick('z', 'd', 'x', 'y', '2147483647.5')} "
        f"FROM {table}",
        lambda: f"SELECT n FROM {table} WHERE {column} {maker.pick('=', '<', '>')} "
        f"{maker.pick('3000000000', '2147483648', '0.5', '-9223372036854775808', '9223372036854775807')}",
        lambda: f"SELECT {maker.pick('x & 255', 'x | 1', 'i # 3', '~ x', 'i << 2', 'i >> 1', 'y & 7', 'n << 3')} {where}",
    )


def _inexact(maker, sql):
    maker.is_inexact = True
    return sql


def casts(maker):
    """Casts between all types, with values out of range, halves and malformed text."""
    table, row = _row(maker)
    target = maker.pick(*NUMBERS, "BOOLEAN", "TEXT")
    where = f"FROM {table} WHERE n = {row}"
    text = maker.pick(
        "12",
        " 12 ",
        "-7",
        "+5",
        "1.5",
        "",
        "abc",
        "1e3",
        "2147483648",
        "9223372036854775808",
        "0x10",
        "1_000",
        "NaN",
        ".5",
        "5.",
        "--1",
        "12abc",
        "1 2",
    )
    return maker.pick(
        lambda: f"SELECT CAST('{text}' AS {maker.pick(*NUMBERS)})",
        lambda: f"SELECT CAST({_typed(maker, maker.pick(*NUMBERS))} AS {maker.pick(*NUMBERS)})",
        lambda: f"SELECT CAST({_typed(maker, maker.pick(*NUMBERS))} AS {maker.pick(*NUMBERS)})",
        lambda: f"SELECT CAST({maker.pick('x', 'y', 'z', 'd', 'b')} AS {maker.pick(*NUMBERS)}) {where}",
        lambda: f"SELECT CAST(w AS {maker.pick(*NUMBERS)}) {where}",
        lambda: f"SELECT CAST({maker.pick('x', 'y', 'i', 'f', 'day', 's')} AS TEXT) {where}",
        lambda: f"SELECT CAST('{maker.pick('true', 'f', 'T', 'yes', 'no', '1', '0', 'on', 'off', 'maybe', '', ' true ')}' AS "
        f"BOOLEAN)",
        lambda: f"SELECT CAST({maker.pick('0', '1', '2', '-1', 'i', 'n')} AS BOOLEAN) {where}",
        lambda: f"SELECT CAST({maker.pick('1.10', '0.06 + 0.01', '2.50 * 2', '100.00', '-0.5', '1.005')} AS TEXT)",
        lambda: f"SELECT CAST('{maker.pick(*DATE_TEXTS)}' AS DATE)",
        lambda: f"SELECT CAST('{maker.pick(*TIME_TEXTS)}' AS TIMESTAMP)",
        lambda: f"SELECT {maker.pick('x', 'y', 'd', 'f', 'i')}::{maker.pick('TEXT', 'VARCHAR')} {where}",
        lambda: (
            f"SELECT CAST({maker.pick('d', 'i', 'n')} AS {target}) {where}"
            if target != "BOOLEAN"
            else f"SELECT CAST(i AS BOOLEAN) {where}"
        ),
    )


def literals(maker):
    """Literals with a decimal point, which are exact decimals."""
    one = lambda: maker.pick(
        "0.1", "0.2", "0.3", ".06", "0.01", "1.10", "100", "3.", "0.5", "12345678901234567890.5", "-2.25"
    )  # noqa: E731
    return maker.pick(
        lambda: f"SELECT {one()} + {one()} = {one()}",
        lambda: f"SELECT {one()} + {one()}, {one()} * {one()}, {one()} - {one()}",
        lambda: f"SELECT n FROM ta WHERE d BETWEEN {one()} - 0.01 AND {one()} + 10",
        lambda: f"SELECT {one()} {maker.pick('=', '<', '>')} {one()}, {maker.pick('1e3', '1.5e2', '2E-1')} = "
        f"{maker.pick('1000', '150', '0.2')}",
        lambda: f"SELECT n, i + {one()}, b * {one()} FROM tb",
        lambda: f"SELECT n FROM ta WHERE i {maker.pick('=', '<', '>=', '<>')} {one()}",
        lambda: f"SELECT round({one()}, {maker.number(-1, 2)}), trunc({one()}, 1), floor({one()}), ceil({one()})",
        lambda: f"SELECT sum(v) FROM (VALUES ({one()}), ({one()}), ({one()})) AS q(v)",
        lambda: f"SELECT CASE WHEN i > 3 THEN {one()} ELSE 1 END FROM tc",
        lambda: f"SELECT coalesce(NULL, {one()}), nullif({one()}, {one()}), greatest({one()}, 1), least({one()}, 2)",
        lambda: f"SELECT DISTINCT v FROM (VALUES ({one()}), ({one()}), (1), (2.50)) AS q(v)",
        lambda: f"SELECT {one()} IN ({one()}, {one()}), "
        f"{maker.pick('9223372036854775808', '99999999999999999999', '-9223372036854775808')}",
    )


def mathematics(maker):
    """Mathematical functions."""
    maker.is_inexact = True
    table, row = _row(maker)
    value = maker.pick("d", "i", "n", "2.25", "abs(d)", "0.5", "b", "k")
    function = maker.pick(
        "sqrt",
        "exp",
        "ln",
        "log10",
        "cbrt",
        "sin",
        "cos",
        "tan",
        "atan",
        "degrees",
        "radians",
        "sign",
        "ceil",
        "ceiling",
        "floor",
        "round",
        "trunc",
        "abs",
        "asin",
        "acos",
        "log",
        "cot",
        "sinh",
    )
    return maker.pick(
        lambda: f"SELECT {function}({value}) FROM {table} WHERE n = {row}",
        lambda: f"SELECT {function}({value}) FROM {table} WHERE n = {row}",
        lambda: f"SELECT power({value}, {maker.pick('2', '0.5', '0', '-1')}) FROM {table} WHERE n = {row}",
        lambda: f"SELECT {value} ^ {maker.pick('2', '3', '0.5')}, 2 * 3 ^ 2, -2 ^ 2 FROM {table} WHERE n = {row}",
        lambda: f"SELECT {maker.pick('mod', 'div')}({maker.pick('i', 'n', 'b', '7.5')}, "
        f"{maker.pick('3', '-4', '2.5', 'k', '0')}) FROM {table} WHERE n = {row}",
        lambda: f"SELECT {maker.pick('gcd', 'lcm')}({maker.pick('i', '12', 'n')}, {maker.pick('18', 'k', '0')}) FROM {table} "
        f"WHERE n = {row}",
        lambda: f"SELECT round({maker.pick('0.5', '1.5', '2.5', '-2.5', '1.005', '2.345')}{maker.pick('', ', 1', ', 2')}), "
        f"round(CAST({maker.pick('0.5', '1.5', '2.5', '-2.5', '-0.4')} AS DOUBLE PRECISION))",
        lambda: f"SELECT atan2({maker.pick('1', 'd')}, {maker.pick('2', '-1')}), pi(), factorial({maker.number(0, 10)}) "
        f"FROM {table} WHERE n = {row}",
        lambda: f"SELECT width_bucket({value}, 0, 10, 5) FROM {table} WHERE n = {row}",
        lambda: f"SELECT log({maker.pick('2', '10')}, {maker.pick('8', '100', '2.5')}), trunc({maker.pick('2.567', '-2.567')}, "
        f"{maker.number(0, 2)})",
    )


def guards(maker):
    """Failing expressions that a condition protects."""
    table = maker.pick("ta", "tb", "tc")
    divisor = maker.pick("k", "i", "(k - 2)", "(i - n)")
    return maker.pick(
        f"SELECT n FROM {table} WHERE {divisor} <> 0 AND 10 / {divisor} > 1",
        f"SELECT n FROM {table} WHERE {divisor} = 0 OR 10 / {divisor} > 1",
        f"SELECT sum(10 / {divisor}) FILTER (WHERE {divisor} <> 0), count(*) FROM {table}",
        f"SELECT n FROM {table} WHERE w IN ('0', '1', '12') AND CAST(w AS INT) > 0",
        f"SELECT n, CASE WHEN {divisor} <> 0 THEN 10 / {divisor} ELSE -1 END FROM {table}",
        f"SELECT n FROM {table} WHERE CASE WHEN {divisor} = 0 THEN false ELSE 100 / {divisor} > 3 END",
        f"SELECT sum(CASE WHEN {divisor} = 0 THEN 0 ELSE 12 / {divisor} END), count(*) FROM {table}",
        f"SELECT n, 10 / nullif({divisor}, 0) FROM {table}",
        f"SELECT n, 10 / v FROM (SELECT n, {divisor} AS v FROM {table} WHERE {divisor} <> 0 OFFSET 0) AS q",
        f"SELECT n, coalesce(10 / nullif({divisor}, 0), 0) FROM {table}",
        f"SELECT n, CASE WHEN w IN ('0', '1', '12') THEN CAST(w AS INT) END FROM {table}",
        f"SELECT n, CASE WHEN x BETWEEN -1000 AND 70000 THEN x * 2 END FROM {table}",
    )
