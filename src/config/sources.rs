//! Sources: Kafka topics that are read into tables, one table per source.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use chrono::DateTime;

use super::error::ConfigErrors;
use super::key::{KeySpec, SectionReader, ShownLine, ShownValue, Value, none, plain, required, section};
use super::oauth::{self, OauthConfig};
use super::raw::RawConfig;
use super::value::{REDACTED, quoted, text, wrong};
use super::{Config, Envelope, OnGap, RegistryConfig, SourceFormat, SourceKind, registry};
use crate::error::did_you_mean;

section! {
    /// One source: topics that are read into one table, each message once.
    SourceConfig {
        /// The kind of the source: `kafka`.
        kind: SourceKind = required(SourceKind::Kafka),
            "other kinds have other keys";
        /// Bootstrap brokers, as `host:port`.
        brokers: Vec<String> = required(Vec::new()),
            "one reachable broker is enough to discover the rest";
        /// The topics to read.
        topics: Vec<String> = required(Vec::new()),
            "each message is one event, or the input of the transform";
        /// The consumer group, in which servers share the partitions.
        group: String = required(""),
            "servers of one lake use the same group; other lakes need other groups";
        /// The table that stores the events.
        table: String = required(""),
            "its contract decodes them, and its quarantine keeps those that cannot be decoded";
        /// The format of a message: `json` (one object), `protobuf` (one message of the table's contract) or `avro` (one
        /// record).
        format: SourceFormat = plain(SourceFormat::Json),
            "a topic does not declare its format";
        /// Whether messages begin with the header of a Confluent schema registry, which is skipped.
        confluent: bool = plain(false),
            "the table's contract decodes the rest; with a `registry` messages always have a header, and it is read";
        /// The schema registry with the schemas of `avro` and `protobuf` messages.
        registry: Option<RegistryConfig> = none(),
            "`avro` is decoded with its writer schema, `protobuf` is checked against the table's contract";
        /// The schema of all messages instead of a registry: an `.avsc`; or a `.proto` for a transform of `protobuf`.
        schema_file: Option<PathBuf> = none(),
            "for setups without a registry; a transform of `protobuf` without either reads the table's own message";
        /// The full name of the message in a `schema_file` of `protobuf`.
        message: Option<String> = none(),
            "a file may contain several";
        /// The envelope of the events: `none`, or `debezium` (changes of a database as JSON), which requires a transform.
        envelope: Envelope = plain(Envelope::None),
            "a change contains the old and the new row; the transform decides what to store";
        /// SQL over the batch that computes the table's columns from messages: one SELECT from `messages`, see ingest.md.
        transform: Option<String> = none(),
            "if omitted, messages must have the table's columns";
        /// A file with the transform, relative to the folder of this file.
        transform_file: Option<PathBuf> = none(),
            "a long statement is easier to read and to test in its own file";
        /// The tenant of the events: if omitted, each event's own field; or `{ key = true }`, `{ header = "name" }`,
        /// `{ value = "tenant" }`.
        tenant: TenantFrom = plain(TenantFrom::Event),
            "producers are trusted to name the tenant; with a fixed value, all events belong to this tenant";
        /// Where to begin if the table has no offset of a partition: `earliest`, `latest`, or a time such as
        /// `2026-01-31T00:00:00Z`.
        start: StartAt = plain(StartAt::Earliest),
            "afterwards the offsets in the table count; `latest` is the time at which the source was first started";
        /// What to do if unread messages were deleted: `stop` the partition, or continue with the `earliest`.
        on_gap: OnGap = plain(OnGap::Stop),
            "a person should investigate lost events before they are skipped";
        /// CA certificates (PEM) to trust for the brokers, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "`ssl.ca.location` in `options` is librdkafka's own setting: it replaces the system's certificates";
        /// Settings of librdkafka, such as `"security.protocol" = "SASL_SSL"`; all that may be secret are redacted.
        options: KafkaOptions = none(),
            "the environment spells dots as `_`: `GLASSHOUSE__SOURCES__NAME__OPTIONS__SASL_PASSWORD`";
        /// How the source gets login tokens (SASL's `OAUTHBEARER`): a separate section.
        oauth: Option<OauthConfig> = none(),
            "without it a source logs in with the options only, or not at all";
    }
}

/// What determines the tenant of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TenantFrom {
    /// The event's own field.
    #[default]
    Event,
    /// The message's key.
    Key,
    /// The message's header of this name.
    Header(String),
    /// The configuration: all events belong to this tenant.
    Value(String),
}

/// Where to begin with a partition that was never read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With its oldest message.
    #[default]
    Earliest,
    /// With the first message after the source was first started.
    Latest,
    /// With the first message of this time or later, in milliseconds since 1970.
    Time(i64),
}

/// Settings of librdkafka by name. Values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaOptions(BTreeMap<String, String>);

/// Options that are shown; any other option may be a secret.
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

/// Options that a source sets itself, with the reason.
const OPTIONS_OWN: [(&str, &str); 12] = [
    ("bootstrap.servers", "set `brokers`"),
    ("metadata.broker.list", "set `brokers`"),
    ("group.id", "set `group`"),
    ("group.protocol", "partitions are handed over as the source expects it"),
    ("partition.assignment.strategy", "partitions are handed over as the source expects it"),
    ("enable.auto.commit", "the table holds the offsets"),
    ("enable.auto.offset.store", "the table holds the offsets"),
    ("auto.offset.reset", "set `start` and `on_gap`"),
    ("enable.partition.eof", "the lag is measured by it"),
    ("statistics.interval.ms", "the lag is reported by it"),
    ("plugin.library.paths", "code is not configuration"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "anybody can write an unsigned token"),
];

/// The longest name of a topic, in bytes.
const TOPIC_BYTES_MAX: usize = 249;

impl KafkaOptions {
    /// Options of these names and values.
    pub fn new(options: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(options.into_iter().collect())
    }

    /// Names and values, for the code that builds a client.
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
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let RawConfig::Table(entries) = raw else { return wrong(&raw, key, faults) };
        let mut options = Self::default();
        for (name, raw) in entries {
            options.insert(name.clone(), raw, &format!("{key}.{name}"), faults);
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
        "a table of texts".to_owned()
    }
}

impl KafkaOptions {
    /// Takes an option, or the options of a table: `sasl.password` without quotes is a key in the table `sasl`.
    fn insert(&mut self, name: String, raw: RawConfig, key: &str, faults: &mut ConfigErrors) {
        let text = match raw {
            RawConfig::Table(entries) => {
                for (inner, raw) in entries {
                    self.insert(format!("{name}.{inner}"), raw, &format!("{key}.{inner}"), faults);
                }
                return;
            }
            RawConfig::Integer(number) => Some(number.to_string()),
            RawConfig::Bool(yes) => Some(yes.to_string()),
            other => text(other, key, &none::<String>(), faults),
        };
        // The one name of librdkafka with an underscore.
        let name = if name == "log_level" { name } else { name.replace('_', ".") };
        if text.as_deref() == Some(REDACTED) {
            return faults.add(key, "is the placeholder of `config show`, not a value");
        }
        if name.starts_with("sasl.oauthbearer.") {
            return faults.add(key, "is not supported: configure tokens in [sources.NAME.oauth]");
        }
        if let Some((_, why)) = OPTIONS_OWN.iter().find(|(own, _)| *own == name) {
            return faults.add(key, format!("is set by the source itself: {why}"));
        }
        self.0.extend(text.map(|text| (name, text)));
    }
}

impl Value for TenantFrom {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let RawConfig::Table(entries) = raw else { return wrong(&raw, key, faults) };
        let mut keys = SectionReader::new(key, entries, faults);
        let from_key: bool = keys.take("key", none());
        let header: Option<String> = keys.take("header", none());
        let value: Option<String> = keys.take("value", none());
        keys.finish(&["key", "header", "value"]);
        match (from_key, header, value) {
            (true, None, None) => Some(Self::Key),
            (false, Some(name), None) if !name.is_empty() => Some(Self::Header(name)),
            (false, None, Some(value)) if !value.is_empty() => Some(Self::Value(value)),
            _ => {
                faults.add(key, format!("must be {}", Self::form()));
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
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let given = text(raw, key, spec, faults)?;
        match given.as_str() {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            other => match DateTime::parse_from_rfc3339(other) {
                Ok(time) if time.timestamp_millis() >= 0 => Some(Self::Time(time.timestamp_millis())),
                _ => {
                    faults.add(key, format!("must be {}, is {}", Self::form(), quoted(other)));
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

/// Checks sources against the tables, and the elements of their lists.
pub(super) fn across(config: &Config, faults: &mut ConfigErrors) {
    for (name, source) in &config.sources {
        let key = |field: &str| format!("sources.{name}.{field}");
        match config.tables.get(&source.table) {
            None if !source.table.is_empty() => {
                let guess = did_you_mean(&source.table, config.tables.keys().map(String::as_str));
                faults.add(&key("table"), format!("unknown table `{}`{guess}", source.table));
            }
            _ => {}
        }
        transform(&key, source, faults);
        oauth::check(&key, source, faults);
        authorities(&key, source, faults);
        registry::across(&key, source, config, faults);
        for (index, broker) in source.brokers.iter().enumerate() {
            if broker.is_empty() || broker.contains([',', ' ']) {
                faults.add(&key(&format!("brokers[{index}]")), "must be one `host:port`");
            }
        }
        let mut seen = BTreeSet::new();
        for (index, topic) in source.topics.iter().enumerate() {
            let key = key(&format!("topics[{index}]"));
            let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
            if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || !topic.chars().all(allowed) {
                let known = "letters, digits, `.`, `_` and `-`";
                faults.add(&key, format!("is not a valid topic name: use {known}, at most {TOPIC_BYTES_MAX}"));
            }
            if !seen.insert(topic) {
                faults.add(&key, format!("`{topic}` appears more than once"));
            }
        }
    }
}

/// Options of librdkafka that set the certificate authorities.
const OPTIONS_OF_AUTHORITIES: [&str; 2] = ["ssl.ca.location", "ssl.ca.pem"];

/// Checks that the brokers' certificate authorities are configured in one place only.
fn authorities(key: &dyn Fn(&str) -> String, source: &SourceConfig, faults: &mut ConfigErrors) {
    let named = source.options.expose().find(|(name, _)| OPTIONS_OF_AUTHORITIES.contains(name));
    if let (Some(_), Some((name, _))) = (&source.ca_file, named) {
        faults.add(&key("ca_file"), format!("cannot be combined with the option `{name}`: keep one of them"));
    }
}

/// Checks the keys of a transform.
fn transform(key: &dyn Fn(&str) -> String, source: &SourceConfig, faults: &mut ConfigErrors) {
    let has_transform = source.transform.is_some() || source.transform_file.is_some();
    if source.transform.is_some() && source.transform_file.is_some() {
        faults.add(&key("transform_file"), "cannot be combined with `transform`: write the statement once");
    }
    if source.transform.as_ref().is_some_and(|sql| sql.trim().is_empty()) {
        faults.add(&key("transform"), "must not be empty: omit it instead");
    }
    if source.envelope == Envelope::Debezium && !has_transform {
        faults.add(&key("envelope"), "needs a `transform` that maps changes to columns");
    }
}
