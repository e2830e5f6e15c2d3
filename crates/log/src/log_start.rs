//! Where a log starts once something was trimmed from its front, and what its owner has to know of that.
//!
//! ```text
//! 0 "hflogbeg"   8 version u32   12 crc-32c of the rest u32   16 log start offset u64   24 epoch of the batch below i32
//! 28 the owner's snapshot of what lies below
//! ```
//! All big endian. Replaced atomically, and durable before a byte below goes: so what is left of that is no part of the log,
//! whether it was removed or not. Without the file the log starts at 0.
//!
//! Unlike a checkpoint it cannot be done without: the batches that tell the same are gone. One that is bad is damage.

use std::path::{Path, PathBuf};

use holdfast_core::replication::Position;
use holdfast_core::{LeaderEpoch, Offset, mutant};

use crate::fs::temporary_path;
use crate::sealed_file::{self, Seal};
use crate::{Damage, Fs, LogError, OpenMode, atomic_write};

const SEAL: Seal = Seal { magic: b"hflogbeg", version: 1 };

/// The start of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogStart {
    /// The log start offset, a batch boundary, and the epoch of the batch below.
    pub(crate) base: Position,
    /// The owner's own, of all below; empty where nothing is.
    pub(crate) snapshot: Vec<u8>,
}

/// Where it is noted.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("log-start")
}

/// What is noted in `dir`; 0 where nothing is.
///
/// # Errors
/// [`LogError::Corrupt`] where it cannot be made out.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<LogStart, LogError> {
    let path = path(dir);
    let Some(bytes) = sealed_file::read(fs, &path, "reading log start")? else {
        return Ok(LogStart::default());
    };
    decode(&bytes).ok_or_else(|| LogError::Corrupt {
        offset: Offset::ZERO,
        segment: path.clone(),
        position: 0,
        source: Damage::LogStart,
    })
}

impl LogStart {
    /// Notes it in `dir`, durably.
    pub(crate) fn write(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        let path = path(dir);
        let written = atomic_write(fs, &path, &self.encode());
        written.map_err(LogError::io("writing log start", &path))
    }

    /// The same, for a log that began anew.
    pub(crate) fn write_for_reset(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        if !mutant!(ResetWithoutSync) {
            return self.write(fs, dir);
        }
        let path = path(dir);
        let temporary = temporary_path(&path);
        let file = fs.open(&temporary, OpenMode::Truncate);
        let written = file.and_then(|file| file.write_all_at(&[&self.encode()], 0));
        let renamed = written.and_then(|()| fs.rename(&temporary, &path));
        renamed.map_err(LogError::io("writing log start", &path))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = SEAL.begin();
        bytes.extend_from_slice(&self.base.end.0.to_be_bytes());
        bytes.extend_from_slice(&self.base.epoch.to_wire().to_be_bytes());
        bytes.extend_from_slice(&self.snapshot);
        SEAL.close(bytes)
    }
}

fn decode(bytes: &[u8]) -> Option<LogStart> {
    let (offset, rest) = SEAL.open(bytes)?.split_first_chunk()?;
    let (epoch, snapshot) = rest.split_first_chunk()?;
    let epoch = LeaderEpoch::from_wire(i32::from_be_bytes(*epoch))?;
    // Offsets are i64 in batch headers.
    let offset = u64::from_be_bytes(*offset);
    let base = Position { epoch, end: Offset(offset) };
    i64::try_from(offset).ok()?;
    Some(LogStart { base, snapshot: snapshot.to_vec() })
}

#[cfg(test)]
mod tests {
    use holdfast_core::Term;

    use super::*;
    use crate::MemFs;

    #[test]
    fn a_start_reads_back_and_every_damage_is_found() {
        let fs = MemFs::new();
        let dir = Path::new("/");
        assert_eq!(read(&fs, dir).unwrap(), LogStart::default());
        let base = Position { epoch: LeaderEpoch { term: Term(7), run: 2 }, end: Offset(1 << 40) };
        let start = LogStart { base, snapshot: b"producers".to_vec() };
        start.write(&fs, dir).unwrap();
        assert_eq!(read(&fs, dir).unwrap(), start);
        let whole = start.encode();
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), None, "cut to {cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
    }
}
