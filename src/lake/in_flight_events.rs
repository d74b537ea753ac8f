//! Tracks a table's in-flight events on this server, and the lag of the sources that write to the table.
//!
//! A request or a source batch registers its events ([`InFlight::enter`]) when it assigns their receive time. The
//! [`InFlightGuard`] is dropped when the events are committed or refused. Source readers report the lag of their
//! partitions ([`InFlight::report_lag`]). From the registered events and the lag, [`InFlight::watermark`] computes the
//! time up to which the table is complete. The state belongs to the table, so ingest and queries can share it without
//! depending on each other.
//!
//! **Invariant:** the clock is read under the lock, both when events are registered and when a watermark is computed.
//! Once a watermark has been returned, no event can be registered with an earlier receive time, unless the clock moves
//! backward.
//! **Invariant:** a tenant's watermark never depends on the requests and sources of another tenant. It depends on the
//! tenant's own requests and sources, and on requests and sources whose events may belong to any tenant, such as an
//! operator's requests or a source that reads a shared topic.
//! **Invariant:** the state is empty when the process starts, and does not include in-flight events on other servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Micros, SECOND};
use crate::contract::{Owner, TenantId};

/// A reader's report that is older than this is considered outdated. Readers report every two seconds.
const REPORT_AGE_MAX: Micros = 5 * SECOND;

/// A table's in-flight events on this server, and the lag of its sources.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<InFlightState>);

#[derive(Debug, Default)]
struct InFlightState {
    /// The id of the next registration. It distinguishes registrations with the same receive time.
    next: u64,
    /// The receive times of in-flight events, by tenant. The key `None` is used for events that may belong to any
    /// tenant.
    receive_times: BTreeMap<Option<TenantId>, BTreeSet<(Micros, u64)>>,
    /// The lag of each partition, and the owner of its events.
    feeds: BTreeMap<PartitionFeed, (Owner, LagState)>,
}

/// A registration of in-flight events. It ends when the guard is dropped.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: Arc<InFlight>,
    tenant: Option<TenantId>,
    entry: (Micros, u64),
}

/// A partition from which a source on this server reads events for the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionFeed {
    /// The source's name.
    pub source: String,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition number, starting at 0.
    pub partition: i32,
}

/// The lag of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagState {
    /// The partition is read, but its end offset is not known yet.
    Unknown,
    /// Some messages are not committed yet.
    Behind {
        /// The number of uncommitted messages.
        messages: u64,
        /// The time of the oldest uncommitted message, if that message has been read.
        oldest: Option<Micros>,
    },
    /// All messages are committed. The value is the time at which the brokers last confirmed that there are no newer
    /// messages.
    Complete(Micros),
}

/// The total lag of the partitions from which this server reads events for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLag {
    /// The age of the oldest uncommitted message in seconds, rounded up, or 0 if there is none.
    pub seconds: u64,
    /// The number of uncommitted messages in all partitions.
    pub messages: u64,
}

/// The time up to which a table is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The current time of the server's clock.
    pub now: Micros,
    /// The watermark. Every event with an earlier receive time has been committed or refused.
    pub complete_until: Micros,
    /// The total lag of the table's sources. `None` if no source on this server writes to the table, or if a
    /// partition's lag is unknown.
    pub source_lag: Option<SourceLag>,
}

impl InFlight {
    /// Registers newly arrived events, with the current time as their receive time. Returns the receive time, and a
    /// guard that keeps the events in flight until it is dropped.
    pub fn enter(self: &Arc<Self>, owner: &Owner, clock: &Clock) -> (Micros, InFlightGuard) {
        let tenant = match owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent => None,
        };
        let mut in_flight_state = self.lock();
        let entry = (clock.now(), in_flight_state.next);
        in_flight_state.next += 1;
        in_flight_state.receive_times.entry(tenant.clone()).or_default().insert(entry);
        drop(in_flight_state);
        (entry.0, InFlightGuard { in_flight: Arc::clone(self), tenant, entry })
    }

    /// Records the lag of a partition whose events belong to `owner`.
    pub fn report_lag(&self, feed: PartitionFeed, owner: &Owner, state: LagState) {
        self.lock().feeds.insert(feed, (owner.clone(), state));
    }

    /// Removes a partition that this server no longer reads.
    pub fn remove_partition(&self, feed: &PartitionFeed) {
        self.lock().feeds.remove(feed);
    }

    /// Returns the table's watermark for one tenant, or for an operator if `owner` is [`Owner::PerEvent`]. A snapshot
    /// taken after this call contains all events received before the watermark.
    pub fn watermark(&self, owner: &Owner, clock: &Clock) -> Watermark {
        let in_flight_state = self.lock();
        let now = clock.now();
        let first = |times: &BTreeSet<(Micros, u64)>| times.first().map(|(received, _)| *received);
        let receive_times = &in_flight_state.receive_times;
        let first = match owner {
            Owner::PerEvent => receive_times.values().filter_map(first).min(),
            Owner::Tenant(tenant) => {
                [Some(tenant.clone()), None].iter().filter_map(|key| receive_times.get(key)).filter_map(first).min()
            }
        };
        let is_visible = |of: &Owner| *owner == Owner::PerEvent || *of == Owner::PerEvent || of == owner;
        let states = in_flight_state.feeds.values().filter(|(of, _)| is_visible(of)).map(|(_, state)| state);
        Watermark { now, complete_until: first.map_or(now, |first| first.min(now)), source_lag: lag(states, now) }
    }

    /// Locks the state. No code panics while it holds the lock, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, InFlightState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut in_flight_state = self.in_flight.lock();
        if let Some(times) = in_flight_state.receive_times.get_mut(&self.tenant) {
            times.remove(&self.entry);
            if times.is_empty() {
                in_flight_state.receive_times.remove(&self.tenant);
            }
        }
    }
}

/// Returns the total lag, or `None` if there are no partitions or the lag of any partition is unknown.
fn lag<'a>(states: impl Iterator<Item = &'a LagState>, now: Micros) -> Option<SourceLag> {
    let age = |time: Micros| u64::try_from(now.saturating_sub(time)).unwrap_or(0).div_ceil(SECOND.unsigned_abs());
    states
        .map(|state| match *state {
            LagState::Unknown | LagState::Behind { oldest: None, .. } => None,
            LagState::Behind { messages, oldest: Some(time) } => Some(SourceLag { seconds: age(time), messages }),
            LagState::Complete(confirmed) if now.saturating_sub(confirmed) <= REPORT_AGE_MAX => {
                Some(SourceLag { seconds: 0, messages: 0 })
            }
            // More messages may have arrived since `confirmed`, so the time since then counts as lag.
            LagState::Complete(confirmed) => Some(SourceLag { seconds: age(confirmed), messages: 0 }),
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
    fn a_watermark_is_the_oldest_receive_time_in_flight_of_the_tenant() {
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
        assert_eq!(until(&acme), 5, "a clock that goes back lowers the watermark");
        assert!(in_flight.lock().receive_times.is_empty(), "no registration is left");
    }

    #[test]
    fn source_lag_is_that_of_the_slowest_partition() {
        let (in_flight, now) = (InFlight::default(), 100 * SECOND);
        let clock = Clock::fixed(now);
        let feed = |partition| PartitionFeed { source: "voice".to_owned(), topic: "calls".into(), partition };
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let source_lag =
            |owner: &Owner| in_flight.watermark(owner, &clock).source_lag.map(|lag| (lag.seconds, lag.messages));
        assert_eq!(source_lag(&acme), None, "no source feeds the table");

        let behind = |messages, oldest| LagState::Behind { messages, oldest };
        for (partition, owner, state, seen) in [
            (0, &Owner::PerEvent, LagState::Complete(now - 3 * SECOND), Some((0, 0))),
            (1, &Owner::PerEvent, behind(7, Some(now - SECOND - 1)), Some((2, 7))),
            (1, &Owner::PerEvent, behind(5, Some(now + SECOND)), Some((0, 5))),
            (0, &Owner::PerEvent, LagState::Complete(now - 30 * SECOND), Some((30, 5))),
            (2, &Owner::PerEvent, behind(7, None), None),
            (2, &Owner::PerEvent, LagState::Unknown, None),
            (2, &globex, LagState::Unknown, Some((30, 5))),
        ] {
            in_flight.report_lag(feed(partition), owner, state);
            assert_eq!(source_lag(&acme), seen, "{partition} {state:?}");
        }
        assert_eq!(
            (source_lag(&globex), source_lag(&Owner::PerEvent)),
            (None, None),
            "the lag of its own source is unknown"
        );
        (0..3).for_each(|partition| in_flight.remove_partition(&feed(partition)));
        assert_eq!(source_lag(&globex), None);
    }
}
