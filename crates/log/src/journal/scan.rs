//! Reading a journal back: which frames count, and whether what follows them is a torn tail or damage.

use std::io;

use super::frame::{FRAME_OVERHEAD, FrameHead};
use crate::File;
use crate::window::Window;

/// Bytes read at once.
const READ_AHEAD: usize = 1 << 20;

/// Walks the frames of a journal.
pub(super) struct FrameScan<'a> {
    window: Window<'a>,
    position: u64,
    flushed: u64,
}

/// A frame that is whole.
pub(super) struct Frame<'w> {
    pub(super) position: u64,
    pub(super) payload: &'w [u8],
}

impl<'a> FrameScan<'a> {
    /// A walk over the first `len` bytes of `file`.
    pub(super) fn new(file: &'a dyn File, len: u64) -> FrameScan<'a> {
        FrameScan { window: Window::new(file, len, READ_AHEAD), position: 0, flushed: 0 }
    }

    /// First byte behind the frames that were whole.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How much of the file was durable when the last frame read was written.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// The next frame; `None` at the first that is not whole, and at the end.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        let position = self.position;
        let Some(head) = self.frame_at(position, 0)? else { return Ok(None) };
        let len = head.frame_len();
        self.position += len as u64;
        self.flushed = head.flushed;
        let frame = self.window.get(position, len)?;
        Ok(Some(Frame { position, payload: &frame[FRAME_OVERHEAD..] }))
    }

    /// Whether a whole frame stands behind the position reached that was written when that position was known to
    /// be durable. Then what is there is no torn tail. (Frames of the same unflushed batch of writes may well have
    /// survived without the ones in front of them.)
    pub(super) fn is_flushed_data_behind(&mut self) -> io::Result<bool> {
        let damaged = self.position;
        let mut candidate = damaged + 1;
        while self.window.remaining(candidate) >= FRAME_OVERHEAD as u64 {
            if self.frame_at(candidate, damaged + 1)?.is_some() {
                return Ok(true);
            }
            candidate += 1;
        }
        Ok(false)
    }

    /// Head of the frame at `position` if it is whole and says that at least `flushed` bytes were durable.
    fn frame_at(&mut self, position: u64, flushed: u64) -> io::Result<Option<FrameHead>> {
        let head = FrameHead::decode(position, self.window.get(position, FRAME_OVERHEAD)?);
        let Some(head) = head.filter(|head| head.flushed >= flushed) else { return Ok(None) };
        if self.window.remaining(position) < head.frame_len() as u64 {
            return Ok(None);
        }
        let frame = self.window.get(position, head.frame_len())?;
        Ok(head.matches(position, &frame[FRAME_OVERHEAD..]).then_some(head))
    }
}
