//! One caller's view for one request: its tables, its plans, its answers.
//!
//! In: a statement, and values for its placeholders. Out: a [`Planned`] statement with the schema of its answer, and an
//! [`Answer`] in exactly that schema. A session lives as long as one request; its tables stand still meanwhile.
//!
//! **Invariant:** the schema told before running is the schema of every batch: same names and types, every column
//! nullable, no metadata. Nullability and metadata of a plan change between planning and running; a promise must not.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::catalog::TableProvider as _;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::clock::Micros;
use crate::contract::Contract;
use crate::error::{Error, Result, did_you_mean};
use crate::query::answer::{self, Deadline};
use crate::query::catalog::{SessionTables, catalogs};
use crate::query::engine::Engine;
use crate::query::error::of_engine;
use crate::query::opaque::Opaque;
use crate::query::table::TenantTable;
use crate::query::{QueryId, parameters, statement};
use crate::telemetry::QueryOutcome;
use crate::tenancy::Access;

/// Catalog name of all tables.
pub const CATALOG: &str = "glasshouse";
/// Schema name of all tables.
pub const SCHEMA: &str = "public";

/// A scoped session.
pub struct Session {
    engine: Arc<Engine>,
    access: Access,
    state: Opaque<SessionState>,
    tables: Arc<SessionTables>,
    started: Instant,
}

/// A checked, planned, read-only statement.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The logical plan with placeholders unbound.
    pub plan: Opaque<LogicalPlan>,
    /// The schema of the answer: what FlightInfo, GetSchema and the stream all say. Empty for statements without one.
    pub schema: SchemaRef,
    /// One field per placeholder, in order; the type inferred, or `Null` when it cannot be.
    pub parameters: Schema,
    /// Whether rows come in a stated order.
    pub ordered: bool,
}

/// A running answer. Dropping it stops the plan and frees its slot and memory.
pub struct Answer {
    /// Its name, for cancelling.
    pub id: QueryId,
    /// Batches in exactly [`Planned::schema`]; limits of time, rows and memory end it with `Limited`.
    pub batches: futures::stream::BoxStream<'static, Result<RecordBatch>>,
}

/// A table as this caller sees it.
#[derive(Debug, Clone)]
pub struct VisibleTable {
    /// Its name.
    pub name: String,
    /// Prose.
    pub description: String,
    /// Its visible columns; field metadata holds `comment` and `unit` when declared.
    pub schema: SchemaRef,
    /// The id column, when it is visible: unique among the rows that this caller sees.
    pub id: Option<String>,
}

impl Session {
    /// The tables that `access` may see, at their newest known snapshots.
    pub(super) fn new(engine: Arc<Engine>, access: Access) -> Result<Self> {
        let tenant = access.tenant()?;
        let mut tables = BTreeMap::new();
        for (name, table) in &*engine.tables {
            if let (Some(rules), Some(source)) = (access.rules(name), engine.source(name)) {
                let table = TenantTable::new(table, table.snapshot(), source.clone(), tenant, rules);
                tables.insert(name.clone(), Arc::new(table));
            }
        }
        let tables = Arc::new(tables);
        let mut state = SessionState::clone(&engine.template);
        state.register_catalog_list(catalogs(Arc::clone(&tables), Arc::clone(&engine.table_functions)));
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = DateTime::from_timestamp_micros(engine.clock.now());
        Ok(Self { engine, access, state: Opaque::new(state), tables, started: Instant::now() })
    }

    /// Parses, checks and plans one statement. Anything but a query is refused by its name.
    pub fn plan<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Planned>> {
        guarded(self.plan_statement(sql)).boxed()
    }

    async fn plan_statement(&self, sql: &str) -> Result<Planned> {
        let statement = statement::parse(sql, &self.engine.config)?;
        self.check_names(&statement)?;
        let plan = self.state.statement_to_plan(statement).await.map_err(|fault| self.fault(fault))?;
        statement::check_plan(&plan)?;
        let parameters = parameters::of_plan(&plan).map_err(|fault| self.fault(fault))?;
        let parameters = parameters::schema(&parameters)?;
        let schema = Arc::new(promised(&*self.analysed(&plan, &parameters)?, &parameters));
        Ok(Planned { schema, parameters, ordered: is_ordered(&plan), plan: Opaque::new(plan) })
    }

    /// The schema of a plan after type coercion, which may change types (`SELECT 1 UNION ALL SELECT 2.5`). With placeholders
    /// of unknown type it may be impossible; then the plan's own is the best there is.
    fn analysed(&self, plan: &LogicalPlan, parameters: &Schema) -> Result<DFSchemaRef> {
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
            return Ok(Arc::clone(plan.schema()));
        }
        match self.state.analyzer().execute_and_check(plan.clone(), self.state.config_options(), |_, _| {}) {
            Ok(analysed) => Ok(Arc::clone(analysed.schema())),
            Err(_) if parameters.fields().iter().any(|field| field.data_type().is_null()) => {
                Ok(Arc::clone(plan.schema()))
            }
            Err(fault) => Err(self.fault(fault)),
        }
    }

    /// Runs a planned statement; `parameters` holds one row of values (or no column), cast to the inferred types.
    /// Waits for a slot of the tenant first.
    pub fn run<'a>(
        &'a self,
        planned: &'a Planned,
        parameters: Option<&'a RecordBatch>,
    ) -> BoxFuture<'a, Result<Answer>> {
        self.run_planned(planned, parameters).boxed()
    }

    async fn run_planned(&self, planned: &Planned, parameters: Option<&RecordBatch>) -> Result<Answer> {
        self.access.check_expiry(self.engine.clock.now())?;
        let slot = self.engine.slots.take(self.access.tenant()?).await?;
        let ticket = self.engine.enter(&self.access, slot)?;
        match guarded(self.execute(planned, parameters)).await {
            Ok(batches) => {
                let deadline = Deadline::new(self.started, self.time_left(), &self.engine.config);
                Ok(answer::start(batches, Arc::clone(&planned.schema), deadline, ticket, self.engine.config.clone()))
            }
            Err(error) => {
                ticket.end(QueryOutcome::from(&error));
                Err(error)
            }
        }
    }

    async fn execute(&self, planned: &Planned, parameters: Option<&RecordBatch>) -> Result<SendableRecordBatchStream> {
        let values = parameters::bind(&planned.parameters, parameters)?;
        let mut plan = LogicalPlan::clone(&planned.plan);
        if !values.is_empty() {
            plan = plan.with_param_values(values).map_err(|fault| self.fault(fault))?;
            check_types(planned, &*self.analysed(&plan, &Schema::empty())?)?;
        }
        let physical = self.state.create_physical_plan(&plan).await.map_err(|fault| self.fault(fault))?;
        let context = TaskContext::from(&*self.state).with_runtime(self.engine.runtime());
        execute_stream(physical, Arc::new(context)).map_err(|fault| self.fault(fault))
    }

    /// What this caller can see, by name.
    pub fn tables(&self) -> Vec<VisibleTable> {
        self.tables
            .iter()
            .map(|(name, table)| {
                let contract = table.contract();
                let schema = table.schema();
                let fields = schema.fields().iter().map(|field| described(field, contract));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let id = &contract.columns[contract.id].name;
                let id = schema.field_with_name(id).is_ok().then(|| id.clone());
                VisibleTable { name: name.clone(), description: contract.description.clone(), schema, id }
            })
            .collect()
    }

    /// Names of SQL functions by kind (scalar, aggregate, window), for SqlInfo.
    pub fn functions(&self) -> Vec<(String, &'static str)> {
        let scalar = self.state.scalar_functions().keys().map(|name| (name.clone(), "scalar"));
        let aggregate = self.state.aggregate_functions().keys().map(|name| (name.clone(), "aggregate"));
        let window = self.state.window_functions().keys().map(|name| (name.clone(), "window"));
        let mut functions: Vec<_> = scalar.chain(aggregate).chain(window).collect();
        functions.sort();
        functions
    }

    /// Refuses a table that is not in this session, with the same words whether it exists for others or not.
    fn check_names(&self, statement: &Statement) -> Result<()> {
        let names = self.state.resolve_table_references(statement).map_err(|fault| self.fault(fault))?;
        for name in names {
            let known = self.state.schema_for_ref(name.clone()).is_ok_and(|schema| schema.table_exist(name.table()));
            if !known && self.state.table_functions().get(name.table()).is_none() {
                let near = match name {
                    TableReference::Bare { .. } => did_you_mean(name.table(), self.tables.keys().map(String::as_str)),
                    _ => String::new(),
                };
                return Err(Error::not_found(format!("unknown table `{name}`{near}")));
            }
        }
        Ok(())
    }

    /// Microseconds until the token expires.
    fn time_left(&self) -> Micros {
        self.access.expires().saturating_sub(self.engine.clock.now())
    }

    fn fault(&self, fault: DataFusionError) -> Error {
        of_engine(fault, &self.engine.config)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("access", &self.access).field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A step of the engine, of which a panic ends this request only.
async fn guarded<T>(step: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(step).catch_unwind().await.unwrap_or_else(|_| Err(Error::internal("planning the query panicked")))
}

/// The promised schema. A column that is nothing but an untyped placeholder is promised as text.
fn promised(schema: &DFSchema, parameters: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Null if !parameters.fields().is_empty() => DataType::Utf8,
            kind => kind.clone(),
        };
        Field::new(field.name(), kind, true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Values of unknown type may change the type of a column that depends on them: told, not cast in silence.
fn check_types(planned: &Planned, bound: &DFSchema) -> Result<()> {
    let original = planned.plan.schema().fields();
    for ((promised, original), bound) in planned.schema.fields().iter().zip(original).zip(bound.fields()) {
        if promised.data_type() != bound.data_type() && !original.data_type().is_null() {
            return Err(Error::invalid(format!(
                "the bound values make column `{}` a {} instead of a {}: give them a type, as in CAST($1 AS BIGINT)",
                promised.name(),
                bound.data_type(),
                promised.data_type()
            )));
        }
    }
    Ok(())
}

/// Whether the statement states an order of its rows.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Limit(limit) => is_ordered(&limit.input),
        LogicalPlan::Projection(projection) => is_ordered(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_ordered(&alias.input),
        _ => false,
    }
}

/// A visible column with its declared prose and unit.
fn described(field: &Field, contract: &Contract) -> Field {
    let Some(column) = contract.columns.iter().find(|column| column.name == *field.name()) else {
        return field.clone();
    };
    let told = [("comment", &column.description), ("unit", &column.unit)];
    let told = told.into_iter().filter(|(_, text)| !text.is_empty());
    field.clone().with_metadata(told.map(|(key, text)| (key.to_owned(), text.clone())).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::array::{ArrayRef, Float64Array, Int8Array, Int64Array, StringArray, TimestampMillisecondArray};
    use futures::{StreamExt as _, TryStreamExt as _};

    use super::*;
    use crate::config::QueryConfig;
    use crate::error::Kind;
    use crate::query::testing::{NEW_YEAR, ask, config, engine, engine_with, reader, text};

    fn row(values: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter(values.into_iter().enumerate().map(|(place, value)| (format!("{place}"), value)))
            .unwrap()
    }

    fn number(value: i64) -> ArrayRef {
        Arc::new(Int64Array::from(vec![value]))
    }

    fn word(value: &str) -> ArrayRef {
        Arc::new(StringArray::from(vec![value]))
    }

    async fn bound(session: &Session, sql: &str, values: Vec<ArrayRef>) -> Result<Vec<Vec<String>>> {
        let planned = session.plan(sql).await?;
        let values = if values.is_empty() { None } else { Some(row(values)) };
        let batches: Vec<_> = session.run(&planned, values.as_ref()).await?.batches.try_collect().await?;
        assert!(batches.iter().all(|batch: &RecordBatch| batch.schema() == planned.schema), "{sql}");
        Ok(text(&batches))
    }

    #[tokio::test]
    async fn parameters_are_typed_by_what_they_meet_and_bound_as_literals() {
        let engine = engine().await;
        let session = engine.session(&reader("acme").await).unwrap();
        let noon = (NEW_YEAR + 43_200_000_000) / 1_000;
        let moment: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![noon]).with_timezone("UTC"));
        for (sql, types, values, expected) in [
            ("SELECT count(*) FROM calls WHERE y = ?", "Int64", vec![number(3)], "6"),
            ("SELECT count(*) FROM calls WHERE y = $1", "Int64", vec![Arc::new(Int8Array::from(vec![3])) as _], "6"),
            ("SELECT count(*) FROM calls WHERE y = ?", "Int64", vec![word("3")], "6"),
            (
                "SELECT count(*) FROM calls WHERE y = ?",
                "Int64",
                vec![Arc::new(Float64Array::from(vec![3.0])) as _],
                "6",
            ),
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
    async fn parameters_that_do_not_fit_are_refused_with_their_ordinal() {
        let engine = engine().await;
        let session = engine.session(&reader("acme").await).unwrap();
        let sql = "SELECT count(*) FROM calls WHERE region = ? AND y = ?";
        let half: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        let two: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        for (sql, values, told) in [
            (sql, vec![], "2 parameters and 0 are bound"),
            (sql, vec![word("x")], "2 parameters and 1 are bound"),
            (sql, vec![word("x"), word("three")], "parameter 2: `three` (Utf8) does not fit Int64"),
            (sql, vec![word("x"), half], "parameter 2: `1.5` (Float64) does not fit Int64"),
            ("SELECT count(*) FROM calls WHERE y = ?", vec![two], "2 rows of parameters"),
            ("SELECT 1", vec![number(1)], "0 parameters and 1 are bound"),
            ("SELECT ?, $1", vec![number(1)], "mixed"),
            ("SELECT $2", vec![number(1)], "`$1` is missing"),
            ("SELECT $name", vec![number(1)], "has a name"),
        ] {
            let error = bound(&session, sql, values).await.expect_err(sql);
            assert_eq!(error.kind(), Kind::Invalid, "{sql}: {error:?}");
            assert!(error.message().contains(told), "{sql}: {error:?}");
        }
    }

    #[tokio::test]
    async fn the_promised_schema_is_nullable_and_plain() {
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
    async fn each_limit_is_met_with_its_name() {
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
            assert_eq!(engine.running(), 0, "{sql}");
        }
    }

    #[tokio::test]
    async fn an_answer_ends_after_exactly_as_many_rows_as_are_allowed() {
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
    async fn functions_that_grow_are_bounded() {
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
            let found = ask(&engine, &access, &format!("SELECT {sql}"))
                .await
                .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(found, [[expected]], "{sql}");
        }
        let sql = "SELECT count(DISTINCT tenant || '-' || y), max(length(replace(repeat(event_id, 1000), '-', repeat('x', 100)))) FROM calls";
        assert_eq!(ask(&engine, &access, sql).await.unwrap(), [["7", "108000"]]);
    }

    #[tokio::test]
    async fn only_its_caller_cancels_a_query() {
        let engine = engine().await;
        let (acme, coda) = (reader("acme").await, reader("coda").await);
        let session = engine.session(&acme).unwrap();
        let planned = session.plan("SELECT value FROM range(0, 1000000000000)").await.unwrap();
        let mut answer = session.run(&planned, None).await.unwrap();
        assert!(answer.batches.next().await.unwrap().is_ok());
        assert_eq!(engine.running(), 1);

        assert!(!engine.cancel(&coda, answer.id));
        assert!(!engine.cancel(&acme, QueryId(uuid::Uuid::nil())));
        assert!(engine.cancel(&acme, answer.id));
        assert_eq!(answer.batches.next().await.unwrap().unwrap_err().kind(), Kind::Cancelled);
        assert!(answer.batches.next().await.is_none());
        assert_eq!(engine.running(), 0);
        assert!(!engine.cancel(&acme, answer.id));
    }

    #[tokio::test]
    async fn a_dropped_answer_gives_back_its_slot() {
        let engine = engine_with(QueryConfig { tenant_queries_max: 1, tenant_queue_max: 0, ..config() }).await;
        let (acme, coda) = (reader("acme").await, reader("coda").await);
        let session = engine.session(&acme).unwrap();
        let planned = session.plan("SELECT value FROM range(0, 1000000000000)").await.unwrap();
        let mut answer = session.run(&planned, None).await.unwrap();
        assert!(answer.batches.next().await.unwrap().is_ok());

        let error = ask(&engine, &acme, "SELECT 1").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Limited);
        assert!(error.wait().is_some(), "{error:?}");
        assert_eq!(ask(&engine, &coda, "SELECT 1").await.unwrap(), [["1"]]);

        drop(answer);
        assert_eq!(engine.running(), 0);
        assert_eq!(ask(&engine, &acme, "SELECT 1").await.unwrap(), [["1"]]);
    }
}
