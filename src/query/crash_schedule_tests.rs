//! Tests that run queries after simulated crashes and storage failures. They check that each tenant sees each of its
//! events exactly once, unless the event has expired.
//!
//! After a simulation, `ingest::sim` checks the lake by reading its files and log directly. These tests check the same
//! lake with queries.

use std::collections::BTreeSet;

use tokio::runtime::Builder;

use crate::ingest::sim::schedule::run_schedule;
use crate::ingest::sim::workload::TENANTS;
use crate::query::Engine;
use crate::query::testing::{ask, config, reader};

/// The seeds of the simulated crash schedules. The ingest tests use other seeds.
const SEEDS: std::ops::Range<u64> = 500..516;

#[test]
fn queries_count_each_event_once_after_crashes() {
    for seed in SEEDS {
        let result = run_schedule(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine =
                Engine::new(result.tables().await, config(), result.clock.clone(), Default::default()).unwrap();
            for tenant in TENANTS {
                let own = result.visible_events().filter(|(owner, _)| owner == tenant);
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
