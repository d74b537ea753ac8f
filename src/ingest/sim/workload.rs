//! What happens in a schedule as far as people make it: what clients send, what a topic holds, and what must be stored then.
//!
//! In: a seed. Out: a [`Workload`]: requests and messages with good events, repeated ones and bad ones.
//!
//! **Invariant:** an event's id tells who sends it, so that one that is missing or there twice says where it came from.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::random::SeededRandom;

/// Servers at work on one lake.
pub(super) const SERVERS: usize = 2;
/// Tenants; the last client is an operator, who sends for all of them.
pub(crate) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// Clients, by tenant; none: the operator.
const CLIENTS: [Option<usize>; 5] = [Some(0), Some(1), Some(0), Some(2), None];
/// Partitions of the topic.
pub(super) const PARTITIONS: usize = 3;
/// Days on which events happen: a batch of several makes several files.
const DAYS: usize = 2;

/// All of it.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) clients: Vec<WorkloadClient>,
    /// The messages of each partition.
    pub(super) partitions: Vec<Vec<String>>,
    pub(super) expected: Expected,
}

/// Who sends, and what.
#[derive(Debug)]
pub(super) struct WorkloadClient {
    /// None: an operator.
    pub(super) tenant: Option<&'static str>,
    /// The server to which it sends.
    pub(super) home: usize,
    pub(super) bodies: Vec<SimBody>,
}

/// One request's body.
#[derive(Debug, Clone)]
pub(super) struct SimBody {
    pub(super) text: String,
    pub(super) good: u64,
    pub(super) bad: u64,
}

/// What the lake must hold in the end.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// (tenant, id) of every good event.
    pub(crate) events: BTreeSet<(String, String)>,
    /// The names of the bad ones.
    pub(super) bad: BTreeSet<String>,
    /// How many messages each partition has.
    pub(super) ends: Vec<i64>,
}

impl Workload {
    /// The script of a schedule.
    pub(super) fn of(seed: u64) -> Self {
        let mut expected = Expected::default();
        let clients = (0..CLIENTS.len()).map(|number| client(seed, number, &mut expected)).collect();
        let partitions: Vec<_> = (0..PARTITIONS).map(|number| partition(seed, number, &mut expected)).collect();
        expected.ends = partitions.iter().map(|messages| i64::try_from(messages.len()).unwrap()).collect();
        Self { clients, partitions, expected }
    }
}

fn client(seed: u64, number: usize, expected: &mut Expected) -> WorkloadClient {
    let mut random = SeededRandom::of(seed, ("client", number));
    let tenant = CLIENTS[number].map(|tenant| TENANTS[tenant]);
    let mut sent = Vec::new();
    let bodies = (0..2 + random.below(4)).map(|_| {
        let mut body = SimBody { text: String::new(), good: 0, bad: 0 };
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
            // A new one, or one that was sent before, perhaps in this very body.
            let (of, id, day) =
                if random.percent(75) { &sent[sent.len() - 1] } else { &sent[random.below(sent.len())] };
            writeln!(body.text, "{}", event(tenant.is_none().then_some(*of), id, *day)).unwrap();
            expected.events.insert(((*of).to_owned(), id.clone()));
            body.good += 1;
        }
        body
    });
    WorkloadClient { tenant, home: number % SERVERS, bodies: bodies.collect() }
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
        // The same event twice in a topic: a producer that has sent it again.
        if sent.is_empty() || !random.percent(15) {
            sent.push((random.pick(&TENANTS), format!("partition-{number}-{offset}"), random.below(DAYS)));
        }
        let place = sent.len() - 1 - if random.percent(80) { 0 } else { random.below(sent.len()) };
        let (tenant, id, day) = &sent[place];
        expected.events.insert(((*tenant).to_owned(), id.clone()));
        event(Some(tenant), id, *day)
    });
    messages.collect()
}

fn event(tenant: Option<&str>, id: &str, day: usize) -> String {
    let tenant = tenant.map_or(String::new(), |tenant| format!("\"tenant_id\":\"{tenant}\","));
    format!("{{{tenant}\"event_id\":\"{id}\",\"event_time\":\"2026-03-0{}T12:00:00Z\",\"mos\":4.2}}", day + 1)
}
