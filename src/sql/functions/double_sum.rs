//! Computes the exact sum of doubles. The result does not depend on the order of the values or the number of
//! partitions.
//!
//! Most values of a group have similar exponents. An inline `i128` holds the sum of the values in an exponent window.
//! The window is a range of [`WINDOW_BITS`] exponents that begins near the exponent of the first value. Values with
//! other exponents are added to [`Limbs`] on the heap. NaNs and infinities are only counted, so that they can be
//! removed from a moving window.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BinaryBuilder, Float64Array, Float64Builder, UInt64Array, new_null_array,
};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use datafusion::error::Result;

use crate::sql::functions::double_block_sum::{BLOCK_VALUES_MAX, block_sum};
use crate::sql::functions::exact_number::{Exact, Limbs, power_of_two};
use crate::sql::functions::running_total::Total;

/// The number of exponents in the exponent window. The inline integer has 127 bits. A value needs up to 53 bits and is
/// shifted by up to 34, so 40 bits are left, which is enough to add 10¹² values.
const WINDOW_BITS: u64 = 34;

/// The base of the exponent window until the first finite value is added. With this base, every exponent is outside the
/// window.
const NO_BASE: u64 = 0x4000;

/// The bit position of the window's base in `tag`. The bits below it contain the number of values.
const COUNT_BITS: u32 = 48;

/// The minimum number of values for which [`block_sum`] is faster than adding the values one by one.
const BLOCK_VALUES_MIN: usize = 32;

/// The exponent bias of doubles plus 52, the number of bits in the fraction. With this bias, a finite double is an
/// integer times `2^(exponent field - 1075)`.
pub(super) const EXPONENT_BIAS: i32 = 1075;

/// The exact sum of doubles, and the number of values in the sum.
#[derive(Debug)]
pub(super) struct DoubleSum {
    /// The sum of the values in the exponent window, in units of `2^(base - 1075)`.
    window: i128,
    /// The base of the exponent window in the high bits, and the number of all values in the low bits.
    tag: u64,
    rest: Option<Box<Rest>>,
}

/// The sum of the values outside the exponent window, and the counts of NaNs and infinities.
#[derive(Debug, Default)]
struct Rest {
    limbs: Limbs,
    nans: i64,
    positive_infinities: i64,
    negative_infinities: i64,
}

impl Default for DoubleSum {
    fn default() -> Self {
        Self { window: 0, tag: NO_BASE << COUNT_BITS, rest: None }
    }
}

/// Splits a finite double into a signed integer and the exponent field.
#[inline]
pub(super) fn split(bits: u64) -> (i64, u64) {
    let exponent = bits >> 52 & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    let integer = if exponent == 0 { fraction } else { fraction | 1 << 52 };
    let sign = bits.cast_signed() >> 63;
    ((integer.cast_signed() ^ sign) - sign, exponent.max(1))
}

impl DoubleSum {
    #[inline]
    fn base(&self) -> u64 {
        self.tag >> COUNT_BITS
    }

    /// Adds a finite value to the sum, or adds `step` to the number of infinities or NaNs. Returns the number of bytes
    /// that were allocated on the heap.
    #[inline]
    fn put(&mut self, bits: u64, step: i64) -> usize {
        let exponent = bits >> 52 & 0x7ff;
        let shift = exponent.wrapping_sub(self.base());
        if shift > WINDOW_BITS {
            return self.put_outside(bits, step);
        }
        // The exponent window contains only normal numbers, so the implicit leading bit of the significand is set.
        let integer = (bits & ((1 << 52) - 1) | 1 << 52).cast_signed();
        let sign = bits.cast_signed() >> 63;
        self.window += i128::from((integer ^ sign) - sign) << shift;
        0
    }

    #[cold]
    #[inline(never)]
    fn put_outside(&mut self, bits: u64, step: i64) -> usize {
        if bits << 1 == 0 {
            return 0;
        }
        let value = f64::from_bits(bits);
        if value.is_finite() && self.base() == NO_BASE {
            let (_, exponent) = split(bits);
            // Round the base to a multiple of 16. Otherwise, the partial sums of a group would often have different
            // exponent windows.
            let base = (exponent & !15).saturating_sub(8).clamp(1, 2046 - WINDOW_BITS);
            self.tag = self.tag & ((1 << COUNT_BITS) - 1) | base << COUNT_BITS;
            if exponent - base <= WINDOW_BITS && bits >> 52 & 0x7ff != 0 {
                return self.put(bits, step);
            }
        }
        let before = self.heap();
        let rest = self.rest.get_or_insert_default();
        if value.is_finite() {
            let (integer, exponent) = split(bits);
            rest.limbs.add(integer, i32::try_from(exponent).unwrap_or(0) - EXPONENT_BIAS);
        } else if value.is_nan() {
            rest.nans += step;
        } else if value > 0.0 {
            rest.positive_infinities += step;
        } else {
            rest.negative_infinities += step;
        }
        self.heap() - before
    }

    fn scale(&self) -> i32 {
        i32::try_from(self.base()).unwrap_or(0) - EXPONENT_BIAS
    }

    /// Returns NaN or an infinity if the values contain NaNs or infinities.
    pub(super) fn special(&self) -> Option<f64> {
        let rest = self.rest.as_ref()?;
        match (rest.nans != 0, rest.positive_infinities != 0, rest.negative_infinities != 0) {
            (true, ..) | (_, true, true) => Some(f64::NAN),
            (_, true, _) => Some(f64::INFINITY),
            (.., true) => Some(f64::NEG_INFINITY),
            _ => None,
        }
    }

    fn limbs(&self) -> Limbs {
        let mut limbs = self.rest.as_ref().map(|rest| rest.limbs.clone()).unwrap_or_default();
        limbs.add_wide(self.window, self.scale());
        limbs
    }

    /// Returns the exact sum of the finite values.
    pub(super) fn exact(&self) -> Exact {
        self.limbs().exact()
    }

    /// Returns the double that is nearest to the sum.
    pub(super) fn sum(&self) -> f64 {
        if let Some(special) = self.special() {
            return special;
        }
        if self.rest.is_none() && self.window == 0 {
            return 0.0;
        }
        // If the base is at least 64, neither the power of two nor the result can be subnormal, so only the conversion
        // to a double rounds.
        if self.rest.is_none() && self.base() >= 64 {
            return self.window as f64 * power_of_two(self.scale());
        }
        self.exact().scaled(0)
    }

    /// Returns the double that is nearest to the average.
    pub(super) fn average(&self) -> f64 {
        let (sum, count) = (self.sum(), self.count() as f64);
        if sum.is_infinite() && self.special().is_none() {
            return self.exact().scaled(-64) / count * power_of_two(64);
        }
        sum / count
    }

    /// Adds the sum from a partial state, but not its number of values.
    fn merge_sum(&mut self, sum: Option<f64>, exact: Option<&[u8]>) {
        match (sum, exact) {
            (Some(sum), None) => {
                self.put(sum.to_bits(), 1);
            }
            (_, Some(bytes)) => self.merge_encoded(bytes),
            (None, None) => {}
        }
    }

    fn merge_encoded(&mut self, bytes: &[u8]) {
        let Some((head, limbs)) = bytes.split_first_chunk::<18>() else { return };
        let (window, base) = head.split_at(16);
        let window = window.try_into().map_or(0, i128::from_le_bytes);
        let base = base.try_into().map_or(NO_BASE, |base| u64::from(u16::from_le_bytes(base)));
        if self.base() == NO_BASE && base != NO_BASE {
            self.tag = self.tag & ((1 << COUNT_BITS) - 1) | base << COUNT_BITS;
        }
        if base == self.base() {
            self.window += window;
        } else if window != 0 {
            let scale = i32::try_from(base).unwrap_or(0) - EXPONENT_BIAS;
            self.rest.get_or_insert_default().limbs.add_wide(window, scale);
        }
        if !limbs.is_empty() {
            self.rest.get_or_insert_default().limbs.merge_encoded(limbs);
        }
    }

    /// Returns the columns of partial states. A state consists of the number of values and their sum. A sum is stored
    /// as a double if it is NaN or infinite, or if it is the sum of a single value. Any other sum is stored as the
    /// integers that represent the exact sum.
    pub(super) fn states_of<'a>(totals: impl ExactSizeIterator<Item = &'a Self> + Clone) -> Result<Vec<ArrayRef>> {
        let counts = UInt64Array::from_iter_values(totals.clone().map(Self::count));
        let mut sums = Float64Builder::with_capacity(totals.len());
        let mut exact = BinaryBuilder::with_capacity(totals.len(), totals.len() * 18);
        let mut bytes = Vec::new();
        for total in totals {
            let special = total.special();
            sums.append_option(special);
            if total.count() == 0 || special.is_some() {
                exact.append_null();
            } else {
                bytes.clear();
                total.encode(&mut bytes);
                exact.append_value(&bytes);
            }
        }
        Ok(vec![Arc::new(counts), Arc::new(sums.finish()), Arc::new(exact.finish())])
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.window.to_le_bytes());
        bytes.extend_from_slice(&(self.base() as u16).to_le_bytes());
        if let Some(rest) = &self.rest {
            rest.limbs.encode(bytes);
        }
    }
}

impl Total for DoubleSum {
    type Input = Float64Type;

    const STATE: &'static [(&'static str, DataType)] =
        &[("count", DataType::UInt64), ("sum", DataType::Float64), ("exact", DataType::Binary)];

    #[inline]
    fn add(&mut self, value: f64) -> usize {
        self.tag += 1;
        self.put(value.to_bits(), 1)
    }

    fn add_all(&mut self, values: &[f64]) {
        for block in values.chunks(BLOCK_VALUES_MAX) {
            let parts = if block.len() < BLOCK_VALUES_MIN { None } else { block_sum(block) };
            match parts {
                Some(parts) => parts.iter().for_each(|part| _ = self.put(part.to_bits(), 1)),
                None => block.iter().for_each(|value| _ = self.put(value.to_bits(), 1)),
            }
        }
        self.tag += values.len() as u64;
    }

    fn remove(&mut self, value: f64) {
        self.tag -= 1;
        if value.is_finite() {
            self.put((-value).to_bits(), 1)
        } else {
            self.put(value.to_bits(), -1)
        };
    }

    fn count(&self) -> u64 {
        self.tag & ((1 << COUNT_BITS) - 1)
    }

    fn heap(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| size_of::<Rest>() + rest.limbs.heap())
    }

    fn states(totals: &[Self]) -> Result<Vec<ArrayRef>> {
        Self::states_of(totals.iter())
    }

    fn merge(&mut self, states: &[ArrayRef], row: usize) -> Result<usize> {
        let [counts, sums, exact] = states else { return Ok(0) };
        let (counts, sums) = (counts.as_primitive::<UInt64Type>(), sums.as_primitive::<Float64Type>());
        let exact = exact.as_binary::<i32>();
        if counts.is_null(row) {
            return Ok(0);
        }
        let before = self.heap();
        self.tag += counts.value(row);
        let sum = sums.is_valid(row).then(|| sums.value(row));
        self.merge_sum(sum, exact.is_valid(row).then(|| exact.value(row)));
        Ok(self.heap() - before)
    }

    fn states_of_values(values: &Float64Array) -> Option<Vec<ArrayRef>> {
        let counts = UInt64Array::from_iter_values((0..values.len()).map(|row| u64::from(values.is_valid(row))));
        let exact = new_null_array(&DataType::Binary, values.len());
        Some(vec![Arc::new(counts), Arc::new(values.clone()), exact])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> DoubleSum {
        let mut sum = DoubleSum::default();
        sum.add_all(values);
        sum
    }

    /// Returns pseudorandom values of all magnitudes. They are the same in each run.
    fn values(count: u64) -> Vec<f64> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = f64::from_bits(state);
            if state.is_multiple_of(3) && value.is_finite() {
                value / 1e10
            } else {
                (state % 100_000) as f64 / 7.0 - 5_000.0
            }
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn sums_do_not_depend_on_order_or_partitions() {
        for scale in [1.0, 1e-5, 1e-310] {
            let mut values: Vec<_> = values(1_000).into_iter().map(|value| value * scale).collect();
            let expected = sum(&values).sum();
            for parts in [1, 3, 7, 1_000] {
                values.rotate_left(parts / 2);
                let chunks: Vec<_> = values.chunks(parts).map(sum).collect();
                let states = DoubleSum::states(&chunks).unwrap();
                let mut merged = DoubleSum::default();
                (0..chunks.len()).rev().for_each(|row| _ = merged.merge(&states, row).unwrap());
                assert_eq!((merged.sum(), merged.count()), (expected, 1_000), "{parts} {scale}");
            }
            let single = Float64Array::from(values);
            let states = DoubleSum::states_of_values(&single).unwrap();
            let mut merged = DoubleSum::default();
            (0..single.len()).for_each(|row| _ = merged.merge(&states, row).unwrap());
            assert_eq!(merged.sum(), expected);
        }
    }

    #[test]
    fn sums_are_those_of_the_values() {
        for (values, expected) in [
            (&[][..], 0.0),
            (&[0.0, -0.0], 0.0),
            (&[0.1; 10], 1.0),
            (&[0.1, 0.2, 0.3], 0.6),
            (&[1e17, 1.0, 2.0, 3.0, -1e17], 6.0),
            (&[1e308, 1e308, -1e308], 1e308),
            (&[5e-324, 5e-324], 1e-323),
            (&[1.0, f64::INFINITY], f64::INFINITY),
            (&[f64::NEG_INFINITY, 1.0], f64::NEG_INFINITY),
        ] {
            assert_eq!(sum(values).sum(), expected, "{values:?}");
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).sum().is_nan());
        assert!(sum(&[f64::NAN, 1.0]).sum().is_nan());
        assert_eq!(sum(&[1e308, 1e308]).sum(), f64::INFINITY);
        assert_eq!(sum(&[1e308, 1e308]).average(), 1e308);
    }

    #[test]
    fn values_leave_a_moving_window_without_a_trace() {
        let all = [1e17, f64::NAN, 1.0, f64::INFINITY, 5e-324, f64::NEG_INFINITY, 1e300, -3.0, 0.1, -0.0];
        let mut moving = sum(&all);
        for (index, value) in all.iter().enumerate() {
            let (window, expected) = (moving.sum(), sum(&all[index..]).sum());
            assert!(window == expected || window.is_nan() && expected.is_nan(), "{index}: {window} {expected}");
            moving.remove(*value);
        }
        assert_eq!((moving.sum(), moving.count()), (0.0, 0));
    }
}
