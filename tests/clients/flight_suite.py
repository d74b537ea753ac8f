"""Sends individual Flight SQL messages over pyarrow.flight, as common clients do, and checks the responses."""

import base64

import pyarrow as pa
import pyarrow.flight as flight

import rows
from checks import check, equal, main, refused
from flightsql import (
    COMMANDS, DEFAULT_MESSAGE_BYTES_MAX, Client, Forbidden, Refused, Unauthenticated, client, fields, message, packed,
)

QUERIES = [
    "SELECT 1",
    "SELECT 1 AS one, 'a' AS a, NULL AS nothing, 1.5 AS number, true AS truth",
    "SELECT * FROM samples",
    "SELECT count(*) FROM samples",
    "SELECT count(*), min(at), max(at), avg(ratio), sum(big) FROM samples",
    "SELECT min(id), max(id) FROM samples",
    "SELECT label, count(*) AS n, approx_distinct(id) FROM samples GROUP BY label ORDER BY n DESC",
    "SELECT date_bin(INTERVAL '1 hour', at) AS hour, count(DISTINCT label) FROM samples GROUP BY 1 ORDER BY 1",
    "SELECT id FROM samples WHERE small > 990 ORDER BY id LIMIT 3",
    "SELECT id FROM samples WHERE false",
    "SELECT a.id, b.label FROM samples a LEFT JOIN samples b ON a.id = b.id AND b.small = 1",
    "SELECT id, row_number() OVER (PARTITION BY label ORDER BY at) FROM samples",
    "SELECT CASE WHEN flag THEN 'y' ELSE NULL END, coalesce(small, 0), CAST(big AS VARCHAR) FROM samples",
    "WITH t AS (SELECT label, sum(ratio) AS r FROM samples GROUP BY label) SELECT max(r) FROM t",
    "SELECT id FROM samples UNION ALL SELECT label FROM samples",
    "SELECT now(), current_date, INTERVAL '1 day', CAST(1.25 AS DECIMAL(10, 2)), date_trunc('day', now())",
    "SELECT make_array(1, 2, 3), named_struct('a', 1), arrow_typeof(1)",
    "SELECT arrow_cast('a', 'LargeUtf8'), arrow_cast('a', 'Utf8View'), arrow_cast('a', 'Dictionary(Int32, Utf8)')",
    "SELECT dimensions FROM samples LIMIT 5",
    "VALUES (1, 'a'), (2, NULL)",
    "SHOW TABLES",
    "SELECT * FROM information_schema.columns",
    "EXPLAIN SELECT count(*) FROM samples",
]


class Silent(flight.ClientAuthHandler):
    """A handshake that carries its credentials only in headers, as JDBC and ODBC do with a token."""

    def authenticate(self, outgoing, incoming):
        outgoing.write(b"")

    def get_token(self):
        return b""


@check
def handshake_with_a_bearer(facts):
    good = client(facts)
    good.connection.authenticate(Silent(), good.options)
    # From now on, the connection sends an empty `auth-token-bin` with each call, which the server must ignore.
    equal(good.query("SELECT 1").num_rows, 1)
    for caller in ("forged", "expired"):
        bad = client(facts, caller)
        error = refused(lambda bad=bad: bad.connection.authenticate(Silent(), bad.options), Unauthenticated)
        assert ".rs" not in str(error) and "panicked" not in str(error), error


@check
def handshake_waits_for_the_client(facts):
    """If the server responded before the client's first message, this process would abort."""
    for attempt in range(50):
        one = client(facts, "forged" if attempt % 2 else "acme")
        try:
            one.connection.authenticate(Silent(), one.options)
            equal(attempt % 2, 0, "a forged token was accepted")
        except Unauthenticated:
            equal(attempt % 2, 1, "a good token was refused")


@check
def handshake_with_a_password(facts):
    plain = Client(facts)
    name, bearer = plain.connection.authenticate_basic_token("anyone", facts["tokens"]["globex"])
    equal(name, b"authorization")
    named = Client(facts, headers=[(name, bearer)])
    equal(named.query("SELECT count(*) AS n FROM samples WHERE id NOT LIKE '%-shared-%'").column("n")[0].as_py(), rows.ROWS["globex"])
    refused(lambda: Client(facts).connection.authenticate_basic_token("anyone", "no token"), Unauthenticated)


@check
def handshake_accepts_unpadded_base64(facts):
    for pad in (True, False):
        for extra in ("u", "us", "use"):  # one of the lengths needs padding
            text = base64.b64encode(f"{extra}:{facts['tokens']['acme']}".encode()).decode()
            text = text if pad else text.rstrip("=")
            plain = Client(facts, headers=[(b"authorization", b"Basic " + text.encode())])
            plain.connection.authenticate(Silent(), plain.options)


@check
def header_scheme_is_case_insensitive(facts):
    for scheme in (b"Bearer ", b"bearer ", b"BEARER "):
        other = Client(facts, headers=[(b"authorization", scheme + facts["tokens"]["acme"].encode())])
        equal(other.query("SELECT 1").num_rows, 1, scheme)


@check
def two_tokens_are_refused(facts):
    pair = [(b"authorization", b"Bearer " + facts["tokens"][caller].encode()) for caller in ("acme", "globex")]
    refused(lambda: Client(facts, headers=pair).query("SELECT 1"), Unauthenticated)


@check
def every_call_needs_a_token(facts):
    ticket = client(facts).info(packed("CommandStatementQuery", _1="SELECT 1")).endpoints[0].ticket
    nobody = Client(facts)
    command = packed("CommandStatementQuery", _1="SELECT 1")
    descriptor = flight.FlightDescriptor.for_command(command)

    def put():
        writer, reader = nobody.connection.do_put(descriptor, pa.schema([("a", pa.int64())]), nobody.options)
        reader.read()
        writer.close()

    def exchange():
        writer, reader = nobody.connection.do_exchange(descriptor, nobody.options)
        reader.read_chunk()
        writer.close()

    for call in (
        lambda: nobody.info(command),
        lambda: nobody.schema(command),
        lambda: nobody.get(ticket),
        lambda: nobody.action("CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", _1="SELECT 1")),
        lambda: nobody.action("CloseSession"),
        lambda: list(nobody.connection.list_flights(options=nobody.options)),
        lambda: list(nobody.connection.list_actions(options=nobody.options)),
        lambda: nobody.connection.authenticate(Silent(), nobody.options),
        put,
        exchange,
    ):
        refused(call, (Unauthenticated, OSError), "unauthenticated")  # pyarrow streams raise OSError


@check
def all_schemas_of_a_query_are_equal(facts):
    """FlightInfo, GetSchema, the prepared statement and the stream have the same schema, including field metadata."""
    one = client(facts)
    for sql in QUERIES:
        command = packed("CommandStatementQuery", _1=sql)
        info = one.info(command)
        stream = one.get(info.endpoints[0].ticket).schema
        prepared = one.prepare(sql)
        for name, schema in {
            "FlightInfo": info.schema, "GetSchema": one.schema(command), "dataset_schema": prepared.dataset_schema,
            "prepared FlightInfo": one.info(prepared.command()).schema, "prepared stream": prepared.run().schema,
        }.items():
            assert schema.equals(stream, check_metadata=False), f"{sql}: {name} {schema} but the stream {stream}"
            for index, field in enumerate(stream):
                equal(schema.field(index).metadata, field.metadata, f"{sql}: {name}, {field.name}")


@check
def all_schemas_of_a_command_are_equal(facts):
    one = client(facts)
    for name, command in COMMANDS.items():
        info = one.info(command)
        stream = one.get(info.endpoints[0].ticket).schema
        equal(info.schema, stream, name)
        equal(one.schema(command), stream, name)


@check
def only_portable_types_are_sent(facts):
    one = client(facts)
    unsafe = (
        pa.types.is_large_string, pa.types.is_large_binary, pa.types.is_dictionary, pa.types.is_decimal256,
        pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_large_list, pa.types.is_float16,
        pa.types.is_fixed_size_binary, pa.types.is_interval,
    )
    for sql in QUERIES:
        for field in one.schema(packed("CommandStatementQuery", _1=sql)):
            assert not any(test(field.type) for test in unsafe), f"{sql}: {field}"


@check
def one_endpoint_without_a_location(facts):
    one = client(facts)
    for command in (packed("CommandStatementQuery", _1="SELECT id FROM samples"), *COMMANDS.values()):
        info = one.info(command)
        equal([endpoint.locations for endpoint in info.endpoints], [[]])


@check
def a_ticket_is_bound_to_its_tenant(facts):
    ticket = client(facts).info(packed("CommandStatementQuery", _1="SELECT count(*) AS n FROM samples")).endpoints[0].ticket
    assert client(facts).get(ticket).column("n")[0].as_py() >= rows.ROWS["acme"]
    assert client(facts).get(ticket).column("n")[0].as_py() >= rows.ROWS["acme"], "a ticket can be used twice"
    error = refused(lambda: client(facts, "globex").get(ticket), Forbidden)
    assert "acme" not in str(error), error


@check
def tampered_tickets_are_refused(facts):
    one = client(facts)
    good = one.info(packed("CommandStatementQuery", _1="SELECT 1")).endpoints[0].ticket.ticket
    for at in range(0, len(good), max(1, len(good) // 40)):
        bad = bytearray(good)
        bad[at] ^= 1
        refused(lambda bad=bad: one.get(flight.Ticket(bytes(bad))), Refused)
    for bad in (b"", b"x", good[:-1], good + b"x", packed("TicketStatementQuery", _1=b""), packed("CommandNothing")):
        refused(lambda bad=bad: one.get(flight.Ticket(bad)), Refused)
    equal(one.query("SELECT 1").num_rows, 1)


@check
def ordered_results_are_flagged(facts):
    one = client(facts)
    info = one.info(packed("CommandStatementQuery", _1="SELECT id FROM samples ORDER BY id DESC"))
    assert info.ordered
    found = one.get(info.endpoints[0].ticket).column(0).to_pylist()
    equal(found, sorted(found, reverse=True))


@check
def zero_rows_have_a_schema(facts):
    found = client(facts, "initech").query("SELECT id, at, small FROM samples")
    equal((found.num_rows, found.schema.names), (0, ["id", "at", "small"]))


@check
def messages_fit_default_clients(facts):
    """A client that accepts messages of 4 MiB can read rows of very different sizes, a row of 3.5 MiB, a filtered view, and sliced
    lists."""
    small = client(facts, message_bytes_max=DEFAULT_MESSAGE_BYTES_MAX)
    skewed = (
        "SELECT a.id, repeat('x', CASE WHEN b.small % 50 = 0 THEN 20000 ELSE 1 END) AS t "
        "FROM samples a, samples b WHERE a.small < 300 AND b.small < 200"
    )
    found = small.query(skewed)
    assert found.num_rows > 40_000 and found.nbytes > 15 << 20, (found.num_rows, found.nbytes)
    long = small.query(f"SELECT repeat('x', {7 << 19}) AS t FROM samples WHERE small < 3")
    equal([len(text) for text in long.column("t").to_pylist()], [7 << 19] * 3)
    viewed = small.query(
        "SELECT arrow_cast(repeat(id, 2000), 'Utf8View') AS t FROM samples WHERE ratio < 1e9 AND small % 100 = 1"
    )
    assert viewed.num_rows > 5
    lists = small.query("SELECT array_agg(id) AS ids, make_array(id, repeat(id, 500)) AS l FROM samples GROUP BY id, label")
    assert lists.num_rows >= rows.ROWS["acme"]


@check
def a_row_over_the_limit_is_reported(facts):
    one = client(facts)
    error = refused(lambda: one.query(f"SELECT repeat('x', {6 << 20})"), Refused, "row|limit|message")
    assert "RESOURCE_EXHAUSTED" in str(error).upper().replace(" ", "_") or "exhausted" in str(error).lower(), error
    equal(one.query("SELECT 1").num_rows, 1)


@check
def only_the_owner_can_cancel(facts):
    one = client(facts)
    info = one.info(packed("CommandStatementQuery", _1="SELECT id FROM samples a"))
    body = message(_1=info.serialize())
    results = one.action("CancelFlightInfo", body)
    equal(len(results), 1)
    foreign = client(facts, "globex")
    try:
        status = fields(foreign.action("CancelFlightInfo", body)[0]).get(1, [0])[0]
        assert status not in (1, 2), "another tenant cancelled it"
    except Refused:
        pass


@check
def unspecified_ingest_is_refused(facts):
    one = client(facts)
    batch = pa.record_batch({"id": ["acme-z"], "at": pa.array([rows.START], pa.timestamp("us", "UTC"))})

    def put(**numbered):
        descriptor = flight.FlightDescriptor.for_command(packed("CommandStatementIngest", **numbered))
        writer, reader = one.connection.do_put(descriptor, batch.schema, one.options)
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            return reader.read()

    options = lambda missing, exists: message(_1=missing, _2=exists)  # noqa: E731
    refused(lambda: put(_2="samples"), Refused)
    refused(lambda: put(_1=options(0, 2), _2="samples"), Refused)
    refused(lambda: put(_1=options(2, 0), _2="samples"), Refused)
    refused(lambda: put(_1=options(2, 2), _2=""), Refused)
    refused(lambda: put(_1=options(2, 2), _2="samples", _3="information_schema"), Refused)
    refused(lambda: put(_1=options(2, 2), _2="samples", _4="elsewhere"), Refused)
    refused(lambda: put(_1=options(2, 2), _2="samples", _5=True), Refused)
    equal(one.query("SELECT id FROM samples WHERE id = 'acme-z'").num_rows, 0)
    # Options 2, 2: fail if the table does not exist, append if it exists.
    result = put(_1=options(2, 2), _2="samples", _3="public", _4="glasshouse")
    equal(fields(result.to_pybytes())[1][0], 1)


@check
def transactions_are_unsupported(facts):
    one = client(facts)
    refused(lambda: one.action("BeginTransaction", packed("ActionBeginTransactionRequest")), Refused, "not|unsupported|unimplemented")


@check
def malformed_messages_get_an_error_status(facts):
    """The server responds to arbitrary bytes with an error status, and then continues to work."""
    one = client(facts)
    for body in (b"", b"\x00", b"\xff" * 40, b"\x0a\x05hello", packed("CommandStatementQuery"), packed("CommandGetTables") + b"\xff",
                 message(_1="type.googleapis.com/arrow.flight.protocol.sql.CommandGetTables", _2=b"\xff\xff"),
                 packed("CommandStatementSubstraitPlan", _1=b"x"), packed("CommandPreparedStatementQuery", _1=b"x"),
                 packed("CommandStatementQuery", _1="SELECT " + "(" * 5_000 + "1" + ")" * 5_000)):
        refused(lambda body=body: one.run(body), Refused)
        refused(lambda body=body: one.schema(body), Refused)
    for name in ("Nothing", "CancelFlightInfo", "CancelQuery", "RenewFlightEndpoint", "SetSessionOptions", "CreatePreparedStatement"):
        refused(lambda name=name: one.action(name, b"\xff\xff\xff"), Refused)
    error = refused(lambda: one.query("SELECT " + "x" * 300_000), Refused)
    assert len(str(error)) < 20_000, len(str(error))
    equal(one.query("SELECT 1").num_rows, 1)


@check
def actions_are_listed(facts):
    one = client(facts)
    names = {action.type for action in one.connection.list_actions(options=one.options)}
    assert {"CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo"} <= names, names


if __name__ == "__main__":
    main()
