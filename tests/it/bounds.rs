//! Tests the limits of statements. A hostile tenant runs hundreds of statements, while the suite checks that the server
//! does not crash and still serves another tenant.
//!
//! The statements are in `tests/clients/hostile_statements.py` and `hostile_syntax.py`, and the checks in
//! `bounds_suite.py`. The server has small limits, so that the statements reach them quickly.

use serde_json::json;

use crate::client_suite::run_python;
use crate::requirements::needs;
use crate::server::{Server, Setup};

/// The time limit of a query in seconds.
const TIME_SECONDS_MAX: u64 = 1;
/// The memory limit of a query in MiB.
const MEMORY_MIB_MAX: u64 = 256;
/// The number of queries that the hostile tenant may run at the same time. The suite opens as many connections.
const QUERIES_MAX: usize = 4;

/// The checks, in order. The first ones run hostile statements, and the others evaluate the measurements.
const BOUNDS: &[&str] = &[
    "load",
    "a_slow_reader_gets_all_rows_or_an_error",
    "named_limits_refuse_statements",
    "other_statements_return_rows_or_exceed_a_limit",
    "many_prepared_statements_fit_into_memory",
    "many_rows_of_parameters_end",
    "no_work_is_left",
    "statements_end_in_time",
    "the_other_tenant_is_served",
    "memory_stays_within_the_limits",
    "the_server_still_answers",
];

#[test]
fn hostile_statements_neither_stop_nor_freeze_the_server() {
    needs!(Python);
    let setting = |key: &str, value: String| (key.to_owned(), value);
    let settings = vec![
        setting("QUERY__TIME_MAX", format!("{TIME_SECONDS_MAX}s")),
        setting("QUERY__MEMORY_BYTES_MAX", format!("{MEMORY_MIB_MAX} MiB")),
        setting("QUERY__TENANT_QUERIES_MAX", QUERIES_MAX.to_string()),
    ];
    let server = Server::start(&Setup { settings, ..Setup::default() });
    let mut facts = server.facts();
    facts["pid"] = json!(server.id());
    facts["time_seconds_max"] = json!(TIME_SECONDS_MAX);
    facts["memory_bytes_max"] = json!(MEMORY_MIB_MAX << 20);
    facts["tenant_queries_max"] = json!(QUERIES_MAX);
    run_python("bounds_suite.py", &server.write_facts(&facts), BOUNDS);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
