//! What clients did and saw, event by event, in the order it was recorded.
//!
//! ```text
//!  invoke ──────────────► ok      it happened
//!           (the client   fail    it certainly did not happen, and never will
//!            waits)       info    unknown; so is an invoke without a completion
//! ```
//! A file has one JSON object a line (`line`), is read one line at a time (`Reader`) and written by `Writer`, or by
//! `Recorder` from many threads at once. Programs that keep a history in memory use `Vec<Event>`.

mod line;
mod read;
mod recorder;
mod write;

use std::sync::Arc;

pub use line::LineProblem;
pub use read::{LONGEST_LINE, ReadError, Reader};
pub use recorder::{BUFFER, PATIENCE, RecordError, Recorder, Recording};
pub use write::Writer;

/// A partition, as `topic/partition`. A topic that is created again under its name needs another one.
pub type Key = Arc<str>;

/// One thing that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in microseconds of the recorder's monotonic clock. Before the call for an invoke, after it for the rest.
    pub at_us: u64,
    /// Who: does one thing after the other for each key. One that got an `info` may be retired, and a new number
    /// takes its place.
    pub process: u64,
    /// Number of the operation, unique for its process. Both events of an operation have it.
    pub op: u64,
    /// What.
    pub what: What,
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A batch is sent, or its outcome is known.
    Send(Send),
    /// Records are asked for, or came.
    Poll(Poll),
    /// The process reads on from here: a first position, or another one. Order between its polls begins anew.
    Assign {
        /// In which partition.
        key: Key,
        /// Offset of the next record to be read.
        offset: u64,
    },
    /// The process ends, with all it had under way.
    Crash,
    /// Something is broken on purpose, or mended.
    Fault {
        /// Which; begin and end carry the same name.
        name: Arc<str>,
        /// Where, if in one zone.
        zone: Option<Arc<str>>,
        /// Whether it begins or ends.
        edge: Edge,
    },
    /// Everything is healed; from here on every key is read from its beginning until past all that was ever seen.
    Final,
}

/// One event of a send. Its values are one batch: they are appended together, at offsets that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The partition.
    pub key: Key,
    /// What is sent, in order: at least one, each unique for its key in the whole history.
    pub values: Vec<u64>,
    /// How far it got.
    pub stage: SendStage,
}

/// How far a send got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendStage {
    /// About to be sent.
    Invoke {
        /// Until when the client must say something, on the recorder's clock, where it has a deadline.
        deadline_us: Option<u64>,
    },
    /// Acknowledged.
    Ok {
        /// Offset of the first value.
        base_offset: u64,
        /// Epoch of the leader that acknowledged it, where the client is told.
        epoch: Option<u64>,
    },
    /// It certainly was not stored, and never will be.
    Fail {
        /// `CODE: what happened`.
        error: Arc<str>,
    },
    /// It may be stored, or may yet be.
    Info {
        /// `CODE: what happened`.
        error: Arc<str>,
    },
}

/// One event of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The partition.
    pub key: Key,
    /// How far it got.
    pub stage: PollStage,
}

/// How far a poll got. Records are `(offset, value)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollStage {
    /// About to be asked.
    Invoke,
    /// Answered, perhaps with nothing.
    Ok {
        /// In the order they were handed out.
        records: Vec<(u64, u64)>,
        /// End of what could be read (exclusive), where the client is told.
        high_watermark: Option<u64>,
    },
    /// Refused.
    Fail {
        /// What was handed out all the same.
        records: Vec<(u64, u64)>,
        /// `CODE: what happened`.
        error: Arc<str>,
    },
    /// No answer.
    Info {
        /// What was handed out all the same.
        records: Vec<(u64, u64)>,
        /// `CODE: what happened`.
        error: Arc<str>,
    },
}

/// One end of a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// It begins.
    Begin,
    /// It ends.
    End,
}

impl Event {
    /// An event of a send.
    pub fn send(at_us: u64, process: u64, op: u64, key: &Key, values: Vec<u64>, stage: SendStage) -> Event {
        Event { at_us, process, op, what: What::Send(Send { key: Key::clone(key), values, stage }) }
    }

    /// An event of a poll.
    pub fn poll(at_us: u64, process: u64, op: u64, key: &Key, stage: PollStage) -> Event {
        Event { at_us, process, op, what: What::Poll(Poll { key: Key::clone(key), stage }) }
    }

    /// A process reads on from there.
    pub fn assign(at_us: u64, process: u64, op: u64, key: &Key, offset: u64) -> Event {
        Event { at_us, process, op, what: What::Assign { key: Key::clone(key), offset } }
    }

    /// A fault begins or ends.
    pub fn fault(at_us: u64, name: &str, zone: Option<&str>, edge: Edge) -> Event {
        let what = What::Fault { name: name.into(), zone: zone.map(Into::into), edge };
        Event { at_us, process: 0, op: 0, what }
    }

    /// The final phase begins.
    pub fn begin_final(at_us: u64) -> Event {
        Event { at_us, process: 0, op: 0, what: What::Final }
    }
}

/// The code in an error text `CODE: what happened`: all before the first colon.
pub fn error_code(error: &str) -> &str {
    error.split(':').next().unwrap_or(error).trim()
}

/// Writes a value to the front of a record's bytes: 8 bytes, big endian. False where they have no room for it.
pub fn put_value(bytes: &mut [u8], value: u64) -> bool {
    let Some(front) = bytes.first_chunk_mut::<8>() else { return false };
    *front = value.to_be_bytes();
    true
}

/// Reads the value at the front of a record's bytes; `None` where they are too short.
pub fn value_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<8>().map(|front| u64::from_be_bytes(*front))
}

#[cfg(test)]
mod tests;
