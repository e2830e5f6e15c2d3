//! Writes a history from one place.

use std::io::Write;

use super::{Event, line};

/// Writes events, one a line.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes there. Whoever wants few calls gives a buffered output.
    pub fn new(output: W) -> Writer<W> {
        Writer { output, buffer: Vec::new() }
    }

    /// Writes one event.
    ///
    /// # Errors
    /// What the output said.
    pub fn write(&mut self, event: &Event) -> std::io::Result<()> {
        self.buffer.clear();
        line::write(event, &mut self.buffer);
        self.output.write_all(&self.buffer)
    }

    /// Flushes the output and gives it back.
    ///
    /// # Errors
    /// What the output said.
    pub fn finish(mut self) -> std::io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}
