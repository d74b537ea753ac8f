//! Tests of `freshness('table')`. They check the values that each caller sees, and that cached plans do not return
//! outdated values.

use std::sync::Arc;

use crate::clock::{Clock, DAY, Micros, SECOND};
use crate::contract::{Owner, TenantId};
use crate::error::Kind;
use crate::lake::{LagState, PartitionFeed, Tables};
use crate::query::testing::{
    NEW_YEAR, TELLTALES, account, add, ask, config, engine, engine_with_own_tables, policy, reader, reader_under, rows,
    run,
};
use crate::query::{Engine, Session};
use crate::telemetry::Metrics;
use crate::tenancy::Access;

/// The current time in the tests. The newest of the 40 rows of tenant `acme` is one hour older than this time, and
/// consecutive rows are five hours apart.
const NOW: Micros = NEW_YEAR + 196 * 3_600 * SECOND;

/// Creates an engine with its own tables, and a clock that the test can set.
async fn engine_at(now: Micros) -> (Arc<Engine>, Arc<Tables>, Clock) {
    let ((_, tables), clock) = (engine_with_own_tables().await, Clock::fixed(now));
    let engine = Engine::new(Arc::clone(&tables), config(), clock.clone(), Arc::new(Metrics::default())).unwrap();
    (engine, tables, clock)
}

/// Formats a time as query results do.
fn shown(time: Micros) -> String {
    let format = if time % SECOND == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.6fZ" };
    chrono::DateTime::from_timestamp_micros(time).unwrap().format(format).to_string()
}

fn line(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn tenant(name: &str) -> Owner {
    Owner::Tenant(TenantId::parse(name).unwrap())
}

#[tokio::test]
async fn freshness_describes_the_callers_own_rows_anywhere_in_a_statement() {
    let (now, acme, coda) = (shown(NOW), NEW_YEAR + 195 * 3_600 * SECOND, NEW_YEAR + 300 * 3_600 * SECOND);
    // Tenant `coda` has rows whose times are later than `NOW`. Every row of the third tenant is more than two days
    // older than `NOW`.
    let (engine, _, _) = engine_at(NOW).await;
    for (tenant, newest) in [("acme", acme), ("coda", coda)] {
        let access = reader(tenant).await;
        let (event, received) = (shown(newest), shown(newest + SECOND));
        for (sql, expected) in [
            ("SELECT * FROM freshness('calls')", line(&["calls", &now, &now, &event, &received, "NULL"])),
            ("SELECT f.now, newest_event_time FROM freshness('calls') AS f", line(&[&now, &event])),
            ("SELECT complete_until FROM freshness('calls') WHERE source_lag_seconds IS NULL", line(&[&now])),
            ("SELECT count(*) FROM freshness('calls')", line(&["1"])),
            ("SELECT count(*) FROM freshness('calls') a, freshness('calls') b", line(&["1"])),
            ("SELECT newest_received_time FROM (SELECT * FROM freshness('calls') LIMIT 1)", line(&[&received])),
            ("SELECT (SELECT newest_event_time FROM freshness('calls'))", line(&[&event])),
            ("SELECT max(event_time) = (SELECT newest_event_time FROM freshness('calls')) FROM calls", line(&["true"])),
            (
                "WITH RECURSIVE t AS (SELECT 1 AS n, arrow_cast(NULL, 'Timestamp(µs, \"UTC\")') AS e UNION ALL SELECT n + 1, newest_event_time \
                 FROM t, freshness('calls') WHERE n < 3) SELECT max(e), count(e) FROM t",
                line(&[&event, "2"]),
            ),
        ] {
            assert_eq!(
                ask(&engine, &access, sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")),
                [expected],
                "{sql}"
            );
        }
        for explain in ["EXPLAIN VERBOSE", "EXPLAIN ANALYZE VERBOSE"] {
            let plan = ask(&engine, &access, &format!("{explain} SELECT * FROM freshness('calls')")).await.unwrap();
            let plan = plan.concat().join("\n");
            assert!(TELLTALES.iter().all(|telltale| !plan.contains(telltale)), "{plan}");
        }
    }
    let none = ask(&engine, &reader("brrr").await, "SELECT newest_event_time FROM freshness('calls')").await.unwrap();
    assert_eq!(none, [["NULL"]], "a tenant without rows has no newest time");
    let (long_ago, _, _) = engine_at(NOW + 30 * DAY).await;
    let old = ask(&long_ago, &reader("acme").await, "SELECT newest_event_time FROM freshness('calls')").await.unwrap();
    assert_eq!(old, [[shown(acme)]], "without recent rows, all rows are searched");
}

#[tokio::test]
async fn freshness_respects_row_rules_and_columns() {
    let (engine, _, _) = engine_at(NOW).await;
    let sql = "SELECT newest_event_time, newest_received_time FROM freshness('calls')";
    let newest = |account: &str| {
        let own = rows().into_iter().filter(|row| row.tenant == "acme" && row.account == account);
        own.map(|row| row.time).max().unwrap()
    };
    for name in ["north", "south"] {
        let access = reader_under("acme", policy(Some(("account", "account")), &[]), account(name)).await;
        let newest = newest(name);
        assert_eq!(ask(&engine, &access, sql).await.unwrap(), [[shown(newest), shown(newest + SECOND)]], "{name}");
    }
    let acme = NEW_YEAR + 195 * 3_600 * SECOND;
    for (columns, expected) in [
        (&["region"][..], ["NULL".to_owned(), "NULL".to_owned()]),
        (&["event_time", "region"], [shown(acme), "NULL".to_owned()]),
        (&["received_time"], ["NULL".to_owned(), shown(acme + SECOND)]),
    ] {
        let access = reader_under("acme", policy(None, columns), serde_json::json!({})).await;
        assert_eq!(ask(&engine, &access, sql).await.unwrap(), [expected], "{columns:?}");
    }
}

#[tokio::test]
async fn error_explains_an_invalid_argument() {
    let engine = engine().await;
    let acme = reader("acme").await;
    let usage = "freshness takes one table name as a string, as in freshness('call_events')";
    for (argument, kind, text) in [
        ("", Kind::Invalid, usage),
        ("1", Kind::Invalid, usage),
        ("NULL", Kind::Invalid, usage),
        ("'calls', 'calls'", Kind::Invalid, usage),
        ("$1", Kind::Invalid, usage),
        ("?", Kind::Invalid, usage),
        ("(SELECT 'calls')", Kind::Invalid, usage),
        ("calls", Kind::Invalid, ""),
        ("now()", Kind::Invalid, usage),
        ("'call'", Kind::NotFound, "unknown table `call`, did you mean `calls`?"),
        ("'hidden'", Kind::NotFound, "unknown table `hidden`"),
        ("'nowhere'", Kind::NotFound, "unknown table `nowhere`"),
        ("'public.calls'", Kind::NotFound, "unknown table `public.calls`"),
        ("'calls''; SELECT 1 --'", Kind::NotFound, "unknown table `calls'; SELECT 1 --`"),
    ] {
        let error = ask(&engine, &acme, &format!("SELECT * FROM freshness({argument})")).await.expect_err(argument);
        assert_eq!(error.kind(), kind, "{argument}: {error:?}");
        assert!(error.message().starts_with(text), "{argument}: {error:?}");
    }
    let error = ask(&engine, &acme, "SELECT * FROM hidden").await.unwrap_err();
    assert_eq!(error.message(), "unknown table `hidden`", "a query of the table fails with the same error");
}

async fn complete_until(session: &Session) -> String {
    run(session, "SELECT complete_until FROM freshness('calls')").await.unwrap().concat().concat()
}

#[tokio::test]
async fn repeated_statement_returns_the_current_watermark() {
    let (engine, tables, clock) = engine_at(NOW).await;
    let (acme, coda) = (reader("acme").await, reader("coda").await);
    let until = async |access: &Access| complete_until(&engine.session(access).unwrap()).await;
    assert_eq!([until(&acme).await, until(&coda).await], [shown(NOW), shown(NOW)]);
    let (_, in_flight) = tables["calls"].in_flight().enter(&tenant("acme"), &clock);
    clock.set(NOW + SECOND);
    for _ in 0..2 {
        assert_eq!(
            [until(&acme).await, until(&coda).await],
            [shown(NOW), shown(NOW + SECOND)],
            "only the tenant's own events in flight hold back its watermark"
        );
    }
    let before = engine.session(&acme).unwrap();
    assert_eq!(complete_until(&before).await, shown(NOW));
    let mut row = rows().swap_remove(0);
    row.id = "acme-new".to_owned();
    add(&tables, &[row]).await;
    drop(in_flight);
    assert_eq!(until(&acme).await, shown(NOW + SECOND));
    // The session `before` reads a fixed snapshot, so the freshness that it returns does not change.
    let both = "SELECT count(*), (SELECT complete_until FROM freshness('calls')) FROM calls";
    assert_eq!(run(&before, both).await.unwrap(), [["40".to_owned(), shown(NOW)]]);
    assert_eq!(ask(&engine, &acme, both).await.unwrap(), [["41".to_owned(), shown(NOW + SECOND)]]);
}

#[tokio::test]
async fn statements_with_freshness_are_never_cached() {
    let (engine, _, clock) = engine_at(NOW).await;
    let acme = reader("acme").await;
    for (number, sql) in [
        "SELECT now FROM freshness('calls')",
        "SELECT now FROM glasshouse.public.calls, freshness('calls') LIMIT 1",
        "SELECT (SELECT now FROM freshness('calls'))",
        "SELECT f.now FROM freshness('calls') f WHERE EXISTS (SELECT 1 FROM calls WHERE event_time = newest_event_time)",
        "WITH fresh AS (SELECT * FROM freshness('calls')) SELECT now FROM fresh",
        "SELECT now FROM freshness('calls') UNION SELECT now FROM freshness('calls')",
        "SELECT max(now) FROM (SELECT now FROM freshness('calls')) GROUP BY 'a'",
        "SELECT f.now FROM (VALUES (1)) v(n) LEFT JOIN freshness('calls') f ON v.n = 1",
        "SELECT v.now FROM (SELECT * FROM freshness('calls')) v ORDER BY v.now",
    ]
    .into_iter()
    .enumerate()
    {
        for second in 0..3 {
            let now = NOW + (number as Micros * 10 + second) * SECOND;
            clock.set(now);
            let found = ask(&engine, &acme, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(found, [[shown(now)]], "{sql}");
        }
    }
}

#[tokio::test]
async fn source_lag_is_reported() {
    let (engine, tables, _) = engine_at(NOW).await;
    let feed = |source: &str| PartitionFeed { source: source.to_owned(), topic: "calls".into(), partition: 0 };
    let behind = |seconds| LagState::Behind { messages: 12_345, oldest: Some(NOW - seconds * SECOND) };
    let in_flight = tables["calls"].in_flight();
    for (source, owner, state, expected) in [
        ("shared", Owner::PerEvent, behind(3), ["3", "3"]),
        ("own", tenant("acme"), behind(60), ["60", "3"]),
        ("other", tenant("bzzz"), behind(600), ["60", "3"]),
        ("own", tenant("acme"), LagState::Complete(NOW), ["3", "3"]),
        ("shared", Owner::PerEvent, LagState::Unknown, ["NULL", "NULL"]),
    ] {
        in_flight.report_lag(feed(source), &owner, state);
        for (tenant, lag) in ["acme", "coda"].into_iter().zip(expected) {
            let sql = "SELECT source_lag_seconds FROM freshness('calls')";
            assert_eq!(ask(&engine, &reader(tenant).await, sql).await.unwrap(), [[lag]], "{tenant}: {source}");
        }
    }
}
