//! Compares the results of the 22 TPC-H queries with those of DuckDB. The queries run as two tenants with different
//! rows, and with 1 partition, 2 partitions, and one partition per core.
//!
//! `tests/clients/tpch_suite.py` generates and loads the data, runs the queries and compares the results.
//! `tests/clients/tpch.toml` declares the tables. `GLASSHOUSE_TPCH_SCALE=0.1` selects another scale, and `--nocapture`
//! shows the times of the queries.

use std::path::Path;

use serde_json::json;

use crate::client_suite::{python, run, script};
use crate::requirements::needs;
use crate::server::{Server, Setup};

/// The default scale, at which the tables have 86,805 rows.
const SCALE: f64 = 0.01;

/// The check that loads the data. It must run before all others.
const LOAD: &str = "load";

/// Checks of the data and of all queries.
const QUERIES: [&str; 3] = ["tenants_have_their_own_rows", "all_queries_over_doubles", "all_queries_over_decimals"];

#[test]
fn all_queries_equal_duckdb() {
    needs!(Python);
    let scale = std::env::var_os("GLASSHOUSE_TPCH_SCALE");
    let scale = scale.map_or(SCALE, |scale| scale.into_string().unwrap().parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().display().to_string();
    let start = |partitions: &str| {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/tpch.toml");
        let settings = vec![("QUERY__PARTITIONS".to_owned(), partitions.to_owned())];
        Server::start(&Setup { lake: Some(lake.clone()), config: Some(config), settings, ..Setup::default() })
    };
    for (partitions, loads) in [("1", true), ("2", false), ("0", false)] {
        let server = start(partitions);
        let mut facts = server.facts();
        facts["scale"] = json!(scale);
        let facts = server.write_facts(&facts);
        println!("{partitions} partitions (0 means one per core):");
        let mut expected = QUERIES.to_vec();
        if loads {
            expected.insert(0, LOAD);
        }
        let mut suite = python();
        suite.arg(script("tpch_suite.py")).arg(facts).args(&expected);
        run(&mut suite, "tpch_suite.py", &expected);
        assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    }
}
