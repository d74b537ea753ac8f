//! Tests of merges by a running server and by `glasshouse compact`, beside ingest and queries. No row may be lost or
//! stored twice, and no answer may change.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::cli::{client, outcome};
use crate::client_suite::run_python;
use crate::requirements::needs;
use crate::senders::{Load, body, post};
use crate::server::{Server, Setup, until_async};

/// The number of times that the test kills a process that merges files.
const CRASHES: u64 = 20;
const TENANTS: [&str; 2] = ["acme", "globex"];

/// Questions whose answers must not change when files are merged.
const QUESTIONS: [&str; 5] = [
    "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM samples",
    "SELECT id FROM samples WHERE id LIKE '%-3-77' ORDER BY id",
    "SELECT date_trunc('minute', at) AS minute, count(*) FROM samples GROUP BY 1 ORDER BY 1",
    "SELECT id, at FROM samples ORDER BY at DESC, id LIMIT 10",
    "SELECT * FROM samples WHERE id LIKE '%-0-5' ORDER BY id",
];

/// Starts `glasshouse compact` with the configuration of a server.
fn compact(server: &Server, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_glasshouse"))
        .arg("--config")
        .arg(server.config())
        .arg("compact")
        .args(args)
        .env("GLASSHOUSE__MAINTENANCE__LEASE_TIME_MAX", "1s")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the state of a table's maintenance.
async fn state(server: &Server, table: &str) -> Value {
    let (status, text) = server.get("admin", "/v1/maintenance").await;
    assert_eq!(status, 200, "{text}");
    let state: Value = serde_json::from_str(&text).unwrap();
    state["tables"].as_array().unwrap().iter().find(|found| found["table"] == table).unwrap().clone()
}

fn files(state: &Value) -> Vec<u64> {
    state["levels"].as_array().unwrap().iter().map(|level| level["files"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_merges_files_and_answers_stay_the_same() {
    let server = Server::start(&Setup::default());
    for batch in 0..50 {
        for tenant in TENANTS {
            let (status, _, receipt) = post(&server, tenant, body(&format!("{tenant}-0"), batch)).await;
            assert_eq!(status, 200, "{receipt}");
        }
    }
    let ask = || {
        let asked = TENANTS.iter().flat_map(|tenant| QUESTIONS.iter().map(|sql| server.ask(tenant, sql).unwrap()));
        asked.collect::<Vec<String>>()
    };
    let (before, levels) = (ask(), files(&state(&server, "samples").await));
    assert_eq!((levels[0] > 48, levels[1]), (true, 0), "{levels:?}");
    until_async("the server merges the files", async || files(&state(&server, "samples").await)[1] > 0).await;
    assert_eq!(ask(), before, "after the first merge");
    assert!(server.metric("glasshouse_merges_total{table=\"samples\",outcome=\"merged\"}").await >= 1.0);

    let paused = client(&server, "admin", &["maintenance", "pause"]);
    assert!(outcome(&paused).1.starts_with("merges are paused"), "{paused:?}");
    let shown = client(&server, "admin", &["tables", "--health"]);
    assert!(outcome(&shown).1.contains("samples_quarantine"), "{shown:?}");
    for caller in ["acme", "globex"] {
        let (succeeded, _) = outcome(&client(&server, caller, &["maintenance", "pause"]));
        assert!(!succeeded, "a tenant cannot pause merges");
        assert_eq!(server.get(caller, "/v1/maintenance").await.0, 403);
    }
    // The command merges the files of a running server whose own merges are paused.
    let preview = compact(&server, &["samples", "--today", "--dry-run"]).wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&preview.stdout).contains("merges are due first"), "{preview:?}");
    let done = compact(&server, &["--today"]).wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    until_async("the server sees one file", async || files(&state(&server, "samples").await)[..3] == [0, 0, 0]).await;
    assert_eq!(ask(), before, "after all merges");
    assert!(outcome(&client(&server, "admin", &["maintenance", "resume"])).0);
    let (status, _, receipt) = post(&server, "acme", body("acme-0", 3)).await;
    assert_eq!((status, receipt["duplicate"].as_u64()), (200, Some(100)), "{receipt}");
    assert!(!server.logged("panicked"));
    assert!(server.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_merges_lose_nothing() {
    needs!(Python);
    let quick = vec![("MAINTENANCE__LEASE_TIME_MAX".to_owned(), "1s".to_owned())];
    let server = Server::start(&Setup { settings: quick, ..Setup::default() });
    let mut load = Load::start(&server, &TENANTS, 1);
    for crash in 0..CRASHES {
        let mut process = compact(&server, &["--today"]);
        // Wait for a different number of batches in each round, so that the process dies at different points of a merge.
        load.wait_for_batches(2 + crash * 7 % 20).await;
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let sent = load.end().await;
    let done = compact(&server, &["--today"]).wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    until_async("all files are merged", async || files(&state(&server, "samples").await)[..3] == [0, 0, 0]).await;
    let mut facts = server.facts();
    facts["flights"] = json!([server.flight]);
    facts["sent"] = json!(sent);
    let once = ["sql_counts_each_event_once", "the_lake_holds_each_event_once"];
    run_python("once_suite.py", &server.write_facts(&facts), &once);
    assert!(!server.logged("panicked"));
    assert!(server.stop());
}
