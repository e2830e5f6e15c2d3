//! Zigzag variable-length integers, and a bounds-checked cursor over the bytes that hold them.

use std::ops::Range;

/// Reads forward through bytes. Every read is checked; a failed one is `None`.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor over `bytes` that stands at `position`.
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Cursor { bytes, position }
    }

    /// Where the next read starts.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.position)?;
        self.position += 1;
        Some(byte)
    }

    /// Steps over `len` bytes and says where they are.
    pub(super) fn take(&mut self, len: usize) -> Option<Range<usize>> {
        if len > self.remaining() {
            return None;
        }
        let start = self.position;
        self.position += len;
        Some(start..self.position)
    }

    /// A zigzag integer of at most 5 bytes. Longer spellings of the same number are refused as well: Kafka's
    /// clients cannot read them.
    pub(super) fn varint(&mut self) -> Option<i32> {
        let raw = u32::try_from(self.unsigned(5)?).ok()?;
        Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// A zigzag integer of at most 10 bytes.
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let raw = self.unsigned(10)?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn unsigned(&mut self, max_len: u32) -> Option<u64> {
        let mut value = 0_u64;
        for index in 0..max_len {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit only.
            if index == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The bytes of a field that starts with its length, -1 for null. The outer `None` is a framing error.
    pub(super) fn nullable(&mut self) -> Option<Option<Range<usize>>> {
        match self.varint()? {
            -1 => Some(None),
            len => Some(Some(self.take(usize::try_from(len).ok()?)?)),
        }
    }
}

/// Appends `value` as a zigzag integer of 1 to 10 bytes.
pub(super) fn put(buffer: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        buffer.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    buffer.push(rest as u8);
}

/// How many bytes [`put`] appends for `value`.
pub(super) fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back(value: i64) {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            prop_assert_eq!(buffer.len(), len(value));
            let mut cursor = Cursor::new(&buffer, 0);
            prop_assert_eq!(cursor.varlong(), Some(value));
            prop_assert_eq!(cursor.remaining(), 0);
            let narrow = Cursor::new(&buffer, 0).varint();
            prop_assert_eq!(narrow, i32::try_from(value).ok());
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        assert_eq!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 0).varint(), None);
        assert_eq!(Cursor::new(&[0xff; 11], 0).varlong(), None);
        assert_eq!(Cursor::new(&[0xff, 0xff], 0).varint(), None);
        let widest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&widest, 0).varlong(), Some(i64::MIN));
    }
}
