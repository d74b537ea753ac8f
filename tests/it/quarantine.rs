//! Tests of `glasshouse quarantine` with a server. One test kills the server during a replay.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cli::{ask, client, outcome};
use crate::server::{Server, Setup, until};

/// The number of entries in the replay that is interrupted.
const ENTRIES: usize = 600;

fn answer(server: &Server, caller: &str, args: &[&str]) -> Value {
    let output = client(server, caller, &[&["quarantine", "--json"], args].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn ingest(server: &Server, file: &str) -> (bool, String) {
    outcome(&client(server, "acme", &["ingest", "--table", "samples", file]))
}

#[test]
fn a_fixed_event_is_stored_once_with_its_first_received_time() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { lake: Some(folder.path().join("lake").display().to_string()), ..Setup::default() };
    let server = Server::start(&setup);
    let bad = write(folder.path(), "bad.ndjson", "{\"id\":\"a\",\"at\":\"2026-03-01T12:00:00Z\",\"big\":\"many\"}\n");
    let (succeeded, text) = ingest(&server, &bad);
    assert!(!succeeded && text.contains("1 rejected"), "{text}");

    let (succeeded, text) = outcome(&client(&server, "admin", &["quarantine", "list"]));
    assert!(succeeded && text.contains("samples  wrong_type  acme"), "{text}");
    let listed = answer(&server, "acme", &["list", "samples", "--since", "1h"]);
    assert_eq!(listed["counts"][0]["count"], 1, "{listed}");
    let (id, received) = ["id", "received_time"].map(|key| listed["entries"][0][key].as_str().unwrap()).into();
    let (succeeded, text) = outcome(&client(&server, "admin", &["quarantine", "show", "samples", id]));
    assert!(succeeded && text.contains("\"big\":\"many\"") && text.contains(received), "{text}");
    let (succeeded, text) = outcome(&client(&server, "globex", &["quarantine", "show", "samples", id]));
    assert!(!succeeded && text.is_empty(), "an entry of another tenant was shown: {text}");

    let as_it_is = ["quarantine", "replay", "samples", "--id", id];
    assert!(!outcome(&client(&server, "admin", &as_it_is)).0);
    let fixed = write(folder.path(), "fixed.json", "{\"id\":\"a\",\"at\":\"2026-03-01T12:00:00Z\",\"big\":7}\n");
    let fix = [&as_it_is[..], &["--file", &fixed]].concat();
    assert_eq!(
        outcome(&client(&server, "admin", &fix)),
        (true, "1 accepted, 0 duplicate, 0 rejected again".to_owned())
    );
    let stored = "SELECT to_char(received_time, '%Y-%m-%dT%H:%M:%S%.6fZ') FROM samples WHERE big = 7";
    assert_eq!(ask(&server, stored), received);
    server.kill();

    let server = Server::start(&setup);
    let (succeeded, text) = outcome(&client(&server, "admin", &fix));
    assert!(!succeeded && text.is_empty(), "a closed entry was replayed: {text}");
    assert_eq!(ingest(&server, &fixed), (true, "0 accepted, 1 duplicate, 0 rejected".to_owned()));
    assert_eq!(ask(&server, "SELECT count(*) FROM samples"), "1");
    assert_eq!(ask(&server, "SELECT count(*) FROM samples_quarantine"), "0");

    let other = write(folder.path(), "other.ndjson", "{\"id\":\"b\"}\n{\"id\":\"c\",\"at\":\"yesterday\"}\n");
    assert!(!ingest(&server, &other).0);
    assert_eq!(ask(&server, "SELECT count(*) FROM samples_quarantine"), "2");
    for refused in [&["drop", "samples", "--all"][..], &["drop", "samples", "--yes"]] {
        assert!(!outcome(&client(&server, "admin", &[&["quarantine"], refused].concat())).0, "{refused:?}");
    }
    let dropped = client(&server, "acme", &["quarantine", "drop", "samples", "--reason", "missing_time", "--yes"]);
    assert_eq!(outcome(&dropped), (true, "1 dropped".to_owned()));
    let dropped = client(&server, "admin", &["quarantine", "drop", "samples", "--all", "--yes"]);
    assert_eq!(outcome(&dropped), (true, "1 dropped".to_owned()));
    assert_eq!(answer(&server, "admin", &["list", "samples"])["counts"], Value::Array(Vec::new()));
    assert_eq!(ask(&server, "SELECT count(*) FROM samples_quarantine"), "0");
    assert!(server.stop());
}

#[test]
fn a_replay_that_is_killed_and_run_again_stores_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Some(folder.path().join("lake").display().to_string());
    let strict = vec![("INGEST__EVENT_BYTES_MAX".to_owned(), "1024".to_owned())];
    let server = Server::start(&Setup { lake: lake.clone(), settings: strict, ..Setup::default() });
    let label = "x".repeat(1024);
    let event = |id| format!("{{\"id\":\"{id}\",\"at\":\"2026-03-01T12:00:00Z\",\"label\":\"{label}\"}}\n");
    let large = write(folder.path(), "large.ndjson", &(0..ENTRIES).map(event).collect::<String>());
    assert!(!ingest(&server, &large).0);
    server.kill();

    let setup = Setup { lake, ..Setup::default() };
    let server = Server::start(&setup);
    assert_eq!(ask(&server, "SELECT count(*) FROM samples_quarantine"), ENTRIES.to_string());
    std::thread::scope(|scope| {
        let replaying = scope.spawn(|| client(&server, "admin", &["quarantine", "replay", "samples"]));
        // Kill the server as soon as the events of the first page are stored. The quarantine entries of these events
        // may be closed or still open.
        until("the first events are stored", || {
            ask(&server, "SELECT count(*) > 0 FROM samples") == "true" || replaying.is_finished()
        });
        kill(&server);
        replaying.join().unwrap();
    });
    server.kill();
    let server = Server::start(&setup);
    let (succeeded, text) = outcome(&client(&server, "admin", &["quarantine", "replay", "samples"]));
    assert!(succeeded, "{text}");
    assert_eq!(ask(&server, "SELECT count(*) FROM samples_quarantine"), "0");
    assert_eq!(ask(&server, "SELECT count(*) FROM samples"), ENTRIES.to_string());
    assert_eq!(ask(&server, "SELECT count(DISTINCT id) FROM samples"), ENTRIES.to_string());
    assert!(server.stop());
}

/// Kills the server process. `Server::kill` cannot be used here, because it consumes the [`Server`], which another
/// thread is still using.
fn kill(server: &Server) {
    let killed = Command::new("kill").args(["-KILL", &server.id().to_string()]).status().unwrap();
    assert!(killed.success());
}
