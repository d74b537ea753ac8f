"""Questions about dates, timestamps, intervals and time zones."""

# In PostgreSQL, AT TIME ZONE returns local time, so this placeholder is removed. In Glasshouse, it is replaced by the function
# that returns local time.
LOCAL_TIME = "LOCAL_TIME"
PARTS = (
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "quarter",
    "week",
    "dow",
    "isodow",
    "doy",
    "isoyear",
    "epoch",
    "century",
    "decade",
    "millennium",
    "milliseconds",
    "microseconds",
)
TRUNCS = (
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
)
INTERVALS = (
    "1 day",
    "1 month",
    "-1 month",
    "1 year",
    "36 hours",
    "90 minutes",
    "1 month 2 days 3 hours",
    "0.5 hours",
    "1 week",
    "-1 second",
    "13 months",
)
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Tokyo", "UTC", "Australia/Lord_Howe", "America/St_Johns")


def local_time(moment, zone):
    """Returns the local time of an instant."""
    return f"{LOCAL_TIME}({moment} AT TIME ZONE '{zone}')"


def _moment(maker, name):
    return maker.pick(f"{name}.ts", f"{name}.ts", f"{name}.tf", "TIMESTAMP '2024-02-29 12:34:56.789'")


def _day(maker, name):
    return maker.pick(f"{name}.day", f"{name}.day", f"{name}.far", "DATE '2024-02-29'")


def _table(maker):
    text, _ = maker.table(("ta", "tb", "tc"))
    return text, text.split()[-1]


def parts(maker):
    """extract, date_part and date_trunc."""
    text, name = _table(maker)
    maker.is_inexact = True
    day_parts = [part for part in PARTS if part not in ("hour", "minute", "second", "milliseconds", "microseconds")]
    one = lambda: maker.pick(  # noqa: E731
        lambda: f"extract({maker.pick(*PARTS)} FROM {_moment(maker, name)})",
        lambda: f"extract({maker.pick(*day_parts)} FROM {_day(maker, name)})",
        lambda: f"date_part('{maker.pick(*PARTS)}', {_moment(maker, name)})",
        lambda: f"date_trunc('{maker.pick(*TRUNCS)}', {_moment(maker, name)})",
        lambda: f"date_trunc('{maker.pick(*TRUNCS[5:])}', {_day(maker, name)})",
    )
    return maker.pick(
        lambda: f"SELECT {name}.n, {one()}, {one()} FROM {text}",
        lambda: f"SELECT date_trunc('{maker.pick(*TRUNCS)}', {name}.ts) AS g, count(*) FROM {text} GROUP BY 1",
        lambda: f"SELECT extract({maker.pick('year', 'month', 'dow', 'hour')} FROM {name}.ts) AS g, count(*) FROM {text} "
        f"GROUP BY g",
        lambda: f"SELECT {name}.n FROM {text} WHERE date_trunc('{maker.pick('day', 'month', 'year')}', {name}.ts) "
        f"{maker.pick('=', '<', '>=')} TIMESTAMP '2024-01-01 00:00:00'",
    )


def arithmetic(maker):
    """Arithmetic and comparisons of dates, timestamps and intervals."""
    text, name = _table(maker)
    interval = lambda: f"INTERVAL '{maker.pick(*INTERVALS)}'"  # noqa: E731
    one = lambda: maker.pick(  # noqa: E731
        lambda: f"{name}.ts {maker.pick('+', '-')} {interval()}",
        lambda: f"{name}.day {maker.pick('+', '-')} {interval()}",
        lambda: f"{name}.day {maker.pick('+', '-')} {maker.number(0, 400)}",
        lambda: f"{name}.far {maker.pick('+', '-')} {maker.number(0, 400)}",
        lambda: f"{name}.tf {maker.pick('+', '-')} {interval()}",
        lambda: f"{name}.day - {maker.pick(name + '.far', 'DATE ' + chr(39) + '2024-02-29' + chr(39))}",
        lambda: f"{name}.ts - TIMESTAMP '2024-02-29 12:00:00'",
        lambda: f"{name}.ts - {name}.day",
        lambda: f"extract({maker.pick('day', 'hour', 'minute', 'epoch')} FROM {name}.ts - TIMESTAMP '2024-02-28 12:00:00')",
        lambda: f"{maker.number(-2, 5)} * {interval()}",
        lambda: f"{interval()} {maker.pick('+', '-')} {interval()}",
        lambda: f"{name}.ts + {name}.k * INTERVAL '1 day'",
        lambda: f"{name}.day + {name}.k",
        lambda: f"CAST({name}.ts AS DATE) {maker.pick('=', '<', '>')} {name}.day",
        lambda: f"{name}.ts {maker.pick('=', '<', '>=')} {name}.day",
        lambda: f"{name}.ts BETWEEN {name}.day AND {name}.day + INTERVAL '1 month'",
        lambda: f"{_moment(maker, name)} {maker.pick('=', '<', '>=')} {_moment(maker, name)}",
        lambda: f"greatest({_moment(maker, name)}, {_moment(maker, name)})",
        lambda: f"coalesce({name}.tf, {name}.ts)",
        lambda: f"make_date(2024, {maker.number(1, 13)}, {maker.number(1, 31)})",
        lambda: f"age({name}.ts, TIMESTAMP '2023-01-31 10:00:00')",
        lambda: f"date_bin(INTERVAL '{maker.pick('15 minutes', '1 hour', '7 days')}', {name}.ts, TIMESTAMP '2001-01-01 "
        f"00:00:00')",
        lambda: f"to_timestamp({maker.pick('0', '1700000000', '-1', name + '.b')})",
        lambda: f"CAST({_moment(maker, name)} AS DATE)",
        lambda: f"CAST({_day(maker, name)} AS TIMESTAMP)",
        lambda: f"{interval()} {maker.pick('=', '<', '>')} {interval()}",
        lambda: f"extract({maker.pick('year', 'month', 'day', 'hour', 'epoch')} FROM {interval()})",
    )
    return maker.pick(
        lambda: f"SELECT {name}.n, {one()}, {one()} FROM {text}",
        lambda: f"SELECT {name}.n, {one()} FROM {text} WHERE {name}.ts > TIMESTAMP '2024-01-01 00:00:00' - {interval()}",
        lambda: f"SELECT {name}.n FROM {text} WHERE {name}.far {maker.pick('<', '>', '=', '<=')} DATE "
        f"'{maker.pick('9999-12-31', '0001-01-01', '1970-01-01', '2024-02-29')}'",
        lambda: f"SELECT min({name}.tf), max({name}.tf), min({name}.far), max({name}.far), max({name}.ts) - min({name}.ts) "
        f"FROM {text}",
    )


def zones(maker):
    """AT TIME ZONE, and local time around the start and end of summer time."""
    text, name = _table(maker)
    zone = maker.pick(*ZONES)
    moment = maker.pick(f"{name}.ts", f"{name}.ts", f"{name}.tf")
    local = local_time(moment, zone)
    one = lambda: maker.pick(  # noqa: E731
        lambda: f"extract({maker.pick('hour', 'day', 'month', 'year', 'minute', 'dow')} FROM {local})",
        lambda: f"CAST({local} AS DATE)",
        lambda: f"CAST(date_trunc('{maker.pick('day', 'hour', 'month', 'week')}', {local}) AS TIMESTAMP)",
        lambda: f"to_char({local}, 'YYYY-MM-DD HH24:MI:SS')",
        lambda: f"CAST({local} AS TIMESTAMP)",
        lambda: f"(CAST({name}.day AS TIMESTAMP) AT TIME ZONE '{zone}')",
        lambda: f"(TIMESTAMP '{maker.pick('2024-03-31 12:00:00', '2024-07-01 00:00:00', '2024-12-31 23:59:59')}' AT TIME ZONE "
        f"'{zone}')",
    )
    maker.is_inexact = True
    return maker.pick(
        lambda: f"SELECT {name}.n, {one()}, {one()} FROM {text}",
        lambda: f"SELECT CAST({local} AS DATE) AS g, count(*) FROM {text} GROUP BY 1",
        lambda: (
            f"SELECT {name}.n FROM {text} WHERE {local} >= TIMESTAMP '2024-01-01 00:00:00'"
            if maker.chance(0.2)
            else f"SELECT {name}.n, {one()} FROM {text}"
        ),
    )


def formats(maker):
    """to_char, to_date and to_timestamp with PostgreSQL's patterns."""
    text, name = _table(maker)
    pattern = maker.pick(
        "YYYY-MM",
        "YYYY-MM-DD",
        "HH24:MI:SS",
        "DD Mon YYYY",
        "FMMonth",
        "Day",
        'YYYY-MM-DD"T"HH24:MI:SS.MS',
        "Q",
        "IYYY-IW",
        "DDD",
        "HH12:MI AM",
        "YY",
        "Dy",
        "US",
        "D",
        "ID",
        "WW",
        "MM/DD",
        "mon",
        "MONTH",
        "J",
        "CC",
        "FMDD.FMMM.YYYY",
    )
    return maker.pick(
        f"SELECT {name}.n, to_char({_moment(maker, name)}, '{pattern}') FROM {text}",
        f"SELECT {name}.n, to_char({_moment(maker, name)}, '{pattern}') FROM {text}",
        f"SELECT to_char({name}.ts, '{maker.pick('YYYY-MM', 'YYYY', 'Q')}') AS g, count(*) FROM {text} GROUP BY 1",
        f"SELECT {name}.n, to_char({_day(maker, name)}, '{maker.pick('YYYY-MM-DD', 'DD.MM.YYYY', 'Mon YYYY')}') FROM {text}",
        f"SELECT to_date('{maker.pick('2024-02-29', '2024-01-31')}', 'YYYY-MM-DD')",
        "SELECT to_timestamp('2024-02-29 10:11:12', 'YYYY-MM-DD HH24:MI:SS')",
    )
