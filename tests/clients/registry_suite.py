"""Sends messages that Confluent's own serializers write: Avro with two schema versions, and protobuf with a nested message.

The facts contain the addresses of Kafka and the schema registry. The checks depend on each other and run in order.
"""

import base64
import collections
import datetime
import decimal
import time
import urllib.request
import uuid

import deltalake
from checks import check, equal, main
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# The time limit for a message to get from its topic into the table.
STORED_SECONDS_MAX = 120

UTC = datetime.timezone.utc
MOMENT = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
KEY = uuid.UUID("00010203-0405-0607-0809-0a0b0c0d0e0f")

AVRO = """{"type": "record", "name": "Sample", "namespace": "tests", "fields": [
  {"name": "tenant", "type": "string"}, {"name": "id", "type": "string"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
  {"name": "flag", "type": ["null", "boolean"]}, {"name": "small", "type": "int"}, {"name": "big", "type": "long"},
  {"name": "ratio32", "type": "float"}, {"name": "ratio", "type": "double"},
  {"name": "label", "type": {"type": "enum", "name": "Label", "symbols": ["low", "high"]}},
  {"name": "day", "type": {"type": "int", "logicalType": "date"}}, {"name": "payload", "type": "bytes"},
  {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3}},
  {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
  {"name": "took", "type": {"type": "int", "logicalType": "time-millis"}},
  {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "tags", "type": {"type": "array", "items": "string"}},
  {"name": "rates", "type": {"type": "map", "values": "double"}},
  {"name": "place", "type": {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}}%s]}"""
NOTE = """, {"name": "note", "type": ["null", "string"], "default": null}"""


def sample(name):
    """Returns a value of the Avro schema."""
    return {
        "tenant": "acme", "id": name, "at": MOMENT, "flag": True, "small": -7, "big": 2**63 - 1, "ratio32": 0.25,
        "ratio": 0.1, "label": "high", "day": datetime.date(2026, 3, 1), "payload": b"\x00\xff",
        "price": decimal.Decimal("-123456789012345678901234.567"), "key": KEY, "took": datetime.time(12, 34, 56, 7000),
        "seen": MOMENT, "tags": ["a", "b"], "rates": {"x": 0.5}, "place": {"city": "Lima"},
    }


def order_class():
    """Returns the class of a nested message whose file imports another file."""
    guest = descriptor_pb2.FileDescriptorProto(name="people/guest.proto", package="people", syntax="proto3")
    guest.message_type.add(name="Guest").field.add(name="name", number=1, type=9, label=1)
    orders = descriptor_pb2.FileDescriptorProto(name="orders.proto", package="shop", syntax="proto3")
    orders.dependency.append("people/guest.proto")
    orders.message_type.add(name="Other").field.add(name="id", number=1, type=9, label=1)
    order = orders.message_type.add(name="Shop").nested_type.add(name="Order")
    order.field.add(name="order_id", number=1, type=9, label=1)
    order.field.add(name="total", number=2, type=3, label=1)
    order.field.add(name="guest", number=3, type=11, label=1, type_name=".people.Guest")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(guest)
    pool.Add(orders)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Shop.Order"))


def registry(facts):
    """Returns Confluent's client for the registry."""
    at = facts["registry"]
    return SchemaRegistryClient({"url": at["url"], "basic.auth.user.info": f"{at['user']}:{at['password']}"})


def send(facts, topic, payloads):
    """Sends messages and waits until they are delivered."""
    producer = Producer({"bootstrap.servers": facts["kafka"]})
    for payload in payloads:
        producer.produce(topic, payload)
    equal(producer.flush(30), 0, "undelivered messages")


def avro(facts, schema, names):
    """Encodes samples as Avro messages."""
    write = AvroSerializer(registry(facts), schema)
    more = {"note": "n"} if "note" in schema else {}
    return [write({**sample(name), **more}, SerializationContext("avro", MessageField.VALUE)) for name in names]


def read(facts, table):
    """Reads all rows of a table of the lake."""
    return deltalake.DeltaTable(f"{facts['lake']}/{table}").to_pyarrow_table().to_pylist()


def wait_for(what, is_so):
    """Polls until the condition holds."""
    until = time.monotonic() + STORED_SECONDS_MAX
    while not is_so():
        if time.monotonic() > until:
            raise AssertionError(f"still waiting after {STORED_SECONDS_MAX} s: {what}")
        time.sleep(0.1)


def wait_for_rows(facts, expected):
    """Waits until the table has exactly the rows with these ids."""
    wait_for(f"{expected}", lambda: sorted(row["id"] for row in read(facts, "samples")) == sorted(expected))


def switch(facts, to):
    """Makes the registry `unavailable` or `available`."""
    with urllib.request.urlopen(urllib.request.Request(f"{facts['registry']['url']}/-/{to}", method="PUT")) as answer:
        equal(answer.status, 200)


@check
def avro_of_two_versions_is_stored(facts):
    send(facts, "avro", avro(facts, AVRO % "", ["a1"]) + avro(facts, AVRO % NOTE, ["a2"]))
    wait_for_rows(facts, ["a1", "a2"])


@check
def each_value_equals_what_was_sent(facts):
    rows = {row["id"]: row for row in read(facts, "samples")}
    row = rows["a1"]
    expected = {key: value for key, value in sample("a1").items() if key in row}
    equal({key: row[key] for key in expected}, expected)
    more = {
        "price": "-123456789012345678901234.567", "key": str(KEY), "took": "12:34:56.007",
        "seen": "2026-03-01T12:00:00.123Z", "tags": '["a","b"]', "rates": '{"x":0.5}', "place": '{"city":"Lima"}',
    }
    equal(dict(row["dimensions"]), more)
    equal(dict(rows["a2"]["dimensions"]), {**more, "note": "n"})


@check
def logical_types_are_stored_in_columns_of_their_types(facts):
    write = AvroSerializer(registry(facts), AVRO % "")
    values = [
        {**sample("t1"), "took": datetime.time(23, 59, 59, 999000)},
        {**sample("t2"), "price": decimal.Decimal("0.001"), "took": datetime.time(0), "tags": []},
        # Too many digits for the column, but not for the schema.
        {**sample("t3"), "price": decimal.Decimal("999999999999999999999999999.999")},
    ]
    messages = [write(value, SerializationContext("typed", MessageField.VALUE)) for value in values]
    send(facts, "typed", messages)
    wait_for("the rows", lambda: len(read(facts, "typed")) == 2 and len(read(facts, "typed_quarantine")) == 1)
    rows = {row["id"]: row for row in read(facts, "typed")}
    day = 86_400_000_000
    for name, price, took, tags in (
        ("t1", decimal.Decimal("-123456789012345678901234.567"), day - 1_000, ["a", "b"]), ("t2", decimal.Decimal("0.001"), 0, []),
    ):  # fmt: skip
        found = {key: rows[name][key] for key in ("price", "key", "took", "tags", "rates", "place")}
        expected = {"price": price, "key": str(KEY), "took": took, "tags": tags, "rates": '{"x":0.5}', "place": '{"city":"Lima"}'}
        equal(found, expected)
    (entry,) = read(facts, "typed_quarantine")
    equal((entry["reason"], entry["payload"]), ("out_of_range", messages[2]))


@check
def protobuf_reaches_its_transform_as_json(facts):
    kind = order_class()
    write = ProtobufSerializer(kind, registry(facts), {"use.deprecated.format": False})
    order = kind(order_id="p1", total=2**62)
    order.guest.name = "Ann"
    message = write(order, SerializationContext("orders", MessageField.VALUE))
    equal(message[5:8], b"\x04\x02\x00", "message path: the second message of the file, and the first nested in it")
    send(facts, "orders", [message])
    wait_for_rows(facts, ["a1", "a2", "p1"])
    row = next(row for row in read(facts, "samples") if row["id"] == "p1")
    equal((row["tenant"], row["big"], row["label"]), ("acme", 2**62, "Ann"))


@check
def an_unreachable_registry_loses_nothing(facts):
    messages = avro(facts, AVRO % NOTE.replace("note", "later_note"), ["a3"])
    switch(facts, "unavailable")
    send(facts, "avro", messages)
    failed = 'glasshouse_source_schemas_total{source="avro",outcome="failed"}'

    def has_failed():
        headers = {"Authorization": f"Bearer {facts['tokens']['admin']}"}
        question = urllib.request.Request(f"http://{facts['http']}/metrics", headers=headers)
        with urllib.request.urlopen(question) as page:
            return failed in page.read().decode()

    wait_for("a request to the registry has failed", has_failed)
    equal(sorted(row["id"] for row in read(facts, "samples")), ["a1", "a2", "p1"])
    switch(facts, "available")
    wait_for_rows(facts, ["a1", "a2", "a3", "p1"])


@check
def unreadable_messages_are_quarantined_unchanged(facts):
    good = avro(facts, AVRO % "", ["a4"])[0]
    bad = {
        b"\x00\x00\x01\xe2\x40x": "the schema registry has no schema 123456",
        good[:20]: "the message is truncated",
        b'{"id": "json"}': "does not begin with a schema registry's header",
    }
    send(facts, "avro", [*bad, good])
    wait_for_rows(facts, ["a1", "a2", "a3", "a4", "p1"])
    rows = read(facts, "samples_quarantine")
    equal(collections.Counter(row["payload"] for row in rows), collections.Counter(list(bad)))
    equal({row["format"] for row in rows}, {"avro"})
    for row in rows:
        if bad[row["payload"]] not in row["detail"]:
            raise AssertionError(f"{base64.b64encode(row['payload'])}: {row['detail']}")


if __name__ == "__main__":
    main()
