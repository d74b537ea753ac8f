//! A query runtime for each active tenant.
//!
//! The threads of different runtimes share the processors fairly, because the operating system can interrupt them at any
//! time. A statement that does not yield therefore delays only the other queries of its own tenant.
//!
//! **Invariant:** at most [`RUNTIMES_MAX`] runtimes exist. If more tenants are active at the same time, some of them share
//! a runtime.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::query::query_runtime::{QueryRuntime, stopped};

/// The maximum number of runtimes.
const RUNTIMES_MAX: usize = 64;
/// After this time without a query, the runtime of a tenant may be stopped.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// The query runtimes of the tenants.
#[derive(Debug)]
pub(in crate::query) struct TenantRuntimes {
    /// The number of threads of each runtime.
    threads: usize,
    /// The runtimes by tenant, or `None` after [`TenantRuntimes::stop`]. The key of the operator's queries is `None`.
    runtimes: Mutex<Option<HashMap<Option<String>, TenantRuntime>>>,
}

#[derive(Debug)]
struct TenantRuntime {
    runtime: Arc<QueryRuntime>,
    used: Instant,
}

impl TenantRuntimes {
    /// Prepares runtimes with `threads` threads each, or with one thread per core if `threads` is 0. A runtime is started
    /// by the first query of its tenant.
    pub(in crate::query) fn new(threads: usize) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        Self { threads, runtimes: Mutex::new(Some(HashMap::new())) }
    }

    /// Returns the number of threads of each runtime.
    pub(in crate::query) fn thread_count(&self) -> usize {
        self.threads
    }

    /// Returns the runtime for the queries of a tenant, or of the operator if `tenant` is `None`. The runtime is in use
    /// until the returned reference is dropped. Fails with `Unavailable` after [`TenantRuntimes::stop`].
    pub(in crate::query) fn of(&self, tenant: Option<&str>) -> Result<Arc<QueryRuntime>> {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        let runtimes = runtimes.as_mut().ok_or_else(stopped)?;
        let now = Instant::now();
        let key = tenant.map(str::to_owned);
        if let Some(known) = runtimes.get_mut(&key) {
            known.used = now;
            return Ok(Arc::clone(&known.runtime));
        }
        runtimes.retain(|_, known| known.is_in_use() || now.duration_since(known.used) < IDLE_TIME_MAX);
        if runtimes.len() >= RUNTIMES_MAX {
            let idle = runtimes.iter().filter(|(_, known)| !known.is_in_use()).min_by_key(|(_, known)| known.used);
            match idle.map(|(key, _)| key.clone()) {
                Some(idle) => _ = runtimes.remove(&idle),
                None => return shared(runtimes, &key).ok_or_else(stopped),
            }
        }
        let runtime = Arc::new(QueryRuntime::start(self.threads)?);
        runtimes.insert(key, TenantRuntime { runtime: Arc::clone(&runtime), used: now });
        Ok(runtime)
    }

    /// Stops all runtimes. Running queries end when they next yield.
    pub(in crate::query) fn stop(&self) {
        let runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).take();
        runtimes.iter().flatten().for_each(|(_, known)| known.runtime.stop());
    }
}

impl TenantRuntime {
    /// Returns true if a query or a result stream holds a reference to the runtime.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.runtime) > 1
    }
}

/// Returns the runtime of another tenant, or `None` if there is none. As long as the same runtimes exist, the choice
/// depends only on the tenant.
fn shared(runtimes: &HashMap<Option<String>, TenantRuntime>, key: &Option<String>) -> Option<Arc<QueryRuntime>> {
    let weight = |other: &Option<String>| {
        let mut hasher = DefaultHasher::new();
        (key, other).hash(&mut hasher);
        hasher.finish()
    };
    let chosen = runtimes.iter().max_by_key(|(other, _)| weight(other));
    chosen.map(|(_, known)| Arc::clone(&known.runtime))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn tenants_have_own_runtimes_until_there_are_too_many() {
        let runtimes = TenantRuntimes::new(1);
        let runtime = |name: String| runtimes.of(Some(&name)).unwrap();
        let first: Vec<_> = (0..RUNTIMES_MAX).map(|number| runtime(number.to_string())).collect();
        for (number, known) in first.iter().enumerate() {
            assert!(Arc::ptr_eq(known, &runtime(number.to_string())), "a tenant keeps its runtime");
            assert_eq!(first.iter().filter(|other| Arc::ptr_eq(known, other)).count(), 1, "tenants do not share");
        }
        let more = runtime("more".to_owned());
        assert!(first.iter().any(|known| Arc::ptr_eq(known, &more)), "all runtimes are in use");
        assert!(Arc::ptr_eq(&more, &runtime("more".to_owned())));
        drop((first, more));
        let operator = runtimes.of(None).unwrap();
        assert_eq!(operator.run(async { Ok(1) }).await.unwrap(), 1, "an idle runtime has been replaced");
        runtimes.stop();
        assert_eq!(operator.run(async { Ok(1) }).await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(runtimes.of(None).map(drop).unwrap_err().kind(), Kind::Unavailable);
    }
}
