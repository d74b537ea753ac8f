//! SQL over the results of schedules of crashes and faults: each tenant counts each of its events once.
//!
//! The audit of the schedules itself reads files and log without this module; here the engine reads the same lake.

use std::collections::BTreeSet;

use tokio::runtime::Builder;

use crate::clock::Clock;
use crate::ingest::sim::schedule::play;
use crate::ingest::sim::workload::TENANTS;
use crate::query::Engine;
use crate::query::testing::{ask, config, reader};

/// Schedules other than those of the ingest tests.
const SEEDS: std::ops::Range<u64> = 500..516;

#[test]
fn sql_counts_each_stored_event_of_schedules_once() {
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
