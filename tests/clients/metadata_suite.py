"""Checks metadata messages as BI tools request them: SqlInfo, tables, keys, types and session options."""

import pyarrow as pa

from checks import check, equal, main
from flightsql import COMMANDS, client, fields, message, packed, schema_of


def tables(one, **numbered):
    """Returns the names that GetTables returns for a filter."""
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
        (dict(_3="net%flow"), nets),
        (dict(_3=r"net\%"), []),
        (dict(_3="NET%"), []),
        (dict(_1="", _3="net%flow"), []),
        (dict(_1="glasshouse", _3="net%flow"), nets),
        (dict(_1="elsewhere", _3="net%flow"), []),
        (dict(_2="public", _3="net%flow"), nets),
        (dict(_2="", _3="net%flow"), []),
        (dict(_3="net%flow", _4=["BASE TABLE", "table"]), nets),
        (dict(_3="net%flow", _4=["VIEW"]), []),
        (dict(_3="net%flow", _4=["SYNONYM"]), []),
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
def primary_keys_are_listed(facts):
    one = client(facts)
    found = one.run(COMMANDS["primary keys"]).to_pylist()
    equal([(row["table_name"], row["column_name"], row["key_sequence"]) for row in found], [("samples", "id", 1)])
    for name in ("exported keys", "imported keys", "cross reference"):
        equal(one.run(COMMANDS[name]).num_rows, 0, name)
    equal(one.run(packed("CommandGetPrimaryKeys", _3="hidden")).num_rows, 0)


@check
def types_are_listed(facts):
    one = client(facts)
    found = one.run(COMMANDS["type info"])
    names = found.column("type_name").to_pylist()
    assert {"VARCHAR", "BIGINT", "DOUBLE", "TIMESTAMP", "DATE", "BOOLEAN", "DECIMAL"} <= set(names), names
    equal(one.run(packed("CommandGetXdbcTypeInfo", _1=12)).column("type_name").to_pylist(), ["VARCHAR"])
    equal(one.run(packed("CommandGetXdbcTypeInfo", _1=-5)).column("type_name").to_pylist(), ["BIGINT", "BIGINT UNSIGNED"])
    for name in names:
        one.query(f"SELECT CAST(NULL AS {name})")


def session_options(one):
    """Calls GetSessionOptions and returns the string values."""
    (body,) = one.action("GetSessionOptions")
    options = {}
    for entry in fields(body).get(1, []):
        found = fields(entry)
        options[found[1][0].decode()] = fields(found[2][0]).get(1, [b""])[0].decode()
    return options


def set_session_option(one, name, value):
    """Calls SetSessionOptions with a string. Returns the error code, or 0 if there is no error."""
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
def metadata_works_for_a_tenant_without_rows(facts):
    one = client(facts, "initech")
    for name, command in COMMANDS.items():
        one.run(command)
        assert one.info(command).schema is not None, name


if __name__ == "__main__":
    main()
