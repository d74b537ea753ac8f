//! One caller's view for one request: its tables, its plans, its answers.
//!
//! In: a statement as SQL text or as a logical plan, and values for its placeholders. Out: a [`Planned`] statement with the
//! schema of its answer, and an [`ResultStream`] in exactly that schema. A session lives as long as one request; its tables stand
//! still meanwhile. What it plans and runs, it plans and runs on the query runtime.
//!
//! **Invariant:** the schema told before running is the schema of every batch: same names and types, every column
//! nullable, no metadata. Nullability and metadata of a plan change between planning and running; a promise must not.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider as _;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::contract::Contract;
use crate::error::Result;
use crate::query::QueryId;
use crate::query::request::engine::Engine;
use crate::query::request::erased_plan::ErasedPlan;
use crate::query::request::plan_cache::Ready;
use crate::query::request::planner::Planner;
use crate::tenancy::Access;

/// Catalog name of all tables.
pub const CATALOG: &str = "glasshouse";
/// Schema name of all tables.
pub const SCHEMA: &str = "public";

/// A scoped session.
pub struct Session {
    planner: Arc<Planner>,
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
        Ok(Self { planner: Arc::new(Planner::new(engine, access)) })
    }

    /// Parses, checks and plans one statement. Anything but a query is refused by its name.
    pub fn plan<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Planned>> {
        let planning = async move {
            if let Some(planned) = self.planner.kept(sql) {
                return Ok(planned);
            }
            let (planner, sql) = (Arc::clone(&self.planner), sql.to_owned());
            self.on_query_threads(async move { planner.plan_sql(&sql).await }).await
        };
        planning.boxed()
    }

    /// The same for a plan in place of a text, with the same checks. Its tables are those of this session by name, and so
    /// are its functions, whatever the plan was made with.
    pub fn plan_logical(&self, plan: LogicalPlan) -> BoxFuture<'_, Result<Planned>> {
        let (planner, plan) = (Arc::clone(&self.planner), ErasedPlan::new(plan));
        self.on_query_threads(async move { planner.plan_logical(&plan).await }).boxed()
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
        let Planner { engine, access, .. } = &*self.planner;
        access.check_expiry(engine.clock.now())?;
        let slot = engine.slots.take(access.tenant()?).await?;
        let ticket = engine.enter(access, slot)?;
        let (planner, planned, parameters) = (Arc::clone(&self.planner), planned.clone(), parameters.cloned());
        let deadline = planner.deadline();
        self.on_query_threads(async move { planner.run(&planned, parameters.as_ref(), ticket, deadline).await }).await
    }

    /// Runs `work` on the query runtime, no longer than a query may take: also when it is planning and does not yield.
    async fn on_query_threads<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.planner.deadline().limit(self.planner.engine.threads.run(work)).await
    }

    /// What this caller can see, by name.
    pub fn tables(&self) -> Vec<VisibleTable> {
        self.planner
            .view()
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
        let state = &self.planner.view().state;
        let scalar = state.scalar_functions().keys().map(|name| (name.clone(), "scalar"));
        let aggregate = state.aggregate_functions().keys().map(|name| (name.clone(), "aggregate"));
        let window = state.window_functions().keys().map(|name| (name.clone(), "window"));
        let mut functions: Vec<_> = scalar.chain(aggregate).chain(window).collect();
        functions.sort();
        functions
    }
}

#[cfg(test)]
impl Session {
    /// The plan that a statement would be run with.
    pub(in crate::query) async fn physical_for_tests(
        &self,
        planned: &Planned,
    ) -> Arc<dyn datafusion::physical_plan::ExecutionPlan> {
        self.planner.view().state.create_physical_plan(&planned.plan).await.unwrap()
    }

    /// What the engine makes of any text, without our checks.
    pub(in crate::query) async fn unchecked_plan(&self, sql: &str) -> datafusion::error::Result<LogicalPlan> {
        self.planner.view().state.create_logical_plan(sql).await
    }

    /// The same after the engine's optimizer.
    pub(in crate::query) fn optimized(&self, plan: &LogicalPlan) -> LogicalPlan {
        self.planner.view().state.optimize(plan).unwrap()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("access", &self.planner.access).finish_non_exhaustive()
    }
}

impl fmt::Debug for ResultStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("id", &self.id).finish_non_exhaustive()
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
