//! The query engine. It holds everything that queries share: tables, lookup tables, caches, the query slots of each tenant, and the
//! list of running queries.
//!
//! `Engine::session` creates a session for an [`Access`]. The session reads the newest known snapshots of the tables.
//! Creating a session takes microseconds and reads no data, because functions, rules and options are cloned from a
//! template and file metadata is cached.
//!
//! **Invariant:** each query has its own memory pool, which `query.memory_bytes_max` limits. A query never writes to
//! disk. A query that would have to spill fails with `Limited` instead, so no tenant can fill the server's disk.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::TableFunction;
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use crate::clock::Clock;
use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::lake::{Table, Tables};
use crate::query::catalog::{CATALOG, SCHEMA};
use crate::query::freshness::FreshnessFunction;
use crate::query::planning::erased_plan::ErasedPlan;
use crate::query::planning::plan_cache::PlanCache;
use crate::query::planning::reusable_plan::is_repeatable;
use crate::query::running_queries::{QueryId, RunningQueries};
use crate::query::scan::table_source::TableSource;
use crate::query::tenant_runtimes::TenantRuntimes;
use crate::sql::{dialect, interrupt};
use crate::telemetry::Metrics;
use crate::tenancy::{Access, Slots};
use crate::transform::Lookups;

/// The query engine, which all sessions of the server share.
pub struct Engine {
    pub(in crate::query) tables: Arc<Tables>,
    /// The lookup tables, some of which queries can read.
    pub(in crate::query) lookups: Arc<Lookups>,
    pub(in crate::query) config: QueryConfig,
    pub(in crate::query) clock: Clock,
    pub(in crate::query) slots: Slots,
    /// The planning slots of each tenant. They limit the planning of one tenant's statements to half of the query
    /// threads.
    pub(in crate::query) planning: Slots,
    pub(in crate::query) running: Arc<RunningQueries>,
    pub(in crate::query) plans: PlanCache,
    /// The threads that plan and run queries.
    pub(in crate::query) runtimes: TenantRuntimes,
    /// The session state that each new session clones. The session then adds its own tables.
    pub(in crate::query) template: ErasedPlan<SessionState>,
    /// The table functions that a statement may call.
    pub(in crate::query) table_functions: Arc<[Arc<TableFunction>]>,
    runtime: Arc<RuntimeEnv>,
    sources: HashMap<String, TableSource>,
    pub(in crate::query) metrics: Arc<Metrics>,
}

impl Engine {
    /// Creates an engine for `tables`, without lookup tables.
    pub fn new(tables: Arc<Tables>, config: QueryConfig, clock: Clock, metrics: Arc<Metrics>) -> Result<Arc<Self>> {
        Self::with_lookups(tables, Lookups::none(), config, clock, metrics)
    }

    /// Creates an engine for `tables` and `lookups`. Registers the lake's object store, sets the sizes of the caches,
    /// and starts the query threads.
    pub fn with_lookups(
        tables: Arc<Tables>,
        lookups: Arc<Lookups>,
        config: QueryConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let to_error = |error: DataFusionError| Error::internal("cannot start the query engine").with_source(error);
        let runtime = RuntimeEnvBuilder::new()
            .with_metadata_cache_limit(config.metadata_cache_bytes_max)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(to_error)?;
        let partitions = match config.partitions {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            partitions => partitions,
        };
        let mut sources = HashMap::new();
        for (name, table) in &*tables {
            sources.insert(name.clone(), source(table, &runtime, partitions).map_err(to_error)?);
        }
        let template = template(&config, partitions, &runtime);
        let table_functions = dialect::table_functions().into_iter();
        let slots = Slots::new(config.tenant_queries_max, config.tenant_queue_max, config.tenant_queue_wait_max);
        let runtimes = TenantRuntimes::new(config.threads);
        interrupt::install();
        let waiting_max = config.tenant_queries_max.saturating_add(config.tenant_queue_max);
        let planning = Slots::new((runtimes.thread_count() / 2).max(1), waiting_max, config.tenant_queue_wait_max);
        Ok(Arc::new(Self {
            tables,
            lookups,
            clock,
            slots,
            planning,
            running: Arc::default(),
            plans: PlanCache::default(),
            runtimes,
            template: ErasedPlan::new(template),
            table_functions: table_functions.chain([FreshnessFunction::listed()]).collect(),
            runtime,
            sources,
            metrics,
            config,
        }))
    }

    /// Cancels a running query of this caller. Returns false if the query is unknown, has ended, or belongs to another
    /// caller.
    pub fn cancel(&self, access: &Access, id: QueryId) -> bool {
        self.running.cancel(access, id)
    }

    /// Cancels the running queries of revoked tokens. Each of them ends with the error `Unauthenticated`.
    pub fn cancel_revoked(&self) {
        self.running.cancel_revoked();
    }

    /// Cancels the running queries without waiting for them to end. Each query ends when its task next yields. After
    /// this call, the engine accepts no new queries.
    pub fn stop(&self) {
        self.runtimes.stop();
    }

    /// Returns the maximum size of a statement in bytes.
    pub fn sql_bytes_max(&self) -> usize {
        self.config.sql_bytes_max
    }

    /// Returns the number of running queries, across all tenants.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns the task context for one query. It has its own memory pool and shares the rest of the environment.
    /// Planning has already resolved the functions, so only a query on `information_schema` needs the function
    /// registry.
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

    /// Returns the source that reads a table's files, or `None` if the table is unknown.
    pub(in crate::query) fn source(&self, table: &str) -> Option<&TableSource> {
        self.sources.get(table)
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

/// Creates the template with the functions, rules and options of every session. The template contains no file formats
/// and no table factories, and does not treat table names as URLs, so a statement cannot read a file by its name.
fn template(config: &QueryConfig, partitions: usize, runtime: &Arc<RuntimeEnv>) -> SessionState {
    dialect::session_state(options(config, partitions))
        .with_runtime_env(Arc::clone(runtime))
        .with_table_function_list(dialect::table_functions())
        .build()
}

fn options(config: &QueryConfig, partitions: usize) -> ConfigOptions {
    let session = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        // The session's catalog has its own `information_schema`, which hides the server's settings.
        .with_information_schema(false)
        .with_target_partitions(partitions)
        .with_batch_size(config.batch_rows)
        .with_enforce_batch_size_in_joins(true);
    let mut options = session.options().as_ref().clone();
    options.execution.parquet.schema_force_view_types = false;
    // `TenantScan` does not support dynamic filters.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options
}
