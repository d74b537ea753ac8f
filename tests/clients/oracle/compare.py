"""Compares two outcomes of a question: as multisets of rows, or as lists if ORDER BY fixes the order."""

import math

# The relative difference that a question with inexact arithmetic permits.
RELATIVE_MAX = 1e-9
# Doubles that are sums or quotients of the same exact values may differ in their last digits.
DOUBLE_RELATIVE_MAX = 1e-12

_NUMBERS = ("number", "double")


def equal_values(one, other, is_inexact):
    """Returns true if two comparable values are equal. All kinds of numbers count as one class."""
    (kind, left), (other_kind, right) = one, other
    if kind in _NUMBERS and other_kind in _NUMBERS:
        if kind == other_kind == "number" and not is_inexact:
            return left == right
        return _close(float(left), float(right), RELATIVE_MAX if is_inexact else DOUBLE_RELATIVE_MAX)
    if kind != other_kind:
        return False
    if kind == "list":
        return len(left) == len(right) and all(equal_values(a, b, is_inexact) for a, b in zip(left, right))
    return left == right


def _close(one, other, relative):
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other or math.isclose(one, other, rel_tol=relative, abs_tol=1e-300 if relative < 1e-10 else 1e-12)


def _exact_key(row):
    """Returns a key that sorts rows by their values."""
    return tuple(_value_key(value, float) for value in row)


def _coarse_key(row):
    """Returns a key under which rows that are equal up to rounding are neighbors in both outcomes."""
    return tuple(_value_key(value, lambda number: float(f"{float(number):.9g}")) for value in row)


def _value_key(value, round_number):
    kind, content = value
    if kind in _NUMBERS:
        number = content if math.isfinite(content) else float(content)
        is_nan = math.isnan(number)
        # Python compares decimals, integers and floats exactly.
        return (
            "number",
            "nan" if is_nan else "",
            0 if is_nan else (round_number(number), number if round_number is float else 0),
        )
    if kind == "list":
        return (kind, "", tuple(_value_key(each, round_number) for each in content))
    return (kind, "", content)


def difference(ours, theirs, is_ordered, is_inexact):
    """Returns the first difference between two lists of rows as text, or None if they are equal."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows instead of {len(theirs)}"
    if is_ordered:
        return _first_difference(ours, theirs, is_inexact)
    for key in (_exact_key, _coarse_key):
        found = _first_difference(sorted(ours, key=key), sorted(theirs, key=key), is_inexact)
        if found is None:
            break
    return found


def _first_difference(ours, theirs, is_inexact):
    for number, (one, other) in enumerate(zip(ours, theirs)):
        if len(one) != len(other):
            return f"{len(one)} columns instead of {len(other)}"
        for at, (value, expected) in enumerate(zip(one, other)):
            if not equal_values(value, expected, is_inexact):
                return f"row {number}, column {at}: {_show(value)} instead of {_show(expected)}"
    return None


def _show(value):
    return f"{value[0]} {value[1]}"
