//! The section `[sources.NAME]`: Kafka topics that are read into a table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use chrono::DateTime;

use super::error::ConfigErrors;
use super::oauth::OauthConfig;
use super::raw::RawValue;
use super::scalar_values::{REDACTED, quoted, text, wrong};
use super::section_macro::{KeySpec, SectionReader, ShownLine, ShownValue, Value, none, plain, required, section};
use super::{DecimalEncoding, Envelope, OnGap, OnTruncate, RegistryConfig, SourceFormat, SourceKind};

/// The default of Debezium's `unavailable.value.placeholder`.
pub const UNAVAILABLE_VALUE: &str = "__debezium_unavailable_value";

section! {
    /// One source, which reads topics into one table. A message that is read again is not stored again.
    SourceConfig {
        /// The type of the source.
        kind: SourceKind = required(SourceKind::Kafka),
            "`kafka` is the only kind at present";
        /// The bootstrap brokers, each as `host:port`.
        brokers: Vec<String> = required(Vec::new()),
            "One reachable broker is enough to discover the rest";
        /// The topics to read.
        topics: Vec<String> = required(Vec::new()),
            "Each message is one event, or one input row of the transform";
        /// The consumer group. The servers that use the same group divide the partitions among themselves.
        group: String = required(""),
            "Servers of the same lake must use the same group, and different lakes must use different groups";
        /// The table that stores the events.
        table: String = required(""),
            "The table's contract decodes the messages. A message that cannot be decoded is stored in the table's \
             quarantine";
        /// The format of a message: `json` (one object), `protobuf` (one protobuf message) or `avro` (one record).
        format: SourceFormat = plain(SourceFormat::Json),
            "A topic does not declare its format";
        /// Whether each message begins with a Confluent schema-registry header, which the server skips.
        confluent: bool = plain(false),
            "The table's contract decodes the rest of the message. If `registry` is set, every message must have the \
             header, and the server reads the schema id from it";
        /// The schema registry that holds the schemas of `avro` and `protobuf` messages.
        registry: Option<RegistryConfig> = none(),
            "An `avro` message is decoded with its writer schema. The schema of a `protobuf` message is compared with \
             the table's contract";
        /// A file with the schema of all messages, for a source without a registry. For `avro` messages, it is an
        /// `.avsc` file. For `protobuf` messages with a transform, it is a `.proto` file.
        schema_file: Option<PathBuf> = none(),
            "Use it if there is no registry. If neither is configured, a transform reads `protobuf` messages of the \
             type that the table declares";
        /// The full name of the message type in the `schema_file` of a `protobuf` source.
        message: Option<String> = none(),
            "A file may declare several message types";
        /// The envelope of the events: `none`, or `debezium` for database changes as JSON. A source with `debezium`
        /// requires a transform.
        envelope: Envelope = plain(Envelope::None),
            "A database change contains the old and the new row, and the transform decides what to store";
        /// What to do if a database table was truncated: `stop` reading the partition, or `ignore` the truncation. Used
        /// with `debezium`.
        on_truncate: OnTruncate = plain(OnTruncate::Stop),
            "The rows that were stored before the truncation are still visible. A person should decide what to do";
        /// How `json` messages represent decimals: `base64` (decoded with the schema in the message), or `text`
        /// (Debezium's `decimal.handling.mode` is `string` or `double`). Used with `debezium`.
        decimals: DecimalEncoding = plain(DecimalEncoding::Base64),
            "With `base64`, a JSON string that may be base64 is not read as a number, because the number would be wrong";
        /// The placeholder for values that a change left unchanged, which is Debezium's `unavailable.value.placeholder`.
        /// Used with `debezium`.
        unavailable_value: String = plain(UNAVAILABLE_VALUE),
            "The previous value replaces the placeholder if the message contains it, and NULL otherwise";
        /// A SELECT statement over `messages` that computes the table's columns from a batch; see docs/ingest.md.
        transform: Option<String> = none(),
            "If omitted, the messages must have the table's columns";
        /// The path of a file that contains the transform statement.
        transform_file: Option<PathBuf> = none(),
            "A long statement is easier to read and to test in its own file";
        /// How the tenant of an event is determined: `{ key = true }` (the message key), `{ header = "name" }` or `{
        /// value = "tenant" }`. By default, the event's tenant column is used.
        tenant: TenantFrom = plain(TenantFrom::Event),
            "If the message determines the tenant, the server trusts the producers. With a fixed value, all events \
             belong to the same tenant";
        /// Where to start if the table has no stored offset for a partition: `earliest`, `latest`, or a time such as
        /// `2026-01-31T00:00:00Z`.
        start: StartAt = plain(StartAt::Earliest),
            "Afterwards, the stored offsets are used. `latest` means the time at which the source was first started";
        /// What to do if messages were deleted before they were read: `stop` reading the partition, or continue with
        /// the `earliest` available message.
        on_gap: OnGap = plain(OnGap::Stop),
            "A person should investigate lost events before they are skipped";
        /// CA certificates (PEM) to trust for the brokers, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "The option `ssl.ca.location` of librdkafka would replace the system's certificates";
        /// Options of librdkafka, such as `"security.protocol" = "SASL_SSL"`. Values that may be secret are redacted
        /// when options are shown.
        options: KafkaOptions = none(),
            "In environment variables, write `_` for each dot: `GLASSHOUSE__SOURCES__NAME__OPTIONS__SASL_PASSWORD`";
        /// The token endpoint from which the source requests access tokens for its brokers (SASL mechanism
        /// `OAUTHBEARER`).
        oauth: Option<OauthConfig> = none(),
            "If omitted, the source logs in with the credentials in `options`, or does not log in if there are none";
    }
}

/// How the tenant of an event is determined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TenantFrom {
    /// The event contains the tenant.
    #[default]
    Event,
    /// The key of the message is the tenant.
    Key,
    /// The message header with this name contains the tenant.
    Header(String),
    /// All events belong to this tenant.
    Value(String),
}

/// Where a source starts to read a partition for which the table has no stored offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest message of the partition.
    #[default]
    Earliest,
    /// At the first message that was produced after the source was first started.
    Latest,
    /// At the first message with this timestamp or a later one, in milliseconds since the Unix epoch.
    Time(i64),
}

/// Options of librdkafka by name. The `Debug` output redacts values that may be secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaOptions(BTreeMap<String, String>);

/// The librdkafka options whose values may be shown. The values of all other options are redacted, because they may be
/// secret.
const OPTIONS_SHOWN: [&str; 15] = [
    "broker.address.family",
    "client.id",
    "client.rack",
    "fetch.wait.max.ms",
    "group.instance.id",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.poll.interval.ms",
    "queued.max.messages.kbytes",
    "sasl.mechanism",
    "sasl.mechanisms",
    "security.protocol",
    "session.timeout.ms",
    "ssl.ca.location",
    "ssl.endpoint.identification.algorithm",
];

/// The librdkafka options that a configuration must not set. The second value of each entry names the key to set
/// instead, or states why the option is not allowed.
const OPTIONS_OWN: [(&str, &str); 12] = [
    ("bootstrap.servers", "set `brokers`"),
    ("metadata.broker.list", "set `brokers`"),
    ("group.id", "set `group`"),
    ("group.protocol", "the source controls how partitions are reassigned"),
    ("partition.assignment.strategy", "the source controls how partitions are reassigned"),
    ("enable.auto.commit", "the offsets are stored in the table"),
    ("enable.auto.offset.store", "the offsets are stored in the table"),
    ("auto.offset.reset", "set `start` and `on_gap`"),
    ("enable.partition.eof", "the source needs it to measure the lag"),
    ("statistics.interval.ms", "the source needs it to report the lag"),
    ("plugin.library.paths", "a configuration must not load code"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "anyone can create an unsigned token"),
];

impl KafkaOptions {
    /// Creates options from names and values.
    pub fn new(options: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(options.into_iter().collect())
    }

    /// Returns the names and values of the options, including secrets. Call this only to configure a Kafka client.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.show(""))
    }
}

impl Value for KafkaOptions {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let RawValue::Table(entries) = raw else { return wrong(&raw, key, errors) };
        let mut options = Self::default();
        for (name, raw) in entries {
            options.insert(name.clone(), raw, &format!("{key}.{name}"), errors);
        }
        Some(options)
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let line = |(name, text): (&String, &String)| {
            let text = if OPTIONS_SHOWN.contains(&name.as_str()) { text } else { REDACTED };
            ShownLine { key: quoted(name), shown: ShownValue::Inline(quoted(text)), about: None }
        };
        ShownValue::Table(self.0.iter().map(line).collect())
    }

    fn form() -> String {
        "a table of strings".to_owned()
    }
}

impl KafkaOptions {
    /// Adds an option, or all options in a table. TOML reads `sasl.password` without quotes as the key `password` in
    /// the table `sasl`.
    fn insert(&mut self, name: String, raw: RawValue, key: &str, errors: &mut ConfigErrors) {
        let text = match raw {
            RawValue::Table(entries) => {
                for (inner, raw) in entries {
                    self.insert(format!("{name}.{inner}"), raw, &format!("{key}.{inner}"), errors);
                }
                return;
            }
            RawValue::Integer(number) => Some(number.to_string()),
            RawValue::Bool(yes) => Some(yes.to_string()),
            other => text(other, key, &none::<String>(), errors),
        };
        // `log_level` is the only librdkafka option whose name contains an underscore.
        let name = if name == "log_level" { name } else { name.replace('_', ".") };
        if text.as_deref() == Some(REDACTED) {
            return errors.add(key, "is the placeholder of `config show`, not a value");
        }
        if name.starts_with("sasl.oauthbearer.") {
            return errors.add(key, "is not supported: configure tokens in [sources.NAME.oauth]");
        }
        if let Some((_, why)) = OPTIONS_OWN.iter().find(|(own, _)| *own == name) {
            return errors.add(key, format!("is not allowed in `options`: {why}"));
        }
        self.0.extend(text.map(|text| (name, text)));
    }
}

impl Value for TenantFrom {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let RawValue::Table(entries) = raw else { return wrong(&raw, key, errors) };
        let mut keys = SectionReader::new(key, entries, errors);
        let from_key: bool = keys.take("key", none());
        let header: Option<String> = keys.take("header", none());
        let value: Option<String> = keys.take("value", none());
        keys.finish(&["key", "header", "value"]);
        match (from_key, header, value) {
            (true, None, None) => Some(Self::Key),
            (false, Some(name), None) if !name.is_empty() => Some(Self::Header(name)),
            (false, None, Some(value)) if !value.is_empty() => Some(Self::Value(value)),
            _ => {
                errors.add(key, format!("must be {}", Self::form()));
                None
            }
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        match self {
            Self::Event => ShownValue::Absent,
            Self::Key => ShownValue::Inline("{ key = true }".to_owned()),
            Self::Header(name) => ShownValue::Inline(format!("{{ header = {} }}", quoted(name))),
            Self::Value(value) => ShownValue::Inline(format!("{{ value = {} }}", quoted(value))),
        }
    }

    fn form() -> String {
        "one of { key = true }, { header = \"name\" }, { value = \"tenant\" }".to_owned()
    }
}

impl Value for StartAt {
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let given = text(raw, key, spec, errors)?;
        match given.as_str() {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            other => match DateTime::parse_from_rfc3339(other) {
                Ok(time) if time.timestamp_millis() >= 0 => Some(Self::Time(time.timestamp_millis())),
                _ => {
                    errors.add(key, format!("must be {}, but is {}", Self::form(), quoted(other)));
                    None
                }
            },
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(match self {
            Self::Earliest => quoted("earliest"),
            Self::Latest => quoted("latest"),
            Self::Time(millis) => {
                let time = DateTime::from_timestamp_millis(*millis);
                quoted(&time.map(|time| time.to_rfc3339()).unwrap_or_default())
            }
        })
    }

    fn form() -> String {
        "\"earliest\", \"latest\" or a time such as \"2026-01-31T00:00:00Z\"".to_owned()
    }
}
