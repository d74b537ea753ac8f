//! A crash test that kills the server twenty times during ingest. At the end, every acknowledged event must be stored
//! exactly once, with its values.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client_suite::{run_python, script};
use crate::requirements::needs;
use crate::senders::{Sender, TYPED_COLUMNS, typed_body};
use crate::server::{Server, Setup};

/// The number of times that the test kills the server.
const CRASHES: u64 = 20;
/// The number of concurrent senders.
const SENDERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_survive_kills_during_ingest() {
    needs!(Python);
    let (lake, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = fs::read_to_string(script("glasshouse.toml")).unwrap();
    let columns = "[tables.samples.columns]\n";
    let path = folder.path().join("glasshouse.toml");
    fs::write(&path, config.replace(columns, &format!("{columns}{TYPED_COLUMNS}"))).unwrap();
    let setup = Setup { lake: Some(lake.path().display().to_string()), config: Some(path), ..Setup::default() };
    let (announce, address) = watch::channel(None);
    let (acknowledged, mut acknowledgements) = mpsc::channel(SENDERS);
    let stop = Arc::new(AtomicBool::new(false));
    let mut server = Server::start(&setup);
    let token = server.facts()["tokens"]["acme"].as_str().unwrap().to_owned();
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let sender = Sender {
            prefix: format!("acme-{number}"),
            body: typed_body,
            token: token.clone(),
            address: address.clone(),
            acknowledged: acknowledged.clone(),
            stop: stop.clone(),
        };
        senders.spawn(sender.run());
    }
    for crash in 0..CRASHES {
        announce.send_replace(Some(server.http.clone()));
        for _ in 0..=crash % 5 * SENDERS as u64 {
            acknowledgements.recv().await.expect("senders continue until they are stopped");
        }
        // Pause for a different time in each round, so the crashes hit different points in the processing of a batch.
        tokio::time::sleep(Duration::from_micros(crash * 7_919 % 40_000)).await;
        announce.send_replace(None);
        server.kill();
        server = Server::start(&setup);
    }
    announce.send_replace(Some(server.http.clone()));
    stop.store(true, Ordering::Relaxed);
    drop(acknowledgements);
    let sent: Vec<Value> = senders.join_all().await;

    let mut facts = server.facts();
    facts["flights"] = json!([server.flight]);
    facts["sent"] = json!(sent);
    facts["typed"] = json!(true);
    run_python(
        "once_suite.py",
        &server.write_facts(&facts),
        &["sql_counts_each_event_once", "the_lake_holds_each_event_once"],
    );
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
