//! Choices derived from bytes: the same bytes give the same choices, so a failing case can be kept, shrunk, and found by a fuzzer.
//!
//! **Invariant:** after the last byte, every byte is zero, and zero always selects the simplest choice. So generation ends, and
//! fewer bytes give a simpler case.

/// The remaining bytes.
pub(super) struct Dice<'a>(&'a [u8]);

impl<'a> Dice<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Whether no byte is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `end`, which is at most 256.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// True with a probability of about `parts` in 256; false when no byte is left.
    pub(super) fn once_in_a_while(&mut self, parts: u8) -> bool {
        self.byte() > u8::MAX - parts
    }

    /// One of these; the first one when no byte is left.
    pub(super) fn pick<'t, T: ?Sized>(&mut self, choices: &[&'t T]) -> &'t T {
        choices[self.below(choices.len())]
    }

    /// Eight bytes.
    pub(super) fn word(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// An integer that is useful in tests: small, near a power of two, or any.
    pub(super) fn integer(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.byte()),
            1 => (1_u64 << self.below(64)).wrapping_sub(1).wrapping_add(u64::from(self.byte() % 3)),
            2 => (1_u64 << self.below(64)).wrapping_neg().wrapping_sub(1).wrapping_add(u64::from(self.byte() % 3)),
            _ => self.word(),
        }
    }

    /// Damages bytes in a few places: changes, removes or doubles a byte, or truncates after it.
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
