//! Cuts bytes into lines, without copying those that lie within one chunk.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::{memchr, memmem};

use crate::exit::{self, CliError};

/// A line that is longer than any record can be: the largest record has 8 MiB.
const LONGEST: usize = 9 << 20;

/// Lines of what was pushed. The byte `\n` ends a line and belongs to none; the last line may go without.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Begun in an earlier chunk. At most `LONGEST` and a chunk.
    begun: BytesMut,
    chunk: Bytes,
    /// Lines cut so far.
    count: u64,
}

impl Lines {
    /// Adds bytes. Take all lines first.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "lines of the chunk before were not taken");
        self.chunk = chunk;
    }

    /// The next whole line; `None` where more bytes are needed.
    pub(super) fn next_line(&mut self) -> Option<Bytes> {
        let Some(end) = memchr(b'\n', &self.chunk) else {
            self.begun.extend_from_slice(&self.chunk);
            self.chunk.clear();
            return None;
        };
        let rest = self.chunk.split_to(end);
        self.chunk.advance(1);
        self.count += 1;
        if self.begun.is_empty() {
            return Some(rest);
        }
        self.begun.extend_from_slice(&rest);
        Some(self.begun.split().freeze())
    }

    /// What follows the last `\n`, if anything does. For the end of the input.
    pub(super) fn last_line(&mut self) -> Option<Bytes> {
        debug_assert!(self.chunk.is_empty(), "whole lines were not taken");
        let line = self.begun.split().freeze();
        self.count += u64::from(!line.is_empty());
        (!line.is_empty()).then_some(line)
    }

    /// Lines taken so far: the number of the last one, counted from 1.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whether a line has no end for so long that it cannot be a record.
    pub(super) fn is_too_long(&self) -> bool {
        self.begun.len() > LONGEST
    }

    /// What to say then.
    pub(super) fn too_long(&self) -> CliError {
        let why = format!("line {} is longer than 8 MiB, the largest record", self.count + 1);
        let next = "is it text with lines? the lines before it were sent";
        CliError::new(exit::DATA, "cutting the input into records", why, next)
    }
}

/// Where `needle` begins in `line`.
pub(super) fn find(line: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [byte] => memchr(*byte, line),
        _ => memmem::find(line, needle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `input` where it comes in pieces of `size` bytes.
    fn lines(input: &[u8], size: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in input.chunks(size) {
            lines.push(Bytes::copy_from_slice(piece));
            while let Some(line) = lines.next_line() {
                found.push(line.to_vec());
            }
        }
        found.extend(lines.last_line().map(|line| line.to_vec()));
        found
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        let input = b"first\n\nthird \xff\x00 bytes\r\nlast without end";
        let expected: [&[u8]; 4] = [b"first", b"", b"third \xff\x00 bytes\r", b"last without end"];
        for size in 1..=input.len() {
            assert_eq!(lines(input, size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_end_of_line_begins_no_line() {
        assert!(lines(b"", 1).is_empty());
        assert_eq!(lines(b"\n", 1), [b""]);
        assert_eq!(lines(b"a\n", 1), [b"a"]);
    }

    #[test]
    fn a_line_without_end_is_noticed() {
        let mut lines = Lines::default();
        lines.push(Bytes::from_static(b"one\n"));
        while lines.next_line().is_some() {}
        lines.push(Bytes::from(vec![b'x'; LONGEST + 1]));
        assert!(lines.next_line().is_none() && lines.is_too_long());
        assert!(lines.too_long().why.contains("line 2 "));
    }

    #[test]
    fn separators_of_any_length_are_found() {
        assert_eq!(find(b"key:value:more", b":"), Some(3));
        assert_eq!(find(b"key=>value", b"=>"), Some(3));
        assert_eq!(find(b"value", b":"), None);
    }
}
