//! Tests of statements that are sent as logical plans. A plan must return the same rows or the same error as the SQL
//! text from which it was built. It may have been built in another session. The tables and functions that the sent plan
//! contains are never used.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::MemTable;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::datasource::file_format::format_as_file_type;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, Volatility, col,
    create_udf, lit,
};
use futures::TryStreamExt as _;

use crate::config::QueryConfig;
use crate::error::{Kind, Result};
use crate::query::Session;
use crate::query::testing::{account, ask, config, engine, engine_with, policy, reader, reader_under, text};
use crate::tenancy::Scope;

/// Checks and runs a plan in `session`.
async fn run(session: &Session, plan: LogicalPlan, parameter: Option<i64>) -> Result<Vec<Vec<String>>> {
    let planned = session.plan_logical(plan).await?;
    let parameters = parameter.map(|value| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        RecordBatch::try_from_iter([("1", column)]).unwrap()
    });
    let batches: Vec<RecordBatch> = session.run(&planned, parameters.as_ref()).await?.batches.try_collect().await?;
    assert!(batches.iter().all(|batch| batch.schema() == planned.schema), "a batch does not have the declared schema");
    Ok(text(&batches))
}

/// Statements whose plans together contain all kinds of nodes, tables and functions that can be rebound.
const PLAN_SHAPES: [&str; 20] = [
    // Scans, with and without filters that the optimizer pushes down.
    "SELECT * FROM calls ORDER BY event_id LIMIT 3",
    "SELECT count(*) FROM calls WHERE y = 20 OR 1 / (y - 20) = 0",
    "SELECT max(event_id) FROM glasshouse.public.calls WHERE event_time >= '2026-01-03T00:00:00Z' AND y < 3",
    "SELECT count(*) FROM calls WHERE tags['account'] = 'north'",
    // Joins, subqueries and set operations.
    "SELECT count(*) FROM calls a JOIN calls b ON a.event_id = b.event_id AND 1 / (a.y + b.y - 40) < 9",
    "SELECT (SELECT max(CAST(secret AS BIGINT)) FROM calls b WHERE b.event_id = a.event_id) FROM calls a ORDER BY event_time LIMIT 1",
    "SELECT count(*) FROM calls WHERE y IN (SELECT 1 / (y - 20) FROM calls)",
    "SELECT y FROM calls INTERSECT SELECT value FROM range(0, 3) ORDER BY 1",
    "WITH RECURSIVE walk AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM walk, (SELECT min(y) AS y FROM calls) WHERE n < 3) SELECT count(*) FROM walk",
    // Aggregates, windows and functions.
    "SELECT region, grouping(region), count(DISTINCT y) FROM calls GROUP BY ROLLUP (region) ORDER BY 1, 2",
    "SELECT DISTINCT ON (region) region, event_id FROM calls ORDER BY region, event_id",
    "SELECT y, sum(y) OVER (ORDER BY event_time ROWS 2 PRECEDING), lag(y) OVER (ORDER BY event_time) FROM calls ORDER BY event_time",
    "SELECT 'a' || region || 'b', repeat(region, 2) FROM calls WHERE region IS NOT NULL ORDER BY event_id LIMIT 2",
    // Queries whose rows do not come from a table, and statements that return metadata.
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT unnest([1, 2, 3])",
    "SELECT sum(value) FROM generate_series(1, 10)",
    "SELECT table_name, newest_event_time FROM freshness('calls')",
    "DESCRIBE calls",
    "SELECT * FROM information_schema.tables ORDER BY 1, 2, 3",
    "EXPLAIN SELECT y FROM calls WHERE region = 'eu'",
];

#[tokio::test]
async fn logical_plans_return_the_same_rows_as_sql() {
    let engine = engine().await;
    let acme = reader("acme").await;
    let session = engine.session(&acme).unwrap();
    // The plans are built in this session and in sessions of two other tenants. The tables of the other tenants must
    // not be read.
    let mut builders = Vec::new();
    for tenant in ["coda", "bzzz", "acme"] {
        builders.push(engine.session(&reader(tenant).await).unwrap());
    }
    for (sql, builder) in PLAN_SHAPES.into_iter().zip(builders.iter().cycle()) {
        let expected = ask(&engine, &acme, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let plan = builder.unchecked_plan(sql).await.unwrap();
        let is_explain = matches!(plan, LogicalPlan::Explain(_));
        let optimized = (!is_explain).then(|| builder.optimized(&plan));
        for plan in [Some(plan), optimized].into_iter().flatten() {
            let found = run(&session, plan, None).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(found, expected, "{sql}");
        }
    }
    assert_eq!(engine.running(), 0);
}

#[tokio::test]
async fn logical_plan_keeps_its_placeholders() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let foreign = engine.session(&reader("coda").await).unwrap();
    let plan = foreign.unchecked_plan("SELECT count(*) FROM calls WHERE y = $1").await.unwrap();
    let planned = session.plan_logical(plan.clone()).await.unwrap();
    assert_eq!(planned.parameters, Schema::new(vec![Field::new("$1", DataType::Int64, true)]));
    assert_eq!(run(&session, plan.clone(), Some(3)).await.unwrap(), [["6"]]);
    let unbound = run(&session, plan, None).await.unwrap_err();
    assert_eq!(unbound.message(), "the number of bound values (0) does not match the number of parameters (1)");
}

#[tokio::test]
async fn logical_plan_returns_the_same_error_as_its_sql() {
    let engine = engine().await;
    let acme = reader("acme").await;
    let session = engine.session(&acme).unwrap();
    let mut different = Vec::new();
    for sql in [
        "INSERT INTO calls SELECT * FROM calls",
        "DELETE FROM calls",
        "DELETE FROM calls WHERE y = 1",
        "UPDATE calls SET y = 1",
        "TRUNCATE TABLE calls",
        "CREATE TABLE t AS SELECT * FROM calls",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "DROP TABLE calls",
        "DROP VIEW calls",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "START TRANSACTION",
        "COMMIT",
        "ROLLBACK",
        "EXPLAIN INSERT INTO calls SELECT * FROM calls",
        "SELECT y FROM calls a WHERE EXISTS (SELECT 1 FROM calls b WHERE b.y = a.y GROUP BY ROLLUP (b.region))",
        "SELECT repeat('x', 2000000000)",
        "SELECT [repeat('x', 15000000), repeat('x', 15000000), repeat('x', 15000000)]",
        "SELECT 1 / (y - y) FROM calls",
    ] {
        let describe = |error: crate::error::Error| format!("{:?}: {}", error.kind(), error.message());
        let expected = describe(ask(&engine, &acme, sql).await.expect_err(sql));
        let found = match session.unchecked_plan(sql).await {
            Ok(plan) => run(&session, plan, None).await.map_or_else(describe, |rows| format!("{rows:?}")),
            Err(error) => format!("cannot be planned: {error}"),
        };
        if found != expected {
            different.push(format!("{sql}\n  text: {expected}\n  plan: {found}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[tokio::test]
async fn invisible_tables_and_columns_are_unknown_in_a_logical_plan() {
    let engine = engine().await;
    let all = crate::tenancy::testing::access(Some("acme"), &[Scope::Read], &["calls", "hidden"]).await;
    let acme = reader("acme").await;
    let narrow = reader_under("acme", policy(None, &["event_id", "y"]), serde_json::json!({})).await;
    let north = reader_under("acme", policy(Some(("account", "account")), &[]), account("north")).await;
    let maker = engine.session(&all).unwrap();
    let mut different = Vec::new();
    for (sql, access, kind, message) in [
        ("SELECT y FROM hidden", &acme, Kind::NotFound, "unknown table `hidden`"),
        ("SELECT 1 FROM calls WHERE y IN (SELECT y FROM hidden)", &acme, Kind::NotFound, "unknown table `hidden`"),
        ("SELECT y FROM public.hidden", &acme, Kind::NotFound, "unknown table `public.hidden`"),
        ("SELECT now FROM freshness('hidden')", &acme, Kind::NotFound, "unknown table `hidden`"),
        ("SELECT secret FROM calls", &narrow, Kind::Invalid, "unknown column `calls.secret`"),
        ("SELECT * FROM calls", &narrow, Kind::Invalid, "unknown column `calls."),
        ("SELECT y FROM calls WHERE secret = 'x'", &narrow, Kind::Invalid, "unknown column `calls.secret`"),
        ("SELECT y FROM calls ORDER BY secret", &narrow, Kind::Invalid, "unknown column `calls.secret`"),
        ("SELECT count(*) FROM calls GROUP BY secret", &narrow, Kind::Invalid, "unknown column `calls.secret`"),
        ("SELECT a.y FROM calls a JOIN calls b ON a.secret = b.secret", &narrow, Kind::Invalid, "unknown column"),
    ] {
        let plan = maker.unchecked_plan(sql).await.unwrap();
        for plan in [maker.optimized(&plan), plan] {
            let error = run(&engine.session(access).unwrap(), plan, None).await.expect_err(sql);
            if error.kind() != kind || !error.message().starts_with(message) {
                different.push(format!("{sql}: {error:?}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    // The query is restricted by the row rules of the session that runs the plan. Those of the session that built the
    // plan have no effect.
    let plan = maker.unchecked_plan("SELECT count(*), max(account) FROM calls").await.unwrap();
    assert_eq!(run(&engine.session(&north).unwrap(), plan, None).await.unwrap(), [["14", "north"]]);
    // Columns are resolved by name. Their positions differ between the two sessions.
    let plan = maker.unchecked_plan("SELECT y FROM calls WHERE event_id = 'acme-0003'").await.unwrap();
    for plan in [maker.optimized(&plan), plan] {
        assert_eq!(run(&engine.session(&narrow).unwrap(), plan, None).await.unwrap(), [["3"]]);
    }
}

/// A custom plan node that the server does not know.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd)]
struct UnknownNode {
    input: LogicalPlan,
}

impl UserDefinedLogicalNodeCore for UnknownNode {
    fn name(&self) -> &'static str {
        "UnknownNode"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("UnknownNode")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> datafusion::error::Result<Self> {
        Ok(Self { input: inputs.into_iter().next().unwrap() })
    }
}

#[tokio::test]
async fn tables_and_functions_inside_a_logical_plan_are_never_used() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("y", DataType::Int64, true)]));
    let own: ArrayRef = Arc::new(Int64Array::from(vec![77]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![own]).unwrap();
    let table =
        || provider_as_source(Arc::new(MemTable::try_new(Arc::clone(&schema), vec![vec![rows.clone()]]).unwrap()));
    let scan = |name: &str| LogicalPlanBuilder::scan(name, table(), None).unwrap();

    // A table resolves to the session's table of the same name, not to the table inside the plan.
    let plan =
        scan("calls").aggregate(Vec::<Expr>::new(), vec![datafusion::functions_aggregate::expr_fn::max(col("y"))]);
    assert_eq!(run(&session, plan.unwrap().build().unwrap(), None).await.unwrap(), [["6"]]);
    let error = run(&session, scan("files").build().unwrap(), None).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, "unknown table `files`"));

    let node = UnknownNode { input: scan("calls").build().unwrap() };
    let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    let error = run(&session, plan, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Forbidden, "{error:?}");
    assert!(error.message().starts_with("the plan node UnknownNode is not allowed"), "{error:?}");

    let format = format_as_file_type(Arc::new(ParquetFormatFactory::new()));
    let input = scan("calls").build().unwrap();
    let plan = LogicalPlanBuilder::copy_to(input, "/tmp/x".to_owned(), format, HashMap::new(), vec![]).unwrap();
    let error = run(&session, plan.build().unwrap(), None).await.unwrap_err();
    let text = ask(&engine, &reader("acme").await, "COPY calls TO '/tmp/x'").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Forbidden, text.message()));

    let panics = create_udf(
        "unknown_function",
        vec![],
        DataType::Int64,
        Volatility::Volatile,
        Arc::new(|_: &[ColumnarValue]| panic!("a function inside the plan was called")),
    );
    let plan = scan("calls").project(vec![panics.call(vec![])]).unwrap().build().unwrap();
    let error = run(&session, plan, None).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Invalid, "unknown function `unknown_function`"));
    // A function in the plan resolves to the session's function of the same name.
    let upper = create_udf(
        "upper",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(|_: &[ColumnarValue]| panic!("a function inside the plan was called")),
    );
    let plan = LogicalPlanBuilder::empty(true).project(vec![upper.call(vec![lit("a")])]).unwrap().build().unwrap();
    assert_eq!(run(&session, plan, None).await.unwrap(), [["A"]]);
    // The plan contains the engine's function `repeat`, which does not limit the size of its result. The session's
    // function of the same name limits it.
    let functions = SessionStateDefaults::default_scalar_functions();
    let repeat = functions.iter().find(|function| function.name() == "repeat").unwrap();
    let call = repeat.call(vec![lit("x"), lit(2_000_000_000_i64)]);
    let plan = LogicalPlanBuilder::empty(true).project(vec![call]).unwrap().build().unwrap();
    assert_eq!(run(&session, plan, None).await.unwrap_err().kind(), Kind::Limited);
}

#[tokio::test]
async fn filters_and_limits_inside_a_scan_are_applied() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let maker = engine.session(&reader("coda").await).unwrap();
    let mut plan = maker.unchecked_plan("SELECT y FROM calls").await.unwrap();
    while let Some(input) = plan.inputs().first().copied().cloned() {
        plan = input;
    }
    let LogicalPlan::TableScan(mut scan) = plan else { panic!("{plan}") };
    let index = scan.source.schema().index_of("y").unwrap();
    scan.projection = Some(vec![index]);
    scan.projected_schema = Arc::new(
        DFSchema::try_from_qualified_schema("calls", &scan.source.schema().project(&[index]).unwrap()).unwrap(),
    );
    scan.filters = vec![col("calls.y").eq(lit(3_i64)).and(col("calls.region").is_not_null())];
    scan.fetch = Some(2);
    assert_eq!(run(&session, LogicalPlan::TableScan(scan), None).await.unwrap(), [["3"], ["3"]]);
}

#[test]
fn size_and_depth_of_logical_plans_are_limited() {
    // A deep plan is built and dropped recursively, which needs more stack than a test thread has.
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(exceed_plan_limits());
    });
    thread.unwrap().join().unwrap();
}

async fn exceed_plan_limits() {
    let engine = engine_with(QueryConfig { sql_bytes_max: 2_000, ..config() }).await;
    let session = engine.session(&reader("acme").await).unwrap();
    let project = |expr: Expr| LogicalPlanBuilder::empty(true).project(vec![expr.alias("x")]).unwrap().build().unwrap();
    let chain = |links: i64| (0..links).fold(lit(0_i64), |sum, _| sum + lit(1_i64));
    assert_eq!(run(&session, project(chain(500)), None).await.unwrap(), [["500"]]);
    let deep = (0..2_000).fold(LogicalPlanBuilder::empty(true), |plan, _| plan.alias("a").unwrap());
    let scans = (0..101).fold(LogicalPlanBuilder::empty(true), |plan, number| {
        let schema = Schema::new(vec![Field::new("y", DataType::Int64, true)]);
        let table = provider_as_source(Arc::new(MemTable::try_new(Arc::new(schema), vec![vec![]]).unwrap()));
        plan.cross_join(LogicalPlanBuilder::scan(format!("t{number}"), table, None).unwrap().build().unwrap()).unwrap()
    });
    for (plan, message) in [
        (project(chain(2_000)), "the statement chains more than 600 operators"),
        (deep.build().unwrap(), "the plan is nested too deeply"),
        (scans.build().unwrap(), "the statement names more than 100 tables"),
        (project(lit("x".repeat(3_000))), "the literals of the plan have 3000 bytes, but at most 2000 are allowed"),
    ] {
        let error = run(&session, plan, None).await.expect_err(message);
        assert_eq!(error.kind(), Kind::Limited, "{error:?}");
        assert!(error.message().starts_with(message), "{error:?}");
    }
    // If each WITH query doubles the size of the plan, even a short statement is refused before planning.
    let acme = reader("acme").await;
    let doubled = |steps: usize, from: &str| {
        let ctes: String =
            (1..steps).map(|n| format!(", T{n} AS ({})", from.replace('@', &format!("t{}", n - 1)))).collect();
        format!("WITH t0 AS (SELECT 1 AS x){ctes} SELECT count(*) FROM t{}", steps - 1)
    };
    assert_eq!(ask(&engine, &acme, &doubled(5, "SELECT a.x FROM @ a, @ b")).await.unwrap(), [["1"]]);
    for from in [
        "SELECT a.x FROM @ a, @ b",
        "SELECT x FROM @ UNION ALL SELECT x FROM \"@\"",
        "SELECT x FROM (SELECT * FROM @) a, @ b WHERE x IN (SELECT x FROM @)",
    ] {
        let error = ask(&engine, &acme, &doubled(20, from)).await.expect_err(from);
        assert_eq!(error.kind(), Kind::Limited, "{error:?}");
        assert!(error.message().contains("WITH queries are expanded"), "{error:?}");
    }
    // If each UNION doubles the size of a logical plan, the plan is also refused.
    let mut plan = project(lit(1_i64));
    for _ in 0..25 {
        let (left, right) = (LogicalPlanBuilder::from(plan.clone()), LogicalPlanBuilder::from(plan));
        plan = left.union(right.build().unwrap()).unwrap().build().unwrap();
    }
    let error = run(&session, plan, None).await.unwrap_err();
    assert!(
        error.message().starts_with("the plan of the statement has more than 1000000 nodes and expressions"),
        "{error:?}"
    );
}
