//! Leases. With a lease, a server shows other servers that it is doing some work, so that they do not do it as well.
//!
//! A lease is an object `_maintenance/leases/<table>.<work>/<n>.json`. Its holder writes number `n + 1` regularly and
//! deletes number `n`. Another server takes the lease over by writing `n + 1`, once it has seen the same number for
//! `maintenance.lease_time_max` on its own clock.
//!
//! **Invariant:** leases only save work. If two servers hold the same lease, each of their commits is still correct,
//! because the log decides.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::Store;

/// A holder renews its lease this often within the time after which the lease counts as abandoned.
const RENEWALS: u32 = 3;
/// A lease that this process has not seen for this multiple of that time is forgotten.
const FORGOTTEN_AFTER: u32 = 60;

/// The leases of one lake, as this process sees them.
#[derive(Debug)]
pub(crate) struct Leases {
    store: Store,
    /// Identifies this process to people who read the objects.
    owner: Uuid,
    /// The newest number of each lease that another process holds, and when this process first saw it.
    seen: Mutex<HashMap<String, (u64, Instant)>>,
    /// The time after which a lease that is not renewed counts as abandoned.
    abandoned_after: Duration,
}

/// A lease that this process holds.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Arc<Leases>,
    name: String,
    number: u64,
}

impl Leases {
    /// Creates the leases of a lake. A lease counts as abandoned after `time_max` without a renewal.
    pub(crate) fn new(store: Store, time_max: Duration) -> Self {
        Self { store, owner: Uuid::now_v7(), seen: Mutex::default(), abandoned_after: time_max }
    }

    /// Takes a lease. Returns `None` if another process holds it.
    pub(crate) async fn acquire(self: &Arc<Self>, name: &str) -> Result<Option<Lease>> {
        let number = match self.newest(name).await? {
            None => 1,
            Some(newest) if self.is_abandoned(name, newest) => newest + 1,
            Some(_) => return Ok(None),
        };
        if !self.put(name, number).await? {
            return Ok(None);
        }
        self.lock().remove(name);
        if number > 1 {
            self.delete(name, number - 1).await;
        }
        Ok(Some(Lease { leases: Arc::clone(self), name: name.to_owned(), number }))
    }

    /// Returns the newest number of a lease.
    async fn newest(&self, name: &str) -> Result<Option<u64>> {
        let objects: Vec<_> = self
            .store
            .objects
            .list(Some(&self.folder(name)))
            .try_collect()
            .await
            .map_err(|error| Error::unavailable(format!("cannot list the lease `{name}`")).with_source(error))?;
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<u64>().ok();
        Ok(objects.iter().filter_map(|object| number(&object.location)).max())
    }

    /// Returns true if this process has seen the same number for long enough.
    fn is_abandoned(&self, name: &str, newest: u64) -> bool {
        let mut seen = self.lock();
        // A lease that is released and never seen again would stay in the map.
        seen.retain(|_, (_, first)| first.elapsed() < self.abandoned_after * FORGOTTEN_AFTER);
        let (number, first) = seen.entry(name.to_owned()).or_insert_with(|| (newest, Instant::now()));
        if *number != newest {
            (*number, *first) = (newest, Instant::now());
        }
        first.elapsed() >= self.abandoned_after
    }

    /// Writes a number of a lease. Returns false if another process has written it.
    async fn put(&self, name: &str, number: u64) -> Result<bool> {
        let text = json!({ "owner": self.owner, "written": self.store.clock.now() / 1_000 }).to_string();
        let path = self.path(name, number);
        match self.store.objects.put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(Error::unavailable(format!("cannot write the lease `{name}`")).with_source(error)),
        }
    }

    async fn delete(&self, name: &str, number: u64) {
        let path = self.path(name, number);
        if let Err(error) = self.store.objects.delete(&path).await {
            tracing::debug!(%path, %error, "cannot delete an old lease");
        }
    }

    fn folder(&self, name: &str) -> Path {
        self.store.prefix.clone().join("_maintenance").join("leases").join(name)
    }

    fn path(&self, name: &str, number: u64) -> Path {
        self.folder(name).join(format!("{number}.json"))
    }

    /// Locks the map. No code panics while it holds the lock, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u64, Instant)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Runs `work` and renews the lease meanwhile. Then gives the lease back.
    pub(crate) async fn hold<T>(mut self, work: impl Future<Output = T>) -> T {
        let outcome = tokio::select! {
            outcome = work => outcome,
            never = self.renew() => match never {},
        };
        self.release().await;
        outcome
    }

    /// Renews the lease until the future is dropped. If a renewal fails, the work goes on, because a lease only saves
    /// work.
    async fn renew(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(self.leases.abandoned_after / RENEWALS).await;
            match self.leases.put(&self.name, self.number + 1).await {
                Ok(true) => {
                    self.number += 1;
                    self.leases.delete(&self.name, self.number - 1).await;
                }
                Ok(false) => tracing::debug!(lease = self.name, "another process has taken the lease over"),
                Err(error) => tracing::debug!(lease = self.name, ?error, "cannot renew a lease"),
            }
        }
    }

    async fn release(self) {
        // A renewal may have been interrupted between its put and its delete.
        for number in self.number.saturating_sub(1)..=self.number + 1 {
            if number > 0 && self.leases.is_own(&self.name, number).await {
                self.leases.delete(&self.name, number).await;
            }
        }
    }
}

impl Leases {
    /// Returns true if this process wrote the number of a lease.
    async fn is_own(&self, name: &str, number: u64) -> bool {
        let Ok(found) = self.store.objects.get(&self.path(name, number)).await else { return false };
        let Ok(bytes) = found.bytes().await else { return false };
        let content: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
        content.is_some_and(|content| content["owner"] == json!(self.owner))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::config::LakeConfig;

    const MINUTE: Duration = Duration::from_secs(60);

    fn store() -> Store {
        Store::open(&LakeConfig { url: "memory:///lake".into(), ..LakeConfig::default() }).unwrap()
    }

    fn leases(store: &Store, time_max: Duration) -> Arc<Leases> {
        Arc::new(Leases::new(store.clone(), time_max))
    }

    /// Returns the names of all objects of leases.
    async fn objects(leases: &Leases) -> Vec<String> {
        let listed: Vec<_> = leases.store.objects.list(None).try_collect().await.unwrap();
        let mut names: Vec<String> = listed.iter().map(|object| object.location.to_string()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn one_process_holds_a_lease_and_gives_it_back() {
        let store = store();
        let (one, two) = (leases(&store, MINUTE), leases(&store, MINUTE));
        let lease = one.acquire("calls.x").await.unwrap().unwrap();
        assert!(two.acquire("calls.x").await.unwrap().is_none());
        assert!(two.acquire("calls.y").await.unwrap().is_some());
        assert_eq!(lease.hold(async { 7 }).await, 7);
        assert_eq!(objects(&one).await, ["lake/_maintenance/leases/calls.y/1.json"]);
        assert!(two.acquire("calls.x").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_lease_is_renewed_while_work_is_done() {
        let store = store();
        let leases = leases(&store, Duration::from_millis(3));
        let lease = leases.acquire("calls.x").await.unwrap().unwrap();
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        let mut work = pin!(lease.hold(wait));
        let renewed = async {
            while leases.newest("calls.x").await.unwrap() < Some(5) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = &mut work => panic!("the work ended early: {ended:?}"),
            () = renewed => {}
        }
        done.send(()).unwrap();
        work.await.unwrap();
        assert_eq!(objects(&leases).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn an_abandoned_lease_is_taken_over_once() {
        let store = store();
        let [one, two, three] = [MINUTE, Duration::ZERO, MINUTE].map(|after| leases(&store, after));
        let lost = one.acquire("calls.x").await.unwrap().unwrap();
        assert!(three.acquire("calls.x").await.unwrap().is_none(), "the lease may still be renewed");
        let taken = two.acquire("calls.x").await.unwrap().unwrap();
        assert!(three.acquire("calls.x").await.unwrap().is_none(), "the number is new");
        assert!(!two.put("calls.x", 2).await.unwrap(), "only one process writes a number");
        // The former holder does not delete the number of the new one.
        lost.hold(async {}).await;
        assert_eq!(objects(&one).await, ["lake/_maintenance/leases/calls.x/2.json"]);
        taken.hold(async {}).await;
        assert_eq!(objects(&one).await, Vec::<String>::new());
    }
}
