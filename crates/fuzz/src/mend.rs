//! The checksums of our formats, so that a change inside gets past them. The layouts are those of docs/log-format.md.

use std::path::Path;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use holdfast_log::{Journal, MemFs, journal};

use crate::target::{read_file, write_file};

/// Length of a batch header, and where its checksum begins to count.
const BATCH_HEADER: usize = 61;
const BATCH_CHECKED: usize = 21;
/// Size of a block of an index.
const INDEX_BLOCK: usize = 1024;

fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Makes the one batch at the start of `batch` end with the bytes, and its checksum right.
pub(crate) fn batch(batch: &mut [u8]) {
    if batch.len() < BATCH_HEADER {
        return;
    }
    let length = u32::try_from(batch.len() - 12).unwrap_or(u32::MAX);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&batch[BATCH_CHECKED..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// The ranges of the batches that stand end to end in `bytes`, as far as their lengths can be believed.
pub(crate) fn batches(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while let Some(length) = bytes.get(start + 8..start + 12) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = start.saturating_add(12).saturating_add(length);
        if length + 12 < BATCH_HEADER || end > bytes.len() {
            break;
        }
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// A snapshot file: its checksum counts from byte 12.
pub(crate) fn snapshot(bytes: &mut [u8]) {
    if bytes.len() >= 12 {
        let crc = crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A broker's saved map: its checksum counts from byte 5.
pub(crate) fn map(bytes: &mut [u8]) {
    if bytes.len() >= 5 {
        let crc = crc32c(&bytes[5..]);
        bytes[1..5].copy_from_slice(&crc.to_be_bytes());
    }
}

/// A log's checkpoint, or the note of its compaction: their checksums count from byte 16.
pub(crate) fn checkpoint(bytes: &mut [u8]) {
    if bytes.len() >= 16 {
        let crc = crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Every block of an index.
pub(crate) fn index(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(INDEX_BLOCK) {
        let crc = crc32c(&block[8..]);
        block[4..8].copy_from_slice(&crc.to_be_bytes());
    }
}

/// The payloads of a journal; `None` if it is none.
pub(crate) fn payloads(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (fs, path) = (MemFs::new(), Path::new("/journal"));
    write_file(&fs, path, bytes);
    let mut payloads = Vec::new();
    let visited = journal::read(&fs, path, &mut |payload| {
        payloads.push(payload.to_vec());
        Ok(())
    });
    visited.is_ok().then_some(payloads)
}

/// A journal with these payloads, those that are empty left out.
pub(crate) fn journal_of(payloads: &[Vec<u8>]) -> Vec<u8> {
    let (fs, path) = (MemFs::new(), Path::new("/journal"));
    let Ok(mut journal) = Journal::open(Arc::new(fs.clone()), path, &mut |_| Ok(())) else {
        return Vec::new();
    };
    let kept: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).filter(|payload| !payload.is_empty()).collect();
    // An error says that a payload is above the limit: then it is a journal without.
    let _ = journal.append(&kept);
    drop(journal);
    read_file(&fs, path)
}
