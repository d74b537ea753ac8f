//! Runs the statements of BI tools in `tests/sql/bi_*.slt` through two versions of the JDBC driver.
//!
//! `sql.rs` checks the results of these statements. This test checks that the driver can execute each statement,
//! directly and as a prepared statement, and that each statement returns the expected number of rows.

use std::fs;

use serde_json::json;

use crate::client_suite::{jdbc, run};
use crate::requirements::needs;
use crate::server::{Server, Setup};

/// The configuration of the server, in addition to the tables of `tests/sql`.
const SERVER: &str = r#"
[ingest]
batch_age_max = "20ms"

[auth.issuers.tests]
issuer = "https://issuer.test"
audience = "glasshouse"
algorithms = ["HS256"]
operators = ["loader"]
"#;

/// The statement files. The suite has a check for each file.
const FILES: &[&str] =
    &["bi_excel", "bi_grafana", "bi_looker", "bi_metabase", "bi_power_bi", "bi_probes", "bi_superset", "bi_tableau"];

#[tokio::test]
async fn statements_of_bi_tools_run_through_jdbc() {
    needs!(Jdbc);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("glasshouse.toml");
    fs::write(&config, [include_str!("../sql/tables.toml"), SERVER].concat()).unwrap();
    for (file, rows) in
        [("regions.csv", include_str!("../sql/regions.csv")), ("rates.csv", include_str!("../sql/rates.csv"))]
    {
        fs::write(folder.path().join(file), rows).unwrap();
    }
    let server = Server::start(&Setup { config: Some(config), ..Setup::default() });
    let events = [
        ("calls", include_str!("../sql/calls.ndjson")),
        ("leases", include_str!("../sql/leases.ndjson")),
        ("orders", include_str!("../sql/orders.ndjson")),
    ];
    for (table, events) in events {
        let url = format!("http://{}/v1/tables/{table}/events", server.http);
        let request = reqwest::Client::new().post(url).bearer_auth(server.token("operator"));
        let response = request.header("content-type", "application/x-ndjson").body(events).send().await.unwrap();
        assert!(response.status().is_success(), "{table}: {}", response.text().await.unwrap());
    }
    let mut facts = server.facts();
    facts["statements"] = json!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sql"));
    let facts = server.write_facts(&facts);
    for version in ["18.3.0", "17.0.0"] {
        run(jdbc("StatementFiles", version, "UTC").arg(&facts), &format!("BI statements with JDBC {version}"), FILES);
    }
}
