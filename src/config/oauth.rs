//! The section `[sources.NAME.oauth]`: how a source gets the tokens that it needs to log in to its brokers.

use std::path::PathBuf;

use super::auth::Secret;
use super::error::ConfigErrors;
use super::raw::RawValue;
use super::scalar_values::wrong;
use super::section_macro::{KeySpec, Section, SectionReader, ShownValue, Value, none, required, section};

section! {
    /// How a source requests OAuth tokens for its brokers.
    OauthConfig {
        /// The URL of the identity provider's token endpoint. It must be an `https://` URL. An `http://` URL is
        /// accepted only for a loopback address.
        token_url: String = required(""),
            "The server requests a token with the grant `client_credentials` before the current token expires";
        /// The source's client id.
        client_id: String = required(""),
            "It identifies the source to the identity provider";
        /// The source's client secret.
        client_secret: Secret = required(Secret::default()),
            "Set it in the environment: `GLASSHOUSE__SOURCES__NAME__OAUTH__CLIENT_SECRET`";
        /// The scope to request.
        scope: Option<String> = none(),
            "Providers that issue only one kind of token do not need it";
        /// The audience to request. It is the name by which the provider identifies the Kafka cluster.
        audience: Option<String> = none(),
            "Some providers require it in addition to the scope";
        /// CA certificates (PEM) to trust for the token endpoint, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "A private endpoint often has a private CA";
    }
}

impl Value for OauthConfig {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        match raw {
            RawValue::Table(entries) => Some(Section::read(SectionReader::new(key, entries, errors))),
            other => wrong(&other, key, errors),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Table(self.lines())
    }

    fn form() -> String {
        "a table, such as { token_url = \"https://…\", client_id = \"…\", client_secret = \"…\" }".to_owned()
    }
}
