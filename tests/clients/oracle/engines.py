"""Runs a question in PostgreSQL or Glasshouse, and returns its outcome: rows of comparable values, an error, or a refusal."""

import contextlib
import dataclasses
import datetime
import decimal
import pathlib
import re
import struct
import sys

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager as manager
import psycopg
import pyarrow as pa
from psycopg.adapt import Loader

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "demo/tacosoft"))

import processes  # noqa: E402: the demo is not an installed package
import services  # noqa: E402

EPOCH_DAYS = datetime.date(1970, 1, 1).toordinal()
DAY_MICROS = 86_400_000_000
MONTH_DAYS = 30
# Words that show that an error message is the engine's own.
ENGINE_WORDS = r"cannot plan the statement|Physical|ast node|__"
# The time limit of one question in milliseconds.
QUESTION_MILLIS_MAX = 20_000


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The answer of one engine. `status` is "rows", "error", "refused" (an error names the unsupported construct) or
    "broken" (a bug)."""

    status: str
    rows: tuple = ()
    message: str = ""
    code: str = ""

    def __str__(self):
        return f"{self.status} {list(self.rows)}" if self.status == "rows" else f"{self.status} {self.code} {self.message}"


@dataclasses.dataclass(frozen=True)
class Exact:
    """A value that Python's own types cannot hold, such as a date after the year 9999."""

    kind: str
    value: object


def _interval(months, days, micros):
    """Returns an interval as PostgreSQL compares it: a month has 30 days, and a day 24 hours."""
    return "interval", (months * MONTH_DAYS + days) * DAY_MICROS + micros


def comparable(value):
    """Returns a value as a pair of its class and a value that can be compared and sorted."""
    match value:
        case None:
            return "null", 0
        case bool():
            return "bool", int(value)
        case int() | decimal.Decimal():
            return "number", decimal.Decimal(value)
        case float():
            return "double", value
        case str():
            return "text", value
        case bytes():
            return "bytes", value
        case Exact():
            return value.kind, value.value
        case datetime.time():
            return "clock", value.isoformat()
        case datetime.timedelta():
            return _interval(0, value.days, value.seconds * 1_000_000 + value.microseconds)
        case pa.MonthDayNano():
            return _interval(value.months, value.days, value.nanoseconds // 1000)
        case list() | tuple():
            return "list", tuple(comparable(each) for each in value)
    raise TypeError(f"{type(value)}: {value!r}")


# PostgreSQL ----------------------------------------------------------------------------------------------------------


def _days(text):
    """Converts a date in the form YYYY-MM-DD to the number of days since 1970. The year can be any year, including years BC."""
    year, month, day = (int(part) for part in text.removesuffix(" BC").split("-"))
    year = 1 - year if text.endswith(" BC") else year
    # The calendar repeats after 400 years, which have 146,097 days.
    cycles = (year - 1) // 400
    return datetime.date(year - 400 * cycles, month, day).toordinal() + 146_097 * cycles - EPOCH_DAYS


class _DateLoader(Loader):
    """Reads a date of any year."""

    def load(self, data):
        text = bytes(data).decode()
        return Exact("date", text if text.endswith("infinity") else _days(text))


class _TimeLoader(Loader):
    """Reads a timestamp of any year, in UTC."""

    def load(self, data):
        text = bytes(data).decode()
        if text.endswith("infinity"):
            return Exact("time", text)
        era = " BC" if text.endswith(" BC") else ""
        day, clock = text.removesuffix(" BC").split(" ")
        hours, minutes, seconds = clock.removesuffix("+00").split(":")
        micros = (int(hours) * 60 + int(minutes)) * 60_000_000 + int(decimal.Decimal(seconds) * 1_000_000)
        return Exact("time", _days(day + era) * DAY_MICROS + micros)


class _RealLoader(Loader):
    """Reads a 32-bit float, whose text is the shortest one that identifies it."""

    def load(self, data):
        return struct.unpack("f", struct.pack("f", float(bytes(data))))[0]


class _IntervalLoader(Loader):
    """Reads an interval in the style `postgres_verbose` as months, days and microseconds."""

    def load(self, data):
        words = bytes(data).decode().removeprefix("@ ").split()
        sign = -1 if words[-1:] == ["ago"] else 1
        months = days = micros = 0
        for number, unit in zip(words[::2], words[1::2]):
            match unit.rstrip("s"):
                case "year":
                    months += 12 * int(number)
                case "mon":
                    months += int(number)
                case "day":
                    days += int(number)
                case "hour":
                    micros += int(number) * 3_600_000_000
                case "min":
                    micros += int(number) * 60_000_000
                case "sec":
                    micros += int(decimal.Decimal(number) * 1_000_000)
        return pa.MonthDayNano([sign * months, sign * days, sign * micros * 1000])


class Postgres:
    """A new PostgreSQL server."""

    def __init__(self, stack):
        folder = stack.enter_context(processes.scratch())
        (port,) = processes.free_ports(1)
        service = services.start_postgres(folder, folder, port)
        stack.callback(service.stop)
        # Connect to `postgres`, the database that exists in every new cluster.
        service.is_ready = lambda: _is_ready(port)
        service.wait()
        with services.connect(port, database="postgres") as connection:
            # Text is sorted by its bytes, as in Glasshouse, and `upper` supports all letters.
            connection.execute("CREATE DATABASE oracle TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'")
        self.connection = services.connect(port, database="oracle")
        loaders = {
            "float4": _RealLoader,
            "interval": _IntervalLoader,
            "date": _DateLoader,
            "timestamp": _TimeLoader,
            "timestamptz": _TimeLoader,
        }
        for kind, loader in loaders.items():
            self.connection.adapters.register_loader(kind, loader)
        stack.callback(self.connection.close)
        for setting in (
            "TimeZone = 'UTC'",
            "IntervalStyle = 'postgres_verbose'",
            "jit = off",
            f"statement_timeout = {QUESTION_MILLIS_MAX}",
        ):
            self.connection.execute(f"SET {setting}")

    def ask(self, sql):
        """Runs a question."""
        try:
            rows = self.connection.execute(sql.encode()).fetchall()
        except psycopg.Error as error:
            return Outcome("error", message=str(error).splitlines()[0], code=error.sqlstate or type(error).__name__)
        return Outcome("rows", tuple(tuple(comparable(value) for value in row) for row in rows))


def _is_ready(port):
    with contextlib.suppress(psycopg.OperationalError):
        services.connect(port, database="postgres").close()
        return True
    return False


# For each unit of time, the factor and the divisor that convert it to microseconds.
_UNITS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}


def _values(column):
    """Returns the values of a column. Dates and timestamps can be outside the years that Python supports."""
    if pa.types.is_date32(column.type):
        days = column.cast(pa.int32()).to_pylist()
        return [None if value is None else Exact("date", value) for value in days]
    if pa.types.is_timestamp(column.type):
        factor, divisor = _UNITS[column.type.unit]
        ticks = column.cast(pa.int64()).to_pylist()
        return [None if value is None else Exact("time", value * factor // divisor) for value in ticks]
    return column.to_pylist()


# Glasshouse ----------------------------------------------------------------------------------------------------------


def _status(code, message):
    """Returns the status of an error. A refusal in the engine's own words is a bug, because it names nothing that a user wrote."""
    if code == manager.AdbcStatusCode.NOT_IMPLEMENTED:
        return "broken" if re.search(ENGINE_WORDS, message) else "refused"
    if code == manager.AdbcStatusCode.INVALID_ARGUMENT:
        return "refused" if "unknown function" in message else "error"
    return "broken"


class Glasshouse:
    """A connection to Glasshouse over ADBC."""

    def __init__(self, address, token):
        options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token}"}
        self.connection = dbapi.connect(f"grpc://{address}", db_kwargs=options, autocommit=True)

    def ask(self, sql):
        """Runs a question."""
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(sql)
                table = cursor.fetch_arrow_table()
        except dbapi.Error as error:
            message = " ".join(str(error).split())
            return Outcome(_status(error.status_code, message), message=message, code=error.status_code.name)
        columns = [[comparable(value) for value in _values(column)] for column in table.columns]
        return Outcome("rows", tuple(zip(*columns)))
