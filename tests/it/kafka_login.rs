//! Tests of sources against a real Kafka with authentication: sources log in by every mechanism, and report the error if the login
//! fails.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::broker::{Broker, Guarded, PASSWORDS};
use crate::command::{ask, client, outcome};
use crate::kafka::offsets_of;
use crate::needs::needs;
use crate::provider::{CLIENT, Provider};
use crate::server::{Server, Setup, until};

/// The number of events that are sent to each topic at once.
const EVENTS: usize = 60;
const PARTITIONS: i32 = 2;

/// A source: the address of its listener, and its settings below `SOURCES__NAME__`.
struct Case {
    name: &'static str,
    address: String,
    settings: Vec<(String, String)>,
    /// The expected kind of its last error, and texts in its message. `None` if the source reads its topic.
    trouble: Option<(&'static str, Vec<String>)>,
}

impl Case {
    fn good(name: &'static str, address: &str, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { name, address: address.to_owned(), settings, trouble: None }
    }

    fn bad(
        name: &'static str,
        address: &str,
        settings: &[(&str, &str)],
        (kind, words): (&'static str, &[&str]),
    ) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { trouble: Some((kind, words)), ..Self::good(name, address, settings) }
    }

    /// The settings of the server. Each source reads the topic of its own name.
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

fn cases(guarded: &Guarded, provider: &Provider) -> Vec<Case> {
    let (authority, stranger) = (guarded.file("authority.pem"), guarded.file("stranger.pem"));
    let (certificate, key) = (guarded.file("client.pem"), guarded.file("client.key"));
    let (tls, sasl) = (("OPTIONS__SECURITY_PROTOCOL", "SSL"), ("OPTIONS__SECURITY_PROTOCOL", "SASL_SSL"));
    let ca = ("OPTIONS__SSL_CA_LOCATION", authority.as_str());
    let reader = ("OPTIONS__SASL_USERNAME", "reader");
    let [token, short, expired, foreign] = ["token", "short", "expired", "foreign"].map(|path| provider.url(path));
    let by_token = |name, url: &str, secret: &str, trouble: Option<(&'static str, &[&str])>| {
        let settings = [
            sasl,
            ca,
            ("OAUTH__TOKEN_URL", url),
            ("OAUTH__CLIENT_ID", CLIENT.0),
            ("OAUTH__CLIENT_SECRET", secret),
            ("OAUTH__SCOPE", "read"),
        ];
        match trouble {
            Some(trouble) => Case::bad(name, &guarded.login, &settings, trouble),
            None => Case::good(name, &guarded.login, &settings),
        }
    };
    let mut cases: Vec<Case> = ["plain", "scram256", "scram512"]
        .into_iter()
        .zip(PASSWORDS)
        .map(|(name, (mechanism, password))| {
            let login = [("OPTIONS__SASL_MECHANISM", mechanism), reader, ("OPTIONS__SASL_PASSWORD", password)];
            Case::good(name, &guarded.login, &[&[sasl, ca][..], &login].concat())
        })
        .collect();
    cases.extend([
        Case::good("tls", &guarded.tls, &[tls, ca]),
        Case::good(
            "mutual",
            &guarded.mutual,
            &[tls, ca, ("OPTIONS__SSL_CERTIFICATE_LOCATION", &certificate), ("OPTIONS__SSL_KEY_LOCATION", &key)],
        ),
        by_token("token", &token, CLIENT.1, None),
        by_token("short_token", &short, CLIENT.1, None),
        Case::bad(
            "bad_password",
            &guarded.login,
            &[sasl, ca, reader, ("OPTIONS__SASL_MECHANISM", "SCRAM-SHA-512"), ("OPTIONS__SASL_PASSWORD", "guess")],
            ("login", &["`sasl.password`", "sources.bad_password.options", "OPTIONS__SASL_PASSWORD"]),
        ),
        Case::bad(
            "bad_plain",
            &guarded.login,
            &[sasl, ca, reader, ("OPTIONS__SASL_MECHANISM", "PLAIN"), ("OPTIONS__SASL_PASSWORD", "guess")],
            ("login", &["sources.bad_plain.options"]),
        ),
        Case::bad(
            "bad_authority",
            &guarded.tls,
            &[tls, ("OPTIONS__SSL_CA_LOCATION", &stranger)],
            ("tls", &["`ssl.ca.location`", "sources.bad_authority.options"]),
        ),
        Case::bad("bad_host", &guarded.elsewhere, &[tls, ca], ("tls", &["sources.bad_host.brokers"])),
        Case::bad("no_certificate", &guarded.mutual, &[tls, ca], ("tls", &["`ssl.certificate.location`"])),
        Case::bad("no_protocol", &guarded.tls, &[], ("connection", &["`security.protocol`"])),
        by_token(
            "bad_client",
            &token,
            "guess",
            Some(("token", &["401", "invalid_client", "sources.bad_client.oauth"])),
        ),
        by_token("old_token", &expired, CLIENT.1, Some(("login", &["sources.old_token.oauth"]))),
        by_token("foreign_token", &foreign, CLIENT.1, Some(("login", &["sources.foreign_token.oauth"]))),
    ]);
    cases.extend(ca_file_cases(guarded));
    cases
}

/// Sources with a `ca_file`.
fn ca_file_cases(guarded: &Guarded) -> [Case; 2] {
    let (authority, stranger) = (guarded.file("authority.pem"), guarded.file("stranger.pem"));
    let tls = ("OPTIONS__SECURITY_PROTOCOL", "SSL");
    let trouble: (&str, &[&str]) = ("tls", &["sources.bad_ca_file.ca_file"]);
    [
        Case::good("ca_file", &guarded.tls, &[tls, ("CA_FILE", &authority)]),
        Case::bad("bad_ca_file", &guarded.tls, &[tls, ("CA_FILE", &stranger)], trouble),
    ]
}

/// Events of a source, beginning with number `first`.
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

/// Waits until all messages of these topics are stored.
fn wait_for(broker: &Broker, lake: &Path, cases: &[&Case]) {
    for Case { name, .. } in cases {
        let ends = broker.ends(name, PARTITIONS);
        until(&format!("all of `{name}` is read"), || offsets_of(lake, name, name) == ends);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_log_in_by_every_mechanism_or_report_the_error() {
    needs!(Python, Kafka);
    let provider = Provider::start().await;
    let (broker, guarded) = Broker::guarded(&Provider::keys());
    let cases = cases(&guarded, &provider);
    let (good, bad): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.trouble.is_none());
    for case in &cases {
        broker.create_topic(case.name, PARTITIONS).await;
        broker.send(case.name, &events(case.name, 0));
    }
    let lake = tempfile::tempdir().unwrap();
    let settings = cases.iter().flat_map(Case::server_settings).collect();
    let server = Server::start(&Setup { lake: Some(lake.path().display().to_string()), settings, ..Setup::default() });
    wait_for(&broker, lake.path(), &good);

    for Case { name, trouble, .. } in &bad {
        let (kind, words) = trouble.as_ref().expect("a bad case has an error");
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
    for Case { name, trouble, .. } in &cases {
        let is_failing = i32::from(trouble.is_some());
        let line = format!("glasshouse_source_failing{{source=\"{name}\"}} {is_failing}");
        assert!(metrics.lines().any(|other| other == line), "missing metric: {line}");
        if let Some((kind, _)) = trouble {
            let line = format!("glasshouse_source_errors_total{{source=\"{name}\",kind=\"{kind}\"}} ");
            assert!(metrics.lines().any(|other| other.starts_with(&line)), "missing metric: {line}");
        }
    }

    // The other sources continue, even after their first tokens have expired.
    until("a second short-lived token is issued", || provider.short_issued() > 1);
    for case in &good {
        broker.send(case.name, &events(case.name, EVENTS));
    }
    wait_for(&broker, lake.path(), &good);
    for Case { name, trouble, .. } in &cases {
        let count = if trouble.is_none() { 2 * EVENTS } else { 0 };
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
