//! The accumulator of `median` for decimals, which is exact except for the last digit.
//!
//! The median of an even number of values is the average of the two middle values. It has the type of `avg`, and is
//! rounded half away from zero.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Decimal128Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Field};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Accumulator;

use crate::sql::functions::exact_aggregates::average_type;

/// All values, in ascending order except for those that were added after the last result.
#[derive(Debug)]
pub(super) struct DecimalMedian {
    values: Vec<i128>,
    precision: u8,
    scale: i8,
}

impl DecimalMedian {
    /// Creates an accumulator for decimals with `precision` digits, `scale` of them after the point.
    pub(super) fn boxed(precision: u8, scale: i8) -> Box<dyn Accumulator> {
        Box::new(Self { values: Vec::new(), precision, scale })
    }
}

impl Accumulator for DecimalMedian {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(values[0].as_primitive::<Decimal128Type>().iter().flatten());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.sort();
        for value in values[0].as_primitive::<Decimal128Type>().iter().flatten() {
            if let Ok(index) = self.values.binary_search(&value) {
                self.values.remove(index);
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let kind = average_type(self.precision, self.scale);
        let DataType::Decimal128(precision, scale) = kind else {
            return Err(DataFusionError::Internal(format!("the median of decimals cannot be a {kind}")));
        };
        if self.values.is_empty() {
            return Ok(ScalarValue::Decimal128(None, precision, scale));
        }
        // In a moving window, all values except the new ones are already sorted, and this sort is fast for such values.
        self.values.sort();
        let count = self.values.len();
        let (low, high) = (self.values[(count - 1) / 2], self.values[count / 2]);
        let factor = 10_i128.pow(u32::from(scale.abs_diff(self.scale)));
        // A value has at most 38 digits in the type of the result, and the sum of two such values fits into 128 bits.
        let median = low.checked_mul(factor).zip(high.checked_mul(factor)).map(|(low, high)| {
            let sum = low + high;
            sum / 2 + sum % 2
        });
        let median = median.ok_or_else(|| DataFusionError::Execution("decimal out of range in median".to_owned()))?;
        Ok(ScalarValue::Decimal128(Some(median), precision, scale))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<i128>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = Decimal128Array::from_iter_values(self.values.iter().copied());
        let values: ArrayRef = Arc::new(values.with_precision_and_scale(self.precision, self.scale)?);
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = ListArray::try_new(item, offsets, values, None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }
}
