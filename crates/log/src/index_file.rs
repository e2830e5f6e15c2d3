//! The file of a segment's index: blocks of entries, and a seal when the segment is sealed.
//!
//! ```text
//! block   0 "HFIX"  4 crc-32c of the rest u32   8 base offset u64  16 number u32  20 entries u16  22 version u8  23 kind u8
//!        24 crc of the block before u32  28 zero  32 entries of 16: relative offset u32, position u32, max before i64
//! seal   32 end offset u64  40 bytes of the segment u64  48 max timestamp i64     (a block of its own kind, the last)
//! ```
//! All big endian; a block is 1 KiB. Each names the checksum of the one before, so that the last one vouches for all.
//!
//! Never needed: what is missing, bad or not about this segment is done without, and built anew when the log is opened.

use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use holdfast_core::Offset;

use crate::File;
use crate::index::{self, Between, Entry, Written};
use crate::segment::Segment;

/// Size of a block in bytes.
pub(crate) const BLOCK_LEN: usize = 1024;
const HEAD_LEN: usize = 32;
const ENTRY_LEN: usize = 16;
/// Entries of a full block.
pub(crate) const BLOCK_ENTRIES: usize = (BLOCK_LEN - HEAD_LEN) / ENTRY_LEN;

const MAGIC: &[u8; 4] = b"HFIX";
const VERSION: u8 = 1;
const KIND_ENTRIES: u8 = 0;
const KIND_SEAL: u8 = 1;
/// First byte under the checksum.
const CHECKED: usize = 8;

/// Name of the index beside the segment at `base`.
pub(crate) fn path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.index", base.0))
}

/// Where in the file a block begins.
pub(crate) fn position(number: u32) -> u64 {
    u64::from(number) * BLOCK_LEN as u64
}

/// The block of up to [`BLOCK_ENTRIES`] entries that comes behind what is written.
pub(crate) fn encode_block(base: Offset, written: Written, entries: &[Entry]) -> [u8; BLOCK_LEN] {
    let mut bytes = head(base, written, KIND_ENTRIES, entries.len() as u16);
    for (to, entry) in bytes[HEAD_LEN..].chunks_exact_mut(ENTRY_LEN).zip(entries) {
        to.copy_from_slice(&encode_entry(entry));
    }
    seal_checksum(bytes)
}

/// The block that says which segment the entries before it are about.
pub(crate) fn encode_seal(segment: &Segment, written: Written) -> [u8; BLOCK_LEN] {
    let mut bytes = head(segment.base, written, KIND_SEAL, 0);
    bytes[32..40].copy_from_slice(&segment.end.0.to_be_bytes());
    bytes[40..48].copy_from_slice(&segment.len.to_be_bytes());
    bytes[48..56].copy_from_slice(&segment.max_timestamp.unwrap_or(i64::MIN).to_be_bytes());
    seal_checksum(bytes)
}

/// The checksum in a block that was encoded here.
pub(crate) fn checksum_of(block: &[u8; BLOCK_LEN]) -> u32 {
    u32_at(block, 4)
}

pub(crate) fn encode_entry(entry: &Entry) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    bytes[0..4].copy_from_slice(&entry.relative.to_be_bytes());
    bytes[4..8].copy_from_slice(&entry.position.to_be_bytes());
    bytes[8..16].copy_from_slice(&entry.max_before.to_be_bytes());
    bytes
}

pub(crate) fn decode_entry(bytes: &[u8; ENTRY_LEN]) -> Entry {
    Entry { relative: u32_at(bytes, 0), position: u32_at(bytes, 4), max_before: u64_at(bytes, 8) as i64 }
}

fn head(base: Offset, written: Written, kind: u8, entries: u16) -> [u8; BLOCK_LEN] {
    let mut bytes = [0; BLOCK_LEN];
    bytes[0..4].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&base.0.to_be_bytes());
    bytes[16..20].copy_from_slice(&written.blocks.to_be_bytes());
    bytes[20..22].copy_from_slice(&entries.to_be_bytes());
    (bytes[22], bytes[23]) = (VERSION, kind);
    bytes[24..28].copy_from_slice(&written.chain.to_be_bytes());
    bytes
}

fn seal_checksum(mut bytes: [u8; BLOCK_LEN]) -> [u8; BLOCK_LEN] {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[CHECKED..]) as u32;
    bytes[4..8].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The index file of the segment at `base`, for reading.
pub(crate) struct IndexFile<'a> {
    pub(crate) file: &'a dyn File,
    pub(crate) base: Offset,
}

/// A block that is whole.
struct Block {
    bytes: [u8; BLOCK_LEN],
}

impl Block {
    fn kind(&self) -> u8 {
        self.bytes[23]
    }

    /// Checksum of the block before.
    fn previous(&self) -> u32 {
        u32_at(&self.bytes, 24)
    }

    /// Empty in what is no block of entries.
    fn entries(&self) -> Vec<Entry> {
        let count = usize::from(u16::from_be_bytes([self.bytes[20], self.bytes[21]]));
        let (entries, _) = self.bytes[HEAD_LEN..].as_chunks::<ENTRY_LEN>();
        entries.iter().take(count).map(decode_entry).collect()
    }
}

impl IndexFile<'_> {
    /// `None` if it cannot be read or is not what it should be.
    fn block(&self, number: u32) -> Option<Block> {
        let mut bytes = [0; BLOCK_LEN];
        self.file.read_exact_at(&mut bytes, position(number)).ok()?;
        let whole = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[CHECKED..]) as u32 == checksum_of(&bytes);
        let ours = bytes.starts_with(MAGIC) && bytes[22] == VERSION;
        let here = u64_at(&bytes, 8) == self.base.0 && u32_at(&bytes, 16) == number;
        (whole && ours && here).then_some(Block { bytes })
    }

    /// The entries of a block; `None` if it is bad.
    pub(crate) fn entries(&self, number: u32) -> Option<Vec<Entry>> {
        let block = self.block(number).filter(|block| block.kind() == KIND_ENTRIES)?;
        Some(block.entries()).filter(|entries| !entries.is_empty())
    }

    /// Searches the first `blocks` of them: about ten reads of a block each. `None` if one that is needed is bad.
    pub(crate) fn search(&self, blocks: u32, before: impl Fn(&Entry) -> bool) -> Option<Between> {
        let (mut low, mut high) = (0, blocks);
        let (mut holding, mut behind) = (None, None);
        while low < high {
            let middle = low + (high - low) / 2;
            let entries = self.entries(middle)?;
            if before(entries.first()?) {
                (low, holding) = (middle + 1, Some(entries));
            } else {
                (high, behind) = (middle, entries.first().copied());
            }
        }
        let Some(entries) = holding else { return Some(Between { before: None, at: behind }) };
        let between = index::search(&entries, before);
        Some(Between { at: between.at.or(behind), ..between })
    }

    /// What is left of the first `blocks` of them below `position` of the segment: blocks that can stay, and the entries
    /// of the one behind them. `None` if one that is needed is bad.
    pub(crate) fn cut(&self, blocks: u32, position: u64) -> Option<(Written, Vec<Entry>)> {
        let kept = |entry: &Entry| u64::from(entry.position) < position;
        let (mut low, mut high) = (0, blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            if kept(self.entries(middle)?.first()?) { low = middle + 1 } else { high = middle }
        }
        let Some(last) = low.checked_sub(1) else { return Some(Default::default()) };
        let mut tail = self.entries(last)?;
        tail.retain(kept);
        Some((Written { blocks: last, chain: self.block(last)?.previous() }, tail))
    }

    /// What the seal says of the segment. `None` if there is none or a bad one.
    pub(crate) fn seal(&self) -> Option<Segment> {
        let len = self.file.len().ok()?;
        let number = u32::try_from((len / BLOCK_LEN as u64).checked_sub(1)?).ok()?;
        let Block { bytes } = self.block(number).filter(|block| block.kind() == KIND_SEAL)?;
        let max_timestamp = Some(u64_at(&bytes, 48) as i64).filter(|time| *time != i64::MIN);
        let (end, len) = (Offset(u64_at(&bytes, 32)), u64_at(&bytes, 40));
        Some(Segment { base: self.base, end, len, max_timestamp, blocks: number })
    }

    /// Whether the first blocks are exactly those: reads all of them.
    pub(crate) fn holds(&self, written: Written) -> bool {
        let mut chain = 0;
        for number in 0..written.blocks {
            let Some(block) = self.block(number).filter(|block| block.kind() == KIND_ENTRIES) else {
                return false;
            };
            if block.previous() != chain {
                return false;
            }
            chain = checksum_of(&block.bytes);
        }
        chain == written.chain
    }
}
