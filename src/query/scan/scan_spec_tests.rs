//! Scans as values: the same query gives the same spec, another caller or query gives another one, and no spec holds a
//! user expression that could be evaluated on a row of another tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider as _;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::newest_testing;
use super::scan_spec::{RowScope, ScanSpec, ShownRows};
use super::tenant_scan::TenantScan;
use super::tenant_table::SessionTable;
use crate::query::testing::{account, engine, policy, reader, reader_under};
use crate::query::{Engine, Session};
use crate::tenancy::Access;

/// The scans of a statement, in plan order.
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
async fn equal_scans_have_equal_specs_and_others_differ() {
    let engine = engine().await;
    let acme = reader("acme").await;
    let north = reader_under("acme", policy(Some(("account", "account")), &[]), account("north")).await;
    let (own, foreign) = (&acme, reader("coda").await);
    let base = "SELECT y FROM calls WHERE event_time >= '2026-01-02T00:00:00Z' AND y = 3";
    let spec = scans(&engine, own, base).await;
    assert_eq!(spec.len(), 1);
    assert_eq!(spec, scans(&engine, own, base).await, "made twice");
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
async fn a_spec_names_columns_files_and_tenant() {
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
    assert_eq!(text(&spec.filters), ["y = Int64(3)"], "only infallible expressions without effects");
    assert_eq!(spec.partitions.len(), 3, "as many as configured");
    let limited = scans(&engine, &north, "SELECT region FROM calls LIMIT 2").await;
    assert_eq!(limited[0].limit, Some(2));
}

#[tokio::test]
async fn the_operator_reads_the_same_tables_without_rules() {
    let tables = newest_testing::lake(newest_testing::by_order(), &[&[newest_testing::change("a", 1, "open")]]).await;
    let engine = newest_testing::engine(&tables);
    let table = &tables["orders"];
    let source = engine.source("orders").unwrap().clone();
    let all = SessionTable::of_operator(table, table.snapshot(), source);
    let changes = all.changes().unwrap();
    assert_eq!(all.schema(), changes.schema());
    let (newest, history) = (all.spec(None, &[], None), changes.spec(None, &[], None));
    assert_eq!((&newest.scope, &history.scope), (&RowScope::AllTenants, &RowScope::AllTenants));
    let by = ("order_id".to_owned(), "position".to_owned(), Some("deleted".to_owned()));
    assert_eq!(newest.rows, ShownRows::Newest { key: vec![by.0], by: by.1, deleted: by.2 });
    assert_eq!((history.rows, &*history.table, &*history.name), (ShownRows::All, "orders", "orders_changes"));
    assert_eq!(newest.partitions, history.partitions);
    let own = scans(&engine, &newest_testing::reader("acme").await, "SELECT * FROM orders").await;
    assert_eq!((&own[0].rows, &own[0].partitions), (&newest.rows, &newest.partitions));
    let names: BTreeMap<_, _> = own[0].columns.iter().map(|name| (name, ())).collect();
    assert_eq!(names.len(), own[0].columns.len());
}

#[tokio::test]
async fn only_key_filters_are_pushed_below_the_newest_versions() {
    let tables = newest_testing::lake(newest_testing::by_order(), &[&[newest_testing::change("a", 1, "open")]]).await;
    let engine = newest_testing::engine(&tables);
    let acme = newest_testing::reader("acme").await;
    let filter = "order_id = 'a' AND state = 'open' AND changed > '2026-01-01T00:00:00Z'";
    for (table, filters) in [("orders", 1), ("orders_changes", 3)] {
        let specs = scans(&engine, &acme, &format!("SELECT state FROM {table} WHERE {filter}")).await;
        assert_eq!(specs[0].filters.len(), filters, "{table}: {:?}", specs[0].filters);
        assert_eq!(specs[0].times == super::prune::ScanRange::ALL, table == "orders", "{table}: {:?}", specs[0].times);
    }
}
