//! Tests of bound parameters. Binding a value must give the same result as writing the value as a literal.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, IntervalMonthDayNano, TimeUnit};
use futures::TryStreamExt as _;

use crate::error::{Kind, Result};
use crate::query::Session;
use crate::query::testing::{engine, reader, text};

/// Runs a statement for each value in a column of bound values. Returns the type of the first result column, and all
/// result rows.
async fn bound(session: &Session, sql: &str, values: ArrayRef) -> Result<(DataType, Vec<Vec<String>>)> {
    let planned = session.plan(sql).await?;
    let rows = RecordBatch::try_from_iter_with_nullable([("0", values, true)]).unwrap();
    let planned = session.bind(&planned, &rows).await?;
    let batches: Vec<_> = session.run(&planned, None).await?.batches.try_collect().await?;
    assert!(batches.iter().all(|batch| batch.schema() == planned.schema), "{sql}");
    Ok((planned.schema.field(0).data_type().clone(), text(&batches)))
}

async fn literal(session: &Session, sql: &str) -> Result<(DataType, Vec<Vec<String>>)> {
    let planned = session.plan(sql).await?;
    let batches: Vec<_> = session.run(&planned, None).await?.batches.try_collect().await?;
    Ok((planned.schema.field(0).data_type().clone(), text(&batches)))
}

fn int32(value: i32) -> ArrayRef {
    Arc::new(Int32Array::from(vec![value]))
}

fn int64(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn double(value: f64) -> ArrayRef {
    Arc::new(Float64Array::from(vec![value]))
}

fn words(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

/// Returns an array with the timestamp 2024-01-01 12:34:56 UTC, in the given unit and time zone.
fn moment(unit: TimeUnit, zone: Option<&str>) -> ArrayRef {
    let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1_704_112_496]).with_timezone("UTC"));
    let utc = cast(&seconds, &DataType::Timestamp(unit, Some("UTC".into()))).unwrap();
    cast(&utc, &DataType::Timestamp(unit, zone.map(Into::into))).unwrap()
}

fn hour() -> ArrayRef {
    let hour = IntervalMonthDayNano::new(0, 0, 3_600_000_000_000);
    Arc::new(IntervalMonthDayNanoArray::from(vec![hour]))
}

/// Returns values of all types and their SQL literals.
fn values() -> Vec<(ArrayRef, String)> {
    let mut values: Vec<(ArrayRef, String)> = vec![
        (int64(5), "5".to_owned()),
        (int64(0), "0".to_owned()),
        (int64(-7), "(-7)".to_owned()),
        (int64(1_704_110_400), "1704110400".to_owned()),
        (int64(i64::MAX), i64::MAX.to_string()),
        (double(5.5), "CAST(5.5 AS DOUBLE)".to_owned()),
        (double(0.1), "CAST(0.1 AS DOUBLE)".to_owned()),
        (words("abc"), "'abc'".to_owned()),
        (words("5"), "'5'".to_owned()),
        (words("2026-01-02"), "'2026-01-02'".to_owned()),
        (Arc::new(LargeStringArray::from(vec!["abc"])), "'abc'".to_owned()),
        (Arc::new(StringViewArray::from(vec!["abc"])), "'abc'".to_owned()),
        (Arc::new(["abc"].into_iter().collect::<DictionaryArray<Int32Type>>()), "'abc'".to_owned()),
        (Arc::new(BooleanArray::from(vec![true])), "TRUE".to_owned()),
        (Arc::new(Date32Array::from(vec![19_753])), "DATE '2024-01-31'".to_owned()),
        (Arc::new(BinaryArray::from(vec![&[1_u8, 2][..]])), "X'0102'".to_owned()),
        (Arc::new(BinaryViewArray::from(vec![&[1_u8, 2][..]])), "X'0102'".to_owned()),
        (Arc::new(NullArray::new(1)), "NULL".to_owned()),
        (hour(), "INTERVAL '1 hour'".to_owned()),
        (Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])])), {
            "arrow_cast(make_array(1), 'List(Int32)')".to_owned()
        }),
        (
            Arc::new(StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int64, true)), int64(1))])),
            "named_struct('a', 1)".to_owned(),
        ),
    ];
    values.extend(typed_values());
    values
}

/// Returns values of types for which SQL has no literals.
fn typed_values() -> Vec<(ArrayRef, String)> {
    let as_type = |text: &str, kind: &DataType| format!("arrow_cast({text}, '{kind}')");
    let mut values = Vec::new();
    for kind in [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Decimal128(9, 2),
        DataType::Decimal256(50, 2),
    ] {
        values.push((cast(&int64(5), &kind).unwrap(), as_type("5", &kind)));
        if kind.is_floating() {
            values.push((new_null_array(&kind, 1), as_type("NULL", &kind)));
        }
    }
    let tenth = cast(&double(0.1), &DataType::Float32).unwrap();
    values.push((tenth, as_type("0.1", &DataType::Float32)));
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        for (zone, wall) in [(None, "12:34:56"), (Some("UTC"), "12:34:56Z"), (Some("+02:00"), "14:34:56+02:00")] {
            let value = moment(unit, zone);
            let sql = as_type(&format!("'2024-01-01T{wall}'"), value.data_type());
            values.push((value, sql));
        }
        let duration = cast(&int64(7), &DataType::Duration(unit)).unwrap();
        let sql = as_type("7", duration.data_type());
        values.push((duration, sql));
    }
    for kind in [DataType::Time32(TimeUnit::Millisecond), DataType::Time64(TimeUnit::Nanosecond), DataType::Date64] {
        let at = cast(&moment(TimeUnit::Nanosecond, None), &kind).unwrap();
        let given = if kind == DataType::Date64 { "'2024-01-01'" } else { "'12:34:56'" };
        let at = if kind == DataType::Date64 { cast(&words("2024-01-01"), &kind).unwrap() } else { at };
        values.push((at, as_type(given, &kind)));
    }
    values
}

/// Statements with `{}` in place of a literal or a placeholder.
const STATEMENTS: [&str; 40] = [
    "SELECT {} AS x",
    "SELECT -{} AS x",
    "SELECT {} / 2 AS x",
    "SELECT {} + 1 AS x",
    "SELECT 7 / {} AS x",
    "SELECT max({}) AS x",
    "SELECT sum({}) AS x",
    "SELECT coalesce(NULL, {}) AS x",
    "SELECT upper({}) AS x",
    "SELECT substr({}, 1, 2) AS x",
    "SELECT split_part({}, 'b', 1) AS x",
    "SELECT {} || 'x' AS x",
    "SELECT abs({}) AS x",
    "SELECT round({}) AS x",
    "SELECT CAST({} AS TIMESTAMP) AS x",
    "SELECT CAST({} AS BIGINT) AS x",
    "SELECT CAST({} AS DATE) AS x",
    "SELECT CAST({} AS VARCHAR) AS x",
    "SELECT date_trunc('hour', {}) AS x",
    "SELECT extract(year FROM {}) AS x",
    "SELECT {} IS NULL AS x",
    "SELECT make_array({}, NULL) AS x",
    "SELECT CASE WHEN count(*) > 0 THEN {} END AS x FROM calls",
    "SELECT y + {} AS x FROM calls WHERE event_id = 'acme-1'",
    "SELECT sum(y) / {} AS x FROM calls",
    "SELECT max(event_time) - {} AS x FROM calls",
    "SELECT max(event_time) + {} AS x FROM calls",
    "SELECT max(event_date) - {} AS x FROM calls",
    "SELECT i32 + {} AS x FROM (SELECT arrow_cast(5, 'Int32') AS i32)",
    "SELECT count(*) AS x FROM (SELECT arrow_cast(0.1, 'Float32') AS f32) WHERE f32 = {}",
    "SELECT count(*) AS x FROM (SELECT arrow_cast(5, 'Int32') AS i32) WHERE i32 > {}",
    "SELECT count(*) AS x FROM calls WHERE y IN (1, {})",
    "SELECT count(*) AS x FROM calls WHERE y BETWEEN 1 AND {}",
    "SELECT count(*) AS x FROM calls WHERE duration > {}",
    "SELECT count(*) AS x FROM calls WHERE region = {}",
    "SELECT count(*) AS x FROM calls WHERE region LIKE {}",
    "SELECT count(*) AS x FROM calls WHERE event_time > {}",
    "SELECT count(*) AS x FROM calls WHERE event_time > now() - {}",
    "SELECT count(*) AS x FROM calls WHERE event_date = {}",
    "SELECT y AS x FROM calls UNION ALL SELECT {} ORDER BY 1 LIMIT 3",
];

#[tokio::test]
async fn binding_a_value_equals_writing_a_literal() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let (mut equal, mut refused, mut different) = (0, 0, Vec::new());
    for statement in STATEMENTS {
        for (value, sql) in values() {
            let kind = value.data_type().clone();
            let expected = literal(&session, &statement.replace("{}", &sql)).await;
            let found = bound(&session, &statement.replace("{}", "$1"), value).await;
            match (&expected, &found) {
                (Ok(expected), Ok(found)) if expected == found => equal += 1,
                (Err(_), Err(error)) if error.kind() != Kind::Internal => refused += 1,
                _ => different.push(format!("{statement} {kind} {sql}: {expected:?}, but {found:?}")),
            }
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    // For each type, about a third of the statements are valid.
    assert!(equal > 700, "{equal} of {} are valid", equal + refused);
}

#[tokio::test]
async fn a_bound_value_keeps_its_type() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let noon: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_704_110_400_000_000]).with_timezone("+02:00"));
    for (sql, value, expected) in [
        ("SELECT $1 / 2", double(5.0), "2.5"),
        ("SELECT i / $1 FROM (SELECT arrow_cast(5, 'Int32') AS i)", double(2.0), "2.5"),
        ("SELECT sum(i) / $1 FROM (SELECT arrow_cast(5, 'Int32') AS i)", double(2.0), "2.5"),
        ("SELECT i + $1 FROM (SELECT arrow_cast(5, 'Int32') AS i)", int64(2_147_483_647), "2147483652"),
        ("SELECT CAST($1 AS TIMESTAMP)", int64(1_704_110_400), "2024-01-01T12:00:00"),
        ("SELECT count(*) FROM (SELECT arrow_cast(0.1, 'Float32') AS f) WHERE f = $1", double(0.1), "0"),
        ("SELECT $1", double(1.5), "1.5"),
        ("SELECT -$1", int32(4), "-4"),
        ("SELECT max($1)", int64(4), "4"),
        ("SELECT coalesce(NULL, $1)", int64(4), "4"),
        ("SELECT upper($1)", words("a"), "A"),
        ("SELECT substr($1, 2)", words("abc"), "bc"),
        ("SELECT split_part($1, '-', 2)", words("a-b"), "b"),
        ("SELECT abs($1)", int64(-4), "4"),
        ("SELECT count(*) FROM calls WHERE y > $1", double(5.5), "5"),
        ("SELECT count(*) FROM (SELECT arrow_cast(5, 'Int32') AS i) WHERE i < $1", int64(3_000_000_000), "1"),
        ("SELECT CAST($1 AS DATE)", moment(TimeUnit::Microsecond, None), "2024-01-01"),
        ("SELECT CAST($1 AS TIMESTAMP)", noon, "2024-01-01T12:00:00"),
        ("SELECT TIMESTAMP '2024-01-01 12:00:00' - $1", hour(), "2024-01-01T11:00:00"),
        ("SELECT count(*) > 0 FROM calls WHERE event_time < now() - $1", hour(), "true"),
        // Here, SQL allows only a literal, or interprets an integer literal as the position of a column.
        ("SELECT date_part($1, TIMESTAMP '2024-01-31 12:00:00')", words("day"), "31"),
        ("SELECT count(*) FROM generate_series(1, $1)", int64(4), "4"),
        ("SELECT count(*) FROM (SELECT y FROM calls LIMIT $1)", int32(4), "4"),
        ("SELECT count(*) FROM (SELECT max(y) FROM calls GROUP BY $1)", int64(1), "1"),
        ("SELECT max(y) FROM calls GROUP BY ($1)", int64(1), "6"),
        ("SELECT count(*) FROM (SELECT y FROM calls ORDER BY $1)", int64(9), "40"),
        // Here, a value is used more than once or in a subquery.
        ("SELECT a + b FROM (SELECT $1 AS a, $1 AS b)", int64(2), "4"),
        ("SELECT (SELECT $1) + (SELECT max($1))", int64(2), "4"),
        ("WITH t AS (SELECT $1 AS x) SELECT count(*) FROM calls JOIN t ON y = x", int64(3), "6"),
        ("SELECT count(*) FROM calls WHERE y = $1 AND arrow_cast(y, 'Int32') = $1", int64(3), "6"),
    ] {
        let found = bound(&session, sql, value).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(found.1, [[expected]], "{sql}");
    }
    let error = bound(&session, "SELECT count(*) FROM calls WHERE event_time > $1", int64(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
}

#[tokio::test]
async fn names_of_columns_do_not_depend_on_values() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let row = RecordBatch::try_from_iter([("0", int64(5)), ("1", int64(5))]).unwrap();
    for (sql, names) in [
        ("SELECT ?, ?", vec!["$1", "$2"]),
        ("SELECT ? / 2, abs(?)", vec!["$1 / 2", "abs($2)"]),
        ("SELECT y + ? FROM calls GROUP BY y + ?", vec!["y + $1"]),
        ("SELECT * FROM (SELECT ?, ?)", vec!["$1", "$2"]),
        ("SELECT DISTINCT ?, ?", vec!["$1", "$2"]),
    ] {
        let planned = session.plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let bound = session.bind(&planned, &row).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        for planned in [planned, bound] {
            let found: Vec<_> = planned.schema.fields().iter().map(|field| field.name().clone()).collect();
            assert_eq!(found, names, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_statement_runs_once_for_each_row_of_parameters() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None, Some(1), Some(3)]));
    let (_, found) = bound(&session, "SELECT $1, count(*) FROM calls WHERE y = $1", numbers).await.unwrap();
    assert_eq!(found, [["3", "6"], ["NULL", "0"], ["1", "6"], ["3", "6"]]);
    let fields =
        [(0, Arc::new(Field::new("i", DataType::Int64, true))), (1, Arc::new(Field::new("t", DataType::Utf8, true)))];
    let union = |types: Vec<i8>| -> ArrayRef {
        let offsets = types.iter().map(|_| 0).collect::<Vec<i32>>().into();
        let children = vec![int64(4), words("x")];
        Arc::new(
            UnionArray::try_new(fields.clone().into_iter().collect(), types.into(), Some(offsets), children).unwrap(),
        )
    };
    assert_eq!(bound(&session, "SELECT $1", union(vec![0])).await.unwrap(), (DataType::Int64, vec![vec!["4".into()]]));
    assert_eq!(bound(&session, "SELECT $1", union(vec![1])).await.unwrap(), (DataType::Utf8, vec![vec!["x".into()]]));
    let error = bound(&session, "SELECT $1", union(vec![0, 1])).await.unwrap_err();
    let expected =
        "with row 2 of the parameters, column `$1` has type Utf8 instead of Int64: bind values of the same type";
    assert_eq!((error.kind(), error.message()), (Kind::Invalid, expected));
}

#[tokio::test]
async fn large_values_that_are_used_often_are_refused() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    let list = vec!["$1"; 1_000].join(", ");
    let sql = format!("SELECT count(*) FROM calls WHERE region IN ({list})");
    let error = bound(&session, &sql, words(&"x".repeat(100_000))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limited, "{error:?}");
    assert_eq!(bound(&session, &sql, words("x")).await.unwrap().1, [["0"]]);
}

#[tokio::test]
async fn nothing_is_announced_for_a_parameter_that_may_have_several_types() {
    let engine = engine().await;
    let session = engine.session(&reader("acme").await).unwrap();
    for (sql, types) in [
        ("SELECT $1", "Null"),
        ("SELECT $1 / 2", "Int64"),
        ("SELECT event_time - $1 FROM calls", "Null"),
        ("SELECT count(*) FROM calls WHERE event_time > now() - $1", "Null"),
        ("SELECT count(*) FROM calls WHERE event_time > $1", "Timestamp(µs, \"UTC\")"),
        ("SELECT count(*) FROM calls WHERE y = $1 OR region = $1", "Null"),
        ("SELECT count(*) FROM calls WHERE y = $1 OR duration > $2", "Int64,Float64"),
        ("SELECT date_part($1, event_time) FROM calls", "Null"),
        ("SELECT CAST($1 AS INT)", "Int32"),
        ("SELECT sum($1)", "Null"),
        ("SELECT max(event_time) + $1 FROM calls", "Null"),
    ] {
        let planned = session.plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let found: Vec<_> = planned.parameters.fields().iter().map(|field| field.data_type().to_string()).collect();
        assert_eq!(found.join(","), types, "{sql}");
    }
}
