"""Makes a question from a seed: a statement, whether ORDER BY fixes the order of its rows, and whether its digits may differ."""

import dataclasses

from . import aggregates, arithmetic, constructs, joins, nested, precedence, relations, reports, texts, times, windows
from .ordered import Ordered
from .queries import Queries
from .times import LOCAL_TIME

# The areas, each with its share of the questions.
AREAS = (
    (relations.expressions, 10),
    (relations.logic, 8),
    (relations.ordered, 6),
    (joins.joins, 12),
    (joins.using, 8),
    (joins.lateral, 5),
    (nested.subqueries, 16),
    (nested.correlated, 8),
    (relations.set_operations, 8),
    (relations.ctes, 6),
    (relations.recursion, 3),
    (aggregates.grouped, 8),
    (aggregates.grouping_sets, 6),
    (aggregates.ordered, 5),
    (windows.functions, 8),
    (windows.frames, 6),
    (arithmetic.overflow, 10),
    (arithmetic.casts, 8),
    (arithmetic.literals, 5),
    (arithmetic.mathematics, 5),
    (arithmetic.guards, 4),
    (texts.functions, 9),
    (texts.patterns, 4),
    (texts.conversions, 4),
    (times.parts, 6),
    (times.arithmetic, 7),
    (times.zones, 5),
    (times.formats, 4),
    (precedence.operators, 6),
    (constructs.names, 5),
    (constructs.values, 6),
    (constructs.rows, 5),
    (constructs.limits, 5),
    (constructs.grouped_subqueries, 6),
    (constructs.typed_literals, 5),
    (reports.summaries, 10),
    (reports.mixtures, 9),
)


@dataclasses.dataclass(frozen=True)
class Question:
    """A statement for both engines. The seed reproduces it."""

    seed: str
    area: str
    sql: str
    is_ordered: bool = False
    is_inexact: bool = False

    def for_postgres(self):
        return self.sql.replace(LOCAL_TIME, "")

    def for_glasshouse(self):
        return self.sql.replace(LOCAL_TIME, "to_local_time")


def make_question(seed):
    """Returns the question that a seed determines."""
    maker = Queries(seed)
    areas, weights = zip(*AREAS)
    (area,) = maker.rng.choices(areas, weights)
    sql = area(maker)
    is_ordered = isinstance(sql, Ordered)
    return Question(seed, f"{area.__module__.split('.')[-1]}.{area.__name__}", str(sql), is_ordered, maker.is_inexact)
