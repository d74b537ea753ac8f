//! GetSqlInfo: reports the capabilities of this server. Each capability has a code in Flight SQL's `SqlInfo`.
//!
//! The result has one row for each requested code that the protocol defines. The row contains the value in the union
//! variant that `FlightSql.proto` specifies. The server has a value for every code that the protocol defines. ODBC and
//! JDBC drivers up to version 18.3 fail if a code is missing. The values describe the query engine and this read-only
//! server. The tests below check these values against the engine. A limit of 0 means that no limit is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, IntervalUnit, SchemaRef, TimeUnit};
use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
    SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction,
    SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

use super::error::metadata_error;
use super::function_groups::{DATETIME, NUMERIC, STRING, SYSTEM};
use crate::error::Result;

/// The value `ANSI92_ENTRY_SQL` of the enum `SupportedAnsi92SqlGrammarLevel`, which arrow-flight does not define.
const ANSI92_ENTRY: i32 = 0;
/// A code that the protocol does not define. A request for this code alone returns no rows.
const NO_CODE: u32 = u32::MAX;

/// The limits of this server that clients can query.
#[derive(Debug, Clone)]
pub(super) struct ServerLimits {
    /// The time for which a prepared handle is valid.
    pub(super) handle_age_max: Duration,
    /// The maximum size of a statement.
    pub(super) sql_bytes_max: usize,
    /// The maximum size of a row. A row must fit into one message.
    pub(super) row_bytes_max: usize,
}

/// Returns the schema of GetSqlInfo.
pub(super) fn schema() -> SchemaRef {
    SchemaRef::new(SqlInfoDataBuilder::schema().clone())
}

/// Returns the rows for the `wanted` codes, or all rows if `wanted` is empty. The result has no rows for unknown codes.
/// `functions` contains the name and kind of each function.
pub(super) fn batch(
    wanted: &[u32],
    functions: &[(String, &'static str)],
    server_limits: &ServerLimits,
) -> Result<RecordBatch> {
    let mut infos = SqlInfoDataBuilder::new();
    server(&mut infos, server_limits);
    names(&mut infos);
    function_names(&mut infos, functions);
    clauses(&mut infos);
    terms(&mut infos);
    limits(&mut infos, server_limits);
    transactions(&mut infos);
    results(&mut infos);
    // The codes are collected in a set, so repeating a code in a request does not make the result larger.
    let known = |code: &u32| i32::try_from(*code).is_ok_and(|code| SqlInfo::try_from(code).is_ok());
    let mut codes: BTreeSet<u32> = wanted.iter().copied().filter(known).collect();
    if codes.is_empty() && !wanted.is_empty() {
        codes.insert(NO_CODE);
    }
    infos.build().and_then(|data| data.record_batch(codes)).map_err(metadata_error)
}

fn server(infos: &mut SqlInfoDataBuilder, limits: &ServerLimits) {
    infos.append(SqlInfo::FlightSqlServerName, "Glasshouse");
    infos.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    infos.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    infos.append(SqlInfo::FlightSqlServerReadOnly, true); // for SQL; bulk ingestion adds events
    infos.append(SqlInfo::FlightSqlServerSql, true);
    infos.append(SqlInfo::FlightSqlServerSubstrait, false);
    infos.append(SqlInfo::FlightSqlServerSubstraitMinVersion, "");
    infos.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, "");
    infos.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    infos.append(SqlInfo::FlightSqlServerCancel, true);
    infos.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    infos.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    let handle_ms = i32::try_from(limits.handle_age_max.as_millis()).unwrap_or(i32::MAX);
    infos.append(SqlInfo::FlightSqlServerStatementTimeout, handle_ms);
    infos.append(SqlInfo::FlightSqlServerTransactionTimeout, 0);
}

fn names(infos: &mut SqlInfoDataBuilder) {
    infos.append(SqlInfo::SqlDdlCatalog, false);
    infos.append(SqlInfo::SqlDdlSchema, false);
    infos.append(SqlInfo::SqlDdlTable, false);
    // The server folds unquoted names to lower case. Quoted names are case-sensitive and keep their case. SqlInfo has
    // no value for this behavior.
    infos.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    infos.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    infos.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    infos.append(SqlInfo::SqlAllTablesAreSelectable, true);
    infos.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    infos.append(SqlInfo::SqlKeywords, ALL_KEYWORDS);
    infos.append(SqlInfo::SqlSearchStringEscape, "\\");
    infos.append(SqlInfo::SqlExtraNameCharacters, "#$@");
}

/// Adds the names of functions by group. A function is left out if the session does not have it.
fn function_names(infos: &mut SqlInfoDataBuilder, functions: &[(String, &'static str)]) {
    let present: BTreeSet<&str> = functions.iter().map(|(name, _)| name.as_str()).collect();
    for (code, group) in [
        (SqlInfo::SqlNumericFunctions, NUMERIC),
        (SqlInfo::SqlStringFunctions, STRING),
        (SqlInfo::SqlSystemFunctions, SYSTEM),
        (SqlInfo::SqlDatetimeFunctions, DATETIME),
    ] {
        let names: Vec<String> =
            group.iter().filter(|name| present.contains(*name)).map(|name| (*name).to_owned()).collect();
        infos.append(code, names);
    }
}

fn clauses(infos: &mut SqlInfoDataBuilder) {
    infos.append(SqlInfo::SqlSupportsColumnAliasing, true);
    infos.append(SqlInfo::SqlNullPlusNullIsNull, true);
    infos.append(SqlInfo::SqlSupportsConvert, conversions());
    infos.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    infos.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false); // true would mean that `t AS t` is invalid
    infos.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    infos.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by =
        [SqlSupportedGroupBy::SqlGroupByUnrelated as i32, SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32];
    infos.append(SqlInfo::SqlSupportedGroupBy, bits(&group_by));
    infos.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    infos.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    let grammar = [SupportedSqlGrammar::SqlMinimumGrammar as i32, SupportedSqlGrammar::SqlCoreGrammar as i32];
    infos.append(SqlInfo::SqlSupportedGrammar, bits(&grammar));
    infos.append(SqlInfo::SqlAnsi92SupportedLevel, bits(&[ANSI92_ENTRY]));
    infos.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    // The protocol specifies a single enum value for this code, but JDBC expects a bitmask. The Java server of the
    // Arrow project also sends a bitmask.
    let joins =
        [SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32, SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32];
    infos.append(SqlInfo::SqlOuterJoinsSupportLevel, bits(&joins));
    // The list does not contain quantified comparisons, because the engine can plan only some of their subqueries.
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
    ];
    infos.append(SqlInfo::SqlSupportedSubqueries, bits(&subqueries));
    infos.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions = [SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32];
    infos.append(SqlInfo::SqlSupportedUnions, bits(&unions));
}

fn terms(infos: &mut SqlInfoDataBuilder) {
    infos.append(SqlInfo::SqlSchemaTerm, "schema");
    infos.append(SqlInfo::SqlProcedureTerm, "procedure");
    infos.append(SqlInfo::SqlCatalogTerm, "catalog");
    infos.append(SqlInfo::SqlCatalogAtStart, true);
    // The following codes describe procedure calls, indexes, grants, and statements that change rows. The server
    // supports none of these.
    infos.append(SqlInfo::SqlSchemasSupportedActions, 0);
    infos.append(SqlInfo::SqlCatalogsSupportedActions, 0);
    infos.append(SqlInfo::SqlSupportedPositionedCommands, 0);
    infos.append(SqlInfo::SqlSelectForUpdateSupported, false);
    infos.append(SqlInfo::SqlStoredProceduresSupported, false);
    infos.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

fn limits(infos: &mut SqlInfoDataBuilder, limits: &ServerLimits) {
    let bound = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    infos.append(SqlInfo::SqlMaxStatementLength, bound(limits.sql_bytes_max));
    infos.append(SqlInfo::SqlMaxRowSize, bound(limits.row_bytes_max));
    infos.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
    for unbounded in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        infos.append(unbounded, 0_i64);
    }
}

fn transactions(infos: &mut SqlInfoDataBuilder) {
    let none = SqlTransactionIsolationLevel::SqlTransactionNone as i32;
    // The protocol specifies a 32-bit enum value for this code, but JDBC expects a 64-bit integer.
    infos.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(none));
    infos.append(SqlInfo::SqlTransactionsSupported, false);
    infos.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits(&[none]));
    infos.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    infos.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    infos.append(SqlInfo::SqlSavepointsSupported, false);
}

fn results(infos: &mut SqlInfoDataBuilder) {
    let forward = bits(&[SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]);
    infos.append(SqlInfo::SqlSupportedResultSetTypes, forward);
    let read_only = bits(&[SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, read_only);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0);
    infos.append(SqlInfo::SqlBatchUpdatesSupported, false);
    infos.append(SqlInfo::SqlNamedParametersSupported, false);
    infos.append(SqlInfo::SqlLocatorsUpdateCopy, false);
}

/// Returns a bitmask in which the bits whose numbers are in `ordinals` are set.
fn bits(ordinals: &[i32]) -> i32 {
    ordinals.iter().fold(0, |mask, ordinal| mask | 1 << ordinal)
}

/// Returns, for each type, the types to which the engine can cast it.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as To;
    let types = [
        (To::SqlConvertBigint, DataType::Int64),
        (To::SqlConvertBinary, DataType::Binary),
        (To::SqlConvertBit, DataType::Boolean),
        (To::SqlConvertChar, DataType::Utf8),
        (To::SqlConvertDate, DataType::Date32),
        (To::SqlConvertDecimal, DataType::Decimal128(38, 10)),
        (To::SqlConvertFloat, DataType::Float64),
        (To::SqlConvertInteger, DataType::Int32),
        (To::SqlConvertIntervalDayTime, DataType::Interval(IntervalUnit::MonthDayNano)),
        (To::SqlConvertIntervalYearMonth, DataType::Interval(IntervalUnit::MonthDayNano)),
        (To::SqlConvertLongvarbinary, DataType::Binary),
        (To::SqlConvertLongvarchar, DataType::Utf8),
        (To::SqlConvertNumeric, DataType::Decimal128(38, 10)),
        (To::SqlConvertReal, DataType::Float32),
        (To::SqlConvertSmallint, DataType::Int16),
        (To::SqlConvertTime, DataType::Time64(TimeUnit::Microsecond)),
        (To::SqlConvertTimestamp, DataType::Timestamp(TimeUnit::Nanosecond, None)),
        (To::SqlConvertTinyint, DataType::Int8),
        (To::SqlConvertVarbinary, DataType::Binary),
        (To::SqlConvertVarchar, DataType::Utf8),
    ];
    let targets = |from: &DataType| {
        types.iter().filter(|(_, to)| can_cast_types(from, to)).map(|(code, _)| *code as i32).collect()
    };
    types.iter().map(|(code, from)| (*code as i32, targets(from))).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, UInt32Array};
    use arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    use super::*;

    fn rows(wanted: &[u32]) -> RecordBatch {
        let limits = ServerLimits {
            handle_age_max: Duration::from_secs(3600),
            sql_bytes_max: 1_000_000,
            row_bytes_max: 4 << 20,
        };
        let functions = [("abs".to_owned(), "scalar"), ("now".to_owned(), "scalar"), ("sum".to_owned(), "aggregate")];
        let batch = batch(wanted, &functions, &limits).unwrap();
        assert_eq!(batch.schema(), schema());
        batch
    }

    fn codes(batch: &RecordBatch) -> Vec<u32> {
        batch.column(0).as_any().downcast_ref::<UInt32Array>().unwrap().values().to_vec()
    }

    #[test]
    fn every_code_has_a_row_with_the_right_union_variant() {
        let batch = rows(&[]);
        let expected: Vec<u32> = (0..=11).chain(100..=101).chain(500..=576).collect();
        assert_eq!(codes(&batch), expected);
        let union = batch.column(1).as_union();
        let arm = |code: u32| match code {
            0..=2 | 6..=7 | 504 | 513..=514 | 529..=531 => 0,
            541..=555 | 557..=562 => 2,
            8 | 100..=101 | 503 | 505 | 507 | 522 | 525..=526 | 528 | 533..=535 | 538 | 540 | 564 | 567..=571 => 3,
            508..=512 => 4,
            517 => 5,
            _ => 1,
        };
        for (row, code) in expected.iter().enumerate() {
            assert_eq!(union.type_id(row), arm(*code), "code {code}");
            assert!(union.value(row).is_valid(0), "code {code}");
        }
    }

    #[test]
    fn requested_codes_have_one_row_and_unknown_codes_none() {
        for (wanted, expected) in [
            (&[8][..], &[8][..]),
            (&[504, 3, 3, 999], &[3, 504]),
            (&[12, 577, 10_000, u32::MAX], &[]),
            (&[557], &[557]),
        ] {
            assert_eq!(codes(&rows(wanted)), expected, "{wanted:?}");
        }
        let row = rows(&[557]).column(1).as_union().value(0);
        assert_eq!(row.as_primitive::<Int64Type>().value(0), 1_000_000);
    }

    #[test]
    fn functions_match_the_session() {
        let batch = rows(&[509, 510, 512]);
        let lists: Vec<Vec<String>> = (0..3)
            .map(|row| {
                let value = batch.column(1).as_union().value(row);
                value.as_list::<i32>().value(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
            })
            .collect();
        assert_eq!(lists, [vec!["abs"], vec![], vec!["now"]]);
    }

    #[test]
    fn conversions_are_reflexive_and_selective() {
        let map = conversions();
        assert_eq!(map.len(), 20);
        assert!(map.iter().all(|(from, to)| to.contains(from)));
        let bit = SqlSupportsConvert::SqlConvertBit as i32;
        assert!(!map[&(SqlSupportsConvert::SqlConvertDate as i32)].contains(&bit));
    }

    /// Checks the reported properties of the SQL dialect against the engine. Each statement must return a single row
    /// that contains `true`.
    #[tokio::test]
    async fn claims_match_the_engine() {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t AS VALUES (1, 'a'), (2, NULL)").await.unwrap();
        for (claim, sql) in [
            ("503 unquoted names fold to lower case", "SELECT A = 1 FROM (SELECT 1 AS a)"),
            ("504 quoted names", "SELECT \"A\" = 1 FROM (SELECT 1 AS \"A\", 2 AS a)"),
            ("507 nulls are sorted high", "SELECT column2 IS NULL FROM t ORDER BY column2 DESC LIMIT 1"),
            ("513 search escape", r"SELECT 'a_b' LIKE 'a\_b' AND NOT 'axb' LIKE 'a\_b'"),
            ("514 extra name characters", "SELECT a#b$c@d = 1 FROM (SELECT 1 AS a#b$c@d)"),
            ("516 null in a concatenation", "SELECT (NULL || 'a') IS NULL"),
            ("519 a correlation name like the table's", "SELECT t.column1 = 1 FROM t AS t LIMIT 1"),
            ("520 expressions in ORDER BY", "SELECT column1 = 2 FROM t ORDER BY 0 - column1 LIMIT 1"),
            ("521 ORDER BY a column not selected", "SELECT column2 IS NULL FROM t ORDER BY column1 DESC LIMIT 1"),
            ("522 GROUP BY a column not selected", "SELECT count(*) = 1 FROM t GROUP BY column1 LIMIT 1"),
            ("523 LIKE with ESCAPE", r"SELECT 'a%' LIKE 'a\%' ESCAPE '\'"),
            ("528 full outer joins", "SELECT count(*) = 3 FROM t FULL JOIN t AS u ON t.column1 = u.column1 + 1"),
            ("538 comparison", "SELECT (SELECT max(column1) FROM t) = 2"),
            (
                "538 exists",
                "SELECT count(*) = 2 FROM t WHERE EXISTS (SELECT 1 FROM t AS u WHERE u.column1 = t.column1)",
            ),
            ("538 in", "SELECT count(*) = 2 FROM t WHERE column1 IN (SELECT column1 FROM t)"),
            ("540 union", "SELECT count(*) = 2 FROM (SELECT column1 FROM t UNION SELECT column1 FROM t)"),
            ("540 union all", "SELECT count(*) = 4 FROM (SELECT column1 FROM t UNION ALL SELECT column1 FROM t)"),
        ] {
            let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{claim}: {error}"));
            let batches = frame.collect().await.unwrap_or_else(|error| panic!("{claim}: {error}"));
            let answer = batches.iter().find(|batch| batch.num_rows() > 0).expect(claim);
            assert!(answer.column(0).as_boolean().value(0), "{claim}");
        }
    }

    /// Checks that each name in the groups is a function of the engine. The test fails if a new version of the engine
    /// renames a function.
    #[test]
    fn grouped_functions_exist_in_the_engine() {
        let state = SessionContext::new().state();
        let known: BTreeSet<&str> = state
            .scalar_functions()
            .values()
            .flat_map(|function| {
                function.aliases().iter().map(String::as_str).chain([function.name()]).collect::<Vec<_>>()
            })
            .collect();
        let unknown: Vec<_> =
            [NUMERIC, STRING, SYSTEM, DATETIME].concat().into_iter().filter(|name| !known.contains(name)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }
}
