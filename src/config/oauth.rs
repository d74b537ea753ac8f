//! How a source gets the tokens to log in to its brokers: `[sources.NAME.oauth]`.
//!
//! In: the section and the options of the source. Out: errors, each with a fix.

use std::path::PathBuf;

use url::Url;

use super::auth::Secret;
use super::error::ConfigErrors;
use super::key::{KeySpec, Section, SectionReader, ShownValue, Value, none, required, section};
use super::loopback::{has_credentials, is_https_or_loopback};
use super::raw::RawConfig;
use super::sources::SourceConfig;
use super::value::wrong;

section! {
    /// The token endpoint of a source.
    OauthConfig {
        /// The token endpoint of the identity provider: `https://`, on this machine also `http://`.
        token_url: String = required(""),
            "queried with the grant `client_credentials` before the current token expires";
        /// The client id of the source.
        client_id: String = required(""),
            "identifies the source at the provider";
        /// The client secret.
        client_secret: Secret = required(Secret::default()),
            "best from the environment: `GLASSHOUSE__SOURCES__NAME__OAUTH__CLIENT_SECRET`";
        /// The scope to request.
        scope: Option<String> = none(),
            "providers that issue only one kind of token do not need it";
        /// The audience to request: the provider's name of the brokers.
        audience: Option<String> = none(),
            "some providers require it in addition to the scope";
        /// CA certificates (PEM) to trust for the endpoint, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "a private endpoint often has a private CA";
    }
}

/// The SASL mechanism for tokens.
pub(super) const MECHANISM: &str = "OAUTHBEARER";

impl Value for OauthConfig {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        match raw {
            RawConfig::Table(entries) => Some(Section::read(SectionReader::new(key, entries, faults))),
            other => wrong(&other, key, faults),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Table(self.lines())
    }

    fn form() -> String {
        "a table, such as { token_url = \"https://…\", client_id = \"…\", client_secret = \"…\" }".to_owned()
    }
}

/// Checks the section against the options of its source.
pub(super) fn check(key: &dyn Fn(&str) -> String, source: &SourceConfig, faults: &mut ConfigErrors) {
    let option = |name: &str| source.options.expose().find(|(given, _)| *given == name).map(|(_, value)| value);
    let mechanism = option("sasl.mechanism").or(option("sasl.mechanisms"));
    let Some(oauth) = &source.oauth else {
        if mechanism.is_some_and(|mechanism| mechanism.eq_ignore_ascii_case(MECHANISM)) {
            faults.add(&key("oauth"), format!("is missing: {MECHANISM} needs [{}] with its `token_url`", key("oauth")));
        }
        return;
    };
    if mechanism.is_some_and(|mechanism| !mechanism.eq_ignore_ascii_case(MECHANISM)) {
        faults.add(
            &key("oauth"),
            format!("requires `sasl.mechanism` = \"{MECHANISM}\" in the options, or no `sasl.mechanism`"),
        );
    }
    if !option("security.protocol").is_some_and(|protocol| protocol.to_ascii_uppercase().starts_with("SASL_")) {
        faults
            .add(&key("oauth"), "needs `security.protocol` = \"SASL_SSL\" in the options: no token is sent without it");
    }
    if !oauth.token_url.is_empty() {
        token_url(&key("oauth.token_url"), &oauth.token_url, faults);
    }
}

fn token_url(key: &str, url: &str, faults: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return faults.add(key, format!("is not a valid URL: {error}")),
    };
    if !is_https_or_loopback(&url) {
        faults.add(key, "must be https: the client secret is sent there");
    }
    if has_credentials(&url) {
        faults.add(key, "must not contain credentials: use `client_id` and `client_secret`");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// A configuration with one source that has these lines.
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

    /// A source that logs in by tokens.
    fn source(url: &str, mechanism: &str) -> String {
        format!(
            "options.security.protocol = \"SASL_SSL\"\noptions.sasl.mechanism = \"{mechanism}\"\n\
             oauth = {{ token_url = \"{url}\", client_id = \"us\", client_secret = \"hunter2\" }}"
        )
    }

    #[test]
    fn a_source_may_log_in_by_tokens() {
        let scope = [("GLASSHOUSE__SOURCES__ONE__OAUTH__SCOPE", "kafka")];
        let config = read(&source("https://a.example/token", "OAUTHBEARER"), &scope);
        let config = config.unwrap_or_else(|faults| panic!("{faults}"));
        let oauth = config.sources["one"].oauth.as_ref().unwrap();
        assert_eq!((oauth.client_secret.expose(), oauth.scope.as_deref()), ("hunter2", Some("kafka")));
        let shown = config.show(true);
        assert!(shown.contains("client_secret = \"(redacted)\""), "{shown}");
        assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        let cases = [
            ("options.sasl.mechanism = \"OAUTHBEARER\"".to_owned(), "needs [sources.one.oauth] with its `token_url`"),
            ("options.sasl.oauthbearer.method = \"oidc\"".to_owned(), "configure tokens in [sources.NAME.oauth]"),
            ("options.enable_sasl_oauthbearer_unsecure_jwt = true".to_owned(), "anybody can write an unsigned token"),
            (source("https://a/token", "PLAIN"), "sources.one.oauth: requires `sasl.mechanism` = \"OAUTHBEARER\""),
            (source("http://a/token", "OAUTHBEARER"), "oauth.token_url: must be https"),
            (source("https://me:you@a/token", "OAUTHBEARER"), "oauth.token_url: must not contain credentials"),
            (source("a/token", "OAUTHBEARER"), "oauth.token_url: is not a valid URL"),
            ("oauth = { token_url = \"https://a\", client_id = \"b\" }".to_owned(), "oauth.client_secret: is missing"),
            ("oauth.token_url = \"https://a\"".to_owned(), "needs `security.protocol` = \"SASL_SSL\""),
        ];
        for (lines, expected) in cases {
            let Err(faults) = read(&lines, &[]) else { panic!("not refused: {lines}") };
            assert!(faults.to_string().contains(expected), "{lines}\n  gives {faults}\n  not   {expected}");
            assert!(!faults.to_string().contains("hunter2"), "{faults}");
        }
    }
}
