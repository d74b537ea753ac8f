//! The operator's page: every knob and bound of the server, in the order in which data flows.
//!
//! ```text
//!   glasshouse.toml ──► tree (raw values, places) ──► page, tables, sources, lookups, auth (ranges) ──► check (across) ──► Config
//!   GLASSHOUSE__A__B ──┘                 └──────────────── Faults ◄────────────────┴────────────────┘
//!   Config ──► show (`config show`)       declarations ──► reference (docs/configuration.md, by a test)
//! ```
//!
//! In: `glasshouse.toml` and the environment (`GLASSHOUSE__SECTION__KEY`). Out: a checked [`Config`], or every fault at
//! once, each with its place. Raw text comes in, checked values go out: nothing behind this page parses again.
//! A module gets its own section, never the whole.
//!
//! **Invariant:** every path in a [`Config`] that was loaded is absolute.
//! **Invariant:** no secret is in a fault, in `config show`, or in a `Debug` text.

mod auth;
mod auth_check;
mod check;
mod collections;
mod error;
mod key;
mod lookups;
mod loopback;
mod memory;
mod oauth;
mod program;
mod raw;
#[cfg(test)]
mod reference;
mod registry;
mod server_sections;
mod show;
mod sources;
mod tables;
mod value;

pub use auth::{AuthConfig, IssuerConfig, Secret};
pub use error::{ConfigError, ConfigErrors};
pub use lookups::{LookupConfig, LookupFormat};
pub use loopback::{has_credentials, is_https_or_loopback, is_loopback};
pub use memory::EndpointMemory;
pub use oauth::OauthConfig;
pub use registry::RegistryConfig;
pub use server_sections::{FlightConfig, HttpConfig, IngestConfig, LakeConfig, LogConfig, QueryConfig, ShutdownConfig};
pub use sources::{KafkaOptions, SourceConfig, StartAt, TenantFrom};
pub use tables::{CHANGES_SUFFIX, COLUMN_KINDS, ColumnConfig, LatestConfig, PolicyConfig, RowRuleConfig, TableConfig};

pub(crate) use program::program;
pub(crate) use value::parse_time;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use key::{Section, SectionReader, ShownLine, Value, none};

/// The file that is read when none is named.
pub const FILE: &str = "glasshouse.toml";

/// The size of a configuration file, in bytes: a file that is larger is some other file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The whole configuration, checked.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The folder of the file: where relative paths start.
    pub base: PathBuf,
    /// Declared tables by name.
    pub tables: BTreeMap<String, TableConfig>,
    /// Who sees what of them.
    pub policy: BTreeMap<String, PolicyConfig>,
    /// Where events are fetched from.
    pub sources: BTreeMap<String, SourceConfig>,
    /// What transforms of sources join with.
    pub lookups: BTreeMap<String, LookupConfig>,
    /// How events come in.
    pub ingest: IngestConfig,
    /// Where they rest.
    pub lake: LakeConfig,
    /// Whose tokens we trust.
    pub auth: AuthConfig,
    /// How they are asked.
    pub query: QueryConfig,
    /// The Arrow door.
    pub flight: FlightConfig,
    /// The web door.
    pub http: HttpConfig,
    /// How the server stops.
    pub shutdown: ShutdownConfig,
    /// What the server says of itself.
    pub log: LogConfig,
}

/// What an integer time counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Told by its size: below 1e11 seconds, 1e14 milliseconds, 1e17 microseconds, else nanoseconds.
    #[default]
    Auto,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// What a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceKind {
    /// Topics of Apache Kafka, or of what speaks its protocol.
    #[default]
    Kafka,
}

/// The shape of a source's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceFormat {
    /// One object each.
    #[default]
    Json,
    /// One message each, without a length in front: of the table's contract, unless a transform reads them.
    Protobuf,
    /// One record each, without a file around it.
    Avro,
}

/// What stands around the events in a source's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Envelope {
    /// Nothing.
    #[default]
    None,
    /// What Debezium says of a change in a database.
    Debezium,
}

/// What happens when messages that were not read are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The partition stops, and says so.
    #[default]
    Stop,
    /// It goes on with the oldest message that there is, and says so.
    Earliest,
}

/// Which Arrow types are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TypeProfile {
    /// Only types that every known client reads.
    #[default]
    Compat,
    /// The engine's own types.
    Native,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

impl Config {
    /// Reads `path` (or [`FILE`] here, if there is one) and the process's environment.
    pub fn from_environment(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let here = Path::new(FILE);
        let path = path.or_else(|| here.is_file().then_some(here));
        // What is not UTF-8 holds U+FFFD from here on, which `tree` refuses in a variable of ours.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        };
        Self::load(path, std::env::vars_os().map(text))
    }

    /// Reads `path`, if any, and the variables `env`; then checks that every file it names is there.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        let name = path.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
        let mut faults = ConfigErrors::new(&name);
        let text = path.map_or(Ok(String::new()), read_text).unwrap_or_else(|error| {
            faults.add("", error);
            String::new()
        });
        let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let base = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let config = faults.or(text).and_then(|text| read(&text, &name, &base, env));
        let (config, mut faults) = config?;
        check::files(&config, &mut faults);
        faults.or(config)
    }

    /// Reads `text` as the file `name` in the folder `base`, without looking at any other file.
    pub fn parse(
        text: &str,
        name: &str,
        base: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (config, faults) = read(text, name, base, env)?;
        faults.or(config)
    }

    /// The sections in the order of the page.
    fn lines(&self) -> Vec<ShownLine> {
        let line = |key: &str, shown| ShownLine { key: key.to_owned(), shown, about: None };
        let section = |key, lines| line(key, key::ShownValue::Table(lines));
        vec![
            line("tables", self.tables.show("")),
            line("policy", self.policy.show("")),
            line("sources", self.sources.show("")),
            line("lookups", self.lookups.show("")),
            section("ingest", self.ingest.lines()),
            section("lake", self.lake.lines()),
            section("auth", self.auth.lines()),
            section("query", self.query.lines()),
            section("flight", self.flight.lines()),
            section("http", self.http.lines()),
            section("shutdown", self.shutdown.lines()),
            section("log", self.log.lines()),
        ]
    }
}

/// The names of the sections.
const SECTIONS: [&str; 12] =
    ["tables", "policy", "sources", "lookups", "ingest", "lake", "auth", "query", "flight", "http", "shutdown", "log"];

/// Text and variables to a configuration, with all that is wrong in it. `Err` when the text is no TOML.
fn read(
    text: &str,
    name: &str,
    base: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<(Config, ConfigErrors), ConfigErrors> {
    let mut faults = ConfigErrors::new(name);
    let mut root = raw::parse(text, &mut faults);
    if !faults.is_empty() {
        // What follows a syntax fault is guesswork, and so would be the faults in it.
        return Err(faults.sorted());
    }
    raw::overlay(&mut root, env, &mut faults);
    let mut keys = SectionReader::new("", root, &mut faults);
    let mut config = Config {
        base: base.to_owned(),
        tables: keys.take("tables", none()),
        policy: keys.take("policy", none()),
        sources: keys.take("sources", none()),
        lookups: keys.take("lookups", none()),
        ingest: keys.section("ingest"),
        lake: keys.section("lake"),
        auth: keys.section("auth"),
        query: keys.section("query"),
        flight: keys.section("flight"),
        http: keys.section("http"),
        shutdown: keys.section("shutdown"),
        log: keys.section("log"),
    };
    keys.finish(&SECTIONS);
    tables::default_dimensions_map(&mut config.tables, &faults);
    check::resolve(&mut config, &mut faults);
    check::across(&config, &mut faults);
    Ok((config, faults))
}

/// The text of a configuration file, or why there is none.
fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes: this is no configuration"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
