//! One caller's view for one request: its tables, its plans, its answers.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;

use crate::error::Result;
use crate::query::QueryId;

/// Catalog name of all tables.
pub const CATALOG: &str = "glasshouse";
/// Schema name of all tables.
pub const SCHEMA: &str = "public";

/// A scoped session.
#[derive(Debug)]
pub struct Session {}

/// A checked, planned, read-only statement.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The logical plan with placeholders unbound.
    pub plan: LogicalPlan,
    /// The schema of the answer: what FlightInfo, GetSchema and the stream all say. Empty for statements without one.
    pub schema: SchemaRef,
    /// One field per placeholder, in order; the type inferred, or `Null` when it cannot be.
    pub parameters: Schema,
    /// Whether rows come in a stated order.
    pub ordered: bool,
}

/// A running answer. Dropping it stops the plan and frees its slot and memory.
pub struct Answer {
    /// Its name, for cancelling.
    pub id: QueryId,
    /// Batches in exactly [`Planned::schema`]; limits of time, rows and memory end it with `Limited`.
    pub batches: futures::stream::BoxStream<'static, Result<RecordBatch>>,
}

/// A table as this caller sees it.
#[derive(Debug, Clone)]
pub struct VisibleTable {
    /// Its name.
    pub name: String,
    /// Prose.
    pub description: String,
    /// Its visible columns; field metadata holds `comment` and `unit` when declared.
    pub schema: SchemaRef,
    /// The id column, when it is visible: unique among the rows that this caller sees.
    pub id: Option<String>,
}

impl Session {
    /// Parses, checks and plans one statement. Anything but a query is refused by its name.
    pub async fn plan(&self, sql: &str) -> Result<Planned> {
        let _ = sql;
        todo!()
    }

    /// Runs a planned statement; `parameters` holds one row of values (or no column), cast to the inferred types.
    /// Waits for a slot of the tenant first.
    pub async fn run(&self, planned: &Planned, parameters: Option<&RecordBatch>) -> Result<Answer> {
        let _ = (planned, parameters);
        todo!()
    }

    /// What this caller can see, by name.
    pub fn tables(&self) -> Vec<VisibleTable> {
        todo!()
    }

    /// Names of SQL functions by kind (scalar, aggregate, window), for SqlInfo.
    pub fn functions(&self) -> Vec<(String, &'static str)> {
        todo!()
    }
}
