//! A test of ingest beside another program that rewrites the files of the table. No row may be lost or stored twice.

use serde_json::json;

use crate::client_suite::run_python;
use crate::requirements::needs;
use crate::senders::{EVENTS, Load, body, post};
use crate::server::{Server, Setup};

/// The tenants of the senders.
const TENANTS: [&str; 2] = ["acme", "globex"];
/// The number of batches of each sender that are sent again.
const RESENT: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_program_rewrites_files_during_ingest() {
    needs!(Python);
    let lake = tempfile::tempdir().unwrap();
    let lake = Some(lake.path().display().to_string());
    // The window of the first server is so small that most events that are sent again have to be looked up in files.
    let small = vec![("INGEST__DEDUPE_IDS_MAX".to_owned(), "150".to_owned())];
    let servers = [
        Server::start(&Setup { lake: lake.clone(), settings: small, ..Setup::default() }),
        Server::start(&Setup { lake, ..Setup::default() }),
    ];
    let mut load = Load::start(&servers[0], &TENANTS, 1);
    load.wait_for_batches(2 * RESENT as u64 * TENANTS.len() as u64).await;
    let facts = servers[0].write_facts(&servers[0].facts());
    let rewriting = tokio::task::spawn_blocking(move || {
        run_python("compact_suite.py", &facts, &["files_are_rewritten_beside_ingest"]);
    });
    let mut rounds = 0;
    while !rewriting.is_finished() || rounds == 0 {
        rounds += 1;
        for tenant in TENANTS {
            for batch in 0..RESENT {
                let again = body(&format!("{tenant}-0"), batch);
                let (status, _, receipt) = post(&servers[rounds % 2], tenant, again).await;
                assert_eq!((status, &receipt["duplicate"]), (200, &json!(EVENTS)), "round {rounds}: {receipt}");
            }
        }
    }
    rewriting.await.unwrap();
    let sent = load.end().await;

    let mut facts = servers[0].facts();
    facts["flights"] = json!([servers[0].flight, servers[1].flight]);
    facts["sent"] = json!(sent);
    let once = ["sql_counts_each_event_once", "the_lake_holds_each_event_once"];
    run_python("once_suite.py", &servers[0].write_facts(&facts), &once);
    for server in servers {
        assert!(!server.logged("panicked"), "a task panicked");
        assert!(server.stop(), "a server did not stop cleanly on SIGTERM");
    }
}
