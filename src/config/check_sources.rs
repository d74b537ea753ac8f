//! Checks the sections `[sources.NAME]`: the keys must be consistent with each other and with other sections, and the
//! brokers and topics must be valid.

use std::collections::BTreeSet;

use url::Url;

use super::error::ConfigErrors;
use super::loopback::{has_credentials, is_https_or_loopback};
use super::{Config, Envelope, RegistryConfig, SourceConfig, SourceFormat};
use crate::error::did_you_mean;

/// The maximum length of a topic name, in bytes.
const TOPIC_BYTES_MAX: usize = 249;
/// The librdkafka options that set the certificate authorities.
const CA_OPTIONS: [&str; 2] = ["ssl.ca.location", "ssl.ca.pem"];
/// The SASL mechanism for logging in with tokens.
const MECHANISM: &str = "OAUTHBEARER";

/// Checks each source: its table must exist, its keys must be consistent with each other, and its brokers and topics
/// must be valid.
pub(super) fn sources(config: &Config, errors: &mut ConfigErrors) {
    for (name, source) in &config.sources {
        let key = |field: &str| format!("sources.{name}.{field}");
        match config.tables.get(&source.table) {
            None if !source.table.is_empty() => {
                let guess = did_you_mean(&source.table, config.tables.keys().map(String::as_str));
                errors.add(&key("table"), format!("unknown table `{}`{guess}", source.table));
            }
            _ => {}
        }
        transform(&key, source, errors);
        oauth(&key, source, errors);
        authorities(&key, source, errors);
        message_format(&key, source, config, errors);
        for (index, broker) in source.brokers.iter().enumerate() {
            if broker.is_empty() || broker.contains([',', ' ']) {
                errors.add(&key(&format!("brokers[{index}]")), "must be a single `host:port`");
            }
        }
        let mut seen = BTreeSet::new();
        for (index, topic) in source.topics.iter().enumerate() {
            let key = key(&format!("topics[{index}]"));
            let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
            if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || !topic.chars().all(allowed) {
                let known = "letters, digits, `.`, `_` and `-`";
                errors
                    .add(&key, format!("is not a valid topic name: use {known}, at most {TOPIC_BYTES_MAX} characters"));
            }
            if !seen.insert(topic) {
                errors.add(&key, format!("`{topic}` appears more than once: remove all but one"));
            }
        }
    }
}

/// Checks that `ca_file` and a librdkafka option do not both set the brokers' certificate authorities.
fn authorities(key: &dyn Fn(&str) -> String, source: &SourceConfig, errors: &mut ConfigErrors) {
    let option = source.options.expose().find(|(name, _)| CA_OPTIONS.contains(name));
    if let (Some(_), Some((name, _))) = (&source.ca_file, option) {
        errors.add(&key("ca_file"), format!("cannot be combined with the option `{name}`: remove one of them"));
    }
}

/// Checks the keys that configure a transform.
fn transform(key: &dyn Fn(&str) -> String, source: &SourceConfig, errors: &mut ConfigErrors) {
    let has_transform = source.transform.is_some() || source.transform_file.is_some();
    if source.transform.is_some() && source.transform_file.is_some() {
        errors.add(&key("transform_file"), "cannot be combined with `transform`: remove one of them");
    }
    if source.transform.as_ref().is_some_and(|sql| sql.trim().is_empty()) {
        errors.add(&key("transform"), "must not be empty: write a statement, or omit the key");
    }
    if source.envelope == Envelope::Debezium && !has_transform {
        errors.add(&key("envelope"), "needs a `transform` that maps changes to columns");
    }
    if source.unavailable_value.is_empty() {
        errors
            .add(&key("unavailable_value"), "must not be empty: set it to Debezium's `unavailable.value.placeholder`");
    }
}

/// Checks that the section `oauth` is consistent with the source's options.
fn oauth(key: &dyn Fn(&str) -> String, source: &SourceConfig, errors: &mut ConfigErrors) {
    let option = |name: &str| source.options.expose().find(|(given, _)| *given == name).map(|(_, value)| value);
    let mechanism = option("sasl.mechanism").or(option("sasl.mechanisms"));
    let Some(oauth) = &source.oauth else {
        if mechanism.is_some_and(|mechanism| mechanism.eq_ignore_ascii_case(MECHANISM)) {
            errors.add(&key("oauth"), format!("is missing: {MECHANISM} needs [{}] with its `token_url`", key("oauth")));
        }
        return;
    };
    if mechanism.is_some_and(|mechanism| !mechanism.eq_ignore_ascii_case(MECHANISM)) {
        errors.add(
            &key("oauth"),
            format!("requires `sasl.mechanism` = \"{MECHANISM}\" in the options, or no `sasl.mechanism`"),
        );
    }
    if !option("security.protocol").is_some_and(|protocol| protocol.to_ascii_uppercase().starts_with("SASL_")) {
        errors
            .add(&key("oauth"), "needs `security.protocol` = \"SASL_SSL\" in the options; otherwise no token is sent");
    }
    if !oauth.token_url.is_empty() {
        token_url(&key("oauth.token_url"), &oauth.token_url, errors);
    }
}

fn token_url(key: &str, url: &str, errors: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return errors.add(key, format!("is not a valid URL: {error}")),
    };
    if !is_https_or_loopback(&url) {
        errors.add(key, "must be https, because the client secret is sent to it");
    }
    if has_credentials(&url) {
        errors.add(key, "must not contain credentials: use `client_id` and `client_secret`");
    }
}

/// Checks the keys that determine the format of a source's messages and where their schemas come from.
fn message_format(key: &dyn Fn(&str) -> String, source: &SourceConfig, config: &Config, errors: &mut ConfigErrors) {
    let has_transform = source.transform.is_some() || source.transform_file.is_some();
    let is_declared = config.tables.get(&source.table).is_none_or(|table| table.proto.is_some());
    if source.registry.is_some() && source.schema_file.is_some() {
        errors.add(&key("schema_file"), "cannot be combined with `registry`: remove one of them");
    }
    match source.format {
        SourceFormat::Json => {
            if source.registry.is_some() {
                errors.add(
                    &key("registry"),
                    "is not used for `json`: to skip the header of a registry, set `confluent = true`",
                );
            }
            if source.schema_file.is_some() {
                errors.add(
                    &key("schema_file"),
                    "can only be used with `avro` and `protobuf`: JSON messages need no schema",
                );
            }
        }
        SourceFormat::Avro => {
            if source.registry.is_none() && source.schema_file.is_none() {
                errors.add(&key("format"), "`avro` needs a `registry`, or a `schema_file` that all messages follow");
            }
        }
        SourceFormat::Protobuf => {
            if source.schema_file.is_some() && !has_transform {
                errors.add(
                    &key("schema_file"),
                    "requires a transform for `protobuf`; without a transform, the table's `proto` is used",
                );
            }
            if source.schema_file.is_some() && source.message.is_none() {
                errors.add(
                    &key("message"),
                    "is missing: set the full name of a message in `schema_file`, with its package",
                );
            }
            if !is_declared && !has_transform {
                let table = &source.table;
                errors.add(
                    &key("format"),
                    format!("table `{table}` is declared as a list of columns: use `json` or `avro`, or a `transform`"),
                );
            }
            if !is_declared && has_transform && source.registry.is_none() && source.schema_file.is_none() {
                errors
                    .add(&key("format"), "the messages have no schema: set `registry`, or `schema_file` and `message`");
            }
        }
    }
    if source.message.is_some() && (source.format != SourceFormat::Protobuf || source.schema_file.is_none()) {
        errors.add(&key("message"), "can only be used with `protobuf` and a `schema_file`");
    }
    if let Some(registry) = &source.registry {
        registry_access(key, registry, errors);
    }
}

/// Checks the credentials and URLs of a schema registry.
fn registry_access(key: &dyn Fn(&str) -> String, registry: &RegistryConfig, errors: &mut ConfigErrors) {
    match (&registry.user, &registry.password, &registry.token) {
        (Some(_), None, _) => errors.add(&key("registry.password"), "is missing: `user` requires it"),
        (None, Some(_), _) => errors.add(&key("registry.user"), "is missing: `password` requires it"),
        (Some(_), _, Some(_)) => {
            errors.add(&key("registry.token"), "cannot be combined with `user` and `password`: remove one of them")
        }
        _ => {}
    }
    let has_secret = registry.password.is_some() || registry.token.is_some();
    for (index, text) in registry.urls.iter().enumerate() {
        let key = key(&format!("registry.urls[{index}]"));
        match Url::parse(text) {
            // The error does not quote the URL, because a URL may contain a password.
            Err(error) => errors.add(&key, format!("is not a valid URL: {error}")),
            Ok(url) if has_credentials(&url) => {
                errors.add(&key, "must not contain credentials, because the URL is shown: set `user` and `password`");
            }
            Ok(url) if !["http", "https"].contains(&url.scheme()) || url.query().is_some() => {
                errors.add(&key, "must be a URL such as \"https://registry:8081\"");
            }
            Ok(url) if has_secret && !is_https_or_loopback(&url) => {
                errors.add(&key, "must be https: a password or a token must not be sent in plain text");
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Parses a configuration with one source that has the given lines.
    fn read(lines: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let text = format!(
            "[lake]\nurl = \"memory:///\"\n[auth.issuers.dev]\nissuer = \"https://a\"\naudience = \"b\"\n\
             algorithms = [\"HS256\"]\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [tables.calls]\ntenant = \"who\"\ntime = \"at\"\nid = \"key\"\n\
             columns = {{ who = \"text\", at = \"timestamp\", key = \"text\" }}\n\
             [sources.one]\nkind = \"kafka\"\nbrokers = [\"a:9092\"]\ntopics = [\"calls\"]\ngroup = \"us\"\ntable = \"calls\"\n\
             {lines}"
        );
        let env = env.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        Config::parse(&text, "t.toml", Path::new("/etc/glasshouse"), env)
    }

    /// The configuration lines of a source that logs in with tokens.
    fn source(url: &str, mechanism: &str) -> String {
        format!(
            "options.security.protocol = \"SASL_SSL\"\noptions.sasl.mechanism = \"{mechanism}\"\n\
             oauth = {{ token_url = \"{url}\", client_id = \"us\", client_secret = \"hunter2\" }}"
        )
    }

    #[test]
    fn a_source_can_log_in_with_tokens() {
        let scope = [("GLASSHOUSE__SOURCES__ONE__OAUTH__SCOPE", "kafka")];
        let config = read(&source("https://a.example/token", "OAUTHBEARER"), &scope);
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        let oauth = config.sources["one"].oauth.as_ref().unwrap();
        assert_eq!((oauth.client_secret.expose(), oauth.scope.as_deref()), ("hunter2", Some("kafka")));
        let shown = config.show(true);
        assert!(shown.contains("client_secret = \"(redacted)\""), "{shown}");
        assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn conflicting_keys_are_reported() {
        let cases = [
            ("options.sasl.mechanism = \"OAUTHBEARER\"".to_owned(), "needs [sources.one.oauth] with its `token_url`"),
            ("options.sasl.oauthbearer.method = \"oidc\"".to_owned(), "configure tokens in [sources.NAME.oauth]"),
            ("options.enable_sasl_oauthbearer_unsecure_jwt = true".to_owned(), "anyone can create an unsigned token"),
            (source("https://a/token", "PLAIN"), "sources.one.oauth: requires `sasl.mechanism` = \"OAUTHBEARER\""),
            (source("http://a/token", "OAUTHBEARER"), "oauth.token_url: must be https"),
            (source("https://me:you@a/token", "OAUTHBEARER"), "oauth.token_url: must not contain credentials"),
            (source("a/token", "OAUTHBEARER"), "oauth.token_url: is not a valid URL"),
            ("oauth = { token_url = \"https://a\", client_id = \"b\" }".to_owned(), "oauth.client_secret: is missing"),
            ("oauth.token_url = \"https://a\"".to_owned(), "needs `security.protocol` = \"SASL_SSL\""),
        ];
        for (lines, expected) in cases {
            let Err(errors) = read(&lines, &[]) else { panic!("not refused: {lines}") };
            assert!(errors.to_string().contains(expected), "{lines}\n  gives {errors}\n  not   {expected}");
            assert!(!errors.to_string().contains("hunter2"), "{errors}");
        }
    }

    #[test]
    fn keys_of_the_message_format_are_checked_together() {
        let cases = [
            ("format = \"avro\"\nregistry = { urls = [\"http://registry:8081/a\"] }", ""),
            ("format = \"avro\"\nschema_file = \"a.avsc\"", ""),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"\nschema_file = \"a.proto\"\nmessage = \"a.B\"", ""),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"\nregistry = { urls = [\"http://a\"] }", ""),
            ("format = \"avro\"", "`avro` needs a `registry`"),
            ("format = \"avro\"\nregistry = { urls = [] }", "registry.urls: must not be empty"),
            ("format = \"avro\"\nregistry = { url = \"http://a\" }", "did you mean `urls`?"),
            (
                "format = \"avro\"\nschema_file = \"a\"\nregistry = { urls = [\"http://a\"] }",
                "combined with `registry`",
            ),
            ("registry = { urls = [\"http://a\"] }", "to skip the header of a registry, set `confluent = true`"),
            ("schema_file = \"a\"", "JSON messages need no schema"),
            ("format = \"protobuf\"", "declared as a list of columns"),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"", "the messages have no schema"),
            ("format = \"protobuf\"\ntransform = \"SELECT 1\"\nschema_file = \"a\"", "message: is missing"),
            (
                "format = \"avro\"\nschema_file = \"a\"\nmessage = \"a.B\"",
                "only be used with `protobuf` and a `schema_file`",
            ),
        ];
        for (lines, expected) in cases {
            assert_error(lines, expected);
        }
    }

    #[test]
    fn credentials_are_complete_and_require_tls() {
        let cases = [
            ("urls = [\"https://a\"]\nuser = \"u\"\npassword = \"p\"", ""),
            ("urls = [\"http://127.0.0.1:1\"]\ntoken = \"t\"", ""),
            ("urls = [\"https://a\"]\nuser = \"u\"", "registry.password: is missing"),
            ("urls = [\"https://a\"]\npassword = \"p\"", "registry.user: is missing"),
            ("urls = [\"https://a\"]\nuser = \"u\"\npassword = \"p\"\ntoken = \"t\"", "remove one of them"),
            ("urls = [\"http://a\"]\ntoken = \"t\"", "must not be sent in plain text"),
            ("urls = [\"https://u:p@a\"]", "must not contain credentials"),
            ("urls = [\"ftp://a\"]", "must be a URL such as"),
            ("urls = [\"a\"]", "is not a valid URL"),
        ];
        for (lines, expected) in cases {
            assert_error(&format!("format = \"avro\"\n[sources.one.registry]\n{lines}"), expected);
        }
    }

    /// Asserts that a source with the given lines has the expected error, or no error if `expected` is empty.
    fn assert_error(lines: &str, expected: &str) {
        let given = read(lines, &[]).err().map(|errors| errors.to_string()).unwrap_or_default();
        let is_expected = if expected.is_empty() { given.is_empty() } else { given.contains(expected) };
        assert!(is_expected, "{lines}\n  gives {given}\n  not   {expected}");
    }
}
