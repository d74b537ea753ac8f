//! Tests for early acknowledgement. Despite store failures, panics and shutdowns, every acknowledged event must be
//! either stored or counted as lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::testing::{Faults, QUARANTINE, TABLE, faulty, limits, lines, memory, open, start, stored, submit};
use super::{Body, Ingest, Promise};
use crate::clock::Clock;
use crate::config::IngestConfig;
use crate::contract::Format;
use crate::error::{Kind, Result};
use crate::telemetry::Metrics;
use crate::tenancy::testing::access;
use crate::tenancy::{Access, Scope};

async fn acme() -> Access {
    access(Some("acme"), &[Scope::Ingest], &[TABLE]).await
}

async fn send(ingest: &Ingest, access: &Access, body: String) -> Result<Promise> {
    let (writer, target) = (&ingest.writer, ingest.writer.authorize(access, TABLE)?);
    let body = Body::Encoded(Format::Json, body.into());
    writer.submit_received(writer.reservation(), target, body, "test").await
}

#[tokio::test]
async fn a_stop_stores_all_promised_events() {
    let (store, acme) = (memory(), acme().await);
    // The first few batches are committed immediately. Later batches would wait for an hour, so only the shutdown
    // commits them.
    let slow = IngestConfig { batch_age_max: Duration::from_secs(3_600), ..limits() };
    let ingest = start(&store, slow).await;
    for batch in 0..50 {
        let body = lines(batch * 10..batch * 10 + 11) + "{\"mos\":1}\n";
        let promise = send(&ingest, &acme, body).await.unwrap();
        assert_eq!((promise.received, promise.rejected, promise.rejects.len()), (11, 1, 1));
        assert_eq!(promise.rejects[0].index, 11);
    }
    ingest.stop().await;
    assert_eq!(stored(&store, TABLE).await.len(), 501, "each event is stored once");
    assert_eq!(stored(&store, QUARANTINE).await.len(), 1);
    assert_eq!(ingest.writer.queued_bytes(), 0);
    assert_eq!(send(&ingest, &acme, lines(["late"])).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn storing_is_retried_until_it_succeeds() {
    for (refused, answer_lost) in [(1, 0), (0, 1), (2, 1)] {
        let (faults, acme) = (Arc::new(Faults::default()), acme().await);
        let store = faulty(&faults);
        let ingest = start(&store, limits()).await;
        faults.refused.store(refused, Ordering::SeqCst);
        faults.answer_lost.store(answer_lost, Ordering::SeqCst);
        let promise = send(&ingest, &acme, lines(0..5) + "{\"mos\":1}\n").await.unwrap();
        assert_eq!((promise.received, promise.rejected), (5, 1));
        while ingest.writer.queued_bytes() > 0 {
            tokio::task::yield_now().await;
        }
        let case = format!("{refused} puts refused, {answer_lost} answers lost");
        assert_eq!(stored(&store, TABLE).await.len(), 5, "{case}");
        assert_eq!(stored(&store, QUARANTINE).await.len(), 1, "{case}");
        ingest.stop().await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_events_instead_of_promising_them() {
    let (store, acme) = (memory(), acme().await);
    let bounds = IngestConfig { queue_bytes_max: 64 << 10, queue_wait_max: Duration::ZERO, ..limits() };
    let ingest = start(&store, bounds).await;
    let mut all = ingest.writer.reservation();
    all.resize(64 << 10).await.unwrap();
    let refused = send(&ingest, &acme, lines(["a"])).await.unwrap_err();
    assert_eq!((refused.kind(), refused.wait()), (Kind::Limited, Some(Duration::from_secs(1))));
    drop(all);
    assert_eq!(send(&ingest, &acme, lines(["a"])).await.unwrap().received, 1);
    ingest.stop().await;
    assert_eq!(stored(&store, TABLE).await.len(), 1);
}

#[tokio::test]
async fn events_that_a_stop_cannot_store_are_counted_as_lost() {
    let (faults, acme, metrics) = (Arc::new(Faults::default()), acme().await, Arc::new(Metrics::default()));
    let store = faulty(&faults);
    let ingest = Ingest::start(open(&store).await, Vec::new(), limits(), Clock::System, metrics.clone()).await.unwrap();
    faults.refused.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(send(&ingest, &acme, lines(0..5)).await.unwrap().received, 5);
    ingest.stop().await;
    faults.refused.store(0, Ordering::SeqCst);
    assert_eq!(stored(&store, TABLE).await, []);
    let page = metrics.render();
    assert!(
        page.contains("glasshouse_events_lost_total{table=\"calls\"} 5"),
        "the lost events are not counted: {page}"
    );
}

#[tokio::test]
async fn a_committer_panic_neither_loses_nor_duplicates_events() {
    // Storing a batch takes two puts to the object store: one for the data file and one for the log entry.
    for (before, after) in [(1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)] {
        let (faults, acme, metrics) = (Arc::new(Faults::default()), acme().await, Arc::new(Metrics::default()));
        let store = faulty(&faults);
        let ingest =
            Ingest::start(open(&store).await, Vec::new(), limits(), Clock::System, metrics.clone()).await.unwrap();
        send(&ingest, &acme, lines(0..3)).await.unwrap();
        while ingest.writer.queued_bytes() > 0 {
            tokio::task::yield_now().await;
        }
        faults.panics_before.store(before, Ordering::SeqCst);
        faults.panics_after.store(after, Ordering::SeqCst);
        let case = format!("{before} panics before a put, {after} after a put");
        let promise = send(&ingest, &acme, lines(2..9)).await.unwrap();
        assert_eq!(promise.received, 7, "{case}");
        // A sender that waits for the commit gets either a receipt or the error `Unavailable`, after which it must
        // retry.
        let body = || Body::Encoded(Format::Json, lines(7..12).into());
        loop {
            match submit(&ingest, &acme, TABLE, body()).await {
                Ok(receipt) => break assert_eq!(receipt.accepted + receipt.duplicate, 5, "{case}"),
                Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{case}: {error:?}"),
            }
        }
        while ingest.writer.queued_bytes() > 0 {
            tokio::task::yield_now().await;
        }
        let page = metrics.render();
        let panics = format!("glasshouse_task_panics_total{{task=\"committer\"}} {}", before + after);
        assert!(page.contains(&panics), "{case}: {page}");
        ingest.writer.ready().unwrap();
        ingest.stop().await;
        assert_eq!(stored(&store, TABLE).await.len(), 12, "each event is stored once: {case}");
        assert!(!metrics.render().contains("events_lost_total{"), "{case}");
    }
}

#[tokio::test]
async fn a_committer_that_panics_while_the_server_stops_is_restarted() {
    let (faults, acme) = (Arc::new(Faults::default()), acme().await);
    let store = faulty(&faults);
    let ingest = start(&store, limits()).await;
    faults.panics_before.store(2, Ordering::SeqCst);
    assert_eq!(send(&ingest, &acme, lines(0..5)).await.unwrap().received, 5);
    ingest.stop().await;
    assert_eq!(stored(&store, TABLE).await.len(), 5);
}

#[tokio::test]
async fn a_store_that_hangs_does_not_delay_a_stop_beyond_its_deadline() {
    let (faults, acme, metrics) = (Arc::new(Faults::default()), acme().await, Arc::new(Metrics::default()));
    let store = faulty(&faults);
    let ingest = Ingest::start(open(&store).await, Vec::new(), limits(), Clock::System, metrics.clone()).await.unwrap();
    faults.hangs.store(true, Ordering::SeqCst);
    assert_eq!(send(&ingest, &acme, lines(0..5) + "{\"mos\":1}\n").await.unwrap().received, 5);
    let deadline = tokio::time::Instant::now() + Duration::from_millis(100);
    let error = ingest.stop_by(deadline).await.unwrap_err();
    assert!(error.message().contains("shutdown.time_max"), "{error}");
    let page = metrics.render();
    for (table, events) in [(TABLE, 5), (QUARANTINE, 1)] {
        let line = format!("glasshouse_events_lost_total{{table=\"{table}\"}} {events}");
        assert!(page.contains(&line), "`{line}` is not in {page}");
    }
}
