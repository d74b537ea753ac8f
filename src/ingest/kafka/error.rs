//! What the Kafka client complains of, in words that name the source and the way out.
//!
//! In: the client's code and its own words. Out: what it is about, and a sentence for the log and for operators.
//!
//! The client tries again by itself, with pauses that grow to ten seconds (`reconnect.backoff.max.ms`), and tells the same
//! error of the same broker at most every thirty. Here each trouble is logged at most once a minute; all are counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::telemetry::SourceTrouble;

/// A connection that ends sooner than this was refused, whatever the broker said of it.
const REFUSED_MILLIS_MAX: u64 = 2_000;
/// Words of the library under the client, which it may pass on as an error of the connection.
const TLS_WORDS: [&str; 2] = ["SSL routines:", "SSL handshake failed"];
/// How long a trouble that was logged is only counted.
const QUIET: Duration = Duration::from_secs(60);

/// What is wrong, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientError {
    pub(super) trouble: SourceTrouble,
    pub(super) message: String,
}

/// When each trouble was logged last.
#[derive(Debug, Default)]
pub(super) struct LoggedTroubles(Mutex<BTreeMap<SourceTrouble, Instant>>);

impl ClientError {
    /// The client's words for a person who knows the configuration. `has_tokens`: the source logs in by tokens.
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
                "no TLS connection with the brokers",
                format!(
                    "check sources.{source}.ca_file, or `ssl.ca.location` in sources.{source}.options (who signed their \
                     certificates), `ssl.certificate.location` and `ssl.key.location` if they ask for a certificate, and that \
                     sources.{source}.brokers has the names that stand in theirs"
                ),
            ),
            SourceTrouble::Rights => (
                "the brokers do not let it read",
                format!(
                    "give its user READ and DESCRIBE on sources.{source}.topics, and READ on the group sources.{source}.group"
                ),
            ),
            SourceTrouble::Topic => {
                ("a topic is not there", format!("create it, or take it out of sources.{source}.topics"))
            }
            SourceTrouble::Connection => (
                "the brokers are not reached",
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
    /// The same of a line that the client does not call an error: a connection that was closed before it was of any use.
    /// None for those that had been used, which close for many reasons and are made again.
    pub(super) fn of_line(source: &str, has_tokens: bool, line: &str) -> Option<Self> {
        let (age, state) = line.rsplit_once("(after ")?.1.split_once("ms in state ")?;
        let is_up = state.starts_with("UP");
        if is_up && age.parse::<u64>().ok()? >= REFUSED_MILLIS_MAX {
            return None;
        }
        // A broker that refuses a token lets the client in and closes the door at once.
        let code = if is_up && has_tokens { Code::Authentication } else { Code::BrokerTransportFailure };
        Some(Self::new(source, has_tokens, code, line))
    }
}

impl LoggedTroubles {
    /// Whether it is time to log this trouble again.
    pub(super) fn is_news(&self, trouble: SourceTrouble, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.get(&trouble).is_none_or(|before| now.saturating_duration_since(*before) >= QUIET);
        if is_news {
            told.insert(trouble, now);
        }
        is_news
    }
}

/// What a code is about.
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
    fn a_fault_names_the_source_and_the_way_out() {
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
    fn a_connection_that_was_of_no_use_is_a_fault() {
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
    fn the_same_trouble_is_logged_once_a_minute() {
        let (told, now) = (LoggedTroubles::default(), Instant::now());
        let seconds = |seconds| now + Duration::from_secs(seconds);
        assert!(told.is_news(SourceTrouble::Login, now));
        assert!(!told.is_news(SourceTrouble::Login, seconds(59)));
        assert!(told.is_news(SourceTrouble::Tls, seconds(59)));
        assert!(told.is_news(SourceTrouble::Login, seconds(60)));
        assert!(!told.is_news(SourceTrouble::Login, seconds(61)));
    }
}
