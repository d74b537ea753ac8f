//! Prepared statements: creates them and binds their parameters.
//!
//! CreatePreparedStatement takes the text of a statement. It returns a handle that contains the text, and the schemas
//! of the result and of the parameters. Binding takes that handle and one row of parameters of any type. It returns
//! another handle, which also contains the parameters. The server stores neither handle.
//!
//! The first handle stays unbound. If the statement has parameters, running that handle returns an error, never a
//! result without the parameters. Several rows are refused, because a result for only the first row would silently lose
//! data. Values that do not fit the type of their parameter are refused too.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::{ActionCreatePreparedStatementResult, Any, DoPutPreparedStatementResult, ProstMessageExt};
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use uuid::Uuid;

use super::message_reader::REQUEST;
use super::query_rpcs::schema_bytes;
use super::service::{FlightHandler, RpcCaller};
use super::signed_handle::{Handle, Purpose, Statement};
use super::type_profile::{STRICT, parameter_schema, wire_schema};
use super::upload::Upload;
use crate::error::{Error, Result};

/// The encoded field `is_update = false`, field 4 of `ActionCreatePreparedStatementResult`, which the bindings lack.
/// The value is always false, because preparing a statement that changes data fails.
const IS_NO_UPDATE: [u8; 2] = [4 << 3, 0];

impl FlightHandler {
    /// Handles CreatePreparedStatement.
    pub(super) async fn prepare(&self, caller: &RpcCaller, sql: String) -> Result<Any> {
        let session = self.services.engine.session(&caller.access)?;
        let planned = session.plan(&sql).await?;
        let handle = self.sign_prepared(caller, Statement::new(sql, None)?)?;
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle,
            dataset_schema: schema_bytes(&wire_schema(&planned.schema, caller.types))?,
            parameter_schema: schema_bytes(&parameter_schema(&planned.parameters))?,
        };
        let mut value = result.encode_to_vec();
        value.extend_from_slice(&IS_NO_UPDATE);
        Ok(Any { type_url: ActionCreatePreparedStatementResult::type_url().to_owned(), value: value.into() })
    }

    /// Handles an upload of parameters (DoPut). Returns the handle that the client runs instead of `handle`.
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
        let row = row.map(|row| cast_parameters(&row, &planned.parameters)).transpose()?;
        let handle = self.sign_prepared(caller, Statement::new(sql, row.as_ref())?)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    /// Returns the error for a statement that is run as an update. The engine refuses everything but queries, and a
    /// query updates nothing.
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

    /// Returns the statement in a prepared handle.
    pub(super) fn prepared(&self, caller: &RpcCaller, handle: &[u8]) -> Result<Statement> {
        match self.signer.verify(&caller.access, handle)?.purpose {
            Purpose::Prepared(statement) => Ok(statement),
            Purpose::QueryResult(_) | Purpose::Catalog(_) => {
                Err(Error::invalid("the handle is a ticket, not a prepared statement"))
            }
        }
    }

    fn sign_prepared(&self, caller: &RpcCaller, statement: Statement) -> Result<Bytes> {
        let purpose = Purpose::Prepared(statement);
        self.signer.sign(&caller.access, &Handle { id: Uuid::nil(), types: caller.types, purpose })
    }
}

/// Reads the row of bound parameters. Returns `None` if no batch of the upload has a column and a row.
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

/// Casts a bound row to the inferred parameter types. If no type was inferred for a parameter, its value keeps its
/// type.
fn cast_parameters(row: &RecordBatch, inferred: &Schema) -> Result<RecordBatch> {
    let (bound, expected) = (row.num_columns(), inferred.fields().len());
    if bound != expected {
        return Err(Error::invalid(format!("expected {expected} parameters, but {bound} were bound")));
    }
    let mut fields = Vec::with_capacity(expected);
    let mut columns = Vec::with_capacity(expected);
    for (index, (column, field)) in row.columns().iter().zip(inferred.fields()).enumerate() {
        let value =
            cast_parameter(column, field.data_type()).map_err(|error| error.at(format!("parameter {}", index + 1)))?;
        fields.push(Field::new(field.name(), value.data_type().clone(), true));
        columns.push(value);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::internal("bound parameters do not form a row").with_source(error))
}

fn cast_parameter(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
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
    // Arrow rounds such values silently, but `x > 1.5` must not become `x > 1`.
    if may_round(&from, to) && cast(&converted, &from)?.to_data() != value.to_data() {
        return Err(Error::invalid(format!(
            "a value of type {from} would be rounded to fit type {to}: give the placeholder a type, as in `CAST(? AS DOUBLE)`"
        )));
    }
    Ok(converted)
}

/// Returns true if a cast between these types may succeed and still change the value. Rounding between float types is
/// accepted, because float arithmetic rounds too.
fn may_round(from: &DataType, to: &DataType) -> bool {
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
        Ok(cast_parameters(&row, &inferred)?.column(0).clone())
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
        let error = cast_parameters(&row, &Schema::empty()).unwrap_err();
        assert_eq!(error.message(), "expected 0 parameters, but 1 were bound");
    }
}
