//! Tests with a lake on an S3 server. In one test, two servers write to the same bucket, and conditional puts determine
//! which server commits first. In other tests, the S3 server hangs, or crashes and restarts.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client_suite::{python, run_python, script};
use crate::ports::free_ports;
use crate::requirements::needs;
use crate::senders::{EVENTS, Load, Sender, body, post};
use crate::server::{Server, Setup, until_async, wait_for};

const BUCKET: &str = "glasshouse-tests";
/// The number of acknowledged batches after which the senders stop.
const BATCHES: usize = 60;
/// The number of acknowledged batches after which the test regards ingest as working.
const WORKING_BATCHES: u64 = 16;
/// The time for which the S3 server hangs.
const HANG: Duration = Duration::from_secs(60);
/// The test waits for this many failed commit attempts, to be sure that the server has retried.
const FAILURES: f64 = 4.0;
/// The limit for the queue of uncommitted events, in bytes. The limit is low, so senders can fill the queue.
const QUEUE_BYTES_MAX: &str = "65536";
/// The metric that counts failed commit attempts.
const FAILED: &str = "glasshouse_commit_failures_total{table=\"samples\"}";
/// The route to which events are sent.
const ROUTE: &str = "/v1/tables/{table}/events";
/// The tenants for which the test sends events continuously.
const TENANTS: [&str; 2] = ["acme", "globex"];
/// The prefix of the event ids in the batch that the test itself sends.
const PROBE: &str = "initech-probe";
/// The number of times that the test kills the S3 server.
const KILLS: usize = 3;

/// An S3 server process. Dropping a `Store` stops the process.
struct Store {
    child: Child,
    options: Value,
    folder: TempDir,
}

impl Store {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [port] = free_ports();
        let (child, options) = serve(&folder, &port.to_string());
        Self { child, options, folder }
    }

    /// Sends a signal to the process. After the signal `-STOP`, the kernel still accepts connections, but the S3 server
    /// does not respond until the signal `-CONT`.
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Kills the process with SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Restarts the process on the same port, with the same data.
    fn restart(&mut self) {
        let endpoint = self.options["aws_endpoint"].as_str().expect("the ready file has the endpoint");
        let port = endpoint.rsplit(':').next().expect("an address has a port");
        let (child, options) = serve(&self.folder, port);
        assert_eq!(options, self.options);
        self.child = child;
    }

    /// Returns the settings of a server with its lake in the bucket. The time limits of the server are short, so a test
    /// observes several failures. The server commits rarely, to keep the number of files small: a query requests every
    /// file, and the S3 server handles one request at a time.
    fn setup(&self) -> Setup {
        let settings = [
            ("LAKE__REQUEST_TIME_MAX", "2s"),
            ("LAKE__REQUEST_RETRIES_MAX", "1"),
            ("INGEST__COMMIT_ATTEMPTS_MAX", "2"),
            ("INGEST__BATCH_AGE_MAX", "1s"),
            ("HTTP__REQUEST_TIME_MAX", "5s"),
            ("QUERY__TIME_MAX", "30s"),
        ];
        Setup {
            lake: Some(format!("s3://{BUCKET}/lake")),
            lake_options: self.options.clone(),
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Setup::default()
        }
    }
}

/// Starts the script and waits until the S3 server is ready.
fn serve(folder: &TempDir, port: &str) -> (Child, Value) {
    let ready = folder.path().join("ready.json");
    let _ = fs::remove_file(&ready);
    let mut command = python();
    command.arg(script("s3_server.py")).arg(&ready).arg(BUCKET).arg(folder.path().join("journal")).arg(port);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let options = wait_for(&ready, &mut child, || "see the messages of s3_server.py above".to_owned());
    (child, options)
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_share_a_bucket() {
    needs!(Python);
    let store = Store::start();
    let setup =
        Setup { lake: Some(format!("s3://{BUCKET}/lake")), lake_options: store.options.clone(), ..Setup::default() };
    // The first server creates the tables, and the second server opens them.
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
                body,
                token: token.clone(),
                address: address.clone(),
                acknowledged: acknowledged.clone(),
                stop: stop.clone(),
            };
            senders.spawn(sender.run());
        }
    }
    for _ in 0..BATCHES {
        acknowledgements.recv().await.expect("senders continue until they are stopped");
    }
    stop.store(true, Ordering::Relaxed);
    drop(acknowledgements);
    let sent: Vec<Value> = senders.join_all().await;

    let mut facts = servers[0].facts();
    facts["flights"] = json!([servers[0].flight, servers[1].flight]);
    facts["storage_options"] = store.options.clone();
    facts["sent"] = json!(sent);
    run_python(
        "once_suite.py",
        &servers[0].write_facts(&facts),
        &["sql_counts_each_event_once", "the_lake_holds_each_event_once"],
    );
    for server in servers {
        assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_for_a_minute_loses_nothing() {
    needs!(Python);
    let store = Store::start();
    let mut setup = store.setup();
    setup.settings.push(("INGEST__QUEUE_BYTES_MAX".to_owned(), QUEUE_BYTES_MAX.to_owned()));
    let server = Server::start(&setup);
    let mut load = Load::start(&server, &TENANTS, 4);
    load.wait_for_batches(WORKING_BATCHES).await;
    assert!(server.ask("acme", COUNT).is_ok());

    store.signal("-STOP");
    let (hung, mut statuses) = (Instant::now(), BTreeSet::new());
    until_async("a minute has passed, and every expected failure was observed", async || {
        // Every request must end within its time limit, although the S3 server does not respond.
        statuses.insert(post(&server, "initech", body(PROBE, 0)).await.0);
        expect_unreadable(&server);
        let queued = server.metric("glasshouse_ingest_queue_bytes").await;
        assert!(queued <= QUEUE_BYTES_MAX.parse().unwrap(), "{queued} bytes are queued");
        let mut seen = vec![hung.elapsed() >= HANG, server.metric(FAILED).await >= FAILURES];
        for status in RETRYABLE {
            let line = format!("glasshouse_http_requests_total{{route=\"{ROUTE}\",status=\"{status}\"");
            seen.push(server.metric(&line).await > 0.0);
        }
        seen.into_iter().all(|seen| seen)
    })
    .await;
    assert!(statuses.is_subset(&BTreeSet::from(RETRYABLE)), "expected only retryable errors: {statuses:?}");
    assert_eq!(server.get("reader", "/healthz").await.0, 200);

    store.signal("-CONT");
    expect_recovery(&server, &mut load).await;
    expect_stored_once(server, load, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_crashes_and_restarts_loses_nothing() {
    needs!(Python);
    let mut store = Store::start();
    let server = Server::start(&store.setup());
    let mut load = Load::start(&server, &TENANTS, 2);
    for kill in 1..=KILLS {
        load.wait_for_batches(WORKING_BATCHES).await;
        store.kill();
        let before = server.metric(FAILED).await;
        until_async("commit attempts fail", async || server.metric(FAILED).await >= before + FAILURES).await;
        expect_unreadable(&server);
        let status = post(&server, "initech", body(PROBE, 0)).await.0;
        assert!(RETRYABLE.contains(&status), "kill {kill}: {status}");
        store.restart();
    }
    expect_recovery(&server, &mut load).await;
    expect_stored_once(server, load, &store).await;
}

/// The possible statuses of a refused request while the store does not work: 429 if too many events are waiting,
/// otherwise 503.
const RETRYABLE: [u16; 2] = [429, 503];

/// Checks that a query fails with an error that names the cause or the time limit. On a busy machine, the attempts to
/// read the store may take longer than the time limit.
fn expect_unreadable(server: &Server) {
    let refusal = server.ask("acme", COUNT).expect_err("the store cannot be read");
    let is_expected = ["query.time_max", "is temporarily unavailable: retry"].iter().any(|text| refusal.contains(text));
    assert!(is_expected, "{refusal}");
}

/// A query that reads every file of a tenant.
const COUNT: &str = "SELECT count(DISTINCT id) FROM samples";

/// Checks that ingest and queries resume without a restart. The statement and the events that were refused during the
/// failure must succeed now.
async fn expect_recovery(server: &Server, load: &mut Load) {
    load.wait_for_batches(WORKING_BATCHES).await;
    until_async("queries succeed", async || server.ask("acme", COUNT).is_ok()).await;
    until_async("the batch is stored", async || post(server, "initech", body(PROBE, 0)).await.0 == 200).await;
}

/// Stops the load, checks that each acknowledged event is stored once, and stops the server.
async fn expect_stored_once(server: Server, load: Load, store: &Store) {
    let mut sent = load.end().await;
    sent.push(json!({ "prefix": PROBE, "batches": 1, "events": EVENTS }));
    let mut facts = server.facts();
    facts["flights"] = json!([server.flight]);
    facts["storage_options"] = store.options.clone();
    facts["sent"] = json!(sent);
    run_python(
        "once_suite.py",
        &server.write_facts(&facts),
        &["sql_counts_each_event_once", "the_lake_holds_each_event_once"],
    );
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
