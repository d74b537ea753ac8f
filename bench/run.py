"""Benchmarks Glasshouse and other systems alternately, and prints a table of medians and ratios.

    python bench/run.py target/release/glasshouse [transfer] [select1] [freshness] [kafka] [ndjson] [window] [stream]
"""

import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as dbapi
import pyarrow.flight as flight
import pyarrow.parquet as parquet

import events
import support
import ingest
import stream

ROWS = 2_000_000
CHUNK = 50_000
ROUNDS = 7
RATE, SECONDS, REQUEST_EVENTS, SENDERS = 20_000, 60, 1_000, 48


@contextlib.contextmanager
def cursor_of(uri, token=None):
    """Opens an ADBC cursor. The cursor and its connection are closed while the server is still running."""
    options = {}
    if token:
        options[adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value] = "Bearer " + token
    with dbapi.connect(uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        yield cursor


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def statement(sql):
    """Returns a descriptor with a packed CommandStatementQuery, as Flight SQL clients send it."""
    def field(number, payload):
        size, length = b"", len(payload)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + payload
    kind = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return flight.FlightDescriptor.for_command(field(1, kind) + field(2, field(1, sql.encode())))


def transfer(binary):
    """Fetches two million wide rows with DoGet and the same client, from the lake and from the memory of a bare Flight server."""
    with support.server(binary) as glass, tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
        token = glass.token("big")
        rows = events.table(ROWS, tenant="big")
        started, cpu = time.perf_counter(), glass.cpu_seconds()
        for at in range(0, ROWS, CHUNK):
            glass.post(token, events.ipc(rows.slice(at, CHUNK)), "application/vnd.apache.arrow.stream")
        print(f"  loaded {ROWS} rows over HTTP in {time.perf_counter() - started:.1f} s, "
              f"{ROWS / (glass.cpu_seconds() - cpu):,.0f} rows per CPU-second of the server", flush=True)

        ours = flight.connect(glass.flight)
        call = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())])

        def ask():
            info = ours.get_flight_info(statement("select * from events"), call)
            return ours.do_get(info.endpoints[0].ticket, call).read_all()

        table = ask()
        assert table.num_rows == ROWS, table.num_rows
        parquet.write_table(table, copy.name)
        with bare(copy.name) as peer:
            def peer_ask():
                assert peer.do_get(flight.Ticket(b"")).read_all().num_rows == ROWS
            peer_ask()
            pairs = [(timed(ask), timed(peer_ask)) for _ in range(ROUNDS)]
    report("DoGet, 2 M wide rows, rows per second", [ROWS / a for a, _ in pairs], [ROWS / b for _, b in pairs], "bare pyarrow.flight")


@contextlib.contextmanager
def bare(path):
    process = subprocess.Popen([sys.executable, str(support.ROOT / "bench/bare_flight.py"), path], stdout=subprocess.PIPE, text=True)
    try:
        yield flight.connect(f"grpc://127.0.0.1:{process.stdout.readline().strip()}")
    finally:
        process.kill()
        process.wait()


def select1(binary):
    """Measures the p50 of `SELECT 1` over ADBC in milliseconds, alternately for Glasshouse and ROAPI."""
    with support.server(binary) as glass, roapi() as peer_uri:
        def ask(cursor):
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]
        with cursor_of(glass.flight, glass.token("big")) as ours, cursor_of(peer_uri) as peer:
            for _ in range(50):
                ask(ours), ask(peer)
            pairs = [(timed(lambda: ask(ours)), timed(lambda: ask(peer))) for _ in range(500)]
    report("SELECT 1 over ADBC, ms", [1e3 * a for a, _ in pairs], [1e3 * b for _, b in pairs], "ROAPI")


@contextlib.contextmanager
def roapi():
    with tempfile.TemporaryDirectory() as folder:
        parquet.write_table(events.table(10), f"{folder}/t.parquet")
        port = support.free_port()
        process = subprocess.Popen(
            [str(pathlib.Path(sys.executable).with_name("roapi")), "--table", f"t={folder}/t.parquet", "--addr-flight-sql", f"127.0.0.1:{port}",
             "--addr-http", f"127.0.0.1:{support.free_port()}", "--addr-postgres", f"127.0.0.1:{support.free_port()}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            support.wait_for_port(port, process)
            yield f"grpc://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def freshness(binary):
    """Measures the time from POST to visibility in Flight SQL (p50 and p99, in ms), at 20,000 NDJSON events per second for a minute."""
    with support.server(binary) as glass:
        token, stop, sent = glass.token("big"), threading.Event(), [0] * SENDERS
        # A receipt waits for its commit, but the stream must keep its rate. Each of n senders therefore sends every n-th
        # request.
        threads = [threading.Thread(target=sender, args=(glass, token, at, stop, sent), daemon=True) for at in range(SENDERS)]
        started, waits = time.perf_counter(), []
        for thread in threads:
            thread.start()
        with cursor_of(glass.flight, token) as cursor:
            while time.perf_counter() - started < SECONDS:
                waits.append(1e3 * timed(lambda: probe(glass, token, cursor, f"probe-{len(waits)}")))
        elapsed = time.perf_counter() - started
        accepted = sum(sent)
        stop.set()
        for thread in threads:
            thread.join()
        waits.sort()
        print(f"| POST to visible, ms | p50 {statistics.median(waits):.0f} | p99 {waits[int(len(waits) * 0.99)]:.0f} "
              f"| {len(waits)} probes at {accepted / elapsed:,.0f} accepted events per second |", flush=True)


def probe(glass, token, cursor, event_id):
    """Sends one event, and queries until the result contains it."""
    now = int(time.time() * 1e3)
    glass.post(token, json.dumps({"event_id": event_id, "event_time": now, "carrier": "probe"}).encode(), "application/json")
    sql = f"select count(*) from events where event_time >= to_timestamp_millis({now}) and event_id = '{event_id}'"
    while True:
        cursor.execute(sql)
        if cursor.fetchone() == (1,):
            return


def sender(glass, token, at, stop, sent):
    """Sends every n-th request of the stream at its scheduled time, and counts the accepted events."""
    started, number = time.perf_counter(), at
    while not stop.wait(max(0, started + number * REQUEST_EVENTS / RATE - time.perf_counter())):
        sent[at] += glass.post(token, ndjson(number), "application/x-ndjson")["accepted"]
        number += SENDERS


#: A template for one request of live events. Only the number and the time are filled in, because otherwise the sender would become
#: the bottleneck.
LIVE = "".join(
    f'{{"event_id":"live-@NUMBER@-{i}","event_time":@NOW@,"route_id":"CA@NUMBER@{i // 8:08x}","event_type":"quality",'
    f'"carrier":"cobalt","direction":"inbound","country_from":"BR","country_to":"DE","edge":"ashburn","codec":"opus",'
    f'"duration_ms":{i},"packets_sent":{i * 7},"packets_lost":0,"bytes_sent":{i * 911},'
    f'"jitter_ms":{i % 17}.25,"loss_ratio":0.001,"mos":4.2,"round_trip_ms":81.5}}\n'
    for i in range(REQUEST_EVENTS)).encode()


def ndjson(number):
    return LIVE.replace(b"@NUMBER@", b"%08x" % number).replace(b"@NOW@", b"%d" % (time.time() * 1000))


def report(name, ours, theirs, peer):
    """Prints one line with the medians of both systems and the median of the pairwise ratios."""
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    print(f"| {name} | {statistics.median(ours):,.2f} | {statistics.median(theirs):,.2f} ({peer}) | ratio {ratio:.2f} |", flush=True)


BENCHES = {"transfer": transfer, "select1": select1, "freshness": freshness, "kafka": ingest.kafka, "ndjson": ingest.ndjson,
           "window": ingest.window, "stream": stream.stream}

if __name__ == "__main__":
    binary, *names = sys.argv[1:] or sys.exit(__doc__)
    for name in names or BENCHES:
        print(f"{name}: {BENCHES[name].__doc__}", flush=True)
        BENCHES[name](binary)
