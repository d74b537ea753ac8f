"""Serialised call events as in `proto/glasshouse/voice/v1/call_event.proto`, with 20 fields and a map of four entries.

In: the number of messages. Out: serialised messages, deterministic, each with its own id. Messages are assembled from parts that
are encoded once, so that the sender does not become the bottleneck.
"""

import random
import struct

TENANTS = ["aurora"] * 64 + ["borealis"] * 25 + ["cirrus"] * 8 + ["dune"] * 3
CARRIERS = ["atlas", "beacon", "cobalt", "delta-voice", "everline", "ferro"]
COUNTRIES = ["BR", "DE", "ES", "GB", "IN", "JP", "MX", "US"]
CODECS = ["opus", "g722", "PCMU"]
EDGES = [("ap-southeast", "singapore"), ("eu-central", "frankfurt"), ("sa-east", "sao-paulo"), ("us-east", "ashburn")]
#: The number of distinct message bodies. Bodies repeat only after this many messages.
BODIES = 20_000
#: Events of one call.
EVENTS_A_CALL = 8
#: Every 200th message repeats the one that was sent 1,001 messages before.
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


def body(dice):
    """A random tenant, and the encoded fields that do not depend on time: event type, duration, dimensions and quality."""
    region, edge = dice.choice(EDGES)
    dimensions = (
        block(1, dice.choice(["inbound", "outbound"])) + block(2, dice.choice(CARRIERS)) + block(3, dice.choice(COUNTRIES))
        + block(4, region) + block(5, dice.choice(CODECS)) + block(6, edge) + number(7, dice.choice([180, 200, 486]))
        + entry("sdk", f"voice-2.{dice.randrange(9)}") + entry("network", dice.choice(["wifi", "lte", "wired"]))
        + entry("platform", dice.choice(["ios", "android", "web"])) + entry("campaign", f"c{dice.randrange(50)}")
    )
    quality = (
        double(1, round(dice.gammavariate(2, 6), 3)) + double(2, round(dice.random() / 50, 4))
        + double(3, round(dice.uniform(1, 4.5), 2)) + double(4, round(dice.uniform(20, 300), 1))
    )
    return dice.choice(TENANTS), (
        number(6, 2) + number(7, dice.randrange(90_000)) + block(8, dimensions) + block(17, quality)
    )


def is_repeat(at):
    """Whether the message at this index repeats an earlier one."""
    return at % REPEAT_EVERY == 0 and at >= REPEAT_OF


def messages(count, start_ms, seed=1, per_ms=20):
    """Yields (tenant, message) for `count` messages, `per_ms` per millisecond, from `start_ms` on (milliseconds since 1970)."""
    dice = random.Random(seed)
    bodies = [(tenant, block(5, tenant) + rest) for tenant, rest in (body(dice) for _ in range(BODIES))]
    for at in range(count):
        index = at - REPEAT_OF if is_repeat(at) else at
        tenant, rest = bodies[index % BODIES]
        time_ms = start_ms + index // per_ms - (LATE_MS if index % LATE_EVERY == 1 else 0)
        head = (
            number(1, time_ms) + number(2, time_ms + index % 40) + block(3, f"{seed:08x}-{index * 2654435761 % 2**32:08x}-{index:014x}")
            + block(4, f"CA{seed:08x}{index // EVENTS_A_CALL:024x}")
        )
        yield tenant, head + rest
