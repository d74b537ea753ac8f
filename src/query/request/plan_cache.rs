//! A cache of recent plans. The calls of one query (prepare, describe, fetch) plan it once, and so does a dashboard
//! that repeats a query.
//!
//! In: a caller and a statement. Out: the cached plan, if everything that it depends on is unchanged. A statement whose
//! meaning does not depend on the time also keeps its physical plan ([`Ready`]).
//!
//! **Invariant:** the key of a plan includes a fingerprint of the caller's rights, and a plan is valid only while each
//! of its tables is at the version that it was planned on. A result is never older than the newest known snapshot.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use sha2::{Digest as _, Sha256};

use crate::query::request::erased_plan::ErasedPlan;
use crate::query::request::session::Planned;
use crate::query::scan::tenant_table::SessionTable;
use crate::tenancy::Access;

/// The maximum number of cached plans, of all callers. The size of a plan grows with the files that it reads.
const PLANS_MAX: usize = 64;
/// Longer statements are not cached, which bounds the size of the cache.
const STATEMENT_BYTES_MAX: usize = 16 << 10;

/// Nodes of a physical plan that can run again: their state belongs to one run and is rebuilt for the next.
const REPEATABLE: [&str; 9] = [
    "AggregateExec",
    "CoalescePartitionsExec",
    "FilterExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SortExec",
    "SortPreservingMergeExec",
    "TenantScan",
];

/// The cached plans.
#[derive(Default)]
pub(in crate::query) struct Plans(Mutex<CachedPlan>);

#[derive(Default)]
struct CachedPlan {
    plans: HashMap<PlanKey, Plan>,
    /// Counts look-ups, to find the least recently used plan.
    turn: u64,
}

struct Plan {
    planned: Planned,
    /// The tables that the plan reads.
    tables: Vec<Arc<SessionTable>>,
    used: u64,
}

/// A hash of the caller's rights and the statement.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::query) struct PlanKey([u8; 32]);

impl PlanKey {
    /// The key of a statement; `None` if the statement is not cached.
    pub(in crate::query) fn of(access: &Access, sql: &str) -> Option<Self> {
        let digest = || Sha256::new().chain_update(access.fingerprint()).chain_update(sql).finalize();
        (sql.len() <= STATEMENT_BYTES_MAX).then(|| Self(digest().into()))
    }
}

impl Plans {
    /// The plan at `key`, if it is still valid.
    pub(in crate::query) fn find(&self, key: PlanKey) -> Option<Planned> {
        let mut kept = self.lock();
        kept.turn += 1;
        let turn = kept.turn;
        let plan = kept.plans.get_mut(&key).filter(|plan| plan.holds())?;
        plan.used = turn;
        Some(plan.planned.clone())
    }

    /// Adds a plan with the tables it reads; evicts invalid plans first, then the least recently used ones.
    pub(in crate::query) fn keep(&self, key: PlanKey, planned: Planned, tables: Vec<Arc<SessionTable>>) {
        let mut kept = self.lock();
        kept.plans.retain(|_, plan| plan.holds());
        if kept.plans.len() >= PLANS_MAX {
            let oldest = kept.plans.iter().min_by_key(|(_, plan)| plan.used).map(|(key, _)| *key);
            oldest.and_then(|key| kept.plans.remove(&key));
        }
        let used = kept.turn;
        kept.plans.insert(key, Plan { planned, tables, used });
    }

    /// A panic cannot leave the cache half updated, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, CachedPlan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The physical plan of a statement that has no parameters and does not depend on the time of the query. It is empty
/// until the first run, and only copies of it run.
#[derive(Debug, Default)]
pub struct Ready(OnceLock<ErasedPlan<Arc<dyn ExecutionPlan>>>);

impl Ready {
    /// An empty slot, for a statement that can have a cached physical plan.
    pub(in crate::query) fn of(plan: &LogicalPlan) -> Option<Arc<Self>> {
        is_timeless(plan).then(Arc::default)
    }

    /// A copy to run.
    pub(in crate::query) fn copy(&self) -> Option<Result<Arc<dyn ExecutionPlan>, DataFusionError>> {
        self.0.get().map(|plan| reset_plan_states(Arc::clone(plan)))
    }

    /// Keeps `plan` if it can run again, and returns the plan to run.
    pub(in crate::query) fn keep(
        &self,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        if !is_repeatable(&plan) {
            return Ok(plan);
        }
        let copy = reset_plan_states(Arc::clone(&plan));
        // A concurrent run that stored its plan first stored the same plan.
        let _ = self.0.set(ErasedPlan::new(plan));
        copy
    }
}

/// Whether a plan only reads, and nothing in it depends on time or chance (`now()`, `random()`).
fn is_timeless(plan: &LogicalPlan) -> bool {
    let changes = |expr: &Expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::HigherOrderFunction(_) | Expr::ScalarVariable(..) | Expr::Placeholder(_) => true,
            _ => false,
        })
    };
    let mut timeless = true;
    let walked = plan.apply_with_subqueries(|node| {
        timeless &= !matches!(node, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::RecursiveQuery(_));
        node.apply_expressions(|expr| {
            timeless &= !expr.exists(changes)?;
            Ok(if timeless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })
    });
    walked.is_ok() && timeless
}

/// Whether a plan can run again. A sort with a limit cannot: it passes a dynamic filter to the nodes below it.
pub(in crate::query) fn is_repeatable(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_limited_sort = plan.name() == "SortExec" && plan.fetch().is_some();
    REPEATABLE.contains(&plan.name()) && !is_limited_sort && plan.children().into_iter().all(is_repeatable)
}

impl Plan {
    fn holds(&self) -> bool {
        self.tables.iter().all(|table| table.is_current())
    }
}

impl fmt::Debug for Plans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plans").field("kept", &self.lock().plans.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::scan::tenant_scan::TenantScan;
    use crate::query::testing::{account, add, ask, engine, engine_apart, policy, reader, reader_under, rows};

    const COUNT: &str = "SELECT count(*) FROM calls";

    fn kept(plans: &Plans) -> usize {
        plans.lock().plans.len()
    }

    #[tokio::test]
    async fn plan_is_valid_until_its_table_has_a_new_version() {
        let (engine, tables) = engine_apart().await;
        let acme = reader("acme").await;
        for _ in 0..3 {
            assert_eq!(ask(&engine, &acme, COUNT).await.unwrap(), [["40"]]);
        }
        ask(&engine, &acme, "SELECT 1").await.unwrap();
        assert_eq!(kept(&engine.plans), 2, "one for each statement");
        let mut row = rows().swap_remove(0);
        row.id = "acme-new".to_owned();
        add(&tables, &[row]).await;
        assert_eq!(ask(&engine, &acme, COUNT).await.unwrap(), [["41"]]);
        assert_eq!(kept(&engine.plans), 2, "the old plan is evicted, the one without tables is not");
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
        assert_eq!(kept(&engine.plans), 4);
    }

    #[tokio::test]
    async fn physical_plan_is_reused_only_if_deterministic() {
        let engine = engine().await;
        let acme = reader("acme").await;
        for (sql, again) in [
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
            assert_eq!(planned.ready.is_some_and(|ready| ready.0.get().is_some()), again, "{sql}");
        }
        ask(&engine, &acme, "SELECT * FROM generate_series(now(), now(), INTERVAL '1 day')").await.unwrap();
        let series = PlanKey::of(&acme, "SELECT * FROM generate_series(now(), now(), INTERVAL '1 day')").unwrap();
        assert!(engine.plans.find(series).is_none(), "its arguments were computed while it was planned");
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
        let ready = planned.ready.unwrap();
        assert_eq!(metrics_below(ready.0.get().unwrap()), 0, "the cached plan itself has never run");
        assert_eq!(metrics_below(&ready.copy().unwrap().unwrap()), 0, "and a copy has metrics of its own");
    }

    #[tokio::test]
    async fn copies_of_a_plan_run_at_once() {
        let engine = engine().await;
        let acme = reader("acme").await;
        let sql = "SELECT region, count(*) FROM calls GROUP BY region ORDER BY region";
        let asked = (0..4).map(|_| ask(&engine, &acme, sql));
        let answers = futures::future::try_join_all(asked).await.unwrap();
        assert_eq!(answers[0].len(), 4);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
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
        assert_eq!(kept(&engine.plans), PLANS_MAX);
        let is_kept = |sql: &str| PlanKey::of(&acme, sql).is_some_and(|key| engine.plans.find(key).is_some());
        assert!(is_kept(COUNT), "a used plan stays");
        assert!(!is_kept("SELECT 0"), "the least recently used plan is evicted first");
        let long = format!("SELECT '{}'", "x".repeat(STATEMENT_BYTES_MAX));
        session().plan(&long).await.unwrap();
        assert!(!is_kept(&long));
    }
}
