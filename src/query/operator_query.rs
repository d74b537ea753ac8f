//! What the operator's own file asks: a query over all rows of all tables, without a tenant.
//!
//! In: a statement of the configuration, which nobody can send. Out: its rows, within bounds. Lookup tables of sources are
//! made of them.
//!
//! **Invariant:** no door reaches this: a fence of `tests/it/tidy.rs` keeps it in `server.rs`. Whatever answers a caller goes
//! through a [`Session`](crate::query::Session), and so through the barrier.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{
    CatalogProvider as _, CatalogProviderList as _, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider as _, Session, TableProvider,
};
use datafusion::common::DFSchema;
use datafusion::datasource::ViewTable;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;

use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::{Snapshot, Table};
use crate::query::engine_bugs;
use crate::query::error::of_engine;
use crate::query::request::engine::Engine;
use crate::query::request::erased_plan::ErasedPlan;
use crate::query::request::session::{CATALOG, SCHEMA};
use crate::query::request::statement;
use crate::query::scan::tenant_table::TableSource;

/// Asks over all rows.
#[derive(Debug)]
pub struct OperatorQuery {
    engine: Arc<Engine>,
    rows_max: usize,
    bytes_max: usize,
}

impl OperatorQuery {
    /// Answers of at most so many rows and bytes.
    pub fn new(engine: Arc<Engine>, rows_max: usize, bytes_max: usize) -> Self {
        Self { engine, rows_max, bytes_max }
    }

    /// The rows of one query: at the newest snapshots known. `Limited` when there are too many.
    pub async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let fault = |fault: DataFusionError| of_engine(fault, &self.engine.config);
        let state = self.state().await?;
        let statement = statement::parse(sql, &self.engine.config)?;
        let plan = ErasedPlan::new(state.statement_to_plan(statement).await.map_err(fault)?);
        statement::check_plan(&plan)?;
        engine_bugs::check(&plan)?;
        let physical = state.create_physical_plan(&plan).await.map_err(fault)?;
        let task = Arc::new(self.engine.task(&physical));
        let mut batches = execute_stream(physical, task).map_err(fault)?.map_err(fault).boxed();
        let (mut all, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if rows > self.rows_max || bytes > self.bytes_max {
                let (rows, bytes) = (self.rows_max, self.bytes_max);
                return Err(Error::limited(format!("the answer has more than {rows} rows or {bytes} bytes")));
            }
            all.push(batch);
        }
        Ok(all)
    }

    /// The engine's own functions and rules, over whole tables.
    async fn state(&self) -> Result<ErasedPlan<SessionState>> {
        let fault = |fault: DataFusionError| of_engine(fault, &self.engine.config);
        let schema = Arc::new(MemorySchemaProvider::new());
        for (name, table) in &*self.engine.tables {
            if let Some(source) = self.engine.source(name) {
                let name = table.contract().changes_name().unwrap_or_else(|| name.clone());
                let table =
                    OperatorTable { table: Arc::clone(table), snapshot: table.snapshot(), source: source.clone() };
                schema.register_table(name, Arc::new(table)).map_err(fault)?;
            }
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, Arc::clone(&schema) as _).map_err(fault)?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut state = SessionState::clone(&self.engine.template);
        state.register_catalog_list(Arc::new(catalogs));
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time =
            DateTime::from_timestamp_micros(self.engine.clock.now());
        let state = ErasedPlan::new(state);
        for (name, table) in &*self.engine.tables {
            if let (Some(sql), Some(_)) = (newest_sql(table.contract()), self.engine.source(name)) {
                let plan = state.create_logical_plan(&sql).await.map_err(fault)?;
                schema.register_table(name.clone(), Arc::new(ViewTable::new(plan, None))).map_err(fault)?;
            }
        }
        Ok(state)
    }
}

/// What a table shows that holds versions: the newest of each key of each tenant, unless it says that the key was deleted.
/// All names in it were checked when the table was declared.
fn newest_sql(contract: &Contract) -> Option<String> {
    let (latest, changes) = (contract.latest.as_ref()?, contract.changes_name()?);
    let name = |column: usize| format!("\"{}\"", contract.columns[column].name);
    let key: Vec<String> = [contract.tenant].iter().chain(&latest.key).map(|column| name(*column)).collect();
    let order = [name(latest.by) + " DESC NULLS LAST", name(contract.received) + " DESC", name(contract.id) + " DESC"];
    let fields = contract.table_schema().fields().iter().map(|field| format!("\"{}\"", field.name()));
    let live = latest.deleted.map_or("true".to_owned(), |deleted| format!("{} IS NOT TRUE", name(deleted)));
    Some(format!(
        "SELECT {} FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {}) AS \"(age)\" FROM \"{changes}\") \
         WHERE \"(age)\" = 1 AND {live}",
        fields.collect::<Vec<_>>().join(", "),
        key.join(", "),
        order.join(", "),
    ))
}

/// A table with all its rows and columns, at one snapshot.
struct OperatorTable {
    table: Arc<Table>,
    snapshot: Arc<Snapshot>,
    source: TableSource,
}

#[async_trait]
impl TableProvider for OperatorTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table.contract().table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let whole = self.table.contract().table_schema();
        let day = Arc::new(whole.field(whole.fields().len() - 1).clone());
        let schema = TableSchema::builder(Arc::clone(self.table.contract().schema()))
            .with_table_partition_cols(vec![day])
            .build();
        let mut parquet = ParquetSource::new(schema.clone())
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_parquet_file_reader_factory(Arc::clone(&self.source.reader));
        if let Some(filter) = conjunction(filters.iter().cloned()) {
            let columns = DFSchema::try_from(Arc::clone(schema.table_schema()))?;
            parquet = parquet.with_predicate(state.create_physical_expr(filter, &columns)?);
        }
        let files = self.snapshot.files.iter().map(|file| {
            let meta = ObjectMeta {
                location: self.table.file_path(file),
                last_modified: DateTime::from_timestamp_millis(file.modified).unwrap_or_default(),
                size: file.size,
                e_tag: None,
                version: None,
            };
            let day = datafusion::common::ScalarValue::Date32(Some(file.day));
            PartitionedFile::new_from_meta(meta).with_partition_values(vec![day])
        });
        let group = FileGroup::new(files.collect());
        let config = FileScanConfigBuilder::new(self.source.store.clone(), Arc::new(parquet))
            .with_projection_indices(projection.cloned())?
            .with_file_groups(vec![group])
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// They help to skip row groups, and are applied again above.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

impl fmt::Debug for OperatorTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WholeTable").field("table", &self.table.contract().name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::query::scan::newest_testing::{self, Change, by_order, change, lake, old};
    use crate::query::testing::{engine, rows, text};

    #[tokio::test]
    async fn the_operators_question_is_answered_over_all_tenants() {
        let whole = OperatorQuery::new(engine().await, 10_000, 64 << 20);
        let all = whole.ask("SELECT count(*) FROM calls").await.unwrap();
        assert_eq!(text(&all), [[rows().len().to_string()]]);
        let some =
            whole.ask("SELECT count(*) FROM calls WHERE event_date > '1970-01-02' AND y IS NOT NULL").await.unwrap();
        let counted = whole.ask("SELECT count(y) FROM hidden").await.unwrap();
        assert_eq!(text(&some), text(&counted), "tables without a policy as well");
    }

    #[tokio::test]
    async fn a_table_of_versions_shows_the_newest_of_each_tenant() {
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
        let whole = OperatorQuery::new(newest_testing::engine(&tables), 10_000, 64 << 20);
        let shown = whole.ask("SELECT tenant, order_id, state FROM orders ORDER BY 1, 2").await.unwrap();
        assert_eq!(text(&shown), [["acme", "a", "sent"], ["zeta", "a", "open"]]);
        let all = whole.ask("SELECT count(*) FROM orders_changes").await.unwrap();
        assert_eq!(text(&all), [["6"]]);
    }

    #[tokio::test]
    async fn it_only_asks_and_within_bounds() {
        let whole = OperatorQuery::new(engine().await, 10, 64 << 20);
        let cases = [
            ("SELECT * FROM calls", Kind::Limited),
            ("DELETE FROM calls", Kind::Forbidden),
            ("COPY calls TO 'x.csv'", Kind::Forbidden),
            ("SELECT * FROM nothing", Kind::Invalid),
            ("SELEC", Kind::Invalid),
        ];
        for (sql, kind) in cases {
            assert_eq!(whole.ask(sql).await.unwrap_err().kind(), kind, "{sql}");
        }
        assert_eq!(text(&whole.ask("SELECT DISTINCT 1 FROM calls").await.unwrap()), [["1"]]);
    }
}
