//! Prepared statements: CreatePreparedStatement, and binding their parameters.
//!
//! In: the text of a statement; then one row of parameters of any type. Out: a handle with the schemas of result and
//! parameters; then a handle that also holds the parameters. The server keeps neither.
//!
//! The earlier handle stays unbound: running it is an error that says so, never a result without the
//! parameters. Several rows are refused (a result for the first row only would silently lose data), and so are values
//! that do not fit.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::{ActionCreatePreparedStatementResult, Any, DoPutPreparedStatementResult, ProstMessageExt};
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use uuid::Uuid;

use super::handle::{Handle, Purpose, Statement};
use super::message_reader::REQUEST;
use super::profile::{STRICT, parameter_schema, wire_schema};
use super::service::{FlightHandler, RpcCaller};
use super::statement::schema_bytes;
use super::upload::Upload;
use crate::error::{Error, Result};

/// `is_update = false`, field 4 of `ActionCreatePreparedStatementResult`, which the bindings lack: statements that
/// change data are refused when they are prepared.
const IS_NO_UPDATE: [u8; 2] = [4 << 3, 0];

impl FlightHandler {
    /// Handles CreatePreparedStatement.
    pub(super) async fn prepare(&self, caller: &RpcCaller, sql: String) -> Result<Any> {
        let session = self.services.engine.session(&caller.access)?;
        let planned = session.plan(&sql).await?;
        let handle = self.seal_prepared(caller, Statement::new(sql, None)?)?;
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle,
            dataset_schema: schema_bytes(&wire_schema(&planned.schema, caller.types))?,
            parameter_schema: schema_bytes(&parameter_schema(&planned.parameters))?,
        };
        let mut value = result.encode_to_vec();
        value.extend_from_slice(&IS_NO_UPDATE);
        Ok(Any { type_url: ActionCreatePreparedStatementResult::type_url().to_owned(), value: value.into() })
    }

    /// Handles DoPut of parameters: returns the handle to run instead.
    pub(super) async fn bind(
        &self,
        caller: &RpcCaller,
        handle: &[u8],
        upload: Upload,
    ) -> Result<DoPutPreparedStatementResult> {
        let sql = self.prepared(caller, handle)?.sql;
        let session = self.services.engine.session(&caller.access)?;
        let planned = session.plan(&sql).await?;
        let row = one_row(upload).await?;
        let row = row.map(|row| coerced(&row, &planned.parameters)).transpose()?;
        let handle = self.seal_prepared(caller, Statement::new(sql, row.as_ref())?)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    /// The error for a statement run as an update: the engine refuses all but queries, and a query updates nothing.
    pub(super) async fn refuse_update(&self, caller: &RpcCaller, sql: &str) -> Error {
        let planned = match self.services.engine.session(&caller.access) {
            Ok(session) => session.plan(sql).await,
            Err(error) => Err(error),
        };
        match planned {
            Ok(_) => Error::invalid("the statement is a query, not an update: execute it as a query"),
            Err(error) => error,
        }
    }

    /// The statement in a prepared handle.
    pub(super) fn prepared(&self, caller: &RpcCaller, handle: &[u8]) -> Result<Statement> {
        match self.sealer.unseal(&caller.access, handle)?.purpose {
            Purpose::Prepared(statement) => Ok(statement),
            Purpose::Answer(_) | Purpose::Catalog(_) => {
                Err(Error::invalid("the handle is a ticket, not a prepared statement"))
            }
        }
    }

    fn seal_prepared(&self, caller: &RpcCaller, statement: Statement) -> Result<Bytes> {
        let purpose = Purpose::Prepared(statement);
        self.sealer.seal(&caller.access, &Handle { id: Uuid::nil(), types: caller.types, purpose })
    }
}

/// The bound row; `None` if there are no columns.
async fn one_row(upload: Upload) -> Result<Option<RecordBatch>> {
    let mut batches = upload.batches(REQUEST, None);
    let mut row = None;
    while let Some(batch) = batches.try_next().await? {
        if batch.num_columns() == 0 || batch.num_rows() == 0 {
            continue;
        }
        if batch.num_rows() > 1 || row.is_some() {
            return Err(Error::invalid("more than one row of parameters is bound: bind and run one row at a time"));
        }
        row = Some(batch);
    }
    Ok(row)
}

/// The row in the inferred types; a parameter without an inferred type keeps its own.
fn coerced(row: &RecordBatch, inferred: &Schema) -> Result<RecordBatch> {
    let (bound, wanted) = (row.num_columns(), inferred.fields().len());
    if bound != wanted {
        return Err(Error::invalid(format!("the statement has {wanted} parameters, {bound} are bound")));
    }
    let mut fields = Vec::with_capacity(wanted);
    let mut columns = Vec::with_capacity(wanted);
    for (index, (column, field)) in row.columns().iter().zip(inferred.fields()).enumerate() {
        let value =
            coerced_value(column, field.data_type()).map_err(|error| error.at(format!("parameter {}", index + 1)))?;
        fields.push(Field::new(field.name(), value.data_type().clone(), true));
        columns.push(value);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::internal("bound parameters do not form a row").with_source(error))
}

fn coerced_value(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let value = match column.data_type() {
        DataType::Union(_, _) => column.as_union().value(0),
        _ => column.clone(),
    };
    let from = value.data_type().clone();
    if *to == DataType::Null || *to == from {
        return Ok(value);
    }
    if !can_cast_types(&from, to) {
        return Err(Error::invalid(format!("a value of type {from} cannot be converted to {to}")));
    }
    let cast = |value: &ArrayRef, to: &DataType| {
        cast_with_options(value, to, &STRICT)
            .map_err(|error| Error::invalid(format!("the value does not fit type {to}: {error}")).with_source(error))
    };
    let converted = cast(&value, to)?;
    // Arrow truncates values that do not fit; `x > 1.5` must not become `x > 1`.
    if may_lose(&from, to) && cast(&converted, &from)?.to_data() != value.to_data() {
        return Err(Error::invalid(format!(
            "a value of type {from} would be rounded to {to}: give the placeholder a type, as in `CAST(? AS DOUBLE)`"
        )));
    }
    Ok(converted)
}

/// Whether a successful cast may still change the value. Rounding between float types is accepted, as in any
/// arithmetic.
fn may_lose(from: &DataType, to: &DataType) -> bool {
    let is_exact = |kind: &DataType| kind.is_integer() || kind.is_decimal() || kind.is_temporal();
    (is_exact(from) || from.is_floating()) && is_exact(to) && can_cast_types(to, from)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Decimal128Array, Float64Array, Int8Array, Int64Array, StringArray, TimestampMillisecondArray,
        UnionArray,
    };
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::{Int64Type, TimeUnit, TimestampMicrosecondType, UnionFields};

    use super::*;
    use crate::error::Kind;

    fn coerce(bound: impl Array + 'static, to: DataType) -> Result<ArrayRef> {
        let row = RecordBatch::try_from_iter([("p", Arc::new(bound) as ArrayRef)]).unwrap();
        let inferred = Schema::new(vec![Field::new("$1", to, true)]);
        Ok(coerced(&row, &inferred)?.column(0).clone())
    }

    fn dense_union() -> UnionArray {
        let fields = [
            (0, Arc::new(Field::new("text", DataType::Utf8, true))),
            (1, Arc::new(Field::new("int", DataType::Int64, true))),
        ];
        let children: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(Vec::<&str>::new())), Arc::new(Int64Array::from(vec![42]))];
        let fields: UnionFields = fields.into_iter().collect();
        UnionArray::try_new(fields, ScalarBuffer::from(vec![1_i8]), Some(ScalarBuffer::from(vec![0_i32])), children)
            .unwrap()
    }

    #[test]
    fn parameters_are_cast_to_the_inferred_types() {
        let int = |array: ArrayRef| array.as_primitive::<Int64Type>().value(0);
        assert_eq!(int(coerce(Int8Array::from(vec![7]), DataType::Int64).unwrap()), 7);
        assert_eq!(int(coerce(dense_union(), DataType::Int64).unwrap()), 42);
        assert_eq!(int(coerce(dense_union(), DataType::Null).unwrap()), 42);
        assert_eq!(int(coerce(Float64Array::from(vec![3.0]), DataType::Int64).unwrap()), 3);
        let date = coerce(StringArray::from(vec!["2024-02-29"]), DataType::Date32).unwrap();
        assert_eq!(date.to_data(), Date32Array::from(vec![19_782]).to_data());
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let time = coerce(TimestampMillisecondArray::from(vec![1_500]), utc).unwrap();
        assert_eq!(time.as_primitive::<TimestampMicrosecondType>().value(0), 1_500_000);
        assert!(coerce(StringArray::from(vec![None::<&str>]), DataType::Int64).unwrap().is_null(0));
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let decimal = Decimal128Array::from(vec![15]).with_precision_and_scale(3, 1).unwrap();
        let refused = [
            coerce(StringArray::from(vec!["soon"]), DataType::Date32),
            coerce(Int64Array::from(vec![300]), DataType::Int8),
            coerce(Float64Array::from(vec![1.5]), DataType::Int64),
            coerce(decimal, DataType::Int32),
            coerce(TimestampMillisecondArray::from(vec![86_400_001]), DataType::Date32),
            coerce(TimestampMillisecondArray::from(vec![1_500]), DataType::Timestamp(TimeUnit::Second, None)),
            coerce(Date32Array::from(vec![1]), DataType::Boolean),
        ];
        for error in refused {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.message().starts_with("parameter 1: "), "{error}");
        }
    }

    #[test]
    fn the_number_of_parameters_has_to_match() {
        let row = RecordBatch::try_from_iter([("p", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let error = coerced(&row, &Schema::empty()).unwrap_err();
        assert_eq!(error.message(), "the statement has 0 parameters, 1 are bound");
    }
}
