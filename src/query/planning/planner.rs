//! Plans and runs the statements of one session. The planner resolves the tables of a statement, checks the statement
//! and its plan, and determines the declared schema of the result.
//!
//! A statement is SQL text or a logical plan. The result is a [`Planned`] statement. Running the planned statement
//! with values for its placeholders produces a stream of rows. All code in this file runs on the query runtime.
//!
//! **Invariant:** the security checks run on the plan, so they are the same for SQL text and for logical plans.

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use crate::clock::Micros;
use crate::contract::ColumnKind;
use crate::error::{Error, Kind, Result};
use crate::query::catalog::unknown_table;
use crate::query::column_types;
use crate::query::engine::Engine;
use crate::query::error::{from_engine, from_planner};
use crate::query::planning::erased_plan::ErasedPlan;
use crate::query::planning::logical_plan::PlanNames;
use crate::query::planning::name_resolution::PlanningView;
use crate::query::planning::parameters::ParameterizedStatement;
use crate::query::planning::plan_cache::PlanKey;
use crate::query::planning::planned_statement::{MoreRows, Planned};
use crate::query::planning::reusable_plan::ReusablePlan;
use crate::query::planning::{join_limits, parameters, statement, unknown_names, values_subqueries};
use crate::query::planning::{plan_size, substituted_size};
use crate::query::result_stream::{self, QueryDeadline, ResultStream};
use crate::query::running_queries::QueryTicket;
use crate::query::scan::session_relation::SessionRelation;
use crate::sql::decorrelate::decorrelate;
use crate::sql::engine_bugs;
use crate::sql::engine_error_text::located;
use crate::sql::syntax::output_names::{self, OutputNames, Replaced};
use crate::sql::syntax::{self, ambiguous_names, parameter_values};
use crate::telemetry::QueryOutcome;
use crate::tenancy::Access;

/// Plans the statements of one session, and starts them.
pub(in crate::query) struct Planner {
    pub(in crate::query) engine: Arc<Engine>,
    pub(in crate::query) access: Access,
    /// The session's tables and functions. Created on first use, because a statement with a cached plan does not need
    /// them.
    view: OnceLock<PlanningView>,
    started: Instant,
}

/// A statement that has been checked and rewritten, as input for the engine's planner.
struct Rewritten {
    statement: Statement,
    /// The session's tables that the statement reads.
    tables: Vec<SessionRelation>,
    /// True if the rewritten statement contains the caller's name, for example because it uses `current_user`.
    names_user: bool,
}

impl Planner {
    pub(in crate::query) fn new(engine: Arc<Engine>, access: Access) -> Self {
        Self { engine, access, view: OnceLock::new(), started: Instant::now() }
    }

    /// Returns the session's tables and functions. The first call collects them.
    pub(in crate::query) fn view(&self) -> &PlanningView {
        self.view.get_or_init(|| PlanningView::new(&self.engine, &self.access))
    }

    /// Returns the deadline of the statement. This is the earlier of two times: `query.time_max` after the session was
    /// created, and the expiry of the token.
    pub(in crate::query) fn deadline(&self) -> QueryDeadline {
        QueryDeadline::new(self.started, self.token_left(), &self.engine.config)
    }

    /// Returns the cached plan for a statement if it exists and is still valid.
    pub(in crate::query) fn cached(&self, sql: &str) -> Option<Planned> {
        PlanKey::of(&self.access, sql).and_then(|key| self.engine.plans.find(key))
    }

    /// Parses, checks and plans one statement.
    pub(in crate::query) async fn plan_sql(&self, sql: &str) -> Result<Planned> {
        let Rewritten { mut statement, tables, names_user } = self.rewritten(sql, None)?;
        let template = ParameterizedStatement::of(&mut statement).map(Arc::new);
        let (plan, names, template) = match self.view().state.statement_to_plan(statement).await {
            Ok(plan) => (Ok(plan), None, template),
            Err(error) if output_names::is_duplicate(&error) => {
                let (plan, names, template) = self.plan_with_unique_names(sql, error).await?;
                (Ok(plan), Some(names), template)
            }
            Err(error) => (Err(self.explain(error, sql)), None, template),
        };
        let plan = plan.and_then(|plan| plan_size::check(&plan).map(|()| plan));
        let ambiguous = plan.as_ref().map(ambiguous_names::find).unwrap_or_default();
        if !ambiguous.is_empty() {
            ambiguous_names::check(&mut self.rewritten(sql, None)?.statement, &ambiguous)?;
        }
        let mut planned = match plan.and_then(|plan| self.check(plan, template.clone())) {
            Ok(planned) => planned,
            Err(error) => self.plan_with_examples(template, error).await?,
        };
        if let Some(names) = names {
            planned.schema = names.restore(&planned.schema, &planned.plan);
        }
        self.prepare(&planned).await.map_err(|error| self.explain(error, sql))?;
        // Do not cache a plan that calls a table function: planning evaluates the arguments, so a cached plan of
        // `generate_series(now(), …)` would return old times. Do not cache a plan that contains the caller's name:
        // callers with equal rights share plans, so the plan could return the name of another caller.
        if let Some(key) = PlanKey::of(&self.access, sql)
            && !planned.calls_table_function()
            && !names_user
        {
            self.engine.plans.insert(key, planned.clone(), tables);
        }
        Ok(planned)
    }

    /// Plans a statement that the engine refused because of duplicate names. Gives each output column a unique name
    /// during planning. Returns the error `refused` if the statement still cannot be planned.
    async fn plan_with_unique_names(
        &self,
        sql: &str,
        refused: DataFusionError,
    ) -> Result<(LogicalPlan, OutputNames, Option<Arc<ParameterizedStatement>>)> {
        for replaced in Replaced::ALL {
            let mut names = OutputNames::new(replaced);
            let mut statement = self.rewritten(sql, Some(&mut names))?.statement;
            let template = ParameterizedStatement::of(&mut statement).map(Arc::new);
            let state = &self.view().state;
            // The engine detects some duplicate names only when it optimizes the plan.
            let planned = state.statement_to_plan(statement).await.and_then(|plan| match state.optimize(&plan) {
                Err(error) if output_names::is_duplicate(&error) => Err(error),
                _ => Ok(plan),
            });
            match planned {
                Ok(plan) => return Ok((plan, names, template)),
                Err(error) if output_names::is_duplicate(&error) => {}
                Err(_) => break,
            }
        }
        Err(output_names::to_error(&refused).unwrap_or_else(|| self.explain(refused, sql)))
    }

    /// Parses, checks and rewrites a statement, and resolves its tables. If `names` is given, also replaces the names
    /// of the output columns.
    fn rewritten(&self, sql: &str, names: Option<&mut OutputNames>) -> Result<Rewritten> {
        let mut statement = statement::parse(sql, &self.engine.config)?;
        let state = &self.view().state;
        let (_, user, _) = self.access.identity();
        let names_user = syntax::check_and_rewrite(&mut statement, state, Some(user))?;
        let tables = self.tables(&statement)?;
        syntax::rewrite_columns(&mut statement, state)?;
        if let Some(names) = names {
            names.replace(&mut statement)?;
        }
        Ok(Rewritten { statement, tables, names_user })
    }

    /// Checks a logical plan, and replaces its tables and functions with the session's tables and functions.
    pub(in crate::query) async fn plan_logical(&self, plan: &ErasedPlan<LogicalPlan>) -> Result<Planned> {
        plan_size::check(plan)?;
        plan_size::check_input(plan, &self.engine.config)?;
        statement::check_plan(plan)?;
        let names = PlanNames::of(plan).map_err(|error| self.to_error(error))?;
        let bindings = names.resolve(self.view()).await.map_err(|error| self.to_error(error))?;
        let planned = self.check(bindings.rebind(plan).map_err(|error| self.to_error(error))?, None)?;
        self.prepare(&planned).await.map_err(|error| self.to_error(error))?;
        Ok(planned)
    }

    /// Builds the physical plan of a statement that has no parameters. A statement that the engine cannot run is
    /// therefore refused during planning rather than when it runs. The first run uses this physical plan if the plan
    /// does not depend on the time of the query.
    async fn prepare(&self, planned: &Planned) -> Result<(), DataFusionError> {
        let is_explain =
            matches!(&*planned.plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
        if is_explain || !planned.parameters.fields().is_empty() {
            return Ok(());
        }
        let physical = self.new_physical(planned).await?;
        if let Some(reusable) = &planned.reusable {
            reusable.store(physical);
        }
        Ok(())
    }

    /// If planning without values failed with the error `failed`, plans the statement with example values. For example,
    /// `sum($1)` and `date_part($1, ts)` cannot be planned without a value for the placeholder. The example values are
    /// used only to determine the columns of the result. The types of the parameters remain unknown.
    async fn plan_with_examples(
        &self,
        template: Option<Arc<ParameterizedStatement>>,
        failed: Error,
    ) -> Result<Planned> {
        if let Some(template) = template.filter(|_| matches!(failed.kind(), Kind::Invalid | Kind::Unsupported)) {
            for example in parameters::examples() {
                let planned = self.plan_with_values(&template, template.repeat(&example)).await;
                if let Ok(planned) = planned.and_then(|plan| self.check(plan, Some(Arc::clone(&template)))) {
                    return Ok(planned);
                }
            }
        }
        Err(failed)
    }

    /// Plans a statement with typed literals in place of its placeholders.
    async fn plan_with_values(
        &self,
        template: &ParameterizedStatement,
        values: Vec<ScalarValue>,
    ) -> Result<LogicalPlan> {
        let planning = self.view().state.statement_to_plan(template.marked());
        let plan =
            parameter_values::with_values(values.into(), planning).await.map_err(|error| self.to_error(error))?;
        plan_size::check(&plan).map(|()| plan)
    }

    /// Binds rows of values to a statement. The returned statement runs once for each row, in order.
    pub(in crate::query) async fn bind(&self, planned: &Planned, rows: &RecordBatch) -> Result<Planned> {
        let mut bound = self.bind_row(planned, rows, 0).await?;
        if rows.num_rows() > 1 {
            let rows = rows.slice(1, rows.num_rows() - 1);
            bound.more_rows = Some(Arc::new(MoreRows { unbound: planned.clone(), rows }));
        }
        Ok(bound)
    }

    async fn bind_row(&self, planned: &Planned, rows: &RecordBatch, row: usize) -> Result<Planned> {
        let values = parameters::values(&planned.parameters, rows, row)?;
        let template = planned.template.as_deref();
        template.map_or(Ok(()), |template| template.check_size(&values))?;
        let plan = match template {
            Some(template) if !parameters::are_as_inferred(&planned.parameters, &values) => {
                self.plan_with_values(template, values).await?
            }
            _ => LogicalPlan::clone(&planned.plan).with_param_values(values).map_err(|error| self.to_error(error))?,
        };
        let bound = self.check(plan, None)?;
        if !bound.parameters.fields().is_empty() {
            return Err(Error::unsupported(
                "a placeholder is used where no value can be bound: write the value instead",
            ));
        }
        let names = planned.schema.fields().iter().zip(bound.schema.fields());
        let fields = names.map(|(named, typed)| Field::new(named.name(), typed.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        if schema.fields().len() != bound.schema.fields().len() {
            return Err(Error::internal("the bound values change the number of result columns"));
        }
        Ok(Planned { schema, reusable: None, ..bound })
    }

    /// Checks a plan that is bound to the session's tables and functions. Determines the parameters and the schema of
    /// the plan.
    fn check(&self, plan: LogicalPlan, template: Option<Arc<ParameterizedStatement>>) -> Result<Planned> {
        statement::check_plan(&plan)?;
        values_subqueries::check(&plan)?;
        let plan = decorrelate(plan).map_err(|error| self.to_error(error))?;
        if plan.transformed {
            plan_size::check(&plan.data)?;
        }
        let plan = plan.data;
        substituted_size::check(&plan)?;
        engine_bugs::check(&plan)?;
        let mut parameters = parameters::of_plan(&plan).map_err(|error| self.to_error(error))?;
        template.iter().for_each(|template| template.complete(&mut parameters));
        let parameters = parameters::schema(&parameters)?;
        let analyzed = self.analyzed(&plan, &parameters)?;
        let schema = analyzed.as_ref().unwrap_or(&plan).schema();
        let schema = Arc::new(declared_schema(schema, &parameters));
        let (ordered, reusable) = (is_ordered(&plan), ReusablePlan::for_statement(&plan));
        let analyzed = analyzed.filter(|_| parameters.fields().is_empty()).map(ErasedPlan::new);
        let (plan, more_rows) = (ErasedPlan::new(plan), None);
        Ok(Planned { plan, analyzed, schema, parameters, ordered, template, more_rows, reusable })
    }

    /// Returns a plan after the analyzer rules. They include type coercion, so the types of the plan's columns can change
    /// (`SELECT 1 UNION ALL SELECT 2.5`). Returns `None` for EXPLAIN and DESCRIBE, and if a rule fails because the type of
    /// a placeholder is unknown.
    fn analyzed(&self, plan: &LogicalPlan, parameters: &Schema) -> Result<Option<LogicalPlan>> {
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
            return Ok(None);
        }
        let state = &self.view().state;
        match state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}) {
            Ok(analyzed) => Ok(Some(analyzed)),
            Err(_) if parameters.fields().iter().any(|field| field.data_type().is_null()) => Ok(None),
            Err(error) => Err(self.to_error(error)),
        }
    }

    /// Starts a planned statement, and returns its rows as a stream that ends no later than `deadline`.
    pub(in crate::query) async fn run(
        self: &Arc<Self>,
        planned: &Planned,
        ticket: QueryTicket,
        deadline: QueryDeadline,
    ) -> Result<ResultStream> {
        let runtime = self.engine.runtimes.of(Some(self.access.tenant()?.as_str()))?;
        match deadline.limit(deadline.interrupt(&ticket.stop).cover(self.execute(planned))).await {
            Ok(batches) => {
                let (schema, config) = (Arc::clone(&planned.schema), self.engine.config.clone());
                Ok(result_stream::start(runtime, batches, schema, deadline, ticket, config))
            }
            Err(error) => {
                ticket.end(QueryOutcome::from(&error));
                Err(error)
            }
        }
    }

    async fn execute(self: &Arc<Self>, planned: &Planned) -> Result<SendableRecordBatchStream> {
        let unbound = planned.parameters.fields().len();
        if unbound > 0 {
            return Err(parameters::mismatch(unbound, 0));
        }
        let first = self.execute_plan(planned).await?;
        let Some(more) = planned.more_rows.clone() else { return Ok(first) };
        let (planner, schema) = (Arc::clone(self), Arc::clone(&planned.schema));
        let engine_schema = first.schema();
        let next = stream::iter(0..more.rows.num_rows()).then(move |row| {
            let (planner, more, schema) = (Arc::clone(&planner), Arc::clone(&more), Arc::clone(&schema));
            async move {
                let batches = planner.execute_row(&more, row, &schema).await;
                batches.map_err(|error| DataFusionError::External(Box::new(error)))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(engine_schema, first.chain(next.try_flatten()))))
    }

    /// Runs the statement for the second or a later row of parameters.
    async fn execute_row(&self, more: &MoreRows, row: usize, schema: &Schema) -> Result<SendableRecordBatchStream> {
        // If a statement has many rows of parameters and returns only empty results, it does not yield anywhere else.
        // Yield here, so that the time limit can end it.
        tokio::task::yield_now().await;
        let bound = self.bind_row(&more.unbound, &more.rows, row).await?;
        for (declared, bound) in schema.fields().iter().zip(bound.schema.fields()) {
            if declared.data_type() != bound.data_type() {
                return Err(Error::invalid(format!(
                    "with row {} of the parameters, column `{}` has type {} instead of {}: bind values of the same \
                     type",
                    row + 2,
                    declared.name(),
                    bound.data_type(),
                    declared.data_type()
                )));
            }
        }
        self.execute_plan(&bound).await
    }

    async fn execute_plan(&self, planned: &Planned) -> Result<SendableRecordBatchStream> {
        let physical = self.physical(planned).await.map_err(|error| self.to_error(error))?;
        let task = Arc::new(self.engine.task(&physical));
        execute_stream(physical, task).map_err(|error| from_engine(error, &self.engine.config))
    }

    /// Returns the physical plan to run, which is either the plan that was built during planning or a new plan.
    async fn physical(&self, planned: &Planned) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        match planned.reusable.as_ref().and_then(|reusable| reusable.take()) {
            Some(physical) => physical,
            None => self.new_physical(planned).await,
        }
    }

    /// Optimizes a statement's plan, and builds a physical plan. Does not analyze the plan again.
    async fn new_physical(&self, planned: &Planned) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let state: &SessionState = &self.view().state;
        if let LogicalPlan::DescribeTable(described) = &*planned.plan {
            return column_types::describe(described);
        }
        let Some(analyzed) = &planned.analyzed else { return state.create_physical_plan(&planned.plan).await };
        let optimized = state.optimizer().optimize(LogicalPlan::clone(analyzed), state, |_, _| {})?;
        join_limits::check_cross_joins(&optimized).map_err(|error| DataFusionError::External(Box::new(error)))?;
        state.query_planner().create_physical_plan(&optimized, state).await
    }

    /// Returns the tables to which a statement refers. If a table is not in this session, the error is the same whether
    /// or not the table exists for other callers.
    fn tables(&self, statement: &Statement) -> Result<Vec<SessionRelation>> {
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

    /// Translates an error of the engine's planner.
    fn to_error(&self, error: DataFusionError) -> Error {
        from_planner(error, &self.engine.config)
    }

    /// Translates an error that the engine's planner returned for `sql`. Adds an explanation if the error is about an
    /// unknown name.
    fn explain(&self, error: DataFusionError, sql: &str) -> Error {
        let parse = || statement::parse(sql, &self.engine.config).ok();
        match unknown_names::explain(&error, &self.view().state, parse) {
            Some(explained) => located(explained, error),
            None => self.to_error(error),
        }
    }
}

/// Returns the declared result schema. A column that contains only a placeholder of unknown type is declared as text.
fn declared_schema(schema: &DFSchema, parameters: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Null if !parameters.fields().is_empty() => DataType::Utf8,
            kind => kind.clone(),
        };
        match ColumnKind::of_metadata(field) {
            Some(declared) if declared.data_type() == kind => declared.field(field.name()),
            _ => Field::new(field.name(), kind, true),
        }
    });
    Schema::new(fields.collect::<Vec<_>>())
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
