//! Fixed-point numbers of any size, for exact sums, products and comparisons of doubles.
//!
//! [`Limbs`] accumulates a sum of values. Each value is an integer times a power of two. A limb holds the sum of the
//! values whose exponents are in one range of 32 exponents:
//!
//! ```text
//!   Limbs:   Σ limbs[i] · 2^(32 (first + i))     limbs overlap: each is a signed i128
//!   Exact:   ± Σ digits[i] · 2^(32 (first + i))  one form per number: digits are 32 bits, without zeros at the ends
//! ```
//!
//! **Invariant:** nothing is rounded before [`Exact::scaled`], so a result does not depend on the order of the values.

use std::cmp::Ordering;

/// The number of bits in a digit. The weights of two consecutive limbs differ by a factor of `2^DIGIT_BITS`.
const DIGIT_BITS: i32 = 32;

/// A sum of integers times powers of two. A limb has at least 40 bits more than the largest value that is added to it,
/// so the sum of 10¹² values fits.
#[derive(Debug, Default, Clone)]
pub(super) struct Limbs {
    first: i32,
    limbs: Vec<i128>,
}

impl Limbs {
    /// Adds `integer · 2^exponent`. The integer must have at most 54 bits.
    pub(super) fn add(&mut self, integer: i64, exponent: i32) {
        let index = exponent.div_euclid(DIGIT_BITS);
        *self.limb(index) += i128::from(integer) << exponent.rem_euclid(DIGIT_BITS);
    }

    /// Adds `integer · 2^exponent` for an integer of any size.
    pub(super) fn add_wide(&mut self, integer: i128, exponent: i32) {
        let (mut rest, mut exponent) = (integer.unsigned_abs(), exponent);
        while rest != 0 {
            let digit = (rest & u128::from(u32::MAX)) as i64;
            self.add(if integer < 0 { -digit } else { digit }, exponent);
            rest >>= DIGIT_BITS;
            exponent += DIGIT_BITS;
        }
    }

    /// Returns the number of bytes that the limbs use on the heap.
    pub(super) fn heap(&self) -> usize {
        self.limbs.capacity() * size_of::<i128>()
    }

    fn limb(&mut self, index: i32) -> &mut i128 {
        if self.limbs.is_empty() {
            self.first = index;
        }
        if index < self.first {
            let missing = usize::try_from(self.first - index).unwrap_or(0);
            self.limbs.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = index;
        }
        let at = usize::try_from(index - self.first).unwrap_or(0);
        if at >= self.limbs.len() {
            self.limbs.resize(at + 1, 0);
        }
        &mut self.limbs[at]
    }

    /// Appends the limbs that are not zero to `bytes`.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        for (limb, index) in self.limbs.iter().zip(self.first..) {
            if *limb != 0 {
                bytes.extend_from_slice(&index.to_le_bytes());
                bytes.extend_from_slice(&limb.to_le_bytes());
            }
        }
    }

    /// Adds the limbs that [`Limbs::encode`] wrote.
    pub(super) fn merge_encoded(&mut self, bytes: &[u8]) {
        for entry in bytes.as_chunks::<20>().0 {
            let (index, limb) = entry.split_at(4);
            if let (Ok(index), Ok(limb)) = (index.try_into(), limb.try_into()) {
                *self.limb(i32::from_le_bytes(index)) += i128::from_le_bytes(limb);
            }
        }
    }

    pub(super) fn exact(&self) -> Exact {
        let (mut digits, mut carry) = (Vec::with_capacity(self.limbs.len() + 4), 0);
        for limb in &self.limbs {
            // The addition cannot overflow, because the spare bits of a limb are also enough for the carry from lower
            // limbs.
            let sum = limb + carry;
            digits.push(sum as u32);
            carry = sum >> DIGIT_BITS;
        }
        while carry != 0 && carry != -1 {
            digits.push(carry as u32);
            carry >>= DIGIT_BITS;
        }
        let is_negative = carry == -1;
        if is_negative {
            // The digits of a negative number are in two's complement. Negate them, because an [`Exact`] stores the
            // sign separately.
            digits.push(u32::MAX);
            let mut borrow = true;
            for digit in &mut digits {
                let (negated, is_zero) = (!*digit).overflowing_add(u32::from(borrow));
                (*digit, borrow) = (negated, is_zero);
            }
        }
        Exact { is_negative, first: self.first, digits }.trimmed()
    }
}

/// An exact number, which consists of a sign and 32-bit digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exact {
    is_negative: bool,
    first: i32,
    digits: Vec<u32>,
}

impl Exact {
    fn trimmed(mut self) -> Self {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        self.first += i32::try_from(zeros).unwrap_or(0);
        if self.digits.is_empty() {
            return Self { is_negative: false, first: 0, digits: self.digits };
        }
        self
    }

    pub(super) fn square(&self) -> Self {
        let mut digits = vec![0; self.digits.len() * 2];
        for (low, a) in self.digits.iter().enumerate() {
            let mut carry = 0;
            for (high, b) in self.digits.iter().enumerate() {
                let sum = u64::from(*a) * u64::from(*b) + u64::from(digits[low + high]) + carry;
                digits[low + high] = sum as u32;
                carry = sum >> DIGIT_BITS;
            }
            digits[low + self.digits.len()] = carry as u32;
        }
        Self { is_negative: false, first: self.first * 2, digits }.trimmed()
    }

    pub(super) fn times(&self, factor: u64) -> Self {
        let (mut digits, mut carry) = (Vec::with_capacity(self.digits.len() + 2), 0_u128);
        for digit in &self.digits {
            carry += u128::from(*digit) * u128::from(factor);
            digits.push(carry as u32);
            carry >>= DIGIT_BITS;
        }
        while carry != 0 {
            digits.push(carry as u32);
            carry >>= DIGIT_BITS;
        }
        Self { is_negative: self.is_negative, first: self.first, digits }.trimmed()
    }

    /// Returns the difference of two numbers that are not negative.
    pub(super) fn minus(&self, other: &Self) -> Self {
        let first = self.first.min(other.first);
        let end = |number: &Self| number.first + i32::try_from(number.digits.len()).unwrap_or(0);
        let is_negative = self.compare(other) == Ordering::Less;
        let (large, small) = if is_negative { (other, self) } else { (self, other) };
        let (mut digits, mut borrow) = (Vec::new(), 0);
        for index in first..end(large).max(end(small)) {
            let difference = i64::from(large.digit(index)) - i64::from(small.digit(index)) - borrow;
            digits.push(difference as u32);
            borrow = i64::from(difference < 0);
        }
        Self { is_negative, first, digits }.trimmed()
    }

    /// Compares the absolute values of two numbers.
    fn compare(&self, other: &Self) -> Ordering {
        let end = |number: &Self| number.first + i32::try_from(number.digits.len()).unwrap_or(0);
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let order = end(self).cmp(&end(other));
        let first = self.first.min(other.first);
        let digits = (first..end(self)).rev().map(|index| self.digit(index).cmp(&other.digit(index)));
        order.then_with(|| digits.fold(Ordering::Equal, Ordering::then))
    }

    fn digit(&self, index: i32) -> u32 {
        usize::try_from(index - self.first).ok().and_then(|at| self.digits.get(at)).copied().unwrap_or(0)
    }

    /// Returns the double nearest to the number times `2^scale`. The result is rounded only once. Ties are rounded to
    /// even.
    pub(super) fn scaled(&self, scale: i32) -> f64 {
        let Some(top) = self.digits.last() else { return 0.0 };
        // Collect the 128 highest bits. If a lower bit of the number is set, also set the last of these bits, so that
        // ties are rounded correctly.
        let zeros = top.leading_zeros();
        let (mut bits, mut exponent) = (0_u128, (self.first - 4) * DIGIT_BITS + scale - zeros.cast_signed());
        exponent += i32::try_from(self.digits.len()).unwrap_or(0) * DIGIT_BITS;
        let mut digits = self.digits.iter().rev();
        for place in (0..4).rev() {
            bits |= u128::from(*digits.next().unwrap_or(&0)) << (place * DIGIT_BITS);
        }
        let next = *digits.next().unwrap_or(&0);
        bits = (bits << zeros) | u128::from(u64::from(next) << zeros >> DIGIT_BITS);
        let is_rest = (next << zeros) != 0 || digits.any(|digit| *digit != 0);
        let magnitude = round(bits | u128::from(is_rest), exponent);
        if self.is_negative { -magnitude } else { magnitude }
    }

    /// Returns the smallest `size` for which the absolute value is less than `2^size`.
    pub(super) fn size(&self) -> i32 {
        let zeros = self.digits.last().map_or(0, |top| top.leading_zeros());
        (self.first + i32::try_from(self.digits.len()).unwrap_or(0)) * DIGIT_BITS - zeros.cast_signed()
    }
}

/// Rounds `bits · 2^exponent` to the nearest double. The highest bit of `bits` must be set.
fn round(bits: u128, exponent: i32) -> f64 {
    // A double has 53 bits, or fewer if it is subnormal.
    let lowest = (exponent + 75).max(-1074);
    let drop = u32::try_from(lowest - exponent).unwrap_or(0);
    if drop > 128 {
        return 0.0;
    }
    let kept = bits.checked_shr(drop).unwrap_or(0);
    let (half, rest) = (1_u128 << (drop - 1), bits & (u128::MAX >> (128 - drop)));
    let is_up = rest > half || rest == half && kept & 1 == 1;
    (kept + u128::from(is_up)) as f64 * power_of_two(lowest)
}

/// Returns `2^exponent` as a double. If the power is less than the smallest subnormal number, returns 0. If it is
/// greater than the largest double, returns infinity.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        -1022..=1023 => f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << 52),
        -1074..=-1023 => f64::from_bits(1 << (exponent + 1074)),
        ..-1074 => 0.0,
        1024.. => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: f64) -> (i64, i32) {
        let exponent = i32::try_from(value.to_bits() >> 52 & 0x7ff).unwrap();
        let fraction = (value.to_bits() & ((1 << 52) - 1)).cast_signed();
        let integer = if exponent == 0 { fraction } else { fraction | 1 << 52 };
        (if value < 0.0 { -integer } else { integer }, exponent.max(1) - 1075)
    }

    fn exact(values: &[f64]) -> Exact {
        let mut limbs = Limbs::default();
        for value in values {
            let (integer, exponent) = parts(*value);
            limbs.add(integer, exponent);
        }
        limbs.exact()
    }

    #[test]
    fn one_value_is_returned_unchanged() {
        for value in [1.0, -1.0, 0.1, 1e300, -1e-300, 5e-324, f64::MIN_POSITIVE, f64::MAX, f64::MIN, 3e-310, 0.0] {
            assert_eq!(exact(&[value]).scaled(0), value, "{value:e}");
        }
    }

    #[test]
    fn sums_are_rounded_once_to_even() {
        let two_53 = 9_007_199_254_740_992.0;
        for (values, expected) in [
            (&[two_53, 1.0][..], two_53),
            (&[two_53, 1.0, 1e-300], two_53 + 2.0),
            (&[two_53, 1.0, -1e-300], two_53),
            (&[two_53 + 2.0, 1.0], two_53 + 4.0),
            (&[1e17, 1.0, -1e17], 1.0),
            (&[f64::MAX, f64::MAX, f64::MIN], f64::MAX),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[f64::MIN, f64::MIN], f64::NEG_INFINITY),
            (&[5e-324, 5e-324, 1.0, -1.0], 1e-323),
            (&[1e300, 1e-300, -1e300, -1e-300], 0.0),
        ] {
            assert_eq!(exact(values).scaled(0), expected, "{values:?}");
        }
        let wide = |integer: i128, exponent: i32| {
            let mut limbs = Limbs::default();
            limbs.add_wide(integer, exponent);
            limbs.exact().scaled(0)
        };
        assert_eq!(wide(3, -1075), 1e-323);
        assert_eq!(wide(1, -1075), 0.0);
        assert_eq!(wide(i128::MIN, 10), -(2.0_f64.powi(137)));
        assert_eq!(wide(i128::MAX, -3), 2.0_f64.powi(124));
    }

    #[test]
    fn products_and_differences_are_exact() {
        let ten = exact(&[10.0]);
        assert_eq!(ten.square(), exact(&[100.0]));
        assert_eq!(ten.times(3), exact(&[30.0]));
        assert_eq!(exact(&[1e200]).square().scaled(-700), exact(&[1e200]).scaled(-350).powi(2));
        assert_eq!(ten.square().minus(&exact(&[1e-300])).scaled(0), 100.0);
        assert_eq!(exact(&[1.0]).minus(&exact(&[2.5])).scaled(0), -1.5);
        assert_eq!(exact(&[]).minus(&exact(&[2.5])).scaled(0), -2.5);
        assert_eq!(ten.minus(&ten), exact(&[]));
        assert_eq!(exact(&[8.0]).size(), 4);
    }
}
