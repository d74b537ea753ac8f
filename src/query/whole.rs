//! What the operator's own file asks: a query over all rows of all tables, without a tenant.
//!
//! In: a statement of the configuration, which nobody can send. Out: its rows, within bounds. Dimension tables of sources are
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

use crate::error::{Error, Result};
use crate::lake::{Snapshot, Table};
use crate::query::engine::Engine;
use crate::query::error::of_engine;
use crate::query::opaque::Opaque;
use crate::query::session::{CATALOG, SCHEMA};
use crate::query::table::Source;
use crate::query::{statement, unsound};

/// Asks over all rows.
#[derive(Debug)]
pub struct Whole {
    engine: Arc<Engine>,
    rows_max: usize,
    bytes_max: usize,
}

impl Whole {
    /// Answers of at most so many rows and bytes.
    pub fn new(engine: Arc<Engine>, rows_max: usize, bytes_max: usize) -> Self {
        Self { engine, rows_max, bytes_max }
    }

    /// The rows of one query: at the newest snapshots known. `Limited` when there are too many.
    pub async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let fault = |fault: DataFusionError| of_engine(fault, &self.engine.config);
        let state = self.state()?;
        let statement = statement::parse(sql, &self.engine.config)?;
        let plan = Opaque::new(state.statement_to_plan(statement).await.map_err(fault)?);
        statement::check_plan(&plan)?;
        unsound::check(&plan)?;
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
    fn state(&self) -> Result<Opaque<SessionState>> {
        let schema = Arc::new(MemorySchemaProvider::new());
        for (name, table) in &*self.engine.tables {
            if let Some(source) = self.engine.source(name) {
                let table = WholeTable { table: Arc::clone(table), snapshot: table.snapshot(), source: source.clone() };
                let registered = schema.register_table(name.clone(), Arc::new(table));
                registered.map_err(|fault| of_engine(fault, &self.engine.config))?;
            }
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, schema).map_err(|fault| of_engine(fault, &self.engine.config))?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut state = SessionState::clone(&self.engine.template);
        state.register_catalog_list(Arc::new(catalogs));
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time =
            DateTime::from_timestamp_micros(self.engine.clock.now());
        Ok(Opaque::new(state))
    }
}

/// A table with all its rows and columns, at one snapshot.
struct WholeTable {
    table: Arc<Table>,
    snapshot: Arc<Snapshot>,
    source: Source,
}

#[async_trait]
impl TableProvider for WholeTable {
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

impl fmt::Debug for WholeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WholeTable").field("table", &self.table.contract().name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::query::testing::{engine, rows, text};

    #[tokio::test]
    async fn the_operators_question_is_answered_over_all_tenants() {
        let whole = Whole::new(engine().await, 10_000, 64 << 20);
        let all = whole.ask("SELECT count(*) FROM calls").await.unwrap();
        assert_eq!(text(&all), [[rows().len().to_string()]]);
        let some =
            whole.ask("SELECT count(*) FROM calls WHERE event_date > '1970-01-02' AND y IS NOT NULL").await.unwrap();
        let counted = whole.ask("SELECT count(y) FROM hidden").await.unwrap();
        assert_eq!(text(&some), text(&counted), "tables without a policy as well");
    }

    #[tokio::test]
    async fn it_only_asks_and_within_bounds() {
        let whole = Whole::new(engine().await, 10, 64 << 20);
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
