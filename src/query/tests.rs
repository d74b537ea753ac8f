//! Tests that the results of one tenant's queries do not depend on the rows of other tenants. All three tenants have
//! rows in every file, and two of them run each statement. The result must be the same as if the lake contained only
//! the rows of that tenant.

use tokio::task::JoinSet;

use super::STACK_BYTES_MIN;
use super::testing::{
    COUNTS, FOREIGN_ROWS, NEW_YEAR, Row, TELLTALES, account, ask, engine, policy, reader, reader_under, rows, run,
};
use crate::clock::{DAY, SECOND};
use crate::error::Kind;
use crate::tenancy::{Access, Scope};

type Oracle = fn(&[Row]) -> Vec<Vec<String>>;

fn one(value: impl ToString) -> Vec<Vec<String>> {
    vec![vec![value.to_string()]]
}

fn own(tenant: &str) -> Vec<Row> {
    rows().into_iter().filter(|row| row.tenant == tenant).collect()
}

fn secret(row: &Row) -> i64 {
    row.secret.parse().unwrap()
}

/// The statements to run. If an expression were evaluated on a row of another tenant, most of these statements would
/// fail or reveal data. For each statement, a function computes the expected result from the tenant's own rows.
const STATEMENTS: &[(&str, Oracle)] = &[
    ("SELECT count(*) FROM calls", |own| one(own.len())),
    ("SELECT count(1), count(region) FROM calls", |own| {
        vec![vec![own.len().to_string(), own.iter().filter(|row| row.region.is_some()).count().to_string()]]
    }),
    ("SELECT min(event_id), max(event_id) FROM calls", |own| {
        vec![vec![own[0].id.clone(), own[own.len() - 1].id.clone()]]
    }),
    ("SELECT max(duration) FROM calls", |own| one(format!("{:?}", own[own.len() - 1].duration))),
    ("SELECT DISTINCT tenant FROM calls", |own| one(own[0].tenant)),
    ("SELECT count(*) FROM calls WHERE 1 / (y - 20) < 100", |own| one(own.len())),
    ("SELECT count(*) FROM calls WHERE y = 20 AND 1 / (y - 20) = 0", |_| one(0)),
    ("SELECT count(*) FROM calls WHERE y = 20 OR 1 / (y - 20) = 0", |own| one(own.len())),
    ("SELECT sum(CAST(secret AS BIGINT)) FROM calls", |own| one(own.iter().map(secret).sum::<i64>())),
    ("SELECT count(*) FROM calls WHERE CAST(secret AS BIGINT) >= 100", |own| {
        one(own.iter().filter(|row| secret(row) >= 100).count())
    }),
    ("SELECT CAST(secret AS BIGINT) AS s FROM calls ORDER BY s DESC LIMIT 2", |own| {
        let greatest = secret(&own[own.len() - 1]);
        vec![vec![greatest.to_string()], vec![(greatest - 10).to_string()]]
    }),
    ("SELECT count(*) FROM (SELECT * FROM calls LIMIT 7)", |_| one(7)),
    ("SELECT count(*) FROM (SELECT 1 / (y - 20) FROM calls LIMIT 1000)", |own| one(own.len())),
    ("SELECT max(CASE WHEN y = 20 THEN 1 / (y - 20) ELSE 1 END) FROM calls", |_| one(1)),
    ("SELECT count(*) FROM calls WHERE region = 'mars' AND CAST(secret AS BIGINT) = 1", |_| one(0)),
    ("SELECT count(*) FROM calls a JOIN calls b ON a.event_id = b.event_id AND 1 / (a.y + b.y - 40) < 9", |own| {
        one(own.len())
    }),
    (
        "SELECT count(*) FROM calls a JOIN (SELECT event_id FROM calls ORDER BY event_time LIMIT 3) b USING (event_id)",
        |_| one(3),
    ),
    ("SELECT count(*) FROM calls a JOIN (VALUES ('mars'), ('eu')) v(region) USING (region)", |own| {
        one(own.iter().filter(|row| row.region == Some("eu")).count())
    }),
    ("SELECT count(*) FROM calls a LEFT JOIN calls b ON a.y = 20 AND b.y = 20 WHERE b.y IS NULL", |own| one(own.len())),
    (
        "SELECT (SELECT max(CAST(secret AS BIGINT)) FROM calls b WHERE b.event_id = a.event_id) FROM calls a ORDER BY event_time LIMIT 1",
        |own| one(secret(&own[0])),
    ),
    ("SELECT count(*) FROM calls WHERE y IN (SELECT 1 / (y - 20) FROM calls)", |own| {
        one(own.iter().filter(|row| row.y == 0).count())
    }),
    ("SELECT count(*) FROM calls a WHERE NOT EXISTS (SELECT 1 FROM calls b WHERE b.tenant <> a.tenant)", |own| {
        one(own.len())
    }),
    (
        "SELECT count(*) FROM (SELECT y FROM calls WHERE 1 / (y - 20) = 0 UNION ALL SELECT CAST(secret AS BIGINT) FROM calls)",
        |own| one(2 * own.len()),
    ),
    (
        "SELECT max(n) FROM (SELECT row_number() OVER (PARTITION BY y ORDER BY event_time) AS n FROM calls WHERE y = 0)",
        |own| one(own.iter().filter(|row| row.y == 0).count()),
    ),
    ("SELECT max(n) FROM (SELECT rank() OVER (ORDER BY CAST(secret AS BIGINT)) AS n FROM calls)", |own| one(own.len())),
    ("SELECT region, count(*) FROM calls GROUP BY region ORDER BY region NULLS LAST LIMIT 1", |own| {
        vec![vec!["ap".to_owned(), own.iter().filter(|row| row.region == Some("ap")).count().to_string()]]
    }),
    ("SELECT approx_distinct(account) FROM calls", |_| one(2)),
    (
        "WITH RECURSIVE walk AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM walk, (SELECT min(y) AS y FROM calls) WHERE n < 3) SELECT count(*) FROM walk",
        |_| one(4),
    ),
    (
        "WITH RECURSIVE walk AS (SELECT 1 AS n UNION ALL SELECT w.n + 1 FROM walk w JOIN (SELECT count(*) AS c FROM calls) ON w.n < c) SELECT max(n) FROM walk",
        |own| one(own.len()),
    ),
    ("SELECT count(*) FROM calls WHERE event_date = DATE '2026-01-02'", |own| {
        one(own.iter().filter(|row| (NEW_YEAR + DAY..NEW_YEAR + 2 * DAY).contains(&row.time)).count())
    }),
    (
        "SELECT count(*) FROM calls WHERE event_time >= '2026-01-03T00:00:00Z' AND event_time < '2026-01-03T12:00:00Z'",
        |own| {
            one(own.iter().filter(|row| (NEW_YEAR + 2 * DAY..NEW_YEAR + 2 * DAY + DAY / 2).contains(&row.time)).count())
        },
    ),
    ("SELECT count(*) FROM calls WHERE CAST(event_time AS DATE) = '2026-01-03'", |own| {
        one(own.iter().filter(|row| (NEW_YEAR + 2 * DAY..NEW_YEAR + 3 * DAY).contains(&row.time)).count())
    }),
    ("SELECT count(*) FROM calls WHERE date_trunc('day', event_time) = '2026-01-02T00:00:00Z'", |own| {
        one(own.iter().filter(|row| (NEW_YEAR + DAY..NEW_YEAR + 2 * DAY).contains(&row.time)).count())
    }),
    ("SELECT count(*) FROM calls WHERE received_time <= '2026-01-01T05:00:01Z'", |own| {
        one(own.iter().filter(|row| row.time + SECOND <= NEW_YEAR + 5 * 3_600 * SECOND + SECOND).count())
    }),
    ("SELECT count(*) FROM calls WHERE tags['account'] = 'north'", |own| {
        one(own.iter().filter(|row| row.account == "north").count())
    }),
    ("SELECT count(*) FROM glasshouse.public.calls, public.calls b WHERE b.y = 20", |_| one(0)),
    ("SELECT count(*) FROM calls WHERE tenant = 'bzzz' OR tenant > ''", |own| one(own.len())),
    ("SELECT count(*) FROM calls WHERE secret LIKE 'zeb%' OR secret ~ '^z'", |_| one(0)),
    ("SELECT event_id FROM calls WHERE event_id IN ('bzzz-0001', 'acme-0001', 'coda-0001')", |own| one(&own[1].id)),
];

#[tokio::test]
async fn each_tenant_sees_only_its_own_rows() {
    let engine = engine().await;
    for tenant in ["acme", "coda"] {
        let (access, own) = (reader(tenant).await, own(tenant));
        for (sql, oracle) in STATEMENTS {
            let found = ask(&engine, &access, sql).await.unwrap_or_else(|error| panic!("{tenant}: {sql}: {error:?}"));
            assert_eq!(found, oracle(&own), "{tenant}: {sql}");
        }
    }
    assert_eq!(engine.running(), 0);
}

#[tokio::test]
async fn tenant_without_rows_gets_empty_results() {
    let engine = engine().await;
    for tenant in ["aaaa", "brrr", "zzzz"] {
        let access = reader(tenant).await;
        for sql in ["SELECT * FROM calls", "SELECT tenant FROM calls GROUP BY tenant", "SELECT 1 / (y - 20) FROM calls"]
        {
            assert_eq!(ask(&engine, &access, sql).await.unwrap(), Vec::<Vec<String>>::new(), "{tenant}: {sql}");
        }
        assert_eq!(ask(&engine, &access, "SELECT count(*), max(y) FROM calls").await.unwrap(), [["0", "NULL"]]);
    }
}

#[tokio::test]
async fn plans_reveal_nothing_about_other_tenants() {
    let engine = engine().await;
    for tenant in ["acme", "brrr"] {
        let access = reader(tenant).await;
        for explain in ["EXPLAIN VERBOSE", "EXPLAIN ANALYZE VERBOSE", "EXPLAIN FORMAT TREE", "EXPLAIN FORMAT PGJSON"] {
            for (sql, _) in STATEMENTS {
                let sql = format!("{explain} {sql}");
                let plan = ask(&engine, &access, &sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                let plan: String = plan.concat().join("\n");
                for telltale in TELLTALES.iter().filter(|telltale| !sql.contains(**telltale)) {
                    assert!(!plan.contains(telltale), "{tenant}: {sql}: {telltale}\n{plan}");
                }
                // Search the plan for row counts only as whole words, because a timestamp may contain the same digits.
                let mut words = plan.split(|letter: char| !letter.is_alphanumeric() && letter != '.');
                let counts = COUNTS.map(|count| count.to_string());
                assert!(!words.any(|word| counts.iter().any(|count| count == word)), "{tenant}: {sql}\n{plan}");
            }
        }
    }
}

#[tokio::test]
async fn plan_does_not_depend_on_the_number_of_files() {
    let engine = engine().await;
    let mut plans = Vec::new();
    for tenant in ["acme", "coda", "brrr", "bzzz"] {
        plans.push(
            ask(&engine, &reader(tenant).await, "EXPLAIN SELECT y FROM calls WHERE region = 'eu'").await.unwrap(),
        );
    }
    assert!(plans.windows(2).all(|pair| pair[0] == pair[1]), "{plans:#?}");
    assert!(plans[0].concat().join("\n").contains("TenantScan: table=calls, columns=[region, y]"), "{plans:#?}");
}

#[tokio::test]
async fn metrics_of_a_plan_count_only_own_rows() {
    let engine = engine().await;
    let plan = ask(&engine, &reader("acme").await, "EXPLAIN ANALYZE SELECT count(*) FROM calls").await.unwrap();
    let plan = plan.concat().join("\n");
    let scan = plan.lines().find(|line| line.contains("TenantScan")).unwrap();
    assert!(
        scan.ends_with("metrics=[output_rows=40]"),
        "a time would reveal work on the rows of other tenants: {scan}"
    );
}

#[tokio::test]
async fn row_rules_and_column_lists_narrow_what_a_token_sees() {
    let engine = engine().await;
    let north = reader_under("acme", policy(Some(("account", "account")), &[]), account("north")).await;
    let count = own("acme").iter().filter(|row| row.account == "north").count();
    assert_eq!(
        ask(&engine, &north, "SELECT count(*), min(account), max(account) FROM calls").await.unwrap(),
        [[count.to_string(), "north".to_owned(), "north".to_owned()]]
    );
    assert_eq!(ask(&engine, &north, "SELECT count(*) FROM calls WHERE account = 'south'").await.unwrap(), one(0));

    // The claim is a string. `"3"` is converted to the type of the column `y`. If the claim cannot be converted or the
    // column of the row rule does not exist, no row matches.
    for (column, value, count) in [("y", "3", 6), ("y", "three", 0), ("gone", "north", 0)] {
        let access = reader_under("acme", policy(Some((column, "account")), &[]), account(value)).await;
        assert_eq!(
            ask(&engine, &access, "SELECT count(*) FROM calls").await.unwrap(),
            one(count),
            "{column} = {value}"
        );
    }

    let narrow = reader_under("acme", policy(None, &["event_id", "y"]), serde_json::json!({})).await;
    assert_eq!(
        ask(&engine, &narrow, "SELECT * FROM calls ORDER BY event_id LIMIT 1").await.unwrap(),
        [["acme-0000", "0"]]
    );
    for hidden in ["secret", "tenant", "event_time", "event_date", "nowhere"] {
        for sql in [format!("SELECT {hidden} FROM calls"), format!("SELECT y FROM calls WHERE {hidden} IS NULL")] {
            let error = ask(&engine, &narrow, &sql).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{sql}");
            assert!(error.message().starts_with(&format!("unknown column `{hidden}`")), "{error:?}");
            let rest = error.message().replace(&format!("`{hidden}`"), "");
            assert!(
                !["secret", "tenant", "event_time", "event_date"].iter().any(|name| rest.contains(name)),
                "{error:?}"
            );
        }
    }
    let columns =
        ask(&engine, &narrow, "SELECT column_name FROM information_schema.columns WHERE table_name = 'calls'").await;
    assert_eq!(columns.unwrap(), [["event_id"], ["y"]]);
}

#[tokio::test]
async fn metadata_shows_only_what_the_caller_sees() {
    let engine = engine().await;
    let access = reader("acme").await;
    for (sql, expected) in [
        ("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", "calls"),
        ("SELECT DISTINCT table_name FROM information_schema.columns", "calls"),
        (
            "SELECT DISTINCT table_name FROM information_schema.views WHERE table_schema <> 'information_schema'",
            "calls",
        ),
        ("SELECT schema_name FROM information_schema.schemata", "public"),
        ("SELECT count(*) FROM information_schema.df_settings", "0"),
        ("SELECT DISTINCT table_catalog FROM information_schema.tables", "glasshouse"),
    ] {
        assert_eq!(
            ask(&engine, &access, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")),
            one(expected),
            "{sql}"
        );
    }
    for sql in [
        "SHOW TABLES",
        "SHOW COLUMNS FROM calls",
        "DESCRIBE calls",
        "SHOW FUNCTIONS LIKE 'to_%'",
        "SELECT * FROM information_schema.routines",
        "SELECT * FROM information_schema.parameters",
    ] {
        let shown = ask(&engine, &access, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert!(!shown.is_empty(), "{sql}");
        let shown = shown.concat().join("\n");
        assert!(!shown.contains("hidden") && !shown.contains("bzzz"), "{sql}: {shown}");
    }
    let tables = engine.session(&access).unwrap().tables();
    assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["calls"]);
    assert_eq!(tables[0].id.as_deref(), Some("event_id"));
    assert_eq!(tables[0].schema.field_with_name("y").unwrap().metadata()["comment"], "the y");
}

#[tokio::test]
async fn hidden_table_looks_like_a_missing_table() {
    let engine = engine().await;
    let access = reader("acme").await;
    for sql in [
        "SELECT * FROM TABLE",
        "SELECT 1 FROM calls WHERE y IN (SELECT y FROM TABLE)",
        "DESCRIBE TABLE",
        "SHOW COLUMNS FROM TABLE",
        "EXPLAIN SELECT * FROM public.TABLE",
        "SELECT * FROM glasshouse.public.TABLE",
        "WITH t AS (SELECT * FROM TABLE) SELECT * FROM t",
    ] {
        let error_for = async |table: &str| {
            let error = ask(&engine, &access, &sql.replace("TABLE", table)).await.unwrap_err();
            (error.kind(), error.message().replace(table, "TABLE"))
        };
        let hidden = error_for("hidden").await;
        assert_eq!(hidden, error_for("nohere").await, "{sql}");
        assert!(matches!(hidden.0, Kind::NotFound | Kind::Invalid), "{sql}: {hidden:?}");
    }
    let error = ask(&engine, &access, "SELECT * FROM cals").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, "unknown table `cals`, did you mean `calls`?"));
}

#[tokio::test]
async fn session_requires_the_read_scope_and_a_tenant() {
    let engine = engine().await;
    let error_kind = async |tenant: Option<&str>, scopes: &[Scope]| {
        let access = crate::tenancy::testing::access(tenant, scopes, &["calls"]).await;
        engine.session(&access).unwrap_err().kind()
    };
    assert_eq!(error_kind(Some("acme"), &[Scope::Ingest, Scope::Admin]).await, Kind::Forbidden);
    assert_eq!(error_kind(None, &[Scope::Ingest, Scope::Admin]).await, Kind::Forbidden);
}

#[tokio::test]
async fn errors_show_their_position_but_no_foreign_values() {
    let engine = engine().await;
    let access = reader("acme").await;
    for (sql, kind, message) in [
        ("SELEC 1", Kind::Invalid, "Line: 1, Column: 1"),
        ("SELECT 1 +", Kind::Invalid, "cannot parse the statement"),
        (
            "SELECT regon FROM calls",
            Kind::Invalid,
            "unknown column `regon`, did you mean `region`? at line 1, column 8",
        ),
        ("SELECT nofunction(1)", Kind::Invalid, "nofunction"),
        ("SELECT 1; SELECT 2", Kind::Invalid, "more than one statement"),
        ("", Kind::Invalid, "empty"),
        ("SELECT 1 / (y - y) FROM calls", Kind::Invalid, "Divide by zero"),
        ("SELECT CAST(event_id AS BIGINT) FROM calls", Kind::Invalid, "acme-"),
        ("SELECT CAST('x' AS BIGINT)", Kind::Invalid, "'x'"),
        ("SELECT a.y FROM calls a, calls b WHERE y = 1", Kind::Invalid, "ambiguous"),
        ("SELECT * FROM '/etc/passwd'", Kind::NotFound, "unknown table"),
        ("SELECT * FROM 'memory:///calls/_delta_log/00000000000000000000.json'", Kind::NotFound, "unknown table"),
        ("SELECT * FROM read_parquet('/etc/passwd')", Kind::NotFound, "unknown table `read_parquet`"),
        ("SELECT * FROM \"Calls\"", Kind::NotFound, "unknown table `Calls`, did you mean `calls`?"),
    ] {
        let error = ask(&engine, &access, sql).await.expect_err(sql);
        assert_eq!(error.kind(), kind, "{sql}: {error:?}");
        assert!(error.message().contains(message), "{sql}: {error:?}");
        assert!(!error.message().contains("bzzz") && !error.message().contains("zebra"), "{sql}: {error:?}");
    }
}

#[test]
fn long_operator_chains_never_overflow_the_stack() {
    // The statements run on threads with the same stack size as those of the server. A stack overflow would end the
    // process.
    let mut workers = tokio::runtime::Builder::new_multi_thread();
    let workers = workers.worker_threads(1).thread_stack_size(STACK_BYTES_MIN).enable_all().build().unwrap();
    let (engine, access) = workers.block_on(async { (engine().await, reader("acme").await) });
    let ask = |sql: String| {
        let (engine, access) = (engine.clone(), access.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn_on(async move { ask(&engine, &access, &sql).await }, workers.handle());
        workers.block_on(tasks.join_next()).unwrap().unwrap()
    };
    let rows = "SELECT count(*) FROM calls WHERE ";
    for (head, link, tail, expected) in [
        (rows, "y = 3 OR ", "y = 3", "6"),
        (rows, "y = 3 AND ", "y = 3", "6"),
        (rows, "NOT y = 4 AND ", "y = 3", "6"),
        ("SELECT max(", "y + ", "0) FROM calls WHERE y = 0", "0"),
        ("SELECT length(", "'x' || ", "'')", "150"),
        ("SELECT count(*) FROM (", "SELECT 1 UNION ALL ", "SELECT 1)", "151"),
    ] {
        let chain = |links: usize| format!("{head}{}{tail}", link.repeat(links));
        assert_eq!(ask(chain(150)).unwrap_or_else(|error| panic!("{link}: {error:?}")), one(expected), "{link}");
        assert_eq!(ask(chain(3_000)).unwrap_err().kind(), Kind::Limited, "{link}");
    }
}

#[tokio::test]
async fn sessions_of_two_tenants_do_not_share_rows() {
    let engine = engine().await;
    let (acme, coda): (Access, Access) = (reader("acme").await, reader("coda").await);
    let sessions: [_; 2] = [engine.session(&acme).unwrap(), engine.session(&coda).unwrap()];
    let sql = "SELECT count(*) FROM calls";
    let (left, right) = tokio::join!(run(&sessions[0], sql), run(&sessions[1], sql));
    assert_eq!((left.unwrap(), right.unwrap()), (one(40), one(61)));
    let total = rows().len();
    assert_eq!(i64::try_from(total).unwrap(), 40 + 61 + FOREIGN_ROWS);
}
