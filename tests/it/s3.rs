//! The lake on an S3 server: two servers write to one bucket, whose conditional puts decide who commits first.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::senders::Sender;
use crate::server::{Server, Setup, wait_for};
use crate::suite::{python, run_python, script};

/// The bucket.
const BUCKET: &str = "glasshouse-tests";
/// Acknowledged batches after which the senders stop.
const BATCHES: usize = 60;

/// An S3 server of the suites' environment. It ends with its value.
struct Store {
    child: Child,
    options: Value,
    _folder: TempDir,
}

impl Store {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let mut command = python();
        command.arg(script("s3_server.py")).arg(&ready).arg(BUCKET);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let options = wait_for(&ready, &mut child, || "see the messages of s3_server.py above".to_owned());
        Self { child, options, _folder: folder }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_share_a_bucket() {
    let store = Store::start();
    let setup =
        Setup { lake: Some(format!("s3://{BUCKET}/lake")), lake_options: store.options.clone(), ..Setup::default() };
    // One after the other: the first makes the tables, the second finds them.
    let servers = [Server::start(&setup), Server::start(&setup)];
    let token = servers[0].facts()["tokens"]["acme"].as_str().unwrap().to_owned();
    let (acknowledged, mut acknowledgements) = mpsc::channel(4);
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    let mut addresses = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let (announce, address) = watch::channel(Some(server.http.clone()));
        addresses.push(announce);
        for line in 0..2 {
            let sender = Sender {
                prefix: format!("acme-{number}{line}"),
                token: token.clone(),
                address: address.clone(),
                acknowledged: acknowledged.clone(),
                stop: stop.clone(),
            };
            senders.spawn(sender.run());
        }
    }
    for _ in 0..BATCHES {
        acknowledgements.recv().await.expect("senders go on until they are stopped");
    }
    stop.store(true, Ordering::Relaxed);
    drop(acknowledgements);
    let sent: Vec<Value> = senders.join_all().await;

    let mut facts = servers[0].facts();
    facts["flights"] = json!([servers[0].flight, servers[1].flight]);
    facts["storage_options"] = store.options.clone();
    facts["sent"] = json!(sent);
    run_python("once_suite.py", &servers[0].write_facts(&facts), &["sql_counts_each_once", "the_lake_holds_each_once"]);
    for server in servers {
        assert!(server.stop(), "the server should stop by itself when asked");
    }
}
