//! What the journal of promises holds of one replica: the frames of the broker's, for a single partition.

use holdfast_core::Offset;
use holdfast_core::replication::DurableState;
use holdfast_log::{Journal, JournalError};
use serde::{Deserialize, Serialize};

/// The journal is written anew when it is larger: small, so that it happens often.
const REWRITE_ABOVE: u64 = 4 << 10;

/// Lower bounds, as of some moment.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// Of the high watermark.
    pub(super) high_watermark: Offset,
    /// Of the end of what is flushed.
    pub(super) durable_end: Offset,
}

/// What is on disk besides the log.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) state: DurableState,
    pub(super) checkpoint: Checkpoint,
    /// Whether a power cut may have taken what was not flushed, and no state says yet what follows from it (R34).
    pub(super) tail_lost: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Frame {
    State(DurableState),
    Checkpoint(Checkpoint),
    TailLost,
}

/// Takes a frame into account: when it is read back, and when it is known to be durable.
pub(super) fn take(stored: &mut Option<Stored>, frame: Frame) {
    match (stored, frame) {
        // The first state after a loss says what follows from it: the mark has done its work.
        (Some(stored), Frame::State(state)) => (stored.state, stored.tail_lost) = (state, false),
        (stored @ None, Frame::State(state)) => {
            *stored = Some(Stored { state, checkpoint: Checkpoint::default(), tail_lost: false });
        }
        (Some(stored), Frame::Checkpoint(checkpoint)) => stored.checkpoint = checkpoint,
        (Some(stored), Frame::TailLost) => {
            stored.tail_lost = true;
            let Checkpoint { high_watermark, durable_end } = stored.checkpoint;
            stored.checkpoint.high_watermark = high_watermark.min(durable_end);
        }
        (None, Frame::Checkpoint(_) | Frame::TailLost) => {}
    }
}

fn encode(frame: &Frame) -> Vec<u8> {
    postcard::to_stdvec(frame).expect("plain data always has an encoding")
}

/// Writes a frame; durable after the journal's next flush.
pub(super) fn append(journal: &mut Journal, frame: &Frame) -> Result<(), JournalError> {
    journal.append(&[&encode(frame)])
}

/// Replaces a journal that has grown by one that says the same.
pub(super) fn rewrite_if_grown(journal: &mut Journal, stored: &Stored) -> Result<(), JournalError> {
    if journal.size() < REWRITE_ABOVE {
        return Ok(());
    }
    let mut frames = vec![Frame::State(stored.state.clone()), Frame::Checkpoint(stored.checkpoint)];
    if stored.tail_lost {
        frames.push(Frame::TailLost);
    }
    journal.rewrite(frames.iter().map(encode))
}
