//! What must never be found in a history, by name.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::history::Key;

/// Examples kept of each kind.
pub const EXAMPLES: usize = 5;

/// A kind of broken promise. The first thirteen are those of the Jepsen workload for logs, the others our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Two values at one offset: split brain, or a bad truncation.
    InconsistentOffsets,
    /// An acknowledged value that nobody read, though somebody read past it; or that was gone when all was read again.
    LostWrite,
    /// An acknowledged value behind all that anybody read until the final phase ended.
    Unseen,
    /// One value at several offsets.
    Duplicate,
    /// A value was shown whose send had failed for certain (G1a).
    AbortedRead,
    /// A value was shown, and was gone when all was read again in the final phase.
    PrecommittedRead,
    /// One poll left out a record between two others.
    IntPollSkip,
    /// One poll went back, or showed a record twice.
    IntNonmonotonicPoll,
    /// A record was left out between two polls of a process, or between its position and its first poll.
    PollSkip,
    /// A poll showed what an earlier one of the process showed already, or went further back.
    NonmonotonicPoll,
    /// A process's later send has a lower offset than an earlier one.
    NonmonotonicSend,
    /// The values of one send are not in their order.
    IntNonmonotonicSend,
    /// The values of one send are not beside each other, or only some of them are there.
    IntSendSkip,
    /// A value was shown that nobody had sent.
    Phantom,
    /// A poll showed a record at or above the high watermark that came with it.
    ReadAboveWatermark,
    /// A process saw the high watermark of a key go back.
    WatermarkRegression,
    /// A send was acknowledged in a lower epoch than one acknowledged before it began.
    EpochRegression,
    /// An acknowledgement was reported after the client's own deadline.
    LateAck,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 18] = [
        Kind::InconsistentOffsets,
        Kind::LostWrite,
        Kind::Unseen,
        Kind::Duplicate,
        Kind::AbortedRead,
        Kind::PrecommittedRead,
        Kind::IntPollSkip,
        Kind::IntNonmonotonicPoll,
        Kind::PollSkip,
        Kind::NonmonotonicPoll,
        Kind::NonmonotonicSend,
        Kind::IntNonmonotonicSend,
        Kind::IntSendSkip,
        Kind::Phantom,
        Kind::ReadAboveWatermark,
        Kind::WatermarkRegression,
        Kind::EpochRegression,
        Kind::LateAck,
    ];

    /// Its name in reports; never changes.
    pub fn name(self) -> &'static str {
        match self {
            Kind::InconsistentOffsets => "inconsistent-offsets",
            Kind::LostWrite => "lost-write",
            Kind::Unseen => "unseen",
            Kind::Duplicate => "duplicate",
            Kind::AbortedRead => "aborted-read",
            Kind::PrecommittedRead => "precommitted-read",
            Kind::IntPollSkip => "int-poll-skip",
            Kind::IntNonmonotonicPoll => "int-nonmonotonic-poll",
            Kind::PollSkip => "poll-skip",
            Kind::NonmonotonicPoll => "nonmonotonic-poll",
            Kind::NonmonotonicSend => "nonmonotonic-send",
            Kind::IntNonmonotonicSend => "int-nonmonotonic-send",
            Kind::IntSendSkip => "int-send-skip",
            Kind::Phantom => "phantom",
            Kind::ReadAboveWatermark => "read-above-watermark",
            Kind::WatermarkRegression => "watermark-regression",
            Kind::EpochRegression => "epoch-regression",
            Kind::LateAck => "late-ack",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Where in the history something was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Process of the event.
    pub process: u64,
    /// Operation of the event.
    pub op: u64,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// In which partition.
    pub key: Key,
    /// At which offset, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Which value, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// The event that shows it, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What is wrong.
    pub detail: String,
    /// Events that name the value or the offset, once they were looked up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<Place>,
}

/// All that was found of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How many.
    pub count: u64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// What was found, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Findings {
    by_kind: BTreeMap<Kind, Finding>,
}

impl Findings {
    /// Adds `count` of a kind, with an example of them that is made only if it is kept.
    pub(crate) fn add(&mut self, kind: Kind, count: u64, example: impl FnOnce() -> Example) {
        let finding = self.by_kind.entry(kind).or_default();
        finding.count += count;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(example());
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    /// How many of that kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.by_kind.get(&kind).map_or(0, |finding| finding.count)
    }

    /// What was found, in the order of the kinds.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Finding)> {
        self.by_kind.iter().map(|(&kind, finding)| (kind, finding))
    }

    pub(crate) fn examples_mut(&mut self) -> impl Iterator<Item = &mut Example> {
        self.by_kind.values_mut().flat_map(|finding| &mut finding.examples)
    }
}
