//! Tests for receipts, and for the rows that the lake contains after restarts, store failures and concurrent requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::testing::{Faults, QUARANTINE, TABLE, faulty, limits, lines, memory, start, stored, submit};
use super::{Body, Ingest, Receipt};
use crate::config::IngestConfig;
use crate::contract::{Format, Reason};
use crate::error::{Kind, Result};
use crate::lake::Store;
use crate::tenancy::testing::access;
use crate::tenancy::{Access, Scope};

async fn acme() -> Access {
    access(Some("acme"), &[Scope::Ingest], &[TABLE]).await
}

async fn send(ingest: &Ingest, access: &Access, body: impl Into<Bytes>) -> Result<Receipt> {
    submit(ingest, access, TABLE, Body::Encoded(Format::Json, body.into())).await
}

/// Returns the numbers of accepted, duplicate and rejected events.
fn counts(receipt: &Receipt) -> (u64, u64, u64) {
    (receipt.accepted, receipt.duplicate, receipt.rejected)
}

/// Returns the expected rows for one tenant: one row per distinct id.
fn once<T: ToString>(tenant: &str, ids: impl IntoIterator<Item = T>) -> Vec<(String, String)> {
    let ids: BTreeSet<String> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.into_iter().map(|id| (tenant.to_owned(), id)).collect()
}

#[tokio::test]
async fn a_receipt_counts_accepted_duplicate_and_rejected_events() {
    let (store, acme) = (memory(), acme().await);
    let ingest = start(&store, limits()).await;
    let body = lines(["a", "b", "a"]) + "{\"event_time\":1000000000,\"mos\":1}\n" + &lines(["c"]) + "{\"event_id\":\n";

    let first = send(&ingest, &acme, body.clone()).await.unwrap();
    assert_eq!(counts(&first), (3, 1, 2), "{first:?}");
    assert!(first.version > 0);
    let notes: Vec<_> = first.rejects.iter().map(|note| (note.index, note.reason)).collect();
    assert_eq!(notes, [(3, Reason::MissingId), (5, Reason::Malformed)]);
    assert_eq!(stored(&store, TABLE).await, once("acme", ["a", "b", "c"]));
    let quarantined = stored(&store, QUARANTINE).await;
    assert!(quarantined.len() == 2 && quarantined.iter().all(|(tenant, _)| tenant == "acme"), "{quarantined:?}");

    let again = send(&ingest, &acme, body).await.unwrap();
    assert_eq!((counts(&again), again.version), ((0, 4, 2), 0));
    assert_eq!(stored(&store, TABLE).await.len(), 3);
    assert_eq!(stored(&store, QUARANTINE).await, quarantined, "a retry adds nothing to the quarantine");
    ingest.stop().await;
}

#[tokio::test]
async fn ids_are_scoped_to_their_tenant() {
    let (store, acme) = (memory(), acme().await);
    let ingest = start(&store, limits()).await;
    let globex = access(Some("globex"), &[Scope::Ingest], &[TABLE]).await;
    let operator = access(None, &[Scope::Ingest], &[]).await;
    assert_eq!(counts(&send(&ingest, &acme, lines(["a"])).await.unwrap()), (1, 0, 0));
    assert_eq!(counts(&send(&ingest, &globex, lines(["a"])).await.unwrap()), (1, 0, 0));

    // The event names the tenant `globex`. If another tenant sends it, it is quarantined, and the quarantine entry
    // belongs to the sender. If an operator sends it, it is stored for `globex`.
    let foreign = "{\"tenant_id\":\"globex\",\"event_id\":\"b\",\"event_time\":1772366400}\n";
    assert_eq!(counts(&send(&ingest, &acme, foreign).await.unwrap()), (0, 0, 1));
    let unowned = lines(["c"]);
    assert_eq!(counts(&send(&ingest, &operator, foreign.to_owned() + &unowned).await.unwrap()), (1, 0, 1));

    let mut expected = once("acme", ["a"]);
    expected.extend(once("globex", ["a", "b"]));
    assert_eq!(stored(&store, TABLE).await, expected);
    let owners: Vec<String> = stored(&store, QUARANTINE).await.into_iter().map(|(tenant, _)| tenant).collect();
    assert_eq!(owners, ["", "acme"], "the quarantine entry of an event without a tenant has no tenant");
    ingest.stop().await;
}

#[tokio::test]
async fn events_stored_before_a_restart_are_duplicates_after_it() {
    let (store, acme) = (memory(), acme().await);
    for (ids, expected) in [(0..10, (10, 0, 0)), (5..15, (5, 5, 0)), (0..15, (0, 15, 0))] {
        let ingest = start(&store, limits()).await;
        assert_eq!(counts(&send(&ingest, &acme, lines(ids)).await.unwrap()), expected);
        ingest.stop().await;
    }
    assert_eq!(stored(&store, TABLE).await, once("acme", 0..15));
}

#[tokio::test]
async fn a_duplicate_id_with_different_content_is_a_conflict() {
    let (store, acme) = (memory(), acme().await);
    let other = |ids: std::ops::Range<u32>| lines(ids).replace("4.2", "1.3");
    let ingest = start(&store, limits()).await;
    let mut counted = Vec::new();
    for body in [lines(0..3), other(2..5), lines(4..6) + &other(5..7), lines(0..2)] {
        let receipt = send(&ingest, &acme, body).await.unwrap();
        counted.push((receipt.accepted, receipt.duplicate, receipt.conflict));
    }
    assert_eq!(counted, [(3, 0, 0), (2, 1, 1), (2, 2, 2), (0, 2, 0)]);
    assert_eq!(stored(&store, TABLE).await, once("acme", 0..7), "the first event with each id is kept");
    ingest.stop().await;

    let ingest = start(&store, limits()).await;
    let receipt = send(&ingest, &acme, other(0..1)).await.unwrap();
    assert_eq!(
        (receipt.duplicate, receipt.conflict),
        (1, 0),
        "after a restart, the content of stored events is unknown"
    );
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_concurrent_senders_share_are_stored_once() {
    const SENDERS: usize = 32;
    let (store, acme) = (memory(), acme().await);
    // A batch holds at most 40 rows and a request has 25, so some batches contain rows of several requests.
    let ingest = start(&store, IngestConfig { batch_rows_max: 40, ..limits() }).await;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (ingest, acme) = (ingest.clone(), acme.clone());
        senders.spawn(async move {
            let mut accepted = 0;
            for round in 0..4 {
                let from = round * 25 + sender;
                accepted += send(&ingest, &acme, lines(from..from + 25)).await.unwrap().accepted;
            }
            accepted
        });
    }
    let accepted: u64 = senders.join_all().await.into_iter().sum();
    ingest.stop().await;
    let expected = once("acme", 0..3 * 25 + SENDERS - 1 + 25);
    assert_eq!(accepted, expected.len() as u64);
    assert_eq!(stored(&store, TABLE).await, expected);
}

/// Sends a body repeatedly until a receipt arrives, as clients should, and returns the receipt.
async fn send_until_answered(ingest: &Ingest, access: &Access, body: &str) -> Receipt {
    for _ in 0..100 {
        match send(ingest, access, body.to_owned()).await {
            Ok(receipt) => return receipt,
            Err(error) => assert_eq!((error.kind(), error.wait().is_some()), (Kind::Unavailable, true), "{error:?}"),
        }
    }
    panic!("no receipt after 100 attempts");
}

#[tokio::test]
async fn a_sender_that_retries_after_store_failures_stores_each_event_once() {
    for refused in 0..4 {
        for answer_lost in 0..4 {
            let (faults, acme) = (Arc::new(Faults::default()), acme().await);
            let store = faulty(&faults);
            let ingest = start(&store, limits()).await;
            send(&ingest, &acme, lines(0..5)).await.unwrap();
            faults.refused.store(refused, Ordering::SeqCst);
            faults.answer_lost.store(answer_lost, Ordering::SeqCst);

            let bad = "{\"mos\":1}\n";
            let case = format!("{refused} puts refused, {answer_lost} answers lost");
            let receipt = send_until_answered(&ingest, &acme, &(lines(3..10) + bad)).await;
            assert_eq!((receipt.accepted + receipt.duplicate, receipt.rejected), (7, 1), "{case}");
            let other = send_until_answered(&ingest, &acme, &lines(8..20)).await;
            assert_eq!(counts(&other), (10, 2, 0), "{case}");
            ingest.stop().await;
            assert_eq!(stored(&store, TABLE).await, once("acme", 0..20), "{case}");
            assert_eq!(stored(&store, QUARANTINE).await.len(), 1, "{case}");
        }
    }
}

#[tokio::test]
async fn a_request_that_fails_before_a_stop_can_be_sent_again_after_it() {
    let (faults, acme) = (Arc::new(Faults::default()), acme().await);
    let store = faulty(&faults);
    let ingest = start(&store, limits()).await;
    // The put of the data file succeeds, but its response is lost.
    faults.answer_lost.store(1, Ordering::SeqCst);
    assert_eq!(send(&ingest, &acme, lines(0..5)).await.unwrap_err().kind(), Kind::Unavailable);
    ingest.stop().await;
    let again = start(&store, limits()).await;
    send_until_answered(&again, &acme, &lines(0..5)).await;
    again.stop().await;
    assert_eq!(stored(&store, TABLE).await, once("acme", 0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_no_acknowledged_events() {
    let (store, acme) = (memory(), acme().await);
    // The last batches are committed only because the server stops. Otherwise, they would wait for an hour.
    let slow = IngestConfig { batch_age_max: Duration::from_secs(3_600), ..limits() };
    let ingest = start(&store, slow).await;
    let mut senders = JoinSet::new();
    for sender in 0..64_u32 {
        let (ingest, acme) = (ingest.clone(), acme.clone());
        senders.spawn(async move {
            let mut acknowledged = Vec::new();
            for round in 0.. {
                let id = format!("{sender}-{round}");
                match send(&ingest, &acme, lines([&id])).await {
                    Ok(receipt) => assert_eq!(counts(&receipt), (1, 0, 0)),
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
                        break;
                    }
                }
                acknowledged.push(id);
            }
            acknowledged
        });
    }
    // Stop after the first commit.
    while ingest.writer.tables()[TABLE].snapshot().rows() == 0 {
        tokio::task::yield_now().await;
    }
    ingest.stop().await;
    let acknowledged = senders.join_all().await.concat();
    assert!(!acknowledged.is_empty());
    assert_eq!(stored(&store, TABLE).await, once("acme", acknowledged));
    assert_eq!(ingest.writer.ready().unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn senders_without_permission_are_refused() {
    let store = memory();
    let ingest = start(&store, limits()).await;
    let both = [TABLE, QUARANTINE];
    let cases = [
        (access(Some("acme"), &[Scope::Read, Scope::Admin], &both).await, TABLE, Kind::Forbidden),
        (access(Some("acme"), &[Scope::Ingest], &["other"]).await, TABLE, Kind::NotFound),
        (access(Some("acme"), &[Scope::Ingest], &["other"]).await, "other", Kind::NotFound),
        (access(Some("acme"), &[Scope::Ingest], &both).await, QUARANTINE, Kind::Forbidden),
        (access(None, &[Scope::Admin], &both).await, TABLE, Kind::Forbidden),
        (access(None, &[Scope::Ingest], &both).await, QUARANTINE, Kind::Forbidden),
        (access(None, &[Scope::Ingest], &both).await, "other", Kind::NotFound),
    ];
    for (access, table, kind) in cases {
        let refused = ingest.writer.authorize(&access, table).unwrap_err();
        assert_eq!(refused.kind(), kind, "{table}: {refused:?}");
    }
    ingest.stop().await;
    assert!(stored(&store, TABLE).await.is_empty());
}

#[tokio::test]
async fn a_full_queue_returns_a_retry_time() {
    let (store, acme) = (memory(), acme().await);
    let bounds = IngestConfig { queue_bytes_max: 64 << 10, queue_wait_max: Duration::ZERO, ..limits() };
    let ingest = start(&store, bounds).await;
    let mut all = ingest.writer.reservation();
    all.resize(64 << 10).await.unwrap();
    let refused = send(&ingest, &acme, lines(["a"])).await.unwrap_err();
    assert_eq!((refused.kind(), refused.wait()), (Kind::Limited, Some(Duration::from_secs(1))));
    assert_eq!(ingest.writer.queued_bytes(), 64 << 10);

    drop(all);
    assert_eq!(counts(&send(&ingest, &acme, lines(["a"])).await.unwrap()), (1, 0, 0));
    let large = send(&ingest, &acme, lines(0..2_000)).await.unwrap_err();
    assert_eq!(
        (large.kind(), large.wait()),
        (Kind::Limited, None),
        "a retry cannot help a request larger than the queue"
    );
    assert_eq!(ingest.writer.queued_bytes(), 0, "requests release their memory when they are refused or answered");
    ingest.stop().await;
}

#[tokio::test]
async fn a_receipt_lists_a_bounded_number_of_rejects() {
    let (store, acme): (Store, _) = (memory(), acme().await);
    let ingest = start(&store, IngestConfig { receipt_rejects_max: 2, ..limits() }).await;
    let receipt = send(&ingest, &acme, "{\"mos\":1}\n".repeat(5)).await.unwrap();
    assert_eq!((receipt.rejected, receipt.rejects.len()), (5, 2));
    assert_eq!(stored(&store, QUARANTINE).await.len(), 5);
    ingest.stop().await;
}

#[tokio::test]
async fn a_body_without_events_gets_an_empty_receipt_and_an_invalid_body_an_error() {
    let (store, acme) = (memory(), acme().await);
    let ingest = start(&store, limits()).await;
    assert_eq!(send(&ingest, &acme, "[]").await.unwrap(), Receipt::default());
    let body = Body::Encoded(Format::ArrowIpc, Bytes::from_static(b"not a stream"));
    let refused = submit(&ingest, &acme, TABLE, body).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused:?}");
    assert_eq!(ingest.writer.tables()[TABLE].snapshot().version, ingest.writer.tables()[QUARANTINE].snapshot().version);
    ingest.stop().await;
}
