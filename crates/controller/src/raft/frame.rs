//! What the journal holds, and which of it still counts.
//!
//! The journal is a sequence of frames. Replaying them gives vote, log and marks; `Mirror` does so, live and at start
//! alike, and can give the shortest sequence with the same outcome, which a checkpoint writes.
//!
//! Invariant: a frame is encoded once; the mirror keeps those bytes, so that a checkpoint repeats exactly what was
//! agreed on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::types::{CodecError, Entry, LogId, Vote, decode, encode};

/// One frame of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// The vote from here on.
    Vote(Vote),
    /// The log is known to be committed up to here; written lazily.
    Committed(Option<LogId>),
    /// Follows the last entry.
    Entry(Entry),
    /// Entries from this index on are gone.
    Truncate {
        /// The first that is gone.
        from: u64,
    },
    /// Entries up to here (inclusive) are gone; a snapshot covers them.
    Purge(LogId),
}

/// A frame and its encoding.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) frame: Frame,
    pub(crate) bytes: Arc<[u8]>,
}

impl Encoded {
    /// Encodes.
    pub(crate) fn new(frame: Frame) -> Result<Self, CodecError> {
        let bytes = encode(&frame)?.into();
        Ok(Encoded { frame, bytes })
    }
}

/// The journal does not make sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("frame {number}: {source}")]
    Codec {
        number: u64,
        #[source]
        source: CodecError,
    },
    #[error("frame {number} holds entry {found}, and entry {expected} should follow")]
    Gap { number: u64, found: u64, expected: u64 },
    #[error("frame {number} says that entries up to {found} are gone, and those before do not begin there")]
    Purge { number: u64, found: u64 },
}

/// The frames that still count.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    frames: u64,
    vote: Option<(Vote, Arc<[u8]>)>,
    committed: Option<(Option<LogId>, Arc<[u8]>)>,
    purged: Option<(LogId, Arc<[u8]>)>,
    entries: BTreeMap<u64, (Entry, Arc<[u8]>)>,
    entry_bytes: u64,
}

impl Mirror {
    /// Takes in a frame as read from the journal.
    pub(crate) fn replay(&mut self, bytes: &[u8]) -> Result<(), ReplayError> {
        let number = self.frames;
        let frame = decode(bytes).map_err(|source| ReplayError::Codec { number, source })?;
        match &frame {
            Frame::Entry(entry) => {
                let (found, expected) = (entry.log_id.index, self.next_index());
                let begins = self.entries.is_empty() && self.purged.is_none();
                if (found != expected && !begins) || found == u64::MAX {
                    return Err(ReplayError::Gap { number, found, expected });
                }
            }
            Frame::Purge(upto) if !self.can_purge(upto.index) => {
                return Err(ReplayError::Purge { number, found: upto.index });
            }
            _ => {}
        }
        self.take(Encoded { frame, bytes: bytes.into() });
        Ok(())
    }

    /// Takes in a frame as written to the journal.
    pub(crate) fn take(&mut self, encoded: Encoded) {
        self.frames += 1;
        let Encoded { frame, bytes } = encoded;
        match frame {
            Frame::Vote(vote) => self.vote = Some((vote, bytes)),
            Frame::Committed(committed) => self.committed = Some((committed, bytes)),
            Frame::Entry(entry) => {
                self.entry_bytes += bytes.len() as u64;
                self.entries.insert(entry.log_id.index, (entry, bytes));
            }
            Frame::Truncate { from } => {
                let gone = self.entries.split_off(&from);
                self.forget(gone);
            }
            Frame::Purge(upto) => {
                let kept = self.entries.split_off(&(upto.index + 1));
                let gone = std::mem::replace(&mut self.entries, kept);
                self.forget(gone);
                if self.purged.as_ref().is_none_or(|(purged, _)| purged.index <= upto.index) {
                    self.purged = Some((upto, bytes));
                }
            }
        }
    }

    fn forget(&mut self, gone: BTreeMap<u64, (Entry, Arc<[u8]>)>) {
        self.entry_bytes -= gone.values().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    }

    /// Whether the log may begin behind that index: no gap may follow. One that was purged further keeps its mark.
    fn can_purge(&self, upto: u64) -> bool {
        let first = self.entries.keys().next();
        let follows = self.purged.is_some() || first.is_none_or(|first| first.saturating_sub(1) <= upto);
        follows && upto < u64::MAX
    }

    /// Index of the entry that comes next.
    fn next_index(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.or(self.purged.as_ref().map(|(purged, _)| purged.index)).map_or(0, |last| last + 1)
    }

    /// The shortest sequence of frames with this outcome.
    pub(crate) fn checkpoint(&self) -> impl Iterator<Item = &[u8]> {
        let purged = self.purged.as_ref().map(|(_, bytes)| bytes);
        let entries = self.entries.values().map(|(_, bytes)| bytes);
        let committed = self.committed.as_ref().map(|(_, bytes)| bytes);
        let vote = self.vote.as_ref().map(|(_, bytes)| bytes);
        purged.into_iter().chain(entries).chain(committed).chain(vote).map(AsRef::as_ref)
    }

    /// Bytes of the frames that still count, but for a few dozen.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// The last vote.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.vote.as_ref().map(|(vote, _)| *vote)
    }

    /// The last commit mark. It may have been written ahead of entries that a crash took.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.committed.as_ref().and_then(|(committed, _)| *committed)
    }

    /// The last purge mark.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged.as_ref().map(|(purged, _)| *purged)
    }

    /// The entries by index.
    pub(crate) fn entries(&self) -> BTreeMap<u64, Entry> {
        self.entries.iter().map(|(&index, (entry, _))| (index, entry.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::testing::log_id;

    use super::*;

    fn entry(index: u64) -> Frame {
        Frame::Entry(Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Blank })
    }

    fn mirror(frames: &[Frame]) -> Mirror {
        let mut mirror = Mirror::default();
        for frame in frames {
            mirror.replay(&encode(frame).unwrap()).unwrap();
        }
        mirror
    }

    #[test]
    fn checkpoint_replays_to_the_same_state_and_drops_what_is_dead() {
        let mut frames = vec![Frame::Vote(Vote::new(1, 1))];
        frames.extend((0..10).map(entry));
        frames.extend([Frame::Truncate { from: 8 }, entry(8), Frame::Purge(log_id(1, 1, 4))]);
        frames.extend([Frame::Committed(Some(log_id(1, 1, 6))), Frame::Vote(Vote::new_committed(1, 1))]);
        let before = mirror(&frames);
        let mut after = Mirror::default();
        for bytes in before.checkpoint() {
            after.replay(bytes).unwrap();
        }
        assert_eq!(after.entries(), before.entries());
        assert_eq!(after.entries().keys().copied().collect::<Vec<_>>(), [5, 6, 7, 8]);
        assert_eq!(after.vote(), Some(Vote::new_committed(1, 1)));
        assert_eq!((after.purged(), after.committed()), (before.purged(), before.committed()));
        assert_eq!(after.live_bytes(), before.live_bytes());
    }

    #[test]
    fn a_gap_between_entries_is_refused() {
        let mut mirror = mirror(&[entry(0), entry(1)]);
        assert!(matches!(
            mirror.replay(&encode(&entry(3)).unwrap()),
            Err(ReplayError::Gap { found: 3, expected: 2, .. })
        ));
        assert!(matches!(mirror.replay(&[7, 7]), Err(ReplayError::Codec { .. })));
    }

    /// Both were accepted once, and refused at the start after the next checkpoint.
    #[test]
    fn a_purge_leaves_no_gap_and_never_goes_back() {
        let mut gap = mirror(&[entry(5), entry(6)]);
        let refused = gap.replay(&encode(&Frame::Purge(log_id(1, 1, 2))).unwrap());
        assert!(matches!(refused, Err(ReplayError::Purge { found: 2, .. })), "{refused:?}");
        let back = mirror(&[Frame::Purge(log_id(1, 1, 20)), entry(21), Frame::Purge(log_id(1, 1, 5))]);
        assert_eq!(back.purged(), Some(log_id(1, 1, 20)));
    }

    #[test]
    fn the_last_index_is_refused() {
        let mut empty = Mirror::default();
        for frame in [entry(u64::MAX), Frame::Purge(log_id(1, 1, u64::MAX))] {
            assert!(empty.replay(&encode(&frame).unwrap()).is_err());
        }
    }

    #[test]
    fn a_purge_beyond_the_log_moves_its_start() {
        let mut mirror = mirror(&[entry(0), Frame::Purge(log_id(2, 1, 20))]);
        assert!(mirror.entries().is_empty());
        mirror.replay(&encode(&entry(21)).unwrap()).unwrap();
    }
}
