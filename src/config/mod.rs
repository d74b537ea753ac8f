//! The operator's page: every knob and bound of the server, in the order in which data flows.
//!
//! In: `glasshouse.toml` and the environment (`GLASSHOUSE__SECTION__KEY`). Out: a checked [`Config`], or every fault at
//! once, each with its place. Raw text comes in, checked values go out: nothing behind this page parses again.
//! A module gets its own section, never the whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Declared tables by name.
    pub tables: BTreeMap<String, TableConfig>,
    /// Who sees what of them.
    pub policy: BTreeMap<String, PolicyConfig>,
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
    /// What the server says of itself.
    pub log: LogConfig,
}

/// One declared table.
#[derive(Debug, Clone, Default)]
pub struct TableConfig {
    /// Prose for catalogs and BI tools.
    pub description: String,
    /// A `.proto` file that declares the events; excludes `columns`.
    pub proto: Option<PathBuf>,
    /// The full name of the message in `proto`.
    pub message: Option<String>,
    /// Nested messages (dotted paths) whose fields become columns under their own names, without the path in front.
    pub flatten: Vec<String>,
    /// Fields of `proto` (dotted paths) that are not stored.
    pub ignore: Vec<String>,
    /// Columns, when there is no `proto`.
    pub columns: Vec<ColumnConfig>,
    /// The column that says whose event it is.
    pub tenant: String,
    /// The column that says when it happened.
    pub time: String,
    /// The column that makes it one event: the dedupe key, unique per tenant.
    pub id: String,
    /// Integer fields that are times as well.
    pub times: Vec<String>,
    /// What an integer time counts.
    pub time_unit: TimeUnit,
    /// The map column that takes unknown fields; empty for none.
    pub dimensions_map: String,
    /// Columns to group and filter by.
    pub dimensions: Vec<String>,
    /// Columns to measure.
    pub metrics: Vec<String>,
    /// Days to keep; 0 keeps for ever.
    pub retention_days: u32,
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

/// One column of a table declared by columns.
#[derive(Debug, Clone, Default)]
pub struct ColumnConfig {
    /// Its name.
    pub name: String,
    /// Its type: `text`, `bool`, `int32`, `int64`, `float32`, `float64`, `timestamp`, `date`, `bytes`, `map`.
    pub kind: String,
    /// The unit of its values, if any ("ms", "bytes").
    pub unit: String,
    /// Prose for catalogs and BI tools.
    pub description: String,
}

/// Who sees what of one table. A table without a policy is invisible.
#[derive(Debug, Clone, Default)]
pub struct PolicyConfig {
    /// The columns that may be read; empty for all.
    pub columns: Vec<String>,
    /// Extra row rules, all of which must hold.
    pub rows: Vec<RowRuleConfig>,
}

/// `column` must equal the value (or be one of the values) of `claim`.
#[derive(Debug, Clone)]
pub struct RowRuleConfig {
    /// A column of the table.
    pub column: String,
    /// A claim of the token: a string, a number, a boolean or a list of them.
    pub claim: String,
    /// Whether a token without the claim sees no row (true, the default) or is not bound by this rule.
    pub required: bool,
}

/// How events come in.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// A batch closes at this many rows.
    pub batch_rows_max: usize,
    /// Or at this many bytes in memory.
    pub batch_bytes_max: usize,
    /// Or at this age of its first row.
    pub batch_age_max: Duration,
    /// Bytes waiting for a commit, all tables together; past it a request is refused with a retry time.
    pub queue_bytes_max: usize,
    /// How long a request may wait for room in the queue.
    pub queue_wait_max: Duration,
    /// The size of one request's body, compressed and not.
    pub body_bytes_max: usize,
    /// How many times larger a body may become by decompression.
    pub body_expansion_max: usize,
    /// The size of one event.
    pub event_bytes_max: usize,
    /// Entries in one event's dimensions map.
    pub dimensions_max: usize,
    /// Event ids in the dedupe window of one table.
    pub dedupe_ids_max: usize,
    /// How far ahead of the server's clock an event's time may be.
    pub future_max: Duration,
    /// Reasons told in one receipt; the rest is counted only.
    pub receipt_rejects_max: usize,
    /// Attempts to commit one batch.
    pub commit_attempts_max: u32,
}

/// Where events rest.
#[derive(Debug, Clone)]
pub struct LakeConfig {
    /// `file:///path`, `s3://bucket/prefix` or `memory:///`.
    pub url: String,
    /// Options of the object store (`aws_endpoint`, `aws_region`, `aws_access_key_id` …); secrets are redacted.
    pub options: BTreeMap<String, String>,
    /// zstd level of Parquet files.
    pub compression_level: i32,
    /// Rows of a row group.
    pub row_group_rows_max: usize,
    /// Commits between two checkpoints.
    pub checkpoint_interval: u64,
    /// How long log entries older than a checkpoint are kept.
    pub log_retention: Duration,
    /// How often other writers' commits are looked for.
    pub refresh_interval: Duration,
    /// Time for one request to the store.
    pub request_time_max: Duration,
    /// Retries of one request to the store.
    pub request_retries_max: usize,
}

/// Whose tokens we trust.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// Trusted issuers by a name of ours.
    pub issuers: BTreeMap<String, IssuerConfig>,
    /// The size of a token.
    pub token_bytes_max: usize,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The age of a token with an `iat`.
    pub token_age_max: Duration,
    /// How long a fetched key set is fresh.
    pub jwks_fresh: Duration,
    /// How long a key set serves when it cannot be fetched again.
    pub jwks_stale_max: Duration,
    /// The least time between two fetches for an unknown key.
    pub jwks_cooldown: Duration,
    /// The size of a fetched key set.
    pub jwks_bytes_max: usize,
    /// Keys in one key set.
    pub jwks_keys_max: usize,
    /// Signs tickets and prepared handles; empty: made anew at each start.
    pub handle_secret: Secret,
}

/// One trusted issuer.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// The exact `iss`.
    pub issuer: String,
    /// The `aud` that must be in the token.
    pub audience: String,
    /// Accepted algorithms (`HS256`, `RS256`, `PS256`, `ES256`, `EdDSA` …), each fitting the key.
    pub algorithms: Vec<String>,
    /// A shared secret (HS* only).
    pub secret: Option<Secret>,
    /// A PEM public key file.
    pub pem_file: Option<PathBuf>,
    /// A JWKS file.
    pub jwks_file: Option<PathBuf>,
    /// A JWKS URL; `https` unless it is loopback.
    pub jwks_url: Option<String>,
    /// The claim that is the tenant; a dotted path.
    pub tenant_claim: String,
    /// The claim that lists scopes: a list, or a string of words.
    pub scope_claim: String,
    /// Subjects that may ingest for every tenant and need no tenant claim. They can never query.
    pub operators: Vec<String>,
}

/// Text that must not be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: only for the code that signs or verifies.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(redacted)" })
    }
}

/// How events are asked.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// Time for one query, planning and streaming.
    pub time_max: Duration,
    /// Memory of one query.
    pub memory_bytes_max: usize,
    /// Rows that one query may return.
    pub rows_max: usize,
    /// The size of a statement's text.
    pub sql_bytes_max: usize,
    /// Queries of one tenant at once.
    pub tenant_queries_max: usize,
    /// Queries of one tenant waiting for their turn.
    pub tenant_queue_max: usize,
    /// How long one may wait.
    pub tenant_queue_wait_max: Duration,
    /// Partitions of a plan; 0 for one per core.
    pub partitions: usize,
    /// Rows of a record batch.
    pub batch_rows: usize,
    /// Memory for cached Parquet metadata.
    pub metadata_cache_bytes_max: usize,
}

/// The Arrow door.
#[derive(Debug, Clone)]
pub struct FlightConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The server's certificate chain (PEM); needs `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// The server's private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Certificates of accepted clients (PEM): mutual TLS.
    pub tls_client_ca: Option<PathBuf>,
    /// Plain text beyond loopback, for a server behind a TLS proxy.
    pub plaintext_allowed: bool,
    /// One message sent; clients with default limits read 4 MiB.
    pub message_bytes_max: usize,
    /// One message received.
    pub message_in_bytes_max: usize,
    /// A request's headers.
    pub header_bytes_max: u32,
    /// How long a ticket or a prepared handle is valid.
    pub handle_age_max: Duration,
    /// The type profile of clients that ask for none.
    pub types: TypeProfile,
    /// How long running answers may finish when the server stops.
    pub drain_max: Duration,
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

/// The web door.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Time for one request.
    pub request_time_max: Duration,
    /// Connections at once.
    pub connections_max: usize,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// Filter directives, as in `info,glasshouse=debug`.
    pub level: String,
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
