//! The configuration: every setting and limit of the server, in the order in which data flows through it.
//!
//! ```text
//!   glasshouse.toml ───► raw (values, locations) ──► sections (one key at a time) ──► check (several keys) ──► Config
//!   GLASSHOUSE__A__B ──┘        └────────────────► ConfigErrors ◄──┴────────────────────────┘
//!   Config ──► show (`config show`)         section declarations ──► reference_page (docs/configuration.md)
//! ```
//!
//! This module reads `glasshouse.toml` and the environment (`GLASSHOUSE__SECTION__KEY`). The result is a checked
//! [`Config`], or all errors with their locations. Values are parsed and checked only here. Every other module receives
//! its own section, not the whole configuration.
//!
//! **Invariant:** every path in a loaded [`Config`] is absolute.
//! **Invariant:** no error message, `config show` output or `Debug` text contains a secret.

mod auth;
mod check;
mod check_auth;
mod check_sources;
mod collection_values;
mod column_kind;
mod error;
mod lookups;
mod loopback;
mod memory;
mod oauth;
mod program_name;
mod raw;
#[cfg(test)]
mod reference_page;
mod scalar_values;
mod schema_registry;
mod secret_strength;
mod section_macro;
mod server_sections;
mod show;
mod signing_algorithm;
mod sources;
mod tables;

pub use auth::{AuthConfig, IssuerConfig, Secret};
pub use column_kind::{ColumnKind, DECIMAL_DIGITS_MAX};
pub use error::{ConfigError, ConfigErrors};
pub use lookups::{LookupConfig, LookupFormat};
pub use loopback::{has_credentials, is_https_or_loopback, is_loopback};
pub use memory::EndpointMemory;
pub use oauth::OauthConfig;
pub use schema_registry::RegistryConfig;
pub use server_sections::{
    FlightConfig, HttpConfig, IngestConfig, LakeConfig, LogConfig, MaintenanceConfig, QueryConfig, ShutdownConfig,
};
pub use sources::{KafkaOptions, SourceConfig, StartAt, TenantFrom, UNAVAILABLE_VALUE};
pub use tables::{
    CHANGES_SUFFIX, ColumnConfig, LatestConfig, PolicyConfig, QUARANTINE_SUFFIX, RowRuleConfig, TableConfig,
};

pub(crate) use check_auth::shared_secret_problem;
pub(crate) use program_name::program;
pub(crate) use scalar_values::parse_time;
pub(crate) use signing_algorithm::{KeyKind, SigningAlgorithm};

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use section_macro::{Section, SectionReader, ShownLine, Value, none};

/// The name of the configuration file that is read by default.
pub const FILE: &str = "glasshouse.toml";

/// The maximum size of a configuration file, in bytes. A larger file is most likely not a configuration file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The whole configuration, checked.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The folder of the configuration file. Relative paths are resolved against this folder.
    pub base: PathBuf,
    /// The declared tables by name.
    pub tables: BTreeMap<String, TableConfig>,
    /// The access policies by table name.
    pub policy: BTreeMap<String, PolicyConfig>,
    /// The sources by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// The lookup tables by name.
    pub lookups: BTreeMap<String, LookupConfig>,
    /// The settings of ingest.
    pub ingest: IngestConfig,
    /// The settings of the lake.
    pub lake: LakeConfig,
    /// The settings of lake maintenance.
    pub maintenance: MaintenanceConfig,
    /// The trusted token issuers and the settings of authentication.
    pub auth: AuthConfig,
    /// The settings of queries.
    pub query: QueryConfig,
    /// The settings of the Flight SQL endpoint.
    pub flight: FlightConfig,
    /// The settings of the HTTP endpoint.
    pub http: HttpConfig,
    /// The settings of a graceful shutdown.
    pub shutdown: ShutdownConfig,
    /// The settings of the server's log.
    pub log: LogConfig,
}

/// The unit of an integer time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// The unit is inferred from the magnitude: seconds below 1e11, milliseconds below 1e14, microseconds below 1e17,
    /// otherwise nanoseconds. A time outside the years 2001 to 2100 is refused, because it probably has a different
    /// unit.
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
    /// Topics in Apache Kafka, or in another broker that implements Kafka's protocol.
    #[default]
    Kafka,
}

/// The format of a source's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceFormat {
    /// One JSON object per message.
    #[default]
    Json,
    /// One protobuf message without a length prefix. Its type is the message type that the table declares, unless the
    /// source has a transform.
    Protobuf,
    /// One Avro record, without the header of a container file.
    Avro,
}

/// The envelope of the events in a source's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Envelope {
    /// No envelope.
    #[default]
    None,
    /// A Debezium change event.
    Debezium,
}

/// What a source does with a partition if some of its messages were deleted before they were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The source stops reading the partition and logs an error.
    #[default]
    Stop,
    /// The source continues with the oldest available message and logs the gap.
    Earliest,
}

/// What a source does if a database table was truncated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnTruncate {
    /// The source stops reading the partition and logs an error.
    #[default]
    Stop,
    /// The source continues and logs the truncation. The rows that were stored before stay visible.
    Ignore,
}

/// How JSON messages in Debezium's envelope represent decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DecimalEncoding {
    /// As base64, which only the schema in a message distinguishes from text.
    #[default]
    Base64,
    /// As numbers, or as strings of digits.
    Text,
}

/// The set of Arrow types that query results may contain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TypeProfile {
    /// Results contain only types that every known client can read.
    #[default]
    Compat,
    /// The types that the query engine uses internally.
    Native,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

impl Config {
    /// Reads the file `path` and the process's environment. Without `path`, reads [`FILE`] in the current folder if it
    /// exists.
    pub fn from_environment(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let here = Path::new(FILE);
        let path = path.or_else(|| here.is_file().then_some(here));
        // Invalid UTF-8 in a variable becomes U+FFFD. `raw` refuses this character in Glasshouse's variables.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        };
        Self::load(path, std::env::vars_os().map(text))
    }

    /// Reads the file `path`, if given, and the variables `env`. Checks that all files that are named in the
    /// configuration exist, except the files of lookup tables.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        let name = path.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
        let mut errors = ConfigErrors::new(&name);
        let text = path.map_or(Ok(String::new()), read_text).unwrap_or_else(|error| {
            errors.add("", error);
            String::new()
        });
        let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let base = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let config = errors.or(text).and_then(|text| read(&text, &name, &base, env));
        let (config, mut errors) = config?;
        check::files(&config, &mut errors);
        errors.or(config)
    }

    /// Reads `text` as if it were the file `name` in the folder `base`. Does not access the disk.
    pub fn parse(
        text: &str,
        name: &str,
        base: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (config, errors) = read(text, name, base, env)?;
        errors.or(config)
    }

    /// Returns the sections in the order in which they are documented.
    fn lines(&self) -> Vec<ShownLine> {
        let line = |key: &str, shown| ShownLine { key: key.to_owned(), shown, about: None };
        let section = |key, lines| line(key, section_macro::ShownValue::Table(lines));
        vec![
            line("tables", self.tables.show("")),
            line("policy", self.policy.show("")),
            line("sources", self.sources.show("")),
            line("lookups", self.lookups.show("")),
            section("ingest", self.ingest.lines()),
            section("lake", self.lake.lines()),
            section("maintenance", self.maintenance.lines()),
            section("auth", self.auth.lines()),
            section("query", self.query.lines()),
            section("flight", self.flight.lines()),
            section("http", self.http.lines()),
            section("shutdown", self.shutdown.lines()),
            section("log", self.log.lines()),
        ]
    }
}

/// The names of all sections.
const SECTIONS: [&str; 13] = [
    "tables",
    "policy",
    "sources",
    "lookups",
    "ingest",
    "lake",
    "maintenance",
    "auth",
    "query",
    "flight",
    "http",
    "shutdown",
    "log",
];

/// Reads the text of the file and the environment variables. Returns the configuration, and the errors that were found
/// while it was read. Returns `Err` if the text is not valid TOML.
fn read(
    text: &str,
    name: &str,
    base: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<(Config, ConfigErrors), ConfigErrors> {
    let mut errors = ConfigErrors::new(name);
    let mut root = raw::parse(text, &mut errors);
    if !errors.is_empty() {
        // After a syntax error, the values that could be read are unreliable, and further errors would be misleading.
        return Err(errors.sorted());
    }
    raw::overlay(&mut root, env, &mut errors);
    let mut keys = SectionReader::new("", root, &mut errors);
    let mut config = Config {
        base: base.to_owned(),
        tables: keys.take("tables", none()),
        policy: keys.take("policy", none()),
        sources: keys.take("sources", none()),
        lookups: keys.take("lookups", none()),
        ingest: keys.section("ingest"),
        lake: keys.section("lake"),
        maintenance: keys.section("maintenance"),
        auth: keys.section("auth"),
        query: keys.section("query"),
        flight: keys.section("flight"),
        http: keys.section("http"),
        shutdown: keys.section("shutdown"),
        log: keys.section("log"),
    };
    keys.finish(&SECTIONS);
    tables::default_dimensions_map(&mut config.tables, &errors);
    check::resolve(&mut config, &mut errors);
    check::across(&config, &mut errors);
    Ok((config, errors))
}

/// Reads a configuration file. Returns an error message if the file cannot be read.
fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes; check that it is a configuration file"));
    }
    Ok(text)
}

#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod tests;
