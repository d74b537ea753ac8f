//! Generates `docs/configuration.md` from the declarations of the keys. A test checks that the page is up to date.

use std::fmt::Write;

use super::section_macro::{KeyInfo, Section, ShownLine};
use super::{
    AuthConfig, ColumnKind, FlightConfig, HttpConfig, IngestConfig, IssuerConfig, LakeConfig, LatestConfig, LogConfig,
    LookupConfig, MaintenanceConfig, OauthConfig, PolicyConfig, QueryConfig, RegistryConfig, RowRuleConfig,
    ShutdownConfig, SourceConfig, TableConfig,
};

/// The introduction of the page.
const INTRODUCTION: &str = "\
<!-- Generated from the declarations in src/config by a test (INSTA_UPDATE=always cargo test --lib config::). Do not edit. -->

# Configuration

The configuration is one file, `glasshouse.toml`. This page lists every setting of the server, in the order in which
data flows through it. The commented [`glasshouse.toml`](../glasshouse.toml) at the root of the repository is a working
example.

- `glasshouse config check` checks the file and reports all errors, each with its file, line and column. The exit
  code is 3 if it finds an error.
- `glasshouse config show` prints the effective values, together with the explanations from this page. Secrets are
  redacted.
- An environment variable `GLASSHOUSE__SECTION__KEY` overrides a key of the file. Examples are `GLASSHOUSE__LAKE__URL` and
  `GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET`. Write a list as `a,b` or `[\"a\", \"b\"]`.
- A duration requires a unit: `\"250ms\"`, `\"1s\"`, `\"15m\"`, `\"1h\"` or `\"7d\"`. A size is a number of bytes, or a string such as
  `\"64 MiB\"`.
- Unknown keys and unknown `GLASSHOUSE__` variables are errors.
- Relative paths are resolved against the folder of the configuration file.
- The server sends requests to other servers for key sets, schemas, login tokens and lookup tables. For these requests it
  trusts the system's certificate authorities (or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`) and those in a `ca_file`.
  It uses the proxy in `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY`, unless `NO_PROXY` names the host. Requests to loopback
  addresses never use a proxy.
- If a request exceeds a limit, the error names the key of the limit. The status is HTTP 413 or 429, or gRPC
  `RESOURCE_EXHAUSTED`.
";

/// Generates the page.
pub(super) fn page() -> String {
    let kinds = ColumnKind::NAMES.map(|kind| format!("`{kind}`")).join(", ");
    let tables = format!("One declared table. The column types are {kinds}.");
    let sections = sections(&tables);
    let mut page = INTRODUCTION.to_owned();
    for (title, about, lines) in sections {
        let title = if lines.is_empty() { title.to_owned() } else { format!("`{title}`") };
        let _ = write!(page, "\n## {title}\n\n");
        if lines.is_empty() {
            page.push_str(RULES_ACROSS_KEYS);
            continue;
        }
        let _ = write!(page, "{about}\n\n| key | default | allowed values | meaning |\n|---|---|---|---|\n");
        for ShownLine { key, about, .. } in lines {
            page.push_str(&row(&key, &about.expect("every line of a section has its documentation")));
        }
    }
    page
}

/// Returns the title, the description and the keys of each section. `tables` describes the section of a table.
fn sections(tables: &str) -> [(&str, &str, Vec<ShownLine>); 19] {
    [
        ("[tables.NAME]", tables, TableConfig::default().lines()),
        (
            "latest = { … } in [tables.NAME]",
            "Makes the table show only the latest version of each key; see [tables.md](tables.md).",
            LatestConfig::default().lines(),
        ),
        (
            "[policy.NAME]",
            "The access policy of the table or lookup table NAME. A table without a policy is invisible to tenants.",
            PolicyConfig::default().lines(),
        ),
        (
            "rows = [{ … }] in [policy.NAME]",
            "One additional row rule: `column` must equal the value of `claim`, or one of the values if the claim is a \
             list.",
            RowRuleConfig::default().lines(),
        ),
        (
            "[sources.NAME]",
            "A source reads topics into a table and stores each message once; see [ingest.md](ingest.md).",
            SourceConfig::default().lines(),
        ),
        (
            "[sources.NAME.oauth]",
            "The token endpoint from which a source gets its login tokens; see [ingest.md](ingest.md#logging-in).",
            OauthConfig::default().lines(),
        ),
        (
            "[sources.NAME.registry]",
            "A schema registry that speaks Confluent's protocol; see [ingest.md](ingest.md#schema-registries-and-avro).",
            RegistryConfig::default().lines(),
        ),
        (
            "[lookups.NAME]",
            "An in-memory table that transforms, and optionally tenants, can join; see \
             [ingest.md](ingest.md#lookup-tables) and [tables.md](tables.md#lookup-tables-in-queries).",
            LookupConfig::default().lines(),
        ),
        ("[ingest]", "The batches, queues and limits of ingest.", IngestConfig::default().lines()),
        ("[lake]", "The object store that holds the tables.", LakeConfig::default().lines()),
        (
            "[maintenance]",
            "Merges small files and removes expired rows; see [maintenance.md](maintenance.md).",
            MaintenanceConfig::default().lines(),
        ),
        ("[auth]", "The trusted token issuers and the limits of tokens and keys.", AuthConfig::default().lines()),
        (
            "[auth.issuers.NAME]",
            "One trusted issuer. Set exactly one of `secret`, `secret_file`, `pem_file`, `jwks_file` and `jwks_url`.",
            IssuerConfig::default().lines(),
        ),
        ("[query]", "The limits on queries, and the threads and memory that they use.", QueryConfig::default().lines()),
        ("[flight]", "The Flight SQL endpoint.", FlightConfig::default().lines()),
        ("[http]", "The HTTP endpoint for ingest, health and metrics.", HttpConfig::default().lines()),
        ("[shutdown]", "The time limit of a graceful shutdown.", ShutdownConfig::default().lines()),
        ("[log]", "The server's log.", LogConfig::default().lines()),
        ("Rules across keys", "", Vec::new()),
    ]
}

/// The rules that involve several keys. `check.rs`, `check_auth.rs` and `check_sources.rs` enforce them.
const RULES_ACROSS_KEYS: &str = "\
- The names of tables, columns and issuers consist of `a` to `z`, `0` to `9` and single underscores, and begin with a
  letter. The name of a table must not end in `_quarantine`. A column must not be named `received_time` or `event_date`,
  because the server adds these columns. If a table NAME has `latest`, no table may be named `NAME_changes`.
- A source must name a declared table. A `protobuf` source without a transform requires a table with `proto`. An `avro`
  source requires a `registry` or a `schema_file`. If a registry has a password or a token, its URLs must use `https`, or
  `http` with a loopback address.
- The table stores a source's offsets under the name of the source. A renamed source has no stored offsets and begins at
  `start`.
- A source can have either `transform` or `transform_file`, but not both. `envelope = \"debezium\"` requires one of them.
- A lookup table must have exactly one of `file`, `url` and `query`, and must not be named `messages`. A lookup table
  with `tenant` or `shared` requires a policy and a name that no table has.
- `oauth` requires `security.protocol` = `SASL_SSL` or `SASL_PLAINTEXT` in the source's options. The SASL mechanism
  `OAUTHBEARER` requires `oauth`.
- A policy must name a declared table, or a lookup table with `tenant` or `shared`. All columns that a table or its
  policy refers to must exist.
- Each signing algorithm must match the issuer's key. An HS algorithm requires a `secret` that is at least as long as its
  hash. All other algorithms require a public key. The algorithm `none` is refused.
- A `jwks_url` must use `https`, or `http` with a loopback address. No two issuers may have the same `issuer`.
- If other hosts can reach an endpoint, `[flight]` requires TLS or `plaintext_allowed`, `[http]` requires
  `plaintext_allowed`, and a missing `secret_file` is an error. If no other host can reach an endpoint, the server
  creates a missing `secret_file`.
- If the environment sets `secret` or `secret_file`, both keys in the configuration file are ignored.
";

fn row(key: &str, about: &KeyInfo) -> String {
    let KeyInfo { what, note, allowed, default } = about;
    let default = if matches!(default.as_str(), "required" | "not set") { default.clone() } else { code(default) };
    let escape = |text: &str| text.replace('|', "\\|");
    format!("| `{key}` | {default} | {} | {}<br>*{}.* |\n", escape(allowed), escape(what), escape(note))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}
