//! Reads a history one line at a time: memory for one line, and for each key once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{BufRead, Read as _};
use std::sync::Arc;

use super::Event;
use super::line::{self, LineProblem};

/// Bytes that a line may have.
pub const LONGEST_LINE: u64 = 64 << 20;
/// Texts kept in one place: keys, names, errors. More than that many are kept once per line.
const SHARED: usize = 1 << 16;

/// A history cannot be read. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file, not its content.
    #[error("reading line {line}: {source}")]
    Io {
        /// Where.
        line: u64,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The line is no event.
    #[error("line {line}: {source}")]
    Line {
        /// Which.
        line: u64,
        /// Why.
        #[source]
        source: LineProblem,
    },
    /// The line does not end.
    #[error("line {line} is longer than {} MiB: no history, or a damaged one", LONGEST_LINE >> 20)]
    TooLong {
        /// Which.
        line: u64,
    },
    /// The last line has no line feed: whoever wrote it was stopped in the middle.
    #[error(
        "line {line} is torn: the recorder was stopped in the middle of it; remove that line to judge the rest"
    )]
    Torn {
        /// Which.
        line: u64,
    },
}

/// Iterates over the events of a history, each with the number of its line from 1. Ends after the first error.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: u64,
    buffer: Vec<u8>,
    shared: HashSet<Arc<str>>,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from there.
    pub fn new(input: R) -> Reader<R> {
        Reader { input, line: 0, buffer: Vec::new(), shared: HashSet::new(), ended: false }
    }

    fn next_event(&mut self) -> Result<Option<(u64, Event)>, ReadError> {
        self.buffer.clear();
        self.line += 1;
        let line = self.line;
        let read = (&mut self.input).take(LONGEST_LINE).read_until(b'\n', &mut self.buffer);
        if read.map_err(|source| ReadError::Io { line, source })? == 0 {
            return Ok(None);
        }
        if self.buffer.last() != Some(&b'\n') {
            let whole = self.buffer.len() as u64 == LONGEST_LINE;
            return Err(if whole { ReadError::TooLong { line } } else { ReadError::Torn { line } });
        }
        let shared = &mut self.shared;
        let event = line::parse(&self.buffer, |text| share(shared, text));
        event.map(|event| Some((line, event))).map_err(|source| ReadError::Line { line, source })
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<(u64, Event), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_event().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

fn share(shared: &mut HashSet<Arc<str>>, text: Cow<'_, str>) -> Arc<str> {
    if let Some(known) = shared.get(&*text) {
        return Arc::clone(known);
    }
    let text: Arc<str> = text.into();
    if shared.len() < SHARED {
        shared.insert(Arc::clone(&text));
    }
    text
}
