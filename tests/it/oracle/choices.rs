//! Random choices that are derived from bytes. The same bytes produce the same choices, so a failing case can be stored
//! and reduced, and a fuzzer can find it.
//!
//! **Invariant:** zero always selects the simplest choice, and reading past the end of the input returns zeros.
//! Generation therefore always ends, and fewer input bytes produce a simpler case.

/// The bytes that no choice has used yet.
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Returns true if no bytes are left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a number less than `end`, which must be at most 256.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// Returns true with a probability of about `parts` in 256. Returns false if no bytes are left.
    pub(super) fn chance(&mut self, parts: u8) -> bool {
        self.byte() > u8::MAX - parts
    }

    /// Returns one of the options. Returns the first option if no bytes are left.
    pub(super) fn pick<'t, T: ?Sized>(&mut self, options: &[&'t T]) -> &'t T {
        options[self.below(options.len())]
    }

    /// Returns the next eight bytes as a number.
    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// Returns a small integer, an integer near a power of two, or an arbitrary integer.
    pub(super) fn integer(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.byte()),
            1 => (1_u64 << self.below(64)).wrapping_sub(1).wrapping_add(u64::from(self.byte() % 3)),
            2 => (1_u64 << self.below(64)).wrapping_neg().wrapping_sub(1).wrapping_add(u64::from(self.byte() % 3)),
            _ => self.u64(),
        }
    }

    /// Damages the bytes in up to four places. At each place, a byte is changed, removed, repeated or swapped, or the
    /// bytes are truncated.
    pub(super) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = (self.byte() as usize | (self.byte() as usize) << 8) % bytes.len();
            match self.below(6) {
                0 => bytes[at] = self.byte(),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, bytes[at]),
                4 => bytes.truncate(at),
                _ => {
                    let from = self.below(bytes.len().min(256));
                    bytes.swap(at, from);
                }
            }
        }
    }
}
