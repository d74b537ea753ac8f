//! Synthetic call events of a communications platform, for the demo and the benches.
//!
//! In: a seed and a time. Out: [`CallEvent`]s of a few tenants of very different size, as JSON of
//! `proto/glasshouse/voice/v1/call_event.proto`. The same seed gives the same events. A call reports when it rings
//! (post-dial delay), then regularly (jitter, loss, quality), and when it ends (duration).

use serde_json::{Value, json};

use crate::clock::Micros;

/// The demo's tenants with their share of all calls, in thousandths.
pub const TENANTS: [(&str, u64); 5] = [("aurora", 640), ("borealis", 250), ("cirrus", 80), ("dune", 25), ("ember", 5)];

/// Active calls. At 1,000 events per second each of them reports every ten seconds.
const CALLS: usize = 10_000;
/// Events of one call: it rings, reports six times, ends.
const STEPS: u64 = 8;
const REPORT_EVERY_MS: u64 = 10_000;

const CARRIERS: [&str; 6] = ["atlas", "beacon", "cobalt", "delta-voice", "everline", "ferro"];
const COUNTRIES: [&str; 8] = ["BR", "DE", "ES", "GB", "IN", "JP", "MX", "US"];
const CODECS: [&str; 3] = ["opus", "g722", "PCMU"];
const REGIONS: [(&str, &str); 4] =
    [("ap-southeast", "singapore"), ("eu-central", "frankfurt"), ("sa-east", "sao-paulo"), ("us-east", "ashburn")];

/// An endless, repeatable stream of events.
#[derive(Debug, Clone)]
pub struct Traffic {
    random: Random,
    calls: Vec<Call>,
    turn: usize,
    events: u64,
    run: u64,
}

/// One event: its tenant and its JSON.
#[derive(Debug, Clone)]
pub struct CallEvent {
    /// The tenant that owns the call.
    pub tenant: &'static str,
    /// The event.
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

impl Traffic {
    /// Events of `seed`; `run` keeps the ids of two runs apart.
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

    /// The next event, happening at `now`.
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
        call.tell(&mut event, &mut self.random);
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

    /// What this step of the call says.
    fn tell(&self, event: &mut Value, random: &mut Random) {
        // One carrier is worse than the others, so that a demo has something to find.
        let worse = if self.carrier == "ferro" { 2.5 } else { 1.0 };
        let mut set = |name: &str, value: Value| event[name] = value;
        if self.step == 0 {
            set("event_type", json!("SIGNALING"));
            let pdd_ms = (worse * (900.0 + 250.0 * random.bell())).max(20.0) as u32;
            set("signaling", json!({ "name": "RINGING", "type": "RESPONSE", "pdd": { "pdd_ms": pdd_ms } }));
        } else if self.step == STEPS - 1 {
            set("event_type", json!("CALL_ENDED"));
            set("duration_ms", json!(self.step * REPORT_EVERY_MS - random.below(REPORT_EVERY_MS)));
        } else {
            set("event_type", json!("QUALITY"));
            set(
                "quality",
                json!({
                    "jitter_ms": round((worse * (6.0 + 2.5 * random.bell())).max(0.1)),
                    "packet_loss_ratio": round((worse * 0.004 * random.unit()).clamp(0.0, 1.0)),
                    "round_trip_ms": round(40.0 + 160.0 * random.unit()),
                    "mos": round((4.4 - 0.5 * worse * random.unit()).clamp(1.0, 4.5)),
                }),
            );
        }
    }
}

/// Four decimals are enough for a synthetic measure.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// A small repeatable generator (SplitMix64: Steele, Lea and Flood 2014); not for secrets.
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

    /// About normal: mean 0, deviation 1 (twelve uniforms less six).
    fn bell(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn tenant(&mut self) -> &'static str {
        let mut at = self.below(TENANTS.iter().map(|(_, share)| share).sum());
        for (tenant, share) in TENANTS {
            if at < share {
                return tenant;
            }
            at -= share;
        }
        TENANTS[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_same_seed_tells_the_same_story_with_unique_ids() {
        let tell = |run| {
            let mut traffic = Traffic::new(7, run);
            (0..3 * CALLS as i64).map(|at| traffic.next_event(at * 1_000).json).collect::<Vec<_>>()
        };
        assert_eq!(tell(1), tell(1));
        let ids: HashSet<_> = tell(1).iter().chain(&tell(2)).map(|event| event["event_id"].to_string()).collect();
        assert_eq!(ids.len(), 6 * CALLS);
    }
}
