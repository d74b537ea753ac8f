//! Build, run and stop, as ordered lists.
//!
//! In: a checked [`Config`] and a [`Clock`]. Out: both doors, listening; then, when told to stop, nothing left behind.
//!
//! ```text
//!   build   contracts ► lookups ► sources ► store ► tables ► verifier ► ingest ► engine ► listeners
//!   run     flight │ http │ lookups │ sources │ follow other writers
//!   stop    close the doors ► finish running answers ► end the sources ► commit what was admitted ► end the tasks
//! ```
//!
//! **Invariant:** doors and sources end before ingest stops, so that every admitted event is committed and every receipt sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::try_join_all;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::contract::Contract;
use crate::error::{Error, Result, did_you_mean};
use crate::ingest::{Ingest, Source, Sources};
use crate::lake::{Store, Table, Tables};
use crate::query::{Engine, OperatorQuery};
use crate::telemetry::Metrics;
use crate::tenancy::Verifier;
use crate::transform::{LookupQuery, Lookups, Transform};
use crate::{flight, http};

/// A server that is built and bound, but does not answer yet.
pub struct Server {
    config: Config,
    tables: Arc<Tables>,
    ingest: Arc<Ingest>,
    sources: Vec<Source>,
    lookups: Arc<Lookups>,
    lookup_query: LookupQuery,
    flight: (TcpListener, flight::FlightServices),
    http: (TcpListener, http::HttpServices),
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Server {
    /// Builds everything in order and binds both doors. Port 0 takes a free one; see [`Server::addresses`].
    pub async fn build(config: Config, clock: Clock) -> Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let contracts = contracts(&config)?;
        let lookups = Lookups::new(&config.lookups, &config.ingest, metrics.clone());
        for (_, fault) in lookups.load_files() {
            tracing::warn!(error = ?fault, "a lookup is not loaded yet");
        }
        let sources = sources(&config, Some(&contracts), &lookups, &clock, &metrics)?;
        let store = Store::open(&config.lake)?;
        let tables = Arc::new(open_tables(&store, contracts, &config).await?);
        let verifier = Arc::new(Verifier::new(&config.auth, &config.policy, clock.clone())?);
        let ingest = Ingest::start(tables.clone(), config.ingest.clone(), clock.clone(), metrics.clone()).await?;
        let engine = Engine::new(tables.clone(), config.query.clone(), clock.clone(), metrics.clone())?;
        let lookup_query = lookup_query(&engine, &config);

        let flight = bind(config.flight.listen, "flight.listen").await?;
        let http_services = http::HttpServices {
            verifier: verifier.clone(),
            ingest: ingest.clone(),
            sources: Arc::new(Sources::new(tables.clone(), &sources, clock.clone())),
            engine: engine.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            limits: config.ingest.clone(),
            home: home(&config, &flight)?,
        };
        let flight_services = flight::FlightServices { verifier, engine, ingest: ingest.clone(), metrics, clock };
        let http = (bind(config.http.listen, "http.listen").await?, http_services);
        Ok(Self { config, tables, ingest, sources, lookups, lookup_query, flight: (flight, flight_services), http })
    }

    /// Where the doors listen: (flight, http).
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((bound(&self.flight.0)?, bound(&self.http.0)?))
    }

    /// Answers until `stop`, then stops in order. Returns the first door's fault, if one failed.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let Self { config, tables, ingest, sources, lookups, lookup_query, flight, http } = self;
        let ((flight_listener, flight_services), (http_listener, http_services)) = (flight, http);
        // A door that fails takes the other with it: half a server would look healthy to half of its users.
        let closing = stop.child_token();
        let following = CancellationToken::new();
        let metrics = http_services.metrics.clone();
        let mut endpoints = JoinSet::new();
        endpoints.spawn(http::serve(http_listener, http_services, config.http, closing.clone()));
        endpoints.spawn(flight::serve(
            flight_listener,
            flight_services,
            config.flight,
            config.auth.handle_secret,
            closing.clone(),
        ));
        let mut background = JoinSet::new();
        background.spawn(lookups.run(lookup_query, following.clone()));
        let mut pulling = JoinSet::new();
        for source in sources {
            pulling.spawn(source.run(ingest.clone(), closing.clone()));
        }
        background.spawn(follow(tables, metrics, config.lake.refresh_interval, following.clone()));

        let mut outcome = Ok(());
        while let Some(endpoint) = endpoints.join_next().await {
            closing.cancel();
            let endpoint = endpoint.unwrap_or_else(|e| Err(Error::internal("a door broke down").with_source(e)));
            outcome = outcome.and(endpoint);
        }
        pulling.join_all().await;
        ingest.stop().await;
        following.cancel();
        background.join_all().await;
        outcome
    }
}

/// The contracts of all declared tables and their quarantines, or the faults of all of them. Looks at `.proto` files only.
pub(crate) fn contracts(config: &Config) -> Result<Vec<Arc<Contract>>> {
    let mut contracts = Vec::with_capacity(config.tables.len() * 2);
    let mut faults = Vec::new();
    for (name, table) in &config.tables {
        match Contract::new(name, table, &config.base) {
            Ok(contract) => {
                faults.extend(policy_faults(&contract, config));
                contracts.push(Arc::new(Contract::quarantine_of(&contract)));
                contracts.push(Arc::new(contract));
            }
            Err(fault) => faults.push(fault.to_string()),
        }
    }
    if faults.is_empty() { Ok(contracts) } else { Err(Error::invalid(faults.join("\n"))) }
}

/// All declared sources, or the faults of all of them. Asks nobody. Transforms are checked against `contracts`, if there
/// are any, and what is known of `lookups`.
pub(crate) fn sources(
    config: &Config,
    contracts: Option<&[Arc<Contract>]>,
    lookups: &Arc<Lookups>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Source>> {
    let made = config.sources.iter().map(|(name, source)| {
        let transform = transform(config, name, contracts, lookups)?;
        let contract = contracts.and_then(|all| all.iter().find(|contract| contract.name == source.table));
        Source::new(name, source, contract, transform, clock.clone(), metrics.clone())
    });
    let (sources, faults): (Vec<_>, Vec<_>) = made.partition(Result::is_ok);
    let faults: Vec<String> = faults.into_iter().filter_map(|fault| Some(fault.err()?.to_string())).collect();
    if faults.is_empty() { sources.into_iter().collect() } else { Err(Error::invalid(faults.join("\n"))) }
}

/// The transform of a source, if it has one.
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

/// Answers the queries of lookup tables, with the operator's rights.
fn lookup_query(engine: &Arc<Engine>, config: &Config) -> LookupQuery {
    let limits = &config.ingest;
    let whole = Arc::new(OperatorQuery::new(engine.clone(), limits.lookup_rows_max, limits.lookup_bytes_max));
    Arc::new(move |sql| {
        let whole = whole.clone();
        async move { whole.ask(&sql).await }.boxed()
    })
}

/// The same without a server, over the lake's tables as they are now.
pub(crate) async fn lookup_query_of(
    config: &Config,
    contracts: &[Arc<Contract>],
    clock: &Clock,
) -> Result<LookupQuery> {
    let store = Store::open(&config.lake)?;
    let tables = Arc::new(open_tables(&store, contracts.to_vec(), config).await?);
    Ok(lookup_query(&Engine::new(tables, config.query.clone(), clock.clone(), Arc::default())?, config))
}

/// Columns that the table's policy names and the table has not. They would only ever hide, which nobody asks for.
fn policy_faults(contract: &Contract, config: &Config) -> Vec<String> {
    let Some(policy) = config.policy.get(&contract.name) else { return Vec::new() };
    let known: Vec<&str> = contract.table_schema().fields().iter().map(|field| field.name().as_str()).collect();
    let named = policy.columns.iter().chain(policy.rows.iter().map(|rule| &rule.column));
    let unknown = named.filter(|name| !known.contains(&name.as_str()));
    let fault = |name: &String| {
        let hint = did_you_mean(name, known.iter().copied());
        format!("policy.{}: there is no column `{name}`{hint}", contract.name)
    };
    unknown.map(fault).collect()
}

/// Opens or creates every table.
async fn open_tables(store: &Store, contracts: Vec<Arc<Contract>>, config: &Config) -> Result<Tables> {
    let opening = contracts.into_iter().map(|contract| async move {
        let name = contract.name.clone();
        let table = Table::open(store, contract, &config.lake).await.map_err(|e| e.at(format!("table `{name}`")))?;
        Ok::<_, Error>((name, table))
    });
    Ok(try_join_all(opening).await?.into_iter().collect())
}

/// What the home page says: the Flight SQL endpoint, and the tables that tenants can see if `http.home_tables` is set.
fn home(config: &Config, flight: &TcpListener) -> Result<http::Home> {
    let described = |name: &String| {
        (name.clone(), config.tables.get(name).map_or("", |table| table.description.as_str()).to_owned())
    };
    Ok(http::Home {
        flight: bound(flight)?,
        flight_tls: config.flight.tls_cert.is_some(),
        tables: config.http.home_tables.then(|| config.policy.keys().map(described).collect()),
    })
}

/// The address of a listener.
fn bound(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|e| Error::internal("a bound listener has no address").with_source(e))
}

/// Listens, or says which setting to change.
async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Error::unavailable(format!("cannot listen on {address}: {e}; change `{setting}`")).with_source(e))
}

/// Looks for other writers' commits until `stop`. A failed look is logged and tried again at the next turn.
async fn follow(tables: Arc<Tables>, metrics: Arc<Metrics>, interval: Duration, stop: CancellationToken) {
    let mut turns = tokio::time::interval(interval);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(turns.tick()).await.is_some() {
        for (name, table) in tables.iter() {
            // A stop does not wait for a store that hangs.
            let Some(looked) = stop.run_until_cancelled(table.refresh()).await else { return };
            match looked {
                Ok(snapshot) => metrics.lake_version(name, snapshot.version),
                Err(error) => tracing::warn!(table = %name, error = ?error, "could not look for new commits"),
            }
        }
    }
}
