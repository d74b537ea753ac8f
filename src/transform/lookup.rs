//! Lookup tables, which are loaded at startup and refreshed at intervals.
//!
//! ```text
//!   file │ url │ query ─► load (bytes, rows, time) ─┬─ succeeds ─► transforms and queries read the new contents
//!             ▲                                     └─ fails ────► logged and counted; the previous contents stay
//!             └──────────── refresh ◄───────────────┘
//! ```
//!
//! [`Lookups`] provides the current contents of every lookup that has been loaded at least once. A lookup's query is
//! run by a [`LookupQuery`] function that the caller passes in, so transforms do not depend on the query engine.
//!
//! **Invariant:** a loaded lookup stays available. A refresh replaces all of its contents or none of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::lookup_contents::{LoadedLookup, LookupLimits, QueryableRows};
use super::{lookup_fetch, lookup_file, lookup_queryable};
use crate::config::{ColumnConfig, IngestConfig, LookupConfig, LookupFormat};
use crate::contract::ColumnKind;
use crate::error::{Error, Result, did_you_mean};
use crate::supervise::{AtStop, Supervisor, Task, TaskKind, blocking};
use crate::telemetry::Metrics;

/// The longest pause between attempts to load a lookup that has never been loaded.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// The operation that the error message names after a panic, as in "loading panicked".
const LOADING: &str = "loading";

/// A function that runs a lookup's query over the rows of all tenants.
pub type LookupQuery = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<RecordBatch>>> + Send + Sync>;

/// All lookup tables.
#[derive(Debug)]
pub struct Lookups {
    list: BTreeMap<String, Lookup>,
    limits: LookupLimits,
    metrics: Arc<Metrics>,
    /// Notifies waiting transforms when a lookup is loaded.
    changed: watch::Sender<()>,
}

/// The configuration and the current contents of one lookup table.
#[derive(Debug)]
struct Lookup {
    config: Arc<LookupConfig>,
    /// The declared columns. `None` if the configuration declares no columns.
    declared: Option<SchemaRef>,
    /// The current contents. `None` until the lookup is loaded for the first time.
    loaded: RwLock<Option<Arc<LoadedLookup>>>,
}

/// A lookup table that queries can read.
#[derive(Debug, Clone)]
pub struct QueryableLookup<'a> {
    /// The name.
    pub name: &'a str,
    /// The configuration.
    pub config: &'a Arc<LookupConfig>,
    /// The declared columns or, if none are declared, the columns of the current contents. `None` if they are not known
    /// yet.
    pub schema: Option<SchemaRef>,
    /// The current contents, or `None` if the lookup has never been loaded.
    pub loaded: Option<Arc<LoadedLookup>>,
}

impl Lookups {
    /// Creates the declared lookups without loading them.
    pub fn new(configs: &BTreeMap<String, LookupConfig>, limits: &IngestConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let lookup = |(name, config): (&String, &LookupConfig)| {
            let declared = (!config.columns.is_empty()).then(|| declared(&config.columns));
            (name.clone(), Lookup { config: Arc::new(config.clone()), declared, loaded: RwLock::default() })
        };
        let limits = LookupLimits {
            bytes_max: limits.lookup_bytes_max,
            rows_max: limits.lookup_rows_max,
            time_max: limits.lookup_time_max,
        };
        let list = configs.iter().map(lookup).collect();
        Arc::new(Self { list, limits, metrics, changed: watch::Sender::new(()) })
    }

    /// Returns an empty set of lookups.
    pub fn none() -> Arc<Self> {
        Self::new(&BTreeMap::new(), &IngestConfig::default(), Arc::default())
    }

    /// Loads the lookups that come from files. Returns the name and error of each lookup that cannot be loaded.
    pub fn load_files(&self) -> Vec<(String, Error)> {
        let mut errors = Vec::new();
        for (name, lookup) in &self.list {
            if let Some(file) = &lookup.config.file {
                match lookup.read(file, &self.limits) {
                    Ok(loaded) => self.set_loaded(name, loaded),
                    Err(error) => errors.push((name.clone(), error.at(format!("lookups.{name}")))),
                }
            }
        }
        errors
    }

    /// Loads one lookup. `lookup_query` may be `None` only if the lookup has no query.
    pub async fn load_one(&self, name: &str, lookup_query: Option<&LookupQuery>) -> Result<()> {
        let lookup = self.list.get(name).ok_or_else(|| self.unknown(name))?;
        let loaded = self.load(lookup, lookup_query).await.map_err(|error| error.at(format!("lookups.{name}")))?;
        self.set_loaded(name, loaded);
        Ok(())
    }

    /// Loads a lookup from `file` instead of its declared file, URL or query.
    pub fn load_instead(&self, name: &str, file: &Path) -> Result<()> {
        let lookup = self.list.get(name).ok_or_else(|| self.unknown(name))?;
        self.set_loaded(name, lookup.read(file, &self.limits)?);
        Ok(())
    }

    /// Refreshes all lookups until `stop` is cancelled. Each lookup has its own task, so a panic affects only one
    /// lookup.
    pub async fn run(self: Arc<Self>, lookup_query: LookupQuery, supervisor: Supervisor, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for name in self.list.keys() {
            let (tables, lookup_query, supervisor) = (Arc::clone(&self), lookup_query.clone(), supervisor.clone());
            let (name, stop) = (name.clone(), stop.clone());
            tasks.spawn(async move {
                let task = Task::new(TaskKind::LookupTable, &name);
                let refresh = || Arc::clone(&tables).refresh(name.clone(), lookup_query.clone(), stop.clone());
                supervisor.keep(task, &stop, AtStop::End, refresh).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Loads one lookup at intervals until `stop` is cancelled.
    async fn refresh(self: Arc<Self>, name: String, lookup_query: LookupQuery, stop: CancellationToken) {
        let Some(lookup) = self.list.get(&name) else { return };
        loop {
            let Some(loaded) = stop.run_until_cancelled(self.load(lookup, Some(&lookup_query))).await else {
                return;
            };
            let is_loaded = lookup.now().is_some();
            match loaded {
                Ok(loaded) => {
                    if !is_loaded {
                        tracing::info!(lookup = %name, rows = loaded.rows, "loaded a lookup");
                    }
                    self.set_loaded(&name, loaded);
                }
                Err(error) => {
                    self.metrics.transforms.lookup_failed(&name);
                    match is_loaded {
                        true => {
                            tracing::warn!(lookup = %name, ?error, "cannot refresh a lookup; the previous contents stay in use")
                        }
                        false => {
                            tracing::warn!(lookup = %name, ?error, "cannot load a lookup; sources using it must wait")
                        }
                    }
                }
            }
            let pause = lookup.config.refresh;
            let pause = if lookup.now().is_some() { pause } else { pause.min(RETRY_PAUSE_MAX) };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn load(&self, lookup: &Lookup, lookup_query: Option<&LookupQuery>) -> Result<LoadedLookup> {
        let (config, declared, limits) = (Arc::clone(&lookup.config), lookup.declared.clone(), self.limits);
        let time_max = limits.time_max;
        let loading = async {
            let prepared = {
                let config = Arc::clone(&config);
                move |loaded| lookup_queryable::prepare(loaded, &config, &limits)
            };
            if let Some(file) = config.file.clone() {
                return blocking(LOADING, move || {
                    lookup_file::read(&file, declared.as_ref(), &limits).and_then(prepared)
                })
                .await;
            }
            if let Some(url) = &config.url {
                let url = Url::parse(url).map_err(|error| Error::invalid(format!("the URL is not valid: {error}")))?;
                let format = LookupFormat::of(url.path());
                let format = format.ok_or_else(|| {
                    Error::invalid("the URL does not end in a known file extension; use .csv, .json or .parquet")
                })?;
                let body = lookup_fetch::fetch(&url, config.ca_file.as_deref(), &limits).await?;
                let decode = move || lookup_file::decode(body, format, declared.as_ref(), &limits).and_then(prepared);
                return blocking(LOADING, decode).await;
            }
            let query = config.query.clone().ok_or_else(|| Error::internal("a lookup has no file, URL or query"))?;
            let lookup_query =
                lookup_query.ok_or_else(|| Error::internal("no query engine was passed in for a lookup's query"))?;
            let batches = lookup_query(query).await?;
            let convert = move || lookup_file::from_batches(batches, declared.as_ref(), &limits).and_then(prepared);
            blocking(LOADING, convert).await
        };
        let timed_out = || {
            Error::unavailable(format!(
                "the lookup did not load within {} s (limit ingest.lookup_time_max)",
                time_max.as_secs_f64()
            ))
        };
        tokio::time::timeout(time_max, loading).await.map_err(|_| timed_out())?
    }

    /// Replaces the contents of a lookup, and notifies waiting transforms.
    fn set_loaded(&self, name: &str, loaded: LoadedLookup) {
        self.metrics.transforms.lookup_loaded(name, loaded.rows);
        if let Some(lookup) = self.list.get(name) {
            *lookup.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(loaded));
        }
        self.changed.send_replace(());
    }

    /// Returns the current contents of the lookups `names`. If some of them have never been loaded, returns their names
    /// as the error.
    pub(super) fn now(&self, names: &[String]) -> std::result::Result<Vec<(String, Arc<LoadedLookup>)>, Vec<String>> {
        let found = |name: &String| Some((name.clone(), self.list.get(name)?.now()?));
        let missing: Vec<String> = names.iter().filter(|name| found(name).is_none()).cloned().collect();
        if missing.is_empty() { Ok(names.iter().filter_map(found).collect()) } else { Err(missing) }
    }

    /// Returns the contents of the lookups `names` for planning. A lookup that is not loaded yet is represented by an
    /// empty table with its declared columns. If some lookups are not loaded and declare no columns, returns their
    /// names as the error.
    pub(super) fn expected(
        &self,
        names: &[String],
    ) -> std::result::Result<Vec<(String, Arc<LoadedLookup>)>, Vec<String>> {
        let found = |name: &String| {
            let lookup = self.list.get(name)?;
            let empty = |schema: &SchemaRef| {
                let (schema, queryable) = (Arc::clone(schema), QueryableRows::None);
                Arc::new(LoadedLookup { schema, batches: Arc::default(), rows: 0, queryable })
            };
            Some((name.clone(), lookup.now().or_else(|| lookup.declared.as_ref().map(empty))?))
        };
        let missing: Vec<String> = names.iter().filter(|name| found(name).is_none()).cloned().collect();
        if missing.is_empty() { Ok(names.iter().filter_map(found).collect()) } else { Err(missing) }
    }

    /// Returns the lookups that queries can read.
    pub fn queryable(&self) -> impl Iterator<Item = QueryableLookup<'_>> {
        self.list.iter().filter(|(_, lookup)| lookup.config.is_queryable()).map(|(name, lookup)| {
            let loaded = lookup.now();
            let schema = lookup.declared.clone().or_else(|| Some(Arc::clone(loaded.as_ref()?.schema())));
            QueryableLookup { name, config: &lookup.config, schema, loaded }
        })
    }

    /// Returns the current contents of a lookup, or `None` if it is unknown or has never been loaded.
    pub fn current(&self, name: &str) -> Option<Arc<LoadedLookup>> {
        self.list.get(name)?.now()
    }

    /// Returns the names of all declared lookups.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.keys().map(String::as_str)
    }

    /// Returns true if a lookup with this name is declared.
    pub fn has(&self, name: &str) -> bool {
        self.list.contains_key(name)
    }

    /// Returns a receiver that is notified each time a lookup is loaded after this call.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn unknown(&self, name: &str) -> Error {
        Error::invalid(format!("unknown lookup `{name}`{}", did_you_mean(name, self.names())))
    }
}

impl Lookup {
    /// Reads the contents from a file.
    fn read(&self, file: &Path, limits: &LookupLimits) -> Result<LoadedLookup> {
        let loaded = lookup_file::read(file, self.declared.as_ref(), limits)?;
        lookup_queryable::prepare(loaded, &self.config, limits)
    }

    fn now(&self) -> Option<Arc<LoadedLookup>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns the schema of declared columns. Their types are valid, because they were checked when the configuration was
/// read.
fn declared(columns: &[ColumnConfig]) -> SchemaRef {
    let field = |column: &ColumnConfig| {
        let kind = ColumnKind::parse(&column.kind).unwrap_or(ColumnKind::Text);
        kind.field(&column.name)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
