//! Real clients against a real server: ADBC, pyarrow, two JDBC drivers, delta-rs and DuckDB, TLS, and real data.
//!
//! The checks are written in the clients' own languages (`tests/clients/`); this file starts what they talk to, feeds the
//! known rows, and holds the list of what must have been checked.

use std::process::Command;

use serde_json::json;

use crate::needs::needs;
use crate::server::{Server, Setup};
use crate::suite::{jdbc, python, run, run_python, script};

/// A server with the known rows.
fn fed() -> Server {
    let server = Server::start(&Setup::default());
    let facts = server.write_facts(&server.facts());
    run_python("feed_suite.py", &facts, ROWS);
    server
}

#[test]
fn adbc() {
    needs!(Python);
    let server = fed();
    let facts = server.write_facts(&server.facts());
    run_python("adbc_suite.py", &facts, ADBC);
    // What the suite sent by ADBC is in the lake as well, and a stop loses none of it.
    run_python("lake_suite.py", &facts, LAKE);
    assert!(server.stop(), "the server should stop by itself when asked");
}

#[test]
fn flight_sql_by_hand() {
    needs!(Python);
    let server = fed();
    let facts = server.write_facts(&server.facts());
    run_python("flight_suite.py", &facts, FLIGHT);
    run_python("prepared_suite.py", &facts, PREPARED);
    run_python("metadata_suite.py", &facts, METADATA);
}

#[test]
fn jdbc_newest() {
    needs!(Python, Jdbc);
    let server = fed();
    let facts = server.write_facts(&server.facts());
    run(jdbc("18.3.0").arg(facts), "JDBC 18.3.0", JDBC);
}

#[test]
fn jdbc_older() {
    needs!(Python, Jdbc);
    let server = fed();
    let facts = server.write_facts(&server.facts());
    run(jdbc("17.0.0").arg(facts), "JDBC 17.0.0", JDBC);
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

    // Our own client adds the file of `--ca` to the authorities of the system, which are those of `SSL_CERT_FILE` here.
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

/// Feeding the known rows through the web door.
const ROWS: &[&str] = &["feed_samples", "feed_look_alikes", "feed_again_counts_nothing"];

/// ADBC in Python.
const ADBC: &[&str] = &[
    "connect_by_header",
    "connect_by_password",
    "bad_callers_are_refused",
    "token_without_tenant_is_refused",
    "operator_asks_nothing",
    "tenants_are_disjoint",
    "headers_never_change_the_tenant",
    "values_come_back_as_sent",
    "types_are_the_safe_ones",
    "freshness_is_a_table",
    "order_by_is_kept",
    "zero_rows_keep_their_types_in_pandas",
    "get_objects_of_all_depths",
    "get_objects_filters",
    "get_table_types",
    "get_table_schema_is_not_fooled_by_underscores",
    "execute_schema_is_the_answers_schema",
    "get_info_names_the_server",
    "current_catalog_and_schema",
    "no_transactions_is_a_warning",
    "parameters_of_many_types",
    "executemany_is_refused",
    "errors_have_their_codes",
    "a_hidden_table_looks_like_no_table",
    "cancel_stops_the_query_and_frees_its_slot",
    "a_partition_is_read_on_another_connection",
    "default_message_limit_is_enough",
    "many_callers_at_once",
    "ingest_appends",
    "ingest_again_counts_once",
    "ingest_makes_and_replaces_no_table",
    "ingest_forces_the_tenant",
    "ingest_needs_its_scope",
    "ingest_of_an_operator_names_each_tenant",
];

/// pyarrow.flight, message by message.
const FLIGHT: &[&str] = &[
    "handshake_with_a_bearer",
    "handshake_lets_the_client_speak_first",
    "handshake_with_a_password",
    "handshake_takes_unpadded_base64",
    "header_scheme_has_no_case",
    "two_tokens_are_no_token",
    "every_call_needs_a_token",
    "all_schemas_of_a_query_are_one",
    "all_schemas_of_a_command_are_one",
    "only_safe_types_are_sent",
    "one_endpoint_without_a_place",
    "a_ticket_is_bound_to_its_tenant",
    "tampered_tickets_are_refused",
    "order_is_announced",
    "zero_rows_have_a_schema",
    "messages_fit_default_clients",
    "a_row_beyond_the_limit_is_said_so",
    "cancelling_needs_the_owner",
    "unspecified_ingest_is_refused",
    "transactions_are_unsupported",
    "rubbish_gets_a_status",
    "actions_are_listed",
];

/// Prepared statements.
const PREPARED: &[&str] = &[
    "parameters_are_described",
    "bound_parameters_of_any_type_are_cast",
    "unbound_parameters_are_refused",
    "the_old_handle_is_never_silently_wrong",
    "many_rows_are_bound_loudly_or_fully",
    "handles_live_without_their_connection",
    "tampered_handles_are_refused",
    "closing_is_idempotent",
    "statements_say_whether_they_change_anything",
    "updates_are_forbidden",
];

/// Metadata.
const METADATA: &[&str] = &[
    "sql_info_is_complete",
    "tables_are_filtered",
    "table_schemas_are_encapsulated",
    "keys_are_told",
    "types_are_told",
    "session_options_hold_catalog_and_schema",
    "session_options_never_change_the_tenant",
    "health_of_metadata_commands_for_a_tenant_without_rows",
];

/// The JDBC driver.
const JDBC: &[&str] = &[
    "connects_with_a_token",
    "connects_with_a_password",
    "connects_with_a_catalog",
    "bad_callers_are_refused",
    "parameters_of_the_url_never_change_the_tenant",
    "tenants_are_disjoint",
    "values_come_back_as_sent",
    "order_by_is_kept",
    "zero_rows",
    "big_answers",
    "parameters_of_each_type",
    "prepared_statements_are_used_again",
    "changes_are_refused",
    "batches_are_refused",
    "errors_name_the_fault",
    "cancel_stops_the_query",
    "every_metadata_getter_answers",
    "metadata_tells_the_truth",
    "tables_columns_and_keys",
];

/// Readers of the open lake.
const LAKE: &[&str] = &[
    "tenants_add_up_to_the_lake",
    "values_are_open",
    "partitions_are_utc_days",
    "files_are_sorted_and_say_so",
    "the_log_has_statistics",
    "columns_keep_their_description",
];

/// Real data against pandas.
const FLIGHTS: &[&str] = &[
    "all_flights_are_loaded",
    "loading_again_adds_nothing",
    "flights_per_carrier",
    "a_carrier_sees_no_other",
    "mean_delays",
    "months",
    "busiest_destinations",
    "cancelled_flights_have_no_times",
    "hours_are_utc",
    "the_lake_holds_the_same",
];

/// TLS and mutual TLS.
const TLS: &[&str] = &[
    "a_trusting_client_connects",
    "a_wrong_authority_is_refused",
    "plain_text_is_refused",
    "versions_and_protocol",
    "a_known_client_connects",
    "unknown_clients_are_refused",
];
