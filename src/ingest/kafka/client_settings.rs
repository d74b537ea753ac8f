//! The settings of a source's Kafka client.
//!
//! [`settings`] converts a validated [`SourceConfig`] to a [`ClientConfig`] that librdkafka accepts.
//!
//! **Invariant:** the client never chooses an offset on its own, because it stores no offsets and has no default start
//! position.
//! **Invariant:** no error message contains the value of an option, because the value may be a secret.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::config::SourceConfig;
use crate::error::{Error, Result};
use crate::http_client::Roots;

/// The interval at which the client reports its statistics, which contain the end offsets of its partitions.
const STATISTICS_INTERVAL_MS: &str = "2000";
/// The maximum size of the client's fetch queue. A queue of the default size, which is eight times larger, does
/// not fit into the CPU caches.
const QUEUE_KIB: &str = "8192";
/// The time for which the client postpones fetching from a partition if its queue is full. With the default of one
/// second, the queue could run empty in the meantime.
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
        // Don't include the client's own error message, because it contains the option's value.
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
        // If the fetch offset does not exist, the client reports an error instead of choosing another offset. The
        // session then acts according to `on_gap`.
        .set("auto.offset.reset", "error")
        // `lag_reporting.rs` uses the "end reached" event to advance offsets past control records and aborted messages.
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    // The client logs closed connections at this level. All its other messages at this level are useful only for
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

/// Creates a client as a check, so that inconsistent options and missing files are reported at startup. This client has
/// no brokers, so it opens no connection.
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

/// Returns a function that converts an error of the client library to an error that names the source.
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
