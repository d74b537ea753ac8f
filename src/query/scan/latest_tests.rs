//! Tests of tables that contain the latest version of each key. Results must be correct for any order of arrival. No
//! query may reveal an older version, or the rows of another tenant or sub-account.

use std::collections::BTreeSet;

use super::latest_testing::*;
use crate::config::{PolicyConfig, QueryConfig};
use crate::error::Kind;
use crate::query::planning::plan_cache::PlanKey;
use crate::query::testing::{ask, config, run};

/// Returns changes for two tenants with the same keys. The changes include ties, nulls, deletes, and versions on
/// several days.
fn history() -> Vec<Change> {
    let of = |tenant: &'static str, changes: Vec<Change>| {
        changes.into_iter().map(move |change| Change { tenant, id: format!("{tenant}-{}", change.id), ..change })
    };
    let null = |change: Change| Change { position: None, ..change };
    let later = |change: Change| Change { received: 90, id: format!("{}-later", change.id), ..change };
    let acme = vec![
        old("moves", 1),
        old("moves", 2),
        change("moves", 3, "paid"),
        // The latest version has an earlier event time than the superseded version, so it is in the file of an earlier
        // day.
        Change { day: 0, ..change("early", 9, "sent") },
        Change { day: 40, ..old("early", 8) },
        // If two versions have the same position, the one that was received last is the latest. If they were received
        // at the same time, it is the one with the greatest id.
        old("ties", 5),
        later(change("ties", 5, "held")),
        Change { id: "id-a".to_owned(), ..old("ids", 5) },
        Change { id: "id-b".to_owned(), ..change("ids", 5, "kept") },
        // A null position is smaller than any other position.
        null(Change { received: 99, ..old("null", 2) }),
        change("null", -4, "open"),
        null(old("nulls", 3)),
        null(change("nulls", 4, "lost")),
        old("gone", 1),
        Change { deleted: Some(true), ..old("gone", 2) },
        Change { deleted: Some(true), ..old("back", 1) },
        Change { deleted: Some(false), ..change("back", 2, "open") },
        Change { line: 2, ..old("lines", 1) },
        Change { line: 1, ..change("lines", 2, "open") },
        Change { order: None, ..old("", 1) },
        Change { order: None, ..change("", 2, "none") },
        Change { order: Some(""), ..change("empty", 1, "empty") },
    ];
    let coda = vec![
        change("moves", 2, "coda"),
        old("moves", 1),
        Change { deleted: Some(true), ..old("early", 99) },
        change("gone", 1, "coda"),
        Change { position: Some(1_000), day: 50, ..change("null", 7, "coda") },
    ];
    of("acme", acme).chain(of("coda", coda)).collect()
}

/// Returns the changes in a random order that depends on the seed.
fn shuffled(changes: &[Change], seed: u64) -> Vec<Change> {
    let mut changes = changes.to_vec();
    let mut state = seed;
    for last in (1..changes.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        changes.swap(last, usize::try_from(state >> 33).unwrap() % (last + 1));
    }
    changes
}

/// Returns the sorted ids of a tenant's changes, formatted as query results.
fn ids(changes: &[Change], tenant: &str) -> Vec<Vec<String>> {
    let own: BTreeSet<&str> =
        changes.iter().filter(|change| change.tenant == tenant).map(|change| change.id.as_str()).collect();
    own.into_iter().map(|id| vec![id.to_owned()]).collect()
}

fn by_order_key(change: &Change) -> String {
    format!("{:?}", change.order)
}

#[tokio::test]
async fn latest_versions_do_not_depend_on_arrival_order() {
    let history = history();
    let latest_versions = latest_of(&history, by_order_key, true);
    let limits = [
        QueryConfig { partitions: 1, ..config() },
        QueryConfig { partitions: 3, batch_rows: 2, ..config() },
        QueryConfig { partitions: 4, ..config() },
    ];
    for seed in 0..6 {
        let changes = shuffled(&history, seed);
        let commit_size = [1, 4, changes.len()][usize::try_from(seed % 3).unwrap()];
        let commits: Vec<&[Change]> = changes.chunks(commit_size).collect();
        let tables = lake(by_order(), &commits).await;
        for limits in &limits {
            for tenant in ["acme", "coda"] {
                let (engine, access) = (engine_with(&tables, limits.clone()), reader(tenant).await);
                let session = engine.session(&access).unwrap();
                let shown = run(&session, "SELECT event_id FROM orders ORDER BY 1").await.unwrap();
                assert_eq!(
                    shown,
                    ids(&latest_versions, tenant),
                    "{tenant}, seed {seed}, {commit_size} per commit, {limits:?}"
                );
                let count = run(&session, "SELECT count(*) FROM orders").await.unwrap();
                assert_eq!(count, [[shown.len().to_string()]], "{tenant}, seed {seed}, {commit_size} per commit");
            }
        }
    }
}

#[tokio::test]
async fn keys_and_order_columns_of_every_type_work() {
    let history = shuffled(&history(), 5);
    let by_line: fn(&Change) -> String = |change| change.line.to_string();
    let by_both: fn(&Change) -> String = |change| format!("{:?} {}", change.order, change.line);
    let by_day: fn(&Change) -> String = |change| format!("{:?} {} {}", change.order, change.day, change.received);
    for (key, of) in [
        (&["order_id"][..], by_order_key as fn(&Change) -> String),
        (&["line"], by_line),
        (&["due"], by_line),
        (&["code"], by_line),
        (&["order_id", "line"], by_both),
        (&["code", "order_id"], by_both),
        (&["line", "tenant", "due", "order_id"], by_both),
        (&["order_id", "changed"], by_day),
    ] {
        for by in ["position", "version", "version_time", "version_date", "version_text", "received_time"] {
            let latest_versions = latest_of(&history, of, by != "received_time");
            let engine = engine(&lake(latest(key, by), &[&history[..9], &history[9..]]).await);
            for tenant in ["acme", "coda"] {
                let shown =
                    ask(&engine, &reader(tenant).await, "SELECT event_id FROM orders ORDER BY 1").await.unwrap();
                assert_eq!(shown, ids(&latest_versions, tenant), "{tenant}: {key:?} by {by}");
            }
        }
    }
}

/// Statements that `acme` runs, with the expected rows. Each statement would return wrong rows if filters, limits or
/// statistics were applied before the latest versions are selected. Some statements would also fail if an expression
/// were evaluated on a superseded version.
const STATEMENTS: &[(&str, &[&[&str]])] = &[
    ("SELECT count(*) FROM orders", &[&["10"]]),
    ("SELECT count(1), count(state), count(DISTINCT order_id) FROM orders", &[&["10", "10", "9"]]),
    ("SELECT min(position), max(position), min(changed) FROM orders", &[&["-4", "9", "2025-12-27T23:59:56Z"]]),
    ("SELECT state FROM orders WHERE order_id = 'moves'", &[&["paid"]]),
    ("SELECT state FROM orders WHERE 'moves' = order_id AND position < 3", &[]),
    ("SELECT state FROM orders WHERE order_id IN ('moves', 'ties', 'gone') ORDER BY 1", &[&["held"], &["paid"]]),
    ("SELECT state FROM orders WHERE order_id = 'moves' OR state = 'overtaken'", &[&["paid"]]),
    ("SELECT state FROM orders WHERE order_id IS NULL", &[&["none"]]),
    ("SELECT state FROM orders WHERE order_id = '' OR tenant = 'coda'", &[&["empty"]]),
    ("SELECT state FROM orders WHERE upper(order_id) LIKE 'MOV%'", &[&["paid"]]),
    ("SELECT count(*) FROM orders WHERE order_id > 'm' AND tenant < 'b'", &[&["4"]]),
    ("SELECT count(*) FROM orders WHERE state = 'overtaken'", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE state <> 'paid'", &[&["9"]]),
    ("SELECT count(*) FROM orders WHERE amount = 20", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE position = 2 AND order_id = 'moves'", &[&["0"]]),
    (
        "SELECT state FROM orders WHERE position <= 2 ORDER BY 1",
        &[&["empty"], &["none"], &["open"], &["open"], &["open"]],
    ),
    ("SELECT count(*) FROM orders WHERE position IS NULL", &[&["1"]]),
    ("SELECT count(*) FROM orders WHERE deleted", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE deleted IS NULL OR NOT deleted", &[&["10"]]),
    ("SELECT count(*) FROM orders WHERE event_date = DATE '2026-01-03' AND order_id = 'moves'", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE event_date >= DATE '2026-01-20'", &[&["0"]]),
    ("SELECT state FROM orders WHERE changed < '2026-01-02' AND order_id = 'early'", &[&["sent"]]),
    ("SELECT count(*) FROM orders WHERE changed > '2026-01-20' AND order_id = 'early'", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE CAST(changed AS DATE) = '2026-01-03' AND order_id = 'moves'", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE received_time <= '2026-01-01T00:00:02Z' AND order_id = 'moves'", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE event_id = 'acme-moves-2-overtaken'", &[&["0"]]),
    ("SELECT count(*) FROM (SELECT * FROM orders LIMIT 5)", &[&["5"]]),
    ("SELECT count(*) FROM (SELECT state FROM orders WHERE order_id = 'moves' LIMIT 3)", &[&["1"]]),
    ("SELECT state FROM orders ORDER BY position NULLS FIRST LIMIT 2", &[&["lost"], &["open"]]),
    ("SELECT state FROM orders WHERE order_id = 'moves' ORDER BY position LIMIT 1", &[&["paid"]]),
    ("SELECT DISTINCT tags['state'] FROM orders WHERE order_id LIKE 'n%' ORDER BY 1", &[&["lost"], &["open"]]),
    // These statements fail if their expressions are evaluated on a superseded version, or on a row of another tenant.
    ("SELECT sum(1 / (amount - 20)) FROM orders", &[&["0"]]),
    ("SELECT count(*) FROM orders WHERE 1 / (amount - 20) = 0", &[&["10"]]),
    ("SELECT count(*) FROM orders WHERE order_id = 'moves' AND 1 / (amount - 20) = 0", &[&["1"]]),
    ("SELECT count(*) FROM orders WHERE amount = 20 AND 1 / (amount - 20) = 0", &[&["0"]]),
    ("SELECT sum(CAST(note AS BIGINT)) FROM orders", &[&["120"]]),
    ("SELECT count(*) FROM orders WHERE CAST(note AS BIGINT) = 12 OR order_id = 'moves'", &[&["10"]]),
    ("SELECT max(CAST(note AS BIGINT)) FROM orders GROUP BY state HAVING state = 'overtaken'", &[]),
    ("SELECT count(*) FROM orders WHERE note LIKE 'ze%' OR note ~ '^z'", &[&["0"]]),
    ("SELECT CASE WHEN amount = 20 THEN 1 / (amount - 20) ELSE 1 END FROM orders GROUP BY 1", &[&["1"]]),
    // These statements have two scans. In most of them, one scan reads all versions.
    ("SELECT a.state, b.state FROM orders a JOIN orders b ON a.order_id = b.order_id AND b.position < a.position", &[]),
    (
        "SELECT o.state, count(*) FROM orders o JOIN orders_changes c USING (order_id) WHERE o.order_id = 'moves' GROUP BY 1",
        &[&["paid", "3"]],
    ),
    (
        "SELECT count(*) FROM orders_changes c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.event_id = c.event_id)",
        &[&["12"]],
    ),
    (
        "SELECT count(*) FROM orders WHERE order_id IN (SELECT order_id FROM orders_changes WHERE amount = 20)",
        &[&["8"]],
    ),
    (
        "SELECT (SELECT max(amount) FROM orders o WHERE o.order_id = c.order_id) FROM orders_changes c WHERE order_id = 'gone' LIMIT 1",
        &[&["NULL"]],
    ),
    (
        "WITH RECURSIVE walk AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM walk, (SELECT min(amount) AS a FROM orders) WHERE n < a) SELECT max(n) FROM walk",
        &[&["7"]],
    ),
    (
        "SELECT state FROM orders WHERE order_id = 'moves' UNION ALL SELECT state FROM orders WHERE position = 2 AND order_id = 'moves'",
        &[&["paid"]],
    ),
    // The table `orders_changes` contains all versions of `acme`'s orders, and no rows of other tenants.
    ("SELECT count(*) FROM orders_changes", &[&["22"]]),
    ("SELECT count(*) FROM orders_changes WHERE tenant <> 'acme' OR state = 'coda'", &[&["0"]]),
    (
        "SELECT state FROM orders_changes WHERE order_id = 'moves' ORDER BY position",
        &[&["overtaken"], &["overtaken"], &["paid"]],
    ),
    ("SELECT count(*) FROM orders_changes WHERE deleted", &[&["2"]]),
    ("SELECT position FROM orders_changes WHERE event_date = DATE '2026-01-03' AND order_id = 'moves'", &[&["2"]]),
    ("SELECT count(*) FROM orders_changes WHERE position > 900", &[&["0"]]),
];

#[tokio::test]
async fn no_statement_returns_a_superseded_version() {
    let history = shuffled(&history(), 3);
    for commits in [vec![&history[..]], history.chunks(3).collect()] {
        let engine = engine(&lake(by_order(), &commits).await);
        let access = reader("acme").await;
        for (sql, expected) in STATEMENTS {
            let found = ask(&engine, &access, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(found, *expected, "{sql}");
        }
        assert_eq!(engine.running(), 0);
        let coda = reader("coda").await;
        for (sql, count) in [("orders", "3"), ("orders_changes", "5"), ("orders WHERE order_id = 'early'", "0")] {
            assert_eq!(ask(&engine, &coda, &format!("SELECT count(*) FROM {sql}")).await.unwrap(), [[count]], "{sql}");
        }
        let nobody = reader("bodo").await;
        for sql in ["SELECT 1 FROM orders", "SELECT 1 FROM orders_changes", "SELECT 1 / (amount - 20) FROM orders"] {
            assert_eq!(ask(&engine, &nobody, sql).await.unwrap(), Vec::<Vec<String>>::new(), "{sql}");
        }
    }
}

#[tokio::test]
async fn plans_reveal_nothing_about_superseded_versions() {
    let history = history();
    let engine = engine(&lake(by_order(), &[&history]).await);
    for tenant in ["acme", "bodo"] {
        let access = reader(tenant).await;
        for explain in ["EXPLAIN VERBOSE", "EXPLAIN ANALYZE VERBOSE", "EXPLAIN FORMAT TREE"] {
            for (sql, _) in STATEMENTS.iter().filter(|(sql, _)| !sql.contains("orders_changes")) {
                let sql = format!("{explain} {sql}");
                let plan = ask(&engine, &access, &sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                let plan = plan.concat().join("\n");
                assert!(plan.contains("versions=latest") || plan.contains("versions: latest"), "{sql}\n{plan}");
                for hidden in ["LatestVersionsExec", "parquet", "file_groups"] {
                    assert!(!plan.contains(hidden), "{sql}: {hidden}\n{plan}");
                }
            }
        }
    }
    let access = reader("acme").await;
    let plan = |sql: &'static str| ask(&engine, &access, sql);
    let analyzed =
        plan("EXPLAIN ANALYZE SELECT count(*) FROM orders WHERE state <> 'x'").await.unwrap().concat().join("\n");
    let scan = analyzed.lines().find(|line| line.contains("TenantScan")).unwrap();
    assert!(scan.contains("output_rows=10"), "{scan}");
    let shown =
        plan("EXPLAIN SELECT state FROM orders WHERE order_id = 'x' AND amount = 1").await.unwrap().concat().join("\n");
    assert!(shown.contains("TenantScan: table=orders, versions=latest, columns=[order_id, state, amount]"), "{shown}");
    assert!(
        shown.contains("partial_filters=[orders.order_id = Utf8(\"x\")]"),
        "only the filter on the key is pushed down: {shown}"
    );
    let all = plan("EXPLAIN SELECT state FROM orders_changes").await.unwrap().concat().join("\n");
    assert!(all.contains("TenantScan: table=orders_changes, columns=[state]"), "{all}");
}

#[tokio::test]
async fn row_rules_are_applied_to_the_latest_version() {
    let south = |change: Change| Change { account: "south", ..change };
    let changes = [
        change("stays", 1, "open"),
        change("stays", 2, "paid"),
        change("leaves", 1, "open"),
        south(change("leaves", 2, "paid")),
        south(change("comes", 1, "open")),
        change("comes", 2, "paid"),
        change("gone", 1, "open"),
        south(Change { deleted: Some(true), ..change("gone", 2, "gone") }),
    ];
    let orders = "SELECT order_id, state FROM orders ORDER BY 1";
    let north = [["comes", "paid"], ["stays", "paid"]];
    for seed in 0..6 {
        let changes = shuffled(&changes, seed);
        let commits: Vec<&[Change]> = changes.chunks(3).collect();
        let engine = engine(&lake(by_order(), &commits).await);
        let north_access = reader_under("acme", sub_account_policy("account", &[]), "north").await;
        let south_access = reader_under("acme", sub_account_policy("account", &[]), "south").await;
        assert_eq!(ask(&engine, &north_access, orders).await.unwrap(), north);
        assert_eq!(ask(&engine, &south_access, orders).await.unwrap(), [["leaves", "paid"]]);
        for (sql, count) in [
            ("orders WHERE order_id = 'leaves'", "0"),
            ("orders WHERE order_id = 'leaves' AND state = 'open'", "0"),
            ("orders WHERE account = 'south'", "0"),
            ("orders WHERE account = 'north' AND position = 1", "0"),
            ("orders_changes", "5"),
            ("orders_changes WHERE order_id = 'leaves'", "1"),
            ("orders_changes WHERE account <> 'north'", "0"),
        ] {
            let found = ask(&engine, &north_access, &format!("SELECT count(*) FROM {sql}")).await.unwrap();
            assert_eq!(found, [[count]], "{sql}");
        }
        // Test row rules on a key column and on a column that does not exist, and a row rule whose value is empty.
        for (column, value, count) in [("order_id", "leaves", "1"), ("gone", "x", "0"), ("account", "", "0")] {
            let access = reader_under("acme", sub_account_policy(column, &[]), value).await;
            let found = ask(&engine, &access, "SELECT count(*) FROM orders").await.unwrap();
            assert_eq!(found, [[count]], "{column} = {value}");
        }
        // If the account is part of the key, each sub-account has its own latest versions.
        let apart = lake(latest(&["account", "order_id"], "position"), &commits).await;
        let apart = super::latest_testing::engine(&apart);
        let shown = ask(&apart, &north_access, orders).await.unwrap();
        assert_eq!(shown, [["comes", "paid"], ["gone", "open"], ["leaves", "open"], ["stays", "paid"]]);
    }
}

#[tokio::test]
async fn columns_that_a_policy_hides_still_select_the_latest_version() {
    let history = history();
    let engine = engine(&lake(by_order(), &[&history]).await);
    let policy = PolicyConfig { columns: vec!["state".to_owned(), "amount".to_owned()], ..PolicyConfig::default() };
    let access = reader_under("acme", policy, "").await;
    assert_eq!(ask(&engine, &access, "SELECT count(*), max(amount) FROM orders").await.unwrap(), [["10", "7"]]);
    assert_eq!(ask(&engine, &access, "SELECT * FROM orders WHERE state = 'paid'").await.unwrap(), [["paid", "7"]]);
    assert_eq!(ask(&engine, &access, "SELECT count(*) FROM orders_changes").await.unwrap(), [["22"]]);
    for table in ["orders", "orders_changes"] {
        for hidden in
            ["order_id", "position", "deleted", "received_time", "event_id", "tenant", "changed", "event_date"]
        {
            for sql in [
                format!("SELECT {hidden} FROM {table}"),
                format!("SELECT state FROM {table} WHERE {hidden} IS NOT NULL"),
                format!("SELECT state FROM {table} ORDER BY {hidden}"),
            ] {
                let error = ask(&engine, &access, &sql).await.unwrap_err();
                assert_eq!(error.kind(), Kind::Invalid, "{sql}");
                assert!(error.message().starts_with(&format!("unknown column `{hidden}`")), "{sql}: {error:?}");
            }
        }
        let sql = format!("SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'");
        assert_eq!(ask(&engine, &access, &sql).await.unwrap(), [["state"], ["amount"]]);
        let sql = format!("EXPLAIN ANALYZE VERBOSE SELECT * FROM {table}");
        let plan = ask(&engine, &access, &sql).await.unwrap().concat().join("\n");
        for hidden in ["order_id", "position", "deleted", "received", "event_id"] {
            assert!(!plan.contains(hidden), "{hidden}: {plan}");
        }
    }
}

#[tokio::test]
async fn catalog_lists_both_tables_or_neither() {
    let engine = engine(&lake(by_order(), &[]).await);
    let access = reader("acme").await;
    let listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1";
    assert_eq!(ask(&engine, &access, listed).await.unwrap(), [["orders"], ["orders_changes"]]);
    let tables = engine.session(&access).unwrap().tables();
    let described: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.description.as_str())).collect();
    assert_eq!(described, [("orders", "Orders"), ("orders_changes", "All versions of the rows of `orders`: Orders")]);
    assert_eq!(tables[0].schema, tables[1].schema);
    for sql in ["SELECT * FROM orders", "SELECT * FROM orders_changes"] {
        assert_eq!(ask(&engine, &access, sql).await.unwrap(), Vec::<Vec<String>>::new(), "{sql}: the table is empty");
    }
    let stranger = crate::tenancy::testing::access(Some("acme"), &[crate::tenancy::Scope::Read], &["calls"]).await;
    for table in ["orders", "orders_changes"] {
        let error = ask(&engine, &stranger, &format!("SELECT * FROM {table}")).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, &*format!("unknown table `{table}`")));
    }
}

#[tokio::test]
async fn cached_plan_is_replaced_after_a_commit() {
    let tables = lake(by_order(), &[&[old("a", 1), change("b", 1, "open")]]).await;
    let engine = engine(&tables);
    let access = reader("acme").await;
    let sql = "SELECT state, count(*) FROM orders GROUP BY state ORDER BY 1";
    let states = async || ask(&engine, &access, sql).await.unwrap();
    for _ in 0..3 {
        assert_eq!(states().await, [["open", "1"], ["overtaken", "1"]]);
    }
    let planned = engine.plans.find(PlanKey::of(&access, sql).unwrap()).unwrap();
    let copy = planned.reusable.as_ref().and_then(|reusable| reusable.take());
    assert!(copy.is_some(), "the physical plan is reusable");
    commit(&tables, &[change("a", 2, "paid")]).await;
    assert_eq!(states().await, [["open", "1"], ["paid", "1"]]);
    commit(&tables, &[Change { day: 0, received: 70, ..old("a", 1) }]).await;
    assert_eq!(states().await, [["open", "1"], ["paid", "1"]], "an older version that arrives late changes nothing");
    commit(&tables, &[Change { deleted: Some(true), ..old("b", 2) }]).await;
    assert_eq!(states().await, [["paid", "1"]]);
    let results = futures::future::join_all((0..4).map(|_| states())).await;
    assert!(results.iter().all(|rows| *rows == [["paid", "1"]]), "{results:?}");
}

#[tokio::test]
async fn session_reads_one_snapshot_during_commits() {
    let tables = lake(by_order(), &[&[change("a", 1, "open")]]).await;
    let engine = engine(&tables);
    let session = engine.session(&reader("acme").await).unwrap();
    let sql = "SELECT o.state, c.state FROM orders o, orders_changes c";
    assert_eq!(run(&session, sql).await.unwrap(), [["open", "open"]]);
    commit(&tables, &[change("a", 2, "paid")]).await;
    let other = "SELECT c.state, o.state FROM orders o, orders_changes c";
    assert_eq!(run(&session, other).await.unwrap(), [["open", "open"]], "the session still reads its first snapshot");
}

#[tokio::test]
async fn version_selection_is_subject_to_the_memory_limit() {
    let names: Vec<String> = (0..3_000).map(|number| format!("{number:0>200}")).collect();
    // Leak the strings, because the keys of a change must be `'static`.
    let changes: Vec<Change> = names.into_iter().map(|name| change(name.leak(), 1, "open")).collect();
    let tables = lake(by_order(), &[&changes]).await;
    let small = engine_with(&tables, QueryConfig { memory_bytes_max: 1 << 20, ..config() });
    let access = reader("acme").await;
    let error = ask(&small, &access, "SELECT count(*) FROM orders").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limited, "{error:?}");
    assert!(error.message().contains("query.memory_bytes_max"), "{error:?}");
    assert_eq!(ask(&small, &access, "SELECT count(*) FROM orders_changes").await.unwrap(), [["3000"]]);
    let one = format!("SELECT count(*) FROM orders WHERE order_id = '{:0>200}'", 77);
    assert_eq!(ask(&small, &access, &one).await.unwrap(), [["1"]], "a query for one key needs little memory");
    assert_eq!(ask(&engine(&tables), &access, "SELECT count(*) FROM orders").await.unwrap(), [["3000"]]);
}
