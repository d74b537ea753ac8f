//! What a test needs that a machine may lack: installed clients and servers, and the right to mount.
//!
//! A test begins with `needs!(Python, Kafka)`. When something is missing, the test is skipped: its name and the reason go to
//! `.cache/skipped.txt`, which `make test` prints and counts at its end. **Invariant:** with `CI=true` nothing is skipped: a test
//! that lacks something fails.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::disk::Disk;

/// Something to need. `tests/clients/prepare.sh` installs all but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The Python environment with the clients of the suites.
    Python,
    /// Java, the JDBC harness, and its drivers.
    Jdbc,
    /// Java and the jars of Kafka, Connect and Debezium.
    Kafka,
    /// PostgreSQL's programs.
    Postgres,
    /// A file system of one's own.
    Mount,
}

/// Skips the test when a part is missing.
macro_rules! needs {
    ($($part:ident),+) => {{
        fn here() {}
        if $crate::needs::is_skipped(std::any::type_name_of_val(&here), &[$($crate::needs::Part::$part),+]) {
            return;
        }
    }};
}
pub(crate) use needs;

/// Where `tests/clients/setup.sh` installs.
pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache")
}

/// Whether the test of the function `here` is skipped, which is written down then. Panics in CI instead.
pub(crate) fn is_skipped(here: &str, parts: &[Part]) -> bool {
    let Some(reason) = parts.iter().find_map(|part| part.is_missing()) else { return false };
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let name = name(here);
    assert!(!is_ci, "{name} cannot run, and CI skips nothing: {reason}");
    let line = format!("{name}: {}\n", reason.replace('\n', " "));
    println!("skipped: {line}");
    fs::create_dir_all(cache()).unwrap();
    let mut list = fs::OpenOptions::new().create(true).append(true).open(cache().join("skipped.txt")).unwrap();
    list.write_all(line.as_bytes()).unwrap();
    true
}

/// `it::clients::adbc::here` and `it::crash::killed::{{closure}}::here` as the tests are called.
fn name(here: &str) -> String {
    let steps = here.split("::").skip(1).filter(|step| !matches!(*step, "here" | "{{closure}}"));
    steps.collect::<Vec<_>>().join("::")
}

impl Part {
    /// Why it is missing, if it is.
    fn is_missing(self) -> Option<String> {
        // The last file that setup.sh makes of each part, and the part's name.
        let (file, part) = match self {
            Self::Python => ("venv/.made-from", "python"),
            Self::Jdbc => ("java/.made-from", "jdbc"),
            Self::Kafka => ("kafka/.made-from", "kafka"),
            Self::Postgres => ("postgres/initdb", "postgres"),
            Self::Mount => return Disk::mount_or_why(1 << 20).err(),
        };
        if !cache().join(file).exists() {
            let said = fs::read_to_string(cache().join("missing").join(part)).unwrap_or_default();
            let what = if said.is_empty() { format!("{part} is not installed") } else { said };
            return Some(format!("{}: run tests/clients/setup.sh {part}", what.trim()));
        }
        let needs_java = matches!(self, Self::Jdbc | Self::Kafka) && !is_on_path("java");
        needs_java.then(|| "java is missing: install it (apt-get install openjdk-17-jdk-headless)".to_owned())
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[test]
fn a_skipped_test_has_the_name_that_cargo_gives_it() {
    fn here() {}
    let own = "needs::a_skipped_test_has_the_name_that_cargo_gives_it";
    assert_eq!(name(std::any::type_name_of_val(&here)), own);
    let in_async = || {
        fn here() {}
        name(std::any::type_name_of_val(&here))
    };
    assert_eq!(in_async(), own);
}
