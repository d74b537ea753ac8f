//! The exact sum of values and the exact sum of their squares, from which variance and standard deviation are computed.
//!
//! With rounded sums, `(n · Σx² − (Σx)²) / n²` would be inaccurate, because it subtracts nearly equal numbers. Both
//! sums and the difference are exact, so equal values have a variance of exactly zero.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, BinaryArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use datafusion::error::Result;

use crate::sql::functions::double_sum::{DoubleSum, EXPONENT_BIAS, split};
use crate::sql::functions::exact_number::{Limbs, power_of_two};
use crate::sql::functions::running_total::Total;

/// The number of bits in the low part of a square. A square has twice as many bits as a double, so its low part and its
/// high part are added separately.
const LOW_BITS: i32 = 53;

/// The exact sum of values, and the exact sum of their squares.
#[derive(Debug, Default)]
pub(super) struct VarianceTotal {
    sum: DoubleSum,
    squares: Limbs,
}

impl VarianceTotal {
    fn put_square(&mut self, value: f64, sign: i64) {
        if !value.is_finite() || value == 0.0 {
            return;
        }
        let (integer, exponent) = split(value.to_bits());
        let exponent = 2 * (i32::try_from(exponent).unwrap_or(0) - EXPONENT_BIAS);
        let square = i128::from(integer) * i128::from(integer);
        let (low, high) = (square & ((1 << LOW_BITS) - 1), square >> LOW_BITS);
        self.squares.add(sign * low as i64, exponent);
        self.squares.add(sign * high as i64, exponent + LOW_BITS);
    }

    /// Returns the variance: the population variance, or the sample variance if `is_sample` is true. Returns `None` if
    /// there are too few values.
    pub(super) fn variance(&self, is_sample: bool) -> Option<f64> {
        let count = self.count();
        if count == 0 || is_sample && count == 1 {
            return None;
        }
        if self.sum.special().is_some() {
            return Some(f64::NAN);
        }
        let difference = self.squares.exact().times(count).minus(&self.sum.exact().square());
        let divisor = count as f64 * if is_sample { count - 1 } else { count } as f64;
        // Scale first: the difference may be out of range for a double even if the variance is not.
        let scale = difference.size();
        let (half, rest) = (scale / 2, scale - scale / 2);
        Some(difference.scaled(-scale) / divisor * power_of_two(half) * power_of_two(rest))
    }

    /// Computes the variance for each total, or the standard deviation if `is_root` is true.
    pub(super) fn results(totals: &[Self], is_sample: bool, is_root: bool) -> ArrayRef {
        let variances = totals.iter().map(|total| total.variance(is_sample));
        Arc::new(
            variances
                .map(|variance| variance.map(|value| if is_root { value.sqrt() } else { value }))
                .collect::<Float64Array>(),
        )
    }
}

impl Total for VarianceTotal {
    type Input = Float64Type;

    const STATE: &'static [(&'static str, DataType)] = &[
        ("count", DataType::UInt64),
        ("sum", DataType::Float64),
        ("exact", DataType::Binary),
        ("squares", DataType::Binary),
    ];

    fn add(&mut self, value: f64) -> usize {
        let before = self.squares.heap();
        self.put_square(value, 1);
        self.sum.add(value) + self.squares.heap() - before
    }

    fn remove(&mut self, value: f64) {
        self.put_square(value, -1);
        self.sum.remove(value);
    }

    fn count(&self) -> u64 {
        self.sum.count()
    }

    fn heap(&self) -> usize {
        self.sum.heap() + self.squares.heap()
    }

    fn states(totals: &[Self]) -> Result<Vec<ArrayRef>> {
        let mut states = DoubleSum::states_of(totals.iter().map(|total| &total.sum))?;
        let squares = totals.iter().map(|total| {
            let mut bytes = Vec::new();
            total.squares.encode(&mut bytes);
            bytes
        });
        states.push(Arc::new(BinaryArray::from_iter_values(squares)));
        Ok(states)
    }

    fn merge(&mut self, states: &[ArrayRef], row: usize) -> Result<usize> {
        let before = self.heap();
        if states[0].as_primitive::<UInt64Type>().is_valid(row) {
            self.sum.merge(&states[..3], row)?;
            self.squares.merge_encoded(states[3].as_binary::<i32>().value(row));
        }
        Ok(self.heap().saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(values: &[f64]) -> VarianceTotal {
        let mut total = VarianceTotal::default();
        values.iter().for_each(|value| _ = total.add(*value));
        total
    }

    #[test]
    fn variances_are_exact() {
        for (values, population, sample) in [
            (&[][..], None, None),
            (&[0.1], Some(0.0), None),
            (&[0.1, 0.1, 0.1], Some(0.0), Some(0.0)),
            (&[1.0, 2.0, 3.0, 4.0], Some(1.25), Some(5.0 / 3.0)),
            (&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0], Some(22.5), Some(30.0)),
            (&[1e15 + 1.0, 1e15 + 2.0, 1e15 + 3.0], Some(2.0 / 3.0), Some(1.0)),
            (&[1e150, -1e150], Some(1e150 * 1e150), Some(2.0 * 1e150 * 1e150)),
            (&[1e-140, -1e-140], Some(1e-140 * 1e-140), Some(2.0 * 1e-140 * 1e-140)),
            (&[1e200, 0.0], Some(f64::INFINITY), Some(f64::INFINITY)),
        ] {
            let total = total(values);
            assert_eq!((total.variance(false), total.variance(true)), (population, sample), "{values:?}");
        }
        assert!(total(&[1.0, f64::INFINITY]).variance(false).unwrap().is_nan());
    }

    #[test]
    fn values_leave_a_window_without_a_trace() {
        let mut moving = total(&[1e17, f64::NAN, 1.0, 0.1, 0.1]);
        for value in [1e17, f64::NAN, 1.0] {
            moving.remove(value);
        }
        assert_eq!(moving.variance(false), Some(0.0));
        let states = VarianceTotal::states(&[moving]).unwrap();
        let mut merged = total(&[0.1]);
        merged.merge(&states, 0).unwrap();
        assert_eq!((merged.count(), merged.variance(true)), (3, Some(0.0)));
    }
}
