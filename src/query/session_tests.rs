//! Tests of sessions: parameters, declared schemas, limits and cancellation.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Float64Array, Int8Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use tokio::time::timeout;

use super::session::*;
use crate::config::QueryConfig;
use crate::error::{Kind, Result};
use crate::query::QueryId;
use crate::query::testing::{NEW_YEAR, ask, config, engine, engine_with, engine_with_own_tables, idle, reader, text};

/// The maximum time that a test waits for an expected event.
const TIMEOUT: Duration = Duration::from_secs(60);

fn row(values: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_from_iter(values.into_iter().enumerate().map(|(index, value)| (index.to_string(), value))).unwrap()
}

fn number(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn word(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

async fn bound(session: &Session, sql: &str, values: Vec<ArrayRef>) -> Result<Vec<Vec<String>>> {
    let mut planned = session.plan(sql).await?;
    if !values.is_empty() {
        planned = session.bind(&planned, &row(values)).await?;
    }
    let batches: Vec<_> = session.run(&planned, None).await?.batches.try_collect().await?;
    assert!(batches.iter().all(|batch: &RecordBatch| batch.schema() == planned.schema), "{sql}");
    Ok(text(&batches))
}

#[tokio::test]
async fn parameter_types_are_inferred_and_values_bound_as_literals() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let noon = (NEW_YEAR + 43_200_000_000) / 1_000;
    let moment: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![noon]).with_timezone("UTC"));
    for (sql, types, values, expected) in [
        ("SELECT count(*) FROM calls WHERE y = ?", "Int64", vec![number(3)], "6"),
        ("SELECT count(*) FROM calls WHERE y = $1", "Int64", vec![Arc::new(Int8Array::from(vec![3])) as _], "6"),
        ("SELECT count(*) FROM calls WHERE y = ?", "Int64", vec![word("3")], "6"),
        ("SELECT count(*) FROM calls WHERE y = ?", "Int64", vec![Arc::new(Float64Array::from(vec![3.0])) as _], "6"),
        ("SELECT count(*) FROM calls WHERE y = ?-1", "Int64", vec![number(4)], "6"),
        ("SELECT count(*) FROM calls WHERE y BETWEEN $2 AND $1", "Int64,Int64", vec![number(3), number(3)], "6"),
        ("SELECT count(*) FROM calls WHERE y = $1 OR y = $1", "Int64", vec![number(3)], "6"),
        ("SELECT count(*) FROM calls WHERE region = ? AND y = ?", "Utf8,Int64", vec![word("ap"), number(3)], "2"),
        ("SELECT count(*) FROM calls WHERE region = ?", "Utf8", vec![word("x' OR 'a' = 'a")], "0"),
        ("SELECT count(*) FROM calls WHERE event_time <= ?", "Timestamp(µs, \"UTC\")", vec![moment], "3"),
        (
            "SELECT count(*) FROM calls WHERE event_time <= ?",
            "Timestamp(µs, \"UTC\")",
            vec![word("2026-01-01T12:00:00Z")],
            "3",
        ),
        ("SELECT count(*) FROM calls WHERE event_date = ?", "Date32", vec![word("2026-01-01")], "5"),
        (
            "SELECT count(*) FROM calls WHERE y IN (?, ?) AND region <> '?' -- ?",
            "Int64,Int64",
            vec![number(3), number(3)],
            "4",
        ),
        ("SELECT count(*) FROM (SELECT y FROM calls LIMIT ?)", "Int64", vec![number(4)], "4"),
        ("SELECT ?", "Null", vec![number(4)], "4"),
        ("SELECT CAST(? AS BIGINT) + 1", "Int64", vec![number(4)], "5"),
        ("SELECT count(*) FROM calls WHERE y = ?", "Int64", vec![Arc::new(Int64Array::from(vec![None])) as _], "0"),
    ] {
        let planned = session.plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let found: Vec<_> = planned.parameters.fields().iter().map(|field| field.data_type().to_string()).collect();
        assert_eq!(found.join(","), types, "{sql}");
        let found = bound(&session, sql, values).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(found, [[expected]], "{sql}");
    }
}

#[tokio::test]
async fn the_number_of_bound_values_has_to_match() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let sql = "SELECT count(*) FROM calls WHERE region = ? AND y = ?";
    let none: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
    for (sql, values, message) in [
        (sql, vec![], "values (0) does not match the number of parameters (2)"),
        (sql, vec![word("x")], "values (1) does not match the number of parameters (2)"),
        ("SELECT count(*) FROM calls WHERE y = ?", vec![none], "bind at least one row"),
        ("SELECT 1", vec![number(1)], "values (1) does not match the number of parameters (0)"),
        ("SELECT ?, $1", vec![number(1)], "mixes"),
        ("SELECT $2", vec![number(1)], "`$1` is missing"),
        ("SELECT $name", vec![number(1)], "named placeholder"),
    ] {
        let error = bound(&session, sql, values).await.expect_err(sql);
        assert_eq!(error.kind(), Kind::Invalid, "{sql}: {error:?}");
        assert!(error.message().contains(message), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn declared_schema_is_nullable_without_metadata() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    for (sql, columns, ordered) in [
        ("SELECT count(*), y FROM calls GROUP BY y", "count(*) Int64,y Int64", false),
        ("SELECT * FROM (SELECT 1 AS a) x, (SELECT 'x' AS a) y", "a Int64,a Utf8", false),
        ("SELECT 1 AS a, 'x' AS b, NULL AS c ORDER BY a", "a Int64,b Utf8,c Null", true),
        ("SELECT y AS n FROM calls ORDER BY event_time LIMIT 3", "n Int64", true),
        ("SELECT CAST(y AS VARCHAR) || 'x' AS s, upper(region) AS u FROM calls", "s Utf8,u Utf8", false),
        ("EXPLAIN SELECT 1", "plan_type Utf8,plan Utf8", false),
        ("SELECT y AS n FROM calls UNION ALL SELECT duration FROM calls", "n Float64", false),
    ] {
        let planned = session.plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let found = planned.schema.fields().iter().map(|field| {
            assert!(field.is_nullable() && field.metadata().is_empty(), "{sql}");
            format!("{} {}", field.name(), field.data_type())
        });
        assert_eq!(found.collect::<Vec<_>>().join(","), columns, "{sql}");
        assert_eq!(planned.ordered, ordered, "{sql}");
        let batches: Vec<_> = session.run(&planned, None).await.unwrap().batches.try_collect().await.unwrap();
        assert!(batches.iter().all(|batch: &RecordBatch| batch.schema() == planned.schema), "{sql}");
    }
}

#[tokio::test]
async fn error_names_the_exceeded_limit() {
    let big = "SELECT value FROM range(0, 100000000) ORDER BY value % 1000, value";
    let endless = "SELECT count(*) FROM range(0, 1000000000000) a CROSS JOIN range(0, 1000000) b";
    for (config, sql, limit) in [
        (QueryConfig { rows_max: 25, ..config() }, "SELECT * FROM calls", "query.rows_max"),
        (QueryConfig { memory_bytes_max: 1 << 20, ..config() }, big, "query.memory_bytes_max"),
        (QueryConfig { time_max: Duration::from_millis(50), ..config() }, endless, "query.time_max"),
        (QueryConfig { sql_bytes_max: 7, ..config() }, "SELECT 1", "query.sql_bytes_max"),
    ] {
        let engine = engine_with(config).await;
        let error = ask(&engine, &reader("acme").await, sql).await.expect_err(sql);
        assert_eq!(error.kind(), Kind::Limited, "{sql}: {error:?}");
        assert!(error.message().contains(limit), "{sql}: {error:?}");
        timeout(TIMEOUT, idle(&engine)).await.unwrap_or_else(|_| panic!("the slot was not freed: {sql}"));
    }
}

#[tokio::test]
async fn result_ends_after_exactly_rows_max_rows() {
    let engine = engine_with(QueryConfig { rows_max: 25, ..config() }).await;
    let session = engine.session(&reader("acme").await).unwrap();
    for (sql, rows, limited) in [("SELECT y FROM calls LIMIT 25", 25, false), ("SELECT y FROM calls", 25, true)] {
        let planned = session.plan(sql).await.unwrap();
        let batches: Vec<_> = session.run(&planned, None).await.unwrap().batches.collect().await;
        let found: usize = batches.iter().flatten().map(RecordBatch::num_rows).sum();
        assert_eq!((found, batches.iter().any(Result::is_err)), (rows, limited), "{sql}");
    }
}

#[tokio::test]
async fn result_size_of_functions_is_limited() {
    let engine = engine().await;
    let access = reader("acme").await;
    let seconds = "generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2030-01-01', INTERVAL '1 second')";
    for sql in [
        "repeat('x', 2000000000)",
        "repeat(secret, 2000000000) FROM calls",
        "lpad('x', 2000000000)",
        "rpad('x', 2000000000, 'yz')",
        "replace(repeat('a', 1000000), 'a', repeat('b', 1000000))",
        "regexp_replace(repeat('a', 1000000), 'a', repeat('b', 1000), 'g')",
        "range(0, 1000000000)",
        "generate_series(y, 10000000000) FROM calls",
        seconds,
        "array_repeat('x', 1000000000)",
        "list_repeat(y, 1000000000) FROM calls",
        "array_resize([1], 1000000000, 1)",
        "array_to_string(array_repeat('x', 100000), repeat('y', 10000))",
        "array_replace_all(array_repeat('x', 100000), 'x', repeat('y', 10000))",
        "concat_ws(repeat('x', 15000000), 'a', 'b', 'c', 'd')",
        "concat(repeat('x', 15000000), repeat('x', 15000000), repeat('x', 15000000))",
        "repeat('x', 15000000) || repeat('x', 15000000) || repeat('x', 15000000)",
        "[repeat('x', 15000000), repeat('x', 15000000), repeat('x', 15000000)]",
        "levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
        "length(s || s || s || s) FROM (SELECT s || s || s || s AS s FROM (SELECT repeat(event_id, 300000) AS s FROM calls LIMIT 2))",
    ] {
        let sql = format!("SELECT {sql}");
        let error = ask(&engine, &access, &sql).await.expect_err(&sql);
        assert_eq!(error.kind(), Kind::Limited, "{sql}: {error:?}");
    }
    for (sql, expected) in [
        ("repeat('ab', 3)", "ababab"),
        ("'a' || 'b' || 1", "ab1"),
        ("NULL || 'b'", "NULL"),
        ("concat('a', NULL, 'b')", "ab"),
        ("concat_ws('-', 'a', 'b')", "a-b"),
        ("lpad('x', 3, '.')", "..x"),
        ("replace('banana', 'an', 'o')", "booa"),
        ("regexp_replace('banana', '(a)n', '\\1N', 'g')", "baNaNa"),
        ("range(1, 4)", "[1, 2, 3]"),
        ("[1, 2] || [3]", "[1, 2, 3]"),
        ("array_to_string([1, 2], '+')", "1+2"),
        ("levenshtein('kitten', 'sitting')", "3"),
        ("length(regexp_replace(repeat('a', 100000), 'a', 'bb', 'g'))", "200000"),
    ] {
        let found =
            ask(&engine, &access, &format!("SELECT {sql}")).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(found, [[expected]], "{sql}");
    }
    let sql = "SELECT count(DISTINCT tenant || '-' || y), max(length(replace(repeat(event_id, 1000), '-', repeat('x', 100)))) FROM calls";
    assert_eq!(ask(&engine, &access, sql).await.unwrap(), [["7", "108000"]]);
}

#[tokio::test]
async fn only_the_caller_can_cancel_a_query() {
    let engine = engine().await;
    let (acme, coda) = (reader("acme").await, reader("coda").await);
    let session = engine.session(&acme).unwrap();
    let planned = session.plan("SELECT value FROM range(0, 1000000000000)").await.unwrap();
    let mut result = session.run(&planned, None).await.unwrap();
    assert!(result.batches.next().await.unwrap().is_ok());
    assert_eq!(engine.running(), 1);

    assert!(!engine.cancel(&coda, result.id));
    assert!(!engine.cancel(&acme, QueryId(uuid::Uuid::nil())));
    assert!(engine.cancel(&acme, result.id));
    assert_eq!(result.batches.next().await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert!(result.batches.next().await.is_none());
    assert_eq!(engine.running(), 0);
    assert!(!engine.cancel(&acme, result.id));
}

#[tokio::test]
async fn dropping_a_result_frees_its_slot() {
    let engine = engine_with(QueryConfig { tenant_queries_max: 1, tenant_queue_max: 0, ..config() }).await;
    let (acme, coda) = (reader("acme").await, reader("coda").await);
    let session = engine.session(&acme).unwrap();
    let planned = session.plan("SELECT value FROM range(0, 1000000000000)").await.unwrap();
    let mut result = session.run(&planned, None).await.unwrap();
    assert!(result.batches.next().await.unwrap().is_ok());

    let error = ask(&engine, &acme, "SELECT 1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limited);
    assert!(error.wait().is_some(), "{error:?}");
    assert_eq!(ask(&engine, &coda, "SELECT 1").await.unwrap(), [["1"]]);

    drop(result);
    timeout(Duration::from_secs(60), idle(&engine)).await.unwrap();
    assert_eq!(ask(&engine, &acme, "SELECT 1").await.unwrap(), [["1"]]);
}

#[tokio::test]
async fn statements_that_cannot_run_are_refused_when_they_are_planned() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    for (sql, kind) in [
        ("VALUES ((SELECT 1))", Kind::Unsupported),
        ("VALUES (count(1))", Kind::Unsupported),
        ("SELECT region FROM calls WHERE region ~ '('", Kind::Invalid),
        ("SELECT region FROM calls WHERE row_number() OVER () > 1", Kind::Unsupported),
        ("SELECT (SELECT x FROM (VALUES (c.region)) t(x)) FROM calls c", Kind::Unsupported),
        ("SELECT region FROM calls LIMIT (SELECT 1)", Kind::Unsupported),
        ("SELECT region FROM calls LIMIT -1", Kind::Invalid),
        ("SELECT upper(*) FROM calls", Kind::Unsupported),
        ("SELECT region BETWEEN 1 AND [1] FROM calls", Kind::Unsupported),
        ("SELECT lenght(region) FROM calls", Kind::Invalid),
    ] {
        let error = session.plan(sql).await.map(|_| sql).unwrap_err();
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        let jargon = ["Physical plan", "Internal error", "Arrow error", "DataFusion", " {"];
        assert!(!jargon.iter().any(|jargon| error.message().contains(jargon)), "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_first_run_uses_the_plan_that_was_built_when_planning() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let sql = "SELECT a.region, a.event_id FROM calls a JOIN calls b USING (event_id) ORDER BY 2 LIMIT 3";
    let planned = session.plan(sql).await.unwrap();
    let reusable = planned.reusable.clone().unwrap();
    let mut results = Vec::new();
    for _ in 0..3 {
        let batches: Vec<_> = session.run(&planned, None).await.unwrap().batches.try_collect().await.unwrap();
        results.push(text(&batches));
        assert!(reusable.take().is_none(), "a plan with a dynamic filter runs only once");
    }
    assert!(results[0].len() == 3 && results.iter().all(|rows| *rows == results[0]), "{results:?}");
}

#[tokio::test]
async fn a_query_whose_files_were_deleted_asks_for_a_retry() {
    let (engine, tables) = engine_with_own_tables().await;
    let access = reader("acme").await;
    let (sql, table) = ("SELECT count(*), sum(y) FROM calls", &tables["calls"]);
    let expected = ask(&engine, &access, sql).await.unwrap();
    table.location().0.objects.delete(&table.file_path(table.snapshot().files().next().unwrap())).await.unwrap();
    for sql in [sql, "SELECT * FROM calls", sql] {
        let error = ask(&engine, &access, sql).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
        assert!(error.message().contains("retry") && error.message().contains("rewritten"), "{error}");
    }
    assert_ne!(expected, [["0", "0"]]);
}
