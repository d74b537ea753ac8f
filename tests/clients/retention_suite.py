"""Reads a table after its expired files were removed, with delta-rs and DuckDB."""

import deltalake
import duckdb

from checks import check, equal, main


def opened(facts, version=None):
    """Opens the Delta table at a version, or at its newest version."""
    return deltalake.DeltaTable(f"{facts['lake']}/samples", version=version)


def ids(table):
    """Returns the ids of all rows in the table, as delta-rs and DuckDB read its files."""
    by_delta = sorted(table.to_pandas(columns=["id"])["id"])
    files = [uri.removeprefix("file://") for uri in table.file_uris()]
    by_duckdb = duckdb.sql(f"SELECT id FROM read_parquet({files})").fetchall()
    equal(sorted(id for (id,) in by_duckdb), by_delta)
    return by_delta


@check
def only_kept_rows_are_in_the_table(facts):
    equal(ids(opened(facts)), sorted(facts["kept"]))


@check
def older_versions_have_all_rows(facts):
    equal(ids(opened(facts, facts["before"])), sorted(facts["all"]))


@check
def the_log_names_the_reason(facts):
    """The entry is a DELETE with a predicate, which names the time and the tenant with a shorter retention."""
    deletes = [entry for entry in opened(facts).history() if entry["operation"] == "DELETE"]
    equal(len(deletes), 1)
    predicate = str(deletes[0]["operationParameters"]["predicate"])
    assert "globex" in predicate and "TIMESTAMP" in predicate, predicate


main()
