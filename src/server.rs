//! Builds, runs and stops the server. Startup and shutdown each run a fixed sequence of steps.
//!
//! ```text
//!   build   contracts ► lookup tables ► sources ► store ► tables ► verifier ► ingest ► maintenance
//!           ► query engine ► listeners
//!   run     in parallel under the supervisor: flight, http, lookup tables, sources, followers of other writers,
//!           revocations of tokens
//!   stop    close the listeners ► finish or abort requests ► stop the sources ► commit admitted events ► end merges
//!           ► stop the tasks
//! ```
//!
//! **Invariant:** endpoints and sources stop before ingest stops. Every admitted event is therefore committed, and
//! every receipt is sent.
//! **Invariant:** each step of a shutdown has a deadline ([`Deadline`]). If a client hangs or a task panics, the server
//! therefore still performs all steps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::try_join_all;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::contract::{Contract, Retention};
use crate::error::{Error, Result, did_you_mean};
use crate::ingest::{Ingest, Source};
use crate::lake::{Store, Table, Tables};
use crate::maintenance::Maintenance;
use crate::query::{Engine, OperatorQuery};
use crate::supervise::{self, AtStop, Deadline, Stop, Supervisor, Task, TaskKind};
use crate::telemetry::Metrics;
use crate::tenancy::{RELOAD_INTERVAL, Verifier};
use crate::transform::{LookupQuery, Lookups, Transform};
use crate::{flight, http};

/// A server that has bound the addresses of its endpoints but does not accept requests yet.
pub struct Server {
    config: Config,
    supervisor: Supervisor,
    tables: Arc<Tables>,
    ingest: Arc<Ingest>,
    maintenance: Arc<Maintenance>,
    lookups: Arc<Lookups>,
    lookup_query: LookupQuery,
    flight: (TcpListener, flight::FlightServices),
    http: (TcpListener, http::HttpServices),
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.config)
            .field("sources", &self.ingest.sources)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Creates all components in order, and binds both endpoints. If a configured port is 0, the system chooses a free
    /// port, and [`Server::addresses`] returns the chosen port.
    pub async fn build(config: Config, clock: Clock) -> Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let supervisor = Supervisor::new(metrics.clone());
        let lookups = Lookups::new(&config.lookups, &config.ingest, metrics.clone());
        let (contracts, sources) = declared(&config, &lookups, &clock, &metrics).await?;
        let store = Store::open(&config.lake)?;
        let tables = Arc::new(open_tables(&store, contracts, &config).await?);
        let verifier = Arc::new(Verifier::new(&config.auth, &config.policy, clock.clone())?);
        let (limits, ingest_clock) = (config.ingest.clone(), clock.clone());
        let ingest =
            Ingest::start_under(supervisor.clone(), tables.clone(), sources, limits, ingest_clock, metrics.clone())
                .await?;
        let maintenance =
            Arc::new(Maintenance::start(&tables, &config.maintenance, &config.lake, &metrics, &supervisor)?);
        let (query, queryable) = (config.query.clone(), lookups.clone());
        let engine = Engine::with_lookups(tables.clone(), queryable, query, clock.clone(), metrics.clone())?;
        let lookup_query = lookup_query(&engine, &config);

        let flight = bind(config.flight.listen, "flight.listen").await?;
        let http_services = http::HttpServices {
            verifier: verifier.clone(),
            writer: ingest.writer.clone(),
            sources: ingest.sources.clone(),
            quarantine: ingest.quarantine.clone(),
            maintenance: maintenance.clone(),
            engine: engine.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            limits: config.ingest.clone(),
            home: home(&config, &flight)?,
            supervisor: supervisor.clone(),
        };
        let writer = ingest.writer.clone();
        let flight_services = flight::FlightServices { verifier, engine, writer, metrics, clock };
        let http = (bind(config.http.listen, "http.listen").await?, http_services);
        let flight = (flight, flight_services);
        Ok(Self { config, supervisor, tables, ingest, maintenance, lookups, lookup_query, flight, http })
    }

    /// Returns the addresses of the Flight and HTTP endpoints, in this order.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((bound(&self.flight.0)?, bound(&self.http.0)?))
    }

    /// Serves requests until `stop` is cancelled, and then shuts down gracefully within `shutdown.time_max`. If an
    /// endpoint failed, returns its error. If both failed, returns the error of the first one to fail. If some admitted
    /// events could not be committed in time, returns `Unavailable`.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let (time_max, ingest, maintenance) =
            (self.config.shutdown.time_max, self.ingest.clone(), self.maintenance.clone());
        let (closing, following) = (Stop::from(stop.child_token()), CancellationToken::new());
        let mut tasks = self.start_tasks(&closing, &following);

        // If one endpoint fails, the server stops the other endpoint, too. If it did not, clients that use only the
        // other endpoint would not notice that the server has a problem.
        let mut outcome = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = tasks.endpoints.join_next() => ended.map_or(Ok(()), endpoint_ended),
        };
        let deadline = Deadline::new(Instant::now(), time_max);
        closing.asked.cancel();
        ingest.flush();
        let until_cut = async {
            tokio::time::sleep_until(deadline.drain).await;
            tracing::warn!(
                "aborting unfinished requests and batches: the remaining time is reserved for the last commits"
            );
            closing.cut.cancel();
            tokio::time::sleep_until(deadline.cut).await;
        };
        let ends = async {
            while let Some(ended) = tasks.endpoints.join_next().await {
                outcome = std::mem::replace(&mut outcome, Ok(())).and(endpoint_ended(ended));
            }
            while tasks.sources.join_next().await.is_some() {}
        };
        tokio::select! {
            () = ends => {}
            () = until_cut => {}
        }
        tasks.endpoints.abort_all();
        tasks.sources.abort_all();

        let committed = ingest.stop_by(deadline.commit).await;
        if tokio::time::timeout_at(deadline.end, maintenance.stop()).await.is_err() {
            tracing::warn!("stopping although some merges have not ended: their files stay in the store");
        }
        following.cancel();
        let ends = async { while tasks.background.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.end, ends).await.is_err() {
            tracing::warn!(tasks = tasks.background.len(), "stopping although some background tasks have not ended");
        }
        outcome.and(committed)
    }

    /// Starts all tasks under the supervisor.
    fn start_tasks(self, closing: &Stop, following: &CancellationToken) -> Tasks {
        let Self { config, supervisor, tables, ingest, lookups, lookup_query, flight, http, .. } = self;
        let ((flight_listener, flight_services), (http_listener, http_services)) = (flight, http);
        let metrics = http_services.metrics.clone();
        let mut tasks = Tasks::default();
        tasks.follow_revocations(&supervisor, &http_services, following.clone());
        let serving = http::serve(http_listener, http_services, config.http, closing.clone());
        tasks.serve(&supervisor, "http", serving);
        let secret = config.auth.handle_secret;
        let serving = flight::serve(flight_listener, flight_services, config.flight, secret, closing.clone());
        tasks.serve(&supervisor, "flight", serving);
        for source in ingest.sources.iter() {
            let (source, supervisor, writer) = (source.clone(), supervisor.clone(), ingest.writer.clone());
            let stop = closing.asked.clone();
            tasks.sources.spawn(async move {
                let task = Task::new(TaskKind::Source, source.name());
                let run = || Arc::clone(&source).run(writer.clone(), stop.clone());
                supervisor.keep(task, &stop, AtStop::End, run).await;
            });
        }
        tasks.background.spawn(lookups.run(lookup_query, supervisor.clone(), following.clone()));
        for (name, table) in tables.iter() {
            let (task, table) = (Task::new(TaskKind::Follower, name), table.clone());
            let (supervisor, metrics, stop) = (supervisor.clone(), metrics.clone(), following.clone());
            let interval = config.lake.refresh_interval;
            tasks.background.spawn(async move {
                let run = || follow(table.clone(), metrics.clone(), interval, stop.clone());
                supervisor.keep(task, &stop, AtStop::End, run).await;
            });
        }
        tasks
    }
}

/// The tasks of a running server, grouped by the shutdown step that waits for them.
#[derive(Debug, Default)]
struct Tasks {
    endpoints: JoinSet<Result<()>>,
    sources: JoinSet<()>,
    background: JoinSet<()>,
}

impl Tasks {
    /// Starts the task that reads the file with the revoked tokens, and that cancels the queries of revoked tokens.
    fn follow_revocations(&mut self, supervisor: &Supervisor, services: &http::HttpServices, stop: CancellationToken) {
        let (verifier, engine) = (services.verifier.clone(), services.engine.clone());
        let (supervisor, metrics) = (supervisor.clone(), services.metrics.clone());
        self.background.spawn(async move {
            let task = Task::new(TaskKind::Revocations, "auth.revocations_file");
            let run = || verifier.follow_revocations(RELOAD_INTERVAL, &metrics, &stop, || engine.cancel_revoked());
            supervisor.keep(task, &stop, AtStop::End, run).await;
        });
    }

    /// Starts an endpoint. If the endpoint panics, the server shuts down: its listener has been dropped, so the
    /// endpoint cannot be restarted.
    fn serve(
        &mut self,
        supervisor: &Supervisor,
        name: &'static str,
        serving: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let supervisor = supervisor.clone();
        self.endpoints.spawn(async move { supervisor.once(Task::new(TaskKind::Endpoint, name), serving).await });
    }
}

/// Converts the result of an endpoint's task, and turns a panic into an error.
fn endpoint_ended(ended: Result<Result<()>, JoinError>) -> Result<()> {
    ended.unwrap_or_else(|cause| Err(Error::internal("a listener task failed").with_source(cause)))
}

/// Creates the contracts and sources that the configuration declares. The work runs on the blocking pool, because
/// planning transforms is CPU-intensive.
async fn declared(
    config: &Config,
    lookups: &Arc<Lookups>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<(Vec<Arc<Contract>>, Vec<Source>)> {
    let (config, lookups, clock, metrics) = (config.clone(), lookups.clone(), clock.clone(), metrics.clone());
    supervise::blocking("reading the declarations", move || {
        let contracts = contracts(&config)?;
        for (_, error) in lookups.load_files() {
            tracing::warn!(?error, "a lookup table could not be loaded at startup");
        }
        let sources = sources(&config, Some(&contracts), &lookups, &clock, &metrics)?;
        Ok((contracts, sources))
    })
    .await
}

/// Creates the contracts of all declared tables and their quarantines. If there are several errors, returns all of
/// them. Reads no files other than `.proto` files.
pub(crate) fn contracts(config: &Config) -> Result<Vec<Arc<Contract>>> {
    let mut contracts = Vec::with_capacity(config.tables.len() * 2);
    let mut errors = Vec::new();
    for (name, table) in &config.tables {
        match Contract::new(name, table, &config.base) {
            Ok(contract) => {
                errors.extend(policy_errors(&contract, config));
                let quarantine_days = Retention::days(config.ingest.quarantine_retention_days);
                contracts.push(Arc::new(Contract::quarantine_of(&contract).with_retention(quarantine_days)));
                contracts.push(Arc::new(contract));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(contracts) } else { Err(Error::invalid(errors.join("\n"))) }
}

/// Creates all declared sources. If there are several errors, returns all of them. Sends no network requests. If
/// `contracts` is given, checks each transform against the contract of its table and against those columns of lookup
/// tables that are already known.
pub(crate) fn sources(
    config: &Config,
    contracts: Option<&[Arc<Contract>]>,
    lookups: &Arc<Lookups>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Source>> {
    let results = config.sources.iter().map(|(name, source)| {
        let transform = transform(config, name, contracts, lookups)?;
        let contract = contracts.and_then(|all| all.iter().find(|contract| contract.name == source.table));
        Source::new(name, source, contract, transform, clock.clone(), metrics.clone())
    });
    let (sources, failed): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
    let errors: Vec<String> = failed.into_iter().filter_map(|result| Some(result.err()?.to_string())).collect();
    if errors.is_empty() { sources.into_iter().collect() } else { Err(Error::invalid(errors.join("\n"))) }
}

/// Creates the transform of a source. Returns `None` if the source has no transform, or if the contract of its table is
/// not in `contracts`.
pub(crate) fn transform(
    config: &Config,
    source: &str,
    contracts: Option<&[Arc<Contract>]>,
    lookups: &Arc<Lookups>,
) -> Result<Option<Arc<Transform>>> {
    let Some(declared) = config.sources.get(source) else { return Ok(None) };
    let contract = contracts.and_then(|all| all.iter().find(|contract| contract.name == declared.table));
    let Some(contract) = contract else { return Ok(None) };
    Transform::new(source, declared, contract, lookups, &config.ingest)
}

/// Returns a function that runs the queries of lookup tables. These queries read the rows of all tenants.
fn lookup_query(engine: &Arc<Engine>, config: &Config) -> LookupQuery {
    let limits = &config.ingest;
    let operator_query = Arc::new(OperatorQuery::new(engine.clone(), limits.lookup_rows_max, limits.lookup_bytes_max));
    Arc::new(move |sql| {
        let operator_query = operator_query.clone();
        async move { operator_query.run(&sql).await }.boxed()
    })
}

/// Returns a function that runs the queries of lookup tables, for commands that do not start a server. The queries read
/// the current versions of the lake's tables.
pub(crate) async fn lookup_query_of(
    config: &Config,
    contracts: &[Arc<Contract>],
    clock: &Clock,
) -> Result<LookupQuery> {
    let store = Store::open(&config.lake)?;
    let tables = Arc::new(open_tables(&store, contracts.to_vec(), config).await?);
    Ok(lookup_query(&Engine::new(tables, config.query.clone(), clock.clone(), Arc::default())?, config))
}

/// Returns an error for each column that the table's policy names but the table does not have.
fn policy_errors(contract: &Contract, config: &Config) -> Vec<String> {
    let Some(policy) = config.policy.get(&contract.name) else { return Vec::new() };
    let known: Vec<&str> = contract.table_schema().fields().iter().map(|field| field.name().as_str()).collect();
    let named = policy.columns.iter().chain(policy.rows.iter().map(|rule| &rule.column));
    let unknown = named.filter(|name| !known.contains(&name.as_str()));
    let error = |name: &String| {
        let hint = did_you_mean(name, known.iter().copied());
        format!("policy.{}: there is no column `{name}`{hint}", contract.name)
    };
    unknown.map(error).collect()
}

/// Adds the name of the table to an error that does not contain it.
fn of_table(error: Error, name: &str) -> Error {
    let table = format!("table `{name}`");
    if error.message().contains(&table) { error } else { error.at(table) }
}

/// Opens or creates every table.
pub(crate) async fn open_tables(store: &Store, contracts: Vec<Arc<Contract>>, config: &Config) -> Result<Tables> {
    let opening = contracts.into_iter().map(|contract| async move {
        let name = contract.name.clone();
        let table = Table::open(store, contract, &config.lake).await.map_err(|error| of_table(error, &name))?;
        Ok::<_, Error>((name, table))
    });
    Ok(try_join_all(opening).await?.into_iter().collect())
}

/// Returns the contents of the home page. It contains the address of the Flight SQL endpoint. If `http.home_tables` is
/// set, it also lists the tables that tenants can see.
fn home(config: &Config, flight: &TcpListener) -> Result<http::Home> {
    let described = |name: &String| {
        let table = config.tables.get(name).map(|table| table.description.as_str());
        let description = table.or_else(|| Some(config.lookups.get(name)?.description.as_str()));
        (name.clone(), description.unwrap_or_default().to_owned())
    };
    Ok(http::Home {
        flight: bound(flight)?,
        flight_tls: config.flight.tls_cert.is_some(),
        tables: config.http.home_tables.then(|| config.policy.keys().map(described).collect()),
    })
}

/// Returns the address to which a listener is bound.
fn bound(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|e| Error::internal("a bound listener has no address").with_source(e))
}

/// Binds a listener. If an address cannot be bound, the error names the setting to change.
async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Error::unavailable(format!("cannot listen on {address}: {e}; change `{setting}`")).with_source(e))
}

/// Periodically checks for other writers' commits to a table, until `stop` is cancelled. If a check fails, logs the
/// error and continues.
async fn follow(table: Arc<Table>, metrics: Arc<Metrics>, interval: Duration, stop: CancellationToken) {
    let name = &table.contract().name;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A shutdown cancels a check that is running, because the object store might not respond.
        let Some(refreshed) = stop.run_until_cancelled(table.refresh()).await else { return };
        match refreshed {
            Ok(snapshot) => metrics.lake_version(name, snapshot.version),
            Err(error) => tracing::warn!(table = %name, ?error, "failed to check for new commits"),
        }
    }
}

#[cfg(test)]
mod tests;
