//! The engine holds what all queries share: tables, caches, the query slots of each tenant, and the list of running
//! queries.
//!
//! In: an [`Access`]. Out: a [`Session`] on the newest known snapshots. Creating a session reads no data and takes
//! microseconds: functions, rules and options come from a template, file metadata comes from a cache.
//!
//! **Invariant:** each query has its own memory pool, limited by `query.memory_bytes_max`, and never writes to disk. A
//! query that would have to spill fails with `Limited`: no tenant can fill the server's disk.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::catalog::TableFunction;
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::lake::{Table, Tables};
use crate::query::functions::freshness::FreshnessFunction;
use crate::query::functions::function_limits;
use crate::query::request::erased_plan::ErasedPlan;
use crate::query::request::plan_cache::{Plans, is_repeatable};
use crate::query::request::query_runtime::QueryRuntime;
use crate::query::request::session::{CATALOG, SCHEMA, Session};
use crate::query::scan::tenant_table::TableSource;
use crate::telemetry::{Metrics, QueryMeter, QueryOutcome};
use crate::tenancy::{Access, Scope, Slot, Slots};

/// The id of one running query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub uuid::Uuid);

/// The engine.
pub struct Engine {
    pub(in crate::query) tables: Arc<Tables>,
    pub(in crate::query) config: QueryConfig,
    pub(in crate::query) clock: Clock,
    pub(in crate::query) slots: Slots,
    pub(in crate::query) running: Arc<RunningQueries>,
    pub(in crate::query) plans: Plans,
    /// The threads that plan and run queries.
    pub(in crate::query) threads: QueryRuntime,
    /// The template that each session clones.
    pub(in crate::query) template: ErasedPlan<SessionState>,
    /// The table functions that a statement may call.
    pub(in crate::query) table_functions: Arc<[Arc<TableFunction>]>,
    runtime: Arc<RuntimeEnv>,
    sources: HashMap<String, TableSource>,
    metrics: Arc<Metrics>,
}

/// The running queries: who runs them, and how to cancel them.
#[derive(Debug, Default)]
pub(in crate::query) struct RunningQueries(Mutex<HashMap<QueryId, RunningQuery>>);

#[derive(Debug)]
struct RunningQuery {
    caller: QueryCaller,
    stop: CancellationToken,
}

/// Who may cancel a query: the same subject of the same issuer and tenant.
#[derive(Debug, PartialEq, Eq)]
struct QueryCaller {
    tenant: String,
    issuer: String,
    subject: String,
}

/// The resources of one running query: its list entry, its slot, its metrics. Dropping this releases all of them.
#[derive(Debug)]
pub(in crate::query) struct QueryTicket {
    pub(in crate::query) id: QueryId,
    pub(in crate::query) stop: CancellationToken,
    meter: Option<QueryMeter>,
    running: Arc<RunningQueries>,
    _slot: Slot,
}

impl Engine {
    /// Registers the object store of the lake, sizes the caches and starts the query threads.
    pub fn new(tables: Arc<Tables>, config: QueryConfig, clock: Clock, metrics: Arc<Metrics>) -> Result<Arc<Self>> {
        let fault = |fault: DataFusionError| Error::internal("the query engine does not start").with_source(fault);
        let runtime = RuntimeEnvBuilder::new()
            .with_metadata_cache_limit(config.metadata_cache_bytes_max)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(fault)?;
        let partitions = match config.partitions {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            partitions => partitions,
        };
        let mut sources = HashMap::new();
        for (name, table) in &*tables {
            sources.insert(name.clone(), source(table, &runtime, partitions).map_err(fault)?);
        }
        let template = template(&config, partitions, &runtime);
        let table_functions = SessionStateDefaults::default_table_functions().into_iter();
        let slots = Slots::new(config.tenant_queries_max, config.tenant_queue_max, config.tenant_queue_wait_max);
        Ok(Arc::new(Self {
            tables,
            clock,
            slots,
            running: Arc::default(),
            plans: Plans::default(),
            threads: QueryRuntime::start(config.threads)?,
            template: ErasedPlan::new(template),
            table_functions: table_functions.chain([FreshnessFunction::listed()]).collect(),
            runtime,
            sources,
            metrics,
            config,
        }))
    }

    /// A session for one request. `Forbidden` without the read scope or a tenant. Costs tens of microseconds.
    pub fn session(self: &Arc<Self>, access: &Access) -> Result<Session> {
        access.require(Scope::Read)?;
        access.check_expiry(self.clock.now())?;
        Session::new(Arc::clone(self), access.clone())
    }

    /// Cancels a running query of this caller (same tenant and subject). Returns false if the query is unknown, belongs
    /// to another caller, or has ended.
    pub fn cancel(&self, access: &Access, id: QueryId) -> bool {
        let Ok(caller) = QueryCaller::of(access) else { return false };
        self.running.lock().get(&id).filter(|entry| entry.caller == caller).is_some_and(|entry| {
            entry.stop.cancel();
            true
        })
    }

    /// Ends the running queries at their next await and accepts no more. Returns at once.
    pub fn stop(&self) {
        self.threads.stop();
    }

    /// The maximum size of a statement in bytes.
    pub fn sql_bytes_max(&self) -> usize {
        self.config.sql_bytes_max
    }

    /// The number of running queries of all tenants.
    pub fn running(&self) -> usize {
        self.running.lock().len()
    }

    /// The task context of one query: the shared environment with a memory pool of its own. Planning has already
    /// resolved the functions; only the nodes of `information_schema` look them up again, to list them.
    pub(in crate::query) fn task(&self, plan: &Arc<dyn ExecutionPlan>) -> TaskContext {
        let memory = Arc::new(GreedyMemoryPool::new(self.config.memory_bytes_max));
        let runtime = Arc::new(RuntimeEnv { memory_pool: memory, ..RuntimeEnv::clone(&self.runtime) });
        if !is_repeatable(plan) {
            return TaskContext::from(&*self.template).with_runtime(runtime);
        }
        let (scalar, higher_order) = (HashMap::new(), HashMap::new());
        let (aggregate, window) = (HashMap::new(), HashMap::new());
        let (name, config) = (self.template.session_id().to_owned(), self.template.config().clone());
        TaskContext::new(None, name, config, scalar, higher_order, aggregate, window, runtime)
    }

    /// How to read the files of a table.
    pub(in crate::query) fn source(&self, table: &str) -> Option<&TableSource> {
        self.sources.get(table)
    }

    /// Adds a query of `access` to the list of running queries.
    pub(in crate::query) fn enter(&self, access: &Access, slot: Slot) -> Result<QueryTicket> {
        let id = QueryId(uuid::Uuid::new_v4());
        let stop = CancellationToken::new();
        let entry = RunningQuery { caller: QueryCaller::of(access)?, stop: stop.clone() };
        self.running.lock().insert(id, entry);
        Ok(QueryTicket { id, stop, meter: Some(self.metrics.query()), running: Arc::clone(&self.running), _slot: slot })
    }
}

impl RunningQueries {
    /// A panic cannot leave the list half updated, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, HashMap<QueryId, RunningQuery>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueryTicket {
    /// Counts rows returned to the client.
    pub(in crate::query) fn rows(&mut self, rows: usize) {
        if let Some(meter) = &mut self.meter {
            meter.rows(rows as u64);
        }
    }

    /// Records how the query ended. A query that is dropped without a call of this counts as cancelled.
    pub(in crate::query) fn end(mut self, outcome: QueryOutcome) {
        if let Some(meter) = self.meter.take() {
            meter.end(outcome);
        }
    }
}

impl Drop for QueryTicket {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

impl QueryCaller {
    fn of(access: &Access) -> Result<Self> {
        let (issuer, subject, _) = access.identity();
        let tenant = access.tenant()?.as_str().to_owned();
        Ok(Self { tenant, issuer: issuer.to_owned(), subject: subject.to_owned() })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

fn source(table: &Table, runtime: &RuntimeEnv, partitions: usize) -> Result<TableSource, DataFusionError> {
    let (store, _) = table.location();
    let root = ObjectStoreUrl::parse(store.root.as_str())?;
    runtime.register_object_store(&store.root, Arc::clone(&store.objects));
    let metadata = runtime.cache_manager.get_file_metadata_cache();
    let reader = Arc::new(CachedParquetFileReaderFactory::new(Arc::clone(&store.objects), metadata));
    Ok(TableSource { store: root, reader, partitions })
}

/// Functions, rules and options of every session. The template has no file formats, table factories or URL tables: a
/// statement has no way to name a file.
fn template(config: &QueryConfig, partitions: usize, runtime: &Arc<RuntimeEnv>) -> SessionState {
    let functions = SessionStateDefaults::default_table_functions();
    SessionStateBuilder::new()
        .with_config(options(config, partitions).into())
        .with_runtime_env(Arc::clone(runtime))
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(function_limits::bounded(SessionStateDefaults::default_scalar_functions()))
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(functions)
        .with_analyzer_rule(Arc::new(function_limits::ResultSizeRule))
        .build()
}

fn options(config: &QueryConfig, partitions: usize) -> ConfigOptions {
    let session = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        // The catalog has our own one, without the settings of the server.
        .with_information_schema(false)
        .with_target_partitions(partitions)
        .with_batch_size(config.batch_rows)
        .with_enforce_batch_size_in_joins(true);
    let mut options = session.options().as_ref().clone();
    options.sql_parser.collect_spans = true;
    // String views would be sent with all their unfiltered buffers.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    // All times are UTC: `TIMESTAMP WITH TIME ZONE` and texts without a zone get this zone.
    options.execution.time_zone = Some("UTC".to_owned());
    // Our scan does not support dynamic filters.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options
}
