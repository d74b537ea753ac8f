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
