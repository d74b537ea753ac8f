//! Lookup tables: loaded at startup and at each refresh; a failed refresh keeps the previous contents.
//!
//! ```text
//!   file │ url │ query ─► load (bytes, rows, time) ─┬─ good ─► transforms join with it from now on
//!             ▲                                     └─ bad ──► logged, counted, retried; the last good contents stay
//!             └──────────── refresh ◄───────────────┘
//! ```
//!
//! In: declared lookups. Out: the current contents of each, if it was ever loaded. The caller passes in a function that runs
//! queries: a transform does not depend on the query engine.
//!
//! **Invariant:** a loaded lookup stays available: a refresh replaces its contents as a whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::lookup_fetch;
use super::lookup_file::{self, LookupLimits};
use crate::config::{ColumnConfig, IngestConfig, LookupConfig, LookupFormat};
use crate::contract::ColumnKind;
use crate::error::{Error, Result, did_you_mean};
use crate::supervise::{AtStop, Supervisor, Task, TaskKind, blocking};
use crate::telemetry::Metrics;

/// The longest pause before the next attempt to load a lookup that was never loaded.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// The name of the operation in the error that a panic becomes.
const LOADING: &str = "loading";

/// Runs the query of a lookup, over the rows of all tenants.
pub type LookupQuery = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<RecordBatch>>> + Send + Sync>;

/// All lookup tables.
#[derive(Debug)]
pub struct Lookups {
    list: BTreeMap<String, Lookup>,
    bounds: LookupLimits,
    metrics: Arc<Metrics>,
    /// Notifies waiters when a lookup is loaded.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Lookup {
    config: LookupConfig,
    /// Its declared columns, if any.
    declared: Option<SchemaRef>,
    loaded: RwLock<Option<Arc<LoadedLookup>>>,
}

/// The contents of a lookup.
#[derive(Debug)]
pub(super) struct LoadedLookup {
    pub(super) schema: SchemaRef,
    pub(super) batches: Arc<Vec<RecordBatch>>,
    pub(super) rows: usize,
}

impl Lookups {
    /// The declared lookups, none of them loaded.
    pub fn new(configs: &BTreeMap<String, LookupConfig>, limits: &IngestConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let lookup = |(name, config): (&String, &LookupConfig)| {
            let declared = (!config.columns.is_empty()).then(|| declared(&config.columns));
            (name.clone(), Lookup { config: config.clone(), declared, loaded: RwLock::default() })
        };
        let bounds = LookupLimits {
            bytes_max: limits.lookup_bytes_max,
            rows_max: limits.lookup_rows_max,
            time_max: limits.lookup_time_max,
        };
        let list = configs.iter().map(lookup).collect();
        Arc::new(Self { list, bounds, metrics, changed: watch::Sender::new(()) })
    }

    /// Loads the lookups that come from files. Returns the errors by lookup name.
    pub fn load_files(&self) -> Vec<(String, Error)> {
        let mut faults = Vec::new();
        for (name, lookup) in &self.list {
            if let Some(file) = &lookup.config.file {
                match lookup_file::read(file, lookup.declared.as_ref(), &self.bounds) {
                    Ok(loaded) => self.keep(name, loaded),
                    Err(error) => faults.push((name.clone(), error.at(format!("lookups.{name}")))),
                }
            }
        }
        faults
    }

    /// Loads one lookup. A lookup with a query needs `lookup_query`.
    pub async fn load_one(&self, name: &str, lookup_query: Option<&LookupQuery>) -> Result<()> {
        let lookup = self.list.get(name).ok_or_else(|| self.unknown(name))?;
        let loaded = self.load(lookup, lookup_query).await.map_err(|error| error.at(format!("lookups.{name}")))?;
        self.keep(name, loaded);
        Ok(())
    }

    /// Loads from this file instead of the declared source.
    pub fn load_instead(&self, name: &str, file: &Path) -> Result<()> {
        let lookup = self.list.get(name).ok_or_else(|| self.unknown(name))?;
        self.keep(name, lookup_file::read(file, lookup.declared.as_ref(), &self.bounds)?);
        Ok(())
    }

    /// Refreshes all lookups until `stop`, each in its own task: a panic affects only the refresh of its own lookup.
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

    /// Loads one lookup in a loop.
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
                    self.keep(&name, loaded);
                }
                Err(error) => {
                    self.metrics.transforms.lookup_failed(&name);
                    match is_loaded {
                        true => {
                            tracing::warn!(lookup = %name, ?error, "could not refresh a lookup: the previous contents stay in use")
                        }
                        false => {
                            tracing::warn!(lookup = %name, ?error, "could not load a lookup: its sources wait")
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
        let (config, declared, bounds) = (&lookup.config, lookup.declared.clone(), self.bounds);
        let time_max = bounds.time_max;
        let loading = async {
            if let Some(file) = config.file.clone() {
                return blocking(LOADING, move || lookup_file::read(&file, declared.as_ref(), &bounds)).await;
            }
            if let Some(url) = &config.url {
                let url = Url::parse(url).map_err(|error| Error::invalid(format!("the URL is not valid: {error}")))?;
                let format = LookupFormat::of(url.path());
                let format = format.ok_or_else(|| {
                    Error::invalid("the URL does not end in a known format: use .csv, .json or .parquet")
                })?;
                let body = lookup_fetch::fetch(&url, config.ca_file.as_deref(), &bounds).await?;
                return blocking(LOADING, move || lookup_file::decode(body, format, declared.as_ref(), &bounds)).await;
            }
            let query = config.query.clone().ok_or_else(|| Error::internal("a lookup has no source"))?;
            let lookup_query =
                lookup_query.ok_or_else(|| Error::internal("no query engine was passed in for a lookup's query"))?;
            let batches = lookup_query(query).await?;
            blocking(LOADING, move || lookup_file::gather(batches, declared.as_ref(), &bounds)).await
        };
        let late = || {
            Error::unavailable(format!(
                "the lookup did not load within {} s (limit ingest.lookup_time_max)",
                time_max.as_secs_f64()
            ))
        };
        tokio::time::timeout(time_max, loading).await.map_err(|_| late())?
    }

    fn keep(&self, name: &str, loaded: LoadedLookup) {
        self.metrics.transforms.lookup_loaded(name, loaded.rows);
        if let Some(lookup) = self.list.get(name) {
            *lookup.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(loaded));
        }
        self.changed.send_replace(());
    }

    /// The current contents of these lookups, or the names of those that were never loaded.
    pub(super) fn now(&self, names: &[String]) -> std::result::Result<Vec<(String, Arc<LoadedLookup>)>, Vec<String>> {
        let found = |name: &String| Some((name.clone(), self.list.get(name)?.now()?));
        let missing: Vec<String> = names.iter().filter(|name| found(name).is_none()).cloned().collect();
        if missing.is_empty() { Ok(names.iter().filter_map(found).collect()) } else { Err(missing) }
    }

    /// The contents of these lookups, or empty ones with the declared columns: used to plan before anything is loaded.
    pub(super) fn expected(
        &self,
        names: &[String],
    ) -> std::result::Result<Vec<(String, Arc<LoadedLookup>)>, Vec<String>> {
        let found = |name: &String| {
            let lookup = self.list.get(name)?;
            let empty = |schema: &SchemaRef| {
                Arc::new(LoadedLookup { schema: Arc::clone(schema), batches: Arc::default(), rows: 0 })
            };
            Some((name.clone(), lookup.now().or_else(|| lookup.declared.as_ref().map(empty))?))
        };
        let missing: Vec<String> = names.iter().filter(|name| found(name).is_none()).cloned().collect();
        if missing.is_empty() { Ok(names.iter().filter_map(found).collect()) } else { Err(missing) }
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.keys().map(String::as_str)
    }

    /// Whether a lookup of this name is declared.
    pub(super) fn has(&self, name: &str) -> bool {
        self.list.contains_key(name)
    }

    /// Completes when any lookup is loaded after this call.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn unknown(&self, name: &str) -> Error {
        Error::invalid(format!("unknown lookup `{name}`{}", did_you_mean(name, self.names())))
    }
}

impl Lookup {
    fn now(&self) -> Option<Arc<LoadedLookup>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Declared columns as a schema. The configuration has already checked their types.
fn declared(columns: &[ColumnConfig]) -> SchemaRef {
    let field = |column: &ColumnConfig| {
        let kind = ColumnKind::parse(&column.kind).unwrap_or(ColumnKind::Text);
        Field::new(&column.name, kind.data_type(), true)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
