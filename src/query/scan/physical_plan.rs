//! Builds the physical plan that a `TenantScan` contains, from a [`ScanSpec`].
//!
//! A new plan is built for each run, because a plan accumulates the metrics of all its runs.
//!
//! ```text
//!   ShownRows::All              Parquet scan
//!   ShownRows::LatestVersions   Parquet scan ─► tenant ─► key filters ─► latest version of each key
//!   ShownRows::OpenEntries      Parquet scan ─► anti join with the tenant's closing rows
//! ```
//!
//! **Invariant:** `TenantScan` applies the tenant condition and the row rules to every row that these plans return.
//! EXPLAIN and metrics reveal nothing about the rows that it removes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use chrono::DateTime;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;

use crate::lake::{DataFile, Table};
use crate::query::scan::file_pruning::ScanRange;
use crate::query::scan::latest_versions::VersionLayout;
use crate::query::scan::latest_versions_exec::latest_versions;
use crate::query::scan::open_quarantine_entries::open_entries;
use crate::query::scan::scan_spec::{ScanSpec, ShownRows, column, time_literal};
use crate::query::scan::table_source::TableSource;

/// Whether the Parquet decoder evaluates the pruning predicate on rows before it decodes the other columns. If it did,
/// the number of requests to the object store would double, and little work would be saved. The page index is enough to
/// find a tenant's rows, because they are contiguous in a file.
const DECODER_FILTERS: bool = false;

/// A scan whose columns, files and conditions have been resolved. It builds a new physical plan for each run.
pub(in crate::query) struct ScanPlan {
    rows: ParquetScan,
    step: Step,
}

/// The plan nodes between the Parquet scan and the tenant barrier.
enum Step {
    None,
    LatestVersions(VersionSelection),
    OpenEntries(Box<ClosingRows>),
}

/// Parameters for selecting the latest version of each key.
struct VersionSelection {
    /// The conditions that are applied before the selection, in the given order. The tenant condition comes first, so
    /// no user filter is evaluated on a row of another tenant.
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    layout: Arc<VersionLayout>,
    partitions: usize,
    batch_rows: usize,
}

/// Parameters for finding the rows that close quarantine entries.
struct ClosingRows {
    scan: ParquetScan,
    is_closing: Arc<dyn PhysicalExpr>,
    /// Pairs of a column of the closing row and a column of the entry. A row closes an entry if the two columns are
    /// equal in each pair.
    on: Vec<(String, String)>,
}

/// The parameters of a Parquet scan. A new plan node is built from them each time the plan runs.
struct ParquetScan {
    table: TableSchema,
    source: TableSource,
    options: TableParquetOptions,
    groups: Vec<FileGroup>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    /// The columns to read, as indexes in the full schema of the table.
    read: Vec<usize>,
}

/// Resolves the column names in a scan spec.
struct Resolver<'a> {
    spec: &'a ScanSpec,
    table: &'a Table,
    source: &'a TableSource,
    state: &'a dyn Session,
}

impl ScanPlan {
    /// Resolves `spec`, which must describe a scan of `table`. The plan returns the columns of the spec, followed by
    /// further columns that the tenant barrier needs and then removes.
    pub(in crate::query) fn resolve(
        spec: &ScanSpec,
        table: &Table,
        source: &TableSource,
        state: &dyn Session,
    ) -> Result<Self> {
        let contract = table.contract();
        if *contract.name != *spec.table {
            let (table, spec) = (&contract.name, &spec.table);
            return Err(DataFusionError::Internal(format!(
                "cannot resolve a scan of table `{spec}` with table `{table}`"
            )));
        }
        let resolver = Resolver { spec, table, source, state };
        let barrier = spec.barrier(contract);
        let mut read = spec.columns.iter().map(|name| resolver.index(name)).collect::<Result<Vec<_>>>()?;
        let in_barrier = barrier.iter().flat_map(Expr::column_refs).map(|column| resolver.index(&column.name));
        add_missing(&mut read, in_barrier.collect::<Result<BTreeSet<_>>>()?);
        if matches!(spec.rows, ShownRows::OpenEntries { .. }) {
            add_missing(&mut read, [contract.tenant, contract.id, contract.time]);
        }
        let columns = read.len();
        let early = spec.early(contract, &barrier).chain(&spec.filters).cloned();
        let predicate = conjunction(early);
        let step = match &spec.rows {
            ShownRows::All => Step::None,
            ShownRows::OpenEntries { resolves } => Step::OpenEntries(Box::new(resolver.closing_rows(resolves)?)),
            ShownRows::LatestVersions { key, by, .. } => {
                let key = key.iter().map(|name| resolver.index(name)).collect::<Result<Vec<_>>>()?;
                let by = resolver.index(by)?;
                add_missing(&mut read, key.iter().copied().chain([by, contract.received, contract.id]));
                Step::LatestVersions(resolver.version_selection(&read, columns, key, by)?)
            }
        };
        Ok(Self { rows: resolver.parquet_scan(read, predicate)?, step })
    }

    /// Builds a new plan for a run.
    pub(in crate::query) fn build(&self) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.build()?;
        match &self.step {
            Step::None => Ok(rows),
            Step::LatestVersions(step) => {
                latest_versions(rows, &step.conditions, &step.layout, step.partitions, step.batch_rows)
            }
            Step::OpenEntries(closing) => open_entries(rows, closing.scan.build()?, &closing.is_closing, &closing.on),
        }
    }
}

impl ParquetScan {
    fn build(&self) -> Result<Arc<dyn ExecutionPlan>> {
        let mut parquet = ParquetSource::new(self.table.clone())
            .with_table_parquet_options(self.options.clone())
            .with_parquet_file_reader_factory(Arc::clone(&self.source.reader))
            .with_pushdown_filters(DECODER_FILTERS);
        if let Some(predicate) = &self.predicate {
            parquet = parquet.with_predicate(Arc::clone(predicate));
        }
        let config = FileScanConfigBuilder::new(self.source.store.clone(), Arc::new(parquet))
            .with_projection_indices(Some(self.read.clone()))?
            .with_file_groups(self.groups.clone())
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl Resolver<'_> {
    /// Returns the index of a column in the full schema of the table.
    fn index(&self, name: &str) -> Result<usize> {
        Ok(self.table.contract().table_schema().index_of(name)?)
    }

    /// Creates a scan of the columns `read`. The scan may omit rows that do not match `predicate`, or that are outside
    /// the time range of the spec.
    fn parquet_scan(&self, read: Vec<usize>, predicate: Option<Expr>) -> Result<ParquetScan> {
        let contract = self.table.contract();
        let full = contract.table_schema();
        let day = Arc::new(full.field(full.fields().len() - 1).clone());
        let stored = Schema::new(full.fields()[..full.fields().len() - 1].to_vec());
        let table = TableSchema::builder(Arc::new(stored)).with_table_partition_cols(vec![day]).build();
        let times = time_bounds(&contract.columns[contract.time].name, self.spec.times);
        let predicate = conjunction(predicate.into_iter().chain(times));
        let columns = DFSchema::try_from(Arc::clone(table.table_schema()))?;
        let predicate = predicate.map(|predicate| self.state.create_physical_expr(predicate, &columns)).transpose()?;
        let group = |files: &Vec<Arc<DataFile>>| FileGroup::new(files.iter().map(|file| self.file(file)).collect());
        Ok(ParquetScan {
            table,
            source: self.source.clone(),
            options: self.state.default_table_options().parquet,
            groups: self.spec.partitions.iter().map(group).collect(),
            predicate,
            read,
        })
    }

    /// Creates the selection of the latest versions. The input has the columns `read`, and the output has the first
    /// `columns` of them.
    fn version_selection(
        &self,
        read: &[usize],
        columns: usize,
        key: Vec<usize>,
        by: usize,
    ) -> Result<VersionSelection> {
        let (spec, contract) = (self.spec, self.table.contract());
        let index = |column: usize| {
            let found = read.iter().position(|read| *read == column);
            found.ok_or_else(|| {
                DataFusionError::Internal("a column that identifies or orders versions is not read".to_owned())
            })
        };
        // A key is unique only within its tenant, so a scan of all tenants adds the tenant to the key.
        let tenant = spec.scope.tenant().is_none().then_some(contract.tenant);
        let layout = VersionLayout {
            key: tenant.into_iter().chain(key).map(index).collect::<Result<_>>()?,
            by: index(by)?,
            received: index(contract.received)?,
            id: index(contract.id)?,
            columns,
        };
        let key_filters = conjunction(spec.early(contract, &spec.rules).chain(&spec.filters).cloned());
        let schema = DFSchema::try_from(contract.table_schema().project(read)?)?;
        let conditions = spec.scope.condition(contract).into_iter().chain(key_filters);
        let conditions = conditions.map(|condition| self.state.create_physical_expr(condition, &schema));
        Ok(VersionSelection {
            conditions: conditions.collect::<Result<_>>()?,
            layout: Arc::new(layout),
            partitions: spec.partitions.len(),
            batch_rows: self.state.config().batch_size(),
        })
    }

    /// Creates the scan for the rows that close entries. The column `resolves` of a closing row contains the id of the
    /// closed entry.
    fn closing_rows(&self, resolves: &str) -> Result<ClosingRows> {
        let contract = self.table.contract();
        let name = |index: usize| contract.columns[index].name.clone();
        let read = vec![contract.tenant, contract.time, self.index(resolves)?];
        let schema: Schema = contract.table_schema().project(&read)?;
        let closes = column(resolves).is_not_null();
        let is_closing = self.spec.scope.condition(contract).into_iter().fold(closes, |closes, own| own.and(closes));
        let same = |index: usize| (name(index), name(index));
        Ok(ClosingRows {
            is_closing: self.state.create_physical_expr(is_closing.clone(), &DFSchema::try_from(schema)?)?,
            scan: self.parquet_scan(read, Some(is_closing))?,
            on: vec![(resolves.to_owned(), name(contract.id)), same(contract.time), same(contract.tenant)],
        })
    }

    fn file(&self, file: &DataFile) -> PartitionedFile {
        let meta = ObjectMeta {
            location: self.table.file_path(file),
            last_modified: DateTime::from_timestamp_millis(file.modified).unwrap_or_default(),
            size: file.size,
            e_tag: None,
            version: None,
        };
        PartitionedFile::new_from_meta(meta).with_partition_values(vec![ScalarValue::Date32(Some(file.day))])
    }
}

/// Returns the conditions that restrict the column `time` to `range`.
fn time_bounds(time: &str, range: ScanRange) -> impl Iterator<Item = Expr> {
    let least = (range.min > i64::MIN).then(|| column(time).gt_eq(time_literal(range.min)));
    let greatest = (range.max < i64::MAX).then(|| column(time).lt_eq(time_literal(range.max)));
    least.into_iter().chain(greatest)
}

/// Appends to `read` the `indexes` that it does not yet contain.
fn add_missing(read: &mut Vec<usize>, indexes: impl IntoIterator<Item = usize>) {
    for index in indexes {
        if !read.contains(&index) {
            read.push(index);
        }
    }
}
