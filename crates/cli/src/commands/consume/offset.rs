//! Where reading begins: `start`, `end`, `42`, `-10`, `@2026-11-21T08:00:00Z`, `@-1h`.

use std::time::{Duration, SystemTime};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use holdfast_client::{Client, ListOffsetAt, StartAt};
use holdfast_core::{ErrorCode, Offset};
use holdfast_proto::ApiError;

use crate::exit::{self, CliError};

/// Partitions asked for their offsets at once.
const LOOKUPS: usize = 16;

/// What `--offset` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Start,
    End,
    /// This offset, in every partition.
    At(u64),
    /// So many before the end of every partition.
    BeforeEnd(u64),
    /// The first record of this time or later; milliseconds since 1970.
    Time(i64),
}

impl From {
    pub(super) fn parse(text: &str, now: SystemTime) -> Result<From, CliError> {
        let parsed = match (text, text.strip_prefix('@'), text.strip_prefix('-')) {
            ("start", ..) => Some(From::Start),
            ("end", ..) => Some(From::End),
            (_, Some(time), _) => parse_time(time, now).map(From::Time),
            (_, _, Some(count)) => parse_number(count).map(From::BeforeEnd),
            _ => parse_number(text).map(From::At),
        };
        parsed.ok_or_else(|| {
            let why = format!("{text:?} is no offset");
            let next = "use start, end, 42, -10 (ten offsets before the end), @2026-11-21T08:00:00Z or @-1h";
            CliError::new(exit::USAGE, "reading --offset", why, next)
        })
    }
}

/// Digits only: `+5` and `--5` are mistakes.
fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn parse_time(text: &str, now: SystemTime) -> Option<i64> {
    let time = match text.strip_prefix('-') {
        Some(ago) => now.checked_sub(humantime::parse_duration(ago).ok()?)?,
        None => humantime::parse_rfc3339(text).ok()?,
    };
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).ok()
}

/// Where one partition begins; without a number, all of the topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: Option<u32>,
    pub(super) start: StartAt,
}

/// Where every partition begins; `chosen` empty means all.
pub(super) async fn places(
    client: &Client,
    topic: &str,
    chosen: &[u32],
    from: From,
) -> Result<Vec<Place>, CliError> {
    let everywhere = |start| match chosen {
        [] => vec![Place { partition: None, start }],
        chosen => chosen.iter().map(|&partition| Place { partition: Some(partition), start }).collect(),
    };
    match from {
        From::Start => Ok(everywhere(StartAt::Beginning)),
        From::End => Ok(everywhere(StartAt::End)),
        From::Time(at) => Ok(everywhere(StartAt::Timestamp(at))),
        From::At(offset) => {
            let start = StartAt::Offset(Offset(offset));
            let ranges = ranges(client, topic, chosen).await?;
            match ranges.iter().find(|range| !range.contains(offset)) {
                None => Ok(everywhere(start)),
                Some(range) => Err(range.lacks(topic, offset)),
            }
        }
        From::BeforeEnd(count) => {
            let ranges = ranges(client, topic, chosen).await?;
            let place = |range: Range| Place {
                partition: Some(range.partition),
                start: StartAt::Offset(range.before_end(count)),
            };
            Ok(ranges.into_iter().map(place).collect())
        }
    }
}

/// What can be read of a partition.
#[derive(Debug, Clone, Copy)]
struct Range {
    partition: u32,
    first: Offset,
    /// Exclusive. Reading may begin here: it then waits for the next record.
    end: Offset,
}

impl Range {
    fn contains(&self, offset: u64) -> bool {
        (self.first.0..=self.end.0).contains(&offset)
    }

    fn before_end(&self, count: u64) -> Offset {
        Offset(self.end.0.saturating_sub(count)).max(self.first)
    }

    fn lacks(&self, topic: &str, offset: u64) -> CliError {
        let Range { partition, first, end } = self;
        let message =
            format!("partition {partition} holds offsets from {first} to {end} (exclusive), not {offset}");
        let what = format!("reading topic {topic:?} from offset {offset}");
        CliError::api(what, &ApiError::new(ErrorCode::OffsetOutOfRange, message))
    }
}

async fn ranges(client: &Client, topic: &str, chosen: &[u32]) -> Result<Vec<Range>, CliError> {
    let failed = |error: ApiError| CliError::api(format!("finding the offsets of topic {topic:?}"), &error);
    // Asked first: it waits for a topic that was made a moment ago.
    let first_known = client.list_offset(topic, chosen.first().copied().unwrap_or(0), ListOffsetAt::Earliest);
    first_known.await.map_err(failed)?;
    let count = client.map().topic_named(topic).map_or(0, |topic| topic.spec.partitions);
    let mut partitions = if chosen.is_empty() { (0..count).collect() } else { chosen.to_vec() };
    partitions.sort_unstable();
    partitions.dedup();
    let lookups = partitions.into_iter().map(|partition| async move {
        let first = client.list_offset(topic, partition, ListOffsetAt::Earliest).await?;
        let end = client.list_offset(topic, partition, ListOffsetAt::Latest).await?;
        Ok(Range { partition, first, end })
    });
    stream::iter(lookups).buffered(LOOKUPS).try_collect().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000_000;

    fn parse(text: &str) -> Result<From, u8> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW as u64);
        From::parse(text, now).map_err(|error| error.exit)
    }

    #[test]
    fn every_form_is_read() {
        for (text, from) in [
            ("start", From::Start),
            ("end", From::End),
            ("0", From::At(0)),
            ("42", From::At(42)),
            ("-10", From::BeforeEnd(10)),
            ("@1970-01-01T00:00:01Z", From::Time(1000)),
            ("@2026-11-21T08:00:00.5Z", From::Time(1_795_248_000_500)),
            ("@-1h", From::Time(NOW - 3_600_000)),
            ("@-1h 30m", From::Time(NOW - 5_400_000)),
            ("@-90days", From::Time(NOW - 90 * 86_400_000)),
        ] {
            assert_eq!(parse(text), Ok(from), "{text:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "begin",
            "-",
            "+5",
            "--5",
            "4.2",
            "-4x",
            "@",
            "@1h",
            "@-",
            "@yesterday",
            "@2026-11-21",
            "99999999999999999999",
            "@--1h",
            " 5",
        ] {
            assert_eq!(parse(text), Err(exit::USAGE), "{text:?}");
        }
    }

    #[test]
    fn a_range_ends_where_the_next_record_will_be() {
        let range = Range { partition: 3, first: Offset(5), end: Offset(9) };
        assert!([5, 8, 9].iter().all(|offset| range.contains(*offset)));
        assert!([4, 10].iter().all(|offset| !range.contains(*offset)));
        assert_eq!([0, 1, 4, 5, 100].map(|count| range.before_end(count).0), [9, 8, 5, 5, 5]);
        let error = range.lacks("t", 10);
        assert_eq!(error.exit, exit::DATA);
        assert!(error.why.contains("from 5 to 9"), "{error}");
    }
}
