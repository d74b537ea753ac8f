"""Flight SQL message by message, over pyarrow.flight: what each client of the field sends, and what must come back."""

import base64
import datetime

import pyarrow as pa
import pyarrow.flight as flight

import rows
from checks import check, equal, main, refused
from flightsql import DEFAULT_MESSAGE_BYTES_MAX, Client, fields, message, packed, schema_of, unpacked

Unauthenticated = flight.FlightUnauthenticatedError
Forbidden = flight.FlightUnauthorizedError
Refused = (flight.FlightError, pa.ArrowException)

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


def client(facts, caller="acme", **kwargs):
    """A connection with the caller's token."""
    return Client(facts, facts["tokens"][caller], **kwargs)


class Silent(flight.ClientAuthHandler):
    """A handshake whose credentials are all in the headers: what JDBC and ODBC do with a token."""

    def authenticate(self, outgoing, incoming):
        outgoing.write(b"")

    def get_token(self):
        return b""


@check
def handshake_with_a_bearer(facts):
    good = client(facts)
    good.connection.authenticate(Silent(), good.options)
    # From now on the connection sends an empty `auth-token-bin` with each call, which means nothing here.
    equal(good.query("SELECT 1").num_rows, 1)
    for caller in ("forged", "expired"):
        bad = client(facts, caller)
        error = refused(lambda bad=bad: bad.connection.authenticate(Silent(), bad.options), Unauthenticated)
        assert ".rs" not in str(error) and "panicked" not in str(error), error


@check
def handshake_with_a_password(facts):
    plain = Client(facts)
    name, bearer = plain.connection.authenticate_basic_token("anyone", facts["tokens"]["globex"])
    equal(name, b"authorization")
    named = Client(facts, headers=[(name, bearer)])
    equal(named.query("SELECT count(*) AS n FROM samples WHERE id NOT LIKE '%-shared-%'").column("n")[0].as_py(), rows.ROWS["globex"])
    refused(lambda: Client(facts).connection.authenticate_basic_token("anyone", "no token"), Unauthenticated)


@check
def handshake_takes_unpadded_base64(facts):
    for pad in (True, False):
        for extra in ("u", "us", "use"):  # one of the lengths needs padding
            text = base64.b64encode(f"{extra}:{facts['tokens']['acme']}".encode()).decode()
            text = text if pad else text.rstrip("=")
            plain = Client(facts, headers=[(b"authorization", b"Basic " + text.encode())])
            plain.connection.authenticate(Silent(), plain.options)


@check
def header_scheme_has_no_case(facts):
    for scheme in (b"Bearer ", b"bearer ", b"BEARER "):
        other = Client(facts, headers=[(b"authorization", scheme + facts["tokens"]["acme"].encode())])
        equal(other.query("SELECT 1").num_rows, 1, scheme)


@check
def two_tokens_are_no_token(facts):
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
        with writer:
            writer.done_writing()
            reader.read()

    def exchange():
        writer, reader = nobody.connection.do_exchange(descriptor, nobody.options)
        with writer:
            writer.done_writing()
            reader.read_chunk()

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
        refused(call, Unauthenticated)


@check
def all_schemas_of_a_query_are_one(facts):
    """FlightInfo, GetSchema, the prepared statement and the stream say the same, field metadata included."""
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
def all_schemas_of_a_command_are_one(facts):
    one = client(facts)
    for name, command in COMMANDS.items():
        info = one.info(command)
        stream = one.get(info.endpoints[0].ticket).schema
        equal(info.schema, stream, name)
        equal(one.schema(command), stream, name)


@check
def only_safe_types_are_sent(facts):
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
def one_endpoint_without_a_place(facts):
    one = client(facts)
    for command in (packed("CommandStatementQuery", _1="SELECT id FROM samples"), *COMMANDS.values()):
        info = one.info(command)
        equal([endpoint.locations for endpoint in info.endpoints], [[]])


@check
def a_ticket_is_bound_to_its_tenant(facts):
    ticket = client(facts).info(packed("CommandStatementQuery", _1="SELECT count(*) AS n FROM samples")).endpoints[0].ticket
    assert client(facts).get(ticket).column("n")[0].as_py() >= rows.ROWS["acme"]
    assert client(facts).get(ticket).column("n")[0].as_py() >= rows.ROWS["acme"], "a ticket works twice"
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
def order_is_announced(facts):
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
    """Wide skewed rows, a row of 3.5 MiB, a filtered view, sliced lists: all read by a client that accepts 4 MiB."""
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
def a_row_beyond_the_limit_is_said_so(facts):
    one = client(facts)
    error = refused(lambda: one.query(f"SELECT repeat('x', {6 << 20})"), Refused, "row|limit|message")
    assert "RESOURCE_EXHAUSTED" in str(error).upper().replace(" ", "_") or "exhausted" in str(error).lower(), error
    equal(one.query("SELECT 1").num_rows, 1)


def parameter_types(one, sql):
    """The types that a statement asks for."""
    return [field.type for field in one.prepare(sql).parameter_schema]


@check
def parameters_are_described(facts):
    one = client(facts)
    ms = pa.timestamp("ms")
    for sql, expected in (
        ("SELECT id FROM samples WHERE small = ?", [pa.int32()]),
        ("SELECT id FROM samples WHERE small = $1 AND label = $2", [pa.int32(), pa.string()]),
        ("SELECT id FROM samples WHERE ratio > ? AND big < ?", [pa.float64(), pa.int64()]),
        ("SELECT id FROM samples WHERE flag = ? AND day = ?", [pa.bool_(), pa.date32()]),
    ):
        equal(parameter_types(one, sql), expected, sql)
    (at,) = parameter_types(one, "SELECT id FROM samples WHERE at >= ?")
    assert pa.types.is_timestamp(at) and at.unit == ms.unit, at
    for sql in ("SELECT ?", "SELECT coalesce(?, ?)", "SELECT id FROM samples WHERE ? IS NULL"):
        assert not any(pa.types.is_null(each) for each in parameter_types(one, sql)), sql


@check
def bound_parameters_of_any_type_are_cast(facts):
    one = client(facts, "globex")
    at = rows.START + datetime.timedelta(minutes=30)
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([30], pa.int64())])
    for condition, array in (
        ("small = ?", pa.array([30], pa.int8())),
        ("small = ?", pa.array([30], pa.int64())),
        ("small = ?", pa.array(["30"])),
        ("small = ?", union),
        ("day = ?", pa.array(["2024-01-31"])),
        ("id = ?", pa.array(["globex-00030"], pa.large_string())),
        ("at = ?", pa.array([at], pa.timestamp("ns", "UTC"))),
        ("at = ?", pa.array([at], pa.timestamp("ms"))),
        ("ratio = ?", pa.array([3.75], pa.float32())),
    ):
        prepared = one.prepare(f"SELECT id FROM samples WHERE {condition} AND id NOT LIKE '%-shared-%'")
        handles = prepared.bind(pa.record_batch([array], names=["0"]))
        equal(len(handles), 1, condition)
        if handles[0]:
            prepared.handle = handles[0]
        equal(prepared.run().column(0).to_pylist(), ["globex-00030"], (condition, array.type))


@check
def unbound_parameters_are_refused(facts):
    prepared = client(facts).prepare("SELECT id FROM samples WHERE small = ?")
    refused(prepared.run, Refused)
    refused(lambda: prepared.bind(pa.record_batch([pa.array(["thirty"])], names=["0"])) and prepared.run(), Refused)
    refused(lambda: prepared.bind(pa.record_batch([], names=[])) and prepared.run(), Refused)


@check
def the_old_handle_is_never_silently_wrong(facts):
    """Some clients ignore the updated handle: the old one runs with the new parameters, or says why not."""
    prepared = client(facts).prepare("SELECT id FROM samples WHERE small = ?")
    prepared.bind(pa.record_batch([pa.array([5], pa.int32())], names=["0"]))
    try:
        equal(prepared.run().column(0).to_pylist(), ["acme-00005"])
    except Refused as error:
        assert "parameter" in str(error).lower(), error


@check
def many_rows_are_bound_loudly_or_fully(facts):
    prepared = client(facts).prepare("SELECT id FROM samples WHERE small = ?")
    try:
        (handle,) = prepared.bind(pa.record_batch([pa.array([1, 2], pa.int32())], names=["0"]))
        prepared.handle = handle or prepared.handle
        equal(sorted(prepared.run().column(0).to_pylist()), ["acme-00001", "acme-00002"])
    except Refused as error:
        assert "row" in str(error).lower() or "one" in str(error).lower(), error


@check
def handles_live_without_their_connection(facts):
    prepared = client(facts).prepare("SELECT count(*) AS n FROM samples")
    prepared.client = client(facts)
    assert prepared.run().column("n")[0].as_py() >= rows.ROWS["acme"]
    prepared.client = client(facts, "globex")
    refused(prepared.run, Forbidden)


@check
def tampered_handles_are_refused(facts):
    prepared = client(facts).prepare("SELECT 1")
    good = prepared.handle
    for at in range(0, len(good), max(1, len(good) // 40)):
        bad = bytearray(good)
        bad[at] ^= 1
        prepared.handle = bytes(bad)
        refused(prepared.run, Refused)


@check
def closing_is_idempotent(facts):
    prepared = client(facts).prepare("SELECT 1")
    prepared.close()
    prepared.close()
    prepared.handle = b"nobody's"
    prepared.close()


@check
def statements_say_whether_they_change_anything(facts):
    one = client(facts)
    prepared = one.prepare("SELECT id FROM samples")
    equal(prepared.dataset_schema.names, ["id"])
    equal(prepared.is_update, [0])
    for sql in ("INSERT INTO samples VALUES (1)", "DELETE FROM samples", "CREATE TABLE t (a INT)", "SET x = 1"):
        def execute(sql=sql):
            update = one.prepare(sql)
            equal((update.is_update, update.dataset_schema), ([1], None), sql)
            descriptor = flight.FlightDescriptor.for_command(packed("CommandPreparedStatementUpdate", _1=update.handle))
            empty = pa.record_batch([], schema=pa.schema([]))
            writer, reader = one.connection.do_put(descriptor, empty.schema, one.options)
            with writer:
                writer.write_batch(empty)
                writer.done_writing()
                return reader.read()

        refused(execute, Forbidden)


@check
def updates_are_forbidden(facts):
    one = client(facts)
    descriptor = flight.FlightDescriptor.for_command(packed("CommandStatementUpdate", _1="DELETE FROM samples"))

    def put():
        writer, reader = one.connection.do_put(descriptor, pa.schema([]), one.options)
        with writer:
            writer.done_writing()
            return reader.read()

    refused(put, Forbidden)
    assert one.query("SELECT id FROM samples").num_rows >= rows.ROWS["acme"]


def tables(one, **numbered):
    """The names that GetTables yields for a filter."""
    found = one.run(packed("CommandGetTables", **numbered))
    return sorted(found.column("table_name").to_pylist())


@check
def sql_info_is_complete(facts):
    one = client(facts)
    found = one.run(COMMANDS["sql info"])
    codes = found.column("info_name").to_pylist()
    missing = set([*range(10), 100, 101, *range(500, 577)]) - set(codes)
    equal(missing, set())
    values = dict(zip(codes, found.column("value").to_pylist()))
    equal((values[0], values[3], values[8], values[504], values[513]), ("Glasshouse", True, 0, '"', "\\"))
    assert "abs" in values[509] and "lower" in values[510] and "date_bin" in values[512], values[509]
    equal(one.run(packed("CommandGetSqlInfo", _1=[8])).column("info_name").to_pylist(), [8])
    equal(one.run(packed("CommandGetSqlInfo", _1=[4711])).num_rows, 0)


@check
def tables_are_filtered(facts):
    one = client(facts)
    nets = ["net2flow", "net_flow"]
    for numbered, expected in (
        (dict(_3="net_flow"), nets),
        (dict(_3=r"net\_flow"), ["net_flow"]),
        (dict(_3="net%"), nets),
        (dict(_3=r"net\%"), []),
        (dict(_3="NET%"), []),
        (dict(_1="", _3="net%"), []),
        (dict(_1="glasshouse", _3="net%"), nets),
        (dict(_1="elsewhere", _3="net%"), []),
        (dict(_2="public", _3="net%"), nets),
        (dict(_2="", _3="net%"), []),
        (dict(_3="net%", _4=["BASE TABLE", "table"]), nets),
        (dict(_3="net%", _4=["VIEW"]), []),
        (dict(_3="net%", _4=["SYNONYM"]), []),
        (dict(_3="hidden"), []),
    ):
        equal(tables(one, **numbered), expected, numbered)
    everything = tables(one)
    assert {"samples", "samples_quarantine", "columns"} <= set(everything), everything


@check
def table_schemas_are_encapsulated(facts):
    one = client(facts)
    found = one.run(packed("CommandGetTables", _3="samples", _5=True))
    equal(found.schema.field("table_schema"), pa.field("table_schema", pa.binary(), False))
    schema = schema_of(found.column("table_schema")[0].as_py())
    queried = one.schema(packed("CommandStatementQuery", _1="SELECT * FROM samples"))
    equal((schema.names, schema.types), (queried.names, queried.types))
    assert not schema.field("tenant").nullable and not schema.field("id").nullable and schema.field("ratio").nullable
    for field in schema:
        for key in ("TYPE_NAME", "CATALOG_NAME", "DB_SCHEMA_NAME", "TABLE_NAME", "IS_READ_ONLY"):
            assert f"ARROW:FLIGHT:SQL:{key}".encode() in field.metadata, (field.name, key)
    equal(schema.field("at").metadata[b"ARROW:FLIGHT:SQL:SCALE"], b"6")
    assert "table_schema" not in one.schema(packed("CommandGetTables", _3="samples")).names


@check
def keys_are_told(facts):
    one = client(facts)
    found = one.run(COMMANDS["primary keys"]).to_pylist()
    equal([(row["table_name"], row["column_name"], row["key_sequence"]) for row in found], [("samples", "id", 1)])
    for name in ("exported keys", "imported keys", "cross reference"):
        equal(one.run(COMMANDS[name]).num_rows, 0, name)
    equal(one.run(packed("CommandGetPrimaryKeys", _3="hidden")).num_rows, 0)


@check
def types_are_told(facts):
    one = client(facts)
    found = one.run(COMMANDS["type info"])
    names = found.column("type_name").to_pylist()
    assert {"VARCHAR", "BIGINT", "DOUBLE", "TIMESTAMP", "DATE", "BOOLEAN", "DECIMAL"} <= set(names), names
    equal(one.run(packed("CommandGetXdbcTypeInfo", _1=12)).column("type_name").to_pylist(), ["VARCHAR"])
    equal(one.run(packed("CommandGetXdbcTypeInfo", _1=-5)).column("type_name").to_pylist(), ["BIGINT", "BIGINT UNSIGNED"])
    for name in names:
        one.query(f"SELECT CAST(NULL AS {name})")


def session_options(one):
    """GetSessionOptions: the text values."""
    (body,) = one.action("GetSessionOptions")
    options = {}
    for entry in fields(body).get(1, []):
        found = fields(entry)
        options[found[1][0].decode()] = fields(found[2][0]).get(1, [b""])[0].decode()
    return options


def set_session_option(one, name, value):
    """SetSessionOptions of a text: the error's number, 0 for none."""
    (body,) = one.action("SetSessionOptions", message(_1=message(_1=name, _2=message(_1=value))))
    errors = [fields(entry) for entry in fields(body).get(1, [])]
    return fields(errors[0][2][0]).get(1, [0])[0] if errors else 0


@check
def session_options_hold_catalog_and_schema(facts):
    one = client(facts)
    options = session_options(one)
    equal((options["catalog"], options["schema"]), ("glasshouse", "public"), options)
    equal(set_session_option(one, "catalog", "glasshouse"), 0)
    equal(set_session_option(one, "schema", "public"), 0)
    assert set_session_option(one, "catalog", "elsewhere") != 0
    assert set_session_option(one, "schema", "elsewhere") != 0
    one.action("CloseSession", b"")


@check
def session_options_never_change_the_tenant(facts):
    one = client(facts, "globex")
    for name in ("tenant", "tenant_id", "user", "database"):
        assert set_session_option(one, name, "acme") != 0, name
    equal(one.query("SELECT id FROM samples WHERE id LIKE 'acme-%'").num_rows, 0)


@check
def cancelling_needs_the_owner(facts):
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
    # 2, 2: fail if the table is missing, append if it exists.
    result = put(_1=options(2, 2), _2="samples", _3="public", _4="glasshouse")
    equal(fields(result.to_pybytes())[1][0], 1)


@check
def transactions_are_unsupported(facts):
    one = client(facts)
    refused(lambda: one.action("BeginTransaction", packed("ActionBeginTransactionRequest")), Refused, "not|unsupported|unimplemented")


@check
def rubbish_gets_a_status(facts):
    """Whatever bytes come: an answer, and a server that goes on."""
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


@check
def health_of_metadata_commands_for_a_tenant_without_rows(facts):
    one = client(facts, "initech")
    for name, command in COMMANDS.items():
        one.run(command)
        assert one.info(command).schema is not None, name


if __name__ == "__main__":
    main()
