//! Tests of events and quarantine entries that expire while the server runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::{Clock, DAY, Micros};
use crate::contract::{Contract, Format, Retention};
use crate::ingest::testing::{QUARANTINE, TABLE, contract, limits, memory, submit};
use crate::ingest::{Body, EntryFilter, EntryPage, Ingest, Receipt};
use crate::lake::{Store, Table, Tables};
use crate::maintenance::retention::remove_expired;
use crate::tenancy::testing::access;
use crate::tenancy::{Access, Scope};

/// Opens the table and its quarantine. The table keeps events for ten days, and the quarantine for three.
async fn open(store: &Store) -> Arc<Tables> {
    let contract = contract().with_retention(Retention::days(10));
    let quarantine = Contract::quarantine_of(&contract).with_retention(Retention::days(3));
    let mut tables = BTreeMap::new();
    for contract in [quarantine, contract] {
        let name = contract.name.clone();
        tables.insert(name, Table::open(store, Arc::new(contract), &Default::default()).await.unwrap());
    }
    Arc::new(tables)
}

/// A server whose clock starts 20 days ago, so that tokens are valid until the end of the test.
struct Case {
    ingest: Arc<Ingest>,
    clock: Clock,
    start: Micros,
    acme: Access,
}

impl Case {
    async fn new() -> Self {
        let start = (Clock::System.now().div_euclid(DAY) - 20) * DAY;
        let clock = Clock::fixed(start);
        let tables = open(&memory().with_clock(clock.clone())).await;
        let ingest = Ingest::start(tables, Vec::new(), limits(), clock.clone(), Arc::default()).await.unwrap();
        let acme = access(Some("acme"), &[Scope::Read, Scope::Ingest], &[TABLE, QUARANTINE]).await;
        Self { ingest, clock, start, acme }
    }

    /// Sends an event with an id and a time, which is given in days since the start. Without an id, the event is bad.
    async fn send(&self, id: Option<&str>, day: i64) -> Receipt {
        let time = (self.start + day * DAY) / 1_000_000;
        let id = id.map(|id| format!("\"event_id\":\"{id}\",")).unwrap_or_default();
        let body = format!("{{{id}\"event_time\":{time}}}");
        submit(&self.ingest, &self.acme, TABLE, Body::Encoded(Format::Json, body.into())).await.unwrap()
    }

    async fn entries(&self) -> Vec<String> {
        let listed = self.ingest.quarantine.list(&self.acme, TABLE, &EntryFilter::default(), 100).await.unwrap();
        let counted: u64 = listed.counts.iter().map(|count| count.count).sum();
        assert_eq!(counted, listed.entries.len() as u64);
        listed.entries.into_iter().map(|entry| entry.reason).collect()
    }
}

fn counts(receipt: &Receipt) -> [u64; 3] {
    [receipt.accepted, receipt.duplicate, receipt.rejected]
}

#[tokio::test]
async fn an_expired_entry_is_gone_and_its_event_gets_a_new_one() {
    let case = Case::new().await;
    for (day, entries) in [(0, 1), (0, 1), (3, 1), (4, 0)] {
        case.clock.set(case.start + day * DAY);
        if day == 0 {
            assert_eq!(counts(&case.send(None, 0).await), [0, 0, 1]);
        }
        assert_eq!(case.entries().await.len(), entries, "day {day}");
    }
    let filter = EntryFilter::default();
    let page = || EntryPage { after: None, limit: 10 };
    let replayed = case.ingest.quarantine.replay(&case.acme, TABLE, &filter, page()).await.unwrap();
    assert_eq!((replayed.accepted, replayed.rejected), (0, 0), "there is nothing to replay");
    assert_eq!(case.ingest.quarantine.drop_entries(&case.acme, TABLE, &filter, 10).await.unwrap().dropped, 0);
    // The old entry is still in the lake and in the window of ids, but an invisible entry is no duplicate.
    case.send(None, 0).await;
    assert_eq!(case.entries().await.len(), 1);
    let table = &case.ingest.writer.tables()[QUARANTINE];
    let removed = remove_expired(table, case.clock.now() + DAY / 2).await.unwrap();
    assert_eq!((removed.files, removed.rows), (1, 1));
    case.send(None, 0).await;
    assert_eq!(case.entries().await.len(), 1);
}

#[tokio::test]
async fn an_expired_event_is_rejected_and_cannot_be_replayed() {
    let case = Case::new().await;
    assert_eq!(counts(&case.send(Some("a"), 0).await), [1, 0, 0]);
    case.clock.set(case.start + 11 * DAY - 1);
    assert_eq!(counts(&case.send(Some("a"), 0).await), [0, 1, 0], "the last moment");
    case.clock.set(case.start + 11 * DAY);
    assert_eq!(counts(&case.send(Some("a"), 0).await), [0, 0, 1]);
    assert_eq!(counts(&case.send(Some("b"), 1).await), [1, 0, 0]);
    assert_eq!(case.entries().await, ["too_old"]);
    let page = EntryPage { after: None, limit: 10 };
    let replayed = case.ingest.quarantine.replay(&case.acme, TABLE, &EntryFilter::default(), page).await.unwrap();
    assert_eq!((replayed.accepted, replayed.rejected), (0, 1));
    assert_eq!(replayed.rejects[0].reason.as_str(), "too_old");
    // The id of an expired event can be used again with another time, before and after the file was removed.
    assert_eq!(counts(&case.send(Some("a"), 9).await), [1, 0, 0]);
    let removed = remove_expired(&case.ingest.writer.tables()[TABLE], case.clock.now() + DAY / 2).await.unwrap();
    assert_eq!(removed.rows, 1);
    assert_eq!(counts(&case.send(Some("a"), 9).await), [0, 1, 0]);
    assert_eq!(counts(&case.send(Some("b"), 1).await), [0, 1, 0]);
}
