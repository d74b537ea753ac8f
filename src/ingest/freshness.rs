//! Up to when a table is complete: the receive time before which nothing is under way any more on this server.
//!
//! In: requests and batches of sources as they are stamped with their receive time ([`UnderWay::enter`]), and as they are
//! settled (the [`Held`] is dropped). Out: [`UnderWay::complete_until`].
//!
//! **Invariant:** the clock is read under the lock, by who enters and by who asks: nothing enters with a time before one that
//! was told, while the clock does not go back.
//! **Invariant:** a tenant is told of its own requests, and of those whose events may be anybody's (an operator's, a
//! source's). Another tenant's never show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::submit::unknown;
use super::{Ingest, stopping};
use crate::clock::{Clock, Micros};
use crate::contract::{Owner, TenantId};
use crate::error::Result;
use crate::tenancy::{Access, Scope};

/// How fresh a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// When this was asked, by the server's clock.
    pub now: Micros,
    /// All events that this server received before are stored and visible, or in quarantine.
    pub complete_until: Micros,
    /// What concerns all tenants: for operators.
    pub table: Option<TableFreshness>,
}

/// The newest of a table, whoever stored it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFreshness {
    /// The newest version that this server knows.
    pub version: u64,
    /// The latest receive time that is stored, or up to two milliseconds more.
    pub newest_received: Option<Micros>,
    /// When the newest of its files was written.
    pub written: Option<Micros>,
}

/// What was received and is not settled.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Entered>);

#[derive(Debug, Default)]
struct Entered {
    next: u64,
    /// By table, then by receive time: none for events that may be anybody's.
    tables: BTreeMap<String, BTreeMap<(Micros, u64), Option<TenantId>>>,
}

/// Something that was received and is not settled, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    under_way: Arc<UnderWay>,
    table: String,
    place: (Micros, u64),
}

impl UnderWay {
    /// Enters events that come now; returns the time of it.
    pub(super) fn enter(self: &Arc<Self>, table: &str, owner: &Owner, clock: &Clock) -> (Micros, Held) {
        let tenant = match owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent => None,
        };
        let mut entered = self.lock();
        let (now, number) = (clock.now(), entered.next);
        entered.next += 1;
        entered.tables.entry(table.to_owned()).or_default().insert((now, number), tenant);
        drop(entered);
        (now, Held { under_way: self.clone(), table: table.to_owned(), place: (now, number) })
    }

    /// Now, and the time before which nothing of this owner is under way.
    fn complete_until(&self, table: &str, owner: &Owner, clock: &Clock) -> (Micros, Micros) {
        let entered = self.lock();
        let now = clock.now();
        let counts = |tenant: &Option<TenantId>| match (owner, tenant) {
            (Owner::Tenant(own), Some(tenant)) => own == tenant,
            _ => true,
        };
        let mut under_way = entered.tables.get(table).into_iter().flatten();
        let first = under_way.find(|(_, tenant)| counts(tenant)).map(|((received, _), _)| *received);
        (now, first.map_or(now, |first| first.min(now)))
    }

    /// Nothing panics while it is held, so a poisoned lock is as good as new.
    fn lock(&self) -> MutexGuard<'_, Entered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut entered = self.under_way.lock();
        if let Some(table) = entered.tables.get_mut(&self.table) {
            table.remove(&self.place);
        }
    }
}

impl Ingest {
    /// How fresh a table is: for a tenant with the scope `read` that sees it, or an operator with `admin`.
    pub fn freshness(&self, access: &Access, table: &str) -> Result<Freshness> {
        if self.ending.hurry.is_cancelled() {
            return Err(stopping());
        }
        access.check_expiry(self.clock.now())?;
        let owner = access.owner();
        let operator = owner == Owner::PerEvent;
        access.require(if operator { Scope::Admin } else { Scope::Read })?;
        let visible = self.lanes.get(table).is_some_and(|lane| lane.intaker.is_some());
        let visible = visible && (operator || access.rules(table).is_some());
        let open = self.tables.get(table).filter(|_| visible).ok_or_else(|| unknown(table))?;
        let (now, complete_until) = self.under_way.complete_until(table, &owner, &self.clock);
        let told = || {
            let snapshot = open.snapshot();
            let received = snapshot.files.iter().filter_map(|file| Some(file.received?.1));
            let written = snapshot.files.iter().map(|file| file.modified.saturating_mul(1_000));
            TableFreshness { version: snapshot.version, newest_received: received.max(), written: written.max() }
        };
        Ok(Freshness { now, complete_until, table: operator.then(told) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::error::Kind;
    use crate::ingest::Payload;
    use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, memory, open};
    use crate::tenancy::testing::access;

    fn tenant(name: &str) -> Owner {
        Owner::Tenant(TenantId::parse(name).unwrap())
    }

    #[test]
    fn the_first_that_is_under_way_counts_and_never_another_tenants() {
        let (under_way, clock) = (Arc::new(UnderWay::default()), Clock::fixed(10));
        let until = |owner: &Owner| under_way.complete_until("calls", owner, &clock).1;
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let (_, first) = under_way.enter("calls", &acme, &clock);
        clock.set(20);
        let (_, shared) = under_way.enter("calls", &Owner::PerEvent, &clock);
        let (_, again) = under_way.enter("calls", &acme, &clock);
        let (_, _other) = under_way.enter("other", &acme, &clock);
        clock.set(30);
        assert_eq!((until(&acme), until(&globex), until(&Owner::PerEvent)), (10, 20, 10));
        drop(first);
        assert_eq!((until(&acme), until(&globex), until(&Owner::PerEvent)), (20, 20, 20));
        drop(shared);
        assert_eq!((until(&acme), until(&globex), until(&Owner::PerEvent)), (20, 30, 20));
        drop(again);
        assert_eq!((until(&acme), until(&globex), until(&Owner::PerEvent)), (30, 30, 30));
        clock.set(5);
        assert_eq!(until(&acme), 5, "a clock that goes back promises less");
    }

    #[tokio::test]
    async fn what_is_acknowledged_is_behind_the_mark() {
        let (store, now) = (memory(), Clock::System.now());
        let clock = Clock::fixed(now);
        let ingest = Ingest::start(open(&store).await, limits(), clock.clone(), Arc::default()).await.unwrap();
        let both = [Scope::Read, Scope::Ingest];
        let (acme, operator) = (access(Some("acme"), &both, &[TABLE]).await, access(None, &[Scope::Admin], &[]).await);
        let payload = || Payload::Encoded(crate::contract::Format::Json, (lines(["a"]) + "{}\n").into());
        ingest.submit(&acme, TABLE, payload(), "test").await.unwrap();
        clock.set(now + SECOND);
        let told = ingest.freshness(&acme, TABLE).unwrap();
        assert_eq!(told, Freshness { now: now + SECOND, complete_until: now + SECOND, table: None });
        let told = ingest.freshness(&operator, TABLE).unwrap().table.unwrap();
        // Bounds of files are milliseconds, rounded up.
        let newest = told.newest_received.unwrap();
        assert!(told.version > 0 && (now..now + 2_000).contains(&newest), "{told:?}");

        for (access, table, kind) in [
            (access(Some("acme"), &[Scope::Ingest], &[TABLE]).await, TABLE, Kind::Forbidden),
            (access(None, &[Scope::Ingest], &[]).await, TABLE, Kind::Forbidden),
            (access(Some("acme"), &both, &[]).await, TABLE, Kind::NotFound),
            (acme.clone(), QUARANTINE, Kind::NotFound),
            (operator.clone(), "other", Kind::NotFound),
        ] {
            assert_eq!(ingest.freshness(&access, table).unwrap_err().kind(), kind, "{table}");
        }
        ingest.stop().await;
    }

    #[tokio::test]
    async fn a_promise_holds_the_mark_until_it_is_kept() {
        let (store, now) = (memory(), Clock::System.now());
        let clock = Clock::fixed(now);
        let ingest = Ingest::start(open(&store).await, limits(), clock.clone(), Arc::default()).await.unwrap();
        let acme = access(Some("acme"), &[Scope::Read, Scope::Ingest], &[TABLE]).await;
        // Nothing else runs between the answer and this look: the committer has no turn yet.
        let payload = Payload::Encoded(crate::contract::Format::Json, lines(["a"]).into());
        ingest.submit_received(ingest.room(), &acme, TABLE, payload, "test").await.unwrap();
        clock.set(now + SECOND);
        while ingest.freshness(&acme, TABLE).unwrap().complete_until == now {
            tokio::task::yield_now().await;
        }
        assert_eq!(ingest.tables()[TABLE].snapshot().rows(), 1, "the mark moves after the commit");
        ingest.stop().await;
    }
}
