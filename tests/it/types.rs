//! Tests of decimals, UUIDs, times of day, JSON and lists with real clients: every type in every format, read with ADBC,
//! two JDBC drivers, delta-rs, DuckDB and Polars.
//!
//! `tests/clients/types.toml` declares the tables. A second server opens the lake of the first one, so the queries read
//! what was stored before a restart.

use std::fs;
use std::path::{Path, PathBuf};

use crate::client_suite::{jdbc, run, run_python, script};
use crate::requirements::needs;
use crate::server::{Server, Setup};

const TYPES: &[&str] = &[
    "json_objects_are_stored",
    "json_arrays_and_lines_are_stored",
    "absent_values_are_null",
    "protobuf_values_are_stored",
    "arrow_values_are_stored",
    "an_arrow_batch_with_all_columns_is_stored",
    "malformed_json_is_quarantined",
    "malformed_protobuf_is_quarantined",
    "malformed_arrow_is_quarantined",
    "arrow_types_that_lose_values_are_refused",
    "bodies_that_are_unreadable_are_refused",
    "the_quarantine_keeps_the_bytes",
    "queries_return_what_was_sent",
    "delta_rs_reads_the_same_values",
    "duckdb_reads_the_same_values",
    "polars_reads_the_same_values",
];

const QUERIES: &[&str] = &[
    "rows_are_loaded",
    "dimensions_and_metrics_are_exact",
    "a_sum_beyond_38_digits_is_never_wrong",
    "filters_find_the_same_rows",
    "order_distinct_and_joins",
    "parameters_of_each_type",
    "keys_of_each_type_identify_a_row",
    "the_same_uuid_in_another_form_is_a_duplicate",
    "row_rules_compare_values_and_not_texts",
    "jdbc_rows_are_loaded",
    "a_wrong_literal_is_an_error",
];

const JDBC: &[&str] = &[
    "decimals_are_exact",
    "uuids_are_text",
    "times_are_correct_in_every_zone_with_the_properties",
    "times_have_milliseconds_and_their_text_has_all_digits",
    "json_is_text",
    "lists_are_arrays",
    "nulls_are_null",
    "types_are_described",
    "parameters_find_rows",
];

#[test]
fn every_type_in_every_format_and_client() {
    needs!(Python, Jdbc);
    let lake = tempfile::tempdir().unwrap();
    let server = start(lake.path(), script("types.toml"));
    run_python("types_suite.py", &server.write_facts(&server.facts()), TYPES);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");

    let server = start(lake.path(), script("types.toml"));
    let facts = server.write_facts(&server.facts());
    run_python("types_query_suite.py", &facts, QUERIES);
    for (version, zone) in [
        ("18.3.0", "UTC"),
        ("18.3.0", "America/St_Johns"),
        ("18.3.0", "Pacific/Apia"),
        ("17.0.0", "UTC"),
        ("17.0.0", "America/St_Johns"),
    ] {
        run(jdbc("TypesCheck", version, zone).arg(&facts), &format!("JDBC {version} in {zone}"), JDBC);
    }
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

/// Columns of new types can be added to a table, and are null in older rows. The type of a column cannot change, even if
/// the lake stores both types in the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_are_added_but_never_change_their_type() {
    let (lake, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::copy(script("types.proto"), folder.path().join("types.proto")).unwrap();
    let config = |columns: &str, code: &str| {
        let text = fs::read_to_string(script("types.toml")).unwrap();
        let text = text.replace("code = \"text\"", &format!("code = \"{code}\""));
        let path = folder.path().join("types.toml");
        fs::write(&path, text.replace("# more columns of `evolved`", columns)).unwrap();
        path
    };
    let event = |id: &str, more: &str| format!(r#"{{"id": "{id}", "at": 1772366400, "code": "c"{more}}}"#);

    let server = start(lake.path(), config("", "text"));
    server.store(event("a", "")).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");

    let added = "amount = \"decimal(9, 2)\"\nref = \"uuid\"\nclock = \"time\"\ndoc = \"json\"\nrefs = \"list<uuid>\"\n";
    let server = start(lake.path(), config(added, "text"));
    let uuid = "550E8400-E29B-41D4-A716-446655440000";
    let more = format!(r#", "amount": 1.5, "ref": "{uuid}", "clock": "01:02", "doc": [1], "refs": ["{uuid}", null]"#);
    server.store(event("b", &more)).await;
    let columns = "id, code, amount, ref, clock, doc, cardinality(refs) AS n";
    let found = server.ask("acme", &format!("SELECT {columns} FROM evolved ORDER BY id")).unwrap();
    let uuid = uuid.to_lowercase();
    assert_eq!(found, format!("id,code,amount,ref,clock,doc,n\na,c,,,,,\nb,c,1.50,{uuid},01:02:00,[1],2"));
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");

    for (columns, code, problem) in [
        (added.to_owned(), "uuid", "column `code` of table `evolved` is stored as text and cannot become uuid"),
        (added.to_owned(), "json", "column `code` of table `evolved` is stored as text and cannot become json"),
        (
            added.replace("\"uuid\"", "\"text\""),
            "text",
            "column `ref` of table `evolved` is stored as uuid and cannot become text",
        ),
        (
            added.replace("\"json\"", "\"uuid\""),
            "text",
            "column `doc` of table `evolved` is stored as json and cannot become uuid",
        ),
        (
            added.replace("\"time\"", "\"int64\""),
            "text",
            "column `clock` of table `evolved` is stored as time and cannot become int64",
        ),
        (
            added.replace("list<uuid>", "list<text>"),
            "text",
            "column `refs` of table `evolved` is stored as list<uuid> and cannot become list<text>",
        ),
        (
            added.replace("(9, 2)", "(9, 3)"),
            "text",
            "column `amount` of table `evolved` is stored as decimal(9, 2) and cannot become decimal(9, 3): declare it as decimal(9, 2), or add a column with another name",
        ),
        (
            added.replace("(9, 2)", "(10, 2)"),
            "text",
            "column `amount` of table `evolved` is stored as decimal(9, 2) and cannot become decimal(10, 2)",
        ),
    ] {
        let log = Server::start_error(&setup(lake.path(), config(&columns, code)));
        let log = log.replace("\\\"", "\"");
        assert!(log.contains(problem), "expected {problem:?} in:\n{log}");
        assert!(!log.contains("table `evolved`: column"), "{log}");
    }

    let server = start(lake.path(), config(added, "text"));
    assert_eq!(server.ask("acme", "SELECT count(*) AS n FROM evolved"), Ok("n\n2".to_owned()));
}

fn setup(lake: &Path, config: PathBuf) -> Setup {
    Setup { lake: Some(lake.display().to_string()), config: Some(config), ..Setup::default() }
}

fn start(lake: &Path, config: PathBuf) -> Server {
    Server::start(&setup(lake, config))
}

impl Server {
    /// Stores an event of the table `evolved`.
    async fn store(&self, event: String) {
        let url = format!("http://{}/v1/tables/evolved/events", self.http);
        let request = reqwest::Client::new().post(url).bearer_auth(self.token("acme"));
        let answer = request.header("content-type", "application/json").body(event).send().await.unwrap();
        let receipt = answer.text().await.unwrap();
        assert!(receipt.contains("\"accepted\":1,"), "{receipt}");
    }
}
