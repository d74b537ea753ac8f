//! Generates `docs/configuration.md` from the declarations, so that the page and the code agree.

use std::fmt::Write;

use super::key::{Section, SectionInfo, ShownLine};
use super::{
    AuthConfig, COLUMN_KINDS, FlightConfig, HttpConfig, IngestConfig, IssuerConfig, LakeConfig, LatestConfig,
    LogConfig, LookupConfig, OauthConfig, PolicyConfig, QueryConfig, RegistryConfig, RowRuleConfig, ShutdownConfig,
    SourceConfig, TableConfig,
};

/// The text above the sections.
const INTRODUCTION: &str = "\
<!-- Generated from the declarations in src/config by a test (INSTA_UPDATE=always cargo test --lib config::). Do not edit. -->

# Configuration

The configuration is one file, `glasshouse.toml`. This page lists every setting of the server in the order in which data
flows. The commented [`glasshouse.toml`](../glasshouse.toml) at the root of the repository is a working example.

- `glasshouse config check` reports every error at once, each with file, line and column, and exits with 3 if there is one.
- `glasshouse config show` prints the effective values with the texts of this page; secrets are redacted.
- An environment variable overrides a key of the file: `GLASSHOUSE__SECTION__KEY`, such as `GLASSHOUSE__LAKE__URL` or
  `GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET`. A list is `a,b` or `[\"a\", \"b\"]`.
- Times require a unit: `\"250ms\"`, `\"1s\"`, `\"15m\"`, `\"1h\"`, `\"7d\"`. Sizes are `\"64 MiB\"` or a number of bytes.
- Unknown keys and unknown `GLASSHOUSE__` variables are errors. Relative paths are resolved against the folder of the file.
- Requests to other servers (key sets, schema registries, token endpoints, URLs of lookup tables) trust the certificate
  authorities of the system (or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`) and of a `ca_file`. They use the proxy in
  `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY` unless `NO_PROXY` names the host; requests to loopback never use a proxy.
- A request that exceeds a limit gets an error that names the key: HTTP 413 or 429, gRPC `RESOURCE_EXHAUSTED`.
";

/// The page.
pub(super) fn page() -> String {
    let kinds = COLUMN_KINDS.map(|kind| format!("`{kind}`")).join(", ");
    let tables = format!("One declared table; a new table needs no code. Column types are {kinds}.");
    let sections: [(&str, &str, Vec<ShownLine>); 18] = [
        ("[tables.NAME]", &tables, TableConfig::default().lines()),
        (
            "latest = { … } in [tables.NAME]",
            "The table shows the newest version of each key: see [tables.md](tables.md).",
            LatestConfig::default().lines(),
        ),
        (
            "[policy.NAME]",
            "Access to the table NAME. A table without a policy is invisible.",
            PolicyConfig::default().lines(),
        ),
        (
            "rows = [{ … }] in [policy.NAME]",
            "One additional row rule: `column` must equal the value, or be one of the values, of `claim`.",
            RowRuleConfig::default().lines(),
        ),
        (
            "[sources.NAME]",
            "Topics that are read into a table, each message once: see [ingest.md](ingest.md).",
            SourceConfig::default().lines(),
        ),
        (
            "[sources.NAME.oauth]",
            "The token endpoint with which a source logs in: see [ingest.md](ingest.md#logging-in).",
            OauthConfig::default().lines(),
        ),
        (
            "[sources.NAME.registry]",
            "A registry that speaks Confluent's protocol: see [ingest.md](ingest.md#schema-registries-and-avro).",
            RegistryConfig::default().lines(),
        ),
        (
            "[lookups.NAME]",
            "A table in memory that transforms of sources can join: see [ingest.md](ingest.md#lookup-tables).",
            LookupConfig::default().lines(),
        ),
        ("[ingest]", "Ingest: batches, queues and limits of events.", IngestConfig::default().lines()),
        ("[lake]", "The lake: where tables are stored.", LakeConfig::default().lines()),
        ("[auth]", "Authentication: trusted token issuers.", AuthConfig::default().lines()),
        (
            "[auth.issuers.NAME]",
            "One trusted issuer, with exactly one of `secret`, `pem_file`, `jwks_file` and `jwks_url`.",
            IssuerConfig::default().lines(),
        ),
        ("[query]", "Queries: limits and resources.", QueryConfig::default().lines()),
        ("[flight]", "The Flight SQL endpoint.", FlightConfig::default().lines()),
        ("[http]", "The HTTP endpoint: ingest, health and metrics.", HttpConfig::default().lines()),
        ("[shutdown]", "Graceful shutdown: one deadline for all of it.", ShutdownConfig::default().lines()),
        ("[log]", "The server's log.", LogConfig::default().lines()),
        ("Checked across sections", "", Vec::new()),
    ];
    let mut page = INTRODUCTION.to_owned();
    for (title, about, lines) in sections {
        let title = if lines.is_empty() { title.to_owned() } else { format!("`{title}`") };
        let _ = write!(page, "\n## {title}\n\n");
        if lines.is_empty() {
            page.push_str(ACROSS);
            continue;
        }
        let _ = write!(page, "{about}\n\n| key | default | allowed | meaning and reason |\n|---|---|---|---|\n");
        for ShownLine { key, about, .. } in lines {
            page.push_str(&row(&key, &about.expect("a section's lines have their texts")));
        }
    }
    page
}

/// The rules that `check.rs` checks.
const ACROSS: &str = "\
- Names of tables, columns and issuers consist of `a` to `z`, `0` to `9` and single underscores, and begin with a letter. A
  table must not end in `_quarantine`, and a column must not be named `received_time` or `event_date`, because the server
  adds these. If a table NAME has `latest`, no table may be named `NAME_changes`.
- A source names a declared table; `protobuf` without a transform requires a table with `proto`; `avro` requires a
  `registry` or a `schema_file`. A registry's URL with a password or a token must be `https`, unless it is loopback.
- Offsets are stored in the table under the name of the source: a renamed source begins anew.
- A source has at most one of `transform` and `transform_file`; `envelope = \"debezium\"` requires one of them. A lookup
  table has exactly one of `file`, `url` and `query`, and must not be named `messages`.
- `oauth` of a source requires `security.protocol` = `SASL_SSL` (or `SASL_PLAINTEXT`) in its options, and the mechanism
  `OAUTHBEARER` requires `oauth`.
- A policy must name a declared table. Columns that a table declared by columns or its policy names must exist.
- Each algorithm must fit its key: HS* requires a `secret` at least as long as its hash, all others a public key; `none` is
  refused.
- A `jwks_url` must be `https`, unless it is loopback. An `iss` must not be configured more than once.
- Beyond loopback, `[flight]` requires TLS or `plaintext_allowed`, `[http]` requires `plaintext_allowed`, and the public
  development secret is refused.
";

fn row(key: &str, about: &SectionInfo) -> String {
    let SectionInfo { what, why, allowed, default } = about;
    let default = if matches!(default.as_str(), "required" | "not set") { default.clone() } else { code(default) };
    let escape = |text: &str| text.replace('|', "\\|");
    format!("| `{key}` | {default} | {} | {}<br>*{}.* |\n", escape(allowed), escape(what), escape(why))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}
