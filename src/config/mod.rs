//! The configuration: every setting and limit of the server, in the order in which data flows.
//!
//! ```text
//!   glasshouse.toml ──► tree (raw values, places) ──► page, tables, sources, lookups, auth (ranges) ──► check (across) ──► Config
//!   GLASSHOUSE__A__B ──┘                 └──────────────── Faults ◄────────────────┴────────────────┘
//!   Config ──► show (`config show`)       declarations ──► reference (docs/configuration.md, by a test)
//! ```
//!
//! In: `glasshouse.toml` and the environment (`GLASSHOUSE__SECTION__KEY`). Out: a checked [`Config`], or every error at
//! once, each with its location. Values are parsed and checked here; no other module parses them again. A module gets its
//! own section, never the whole configuration.
//!
//! **Invariant:** every path in a loaded [`Config`] is absolute.
//! **Invariant:** no error message, `config show` output or `Debug` text contains a secret.

mod auth;
mod check;
mod check_auth;
mod collections;
mod column_kind;
mod error;
mod executable;
mod key;
mod lookups;
mod loopback;
mod memory;
mod oauth;
mod raw;
#[cfg(test)]
mod reference_page;
mod registry;
mod server_sections;
mod show;
mod sources;
mod tables;
mod value;

pub use auth::{AuthConfig, IssuerConfig, Secret};
pub use column_kind::ColumnKind;
pub use error::{ConfigError, ConfigErrors};
pub use lookups::{LookupConfig, LookupFormat};
pub use loopback::{has_credentials, is_https_or_loopback, is_loopback};
pub use memory::EndpointMemory;
pub use oauth::OauthConfig;
pub use registry::RegistryConfig;
pub use server_sections::{FlightConfig, HttpConfig, IngestConfig, LakeConfig, LogConfig, QueryConfig, ShutdownConfig};
pub use sources::{KafkaOptions, SourceConfig, StartAt, TenantFrom};
pub use tables::{
    CHANGES_SUFFIX, COLUMN_KINDS, ColumnConfig, LatestConfig, PolicyConfig, QUARANTINE_SUFFIX, RowRuleConfig,
    TableConfig,
};

pub(crate) use executable::program;
pub(crate) use value::parse_time;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use key::{Section, SectionReader, ShownLine, Value, none};

/// The file that is read if no file is named.
pub const FILE: &str = "glasshouse.toml";

/// The maximum size of a configuration file, in bytes. A larger file is probably the wrong file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The whole configuration, checked.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The folder of the file, against which relative paths are resolved.
    pub base: PathBuf,
    /// Declared tables by name.
    pub tables: BTreeMap<String, TableConfig>,
    /// Access policies of the tables, by table name.
    pub policy: BTreeMap<String, PolicyConfig>,
    /// Sources by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// Lookup tables by name.
    pub lookups: BTreeMap<String, LookupConfig>,
    /// Ingest.
    pub ingest: IngestConfig,
    /// The lake.
    pub lake: LakeConfig,
    /// Trusted token issuers.
    pub auth: AuthConfig,
    /// Queries.
    pub query: QueryConfig,
    /// The Flight SQL endpoint.
    pub flight: FlightConfig,
    /// The HTTP endpoint.
    pub http: HttpConfig,
    /// Graceful shutdown.
    pub shutdown: ShutdownConfig,
    /// The server's log.
    pub log: LogConfig,
}

/// The unit of an integer time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Inferred from the magnitude: below 1e11 seconds, 1e14 milliseconds, 1e17 microseconds, otherwise nanoseconds.
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

/// The kind of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceKind {
    /// Topics of Apache Kafka, or of a broker that speaks its protocol.
    #[default]
    Kafka,
}

/// The format of a source's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceFormat {
    /// One JSON object per message.
    #[default]
    Json,
    /// One protobuf message without a length prefix: of the table's contract, unless a transform reads it.
    Protobuf,
    /// One Avro record without a container file.
    Avro,
}

/// The envelope of the events in a source's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Envelope {
    /// No envelope.
    #[default]
    None,
    /// A change event of Debezium.
    Debezium,
}

/// What a partition does if unread messages were deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnGap {
    /// It stops and logs an error.
    #[default]
    Stop,
    /// It continues with the oldest available message and logs it.
    Earliest,
}

/// The Arrow types that are sent to clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TypeProfile {
    /// Only types that every known client can read.
    #[default]
    Compat,
    /// The engine's own types.
    Native,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// JSON for machines.
    Json,
}

impl Config {
    /// Reads `path` (or [`FILE`] here, if there is one) and the process's environment.
    pub fn from_environment(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let here = Path::new(FILE);
        let path = path.or_else(|| here.is_file().then_some(here));
        // Invalid UTF-8 becomes U+FFFD here, which `raw` refuses in our variables.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        };
        Self::load(path, std::env::vars_os().map(text))
    }

    /// Reads `path`, if any, and the variables `env`; then checks that every file that it names exists.
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

    /// Reads `text` as the file `name` in the folder `base`, without accessing any other file.
    pub fn parse(
        text: &str,
        name: &str,
        base: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (config, faults) = read(text, name, base, env)?;
        faults.or(config)
    }

    /// The sections in their documented order.
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

/// Reads text and variables into a configuration and its errors. `Err` if the text is not valid TOML.
fn read(
    text: &str,
    name: &str,
    base: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<(Config, ConfigErrors), ConfigErrors> {
    let mut faults = ConfigErrors::new(name);
    let mut root = raw::parse(text, &mut faults);
    if !faults.is_empty() {
        // After a syntax error the rest of the text is unreliable, and so would be the errors in it.
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

/// The text of a configuration file, or why it cannot be read.
fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes: it is not a configuration file"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
