//! What is noted of a log's compaction.
//!
//! ```text
//!  0 "hfcompac"   8 version u32   12 crc-32c of the rest u32
//! 16 cleaned end u64   24 tombstones gone below u64
//! 32 a merge under way: base u64   40 end u64   48 position of its last batch u64     (all 0 for none)
//! 56 marks: end u64, time i64 (ms since 1970) each, to the end of the file
//! ```
//! All big endian. Replaced atomically, and durable before what it says may be acted on. Without the file nothing was cleaned.
//!
//! It cannot be done without: nothing else tells which tombstones are gone. One that is bad is damage.

use std::path::{Path, PathBuf};

use holdfast_core::Offset;

use super::marks::{Mark, Marks};
use crate::sealed_file::{self, Seal};
use crate::{Damage, Fs, LogError, atomic_write};

const SEAL: Seal = Seal { magic: b"hfcompac", version: 1 };

/// How far a log was compacted, and what was being done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Below it of each key only the last record is left (exclusive). May lie below the log start, where there is nothing.
    pub(crate) cleaned_end: Offset,
    /// Tombstones below may be gone (exclusive).
    pub(crate) tombstones_gone_below: Offset,
    /// Since when it has been cleaned how far.
    pub(crate) marks: Marks,
    /// One segment takes the place of several: whether it does already, the files tell.
    pub(crate) merge: Option<Merge>,
}

/// The segment at `base` comes to reach up to `end`; those that begin between the two go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merge {
    /// First offset.
    pub(crate) base: Offset,
    /// Exclusive.
    pub(crate) end: Offset,
    /// First byte of the last batch in the merged segment.
    pub(crate) last_position: u64,
}

/// Where it is noted.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("compaction")
}

/// What is noted in `dir`; nothing where there is no file.
///
/// # Errors
/// [`LogError::Corrupt`] where it cannot be made out.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<State, LogError> {
    let path = path(dir);
    let Some(bytes) = sealed_file::read(fs, &path, "reading what was compacted")? else {
        return Ok(State::default());
    };
    State::decode(&bytes).ok_or_else(|| LogError::Corrupt {
        offset: Offset::ZERO,
        segment: path.clone(),
        position: 0,
        source: Damage::Compaction,
    })
}

impl State {
    /// Notes it in `dir`, durably.
    pub(crate) fn write(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        let path = path(dir);
        let written = atomic_write(fs, &path, &self.encode());
        written.map_err(LogError::io("writing what was compacted", &path))
    }

    /// Of each key one record below `end` may not be the last any more, or others may be left.
    pub(crate) fn lower(&mut self, end: Offset) {
        self.cleaned_end = self.cleaned_end.min(end);
        self.marks.lower(end);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = SEAL.begin();
        let merge = self.merge.map_or([0; 3], |merge| [merge.base.0, merge.end.0, merge.last_position]);
        for number in [self.cleaned_end.0, self.tombstones_gone_below.0].into_iter().chain(merge) {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for mark in self.marks.all() {
            bytes.extend_from_slice(&mark.end.0.to_be_bytes());
            bytes.extend_from_slice(&mark.at_ms.to_be_bytes());
        }
        SEAL.close(bytes)
    }

    /// `None` for what was not written by [`encode`](Self::encode).
    pub(crate) fn decode(bytes: &[u8]) -> Option<State> {
        let (numbers, rest) = SEAL.open(bytes)?.split_first_chunk::<40>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [cleaned_end, gone, base, end, last_position] = *numbers else { return None };
        let (marks, []) = rest.as_chunks::<16>() else { return None };
        let mark = |bytes: &[u8; 16]| {
            let (end, at_ms) = bytes.split_first_chunk()?;
            Some(Mark { end: offset(end)?, at_ms: i64::from_be_bytes(*at_ms.first_chunk()?) })
        };
        let marks = Marks::new(marks.iter().map(mark).collect::<Option<_>>()?)?;
        let merge = Merge {
            base: offset(&base)?,
            end: offset(&end)?,
            last_position: u64::from_be_bytes(last_position),
        };
        Some(State {
            cleaned_end: offset(&cleaned_end)?,
            tombstones_gone_below: offset(&gone)?,
            marks,
            merge: (merge.base < merge.end).then_some(merge),
        })
    }
}

/// Offsets are i64 in batch headers.
fn offset(bytes: &[u8; 8]) -> Option<Offset> {
    i64::try_from(u64::from_be_bytes(*bytes)).ok().map(|offset| Offset(offset as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemFs;

    #[test]
    fn a_state_reads_back_and_every_damage_is_found() {
        let (fs, dir) = (MemFs::new(), Path::new("/"));
        assert_eq!(read(&fs, dir).unwrap(), State::default());
        let mut state = State {
            cleaned_end: Offset(1 << 40),
            tombstones_gone_below: Offset(77),
            merge: Some(Merge { base: Offset(0), end: Offset(500), last_position: 9000 }),
            ..State::default()
        };
        for step in [3, 9, 1000] {
            state.marks.push(Offset(step), -5 + step as i64, 1 << 20);
        }
        for state in [State { merge: None, ..state.clone() }, state.clone(), State::default()] {
            state.write(&fs, dir).unwrap();
            assert_eq!(read(&fs, dir).unwrap(), state);
        }
        let whole = state.encode();
        for cut in 0..whole.len() {
            assert_eq!(State::decode(&whole[..cut]), None, "cut to {cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::decode(&bad), None, "bit {bit}");
        }
    }
}
