//! Tests of lookup tables with a hostile tenant, which tries to read the rows of another tenant over ADBC.
//!
//! `tests/clients/lookup_suite.py` contains the statements. The log is checked too: a failed refresh must not log a row.

use std::fmt::Write as _;
use std::fs;

use crate::client_suite::{run_python, script};
use crate::requirements::needs;
use crate::server::{Server, Setup, until};

const CHECKS: &[&str] = &[
    "statements_return_only_own_rows",
    "another_tenant_sees_its_rows",
    "outputs_contain_no_foreign_values",
    "errors_contain_no_foreign_values",
    "bound_values_find_only_own_rows",
    "a_lookup_without_a_policy_looks_absent",
    "lookup_tables_accept_no_events",
];

/// The number of rows of the tenant `globex`, whose values must not be revealed to `acme`.
const FOREIGN_ROWS: usize = 500;

const LOOKUPS: &str = r#"
[lookups.accounts]
file = "accounts.json"
tenant = "owner"
refresh = "1s"
[lookups.accounts.columns]
owner = "text"
account = "text"
plan = "text"
secret = "text"
seats = "int64"
price = "decimal(9, 2)"
ref = "uuid"
opens = "time"
since = "date"
tags = "list<text>"
doc = "json"

[lookups.plans]
file = "plans.csv"
shared = true

[lookups.internal]
file = "plans.csv"

[policy.accounts]

[policy.plans]
"#;

fn accounts() -> String {
    let mut rows = String::new();
    for index in 0..FOREIGN_ROWS {
        if (1..=3).contains(&index) {
            let (plan, tags) = if index == 3 { ("gold", r#"["a","b"]"#) } else { ("basic", r#"["a"]"#) };
            let tags = if index == 1 { "[]" } else { tags };
            writeln!(
                rows,
                r#"{{"owner":"acme","account":"own {index}","plan":"{plan}","secret":"{index}0","seats":{index},"price":{index}.5,"ref":"550e8400-e29b-41d4-a716-44665544000{index}","opens":"0{index}:00","since":"2024-01-0{index}","tags":{tags},"doc":"{{\"k\":\"own\",\"n\":{index},\"a\":[\"own\"]}}"}}"#
            )
            .unwrap();
        }
        writeln!(
            rows,
            r#"{{"owner":"globex","account":"zebra","plan":"zebra","secret":"zebra","seats":777,"price":777.77,"ref":"77777777-7777-7777-7777-777777777777","opens":"23:57","since":"2031-07-07","tags":["zebra","zebra","zebra"],"doc":"{{\"k\":\"zebra\",\"n\":\"zebra\",\"a\":[\"zebra\",777]}}"}}"#
        )
        .unwrap();
    }
    rows
}

#[test]
fn a_tenant_reads_only_its_rows_of_a_lookup_table() {
    needs!(Python);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let config = fs::read_to_string(script("glasshouse.toml")).unwrap();
    write("glasshouse.toml", &format!("{config}{LOOKUPS}"));
    write("accounts.json", &accounts());
    write("plans.csv", "plan,level\nbasic,1\ngold,2\nnone,3\n");
    let server = Server::start(&Setup { config: Some(folder.path().join("glasshouse.toml")), ..Setup::default() });
    run_python("lookup_suite.py", &server.write_facts(&server.facts()), CHECKS);

    for (broken, place) in [
        (
            accounts() + "{\"owner\":\"globex\",\"seats\":\"zebra\"}\n",
            "line 504: the value of column `seats` is not int64",
        ),
        (
            accounts() + "{\"owner\":\"globex\",\"price\":\"777.777\"}\n",
            "row 504: column `price` expects decimal(9, 2)",
        ),
        (accounts() + "{\"owner\":\"globex\",\"ref\":\"zebra\"}\n", "row 504: column `ref` expects uuid"),
        (accounts() + "zebra\n", "not valid JSON: expected value at line 504"),
    ] {
        write("accounts.json", &broken);
        until("the failed refresh is logged", || server.logged(place));
    }
    for telltale in ["zebra", "777", "globex"] {
        assert!(!server.logged(telltale), "the log contains `{telltale}`");
    }
    assert_eq!(server.ask("acme", "SELECT count(*) AS n FROM accounts"), Ok("n\n3".to_owned()));
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
