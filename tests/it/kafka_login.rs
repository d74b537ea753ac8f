//! Tests of sources with a real Kafka broker that requires authentication. There is a source for each login mechanism.
//! A source whose login fails must report the error.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::broker::{Broker, PASSWORDS, SecureListeners};
use crate::cli::{ask, client, outcome};
use crate::identity_provider::{CLIENT, Provider};
use crate::kafka::offsets_of;
use crate::requirements::needs;
use crate::server::{Server, Setup, until};

/// The number of events in each batch of messages that is sent to a topic.
const EVENTS: usize = 60;
const PARTITIONS: i32 = 2;

/// A source: the address of the listener to which it connects, and the settings whose names begin with
/// `SOURCES__NAME__`.
struct Case {
    name: &'static str,
    address: String,
    settings: Vec<(String, String)>,
    /// The expected category of the source's last error, and strings that the error message must contain. `None` if the
    /// source can read its topic.
    expected_error: Option<(&'static str, Vec<String>)>,
}

impl Case {
    fn good(name: &'static str, address: &str, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { name, address: address.to_owned(), settings, expected_error: None }
    }

    fn bad(
        name: &'static str,
        address: &str,
        settings: &[(&str, &str)],
        (kind, words): (&'static str, &[&str]),
    ) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { expected_error: Some((kind, words)), ..Self::good(name, address, settings) }
    }

    /// Returns the settings of the server. Each source reads the topic with the same name.
    fn server_settings(&self) -> Vec<(String, String)> {
        let common = [
            ("KIND", "kafka"),
            ("BROKERS", &self.address),
            ("TOPICS", self.name),
            ("GROUP", self.name),
            ("TABLE", "samples"),
            ("OPTIONS__BROKER_ADDRESS_FAMILY", "v4"),
        ];
        let common = common.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let all = common.into_iter().chain(self.settings.iter().cloned());
        all.map(|(key, value)| (format!("SOURCES__{}__{key}", self.name.to_uppercase()), value)).collect()
    }
}

fn cases(listeners: &SecureListeners, provider: &Provider) -> Vec<Case> {
    let (authority, stranger) = (listeners.file("authority.pem"), listeners.file("stranger.pem"));
    let (certificate, key) = (listeners.file("client.pem"), listeners.file("client.key"));
    let (tls, sasl) = (("OPTIONS__SECURITY_PROTOCOL", "SSL"), ("OPTIONS__SECURITY_PROTOCOL", "SASL_SSL"));
    let ca = ("OPTIONS__SSL_CA_LOCATION", authority.as_str());
    let reader = ("OPTIONS__SASL_USERNAME", "reader");
    let [token, short, expired, foreign] = ["token", "short", "expired", "foreign"].map(|path| provider.url(path));
    let oauth_case = |name, url: &str, secret: &str, expected_error: Option<(&'static str, &[&str])>| {
        let settings = [
            sasl,
            ca,
            ("OAUTH__TOKEN_URL", url),
            ("OAUTH__CLIENT_ID", CLIENT.0),
            ("OAUTH__CLIENT_SECRET", secret),
            ("OAUTH__SCOPE", "read"),
        ];
        match expected_error {
            Some(expected_error) => Case::bad(name, &listeners.login, &settings, expected_error),
            None => Case::good(name, &listeners.login, &settings),
        }
    };
    let mut cases: Vec<Case> = ["plain", "scram256", "scram512"]
        .into_iter()
        .zip(PASSWORDS)
        .map(|(name, (mechanism, password))| {
            let login = [("OPTIONS__SASL_MECHANISM", mechanism), reader, ("OPTIONS__SASL_PASSWORD", password)];
            Case::good(name, &listeners.login, &[&[sasl, ca][..], &login].concat())
        })
        .collect();
    cases.extend([
        Case::good("tls", &listeners.tls, &[tls, ca]),
        Case::good(
            "mutual",
            &listeners.mutual,
            &[tls, ca, ("OPTIONS__SSL_CERTIFICATE_LOCATION", &certificate), ("OPTIONS__SSL_KEY_LOCATION", &key)],
        ),
        oauth_case("token", &token, CLIENT.1, None),
        oauth_case("short_token", &short, CLIENT.1, None),
        Case::bad(
            "bad_password",
            &listeners.login,
            &[sasl, ca, reader, ("OPTIONS__SASL_MECHANISM", "SCRAM-SHA-512"), ("OPTIONS__SASL_PASSWORD", "guess")],
            ("login", &["`sasl.password`", "sources.bad_password.options", "OPTIONS__SASL_PASSWORD"]),
        ),
        Case::bad(
            "bad_plain",
            &listeners.login,
            &[sasl, ca, reader, ("OPTIONS__SASL_MECHANISM", "PLAIN"), ("OPTIONS__SASL_PASSWORD", "guess")],
            ("login", &["sources.bad_plain.options"]),
        ),
        Case::bad(
            "bad_authority",
            &listeners.tls,
            &[tls, ("OPTIONS__SSL_CA_LOCATION", &stranger)],
            ("tls", &["`ssl.ca.location`", "sources.bad_authority.options"]),
        ),
        Case::bad("bad_host", &listeners.elsewhere, &[tls, ca], ("tls", &["sources.bad_host.brokers"])),
        Case::bad("no_certificate", &listeners.mutual, &[tls, ca], ("tls", &["`ssl.certificate.location`"])),
        Case::bad("no_protocol", &listeners.tls, &[], ("connection", &["`security.protocol`"])),
        oauth_case(
            "bad_client",
            &token,
            "guess",
            Some(("token", &["401", "invalid_client", "sources.bad_client.oauth"])),
        ),
        oauth_case("old_token", &expired, CLIENT.1, Some(("login", &["sources.old_token.oauth"]))),
        oauth_case("foreign_token", &foreign, CLIENT.1, Some(("login", &["sources.foreign_token.oauth"]))),
    ]);
    cases.extend(ca_file_cases(listeners));
    cases
}

/// Returns the cases in which the source has a `ca_file`.
fn ca_file_cases(listeners: &SecureListeners) -> [Case; 2] {
    let (authority, stranger) = (listeners.file("authority.pem"), listeners.file("stranger.pem"));
    let tls = ("OPTIONS__SECURITY_PROTOCOL", "SSL");
    let expected_error: (&str, &[&str]) = ("tls", &["sources.bad_ca_file.ca_file"]);
    [
        Case::good("ca_file", &listeners.tls, &[tls, ("CA_FILE", &authority)]),
        Case::bad("bad_ca_file", &listeners.tls, &[tls, ("CA_FILE", &stranger)], expected_error),
    ]
}

/// Returns events for a source, starting with number `first`.
fn events(source: &str, first: usize) -> Vec<(String, String)> {
    let event = |index: usize| {
        let id = format!("{source}-{index}");
        let text =
            format!("{{\"tenant\":\"acme\",\"id\":\"{id}\",\"at\":\"2026-03-01T12:00:00Z\",\"label\":\"{source}\"}}");
        (id, text)
    };
    (first..first + EVENTS).map(event).collect()
}

fn states(server: &Server) -> BTreeMap<String, Value> {
    let (succeeded, text) = outcome(&client(server, "admin", &["sources", "list", "--json"]));
    assert!(succeeded, "{text}");
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    let sources = answer["sources"].as_array_mut().unwrap().drain(..);
    sources.map(|source| (source["name"].as_str().unwrap().to_owned(), source)).collect()
}

/// Waits until all messages in these topics are stored.
fn wait_for(broker: &Broker, lake: &Path, cases: &[&Case]) {
    for Case { name, .. } in cases {
        let ends = broker.ends(name, PARTITIONS);
        until(&format!("`{name}` is read completely"), || offsets_of(lake, name, name) == ends);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_log_in_with_every_mechanism_or_report_the_error() {
    needs!(Python, Kafka);
    let provider = Provider::start().await;
    let (broker, listeners) = Broker::with_secure_listeners(&Provider::keys());
    let cases = cases(&listeners, &provider);
    let (good, bad): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.expected_error.is_none());
    for case in &cases {
        broker.create_topic(case.name, PARTITIONS).await;
        broker.send(case.name, &events(case.name, 0));
    }
    let lake = tempfile::tempdir().unwrap();
    let settings = cases.iter().flat_map(Case::server_settings).collect();
    let server = Server::start(&Setup { lake: Some(lake.path().display().to_string()), settings, ..Setup::default() });
    wait_for(&broker, lake.path(), &good);

    for Case { name, expected_error, .. } in &bad {
        let (kind, words) = expected_error.as_ref().expect("a bad case has an error");
        let mut last = Value::Null;
        until(&format!("`{name}` reports its error"), || {
            last = states(&server).remove(*name).unwrap();
            last["state"] == "failing" && last["last_error"]["kind"] == *kind
        });
        let message = last["last_error"]["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "`{name}` does not name {word}: {message}");
        }
        assert!(!message.contains("guess"), "{message}");
        let log = server.log_lines();
        let is_reported = |line: &&String| line.contains(&format!("\"source\":\"{name}\"")) && line.contains(&words[0]);
        assert!(log.iter().any(|line| is_reported(&line)), "the log does not report why `{name}` fails");
        assert!(!log.iter().any(|line| line.contains("guess")), "the log contains a secret");
    }
    let metrics = metrics(&server).await;
    for Case { name, expected_error, .. } in &cases {
        let is_failing = i32::from(expected_error.is_some());
        let line = format!("glasshouse_source_failing{{source=\"{name}\"}} {is_failing}");
        assert!(metrics.lines().any(|other| other == line), "missing metric: {line}");
        if let Some((kind, _)) = expected_error {
            let line = format!("glasshouse_source_errors_total{{source=\"{name}\",kind=\"{kind}\"}} ");
            assert!(metrics.lines().any(|other| other.starts_with(&line)), "missing metric: {line}");
        }
    }

    // The sources that can log in must read more messages after their first tokens have expired.
    until("a second short-lived token is issued", || provider.short_issued() > 1);
    for case in &good {
        broker.send(case.name, &events(case.name, EVENTS));
    }
    wait_for(&broker, lake.path(), &good);
    for Case { name, expected_error, .. } in &cases {
        let count = if expected_error.is_none() { 2 * EVENTS } else { 0 };
        let sql = format!("SELECT count(*) || ' ' || count(DISTINCT id) FROM samples WHERE label = '{name}'");
        assert_eq!(ask(&server, &sql), format!("{count} {count}"), "{name}");
    }
    assert!(server.stop(), "the server did not stop cleanly while sources were failing");
}

async fn metrics(server: &Server) -> String {
    let token = server.facts()["tokens"]["admin"].as_str().unwrap().to_owned();
    let url = format!("http://{}/metrics", server.http);
    let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).bearer_auth(token).send().await;
    answer.unwrap().text().await.unwrap()
}
