//! Errors of the Kafka client, with messages that name the source and the fix.
//!
//! In: the client's error code and message. Out: the kind of error, and a message for the log and for operators.
//!
//! The client retries by itself, with pauses that grow to ten seconds (`reconnect.backoff.max.ms`), and reports the same
//! error of the same broker at most every thirty seconds. This module logs each kind of error at most once a minute; every
//! error is counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::telemetry::SourceTrouble;

/// A connection that ends sooner than this counts as refused, regardless of the broker's message.
const REFUSED_MILLIS_MAX: u64 = 2_000;
/// Texts of the TLS library, whose errors the client may report as connection errors.
const TLS_WORDS: [&str; 2] = ["SSL routines:", "SSL handshake failed"];
/// How long a kind of error is only counted after it was logged.
const QUIET: Duration = Duration::from_secs(60);

/// The kind of an error, and a message with the problem and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientError {
    pub(super) trouble: SourceTrouble,
    pub(super) message: String,
}

/// The time at which each kind of error was logged last.
#[derive(Debug, Default)]
pub(super) struct LoggedTroubles(Mutex<BTreeMap<SourceTrouble, Instant>>);

impl ClientError {
    /// Turns the client's error into one that names configuration keys. `has_tokens`: the source logs in with tokens.
    pub(super) fn new(source: &str, has_tokens: bool, code: Code, reason: &str) -> Self {
        let trouble = match trouble(code) {
            SourceTrouble::Connection if TLS_WORDS.iter().any(|words| reason.contains(words)) => SourceTrouble::Tls,
            trouble => trouble,
        };
        let (what, way) = match trouble {
            SourceTrouble::Login if has_tokens => (
                "the brokers refuse the token",
                format!(
                    "check that they trust the provider of sources.{source}.oauth: its keys, issuer, audience and scope, and \
                     their clocks"
                ),
            ),
            SourceTrouble::Login => (
                "the brokers refuse the login",
                format!(
                    "check `sasl.mechanism`, `sasl.username` and `sasl.password` in sources.{source}.options \
                     (GLASSHOUSE__SOURCES__{}__OPTIONS__SASL_PASSWORD)",
                    source.to_uppercase()
                ),
            ),
            SourceTrouble::Tls => (
                "the TLS connection to the brokers failed",
                format!(
                    "check sources.{source}.ca_file, or `ssl.ca.location` in sources.{source}.options (the authority that \
                     signed their certificates), `ssl.certificate.location` and `ssl.key.location` if they require a client \
                     certificate, and that sources.{source}.brokers uses the host names of their certificates"
                ),
            ),
            SourceTrouble::Rights => (
                "the brokers deny read access",
                format!(
                    "grant its user READ and DESCRIBE on sources.{source}.topics, and READ on the group sources.{source}.group"
                ),
            ),
            SourceTrouble::Topic => {
                ("a topic does not exist", format!("create it, or remove it from sources.{source}.topics"))
            }
            SourceTrouble::Connection => (
                "the brokers cannot be reached",
                format!("check sources.{source}.brokers, and `security.protocol` in its options"),
            ),
            SourceTrouble::Token | SourceTrouble::Store | SourceTrouble::Other => {
                return Self { trouble, message: reason.to_owned() };
            }
        };
        Self { trouble, message: format!("{what}: {reason}; {way}") }
    }
}

impl ClientError {
    /// Turns a log line into an error if it reports a connection that closed before it was used.
    /// `None` for a used connection: it may close for many reasons, and the client opens it again.
    pub(super) fn of_line(source: &str, has_tokens: bool, line: &str) -> Option<Self> {
        let (age, state) = line.rsplit_once("(after ")?.1.split_once("ms in state ")?;
        let is_up = state.starts_with("UP");
        if is_up && age.parse::<u64>().ok()? >= REFUSED_MILLIS_MAX {
            return None;
        }
        // A broker that rejects a token accepts the connection and then closes it immediately.
        let code = if is_up && has_tokens { Code::Authentication } else { Code::BrokerTransportFailure };
        Some(Self::new(source, has_tokens, code, line))
    }
}

impl LoggedTroubles {
    /// Whether to log this kind of error again.
    pub(super) fn is_news(&self, trouble: SourceTrouble, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.get(&trouble).is_none_or(|before| now.saturating_duration_since(*before) >= QUIET);
        if is_news {
            told.insert(trouble, now);
        }
        is_news
    }
}

/// The kind of error that a code belongs to.
fn trouble(code: Code) -> SourceTrouble {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => SourceTrouble::Login,
        Code::SSL => SourceTrouble::Tls,
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            SourceTrouble::Rights
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            SourceTrouble::Topic
        }
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut => {
            SourceTrouble::Connection
        }
        _ => SourceTrouble::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_source_and_the_fix() {
        let cases: [(bool, Code, SourceTrouble, &[&str]); 8] = [
            (
                false,
                Code::Authentication,
                SourceTrouble::Login,
                &[
                    "refuse the login: why;",
                    "sources.voice.options",
                    "GLASSHOUSE__SOURCES__VOICE__OPTIONS__SASL_PASSWORD",
                ],
            ),
            (true, Code::Authentication, SourceTrouble::Login, &["refuse the token: why;", "sources.voice.oauth"]),
            (false, Code::SSL, SourceTrouble::Tls, &["`ssl.ca.location`", "sources.voice.brokers"]),
            (false, Code::GroupAuthorizationFailed, SourceTrouble::Rights, &["sources.voice.group"]),
            (false, Code::UnknownTopicOrPartition, SourceTrouble::Topic, &["create it", "sources.voice.topics"]),
            (false, Code::AllBrokersDown, SourceTrouble::Connection, &["sources.voice.brokers", "`security.protocol`"]),
            (false, Code::Resolve, SourceTrouble::Connection, &["sources.voice.brokers"]),
            (false, Code::Fail, SourceTrouble::Other, &["why"]),
        ];
        for (has_tokens, code, trouble, expected) in cases {
            let fault = ClientError::new("voice", has_tokens, code, "why");
            assert_eq!(fault.trouble, trouble, "{code:?}");
            for words in expected {
                assert!(fault.message.contains(words), "{code:?}: {}", fault.message);
            }
        }
    }

    #[test]
    fn a_connection_closed_before_use_is_an_error() {
        let cases = [
            (false, "Disconnected (after 12ms in state APIVERSION_QUERY)", Some(SourceTrouble::Connection)),
            (false, "error:0A000086:SSL routines::x (after 4ms in state SSL_HANDSHAKE)", Some(SourceTrouble::Tls)),
            (
                false,
                "Disconnected (after 0ms in state UP, 4 identical error(s) suppressed)",
                Some(SourceTrouble::Connection),
            ),
            (true, "Disconnected (after 1999ms in state UP)", Some(SourceTrouble::Login)),
            (true, "Disconnected (after 2000ms in state UP)", None),
            (false, "something else", None),
        ];
        for (has_tokens, line, expected) in cases {
            let found = ClientError::of_line("voice", has_tokens, line).map(|fault| fault.trouble);
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn the_same_kind_of_error_is_logged_once_a_minute() {
        let (told, now) = (LoggedTroubles::default(), Instant::now());
        let seconds = |seconds| now + Duration::from_secs(seconds);
        assert!(told.is_news(SourceTrouble::Login, now));
        assert!(!told.is_news(SourceTrouble::Login, seconds(59)));
        assert!(told.is_news(SourceTrouble::Tls, seconds(59)));
        assert!(told.is_news(SourceTrouble::Login, seconds(60)));
        assert!(!told.is_news(SourceTrouble::Login, seconds(61)));
    }
}
