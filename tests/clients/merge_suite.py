"""Compares merged files with the files from which they were merged, as DuckDB, Polars and Arrow read them."""

import duckdb
import polars
import pyarrow.parquet as parquet

from checks import check, equal, main

KEY = ["tenant", "at", "id"]


@check
def duckdb_reads_the_same_rows(facts):
    inputs, outputs = (f"SELECT * FROM read_parquet({facts[side]}, union_by_name = true)" for side in ("inputs", "outputs"))
    (before,), (after,) = (duckdb.sql(f"SELECT count(*) FROM ({side})").fetchall()[0] for side in (inputs, outputs))
    equal(after, before)
    assert before > 0
    for one, other in ((inputs, outputs), (outputs, inputs)):
        equal(duckdb.sql(f"({one}) EXCEPT ALL ({other})").fetchall(), [])


@check
def statistics_exclude_no_row(facts):
    """Filters on each column find the same rows. Readers skip row groups by their statistics."""
    filters = ["few = 'eu'", "few = ''", "many < 'value 3'", "few IS NULL", "small > 0", "price BETWEEN -10 AND 10",
               "tenant = 't3'", "id = 'e17'", "seen > TIMESTAMPTZ '2026-03-01 12:00:00Z'", "double < 0", "flag"]
    for condition in filters:
        counts = [
            duckdb.sql(f"SELECT count(*), count(DISTINCT id) FROM read_parquet({facts[side]}) WHERE {condition}").fetchall()[0]
            for side in ("inputs", "outputs")
        ]
        equal(counts[1], counts[0])


@check
def polars_reads_the_same_rows(facts):
    counts = []
    for side in ("inputs", "outputs"):
        frame = polars.concat([polars.read_parquet(file) for file in facts[side]])
        counts.append(sorted(frame.group_by("tenant", "few").agg(polars.len(), polars.col("large").sum()).rows(), key=str))
    equal(counts[1], counts[0])


@check
def files_are_sorted(facts):
    for file in facts["outputs"]:
        rows = parquet.read_table(file, columns=KEY).to_pylist()
        keys = [tuple(row[name] for name in KEY) for row in rows]
        assert keys == sorted(keys), file
        sorting = parquet.ParquetFile(file).metadata.row_group(0).sorting_columns
        equal([column.column_index for column in sorting], [0, 1, 2])


main()
