"""Generates serialized call events as defined in `proto/glasshouse/voice/v1/call_event.proto`. Each has 20 fields and a map of four
entries.

The messages are deterministic. They are assembled from bytes that are encoded once, because otherwise the sender would become the
bottleneck.
"""

import random
import struct

TENANTS = ["aurora"] * 64 + ["borealis"] * 25 + ["cirrus"] * 8 + ["dune"] * 3
CARRIERS = ["atlas", "beacon", "cobalt", "delta-voice", "everline", "ferro"]
COUNTRIES = ["BR", "DE", "ES", "GB", "IN", "JP", "MX", "US"]
CODECS = ["opus", "g722", "PCMU"]
EDGES = [("ap-southeast", "singapore"), ("eu-central", "frankfurt"), ("sa-east", "sao-paulo"), ("us-east", "ashburn")]
#: The number of distinct message bodies. Every body is repeated after this number of messages.
BODIES = 20_000
#: The number of events of one call.
EVENTS_A_CALL = 8
#: Every 200th message repeats the message that was sent 1,001 messages earlier.
REPEAT_EVERY, REPEAT_OF = 200, 1_001
#: Every 100th message is two hours late.
LATE_EVERY, LATE_MS = 100, 7_200_000


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def double(field, value):
    return varint(field << 3 | 1) + struct.pack("<d", value)


def block(field, payload):
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def entry(key, value):
    return block(15, block(1, key) + block(2, value))


def body(rng):
    """Returns a random tenant, and the encoded fields that do not depend on time: event type, duration, dimensions and quality."""
    region, edge = rng.choice(EDGES)
    dimensions = (
        block(1, rng.choice(["inbound", "outbound"])) + block(2, rng.choice(CARRIERS)) + block(3, rng.choice(COUNTRIES))
        + block(4, region) + block(5, rng.choice(CODECS)) + block(6, edge) + number(7, rng.choice([180, 200, 486]))
        + entry("sdk", f"voice-2.{rng.randrange(9)}") + entry("network", rng.choice(["wifi", "lte", "wired"]))
        + entry("platform", rng.choice(["ios", "android", "web"])) + entry("campaign", f"c{rng.randrange(50)}")
    )
    quality = (
        double(1, round(rng.gammavariate(2, 6), 3)) + double(2, round(rng.random() / 50, 4))
        + double(3, round(rng.uniform(1, 4.5), 2)) + double(4, round(rng.uniform(20, 300), 1))
    )
    return rng.choice(TENANTS), (
        number(6, 2) + number(7, rng.randrange(90_000)) + block(8, dimensions) + block(17, quality)
    )


def is_repeat(at):
    """Returns true if the message at this index repeats an earlier one."""
    return at % REPEAT_EVERY == 0 and at >= REPEAT_OF


def messages(count, start_ms, seed=1, per_ms=20):
    """Yields `count` pairs of a tenant and a message. Times begin at `start_ms` (milliseconds since 1970), with `per_ms` messages
    per millisecond."""
    rng = random.Random(seed)
    bodies = [(tenant, block(5, tenant) + rest) for tenant, rest in (body(rng) for _ in range(BODIES))]
    for at in range(count):
        index = at - REPEAT_OF if is_repeat(at) else at
        tenant, rest = bodies[index % BODIES]
        time_ms = start_ms + index // per_ms - (LATE_MS if index % LATE_EVERY == 1 else 0)
        head = (
            number(1, time_ms) + number(2, time_ms + index % 40) + block(3, f"{seed:08x}-{index * 2654435761 % 2**32:08x}-{index:014x}")
            + block(4, f"CA{seed:08x}{index // EVENTS_A_CALL:024x}")
        )
        yield tenant, head + rest
