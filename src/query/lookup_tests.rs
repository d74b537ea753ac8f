//! Tests of lookup tables in queries: the tenant barrier, policies, catalogs, and refreshes.
//!
//! The lookup table `accounts` contains rows of `acme` and `coda`, and many more rows that both must never see: those of
//! the tenant `bzzz`, and rows that belong to no tenant. The hidden rows contain the telltales of `testing.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use futures::TryStreamExt as _;
use serde_json::json;
use tempfile::TempDir;

use super::testing::{
    COUNTS, FOREIGN_ROWS, TELLTALES, account, ask, engine_with_lookups, policy, rows as calls, run, text,
};
use crate::config::{ColumnConfig, IngestConfig, LookupConfig, PolicyConfig};
use crate::error::Kind;
use crate::query::{Engine, Session};
use crate::tenancy::testing::{access, access_under};
use crate::tenancy::{Access, Scope};
use crate::transform::Lookups;

/// The lookup tables that have a policy.
const GRANTED: [&str; 5] = ["calls", "accounts", "places", "later", "promised"];
/// The columns of `accounts`.
const COLUMNS: [(&str, &str); 5] =
    [("owner", "text"), ("account", "text"), ("plan", "text"), ("y", "int64"), ("secret", "text")];

/// A row of `accounts`: account, plan, y and secret.
type Account = (&'static str, &'static str, i64, &'static str);

/// Returns the rows of a tenant in `accounts`.
fn own(tenant: &str) -> Vec<Account> {
    match tenant {
        "acme" => vec![("north", "gold", 1, "10"), ("south", "basic", 2, "20"), ("west", "gold", 3, "30")],
        "coda" => vec![("north", "basic", 4, "40"), ("east", "gold", 5, "50")],
        _ => Vec::new(),
    }
}

/// The lookup tables of a test, and the folder with their files.
struct Fixture {
    folder: TempDir,
    lookups: Arc<Lookups>,
    engine: Arc<Engine>,
}

impl Fixture {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| Some(folder.path().join(name));
        let columns = |columns: &[(&str, &str)]| {
            let column = |(name, kind): &(&str, &str)| ColumnConfig {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                description: format!("the {name}"),
                ..ColumnConfig::default()
            };
            columns.iter().map(column).collect::<Vec<_>>()
        };
        let description = "Accounts and plans".to_owned();
        let tenant = Some("owner".to_owned());
        let shared = |name: &str| LookupConfig { file: file(name), shared: true, ..LookupConfig::default() };
        let accounts = LookupConfig {
            file: file("accounts.csv"),
            columns: columns(&COLUMNS),
            tenant,
            description,
            ..LookupConfig::default()
        };
        let configs = BTreeMap::from([
            ("accounts".to_owned(), accounts.clone()),
            ("places".to_owned(), shared("places.csv")),
            ("denied".to_owned(), shared("places.csv")),
            ("internal".to_owned(), LookupConfig { file: file("places.csv"), ..LookupConfig::default() }),
            ("later".to_owned(), shared("later.csv")),
            ("promised".to_owned(), LookupConfig { file: file("promised.csv"), ..accounts }),
        ]);
        fs::write(folder.path().join("accounts.csv"), accounts_csv()).unwrap();
        fs::write(folder.path().join("places.csv"), "region,city,size\neu,Rome,3\nus,Austin,1\nap,Osaka,2\n").unwrap();
        let lookups = Lookups::new(&configs, &IngestConfig::default(), Arc::default());
        let missing: Vec<_> = lookups.load_files().into_iter().map(|(name, _)| name).collect();
        assert_eq!(missing, ["later", "promised"]);
        let engine = engine_with_lookups(&lookups).await;
        Self { folder, lookups, engine }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the file of a lookup table, and loads it.
    async fn load(&self, name: &str, csv: &str) {
        fs::write(self.path(&format!("{name}.csv")), csv).unwrap();
        self.lookups.load_one(name, None).await.unwrap();
    }

    async fn ask(&self, tenant: &str, sql: &str) -> crate::error::Result<Vec<Vec<String>>> {
        ask(&self.engine, &reader(tenant).await, sql).await
    }
}

fn accounts_csv() -> String {
    let mut csv = "owner,account,plan,y,secret\n".to_owned();
    let mut add = |owner: &str, (account, plan, y, secret): Account| {
        writeln!(csv, "{owner},{account},{plan},{y},{secret}").unwrap();
    };
    for row in 0..FOREIGN_ROWS {
        for owner in ["bzzz", "", "ACME", "acme "].into_iter().take(if row % 9 == 0 { 4 } else { 1 }) {
            add(owner, ("xenon", "mars", 20, "zebra"));
        }
        let place = usize::try_from(row).unwrap();
        for tenant in ["acme", "coda"] {
            own(tenant).get(place).into_iter().for_each(|row| add(tenant, *row));
        }
    }
    csv
}

/// Creates the [`Access`] of a reader who may see the tables in [`GRANTED`].
async fn reader(tenant: &str) -> Access {
    access(Some(tenant), &[Scope::Read], &GRANTED).await
}

async fn reader_under(policies: &[(&str, PolicyConfig)], claims: serde_json::Value) -> Access {
    let policies = policies.iter().map(|(name, policy)| ((*name).to_owned(), policy.clone())).collect();
    access_under(Some("acme"), &[Scope::Read], &policies, claims).await
}

fn one(value: impl ToString) -> Vec<Vec<String>> {
    vec![vec![value.to_string()]]
}

type Oracle = fn(&[Account]) -> Vec<Vec<String>>;

/// The statements to run, each with a function that computes the result from the tenant's own rows. If an expression
/// were evaluated on a hidden row, most of these statements would fail or reveal data.
const STATEMENTS: &[(&str, Oracle)] = &[
    ("SELECT count(*) FROM accounts", |own| one(own.len())),
    ("SELECT count(*) FROM accounts LIMIT 1", |own| one(own.len())),
    ("SELECT DISTINCT owner IN ('acme', 'coda') FROM accounts", |_| one(true)),
    ("SELECT count(*) FROM accounts WHERE owner IS NULL OR owner = '' OR owner = 'bzzz'", |_| one(0)),
    ("SELECT account FROM accounts ORDER BY y LIMIT 1", |own| one(own[0].0)),
    ("SELECT sum(CAST(secret AS BIGINT)) FROM accounts", |own| {
        one(own.iter().map(|row| row.3.parse::<i64>().unwrap()).sum::<i64>())
    }),
    ("SELECT count(*) FROM accounts WHERE 1 / (y - 20) < 100", |own| one(own.len())),
    ("SELECT count(*) FROM accounts WHERE y = 20 OR 1 / (y - 20) = 0", |own| one(own.len())),
    ("SELECT count(*) FROM (SELECT 1 / (y - 20) FROM accounts LIMIT 10000)", |own| one(own.len())),
    ("SELECT min(y), max(y), min(plan), max(account) FROM accounts", |own| {
        let (ys, plans) = (own.iter().map(|row| row.2), own.iter().map(|row| row.1));
        let last = own.iter().map(|row| row.0).max().unwrap();
        let numbers = [ys.clone().min().unwrap().to_string(), ys.max().unwrap().to_string()];
        vec![numbers.into_iter().chain([plans.min().unwrap().to_owned(), last.to_owned()]).collect()]
    }),
    ("SELECT plan, count(*) FROM accounts GROUP BY plan ORDER BY plan DESC LIMIT 1", |own| {
        vec![vec!["gold".to_owned(), own.iter().filter(|row| row.1 == "gold").count().to_string()]]
    }),
    ("SELECT count(*) FROM accounts a JOIN accounts b ON a.y = b.y AND 1 / (a.y + b.y - 40) < 9", |own| one(own.len())),
    ("SELECT count(*) FROM accounts a FULL JOIN accounts b ON a.account = b.account", |own| one(own.len())),
    ("SELECT count(*) FROM accounts WHERE secret NOT IN (SELECT secret FROM accounts WHERE y = 20)", |own| {
        one(own.len())
    }),
    (
        "SELECT (SELECT CAST(max(b.secret) AS BIGINT) FROM accounts b WHERE b.y = a.y) FROM accounts a ORDER BY y LIMIT 1",
        |own| one(own[0].3),
    ),
    ("SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY CAST(secret AS BIGINT)) AS n FROM accounts)", |own| {
        one(own.len())
    }),
    ("SELECT approx_distinct(secret) FROM accounts", |own| one(own.len())),
    ("SELECT count(*) FROM glasshouse.public.accounts a, public.accounts b WHERE b.y = 20", |_| one(0)),
    (
        "WITH RECURSIVE w AS (SELECT 1 AS n UNION ALL SELECT w.n + 1 FROM w JOIN (SELECT count(*) AS c FROM accounts) ON w.n < c) SELECT max(n) FROM w",
        |own| one(own.len()),
    ),
    ("SELECT count(*) FROM (SELECT y FROM accounts UNION ALL SELECT CAST(secret AS BIGINT) FROM accounts)", |own| {
        one(own.len() * 2)
    }),
    ("SELECT array_to_string(array_agg(secret ORDER BY y), ',') FROM accounts", |own| {
        one(own.iter().map(|row| row.3).collect::<Vec<_>>().join(","))
    }),
];

#[tokio::test]
async fn each_tenant_sees_only_its_own_rows_of_a_lookup_table() {
    let fixture = Fixture::new().await;
    for tenant in ["acme", "coda"] {
        for (sql, oracle) in STATEMENTS {
            let found = fixture.ask(tenant, sql).await.unwrap_or_else(|error| panic!("{tenant}: {sql}: {error:?}"));
            assert_eq!(found, oracle(&own(tenant)), "{tenant}: {sql}");
        }
    }
    assert_eq!(fixture.ask("nobody", "SELECT count(*), max(y) FROM accounts").await.unwrap(), [["0", "NULL"]]);
    assert_eq!(fixture.ask("bzzz", "SELECT count(*) FROM accounts").await.unwrap(), one(FOREIGN_ROWS));
}

#[tokio::test]
async fn plans_of_lookup_tables_reveal_nothing_about_other_tenants() {
    let fixture = Fixture::new().await;
    for explain in ["EXPLAIN VERBOSE", "EXPLAIN ANALYZE VERBOSE", "EXPLAIN FORMAT TREE", "EXPLAIN FORMAT PGJSON"] {
        for (sql, _) in STATEMENTS {
            let sql = format!("{explain} {sql}");
            let plan = fixture.ask("acme", &sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let plan = plan.concat().join("\n");
            for telltale in TELLTALES.iter().filter(|telltale| !sql.contains(**telltale)) {
                assert!(!plan.contains(telltale), "{sql}: {telltale}\n{plan}");
            }
            let mut words = plan.split(|letter: char| !letter.is_alphanumeric() && letter != '.');
            let all = accounts_csv().lines().count() - 1;
            let counts = COUNTS.iter().map(i64::to_string).chain([all.to_string()]).collect::<Vec<_>>();
            assert!(!words.any(|word| counts.iter().any(|count| count == word)), "{sql}\n{plan}");
        }
    }
    let mut plans = Vec::new();
    for tenant in ["acme", "coda", "nobody", "bzzz"] {
        plans.push(fixture.ask(tenant, "EXPLAIN SELECT y FROM accounts WHERE plan = 'gold'").await.unwrap());
    }
    assert!(plans.windows(2).all(|pair| pair[0] == pair[1]), "{plans:#?}");
    assert!(plans[0].concat().join("\n").contains("LookupScan: lookup=accounts, columns=[plan, y]"), "{plans:#?}");
    let analyzed = fixture.ask("acme", "EXPLAIN ANALYZE SELECT y FROM accounts").await.unwrap().concat().join("\n");
    let scan = analyzed.lines().find(|line| line.contains("LookupScan")).unwrap();
    assert!(scan.ends_with("metrics=[output_rows=3]"), "{scan}");
}

#[tokio::test]
async fn rows_of_a_table_are_joined_with_lookup_tables() {
    let fixture = Fixture::new().await;
    for tenant in ["acme", "coda"] {
        let calls: Vec<_> = calls().into_iter().filter(|row| row.tenant == tenant).collect();
        let in_region = |region: &str| calls.iter().filter(|row| row.region == Some(region)).count().to_string();
        let sql = "SELECT p.city, count(*) FROM calls c JOIN places p ON p.region = c.region GROUP BY 1 ORDER BY 1";
        let expected = [("Austin", "us"), ("Osaka", "ap"), ("Rome", "eu")]
            .map(|(city, region)| vec![city.to_owned(), in_region(region)]);
        assert_eq!(fixture.ask(tenant, sql).await.unwrap(), expected, "{tenant}");
        let plan_of = |account: &str| own(tenant).iter().find(|row| row.0 == account).map_or("NULL", |row| row.1);
        for kind in ["LEFT", "INNER"] {
            let sql = format!(
                "SELECT c.event_id, a.plan FROM calls c {kind} JOIN accounts a USING (account) ORDER BY c.event_id"
            );
            let expected = calls.iter().map(|row| vec![row.id.clone(), plan_of(row.account).to_owned()]);
            let expected: Vec<_> = expected.filter(|row| kind == "LEFT" || row[1] != "NULL").collect();
            assert_eq!(fixture.ask(tenant, &sql).await.unwrap(), expected, "{tenant}: {kind}");
        }
        let unused = own(tenant).iter().filter(|row| !["north", "south"].contains(&row.0)).count();
        for sql in [
            "SELECT count(*) FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM calls c WHERE c.account = a.account)",
            "SELECT count(*) FROM calls c RIGHT JOIN accounts a ON a.account = c.account WHERE c.event_id IS NULL",
            "SELECT count(*) FROM accounts WHERE account NOT IN (SELECT account FROM calls)",
        ] {
            assert_eq!(fixture.ask(tenant, sql).await.unwrap(), one(unused), "{tenant}: {sql}");
        }
    }
}

#[tokio::test]
async fn joins_hold_the_lookup_table_in_memory() {
    let fixture = Fixture::new().await;
    for (sql, swapped) in [
        ("SELECT * FROM calls c JOIN places p ON p.region = c.region", true),
        ("SELECT * FROM calls c LEFT JOIN (SELECT * FROM places WHERE size > 1) p USING (region)", true),
        ("SELECT * FROM calls c WHERE account IN (SELECT account FROM accounts)", true),
        ("SELECT * FROM places p JOIN calls c ON p.region = c.region", true),
        ("SELECT * FROM calls c JOIN places p ON p.region = c.region JOIN accounts a ON a.account = c.account", true),
        ("SELECT * FROM calls a JOIN calls b ON a.event_id = b.event_id", false),
    ] {
        let plan = fixture.ask("acme", &format!("EXPLAIN {sql}")).await.unwrap().concat().join("\n");
        let lines: Vec<_> = plan.lines().map(str::trim_start).collect();
        let joins = lines.iter().enumerate().filter(|(_, line)| line.starts_with("HashJoinExec"));
        let is_lookup_first = |join: usize| {
            lines[join + 1..]
                .iter()
                .find(|line| line.contains("Scan:"))
                .is_some_and(|scan| scan.starts_with("LookupScan"))
        };
        assert!(joins.clone().count() > 0, "{sql}\n{plan}");
        assert_eq!(joins.clone().all(|(index, _)| is_lookup_first(index)), swapped, "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn row_rules_and_column_lists_apply_to_lookup_tables() {
    let fixture = Fixture::new().await;
    let narrow = [("accounts", policy(Some(("account", "account")), &["account", "plan"]))];
    let access = reader_under(&narrow, account("south")).await;
    assert_eq!(ask(&fixture.engine, &access, "SELECT * FROM accounts").await.unwrap(), [["south", "basic"]]);
    assert_eq!(ask(&fixture.engine, &access, "SELECT count(*) FROM accounts").await.unwrap(), one(1));
    let error = ask(&fixture.engine, &access, "SELECT secret FROM accounts").await.unwrap_err();
    assert!(error.message().starts_with("unknown column `secret`"), "{error:?}");
    assert_eq!(ask(&fixture.engine, &access, "SELECT * FROM places").await.unwrap_err().kind(), Kind::NotFound);
    for (column, value, count) in [("y", json!([1, 3]), 2), ("y", json!("three"), 0), ("gone", json!("x"), 0)] {
        let rules = [("accounts", policy(Some((column, "account")), &[]))];
        let access = reader_under(&rules, json!({ "account": value })).await;
        assert_eq!(
            ask(&fixture.engine, &access, "SELECT count(*) FROM accounts").await.unwrap(),
            one(count),
            "{column}"
        );
        let sum = ask(&fixture.engine, &access, "SELECT count(1 / (y - 2)) FROM accounts").await.unwrap();
        assert_eq!(sum, one(count), "the rule applies before the statement's expressions");
    }
    let access = reader_under(&[("places", policy(Some(("region", "account")), &[]))], account("eu")).await;
    assert_eq!(ask(&fixture.engine, &access, "SELECT city FROM places").await.unwrap(), one("Rome"));
}

#[tokio::test]
async fn catalogs_list_the_lookup_tables_that_the_caller_sees() {
    let fixture = Fixture::new().await;
    for (sql, expected) in [
        (
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
            vec!["accounts", "calls", "places", "promised"],
        ),
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'places'",
            vec!["region", "city", "size"],
        ),
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'promised'",
            vec!["owner", "account", "plan", "y", "secret"],
        ),
    ] {
        assert_eq!(fixture.ask("acme", sql).await.unwrap().concat(), expected, "{sql}");
    }
    for sql in
        ["SHOW TABLES", "SHOW COLUMNS FROM accounts", "DESCRIBE accounts", "SELECT * FROM information_schema.views"]
    {
        let shown =
            fixture.ask("acme", sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).concat().join("\n");
        assert!(shown.contains("accounts") || shown.contains("secret"), "{sql}: {shown}");
        assert!(!["internal", "denied", "zebra", "bzzz"].iter().any(|name| shown.contains(name)), "{sql}: {shown}");
    }
    let tables = fixture.engine.session(&reader("acme").await).unwrap().tables();
    let names: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.is_lookup)).collect();
    assert_eq!(names, [("accounts", true), ("calls", false), ("places", true), ("promised", true)]);
    assert_eq!((tables[0].description.as_str(), &tables[0].id), ("Accounts and plans", &None));
    assert_eq!(tables[0].schema.field_with_name("plan").unwrap().metadata()["comment"], "the plan");
    let lookups = fixture.engine.visible_lookups(&access(Some("acme"), &[Scope::Ingest], &GRANTED).await);
    assert_eq!(
        lookups.iter().map(|lookup| lookup.name.as_str()).collect::<Vec<_>>(),
        ["accounts", "places", "promised"]
    );
    assert!(fixture.engine.visible_lookups(&access(None, &[Scope::Admin], &GRANTED).await).is_empty());
}

#[tokio::test]
async fn hidden_lookup_table_looks_like_a_missing_table() {
    let fixture = Fixture::new().await;
    for sql in [
        "SELECT * FROM TABLE",
        "SELECT 1 FROM calls WHERE y IN (SELECT size FROM TABLE)",
        "DESCRIBE TABLE",
        "SHOW COLUMNS FROM TABLE",
        "EXPLAIN SELECT * FROM public.TABLE",
        "SELECT * FROM freshness('TABLE')",
        "SELECT * FROM calls JOIN TABLE USING (region)",
    ] {
        let error_for = async |table: &str| {
            let error = fixture.ask("acme", &sql.replace("TABLE", table)).await.unwrap_err();
            (error.kind(), error.message().replace(table, "TABLE"))
        };
        for hidden in ["internal", "denied"] {
            assert_eq!(error_for(hidden).await, error_for("nowhere_").await, "{sql}");
        }
    }
    for near in ["internl", "denid"] {
        let error = fixture.ask("acme", &format!("SELECT * FROM {near}")).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, format!("unknown table `{near}`").as_str()));
    }
    let error = fixture.ask("acme", "SELECT * FROM acounts").await.unwrap_err();
    assert!(error.message().contains("did you mean `accounts`?"), "{error:?}");
    let error = fixture.ask("acme", "SELECT * FROM freshness('accounts')").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.message().contains("`accounts` is a lookup table, which has no freshness"), "{error:?}");
}

#[tokio::test]
async fn query_of_a_lookup_table_that_is_not_loaded_can_be_retried() {
    let fixture = Fixture::new().await;
    let access = reader("acme").await;
    let session = fixture.engine.session(&access).unwrap();
    let unbound = session.plan("SELECT count(*) FROM promised WHERE y >= $1").await.unwrap();
    let parameters = RecordBatch::try_from_iter([("1", Arc::new(arrow::array::Int64Array::from(vec![2])) as ArrayRef)]);
    let parameters = parameters.unwrap();
    let statements =
        ["SELECT count(*) FROM later", "SELECT count(*) FROM promised", "SELECT c.y FROM calls c, promised p"];
    for sql in statements {
        let error = ask(&fixture.engine, &access, sql).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{sql}: {error:?}");
        assert!(error.message().contains("` is not loaded yet: retry later"), "{sql}: {error:?}");
    }
    let error = session.run(&unbound, Some(&parameters)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert_eq!(
        ask(&fixture.engine, &access, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'later'")
            .await
            .unwrap(),
        one(0)
    );
    assert_eq!(fixture.ask("acme", "DESCRIBE later").await.unwrap_err().kind(), Kind::Unavailable);

    fixture.load("later", "id\n7\n").await;
    fixture.load("promised", &accounts_csv()).await;
    for (sql, expected) in statements.into_iter().zip(["1", "3"]) {
        assert_eq!(ask(&fixture.engine, &access, sql).await.unwrap(), one(expected), "{sql}");
    }
    let session = fixture.engine.session(&access).unwrap();
    let planned = session.plan("SELECT count(*) FROM promised WHERE y >= $1").await.unwrap();
    let batches: Vec<_> = session.run(&planned, Some(&parameters)).await.unwrap().batches.try_collect().await.unwrap();
    assert_eq!(text(&batches), one(2), "no cached plan without contents is used");
}

#[tokio::test]
async fn refresh_is_visible_to_new_sessions_but_not_to_running_ones() {
    let fixture = Fixture::new().await;
    let access = reader("acme").await;
    let sql = "SELECT city FROM places WHERE region = 'eu'";
    let cities = async |session: &Session| run(session, sql).await.unwrap();
    let open = || fixture.engine.session(&access).unwrap();
    let before = open();
    for _ in 0..2 {
        assert_eq!(cities(&open()).await, one("Rome"));
    }
    let planned = before.plan("SELECT city FROM places WHERE region = 'eu' AND size > 0").await.unwrap();
    fixture.load("places", "region,city,size\neu,Oslo,9\n").await;
    assert_eq!(cities(&open()).await, one("Oslo"), "the cached plan is not used");
    let batches: Vec<_> = before.run(&planned, None).await.unwrap().batches.try_collect().await.unwrap();
    assert_eq!(text(&batches), one("Rome"), "a query reads one version");

    fs::write(fixture.path("places.csv"), "region,city\neu\n").unwrap();
    fixture.lookups.load_one("places", None).await.unwrap_err();
    assert_eq!(cities(&open()).await, one("Oslo"), "a failed refresh keeps the previous version");
    fixture.load("places", "region,city\neu,Bern\n").await;
    assert_eq!(cities(&open()).await, one("Bern"), "the columns of a lookup table can change");
    assert_eq!(ask(&fixture.engine, &access, "SELECT size FROM places").await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn queries_share_the_arrays_of_a_lookup_table() {
    let fixture = Fixture::new().await;
    let access = reader("acme").await;
    for (sql, column) in [("SELECT city FROM places", "city"), ("SELECT plan FROM accounts", "plan")] {
        let mut addresses = Vec::new();
        for _ in 0..2 {
            let session = fixture.engine.session(&access).unwrap();
            let planned = session.plan(sql).await.unwrap();
            let batches: Vec<_> = session.run(&planned, None).await.unwrap().batches.try_collect().await.unwrap();
            let batches: Vec<RecordBatch> = batches;
            let texts = batches[0].column_by_name(column).unwrap();
            addresses.push(texts.as_any().downcast_ref::<StringArray>().unwrap().values().as_ptr());
        }
        assert_eq!(addresses[0], addresses[1], "{sql}: each query copies the rows");
    }
}

#[tokio::test]
async fn logical_plan_of_another_session_reads_the_lookup_rows_of_its_own_session() {
    let fixture = Fixture::new().await;
    let sessions = [reader("coda").await, reader("acme").await].map(|access| fixture.engine.session(&access).unwrap());
    let plan = sessions[0].unchecked_plan("SELECT count(*) FROM accounts").await.unwrap();
    let planned = sessions[1].plan_logical(plan).await.unwrap();
    let batches: Vec<_> = sessions[1].run(&planned, None).await.unwrap().batches.try_collect().await.unwrap();
    assert_eq!(text(&batches), one(own("acme").len()));
    let narrow = reader_under(&[("calls", policy(None, &[]))], json!({})).await;
    let plan = sessions[0].unchecked_plan("SELECT count(*) FROM accounts").await.unwrap();
    let error = fixture.engine.session(&narrow).unwrap().plan_logical(plan).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
}
