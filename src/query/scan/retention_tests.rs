//! Tests that queries return no expired rows, and that cached plans do not outlive midnight.

use crate::clock::{Clock, DAY};
use crate::query::operator_query::OperatorQuery;
use crate::query::testing::{NEW_YEAR, ask, engine_with_retention, reader, text};

const COUNT: &str = "SELECT count(*) FROM calls";

#[tokio::test]
async fn expired_rows_are_invisible() {
    // The tenants have a row every five hours. On January 11, the rows of `acme` are kept from January 8 on, and those
    // of `coda` from January 6 on.
    let clock = Clock::fixed(NEW_YEAR + 10 * DAY + DAY / 2);
    let engine = engine_with_retention(5, &[("acme", 3)], clock).await;
    let (acme, coda, none) = (reader("acme").await, reader("coda").await, reader("bzzz").await);
    for (access, sql, expected) in [
        (&acme, COUNT, "6"),
        (&coda, COUNT, "37"),
        (&none, COUNT, "0"),
        (&acme, "SELECT min(event_id) FROM calls", "acme-0034"),
        (&coda, "SELECT min(event_id) FROM calls", "coda-0024"),
        (&acme, "SELECT min(event_date) FROM calls", "2026-01-08"),
        (&acme, "SELECT count(*) FROM calls WHERE event_id = 'acme-0033'", "0"),
        (&acme, "SELECT count(*) FROM calls WHERE event_id = 'acme-0034'", "1"),
        (&acme, "SELECT count(*) FROM calls WHERE event_time < '2026-01-08'", "0"),
        (&acme, "SELECT count(*) FROM calls WHERE event_date = '2026-01-07' OR received_time < '2026-01-08'", "0"),
        (&acme, "SELECT count(*) FROM calls a JOIN calls b USING (event_id)", "6"),
        (&acme, "SELECT count(*) FROM (SELECT * FROM calls LIMIT 100) AS some", "6"),
        (&acme, "SELECT count(*) FROM calls WHERE y IN (SELECT y FROM calls WHERE event_time < '2026-01-08')", "0"),
        (&acme, "SELECT newest_event_time FROM freshness('calls')", "2026-01-09T03:00:00Z"),
        (&none, "SELECT newest_event_time FROM freshness('calls')", "NULL"),
        (&none, "SELECT newest_received_time FROM freshness('calls')", "NULL"),
    ] {
        assert_eq!(ask(&engine, access, sql).await.unwrap(), [[expected]], "{sql}");
    }
    let all = OperatorQuery::new(engine, 1_000, 64 << 20);
    let by_tenant = all.run("SELECT tenant, count(*) FROM calls GROUP BY tenant ORDER BY tenant").await.unwrap();
    assert_eq!(text(&by_tenant), [["acme", "6"], ["coda", "37"]]);
}

#[tokio::test]
async fn a_retention_of_one_tenant_does_not_apply_to_others() {
    let clock = Clock::fixed(NEW_YEAR + 10 * DAY);
    let engine = engine_with_retention(0, &[("acme", 3), ("bzzz", 1)], clock).await;
    for (tenant, count) in [("acme", "6"), ("coda", "61"), ("bzzz", "0")] {
        assert_eq!(ask(&engine, &reader(tenant).await, COUNT).await.unwrap(), [[count]], "{tenant}");
    }
    let all = OperatorQuery::new(engine, 1_000, 64 << 20);
    assert_eq!(text(&all.run(COUNT).await.unwrap()), [["67"]]);
}

#[tokio::test]
async fn a_cached_plan_is_not_used_after_midnight() {
    let clock = Clock::fixed(NEW_YEAR + 10 * DAY);
    let engine = engine_with_retention(5, &[], clock.clone()).await;
    let coda = reader("coda").await;
    for (now, count) in [
        (10 * DAY, "37"),
        (10 * DAY + DAY - 1, "37"),
        (11 * DAY, "32"),
        (12 * DAY, "27"),
        (12 * DAY + 1, "27"),
        (17 * DAY, "3"),
        (18 * DAY, "0"),
    ] {
        clock.set(NEW_YEAR + now);
        for _ in 0..2 {
            assert_eq!(ask(&engine, &coda, COUNT).await.unwrap(), [[count]], "{now}");
        }
    }
}
