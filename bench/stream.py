"""Measures the freshness of a stream: the time from producing a message to Kafka until a tenant's query returns its row.

For ten minutes, 60,000 call events per second go into one table, while eight tenants repeatedly query their events of the
last minute. Prints the latencies of probes and of the tenants' queries, and the server's memory after each tenth of the run.
"""

import random
import statistics
import threading
import time

import confluent_kafka

import calls
import support
import ingest

RATE, SECONDS, SLICE_SECONDS = 60_000, 600, 0.05
TENANTS = [f"tenant-{number}" for number in range(8)]
#: The pause between two queries of a tenant. It imitates a dashboard that shows the tenant's events of the last minute.
ASK_EVERY_SECONDS = 1.0
QUERY = """
SELECT carrier, count(*), avg(jitter_ms), max(duration_ms) FROM call_events
WHERE event_time >= now() - INTERVAL '1 minute' GROUP BY carrier ORDER BY carrier
"""


def stream(binary):
    """Measures the time from producing an event until it is visible in Flight SQL: 60,000 events per second for ten minutes, with
    eight tenants querying."""
    with ingest.broker() as address, support.server(binary, ingest.CALLS.format(root=support.ROOT, broker=address)) as glass:
        tokens = {tenant: glass.token(tenant) for tenant in TENANTS}
        stop, sent, answers, memory = threading.Event(), [0], [[] for _ in TENANTS], []
        threads = [threading.Thread(target=produce, args=(address, stop, sent), daemon=True)]
        threads += [threading.Thread(target=ask, args=(glass, tokens[tenant], stop, times), daemon=True)
                    for tenant, times in zip(TENANTS, answers)]
        started, cpu, waits = time.perf_counter(), glass.cpu_seconds(), []
        for thread in threads:
            thread.start()
        producer = confluent_kafka.Producer({"bootstrap.servers": address, "linger.ms": 5})
        with ingest.cursor_of(glass.flight, tokens[TENANTS[0]]) as cursor:
            while (elapsed := time.perf_counter() - started) < SECONDS:
                waits.append(1e3 * probe(producer, cursor, len(waits)))
                if elapsed > len(memory) * SECONDS / 10:
                    memory.append(glass.memory_mib_now())
        elapsed, cpu = time.perf_counter() - started, glass.cpu_seconds() - cpu
        stop.set()
        for thread in threads:
            thread.join()
    waits.sort()
    asked = sorted(seconds for times in answers for seconds in times)
    print(f"| produce to visible, ms | p50 {statistics.median(waits):,.0f} | p99 {waits[int(len(waits) * 0.99)]:,.0f} "
          f"| max {waits[-1]:,.0f} | {len(waits)} probes at {sent[0] / elapsed:,.0f} events per second for {elapsed:.0f} s |")
    print(f"| queries of eight tenants, ms | p50 {1e3 * statistics.median(asked):,.0f} | p99 {1e3 * asked[int(len(asked) * 0.99)]:,.0f} "
          f"| {len(asked)} queries |")
    print(f"| the server | {cpu / elapsed:.2f} CPUs | memory in MiB after each tenth of the run: {memory} |", flush=True)


def produce(address, stop, sent):
    """Sends the stream in slices. The average rate stays the same even if a slice is late."""
    producer = confluent_kafka.Producer({"bootstrap.servers": address, "linger.ms": 20, "batch.size": 1_000_000,
                                         "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000})
    rng = random.Random(7)
    bodies = []
    for index in range(calls.BODIES):
        _, rest = calls.body(rng)
        bodies.append(calls.block(5, TENANTS[index % len(TENANTS)]) + rest)
    started = time.perf_counter()
    while not stop.is_set():
        now = calls.varint(int(time.time() * 1e3))
        times = calls.varint(1 << 3) + now + calls.varint(2 << 3) + now
        until = int((time.perf_counter() - started) * RATE)
        for index in range(sent[0], until):
            head = b"\x1a\x10%016x\x22\x12CA%016x" % (index, index // calls.EVENTS_A_CALL)
            producer.produce("calls", times + head + bodies[index % calls.BODIES], partition=index // 64 % ingest.PARTITIONS)
        sent[0] = until
        producer.poll(0)
        stop.wait(SLICE_SECONDS)
    producer.flush()


def ask(glass, token, stop, times):
    """Sends the queries of one tenant's dashboard until `stop` is set."""
    with ingest.cursor_of(glass.flight, token) as cursor:
        while not stop.wait(ASK_EVERY_SECONDS):
            started = time.perf_counter()
            cursor.execute(QUERY)
            # The probes have no carrier, which adds one group.
            assert len(cursor.fetchall()) <= len(calls.CARRIERS) + 1
            times.append(time.perf_counter() - started)


def probe(producer, cursor, number):
    """Sends one event and returns the seconds until a query returns it."""
    now = int(time.time() * 1e3)
    started = time.perf_counter()
    event_id = f"probe-{number}"
    message = calls.number(1, now) + calls.block(3, event_id) + calls.block(5, TENANTS[0])
    producer.produce("calls", message, partition=number % ingest.PARTITIONS)
    producer.flush()
    while True:
        cursor.execute(f"SELECT count(*) FROM call_events WHERE event_time >= to_timestamp_millis({now}) AND event_id = '{event_id}'")
        if cursor.fetchone() == (1,):
            return time.perf_counter() - started
