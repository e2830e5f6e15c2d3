//! What of a partition is kept no longer: by age and by size, whole segments, oldest first.
//!
//! Time comes in as an argument. Deleting too late is a nuisance, deleting too early a loss, so every doubt is for keeping: a
//! segment counts by its youngest record, the one that is appended to never goes, and times that cannot be are not believed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Offset;

/// Records may be stamped so far ahead of the clock here. What is stamped later is not believed.
const CLOCKS_APART: Duration = Duration::from_secs(600);

/// How much of each partition of a topic is kept. What is beyond one of the limits goes, whole segments, oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retention {
    /// Records may go when they are older than so many milliseconds, by their timestamps; never where it is not set.
    pub time_ms: Option<u64>,
    /// The oldest may go as long as so many bytes are left of the partition; never where it is not set.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Whether everything is kept.
    pub fn is_unlimited(&self) -> bool {
        *self == Retention::default()
    }
}

/// A segment that is not appended to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Offset behind its last record (exclusive).
    pub end: Offset,
    /// Bytes of batches.
    pub bytes: u64,
    /// Largest timestamp of its records, in milliseconds since 1970; as producers said.
    pub max_timestamp: Option<i64>,
}

/// Looks after one partition.
#[derive(Debug, Clone, Default)]
pub struct Retainer {
    /// Since when segments without a time that can be believed are known to be sealed, by their end. Begins anew with the
    /// process.
    seen: BTreeMap<Offset, i64>,
}

impl Retainer {
    /// Below which offset the partition's records are kept no longer. `sealed` are its segments but for the active one, oldest
    /// first; `bytes` is the size of all.
    pub fn expired(
        &mut self,
        retention: Retention,
        sealed: &[SealedSegment],
        bytes: u64,
        now_ms: i64,
    ) -> Option<Offset> {
        let first = sealed.first().map_or(Offset::ZERO, |segment| segment.end);
        self.seen.retain(|end, _| *end >= first);
        let times: Vec<i64> = sealed.iter().map(|segment| self.time_of(segment, now_ms)).collect();
        let keep_ms = retention.time_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let is_old = |time: i64| keep_ms.is_some_and(|keep_ms| now_ms.saturating_sub(time) > keep_ms);
        let by_age = sealed.iter().zip(times).take_while(|&(_, time)| is_old(time)).last();
        let by_age = by_age.map(|(segment, _)| segment);
        let by_size = retention.bytes.and_then(|limit| beyond(sealed, bytes, limit));
        [by_age, by_size].into_iter().flatten().map(|segment| segment.end).max()
    }

    /// When the youngest record of a segment was written; where that cannot be told, when the segment was first seen here.
    fn time_of(&mut self, segment: &SealedSegment, now_ms: i64) -> i64 {
        let latest = now_ms.saturating_add(i64::try_from(CLOCKS_APART.as_millis()).unwrap_or(i64::MAX));
        let believed = segment.max_timestamp.filter(|time| (0..=latest).contains(time));
        believed.unwrap_or_else(|| {
            // A clock that was set back starts the time anew.
            let seen = self.seen.entry(segment.end).or_insert(now_ms);
            *seen = now_ms.min(*seen);
            *seen
        })
    }
}

/// The youngest of the oldest segments without which at least `limit` of the `bytes` are left.
fn beyond(sealed: &[SealedSegment], mut bytes: u64, limit: u64) -> Option<&SealedSegment> {
    let gone = sealed.iter().take_while(|segment| {
        bytes = bytes.saturating_sub(segment.bytes);
        bytes >= limit
    });
    gone.last()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    /// Some day.
    const NOW: i64 = 20_000 * 24 * HOUR;

    /// Ends at 10, 20, 30 and so on, of 100 bytes each.
    fn segments(times: &[Option<i64>]) -> Vec<SealedSegment> {
        let segment = |(number, max_timestamp): (u64, Option<i64>)| SealedSegment {
            end: Offset(number * 10),
            bytes: 100,
            max_timestamp,
        };
        (1..).zip(times.iter().copied()).map(segment).collect()
    }

    fn hours(hours: i64) -> Retention {
        Retention { time_ms: Some((hours * HOUR) as u64), bytes: None }
    }

    fn ago(hours: i64) -> Option<i64> {
        Some(NOW - hours * HOUR)
    }

    #[test]
    fn the_oldest_segments_go_by_their_youngest_record() {
        let sealed = segments(&[ago(30), ago(26), ago(20), ago(40), ago(1)]);
        let expired = |retention| Retainer::default().expired(retention, &sealed, 500, NOW);
        assert_eq!(expired(hours(24)), Some(Offset(20)), "what lies behind a younger one stays");
        assert_eq!(expired(hours(30)), None, "not before it is older");
        assert_eq!(expired(hours(0)), Some(Offset(50)));
        assert_eq!(expired(Retention::default()), None);
        assert_eq!(Retainer::default().expired(hours(1), &[], 100, NOW), None);
    }

    #[test]
    fn what_is_left_is_no_smaller_than_asked_for() {
        let sealed = segments(&[ago(3), ago(2), ago(1)]);
        let expired = |bytes, limit| {
            let retention = Retention { time_ms: None, bytes: Some(limit) };
            Retainer::default().expired(retention, &sealed, bytes, NOW)
        };
        for (bytes, limit, end) in [
            (350, 351, None),
            (350, 251, None),
            (350, 250, Some(10)),
            (350, 60, Some(20)),
            (350, 50, Some(30)),
        ] {
            assert_eq!(expired(bytes, limit), end.map(Offset), "{limit} of {bytes}");
        }
        let both = Retention { time_ms: Some(HOUR as u64), bytes: Some(250) };
        assert_eq!(
            Retainer::default().expired(both, &sealed, 350, NOW),
            Some(Offset(20)),
            "either is enough"
        );
    }

    /// What producers say of the future, or nothing, counts from when the segment was first seen sealed.
    #[test]
    fn times_that_cannot_be_are_not_believed() {
        let sealed = segments(&[Some(NOW + 9000 * HOUR), Some(-1), None, ago(-1)]);
        let mut retainer = Retainer::default();
        assert_eq!(retainer.expired(hours(24), &sealed, 400, NOW), None);
        assert_eq!(retainer.expired(hours(24), &sealed, 400, NOW + 24 * HOUR), None);
        assert_eq!(retainer.expired(hours(24), &sealed, 400, NOW + 25 * HOUR), Some(Offset(30)));
        // A clock that was wrong for a while.
        let mut retainer = Retainer::default();
        assert_eq!(retainer.expired(hours(24), &sealed, 400, NOW + 90 * HOUR), None);
        assert_eq!(retainer.expired(hours(24), &sealed, 400, NOW), None);
        assert_eq!(retainer.expired(hours(24), &sealed, 400, NOW + 23 * HOUR), None);
        retainer.expired(hours(24), &sealed[3..], 100, NOW);
        assert!(retainer.seen.len() <= 1, "of those that are gone nothing is kept: {:?}", retainer.seen);
    }
}
