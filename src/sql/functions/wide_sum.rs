//! Computes the exact sum of integers, decimals or durations, in 192 bits.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, Decimal128Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type};
use datafusion::error::Result;

use crate::sql::functions::running_total::Total;

/// The exact sum of integers of at most 128 bits, and the number of integers in it.
pub(super) struct WideSum<T> {
    low: i128,
    /// The number of times that `low` has overflowed, minus the number of times that it has underflowed.
    carry: i64,
    count: u64,
    kind: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for WideSum<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WideSum").field("low", &self.low).field("carry", &self.carry).finish_non_exhaustive()
    }
}

impl<T> Default for WideSum<T> {
    fn default() -> Self {
        Self { low: 0, carry: 0, count: 0, kind: PhantomData }
    }
}

impl<T> WideSum<T> {
    /// Returns the sum, or `None` if it does not fit into 128 bits.
    pub(super) fn sum(&self) -> Option<i128> {
        (self.carry == 0).then_some(self.low)
    }

    #[inline]
    fn put(&mut self, value: i128) {
        let (low, is_past) = self.low.overflowing_add(value);
        self.low = low;
        if is_past {
            self.carry += if value < 0 { -1 } else { 1 };
        }
    }
}

impl<T> Total for WideSum<T>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    type Input = T;

    const STATE: &'static [(&'static str, DataType)] =
        &[("count", DataType::UInt64), ("sum", DataType::Decimal128(38, 0)), ("carry", DataType::Int64)];

    #[inline]
    fn add(&mut self, value: T::Native) -> usize {
        self.count += 1;
        self.put(value.into());
        0
    }

    fn remove(&mut self, value: T::Native) {
        self.count -= 1;
        let (low, is_past) = self.low.overflowing_sub(value.into());
        self.low = low;
        if is_past {
            self.carry += if value.into() < 0 { 1 } else { -1 };
        }
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn heap(&self) -> usize {
        0
    }

    fn states(totals: &[Self]) -> Result<Vec<ArrayRef>> {
        // `low` may have more than the 38 digits that are declared here. This is safe, because only `merge` reads the
        // column, and `merge` ignores the declared number of digits.
        let low = Decimal128Array::from_iter_values(totals.iter().map(|total| total.low));
        Ok(vec![
            Arc::new(UInt64Array::from_iter_values(totals.iter().map(|total| total.count))),
            Arc::new(low.with_precision_and_scale(38, 0)?),
            Arc::new(Int64Array::from_iter_values(totals.iter().map(|total| total.carry))),
        ])
    }

    fn merge(&mut self, states: &[ArrayRef], row: usize) -> Result<usize> {
        let [counts, low, carry] = states else { return Ok(0) };
        let counts = counts.as_primitive::<UInt64Type>();
        if counts.is_valid(row) {
            self.count += counts.value(row);
            self.put(low.as_primitive::<Decimal128Type>().value(row));
            self.carry += carry.as_primitive::<Int64Type>().value(row);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_128_bits_return() {
        let mut sum = WideSum::<Decimal128Type>::default();
        sum.add(i128::MAX);
        sum.add(i128::MAX);
        assert_eq!(sum.sum(), None);
        let mut merged = WideSum::<Decimal128Type>::default();
        merged.add(-i128::MAX);
        merged.merge(&WideSum::states(&[sum]).unwrap(), 0).unwrap();
        assert_eq!((merged.sum(), merged.count()), (Some(i128::MAX), 3));
        merged.remove(i128::MAX);
        merged.remove(i128::MAX);
        merged.remove(-i128::MAX);
        assert_eq!((merged.sum(), merged.count()), (Some(0), 0));
    }
}
