//! Key sets from a URL: fetched by one task at a time, kept for a while, and never trusted for longer than allowed.
//!
//! ```text
//!   age of the set     0 ──────────── 3/4 fresh ─────────── fresh ──────────────── fresh + stale
//!   a key in it        used           used, fetched ahead   fetched first; used    refused (Unavailable)
//!                                                           only while that fails
//!   a key not in it    fetched first, once per cooldown; then refused
//! ```
//!
//! **Invariant:** at most one fetch runs, and after a try no unknown key starts another before the cooldown has passed. So
//! a storm of made-up `kid`s costs the issuer one request, and callers with known keys never wait for it.
//! **Invariant:** the fetch belongs to this set, not to the caller that started it: a caller that goes away stops nothing.
//! **Invariant:** a key that the issuer has taken back is refused once the set is no longer fresh, unless the issuer cannot
//! be reached; then at the latest when it is stale.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

use super::keys::{KeySet, unknown_key};
use crate::clock::{Clock, Micros};
use crate::config::AuthConfig;
use crate::error::{Error, Result};
use crate::outbound::{Client, Plaintext, Request, Retry, Roots, Settings, StatusCode, parse_url, redacted};
use crate::supervise::catch_future;

/// The time for one fetch, from connecting to the last byte.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);
/// How many fetches one caller waits for: one that was under way when it came, and one for its own sake.
const WAITS_MAX: usize = 2;

/// A key set behind a URL.
#[derive(Debug)]
pub(super) struct Fetched {
    source: Arc<KeySetSource>,
    /// Owns the fetch under way; it ends with this set.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct KeySetSource {
    url: Url,
    client: Client,
    clock: Clock,
    fresh: Micros,
    stale: Micros,
    cooldown: Micros,
    keys_max: usize,
    state: Mutex<CacheState>,
    /// Tells waiters that a fetch has ended, well or not.
    ended: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct CacheState {
    set: Option<(Arc<KeySet>, Micros)>,
    tried: Option<Micros>,
    is_fetching: bool,
    is_failing: bool,
}

/// What a look into the set gave.
enum KeyLookup<T> {
    Found(T),
    Refused(Error),
    Wait,
}

impl Fetched {
    /// Checks the URL and makes the client. Nothing is fetched before the first look.
    pub(super) fn new(url: &str, ca_file: Option<&Path>, auth: &AuthConfig, clock: Clock) -> Result<Self> {
        // Whoever can change the answer can sign tokens.
        let url = parse_url(url, Plaintext::Loopback).map_err(|error| error.at("`jwks_url`"))?;
        let settings = Settings {
            peer: "the key set",
            time_max: FETCH_TIME_MAX,
            body_bytes_max: auth.jwks_bytes_max,
            body_bytes_key: Some("auth.jwks_bytes_max"),
            ca_key: Some("ca_file"),
            redirects_max: 0,
            plaintext: Plaintext::Loopback,
            // The cooldown decides when to try again.
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

    /// What `find` sees in the key set, which is fetched before when that is due.
    pub(super) async fn look<T>(&self, find: impl Fn(&KeySet) -> Option<T>) -> Result<T> {
        for _ in 0..WAITS_MAX {
            // Subscribed before looking, so that no end is missed in between.
            let mut ended = self.source.ended.subscribe();
            match self.look_now(&find) {
                KeyLookup::Found(found) => return Ok(found),
                KeyLookup::Refused(error) => return Err(error),
                // The sender lives as long as `self`, so this ends only with a fetch.
                KeyLookup::Wait => drop(ended.changed().await),
            }
        }
        match self.look_now(&find) {
            KeyLookup::Found(found) => Ok(found),
            KeyLookup::Refused(error) => Err(error),
            KeyLookup::Wait => Err(unavailable()),
        }
    }

    /// One look, and the start of a fetch when it is due: the table at the head of this file.
    fn look_now<T>(&self, find: impl Fn(&KeySet) -> Option<T>) -> KeyLookup<T> {
        let source = &self.source;
        let now = source.clock.now();
        let mut state = source.lock();
        let set = state.set.as_ref().map(|(set, fetched)| (set, now.saturating_sub(*fetched)));
        let (set, age) = set.filter(|(_, age)| *age < source.fresh.saturating_add(source.stale)).unzip();
        let found = set.and_then(|set| find(set));
        let (has_set, age) = (set.is_some(), age.unwrap_or(Micros::MAX));

        let is_fresh = age < source.fresh;
        let is_cool = state.tried.is_none_or(|tried| now.abs_diff(tried) >= source.cooldown.unsigned_abs());
        let is_ageing = age >= source.fresh / 4 * 3;
        let is_due = (found.is_none() || is_ageing) && (is_cool || (!is_fresh && !state.is_failing));
        if is_due && !state.is_fetching {
            state.is_fetching = true;
            state.tried = Some(now);
            self.start();
        }
        match found {
            Some(found) if is_fresh || state.is_failing => KeyLookup::Found(found),
            _ if state.is_fetching => KeyLookup::Wait,
            _ if has_set => KeyLookup::Refused(unknown_key()),
            _ => KeyLookup::Refused(unavailable()),
        }
    }

    fn start(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let mut flight = FetchInProgress { source: Arc::clone(&self.source), outcome: None };
        tasks.spawn(async move {
            let panicked = |panic| Err(Error::internal("fetching a key set panicked").with_source(panic));
            match catch_future(flight.source.fetch()).await.unwrap_or_else(panicked) {
                Ok(set) => flight.land(set),
                Err(error) => {
                    tracing::warn!(url = redacted(&flight.source.url), ?error, "a key set could not be fetched")
                }
            }
        });
    }
}

/// A fetch under way. However it ends, also by a panic, its end is told: nobody waits for ever.
struct FetchInProgress {
    source: Arc<KeySetSource>,
    outcome: Option<KeySet>,
}

impl FetchInProgress {
    fn land(&mut self, set: KeySet) {
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
            // The set is as old as the question, not as the answer: what the issuer changed meanwhile may be missing.
            let asked = state.tried.unwrap_or_default();
            state.set = Some((Arc::new(set), asked));
        }
        drop(state);
        self.source.ended.send_replace(());
    }
}

impl KeySetSource {
    /// No holder of the lock can panic half-way, so a poisoned one is as good as new.
    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<KeySet> {
        let answer = self.client.send(&Request::get(self.url.clone())).await?;
        if answer.status != StatusCode::OK {
            return Err(Error::unavailable(format!("the issuer answers {}", answer.status)));
        }
        KeySet::parse(&answer.body, self.keys_max)
    }
}

fn unavailable() -> Error {
    Error::unavailable("the keys of the token's issuer cannot be fetched now: retry later")
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
