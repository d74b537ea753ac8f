//! Tests of the query threads: queries run only on these threads, and end when their caller drops them. If a client
//! stops reading, the memory of its query is freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use arrow::datatypes::Schema;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt as _, stream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::query_runtime::QueryRuntime;
use super::result_stream::{self, QueryDeadline};
use crate::config::QueryConfig;
use crate::error::{Error, Kind, Result};
use crate::query::OperatorQuery;
use crate::query::testing::{ask, config, engine, engine_with, idle, reader, text};
use crate::tenancy::Access;

/// A timeout that is reached only if a query hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn work_runs_on_threads_of_lower_priority() {
    let runtime = QueryRuntime::start(2).unwrap();
    let thread = runtime.run(async { Ok((std::thread::current().name().map(str::to_owned), nice())) }).await.unwrap();
    assert_eq!(thread, (Some("query".to_owned()), nice().map(|own| (own + 5).min(19))));
    let blocking = runtime.run(async {
        let nice = tokio::task::spawn_blocking(nice).await;
        nice.map_err(|error| Error::internal("no blocking thread").with_source(error))
    });
    assert_eq!(
        blocking.await.unwrap(),
        nice().map(|own| (own + 5).min(19)),
        "threads for blocking work also have the lower priority"
    );
}

/// Returns the nice value of the calling thread, or `None` if the operating system does not report it.
fn nice() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    // In this file, the second field is the thread name in parentheses, which may contain spaces. Field 19 is the nice
    // value.
    stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok()
}

#[tokio::test]
async fn dropped_work_ends_and_a_panic_is_an_error() {
    let runtime = QueryRuntime::start(1).unwrap();
    let (guard, dropped) = oneshot::channel::<()>();
    let endless = runtime.run(async move {
        let _guard = guard;
        std::future::pending::<Result<()>>().await
    });
    assert!(timeout(Duration::from_millis(1), endless).await.is_err());
    assert!(timeout(TIMEOUT, dropped).await.unwrap().is_err(), "the work was dropped");
    let panicked = runtime.run(async { panic!("a bug") as Result<()> }).await.unwrap_err();
    assert_eq!(panicked.kind(), Kind::Internal);
    assert_eq!(runtime.run(async { Ok(1) }).await.unwrap(), 1, "the thread continues after a panic");
}

#[tokio::test]
async fn stop_does_not_wait_for_busy_threads() {
    let runtime = QueryRuntime::start(1).unwrap();
    let (started, start) = oneshot::channel();
    let may_end = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&may_end);
    let work = runtime.spawn(async move {
        let _ = started.send(());
        while !flag.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    });
    start.await.unwrap();
    runtime.stop();
    assert_eq!(runtime.run(async { Ok(()) }).await.unwrap_err().kind(), Kind::Unavailable);
    may_end.store(true, Ordering::Relaxed);
    drop(work);
}

#[tokio::test]
async fn operator_queries_are_checked_and_rewritten_like_those_of_tenants() {
    let operator = OperatorQuery::new(engine_with(config()).await, 10, 1 << 20);
    let error = operator.run("SELECT y FROM calls TABLESAMPLE BERNOULLI (10)").await.unwrap_err();
    assert!(error.message().starts_with("TABLESAMPLE is not supported"), "{error:?}");
    let joined = "SELECT k FROM (VALUES (1)) a(k) FULL JOIN (VALUES (2)) b(k) USING (k) ORDER BY k";
    assert_eq!(text(&operator.run(joined).await.unwrap()), [["1"], ["2"]]);
}

#[tokio::test]
async fn queries_fail_with_unavailable_after_a_stop() {
    let engine = engine().await;
    let acme = reader("acme").await;
    let session = engine.session(&acme).unwrap();
    let planned = session.plan("SELECT value FROM range(0, 1000000000000)").await.unwrap();
    let mut result = session.run(&planned, None).await.unwrap();
    assert!(result.batches.next().await.unwrap().is_ok());
    engine.stop();
    let last = loop {
        match timeout(TIMEOUT, result.batches.next()).await.unwrap() {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert_eq!(last.unwrap().unwrap_err().kind(), Kind::Unavailable);
    assert!(result.batches.next().await.is_none());
    assert_eq!(ask(&engine, &acme, "SELECT 2").await.unwrap_err().kind(), Kind::Unavailable);
    let operator = OperatorQuery::new(Arc::clone(&engine), 10, 1 << 20);
    assert_eq!(operator.run("SELECT 1").await.unwrap_err().kind(), Kind::Unavailable);
    timeout(TIMEOUT, idle(&engine)).await.unwrap();
}

#[tokio::test]
async fn slot_of_a_stalled_reader_is_freed_at_the_deadline() {
    let limits =
        QueryConfig { tenant_queries_max: 1, tenant_queue_max: 0, time_max: Duration::from_secs(3), ..config() };
    let engine = engine_with(limits).await;
    let acme = reader("acme").await;
    let session = engine.session(&acme).unwrap();
    let planned = session.plan("SELECT value FROM range(0, 1000000000000)").await.unwrap();
    let mut result = session.run(&planned, None).await.unwrap();
    timeout(TIMEOUT, idle(&engine)).await.expect("the slot is freed although the client has read nothing");
    assert_eq!(ask(&engine, &acme, "SELECT 1").await.unwrap(), [["1"]]);
    let mut batches = 0;
    let end = loop {
        match result.batches.next().await {
            Some(Ok(_)) => batches += 1,
            other => break other,
        }
    };
    assert_eq!(batches, 2, "the client still gets the batches that were computed ahead");
    let error = end.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Limited);
    assert!(error.message().contains("query.time_max"), "{error:?}");
}

#[tokio::test]
async fn a_tenant_can_plan_on_half_of_the_threads() {
    let limits = QueryConfig { threads: 4, tenant_queue_wait_max: Duration::from_millis(1), ..config() };
    let engine = engine_with(limits).await;
    let (acme, coda) = (reader("acme").await, reader("coda").await);
    let mut slots = Vec::new();
    for _ in 0..2 {
        slots.push(engine.planning.take(acme.tenant().unwrap()).await.unwrap());
    }
    let error = ask(&engine, &acme, "SELECT 1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limited);
    assert!(error.message().starts_with("too many statements of this tenant are being planned"), "{error:?}");
    assert_eq!(ask(&engine, &coda, "SELECT 2").await.unwrap(), [["2"]], "other tenants are not affected");
    slots.pop();
    assert_eq!(ask(&engine, &acme, "SELECT 3").await.unwrap(), [["3"]]);
}

#[tokio::test]
async fn a_reader_does_not_wait_for_a_plan_that_does_not_yield() {
    let engine = engine().await;
    let acme = reader("acme").await;
    let limits = QueryConfig { time_max: Duration::from_secs(1), ..config() };
    let slot = engine.slots.take(acme.tenant().unwrap()).await.unwrap();
    let ticket = engine.running.add(&acme, slot, engine.metrics.query()).unwrap();
    let schema = Arc::new(Schema::empty());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let blocking = stream::poll_fn(move |_| {
        // Blocks the thread until the test drops the sender.
        let _ = released.recv();
        Poll::Ready(None)
    });
    let batches = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), blocking));
    let deadline = QueryDeadline::new(Instant::now(), i64::MAX, &limits);
    let mut result = result_stream::start(engine.runtimes.of(None).unwrap(), batches, schema, deadline, ticket, limits);
    let end = timeout(TIMEOUT, result.batches.next()).await.expect("the reader stops waiting").unwrap();
    let error = end.unwrap_err();
    assert_eq!(error.kind(), Kind::Limited);
    assert!(error.message().contains("query.time_max"), "{error:?}");
    assert!(result.batches.next().await.is_none());
    assert_eq!(engine.running(), 1, "the plan keeps its slot until it yields");
    drop(release);
    timeout(TIMEOUT, idle(&engine)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_do_not_yield_end_at_the_deadline_and_delay_no_other_tenant() {
    let limits = QueryConfig { threads: 1, time_max: Duration::from_secs(2), ..config() };
    let engine = engine_with(limits).await;
    let (acme, coda) = (reader("acme").await, reader("coda").await);
    let pairs = "generate_series(1, 200000) AS a(x) JOIN generate_series(1, 200000) AS b(y)";
    let statements = [
        format!("SELECT count(*) FROM {pairs} ON a.x > b.y + 7"),
        format!("SELECT count(*) FROM {pairs} ON a.x % 7 = 8 + b.y % 2 AND a.x > b.y"),
        format!("SELECT count(*) FROM {pairs} ON a.x % 2 = b.y % 2 WHERE a.x + b.y < 0"),
        "SELECT max(a.x + b.x) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(x)"
            .to_owned(),
    ];
    let mut hostile = tokio::task::JoinSet::new();
    for sql in statements {
        let (engine, acme) = (Arc::clone(&engine), acme.clone());
        hostile.spawn(async move { (ask(&engine, &acme, &sql).await, sql) });
    }
    while !hostile.is_empty() {
        // Each of these queries has the same time limit.
        assert_eq!(ask(&engine, &coda, "SELECT 1").await.unwrap(), [["1"]]);
        while let Some(ended) = hostile.try_join_next() {
            let (outcome, sql) = ended.unwrap();
            let error = outcome.expect_err(&sql);
            assert!(error.message().contains("query.time_max"), "{sql}: {error:?}");
        }
    }
    timeout(TIMEOUT, idle(&engine)).await.expect("all plans have ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_queries_of_a_revoked_token_end() {
    let limits = QueryConfig { tenant_queries_max: 3, ..config() };
    let engine = engine_with(limits).await;
    let (acme, coda) = (reader("acme").await, reader("coda").await);
    let endless = "SELECT value FROM range(0, 1000000000000)";
    let start = async |access: &Access| {
        let session = engine.session(access).unwrap();
        let planned = session.plan(endless).await.unwrap();
        session.run(&planned, None).await.unwrap()
    };
    let (mut read, mut unread, mut other) = (start(&acme).await, start(&acme).await, start(&coda).await);
    assert!(read.batches.next().await.unwrap().is_ok() && other.batches.next().await.unwrap().is_ok());
    // This join does not yield.
    let pairs = "generate_series(1, 200000) AS a(x) JOIN generate_series(1, 200000) AS b(y)";
    let mut joining = tokio::task::JoinSet::new();
    joining.spawn({
        let (engine, acme) = (Arc::clone(&engine), acme.clone());
        async move { ask(&engine, &acme, &format!("SELECT count(*) FROM {pairs} ON a.x > b.y + 7")).await }
    });
    while engine.running() < 4 {
        tokio::task::yield_now().await;
    }

    acme.revoke();
    engine.cancel_revoked();
    let is_revoked = |error: &Error| error.kind() == Kind::Unauthenticated && error.message().contains("revoked");
    for stream in [&mut read, &mut unread] {
        let end = loop {
            match timeout(TIMEOUT, stream.batches.next()).await.unwrap() {
                Some(Ok(_)) => {}
                other => break other.unwrap().unwrap_err(),
            }
        };
        assert!(is_revoked(&end), "{end:?}");
        assert!(stream.batches.next().await.is_none());
    }
    let error = timeout(TIMEOUT, joining.join_next()).await.unwrap().unwrap().unwrap().unwrap_err();
    assert!(is_revoked(&error), "{error:?}");
    assert!(is_revoked(&engine.session(&acme).unwrap_err()));
    while engine.running() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(other.batches.next().await.unwrap().is_ok(), "the query of another tenant continues");
}
