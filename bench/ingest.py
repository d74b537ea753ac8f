"""Measures ingest in events per CPU-second: protobuf from a Kafka topic, and NDJSON compared with the native tables of DuckDB and
ClickHouse. Also measures the memory that the dedupe window uses per id.

Prints one line per benchmark. The CPU time is the user and system time of the server process, from its start to its last commit. It
does not include the producers, the broker or the clients.
"""

import concurrent.futures
import contextlib
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as dbapi
import confluent_kafka
import confluent_kafka.admin as admin
import numpy
import pyarrow

import calls
import events
import support

sys.path.insert(0, str(support.ROOT / "demo/tacosoft"))

import processes  # noqa: E402
import services  # noqa: E402

MESSAGES, PARTITIONS = 1_000_000, 8
LINES, REQUEST_LINES, SENDERS, ROUNDS = 1_000_000, 20_000, 4, 3

#: A dedupe window that is smaller than the stream. Ids of late events are therefore looked up in files.
SMALL_WINDOW = """
[ingest]
dedupe_ids_max = 500000
"""

CALLS = """
[tables.call_events]
proto = "{root}/proto/glasshouse/voice/v1/call_event.proto"
message = "glasshouse.voice.v1.CallEvent"
flatten = ["signaling.pdd", "signaling.call_state", "quality", "dimensions"]
tenant = "account_id"
time = "event_time"
id = "event_id"
times = ["logged_event_time"]
time_unit = "millis"
dimensions_map = "other"

[policy.call_events]

[sources.voice]
kind = "kafka"
brokers = ["{broker}"]
topics = ["calls"]
group = "glasshouse"
table = "call_events"
format = "protobuf"
"""

IDS, REQUEST_IDS = 100_000_000, 1_000_000

WINDOW = """
[ingest]
dedupe_ids_max = 100000000

[tables.ids]
tenant = "tenant"
time = "at"
id = "id"
columns = { tenant = "text", at = "timestamp", id = "text" }
dimensions_map = ""

[policy.ids]
"""


@contextlib.contextmanager
def broker():
    """Runs a Kafka broker with a topic for call events. Yields its address."""
    subprocess.run([support.ROOT / "tests/clients/setup.sh", "kafka"], check=True)
    with tempfile.TemporaryDirectory(prefix="glasshouse-bench-") as folder:
        folder = pathlib.Path(folder)
        port, controller_port = processes.free_ports(2)
        kafka = services.start_kafka(folder, folder, port, controller_port)
        try:
            kafka.wait()
            address = f"127.0.0.1:{port}"
            client = admin.AdminClient({"bootstrap.servers": address})
            client.create_topics([admin.NewTopic("calls", PARTITIONS, 1)])["calls"].result()
            yield address
        finally:
            kafka.process.kill()
            kafka.process.wait()


def fill(address):
    """Sends all messages to the topic."""
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": address, "linger.ms": 100, "batch.size": 1_000_000, "compression.type": "lz4"})
    size = 0
    # The events are a day old, so no event is in the server's future.
    for index, (_, message) in enumerate(calls.messages(MESSAGES, int(time.time() * 1e3) - 86_400_000)):
        size += len(message)
        while True:
            try:
                producer.produce("calls", message, key=b"%d" % (index // calls.EVENTS_A_CALL))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    print(f"  {MESSAGES} messages of {size / MESSAGES:.0f} bytes in {PARTITIONS} partitions", flush=True)


def kafka(binary):
    """Measures events per CPU-second from Kafka to committed, sorted Parquet: protobuf call events, some late and some duplicate."""
    with broker() as address:
        fill(address)
        for _ in range(ROUNDS):
            with support.server(binary, CALLS.format(root=support.ROOT, broker=address) + SMALL_WINDOW) as glass:
                started = time.perf_counter()
                cpu = until_stored(glass)
                wall = time.perf_counter() - started
                print(f"| Kafka protobuf, events per CPU-second | {MESSAGES / cpu:,.0f} | {MESSAGES / wall:,.0f} per second "
                      f"| at most {glass.memory_mib()} MiB of memory | {counts(glass)} |", flush=True)


def events_of(messages):
    """Returns the number of distinct events in this number of messages."""
    return messages - sum(map(calls.is_repeat, range(messages)))


def until_stored(glass):
    """Waits until all events are committed, and returns the server's CPU-seconds so far. Polls a metric, because queries would use
    CPU time."""
    while glass.metric("glasshouse_commit_rows_sum") < events_of(MESSAGES):
        time.sleep(0.05)
    return glass.cpu_seconds()


def counts(glass):
    """Returns the number of events of each tenant, as the tenant's own query returns it."""
    found = {}
    for tenant in sorted(set(calls.TENANTS)):
        with cursor_of(glass.flight, glass.token(tenant)) as cursor:
            cursor.execute("SELECT count(*) FROM call_events")
            found[tenant] = cursor.fetchone()[0]
    assert sum(found.values()) == events_of(MESSAGES), found
    return found


@contextlib.contextmanager
def cursor_of(uri, token):
    options = {adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer " + token}
    with dbapi.connect(uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        yield cursor


def ndjson(binary):
    """Measures rows per CPU-second for the same NDJSON: Glasshouse over HTTP, and the native tables of DuckDB and ClickHouse."""
    with tempfile.TemporaryDirectory(prefix="glasshouse-bench-") as folder:
        path = pathlib.Path(folder, "events.ndjson")
        write_lines(path)
        print(f"  {LINES} lines of {path.stat().st_size / LINES:.0f} bytes", flush=True)
        ways = {"Glasshouse": lambda: ours(binary, path), "DuckDB": lambda: peer(duckdb_insert, path, folder),
                "ClickHouse's engine": lambda: peer(clickhouse_insert, path, folder)}
        rates = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                rates[name].append(LINES / way())
                print(f"  {name}: {rates[name][-1]:,.0f}", flush=True)
    for name in ("DuckDB", "ClickHouse's engine"):
        ratio = statistics.median(a / b for a, b in zip(rates["Glasshouse"], rates[name]))
        print(f"| NDJSON rows per CPU-second | {statistics.median(rates['Glasshouse']):,.0f} "
              f"| {statistics.median(rates[name]):,.0f} ({name}) | ratio {ratio:.2f} |", flush=True)


def write_lines(path):
    """Writes wide events of all tenants, one per line, with times as strings."""
    with open(path, "w") as file:
        for at in range(0, LINES, 100_000):
            table = events.table(100_000, seed=at)
            data = table.to_pydict()
            times = numpy.datetime_as_string(table["event_time"].to_numpy(), unit="us")
            data["event_time"] = [f"{time}Z" for time in times]
            names = list(data)
            file.writelines(json.dumps(dict(zip(names, row)), separators=(",", ":")) + "\n" for row in zip(*data.values()))


def ours(binary, path):
    """Returns the CPU-seconds of a new server that ingests the file in several requests."""
    with support.server(binary) as glass, open(path, "rb") as file:
        token = glass.token(scopes=["ingest"])
        lines = file.readlines()
        bodies = [b"".join(lines[at:at + REQUEST_LINES]) for at in range(0, LINES, REQUEST_LINES)]
        with concurrent.futures.ThreadPoolExecutor(SENDERS) as senders:
            receipts = list(senders.map(lambda body: glass.post(token, body, "application/x-ndjson"), bodies))
        assert sum(receipt["accepted"] for receipt in receipts) == LINES, receipts
        return glass.cpu_seconds()


def peer(insert, path, folder):
    """Returns the CPU-seconds that a new process needs to insert the file, on one thread."""
    command = [sys.executable, __file__, insert.__name__, str(path), folder]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(out.strip().splitlines()[-1])


def duckdb_insert(path, folder):
    import duckdb

    kinds = {"text": "VARCHAR", "timestamp": "TIMESTAMPTZ", "int64": "BIGINT", "float64": "DOUBLE"}
    columns = {name: kinds[kind] for name, kind in support.columns().items()}
    with tempfile.TemporaryDirectory(dir=folder) as database:
        connection = duckdb.connect(f"{database}/events.duckdb")
        connection.execute("SET threads=1; SET TimeZone='UTC'")
        connection.execute(f"CREATE TABLE events ({', '.join(' '.join(column) for column in columns.items())})")
        with print_cpu():
            connection.execute(
                f"INSERT INTO events SELECT * FROM read_json('{path}', format='newline_delimited', columns={columns})")
            connection.execute("CHECKPOINT")
        (count,) = connection.execute("SELECT count(mos) FROM events WHERE event_time IS NOT NULL").fetchone()
        assert count == LINES, count


def clickhouse_insert(path, folder):
    from chdb import session

    kinds = {"text": "String", "timestamp": "DateTime64(6, 'UTC')", "int64": "Int64", "float64": "Float64"}
    low = {name: "LowCardinality(String)" for name in ["tenant_id", *support.TEXTS] if name != "route_id"}
    columns = ", ".join(f"{name} {low.get(name, kinds[kind])}" for name, kind in support.columns().items())
    # The columns are declared instead of inferred from the file. Quotes are doubled inside the SQL string.
    read = ", ".join(f"{name} {kinds[kind]}" for name, kind in support.columns().items()).replace("'", "''")
    with tempfile.TemporaryDirectory(dir=folder) as database:
        engine = session.Session(f"{database}/clickhouse")
        engine.query("CREATE DATABASE bench ENGINE = Atomic")
        engine.query("USE bench")
        engine.query(f"CREATE TABLE events ({columns}) ENGINE = MergeTree ORDER BY (tenant_id, event_time)")
        with print_cpu():
            engine.query(f"INSERT INTO events SELECT * FROM file('{path}', JSONEachRow, '{read}') SETTINGS max_threads=1, "
                         "max_insert_threads=1, input_format_parallel_parsing=0, date_time_input_format='best_effort'")
        count = int(str(engine.query("SELECT count(mos) FROM events WHERE event_time > 0", "TSV")))
        assert count == LINES, count


def window(binary):
    """Measures the memory that a dedupe window of 100 million ids uses in the server."""
    with support.server(binary, WINDOW) as glass:
        token = glass.token("big")
        send_ids(glass, token, 0)
        before = glass.memory_mib_now()
        for at in range(1, IDS // REQUEST_IDS):
            send_ids(glass, token, at)
        repeat = send_ids(glass, token, 1)
        assert repeat["duplicate"] == REQUEST_IDS, repeat
        grown = glass.memory_mib_now() - before
        print(f"| a window of {IDS:,} ids | {grown} MiB more than with the first {REQUEST_IDS:,}, {grown * 2**20 / (IDS - REQUEST_IDS):.1f} bytes per id "
              f"| at most {glass.memory_mib()} MiB of memory |", flush=True)


def send_ids(glass, token, at):
    """Sends a million events that contain little more than their ids."""
    digits = numpy.frombuffer(numpy.arange(at * REQUEST_IDS, (at + 1) * REQUEST_IDS, dtype=">u8").tobytes().hex().encode(), "u1")
    offsets = numpy.arange(0, 16 * REQUEST_IDS + 1, 16, dtype="i4")
    ids = pyarrow.StringArray.from_buffers(REQUEST_IDS, pyarrow.py_buffer(offsets), pyarrow.py_buffer(digits))
    times = numpy.full(REQUEST_IDS, 1_767_225_600_000_000 + at, "i8").view("M8[us]")
    table = pyarrow.table({"at": pyarrow.array(times, pyarrow.timestamp("us", "UTC")), "id": ids})
    return glass.post(token, events.ipc(table), "application/vnd.apache.arrow.stream", "ids")


@contextlib.contextmanager
def print_cpu():
    """Prints the CPU-seconds of the `with` block, which contains the insert but not the start of the engine."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, flush=True)


if __name__ == "__main__":
    _, name, path, folder = sys.argv
    {"duckdb_insert": duckdb_insert, "clickhouse_insert": clickhouse_insert}[name](path, folder)
