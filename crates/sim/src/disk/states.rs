//! What the journal of promises holds of one replica: the frames of the broker's, for a single partition.

use holdfast_core::replication::{Checkpoint, DurableState, StoredReplica};
use holdfast_log::{Journal, JournalError};
use serde::{Deserialize, Serialize};

/// The journal is written anew when it is larger: small, so that it happens often.
const REWRITE_ABOVE: u64 = 4 << 10;

/// A fact in the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Frame {
    State(DurableState),
    Checkpoint(Checkpoint),
    TailLost,
}

/// Takes a frame into account: when it is read back, and when it is known to be durable.
pub(super) fn take(stored: &mut Option<StoredReplica>, frame: Frame) {
    match (stored, frame) {
        (Some(stored), Frame::State(state)) => stored.take_state(state),
        (stored @ None, Frame::State(state)) => *stored = Some(StoredReplica::new(state)),
        (Some(stored), Frame::Checkpoint(checkpoint)) => stored.checkpoint = checkpoint,
        (Some(stored), Frame::TailLost) => stored.lose_tail(),
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
pub(super) fn rewrite_if_grown(journal: &mut Journal, stored: &StoredReplica) -> Result<(), JournalError> {
    if journal.size() < REWRITE_ABOVE {
        return Ok(());
    }
    let mut frames = vec![Frame::State(stored.state.clone()), Frame::Checkpoint(stored.checkpoint)];
    if stored.tail_lost {
        frames.push(Frame::TailLost);
    }
    journal.rewrite(frames.iter().map(encode))
}
