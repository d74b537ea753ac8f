//! Tests for listing, replaying and dropping quarantine entries. They check who may access an entry, which events a
//! replay stores, and which receive times these events get.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use futures::TryStreamExt as _;
use serde_json::json;

use crate::clock::{Clock, Micros, SECOND};
use crate::config::PolicyConfig;
use crate::contract::Format;
use crate::error::{Error, Kind, Result};
use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, memory, open, stored, submit};
use crate::ingest::{Body, EntryFilter, EntryPage, Ingest, QuarantineEntry, ReplayResult};
use crate::lake::Store;
use crate::tenancy::testing::{access, access_under};
use crate::tenancy::{Access, Scope};

/// Two bad events. The first event has no id, and the second event has a value of the wrong type.
const BAD: &str =
    "{\"event_time\":1772366400,\"mos\":1}\n{\"event_id\":\"b\",\"event_time\":1772366400,\"mos\":\"x\"}\n";

async fn start(store: &Store, clock: &Clock) -> Arc<Ingest> {
    Ingest::start(open(store).await, Vec::new(), limits(), clock.clone(), Arc::default()).await.unwrap()
}

async fn tenant(name: &str) -> Access {
    access(Some(name), &[Scope::Read, Scope::Ingest], &[TABLE]).await
}

async fn operator() -> Access {
    access(None, &[Scope::Admin, Scope::Ingest], &[]).await
}

fn json_event(text: impl Into<Bytes>) -> Body {
    Body::Encoded(Format::Json, text.into())
}

async fn send(ingest: &Ingest, access: &Access, body: impl Into<Bytes>) -> u64 {
    submit(ingest, access, TABLE, json_event(body)).await.unwrap().rejected
}

async fn entries(ingest: &Ingest, access: &Access) -> Vec<QuarantineEntry> {
    ingest.quarantine.list(access, TABLE, &EntryFilter::default(), 100).await.unwrap().entries
}

fn all(limit: usize) -> EntryPage {
    EntryPage { after: None, limit }
}

fn counts(replayed: &ReplayResult) -> (u64, u64, u64) {
    (replayed.accepted, replayed.duplicate, replayed.rejected)
}

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> Kind {
    outcome.unwrap_err().kind()
}

/// Returns the receive time of each event in the table, by id.
async fn received(store: &Store) -> BTreeMap<String, Micros> {
    let table = open(store).await[TABLE].clone();
    let mut found = BTreeMap::new();
    for file in table.snapshot().files() {
        let rows = table.rows(file, &["event_id", "received_time"], None, 100).await.unwrap();
        for batch in rows.try_collect::<Vec<_>>().await.unwrap() {
            let ids = batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned);
            found.extend(ids.zip(batch.column(1).as_primitive::<TimestampMicrosecondType>().values().iter().copied()));
        }
    }
    found
}

#[tokio::test]
async fn a_fixed_event_keeps_its_first_receive_time_and_its_entry_is_closed() {
    let (store, acme, now) = (memory(), tenant("acme").await, Clock::System.now());
    let clock = Clock::fixed(now);
    let ingest = start(&store, &clock).await;
    assert_eq!(send(&ingest, &acme, BAD).await, 2);
    clock.set(now + 60 * SECOND);
    let open_entries = entries(&ingest, &acme).await;
    let reasons: Vec<_> = open_entries.iter().map(|entry| entry.reason.as_str()).collect();
    assert!(open_entries.iter().all(|entry| entry.received == now && entry.tenant == "acme"), "{open_entries:?}");
    assert!(reasons.contains(&"missing_id") && reasons.contains(&"wrong_type"), "{reasons:?}");
    let id = &open_entries.iter().find(|entry| entry.reason == "missing_id").unwrap().id;
    let (shown, _room) = ingest.quarantine.show(&acme, TABLE, id, None).await.unwrap();
    assert_eq!(shown[0].payload.as_deref(), Some(&b"{\"event_time\":1772366400,\"mos\":1}"[..]));

    let bad = ingest.quarantine.replay_fixed(&acme, TABLE, id, None, json_event("{\"mos\":1}")).await.unwrap();
    assert_eq!((counts(&bad), bad.rejects[0].id.as_str()), ((0, 0, 1), id.as_str()));
    for several in [lines(["a", "c"]), "[]".to_owned()] {
        assert_eq!(
            kind(ingest.quarantine.replay_fixed(&acme, TABLE, id, None, json_event(several)).await),
            Kind::Invalid
        );
    }
    assert_eq!(
        entries(&ingest, &acme).await.len(),
        2,
        "an entry that is rejected again stays open and is not duplicated"
    );
    assert_eq!(stored(&store, QUARANTINE).await.len(), 2);

    let fixed = ingest.quarantine.replay_fixed(&acme, TABLE, id, None, json_event(lines(["a"]))).await.unwrap();
    assert_eq!(counts(&fixed), (1, 0, 0));
    assert_eq!(received(&store).await, BTreeMap::from([("a".to_owned(), now)]));
    let left = entries(&ingest, &acme).await;
    assert_eq!(left.iter().map(|entry| entry.reason.as_str()).collect::<Vec<_>>(), ["wrong_type"]);
    let again = ingest.quarantine.replay_fixed(&acme, TABLE, id, None, json_event(lines(["z"]))).await;
    assert_eq!(kind(again), Kind::NotFound, "a closed entry cannot be replayed again");
    ingest.stop().await;

    let ingest = start(&store, &clock).await;
    assert_eq!(entries(&ingest, &acme).await, left, "a closed entry stays closed after a restart");
    assert_eq!(send(&ingest, &acme, BAD).await, 2);
    assert_eq!(entries(&ingest, &acme).await, left, "sending the bad events again must not reopen a closed entry");
    ingest.stop().await;
    assert_eq!(received(&store).await.len(), 1);
}

#[tokio::test]
async fn a_replay_that_is_interrupted_before_it_closes_the_entry_can_be_repeated() {
    let (store, acme, clock) = (memory(), tenant("acme").await, Clock::System);
    let ingest = start(&store, &clock).await;
    send(&ingest, &acme, BAD).await;
    let entry = entries(&ingest, &acme).await.remove(0);
    // Create the state that an interrupted replay leaves: the event is stored, but its entry is still open.
    assert_eq!(send(&ingest, &acme, lines(["a"])).await, 0);
    ingest.stop().await;
    let ingest = start(&store, &clock).await;
    let fixed = ingest.quarantine.replay_fixed(&acme, TABLE, &entry.id, None, json_event(lines(["a"]))).await.unwrap();
    assert_eq!(counts(&fixed), (0, 1, 0));
    assert_eq!(entries(&ingest, &acme).await.len(), 1);
    ingest.stop().await;
    assert_eq!(stored(&store, TABLE).await.len(), 1);
}

#[tokio::test]
async fn a_replay_reads_pages_and_applies_the_current_limits() {
    let (store, acme, now) = (memory(), tenant("acme").await, Clock::System.now());
    let clock = Clock::fixed(now);
    // The first server rejects the events because they exceed its size limit. The second server has a higher limit.
    let small = crate::config::IngestConfig { event_bytes_max: 16, ..limits() };
    let strict = Ingest::start(open(&store).await, Vec::new(), small, clock.clone(), Arc::default()).await.unwrap();
    for id in 0..5 {
        clock.set(now + id * SECOND);
        assert_eq!(send(&strict, &acme, lines([id])).await, 1);
    }
    assert_eq!(send(&strict, &acme, "{\"mos\":1}").await, 1);
    strict.stop().await;

    let ingest = start(&store, &clock).await;
    let (mut total, mut page) = ((0, 0, 0), all(2));
    let (mut pages, operator) = (0, operator().await);
    loop {
        let replayed = ingest.quarantine.replay(&operator, TABLE, &EntryFilter::default(), page).await.unwrap();
        let (accepted, duplicate, rejected) = counts(&replayed);
        total = (total.0 + accepted, total.1 + duplicate, total.2 + rejected);
        pages += 1;
        match replayed.next {
            Some(next) => {
                page = EntryPage { after: Some(crate::ingest::EntryCursor::parse(&next.text()).unwrap()), limit: 2 }
            }
            None => break,
        }
    }
    assert_eq!((total, pages), ((5, 0, 1), 3));
    let expected = (0..5).map(|id| (id.to_string(), now + id * SECOND));
    let message = "each event has the receive time of its own entry";
    assert_eq!(received(&store).await, expected.collect::<BTreeMap<_, _>>(), "{message}");
    let reasons: Vec<_> = entries(&ingest, &acme).await.into_iter().map(|entry| entry.reason).collect();
    assert_eq!(reasons, ["missing_time"]);
    ingest.stop().await;
}

#[tokio::test]
async fn entries_are_filtered_counted_and_dropped() {
    let (store, acme, now) = (memory(), tenant("acme").await, Clock::System.now());
    let (globex, operator, clock) = (tenant("globex").await, operator().await, Clock::fixed(now));
    let ingest = start(&store, &clock).await;
    send(&ingest, &acme, BAD).await;
    send(&ingest, &globex, BAD).await;
    clock.set(now + 10 * SECOND);
    send(&ingest, &operator, "{\"event_id\":\"n\",\"event_time\":1000000000}").await;

    let listing = ingest.quarantine.list(&operator, TABLE, &EntryFilter::default(), 2).await.unwrap();
    let counted: Vec<_> =
        listing.counts.iter().map(|count| (count.reason.as_str(), count.tenant.as_str(), count.count)).collect();
    let each = [
        ("missing_id", "acme", 1),
        ("missing_id", "globex", 1),
        ("missing_tenant", "", 1),
        ("wrong_type", "acme", 1),
        ("wrong_type", "globex", 1),
    ];
    assert_eq!(counted, each);
    assert_eq!(listing.entries.len(), 2);
    assert_eq!(listing.entries[0].reason, "missing_tenant", "the newest entry must come first");
    let without_tenant = listing.entries[0].clone();

    let filters = [
        (EntryFilter { tenant: Some("acme".into()), ..EntryFilter::default() }, 2),
        (EntryFilter { tenant: Some(String::new()), ..EntryFilter::default() }, 1),
        (EntryFilter { reason: Some("missing_id".into()), ..EntryFilter::default() }, 2),
        (EntryFilter { since: Some(now + SECOND), ..EntryFilter::default() }, 1),
        (EntryFilter { ids: vec![without_tenant.id.clone(), "other".into()], ..EntryFilter::default() }, 1),
        (
            EntryFilter {
                tenant: Some("acme".into()),
                reason: Some("missing_tenant".into()),
                ..EntryFilter::default()
            },
            0,
        ),
    ];
    for (filter, expected) in filters {
        let found = ingest.quarantine.list(&operator, TABLE, &filter, 100).await.unwrap();
        assert_eq!(found.entries.len(), expected, "{filter:?}");
        assert_eq!(found.counts.iter().map(|count| count.count).sum::<u64>(), expected as u64, "{filter:?}");
    }

    // Both tenants sent the same bytes, so their entries have the same ids. Each tenant drops only its own entries.
    let own = entries(&ingest, &acme).await;
    let filter = EntryFilter { ids: own.iter().map(|entry| entry.id.clone()).collect(), ..EntryFilter::default() };
    let fixed = json_event("{\"tenant_id\":\"acme\",\"event_id\":\"q\",\"event_time\":1000000000}");
    assert_eq!(kind(ingest.quarantine.replay_fixed(&operator, TABLE, &own[0].id, None, fixed).await), Kind::Invalid);
    assert_eq!(
        ingest.quarantine.drop_entries(&acme, TABLE, &filter, 1).await.unwrap(),
        crate::ingest::DropResult { dropped: 1, more: true }
    );
    assert_eq!(
        ingest.quarantine.drop_entries(&acme, TABLE, &filter, 9).await.unwrap(),
        crate::ingest::DropResult { dropped: 1, more: false }
    );
    assert_eq!(
        ingest.quarantine.drop_entries(&acme, TABLE, &filter, 9).await.unwrap(),
        crate::ingest::DropResult::default()
    );
    assert_eq!((entries(&ingest, &acme).await.len(), entries(&ingest, &globex).await.len()), (0, 2));

    // For an entry without a tenant, an operator may send a corrected event that names a tenant.
    let owned = json_event("{\"tenant_id\":\"globex\",\"event_id\":\"n\",\"event_time\":1000000000}");
    let replayed = ingest.quarantine.replay_fixed(&operator, TABLE, &without_tenant.id, Some(""), owned).await.unwrap();
    assert_eq!(counts(&replayed), (1, 0, 0));
    assert_eq!(stored(&store, TABLE).await, [("globex".to_owned(), "n".to_owned())]);
    assert_eq!(entries(&ingest, &operator).await.len(), 2);
    ingest.stop().await;
}

#[tokio::test]
async fn a_closed_entry_stays_closed_when_the_same_event_arrives_again() {
    let (store, acme, now) = (memory(), tenant("acme").await, Clock::System.now());
    let clock = Clock::fixed(now);
    // The window contains these ids even though `dedupe_ids_max` is 1, because the dedupe window of a quarantine has a
    // minimum size.
    let small = crate::config::IngestConfig { dedupe_ids_max: 1, ..limits() };
    let ingest = Ingest::start(open(&store).await, Vec::new(), small, clock.clone(), Arc::default()).await.unwrap();
    for (round, open) in [(0, 2), (1, 0), (2, 0)] {
        clock.set(now + round * SECOND);
        send(&ingest, &acme, BAD).await;
        assert_eq!(entries(&ingest, &acme).await.len(), open, "round {round}");
        let all = EntryFilter::default();
        let dropped = ingest.quarantine.drop_entries(&acme, TABLE, &all, 9).await.unwrap().dropped;
        assert_eq!(dropped, open as u64, "round {round}");
    }
    ingest.stop().await;
}

#[tokio::test]
async fn only_authorized_callers_read_and_change_entries() {
    let store = memory();
    let ingest = start(&store, &Clock::System).await;
    send(&ingest, &tenant("acme").await, BAD).await;
    let id = entries(&ingest, &operator().await).await.remove(0).id;
    let with_policy = |policy| async move {
        let policy = BTreeMap::from([(TABLE.to_owned(), policy)]);
        access_under(Some("acme"), &[Scope::Read, Scope::Ingest], &policy, json!({})).await
    };
    let columns = PolicyConfig { columns: vec!["event_id".into()], ..PolicyConfig::default() };
    let not_found = Some(Kind::NotFound);
    let cases: [(&str, Access, Option<Kind>, Option<Kind>); 8] = [
        ("acme", tenant("acme").await, None, None),
        ("a reader", access(Some("acme"), &[Scope::Read], &[TABLE]).await, None, Some(Kind::Forbidden)),
        ("a writer", access(Some("acme"), &[Scope::Ingest], &[TABLE]).await, Some(Kind::Forbidden), None),
        ("another tenant", tenant("globex").await, not_found, not_found),
        ("a reader restricted to some columns", with_policy(columns).await, not_found, not_found),
        (
            "a reader without access to the table",
            access(Some("acme"), &[Scope::Read, Scope::Ingest], &[]).await,
            not_found,
            not_found,
        ),
        (
            "an operator without the scope admin",
            access(None, &[Scope::Ingest], &[]).await,
            Some(Kind::Forbidden),
            Some(Kind::Forbidden),
        ),
        ("an operator", operator().await, None, None),
    ];
    for (who, access, read, change) in cases {
        let kind_of = |outcome: Option<Error>| outcome.map(|error| error.kind());
        assert_eq!(kind_of(ingest.quarantine.show(&access, TABLE, &id, None).await.err()), read, "{who}");
        let bad = json_event("{}");
        assert_eq!(
            kind_of(ingest.quarantine.replay_fixed(&access, TABLE, &id, None, bad).await.err()),
            change,
            "{who}"
        );
        let other = EntryFilter { tenant: Some("initech".into()), ..EntryFilter::default() };
        let dropped = kind_of(ingest.quarantine.drop_entries(&access, TABLE, &other, 9).await.err());
        assert!(access.tenant().is_err() || dropped == Some(Kind::Forbidden), "{who}: {dropped:?}");
    }
    for table in [QUARANTINE, "other"] {
        let listed = ingest.quarantine.list(&operator().await, table, &EntryFilter::default(), 1).await;
        assert_eq!(kind(listed), Kind::NotFound, "{table}");
    }
    ingest.stop().await;
}
