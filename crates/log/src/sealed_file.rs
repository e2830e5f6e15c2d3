//! Small files that are written as a whole, and tell by themselves whether they are what was written.
//!
//! ```text
//! 0 magic   8 version u32   12 crc-32c of the rest u32   16 the rest
//! ```
//! All big endian.

use std::path::Path;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};

use crate::{Fs, LogError, OpenMode};

/// First byte under the checksum.
const CHECKED: usize = 16;

/// What stands in front of the content of a kind of file.
#[derive(Debug)]
pub(crate) struct Seal {
    pub(crate) magic: &'static [u8; 8],
    pub(crate) version: u32,
}

impl Seal {
    /// The begin of a file, behind which its content is to be put.
    pub(crate) fn begin(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    /// The file whose content is complete.
    pub(crate) fn close(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[CHECKED..]) as u32;
        bytes[12..CHECKED].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The content of a file; `None` if it is not what was written, of this kind and version.
    pub(crate) fn open<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (version, rest) = bytes.strip_prefix(self.magic)?.split_first_chunk()?;
        let (stored, content) = rest.split_first_chunk()?;
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, content) as u32;
        let known = u32::from_be_bytes(*version) == self.version && u32::from_be_bytes(*stored) == crc;
        known.then_some(content)
    }
}

/// All bytes of a file; `None` where there is none.
///
/// # Errors
/// [`LogError::Io`], with what was being `doing`.
pub(crate) fn read(fs: &dyn Fs, path: &Path, doing: &'static str) -> Result<Option<Bytes>, LogError> {
    let failed = |error| LogError::io(doing, path)(error);
    if !fs.exists(path).map_err(failed)? {
        return Ok(None);
    }
    let file = fs.open(path, OpenMode::ReadOnly).map_err(failed)?;
    let len = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
    file.read_bytes(0, len).map(Some).map_err(failed)
}
