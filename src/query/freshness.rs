//! The table function `freshness('table')`. It returns one row, which contains the time up to which the table is
//! complete and the newest times among the rows that the caller may see.
//!
//! The newest times are computed only if the query selects them. To compute them, the function first searches the rows
//! of the last two days. If it finds no rows, it searches the whole table.
//!
//! ```text
//!   session: watermark, then snapshot ─► freshness('table') ─► one row ◄─ newest times ◄─ rows of two days, or all rows
//! ```
//!
//! **Invariant:** the session takes the watermark of a table before the table's snapshot. A query of the session
//! therefore sees all rows up to the watermark, even if it reads both the table and its freshness.
//! **Invariant:** a table that the caller may not see causes the same error as a table that does not exist.
//! **Invariant:** a plan that contains a watermark is never cached (`Planner::plan_sql`).
//! **Invariant:** a tenant can learn the age of a source's oldest unread message, in whole seconds, but not the number
//! of unread messages. In a shared topic, this number would reveal how many messages the other tenants send.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;

use crate::clock::{DAY, Micros};
use crate::contract::RECEIVED_TIME;
use crate::error::{Error, did_you_mean};
use crate::lake::Watermark;
use crate::query::catalog::SessionTables;
use crate::query::freshness_exec::{FreshnessExec, NewestTimes};
use crate::query::scan::session_relation::SessionRelation;
use crate::query::scan::table_provider::SessionTable;

/// The SQL name of the function.
pub(in crate::query) const NAME: &str = "freshness";
/// The maximum age of the rows that are searched first, in microseconds.
const RECENT: Micros = 2 * DAY;
/// The indexes of the columns that contain the newest times. The table is read only if a query selects one of these
/// columns.
const NEWEST_TIMES: std::ops::Range<usize> = 3..5;

/// The function `freshness` for the tables of one session.
#[derive(Default)]
pub(in crate::query) struct FreshnessFunction {
    tables: Arc<SessionTables>,
    /// The watermark of each table, keyed by the table's SQL name.
    watermarks: BTreeMap<String, Watermark>,
}

impl FreshnessFunction {
    pub(in crate::query) fn new(tables: Arc<SessionTables>, watermarks: BTreeMap<String, Watermark>) -> Self {
        Self { tables, watermarks }
    }

    /// Returns a function without tables, for the list of table functions. The list is the same for all sessions.
    pub(in crate::query) fn listed() -> Arc<TableFunction> {
        Arc::new(TableFunction::new(NAME.to_owned(), Arc::new(Self::default())))
    }

    fn call(&self, arguments: &[Expr]) -> std::result::Result<FreshnessRow, Error> {
        let name = match arguments {
            [Expr::Literal(ScalarValue::Utf8(Some(name)) | ScalarValue::LargeUtf8(Some(name)), _)] => name,
            _ => {
                return Err(Error::invalid(
                    "freshness takes one table name as a string, as in freshness('call_events')",
                ));
            }
        };
        self.row(name)
    }

    /// Returns the freshness of one of the session's tables.
    pub(in crate::query) fn row(&self, name: &str) -> std::result::Result<FreshnessRow, Error> {
        let (table, watermark) = match (self.tables.get(name), self.watermarks.get(name)) {
            (Some(SessionRelation::Table(table)), Some(watermark)) => (table, watermark),
            (Some(SessionRelation::Lookup(_)), _) => return Err(lookup_has_no_freshness(name)),
            _ => {
                let near = did_you_mean(name, self.watermarks.keys().map(String::as_str));
                return Err(Error::not_found(format!("unknown table `{name}`{near}")));
            }
        };
        if table.contract().resolves.is_some() {
            return Err(Error::invalid(format!("`{name}` is a quarantine: query the freshness of its table")));
        }
        Ok(FreshnessRow { table: Arc::clone(table), watermark: *watermark, schema: schema() })
    }
}

/// Returns the error for the freshness of a lookup table.
pub fn lookup_has_no_freshness(name: &str) -> Error {
    Error::invalid(format!("`{name}` is a lookup table, which has no freshness: query the freshness of a table"))
}

impl TableFunctionImpl for FreshnessFunction {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let row = self.call(arguments.exprs()).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Arc::new(row))
    }
}

fn schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("table_name", DataType::Utf8, false),
        Field::new("complete_until", time(), false),
        Field::new("now", time(), false),
        Field::new("newest_event_time", time(), true),
        Field::new("newest_received_time", time(), true),
        Field::new("source_lag_seconds", DataType::Int64, true),
    ]))
}

/// The freshness of one table for one caller, as `freshness('table')` returns it.
pub(in crate::query) struct FreshnessRow {
    table: Arc<SessionTable>,
    watermark: Watermark,
    schema: SchemaRef,
}

impl FreshnessRow {
    /// Returns the table's SQL name.
    pub(in crate::query) fn table_name(&self) -> &str {
        self.table.name()
    }

    /// Creates the plans that search for the newest times, in the order in which they run. A plan runs only if the
    /// previous plan found no row.
    async fn searches(&self, state: &dyn Session) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let contract = self.table.contract();
        let visible = TableProvider::schema(&*self.table);
        let [time, received] = [contract.columns[contract.time].name.as_str(), RECEIVED_TIME]
            .map(|name| visible.field_with_name(name).ok().map(|_| Expr::Column(Column::new_unqualified(name))));
        let mut searches = Vec::new();
        let recent = self.watermark.now.saturating_sub(RECENT);
        let recent = lit(ScalarValue::TimestampMicrosecond(Some(recent), Some("UTC".into())));
        let conditions =
            [time.clone().map(|time| Some(time.gt_eq(recent))), (time.is_some() || received.is_some()).then_some(None)];
        for condition in conditions.into_iter().flatten() {
            let newest = |column: &Option<Expr>| {
                let null = || lit(ScalarValue::TimestampMicrosecond(None, Some("UTC".into())));
                max(column.clone().unwrap_or_else(null))
            };
            let newest = [newest(&time).alias("event"), newest(&received).alias("received")];
            let source = provider_as_source(Arc::clone(&self.table) as Arc<dyn TableProvider>);
            let mut rows = LogicalPlanBuilder::scan(TableReference::bare(self.table.name()), source, None)?;
            if let Some(condition) = condition {
                rows = rows.filter(condition)?;
            }
            let plan = rows.aggregate(Vec::<Expr>::new(), newest)?.build()?;
            searches.push(state.create_physical_plan(&plan).await?);
        }
        Ok(searches)
    }

    /// Builds the result row. It contains the columns whose indexes are in `projection`.
    fn batch(&self, projection: &[usize], schema: &SchemaRef, newest: NewestTimes) -> Result<RecordBatch> {
        let Watermark { now, complete_until, source_lag } = self.watermark;
        let time = |time: Option<Micros>| {
            Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC")) as ArrayRef
        };
        let lag = source_lag.map(|lag| i64::try_from(lag.seconds).unwrap_or(i64::MAX));
        let columns: [ArrayRef; 6] = [
            Arc::new(StringArray::from(vec![self.table.name()])),
            time(Some(complete_until)),
            time(Some(now)),
            time(newest.event),
            time(newest.received),
            Arc::new(Int64Array::from(vec![lag])),
        ];
        let columns = projection.iter().map(|column| Arc::clone(&columns[*column])).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}

#[async_trait]
impl TableProvider for FreshnessRow {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        let searches = match projection.iter().any(|column| NEWEST_TIMES.contains(column)) {
            true => self.searches(state).await?,
            false => Vec::new(),
        };
        let row = Self { table: Arc::clone(&self.table), watermark: self.watermark, schema: Arc::clone(&self.schema) };
        let batch_schema = Arc::clone(&schema);
        let batch = move |newest| row.batch(&projection, &batch_schema, newest);
        Ok(Arc::new(FreshnessExec::new(self.table.name(), searches, schema, Arc::new(batch))))
    }
}

impl fmt::Debug for FreshnessFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshnessFunction").finish_non_exhaustive()
    }
}

impl fmt::Debug for FreshnessRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshnessRow").field("table", &self.table).finish_non_exhaustive()
    }
}
