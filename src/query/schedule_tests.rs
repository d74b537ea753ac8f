//! SQL over what schedules of crashes and faults have left: every tenant counts its events, each once.
//!
//! The schedules' own audit reads files and log without us; here the engine answers, through the lake that it knows.

use std::collections::BTreeSet;

use tokio::runtime::Builder;

use crate::clock::Clock;
use crate::ingest::sim::schedule::play;
use crate::ingest::sim::workload::TENANTS;
use crate::query::Engine;
use crate::query::testing::{ask, config, reader};

/// Other schedules than those that ingest plays for itself.
const SEEDS: std::ops::Range<u64> = 500..516;

#[test]
fn sql_counts_what_schedules_have_stored() {
    for seed in SEEDS {
        let played = play(seed).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::new(played.tables().await, config(), Clock::System, Default::default()).unwrap();
            for tenant in TENANTS {
                let own = played.expected.events.iter().filter(|(owner, _)| owner == tenant);
                let ids: BTreeSet<&str> = own.map(|(_, id)| id.as_str()).collect();
                let count = ids.len().to_string();
                let sql = "SELECT count(*), count(DISTINCT event_id) FROM calls";
                let found = ask(&engine, &reader(tenant).await, sql).await.unwrap();
                assert_eq!(found, [[count.clone(), count]], "seed {seed}, {tenant}");
                let found = ask(&engine, &reader(tenant).await, "SELECT event_id FROM calls ORDER BY event_id").await;
                assert_eq!(found.unwrap().concat(), Vec::from_iter(ids), "seed {seed}, {tenant}");
            }
        });
    }
}
