//! Tests of a server whose disk is full. Senders receive errors that ask them to retry, queries continue to work, and
//! no acknowledged event is lost. Ingest resumes without a restart as soon as space is free again. The server is also
//! killed and restarted while the disk is full.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client_suite::run_python;
use crate::requirements::needs;
use crate::senders::{EVENTS, Load, body, post};
use crate::server::{Server, Setup, until_async};

/// An in-memory file system of a fixed size. Dropping a `Disk` unmounts the file system.
///
/// The file system is mounted in a separate mount namespace, so no mount is left behind when the test ends. A child
/// process keeps the namespace alive. The test accesses the file system through `/proc/<id>/root` of this process,
/// which requires the permission to inspect the process.
pub(crate) struct Disk {
    holder: Child,
    root: PathBuf,
    _folder: TempDir,
}

/// The arguments with which `unshare` creates a mount namespace. The first entry requires root. The second entry
/// creates a user namespace and becomes its root user.
const UNSHARE_ARGS: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
/// A shell script that mounts the file system, prints `mounted`, and keeps the namespace alive until the test closes
/// the script's standard input.
const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$0" && echo mounted && exec cat"#;

impl Disk {
    /// Mounts a file system with a size of `bytes`.
    pub(crate) fn mount(bytes: usize) -> Self {
        Self::try_mount(bytes).unwrap_or_else(|refusals| panic!("{refusals}"))
    }

    /// Like [`Disk::mount`], but returns the reason if mounting is not possible.
    pub(crate) fn try_mount(bytes: usize) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let mut refusals = Vec::new();
        for args in UNSHARE_ARGS {
            let mut command = Command::new("unshare");
            command.args(args).args(["sh", "-c", MOUNT]).arg(folder.path()).arg(bytes.to_string());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut holder = command.spawn().map_err(|error| format!("unshare cannot be run: {error}"))?;
            let mut line = String::new();
            BufReader::new(holder.stdout.take().expect("stdout is piped")).read_line(&mut line).unwrap();
            if line == "mounted\n" {
                let below = folder.path().strip_prefix("/").expect("the path is absolute");
                let root = PathBuf::from(format!("/proc/{}/root", holder.id())).join(below);
                return Ok(Self { holder, root, _folder: folder });
            }
            let output = holder.wait_with_output().unwrap();
            refusals.push(format!("unshare {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
        }
        Err(format!("cannot mount a file system: run as root, or allow user namespaces: {}", refusals.join("; ")))
    }

    /// Returns the path of a folder on the disk.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Copies a folder from the disk to the ordinary file system. A reader that resolves symbolic links cannot read the
    /// original: it would resolve a path below `/proc/<id>/root` to one that exists only inside the namespace.
    pub(crate) fn copy(&self, name: &str) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").arg(self.folder(name).join(".")).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        copy
    }

    /// Fills all remaining space.
    pub(crate) fn fill(&self) {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for bytes in [1 << 20, 4 << 10] {
            let chunk = vec![7; bytes];
            let full = loop {
                if let Err(error) = filler.write_all(&chunk) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// Frees the space that `fill` used.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The size of the disk in bytes. The events of the test need far less, so only the filler can fill the disk.
const DISK_BYTES: usize = 128 << 20;
/// The tenants for which the test sends events continuously.
const TENANTS: [&str; 2] = ["acme", "globex"];
/// The prefix of the event ids in the batch that the test itself sends.
const PROBE: &str = "initech-probe";
/// The number of acknowledged batches after which the test regards ingest as working.
const BATCHES: u64 = 24;
/// The test waits for this many failed commit attempts, to be sure that the senders have retried.
const FAILURES: f64 = 20.0;

fn setup(lake: &Path) -> Setup {
    let settings = [("INGEST__COMMIT_ATTEMPTS_MAX".to_owned(), "3".to_owned())];
    Setup { lake: Some(lake.display().to_string()), settings: settings.into(), ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_ingest_resumes_by_itself() {
    needs!(Mount, Python);
    let disk = Disk::mount(DISK_BYTES);
    let lake = disk.folder("lake");
    let mut server = Server::start(&setup(&lake));
    let mut load = Load::start(&server, &TENANTS, 2);
    load.wait_for_batches(BATCHES).await;

    expect_refusal(&server, &disk).await;
    expect_queries_work(&server, load.acknowledged());
    assert!(server.logged("the lake's disk is full"), "the log does not report the full disk");

    // A server must be able to restart on the full disk with its existing lake, but it cannot create a new lake there.
    load.set_server(None);
    server.kill();
    disk.fill();
    let output = Server::start_error(&setup(&disk.folder("another")));
    assert!(output.contains("the lake's disk is full"), "{output}");
    server = Server::start(&setup(&lake));
    expect_refusal(&server, &disk).await;
    expect_queries_work(&server, load.acknowledged());
    let left = unreferenced_files(&lake);

    load.set_server(Some(&server));
    until_async("senders fail", async || {
        disk.fill();
        server.metric("glasshouse_commit_failures_total{table=\"samples\"}").await >= FAILURES
    })
    .await;
    disk.free();
    load.wait_for_batches(BATCHES).await;
    until_async("the batch is stored", async || post(&server, "initech", body(PROBE, 0)).await.0 == 200).await;
    let mut sent = load.end().await;
    sent.push(json!({ "prefix": PROBE, "batches": 1, "events": EVENTS }));

    let (mut facts, copy) = (server.facts(), disk.copy("lake"));
    facts["flights"] = json!([server.flight]);
    facts["lake"] = json!(copy.path());
    facts["sent"] = json!(sent);
    run_python(
        "once_suite.py",
        &server.write_facts(&facts),
        &["sql_counts_each_event_once", "the_lake_holds_each_event_once"],
    );
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    assert_eq!(unreferenced_files(&lake), left, "a failed attempt left a file behind");
}

/// Sends a batch until the server refuses it with a retryable error. Fills the disk again before each attempt, because
/// the server may free space.
async fn expect_refusal(server: &Server, disk: &Disk) {
    until_async("the server refuses events while the disk is full", async || {
        disk.fill();
        let (status, wait, answer) = post(server, "initech", body(PROBE, 0)).await;
        assert!(status == 503 || status == 200, "{status}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        let is_retryable =
            message.contains("send them again; no event is stored twice") && answer["error"]["kind"] == "unavailable";
        assert!(status == 200 || is_retryable && wait.is_some(), "{wait:?} {answer}");
        status == 503
    })
    .await;
}

/// Checks that queries return all acknowledged events.
fn expect_queries_work(server: &Server, acknowledged: u64) {
    let count = |tenant| -> u64 {
        let result = server.ask(tenant, "SELECT count(*) FROM samples").unwrap();
        result.lines().last().unwrap_or_default().parse().unwrap()
    };
    let found: u64 = TENANTS.into_iter().map(count).sum();
    assert!(
        found >= acknowledged * EVENTS as u64,
        "found {found} events, but {acknowledged} batches were acknowledged"
    );
}

/// Returns the names of the table's files that are not listed in its log, and checks that all other files are complete.
fn unreferenced_files(lake: &Path) -> BTreeSet<String> {
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
    let mut referenced = BTreeSet::new();
    for entry in files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "json")) {
        referenced.insert(name(entry));
        for line in fs::read_to_string(entry).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            referenced.extend(action["add"]["path"].as_str().map(|path| name(Path::new(path))));
        }
    }
    for path in files.iter().filter(|path| referenced.contains(&name(path))) {
        let whole = path.extension().is_some_and(|kind| kind == "json") || fs::read(path).unwrap().ends_with(b"PAR1");
        assert!(whole, "{} is truncated", path.display());
    }
    let checkpoint = |name: &String| name.contains("checkpoint");
    files.iter().map(|path| name(path)).filter(|name| !referenced.contains(name) && !checkpoint(name)).collect()
}
