//! A note of everything that is to be known of the log below an offset, so that opening it need not read it again.
//!
//! ```text
//!  0 "hfcheckp"    8 version u32       12 crc-32c of the rest u32
//! 16 offset u64   24 segment of the last batch u64   32 its position u64   40 its epoch i32   44 its crc u32
//! 48 base of the active segment u64   56 its bytes u64   64 its max timestamp i64   72 active since (ms) i64
//! 80 blocks of its index u32   84 their chain u32   88 position of the newest entry u32
//! 92 entries that follow u32   96 epochs that follow u32   100 entries of 16, epochs of 12 (i32, u64), snapshot
//! ```
//! All big endian. Written without being flushed by itself; the one before is kept until it is, as `checkpoint.old`.
//!
//! Never needed: one that is missing, bad, or not about this log is not believed, and the log is read instead. It is
//! bound to the last batch below its offset (the same epoch and offset mean the same prefix, REP-3), and removed durably
//! before the log is cut below it.

use std::path::{Path, PathBuf};

use holdfast_core::record_batch::{BatchHeader, HEADER_LEN};
use holdfast_core::{LeaderEpoch, Offset};

use crate::index::{ActiveIndex, Entry, Written};
use crate::index_file;
use crate::sealed_file::Seal;
use crate::segment::{self, Segment};
use crate::{Fs, OpenMode};

const SEAL: Seal = Seal { magic: b"hfcheckp", version: 1 };
/// Stands for no time, and for no entry.
const NO_TIME: i64 = i64::MIN;
const NO_ENTRY: u32 = u32::MAX;

/// What is known of the log below `offset`.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    /// End of the log as of then (exclusive).
    pub(crate) offset: Offset,
    pub(crate) last: LastBatch,
    /// As it was then; it may have grown, or have been sealed.
    pub(crate) active: Segment,
    pub(crate) active_since: Option<i64>,
    pub(crate) index: ActiveIndex,
    /// First offset of each epoch, ascending in both.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    /// The owner's own.
    pub(crate) snapshot: Vec<u8>,
}

/// The batch that ends at a checkpoint's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastBatch {
    /// Base of the segment that holds it.
    pub(crate) segment: Offset,
    /// First byte in that segment.
    pub(crate) position: u64,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) crc: u32,
}

/// Where the newest checkpoint of a log is.
pub(crate) fn newest_path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// Where the one before it is.
pub(crate) fn older_path(dir: &Path) -> PathBuf {
    dir.join("checkpoint.old")
}

/// The checkpoint in that file; `None` if there is none, or nothing that can be read.
pub(crate) fn read(fs: &dyn Fs, path: &Path) -> Option<Checkpoint> {
    let file = fs.open(path, OpenMode::Existing).ok()?;
    let bytes = file.read_bytes(0, usize::try_from(file.len().ok()?).ok()?).ok()?;
    decode(&bytes)
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Checkpoint { offset, last, active, active_since, index, epochs, snapshot } = self;
        let mut bytes = SEAL.begin();
        for number in [offset.0, last.segment.0, last.position] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&last.epoch.to_wire().to_be_bytes());
        bytes.extend_from_slice(&last.crc.to_be_bytes());
        bytes.extend_from_slice(&active.base.0.to_be_bytes());
        bytes.extend_from_slice(&active.len.to_be_bytes());
        for time in [active.max_timestamp, *active_since] {
            bytes.extend_from_slice(&time.unwrap_or(NO_TIME).to_be_bytes());
        }
        let last_entry = index.last().unwrap_or(NO_ENTRY);
        let counts = [index.tail().len() as u32, epochs.len() as u32];
        for number in [index.written.blocks, index.written.chain, last_entry].into_iter().chain(counts) {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for entry in index.tail() {
            bytes.extend_from_slice(&index_file::encode_entry(entry));
        }
        for (epoch, first) in epochs {
            bytes.extend_from_slice(&epoch.to_wire().to_be_bytes());
            bytes.extend_from_slice(&first.0.to_be_bytes());
        }
        bytes.extend_from_slice(snapshot);
        SEAL.close(bytes)
    }

    /// Whether the last batch below the offset is the one that was there.
    pub(crate) fn is_of_this_log(&self, fs: &dyn Fs, dir: &Path) -> bool {
        let LastBatch { segment, position, epoch, crc } = self.last;
        let read = || {
            let file = fs.open(&segment::path(dir, segment), OpenMode::Existing).ok()?;
            let mut head = [0; HEADER_LEN];
            file.read_exact_at(&mut head, position).ok()?;
            BatchHeader::decode(&head).ok()
        };
        read().is_some_and(|header| {
            header.next_offset() == self.offset && header.epoch == Some(epoch) && header.crc == crc
        })
    }
}

fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let mut rest = SEAL.open(bytes)?;
    let offset = Offset(take_u64(&mut rest)?);
    let last = LastBatch {
        segment: Offset(take_u64(&mut rest)?),
        position: take_u64(&mut rest)?,
        epoch: LeaderEpoch::from_wire(take_u32(&mut rest)? as i32)?,
        crc: take_u32(&mut rest)?,
    };
    let (base, len) = (Offset(take_u64(&mut rest)?), take_u64(&mut rest)?);
    let (max_timestamp, active_since) = (take_time(&mut rest)?, take_time(&mut rest)?);
    let written = Written { blocks: take_u32(&mut rest)?, chain: take_u32(&mut rest)? };
    let newest = Some(take_u32(&mut rest)?).filter(|position| *position != NO_ENTRY);
    let (entries, epochs) = (take_u32(&mut rest)?, take_u32(&mut rest)?);
    // Collecting options grows as it goes: nothing is allocated for what a length claims.
    let tail: Option<Vec<Entry>> =
        (0..entries).map(|_| take(&mut rest).map(|bytes| index_file::decode_entry(&bytes))).collect();
    let epochs: Option<Vec<(LeaderEpoch, Offset)>> = (0..epochs)
        .map(|_| Some((LeaderEpoch::from_wire(take_u32(&mut rest)? as i32)?, Offset(take_u64(&mut rest)?))))
        .collect();
    Some(Checkpoint {
        offset,
        last,
        active: Segment { base, end: offset, len, max_timestamp, blocks: 0 },
        active_since,
        index: ActiveIndex::resumed(written, tail?, newest),
        epochs: epochs?,
        snapshot: rest.to_vec(),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_be_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_be_bytes)
}

fn take_time(bytes: &mut &[u8]) -> Option<Option<i64>> {
    Some(Some(take_u64(bytes)? as i64).filter(|time| *time != NO_TIME))
}
