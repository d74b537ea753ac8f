//! A session contains the tables that a caller may see during one request.
//!
//! A session plans SQL text or a logical plan, and returns a [`Planned`] statement with a declared result schema.
//! Running the statement returns a [`ResultStream`] with exactly this schema. Planning and running happen on the query
//! runtime. A session exists for one request, and all its statements read the same snapshot of each table.
//!
//! **Invariant:** every batch has the declared schema. All columns of this schema are nullable, and it contains no
//! metadata. The plan's nullability and metadata can still change between planning and running, so the declared schema
//! does not contain them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::contract::Owner;
use crate::error::{Error, Result};
use crate::query::engine::Engine;
use crate::query::freshness_exec::NewestTimes;
use crate::query::planning::erased_plan::ErasedPlan;
use crate::query::planning::name_resolution::lookups;
use crate::query::planning::planned_statement::Planned;
use crate::query::planning::planner::Planner;
use crate::query::result_stream::ResultStream;
use crate::query::scan::session_relation::SessionRelation;
use crate::tenancy::{Access, Scope};

/// The time after which a client should retry a statement that could not be planned.
const PLANNING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Plans and runs statements on the tables that a caller may see.
pub struct Session {
    planner: Arc<Planner>,
}

/// A table or lookup table with the columns that the caller may see.
#[derive(Debug, Clone)]
pub struct VisibleTable {
    /// The SQL name.
    pub name: String,
    /// The description from the table's declaration.
    pub description: String,
    /// True for a lookup table.
    pub is_lookup: bool,
    /// The columns that the caller may see. If `comment` and `unit` are declared for a column, the metadata of its
    /// field contains them.
    pub schema: SchemaRef,
    /// The name of the id column, or `None` if the column is hidden from the caller. Among the rows that the caller may
    /// see, each id occurs once. A lookup table has no id column.
    pub id: Option<String>,
}

impl Engine {
    /// Creates the session for a request. Creating a session takes tens of microseconds. Fails with `Forbidden` if the
    /// caller lacks the `read` scope or has no tenant.
    pub fn session(self: &Arc<Self>, access: &Access) -> Result<Session> {
        access.require(Scope::Read)?;
        access.check_valid(self.clock.now())?;
        Session::new(Arc::clone(self), access.clone())
    }

    /// Returns the lookup tables that the caller may see, ordered by name. The caller does not need the `read` scope.
    pub fn visible_lookups(&self, access: &Access) -> Vec<VisibleTable> {
        lookups(self, access).iter().filter_map(|(name, lookup)| VisibleTable::of(name, lookup)).collect()
    }

    /// Returns the error for events that are sent to `table`, if this is a lookup table that the caller may see. An
    /// operator may see every lookup table.
    pub fn lookup_accepts_no_events(&self, access: &Access, table: &str) -> Option<Error> {
        let is_visible = match access.owner() {
            Owner::PerEvent => self.lookups.has(table),
            _ => lookups(self, access).contains_key(table),
        };
        is_visible.then(|| {
            Error::forbidden(format!(
                "`{table}` is a lookup table, which accepts no events: the server fills it from the `file`, `url` or `query` \
                 in [lookups.{table}]"
            ))
        })
    }
}

impl Session {
    /// Creates a session. Fails with `Forbidden` if the caller has no tenant.
    fn new(engine: Arc<Engine>, access: Access) -> Result<Self> {
        access.tenant()?;
        Ok(Self { planner: Arc::new(Planner::new(engine, access)) })
    }

    /// Parses, checks and plans one statement. If the statement is not a query, fails with an error that names its
    /// kind, such as `INSERT`.
    pub fn plan<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Planned>> {
        let planning = async move {
            if let Some(planned) = self.planner.cached(sql) {
                return Ok(planned);
            }
            let (planner, sql) = (Arc::clone(&self.planner), sql.to_owned());
            self.planning(async move { planner.plan_sql(&sql).await }.boxed()).await
        };
        planning.boxed()
    }

    /// Checks and plans a statement that was sent as a logical plan. The names of tables and functions are resolved in
    /// this session, even if the plan was built in another session.
    pub fn plan_logical(&self, plan: LogicalPlan) -> BoxFuture<'_, Result<Planned>> {
        let (planner, plan) = (Arc::clone(&self.planner), ErasedPlan::new(plan));
        self.planning(async move { planner.plan_logical(&plan).await }.boxed()).boxed()
    }

    /// Plans a statement again with bound values. Each value keeps its type. `rows` has a column for each placeholder.
    /// The statement then runs once for each row, in order, and all results are returned as one stream.
    pub fn bind(&self, planned: &Planned, rows: &RecordBatch) -> BoxFuture<'_, Result<Planned>> {
        let (planner, planned, rows) = (Arc::clone(&self.planner), planned.clone(), rows.clone());
        self.planning(async move { planner.bind(&planned, &rows).await }.boxed()).boxed()
    }

    /// Waits for one of the tenant's query slots, and then runs a planned statement. If `parameters` contains rows of
    /// values, first binds them to the statement.
    pub fn run<'a>(
        &'a self,
        planned: &'a Planned,
        parameters: Option<&'a RecordBatch>,
    ) -> BoxFuture<'a, Result<ResultStream>> {
        self.run_planned(planned, parameters).boxed()
    }

    async fn run_planned(&self, planned: &Planned, parameters: Option<&RecordBatch>) -> Result<ResultStream> {
        let planned = match parameters.filter(|rows| rows.num_columns() > 0) {
            Some(rows) => self.bind(planned, rows).await?,
            None => planned.clone(),
        };
        let Planner { engine, access, .. } = &*self.planner;
        access.check_valid(engine.clock.now())?;
        let slot = engine.slots.take(access.tenant()?).await?;
        let ticket = engine.running.add(access, slot, engine.metrics.query())?;
        let planner = Arc::clone(&self.planner);
        let deadline = planner.deadline();
        self.on_query_threads(async move { planner.run(&planned, ticket, deadline).await }).await
    }

    /// Waits for one of the tenant's planning slots, and then plans a statement on the query runtime.
    ///
    /// The slot is released when `work` has ended. A statement that cannot be planned within its time limit keeps its
    /// thread busy, so without slots a tenant could occupy all threads.
    async fn planning<T: Send + 'static>(&self, work: BoxFuture<'static, Result<T>>) -> Result<T> {
        let Planner { engine, access, .. } = &*self.planner;
        let waiting = engine.planning.take(access.tenant()?);
        let slot = waiting.await.map_err(|busy| {
            Error::limited(
                "too many statements of this tenant are being planned (limits query.tenant_queue_max, \
                 query.tenant_queue_wait_max): retry later",
            )
            .retry_after(PLANNING_RETRY_AFTER)
            .with_source(busy)
        })?;
        self.on_query_threads(async move {
            let planned = work.await;
            drop(slot);
            planned
        })
        .await
    }

    /// Runs `work` on the query runtime. Stops waiting when the query's time limit has passed or the token is revoked,
    /// even if `work` does not yield.
    async fn on_query_threads<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let Planner { engine, access, .. } = &*self.planner;
        let deadline = self.planner.deadline();
        let stop = CancellationToken::new();
        let work = deadline.interrupt(&stop).cover_planning(work);
        let _stops_dropped_work = stop.drop_guard();
        let runtime = engine.runtimes.of(Some(access.tenant()?.as_str()))?;
        deadline.limit(access.unless_revoked(runtime.run(work))).await
    }

    /// Returns the tables and lookup tables that the caller may see, ordered by name. A lookup table is omitted as long
    /// as its columns are not known.
    pub fn tables(&self) -> Vec<VisibleTable> {
        self.planner.view().tables.iter().filter_map(|(name, table)| VisibleTable::of(name, table)).collect()
    }

    /// Runs a query that finds the newest times in a table. The tenant's query slots and the query limits apply.
    pub async fn newest_times(&self, table: &str) -> Result<NewestTimes> {
        let name = table.replace('\'', "''");
        let planned =
            self.plan(&format!("SELECT newest_event_time, newest_received_time FROM freshness('{name}')")).await;
        let planned = planned?;
        let batches: Vec<_> = self.run(&planned, None).await?.batches.try_collect().await?;
        Ok(batches.iter().find_map(NewestTimes::of).unwrap_or_default())
    }

    /// Returns the name and the kind of each SQL function, for SqlInfo. The kind is `scalar`, `aggregate` or `window`.
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
    /// Returns a new physical plan for the statement.
    pub(in crate::query) async fn physical_for_tests(
        &self,
        planned: &Planned,
    ) -> Arc<dyn datafusion::physical_plan::ExecutionPlan> {
        self.planner.view().state.create_physical_plan(&planned.plan).await.unwrap()
    }

    /// Returns the engine's logical plan for `sql`, without the checks that [`Session::plan`] makes.
    pub(in crate::query) async fn unchecked_plan(&self, sql: &str) -> datafusion::error::Result<LogicalPlan> {
        self.planner.view().state.create_logical_plan(sql).await
    }

    /// Returns the optimized form of a logical plan.
    pub(in crate::query) fn optimized(&self, plan: &LogicalPlan) -> LogicalPlan {
        self.planner.view().state.optimize(plan).unwrap()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("access", &self.planner.access).finish_non_exhaustive()
    }
}

impl VisibleTable {
    /// Describes a table of a session. Returns `None` if its columns are not known yet.
    fn of(name: &str, table: &SessionRelation) -> Option<Self> {
        table.check_columns().ok()?;
        let schema = table.schema();
        let fields = schema.fields().iter().map(|field| with_description(field, table));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let id = match table {
            SessionRelation::Table(table) => Some(&table.contract().columns[table.contract().id].name),
            SessionRelation::Lookup(_) => None,
        };
        let id = id.filter(|id| schema.field_with_name(id).is_ok()).cloned();
        let is_lookup = matches!(table, SessionRelation::Lookup(_));
        Some(Self { name: name.to_owned(), description: table.description().into_owned(), is_lookup, schema, id })
    }
}

/// Adds the declared description and unit of a column to the metadata of its field.
fn with_description(field: &Field, table: &SessionRelation) -> Field {
    let Some((description, unit)) = table.column_description(field.name()) else { return field.clone() };
    let metadata = [("comment", description), ("unit", unit)];
    let metadata = metadata.into_iter().filter(|(_, text)| !text.is_empty());
    let metadata = metadata.map(|(key, text)| (key.to_owned(), text.to_owned()));
    field.clone().with_metadata(field.metadata().clone().into_iter().chain(metadata).collect())
}
