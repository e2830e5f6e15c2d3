//! How a journal's frames stand in the file.
//!
//! ```text
//! 0 payload length u32    4 crc-32c u32    8 flushed u64    16 payload        all big endian
//! ```
//! `flushed` is the size of the file that was known to be durable when the frame was written. The checksum covers
//! the frame's own position, its length, `flushed` and the payload: zeros are no frame, nor is a frame elsewhere.

use crc_fast::{CrcAlgorithm, Digest};

/// Bytes in front of a payload.
pub(super) const FRAME_OVERHEAD: usize = 16;
/// Largest payload in bytes.
pub(super) const MAX_PAYLOAD: usize = 64 << 20;

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) payload_len: usize,
    pub(super) flushed: u64,
    crc: u32,
}

impl FrameHead {
    /// The head for `payload`, which stands at `position` of the file and is at most [`MAX_PAYLOAD`] long.
    pub(super) fn new(position: u64, flushed: u64, payload: &[u8]) -> FrameHead {
        let payload_len = payload.len();
        FrameHead { payload_len, flushed, crc: checksum(position, flushed, payload) }
    }

    pub(super) fn encode(&self) -> [u8; FRAME_OVERHEAD] {
        let mut bytes = [0; FRAME_OVERHEAD];
        bytes[0..4].copy_from_slice(&(self.payload_len as u32).to_be_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.flushed.to_be_bytes());
        bytes
    }

    /// Reads a head; `None` if the bytes are too few or claim what no frame at `position` claims.
    pub(super) fn decode(position: u64, bytes: &[u8]) -> Option<FrameHead> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let flushed = u64::from_be_bytes(*rest.first_chunk::<8>()?);
        let payload_len = u32::from_be_bytes(*len) as usize;
        let possible = payload_len <= MAX_PAYLOAD && flushed <= position;
        possible.then_some(FrameHead { payload_len, flushed, crc: u32::from_be_bytes(*crc) })
    }

    /// Whether `payload` is what this head at `position` was written for.
    pub(super) fn matches(&self, position: u64, payload: &[u8]) -> bool {
        payload.len() == self.payload_len && checksum(position, self.flushed, payload) == self.crc
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_len(&self) -> usize {
        FRAME_OVERHEAD + self.payload_len
    }
}

fn checksum(position: u64, flushed: u64, payload: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&position.to_be_bytes());
    digest.update(&flushed.to_be_bytes());
    digest.update(&(payload.len() as u64).to_be_bytes());
    digest.update(payload);
    digest.finalize() as u32
}
