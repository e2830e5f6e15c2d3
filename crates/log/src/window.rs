//! Reads a file forward through a buffer of bounded size.

use std::io;

use crate::File;

/// A moving view of a file.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    /// First byte behind what may be read.
    end: u64,
    /// Least number of bytes per read, as far as the file goes.
    read_ahead: usize,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    /// A view of the first `end` bytes of `file`.
    pub(crate) fn new(file: &'a dyn File, end: u64, read_ahead: usize) -> Window<'a> {
        Window { file, end, read_ahead, start: 0, buffer: Vec::new() }
    }

    /// How many bytes there are from `position` on.
    pub(crate) fn remaining(&self, position: u64) -> u64 {
        self.end.saturating_sub(position)
    }

    /// The bytes from `position` on, `len` of them or as many as there are. Holds at most the larger of `len` and
    /// the read-ahead in memory.
    pub(crate) fn get(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.remaining(position)).unwrap_or(usize::MAX);
        let len = len.min(available);
        let held_until = self.start + self.buffer.len() as u64;
        if position < self.start || position + len as u64 > held_until {
            self.buffer.resize(len.max(self.read_ahead).min(available), 0);
            self.start = position;
            if let Err(error) = self.file.read_exact_at(&mut self.buffer, position) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let from = (position - self.start) as usize;
        Ok(&self.buffer[from..from + len])
    }
}
