"""A small Flight SQL client over pyarrow.flight: commands packed by hand, so that every message can be looked at.

pyarrow has no Flight SQL of its own. Field numbers are those of FlightSql.proto.
"""

import pyarrow as pa
import pyarrow.flight as flight

TYPE = "type.googleapis.com/arrow.flight.protocol.sql."
# What a client accepts that was never configured: gRPC's default.
DEFAULT_MESSAGE_BYTES_MAX = 4 << 20

Unauthenticated = flight.FlightUnauthenticatedError
Forbidden = flight.FlightUnauthorizedError
# Any refusal by the server.
Refused = (flight.FlightError, pa.ArrowException)


def varint(number):
    """A protobuf varint."""
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(**fields):
    """A protobuf message from fields named `_1`, `_2` …: str, bytes, bool, int, or a list of these."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, int):  # bool as well
                out += varint(number << 3) + varint(item)
            else:
                item = item.encode() if isinstance(item, str) else bytes(item)
                out += varint(number << 3 | 2) + varint(len(item)) + item
    return out


def fields(data):
    """The fields of a protobuf message: {number: [values]}."""
    found, at = {}, 0

    def read_varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    data = bytes(data)
    while at < len(data):
        key = read_varint()
        if key & 7 == 0:
            value = read_varint()
        elif key & 7 == 2:
            size = read_varint()
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {key & 7}")
        found.setdefault(key >> 3, []).append(value)
    return found


def packed(name, **numbered):
    """An `Any` of a Flight SQL message."""
    return message(_1=TYPE + name, _2=message(**numbered))


def unpacked(data):
    """The name and the fields of an `Any`."""
    found = fields(data)
    return found[1][0].decode().removeprefix(TYPE), fields(found.get(2, [b""])[0])


def schema_of(ipc):
    """The schema in an IPC-encapsulated message; None for no bytes."""
    return pa.ipc.read_schema(pa.py_buffer(ipc)) if ipc else None


class Client:
    """One connection with one token, or none."""

    def __init__(self, facts, token=None, headers=(), message_bytes_max=None):
        limit = [] if message_bytes_max is None else [("grpc.max_receive_message_length", message_bytes_max)]
        self.connection = flight.FlightClient(f"grpc://{facts['flight']}", generic_options=limit)
        if token is not None:
            headers = [(b"authorization", b"Bearer " + token.encode()), *headers]
        self.options = flight.FlightCallOptions(headers=list(headers), timeout=120)

    def info(self, command):
        """GetFlightInfo of a packed command."""
        return self.connection.get_flight_info(flight.FlightDescriptor.for_command(command), self.options)

    def schema(self, command):
        """GetSchema of a packed command."""
        return self.connection.get_schema(flight.FlightDescriptor.for_command(command), self.options).schema

    def get(self, ticket):
        """DoGet as a table; its schema is the stream's."""
        return self.connection.do_get(ticket, self.options).read_all()

    def run(self, command):
        """GetFlightInfo and DoGet of the one endpoint."""
        info = self.info(command)
        assert len(info.endpoints) == 1, info.endpoints
        return self.get(info.endpoints[0].ticket)

    def query(self, sql):
        """A statement's whole answer."""
        return self.run(packed("CommandStatementQuery", _1=sql))

    def action(self, name, body=b""):
        """The bodies of an action's results."""
        return [bytes(result.body) for result in self.connection.do_action(flight.Action(name, body), self.options)]

    def prepare(self, sql):
        """Prepares a statement."""
        body = packed("ActionCreatePreparedStatementRequest", _1=sql)
        name, found = unpacked(self.action("CreatePreparedStatement", body)[0])
        assert name == "ActionCreatePreparedStatementResult", name
        return Prepared(self, found)


class Prepared:
    """A prepared statement; `handle` can be set to that of another."""

    def __init__(self, client, found):
        self.client = client
        self.handle = found[1][0]
        self.dataset_schema = schema_of(found.get(2, [b""])[0])
        self.parameter_schema = schema_of(found.get(3, [b""])[0])
        self.is_update = found.get(4)

    def bind(self, batch):
        """DoPut of parameters. Returns the updated handles, one per PutResult."""
        descriptor = flight.FlightDescriptor.for_command(packed("CommandPreparedStatementQuery", _1=self.handle))
        writer, reader = self.client.connection.do_put(descriptor, batch.schema, self.client.options)
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            handles = []
            while (result := reader.read()) is not None:
                handles.append(fields(result.to_pybytes()).get(1, [None])[0])
        return handles

    def command(self):
        """The packed command that runs it."""
        return packed("CommandPreparedStatementQuery", _1=self.handle)

    def run(self):
        """Its whole answer."""
        return self.client.run(self.command())

    def close(self):
        """ClosePreparedStatement."""
        self.client.action("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", _1=self.handle))


def client(facts, caller="acme", **kwargs):
    """A connection with the caller's token."""
    return Client(facts, facts["tokens"][caller], **kwargs)


# One of each metadata command.
COMMANDS = {
    "catalogs": packed("CommandGetCatalogs"),
    "schemas": packed("CommandGetDbSchemas"),
    "tables": packed("CommandGetTables"),
    "tables with schemas": packed("CommandGetTables", _5=True),
    "table types": packed("CommandGetTableTypes"),
    "primary keys": packed("CommandGetPrimaryKeys", _3="samples"),
    "exported keys": packed("CommandGetExportedKeys", _3="samples"),
    "imported keys": packed("CommandGetImportedKeys", _3="samples"),
    "cross reference": packed("CommandGetCrossReference", _3="samples", _6="net_flow"),
    "type info": packed("CommandGetXdbcTypeInfo"),
    "sql info": packed("CommandGetSqlInfo"),
}
