//! Tests of a server with real clients: ADBC, pyarrow, two JDBC drivers, delta-rs, DuckDB and TLS clients. One test
//! loads a real data set, and one revokes tokens.
//!
//! The checks are written in the languages of the clients (`tests/clients/`). The tests in this file start the servers,
//! load the sample rows, and list the checks that must run.

use std::process::Command;

use serde_json::json;

use crate::client_suite::{jdbc, python, run, run_python, script};
use crate::requirements::needs;
use crate::server::{Server, Setup};

/// Starts a server and loads the sample rows.
fn server_with_rows() -> Server {
    let server = Server::start(&Setup::default());
    let facts = server.write_facts(&server.facts());
    run_python("feed_suite.py", &facts, ROWS);
    server
}

#[test]
fn adbc() {
    needs!(Python);
    let server = server_with_rows();
    let facts = server.write_facts(&server.facts());
    run_python("adbc_suite.py", &facts, ADBC);
    run_python("parameters_suite.py", &facts, PARAMETERS);
    // The lake must also contain the rows that the suite ingested over ADBC.
    run_python("lake_suite.py", &facts, LAKE);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

#[test]
fn flight_sql_messages() {
    needs!(Python);
    let server = server_with_rows();
    let facts = server.write_facts(&server.facts());
    run_python("flight_suite.py", &facts, FLIGHT);
    run_python("prepared_suite.py", &facts, PREPARED);
    run_python("metadata_suite.py", &facts, METADATA);
}

#[test]
fn jdbc_newest() {
    needs!(Python, Jdbc);
    let server = server_with_rows();
    let facts = server.write_facts(&server.facts());
    run(jdbc("JdbcCheck", "18.3.0", "UTC").arg(facts), "JDBC 18.3.0", JDBC);
}

#[test]
fn jdbc_older() {
    needs!(Python, Jdbc);
    let server = server_with_rows();
    let facts = server.write_facts(&server.facts());
    run(jdbc("JdbcCheck", "17.0.0", "UTC").arg(facts), "JDBC 17.0.0", JDBC);
}

#[test]
fn jdbc_in_three_time_zones() {
    needs!(Python, Jdbc);
    let server = server_with_rows();
    let mut facts = server.facts();
    facts["set_time_zone"] = json!(true);
    let facts = server.write_facts(&facts);
    for zone in ["UTC", "America/New_York", "Asia/Kolkata"] {
        for version in ["18.3.0", "17.0.0"] {
            run(jdbc("JdbcCheck", version, zone).arg(&facts), &format!("JDBC {version} in {zone}"), JDBC);
        }
    }
}

#[test]
fn real_flights() {
    needs!(Python);
    let server = Server::start(&Setup::default());
    run_python("nycflights_suite.py", &server.write_facts(&server.facts()), FLIGHTS);
}

#[test]
fn tls() {
    needs!(Python);
    let certs = tempfile::tempdir().unwrap();
    assert!(python().arg(script("make_certs.py")).arg(certs.path()).status().unwrap().success());
    let file = |name: &str| certs.path().join(name).display().to_string();
    let mut settings =
        vec![("FLIGHT__TLS_CERT".to_owned(), file("server.pem")), ("FLIGHT__TLS_KEY".to_owned(), file("server.key"))];
    let server = Server::start(&Setup { settings: settings.clone(), ..Setup::default() });
    settings.push(("FLIGHT__TLS_CLIENT_CA".to_owned(), file("authority.pem")));
    let mutual = Server::start(&Setup { settings, ..Setup::default() });
    let mut facts = server.facts();
    facts["mutual"] = json!(mutual.flight);
    facts["certs"] = json!(certs.path());
    run_python("tls_suite.py", &server.write_facts(&facts), TLS);

    // `glasshouse query` trusts the certificate authorities in the `--ca` file and those of the system. In this test,
    // `SSL_CERT_FILE` replaces the system's authorities.
    let cases = [
        ("authority.pem", None, true),
        ("stranger.pem", None, false),
        ("stranger.pem", Some("authority.pem"), true),
        ("authority.pem", Some("stranger.pem"), true),
        ("stranger.pem", Some("stranger.pem"), false),
    ];
    for (system, added, is_trusted) in cases {
        let mut query = Command::new(env!("CARGO_BIN_EXE_glasshouse"));
        query.args(["query", "--url", &format!("grpc+tls://{}", server.flight), "--token", &server.token("acme")]);
        query.args(added.iter().flat_map(|name| ["--ca".to_owned(), file(name)]));
        let asked =
            query.arg("SELECT 1").env("SSL_CERT_FILE", file(system)).env_remove("SSL_CERT_DIR").output().unwrap();
        let complaint = String::from_utf8_lossy(&asked.stderr);
        assert_eq!(asked.status.success(), is_trusted, "{system}, {added:?}: {complaint}");
        assert!(is_trusted || complaint.contains("certificate"), "{system}, {added:?}: {complaint}");
    }
}

#[test]
fn revoked_tokens() {
    needs!(Python);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revocations.toml");
    let setting = ("AUTH__REVOCATIONS_FILE".to_owned(), file.display().to_string());
    let setup = Setup { settings: vec![setting], ..Setup::default() };
    let log = Server::start_error(&setup);
    assert!(log.contains("revocations.toml does not exist: create an empty file with `touch "), "{log}");
    std::fs::write(&file, "").unwrap();
    let server = Server::start(&setup);
    run_python("feed_suite.py", &server.write_facts(&server.facts()), ROWS);
    let mut facts = server.facts();
    facts["revocations"] = json!(file);
    facts["command"] = json!([env!("CARGO_BIN_EXE_glasshouse"), "--config", server.config()]);
    facts["environment"] = json!({ "GLASSHOUSE__AUTH__REVOCATIONS_FILE": file });
    run_python("revocation_suite.py", &server.write_facts(&facts), REVOCATIONS);
    assert!(server.logged("cannot load the revocations; the previous ones stay active"));
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

/// The checks that load the sample rows over HTTP.
const ROWS: &[&str] = &["feed_samples", "feed_tables_with_similar_names", "feed_again_stores_nothing"];

/// The checks that use ADBC in Python.
const ADBC: &[&str] = &[
    "connect_by_header",
    "connect_by_password",
    "bad_callers_are_refused",
    "token_without_tenant_is_refused",
    "operators_may_not_query",
    "tenants_are_disjoint",
    "headers_never_change_the_tenant",
    "values_come_back_as_sent",
    "column_types_are_portable",
    "freshness_is_a_table_function",
    "order_by_is_kept",
    "zero_rows_keep_their_types_in_pandas",
    "get_objects_of_all_depths",
    "get_objects_filters",
    "get_table_types",
    "get_table_schema_escapes_underscores",
    "execute_schema_matches_the_result",
    "get_info_names_the_server",
    "current_catalog_and_schema",
    "missing_transactions_cause_a_warning",
    "parameters_of_many_types",
    "executemany_is_refused",
    "errors_have_their_codes",
    "a_hidden_table_looks_absent",
    "cancel_stops_the_query_and_frees_its_slot",
    "a_partition_is_read_on_another_connection",
    "default_message_limit_is_enough",
    "concurrent_callers",
    "ingest_appends",
    "repeated_ingest_stores_once",
    "ingest_never_creates_or_replaces_a_table",
    "ingest_never_stores_rows_of_other_tenants",
    "ingest_requires_its_scope",
    "operator_ingest_takes_the_tenant_from_each_row",
];

/// The checks that bind parameters in ADBC.
const PARAMETERS: &[&str] = &[
    "every_type_in_every_expression_equals_the_literal",
    "a_bound_value_keeps_its_type",
    "a_statement_runs_for_each_row_of_parameters",
    "parameter_types_are_exact_or_unknown",
    "an_append_with_another_schema_is_refused",
    "arrow_values_are_stored_exactly_or_rejected",
];

/// The checks that send individual Flight SQL messages with pyarrow.flight.
const FLIGHT: &[&str] = &[
    "handshake_with_a_bearer",
    "handshake_waits_for_the_client",
    "handshake_with_a_password",
    "handshake_accepts_unpadded_base64",
    "header_scheme_is_case_insensitive",
    "two_tokens_are_refused",
    "every_call_needs_a_token",
    "all_schemas_of_a_query_are_equal",
    "all_schemas_of_a_command_are_equal",
    "only_portable_types_are_sent",
    "one_endpoint_without_a_location",
    "a_ticket_is_bound_to_its_tenant",
    "tampered_tickets_are_refused",
    "ordered_results_are_flagged",
    "zero_rows_have_a_schema",
    "messages_fit_default_clients",
    "a_row_over_the_limit_is_reported",
    "only_the_owner_can_cancel",
    "unspecified_ingest_is_refused",
    "transactions_are_unsupported",
    "malformed_messages_get_an_error_status",
    "actions_are_listed",
];

/// The checks that send the Flight SQL messages for prepared statements.
const PREPARED: &[&str] = &[
    "parameters_are_described",
    "bound_parameters_have_any_type",
    "unbound_parameters_are_refused",
    "the_old_handle_never_returns_wrong_rows",
    "several_parameter_rows_run_in_order",
    "the_schema_follows_the_bound_types",
    "handles_outlive_their_connection",
    "tampered_handles_are_refused",
    "closing_is_idempotent",
    "statements_report_whether_they_are_updates",
    "updates_are_forbidden",
];

/// The checks that call the metadata commands.
const METADATA: &[&str] = &[
    "sql_info_is_complete",
    "tables_are_filtered",
    "table_schemas_are_encapsulated",
    "primary_keys_are_listed",
    "types_are_listed",
    "session_options_hold_catalog_and_schema",
    "session_options_never_change_the_tenant",
    "metadata_works_for_a_tenant_without_rows",
];

/// The checks that use the JDBC driver.
const JDBC: &[&str] = &[
    "connects_with_a_token",
    "connects_with_a_password",
    "connects_with_a_catalog",
    "bad_callers_are_refused",
    "parameters_of_the_url_never_change_the_tenant",
    "tenants_are_disjoint",
    "values_come_back_as_sent",
    "timestamps_are_instants",
    "timestamp_parameters_are_instants",
    "dates_are_the_same_in_every_zone",
    "time_zone_needs_both_properties",
    "order_by_is_kept",
    "zero_rows",
    "large_results",
    "parameters_of_each_type",
    "bound_values_equal_literals",
    "prepared_statements_are_reused",
    "changes_are_refused",
    "batches_are_refused",
    "errors_name_the_problem",
    "cancel_stops_the_query",
    "every_metadata_getter_returns",
    "metadata_values_are_correct",
    "tables_columns_and_keys",
];

/// The checks that read the lake with delta-rs, DuckDB and Arrow.
const LAKE: &[&str] = &[
    "tenants_add_up_to_the_lake",
    "other_readers_see_the_same_values",
    "partitions_are_utc_days",
    "files_are_sorted_and_declare_it",
    "the_log_has_statistics",
    "columns_keep_their_description",
];

/// The checks that compare query results over a real data set with the results of pandas.
const FLIGHTS: &[&str] = &[
    "all_flights_are_loaded",
    "loading_again_adds_nothing",
    "flights_per_carrier",
    "a_carrier_sees_only_its_own_flights",
    "mean_delays",
    "months",
    "busiest_destinations",
    "cancelled_flights_have_no_times",
    "hours_are_utc",
    "the_lake_holds_the_same",
];

/// The checks that revoke tokens of a running server.
const REVOCATIONS: &[&str] = &[
    "a_revoked_token_is_refused_and_its_queries_end",
    "revoking_twice_changes_nothing",
    "running_uploads_of_a_revoked_subject_end",
    "an_invalid_file_keeps_the_revocations",
    "a_removed_revocation_ends",
];

/// The checks that connect with TLS and mutual TLS.
const TLS: &[&str] = &[
    "a_client_that_trusts_the_authority_connects",
    "a_wrong_authority_is_refused",
    "plain_text_is_refused",
    "versions_and_protocol",
    "a_known_client_connects",
    "unknown_clients_are_refused",
];
