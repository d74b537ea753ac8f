//! Converts errors from the Kafka client to errors that operators understand.
//!
//! [`ClientError::new`] takes the client's error code and message. It determines the kind of the error, and builds a
//! message that names the source and the fix.
//!
//! The client retries on its own, with increasing pauses of up to ten seconds (`reconnect.backoff.max.ms`). The client
//! reports errors for a broker at most once every thirty seconds. This module logs each kind of error at most once a
//! minute, but the metrics count every error.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::telemetry::SourceTrouble;

/// A connection that is closed within this time after it was established is treated as refused.
const REFUSED_MILLIS_MAX: u64 = 2_000;
/// Phrases in the error messages of the TLS library. The client may report a TLS error as a connection error. In this
/// case, only these phrases identify it as a TLS error.
const TLS_PHRASES: [&str; 2] = ["SSL routines:", "SSL handshake failed"];
/// The minimum time between two log lines for the same kind of error.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The kind of an error, and a message that describes the problem and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientError {
    pub(super) trouble: SourceTrouble,
    pub(super) message: String,
}

/// The time at which each kind of error was last logged.
#[derive(Debug, Default)]
pub(super) struct LoggedTroubles(Mutex<BTreeMap<SourceTrouble, Instant>>);

impl ClientError {
    /// Converts the client's error to one that names the relevant configuration keys. `has_tokens` is true if the
    /// source logs in with tokens.
    pub(super) fn new(source: &str, has_tokens: bool, code: Code, reason: &str) -> Self {
        let trouble = match trouble(code) {
            SourceTrouble::Connection if TLS_PHRASES.iter().any(|words| reason.contains(words)) => SourceTrouble::Tls,
            trouble => trouble,
        };
        let (problem, fix) = match trouble {
            SourceTrouble::Login if has_tokens => (
                "the brokers reject the token",
                format!(
                    "check that the brokers accept the keys, issuer, audience and scope of the provider in \
                     sources.{source}.oauth, and that their clocks are correct"
                ),
            ),
            SourceTrouble::Login => (
                "the brokers reject the login",
                format!(
                    "check `sasl.mechanism`, `sasl.username` and `sasl.password` in sources.{source}.options \
                     (GLASSHOUSE__SOURCES__{}__OPTIONS__SASL_PASSWORD)",
                    source.to_uppercase()
                ),
            ),
            SourceTrouble::Tls => (
                "the TLS connection to the brokers failed",
                format!(
                    "check that sources.{source}.ca_file (or `ssl.ca.location` in sources.{source}.options) contains the \
                     certificate of the authority that signed the brokers' certificates, that sources.{source}.brokers \
                     uses the host names in these certificates, and that `ssl.certificate.location` and \
                     `ssl.key.location` are correct if the brokers require a client certificate"
                ),
            ),
            SourceTrouble::Rights => (
                "the brokers deny read access",
                format!(
                    "grant the source's user READ and DESCRIBE on sources.{source}.topics, and READ on the group \
                     sources.{source}.group"
                ),
            ),
            SourceTrouble::Topic => {
                ("a topic does not exist", format!("create the topic, or remove it from sources.{source}.topics"))
            }
            SourceTrouble::Connection => (
                "the brokers cannot be reached",
                format!("check sources.{source}.brokers, and `security.protocol` in sources.{source}.options"),
            ),
            SourceTrouble::Token | SourceTrouble::Store | SourceTrouble::Truncated | SourceTrouble::Other => {
                return Self { trouble, message: reason.to_owned() };
            }
        };
        Self { trouble, message: format!("{problem}: {reason}; {fix}") }
    }
}

impl ClientError {
    /// Parses a log line that reports a closed connection. Returns an error if the connection was closed before it
    /// could be used. Returns `None` if the connection was in use: brokers may close such a connection for harmless
    /// reasons, and the client opens a new one.
    pub(super) fn of_line(source: &str, has_tokens: bool, line: &str) -> Option<Self> {
        let (age, state) = line.rsplit_once("(after ")?.1.split_once("ms in state ")?;
        let is_up = state.starts_with("UP");
        if is_up && age.parse::<u64>().ok()? >= REFUSED_MILLIS_MAX {
            return None;
        }
        // A broker that rejects a token accepts the connection first and closes it immediately afterwards.
        let code = if is_up && has_tokens { Code::Authentication } else { Code::BrokerTransportFailure };
        Some(Self::new(source, has_tokens, code, line))
    }
}

impl LoggedTroubles {
    /// Returns true if no error of this kind was logged in the last [`LOG_INTERVAL`]. In this case, records `now` as
    /// the time of the last log line.
    pub(super) fn should_log(&self, trouble: SourceTrouble, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let should_log = logged.get(&trouble).is_none_or(|last| now.saturating_duration_since(*last) >= LOG_INTERVAL);
        if should_log {
            logged.insert(trouble, now);
        }
        should_log
    }
}

/// Maps an error code of the client to a kind of error.
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
    fn errors_name_the_source_and_the_fix() {
        let cases: [(bool, Code, SourceTrouble, &[&str]); 8] = [
            (
                false,
                Code::Authentication,
                SourceTrouble::Login,
                &[
                    "reject the login: why;",
                    "sources.voice.options",
                    "GLASSHOUSE__SOURCES__VOICE__OPTIONS__SASL_PASSWORD",
                ],
            ),
            (true, Code::Authentication, SourceTrouble::Login, &["reject the token: why;", "sources.voice.oauth"]),
            (false, Code::SSL, SourceTrouble::Tls, &["`ssl.ca.location`", "sources.voice.brokers"]),
            (false, Code::GroupAuthorizationFailed, SourceTrouble::Rights, &["sources.voice.group"]),
            (false, Code::UnknownTopicOrPartition, SourceTrouble::Topic, &["create the topic", "sources.voice.topics"]),
            (false, Code::AllBrokersDown, SourceTrouble::Connection, &["sources.voice.brokers", "`security.protocol`"]),
            (false, Code::Resolve, SourceTrouble::Connection, &["sources.voice.brokers"]),
            (false, Code::Fail, SourceTrouble::Other, &["why"]),
        ];
        for (has_tokens, code, trouble, expected) in cases {
            let error = ClientError::new("voice", has_tokens, code, "why");
            assert_eq!(error.trouble, trouble, "{code:?}");
            for words in expected {
                assert!(error.message.contains(words), "{code:?}: {}", error.message);
            }
        }
    }

    #[test]
    fn a_connection_that_closes_before_use_is_an_error() {
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
            let found = ClientError::of_line("voice", has_tokens, line).map(|error| error.trouble);
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn the_same_kind_of_error_is_logged_once_a_minute() {
        let (logged, now) = (LoggedTroubles::default(), Instant::now());
        let seconds = |seconds| now + Duration::from_secs(seconds);
        assert!(logged.should_log(SourceTrouble::Login, now));
        assert!(!logged.should_log(SourceTrouble::Login, seconds(59)));
        assert!(logged.should_log(SourceTrouble::Tls, seconds(59)));
        assert!(logged.should_log(SourceTrouble::Login, seconds(60)));
        assert!(!logged.should_log(SourceTrouble::Login, seconds(61)));
    }
}
