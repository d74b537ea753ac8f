//! Shows the types of columns in DESCRIBE, SHOW COLUMNS and `information_schema.columns`.
//!
//! The engine shows the Arrow type. For UUIDs and JSON, this type is a text, so this file shows the name of the SQL type
//! instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, DescribeTable, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableType, Volatility,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::contract::ColumnKind;
use crate::query::scan::session_relation::SessionRelation;

/// The columns of `information_schema.columns` that identify a column, and the one with its type.
const KEY_AND_TYPE: [&str; 3] = ["table_name", "column_name", "data_type"];

/// Returns the name of a column's SQL type if its Arrow type does not determine the type.
fn sql_name(field: &Field) -> Option<&'static str> {
    match ColumnKind::of_metadata(field)? {
        ColumnKind::Uuid => Some("UUID"),
        ColumnKind::Json => Some("JSON"),
        ColumnKind::List(ColumnKind::Uuid) => Some("UUID ARRAY"),
        _ => None,
    }
}

/// Returns a plan with the rows of DESCRIBE.
pub(in crate::query) fn describe(described: &DescribeTable) -> Result<Arc<dyn ExecutionPlan>> {
    let fields = described.schema.fields();
    let names: StringArray = fields.iter().map(|field| Some(field.name())).collect();
    let types: StringArray = fields
        .iter()
        .map(|field| Some(sql_name(field).map_or_else(|| field.data_type().to_string(), str::to_owned)))
        .collect();
    let nullable: StringArray =
        fields.iter().map(|field| Some(if field.is_nullable() { "YES" } else { "NO" })).collect();
    let schema = Arc::clone(described.output_schema.inner());
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(names), Arc::new(types), Arc::new(nullable)])?;
    Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None)?)
}

/// The engine's table `information_schema.columns`, with the names of SQL types.
#[derive(Debug)]
pub(in crate::query) struct TypedColumns {
    columns: Arc<dyn TableProvider>,
    types: TypeNames,
}

impl TypedColumns {
    /// Shows the types of `tables` in the engine's table `columns`.
    pub(in crate::query) fn new(columns: Arc<dyn TableProvider>, tables: &BTreeMap<String, SessionRelation>) -> Self {
        let mut names = BTreeMap::new();
        for (table, relation) in tables {
            for field in relation.schema().fields() {
                if let Some(name) = sql_name(field) {
                    names.insert((table.clone(), field.name().clone()), name);
                }
            }
        }
        Self {
            columns,
            types: TypeNames { names, signature: Signature::any(KEY_AND_TYPE.len(), Volatility::Immutable) },
        }
    }

    /// Returns the expression for a column of the table.
    fn expression(&self, schema: &Schema, index: usize, state: &dyn Session) -> Result<Arc<dyn PhysicalExpr>> {
        let column =
            |name: &str| -> Result<Arc<dyn PhysicalExpr>> { Ok(Arc::new(Column::new_with_schema(name, schema)?)) };
        let name = schema.field(index).name();
        if name != KEY_AND_TYPE[2] {
            return column(name);
        }
        let arguments = KEY_AND_TYPE.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let function = Arc::new(ScalarUDF::from(self.types.clone()));
        let call = ScalarFunctionExpr::try_new(function, arguments, schema, Arc::clone(state.config().options()))?;
        Ok(Arc::new(call.with_nullable(schema.field(index).is_nullable())))
    }
}

#[async_trait]
impl TableProvider for TypedColumns {
    fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }

    fn table_type(&self) -> TableType {
        self.columns.table_type()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = self.columns.scan(state, None, &[], None).await?;
        let schema = input.schema();
        let shown = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let expressions = shown
            .into_iter()
            .map(|index| Ok((self.expression(&schema, index, state)?, schema.field(index).name().clone())));
        Ok(Arc::new(ProjectionExec::try_new(expressions.collect::<Result<Vec<_>>>()?, input)?))
    }
}

/// A function that returns the name of a column's SQL type if it knows one, and otherwise its last argument. Statements
/// cannot call it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TypeNames {
    /// The names of types by table and column.
    names: BTreeMap<(String, String), &'static str>,
    signature: Signature,
}

impl ScalarUDFImpl for TypeNames {
    fn name(&self) -> &'static str {
        "column_type"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays: Vec<ArrayRef> = ColumnarValue::values_to_arrays(&args.args)?;
        let [tables, columns, types] = [0, 1, 2].map(|index| arrays[index].as_string::<i32>());
        let names = tables.iter().zip(columns).zip(types).map(|((table, column), shown)| {
            let key = (table?.to_owned(), column?.to_owned());
            self.names.get(&key).copied().or(shown)
        });
        Ok(ColumnarValue::Array(Arc::new(names.collect::<StringArray>())))
    }
}
