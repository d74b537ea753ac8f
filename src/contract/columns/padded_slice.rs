//! [`PaddedSlice`]: a string within a larger buffer. Short strings are copied and compared in chunks of a fixed size,
//! which may include bytes that follow the string.

/// The maximum length of a short string. A buffer should have this much spare capacity, because appending a short
/// string may temporarily write this many bytes. Otherwise, appending the last string may reallocate the buffer.
pub const SHORT_BYTES_MAX: usize = 16;

/// Two masks for each length of a short string. They select the string's bytes in two 64-bit words, and clear the bytes
/// that follow the string.
const MASKS: [[u64; 2]; SHORT_BYTES_MAX + 1] = {
    let mut masks = [[0; 2]; SHORT_BYTES_MAX + 1];
    let mut length = 1;
    while length <= SHORT_BYTES_MAX {
        let all = u128::MAX >> (8 * (SHORT_BYTES_MAX - length));
        masks[length] = [all as u64, (all >> 64) as u64];
        length += 1;
    }
    masks
};

/// A string and the buffer that contains it.
#[derive(Debug, Clone, Copy)]
pub struct PaddedSlice<'a> {
    source: &'a [u8],
    start: usize,
    length: usize,
}

impl<'a> PaddedSlice<'a> {
    /// Returns the string `source[start..end]`.
    #[inline]
    pub fn new(source: &'a [u8], start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= source.len(), "{start}..{end} of {}", source.len());
        Self { source, start, length: end - start }
    }

    /// Returns a string that consists of the whole buffer `source`.
    #[inline]
    pub fn unpadded(source: &'a [u8]) -> Self {
        Self { source, start: 0, length: source.len() }
    }

    /// Returns the bytes of the string.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        &self.source[self.start..self.start + self.length]
    }

    /// Returns the length in bytes.
    #[inline]
    pub fn length(self) -> usize {
        self.length
    }

    /// Appends the string to `bytes`.
    #[inline]
    pub fn append_to(self, bytes: &mut Vec<u8>) {
        match self.chunk() {
            Some(chunk) if self.length <= SHORT_BYTES_MAX => {
                let begin = bytes.len();
                bytes.extend_from_slice(chunk);
                bytes.truncate(begin + self.length);
            }
            _ => bytes.extend_from_slice(self.bytes()),
        }
    }

    /// Returns the bytes of a short string as two 64-bit words, padded with zeros. Two strings are equal if their words
    /// and their lengths are equal. Returns `None` for a longer string.
    #[inline]
    pub fn words(self) -> Option<[u64; 2]> {
        let [low, high] = MASKS.get(self.length)?;
        let Some(chunk) = self.chunk() else { return Some(self.last_words()) };
        let (one, other) = chunk.split_at(SHORT_BYTES_MAX / 2);
        let number = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
        // The masks remove the bytes that follow the string.
        Some([number(one) & low, number(other) & high])
    }

    /// Computes [`Self::words`] for a string that starts fewer than [`SHORT_BYTES_MAX`] bytes before the end of its
    /// buffer.
    #[cold]
    fn last_words(self) -> [u64; 2] {
        let mut chunk = [0; SHORT_BYTES_MAX];
        chunk[..self.length].copy_from_slice(self.bytes());
        let chunk = u128::from_le_bytes(chunk);
        [chunk as u64, (chunk >> 64) as u64]
    }

    /// Returns [`SHORT_BYTES_MAX`] bytes of the buffer from the start of the string, or `None` if fewer bytes are left.
    #[inline]
    fn chunk(self) -> Option<&'a [u8; SHORT_BYTES_MAX]> {
        self.source.get(self.start..self.start + SHORT_BYTES_MAX)?.first_chunk()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_copied_and_compared_correctly_at_any_position() {
        let source = b"0123456789abcdefghijklmnop";
        for start in 0..=source.len() {
            for end in start..=source.len() {
                let (text, within) = (&source[start..end], PaddedSlice::new(source, start, end));
                let mut bytes = b"before ".to_vec();
                within.append_to(&mut bytes);
                assert_eq!((within.bytes(), &bytes[7..]), (text, text));
                let number = text.iter().rev().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
                let numbers = (text.len() <= SHORT_BYTES_MAX).then_some([number as u64, (number >> 64) as u64]);
                assert_eq!((within.words(), PaddedSlice::unpadded(text).words()), (numbers, numbers), "{start}..{end}");
            }
        }
    }
}
