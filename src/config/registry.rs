//! The schema registry of a source: its URLs, credentials and limits.
//!
//! In: `[sources.NAME.registry]` and the source's other keys of the format (`format`, `confluent`, `schema_file`, `message`).
//! Out: a checked [`RegistryConfig`], and errors of keys that cannot be combined.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::error::ConfigErrors;
use super::key::{KeySpec, Section, SectionReader, ShownValue, Value, bytes, count, none, required, section, time};
use super::loopback::{has_credentials, is_https_or_loopback};
use super::raw::RawConfig;
use super::server_sections::{MILLISECOND, MINUTE, SECOND};
use super::value::wrong;
use super::{Config, Secret, SourceConfig, SourceFormat};

section! {
    /// A schema registry that speaks Confluent's protocol.
    RegistryConfig {
        /// Its URLs, without credentials; a path is kept, as in `https://registry/apis/ccompat/v7`.
        urls: Vec<String> = required(Vec::new()),
            "they are tried in turn until one responds";
        /// The user of HTTP basic authentication; requires `password`.
        user: Option<String> = none(),
            "the API key, for a cloud registry";
        /// The password of `user`.
        password: Option<Secret> = none(),
            "best from the environment: `GLASSHOUSE__SOURCES__NAME__REGISTRY__PASSWORD`";
        /// A bearer token, instead of `user` and `password`.
        token: Option<Secret> = none(),
            "best from the environment: `GLASSHOUSE__SOURCES__NAME__REGISTRY__TOKEN`";
        /// CA certificates (PEM) to trust for the registry, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "a private registry often has a private CA";
        /// The time limit for one request.
        request_time_max: Duration = time(5 * SECOND, 10 * MILLISECOND..=MINUTE),
            "a schema is small, and a source waits for it";
        /// The size of one response.
        schema_bytes_max: usize = bytes(1 << 20, 1 << 10..=64 << 20),
            "people write schemas; a message with a larger schema goes to the quarantine";
        /// The number of cached schemas.
        schemas_max: usize = count("schemas", 1_000, 1..=1_000_000),
            "a schema is fetched once, because the schema of an id never changes";
    }
}

impl Value for RegistryConfig {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        match raw {
            RawConfig::Table(entries) => Some(Section::read(SectionReader::new(key, entries, faults))),
            other => wrong(&other, key, faults),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(ShownValue::Table(self.lines()).to_string())
    }

    fn form() -> String {
        "a table, such as { urls = [\"https://registry:8081\"] }".to_owned()
    }
}

/// Checks the format of a source's messages, and where their schemas come from.
pub(super) fn across(key: &dyn Fn(&str) -> String, source: &SourceConfig, config: &Config, faults: &mut ConfigErrors) {
    let has_transform = source.transform.is_some() || source.transform_file.is_some();
    let is_declared = config.tables.get(&source.table).is_none_or(|table| table.proto.is_some());
    if source.registry.is_some() && source.schema_file.is_some() {
        faults.add(&key("schema_file"), "cannot be combined with `registry`: schemas come from one of the two");
    }
    match source.format {
        SourceFormat::Json => {
            if source.registry.is_some() {
                faults.add(&key("registry"), "is not used for `json`: `confluent = true` skips the header");
            }
            if source.schema_file.is_some() {
                faults.add(&key("schema_file"), "is for `avro` and `protobuf`: JSON needs none");
            }
        }
        SourceFormat::Avro => {
            if source.registry.is_none() && source.schema_file.is_none() {
                faults.add(&key("format"), "`avro` needs a `registry`, or a `schema_file` that all messages follow");
            }
        }
        SourceFormat::Protobuf => {
            if source.schema_file.is_some() && !has_transform {
                faults.add(
                    &key("schema_file"),
                    "of `protobuf` requires a transform: without one the table's `proto` is used",
                );
            }
            if source.schema_file.is_some() && source.message.is_none() {
                faults.add(&key("message"), "is missing: name a message of `schema_file`, with its package");
            }
            if !is_declared && !has_transform {
                let table = &source.table;
                faults.add(
                    &key("format"),
                    format!("table `{table}` is declared by columns: use `json` or `avro`, or a `transform`"),
                );
            }
            if !is_declared && has_transform && source.registry.is_none() && source.schema_file.is_none() {
                faults
                    .add(&key("format"), "the messages have no schema: set `registry`, or `schema_file` and `message`");
            }
        }
    }
    if source.message.is_some() && (source.format != SourceFormat::Protobuf || source.schema_file.is_none()) {
        faults.add(&key("message"), "belongs to a `schema_file` of `protobuf`");
    }
    if let Some(registry) = &source.registry {
        check(key, registry, faults);
    }
}

fn check(key: &dyn Fn(&str) -> String, registry: &RegistryConfig, faults: &mut ConfigErrors) {
    match (&registry.user, &registry.password, &registry.token) {
        (Some(_), None, _) => faults.add(&key("registry.password"), "is missing: `user` needs it"),
        (None, Some(_), _) => faults.add(&key("registry.user"), "is missing: `password` needs it"),
        (Some(_), _, Some(_)) => {
            faults.add(&key("registry.token"), "cannot be combined with `user` and `password`: keep one")
        }
        _ => {}
    }
    let has_secret = registry.password.is_some() || registry.token.is_some();
    for (index, text) in registry.urls.iter().enumerate() {
        let key = key(&format!("registry.urls[{index}]"));
        match Url::parse(text) {
            // The message does not quote the URL, because it may contain a password.
            Err(error) => faults.add(&key, format!("is not a valid URL: {error}")),
            Ok(url) if has_credentials(&url) => {
                faults.add(&key, "must not contain credentials, since it is shown: set `user` and `password`");
            }
            Ok(url) if !["http", "https"].contains(&url.scheme()) || url.query().is_some() => {
                faults.add(&key, "must be a URL such as \"https://registry:8081\"");
            }
            Ok(url) if has_secret && !is_https_or_loopback(&url) => {
                faults.add(&key, "must be https: a password or a token must not be sent in plain text");
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The faults of a source with these lines, by the keys of a table of columns.
    fn faults(lines: &str) -> String {
        let text = format!(
            "[lake]\nurl = \"memory:///\"\n[tables.calls]\ntenant = \"who\"\ntime = \"at\"\nid = \"key\"\n\
             columns = {{ who = \"text\", at = \"timestamp\", key = \"text\" }}\n[sources.one]\nkind = \"kafka\"\n\
             brokers = [\"a:1\"]\ntopics = [\"t\"]\ngroup = \"g\"\ntable = \"calls\"\n{lines}"
        );
        let read = Config::parse(&text, "t.toml", Path::new("/etc/glasshouse"), std::iter::empty());
        read.err().map(|faults| faults.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_says_how_messages_are_written_goes_together() {
        let cases = [
            ("format = \"avro\"\nregistry = { urls = [\"http://registry:8081/a\"] }", ""),
            ("format = \"avro\"\nschema_file = \"a.avsc\"", ""),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"\nschema_file = \"a.proto\"\nmessage = \"a.B\"", ""),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"\nregistry = { urls = [\"http://a\"] }", ""),
            ("format = \"avro\"", "`avro` needs a `registry`"),
            ("format = \"avro\"\nregistry = { urls = [] }", "registry.urls: must not be empty"),
            ("format = \"avro\"\nregistry = { url = \"http://a\" }", "did you mean `urls`?"),
            ("format = \"avro\"\nschema_file = \"a\"\nregistry = { urls = [\"http://a\"] }", "one of the two"),
            ("registry = { urls = [\"http://a\"] }", "`confluent = true` skips the header"),
            ("schema_file = \"a\"", "JSON needs none"),
            ("format = \"protobuf\"", "declared by columns"),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"", "the messages have no schema"),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"\nschema_file = \"a\"", "message: is missing"),
            ("format = \"avro\"\nschema_file = \"a\"\nmessage = \"a.B\"", "belongs to a `schema_file` of `protobuf`"),
        ];
        for (lines, expected) in cases {
            check(lines, expected);
        }
    }

    #[test]
    fn credentials_go_together_and_over_tls() {
        let cases = [
            ("urls = [\"https://a\"]\nuser = \"u\"\npassword = \"p\"", ""),
            ("urls = [\"http://127.0.0.1:1\"]\ntoken = \"t\"", ""),
            ("urls = [\"https://a\"]\nuser = \"u\"", "registry.password: is missing"),
            ("urls = [\"https://a\"]\npassword = \"p\"", "registry.user: is missing"),
            ("urls = [\"https://a\"]\nuser = \"u\"\npassword = \"p\"\ntoken = \"t\"", "keep one"),
            ("urls = [\"http://a\"]\ntoken = \"t\"", "must not be sent in plain text"),
            ("urls = [\"https://u:p@a\"]", "must not contain credentials"),
            ("urls = [\"ftp://a\"]", "must be a URL such as"),
            ("urls = [\"a\"]", "is not a valid URL"),
        ];
        for (lines, expected) in cases {
            check(&format!("format = \"avro\"\n[sources.one.registry]\n{lines}"), expected);
        }
    }

    /// The source with these lines has this fault; or none, when it is empty.
    fn check(lines: &str, expected: &str) {
        let given = faults(lines);
        let is_expected = if expected.is_empty() { !given.contains("sources.one") } else { given.contains(expected) };
        assert!(is_expected, "{lines}\n  gives {given}\n  not   {expected}");
    }

    #[test]
    fn a_registrys_secrets_are_not_shown() {
        let secret = || Some(Secret::new("hunter2"));
        let registry = RegistryConfig { password: secret(), token: secret(), ..RegistryConfig::default() };
        let source = SourceConfig { registry: Some(registry), ..SourceConfig::default() };
        let shown = format!("{source:?} {}", ShownValue::Table(source.lines()));
        assert!(shown.contains("password = \"(redacted)\"") && shown.contains("token = \"(redacted)\""), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
