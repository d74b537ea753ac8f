//! `min` and `max` of doubles per group.
//!
//! The engine's accumulator starts with the smallest or largest finite double, so the maximum of a group that contains
//! only -inf would be -1.8e308. If a group contains NaN, its result depends on the order of the rows
//! (apache/datafusion#24432). As in PostgreSQL and in the engine's accumulator without groups, NaN is greater than all
//! other numbers.
//!
//! This file maps doubles to integers that sort in the same order, and calls the engine's function for integers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};

use crate::sql::functions::delegate::delegate;

/// Wraps `min` and `max`, and returns the other functions unchanged.
pub(crate) fn with_all_doubles(functions: Vec<Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    let wrapped = functions.into_iter().map(|inner| match inner.name() {
        "min" | "max" => Arc::new(AggregateUDF::new_from_impl(Extreme { inner })),
        _ => inner,
    });
    wrapped.collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Extreme {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef>;
        fn is_nullable(&self) -> bool;
        fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>>;
        fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>>;
        fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>>;
        fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>>;
        fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool;
        fn order_sensitivity(&self) -> AggregateOrderSensitivity;
        fn is_descending(&self) -> Option<bool>;
        fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue>;
        fn default_value(&self, kind: &DataType) -> Result<ScalarValue>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(kind)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let kind = args.return_field.data_type().clone();
        if !kind.is_floating() {
            return self.inner.create_groups_accumulator(args);
        }
        let return_field = Arc::new(Field::new(args.return_field.name(), DataType::Int64, true));
        let keys = self.inner.create_groups_accumulator(AccumulatorArgs { return_field, ..args })?;
        Ok(Box::new(DoubleExtremes { keys, kind }))
    }
}

/// The minimum or maximum of each group.
struct DoubleExtremes {
    /// The engine's accumulator for the integers.
    keys: Box<dyn GroupsAccumulator>,
    /// The type of the doubles.
    kind: DataType,
}

impl DoubleExtremes {
    /// Returns integers that have the same order as the doubles.
    fn keys(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        values.iter().map(|values| keys(values)).collect()
    }

    fn doubles(&self, keys: &ArrayRef) -> Result<ArrayRef> {
        let doubles: ArrayRef = Arc::new(keys.as_primitive::<Int64Type>().unary::<_, Float64Type>(double_of));
        Ok(if self.kind == DataType::Float64 { doubles } else { cast(&doubles, &self.kind)? })
    }
}

impl GroupsAccumulator for DoubleExtremes {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        let keys = self.keys(values)?;
        self.keys.update_batch(&keys, groups, filter, group_count)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], group_count: usize) -> Result<()> {
        let keys = self.keys(values)?;
        self.keys.merge_batch(&keys, groups, group_count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let keys = self.keys.evaluate(emit_to)?;
        self.doubles(&keys)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let keys = self.keys.state(emit_to)?;
        keys.iter().map(|keys| self.doubles(keys)).collect()
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let keys = self.keys.convert_to_state(&self.keys(values)?, filter)?;
        keys.iter().map(|keys| self.doubles(keys)).collect()
    }

    fn size(&self) -> usize {
        self.keys.size()
    }
}

fn keys(values: &ArrayRef) -> Result<ArrayRef> {
    let doubles =
        if *values.data_type() == DataType::Float64 { Arc::clone(values) } else { cast(values, &DataType::Float64)? };
    Ok(Arc::new(doubles.as_primitive::<Float64Type>().unary::<_, Int64Type>(key_of)))
}

/// Returns an integer for a double. The integers have the order of the doubles, in which NaN is the greatest value.
fn key_of(double: f64) -> i64 {
    let double = if double.is_nan() { f64::NAN } else { double };
    flip(double.to_bits().cast_signed())
}

fn double_of(key: i64) -> f64 {
    f64::from_bits(flip(key).cast_unsigned())
}

/// Reverses the order of negative numbers, because the bits of a negative double grow with its absolute value.
fn flip(bits: i64) -> i64 {
    bits ^ ((bits >> 63) & i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_order_of_the_doubles() {
        let doubles =
            [f64::NEG_INFINITY, f64::MIN, -1.5, -f64::MIN_POSITIVE, -0.0, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY];
        for pair in doubles.windows(2) {
            assert!(key_of(pair[0]) < key_of(pair[1]), "{pair:?}");
        }
        for double in doubles {
            assert_eq!(double_of(key_of(double)).to_bits(), double.to_bits());
        }
        assert!(key_of(-f64::NAN) > key_of(f64::INFINITY) && double_of(key_of(-f64::NAN)).is_nan());
    }
}
