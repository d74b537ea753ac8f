//! The settings of a source's Kafka client.
//!
//! [`settings`] takes a checked [`SourceConfig`], and returns a [`ClientConfig`] that librdkafka accepts.
//!
//! **Invariant:** the client never determines where reading starts, because it stores no offsets and has no default
//! start position.
//! **Invariant:** no error message contains the value of an option, because the value may be a secret.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::config::SourceConfig;
use crate::error::{Error, Result};
use crate::http_client::Roots;

/// The interval at which the client reports its statistics, which contain the end offsets of its partitions.
const STATISTICS_INTERVAL_MS: &str = "2000";
/// The maximum size of the client's fetch queue. The default size is eight times larger, which does not fit into the
/// CPU caches.
const QUEUE_KIB: &str = "8192";
/// The time for which the client stops fetching from a partition when the queue is full. With the default pause of one
/// second, the source could run out of messages.
const QUEUE_BACKOFF_MS: &str = "2";

/// Returns the settings for a source's client. If librdkafka rejects an option, fails with `Invalid` and names the
/// option.
pub(super) fn settings(name: &str, config: &SourceConfig) -> Result<ClientConfig> {
    let mut settings = ClientConfig::new();
    settings
        .set("client.id", format!("glasshouse-{name}"))
        .set("queued.max.messages.kbytes", QUEUE_KIB)
        .set("fetch.queue.backoff.ms", QUEUE_BACKOFF_MS);
    for (option, value) in config.options.expose() {
        let mut single = ClientConfig::new();
        single.set(option, value);
        // The client's own error message contains the option's value, so it is not used.
        if single.create_native_config().is_err() {
            return Err(Error::invalid(format!(
                "sources.{name}.options: librdkafka rejects `{option}`: the option is unknown or its value is invalid"
            )));
        }
        settings.set(option, value);
    }
    settings
        .set("bootstrap.servers", config.brokers.join(","))
        .set("group.id", &config.group)
        // With this strategy, a rebalance does not interrupt partitions that stay assigned to the same member.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // If messages are missing, the client reports an error, and the session handles this error according to
        // `on_gap`.
        .set("auto.offset.reset", "error")
        // With the "end reached" event, `lag_reporting.rs` advances offsets past control records and aborted messages.
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    // At this level, the client logs closed connections. The client's other messages at this level are useful only for
    // debugging.
    settings.set_log_level(RDKafkaLogLevel::Info);
    if config.oauth.is_some() {
        settings.set("sasl.mechanism", "OAUTHBEARER");
    }
    if let Some(file) = &config.ca_file {
        // The client's own setting, `ssl.ca.location`, would replace the system's certificate authorities instead of
        // adding to them.
        let roots = Roots::load(Some(file)).map_err(|error| error.at(format!("sources.{name}.ca_file")))?;
        settings.set("ssl.ca.pem", roots.pem());
    }
    check(name, &settings)?;
    Ok(settings)
}

/// Checks that a client can be created, so that inconsistent options and missing files are reported at startup. The
/// client that is created for this check has no brokers, so it opens no connection.
fn check(name: &str, settings: &ClientConfig) -> Result<()> {
    let mut offline = settings.clone();
    offline.remove("bootstrap.servers");
    offline.remove("group.id");
    match offline.set_log_level(RDKafkaLogLevel::Emerg).create::<BaseConsumer>() {
        Ok(_) => Ok(()),
        // The client's message names files and options, but contains no secret values.
        Err(KafkaError::ClientCreation(why)) => Err(Error::invalid(format!("sources.{name}.options: {why}"))),
        Err(cause) => Err(cannot_create(name)(cause)),
    }
}

/// Returns a function that converts the client library's error for a client that cannot be created.
pub(super) fn cannot_create(source: &str) -> impl Fn(KafkaError) -> Error {
    move |cause| Error::invalid(format!("sources.{source}: cannot create the Kafka client")).with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaOptions;
    use crate::http_client::testing::AUTHORITY;

    #[test]
    fn a_ca_file_is_added_to_the_systems_certificate_authorities() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let options = KafkaOptions::new([("security.protocol".to_owned(), "SSL".to_owned())]);
        let mut config = SourceConfig { options, ..SourceConfig::default() };
        assert_eq!(settings("voice", &config).unwrap().get("ssl.ca.pem"), None, "the client uses its own default");
        config.ca_file = Some(file.clone());
        let missing = settings("voice", &config).unwrap_err();
        assert!(missing.message().starts_with("sources.voice.ca_file: cannot read"), "{missing}");
        std::fs::write(&file, AUTHORITY).unwrap();
        let expected = format!("{}{AUTHORITY}", Roots::system().pem());
        assert_eq!(settings("voice", &config).unwrap().get("ssl.ca.pem"), Some(expected.as_str()));
    }
}
