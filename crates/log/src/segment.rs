//! One file of contiguous batches, named by the offset of its first one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchHeader, HEADER_LEN};

use crate::error::Damage;
use crate::index::OffsetIndex;
use crate::window::Window;
use crate::{File, LogError};

/// A segment as readers see it: `len` bytes of whole batches. The file may be longer while an append runs.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// Offset of the first batch.
    pub(crate) base: Offset,
    /// Offset behind the last batch (exclusive).
    pub(crate) end: Offset,
    /// Bytes of whole batches.
    pub(crate) len: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: Arc<Path>,
    pub(crate) index: OffsetIndex,
}

/// A batch found by walking headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) header: BatchHeader,
    pub(crate) position: u64,
}

impl Segment {
    /// An empty one.
    pub(crate) fn new(base: Offset, path: PathBuf, file: Arc<dyn File>) -> Segment {
        Segment { base, end: base, len: 0, file, path: path.into(), index: OffsetIndex::default() }
    }

    /// Takes in the batch that now stands at the end.
    pub(crate) fn push(&mut self, header: &BatchHeader, interval: u64) {
        self.index.add(header.base_offset - self.base, self.len, header.max_timestamp, interval);
        self.len += u64::from(header.length);
        self.end = header.next_offset();
    }

    /// Whether a batch of that size and end may still be appended. An empty segment takes any.
    pub(crate) fn has_room(&self, len: u64, end: Offset, batch: &BatchHeader, segment_size: u64) -> bool {
        len == 0
            || (len + u64::from(batch.length) <= segment_size
                && end - self.base + u64::from(batch.records) <= u64::from(u32::MAX))
    }

    /// Forgets the batches from `position` on, the first of which has offset `end`. `max_timestamp` is the largest
    /// of the batches that stay behind the last index entry below `position`.
    pub(crate) fn truncate(&mut self, position: u64, end: Offset, max_timestamp: Option<i64>) {
        self.index.truncate(position, max_timestamp);
        self.len = position;
        self.end = end;
    }

    /// The same segment for reading outside the lock.
    pub(crate) fn without_index(&self) -> Segment {
        Segment {
            file: Arc::clone(&self.file),
            path: Arc::clone(&self.path),
            index: OffsetIndex::default(),
            ..*self
        }
    }

    /// Walks batches from the one at `position` on, until `stop` says so or the segment ends.
    pub(crate) fn walk(
        &self,
        mut position: u64,
        mut stop: impl FnMut(&Found) -> bool,
    ) -> Result<Option<Found>, LogError> {
        let mut window = Window::new(&*self.file, self.len, HEADER_LEN);
        let mut expected = None;
        while position < self.len {
            let bytes =
                window.get(position, HEADER_LEN).map_err(LogError::io("reading segment", &self.path))?;
            let header = BatchHeader::decode(bytes).map_err(|error| self.corrupt(position, error.into()))?;
            let base = header.base_offset;
            let expected_base = expected.unwrap_or(base);
            if base != expected_base {
                let damage = Damage::Gap { expected: expected_base, found: base };
                return Err(self.corrupt(position, damage));
            }
            let found = Found { header, position };
            if stop(&found) {
                return Ok(Some(found));
            }
            expected = Some(header.next_offset());
            position += u64::from(header.length);
        }
        Ok(None)
    }

    /// Damage found while reading what was whole once. Where the batch headers cannot be believed, the offset is
    /// only known to be in this segment.
    pub(crate) fn corrupt(&self, position: u64, source: Damage) -> LogError {
        LogError::Corrupt { offset: self.base, segment: self.path.to_path_buf(), position, source }
    }
}

/// Name of the segment that starts at `base`: twenty digits, so that names sort as offsets do.
pub(crate) fn file_name(base: Offset) -> String {
    format!("{:020}.log", base.0)
}

/// The base offset in a segment's name; `None` if it is not one.
pub(crate) fn parse_file_name(name: &OsStr) -> Option<Offset> {
    let digits = name.to_str()?.strip_suffix(".log")?;
    let canonical = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| canonical).map(Offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_does() {
        assert_eq!(file_name(Offset(42)), "00000000000000000042.log");
        assert_eq!(parse_file_name(file_name(Offset(u64::MAX)).as_ref()), Some(Offset(u64::MAX)));
        for name in
            ["42.log", "+0000000000000000042.log", "00000000000000000042.idx", "99999999999999999999.log"]
        {
            assert_eq!(parse_file_name(name.as_ref()), None, "{name}");
        }
    }
}
