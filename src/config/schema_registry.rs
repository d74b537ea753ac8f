//! The section `[sources.NAME.registry]`: the URLs, credentials and limits of a source's schema registry.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::error::ConfigErrors;
use super::raw::RawValue;
use super::scalar_values::wrong;
use super::section_macro::{
    KeySpec, Section, SectionReader, ShownValue, Value, bytes, count, none, required, section, time,
};
use super::server_sections::{MILLISECOND, MINUTE, SECOND};

section! {
    /// The schema registry of one source. The registry must support the REST API of Confluent Schema Registry.
    RegistryConfig {
        /// The registry's URLs, without credentials. A URL may have a path, as in `https://registry/apis/ccompat/v7`.
        urls: Vec<String> = required(Vec::new()),
            "The URLs are tried in order until one responds";
        /// The user for HTTP basic authentication. Requires `password`.
        user: Option<String> = none(),
            "For a cloud registry, this is the API key";
        /// The password of `user`.
        password: Option<Secret> = none(),
            "Set it in the environment: `GLASSHOUSE__SOURCES__NAME__REGISTRY__PASSWORD`";
        /// A bearer token, as an alternative to `user` and `password`.
        token: Option<Secret> = none(),
            "Set it in the environment: `GLASSHOUSE__SOURCES__NAME__REGISTRY__TOKEN`";
        /// CA certificates (PEM) to trust for the registry, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "A private registry often has a private CA";
        /// The time limit for one request.
        request_time_max: Duration = time(5 * SECOND, 10 * MILLISECOND..=MINUTE),
            "A schema is small, and the source cannot continue until the schema has arrived";
        /// The maximum size of one response.
        schema_bytes_max: usize = bytes(1 << 20, 1 << 10..=64 << 20),
            "Schemas are usually written by hand and are therefore small. Messages with a larger schema are rejected and \
             stored in the quarantine";
        /// The maximum number of cached schemas.
        schemas_max: usize = count("schemas", 1_000, 1..=1_000_000),
            "A schema is fetched only once, because the schema of an id never changes";
    }
}

impl Value for RegistryConfig {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        match raw {
            RawValue::Table(entries) => Some(Section::read(SectionReader::new(key, entries, errors))),
            other => wrong(&other, key, errors),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(ShownValue::Table(self.lines()).to_string())
    }

    fn form() -> String {
        "a table, such as { urls = [\"https://registry:8081\"] }".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceConfig;

    #[test]
    fn the_secrets_of_a_registry_are_redacted() {
        let secret = || Some(Secret::new("hunter2"));
        let registry = RegistryConfig { password: secret(), token: secret(), ..RegistryConfig::default() };
        let source = SourceConfig { registry: Some(registry), ..SourceConfig::default() };
        let shown = format!("{source:?} {}", ShownValue::Table(source.lines()));
        assert!(shown.contains("password = \"(redacted)\"") && shown.contains("token = \"(redacted)\""), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
