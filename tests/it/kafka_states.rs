//! Tests of the states of a source with a real broker. The state, the error and the stopped partitions must agree with
//! one another, in the HTTP API, in the output of the command line, and in the metrics.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cli::{client, outcome};
use crate::kafka::{offsets_of, state};
use crate::order_feed::{OrderFeed, SOURCE, TOPIC, event};
use crate::requirements::needs;
use crate::server::{Server, until_async};

const PARTITIONS: i32 = 2;

/// The state of a source: its name, the kind of the error and whether it is resolved, and the stopped partitions.
#[derive(Debug, PartialEq)]
struct Expected<'a>(&'a str, Option<(&'a str, bool)>, &'a [i32]);

/// Waits until the source is in a state. Then checks that all endpoints agree.
async fn expect(server: &Server, expected: Expected<'_>) -> Value {
    let Expected(name, error, stopped) = expected;
    let mut found = Value::Null;
    until_async(&format!("{expected:?}"), async || {
        found = state(server);
        let last_error = &found["last_error"];
        let found_error = last_error["kind"].as_str().map(|kind| (kind, last_error["resolved"].as_bool().unwrap()));
        (found["state"].as_str(), found_error, stopped_partitions(&found)) == (Some(name), error, stopped.to_vec())
            && metrics_agree(server, &found).await
    })
    .await;
    let (status, listed) = server.get("admin", "/v1/sources").await;
    let listed = serde_json::from_str::<Value>(&listed).unwrap()["sources"][0].take();
    assert_eq!((status, without_lags(listed)), (200, without_lags(found.clone())));
    let (succeeded, text) = outcome(&client(server, "admin", &["sources", "list"]));
    assert!(succeeded && text.contains(&format!("into samples  {name}")), "{text}");
    assert_eq!(text.matches("stopped by a gap").count(), stopped.len(), "{text}");
    let shown = match error {
        None => None,
        Some((kind, true)) => Some(("  last error (resolved) ", kind)),
        Some((kind, false)) => Some(("  error ", kind)),
    };
    let line = text.lines().find(|line| line.starts_with("  error ") || line.starts_with("  last error "));
    let is_shown =
        |(start, kind): (&str, &str)| line.is_some_and(|line| line.starts_with(start) && line.contains(kind));
    assert_eq!(line.is_some(), shown.is_some_and(is_shown), "{text}");
    found
}

/// Removes the lags and offsets, which change at any time while a source is running.
fn without_lags(mut source: Value) -> Value {
    for partition in source["partitions"].as_array_mut().unwrap() {
        (partition["lag"], partition["offset"]) = (Value::Null, Value::Null);
    }
    source
}

fn stopped_partitions(source: &Value) -> Vec<i32> {
    let partitions = source["partitions"].as_array().unwrap().iter();
    let stopped = partitions.filter(|partition| partition["stopped"] == json!(true));
    stopped.map(|partition| i32::try_from(partition["partition"].as_i64().unwrap()).unwrap()).collect()
}

/// Returns true if the metrics agree with the state that the API returned.
async fn metrics_agree(server: &Server, source: &Value) -> bool {
    let (_, page) = server.get("admin", "/metrics").await;
    let is_set = |line: String| {
        let value = page.lines().find_map(|found| found.strip_prefix(&line)?.strip_prefix(' '));
        value.map(|value| value == "1")
    };
    let has_label = |metric: &str| is_set(format!("glasshouse_source_{metric}{{source=\"{SOURCE}\"}}"));
    let stopped = |partition: &Value| {
        let labels = format!("source=\"{SOURCE}\",topic=\"{TOPIC}\",partition=\"{}\"", partition["partition"]);
        is_set(format!("glasshouse_source_stopped{{{labels}}}"))
    };
    let is_paused = source["state"] == "paused";
    let error = &source["last_error"];
    let has_failed = error["resolved"] == json!(false) && error["kind"] != "gap";
    let partitions = source["partitions"].as_array().unwrap();
    has_label("paused") == Some(is_paused)
        && has_label("failing").unwrap_or_default() == has_failed
        && partitions.iter().all(|partition| {
            let is_stopped = partition["stopped"].as_bool().unwrap();
            // A stopped partition has no lag, in the API and in the metrics.
            stopped(partition).unwrap_or_default() == is_stopped && (!is_stopped || partition["lag"].is_null())
        })
}

async fn expect_stored(server: &Server, ids: &[&str]) {
    let ids: BTreeSet<&str> = ids.iter().copied().collect();
    until_async(&format!("{ids:?} are stored"), async || {
        let stored = server.ask("acme", "SELECT id FROM samples").unwrap();
        stored.lines().skip(1).collect::<BTreeSet<_>>() == ids
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_the_error_and_the_stopped_partitions_of_a_source_agree() {
    needs!(Kafka);
    let mut feed = OrderFeed::start(PARTITIONS, &[]).await;
    let server = Server::start(&feed.setup(&[]));
    let send = |feed: &OrderFeed, ids: [&str; 2]| {
        (0..).zip(ids).for_each(|(partition, id)| feed.broker.send_to(TOPIC, partition, &event(id)));
    };
    send(&feed, ["a0", "a1"]);
    expect_stored(&server, &["a0", "a1"]).await;
    expect(&server, Expected("running", None, &[])).await;
    feed.set_paused(&server, true);
    expect(&server, Expected("paused", None, &[])).await;

    // Retention deletes a message of partition 0 during the pause. Partition 1 continues.
    send(&feed, ["b0", "b1"]);
    feed.broker.delete_before(TOPIC, [(0, 2)]).await;
    feed.set_paused(&server, false);
    let degraded = Expected("degraded", Some(("gap", false)), &[0]);
    let source = expect(&server, degraded).await;
    let message = source["last_error"]["message"].as_str().unwrap();
    for part in ["`orders`, partition 0", "next offset is 1", "from 2 to before 2", "on_gap"] {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
    send(&feed, ["c0", "c1"]);
    expect_stored(&server, &["a0", "a1", "b1", "c1"]).await;
    // A pause does not hide that a partition is stopped.
    feed.set_paused(&server, true);
    expect(&server, Expected("paused", Some(("gap", false)), &[0])).await;
    send(&feed, ["d0", "d1"]);
    feed.broker.delete_before(TOPIC, [(1, 4)]).await;
    feed.set_paused(&server, false);
    expect(&server, Expected("stopped", Some(("gap", false)), &[0, 1])).await;

    // An outage of the brokers is an error of its own. After it, the gaps are the present error again.
    feed.broker.stop();
    let mut source = Value::Null;
    until_async("the source is failing", async || {
        source = state(&server);
        source["state"] == "failing" && source["last_error"]["kind"] == "connection"
    })
    .await;
    assert_eq!(source["last_error"]["resolved"], json!(false), "{source}");
    feed.broker.restart();
    expect(&server, Expected("stopped", Some(("gap", false)), &[0, 1])).await;

    // The operator accepts the gaps.
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    let server = Server::start(&feed.setup(&[("SOURCES__ORDERS__ON_GAP", "earliest")]));
    expect_stored(&server, &["a0", "a1", "b1", "c0", "c1", "d0"]).await;
    expect(&server, Expected("running", Some(("gap", true)), &[])).await;
    assert_eq!(server.metric("glasshouse_source_skipped_messages_total{").await, 2.0, "b0 and d1 are skipped");
    send(&feed, ["e0", "e1"]);
    expect_stored(&server, &["a0", "a1", "b1", "c0", "c1", "d0", "e0", "e1"]).await;
    expect(&server, Expected("running", Some(("gap", true)), &[])).await;
    assert_eq!(offsets_of(&feed.lake, SOURCE, TOPIC), feed.ends());
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_fails_the_source_until_it_is_created() {
    needs!(Kafka);
    const MISSING: &str = "later";
    let feed = OrderFeed::start(PARTITIONS, &[]).await;
    let refresh = ("SOURCES__ORDERS__OPTIONS__TOPIC_METADATA_REFRESH_INTERVAL_MS", "500");
    let topics = [TOPIC, MISSING].join(",");
    let server = Server::start(&feed.setup(&[("SOURCES__ORDERS__TOPICS", &topics), refresh]));
    // The other topic is read. This must not hide the error.
    for (partition, id) in [(0, "a"), (1, "b")] {
        feed.broker.send_to(TOPIC, partition, &event(id));
    }
    expect_stored(&server, &["a", "b"]).await;
    expect(&server, Expected("failing", Some(("topic", false)), &[])).await;
    // A pause takes precedence, but does not hide the error either.
    feed.set_paused(&server, true);
    expect(&server, Expected("paused", Some(("topic", false)), &[])).await;
    feed.set_paused(&server, false);
    expect(&server, Expected("failing", Some(("topic", false)), &[])).await;
    feed.broker.create_topic(MISSING, 1).await;
    expect(&server, Expected("running", Some(("topic", true)), &[])).await;
    feed.broker.send_to(MISSING, 0, &event("c"));
    expect_stored(&server, &["a", "b", "c"]).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
