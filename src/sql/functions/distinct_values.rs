//! An accumulator for DISTINCT. It passes each value to another accumulator only once, and supports moving windows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::utils::format_state_name;

/// Passes a value to `inner` when its first copy is added, and removes it from `inner` when its last copy is removed.
#[derive(Debug)]
pub(super) struct DistinctValues {
    copies: HashMap<ScalarValue, u64>,
    kind: DataType,
    inner: Box<dyn Accumulator>,
}

impl DistinctValues {
    /// Creates an accumulator for values of the type `kind`.
    pub(super) fn boxed(kind: DataType, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(Self { copies: HashMap::new(), kind, inner })
    }

    /// Returns the field for the accumulator's state, which is a list of the distinct values.
    pub(super) fn state_field(name: &str, kind: &DataType) -> FieldRef {
        let item = Field::new_list_field(kind.clone(), true);
        Arc::new(Field::new_list(format_state_name(name, "distinct"), item, true))
    }

    /// Calls `is_used` for each value other than NULL, and returns the values for which `is_used` is true.
    fn select(
        &mut self,
        values: &ArrayRef,
        is_used: impl Fn(&mut HashMap<ScalarValue, u64>, ScalarValue) -> bool,
    ) -> Result<ArrayRef> {
        let values = normalized(values);
        let mut mask = Vec::with_capacity(values.len());
        for row in 0..values.len() {
            let is_selected =
                values.is_valid(row) && is_used(&mut self.copies, ScalarValue::try_from_array(&values, row)?);
            mask.push(is_selected);
        }
        Ok(filter(&values, &BooleanArray::from(mask))?)
    }
}

/// Replaces −0 with 0, and all NaNs with the same NaN, so that equal values have the same bits.
pub(super) fn normalized(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => Arc::new(
            values
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value + 0.0 }),
        ),
        _ => Arc::clone(values),
    }
}

impl Accumulator for DistinctValues {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let first = self.select(&values[0], |copies, value| {
            let count = copies.entry(value).or_default();
            *count += 1;
            *count == 1
        })?;
        self.inner.update_batch(&[first])
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let last = self.select(&values[0], |copies, value| match copies.get_mut(&value) {
            Some(1) => copies.remove(&value).is_some(),
            Some(count) => {
                *count -= 1;
                false
            }
            None => false,
        })?;
        self.inner.retract_batch(&[last])
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<_> = self.copies.keys().cloned().collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.kind))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.copies.capacity() * size_of::<(ScalarValue, u64)>() + self.inner.size()
    }
}
