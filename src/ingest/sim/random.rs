//! Seeded random numbers. A schedule has no other source of randomness.
//!
//! A generator is created from a seed and a purpose, and returns the same numbers in every run.
//!
//! **Invariant:** generators for different purposes are independent. A change to one part of a schedule does not change
//! the random numbers in the other parts.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A random number generator for one purpose.
#[derive(Debug, Clone)]
pub(super) struct SeededRandom(u64);

impl SeededRandom {
    /// Creates the generator for a seed and a purpose.
    pub(super) fn of(seed: u64, purpose: impl Hash) -> Self {
        // A `DefaultHasher` has fixed keys, so the hash is the same in every process.
        let mut hasher = DefaultHasher::new();
        (seed, purpose).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Returns a number less than `bound`, or 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Returns true with the given probability in percent.
    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Returns a random element.
    pub(super) fn pick<T: Copy>(&mut self, elements: &[T]) -> T {
        elements[self.below(elements.len())]
    }

    /// Returns the next number of the SplitMix64 generator (Steele, Lea and Flood 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
