//! Runs the test suite of a real client in a child process, and evaluates its output.
//!
//! A suite prints one line of JSON for each check: `{name, ok, detail}`. `--nocapture` shows the details of the checks
//! that passed.
//!
//! **Invariant:** exactly the expected checks must run, and all of them must pass. A missing or unexpected check fails
//! the test, so the lists of expected checks stay complete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::requirements::cache;

/// Returns a command for the Python interpreter that runs the suites.
pub(crate) fn python() -> Command {
    let python = cache().join("venv/bin/python");
    assert!(python.exists(), "{} is missing: run tests/clients/setup.sh first", python.display());
    Command::new(python)
}

/// Returns the path of a script in `tests/clients`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Returns a command that runs a class of the JDBC test program with one version of the driver, in a JVM with this time
/// zone.
pub(crate) fn jdbc(class: &str, version: &str, zone: &str) -> Command {
    let folder = cache().join("java");
    let driver = folder.join(format!("flight-sql-jdbc-driver-{version}.jar"));
    assert!(driver.exists(), "{} is missing: run tests/clients/setup.sh first", driver.display());
    let gson = "gson-2.11.0.jar";
    let path =
        [folder.join("jdbc-check.jar"), folder.join(gson), driver].map(|jar| jar.display().to_string()).join(":");
    let zone = format!("-Duser.timezone={zone}");
    let mut command = Command::new("java");
    command.args(["--add-opens=java.base/java.nio=ALL-UNNAMED", &zone, "-Xmx1g", "-cp", &path, class]);
    command
}

/// Runs a Python suite. The file `facts` contains the server's addresses, the location of its lake, and the tokens.
pub(crate) fn run_python(name: &str, facts: &Path, expected: &[&str]) {
    run(python().arg(script(name)).arg(facts), name, expected);
}

/// Runs a suite. Fails unless exactly the `expected` checks ran and all of them passed.
pub(crate) fn run(command: &mut Command, name: &str, expected: &[&str]) {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let name_of = |line: &Value| line["name"].as_str().unwrap_or_default().to_owned();
    let describe = |line: &Value| format!("{}: {}", name_of(line), line["detail"].as_str().unwrap_or_default());
    for line in lines.iter().filter(|line| line["ok"] == true) {
        println!("{name}: {}", describe(line));
    }
    let failed: Vec<String> = lines.iter().filter(|line| line["ok"] != true).map(describe).collect();
    assert!(
        failed.is_empty(),
        "{name}: {} of {} checks failed\n{}\n{errors}",
        failed.len(),
        lines.len(),
        failed.join("\n")
    );
    let ran: BTreeSet<String> = lines.iter().map(name_of).collect();
    let wanted: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(ran, wanted, "{name}: checks that ran (left), and expected checks (right)\n{errors}");
    assert!(output.status.success(), "{name} ended with {}\n{errors}", output.status);
    println!("{name}\n{text}{errors}");
}
