//! Snapshots: the whole applied state as bytes, and the file that keeps the latest.
//!
//! ```text
//! file:  magic "HFSNAP" | format u16 | crc32c of the rest u32 | length of head u32 | head | body
//!         head: last log id, membership and name of the snapshot, encoded by the caller
//!         body: `encode_body`, the same bytes that travel between controllers
//! ```
//! The file is replaced atomically: there is the old one or the new one, whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::metadata::{ClusterMap, MapError, Metadata, Update};
use holdfast_log::{Fs, OpenMode, atomic_write, is_full};
use serde::{Deserialize, Serialize};

use super::crc32c;

/// A larger snapshot is refused, from the disk as from the network.
pub(crate) const MAX_SNAPSHOT: u64 = 1 << 30;

const MAGIC: &[u8; 6] = b"HFSNAP";
const FORMAT: u16 = 1;
const HEADER: usize = 16;

/// Why a snapshot could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("reading or writing the snapshot: {0}")]
    Io(#[from] io::Error),
    #[error("snapshot of {0} bytes is larger than {MAX_SNAPSHOT}")]
    TooLarge(u64),
    #[error("not a snapshot, or cut short")]
    NotASnapshot,
    #[error("snapshot format {0} is not known to this version")]
    Format(u16),
    #[error("snapshot checksum {found:08x} should be {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("snapshot body: {0}")]
    Postcard(#[from] postcard::Error),
    #[error("snapshot body: {0}")]
    Map(#[from] MapError),
}

impl SnapshotError {
    /// Whether there is no room for it: it may be written when there is.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, SnapshotError::Io(error) if is_full(error))
    }
}

/// What travels.
#[derive(Serialize, Deserialize)]
struct Body {
    next_producer_id: i64,
    map: Update,
}

/// The state as bytes, behind a format byte.
pub(crate) fn encode_body(metadata: &Metadata) -> Result<Vec<u8>, SnapshotError> {
    let body = Body { next_producer_id: metadata.next_producer_id(), map: metadata.map().snapshot() };
    Ok(postcard::to_extend(&body, vec![FORMAT as u8])?)
}

/// The state from bytes: complete, or refused.
pub(crate) fn decode_body(bytes: &[u8]) -> Result<Metadata, SnapshotError> {
    let (&format, body) = bytes.split_first().ok_or(SnapshotError::NotASnapshot)?;
    if u16::from(format) != FORMAT {
        return Err(SnapshotError::Format(format.into()));
    }
    let body: Body = postcard::from_bytes(body)?;
    let mut map = ClusterMap::default();
    map.adopt(&body.map)?;
    Ok(Metadata::from_parts(map, body.next_producer_id))
}

/// What the file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// What the caller wrote before the body.
    pub(crate) head: Vec<u8>,
    /// The state, for `decode_body`.
    pub(crate) body: Vec<u8>,
}

/// The file with the latest snapshot.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
}

impl SnapshotFile {
    /// In `dir`.
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: &Path) -> Self {
        SnapshotFile { fs, path: dir.join("snapshot") }
    }

    /// Replaces what is there; durable on return.
    pub(crate) fn write(&self, head: &[u8], body: &[u8]) -> Result<(), SnapshotError> {
        let length = head.len() as u64 + body.len() as u64;
        let head_length = u32::try_from(head.len()).map_err(|_| SnapshotError::TooLarge(length))?;
        if length > MAX_SNAPSHOT {
            return Err(SnapshotError::TooLarge(length));
        }
        let mut checked = Vec::with_capacity(HEADER + head.len() + body.len());
        checked.extend_from_slice(MAGIC);
        checked.extend_from_slice(&FORMAT.to_le_bytes());
        checked.extend_from_slice(&[0; 4]);
        checked.extend_from_slice(&head_length.to_le_bytes());
        checked.extend_from_slice(head);
        checked.extend_from_slice(body);
        let checksum = crc32c(&checked[12..]);
        checked[8..12].copy_from_slice(&checksum.to_le_bytes());
        Ok(atomic_write(&*self.fs, &self.path, &checked)?)
    }

    /// What is there, if anything is.
    pub(crate) fn read(&self) -> Result<Option<Parts>, SnapshotError> {
        if !self.fs.exists(&self.path)? {
            return Ok(None);
        }
        let file = self.fs.open(&self.path, OpenMode::Existing)?;
        let length = file.len()?;
        if length > MAX_SNAPSHOT + HEADER as u64 {
            return Err(SnapshotError::TooLarge(length));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| SnapshotError::TooLarge(length))?];
        file.read_exact_at(&mut bytes, 0)?;
        let body_length = split(&bytes)?;
        let head = bytes[HEADER..bytes.len() - body_length].to_vec();
        bytes.drain(..bytes.len() - body_length);
        Ok(Some(Parts { head, body: bytes }))
    }
}

/// Checks the file and gives the length of its body.
fn split(bytes: &[u8]) -> Result<usize, SnapshotError> {
    let (header, rest) = bytes.split_at_checked(HEADER).ok_or(SnapshotError::NotASnapshot)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if !header.starts_with(MAGIC) {
        return Err(SnapshotError::NotASnapshot);
    }
    let format = u16::from_le_bytes([header[6], header[7]]);
    if format != FORMAT {
        return Err(SnapshotError::Format(format));
    }
    let (expected, found) = (word(8), crc32c(&bytes[12..]));
    if expected != found {
        return Err(SnapshotError::Checksum { found, expected });
    }
    rest.len().checked_sub(word(12) as usize).ok_or(SnapshotError::NotASnapshot)
}

#[cfg(test)]
mod tests {
    use holdfast_log::RealFs;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = SnapshotFile::new(Arc::new(RealFs), dir.path());
        assert!(file.read().unwrap().is_none());
        file.write(b"head", b"body").unwrap();
        let parts = Parts { head: b"head".to_vec(), body: b"body".to_vec() };
        assert_eq!(file.read().unwrap().unwrap(), parts);
        let good = std::fs::read(&file.path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file.path, &bad).unwrap();
            assert!(file.read().is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            std::fs::write(&file.path, &good[..length]).unwrap();
            assert!(file.read().is_err(), "length {length}");
        }
    }
}
