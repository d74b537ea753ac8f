//! A disk that fills up under a server: senders are told to send again, queries go on, nothing acknowledged is lost, and
//! when there is room again all goes on by itself. Also when the server is killed and started meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::needs::needs;
use crate::senders::{EVENTS, Load, body, post};
use crate::server::{Server, Setup, until_it};
use crate::suite::run_python;

/// A file system of its own in memory, of a fixed size. It ends with its value.
///
/// It is mounted in a mount namespace of its own, by root or by a user namespace's: no mount is left behind, and whoever
/// may look at the process that holds the namespace sees it below `/proc/<id>/root`.
pub(crate) struct Disk {
    holder: Child,
    root: PathBuf,
    _folder: TempDir,
}

/// Ways to a mount namespace in which one may mount.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
/// Mounts, says so, and holds the namespace until its input ends with the test.
const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$0" && echo mounted && exec cat"#;

impl Disk {
    /// Mounts one of `bytes`.
    pub(crate) fn mount(bytes: usize) -> Self {
        Self::mount_or_why(bytes).unwrap_or_else(|refusals| panic!("{refusals}"))
    }

    /// The same, or why it cannot be mounted.
    pub(crate) fn mount_or_why(bytes: usize) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let mut refusals = Vec::new();
        for way in WAYS {
            let mut command = Command::new("unshare");
            command.args(way).args(["sh", "-c", MOUNT]).arg(folder.path()).arg(bytes.to_string());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut holder = command.spawn().map_err(|error| format!("unshare cannot be run: {error}"))?;
            let mut said = String::new();
            BufReader::new(holder.stdout.take().expect("it is piped")).read_line(&mut said).unwrap();
            if said == "mounted\n" {
                let below = folder.path().strip_prefix("/").expect("it is absolute");
                let root = PathBuf::from(format!("/proc/{}/root", holder.id())).join(below);
                return Ok(Self { holder, root, _folder: folder });
            }
            let output = holder.wait_with_output().unwrap();
            refusals.push(format!("unshare {}: {}", way.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
        }
        Err(format!(
            "no file system can be mounted here: run this as root, or allow user namespaces: {}",
            refusals.join("; ")
        ))
    }

    /// A folder on it.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A copy of one of its folders, for readers that resolve the path: what is below `/proc/<id>/root` has another there.
    pub(crate) fn copy(&self, name: &str) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").arg(self.folder(name).join(".")).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        copy
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        for bytes in [1 << 20, 4 << 10] {
            let chunk = vec![7; bytes];
            let full = loop {
                if let Err(error) = ballast.write_all(&chunk) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Room of the disk, far more than the test needs.
const DISK_BYTES: usize = 128 << 20;
/// Whose events are sent all the time.
const TENANTS: [&str; 2] = ["acme", "globex"];
/// In front of the ids of one batch, which is sent by hand.
const PROBE: &str = "initech-probe";
/// Acknowledged batches that show that all goes on.
const BATCHES: u64 = 24;
/// Failed attempts to store that show that senders go on against a full disk.
const FAILURES: f64 = 20.0;

fn setup(lake: &Path) -> Setup {
    let settings = [("INGEST__COMMIT_ATTEMPTS_MAX".to_owned(), "3".to_owned())];
    Setup { lake: Some(lake.display().to_string()), settings: settings.into(), ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_ingest_goes_on_by_itself() {
    needs!(Mount, Python);
    let disk = Disk::mount(DISK_BYTES);
    let lake = disk.folder("lake");
    let mut server = Server::start(&setup(&lake));
    let mut load = Load::start(&server, &TENANTS, 2);
    load.passes(BATCHES).await;

    is_refused(&server, &disk).await;
    queries_go_on(&server, load.acknowledged());
    assert!(server.said("the disk of the lake is full"), "the log names the way out");

    // Killed and started on the full disk; a lake that is new cannot be made on it.
    load.moves(None);
    server.kill();
    disk.fill();
    let said = Server::refused(&setup(&disk.folder("another")));
    assert!(said.contains("the disk of the lake is full"), "{said}");
    server = Server::start(&setup(&lake));
    is_refused(&server, &disk).await;
    queries_go_on(&server, load.acknowledged());
    let left = unnamed(&lake);

    load.moves(Some(&server));
    until_it("senders fail", async || {
        disk.fill();
        server.metric("glasshouse_commit_failures_total{table=\"samples\"}").await >= FAILURES
    })
    .await;
    disk.free();
    load.passes(BATCHES).await;
    until_it("the batch is stored", async || post(&server, "initech", body(PROBE, 0)).await.0 == 200).await;
    let mut sent = load.end().await;
    sent.push(json!({ "prefix": PROBE, "batches": 1, "events": EVENTS }));

    let (mut facts, copy) = (server.facts(), disk.copy("lake"));
    facts["flights"] = json!([server.flight]);
    facts["lake"] = json!(copy.path());
    facts["sent"] = json!(sent);
    run_python("once_suite.py", &server.write_facts(&facts), &["sql_counts_each_once", "the_lake_holds_each_once"]);
    assert!(server.stop(), "the server should stop by itself when asked");
    assert_eq!(unnamed(&lake), left, "no attempt that failed leaves a file behind");
}

/// New events are refused, with a way out. What others have taken back is taken again.
async fn is_refused(server: &Server, disk: &Disk) {
    until_it("a full disk refuses", async || {
        disk.fill();
        let (status, wait, answer) = post(server, "initech", body(PROBE, 0)).await;
        assert!(status == 503 || status == 200, "{status}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        let told =
            message.contains("send them again, none is stored twice") && answer["error"]["kind"] == "unavailable";
        assert!(status == 200 || told && wait.is_some(), "{wait:?} {answer}");
        status == 503
    })
    .await;
}

/// All that was acknowledged is there to be asked for.
fn queries_go_on(server: &Server, acknowledged: u64) {
    let count = |tenant| -> u64 {
        let told = server.ask(tenant, "SELECT count(*) FROM samples").unwrap();
        told.lines().last().unwrap_or_default().parse().unwrap()
    };
    let found: u64 = TENANTS.into_iter().map(count).sum();
    assert!(found >= acknowledged * EVENTS as u64, "{found} events of {acknowledged} batches");
}

/// Files of the table that its log does not name, by name. Those that it names are whole.
fn unnamed(lake: &Path) -> BTreeSet<String> {
    let table = lake.join("samples");
    let mut files = Vec::new();
    let mut folders = vec![table.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut named = BTreeSet::new();
    for entry in files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "json")) {
        named.insert(name(entry));
        for line in fs::read_to_string(entry).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            named.extend(action["add"]["path"].as_str().map(|path| name(Path::new(path))));
        }
    }
    for path in files.iter().filter(|path| named.contains(&name(path))) {
        let whole = path.extension().is_some_and(|kind| kind == "json") || fs::read(path).unwrap().ends_with(b"PAR1");
        assert!(whole, "{} is cut off", path.display());
    }
    let checkpoint = |name: &String| name.contains("checkpoint");
    files.iter().map(|path| name(path)).filter(|name| !named.contains(name) && !checkpoint(name)).collect()
}
