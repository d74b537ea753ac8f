"""Generates expressions of a given kind over the columns in scope. The expressions are valid in both dialects, and never fail.

A kind is "int", "big", "dec", "double", "text", "bool", "date" or "time". Arithmetic is bounded and divisors are guarded, so an
expression can be used where the order of evaluation is not fixed. `arithmetic.py` generates the expressions that can fail.
"""

import random

KINDS = ("int", "big", "dec", "double", "text", "bool", "date", "time")
NUMBERS = ("int", "big", "dec", "double")
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
# A double that a decimal with 15 digits after the point cannot hold.
TINY = "CAST('1e-17' AS DOUBLE PRECISION)"
# The nesting depth of an expression in the common case.
DEPTH = 2


class Expressions:
    """A seeded generator. A scope is a list of (name, kind)."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self._names = 0
        # True if the digits of the question's result may differ between the engines.
        self.is_inexact = False

    def pick(self, *choices):
        """Returns one of the choices. If the choice is callable, returns the result of the call."""
        choice = self.rng.choice(choices)
        return choice() if callable(choice) else choice

    def chance(self, probability):
        return self.rng.random() < probability

    def number(self, least, most):
        return self.rng.randint(least, most)

    def name(self, prefix="q"):
        """Returns a new name for a table or column."""
        self._names += 1
        return f"{prefix}{self._names}"

    def column(self, scope, kind):
        """Returns a column of the kind, or None if the scope has none."""
        names = [name for name, other in scope if other == kind]
        return self.rng.choice(names) if names else None

    def expression(self, kind, scope, depth=DEPTH):
        """Returns an expression of a kind."""
        if depth <= 0 or self.chance(0.15):
            return self.leaf(kind, scope)
        if self.chance(0.15):
            return self._conditional(kind, scope, depth - 1)
        text = getattr(self, f"_{kind}")(scope, depth - 1)
        return f"({text})" if kind == "bool" else text

    def leaf(self, kind, scope):
        """Returns a column or a literal."""
        column = self.column(scope, kind)
        if column and self.chance(0.8):
            return column
        if kind == "big" and self.chance(0.5):
            return self.leaf("int", scope)
        return self.literal(kind)

    def literal(self, kind):
        if self.chance(0.05):
            types = {
                "int": "INT",
                "big": "BIGINT",
                "dec": "DECIMAL(10, 2)",
                "double": "DOUBLE PRECISION",
                "text": "TEXT",
                "bool": "BOOLEAN",
                "date": "DATE",
                "time": "TIMESTAMPTZ",
            }
            return f"CAST(NULL AS {types[kind]})"
        match kind:
            case "int":
                return self.pick("0", "1", "2", "3", "5", "7", "(-1)", "(-4)")
            case "big":
                return self.pick("3000000000", "CAST(1 AS BIGINT)", "(-5000000000)", "CAST(0 AS BIGINT)")
            case "dec":
                return self.pick("0.5", "1.25", "0.06", "2.50", "(-0.75)", "10.0", "CAST(3 AS DECIMAL(10, 2))")
            case "double":
                return self.pick(
                    "CAST(0.5 AS DOUBLE PRECISION)", "CAST(-2 AS DOUBLE PRECISION)", "CAST(4.25 AS DOUBLE PRECISION)"
                )
            case "text":
                return self.pick("'a'", "'ab'", "''", "' b '", "'Zürich'", "'x,y,z'", "'abc'", "'it''s'")
            case "bool":
                return self.pick("true", "false")
            case "date":
                return self.pick("DATE '2024-02-29'", "DATE '2023-12-31'", "CAST('2024-01-31' AS DATE)")
            case "time":
                return self.pick("TIMESTAMP '2024-02-29 12:00:00'", "CAST('2024-01-01T00:00:00Z' AS TIMESTAMPTZ)")

    def _conditional(self, kind, scope, depth):
        """Returns an expression of any kind that selects one of several values."""
        value = lambda: self.expression(kind, scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"CASE WHEN {self.expression('bool', scope, depth)} THEN {value()} ELSE {value()} END",
            lambda: f"CASE WHEN {self.expression('bool', scope, depth)} THEN {value()} END",
            lambda: f"CASE {self.leaf('int', scope)} WHEN 1 THEN {value()} WHEN {self.leaf('int', scope)} THEN {value()} ELSE "
            f"{value()} END",
            lambda: f"coalesce({value()}, {value()})",
            lambda: f"nullif({value()}, {value()})",
            lambda: f"greatest({value()}, {value()})",
            lambda: f"least({value()}, {value()}, {value()})",
        )

    def _int(self, scope, depth):
        value = lambda: self.expression("int", scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"({value()} + {value()})",
            lambda: f"({value()} - {value()})",
            lambda: f"({value()} * {self.number(0, 4)})",
            lambda: f"({value()} / nullif({value()}, 0))",
            lambda: f"({value()} % nullif({value()}, 0))",
            lambda: f"abs({value()})",
            lambda: f"(- {value()})",
            lambda: f"mod({value()}, {self.pick(2, 3, -4)})",
            lambda: f"length({self.expression('text', scope, depth)})",
            lambda: f"CAST({self.expression('bool', scope, depth)} AS INT)",
            lambda: self.scalar("int", scope, depth),
        )

    def _big(self, scope, depth):
        value = lambda: self.expression("big", scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"({value()} + {value()})",
            lambda: f"({value()} - {self.expression('int', scope, depth)})",
            lambda: f"({value()} * {self.number(0, 3)})",
            lambda: f"({value()} / nullif({value()}, 0))",
            lambda: f"({value()} % nullif({value()}, 0))",
            lambda: f"CAST({self.expression('int', scope, depth)} AS BIGINT)",
            lambda: f"abs({value()})",
            lambda: self.scalar("big", scope, depth),
        )

    def _dec(self, scope, depth):
        value = lambda: self.expression("dec", scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"({value()} + {value()})",
            lambda: f"({value()} - {self.expression('int', scope, depth)})",
            lambda: f"({self.expression('int', scope, depth)} * {self.literal('dec')})",
            lambda: f"({value()} * {self.pick('0.5', '1.1', '3')})",
            lambda: f"CAST({self.expression('int', scope, depth)} AS DECIMAL(12, {self.number(0, 3)}))",
            lambda: f"abs({value()})",
            lambda: f"(- {value()})",
            lambda: f"round({value()}, {self.number(0, 2)})",
            lambda: f"{self.pick('floor', 'ceil', 'round', 'trunc')}({value()})",
        )

    def _double(self, scope, depth):
        value = lambda: self.expression("double", scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"({value()} + {value()})",
            lambda: f"({value()} - {self.expression('int', scope, depth)})",
            lambda: f"({value()} * {self.pick('0.5', '2', '4')})",
            lambda: f"({value()} / {self.pick('2', '0.5', '(-4)')})",
            lambda: f"CAST({self.expression('int', scope, depth)} AS DOUBLE PRECISION)",
            lambda: f"({self.expression('dec', scope, 0)} + {value()})",
            lambda: f"abs({value()})",
            lambda: f"{self.pick('floor', 'ceil', 'trunc')}({value()})",
            lambda: self.scalar("double", scope, depth),
        )

    def _text(self, scope, depth):
        value = lambda: self.expression("text", scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"({value()} || {value()})",
            lambda: f"{self.pick('upper', 'lower', 'trim', 'reverse', 'initcap')}({value()})",
            lambda: f"substr({value()}, {self.number(1, 3)})",
            lambda: f"substr({value()}, {self.number(-1, 3)}, {self.number(0, 3)})",
            lambda: f"replace({value()}, {self.literal('text')}, {self.literal('text')})",
            lambda: f"{self.pick('left', 'right')}({value()}, {self.number(-2, 3)})",
            lambda: f"CAST({self.expression(self.pick('int', 'big', 'bool', 'date'), scope, depth)} AS TEXT)",
            lambda: f"concat({value()}, {self.expression('int', scope, depth)}, {value()})",
            lambda: self.scalar("text", scope, depth),
        )

    def _date(self, scope, depth):
        value = lambda: self.expression("date", scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"({value()} + {self.number(-40, 400)})",
            lambda: f"({value()} - {self.number(0, 60)})",
            lambda: f"CAST({self.expression('time', scope, depth)} AS DATE)",
            lambda: f"CAST(date_trunc('{self.pick('month', 'week', 'quarter', 'year')}', {value()}) AS DATE)",
        )

    def _time(self, scope, depth):
        value = lambda: self.expression("time", scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"({value()} {self.pick('+', '-')} INTERVAL "
            f"'{self.pick('1 month', '2 days', '90 minutes', '1 year 3 days')}')",
            lambda: f"date_trunc('{self.pick('minute', 'hour', 'day', 'week', 'month', 'quarter', 'year')}', {value()})",
            lambda: f"CAST({self.expression('date', scope, depth)} AS TIMESTAMP)",
        )

    def _bool(self, scope, depth):
        value = lambda: self.expression("bool", scope, depth)  # noqa: E731
        kind = self.pick(*KINDS)
        other = lambda: self.expression(kind, scope, depth)  # noqa: E731
        return self.pick(
            lambda: f"{other()} {self.pick(*COMPARISONS)} {other()}",
            lambda: f"{other()} {self.pick(*COMPARISONS)} {other()}",
            lambda: f"{self.expression(self.pick(*NUMBERS), scope, depth)} {self.pick(*COMPARISONS)} "
            f"{self.expression(self.pick(*NUMBERS), scope, depth)}",
            lambda: f"{value()} AND {value()}",
            lambda: f"{value()} OR {value()}",
            lambda: f"NOT {value()}",
            lambda: f"({other()}) IS {self.pick('', 'NOT ')}NULL",
            lambda: f"({value()}) IS {self.pick('', 'NOT ')}{self.pick('TRUE', 'FALSE', 'UNKNOWN')}",
            lambda: f"{other()} {self.pick('', 'NOT ')}BETWEEN {other()} AND {other()}",
            lambda: f"({other()}) {self.pick('', 'NOT ')}IN ({other()}, {other()}, {self.literal(kind)})",
            lambda: f"({other()}) IS {self.pick('', 'NOT ')}DISTINCT FROM {other()}",
            lambda: f"{self.expression('text', scope, depth)} {self.pick('', 'NOT ')}{self.pick('LIKE', 'ILIKE')} "
            f"{self.pattern()}",
            lambda: self.condition(scope, depth),
        )

    def pattern(self):
        """Returns a pattern for LIKE."""
        return self.pick("'a%'", "'%b'", "'_b'", "'%'", "''", "'%ü%'", "'a\\%b'", "'a!_b' ESCAPE '!'", "'%a%a%'", "'A%'")

    def scalar(self, kind, scope, depth):
        """Returns an expression with a subquery, if the generator supports subqueries."""
        return self.leaf(kind, scope)

    def condition(self, scope, depth):
        """Returns a condition with a subquery, if the generator supports subqueries."""
        return f"{self.leaf('int', scope)} = {self.leaf('int', scope)}"
