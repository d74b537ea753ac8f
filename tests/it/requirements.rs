//! Test requirements that some hosts do not meet: installed clients and servers, and permission to mount a file system.
//!
//! A test declares its requirements with `needs!(Python, Kafka)`. If a requirement is not met, the test is skipped. The
//! test's name and the reason are appended to `.cache/skipped.txt`, which `make test` prints at the end.
//!
//! **Invariant:** with `CI=true`, no test is skipped. A test fails if one of its requirements is not met.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::disk::Disk;

/// A requirement. `tests/clients/prepare.sh` installs everything except [`Requirement::Mount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// The Python environment that contains the clients for the suites.
    Python,
    /// Java, the JDBC test program, and its drivers.
    Jdbc,
    /// Java, and the jars of Kafka, Kafka Connect and Debezium.
    Kafka,
    /// The PostgreSQL server.
    Postgres,
    /// The MariaDB server.
    MariaDb,
    /// Permission to mount a file system.
    Mount,
}

/// Skips the test if a requirement is not met.
macro_rules! needs {
    ($($requirement:ident),+) => {{
        fn here() {}
        if $crate::requirements::is_skipped(std::any::type_name_of_val(&here), &[$($crate::requirements::Requirement::$requirement),+]) {
            return;
        }
    }};
}
pub(crate) use needs;

/// The folder into which `tests/clients/setup.sh` installs the components.
pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache")
}

/// Returns true if a requirement is not met and the test must therefore be skipped, and records the test's name. In CI,
/// panics instead. `here` is the type name of a function inside the test (see [`name`]).
pub(crate) fn is_skipped(here: &str, requirements: &[Requirement]) -> bool {
    let Some(reason) = requirements.iter().find_map(|requirement| requirement.is_missing()) else { return false };
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let name = name(here);
    assert!(!is_ci, "{name} cannot run, and a skipped test is an error in CI: {reason}");
    let line = format!("{name}: {}\n", reason.replace('\n', " "));
    println!("skipped: {line}");
    fs::create_dir_all(cache()).unwrap();
    let mut list = fs::OpenOptions::new().create(true).append(true).open(cache().join("skipped.txt")).unwrap();
    list.write_all(line.as_bytes()).unwrap();
    true
}

/// Returns the name of a test. `here` is the type name of the function `here` in the test, such as
/// `it::clients::adbc::here` or `it::crash::acknowledged_events_survive_kills_during_ingest::{{closure}}::here`.
fn name(here: &str) -> String {
    let steps = here.split("::").skip(1).filter(|step| !matches!(*step, "here" | "{{closure}}"));
    steps.collect::<Vec<_>>().join("::")
}

impl Requirement {
    /// Returns the reason why the requirement is not met, or `None` if it is met.
    fn is_missing(self) -> Option<String> {
        // `setup.sh` creates `file` after all other files of the component.
        let (file, component) = match self {
            Self::Python => ("venv/.made-from", "python"),
            Self::Jdbc => ("java/.made-from", "jdbc"),
            Self::Kafka => ("kafka/.made-from", "kafka"),
            Self::Postgres => ("postgres/initdb", "postgres"),
            Self::MariaDb => ("mariadb/mariadbd", "mariadb"),
            Self::Mount => return Disk::try_mount(1 << 20).err(),
        };
        if !cache().join(file).exists() {
            let reason = fs::read_to_string(cache().join("missing").join(component)).unwrap_or_default();
            let what = if reason.is_empty() { format!("{component} is not installed") } else { reason };
            return Some(format!("{}: run tests/clients/setup.sh {component}", what.trim()));
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
    let own = "requirements::a_skipped_test_has_the_name_that_cargo_gives_it";
    assert_eq!(name(std::any::type_name_of_val(&here)), own);
    let in_async = || {
        fn here() {}
        name(std::any::type_name_of_val(&here))
    };
    assert_eq!(in_async(), own);
}
