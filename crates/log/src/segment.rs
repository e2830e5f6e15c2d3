//! One file of contiguous batches, named by the offset of its first one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchHeader, HEADER_LEN};

use crate::error::Damage;
use crate::window::Window;
use crate::{File, LogError, recovery};

/// A segment as readers see it: `len` bytes of whole batches. The file may be longer while an append runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset of the first batch.
    pub(crate) base: Offset,
    /// Offset behind the last batch (exclusive).
    pub(crate) end: Offset,
    /// Bytes of whole batches.
    pub(crate) len: u64,
    /// Largest timestamp; `None` if it is empty.
    pub(crate) max_timestamp: Option<i64>,
    /// Blocks of its index file, once it is sealed; 0 where that is of no use.
    pub(crate) blocks: u32,
}

/// A batch found by walking headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) header: BatchHeader,
    pub(crate) position: u64,
}

impl Segment {
    /// An empty one.
    pub(crate) fn new(base: Offset) -> Segment {
        Segment { base, end: base, len: 0, max_timestamp: None, blocks: 0 }
    }

    /// Takes in the batch that now stands at the end.
    pub(crate) fn push(&mut self, header: &BatchHeader) {
        self.max_timestamp = self.max_timestamp.max(Some(header.max_timestamp));
        self.len += u64::from(header.length);
        self.end = header.next_offset();
    }

    /// Whether a batch may still be appended. An empty segment takes any.
    pub(crate) fn has_room(&self, batch: &BatchHeader, segment_size: u64) -> bool {
        self.len == 0
            || (self.len + u64::from(batch.length) <= segment_size
                && self.end - self.base + u64::from(batch.offsets()) <= u64::from(u32::MAX))
    }
}

/// A segment with its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentFile<'a> {
    pub(crate) segment: Segment,
    pub(crate) file: &'a dyn File,
    pub(crate) path: &'a Path,
}

impl SegmentFile<'_> {
    /// Walks batches from the one at `position` on, until `stop` says so or the segment ends.
    pub(crate) fn walk(
        &self,
        mut position: u64,
        mut stop: impl FnMut(&Found) -> bool,
    ) -> Result<Option<Found>, LogError> {
        let mut window = Window::new(self.file, self.segment.len, HEADER_LEN);
        let mut expected = None;
        while position < self.segment.len {
            let bytes =
                window.get(position, HEADER_LEN).map_err(LogError::io("reading segment", self.path))?;
            let here = expected.unwrap_or(self.segment.base);
            let header =
                BatchHeader::decode(bytes).map_err(|error| self.corrupt_at(here, position, error.into()))?;
            let base = header.base_offset;
            let expected_base = expected.unwrap_or(base);
            if base != expected_base {
                let damage = Damage::Gap { expected: expected_base, found: base };
                return Err(self.corrupt_at(expected_base, position, damage));
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

    /// Verifies the checksum of the batch at `position`, without holding the whole batch.
    pub(crate) fn verify(&self, position: u64) -> Result<(), LogError> {
        let mut window = Window::new(self.file, self.segment.len, HEADER_LEN);
        let checked = recovery::check_batch(&mut window, position, |_| true);
        let checked = checked.map_err(LogError::io("reading segment", self.path))?;
        checked.map(|_| ()).map_err(|error| self.corrupt(position, error.into()))
    }

    /// Damage found while reading what was whole once. Where the batch headers cannot be believed, the offset is
    /// only known to be in this segment.
    pub(crate) fn corrupt(&self, position: u64, source: Damage) -> LogError {
        self.corrupt_at(self.segment.base, position, source)
    }

    fn corrupt_at(&self, offset: Offset, position: u64, source: Damage) -> LogError {
        LogError::Corrupt { offset, segment: self.path.to_path_buf(), position, source }
    }
}

/// Where the segment at `base` is.
pub(crate) fn path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(file_name(base))
}

/// Name of the segment that starts at `base`: twenty digits, so that names sort as offsets do.
pub(crate) fn file_name(base: Offset) -> String {
    format!("{:020}.log", base.0)
}

/// The base offset in a segment's name; `None` if it is not one.
pub(crate) fn parse_file_name(name: &OsStr) -> Option<Offset> {
    parse_name(name, ".log")
}

/// The base offset in the name of a file that belongs to a segment; `None` if it is not one.
pub(crate) fn parse_name(name: &OsStr, suffix: &str) -> Option<Offset> {
    let digits = name.to_str()?.strip_suffix(suffix)?;
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
