//! A table as one caller sees it: visible columns, own rows, one snapshot.
//!
//! In: a lake table at one snapshot and the caller's rules. Out: a table provider for the engine, whose scans are
//! [`TenantScan`]s over pruned files. A table declared with `latest` is two: its newest versions under its own name, and all
//! of them beside it.
//!
//! ```text
//!   all versions      prune by all filters ─► read ─► tenant, row rules
//!   newest versions   prune by the key's filters ─► read ─► tenant ─► the key's filters ─► newest ─► row rules, not deleted
//! ```
//!
//! **Invariant:** a column outside the allow-list does not exist here: it is in no schema, error or suggestion.
//! **Invariant:** row rules are applied to the newest version: a row that has moved to another sub-account is gone from the
//! first one's, and its older version does not stand in for it.
//! **Invariant:** a quarantine shows its open entries: no row that closes one, and none that is closed.
//! **Invariant:** it fails closed: a rule whose column is unknown, or whose values do not fit the column, admits no row.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;

use crate::contract::{Contract, Latest, TenantId};
use crate::lake::{DataFile, Snapshot, Table};
use crate::query::scan::newest_exec::newest;
use crate::query::scan::open_quarantine::{ClosingRows, open};
use crate::query::scan::prune::{ScanBounds, ScanRange, is_leakproof, prune};
use crate::query::scan::tenant_scan::{Reads, Recipe, TenantScan};
use crate::query::scan::versions::ColumnPlaces;
use crate::tenancy::{RowRule, TableRules};

/// Whether the barrier's predicate also runs inside the Parquet decoder, before other columns are decoded. Off: one
/// tenant's rows are one slice of each file, which the page index finds, and a row filter doubles the store's requests.
const DECODER_FILTERS: bool = false;

/// Where the files of a table are, and how they are read.
#[derive(Clone)]
pub(in crate::query) struct TableSource {
    /// The root under which the store is registered.
    pub(in crate::query) store: ObjectStoreUrl,
    /// Reads files of the store, with cached metadata.
    pub(in crate::query) reader: Arc<dyn ParquetFileReaderFactory>,
    /// Partitions of a scan.
    pub(in crate::query) partitions: usize,
}

/// One table for one caller.
pub(in crate::query) struct TenantTable {
    table: Arc<Table>,
    contract: Arc<Contract>,
    snapshot: Arc<Snapshot>,
    source: TableSource,
    tenant: TenantId,
    /// Its name in SQL.
    name: Arc<str>,
    /// By which columns the newest versions are found; none when all versions are shown.
    latest: Option<Latest>,
    /// What a row must meet, over the table's whole schema: all of them, the tenant's first.
    barrier: Vec<Expr>,
    /// The visible columns, as places in the table's whole schema.
    columns: Vec<usize>,
    /// The visible columns.
    schema: SchemaRef,
}

impl TenantTable {
    /// The table as it was declared: all rows, or the newest version of each key.
    pub(in crate::query) fn new(
        table: &Arc<Table>,
        snapshot: Arc<Snapshot>,
        source: TableSource,
        tenant: &TenantId,
        rules: &TableRules,
    ) -> Self {
        let (table, contract) = (Arc::clone(table), Arc::clone(table.contract()));
        let (name, latest) = (contract.name.as_str().into(), contract.latest.clone());
        let columns = visible_columns(&contract, rules);
        let visible = columns.iter().map(|column| plain(contract.table_schema().field(*column)));
        let schema = Arc::new(Schema::new(visible.collect::<Vec<_>>()));
        let barrier = barrier(&contract, latest.as_ref(), tenant, &rules.rows);
        Self { table, contract, snapshot, source, tenant: tenant.clone(), name, latest, barrier, columns, schema }
    }

    /// All versions of the rows of a table that shows the newest ones, under a name of their own; none for any other table.
    pub(in crate::query) fn changes(&self, rules: &TableRules) -> Option<Self> {
        Some(Self {
            table: Arc::clone(&self.table),
            contract: Arc::clone(&self.contract),
            snapshot: Arc::clone(&self.snapshot),
            source: self.source.clone(),
            tenant: self.tenant.clone(),
            name: self.contract.changes_name()?.into(),
            latest: None,
            barrier: barrier(&self.contract, None, &self.tenant, &rules.rows),
            columns: self.columns.clone(),
            schema: Arc::clone(&self.schema),
        })
    }

    /// Its name in SQL.
    pub(in crate::query) fn name(&self) -> &str {
        &self.name
    }

    /// Prose.
    pub(in crate::query) fn description(&self) -> Cow<'_, str> {
        if *self.name == *self.contract.name {
            return (&self.contract.description).into();
        }
        self.contract.changes_description().into()
    }

    /// What the table is.
    pub(in crate::query) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Whether no newer version of the table is known.
    pub(in crate::query) fn is_current(&self) -> bool {
        self.table.snapshot().version == self.snapshot.version
    }

    /// The files that a scan with these filters opens.
    fn files(&self, filters: &[Expr]) -> Vec<Arc<DataFile>> {
        prune(&self.snapshot, &self.tenant, &self.bounds(filters))
    }

    /// Whether `filter` may decide what is read at all. Where the newest versions are to be found it must be the same for
    /// all versions of a key: else the newest one could stay unread, and an older one be taken for it.
    fn is_early(&self, filter: &Expr) -> bool {
        let Some(latest) = &self.latest else { return true };
        let place = |column: &Column| self.contract.column(&column.name);
        let is_same = |place: usize| place == self.contract.tenant || latest.key.contains(&place);
        filter.column_refs().into_iter().all(|column| place(column).is_some_and(is_same))
    }

    /// Those filters, and of them those that can neither fail nor act.
    fn early<'a>(&self, filters: &'a [Expr]) -> impl Iterator<Item = &'a Expr> {
        filters.iter().filter(|filter| self.is_early(filter))
    }

    fn leakproof(&self, filters: &[Expr]) -> Vec<Expr> {
        let schema = self.contract.table_schema();
        self.early(filters).filter(|filter| is_leakproof(filter, schema)).cloned().collect()
    }

    fn bounds(&self, filters: &[Expr]) -> ScanBounds {
        ScanBounds::of(self.early(filters), &self.time().name)
    }

    fn time(&self) -> &crate::contract::Column {
        &self.contract.columns[self.contract.time]
    }

    /// What row groups and pages are skipped by: the barrier, and what of the user's filters is leakproof.
    fn pruning_predicate(&self, filters: &[Expr]) -> Expr {
        let all = self.early(&self.barrier).cloned().chain(self.leakproof(filters));
        conjunction(all).unwrap_or_else(|| lit(false))
    }

    /// How to make the private Parquet scan of `read` (places in the whole schema), spread over as many partitions as
    /// configured: their number must not tell how many files there are. What does not meet `predicate`, or the times that
    /// `filters` ask for, may be skipped.
    fn parquet(&self, state: &dyn Session, read: Vec<usize>, predicate: Expr, filters: &[Expr]) -> Result<Recipe> {
        let whole = self.contract.table_schema();
        let partition_columns = vec![Arc::new(whole.field(whole.fields().len() - 1).clone())];
        let table = TableSchema::builder(Arc::clone(self.contract.schema()))
            .with_table_partition_cols(partition_columns)
            .build();
        let times = time_bounds(&self.time().name, self.bounds(filters).times);
        let predicate = times.fold(predicate, Expr::and);
        let predicate =
            state.create_physical_expr(predicate, &DFSchema::try_from(Arc::clone(table.table_schema()))?)?;
        let groups: Vec<FileGroup> = balanced(self.files(filters), self.source.partitions)
            .into_iter()
            .map(|files| FileGroup::new(files.iter().map(|file| self.partitioned(file)).collect()))
            .collect();
        let (source, options) = (self.source.clone(), state.default_table_options().parquet);
        Ok(Arc::new(move || {
            let parquet = ParquetSource::new(table.clone())
                .with_table_parquet_options(options.clone())
                .with_parquet_file_reader_factory(Arc::clone(&source.reader))
                .with_pushdown_filters(DECODER_FILTERS)
                .with_predicate(Arc::clone(&predicate));
            let config = FileScanConfigBuilder::new(source.store.clone(), Arc::new(parquet))
                .with_projection_indices(Some(read.clone()))?
                .with_file_groups(groups.clone())
                .build();
            Ok(DataSourceExec::from_data_source(config) as Arc<dyn ExecutionPlan>)
        }))
    }

    /// The private plan on top of `scan`, which reads the places `read` of the whole schema: first the `columns` that go on,
    /// and all by which versions are told apart.
    fn newest(
        &self,
        state: &dyn Session,
        scan: Recipe,
        latest: &Latest,
        (read, columns): (&[usize], usize),
        filters: &[Expr],
    ) -> Result<Recipe> {
        let schema = DFSchema::try_from(self.contract.table_schema().project(read)?)?;
        let place = |column: &usize| {
            let found = read.iter().position(|read| read == column);
            found.ok_or_else(|| DataFusionError::Internal("a column of the versions is not read".to_owned()))
        };
        let places = ColumnPlaces {
            key: latest.key.iter().map(place).collect::<Result<_>>()?,
            by: place(&latest.by)?,
            received: place(&self.contract.received)?,
            id: place(&self.contract.id)?,
            columns,
        };
        // The tenant's rows first: nothing of the user's meets a foreign row, not even a comparison.
        let (own, rules) =
            self.barrier.split_first().map_or((lit(false), &[][..]), |(own, rules)| (own.clone(), rules));
        let asked = conjunction(self.early(rules).cloned().chain(self.leakproof(filters)));
        let conditions =
            std::iter::once(own).chain(asked).map(|condition| state.create_physical_expr(condition, &schema));
        let (partitions, batch_rows) = (self.source.partitions, state.config().batch_size());
        Ok(newest(scan, conditions.collect::<Result<_>>()?, places, partitions, batch_rows))
    }

    /// How to read of a quarantine only what nobody has closed; any other table as it is.
    fn without_closed(&self, state: &dyn Session, scan: Recipe, filters: &[Expr]) -> Result<Recipe> {
        let Some(resolves) = self.contract.resolves else { return Ok(scan) };
        let (contract, name) = (&self.contract, |place: usize| self.contract.columns[place].name.clone());
        let read = vec![contract.tenant, contract.time, resolves];
        let is_own = own(contract, &self.tenant).and(column(&name(resolves)).is_not_null());
        let schema = DFSchema::try_from(contract.table_schema().project(&read)?)?;
        let closing = ClosingRows {
            is_own: state.create_physical_expr(is_own.clone(), &schema)?,
            scan: self.parquet(state, read, is_own, filters)?,
            on: vec![(name(resolves), name(contract.id)), (name(contract.time), name(contract.time))],
        };
        Ok(open(scan, closing))
    }

    fn partitioned(&self, file: &DataFile) -> PartitionedFile {
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

#[async_trait]
impl TableProvider for TenantTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let asked = projection.cloned().unwrap_or_else(|| (0..self.columns.len()).collect());
        let schema = Arc::new(self.schema.project(&asked)?);
        let mut read: Vec<usize> = asked.iter().map(|column| self.columns[*column]).collect();
        let guard = conjunction(self.barrier.clone()).unwrap_or_else(|| lit(false));
        let guarded = guard.column_refs().into_iter();
        let guarded: BTreeSet<usize> =
            guarded.map(|column| self.contract.table_schema().index_of(&column.name)).collect::<Result<_, _>>()?;
        also(&mut read, guarded);
        if self.contract.resolves.is_some() {
            also(&mut read, [self.contract.id, self.contract.time]);
        }
        let columns = read.len();
        if let Some(latest) = &self.latest {
            let order = [latest.by, self.contract.received, self.contract.id];
            also(&mut read, latest.key.iter().copied().chain(order));
        }
        let scan = self.parquet(state, read.clone(), self.pruning_predicate(filters), filters)?;
        let recipe = match &self.latest {
            None => self.without_closed(state, scan, filters)?,
            Some(latest) => self.newest(state, scan, latest, (&read, columns), filters)?,
        };
        let barrier = |columns| state.create_physical_expr(guard, &DFSchema::try_from(columns)?);
        let reads = Reads { table: Arc::clone(&self.name), newest: self.latest.is_some() };
        Ok(Arc::new(TenantScan::new(reads, recipe, barrier, schema, limit)?))
    }

    /// Leakproof filters help to skip pages; all filters are applied again, above the barrier.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let time = &self.time().name;
        Ok(filters
            .iter()
            .map(|filter| {
                let is_of_use =
                    is_leakproof(filter, &self.schema) || ScanBounds::of([*filter], time) != ScanBounds::ALL;
                if self.is_early(filter) && is_of_use {
                    TableProviderFilterPushDown::Inexact
                } else {
                    TableProviderFilterPushDown::Unsupported
                }
            })
            .collect())
    }
}

impl fmt::Debug for TenantTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantTable").field("name", &self.name).finish_non_exhaustive()
    }
}

fn visible_columns(contract: &Contract, rules: &TableRules) -> Vec<usize> {
    let listed = |name: &String| rules.columns.as_ref().is_none_or(|columns| columns.contains(name));
    let visible = |name: &String| contract.is_shown(name) && listed(name);
    let schema = contract.table_schema();
    schema.fields().iter().enumerate().filter(|(_, field)| visible(field.name())).map(|(place, _)| place).collect()
}

/// A field without metadata: prose and units are for catalogs, and would differ between an answer's plan and stream.
fn plain(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), field.is_nullable())
}

/// The tenant's rows.
fn own(contract: &Contract, tenant: &TenantId) -> Expr {
    let tenant_column = column(&contract.columns[contract.tenant].name);
    tenant_column.eq(lit(ScalarValue::Utf8(Some(tenant.as_str().to_owned()))))
}

/// The tenant's rows, and of them those that every row rule admits; of the newest versions, those that do not say that their
/// key was deleted; of a quarantine, no row that only closes an entry. Values are typed literals, never text of a statement.
fn barrier(contract: &Contract, latest: Option<&Latest>, tenant: &TenantId, rules: &[RowRule]) -> Vec<Expr> {
    let own = own(contract, tenant);
    let rules = rules.iter().map(|rule| {
        let Ok(field) = contract.table_schema().field_with_name(&rule.column) else { return lit(false) };
        let values: Vec<Expr> = rule
            .values
            .iter()
            .filter_map(|value| ScalarValue::try_from_string(value.clone(), field.data_type()).ok())
            .map(lit)
            .collect();
        if values.is_empty() { lit(false) } else { column(&rule.column).in_list(values, false) }
    });
    let deleted = latest.and_then(|latest| latest.deleted).map(|place| &contract.columns[place].name);
    let deleted = deleted.map(|name| column(name).is_not_true());
    let entry = contract.resolves.map(|place| column(&contract.columns[place].name).is_null());
    std::iter::once(own).chain(rules).chain(deleted).chain(entry).collect()
}

fn time_bounds(time: &str, range: ScanRange) -> impl Iterator<Item = Expr> {
    let at = |micros: i64| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
    let least = (range.min > i64::MIN).then(|| column(time).gt_eq(at(range.min)));
    let greatest = (range.max < i64::MAX).then(|| column(time).lt_eq(at(range.max)));
    least.into_iter().chain(greatest)
}

/// Adds places that are not there yet.
fn also(read: &mut Vec<usize>, places: impl IntoIterator<Item = usize>) {
    for place in places {
        if !read.contains(&place) {
            read.push(place);
        }
    }
}

/// A column by its exact name: no case folding, no dots.
fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// Spreads files over exactly `groups` groups of about the same number of bytes.
fn balanced(mut files: Vec<Arc<DataFile>>, groups: usize) -> Vec<Vec<Arc<DataFile>>> {
    let mut groups: Vec<(u64, Vec<Arc<DataFile>>)> = vec![(0, Vec::new()); groups.max(1)];
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    for file in files {
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.size;
            group.push(file);
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
