//! What is wrong with a log, for people and for programs.

use holdfast_broker::inspect::{Expected, LogFolder};
use holdfast_core::Offset;
use holdfast_core::record_batch::BatchError;
use holdfast_log::inspect::FoundDamage;
use holdfast_log::{Damage, LogError};
use serde_json::{Value, json};

use crate::config::chain;

/// Something wrong.
#[derive(Debug)]
pub(super) struct Problem {
    /// A word for programs.
    pub(super) kind: &'static str,
    /// Whether the broker cuts it when it starts, and nothing that was promised goes with it.
    pub(super) torn: bool,
    /// The offset that should be there.
    pub(super) offset: Offset,
    /// File or folder.
    pub(super) path: String,
    /// First byte in the file.
    pub(super) position: u64,
    /// Bytes from there on that nobody can read.
    pub(super) unreadable: u64,
    /// What.
    pub(super) why: String,
}

impl Problem {
    /// Damage that a walk told of. `torn_from`: from that offset on it is a torn tail.
    pub(super) fn found(damage: &FoundDamage, torn_from: Option<Offset>) -> Problem {
        let torn = torn_from.is_some_and(|from| damage.offset >= from);
        Problem {
            kind: if torn { "torn" } else { kind(&damage.source) },
            torn,
            offset: damage.offset,
            path: damage.segment.display().to_string(),
            position: damage.position,
            unreadable: damage.unreadable,
            why: chain(&damage.source),
        }
    }

    /// The log ends at `end`: is anything missing of what it has to bear out?
    pub(super) fn missing(log: &LogFolder, end: Offset, expected: Option<Expected>) -> Option<Problem> {
        let trusted_end = expected?.trusted_end;
        let why = Damage::Missing { trusted_end }.to_string();
        (end < trusted_end).then(|| Problem { why, ..Problem::of_log("missing", log, end) })
    }

    /// The log cannot be read on, for a reason that is not in its bytes.
    pub(super) fn unreadable(log: &LogFolder, offset: Offset, error: &LogError) -> Problem {
        Problem { why: chain(error), ..Problem::of_log("io", log, offset) }
    }

    /// Something about a log as a whole; `why` is to be filled in.
    pub(super) fn of_log(kind: &'static str, log: &LogFolder, offset: Offset) -> Problem {
        let path = log.path.display().to_string();
        Problem { kind, torn: false, offset, path, position: 0, unreadable: 0, why: String::new() }
    }

    /// One line.
    pub(super) fn line(&self, name: &str) -> String {
        let Problem { torn, offset, path, position, unreadable, why, .. } = self;
        let verdict = if *torn { "torn tail" } else { "DAMAGED" };
        let unreadable = match unreadable {
            0 => String::new(),
            bytes => format!(" ({bytes} bytes not readable)"),
        };
        format!("{verdict} {name} at offset {offset}: {why}{unreadable}; {path} byte {position}")
    }

    /// One object.
    pub(super) fn json(&self, name: &str, log: &LogFolder) -> Value {
        json!({
            "v": 1,
            "type": "problem",
            "kind": self.kind,
            "damage": !self.torn,
            "log": name,
            "topic_id": log.partition.topic.to_string(),
            "partition": log.partition.index,
            "quarantine": log.quarantine,
            "offset": self.offset.0,
            "path": self.path,
            "position": self.position,
            "unreadable_bytes": self.unreadable,
            "why": self.why,
        })
    }
}

fn kind(damage: &Damage) -> &'static str {
    match damage {
        Damage::Batch(BatchError::Checksum { .. }) => "checksum",
        Damage::Batch(BatchError::Truncated { .. }) => "truncated",
        Damage::Batch(_) => "header",
        Damage::Gap { .. } => "gap",
        Damage::LogStart => "log-start",
        Damage::Compaction => "compaction",
        Damage::Epoch { .. } => "epoch",
        Damage::Missing { .. } => "missing",
        Damage::Unreadable { .. } => "unreadable",
    }
}
