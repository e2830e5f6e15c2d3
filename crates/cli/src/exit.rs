//! How commands end: documented codes, and errors of three lines.

use std::borrow::Cow;
use std::fmt;

use holdfast_core::ErrorCode;
use holdfast_proto::ApiError;

/// Done.
pub const OK: u8 = 0;
/// Status commands: something is degraded, everything works. `demo`, `bench`: a promise was broken.
pub const WARNING: u8 = 1;
/// Status commands: something does not work.
pub const CRITICAL: u8 = 2;
/// Status commands: the state could not be found out.
pub const UNKNOWN: u8 = 3;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// What was given in cannot be used: a record, an offset, a name.
pub const DATA: u8 = 65;
/// No broker can be reached.
pub const UNREACHABLE: u8 = 69;
/// A defect of ours, or an outcome that is not known.
pub const SOFTWARE: u8 = 70;
/// A port, a folder or a file cannot be used.
pub const CANNOT_CREATE: u8 = 73;
/// Trying again later may help.
pub const RETRY: u8 = 75;
/// Not allowed.
pub const DENIED: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

/// What `--help` says of them.
pub const HELP: &str = "Exit codes: 0 ok, 1 degraded or promise broken, 2 not working, 3 state unknown, 64 usage, \
65 bad data, 69 unreachable, 70 internal or outcome unknown, 73 port or file not usable, 75 try again, 77 denied, \
78 configuration";

/// An error for a person: what failed, why, what to do next.
#[derive(Debug)]
pub struct CliError {
    /// What failed.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do next.
    pub next: String,
    /// How the process ends.
    pub exit: u8,
}

impl CliError {
    /// An error.
    pub fn new(
        exit: u8,
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> CliError {
        CliError { what: what.into(), why: why.into(), next: next.into(), exit }
    }

    /// An error that the cluster answered with, in the course of `what`.
    pub fn api(what: impl Into<String>, error: &ApiError) -> CliError {
        let (exit, next) = advice(error.code);
        CliError::new(exit, what, format!("{} [{}]", error.message, error.code), next)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", one_line(&self.what))?;
        writeln!(f, "  why: {}", one_line(&self.why))?;
        write!(f, " next: {}", one_line(&self.next))
    }
}

/// Whatever a cause says, an error has three lines: programs rely on it.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let lines = text.split(char::is_control).map(str::trim).filter(|line| !line.is_empty());
    Cow::Owned(lines.collect::<Vec<_>>().join(" "))
}

impl std::error::Error for CliError {}

fn advice(code: ErrorCode) -> (u8, &'static str) {
    match code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => (DATA, "see `holdfast topic ls`"),
        ErrorCode::ConflictingChange => {
            (RETRY, "look at its state again, with `holdfast topic describe`, and repeat")
        }
        ErrorCode::TopicExists => (DATA, "choose another name, or see `holdfast topic describe`"),
        ErrorCode::PlacementImpossible => {
            (DATA, "see `holdfast cluster status` for the zones that are up; `--waive-zones` accepts fewer")
        }
        ErrorCode::InvalidRequest
        | ErrorCode::CorruptBatch
        | ErrorCode::BatchTooLarge
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::UnknownProducer
        | ErrorCode::FencedProducer => (DATA, "correct what was given and try again"),
        ErrorCode::InvalidRecord => {
            (DATA, "the topic is compacted: give every record a key, for example with `--key-separator`")
        }
        ErrorCode::OffsetOutOfRange => {
            (DATA, "use `--offset start` or `--offset end`, or an offset in between")
        }
        ErrorCode::WrongCluster => (DENIED, "check `--bootstrap` and the cluster's name"),
        ErrorCode::Unavailable => (UNREACHABLE, "check `--bootstrap`, and that the brokers run"),
        ErrorCode::LeaderLost | ErrorCode::NotEnoughReplicasAfterAppend | ErrorCode::DeadlineExceeded => {
            (SOFTWARE, "the outcome is unknown: read the topic before sending again")
        }
        ErrorCode::NotLeader
        | ErrorCode::LeaderUnavailable
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::Overloaded
        | ErrorCode::ControllerUnavailable
        | ErrorCode::MetadataIncomplete
        | ErrorCode::StorageFailed => (RETRY, "try again in a moment; see `holdfast cluster status`"),
        ErrorCode::DiskFull => (
            RETRY,
            "make room on that broker's disk, or delete topics; records are taken again by itself once there is room",
        ),
        _ => (SOFTWARE, "see the brokers' logs"),
    }
}
