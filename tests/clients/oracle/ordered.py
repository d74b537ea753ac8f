"""The type of a statement whose ORDER BY fixes the order of all rows."""


class Ordered(str):
    """A statement whose rows are compared in order, not as a multiset."""
