//! The aggregates `max_by`, `min_by`, `arg_max` and `arg_min`. They return the value of one column from the row with
//! the greatest or smallest value in another column.
//!
//! Rows in which the compared value is NULL are ignored. `arg_max` and `arg_min` also ignore rows in which the returned
//! value is NULL, as in ClickHouse and DuckDB. `max_by` and `min_by` can return NULL, as in Trino and Spark. If several
//! rows have the greatest or smallest compared value, the smallest of their returned values is the result, so the
//! result does not depend on the order of the rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

/// Returns `max_by`, `min_by`, `arg_max` and `arg_min`.
pub(crate) fn functions() -> [Arc<AggregateUDF>; 4] {
    let function = |name, is_max, keeps_null| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(ExtremeRow { name, is_max, keeps_null, signature }))
    };
    [
        function("max_by", true, true),
        function("min_by", false, true),
        function("arg_max", true, false),
        function("arg_min", false, false),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExtremeRow {
    name: &'static str,
    is_max: bool,
    /// True if a row can be the result even if its returned value is NULL.
    keeps_null: bool,
    signature: Signature,
}

impl AggregateUDFImpl for ExtremeRow {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds[0].clone())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field =
            |name, kind: &DataType| Arc::new(Field::new(format_state_name(args.name, name), kind.clone(), true));
        Ok(vec![field("value", args.input_fields[0].data_type()), field("compared", args.input_fields[1].data_type())])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (value, compared) = (args.expr_fields[0].data_type(), args.expr_fields[1].data_type());
        if !RowConverter::supports_fields(&[SortField::new(compared.clone())]) {
            return Err(DataFusionError::NotImplemented(format!(
                "{} cannot compare values of type {compared}",
                self.name
            )));
        }
        Ok(Box::new(ExtremeRowAccumulator {
            value: ScalarValue::try_from(value)?,
            compared: ScalarValue::try_from(compared)?,
            is_max: self.is_max,
            keeps_null: self.keeps_null,
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The best row so far. `compared` is NULL if no row has been found yet.
#[derive(Debug)]
struct ExtremeRowAccumulator {
    value: ScalarValue,
    compared: ScalarValue,
    is_max: bool,
    keeps_null: bool,
}

impl ExtremeRowAccumulator {
    /// Returns the index of the best row in a batch.
    fn best(&self, values: &ArrayRef, compared: &ArrayRef) -> Result<Option<usize>> {
        let options = SortOptions { descending: self.is_max, nulls_first: false };
        let order = arrow::array::make_comparator(compared, compared, options)?;
        // If several rows have the best compared value, the smallest returned value wins. If the returned values have a
        // nested type that cannot be compared, an arbitrary one of these rows wins.
        let tie =
            arrow::array::make_comparator(values, values, SortOptions { descending: false, nulls_first: false }).ok();
        let candidates =
            (0..values.len()).filter(|row| compared.is_valid(*row) && (self.keeps_null || values.is_valid(*row)));
        Ok(candidates
            .min_by(|a, b| order(*a, *b).then_with(|| tie.as_ref().map_or(Ordering::Equal, |tie| tie(*a, *b)))))
    }

    fn offer(&mut self, value: ScalarValue, compared: ScalarValue) {
        let order = compared.partial_cmp(&self.compared).unwrap_or(Ordering::Equal);
        let order = if self.is_max { order.reverse() } else { order };
        let is_tie_better = || match (value.is_null(), self.value.is_null()) {
            (false, false) => value.partial_cmp(&self.value) == Some(Ordering::Less),
            (is_null, was_null) => !is_null && was_null,
        };
        if self.compared.is_null() || order == Ordering::Less || order == Ordering::Equal && is_tie_better() {
            (self.value, self.compared) = (value, compared);
        }
    }
}

impl Accumulator for ExtremeRowAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if let Some(row) = self.best(&values[0], &values[1])? {
            self.offer(ScalarValue::try_from_array(&values[0], row)?, ScalarValue::try_from_array(&values[1], row)?);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), self.compared.clone()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size() + self.compared.size()
    }
}
