//! Compares query results with those of PostgreSQL: the server and PostgreSQL run the same generated queries.
//!
//! `tests/clients/postgres_oracle_suite.py` generates the queries and compares the results. This file starts two
//! servers over one lake, because the result of a query must not depend on the number of partitions in its plan.

use crate::client_suite::{run_python, script};
use crate::requirements::needs;
use crate::server::{Server, Setup};

const CHECKS: &[&str] = &[
    "answers_equal_those_of_postgresql",
    "answers_with_one_partition_are_the_same",
    "few_questions_are_refused",
    "questions_are_well_formed",
    "differences_are_documented",
    "examples_still_differ",
    "rows_of_other_tenants_never_show",
];

#[test]
fn answers_equal_those_of_postgresql() {
    needs!(Python, Postgres);
    let lake = tempfile::tempdir().unwrap();
    let start = |settings: &[(&str, &str)]| {
        Server::start(&Setup {
            config: Some(script("oracle/glasshouse.toml")),
            lake: Some(lake.path().display().to_string()),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Setup::default()
        })
    };
    let server = start(&[]);
    // A batch has two rows, so each table consists of several batches.
    let single = start(&[("QUERY__PARTITIONS", "1"), ("QUERY__BATCH_ROWS", "2")]);
    let mut facts = server.facts();
    facts["single"] = single.flight.clone().into();
    run_python("postgres_oracle_suite.py", &server.write_facts(&facts), CHECKS);
}
