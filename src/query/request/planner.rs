//! Plans the statements of one caller: its tables, the checks, and the declared result schema.
//!
//! In: SQL text or a logical plan, and values for its placeholders. Out: a [`Planned`] statement, and later the stream
//! of its rows. Everything in this file runs on the query runtime.
//!
//! **Invariant:** SQL text and logical plans pass the same checks: the checks that security depends on run on the plan.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use chrono::DateTime;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement;
use tokio::time::Instant;

use crate::clock::Micros;
use crate::error::{Error, Result, did_you_mean};
use crate::query::engine_bugs;
use crate::query::error::of_engine;
use crate::query::functions::freshness;
use crate::query::functions::freshness::FreshnessFunction;
use crate::query::request::catalog::{SessionTables, catalogs};
use crate::query::request::engine::{Engine, QueryTicket};
use crate::query::request::erased_plan::ErasedPlan;
use crate::query::request::logical_plan::Names;
use crate::query::request::plan_cache::{PlanKey, Ready};
use crate::query::request::plan_size;
use crate::query::request::result_stream::{self, QueryDeadline};
use crate::query::request::session::{Planned, ResultStream};
use crate::query::request::{parameters, statement};
use crate::query::scan::tenant_table::SessionTable;
use crate::telemetry::QueryOutcome;
use crate::tenancy::Access;

/// Plans and runs the statements of one session.
pub(in crate::query) struct Planner {
    pub(in crate::query) engine: Arc<Engine>,
    pub(in crate::query) access: Access,
    /// Created on first use: a statement with a cached plan does not need it.
    view: OnceLock<PlanningView>,
    started: Instant,
}

/// What planning a statement needs.
pub(in crate::query) struct PlanningView {
    pub(in crate::query) state: ErasedPlan<SessionState>,
    pub(in crate::query) tables: Arc<SessionTables>,
    pub(in crate::query) freshness: Arc<FreshnessFunction>,
}

/// What a statement reads from.
struct PlannedTable {
    tables: Vec<Arc<SessionTable>>,
    /// Whether the statement calls a table function.
    has_function: bool,
}

impl Planner {
    pub(in crate::query) fn new(engine: Arc<Engine>, access: Access) -> Self {
        Self { engine, access, view: OnceLock::new(), started: Instant::now() }
    }

    pub(in crate::query) fn view(&self) -> &PlanningView {
        self.view.get_or_init(|| PlanningView::new(&self.engine, &self.access))
    }

    /// The deadline of work that starts now.
    pub(in crate::query) fn deadline(&self) -> QueryDeadline {
        QueryDeadline::new(self.started, self.time_left(), &self.engine.config)
    }

    /// The cached plan of a statement, if it is still valid.
    pub(in crate::query) fn kept(&self, sql: &str) -> Option<Planned> {
        PlanKey::of(&self.access, sql).and_then(|key| self.engine.plans.find(key))
    }

    /// Parses, checks and plans one statement.
    pub(in crate::query) async fn plan_sql(&self, sql: &str) -> Result<Planned> {
        let statement = statement::parse(sql, &self.engine.config)?;
        let PlannedTable { tables, has_function } = self.named(&statement)?;
        let plan = self.view().state.statement_to_plan(statement).await.map_err(|fault| self.fault(fault))?;
        plan_size::check(&plan)?;
        let planned = self.checked(plan)?;
        // Planning evaluates the arguments of table functions, so a cached `generate_series(now(), …)` would become
        // stale.
        if let (Some(key), false) = (PlanKey::of(&self.access, sql), has_function) {
            self.engine.plans.keep(key, planned.clone(), tables);
        }
        Ok(planned)
    }

    /// Checks a logical plan, and replaces its tables and functions by those of this session.
    pub(in crate::query) async fn plan_logical(&self, plan: &ErasedPlan<LogicalPlan>) -> Result<Planned> {
        plan_size::check(plan)?;
        plan_size::check_input(plan, &self.engine.config)?;
        statement::check_plan(plan)?;
        let names = Names::of(plan).map_err(|fault| self.fault(fault))?;
        let bindings = names.resolve(self.view()).await.map_err(|fault| self.fault(fault))?;
        self.checked(bindings.rebind(plan).map_err(|fault| self.fault(fault))?)
    }

    fn checked(&self, plan: LogicalPlan) -> Result<Planned> {
        statement::check_plan(&plan)?;
        engine_bugs::check(&plan)?;
        let parameters = parameters::of_plan(&plan).map_err(|fault| self.fault(fault))?;
        let parameters = parameters::schema(&parameters)?;
        let schema = Arc::new(promised(&*self.analysed(&plan, &parameters)?, &parameters));
        let (ordered, ready) = (is_ordered(&plan), Ready::of(&plan));
        Ok(Planned { schema, parameters, ordered, ready, plan: ErasedPlan::new(plan) })
    }

    /// The schema of a plan after type coercion, which may change types (`SELECT 1 UNION ALL SELECT 2.5`). Coercion may
    /// fail for placeholders of unknown type; then this returns the schema of the uncoerced plan.
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

    /// Starts a planned statement, and returns its rows until `deadline`.
    pub(in crate::query) async fn run(
        &self,
        planned: &Planned,
        parameters: Option<&RecordBatch>,
        ticket: QueryTicket,
        deadline: QueryDeadline,
    ) -> Result<ResultStream> {
        match deadline.limit(self.execute(planned, parameters)).await {
            Ok(batches) => {
                let (schema, config) = (Arc::clone(&planned.schema), self.engine.config.clone());
                Ok(result_stream::start(&self.engine.threads, batches, schema, deadline, ticket, config))
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

    /// The plan to run: a copy of the cached plan, if there is one.
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

    /// The tables and functions that a statement reads. Refuses a table that is not in this session with the same
    /// error, whether or not it exists for others.
    fn named(&self, statement: &Statement) -> Result<PlannedTable> {
        let PlanningView { state, tables, .. } = self.view();
        let names = state.resolve_table_references(statement).map_err(|fault| self.fault(fault))?;
        let mut named = PlannedTable { tables: Vec::with_capacity(names.len()), has_function: false };
        for name in names {
            let known = state.schema_for_ref(name.clone()).is_ok_and(|schema| schema.table_exist(name.table()));
            let is_function = state.table_functions().contains_key(name.table());
            if !known && !is_function {
                return Err(unknown_table(&name, tables));
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
                // Before the snapshot: then the snapshot contains everything that the watermark declares complete.
                let watermark = table.in_flight().watermark(&access.owner(), &engine.clock);
                let table = SessionTable::of_tenant(table, table.snapshot(), source.clone(), tenant, rules);
                let changes = table.changes();
                for table in [table].into_iter().chain(changes) {
                    watermarks.insert(table.name().to_owned(), watermark);
                    tables.insert(table.name().to_owned(), Arc::new(table));
                }
            }
        }
        let tables = Arc::new(tables);
        let mut state = SessionState::clone(&engine.template);
        state.register_catalog_list(catalogs(Arc::clone(&tables), Arc::clone(&engine.table_functions)));
        let freshness = Arc::new(FreshnessFunction::new(Arc::clone(&tables), watermarks));
        state.register_udtf(freshness::NAME, Arc::clone(&freshness) as _);
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = DateTime::from_timestamp_micros(engine.clock.now());
        Self { state: ErasedPlan::new(state), tables, freshness }
    }
}

/// The error for a table that is not in the session: the same whether or not it exists for others.
pub(in crate::query) fn unknown_table(name: &TableReference, tables: &SessionTables) -> Error {
    let near = match name {
        TableReference::Bare { .. } => did_you_mean(name.table(), tables.keys().map(String::as_str)),
        _ => String::new(),
    };
    Error::not_found(format!("unknown table `{name}`{near}"))
}

/// The declared schema. A column that is only an untyped placeholder is declared as text.
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

/// Values of unknown type may change the type of a column that depends on them. This is an error, not a silent cast.
fn check_types(planned: &Planned, bound: &DFSchema) -> Result<()> {
    let original = planned.plan.schema().fields();
    for ((promised, original), bound) in planned.schema.fields().iter().zip(original).zip(bound.fields()) {
        if promised.data_type() != bound.data_type() && !original.data_type().is_null() {
            return Err(Error::invalid(format!(
                "with the bound values column `{}` has type {} instead of {}: cast them, as in CAST($1 AS BIGINT)",
                promised.name(),
                bound.data_type(),
                promised.data_type()
            )));
        }
    }
    Ok(())
}

/// Whether the statement specifies the order of its rows.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Limit(limit) => is_ordered(&limit.input),
        LogicalPlan::Projection(projection) => is_ordered(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_ordered(&alias.input),
        _ => false,
    }
}
