//! The aggregates `percentile_cont` and `median`, which interpolate between the two values nearest to a position.
//!
//! The engine's functions round the weight of the interpolation to six digits, and return an integer for the median of
//! integers. These functions compute in doubles, as in PostgreSQL. The median of decimals is a decimal
//! (`decimal_median.rs`).
//!
//! ```sql
//! percentile_cont(0.95) WITHIN GROUP (ORDER BY x)   quantile_cont(x, 0.95)   median(x)
//! ```
//!
//! ```text
//!   without GROUP BY ─► Values         all values in any order
//!   with GROUP BY    ─► GroupValues    the values of each group
//!   moving windows   ─► SortedValues   the values in order, from which values can be removed
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Float64Array, ListArray, ListBuilder, PrimitiveBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use crate::sql::functions::decimal_median::DecimalMedian;
use crate::sql::functions::distinct_values::{DistinctValues, normalized};
use crate::sql::functions::exact_aggregates::average_type;
use crate::sql::functions::mode_and_percentile::fraction;

/// Returns `percentile_cont` and `median`.
pub(super) fn functions() -> [Arc<AggregateUDF>; 2] {
    let function = |name, aliases: &[&str], has_fraction| {
        Arc::new(AggregateUDF::new_from_impl(PercentileCont {
            name,
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            has_fraction,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    [function("percentile_cont", &["quantile_cont"], true), function("median", &[], false)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PercentileCont {
    name: &'static str,
    aliases: Vec<String>,
    /// True if the function has a second argument, which is a fraction.
    has_fraction: bool,
    signature: Signature,
}

impl PercentileCont {
    fn position(&self, args: &AccumulatorArgs) -> Result<Position> {
        let fraction = if self.has_fraction { fraction(args)? } else { 0.5 };
        let is_descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        Ok(Position { fraction, is_descending })
    }
}

impl AggregateUDFImpl for PercentileCont {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |kind: &DataType| kind.is_numeric() || kind.is_null();
        let is_valid = kinds.len() == 1 + usize::from(self.has_fraction) && kinds.iter().all(is_number);
        if is_valid
            && let [kind] = kinds
            && kind.is_decimal()
        {
            return match kind {
                DataType::Decimal32(precision, scale)
                | DataType::Decimal64(precision, scale)
                | DataType::Decimal128(precision, scale) => Ok(vec![DataType::Decimal128(*precision, *scale)]),
                kind => Err(DataFusionError::Plan(format!("median does not support {kind}: cast x to DECIMAL(38, 0)"))),
            };
        }
        if is_valid {
            return Ok(vec![DataType::Float64; kinds.len()]);
        }
        let form = if self.has_fraction { "percentile_cont(0.5) WITHIN GROUP (ORDER BY x)" } else { "median(x)" };
        Err(DataFusionError::Plan(format!("write {form}, where x is a number")))
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match kinds {
            [DataType::Decimal128(precision, scale)] => average_type(*precision, *scale),
            _ => DataType::Float64,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let input = match args.input_fields[0].data_type() {
            kind @ DataType::Decimal128(..) if !self.has_fraction => kind.clone(),
            _ => DataType::Float64,
        };
        if args.is_distinct {
            return Ok(vec![DistinctValues::state_field(args.name, &input)]);
        }
        let item = Field::new_list_field(input, true);
        Ok(vec![Arc::new(Field::new_list(format_state_name(args.name, "values"), item, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if let Some(median) = decimal_median(&args) {
            return Ok(median);
        }
        let values = Box::new(Values { values: Vec::new(), position: self.position(&args)? });
        Ok(if args.is_distinct { DistinctValues::boxed(DataType::Float64, values) } else { values })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if let Some(median) = decimal_median(&args) {
            return Ok(median);
        }
        let values = Box::new(SortedValues { values: Vec::new(), position: self.position(&args)? });
        Ok(if args.is_distinct { DistinctValues::boxed(DataType::Float64, values) } else { values })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct && !args.expr_fields[0].data_type().is_decimal()
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(GroupValues { groups: Vec::new(), values: 0, position: self.position(&args)? }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_within_group_clause(&self) -> bool {
        self.has_fraction
    }
}

/// Returns the accumulator for a median of decimals, or `None` if the argument is not a decimal.
fn decimal_median(args: &AccumulatorArgs) -> Option<Box<dyn Accumulator>> {
    let kind = args.expr_fields[0].data_type();
    let DataType::Decimal128(precision, scale) = kind else { return None };
    let median = DecimalMedian::boxed(*precision, *scale);
    Some(if args.is_distinct { DistinctValues::boxed(kind.clone(), median) } else { median })
}

/// The position of the result among the sorted values.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// A number between 0 and 1.
    fraction: f64,
    is_descending: bool,
}

impl Position {
    /// Returns the positions of the two nearest values, and the weight of the second value. The positions refer to the
    /// values in ascending order.
    fn nearest(self, count: usize) -> (usize, usize, f64) {
        let last = count - 1;
        let position = self.fraction * last as f64;
        let (first, second) = (position.floor(), position.ceil());
        let index = |position: f64| {
            let index = (position as usize).min(last);
            if self.is_descending { last - index } else { index }
        };
        (index(first), index(second), position - first)
    }

    /// Returns the percentile of values in any order, or `None` if there are no values. Changes the order of the
    /// values.
    fn of(self, values: &mut [f64]) -> Option<f64> {
        if values.is_empty() {
            return None;
        }
        let (first, second, weight) = self.nearest(values.len());
        let (low, high) = (first.min(second), first.max(second));
        let (_, low_value, greater) = values.select_nth_unstable_by(low, compare);
        let low_value = *low_value;
        let high_value = match high - low {
            0 => low_value,
            _ => greater.iter().copied().min_by(compare).unwrap_or(low_value),
        };
        let (first_value, second_value) =
            if first <= second { (low_value, high_value) } else { (high_value, low_value) };
        Some(interpolated(first_value, second_value, weight))
    }
}

/// Compares doubles as in ORDER BY: NaN is the greatest value.
fn compare(a: &f64, b: &f64) -> Ordering {
    a.total_cmp(b)
}

fn interpolated(first: f64, second: f64, weight: f64) -> f64 {
    if weight == 0.0 || first.total_cmp(&second) == Ordering::Equal { first } else { first + weight * (second - first) }
}

/// Calls `add` for each value except NULL.
fn each(values: &ArrayRef, add: impl FnMut(f64)) {
    let values = normalized(values);
    values.as_primitive::<Float64Type>().iter().flatten().for_each(add);
}

/// Calls `add` for each value in the lists of a partial aggregate state.
fn each_in_lists(states: &[ArrayRef], mut add: impl FnMut(f64)) {
    states[0].as_list::<i32>().iter().flatten().for_each(|values| each(&values, &mut add));
}

fn list_of(values: &[f64]) -> ScalarValue {
    let mut list = ListBuilder::new(PrimitiveBuilder::<Float64Type>::new());
    list.values().append_slice(values);
    list.append(true);
    ScalarValue::List(Arc::new(list.finish()))
}

/// All values, in any order.
#[derive(Debug)]
struct Values {
    values: Vec<f64>,
    position: Position,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |value| self.values.push(value));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.position.of(&mut self.values)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![list_of(&self.values)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        each_in_lists(states, |value| self.values.push(value));
        Ok(())
    }
}

/// The values of a moving window, in ascending order.
#[derive(Debug)]
struct SortedValues {
    values: Vec<f64>,
    position: Position,
}

impl Accumulator for SortedValues {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |value| {
            let index = self.values.partition_point(|other| compare(other, &value) == Ordering::Less);
            self.values.insert(index, value);
        });
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |value| {
            if let Ok(index) = self.values.binary_search_by(|other| compare(other, &value)) {
                self.values.remove(index);
            }
        });
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values.is_empty() {
            return Ok(ScalarValue::Float64(None));
        }
        let (first, second, weight) = self.position.nearest(self.values.len());
        Ok(ScalarValue::from(interpolated(self.values[first], self.values[second], weight)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![list_of(&self.values)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let mut merged = Vec::new();
        each_in_lists(states, |value| merged.push(value));
        self.update_batch(&[Arc::new(Float64Array::from(merged))])
    }
}

/// The values of each group, in any order.
#[derive(Debug)]
struct GroupValues {
    groups: Vec<Vec<f64>>,
    /// The total capacity of all groups, as a number of values.
    values: usize,
    position: Position,
}

impl GroupValues {
    fn push(&mut self, group: usize, value: f64) {
        let values = &mut self.groups[group];
        let before = values.capacity();
        values.push(value);
        self.values += values.capacity() - before;
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<f64>> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.values = self.groups.iter().map(Vec::capacity).sum();
        taken
    }
}

impl GroupsAccumulator for GroupValues {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let values = normalized(&values[0]);
        let values = values.as_primitive::<Float64Type>();
        for (row, group) in group_indices.iter().enumerate() {
            let is_kept = opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if is_kept && values.is_valid(row) {
                self.push(*group, values.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let position = self.position;
        let results: Float64Array = self.take(emit_to).into_iter().map(|mut values| position.of(&mut values)).collect();
        Ok(Arc::new(results))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        let offsets = OffsetBuffer::from_lengths(groups.iter().map(Vec::len));
        let values = Arc::new(Float64Array::from(groups.concat()));
        let item = Arc::new(Field::new_list_field(DataType::Float64, true));
        Ok(vec![Arc::new(ListArray::try_new(item, offsets, values, None)?)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let lists = values[0].as_list::<i32>();
        for (row, group) in group_indices.iter().enumerate() {
            if lists.is_valid(row) {
                each(&lists.value(row), |value| self.push(*group, value));
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Float64Type>();
        let is_kept = |row: usize| {
            values.is_valid(row) && opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        let kept: Vec<f64> = (0..values.len()).filter(|row| is_kept(*row)).map(|row| values.value(row)).collect();
        let lengths = (0..values.len()).map(|row| usize::from(is_kept(row)));
        let item = Arc::new(Field::new_list_field(DataType::Float64, true));
        let kept = Arc::new(Float64Array::new(ScalarBuffer::from(kept), None));
        Ok(vec![Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), kept, None)?)])
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Vec<f64>>() + self.values * size_of::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_equals_that_of_sorted_values() {
        let mut random = 7_u64;
        for count in 1..40 {
            let values: Vec<f64> = (0..count)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (random >> 58) as f64 / 8.0
                })
                .collect();
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            for (fraction, is_descending) in [(0.0, false), (0.05, true), (0.5, false), (0.95, false), (1.0, true)] {
                if is_descending {
                    sorted.reverse();
                }
                let at = fraction * (count - 1) as f64;
                let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
                let expected = low + (at - at.floor()) * (high - low);
                let found = Position { fraction, is_descending }.of(&mut values.clone()).unwrap();
                assert!((found - expected).abs() < 1e-12, "{fraction} of {sorted:?}: {found}, expected {expected}");
                if is_descending {
                    sorted.reverse();
                }
            }
        }
    }
}
