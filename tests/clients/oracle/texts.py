"""Questions about text: functions, patterns and regular expressions."""


def functions(maker):
    """Text functions with NULLs, empty text, negative positions and characters of several bytes."""
    text, scope = maker.table(("ta", "tb", "tc"))
    name = text.split()[-1]
    value = lambda: maker.pick(f"{name}.s", f"{name}.s", f"{name}.w", "'Zürich'", "''", "'a-b-c'")  # noqa: E731
    number = lambda: maker.pick(maker.number(-3, 4), f"{name}.k")  # noqa: E731
    positive = lambda: maker.number(1, 3)  # noqa: E731
    part = lambda: maker.pick("'a'", "'b'", "''", "'ü'", "'-'", "','", "NULL", f"{name}.s")  # noqa: E731
    one = lambda: maker.pick(  # noqa: E731
        lambda: f"length({value()})",
        lambda: f"char_length({value()})",
        lambda: f"octet_length({value()})",
        lambda: f"bit_length({value()})",
        lambda: f"upper({value()})",
        lambda: f"lower({value()})",
        lambda: f"initcap({value()})",
        lambda: f"reverse({value()})",
        lambda: f"substr({value()}, {number()})",
        lambda: f"substring({value()} FROM {positive()} FOR {positive()})",
        lambda: f"substring({value()} FROM {positive()})",
        lambda: f"substr({value()}, {maker.number(-2, 3)}, {maker.number(0, 4)})",
        lambda: f"left({value()}, {number()})",
        lambda: f"right({value()}, {number()})",
        lambda: f"lpad({value()}, {maker.number(0, 6)}, {part()})",
        lambda: f"rpad({value()}, {maker.number(0, 6)})",
        lambda: f"trim({value()})",
        lambda: f"trim({maker.pick('BOTH', 'LEADING', 'TRAILING')} "
        f"{maker.pick(chr(39) + 'a' + chr(39), chr(39) + ' b' + chr(39))} FROM {value()})",
        lambda: f"{maker.pick('ltrim', 'rtrim', 'btrim')}({value()}{maker.pick('', ', ' + chr(39) + 'ab ' + chr(39))})",
        lambda: f"replace({value()}, {part()}, {part()})",
        lambda: f"translate({value()}, 'abü', '12')",
        lambda: f"position({part()} IN {value()})",
        lambda: f"strpos({value()}, {part()})",
        lambda: f"split_part({value()}, {maker.pick(chr(39) + ',' + chr(39), chr(39) + '-' + chr(39))}, "
        f"{maker.pick(1, 2, 3, -1)})",
        lambda: f"repeat({value()}, {maker.number(-1, 3)})",
        lambda: f"concat({value()}, {part()}, {name}.i)",
        lambda: f"concat_ws('-', {value()}, {part()}, {name}.i, NULL)",
        lambda: f"({value()} || {part()})",
        lambda: f"({value()} || {name}.i)",
        lambda: f"starts_with({value()}, {part()})",
        lambda: f"ascii({value()})",
        lambda: f"chr({maker.pick(65, 252, 26481)})",
        lambda: f"md5({value()})",
        lambda: f"overlay({value()} PLACING 'XY' FROM {positive()} FOR {maker.number(0, 2)})",
        lambda: f"to_hex({maker.pick(255, name + '.n')})",
        lambda: f"coalesce({value()}, 'none')",
        lambda: f"nullif({value()}, '')",
        lambda: f"greatest({value()}, {value()})",
        lambda: f"({value()} < {value()})",
        lambda: f"({value()} = {part()})",
        lambda: f"cast({name}.f AS text) || {value()}",
    )
    return f"SELECT {name}.n, {', '.join(one() for _ in range(maker.number(1, 3)))} FROM {text}"


def patterns(maker):
    """LIKE, ILIKE, SIMILAR TO and regular expressions."""
    text, scope = maker.table(("ta", "tb", "tc"))
    name = text.split()[-1]
    value = maker.pick(f"{name}.s", f"{name}.s", f"{name}.w")
    regex = maker.pick(
        "'^a'", "'b$'", "'a|b'", "'[0-9]+'", "'^[A-Z]'", "'.'", "'a{2,3}'", "'(a)(b)'", "'^$'", "'\\d'", "'\\s'", "'ü'"
    )
    similar = maker.pick("'a%'", "'(a|b)%'", "'[ab]+'", "'_b'", "'%(b|c)'", "'a*'", "'[0-9]{1,3}'")
    condition = maker.pick(
        lambda: f"{value} {maker.pick('', 'NOT ')}{maker.pick('LIKE', 'ILIKE')} {maker.pattern()}",
        lambda: f"{value} {maker.pick('', 'NOT ')}SIMILAR TO {similar}",
        lambda: f"{value} {maker.pick('~', '!~', '~*', '!~*')} {regex}",
        lambda: f"{value} LIKE {name}.s",
        lambda: f"{value} LIKE '%' || {name}.s || '%'",
    )
    return maker.pick(
        f"SELECT {name}.n, {condition} FROM {text}",
        f"SELECT {name}.n FROM {text} WHERE {condition}",
        f"SELECT {name}.n FROM {text} WHERE NOT ({condition})",
        f"SELECT {name}.n, regexp_replace({value}, {regex}, '#'{maker.pick('', ', ' + chr(39) + 'g' + chr(39))}) FROM {text}",
        f"SELECT {name}.n, regexp_like({value}, {regex}), regexp_count({value}, {regex}) FROM {text}",
        (
            f"SELECT {name}.n, substring({value} FROM {regex}) FROM {text}"
            if maker.chance(0.3)
            else f"SELECT {name}.n, {condition} FROM {text}"
        ),
    )


def conversions(maker):
    """Values of all types as text."""
    text, _ = maker.table(("ta", "tb", "tc"))
    name = text.split()[-1]
    value = lambda: maker.pick(
        f"{name}.d", f"{name}.z", f"{name}.ts", f"{name}.tf", f"{name}.day", f"{name}.f", f"{name}.y"
    )  # noqa: E731
    number = maker.pick("1.10", "100.00", "0.5", "CAST(2 AS DOUBLE PRECISION)", "1e3", "TIMESTAMP '2024-02-29 12:30:15.250'", "7")
    return maker.pick(
        f"SELECT {name}.n, CAST({value()} AS TEXT), {value()}::text FROM {text}",
        f"SELECT {name}.n, {name}.s || {value()}, {value()} || {name}.s FROM {text}",
        f"SELECT {name}.n, concat({name}.d, '|', {name}.s, '|', {number}), concat_ws('/', {name}.day, {name}.i, {number}) FROM {text}",
        f"SELECT CAST({number} AS TEXT), 'x' || {number}",
        f"SELECT string_agg(CAST({value()} AS TEXT), ',' ORDER BY {name}.n) FROM {text}",
    )
