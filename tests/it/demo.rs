//! Tests for `glasshouse demo`. Every command that the demo prints must work when it is pasted into a shell in another
//! folder.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::client_suite::python;
use crate::server::until;

/// A running demo, which writes its output to the file `log` in `folder`.
struct Demo {
    child: Child,
    folder: TempDir,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("glasshouse.toml");
        let child = Command::new(env!("CARGO_BIN_EXE_glasshouse"))
            .arg("--config")
            .arg(config)
            .args(["demo", "--rate", "200", "--data"])
            .arg(folder.path().join("the lake's folder"))
            .envs([("GLASSHOUSE__FLIGHT__LISTEN", "127.0.0.1:0"), ("GLASSHOUSE__HTTP__LISTEN", "127.0.0.1:0")])
            .env("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET_FILE", folder.path().join("secret"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the printed paragraph that begins with `begin`.
fn paragraph<'a>(printed: &'a str, begin: &str) -> &'a str {
    let found = printed.split("\n\n").find(|paragraph| paragraph.trim_start().starts_with(begin));
    found.unwrap_or_else(|| panic!("no paragraph begins with `{begin}`:\n{printed}"))
}

/// Runs the lines in a shell in a new folder, and returns the output. Panics if a command fails.
fn paste(lines: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let search_path = format!("{}:/usr/bin:/bin", Path::new(python().get_program()).parent().unwrap().display());
    let shell = Command::new("sh")
        .args(["-e", "-c", lines])
        .current_dir(folder.path())
        .env("PATH", search_path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&shell.stdout), String::from_utf8_lossy(&shell.stderr));
    assert!(shell.status.success(), "{lines}\n{out}\n{err}");
    out.into_owned()
}

#[test]
fn every_printed_command_works_when_it_is_pasted() {
    let demo = Demo::start();
    until("the demo prints its last command", || demo.printed().contains("\nduckdb "));
    let printed = demo.printed();
    let exports = paragraph(&printed, "export ");
    let with_tokens = |begin: &str| paste(&format!("{exports}\n{}", paragraph(&printed, begin)));

    let receipt = with_tokens("curl ");
    assert!(receipt.contains("\"accepted\":1"), "{receipt}");
    // The pasted `curl` command has stored a row for the small tenant. The demo itself sends events for the large
    // tenant, and they arrive within a second.
    let program = env!("CARGO_BIN_EXE_glasshouse");
    until("the demo's events are in the table", || with_tokens(program).matches("atlas").count() > 0);
    assert_eq!(with_tokens(program).matches("| carrier").count(), 2, "expected a result for each of the two tenants");
    let table = with_tokens("python3 -c ");
    assert!(table.contains("carrier: string") && table.contains("atlas"), "{table}");

    // This test checks only the format of the JDBC URL. The tests of the JDBC drivers connect with such a URL.
    let jdbc = paragraph(&printed, "jdbc:");
    let flight = printed.split("Flight SQL  grpc://").nth(1).unwrap().split_whitespace().next().unwrap();
    let begin = format!("jdbc:arrow-flight-sql://{flight}/?useEncryption=false&token=");
    let token = jdbc.trim().strip_prefix(&begin).unwrap();
    assert!(exports.contains(&format!("={token}")), "{jdbc}");
    // DuckDB would have to download its Delta extension, so this test only checks that the folder is a Delta table.
    let lake = paragraph(&printed, "duckdb ").split("delta_scan('").nth(1).unwrap().split("')").next().unwrap();
    assert!(Path::new(&lake.replace("''", "'")).join("_delta_log").is_dir(), "{lake}");
}
