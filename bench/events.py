"""Generates events with many columns as Arrow tables. The events are deterministic for a given seed."""

import numpy as np
import pyarrow as pa

from support import FLOATS, INTS, TENANTS, TEXTS

DAY_US = 86_400_000_000
WORDS = {
    "event_type": ["signaling", "quality", "end"],
    "carrier": ["atlas", "beacon", "cobalt", "delta-voice", "everline", "ferro"],
    "direction": ["inbound", "outbound"],
    "country_from": ["BR", "DE", "ES", "GB", "IN", "JP", "MX", "US"],
    "country_to": ["BR", "DE", "ES", "GB", "IN", "JP", "MX", "US"],
    "edge": ["ashburn", "frankfurt", "sao-paulo", "singapore"],
    "codec": ["opus", "g722", "pcmu"],
}


def table(rows, seed=1, start_us=1_767_225_600_000_000, tenant=None, prefix="e"):
    """Returns `rows` events, spread over one day from `start_us`. They belong to one tenant, or to all tenants in proportion to
    their shares."""
    random = np.random.default_rng(seed)
    count = np.arange(rows)
    data = {}
    names = list(TENANTS)
    owners = [tenant] * rows if tenant else np.array(names)[random.choice(len(names), rows, p=list(TENANTS.values()))]
    data["tenant_id"] = pa.array(owners, pa.string())
    data["event_time"] = pa.array(start_us + (count * DAY_US // rows), pa.timestamp("us", "UTC"))
    data["event_id"] = pa.array([f"{prefix}{seed:04x}-{i:012x}" for i in range(rows)])
    for name in TEXTS:
        if name == "route_id":
            data[name] = pa.array([f"CA{seed:08x}{i // 8:024x}" for i in range(rows)])
        else:
            data[name] = pa.array(np.array(WORDS[name])[random.integers(0, len(WORDS[name]), rows)])
    for name in INTS:
        data[name] = pa.array(random.integers(0, 100_000, rows))
    for name in FLOATS:
        data[name] = pa.array(np.round(random.gamma(2.0, 20.0, rows), 3))
    return pa.table(data)


def ipc(batch_or_table):
    """Encodes a batch or table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch_or_table.schema) as writer:
        writer.write(batch_or_table)
    return sink.getvalue().to_pybytes()
