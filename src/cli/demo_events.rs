//! Generates synthetic call events of a communications platform, for the demo and the benchmarks.
//!
//! The events have the JSON form of `proto/glasshouse/voice/v1/call_event.proto` and belong to five tenants of very
//! different sizes. The same seed produces the same events. Each call sends an event when it rings (with the post-dial
//! delay), at regular intervals (with jitter, packet loss and quality), and when it ends (with its duration).

use serde_json::{Value, json};

use crate::clock::Micros;

/// The tenants and their shares of all calls, in thousandths.
pub const TENANTS: [(&str, u64); 5] = [("aurora", 640), ("borealis", 250), ("cirrus", 80), ("dune", 25), ("ember", 5)];

/// The number of active calls. At 1,000 events per second, each call sends an event every ten seconds.
const CALLS: usize = 10_000;
/// The number of events of one call: one when the phone rings, six quality reports, and one when the call ends.
const STEPS: u64 = 8;
const REPORT_EVERY_MS: u64 = 10_000;

const CARRIERS: [&str; 6] = ["atlas", "beacon", "cobalt", "delta-voice", "everline", "ferro"];
const COUNTRIES: [&str; 8] = ["BR", "DE", "ES", "GB", "IN", "JP", "MX", "US"];
const CODECS: [&str; 3] = ["opus", "g722", "PCMU"];
const REGIONS: [(&str, &str); 4] =
    [("ap-southeast", "singapore"), ("eu-central", "frankfurt"), ("sa-east", "sao-paulo"), ("us-east", "ashburn")];

/// An endless, reproducible stream of events.
#[derive(Debug, Clone)]
pub struct EventGenerator {
    random: Random,
    calls: Vec<Call>,
    turn: usize,
    events: u64,
    run: u64,
}

/// One event and its tenant.
#[derive(Debug, Clone)]
pub struct CallEvent {
    /// The tenant that owns the call.
    pub tenant: &'static str,
    /// The event as JSON.
    pub json: Value,
}

/// One active call.
#[derive(Debug, Clone)]
struct Call {
    tenant: &'static str,
    route: u64,
    step: u64,
    carrier: &'static str,
    dimensions: Value,
}

impl EventGenerator {
    /// Creates the stream for `seed`. `run` is part of each event id, so the events of two runs have different ids.
    pub fn new(seed: u64, run: u64) -> Self {
        let mut random = Random(seed);
        let calls = (0..CALLS as u64)
            .map(|route| {
                let mut call = Call::new(route, &mut random);
                call.step = random.below(STEPS);
                call
            })
            .collect();
        Self { random, calls, turn: 0, events: 0, run }
    }

    /// Returns the next event. `now` is its event time.
    pub fn next_event(&mut self, now: Micros) -> CallEvent {
        let call = &mut self.calls[self.turn];
        let (run, millis) = (self.run, now / 1_000);
        let mut event = json!({
            "event_id": format!("{run:x}-{:x}", self.events),
            "route_id": format!("CA{run:08x}{:012x}", call.route),
            "event_time": millis,
            "logged_event_time": millis + self.random.below(40) as i64,
            "dimensions": call.dimensions,
        });
        call.add_fields(&mut event, &mut self.random);
        let tenant = call.tenant;
        call.step += 1;
        self.events += 1;
        if call.step == STEPS {
            *call = Call::new(CALLS as u64 + self.events, &mut self.random);
        }
        self.turn = (self.turn + 1) % CALLS;
        CallEvent { tenant, json: event }
    }
}

impl Call {
    fn new(route: u64, random: &mut Random) -> Self {
        let carrier = *random.pick(&CARRIERS);
        let (region, edge) = *random.pick(&REGIONS);
        let dimensions = json!({
            "direction": if random.below(3) == 0 { "inbound" } else { "outbound" },
            "carrier": carrier,
            "country": random.pick(&COUNTRIES),
            "region": region,
            "edge": edge,
            "codec": random.pick(&CODECS),
            "other": { "sdk": format!("voice-{}.{}", 2 + random.below(2), random.below(9)) },
        });
        Self { tenant: random.tenant(), route, step: 0, carrier, dimensions }
    }

    /// Adds the fields that depend on the state of the call: ringing, active or ended.
    fn add_fields(&self, event: &mut Value, random: &mut Random) {
        // The calls of one carrier have a lower quality than the others, so that a query in the demo can detect this
        // carrier.
        let factor = if self.carrier == "ferro" { 2.5 } else { 1.0 };
        let mut set = |name: &str, value: Value| event[name] = value;
        if self.step == 0 {
            set("event_type", json!("SIGNALING"));
            let pdd_ms = (factor * (900.0 + 250.0 * random.normal())).max(20.0) as u32;
            set("signaling", json!({ "name": "RINGING", "type": "RESPONSE", "pdd": { "pdd_ms": pdd_ms } }));
        } else if self.step == STEPS - 1 {
            set("event_type", json!("CALL_ENDED"));
            set("duration_ms", json!(self.step * REPORT_EVERY_MS - random.below(REPORT_EVERY_MS)));
        } else {
            set("event_type", json!("QUALITY"));
            set(
                "quality",
                json!({
                    "jitter_ms": round((factor * (6.0 + 2.5 * random.normal())).max(0.1)),
                    "packet_loss_ratio": round((factor * 0.004 * random.unit()).clamp(0.0, 1.0)),
                    "round_trip_ms": round(40.0 + 160.0 * random.unit()),
                    "mos": round((4.4 - 0.5 * factor * random.unit()).clamp(1.0, 4.5)),
                }),
            );
        }
    }
}

/// Rounds to four decimal places, which is enough for synthetic measurements.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// A small, reproducible random number generator (SplitMix64 by Steele, Lea and Flood, 2014). Do not use it for
/// secrets.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns an approximately normal value with mean 0 and standard deviation 1: the sum of twelve uniform values
    /// minus six.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn tenant(&mut self) -> &'static str {
        let mut number = self.below(TENANTS.iter().map(|(_, share)| share).sum());
        for (tenant, share) in TENANTS {
            if number < share {
                return tenant;
            }
            number -= share;
        }
        TENANTS[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_same_seed_produces_the_same_events_with_unique_ids() {
        let events = |run| {
            let mut generator = EventGenerator::new(7, run);
            (0..3 * CALLS as i64).map(|at| generator.next_event(at * 1_000).json).collect::<Vec<_>>()
        };
        assert_eq!(events(1), events(1));
        let ids: HashSet<_> = events(1).iter().chain(&events(2)).map(|event| event["event_id"].to_string()).collect();
        assert_eq!(ids.len(), 6 * CALLS);
    }
}
