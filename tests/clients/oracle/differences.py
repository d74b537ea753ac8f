"""Lists the cases in which an answer of Glasshouse may differ from that of PostgreSQL.

`DIFFERENCES` are by design. Each is a row of a table in docs/sql.md ("Where Glasshouse differs from PostgreSQL"). `FAULTS` are
known bugs. When a bug is fixed, remove it from the list. Every entry has an example, which the suite asks in each run. The
suite fails if the two answers to an example no longer differ, so that obsolete entries are removed.
"""

import dataclasses
import decimal
import math
import re
from collections.abc import Callable

from .compare import difference
from .engines import DAY_MICROS, MONTH_DAYS

INT64 = 2**63
DECIMAL_MAX = decimal.Decimal(10) ** 38
# The first and the last day that Glasshouse stores, in days since 1970.
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
# PostgreSQL's error codes for numbers out of range, including those for logarithms and powers.
OUT_OF_RANGE = ("22003", "2201E", "2201F")


@dataclasses.dataclass(frozen=True)
class Difference:
    """A rule for a kind of question. `covers` is called with the question and two different outcomes."""

    # The first cell of the row in docs/sql.md, without backticks.
    title: str
    example: str
    covers: Callable


def _converted(convert):
    """Returns a rule for results that are equal after our values have been converted with `convert(value, kinds)` and with the
    other conversions. `kinds` are the classes of PostgreSQL's values in the same column."""

    def covers(question, ours, theirs):
        if (ours.status, theirs.status) != ("rows", "rows") or len(ours.rows) != len(theirs.rows):
            return False
        rows = _apply(convert, ours.rows, theirs.rows)
        if rows == list(ours.rows):
            return False
        for other in (_interval, _midnight, _text_form):
            rows = _apply(other, rows, theirs.rows)
        return difference(rows, theirs.rows, question.is_ordered, question.is_inexact) is None

    return covers


def _apply(convert, ours, theirs):
    """Converts our values, column by column."""
    columns = [{kind for kind, _ in column} for column in zip(*theirs)]
    return [tuple(convert(value, kinds) for value, kinds in zip(row, columns)) for row in ours]


_INTERVAL_UNITS = {"mon": MONTH_DAYS * DAY_MICROS, "day": DAY_MICROS, "hour": 3_600_000_000, "min": 60_000_000, "sec": 1_000_000}


def _interval(value, kinds):
    """Parses the text of an interval, such as `1 mons 2 days 30 mins`."""
    kind, text = value
    if kind != "text" or "interval" not in kinds or not re.fullmatch(r"(-?[\d.]+ (mon|day|hour|min|sec)s?\s?)+", text):
        return value
    words = text.split()
    parts = (decimal.Decimal(number) * _INTERVAL_UNITS[unit.rstrip("s")] for number, unit in zip(words[::2], words[1::2]))
    return "interval", int(sum(parts))


def _midnight(value, kinds):
    """Returns a date as the timestamp of its midnight."""
    return ("time", value[1] * DAY_MICROS) if value[0] == "date" and "time" in kinds else value


# Each pair converts a part of our text to the text of PostgreSQL.
_TEXT_FORMS = (
    # A timestamp.
    (r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)", r"\1 \2"),
    (r"(:\d\d\.\d*?[1-9])0+(?=\D|$)", r"\1"),
    (r"(:\d\d)Z", r"\1+00"),
    (r"(:\d\d\.\d+)Z", r"\1+00"),
    # A double. PostgreSQL writes 16 or more digits with an exponent.
    (r"(?<![\d.])(\d)(\d{15,})\.0(?!\d)", lambda found: f"{found[1]}.{found[2]}".rstrip("0").rstrip(".") + f"e+{len(found[2])}"),
    (r"(?<![\d.])(\d+)\.0(?!\d)", r"\1"),
    (r"(?<=[\d.])e(\d)", r"e+\1"),
    (r"(?<=\d)e-(\d)(?!\d)", r"e-0\1"),
)


def _text_form(value, kinds):
    """Returns the text of a timestamp or double as PostgreSQL writes it."""
    if value[0] != "text":
        return value
    text = value[1]
    for pattern, replacement in _TEXT_FORMS:
        text = re.sub(pattern, replacement, text)
    return "text", text


def _has(outcome, test):
    return any(test(kind, value) for row in outcome.rows for kind, value in row)


def _not_finite(question, ours, theirs):
    return theirs.code in OUT_OF_RANGE and _has(ours, lambda kind, value: kind == "double" and not math.isfinite(value))


def _before_christ(value, kinds):
    """Returns the number of a year or century as PostgreSQL counts it: there is no year 0."""
    return ("number", value[1] - 1) if value[0] == "number" and value[1].is_finite() and value[1] <= 0 else value


def _outside_years(question, ours, theirs):
    days = {"date": 1, "time": DAY_MICROS}
    is_outside = lambda kind, value: kind in days and not FIRST_DAY <= value // days[kind] <= LAST_DAY  # noqa: E731
    if ours.status == "error":
        return _has(theirs, is_outside)
    return re.search(r"extract|date_part", question.sql) is not None and _converted(_before_christ)(question, ours, theirs)


def _from_real(question, ours, theirs):
    """PostgreSQL converts a REAL to a decimal with six digits, and a double with 15."""
    digits = 6 if "AS REAL) AS DECIMAL" in question.sql else 15
    rounded = lambda rows: [
        tuple((kind, f"{value:.{digits - 1}e}" if kind == "number" else value) for kind, value in row) for row in rows
    ]  # noqa: E731
    return "AS DECIMAL" in question.sql and rounded(ours.rows) == rounded(theirs.rows)


def _hexadecimal(question, ours, theirs):
    return ours.status == "error" and re.search(r"Cannot cast string '0[xX]", ours.message) is not None


def _negative_limit(question, ours, theirs):
    return ours.status == "error" and re.search(r"must be >= 0|must not be negative", ours.message) is not None


def _wide_sum(question, ours, theirs):
    is_wide = lambda kind, value: kind == "number" and value.is_finite() and not -INT64 <= value < INT64  # noqa: E731
    return ours.status == "error" and "sum(" in question.sql and _has(theirs, is_wide)


def _wide_decimal(question, ours, theirs):
    is_wide = lambda kind, value: kind == "number" and value.is_finite() and abs(value) >= DECIMAL_MAX  # noqa: E731
    return ours.status == "error" and _has(theirs, is_wide)


def _wide_literal(question, ours, theirs):
    is_wide = lambda kind, value: kind == "number" and not -(2**31) <= value < 2**31  # noqa: E731
    return theirs.message == "integer out of range" and _has(ours, is_wide)


def _no_decimal(question, ours, theirs):
    return ours.status == "error" and _has(theirs, lambda kind, value: kind == "number" and not value.is_finite())


def _seventh_digit(question, ours, theirs):
    return "00.1234567" in question.sql


def _is_example(question, ours, theirs):
    """The generator avoids these statements, so only the example may differ."""
    return question.area == "example"


def _exact_comparison(question, ours, theirs):
    return _is_example(question, ours, theirs) or re.search(r"\by (=|<|>|>=|<>) [zd]\b", question.sql) is not None


DIFFERENCES = (
    Difference("INTERVAL in a result", "SELECT INTERVAL '1 month 2 days' + INTERVAL '1 hour'", _converted(_interval)),
    Difference("date ± INTERVAL", "SELECT DATE '2024-01-31' + INTERVAL '1 month'", _converted(_midnight)),
    Difference("double or timestamp as text", "SELECT CAST(ts AS TEXT) FROM ta", _converted(_text_form)),
    Difference("time AT TIME ZONE 'zone'", "SELECT TIMESTAMPTZ '2024-02-29 12:00:00Z' AT TIME ZONE 'Asia/Tokyo'", _is_example),
    Difference(
        "local time that occurs twice", "SELECT TIMESTAMP '2024-10-27 02:30:00' AT TIME ZONE 'Europe/Berlin'", _is_example
    ),
    Difference("number with an exponent", "SELECT 3 * 1e-1 = 0.3", _is_example),
    Difference(
        "64-bit integer with double",
        "SELECT CAST('9007199254740993' AS BIGINT) = CAST('9007199254740992' AS DOUBLE PRECISION)",
        _exact_comparison,
    ),
    Difference("double out of range", "SELECT power(CAST(-8 AS DOUBLE PRECISION), 0.5)", _not_finite),
    Difference("years before 1 and after 9999", "SELECT CAST('10000-01-01' AS DATE)", _outside_years),
    Difference("INTEGER with a literal", "SELECT CAST(2147483647 AS INT) + 2", _wide_literal),
    Difference("NaN as a decimal", "SELECT CAST('NaN' AS DECIMAL(10, 2))", _no_decimal),
    Difference("REAL or double as a decimal", "SELECT CAST(CAST('16777217' AS REAL) AS DECIMAL(12, 3))", _from_real),
    Difference("hexadecimal text as a number", "SELECT CAST('0x10' AS REAL)", _hexadecimal),
    Difference("negative LIMIT or OFFSET", "SELECT n FROM te WHERE n IN (SELECT n FROM tb LIMIT -1)", _negative_limit),
    Difference("sum(BIGINT)", "SELECT sum(v) FROM (VALUES (9223372036854775807), (1)) AS q(v)", _wide_sum),
    Difference(
        "more than 38 digits", "SELECT CAST('99999999999999999999999999999999999999' AS DECIMAL(38, 0)) * 10", _wide_decimal
    ),
    Difference(
        "seventh digit of a second", "SELECT CAST('1998-03-02 10:00:00.1234567' AS TIMESTAMP)", _seventh_digit
    ),
)


def _fault(title, pattern, example, area=""):
    """Returns a fault that covers every statement or error that matches the pattern, in areas whose names begin with `area`."""

    def covers(question, ours, theirs):
        return (question.area == "example" or question.area.startswith(area)) and re.search(
            pattern, f"{question.sql}\n{ours.message}", re.DOTALL
        ) is not None

    return Difference(title, example, covers)


FAULTS = ()


def rule_of(rules, question, ours, theirs):
    """Returns the first rule that covers a difference, or None."""
    return next((rule for rule in rules if rule.covers(question, ours, theirs)), None)
