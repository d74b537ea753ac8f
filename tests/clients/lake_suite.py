"""Reads the lake with other software: with delta-rs from Python, and its files with DuckDB and Arrow."""

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi
import deltalake
import duckdb
import pyarrow.parquet as parquet

import rows
from checks import check, equal, main

TENANTS = [tenant for tenant, count in rows.ROWS.items() if count]


def opened(facts, table="samples"):
    """Opens the Delta table."""
    return deltalake.DeltaTable(f"{facts['lake']}/{table}", storage_options=facts.get("storage_options"))


def counted(facts, tenant):
    """Returns the number of rows and of distinct ids that a tenant sees over Flight SQL."""
    options = {driver.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {facts['tokens'][tenant]}"}
    with dbapi.connect(f"grpc://{facts['flight']}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), count(DISTINCT id) FROM samples")
            return cursor.fetchone()


def files(facts):
    """Returns the local paths of the files of the current version."""
    return [uri.removeprefix("file://") for uri in opened(facts).file_uris()]


@check
def tenants_add_up_to_the_lake(facts):
    """Each tenant's counts over SQL equal the tenant's counts in the lake, as delta-rs and DuckDB read it."""
    by_sql = {tenant: counted(facts, tenant) for tenant in TENANTS}
    frame = opened(facts).to_pandas(columns=["tenant", "id"])
    by_delta = {tenant: (len(own), own["id"].nunique()) for tenant, own in frame.groupby("tenant")}
    equal(by_delta, by_sql)
    by_duckdb = duckdb.sql(f"SELECT tenant, count(*), count(DISTINCT id) FROM read_parquet({files(facts)}) GROUP BY tenant")
    equal({tenant: (n, ids) for tenant, n, ids in by_duckdb.fetchall()}, by_sql)


@check
def other_readers_see_the_same_values(facts):
    frame = opened(facts).to_pyarrow_table(columns=["id", "at", "flag", "small", "big", "ratio32", "ratio", "label", "day"])
    found = {row["id"]: row for row in frame.to_pylist() if row["id"].startswith("globex-")}
    for row in rows.samples("globex"):
        equal(found[row["id"]], {name: row.get(name) for name in found[row["id"]]})


@check
def partitions_are_utc_days(facts):
    table = opened(facts)
    equal(table.metadata().partition_columns, ["event_date"])
    frame = table.to_pandas(columns=["at", "event_date"])
    assert (frame["at"].dt.tz_convert("UTC").dt.date.astype(str) == frame["event_date"].astype(str)).all()


@check
def files_are_sorted_and_declare_it(facts):
    for path in files(facts):
        keys = parquet.read_table(path, columns=["tenant", "at", "id"]).to_pylist()
        keys = [(row["tenant"], row["at"], row["id"]) for row in keys]
        equal(keys, sorted(keys), path)
        metadata = parquet.ParquetFile(path).metadata
        sorting = [metadata.schema.column(each.column_index).name for each in metadata.row_group(0).sorting_columns]
        equal(sorting, ["tenant", "at", "id"], path)
        group = metadata.row_group(0)
        for index in range(group.num_columns):
            column = group.column(index)
            equal(column.compression, "ZSTD", column.path_in_schema)
            if column.path_in_schema in ("tenant", "at", "id"):
                assert column.has_offset_index and column.has_column_index, column.path_in_schema


@check
def the_log_has_statistics(facts):
    actions = opened(facts).get_add_actions(flatten=True)
    names = set(actions.schema.names)
    assert {"num_records", "min.tenant", "max.tenant", "min.at", "max.at"} <= names, names


@check
def columns_keep_their_description(facts):
    fields = {field.name: field for field in opened(facts).schema().fields}
    equal([name for name in fields][:4], ["tenant", "at", "id", "received_time"])
    assert not fields["tenant"].nullable and not fields["id"].nullable
    equal(fields["ratio"].type.type, "double")


if __name__ == "__main__":
    main()
