//! One caller's view for one request: its tables, its plans, its answers.
//!
//! In: a statement, and values for its placeholders. Out: a [`Planned`] statement with the schema of its answer, and an
//! [`ResultStream`] in exactly that schema. A session lives as long as one request; its tables stand still meanwhile.
//!
//! **Invariant:** the schema told before running is the schema of every batch: same names and types, every column
//! nullable, no metadata. Nullability and metadata of a plan change between planning and running; a promise must not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::catalog::TableProvider as _;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::clock::Micros;
use crate::contract::Contract;
use crate::error::{Error, Result, did_you_mean};
use crate::query::error::of_engine;
use crate::query::functions::freshness;
use crate::query::functions::freshness::FreshnessFunction;
use crate::query::request::catalog::{SessionTables, catalogs};
use crate::query::request::engine::Engine;
use crate::query::request::erased_plan::ErasedPlan;
use crate::query::request::plan_cache::{PlanKey, Ready};
use crate::query::request::result_stream::{self, QueryDeadline};
use crate::query::request::{parameters, statement};
use crate::query::scan::tenant_table::TenantTable;
use crate::query::{QueryId, engine_bugs};
use crate::supervise::catch_future;
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
    /// Made when it is first needed: a statement that was planned just before needs none.
    view: OnceLock<PlanningView>,
    started: Instant,
}

/// What a statement is planned in.
struct PlanningView {
    state: ErasedPlan<SessionState>,
    tables: Arc<SessionTables>,
}

/// What a statement reads from.
struct PlannedTable {
    tables: Vec<Arc<TenantTable>>,
    /// Whether a table function stands in it.
    has_function: bool,
}

/// A checked, planned, read-only statement.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The logical plan with placeholders unbound.
    pub plan: ErasedPlan<LogicalPlan>,
    /// The schema of the answer: what FlightInfo, GetSchema and the stream all say. Empty for statements without one.
    pub schema: SchemaRef,
    /// One field per placeholder, in order; the type inferred, or `Null` when it cannot be.
    pub parameters: Schema,
    /// Whether rows come in a stated order.
    pub ordered: bool,
    /// How it is run, when that is the same each time.
    pub ready: Option<Arc<Ready>>,
}

impl Planned {
    /// The names of what it reads, each once: tables, and what else stands where a table may.
    pub fn sources(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let walked = self.plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                names.insert(scan.table_name.table().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_or_else(|_| BTreeSet::new(), |_| names)
    }
}

/// A running answer. Dropping it stops the plan and frees its slot and memory.
pub struct ResultStream {
    /// Its name, for cancelling.
    pub id: QueryId,
    /// When its limit of time ends it. A reader that may stop reading has to be cut off then (see `flight/expiring.rs`).
    pub deadline: Instant,
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
    /// A session of a caller with a tenant.
    pub(in crate::query) fn new(engine: Arc<Engine>, access: Access) -> Result<Self> {
        access.tenant()?;
        Ok(Self { engine, access, view: OnceLock::new(), started: Instant::now() })
    }

    fn view(&self) -> &PlanningView {
        self.view.get_or_init(|| PlanningView::new(&self.engine, &self.access))
    }

    /// Parses, checks and plans one statement. Anything but a query is refused by its name.
    pub fn plan<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Planned>> {
        guarded(self.plan_statement(sql)).boxed()
    }

    async fn plan_statement(&self, sql: &str) -> Result<Planned> {
        let mut key = PlanKey::of(&self.access, sql);
        if let Some(planned) = key.and_then(|key| self.engine.plans.find(key)) {
            return Ok(planned);
        }
        let statement = statement::parse(sql, &self.engine.config)?;
        let PlannedTable { tables, has_function } = self.named(&statement)?;
        // Arguments of table functions are computed now: `generate_series(now(), …)` would stand still.
        key = key.filter(|_| !has_function);
        let plan = self.view().state.statement_to_plan(statement).await.map_err(|fault| self.fault(fault))?;
        statement::check_plan(&plan)?;
        engine_bugs::check(&plan)?;
        let parameters = parameters::of_plan(&plan).map_err(|fault| self.fault(fault))?;
        let parameters = parameters::schema(&parameters)?;
        let schema = Arc::new(promised(&*self.analysed(&plan, &parameters)?, &parameters));
        let (ordered, ready) = (is_ordered(&plan), Ready::of(&plan));
        let planned = Planned { schema, parameters, ordered, ready, plan: ErasedPlan::new(plan) };
        if let Some(key) = key {
            self.engine.plans.keep(key, planned.clone(), tables);
        }
        Ok(planned)
    }

    /// The schema of a plan after type coercion, which may change types (`SELECT 1 UNION ALL SELECT 2.5`). With placeholders
    /// of unknown type it may be impossible; then the plan's own is the best there is.
    fn analysed(&self, plan: &LogicalPlan, parameters: &Schema) -> Result<DFSchemaRef> {
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
            return Ok(Arc::clone(plan.schema()));
        }
        let state = &self.view().state;
        match state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}) {
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
    ) -> BoxFuture<'a, Result<ResultStream>> {
        self.run_planned(planned, parameters).boxed()
    }

    async fn run_planned(&self, planned: &Planned, parameters: Option<&RecordBatch>) -> Result<ResultStream> {
        self.access.check_expiry(self.engine.clock.now())?;
        let slot = self.engine.slots.take(self.access.tenant()?).await?;
        let ticket = self.engine.enter(&self.access, slot)?;
        match guarded(self.execute(planned, parameters)).await {
            Ok(batches) => {
                let deadline = QueryDeadline::new(self.started, self.time_left(), &self.engine.config);
                Ok(result_stream::start(
                    batches,
                    Arc::clone(&planned.schema),
                    deadline,
                    ticket,
                    self.engine.config.clone(),
                ))
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
        let physical = self.physical(planned, &plan).await.map_err(|fault| self.fault(fault))?;
        let task = Arc::new(self.engine.task(&physical));
        execute_stream(physical, task).map_err(|fault| self.fault(fault))
    }

    /// The plan to be run: a copy of the one made before, where there is one.
    async fn physical(&self, planned: &Planned, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        if let Some(copy) = planned.ready.as_ref().and_then(|ready| ready.copy()) {
            return copy;
        }
        let physical = self.view().state.create_physical_plan(plan).await?;
        match &planned.ready {
            Some(ready) => ready.keep(physical),
            None => Ok(physical),
        }
    }

    /// What this caller can see, by name.
    pub fn tables(&self) -> Vec<VisibleTable> {
        self.view()
            .tables
            .iter()
            .map(|(name, table)| {
                let contract = table.contract();
                let schema = table.schema();
                let fields = schema.fields().iter().map(|field| described(field, contract));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let id = &contract.columns[contract.id].name;
                let id = schema.field_with_name(id).is_ok().then(|| id.clone());
                let description = table.description().into_owned();
                VisibleTable { name: name.clone(), description, schema, id }
            })
            .collect()
    }

    /// Names of SQL functions by kind (scalar, aggregate, window), for SqlInfo.
    pub fn functions(&self) -> Vec<(String, &'static str)> {
        let state = &self.view().state;
        let scalar = state.scalar_functions().keys().map(|name| (name.clone(), "scalar"));
        let aggregate = state.aggregate_functions().keys().map(|name| (name.clone(), "aggregate"));
        let window = state.window_functions().keys().map(|name| (name.clone(), "window"));
        let mut functions: Vec<_> = scalar.chain(aggregate).chain(window).collect();
        functions.sort();
        functions
    }

    /// What a statement reads from. Refuses a table that is not in this session, with the same words whether it exists for
    /// others or not.
    fn named(&self, statement: &Statement) -> Result<PlannedTable> {
        let PlanningView { state, tables } = self.view();
        let names = state.resolve_table_references(statement).map_err(|fault| self.fault(fault))?;
        let mut named = PlannedTable { tables: Vec::with_capacity(names.len()), has_function: false };
        for name in names {
            let known = state.schema_for_ref(name.clone()).is_ok_and(|schema| schema.table_exist(name.table()));
            let is_function = state.table_functions().contains_key(name.table());
            if !known && !is_function {
                let near = match name {
                    TableReference::Bare { .. } => did_you_mean(name.table(), tables.keys().map(String::as_str)),
                    _ => String::new(),
                };
                return Err(Error::not_found(format!("unknown table `{name}`{near}")));
            }
            named.has_function |= is_function;
            named.tables.extend(tables.get(name.table()).cloned());
        }
        Ok(named)
    }

    /// Microseconds until the token expires.
    fn time_left(&self) -> Micros {
        self.access.expires().saturating_sub(self.engine.clock.now())
    }

    fn fault(&self, fault: DataFusionError) -> Error {
        of_engine(fault, &self.engine.config)
    }
}

impl PlanningView {
    /// The tables that `access` may see, at their newest known snapshots.
    fn new(engine: &Engine, access: &Access) -> Self {
        let (mut tables, mut watermarks) = (BTreeMap::new(), BTreeMap::new());
        for (name, table) in &*engine.tables {
            if let (Ok(tenant), Some(rules), Some(source)) = (access.tenant(), access.rules(name), engine.source(name))
            {
                // First: what it calls complete is in the snapshot then.
                let watermark = table.in_flight().watermark(&access.owner(), &engine.clock);
                let table = TenantTable::new(table, table.snapshot(), source.clone(), tenant, rules);
                let changes = table.changes(rules);
                for table in [table].into_iter().chain(changes) {
                    watermarks.insert(table.name().to_owned(), watermark);
                    tables.insert(table.name().to_owned(), Arc::new(table));
                }
            }
        }
        let tables = Arc::new(tables);
        let mut state = SessionState::clone(&engine.template);
        state.register_catalog_list(catalogs(Arc::clone(&tables), Arc::clone(&engine.table_functions)));
        state.register_udtf(freshness::NAME, Arc::new(FreshnessFunction::new(Arc::clone(&tables), watermarks)));
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = DateTime::from_timestamp_micros(engine.clock.now());
        Self { state: ErasedPlan::new(state), tables }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("access", &self.access).finish_non_exhaustive()
    }
}

impl fmt::Debug for ResultStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A step of the engine, of which a panic ends this request only.
async fn guarded<T>(step: impl Future<Output = Result<T>>) -> Result<T> {
    let panicked = |panic| Err(Error::internal("planning the query panicked").with_source(panic));
    catch_future(step).await.unwrap_or_else(panicked)
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
