//! Lookup tables: loaded when the server starts, again at each refresh, and kept when that fails.
//!
//! ```text
//!   file │ url │ query ─► load (bytes, rows, time) ─┬─ good ─► what transforms join with from now on
//!             ▲                                     └─ bad ──► told, counted, tried again; the last good one stays
//!             └──────────── refresh ◄───────────────┘
//! ```
//!
//! In: declared lookups. Out: for each what it holds now, if it was ever loaded. Queries are asked by whoever runs this:
//! a transform does not know the engine that answers them.
//!
//! **Invariant:** what was loaded once is there for ever: a refresh replaces it as a whole or not at all.

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

use super::fetch;
use super::lookup_file::{self, LookupLimits};
use crate::config::{ColumnConfig, IngestConfig, LookupConfig, LookupFormat};
use crate::contract::ColumnKind;
use crate::error::{Error, Result, did_you_mean};
use crate::supervise::{AtStop, Supervisor, Task, TaskKind, blocking};
use crate::telemetry::Metrics;

/// The longest pause before a lookup that was never loaded is tried again.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// What a panic is an error of.
const LOADING: &str = "loading";

/// Answers the query of a lookup, with all rows of all tenants.
pub type LookupQuery = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<RecordBatch>>> + Send + Sync>;

/// All lookup tables.
#[derive(Debug)]
pub struct Lookups {
    list: BTreeMap<String, Lookup>,
    bounds: LookupLimits,
    metrics: Arc<Metrics>,
    /// Tells waiters that one was loaded.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Lookup {
    config: LookupConfig,
    /// Its declared columns, if any.
    declared: Option<SchemaRef>,
    loaded: RwLock<Option<Arc<LoadedLookup>>>,
}

/// What a lookup holds.
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

    /// Loads what is in files, at once. Returns what could not be loaded, by name.
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

    /// Loads one. A query needs an `lookup_query`.
    pub async fn load_one(&self, name: &str, lookup_query: Option<&LookupQuery>) -> Result<()> {
        let lookup = self.list.get(name).ok_or_else(|| self.unknown(name))?;
        let loaded = self.load(lookup, lookup_query).await.map_err(|error| error.at(format!("lookups.{name}")))?;
        self.keep(name, loaded);
        Ok(())
    }

    /// Loads from this file instead of what is declared.
    pub fn load_instead(&self, name: &str, file: &Path) -> Result<()> {
        let lookup = self.list.get(name).ok_or_else(|| self.unknown(name))?;
        self.keep(name, lookup_file::read(file, lookup.declared.as_ref(), &self.bounds)?);
        Ok(())
    }

    /// Keeps all of them fresh until `stop`, each in a task of its own: a panic ends the refresh of none but that one.
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

    /// Loads one again and again.
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
                        tracing::info!(lookup = %name, rows = loaded.rows, "a lookup is loaded");
                    }
                    self.keep(&name, loaded);
                }
                Err(error) => {
                    self.metrics.transforms.lookup_failed(&name);
                    match is_loaded {
                        true => {
                            tracing::warn!(lookup = %name, ?error, "a lookup is not refreshed: the last one is used")
                        }
                        false => {
                            tracing::warn!(lookup = %name, ?error, "a lookup is not loaded: its sources wait")
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
                let url = Url::parse(url).map_err(|error| Error::invalid(format!("no URL: {error}")))?;
                let format = LookupFormat::of(url.path());
                let format = format.ok_or_else(|| Error::invalid("the url does not say its format"))?;
                let body = fetch::fetch(&url, config.ca_file.as_deref(), &bounds).await?;
                return blocking(LOADING, move || lookup_file::decode(body, format, declared.as_ref(), &bounds)).await;
            }
            let query = config.query.clone().ok_or_else(|| Error::internal("a lookup comes from nowhere"))?;
            let lookup_query =
                lookup_query.ok_or_else(|| Error::internal("nobody is there to answer a lookup's query"))?;
            let batches = lookup_query(query).await?;
            blocking(LOADING, move || lookup_file::gather(batches, declared.as_ref(), &bounds)).await
        };
        let late =
            || Error::unavailable(format!("not loaded in {} s (limit ingest.lookup_time_max)", time_max.as_secs_f64()));
        tokio::time::timeout(time_max, loading).await.map_err(|_| late())?
    }

    fn keep(&self, name: &str, loaded: LoadedLookup) {
        self.metrics.transforms.lookup_loaded(name, loaded.rows);
        if let Some(lookup) = self.list.get(name) {
            *lookup.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(loaded));
        }
        self.changed.send_replace(());
    }

    /// What these hold now; or the names of those that were never loaded.
    pub(super) fn now(&self, names: &[String]) -> std::result::Result<Vec<(String, Arc<LoadedLookup>)>, Vec<String>> {
        let found = |name: &String| Some((name.clone(), self.list.get(name)?.now()?));
        let missing: Vec<String> = names.iter().filter(|name| found(name).is_none()).cloned().collect();
        if missing.is_empty() { Ok(names.iter().filter_map(found).collect()) } else { Err(missing) }
    }

    /// What these hold, or would hold as far as that is declared: to plan with before anything is loaded.
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

    /// Whether this is one of them.
    pub(super) fn has(&self, name: &str) -> bool {
        self.list.contains_key(name)
    }

    /// Ends when one of them was loaded after this was called.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn unknown(&self, name: &str) -> Error {
        Error::invalid(format!("there is no lookup `{name}`{}", did_you_mean(name, self.names())))
    }
}

impl Lookup {
    fn now(&self) -> Option<Arc<LoadedLookup>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Declared columns as a schema. Their types were checked with the configuration.
fn declared(columns: &[ColumnConfig]) -> SchemaRef {
    let field = |column: &ColumnConfig| {
        let kind = ColumnKind::parse(&column.kind).unwrap_or(ColumnKind::Text);
        Field::new(&column.name, kind.data_type(), true)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
