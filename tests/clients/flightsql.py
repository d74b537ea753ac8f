"""A small Flight SQL client over pyarrow.flight. It encodes commands itself, so tests can inspect every message.

pyarrow has no Flight SQL client. The field numbers are those of FlightSql.proto.
"""

import pyarrow as pa
import pyarrow.flight as flight

TYPE = "type.googleapis.com/arrow.flight.protocol.sql."
# The size of the largest message that a gRPC client accepts by default.
DEFAULT_MESSAGE_BYTES_MAX = 4 << 20

Unauthenticated = flight.FlightUnauthenticatedError
Forbidden = flight.FlightUnauthorizedError
# The errors that pyarrow raises if the server refuses a request.
Refused = (flight.FlightError, pa.ArrowException)


def varint(number):
    """Encodes a number as a protobuf varint."""
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(**fields):
    """Encodes a protobuf message from fields named `_1`, `_2` …, each a str, bytes, bool, int, or a list of these."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, int):  # includes bool
                out += varint(number << 3) + varint(item)
            else:
                item = item.encode() if isinstance(item, str) else bytes(item)
                out += varint(number << 3 | 2) + varint(len(item)) + item
    return out


def fields(data):
    """Decodes the fields of a protobuf message: {number: [values]}."""
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
    """Encodes a Flight SQL message in an `Any`."""
    return message(_1=TYPE + name, _2=message(**numbered))


def unpacked(data):
    """Decodes an `Any` into the name of its message and its fields."""
    found = fields(data)
    return found[1][0].decode().removeprefix(TYPE), fields(found.get(2, [b""])[0])


def schema_of(ipc):
    """Decodes the schema in an encapsulated IPC message. Returns `None` if there are no bytes."""
    return pa.ipc.read_schema(pa.py_buffer(ipc)) if ipc else None


class Client:
    """A connection, with or without a token."""

    def __init__(self, facts, token=None, headers=(), message_bytes_max=None):
        limit = [] if message_bytes_max is None else [("grpc.max_receive_message_length", message_bytes_max)]
        self.connection = flight.FlightClient(f"grpc://{facts['flight']}", generic_options=limit)
        if token is not None:
            headers = [(b"authorization", b"Bearer " + token.encode()), *headers]
        self.options = flight.FlightCallOptions(headers=list(headers), timeout=120)

    def info(self, command):
        """Calls GetFlightInfo with a packed command."""
        return self.connection.get_flight_info(flight.FlightDescriptor.for_command(command), self.options)

    def schema(self, command):
        """Calls GetSchema with a packed command."""
        return self.connection.get_schema(flight.FlightDescriptor.for_command(command), self.options).schema

    def get(self, ticket):
        """Calls DoGet and returns a table with the schema of the stream."""
        return self.connection.do_get(ticket, self.options).read_all()

    def run(self, command):
        """Calls GetFlightInfo, and DoGet for its only endpoint."""
        info = self.info(command)
        assert len(info.endpoints) == 1, info.endpoints
        return self.get(info.endpoints[0].ticket)

    def query(self, sql):
        """Runs a statement and returns its whole result."""
        return self.run(packed("CommandStatementQuery", _1=sql))

    def action(self, name, body=b""):
        """Calls an action and returns the bodies of its results."""
        return [bytes(result.body) for result in self.connection.do_action(flight.Action(name, body), self.options)]

    def prepare(self, sql):
        """Prepares a statement."""
        body = packed("ActionCreatePreparedStatementRequest", _1=sql)
        name, found = unpacked(self.action("CreatePreparedStatement", body)[0])
        assert name == "ActionCreatePreparedStatementResult", name
        return Prepared(self, found)


class Prepared:
    """A prepared statement. Tests may replace its `handle`."""

    def __init__(self, client, found):
        self.client = client
        self.handle = found[1][0]
        self.dataset_schema = schema_of(found.get(2, [b""])[0])
        self.parameter_schema = schema_of(found.get(3, [b""])[0])
        self.is_update = found.get(4)

    def bind(self, batch):
        """Binds parameters with DoPut. Returns the updated handles, one per PutResult."""
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
        """Returns the packed command that runs the statement."""
        return packed("CommandPreparedStatementQuery", _1=self.handle)

    def run(self):
        """Runs the statement and returns its whole result."""
        return self.client.run(self.command())

    def close(self):
        """Calls ClosePreparedStatement."""
        self.client.action("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", _1=self.handle))


def client(facts, caller="acme", **kwargs):
    """Connects with the caller's token."""
    return Client(facts, facts["tokens"][caller], **kwargs)


# One command of each metadata type.
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
