//! A session: one caller's view of the tables during one request.
//!
//! In: a statement as SQL text or as a logical plan, and values for its placeholders. Out: a [`Planned`] statement with
//! the schema of its result, and a [`ResultStream`] in exactly that schema. A session lives as long as one request, and
//! its tables stay at one snapshot. It plans and runs statements on the query runtime.
//!
//! **Invariant:** the schema declared before running is the schema of every batch: same names and types, every column
//! nullable, no metadata. Nullability and metadata of a plan can change between planning and running, so they cannot be
//! part of the declared schema.

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

/// The name of the only catalog.
pub const CATALOG: &str = "glasshouse";
/// The name of the schema that holds all tables.
pub const SCHEMA: &str = "public";

/// A session, limited to what its caller may see.
pub struct Session {
    planner: Arc<Planner>,
}

/// A checked, planned, read-only statement.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The logical plan, with unbound placeholders.
    pub plan: ErasedPlan<LogicalPlan>,
    /// The schema of the result, as FlightInfo, GetSchema and the stream report it. Empty for statements without rows.
    pub schema: SchemaRef,
    /// One field per placeholder, in order; the inferred type, or `Null` if it cannot be inferred.
    pub parameters: Schema,
    /// Whether the statement specifies the order of its rows.
    pub ordered: bool,
    /// The cached physical plan, for a statement that can have one.
    pub ready: Option<Arc<Ready>>,
}

impl Planned {
    /// The distinct names of the tables and table functions that the statement reads.
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

/// A running query. Dropping it stops the plan and frees its slot and memory.
pub struct ResultStream {
    /// Its id, for cancelling.
    pub id: QueryId,
    /// When its time limit ends. A reader that may stop reading must be cut off then (see `flight/unread_stream.rs`).
    pub deadline: Instant,
    /// Batches in exactly [`Planned::schema`]. Exceeding the time, row or memory limit ends them with `Limited`.
    pub batches: futures::stream::BoxStream<'static, Result<RecordBatch>>,
}

/// A table as this caller sees it.
#[derive(Debug, Clone)]
pub struct VisibleTable {
    /// Its name.
    pub name: String,
    /// The declared description.
    pub description: String,
    /// Its visible columns; the field metadata holds `comment` and `unit` if declared.
    pub schema: SchemaRef,
    /// The id column, if visible: unique among the rows that this caller sees.
    pub id: Option<String>,
}

impl Session {
    /// Creates a session of a caller with a tenant.
    pub(in crate::query) fn new(engine: Arc<Engine>, access: Access) -> Result<Self> {
        access.tenant()?;
        Ok(Self { planner: Arc::new(Planner::new(engine, access)) })
    }

    /// Parses, checks and plans one statement. The error for a statement that is not a query names its kind.
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

    /// The same for a logical plan instead of text, with the same checks. Its tables and functions are resolved by name
    /// in this session, whatever session the plan was built in.
    pub fn plan_logical(&self, plan: LogicalPlan) -> BoxFuture<'_, Result<Planned>> {
        let (planner, plan) = (Arc::clone(&self.planner), ErasedPlan::new(plan));
        self.on_query_threads(async move { planner.plan_logical(&plan).await }).boxed()
    }

    /// Runs a planned statement. `parameters` holds one row of values (or no columns), which are cast to the inferred
    /// types. Waits for a query slot of the tenant first.
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

    /// Runs `work` on the query runtime within the time limit of a query, even while it plans without yielding.
    async fn on_query_threads<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.planner.deadline().limit(self.planner.engine.threads.run(work)).await
    }

    /// The tables that this caller can see, by name.
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

    /// Names of SQL functions with their kind (scalar, aggregate, window), for SqlInfo.
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
    /// The plan that the statement would run.
    pub(in crate::query) async fn physical_for_tests(
        &self,
        planned: &Planned,
    ) -> Arc<dyn datafusion::physical_plan::ExecutionPlan> {
        self.planner.view().state.create_physical_plan(&planned.plan).await.unwrap()
    }

    /// The engine's plan for any text, without our checks.
    pub(in crate::query) async fn unchecked_plan(&self, sql: &str) -> datafusion::error::Result<LogicalPlan> {
        self.planner.view().state.create_logical_plan(sql).await
    }

    /// The same, optimized.
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

/// A visible column with its declared description and unit.
fn described(field: &Field, contract: &Contract) -> Field {
    let Some(column) = contract.columns.iter().find(|column| column.name == *field.name()) else {
        return field.clone();
    };
    let told = [("comment", &column.description), ("unit", &column.unit)];
    let told = told.into_iter().filter(|(_, text)| !text.is_empty());
    field.clone().with_metadata(told.map(|(key, text)| (key.to_owned(), text.clone())).collect())
}
