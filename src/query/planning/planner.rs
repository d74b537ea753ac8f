//! Plans and runs the statements of one session: resolves its tables, runs the checks, and determines the declared
//! result schema.
//!
//! A statement is SQL text or a logical plan. Planning produces a [`Planned`] statement, and running that statement
//! with values for its placeholders produces a stream of rows. Everything in this file runs on the query runtime.
//!
//! **Invariant:** SQL text and logical plans pass the same checks, because the checks that security depends on run on
//! the plan.

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement;
use tokio::time::Instant;

use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::query::catalog::unknown_table;
use crate::query::engine::Engine;
use crate::query::engine_bugs;
use crate::query::error::{from_engine, from_planner, located};
use crate::query::planning::erased_plan::ErasedPlan;
use crate::query::planning::logical_plan::PlanNames;
use crate::query::planning::plan_cache::PlanKey;
use crate::query::planning::plan_size;
use crate::query::planning::planned::Planned;
use crate::query::planning::planning_view::PlanningView;
use crate::query::planning::reusable_plan::ReusablePlan;
use crate::query::planning::{parameters, statement, unknown_names, values_subqueries};
use crate::query::result_stream::{self, QueryDeadline, ResultStream};
use crate::query::running_queries::QueryTicket;
use crate::query::scan::table_provider::SessionTable;
use crate::query::sql::{clauses, expressions};
use crate::telemetry::QueryOutcome;
use crate::tenancy::Access;

/// The planner of one session, which also starts the planned statements.
pub(in crate::query) struct Planner {
    pub(in crate::query) engine: Arc<Engine>,
    pub(in crate::query) access: Access,
    /// The session's tables and functions. Created on first use, because a statement with a cached plan does not need
    /// it.
    view: OnceLock<PlanningView>,
    started: Instant,
}

impl Planner {
    pub(in crate::query) fn new(engine: Arc<Engine>, access: Access) -> Self {
        Self { engine, access, view: OnceLock::new(), started: Instant::now() }
    }

    /// Returns the view of the session's tables and functions. The first call creates it.
    pub(in crate::query) fn view(&self) -> &PlanningView {
        self.view.get_or_init(|| PlanningView::new(&self.engine, &self.access))
    }

    /// Returns the time by which the statement must end: `query.time_max` after the session was created, or earlier if
    /// the token expires first.
    pub(in crate::query) fn deadline(&self) -> QueryDeadline {
        QueryDeadline::new(self.started, self.token_left(), &self.engine.config)
    }

    /// Returns the cached plan of a statement, if there is one that is still valid.
    pub(in crate::query) fn cached(&self, sql: &str) -> Option<Planned> {
        PlanKey::of(&self.access, sql).and_then(|key| self.engine.plans.find(key))
    }

    /// Parses, checks and plans one statement.
    pub(in crate::query) async fn plan_sql(&self, sql: &str) -> Result<Planned> {
        let mut statement = statement::parse(sql, &self.engine.config)?;
        let functions = self.view().state.scalar_functions();
        clauses::check(&statement, &|name| functions.contains_key(name))?;
        let (_, user, _) = self.access.identity();
        let names_user = expressions::rewrite(&mut statement, user)?;
        let tables = self.tables(&statement)?;
        let plan = self.view().state.statement_to_plan(statement).await.map_err(|error| self.explain(error, sql))?;
        plan_size::check(&plan)?;
        let planned = self.check(plan)?;
        self.prepare(&planned).await.map_err(|error| self.explain(error, sql))?;
        // Planning evaluates the arguments of table functions, so a cached `generate_series(now(), …)` would return old
        // times. Callers with equal rights share plans, so a cached `current_user` would name another caller.
        if let Some(key) = PlanKey::of(&self.access, sql)
            && !planned.calls_table_function()
            && !names_user
        {
            self.engine.plans.insert(key, planned.clone(), tables);
        }
        Ok(planned)
    }

    /// Checks a logical plan, and replaces its tables and functions with those of this session.
    pub(in crate::query) async fn plan_logical(&self, plan: &ErasedPlan<LogicalPlan>) -> Result<Planned> {
        plan_size::check(plan)?;
        plan_size::check_input(plan, &self.engine.config)?;
        statement::check_plan(plan)?;
        let names = PlanNames::of(plan).map_err(|error| self.to_error(error))?;
        let bindings = names.resolve(self.view()).await.map_err(|error| self.to_error(error))?;
        let planned = self.check(bindings.rebind(plan).map_err(|error| self.to_error(error))?)?;
        self.prepare(&planned).await.map_err(|error| self.to_error(error))?;
        Ok(planned)
    }

    /// Builds the physical plan of a statement that has no parameters, so that a statement which the engine cannot run is
    /// refused before it runs. The first run uses this plan, unless it depends on the time of the query.
    async fn prepare(&self, planned: &Planned) -> Result<(), DataFusionError> {
        let is_explain =
            matches!(&*planned.plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
        if is_explain || !planned.parameters.fields().is_empty() {
            return Ok(());
        }
        let physical = self.view().state.create_physical_plan(&planned.plan).await?;
        if let Some(reusable) = &planned.reusable {
            reusable.store(physical);
        }
        Ok(())
    }

    /// Checks a plan whose tables and functions are the session's, and determines its parameters and its schema.
    fn check(&self, plan: LogicalPlan) -> Result<Planned> {
        statement::check_plan(&plan)?;
        engine_bugs::check(&plan)?;
        values_subqueries::check(&plan)?;
        let parameters = parameters::of_plan(&plan).map_err(|error| self.to_error(error))?;
        let parameters = parameters::schema(&parameters)?;
        let schema = Arc::new(declared_schema(&*self.coerced_schema(&plan, &parameters)?, &parameters));
        let (ordered, reusable) = (is_ordered(&plan), ReusablePlan::for_statement(&plan));
        Ok(Planned { schema, parameters, ordered, reusable, plan: ErasedPlan::new(plan) })
    }

    /// Returns the schema of a plan after type coercion, which may change types (`SELECT 1 UNION ALL SELECT 2.5`). If
    /// coercion fails because a placeholder has an unknown type, returns the schema of the uncoerced plan.
    fn coerced_schema(&self, plan: &LogicalPlan, parameters: &Schema) -> Result<DFSchemaRef> {
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
            return Ok(Arc::clone(plan.schema()));
        }
        let state = &self.view().state;
        match state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}) {
            Ok(coerced) => Ok(Arc::clone(coerced.schema())),
            Err(_) if parameters.fields().iter().any(|field| field.data_type().is_null()) => {
                Ok(Arc::clone(plan.schema()))
            }
            Err(error) => Err(self.to_error(error)),
        }
    }

    /// Starts a planned statement and returns the stream of its rows, which ends at `deadline` at the latest.
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
            plan = plan.with_param_values(values).map_err(|error| self.to_error(error))?;
            check_types(planned, &*self.coerced_schema(&plan, &Schema::empty())?)?;
        }
        let physical = self.physical(planned, &plan).await.map_err(|error| self.to_error(error))?;
        let task = Arc::new(self.engine.task(&physical));
        execute_stream(physical, task).map_err(|error| from_engine(error, &self.engine.config))
    }

    /// Returns the physical plan to run: the one that was built when the statement was planned, or a new one.
    async fn physical(&self, planned: &Planned, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        match planned.reusable.as_ref().and_then(|reusable| reusable.take()) {
            Some(physical) => physical,
            None => self.view().state.create_physical_plan(plan).await,
        }
    }

    /// Returns the tables that a statement refers to. The error for a table that is not in this session is the same
    /// whether or not the table exists for other callers.
    fn tables(&self, statement: &Statement) -> Result<Vec<Arc<SessionTable>>> {
        let PlanningView { state, tables, .. } = self.view();
        let names = state.resolve_table_references(statement).map_err(|error| self.to_error(error))?;
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let is_table = state.schema_for_ref(name.clone()).is_ok_and(|schema| schema.table_exist(name.table()));
            let is_function = state.table_functions().contains_key(name.table());
            if !is_table && !is_function {
                return Err(unknown_table(&name, tables));
            }
            found.extend(tables.get(name.table()).cloned());
        }
        Ok(found)
    }

    /// Returns the time until the token expires, in microseconds.
    fn token_left(&self) -> Micros {
        self.access.expires().saturating_sub(self.engine.clock.now())
    }

    /// Translates an error of planning.
    fn to_error(&self, error: DataFusionError) -> Error {
        from_planner(error, &self.engine.config)
    }

    /// Translates an error of planning the text `sql`, whose names it can explain.
    fn explain(&self, error: DataFusionError, sql: &str) -> Error {
        let parse = || statement::parse(sql, &self.engine.config).ok();
        match unknown_names::explain(&error, &self.view().state, parse) {
            Some(explained) => located(explained, error),
            None => self.to_error(error),
        }
    }
}

/// Returns the schema to declare for a plan. A column that consists of an untyped placeholder is declared as text.
fn declared_schema(schema: &DFSchema, parameters: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Null if !parameters.fields().is_empty() => DataType::Utf8,
            kind => kind.clone(),
        };
        Field::new(field.name(), kind, true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Refuses bound values that change the type of a declared column. This can happen if the type of a placeholder could
/// not be inferred. The values are not cast silently.
fn check_types(planned: &Planned, bound: &DFSchema) -> Result<()> {
    let original = planned.plan.schema().fields();
    for ((declared, original), bound) in planned.schema.fields().iter().zip(original).zip(bound.fields()) {
        if declared.data_type() != bound.data_type() && !original.data_type().is_null() {
            return Err(Error::invalid(format!(
                "with the bound values, column `{}` has type {} instead of {}: cast the parameters, as in CAST($1 AS BIGINT)",
                declared.name(),
                bound.data_type(),
                declared.data_type()
            )));
        }
    }
    Ok(())
}

/// Returns true if the statement specifies the order of its rows.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Limit(limit) => is_ordered(&limit.input),
        LogicalPlan::Projection(projection) => is_ordered(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_ordered(&alias.input),
        _ => false,
    }
}
