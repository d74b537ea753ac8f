//! The names that a statement may use: the tables and functions of a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::execution::session_state::SessionState;

use crate::query::catalog::{SessionTables, catalogs};
use crate::query::engine::Engine;
use crate::query::freshness::{self, FreshnessFunction};
use crate::query::planning::erased_plan::ErasedPlan;
use crate::query::scan::lookup_provider::SessionLookup;
use crate::query::scan::session_relation::SessionRelation;
use crate::query::scan::table_provider::SessionTable;
use crate::tenancy::Access;

/// The tables and functions to which a statement of one session may refer.
pub(in crate::query) struct PlanningView {
    /// The session state, which contains the engine's functions, rules and options, and the session's catalog.
    pub(in crate::query) state: ErasedPlan<SessionState>,
    /// The tables and lookup tables that the caller may see.
    pub(in crate::query) tables: Arc<SessionTables>,
    /// The function `freshness('table')` for the tables that the caller may see.
    pub(in crate::query) freshness: Arc<FreshnessFunction>,
}

impl PlanningView {
    /// Creates a [`PlanningView`] with the tables that the caller may see, at their newest known snapshots.
    pub(in crate::query) fn new(engine: &Engine, access: &Access) -> Self {
        let (mut tables, mut watermarks) = (BTreeMap::new(), BTreeMap::new());
        for (name, table) in &*engine.tables {
            if let (Ok(tenant), Some(rules), Some(source)) = (access.tenant(), access.rules(name), engine.source(name))
            {
                // The watermark is taken before the snapshot, so the snapshot contains all rows up to the watermark.
                let watermark = table.in_flight().watermark(&access.owner(), &engine.clock);
                let (snapshot, clock) = (table.snapshot(), &engine.clock);
                let table = SessionTable::of_tenant(table, snapshot, source.clone(), tenant, rules, clock);
                let all_versions = table.all_versions();
                for table in [table].into_iter().chain(all_versions) {
                    watermarks.insert(table.name().to_owned(), watermark);
                    tables.insert(table.name().to_owned(), SessionRelation::Table(Arc::new(table)));
                }
            }
        }
        tables.extend(lookups(engine, access));
        let tables = Arc::new(tables);
        let mut state = SessionState::clone(&engine.template);
        state.register_catalog_list(catalogs(Arc::clone(&tables), Arc::clone(&engine.table_functions)));
        let freshness = Arc::new(FreshnessFunction::new(Arc::clone(&tables), watermarks));
        state.register_udtf(freshness::NAME, Arc::clone(&freshness) as _);
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = DateTime::from_timestamp_micros(engine.clock.now());
        Self { state: ErasedPlan::new(state), tables, freshness }
    }
}

/// Returns the lookup tables that the caller may see, with their current contents and keyed by their SQL names. The
/// result is empty if the caller has no tenant.
pub(in crate::query) fn lookups(engine: &Engine, access: &Access) -> BTreeMap<String, SessionRelation> {
    let Ok(tenant) = access.tenant() else { return BTreeMap::new() };
    let visible = engine.lookups.queryable().filter_map(|lookup| {
        let rules = access.rules(lookup.name)?;
        let shown = SessionLookup::of_tenant(&engine.lookups, &lookup, tenant, rules);
        Some((lookup.name.to_owned(), SessionRelation::Lookup(Arc::new(shown))))
    });
    visible.collect()
}
