//! A JSON Web Key Set (JWKS) from a URL. The set is cached, and at most one task fetches it at a time. A cached set is
//! *fresh* for a configured time. After that, it is used only if it cannot be fetched again, and only for a second
//! configured time, the *stale* time.
//!
//! ```text
//!   age of the set     0 ──────────── 3/4 fresh ─────────── fresh ──────────────── fresh + stale
//!   a known key        used           used, set fetched     set fetched first;     refused (Unavailable)
//!                                     in the background     used if that fails
//!   an unknown key     set fetched first, once per cooldown; then refused
//! ```
//!
//! **Invariant:** at most one fetch runs, and an unknown key does not start another fetch before the cooldown has
//! passed. A flood of tokens with made-up `kid` values therefore causes only one request to the issuer per cooldown,
//! and callers with known keys do not wait for this request.
//! **Invariant:** the fetch belongs to the key set, not to the caller that started it, so it continues if that caller
//! is cancelled.
//! **Invariant:** a key that the issuer has removed is refused once the set is no longer fresh. If the issuer cannot be
//! reached, the key is refused at the end of the *stale* time.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

use super::key_set::{KeySet, unknown_key};
use crate::clock::{Clock, Micros};
use crate::config::AuthConfig;
use crate::error::{Error, Result};
use crate::http_client::{Client, Plaintext, Request, Retry, Roots, Settings, StatusCode, parse_url, redacted};
use crate::supervise::catch_future;

/// The maximum duration of one fetch, from connecting to the last byte.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);
/// The maximum number of fetches that one caller waits for: one that was already running, and one that it starts.
const WAITS_MAX: usize = 2;

/// A key set that is fetched from a URL and cached.
#[derive(Debug)]
pub(super) struct FetchedKeySet {
    source: Arc<KeySetSource>,
    /// Owns the running fetch. Dropping the key set aborts the fetch.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct KeySetSource {
    url: Url,
    client: Client,
    clock: Clock,
    /// How long the set is used without being fetched again, measured from the time at which it was requested.
    fresh: Micros,
    /// How long the set may still be used after `fresh` has passed, if the issuer cannot be reached.
    stale: Micros,
    /// The minimum time between two fetches.
    cooldown: Micros,
    keys_max: usize,
    state: Mutex<CacheState>,
    /// Notifies the waiting callers that a fetch has ended, successfully or not.
    ended: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct CacheState {
    /// The newest key set, and the time at which it was requested.
    set: Option<(Arc<KeySet>, Micros)>,
    /// The time at which the last fetch started.
    last_fetch: Option<Micros>,
    is_fetching: bool,
    /// True if the last fetch failed.
    is_failing: bool,
}

/// The result of a lookup in the cached key set.
enum KeyLookup<T> {
    Found(T),
    Refused(Error),
    /// A fetch is running. The caller must repeat the lookup when the fetch has ended.
    Wait,
}

impl FetchedKeySet {
    /// Checks the URL and creates the HTTP client. The first lookup starts the first fetch.
    pub(super) fn new(url: &str, ca_file: Option<&Path>, auth: &AuthConfig, clock: Clock) -> Result<Self> {
        // Anyone who can change the response can forge tokens, so the issuer must be authenticated.
        let url = parse_url(url, Plaintext::Loopback).map_err(|error| error.at("`jwks_url`"))?;
        let settings = Settings {
            peer: "the key set",
            time_max: FETCH_TIME_MAX,
            body_bytes_max: auth.jwks_bytes_max,
            body_bytes_key: Some("auth.jwks_bytes_max"),
            ca_key: Some("ca_file"),
            redirects_max: 0,
            plaintext: Plaintext::Loopback,
            // The client does not retry, because the cooldown determines when the next fetch starts.
            retry: Retry::NONE,
        };
        let roots = Roots::load(ca_file).map_err(|error| error.at("`ca_file`"))?;
        let client = Client::new(settings, &roots)?;
        let source = KeySetSource {
            url,
            client,
            clock,
            fresh: micros(auth.jwks_fresh),
            stale: micros(auth.jwks_stale_max),
            cooldown: micros(auth.jwks_cooldown),
            keys_max: auth.jwks_keys_max,
            state: Mutex::default(),
            ended: watch::Sender::new(()),
        };
        Ok(Self { source: Arc::new(source), tasks: Mutex::default() })
    }

    /// Applies `find` to the key set, after fetching the set if needed.
    pub(super) async fn lookup<T>(&self, find: impl Fn(&KeySet) -> Option<T>) -> Result<T> {
        for _ in 0..WAITS_MAX {
            // Subscribe before the lookup, so that no notification is missed.
            let mut ended = self.source.ended.subscribe();
            match self.lookup_cached(&find) {
                KeyLookup::Found(found) => return Ok(found),
                KeyLookup::Refused(error) => return Err(error),
                // `self` owns the sender, so `changed` returns only when a fetch has ended.
                KeyLookup::Wait => drop(ended.changed().await),
            }
        }
        match self.lookup_cached(&find) {
            KeyLookup::Found(found) => Ok(found),
            KeyLookup::Refused(error) => Err(error),
            KeyLookup::Wait => Err(unavailable()),
        }
    }

    /// Applies `find` to the cached set, and starts a fetch if one is due. The table in the module documentation states
    /// when a fetch is due.
    fn lookup_cached<T>(&self, find: impl Fn(&KeySet) -> Option<T>) -> KeyLookup<T> {
        let source = &self.source;
        let now = source.clock.now();
        let mut state = source.lock();
        let set = state.set.as_ref().map(|(set, fetched)| (set, now.saturating_sub(*fetched)));
        let (set, age) = set.filter(|(_, age)| *age < source.fresh.saturating_add(source.stale)).unzip();
        let found = set.and_then(|set| find(set));
        let (has_set, age) = (set.is_some(), age.unwrap_or(Micros::MAX));

        let is_fresh = age < source.fresh;
        let cooldown_passed =
            state.last_fetch.is_none_or(|started| now.abs_diff(started) >= source.cooldown.unsigned_abs());
        let is_ageing = age >= source.fresh / 4 * 3;
        let is_due = (found.is_none() || is_ageing) && (cooldown_passed || (!is_fresh && !state.is_failing));
        if is_due && !state.is_fetching {
            state.is_fetching = true;
            state.last_fetch = Some(now);
            self.start();
        }
        match found {
            Some(found) if is_fresh || state.is_failing => KeyLookup::Found(found),
            _ if state.is_fetching => KeyLookup::Wait,
            _ if has_set => KeyLookup::Refused(unknown_key()),
            _ => KeyLookup::Refused(unavailable()),
        }
    }

    /// Starts a fetch in the background.
    fn start(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let mut fetch = FetchInProgress { source: Arc::clone(&self.source), outcome: None };
        tasks.spawn(async move {
            let panicked = |panic| Err(Error::internal("fetching a key set panicked").with_source(panic));
            match catch_future(fetch.source.fetch()).await.unwrap_or_else(panicked) {
                Ok(set) => fetch.complete(set),
                Err(error) => {
                    tracing::warn!(url = redacted(&fetch.source.url), ?error, "cannot fetch a key set")
                }
            }
        });
    }
}

/// The guard of a running fetch. The guard notifies the waiting callers when the fetch ends or panics, so no caller
/// waits forever.
struct FetchInProgress {
    source: Arc<KeySetSource>,
    outcome: Option<KeySet>,
}

impl FetchInProgress {
    fn complete(&mut self, set: KeySet) {
        self.outcome = Some(set);
    }
}

impl Drop for FetchInProgress {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let mut state = self.source.lock();
        state.is_fetching = false;
        state.is_failing = outcome.is_none();
        if let Some(set) = outcome {
            // The set's age is measured from the request, because the response may lack changes that the issuer made
            // after the request.
            let requested = state.last_fetch.unwrap_or_default();
            state.set = Some((Arc::new(set), requested));
        }
        drop(state);
        self.source.ended.send_replace(());
    }
}

impl KeySetSource {
    /// Locks the state. No code panics while it holds the lock, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<KeySet> {
        let response = self.client.send(&Request::get(self.url.clone())).await?;
        if response.status != StatusCode::OK {
            return Err(Error::unavailable(format!("the issuer responded with status {}", response.status)));
        }
        KeySet::parse(&response.body, self.keys_max)
    }
}

fn unavailable() -> Error {
    Error::unavailable("cannot fetch the keys of the token's issuer: retry later")
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
