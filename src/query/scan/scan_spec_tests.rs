//! Tests of scan specs. The same query of the same caller always has the same spec, and different queries or callers
//! have different specs. No spec contains a user expression that could be evaluated on a row of another tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider as _;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::latest_testing;
use super::scan_spec::{RowScope, ScanSpec, ShownRows};
use super::table_provider::SessionTable;
use super::tenant_scan::TenantScan;
use crate::clock::Clock;
use crate::query::testing::{account, engine, policy, reader, reader_under};
use crate::query::{Engine, Session};
use crate::tenancy::Access;

/// Plans a statement, and returns the specs of the scans in the order in which the plan contains them.
async fn scans(engine: &Arc<Engine>, access: &Access, sql: &str) -> Vec<ScanSpec> {
    let session: Session = engine.session(access).unwrap();
    let planned = session.plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let physical = session.physical_for_tests(&planned).await;
    let mut found = Vec::new();
    collect(&physical, &mut found);
    found
}

fn collect(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<ScanSpec>) {
    found.extend(plan.downcast_ref::<TenantScan>().map(|scan| scan.spec().clone()));
    plan.children().into_iter().for_each(|child| collect(child, found));
}

#[tokio::test]
async fn equal_scans_have_equal_specs_and_different_scans_differ() {
    let engine = engine().await;
    let acme = reader("acme").await;
    let north = reader_under("acme", policy(Some(("account", "account")), &[]), account("north")).await;
    let (own, foreign) = (&acme, reader("coda").await);
    let base = "SELECT y FROM calls WHERE event_time >= '2026-01-02T00:00:00Z' AND y = 3";
    let spec = scans(&engine, own, base).await;
    assert_eq!(spec.len(), 1);
    assert_eq!(spec, scans(&engine, own, base).await, "the same statement, planned again");
    assert_eq!(spec, scans(&engine, own, "SELECT max(y) FROM calls WHERE event_time >= '2026-01-02' AND 3 = y").await);
    for (access, sql) in [
        (&foreign, base),
        (&north, base),
        (own, "SELECT y FROM calls WHERE event_time >= '2026-01-03T00:00:00Z' AND y = 3"),
        (own, "SELECT y FROM calls WHERE event_time >= '2026-01-02T00:00:00Z' AND y = 4"),
        (own, "SELECT y, region FROM calls WHERE event_time >= '2026-01-02T00:00:00Z' AND y = 3"),
        (own, "SELECT y FROM calls LIMIT 3"),
    ] {
        assert_ne!(spec, scans(&engine, access, sql).await, "{sql}");
    }
}

#[tokio::test]
async fn spec_lists_columns_filters_and_tenant() {
    let engine = engine().await;
    let north = reader_under("acme", policy(Some(("account", "account")), &[]), account("north")).await;
    let sql = "SELECT region FROM calls WHERE y = 3 AND CAST(secret AS BIGINT) > 1 AND upper(region) = 'EU' LIMIT 2";
    let specs = scans(&engine, &north, sql).await;
    let [spec] = &specs[..] else { panic!("{specs:?}") };
    assert_eq!((&*spec.table, &*spec.name, spec.limit), ("calls", "calls", None));
    assert_eq!(spec.columns, ["region", "y", "secret"]);
    assert_eq!(spec.rows, ShownRows::All);
    assert_eq!(spec.scope.tenant().unwrap().as_str(), "acme");
    let text = |exprs: &[Expr]| exprs.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(&spec.rules), ["account IN ([Utf8(\"north\")])"]);
    assert_eq!(text(&spec.filters), ["y = Int64(3)"], "only the leakproof filter");
    assert_eq!(spec.partitions.len(), 3, "the configured number of partitions");
    let limited = scans(&engine, &north, "SELECT region FROM calls LIMIT 2").await;
    assert_eq!(limited[0].limit, Some(2));
}

#[tokio::test]
async fn operator_reads_the_same_tables_without_row_rules() {
    let tables = latest_testing::lake(latest_testing::by_order(), &[&[latest_testing::change("a", 1, "open")]]).await;
    let engine = latest_testing::engine(&tables);
    let table = &tables["orders"];
    let source = engine.source("orders").unwrap().clone();
    let table_of_latest = SessionTable::of_operator(table, table.snapshot(), source, &Clock::System);
    let all_versions = table_of_latest.all_versions().unwrap();
    assert_eq!(table_of_latest.schema(), all_versions.schema());
    let (latest, history) = (table_of_latest.spec(None, &[], None), all_versions.spec(None, &[], None));
    assert_eq!((&latest.scope, &history.scope), (&RowScope::AllTenants, &RowScope::AllTenants));
    let (key, by, deleted) = (vec!["order_id".to_owned()], "position".to_owned(), Some("deleted".to_owned()));
    assert_eq!(latest.rows, ShownRows::LatestVersions { key, by, deleted });
    assert_eq!((history.rows, &*history.table, &*history.name), (ShownRows::All, "orders", "orders_changes"));
    assert_eq!(latest.partitions, history.partitions);
    let own = scans(&engine, &latest_testing::reader("acme").await, "SELECT * FROM orders").await;
    assert_eq!((&own[0].rows, &own[0].partitions), (&latest.rows, &latest.partitions));
    let names: BTreeMap<_, _> = own[0].columns.iter().map(|name| (name, ())).collect();
    assert_eq!(names.len(), own[0].columns.len());
}

#[tokio::test]
async fn only_key_filters_are_applied_before_the_latest_versions() {
    let tables = latest_testing::lake(latest_testing::by_order(), &[&[latest_testing::change("a", 1, "open")]]).await;
    let engine = latest_testing::engine(&tables);
    let acme = latest_testing::reader("acme").await;
    let filter = "order_id = 'a' AND state = 'open' AND changed > '2026-01-01T00:00:00Z'";
    for (table, filters) in [("orders", 1), ("orders_changes", 3)] {
        let specs = scans(&engine, &acme, &format!("SELECT state FROM {table} WHERE {filter}")).await;
        assert_eq!(specs[0].filters.len(), filters, "{table}: {:?}", specs[0].filters);
        assert_eq!(
            specs[0].times == super::file_pruning::ScanRange::ALL,
            table == "orders",
            "{table}: {:?}",
            specs[0].times
        );
    }
}
