//! Runs the queries that the operator configures. These queries read the rows of all tenants.
//!
//! Lookup tables are built from the results, and the size of each result is limited. Clients cannot send these queries.
//!
//! **Invariant:** no endpoint can use this file: a dependency check in `tests/it/tidy.rs` permits only `server.rs` to
//! use it. Callers' queries run in a [`Session`](crate::query::Session), where the tenant barrier filters the rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::DateTime;
use datafusion::catalog::{
    CatalogProvider as _, CatalogProviderList as _, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider as _,
};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execute_stream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::config::QueryConfig;
use crate::error::{Error, Kind, Result};
use crate::query::catalog::{CATALOG, SCHEMA};
use crate::query::engine::Engine;
use crate::query::error::from_engine;
use crate::query::planning::erased_plan::ErasedPlan;
use crate::query::planning::statement;
use crate::query::planning::{plan_size, substituted_size};
use crate::query::scan::table_provider::SessionTable;
use crate::sql::decorrelate::decorrelate;
use crate::sql::engine_bugs;
use crate::sql::engine_error_text::without_values;
use crate::sql::syntax;

/// Runs queries on the rows of all tenants, with limits on the result size.
#[derive(Debug, Clone)]
pub struct OperatorQuery {
    engine: Arc<Engine>,
    rows_max: usize,
    bytes_max: usize,
}

impl OperatorQuery {
    /// Creates an [`OperatorQuery`] that limits each result to `rows_max` rows and `bytes_max` bytes.
    pub fn new(engine: Arc<Engine>, rows_max: usize, bytes_max: usize) -> Self {
        Self { engine, rows_max, bytes_max }
    }

    /// Runs one query on the newest known snapshots and returns its rows. Fails with `Limited` if the result is too
    /// large.
    pub async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let (query, sql) = (self.clone(), sql.to_owned());
        self.engine.runtimes.of(None)?.run(async move { query.plan_and_run(&sql).await }).await
    }

    async fn plan_and_run(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let to_error = |error: DataFusionError| from_engine(error, &self.engine.config);
        let state = self.state()?;
        let mut statement = statement::parse(sql, &self.engine.config)?;
        syntax::check_and_rewrite(&mut statement, &state, None)?;
        syntax::rewrite_columns(&mut statement, &state)?;
        let plan = state.statement_to_plan(statement).await.map_err(to_error)?;
        plan_size::check(&plan)?;
        statement::check_plan(&plan)?;
        let plan = ErasedPlan::new(decorrelate(plan).map_err(to_error)?.data);
        plan_size::check(&plan)?;
        substituted_size::check(&plan)?;
        engine_bugs::check(&plan)?;
        let physical = state.create_physical_plan(&plan).await.map_err(to_error)?;
        let task = Arc::new(self.engine.task(&physical));
        let failed = |error| without_values_of_tenants(error, &self.engine.config);
        let mut batches = execute_stream(physical, task).map_err(failed)?.map_err(failed).boxed();
        let (mut all, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if rows > self.rows_max || bytes > self.bytes_max {
                let (rows, bytes) = (self.rows_max, self.bytes_max);
                return Err(Error::limited(format!("the result has more than {rows} rows or {bytes} bytes")));
            }
            all.push(batch);
        }
        Ok(all)
    }

    /// Creates a session state with the engine's functions and rules, in which the tables contain the rows of all
    /// tenants.
    fn state(&self) -> Result<ErasedPlan<SessionState>> {
        let to_error = |error: DataFusionError| from_engine(error, &self.engine.config);
        let schema = Arc::new(MemorySchemaProvider::new());
        for (name, table) in &*self.engine.tables {
            if let Some(source) = self.engine.source(name) {
                let (snapshot, clock) = (table.snapshot(), &self.engine.clock);
                let table = SessionTable::of_operator(table, snapshot, source.clone(), clock);
                let all_versions = table.all_versions();
                for table in [table].into_iter().chain(all_versions) {
                    schema.register_table(table.name().to_owned(), Arc::new(table)).map_err(to_error)?;
                }
            }
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, schema).map_err(to_error)?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut state = SessionState::clone(&self.engine.template);
        state.register_catalog_list(Arc::new(catalogs));
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time =
            DateTime::from_timestamp_micros(self.engine.clock.now());
        Ok(ErasedPlan::new(state))
    }
}

/// Translates an error that the engine returned while it ran a query. The error is logged, so it must not contain a value
/// of a tenant's row.
fn without_values_of_tenants(error: DataFusionError, config: &QueryConfig) -> Error {
    let text = without_values(&error);
    let error = from_engine(error, config);
    match error.kind() {
        Kind::Invalid => Error::invalid(format!(
            "the query failed: {text} (the value is not shown, because the query reads the rows of all tenants)"
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::scan::latest_testing::{self, Change, by_order, change, lake, old};
    use crate::query::testing::{TELLTALES, engine, rows, text};

    #[tokio::test]
    async fn operator_query_reads_all_tenants() {
        let query = OperatorQuery::new(engine().await, 10_000, 64 << 20);
        let all = query.run("SELECT count(*) FROM calls").await.unwrap();
        assert_eq!(text(&all), [[rows().len().to_string()]]);
        let some =
            query.run("SELECT count(*) FROM calls WHERE event_date > '1970-01-02' AND y IS NOT NULL").await.unwrap();
        let counted = query.run("SELECT count(y) FROM hidden").await.unwrap();
        assert_eq!(text(&some), text(&counted), "a table without a policy is readable as well");
    }

    #[tokio::test]
    async fn latest_table_shows_the_latest_versions_of_every_tenant() {
        let of = |tenant, change: Change| Change { tenant, id: format!("{tenant} {}", change.id), ..change };
        let changes = [
            old("a", 1),
            change("a", 3, "sent"),
            old("a", 2),
            of("zeta", change("a", 2, "open")),
            change("b", 1, "open"),
            Change { deleted: Some(true), ..change("b", 2, "gone") },
        ];
        let tables = lake(by_order(), &[&changes[..3], &changes[3..]]).await;
        let query = OperatorQuery::new(latest_testing::engine(&tables), 10_000, 64 << 20);
        let shown = query.run("SELECT tenant, order_id, state FROM orders ORDER BY 1, 2").await.unwrap();
        assert_eq!(text(&shown), [["acme", "a", "sent"], ["zeta", "a", "open"]]);
        let all = query.run("SELECT count(*) FROM orders_changes").await.unwrap();
        assert_eq!(text(&all), [["6"]]);
    }

    #[tokio::test]
    async fn operator_query_is_read_only_and_limited() {
        let query = OperatorQuery::new(engine().await, 10, 64 << 20);
        let cases = [
            ("SELECT * FROM calls", Kind::Limited),
            ("DELETE FROM calls", Kind::Forbidden),
            ("COPY calls TO 'x.csv'", Kind::Forbidden),
            ("SELECT * FROM nothing", Kind::Invalid),
            ("SELEC", Kind::Invalid),
        ];
        for (sql, kind) in cases {
            assert_eq!(query.run(sql).await.unwrap_err().kind(), kind, "{sql}");
        }
        assert_eq!(text(&query.run("SELECT DISTINCT 1 FROM calls").await.unwrap()), [["1"]]);
        for (sql, expected) in [
            ("SELECT CAST(secret AS BIGINT) FROM calls", "use TRY_CAST"),
            ("SELECT CAST(region AS UUID) FROM calls", "an expression cannot be computed"),
            ("SELECT 1 / (y - 20) FROM calls", "division by zero"),
        ] {
            let logged = format!("{:?}", query.run(sql).await.unwrap_err());
            assert!(logged.contains(expected) && !TELLTALES.iter().any(|value| logged.contains(value)), "{logged}");
        }
    }
}
