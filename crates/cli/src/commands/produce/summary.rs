//! How `produce` ends: counts, rate, first error, exit code.

use std::process::ExitCode;
use std::time::Duration;

use holdfast_client::{CloseReport, Outcome, SendError};
use holdfast_core::ErrorCode;
use serde_json::json;

use crate::args::{Format, Global};
use crate::commands::human::{megabytes_per_second, per_second};
use crate::exit::{self, CliError};
use crate::output::print_json;

/// Why not all records were taken or acknowledged.
#[derive(Debug)]
pub(super) enum Problem {
    /// The cluster, or the producer, did not take a record.
    Send(SendError),
    /// The input cannot be read, or not be cut into records.
    Input(CliError),
}

/// What the command ends with.
pub(super) struct Summary {
    pub(super) counts: CloseReport,
    /// Of keys and values taken.
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

impl Summary {
    pub(super) fn print(
        &self,
        global: &Global,
        topic: &str,
        first_error: Option<&Problem>,
    ) -> Result<(), CliError> {
        let CloseReport { acked, failed, unknown } = self.counts;
        let rate = megabytes_per_second(self.bytes, self.time);
        eprintln!("acked {acked}  failed {failed}  unknown {unknown}  {rate:.1} MB/s");
        if global.format == Format::Text {
            return Ok(());
        }
        let first_error = first_error.map(|problem| match problem {
            Problem::Send(error) => {
                json!({ "code": error.source.code.name(), "message": error.source.message })
            }
            Problem::Input(error) => json!({ "code": "INPUT", "message": error.why }),
        });
        print_json(&json!({
            "v": 1,
            "topic": topic,
            "acked": acked,
            "failed": failed,
            "unknown": unknown,
            "bytes": self.bytes,
            "seconds": self.time.as_secs_f64(),
            "mb_per_s": rate,
            "records_per_s": per_second(acked, self.time),
            "first_error": first_error,
        }))
    }
}

/// 0 only where every record was acknowledged.
pub(super) fn ending(
    counts: &CloseReport,
    first: Option<Problem>,
    topic: &str,
) -> Result<ExitCode, CliError> {
    let CloseReport { acked, failed, unknown } = *counts;
    let what = format!("producing to topic {topic:?}");
    let problem = match first {
        None if failed == 0 && unknown == 0 => return Ok(ExitCode::SUCCESS),
        None => {
            let why = format!("{failed} records failed, {unknown} are of unknown outcome");
            CliError::new(exit::RETRY, what, why, "see `holdfast cluster status`")
        }
        Some(Problem::Input(error)) => error,
        Some(Problem::Send(SendError { outcome, source })) => {
            let mut problem = CliError::api(what, &source);
            // Without a key it fails as often as it is sent.
            if outcome == Outcome::Failed && source.code != ErrorCode::InvalidRecord {
                "what failed was certainly not stored: it can be sent again".clone_into(&mut problem.next);
            }
            let class = if problem.exit == exit::DATA { exit::DATA } else { exit::RETRY };
            CliError { exit: class, ..problem }
        }
    };
    if unknown == 0 {
        return Err(problem);
    }
    let next =
        format!("{acked} are stored; {unknown} may be, once: read the topic before sending them again");
    Err(CliError { exit: exit::SOFTWARE, next, ..problem })
}

#[cfg(test)]
mod tests {
    use holdfast_proto::ApiError;

    use super::*;

    fn ended(failed: u64, unknown: u64, code: Option<ErrorCode>) -> u8 {
        let counts = CloseReport { acked: 5, failed, unknown };
        let outcome = if unknown > 0 { Outcome::Unknown } else { Outcome::Failed };
        let first = code.map(|code| Problem::Send(SendError { outcome, source: ApiError::new(code, "no") }));
        ending(&counts, first, "t").map_or_else(|error| error.exit, |_| exit::OK)
    }

    #[test]
    fn exit_codes_tell_the_worst_outcome() {
        assert_eq!(ended(0, 0, None), exit::OK);
        assert_eq!(ended(1, 0, Some(ErrorCode::BatchTooLarge)), exit::DATA);
        assert_eq!(ended(1, 0, Some(ErrorCode::LeaderUnavailable)), exit::RETRY);
        assert_eq!(ended(1, 0, Some(ErrorCode::Unavailable)), exit::RETRY);
        assert_eq!(ended(1, 1, Some(ErrorCode::BatchTooLarge)), exit::SOFTWARE);
        assert_eq!(ended(0, 1, Some(ErrorCode::DeadlineExceeded)), exit::SOFTWARE);
        assert_eq!(ended(0, 1, None), exit::SOFTWARE);
    }
}
