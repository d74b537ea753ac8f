"""Checks that the statements of a hostile tenant neither crash the server nor block other tenants.

Several connections of one tenant run the statements of hostile.py at the same time. Meanwhile, another tenant
repeatedly runs `SELECT 1`, and the suite samples the resident memory of the server process. The facts contain the
process id (`pid`) and the limits of the server (`time_seconds_max`, `memory_bytes_max`).

The checks run in order. The first ones run the statements, and the others evaluate the measurements. The limits on
measured times are high enough for slow hosts. The details of each check contain the figures.
"""

import contextlib
import datetime
import os
import queue
import re
import threading
import time

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import pyarrow as pa

import hostile
import hostile_statements
import hostile_syntax  # noqa: F401: adds its statements to `hostile`
import rows
from checks import check, equal, main
from flightsql import Refused, client, packed

HEADER = driver.DatabaseOptions.AUTHORIZATION_HEADER.value
# The number of rows of the hostile tenant.
ROWS = 300_000
# The number of statements that the hostile tenant runs at the same time.
CONNECTIONS = 4
# The time for a call of a client. A statement that takes longer fails with a status that `CODES` does not contain.
CALL_SECONDS_MAX = "150"
# The time after `query.time_max` within which a statement must end: the documented value, and the value that the checks
# accept. The driver repeats a statement that the server refuses because the tenant plans too many others.
LATE_SECONDS, LATE_SECONDS_MAX = 2, 100
# The time that `SELECT 1` of another tenant may take: the documented value, and the value that the checks accept.
SERVED_SECONDS, SERVED_SECONDS_MAX = 1, 5
# The allocator keeps this much freed memory per core (see docs/memory.md).
FREED_BYTES_MAX = 256 << 20
# The fraction of a core that an idle server may use, and the time after which the server must be idle.
IDLE_LOAD_MAX, IDLE_SECONDS_MAX = 0.2, 30
# The status codes of errors that a statement may cause, as the driver reports them.
CODES = re.compile(r"\((ResourceExhausted|InvalidArgument|Unimplemented|NotFound|PermissionDenied)\b")
# The maximum length of an error.
ERROR_CHARACTERS_MAX = 4_000
# Text from the engine or from a panic, which must not appear in an error.
LEAKED = re.compile(r"panicked|internal error|ScalarValue|DataFusion error|\bast node\b|\bOk\(|\bSome\(|\w \{ \w+: ", re.IGNORECASE)


class Measurements:
    """The measurements of the threads while the hostile statements run."""

    def __init__(self):
        self.statements = []  # (seconds, bytes of growth, name, end)
        self.served = []  # (seconds, end)
        self.failures = []  # errors of the other tenant
        self.base = 0
        self.samples = []  # (time, resident bytes)
        self.stop = threading.Event()


MEASURED = Measurements()


def connect(facts, caller):
    """Connects with the caller's token in a header."""
    calls = {f"adbc.flight.sql.rpc.timeout_seconds.{name}": CALL_SECONDS_MAX for name in ("fetch", "query", "update")}
    options = {HEADER: f"Bearer {facts['tokens'][caller]}", **calls}
    return dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True)


def resident(facts, line="VmRSS"):
    """Returns the resident memory of the server in bytes, or its peak (`VmHWM`)."""
    with open(f"/proc/{facts['pid']}/status", encoding="utf-8") as file:
        sizes = [int(found.split()[1]) * 1024 for found in file if found.startswith(line)]
    assert sizes, "the server has ended"
    return sizes[0]


def processor_seconds(facts):
    """Returns the processor time that the server has used so far."""
    with open(f"/proc/{facts['pid']}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mib(size):
    return f"{size / (1 << 20):,.0f} MiB"


def samples(first, count):
    """Returns rows of the table `samples` as a table."""
    indexes = range(first, first + count)
    at = pa.array([1_704_067_200_000_000 + index * 1_000_000 for index in indexes], pa.timestamp("us", "UTC"))
    return pa.table({
        "id": [f"acme-{index:06}" for index in indexes],
        "at": at,
        "flag": [index % 2 == 0 for index in indexes],
        "small": pa.array(indexes, pa.int32()),
        "big": pa.array([index * 1_000_000 for index in indexes], pa.int64()),
        "ratio32": pa.array([index / 4 for index in indexes], pa.float32()),
        "ratio": [index / 8 for index in indexes],
        "label": [rows.NAMES[index % len(rows.NAMES)] for index in indexes],
        "day": [datetime.date(2024, 1, 1) + datetime.timedelta(days=index % 366) for index in indexes],
    })


def run(cursor, statement):
    """Runs a statement and reads its whole result, batch by batch."""
    sql, bound = (statement, None) if isinstance(statement, str) else statement
    if isinstance(bound, str):
        bound = [bound] if "$1" in sql else [bound] * sql.count("?")
    elif bound is not None:
        bound = pa.record_batch([bound], names=["0"])
    cursor.execute(sql, bound)
    for _ in cursor.fetch_record_batch():
        pass


def run_hostile(facts, statements):
    """Runs named statements over several connections.

    Returns the error of each one, or None if it returned rows, and a description of the run.
    """
    started = time.monotonic()
    waiting, errors, ended = queue.SimpleQueue(), {}, set()
    for each in statements.items():
        waiting.put(each)

    def work():
        with connect(facts, "reader") as connection:
            while os.path.exists(f"/proc/{facts['pid']}/exe"):
                try:
                    name, statement = waiting.get_nowait()
                except queue.Empty:
                    return
                begin, error = time.monotonic(), None
                try:
                    with connection.cursor() as cursor:
                        run(cursor, statement)
                except Exception as caught:  # noqa: BLE001: the check evaluates the error
                    error = str(caught)
                if not os.path.exists(f"/proc/{facts['pid']}/exe"):
                    ended.add(name)
                end = time.monotonic()
                during = [size for when, size in list(MEASURED.samples) if begin - 0.1 <= when <= end] or [0]
                MEASURED.statements.append((end - begin, max(during) - during[0], name, end))
                errors[name] = error

    threads = [threading.Thread(target=work, name=f"hostile {index}", daemon=True) for index in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = len(statements) - len(errors)
    assert not ended and not missing, f"the server ended while it ran {sorted(ended)}; {missing} statements did not run"
    refused_count = sum(error is not None for error in errors.values())
    return errors, f"{len(errors)} statements in {time.monotonic() - started:.0f} s, {refused_count} of them refused"


def unexpected(name, error):
    """Returns a line for an error that no statement may cause, and an empty list for others."""
    if error is None or (CODES.search(error) and not LEAKED.search(error) and len(error) <= ERROR_CHARACTERS_MAX):
        return []
    return [f"{name}: {error[:300]} ({len(error)} characters)"]


def none_of(problems):
    assert not problems, f"{len(problems)} statements:\n" + "\n".join(sorted(problems))


def slowest():
    """Describes the statements that took the longest, and those during which the memory grew most."""
    by_time = sorted(MEASURED.statements, key=lambda each: -each[0])[:8]
    by_growth = sorted(MEASURED.statements, key=lambda each: -each[1])[:8]
    times = "; ".join(f"{seconds:.1f} s {name}" for seconds, _, name, _ in by_time)
    growths = "; ".join(f"{mib(growth)} {name}" for _, growth, name, _ in by_growth)
    return f"longest: {times}. Growth of the memory, with {CONNECTIONS} statements at a time: {growths}"


@check
def load(facts):
    part = ROWS // 6
    for first in range(0, ROWS, part):
        sink = pa.BufferOutputStream()
        loaded = samples(first, part)
        with pa.ipc.new_stream(sink, loaded.schema) as writer:
            writer.write_table(loaded)
        kind = "application/vnd.apache.arrow.stream"
        receipt = rows.post(facts, "samples", facts["tokens"]["acme"], sink.getvalue().to_pybytes(), kind)
        equal(receipt["accepted"], part, receipt)

    with connect(facts, "reader") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(id) FROM samples")
        equal(cursor.fetchone(), (ROWS,))
    MEASURED.base = resident(facts)

    def ask():
        with connect(facts, "globex") as connection:
            while not MEASURED.stop.is_set():
                begin = time.monotonic()
                try:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT 1")
                        equal(cursor.fetchone(), (1,))
                except Exception as error:  # noqa: BLE001: the check reports the error
                    MEASURED.failures.append(str(error))
                MEASURED.served.append((time.monotonic() - begin, time.monotonic()))
                MEASURED.stop.wait(0.02)

    def sample():
        while not MEASURED.stop.is_set():
            with contextlib.suppress(OSError, AssertionError):
                MEASURED.samples.append((time.monotonic(), resident(facts)))
            MEASURED.stop.wait(0.01)

    for task in (ask, sample):
        threading.Thread(target=task, name=task.__name__, daemon=True).start()
    return f"{ROWS} rows, {mib(MEASURED.base)} resident"


@check
def a_slow_reader_gets_all_rows_or_an_error(facts):
    count = 16_000
    sql = f"SELECT value, repeat('x', 1000 + value % 7) AS s FROM generate_series(1, {count}) AS g(value)"
    readers = []
    for _ in range(CONNECTIONS):
        slow = client(facts, "reader")
        info = slow.info(packed("CommandStatementQuery", _1=sql))
        readers.append((slow, slow.connection.do_get(info.endpoints[0].ticket, slow.options)))
    read = [reader.read_chunk().data.num_rows for _, reader in readers]
    # The readers pause until the time limit has passed.
    time.sleep(facts["time_seconds_max"] + 1)
    outcomes = []
    for first, (_, reader) in zip(read, readers):
        try:
            found = first + reader.read_all().num_rows
            equal(found, count, f"rows of a result without an error; {outcomes}")
            outcomes.append(f"{found} rows")
        except Refused as error:
            assert re.search(hostile.TIME, str(error)), error
            outcomes.append("the error of the time limit")
    return outcomes


@check
def named_limits_refuse_statements(facts):
    errors, figures = run_hostile(facts, {name: statement for name, (statement, _) in hostile.NAMED.items()})
    problems = []
    for name, error in errors.items():
        limit = hostile.NAMED[name][1]
        # A slow host may reach the time limit first.
        if error is None or not re.search(f"{limit}|{hostile.TIME}", error):
            problems.append(f"{name}: expected an error that matches {limit!r}, got {error and error[:300]}")
        problems += unexpected(name, error)
    none_of(problems)
    return figures


@check
def other_statements_return_rows_or_exceed_a_limit(facts):
    errors, figures = run_hostile(facts, hostile.OTHERS)
    none_of([line for name, error in errors.items() for line in unexpected(name, error)])
    return figures


@check
def many_prepared_statements_fit_into_memory(facts):
    errors, figures = run_hostile(facts, {f"kept plan {index}: {sql[:60]}": sql for index, sql in enumerate(hostile_statements.KEPT)})
    none_of([line for name, error in errors.items() for line in unexpected(name, error)])
    return figures


@check
def many_rows_of_parameters_end(facts):
    errors, figures = run_hostile(facts, {f"bound rows {index}": hostile_statements.BOUND_ROWS for index in range(CONNECTIONS)})
    none_of([line for name, error in errors.items() for line in unexpected(name, error)])
    return figures


@check
def no_work_is_left(facts):
    begin = time.monotonic()
    load = 1.0
    while load > IDLE_LOAD_MAX:
        assert time.monotonic() - begin < IDLE_SECONDS_MAX, f"the server still uses {load:.2f} cores after {IDLE_SECONDS_MAX} s"
        before, since = processor_seconds(facts), time.monotonic()
        time.sleep(0.5)
        load = (processor_seconds(facts) - before) / (time.monotonic() - since)
    return f"idle {time.monotonic() - begin:.1f} s after the last statement"


@check
def statements_end_in_time(facts):
    limit = facts["time_seconds_max"] + LATE_SECONDS_MAX
    none_of([f"{name}: {seconds:.1f} s" for seconds, _, name, _ in MEASURED.statements if seconds > limit])
    late = [name for seconds, _, name, _ in MEASURED.statements if seconds > facts["time_seconds_max"] + LATE_SECONDS]
    promised = facts["time_seconds_max"] + LATE_SECONDS
    return f"{len(MEASURED.statements)} statements, {len(late)} of them longer than {promised} s {late}"


@check
def the_other_tenant_is_served(facts):
    slowest_seconds, end = max(MEASURED.served)
    ends = [when for _, when in MEASURED.served]
    late = sum(seconds > SERVED_SECONDS for seconds, _ in MEASURED.served)
    equal(MEASURED.failures[:3], [], f"{len(MEASURED.failures)} errors")
    figures = f"{len(ends)} times SELECT 1, the slowest in {slowest_seconds * 1000:.0f} ms, {late} longer than {SERVED_SECONDS} s"
    during = [name for seconds, _, name, ended in MEASURED.statements if ended - seconds < end and ended > end - slowest_seconds]
    figures += f", while the server ran {during}"
    assert slowest_seconds < SERVED_SECONDS_MAX and time.monotonic() - max(ends) < SERVED_SECONDS_MAX, figures
    return figures


@check
def memory_stays_within_the_limits(facts):
    cores = os.cpu_count()
    documented = MEASURED.base + CONNECTIONS * facts["memory_bytes_max"] + cores * FREED_BYTES_MAX
    limit, peak = documented * 3 // 2, resident(facts, "VmHWM")
    figures = (
        f"{mib(MEASURED.base)} before, {mib(peak)} at the peak; {mib(limit)} allowed: half more than the sum of the "
        f"memory before, {CONNECTIONS} statements of {mib(facts['memory_bytes_max'])}, and {mib(FREED_BYTES_MAX)} of freed "
        f"memory for each of {cores} cores"
    )
    assert peak <= limit, f"{figures}; {slowest()}"
    return figures


@check
def the_server_still_answers(facts):
    MEASURED.stop.set()
    with connect(facts, "reader") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(id) FROM samples")
        equal(cursor.fetchone(), (ROWS,))
    with connect(facts, "globex") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM samples")
        equal(cursor.fetchone(), (0,))
    return slowest()


if __name__ == "__main__":
    main()
