//! Computes the exact sum of a block of doubles with similar magnitudes, in floating point.
//!
//! Each value is split into a multiple of a large power of two, a multiple of a small power of two, and a remainder. A
//! multiple has so few bits that a sum of multiples is exact. If every remainder is zero, the two sums add up to the
//! exact sum of the block. The compiler can generate SIMD code for this method, which is therefore twice as fast as
//! adding 128-bit integers.

/// The maximum number of values in a block. A sum of this many values needs up to 11 bits more than each value.
pub(super) const BLOCK_VALUES_MAX: usize = 2_048;

/// The number of bits in each multiple. A sum of [`BLOCK_VALUES_MAX`] multiples has at most 41 + 11 = 52 bits, so it is
/// exact.
const PART_BITS: i32 = 41;

/// The number of values that are processed in parallel (SIMD lanes).
const LANES: usize = 8;

/// Returns two doubles that add up to the exact sum of `values`. Returns `None` if the magnitudes of the values differ
/// too much, or if a value is NaN or infinite.
pub(super) fn block_sum(values: &[f64]) -> Option<[f64; 2]> {
    debug_assert!(values.len() <= BLOCK_VALUES_MAX, "a sum could be inexact");
    let (chunks, tail) = values.as_chunks::<LANES>();
    let mut sizes = [0.0; LANES];
    for chunk in chunks {
        sizes.iter_mut().zip(chunk).for_each(|(size, value)| *size = larger(*size, value.abs()));
    }
    // `larger` ignores NaN, but if a value is NaN, so is the sum of the remainders.
    let size = sizes.into_iter().chain(tail.iter().map(|value| value.abs())).fold(0.0, larger);
    // Every value is less than `2^end`. If `end` were outside of this range, the powers of two that are computed below
    // could be subnormal or infinite.
    let end = i32::try_from(size.to_bits() >> 52).ok()? - 1022;
    if !(-800..=900).contains(&end) {
        return None;
    }
    let (large, small) = (rounder(end - PART_BITS), rounder(end - 2 * PART_BITS));
    let mut sums = [[0.0; LANES]; 3];
    let mut add = |lane: usize, value: f64| {
        let first = (value + large) - large;
        let rest = value - first;
        let second = (rest + small) - small;
        sums[0][lane] += first;
        sums[1][lane] += second;
        sums[2][lane] += (rest - second).abs();
    };
    for chunk in chunks {
        for (lane, value) in chunk.iter().enumerate() {
            add(lane, *value);
        }
    }
    tail.iter().for_each(|value| add(0, *value));
    let [first, second, remainder] = sums.map(|lanes| lanes.into_iter().sum::<f64>());
    (remainder == 0.0).then_some([first, second])
}

fn larger(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

/// Returns a double `r` that rounds smaller doubles: for each of them, `x + r - r` is `x` rounded to a multiple of
/// `2^exponent`.
fn rounder(exponent: i32) -> f64 {
    1.5 * f64::from_bits(u64::from((exponent + 52 + 1023).unsigned_abs()) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::functions::double_sum::{EXPONENT_BIAS, split};
    use crate::sql::functions::exact_number::Limbs;

    #[test]
    fn sums_are_exact_or_refused() {
        let full: Vec<_> = (0..BLOCK_VALUES_MAX).map(|index| 1e9 - 1.0 / 3.0 * index as f64).collect();
        let mut exact = Limbs::default();
        for value in &full {
            let (integer, exponent) = split(value.to_bits());
            exact.add(integer, i32::try_from(exponent).unwrap() - EXPONENT_BIAS);
        }
        let [first, second] = block_sum(&full).unwrap();
        assert_eq!(first + second, exact.exact().scaled(0));
        for (values, expected) in [
            (&[1.0, 2.0, 0.5][..], Some(3.5)),
            (&[-1.0, 1.0], Some(0.0)),
            (&[1e4, 1e-4, -1e4], Some(1e-4)),
            (&[1e17, 1e-17], None),
            (&[0.0], None),
            (&[1e300], None),
            (&[1e-300], None),
            (&[1.0, f64::NAN], None),
            (&[f64::INFINITY], None),
        ] {
            assert_eq!(block_sum(values).map(|[first, second]| first + second), expected, "{values:?}");
        }
    }
}
