//! The lake on an S3 server: two servers write to one bucket, whose conditional puts decide who commits first; and the S3
//! server hangs, or dies and comes back.

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

use crate::needs::needs;
use crate::ports::free_ports;
use crate::senders::{EVENTS, Load, Sender, body, post};
use crate::server::{Server, Setup, until_it, wait_for};
use crate::suite::{python, run_python, script};

/// The bucket.
const BUCKET: &str = "glasshouse-tests";
/// Acknowledged batches after which the senders stop.
const BATCHES: usize = 60;
/// Acknowledged batches that show that all goes on.
const PASSES: u64 = 16;
/// How long the store hangs.
const HANG: Duration = Duration::from_secs(60);
/// Failed attempts to store that show that the server tries on.
const FAILURES: f64 = 4.0;
/// Room for the events that wait for a commit, in bytes: little, so that senders fill it.
const QUEUE_BYTES_MAX: &str = "65536";
/// The metric that counts failed attempts.
const FAILED: &str = "glasshouse_commit_failures_total{table=\"samples\"}";
/// Where they are sent to.
const ROUTE: &str = "/v1/tables/{table}/events";
/// Whose events are sent.
const TENANTS: [&str; 2] = ["acme", "globex"];
/// In front of the ids of one batch, which is sent by hand.
const PROBE: &str = "initech-probe";
/// How often the store dies.
const DEATHS: usize = 3;

/// An S3 server of the suites' environment. It ends with its value.
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

    /// It takes connections and answers nothing, until it is told to go on.
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Ends it without a warning.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was, with what it has kept.
    fn restart(&mut self) {
        let endpoint = self.options["aws_endpoint"].as_str().expect("it told where it answers");
        let port = endpoint.rsplit(':').next().expect("an address has a port");
        let (child, options) = serve(&self.folder, port);
        assert_eq!(options, self.options);
        self.child = child;
    }

    /// A server with its lake in the bucket. It gives up early, so that a test sees it more than once; and it commits
    /// seldom, since the S3 server answers one request at a time, and a query asks it for every file.
    fn setup(&self) -> Setup {
        let settings = [
            ("LAKE__REQUEST_TIME_MAX", "2s"),
            ("LAKE__REQUEST_RETRIES_MAX", "1"),
            ("INGEST__COMMIT_ATTEMPTS_MAX", "2"),
            ("INGEST__BATCH_AGE_MAX", "1s"),
            ("HTTP__REQUEST_TIME_MAX", "5s"),
            ("QUERY__TIME_MAX", "20s"),
        ];
        Setup {
            lake: Some(format!("s3://{BUCKET}/lake")),
            lake_options: self.options.clone(),
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Setup::default()
        }
    }
}

/// Runs the script until it answers.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_for_a_minute_costs_time_only() {
    needs!(Python);
    let store = Store::start();
    let mut setup = store.setup();
    setup.settings.push(("INGEST__QUEUE_BYTES_MAX".to_owned(), QUEUE_BYTES_MAX.to_owned()));
    let server = Server::start(&setup);
    let mut load = Load::start(&server, &TENANTS, 4);
    load.passes(PASSES).await;
    assert!(server.ask("acme", COUNT).is_ok());

    store.signal("-STOP");
    let (hung, mut told) = (Instant::now(), BTreeSet::new());
    until_it("a minute is over, and all has failed that should", async || {
        // Each of these ends by a limit of its own, whatever the store does.
        told.insert(post(&server, "initech", body(PROBE, 0)).await.0);
        let refusal = server.ask("acme", COUNT).expect_err("nothing can be read");
        assert!(refusal.contains("query.time_max") || refusal.contains("cannot be read now: retry"), "{refusal}");
        let queued = server.metric("glasshouse_ingest_queue_bytes").await;
        assert!(queued <= QUEUE_BYTES_MAX.parse().unwrap(), "{queued} bytes wait");
        let mut seen = vec![hung.elapsed() >= HANG, server.metric(FAILED).await >= FAILURES];
        for status in [429, 503] {
            let line = format!("glasshouse_http_requests_total{{route=\"{ROUTE}\",status=\"{status}\"");
            seen.push(server.metric(&line).await > 0.0);
        }
        seen.into_iter().all(|seen| seen)
    })
    .await;
    assert!(told.is_subset(&BTreeSet::from([429, 503])), "nothing is acknowledged, or refused for good: {told:?}");
    assert_eq!(server.get("reader", "/healthz").await.0, 200);

    store.signal("-CONT");
    goes_on(&server, &mut load).await;
    counted_once(server, load, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_and_comes_back_costs_time_only() {
    needs!(Python);
    let mut store = Store::start();
    let server = Server::start(&store.setup());
    let mut load = Load::start(&server, &TENANTS, 2);
    for death in 1..=DEATHS {
        load.passes(PASSES).await;
        store.kill();
        let before = server.metric(FAILED).await;
        until_it("attempts fail", async || server.metric(FAILED).await >= before + FAILURES).await;
        let refusal = server.ask("acme", COUNT).expect_err("nothing can be read");
        assert!(refusal.contains("cannot be read now: retry"), "death {death}: {refusal}");
        assert_eq!(post(&server, "initech", body(PROBE, 0)).await.0, 503, "death {death}");
        store.restart();
    }
    goes_on(&server, &mut load).await;
    counted_once(server, load, &store).await;
}

/// What reads every file of a tenant.
const COUNT: &str = "SELECT count(DISTINCT id) FROM samples";

/// All is taken and answered again, without anybody's help: the same statement, and the same events.
async fn goes_on(server: &Server, load: &mut Load) {
    load.passes(PASSES).await;
    until_it("queries are answered", async || server.ask("acme", COUNT).is_ok()).await;
    until_it("the batch is stored", async || post(server, "initech", body(PROBE, 0)).await.0 == 200).await;
}

/// Ends the load and the server: what was acknowledged is stored, each event once.
async fn counted_once(server: Server, load: Load, store: &Store) {
    let mut sent = load.end().await;
    sent.push(json!({ "prefix": PROBE, "batches": 1, "events": EVENTS }));
    let mut facts = server.facts();
    facts["flights"] = json!([server.flight]);
    facts["storage_options"] = store.options.clone();
    facts["sent"] = json!(sent);
    run_python("once_suite.py", &server.write_facts(&facts), &["sql_counts_each_once", "the_lake_holds_each_once"]);
    assert!(server.stop(), "the server should stop by itself when asked");
}
