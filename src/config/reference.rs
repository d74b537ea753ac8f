//! `docs/configuration.md`, written from the declarations so that it cannot say anything else.

use std::fmt::Write;

use super::key::{Section, SectionInfo, ShownLine};
use super::{
    AuthConfig, COLUMN_KINDS, FlightConfig, HttpConfig, IngestConfig, IssuerConfig, LakeConfig, LatestConfig,
    LogConfig, LookupConfig, OauthConfig, PolicyConfig, QueryConfig, RegistryConfig, RowRuleConfig, ShutdownConfig,
    SourceConfig, TableConfig,
};

/// What stands above the sections.
const INTRODUCTION: &str = "\
<!-- Written from the declarations in src/config by a test (INSTA_UPDATE=always cargo test --lib config::). Do not edit. -->

# Configuration

One file, `glasshouse.toml`: every knob and bound of the server in the order in which data flows. The commented
[`glasshouse.toml`](../glasshouse.toml) at the root of the repository is a working example.

- `glasshouse config check` reports every fault at once, each with file, line and column, and ends with 3 if there is one.
- `glasshouse config show` prints the effective values, secrets redacted, with the texts of this page.
- Any key can be set by a variable: `GLASSHOUSE__SECTION__KEY`, as in `GLASSHOUSE__LAKE__URL` or
  `GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET`. A variable goes before the file. A list is `a,b` or `[\"a\", \"b\"]`.
- Times carry their unit: `\"250ms\"`, `\"1s\"`, `\"15m\"`, `\"1h\"`, `\"7d\"`. Sizes may: `\"64 MiB\"` or a number of bytes.
- Unknown keys and unknown `GLASSHOUSE__` variables are faults. Paths start at the folder of the file.
- Requests to other servers (key sets, schema registries, token endpoints, URLs of lookup tables) trust the authorities of
  the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others) and those of a `ca_file`. They go through the proxy of
  `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY` unless `NO_PROXY` names the host; those to this machine never do.
- A limit that is met is an ordinary answer that names its key: HTTP 413 or 429, gRPC `RESOURCE_EXHAUSTED`.
";

/// The page.
pub(super) fn page() -> String {
    let kinds = COLUMN_KINDS.map(|kind| format!("`{kind}`")).join(", ");
    let tables = format!("One declared table; a new one needs no code. Types of columns are {kinds}.");
    let sections: [(&str, &str, Vec<ShownLine>); 18] = [
        ("[tables.NAME]", &tables, TableConfig::default().lines()),
        (
            "latest = { … } in [tables.NAME]",
            "The table shows the newest version of each key: see [tables.md](tables.md).",
            LatestConfig::default().lines(),
        ),
        (
            "[policy.NAME]",
            "Who sees what of the table NAME. A table without a policy is invisible.",
            PolicyConfig::default().lines(),
        ),
        (
            "rows = [{ … }] in [policy.NAME]",
            "One extra row rule: `column` must equal the value, or be one of the values, of `claim`.",
            RowRuleConfig::default().lines(),
        ),
        (
            "[sources.NAME]",
            "Topics that are read into a table, each message once: see [ingest.md](ingest.md).",
            SourceConfig::default().lines(),
        ),
        (
            "[sources.NAME.oauth]",
            "Where a source gets the tokens from with which it logs in: see [ingest.md](ingest.md#logging-in).",
            OauthConfig::default().lines(),
        ),
        (
            "[sources.NAME.registry]",
            "A registry that speaks Confluent's protocol: see [ingest.md](ingest.md#schema-registries-and-avro).",
            RegistryConfig::default().lines(),
        ),
        (
            "[lookups.NAME]",
            "What the transforms of sources join with, under this name: see [ingest.md](ingest.md#lookup-tables).",
            LookupConfig::default().lines(),
        ),
        ("[ingest]", "How events come in.", IngestConfig::default().lines()),
        ("[lake]", "Where they rest.", LakeConfig::default().lines()),
        ("[auth]", "Whose tokens are trusted.", AuthConfig::default().lines()),
        (
            "[auth.issuers.NAME]",
            "One trusted issuer, with exactly one of `secret`, `pem_file`, `jwks_file` and `jwks_url`.",
            IssuerConfig::default().lines(),
        ),
        ("[query]", "How events are asked.", QueryConfig::default().lines()),
        ("[flight]", "The Arrow door: Flight SQL.", FlightConfig::default().lines()),
        ("[http]", "The web door: ingest, health and metrics.", HttpConfig::default().lines()),
        ("[shutdown]", "How the server stops: one deadline for all of it.", ShutdownConfig::default().lines()),
        ("[log]", "What the server says of itself.", LogConfig::default().lines()),
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
        let _ = write!(page, "{about}\n\n| key | default | allowed | what it is, and why |\n|---|---|---|---|\n");
        for ShownLine { key, about, .. } in lines {
            page.push_str(&row(&key, &about.expect("a section's lines have their texts")));
        }
    }
    page
}

/// What `check.rs` looks at.
const ACROSS: &str = "\
- Names of tables, columns and issuers are `a` to `z`, `0` to `9` and single underscores, beginning with a letter. No
  table ends in `_quarantine`, no column is `received_time` or `event_date`: the server adds those itself. Beside a table
  NAME with `latest` there is no table `NAME_changes`.
- A source names a declared table; `protobuf` without a transform needs one that is declared by `proto`; `avro` needs a
  `registry` or a `schema_file`. A registry's URL that takes a password or a token is `https`, unless it is loopback.
- Names of sources, like those of tables, are part of what the table remembers of them: a source that is renamed begins
  anew.
- A source has `transform` or `transform_file`, or neither; `envelope = \"debezium\"` needs one of them. A lookup table has
  exactly one of `file`, `url` and `query`, and is not called `messages`.
- `oauth` of a source goes with `security.protocol` = `SASL_SSL` (or `SASL_PLAINTEXT`) in its options, and the mechanism
  `OAUTHBEARER` with `oauth`.
- A policy belongs to a declared table, and the columns that a table of columns or its policy names exist.
- Each algorithm fits its key: HS* needs a `secret` as long as its hash, all others a public key; `none` is refused.
- A `jwks_url` is `https`, unless it is loopback. An `iss` is trusted once.
- Beyond loopback, `[flight]` needs TLS or `plaintext_allowed`, `[http]` needs `plaintext_allowed`, and the public
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
