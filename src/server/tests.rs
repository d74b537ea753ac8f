//! Tests in which background tasks of a complete server panic. The log and `/readyz` must name the task, and either the
//! task must be restarted or the server must shut down gracefully. No acknowledged event may be lost.

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use tempfile::TempDir;
use tokio::time::MissedTickBehavior;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::tenancy::{DevelopmentToken, Scope};

/// The time limit for each wait. If a test hangs, it fails after this time instead of blocking the test suite.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A configuration that declares a table, a lookup table, and a source whose brokers are unreachable.
const CONFIG: &str = r#"
[tables.calls]
tenant = "tenant_id"
time = "event_time"
id = "event_id"
columns = { tenant_id = "text", event_time = "timestamp", event_id = "text" }

[policy.calls]

[lookups.places]
file = "places.csv"
refresh = "1h"

[sources.voice]
kind = "kafka"
brokers = ["127.0.0.1:1"]
topics = ["calls"]
group = "glasshouse"
table = "calls"
tenant = { value = "acme" }

[ingest]
batch_age_max = "10ms"

[lake]
url = "lake"

[flight]
listen = "127.0.0.1:0"

[http]
listen = "127.0.0.1:0"

[shutdown]
time_max = "20s"

[auth.issuers.dev]
issuer = "https://issuer.test"
audience = "glasshouse"
algorithms = ["HS256"]
secret = "a secret of at least thirty-two bytes"
operators = ["ops"]
"#;

/// A log in memory, which tests can read.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Returns the number of error lines that contain `words`.
    fn errors(&self, words: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains("ERROR") && line.contains(words)).count()
    }
}

/// A running server that stores its lake in a folder.
struct Running {
    supervisor: Supervisor,
    metrics: Arc<Metrics>,
    http: String,
    token: String,
    stop: CancellationToken,
    task: JoinSet<Result<()>>,
}

impl Running {
    async fn start(folder: &Path) -> Self {
        Self::start_with(folder, CONFIG).await
    }

    async fn start_with(folder: &Path, config: &str) -> Self {
        std::fs::create_dir_all(folder.join("lake")).unwrap();
        std::fs::write(folder.join("places.csv"), "id,city\n1,Lima\n").unwrap();
        let config = Config::parse(config, "test", folder, std::iter::empty()).unwrap();
        let mint = DevelopmentToken {
            issuer: String::new(),
            tenant: Some("acme".to_owned()),
            subject: "user".to_owned(),
            scopes: vec![Scope::Ingest],
            age: Duration::from_secs(600),
            claims: serde_json::Map::new(),
        };
        let token = mint.sign(&config.auth, &Clock::System).unwrap();
        let server = Server::build(config, Clock::System).await.unwrap();
        let (supervisor, metrics) = (server.supervisor.clone(), server.http.1.metrics.clone());
        let http = server.addresses().unwrap().1.to_string();
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        task.spawn(server.run(stop.clone()));
        Self { supervisor, metrics, http, token, stop, task }
    }

    /// Sends events with `ack=received`, so that they are acknowledged before they are stored.
    async fn send(&self, ids: std::ops::Range<u32>) {
        let line = |id| format!("{{\"event_id\":\"{id}\",\"event_time\":\"2026-03-01T12:00:00Z\"}}\n");
        let url = format!("http://{}/v1/tables/calls/events?ack=received", self.http);
        let request = client().post(url).bearer_auth(&self.token).header("content-type", "application/x-ndjson");
        let response = request.body(ids.map(line).collect::<String>()).send().await.unwrap();
        assert_eq!(response.status(), 202);
    }

    /// Returns the status and the body of `/readyz`.
    async fn ready(&self) -> (u16, String) {
        let response = client().get(format!("http://{}/readyz", self.http)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Waits until `/readyz` returns the given status and a body that contains `words`.
    async fn until_ready_is(&self, status: u16, words: &str) {
        let (begun, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(5)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (actual, body) = self.ready().await;
            if actual == status && body.contains(words) {
                return;
            }
            assert!(begun.elapsed() < TIMEOUT, "expected status {status} with {words}, got {actual}: {body}");
            ticks.tick().await;
        }
    }

    fn has_metric(&self, prefix: &str) -> bool {
        self.metrics.render().lines().any(|line| line.starts_with(prefix))
    }

    async fn ends(&mut self) -> Result<()> {
        tokio::time::timeout(TIMEOUT, self.task.join_next()).await.unwrap().unwrap().unwrap()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Opens the table as a newly started process does, and returns the number of events in it.
async fn stored(folder: &Path) -> u64 {
    let config = Config::parse(CONFIG, "test", folder, std::iter::empty()).unwrap();
    let store = Store::open(&config.lake).unwrap();
    let tables = open_tables(&store, contracts(&config).unwrap(), &config).await.unwrap();
    tables["calls"].snapshot().rows()
}

/// Captures the log of the current thread, on which all tasks of the test run.
fn capture_log() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    (log, tracing::subscriber::set_default(lines))
}

#[tokio::test]
async fn a_background_task_that_panics_is_restarted_without_losing_events() {
    let (folder, (log, _listening)) = (TempDir::new().unwrap(), capture_log());
    let mut server = Running::start(folder.path()).await;
    server.until_ready_is(200, "").await;
    let kinds = [
        (TaskKind::Committer, "calls"),
        (TaskKind::Committer, "calls_quarantine"),
        (TaskKind::Maintenance, "calls"),
        (TaskKind::Acknowledged, "calls"),
        (TaskKind::Source, "voice"),
        (TaskKind::LookupTable, "places"),
        (TaskKind::Follower, "calls"),
    ];
    let mut sent = 0..0;
    for (kind, name) in kinds {
        let task = Task::new(kind, name);
        server.supervisor.failpoints.arm(&task);
        sent = sent.end..sent.end + 10;
        server.send(sent.clone()).await;
        server.until_ready_is(503, &task.to_string()).await;
        sent = sent.end..sent.end + 10;
        server.send(sent.clone()).await;
        server.supervisor.failpoints.disarm(&task);
        server.until_ready_is(200, "").await;
        assert!(log.errors(&format!("{task}")) >= 1, "the log does not name the {task}");
        assert!(log.errors(&format!("a test makes the {task} panic")) >= 1, "the log does not contain the cause");
        for counter in ["panics", "restarts"] {
            let line = format!("glasshouse_task_{counter}_total{{task=\"{}\"}}", kind.as_str());
            assert!(server.has_metric(&line), "the metrics do not contain {line}");
        }
    }
    server.stop.cancel();
    server.ends().await.unwrap();
    assert_eq!(stored(folder.path()).await, u64::from(sent.end), "each event must be stored once");
}

#[tokio::test]
async fn an_endpoint_that_panics_stops_the_server_in_order() {
    for endpoint in ["http", "flight"] {
        let (folder, (log, _listening)) = (TempDir::new().unwrap(), capture_log());
        let mut server = Running::start(folder.path()).await;
        server.send(0..25).await;
        let task = Task::new(TaskKind::Endpoint, endpoint);
        server.supervisor.failpoints.arm(&task);
        let error = server.ends().await.unwrap_err();
        assert!(error.message().contains(&task.to_string()), "{error}");
        assert_eq!(log.errors(&format!("a test makes the {task} panic")), 1, "the panic must be logged once");
        assert_eq!(server.supervisor.down_tasks(), [format!("the {task} panicked and has ended")]);
        assert_eq!(stored(folder.path()).await, 25);
    }
}

#[tokio::test]
async fn a_committer_that_keeps_panicking_does_not_block_a_shutdown() {
    let (folder, (log, _listening)) = (TempDir::new().unwrap(), capture_log());
    let mut server = Running::start_with(folder.path(), &CONFIG.replace("20s", "3s")).await;
    let task = Task::new(TaskKind::Committer, "calls");
    server.supervisor.failpoints.arm(&task);
    server.until_ready_is(503, &task.to_string()).await;
    server.send(0..25).await;
    server.stop.cancel();
    let error = server.ends().await.unwrap_err();
    assert!(error.message().contains("shutdown.time_max"), "{error}");
    assert_eq!(log.errors("acknowledged events are lost"), 1);
    assert_eq!(stored(folder.path()).await, 0);
}
