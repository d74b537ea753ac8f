//! A cache of recent plans. The same statement often arrives several times: a client prepares it, asks for its schema
//! and then fetches its rows, or a dashboard repeats it. With the cache, such a statement is planned only once.
//!
//! A cached plan is used only for callers with the same rights, and only while the tables and lookup tables in the plan
//! have no newer versions. If a statement has no parameters and its plan does not depend on the time, its physical plan is also
//! cached ([`ReusablePlan`](crate::query::planning::reusable_plan::ReusablePlan)).
//!
//! **Invariant:** the key of a cached plan is a hash of the statement and of all the caller's rights. After a table
//! gets a new version, no cached plan that reads the table is used, so a query always reads the newest known snapshots.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::query::planning::plan_size;
use crate::query::planning::planned_statement::Planned;
use crate::query::scan::session_relation::SessionRelation;
use crate::tenancy::Access;

/// The maximum number of cached plans, across all callers. The limit is low because the size of a plan grows with the
/// number of files that it reads.
const PLANS_MAX: usize = 64;
/// The maximum size, in bytes, of a statement whose plan is cached.
const STATEMENT_BYTES_MAX: usize = 16 << 10;
/// The maximum estimated size, in bytes, of all cached logical plans.
const CACHE_BYTES_MAX: usize = 64 << 20;
/// The maximum estimated size, in bytes, of one cached logical plan.
const PLAN_BYTES_MAX: usize = 8 << 20;

/// The plan cache, which all callers share.
#[derive(Default)]
pub(in crate::query) struct PlanCache(Mutex<CachedPlans>);

#[derive(Default)]
struct CachedPlans {
    plans: HashMap<PlanKey, CachedPlan>,
    /// The number of lookups so far. It is used to find the least recently used plan.
    lookups: u64,
}

struct CachedPlan {
    planned: Planned,
    /// The tables that the plan reads.
    tables: Vec<SessionRelation>,
    /// The estimated size of the logical plan in bytes.
    bytes: usize,
    /// The value of `lookups` when this plan was last used.
    used: u64,
}

/// A hash of the caller's rights and the statement.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::query) struct PlanKey([u8; 32]);

impl PlanKey {
    /// Returns the key for a statement, or `None` if the statement is too long to be cached.
    pub(in crate::query) fn of(access: &Access, sql: &str) -> Option<Self> {
        let digest = || Sha256::new().chain_update(access.fingerprint()).chain_update(sql).finalize();
        (sql.len() <= STATEMENT_BYTES_MAX).then(|| Self(digest().into()))
    }
}

impl PlanCache {
    /// Returns the plan for `key` if it is still valid.
    pub(in crate::query) fn find(&self, key: PlanKey) -> Option<Planned> {
        let mut cache = self.lock();
        cache.lookups += 1;
        let lookups = cache.lookups;
        let plan = cache.plans.get_mut(&key).filter(|plan| plan.is_valid())?;
        plan.used = lookups;
        Some(plan.planned.clone())
    }

    /// Adds a plan that reads `tables`. Evicts all invalid plans and, if the cache is still full, the least recently
    /// used plans. Ignores a plan that is too large.
    pub(in crate::query) fn insert(&self, key: PlanKey, planned: Planned, tables: Vec<SessionRelation>) {
        let Some(bytes) = plan_size::bytes(&planned.plan).ok().filter(|bytes| *bytes <= PLAN_BYTES_MAX) else { return };
        let mut cache = self.lock();
        cache.plans.retain(|_, plan| plan.is_valid());
        while cache.plans.len() >= PLANS_MAX || cache.bytes().saturating_add(bytes) > CACHE_BYTES_MAX {
            let oldest = cache.plans.iter().min_by_key(|(_, plan)| plan.used).map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            cache.plans.remove(&oldest);
        }
        let used = cache.lookups;
        cache.plans.insert(key, CachedPlan { planned, tables, bytes, used });
    }

    /// Locks the cache. No code panics while it changes the cache, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, CachedPlans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedPlans {
    fn bytes(&self) -> usize {
        self.plans.values().map(|plan| plan.bytes).sum()
    }
}

impl CachedPlan {
    fn is_valid(&self) -> bool {
        self.tables.iter().all(|table| table.is_current())
    }
}

impl fmt::Debug for PlanCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanCache").field("plans", &self.lock().plans.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::physical_plan::ExecutionPlan;

    use super::*;
    use crate::query::scan::tenant_scan::TenantScan;
    use crate::query::testing::{
        account, add, ask, engine, engine_with_own_tables, policy, reader, reader_under, rows,
    };

    const COUNT: &str = "SELECT count(*) FROM calls";

    fn size(cache: &PlanCache) -> usize {
        cache.lock().plans.len()
    }

    #[tokio::test]
    async fn plan_is_valid_until_its_table_has_a_new_version() {
        let (engine, tables) = engine_with_own_tables().await;
        let acme = reader("acme").await;
        for _ in 0..3 {
            assert_eq!(ask(&engine, &acme, COUNT).await.unwrap(), [["40"]]);
        }
        ask(&engine, &acme, "SELECT 1").await.unwrap();
        assert_eq!(size(&engine.plans), 2, "one plan for each statement");
        let mut row = rows().swap_remove(0);
        row.id = "acme-new".to_owned();
        add(&tables, &[row]).await;
        assert_eq!(ask(&engine, &acme, COUNT).await.unwrap(), [["41"]]);
        assert_eq!(size(&engine.plans), 2, "the outdated plan is evicted, the plan without tables is not");
    }

    #[tokio::test]
    async fn plan_is_reused_only_with_the_same_rights() {
        let engine = engine().await;
        let north = reader_under("acme", policy(Some(("account", "account")), &[]), account("north")).await;
        let south = reader_under("acme", policy(Some(("account", "account")), &[]), account("south")).await;
        for _ in 0..2 {
            for (access, count) in
                [(&reader("acme").await, "40"), (&reader("coda").await, "61"), (&north, "14"), (&south, "26")]
            {
                assert_eq!(ask(&engine, access, COUNT).await.unwrap(), [[count]]);
            }
        }
        assert_eq!(size(&engine.plans), 4);
    }

    #[tokio::test]
    async fn physical_plan_is_reused_only_if_deterministic() {
        let engine = engine().await;
        let acme = reader("acme").await;
        for (sql, is_reused) in [
            ("SELECT 1", true),
            ("SELECT region, count(*), avg(duration) FROM calls WHERE y > 2 GROUP BY region ORDER BY 2, 1", true),
            ("SELECT upper(region) FROM calls WHERE event_time > '2026-01-02' ORDER BY event_id", true),
            ("SELECT event_id FROM calls ORDER BY event_id LIMIT 3", false),
            ("SELECT count(*) FROM calls WHERE event_time < now()", false),
            ("SELECT count(*) FROM calls WHERE event_time < (SELECT now())", false),
            ("SELECT count(*) FROM calls a JOIN calls b ON a.y = b.y", false),
            ("SELECT random() < 2", false),
            ("EXPLAIN ANALYZE SELECT count(*) FROM calls", false),
            (
                "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT sum(n) FROM t",
                false,
            ),
        ] {
            let first = ask(&engine, &acme, sql).await.unwrap();
            for _ in 0..3 {
                let next = ask(&engine, &acme, sql).await.unwrap();
                assert!(next == first || sql.starts_with("EXPLAIN"), "{sql}: {next:?} after {first:?}");
            }
            let planned = engine.plans.find(PlanKey::of(&acme, sql).unwrap()).unwrap();
            assert_eq!(planned.reusable.is_some_and(|reusable| reusable.stored().is_some()), is_reused, "{sql}");
        }
        for sql in [
            "SELECT * FROM generate_series(now(), now(), INTERVAL '1 day')",
            "WITH generate_series AS (SELECT 1) SELECT * FROM generate_series(now(), now(), INTERVAL '1 day')",
            "WITH freshness AS (SELECT 1) SELECT now FROM freshness('calls')",
        ] {
            ask(&engine, &acme, sql).await.unwrap();
            let key = PlanKey::of(&acme, sql).unwrap();
            assert!(engine.plans.find(key).is_none(), "planning has evaluated the arguments: {sql}");
        }
        ask(&engine, &acme, "WITH freshness AS (SELECT 1) SELECT * FROM freshness").await.unwrap();
        let hidden = PlanKey::of(&acme, "WITH freshness AS (SELECT 1) SELECT * FROM freshness").unwrap();
        assert!(engine.plans.find(hidden).is_some(), "the statement does not call the function");
        ask(&engine, &acme, "SELECT current_user").await.unwrap();
        let user = PlanKey::of(&acme, "SELECT current_user").unwrap();
        assert!(engine.plans.find(user).is_none(), "callers with equal rights share plans");
    }

    #[tokio::test]
    async fn large_plans_are_evicted_or_not_cached() {
        let engine = engine().await;
        let acme = reader("acme").await;
        for (columns, statements, cached) in [(100, 3, 3), (3_500, 20, 9), (5_000, 1, 0)] {
            engine.plans.lock().plans.clear();
            for first in 0..statements {
                let columns = vec!["1"; columns].join(",");
                ask(&engine, &acme, &format!("SELECT {first} IN (SELECT 2 WHERE 3 IN ({columns}))")).await.unwrap();
            }
            assert_eq!(size(&engine.plans), cached, "{columns} values");
            assert!(engine.plans.lock().bytes() <= CACHE_BYTES_MAX);
        }
    }

    fn metrics_below(plan: &Arc<dyn ExecutionPlan>) -> usize {
        let own = plan.downcast_ref::<TenantScan>().map_or(0, TenantScan::metrics_below);
        own + plan.children().into_iter().map(metrics_below).sum::<usize>()
    }

    #[tokio::test]
    async fn cached_plan_does_not_accumulate_metrics() {
        let engine = engine().await;
        let acme = reader("acme").await;
        for _ in 0..5 {
            assert_eq!(ask(&engine, &acme, COUNT).await.unwrap(), [["40"]]);
        }
        let planned = engine.plans.find(PlanKey::of(&acme, COUNT).unwrap()).unwrap();
        let reusable = planned.reusable.unwrap();
        assert_eq!(metrics_below(reusable.stored().unwrap()), 0, "the cached plan itself has never run");
        assert_eq!(metrics_below(&reusable.take().unwrap().unwrap()), 0, "a copy has metrics of its own");
    }

    #[tokio::test]
    async fn copies_of_a_plan_run_concurrently() {
        let engine = engine().await;
        let acme = reader("acme").await;
        let sql = "SELECT region, count(*) FROM calls GROUP BY region ORDER BY region";
        let running = (0..4).map(|_| ask(&engine, &acme, sql));
        let results = futures::future::try_join_all(running).await.unwrap();
        assert_eq!(results[0].len(), 4);
        assert!(results.iter().all(|rows| *rows == results[0]), "{results:?}");
    }

    #[tokio::test]
    async fn cache_evicts_the_least_recently_used_plan() {
        let engine = engine().await;
        let acme = reader("acme").await;
        let session = || engine.session(&acme).unwrap();
        session().plan(COUNT).await.unwrap();
        for number in 0..PLANS_MAX + 10 {
            session().plan(&format!("SELECT {number}")).await.unwrap();
            session().plan(COUNT).await.unwrap();
        }
        assert_eq!(size(&engine.plans), PLANS_MAX);
        let is_cached = |sql: &str| PlanKey::of(&acme, sql).is_some_and(|key| engine.plans.find(key).is_some());
        assert!(is_cached(COUNT), "a recently used plan stays");
        assert!(!is_cached("SELECT 0"), "the least recently used plan is evicted first");
        let long = format!("SELECT '{}'", "x".repeat(STATEMENT_BYTES_MAX));
        session().plan(&long).await.unwrap();
        assert!(!is_cached(&long), "a long statement is not cached");
    }
}
