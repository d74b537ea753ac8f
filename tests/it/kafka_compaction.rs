//! Tests of a compacted topic. A real log cleaner removes records at the start of the log, in the middle, and between the
//! stored offset and the end. The source must store what is left exactly once, and must not report a gap.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::order_feed::{OrderFeed, TOPIC, event};
use crate::requirements::needs;
use crate::server::{Server, until};

const PARTITIONS: i32 = 1;
/// The settings of the topic. Each message is in a segment of its own, because the cleaner does not touch the last
/// segment. The cleaner runs as soon as there is something to clean, and removes deleted keys in its next run.
const SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "1"),
    ("min.cleanable.dirty.ratio", "0.0001"),
    ("delete.retention.ms", "0"),
    ("min.compaction.lag.ms", "0"),
];
const KEYS: usize = 5;

/// Sends messages `first..end`, whose keys repeat. Then sends a message with a key of its own, which is the only message
/// of the last segment.
fn send(feed: &OrderFeed, first: usize, end: usize) {
    for index in first..end {
        // Each message is delivered before the next one, so that it begins a new segment.
        feed.broker.send(TOPIC, &[(format!("key-{}", index % KEYS), event(&format!("event-{index:03}")))]);
    }
    feed.broker.send(TOPIC, &[(format!("last-{end}"), event(&format!("last-{end:03}")))]);
}

/// Returns the offsets and ids of the messages that a consumer receives.
fn messages(feed: &OrderFeed) -> BTreeMap<i64, String> {
    let id = |payload: Option<String>| -> String {
        let event: Value = serde_json::from_str(&payload.unwrap_or_else(|| "{}".to_owned())).unwrap();
        event["id"].as_str().unwrap_or("a deletion").to_owned()
    };
    feed.broker.messages(TOPIC, 0).into_iter().map(|(offset, payload)| (offset, id(payload))).collect()
}

/// Waits until the cleaner has left only these messages.
fn wait_for_cleaner(feed: &OrderFeed, ids: &[String]) -> BTreeMap<i64, String> {
    let mut left = BTreeMap::new();
    until("the cleaner has removed the superseded messages", || {
        left = messages(feed);
        left.values().eq(ids)
    });
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_compaction_has_removed_are_not_a_gap() {
    needs!(Kafka);
    let feed = OrderFeed::start(PARTITIONS, &SETTINGS).await;
    let of = |name: &str, index: usize| format!("{name}-{index:03}");
    let range = |first: usize, end: usize| (first..end).map(|index| of("event", index)).collect::<Vec<_>>();

    // Before the source starts: records at the start of the log are missing.
    send(&feed, 0, 40);
    let mut stored = [range(35, 40), vec![of("last", 40)]].concat();
    let left = wait_for_cleaner(&feed, &stored);
    assert!(left.keys().next() > Some(&0), "{left:?}");
    let mut server = Server::start(&feed.setup(&[]));
    feed.expect_read(&server, &stored).await;

    // While no server runs: records after the stored offset are missing.
    server.kill();
    let stored_until = feed.ends()[&0];
    send(&feed, 40, 80);
    let expected = [vec![of("last", 40)], range(75, 80), vec![of("last", 80)]].concat();
    let left = wait_for_cleaner(&feed, &expected);
    assert!(!left.contains_key(&stored_until), "{left:?}");
    stored.extend(expected.into_iter().skip(1));
    server = Server::start(&feed.setup(&[]));
    feed.expect_read(&server, &stored).await;

    // All messages between the stored offset and the end are deleted or aborted, so that none is left.
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    let stored_until = feed.ends()[&0];
    feed.broker.send(TOPIC, &[("deleted".to_owned(), event("deleted"))]);
    feed.broker.send_tombstone(TOPIC, "deleted");
    let keyed = |id: &str| [("aborted".to_owned(), event(id))];
    let mut aborted = 0;
    until("no message is left after the stored offset", || {
        // The next run of the cleaner needs new records.
        aborted += 1;
        feed.broker.keyed_transaction(TOPIC, &keyed(&format!("aborted-{aborted}"))).abort();
        messages(&feed).range(stored_until..).next().is_none()
    });
    assert!(feed.ends()[&0] > stored_until + 2);
    server = Server::start(&feed.setup(&[]));
    feed.expect_read(&server, &stored).await;

    // While the server runs: the source is paused in the middle, and the cleaner overtakes it.
    feed.broker.send(TOPIC, &[("key-0".to_owned(), event("before-pause"))]);
    stored.push("before-pause".to_owned());
    feed.expect_read(&server, &stored).await;
    feed.set_paused(&server, true);
    send(&feed, 80, 120);
    let mut expected = [range(115, 120), vec![of("last", 120)]].concat();
    until("the cleaner has removed the superseded messages", || {
        messages(&feed).into_values().rev().take(expected.len()).eq(expected.iter().rev().cloned())
    });
    feed.set_paused(&server, false);
    stored.append(&mut expected);
    feed.expect_read(&server, &stored).await;
    server.kill();
    server = Server::start(&feed.setup(&[]));
    feed.expect_read(&server, &stored).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
