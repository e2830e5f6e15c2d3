//! A move of leaders that is under way: who has come how far, and the record of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_core::metadata::ClusterMap;
use holdfast_core::{BrokerId, PartitionId, Term};

use super::entries::{Found, Moved};
use super::leaderships::Leadership;
use super::observation::Moment;
use super::record::{Kind, MAX_ROWS, Quantiles, Reason, Record, Row, Shares, Since};

/// A partition that is not in sync by then is recorded as it is.
const GIVE_UP: Duration = Duration::from_secs(600);

/// One entry's moves.
#[derive(Debug)]
pub(super) struct Failover {
    head: Record,
    base: Instant,
    detected: Option<Instant>,
    appointed: Instant,
    rows: BTreeMap<PartitionId, OpenRow>,
    /// Rows that are not writable, and rows that are not in sync, superseded ones left out.
    unwritable: usize,
    unfinished: usize,
    written: bool,
}

/// Where the times of a failover begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub(super) at: Instant,
    pub(super) since: Since,
    pub(super) detected: Option<(Instant, Reason)>,
}

/// Who recorded it, and what it goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) controller: u64,
    pub(super) led: bool,
    pub(super) index: u64,
    pub(super) term: u64,
}

#[derive(Debug)]
struct OpenRow {
    topic: String,
    from: BrokerId,
    to: BrokerId,
    term: Term,
    recovered: Option<Instant>,
    writable: Option<Instant>,
    in_sync: Option<Instant>,
    superseded: bool,
}

impl OpenRow {
    fn of(map: &ClusterMap, moved: &Moved) -> OpenRow {
        OpenRow {
            topic: map.topic(moved.id.topic).map_or_else(String::new, |topic| topic.name.clone()),
            from: moved.from,
            to: moved.to,
            term: moved.term,
            recovered: None,
            writable: None,
            in_sync: None,
            superseded: false,
        }
    }
}

/// A record of an entry that moved nothing, or of which nothing further is awaited.
pub(super) fn head(stamp: Stamp, found: &Found, at_ms: i64, since: Since) -> Record {
    Record {
        kind: found.kind,
        reason: found.reason,
        since,
        at_ms,
        controller: stamp.controller,
        led: stamp.led,
        index: stamp.index,
        term: stamp.term,
        zone: found.zone.clone(),
        brokers: found.brokers.iter().map(|broker| broker.0).collect(),
        complete: true,
        detected_us: None,
        appointed_us: None,
        partitions: u32::try_from(found.moved.len()).unwrap_or(u32::MAX),
        recovered: None,
        writable: None,
        in_sync: None,
        shares: None,
        rows: Vec::new(),
        election: None,
    }
}

impl Failover {
    /// Begins with an entry just applied. `early` is the first report by one of the leaders that it appoints, where that
    /// came before: the appointment was known by then. The same holds for the verdict.
    pub(super) fn begin(
        moment: Moment,
        stamp: Stamp,
        map: &ClusterMap,
        found: &Found,
        beginning: Beginning,
        early: Option<Instant>,
    ) -> Failover {
        let appointed = early.unwrap_or(moment.now).min(moment.now);
        let detected = beginning.detected.map(|(at, _)| at.min(appointed));
        let mut head = head(stamp, found, moment.wall_of(beginning.at), beginning.since);
        if found.kind == Kind::Failover && found.reason == Reason::Verdict {
            let own = beginning.detected.filter(|&(at, _)| at <= appointed);
            head.reason = own.map_or(Reason::Verdict, |(_, reason)| reason);
        }
        let rows: BTreeMap<_, _> =
            found.moved.iter().map(|moved| (moved.id, OpenRow::of(map, moved))).collect();
        let unwritable = rows.len();
        // With an early report the base may be later than the appointment; no time is negative.
        let base = beginning.at.min(appointed);
        Failover { head, base, detected, appointed, unfinished: rows.len(), rows, unwritable, written: false }
    }

    /// Takes in what is known of a partition's leader.
    pub(super) fn progress(&mut self, map: &ClusterMap, partition: PartitionId, leadership: &Leadership) {
        let Some(row) = self.rows.get_mut(&partition) else { return };
        if row.superseded || row.term != leadership.term || row.to != leadership.broker {
            return;
        }
        row.recovered = row.recovered.or(leadership.recovered);
        if row.writable.is_none() && leadership.writable.is_some() {
            row.writable = leadership.writable;
            self.unwritable -= 1;
        }
        if row.in_sync.is_none()
            && let Some(at) = leadership.in_sync(map, partition)
        {
            row.in_sync = Some(at);
            self.unfinished -= 1;
        }
    }

    /// The partition has another term by now, or is gone.
    pub(super) fn supersede(&mut self, partition: PartitionId) {
        if let Some(row) = self.rows.get_mut(&partition)
            && row.in_sync.is_none()
            && !row.superseded
        {
            row.superseded = true;
            self.unfinished -= 1;
            self.unwritable -= usize::from(row.writable.is_none());
        }
    }

    /// The partitions that it moves.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.rows.keys().copied()
    }

    /// Whether nothing more is awaited.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.unfinished == 0 || now.saturating_duration_since(self.appointed) >= GIVE_UP
    }

    /// True once: when the last partition became writable. What follows may take long, and is worth less.
    pub(super) fn is_writable_now(&mut self) -> bool {
        self.unwritable == 0 && !std::mem::replace(&mut self.written, true)
    }

    /// Whether a loss had to be noticed before it could begin.
    fn is_detected(&self) -> bool {
        self.head.kind == Kind::Failover && self.head.reason != Reason::Return
    }

    /// As it stands.
    pub(super) fn record(&self) -> Record {
        let us = |at: Instant| micros(at.saturating_duration_since(self.base));
        let times = |of: fn(&OpenRow) -> Option<Instant>| -> Vec<u64> {
            self.rows.values().filter_map(of).map(us).collect()
        };
        let steps: Vec<(u64, u64)> =
            self.rows.values().filter_map(|row| Some((us(row.recovered?), us(row.writable?)))).collect();
        let (detected, appointed) = (self.detected.map(us), us(self.appointed));
        let shares = detected.and_then(|detected| Shares::of(detected, appointed, &steps));
        Record {
            complete: self.unfinished == 0 && (detected.is_some() || !self.is_detected()),
            detected_us: detected,
            appointed_us: Some(appointed),
            recovered: Quantiles::of(times(|row| row.recovered)),
            writable: Quantiles::of(times(|row| row.writable)),
            in_sync: Quantiles::of(times(|row| row.in_sync)),
            shares,
            rows: self.slowest(us),
            ..self.head.clone()
        }
    }

    /// The rows that a record has room for.
    fn slowest(&self, us: impl Fn(Instant) -> u64) -> Vec<Row> {
        let mut rows: Vec<(&PartitionId, &OpenRow)> = self.rows.iter().collect();
        if rows.len() > MAX_ROWS {
            // One that is not writable at all is the slowest.
            rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.writable.map_or(u64::MAX, &us)));
            rows.truncate(MAX_ROWS);
            rows.sort_by_key(|(id, _)| **id);
        }
        let row = |(id, row): (&PartitionId, &OpenRow)| Row {
            topic: row.topic.clone(),
            partition: id.index,
            from: row.from.0,
            to: row.to.0,
            term: row.term.0,
            recovered_us: row.recovered.map(&us),
            writable_us: row.writable.map(&us),
            in_sync_us: row.in_sync.map(&us),
            superseded: row.superseded,
        };
        rows.into_iter().map(row).collect()
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
