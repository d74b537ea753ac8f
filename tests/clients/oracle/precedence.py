"""Questions about the precedence of operators: expressions without parentheses, which follow PostgreSQL's table of precedence."""


def operators(maker):
    """Operators of all levels in one expression."""
    text, scope = maker.table(("ta", "tb", "tc"))
    name = text.split()[-1]
    maker.is_inexact = True
    grammar = _Grammar(maker, name)
    return maker.pick(
        lambda: f"SELECT {name}.n, {grammar.disjunction()} FROM {text}",
        lambda: f"SELECT {name}.n FROM {text} WHERE {grammar.disjunction()}",
        lambda: f"SELECT {name}.n, {grammar.other()} FROM {text}",
    )


class _Grammar:
    """One method for each level, from the loosest to the tightest."""

    def __init__(self, maker, name):
        self.maker, self.name = maker, name

    def _chain(self, part, operators, most=2):
        text = part()
        for _ in range(self.maker.number(0, most)):
            text += f" {self.maker.pick(*operators)} {part()}"
        return text

    def disjunction(self):
        return self._chain(lambda: self._chain(self._negation, ["AND"], 1), ["OR"], 1)

    def _negation(self):
        return f"{self.maker.pick('', '', 'NOT ')}{self._is()}"

    def _is(self):
        maker = self.maker
        return maker.pick(
            self._comparison,
            self._comparison,
            lambda: f"{self._comparison()} IS {maker.pick('', 'NOT ')}{maker.pick('NULL', 'TRUE', 'FALSE', 'UNKNOWN')}",
            lambda: f"{self._comparison()} IS {maker.pick('', 'NOT ')}DISTINCT FROM {self._comparison()}",
            lambda: f"{self.other()} IS {maker.pick('', 'NOT ')}DISTINCT FROM {self.other()}",
        )

    def _comparison(self):
        maker, operator = self.maker, self.maker.pick("=", "<>", "<", "<=", ">", ">=")
        return maker.pick(
            lambda: f"{self.other()} {operator} {self.other()}",
            lambda: f"{self.other()} {operator} {self.other()}",
            lambda: f"{self._member()} {operator} {self.name}.f",
            lambda: f"{self.name}.f {operator} {self._member()}",
            self._member,
            lambda: f"{self.name}.f",
        )

    def _member(self):
        maker, sense = self.maker, self.maker.pick("", "NOT ")
        return maker.pick(
            lambda: f"{self._text()} {sense}{maker.pick('LIKE', 'ILIKE')} {self._text()}",
            lambda: f"{self.other()} {sense}IN ({self.other()}, 3)",
            lambda: f"{self.other()} {sense}BETWEEN {self.other()} AND {self.other()}",
        )

    def _text(self):
        return self._chain(lambda: self.maker.pick(f"{self.name}.s", "'a'", "'%'", f"{self.name}.n::text"), ["||"], 1)

    def other(self):
        return self.maker.pick(
            self._sum,
            self._sum,
            self._sum,
            lambda: self._chain(self._sum, ["&", "|"], 1),
            lambda: f"{self._sum()} << {self.maker.pick('1 + 1', '2')}",
        )

    def _sum(self):
        return self._chain(self._product, ["+", "-"])

    def _product(self):
        maker = self.maker
        text = self._sign()
        for _ in range(maker.number(0, 2)):
            text += maker.pick(f" * {self._sign()}", " / 2", " % 3", " / (-2)")
        return text

    def _sign(self):
        return f"{self.maker.pick('', '', '', '- ', '+ ')}{self._atom()}"

    def _atom(self):
        return self.maker.pick(
            f"{self.name}.i", f"{self.name}.k", f"{self.name}.n", "2", "3", f"{self.name}.i::bigint::int", f"{self.name}.f::int"
        )
