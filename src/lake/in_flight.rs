//! What is on its way into a table on this server: events that were received and are not settled, and how far behind its
//! brokers each source is that fills it.
//!
//! In: requests and batches of sources as they are stamped with their receive time ([`InFlight::enter`]), and as they are
//! settled (the [`InFlightGuard`] is dropped); partitions of sources, as their readers know them ([`InFlight::feed`]). Out:
//! [`InFlight::watermark`], for whoever tells how fresh the table is. It stands beside the table, where its writers and its
//! readers meet: neither knows the other.
//!
//! **Invariant:** the clock is read under the lock, by who enters and by who asks: nothing enters with a time before one that
//! was told, while the clock does not go back.
//! **Invariant:** a tenant is told of its own requests and sources, and of those whose events may be anybody's (an
//! operator's, a shared topic's). Another tenant's never show.
//! **Invariant:** it is of this process alone, and empty when it starts: what other servers have under way is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Micros, SECOND};
use crate::contract::{Owner, TenantId};

/// A reader tells of its partitions every two seconds: what was said so long ago still counts as now.
const NEWS_AGE_MAX: Micros = 5 * SECOND;

/// What was received and is not settled, and what sources have still to fetch.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<InFlightState>);

#[derive(Debug, Default)]
struct InFlightState {
    next: u64,
    /// Receive times by whose events they are: none for events that may be anybody's.
    under_way: BTreeMap<Option<TenantId>, BTreeSet<(Micros, u64)>>,
    feeds: BTreeMap<PartitionFeed, (Owner, LagState)>,
}

/// Something that was received and is not settled, until it is dropped.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: Arc<InFlight>,
    tenant: Option<TenantId>,
    place: (Micros, u64),
}

/// One partition that a source of this server reads into the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionFeed {
    /// The source's name.
    pub source: String,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
}

/// How far a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagState {
    /// It is read, and its end is not known yet.
    Unknown,
    /// So many messages are not committed; the oldest of them has this time, if one of them was read.
    Behind {
        /// How many.
        messages: u64,
        /// The message's own time.
        oldest: Option<Micros>,
    },
    /// All was committed that there was at this time.
    Complete(Micros),
}

/// How far the sources of a table are behind their brokers, as far as this server reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLag {
    /// The age of the oldest message that is not committed, in whole seconds, rounded up: 0 when there is none.
    pub seconds: u64,
    /// Messages that are not committed, of all partitions together.
    pub messages: u64,
}

/// Up to when a table is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// When this was asked, by the server's clock.
    pub now: Micros,
    /// Nothing that was received before is under way any more.
    pub complete_until: Micros,
    /// None when no source of this server fills the table, or when it is not known of one of its partitions.
    pub source_lag: Option<SourceLag>,
}

impl InFlight {
    /// Enters events that come now; returns the time of it.
    pub fn enter(self: &Arc<Self>, owner: &Owner, clock: &Clock) -> (Micros, InFlightGuard) {
        let tenant = match owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent => None,
        };
        let mut entered = self.lock();
        let place = (clock.now(), entered.next);
        entered.next += 1;
        entered.under_way.entry(tenant.clone()).or_default().insert(place);
        drop(entered);
        (place.0, InFlightGuard { in_flight: Arc::clone(self), tenant, place })
    }

    /// What a reader knows of a partition whose events are `owner`'s.
    pub fn feed(&self, feed: PartitionFeed, owner: &Owner, standing: LagState) {
        self.lock().feeds.insert(feed, (owner.clone(), standing));
    }

    /// The partition is not read here any more.
    pub fn leave(&self, feed: &PartitionFeed) {
        self.lock().feeds.remove(feed);
    }

    /// Up to when the table is complete for this owner. A snapshot that is taken after it holds all of that.
    pub fn watermark(&self, owner: &Owner, clock: &Clock) -> Watermark {
        let entered = self.lock();
        let now = clock.now();
        let first = |held: &BTreeSet<(Micros, u64)>| held.first().map(|(received, _)| *received);
        let under_way = &entered.under_way;
        let first = match owner {
            Owner::PerEvent => under_way.values().filter_map(first).min(),
            Owner::Tenant(tenant) => {
                [Some(tenant.clone()), None].iter().filter_map(|whose| under_way.get(whose)).filter_map(first).min()
            }
        };
        let shown = |fed: &Owner| *owner == Owner::PerEvent || *fed == Owner::PerEvent || fed == owner;
        let standings = entered.feeds.values().filter(|(fed, _)| shown(fed)).map(|(_, standing)| standing);
        Watermark { now, complete_until: first.map_or(now, |first| first.min(now)), source_lag: lag(standings, now) }
    }

    /// Nothing panics while it is held, so a poisoned lock is as good as new.
    fn lock(&self) -> MutexGuard<'_, InFlightState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut entered = self.in_flight.lock();
        if let Some(held) = entered.under_way.get_mut(&self.tenant) {
            held.remove(&self.place);
            if held.is_empty() {
                entered.under_way.remove(&self.tenant);
            }
        }
    }
}

/// The lag of all partitions together; none when there are none, or one of them does not know.
fn lag<'a>(standings: impl Iterator<Item = &'a LagState>, now: Micros) -> Option<SourceLag> {
    let age = |time: Micros| u64::try_from(now.saturating_sub(time)).unwrap_or(0).div_ceil(SECOND.unsigned_abs());
    standings
        .map(|standing| match *standing {
            LagState::Unknown | LagState::Behind { oldest: None, .. } => None,
            LagState::Behind { messages, oldest: Some(time) } => Some(SourceLag { seconds: age(time), messages }),
            LagState::Complete(heard) if now.saturating_sub(heard) <= NEWS_AGE_MAX => {
                Some(SourceLag { seconds: 0, messages: 0 })
            }
            // The brokers are silent: since then anything may have come.
            LagState::Complete(heard) => Some(SourceLag { seconds: age(heard), messages: 0 }),
        })
        .reduce(|all, one| {
            let (all, one) = (all?, one?);
            Some(SourceLag { seconds: all.seconds.max(one.seconds), messages: all.messages + one.messages })
        })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Owner {
        Owner::Tenant(TenantId::parse(name).unwrap())
    }

    #[test]
    fn the_first_that_is_under_way_counts_and_never_another_tenants() {
        let (in_flight, clock) = (Arc::new(InFlight::default()), Clock::fixed(10));
        let until = |owner: &Owner| in_flight.watermark(owner, &clock).complete_until;
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let (_, first) = in_flight.enter(&acme, &clock);
        clock.set(20);
        let (_, shared) = in_flight.enter(&Owner::PerEvent, &clock);
        let (_, again) = in_flight.enter(&acme, &clock);
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
        assert!(in_flight.lock().under_way.is_empty(), "nothing is left of who has gone");
    }

    #[test]
    fn sources_are_as_far_behind_as_the_last_of_their_partitions() {
        let (in_flight, now) = (InFlight::default(), 100 * SECOND);
        let clock = Clock::fixed(now);
        let feed = |partition| PartitionFeed { source: "voice".to_owned(), topic: "calls".into(), partition };
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let told = |owner: &Owner| in_flight.watermark(owner, &clock).source_lag.map(|lag| (lag.seconds, lag.messages));
        assert_eq!(told(&acme), None, "no source fills the table");

        let behind = |messages, oldest| LagState::Behind { messages, oldest };
        for (partition, owner, standing, seen) in [
            (0, &Owner::PerEvent, LagState::Complete(now - 3 * SECOND), Some((0, 0))),
            (1, &Owner::PerEvent, behind(7, Some(now - SECOND - 1)), Some((2, 7))),
            (1, &Owner::PerEvent, behind(5, Some(now + SECOND)), Some((0, 5))),
            (0, &Owner::PerEvent, LagState::Complete(now - 30 * SECOND), Some((30, 5))),
            (2, &Owner::PerEvent, behind(7, None), None),
            (2, &Owner::PerEvent, LagState::Unknown, None),
            (2, &globex, LagState::Unknown, Some((30, 5))),
        ] {
            in_flight.feed(feed(partition), owner, standing);
            assert_eq!(told(&acme), seen, "{partition} {standing:?}");
        }
        assert_eq!((told(&globex), told(&Owner::PerEvent)), (None, None), "its own source does not know");
        (0..3).for_each(|partition| in_flight.leave(&feed(partition)));
        assert_eq!(told(&globex), None);
    }
}
