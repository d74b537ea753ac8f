"""Generates queries: FROM clauses with joins of all kinds, and subqueries in every place, correlated across levels."""

from .expressions import COMPARISONS, NUMBERS, Expressions
from .tables import COLUMNS

TABLES = ("ta", "tb", "tc", "ta", "tb", "te")
SAFE = {name: kind for name, (_, kind) in COLUMNS.items() if kind in ("int", "big", "double", "text", "bool", "date", "time")}


def closed(query):
    """Returns a query as an operand of a set operation, in parentheses if necessary."""
    return f"({query})" if " ORDER BY " in query or " LIMIT " in query or "FETCH" in query else query


class Queries(Expressions):
    """A generator whose expressions contain subqueries while `levels` is above zero."""

    def __init__(self, seed, levels=1):
        super().__init__(seed)
        self.levels = levels

    # FROM ------------------------------------------------------------------------------------------------------------

    def table(self, tables=TABLES):
        """Returns a table with a new alias, and its columns."""
        alias = self.name("t")
        return f"{self.pick(*tables)} AS {alias}", [(f"{alias}.{name}", kind) for name, kind in SAFE.items()]

    def derived(self, outer=(), kinds=None):
        """Returns a derived table with a new alias, and its columns."""
        alias = self.name("d")
        kinds = kinds or [self.pick("int", "int", "big", "text", "double", "date") for _ in range(self.number(1, 3))]
        query = self.select(kinds, outer)
        return f"({query}) AS {alias}", [(f"{alias}.c{at}", kind) for at, kind in enumerate(kinds)]

    def source(self, outer=()):
        """Returns the text of a FROM clause, and the columns in scope."""
        return self.pick(self.table, self.table, self.table, lambda: self.joined(outer), lambda: self.part(outer))

    def part(self, outer=()):
        """Returns a table or derived table."""
        if self.levels > 0 and self.chance(0.35):
            self.levels -= 1
            found = self.derived(outer)
            self.levels += 1
            return found
        return self.table()

    def joined(self, outer=(), more=2):
        """Returns a join of two or three tables, of any kind."""
        text, scope = self.part(outer)
        for _ in range(self.number(1, more)):
            right, columns = self.part(outer)
            kind = self.pick("JOIN", "INNER JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN")
            if kind == "CROSS JOIN":
                text = f"{text} CROSS JOIN {right}"
            else:
                text = f"{text} {kind} {right} ON {self.join_condition(scope, columns, kind)}"
            scope = scope + columns
        return text, scope

    def join_condition(self, left, right, kind):
        """Returns an ON condition. For a FULL join, it is a single equality, because PostgreSQL supports few other conditions."""
        pairs = [(a, b) for a, one in left for b, other in right if one == other == "int"]
        if not pairs:
            return "true" if kind != "FULL JOIN" else "1 = 1"
        first, second = self.rng.choice(pairs)
        equality = f"{first} = {second}"
        if kind == "FULL JOIN":
            return equality
        both = left + right
        return self.pick(
            equality,
            equality,
            f"{first} + 1 = {second}",
            f"{first} < {second}",
            lambda: f"{equality} AND {self.plain('bool', both, 1)}",
            lambda: f"{equality} OR {self.plain('bool', both, 1)}",
        )

    def plain(self, kind, scope, depth=2):
        """Returns an expression without subqueries."""
        levels, self.levels = self.levels, 0
        text = self.expression(kind, scope, depth)
        self.levels = levels
        return text

    # Queries ---------------------------------------------------------------------------------------------------------

    def select(self, kinds, outer=()):
        """Returns a query whose columns c0, c1, … have the given kinds. It may be a set operation or have a constant LIMIT."""
        if self.chance(0.12):
            operation = self.pick("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL")
            return f"{closed(self.simple(kinds, outer))} {operation} {closed(self.simple(kinds, outer))}"
        return self.simple(kinds, outer)

    def simple(self, kinds, outer=()):
        """Returns a query without a set operation."""
        if self.chance(0.2):
            return self.grouped(kinds, outer)
        text, scope = self.source(outer)
        where = self.where(scope, outer)
        values = ", ".join(f"{self.value(kind, scope, outer)} AS c{at}" for at, kind in enumerate(kinds))
        distinct = "DISTINCT " if self.chance(0.15) else ""
        end = ""
        if not distinct and " JOIN " not in text and text.startswith("t") and self.chance(0.2):
            alias = text.split()[-1]
            end = f" ORDER BY {self.column(scope, 'int')}{self.nulls()}, {alias}.n LIMIT {self.number(0, 4)}"
            end += self.pick("", "", f" OFFSET {self.number(0, 2)}")
        return f"SELECT {distinct}{values} FROM {text}{where}{end}"

    def grouped(self, kinds, outer=()):
        """Returns a query with aggregates, with or without GROUP BY."""
        text, scope = self.source(outer)
        where = self.where(scope, outer)
        key = self.column(scope, "int") or "1 + 1"
        group = f" GROUP BY {key}" if self.chance(0.6) else ""
        values = ", ".join(f"{self.aggregate(kind, scope)} AS c{at}" for at, kind in enumerate(kinds))
        having = self.pick("", "", lambda: f" HAVING {self.having(scope)}")
        return f"SELECT {values} FROM {text}{where}{group}{having}"

    def having(self, scope):
        return f"{self.aggregate('int', scope)} {self.pick(*COMPARISONS)} {self.number(0, 8)}"

    def aggregate(self, kind, scope):
        """Returns an aggregate of the given kind whose result does not depend on the order of the rows."""
        value = lambda kind=kind: self.plain(kind, scope, 1)  # noqa: E731
        if kind in ("int", "big", "dec", "double"):
            return self.pick(
                "CAST(count(*) AS INT)" if kind == "int" else "count(*)",
                lambda: f"count({self.leaf(self.pick('int', 'text'), scope)})" if kind != "int" else f"max({value()})",
                lambda: f"min({value()})",
                lambda: f"max({value()})",
                lambda: f"sum({value()})" if kind != "int" else f"CAST(sum({value()}) AS INT)",
                lambda: f"coalesce(sum({value()}), 0)" if kind != "int" else f"CAST(count(DISTINCT {value()}) AS INT)",
            )
        if kind == "bool":
            return self.pick(
                lambda: f"bool_and({value()})", lambda: f"bool_or({value()})", lambda: f"count(*) > {self.number(0, 5)}"
            )
        return self.pick(lambda: f"min({value()})", lambda: f"max({value()})")

    def value(self, kind, scope, outer):
        """Returns a value, which sometimes uses a column of an outer query."""
        return self.expression(kind, scope + (list(outer) if self.chance(0.2) else []), 1)

    def where(self, scope, outer=()):
        """Returns a WHERE clause. If there is an outer query, the clause is usually correlated."""
        parts = []
        if outer and self.chance(0.75):
            kind = self.pick("int", "int", "int", "text")
            inner, other = self.column(scope, kind), self.column(list(outer), kind)
            if inner and other:
                parts.append(f"{inner} {self.pick('=', '=', '=', '<', '<>', '>=')} {other}")
        if self.chance(0.5):
            parts.append(self.expression("bool", scope, 1))
        joint = self.pick(" AND ", " AND ", " OR ")
        return f" WHERE {joint.join(f'({part})' for part in parts)}" if parts else ""

    def nulls(self):
        """Returns a direction and a position of NULLs for ORDER BY. Both can be omitted."""
        return self.pick("", " ASC", " DESC", " NULLS FIRST", " NULLS LAST", " DESC NULLS LAST", " DESC NULLS FIRST")

    # Subqueries ------------------------------------------------------------------------------------------------------

    def inside(self, make):
        """Calls `make` one level deeper."""
        self.levels -= 1
        text = make()
        self.levels += 1
        return text

    def scalar(self, kind, scope, depth):
        if self.levels <= 0:
            return self.leaf(kind, scope)
        return self.inside(lambda: f"({self.single(kind, scope)})")

    def single(self, kind, outer):
        """Returns a query that returns at most one row."""
        if self.chance(0.5):
            text, scope = self.source(outer)
            return f"SELECT {self.aggregate(kind, scope)} FROM {text}{self.where(scope, outer)}"
        text, scope = self.table()
        alias = text.split()[-1]
        offset = f" OFFSET {self.number(0, 2)}"
        end = self.pick(" LIMIT 1", " LIMIT 1", f" LIMIT 1{offset}", f"{offset} LIMIT 1", " FETCH FIRST 1 ROWS ONLY")
        order = f" ORDER BY {self.column(scope, 'int')}{self.nulls()}, {alias}.n"
        return f"SELECT {self.value(kind, scope, outer)} FROM {text}{self.where(scope, outer)}{order}{end}"

    def condition(self, scope, depth):
        if self.levels <= 0:
            return super().condition(scope, depth)
        kind = self.pick("int", "int", "int", "text", "big", "dec", "date")
        # The value and the subquery may have different numeric types.
        value = self.plain(self.pick(kind, kind, "double", "dec") if kind in NUMBERS else kind, scope, 1)
        query = lambda *kinds: self.inside(lambda: self.select(kinds, scope))  # noqa: E731
        operator = self.pick(*COMPARISONS)
        return self.pick(
            lambda: f"EXISTS ({query(kind)})",
            lambda: f"NOT EXISTS ({query(kind)})",
            lambda: f"({value}) IN ({query(kind)})",
            lambda: f"({value}) NOT IN ({query(kind)})",
            lambda: f"(({value}) {self.pick('', 'NOT ')}IN ({query(kind)})) IS "
            f"{self.pick('NULL', 'NOT NULL', 'TRUE', 'FALSE', 'UNKNOWN')}",
            lambda: f"({value}) {operator} {self.pick('ANY', 'SOME', 'ALL')} ({query(kind)})",
            lambda: f"({value}) {operator} ({self.inside(lambda: self.single(kind, scope))})",
            lambda: f"({self.inside(lambda: self.single(kind, scope))}) IS {self.pick('', 'NOT ')}NULL",
        )
