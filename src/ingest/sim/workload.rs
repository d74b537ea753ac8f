//! The workload of a schedule: the requests from clients, the messages in a topic, and the expected contents of the
//! lake.
//!
//! A seed determines the [`Workload`]. The requests and messages contain valid, repeated and invalid events.
//!
//! **Invariant:** the id of an event contains the name of its sender, so a missing or duplicate event can be traced to
//! its sender.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::random::SeededRandom;

/// The number of servers that share one lake.
pub(super) const SERVERS: usize = 2;
/// The tenants. The last client is an operator, which sends events for all tenants.
pub(crate) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// The index of each client's tenant. `None` for the operator.
const CLIENTS: [Option<usize>; 5] = [Some(0), Some(1), Some(0), Some(2), None];
/// The number of partitions in the topic.
pub(super) const PARTITIONS: usize = 3;
/// The number of different days in the event times. A batch with events from several days is written to several files.
const DAYS: usize = 2;
/// The first of these days, 2026-03-01, in days since 1970-01-01.
pub(super) const FIRST_DAY: i64 = 20_513;

/// The workload of one schedule.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) clients: Vec<WorkloadClient>,
    /// The messages in each partition.
    pub(super) partitions: Vec<Vec<String>>,
    pub(super) expected: Expected,
}

/// The workload of one client.
#[derive(Debug)]
pub(super) struct WorkloadClient {
    /// The client's tenant. `None` for the operator.
    pub(super) tenant: Option<&'static str>,
    /// The server to which the client sends its first request.
    pub(super) server: usize,
    pub(super) bodies: Vec<SimBody>,
}

/// The body of one request.
#[derive(Debug, Clone)]
pub(super) struct SimBody {
    pub(super) text: String,
    /// The number of valid events.
    pub(super) good: u64,
    /// The number of invalid events.
    pub(super) bad: u64,
    /// The number of valid events of the first day.
    pub(super) old: u64,
}

/// The expected contents of the lake after the schedule.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// The tenant and id of every valid event.
    pub(crate) events: BTreeSet<(String, String)>,
    /// The tenant and id of every valid event of the first day. In some schedules, these events expire.
    pub(crate) old: BTreeSet<(String, String)>,
    /// The names of the invalid events. An invalid event contains its name instead of an id.
    pub(super) bad: BTreeSet<String>,
    /// The number of messages in each partition.
    pub(super) ends: Vec<i64>,
}

impl Workload {
    /// Creates the workload for a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut expected = Expected::default();
        let clients = (0..CLIENTS.len()).map(|number| client(seed, number, &mut expected)).collect();
        let partitions: Vec<_> = (0..PARTITIONS).map(|number| partition(seed, number, &mut expected)).collect();
        expected.ends = partitions.iter().map(|messages| i64::try_from(messages.len()).unwrap()).collect();
        Self { clients, partitions, expected }
    }
}

impl Expected {
    fn add(&mut self, tenant: &str, id: &str, day: usize) {
        let event = (tenant.to_owned(), id.to_owned());
        if day == 0 {
            self.old.insert(event.clone());
        }
        self.events.insert(event);
    }
}

fn client(seed: u64, number: usize, expected: &mut Expected) -> WorkloadClient {
    let mut random = SeededRandom::of(seed, ("client", number));
    let tenant = CLIENTS[number].map(|tenant| TENANTS[tenant]);
    let mut sent = Vec::new();
    let bodies = (0..2 + random.below(4)).map(|_| {
        let mut body = SimBody { text: String::new(), good: 0, bad: 0, old: 0 };
        for _ in 0..1 + random.below(5) {
            if random.percent(10) {
                let name = format!("bad-client-{number}-{}", expected.bad.len());
                writeln!(body.text, "{{\"note\":\"{name}\"}}").unwrap();
                expected.bad.insert(name);
                body.bad += 1;
                continue;
            }
            if sent.is_empty() || !random.percent(25) {
                let of = tenant.unwrap_or_else(|| random.pick(&TENANTS));
                sent.push((of, format!("client-{number}-{}", sent.len()), random.below(DAYS)));
            }
            // Send the newest event, or repeat an earlier one. The repeated event can be in the same body.
            let (of, id, day) =
                if random.percent(75) { &sent[sent.len() - 1] } else { &sent[random.below(sent.len())] };
            writeln!(body.text, "{}", event(tenant.is_none().then_some(*of), id, *day)).unwrap();
            expected.add(of, id, *day);
            body.good += 1;
            body.old += u64::from(*day == 0);
        }
        body
    });
    WorkloadClient { tenant, server: number % SERVERS, bodies: bodies.collect() }
}

fn partition(seed: u64, number: usize, expected: &mut Expected) -> Vec<String> {
    let mut random = SeededRandom::of(seed, ("partition", number));
    let mut sent: Vec<(&str, String, usize)> = Vec::new();
    let messages = (0..8 + random.below(10)).map(|offset| {
        if random.percent(12) {
            let name = format!("bad-partition-{number}-{offset}");
            let message = format!("{{\"note\":\"{name}\"}}");
            expected.bad.insert(name);
            return message;
        }
        // A topic may contain an event twice, for example because the producer retried.
        if sent.is_empty() || !random.percent(15) {
            sent.push((random.pick(&TENANTS), format!("partition-{number}-{offset}"), random.below(DAYS)));
        }
        let index = sent.len() - 1 - if random.percent(80) { 0 } else { random.below(sent.len()) };
        let (tenant, id, day) = &sent[index];
        expected.add(tenant, id, *day);
        event(Some(tenant), id, *day)
    });
    messages.collect()
}

fn event(tenant: Option<&str>, id: &str, day: usize) -> String {
    let tenant = tenant.map_or(String::new(), |tenant| format!("\"tenant_id\":\"{tenant}\","));
    format!("{{{tenant}\"event_id\":\"{id}\",\"event_time\":\"2026-03-0{}T12:00:00Z\",\"mos\":4.2}}", day + 1)
}
