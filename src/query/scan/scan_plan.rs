//! Builds the physical plan of a [`ScanSpec`] on this server.
//!
//! In: a spec, and the table and store that it names. Out: a private plan. Each run gets a new plan, because a plan
//! that has run keeps the metrics of all its runs.
//!
//! ```text
//!   All           Parquet scan
//!   Newest        Parquet scan ─► tenant ─► filters on the key ─► newest version of each key
//!   OpenEntries   Parquet scan ─► anti join with the closing rows of the same tenant
//! ```
//!
//! **Invariant:** these plans are below the barrier: [`TenantScan`](crate::query::scan::tenant_scan::TenantScan)
//! applies the tenant and row rules to every row that they produce, and reveals nothing about the rows that it removes.

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
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;

use crate::lake::{DataFile, Table};
use crate::query::scan::newest_versions::newest;
use crate::query::scan::open_quarantine::open;
use crate::query::scan::prune::ScanRange;
use crate::query::scan::row_versions::ColumnPlaces;
use crate::query::scan::scan_spec::{ScanSpec, ShownRows, column};
use crate::query::scan::tenant_table::TableSource;

/// Whether the Parquet decoder also evaluates the pruning predicate, before it decodes other columns. Off: the rows of
/// one tenant are one slice of each file, which the page index finds, and a row filter doubles the requests to the
/// store.
const DECODER_FILTERS: bool = false;

/// A spec, resolved on this server.
pub(in crate::query) struct ScanPlan {
    rows: ParquetScan,
    step: Step,
}

/// The steps between the Parquet scan and the barrier.
enum Step {
    None,
    Newest(NewestSearch),
    Open(Box<ClosingRows>),
}

/// How to find the newest versions.
struct NewestSearch {
    /// Filters applied first, in order: the tenant comes first, so that no user filter is evaluated on a row of another
    /// tenant.
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    places: Arc<ColumnPlaces>,
    partitions: usize,
    batch_rows: usize,
}

/// How to find the rows that close entries.
struct ClosingRows {
    scan: ParquetScan,
    is_closing: Arc<dyn PhysicalExpr>,
    /// Pairs of column names whose values are equal in a closing row and its entry.
    on: Vec<(String, String)>,
}

/// A repeatable scan of Parquet files, with everything it needs.
struct ParquetScan {
    table: TableSchema,
    source: TableSource,
    options: TableParquetOptions,
    groups: Vec<FileGroup>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    read: Vec<usize>,
}

/// What resolving a spec needs.
struct Resolver<'a> {
    spec: &'a ScanSpec,
    table: &'a Table,
    source: &'a TableSource,
    state: &'a dyn Session,
}

impl ScanPlan {
    /// The plan of `spec`, which must be of `table`. Its rows start with the columns of the spec, followed by the
    /// columns that only the barrier needs.
    pub(in crate::query) fn resolve(
        spec: &ScanSpec,
        table: &Table,
        source: &TableSource,
        state: &dyn Session,
    ) -> Result<Self> {
        let contract = table.contract();
        if *contract.name != *spec.table {
            let (table, spec) = (&contract.name, &spec.table);
            return Err(DataFusionError::Internal(format!("a scan of table `{spec}` is resolved by table `{table}`")));
        }
        let resolver = Resolver { spec, table, source, state };
        let barrier = spec.barrier(contract);
        let mut read = spec.columns.iter().map(|name| resolver.place(name)).collect::<Result<Vec<_>>>()?;
        let guarded = barrier.iter().flat_map(Expr::column_refs).map(|column| resolver.place(&column.name));
        also(&mut read, guarded.collect::<Result<BTreeSet<_>>>()?);
        if matches!(spec.rows, ShownRows::OpenEntries { .. }) {
            also(&mut read, [contract.tenant, contract.id, contract.time]);
        }
        let columns = read.len();
        let early = spec.early(contract, &barrier).chain(&spec.filters).cloned();
        let predicate = conjunction(early);
        let step = match &spec.rows {
            ShownRows::All => Step::None,
            ShownRows::OpenEntries { resolves } => Step::Open(Box::new(resolver.closing(resolves)?)),
            ShownRows::Newest { key, by, .. } => {
                let key = key.iter().map(|name| resolver.place(name)).collect::<Result<Vec<_>>>()?;
                let by = resolver.place(by)?;
                also(&mut read, key.iter().copied().chain([by, contract.received, contract.id]));
                Step::Newest(resolver.newest(&read, columns, key, by)?)
            }
        };
        Ok(Self { rows: resolver.parquet(read, predicate)?, step })
    }

    /// A plan that has never run.
    pub(in crate::query) fn build(&self) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.build()?;
        match &self.step {
            Step::None => Ok(rows),
            Step::Newest(step) => newest(rows, &step.conditions, &step.places, step.partitions, step.batch_rows),
            Step::Open(closing) => open(rows, closing.scan.build()?, &closing.is_closing, &closing.on),
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
    /// The index of a column in the full schema of the table.
    fn place(&self, name: &str) -> Result<usize> {
        Ok(self.table.contract().table_schema().index_of(name)?)
    }

    /// The scan of the columns `read`. It may skip rows that do not match `predicate` or the time range of the spec.
    fn parquet(&self, read: Vec<usize>, predicate: Option<Expr>) -> Result<ParquetScan> {
        let contract = self.table.contract();
        let whole = contract.table_schema();
        let day = Arc::new(whole.field(whole.fields().len() - 1).clone());
        let table = TableSchema::builder(Arc::clone(contract.schema())).with_table_partition_cols(vec![day]).build();
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

    /// The selection of the newest versions from rows of the columns `read`. The first `columns` columns are returned.
    fn newest(&self, read: &[usize], columns: usize, key: Vec<usize>, by: usize) -> Result<NewestSearch> {
        let (spec, contract) = (self.spec, self.table.contract());
        let place = |column: usize| {
            let found = read.iter().position(|read| *read == column);
            found.ok_or_else(|| DataFusionError::Internal("a column of the versions is not read".to_owned()))
        };
        // A key is unique within its tenant only.
        let tenant = spec.scope.tenant().is_none().then_some(contract.tenant);
        let places = ColumnPlaces {
            key: tenant.into_iter().chain(key).map(place).collect::<Result<_>>()?,
            by: place(by)?,
            received: place(contract.received)?,
            id: place(contract.id)?,
            columns,
        };
        let asked = conjunction(spec.early(contract, &spec.rules).chain(&spec.filters).cloned());
        let schema = DFSchema::try_from(contract.table_schema().project(read)?)?;
        let conditions = spec.scope.condition(contract).into_iter().chain(asked);
        let conditions = conditions.map(|condition| self.state.create_physical_expr(condition, &schema));
        Ok(NewestSearch {
            conditions: conditions.collect::<Result<_>>()?,
            places: Arc::new(places),
            partitions: spec.partitions.len(),
            batch_rows: self.state.config().batch_size(),
        })
    }

    /// How to find the rows that close entries.
    fn closing(&self, resolves: &str) -> Result<ClosingRows> {
        let contract = self.table.contract();
        let name = |place: usize| contract.columns[place].name.clone();
        let read = vec![contract.tenant, contract.time, self.place(resolves)?];
        let schema: Schema = contract.table_schema().project(&read)?;
        let closes = column(resolves).is_not_null();
        let is_closing = self.spec.scope.condition(contract).into_iter().fold(closes, |closes, own| own.and(closes));
        let same = |place: usize| (name(place), name(place));
        Ok(ClosingRows {
            is_closing: self.state.create_physical_expr(is_closing.clone(), &DFSchema::try_from(schema)?)?,
            scan: self.parquet(read, Some(is_closing))?,
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

fn time_bounds(time: &str, range: ScanRange) -> impl Iterator<Item = Expr> {
    let at = |micros: i64| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
    let least = (range.min > i64::MIN).then(|| column(time).gt_eq(at(range.min)));
    let greatest = (range.max < i64::MAX).then(|| column(time).lt_eq(at(range.max)));
    least.into_iter().chain(greatest)
}

/// Appends the indexes that are missing.
fn also(read: &mut Vec<usize>, places: impl IntoIterator<Item = usize>) {
    for place in places {
        if !read.contains(&place) {
            read.push(place);
        }
    }
}
