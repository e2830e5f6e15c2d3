//! The ledger: when a failover was detected, appointed, recovered, writable and in sync, and what else befell the
//! cluster.
//!
//! Every controller keeps it by itself, as an observer of what all of them see anyway: entries applied, heartbeat
//! streams, leaders' reports, the leader of the quorum. So it outlives any of them, and nothing waits for it.
//!
//! ```text
//!  heartbeats, raft, supervisor ── Observation ──► queue ──► Ledger ── Record ──► History ◄── ListEvents
//!            (watch, observation)                  (task)    │                       └──► ring (two files)
//!                    contacts     who was heard last, cut, judged gone ──┤
//!                    horizon      which entries are news ────────────────┤
//!                    entries      what an entry means ───────────────────┤
//!                    leaderships  how far each leader is ────────────────┤
//!                    failover     one entry's moves under way ───────────┤
//!                    elections    who leads the controllers ─────────────┘
//! ```
//!
//! Invariant: times are told only of what this controller saw. What it was not there for is absent from its records.
//! Invariant: times of one record never decrease: what is seen out of order is known from the first sign of it on.

mod contacts;
mod elections;
mod entries;
mod failover;
mod history;
mod horizon;
mod leaderships;
mod observation;
mod record;
mod ring;
mod task;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use holdfast_core::metadata::{ClusterMap, LeaderReport, Object, Update};
use holdfast_core::{BrokerId, ControllerId, PartitionId};

use contacts::Contacts;
use elections::Elections;
use entries::Found;
use failover::{Beginning, Failover, Stamp, head, micros};
use horizon::Horizon;
use leaderships::Leaderships;
use record::{Kind, Record, Since};

use observation::Moment;

pub(crate) use observation::{AppliedEntry, Observation, Observer};
pub(crate) use record::Reason;
pub(crate) use ring::unreadable_lines;
pub(crate) use task::{Book, LedgerTask};
pub(crate) use watch::Watch;
pub(crate) use wire::event_to_wire;

/// Failovers that are followed at a time; with a further one the oldest is recorded as it is.
const MAX_OPEN: usize = 16;
/// A gap between two observations in which this process did not run: the supervisor looks every 25 ms. What waited in
/// sockets meanwhile would get the time at which it was read.
const SLEPT: Duration = Duration::from_secs(1);

/// Takes observations, gives records.
#[derive(Debug)]
pub(crate) struct Ledger {
    me: ControllerId,
    /// Silence that says something, of a broker whose streams are open.
    silence: Duration,
    map: ClusterMap,
    horizon: Horizon,
    contacts: Contacts,
    leaderships: Leaderships,
    elections: Elections,
    open: VecDeque<Failover>,
    /// When replicas of a partition began to move, as far as it was seen.
    moving: BTreeMap<PartitionId, Moment>,
    records: VecDeque<Record>,
    /// The last observation.
    seen: Option<Instant>,
}

impl Ledger {
    /// Of one of so many voters, which holds this map already.
    pub(crate) fn new(me: ControllerId, voters: usize, silence: Duration, map: ClusterMap) -> Ledger {
        Ledger {
            me,
            silence,
            map,
            horizon: Horizon::new(me, voters),
            contacts: Contacts::default(),
            leaderships: Leaderships::default(),
            elections: Elections::default(),
            open: VecDeque::new(),
            moving: BTreeMap::new(),
            records: VecDeque::new(),
            seen: None,
        }
    }

    /// Takes in an observation. Returns false where the map does not follow any more: it needs `resume`.
    pub(crate) fn handle(&mut self, moment: Moment, observation: Observation) -> bool {
        let now = moment.now;
        let before = self.seen.replace(now).unwrap_or(now);
        if now.saturating_duration_since(before) >= SLEPT {
            self.slept();
        }
        match observation {
            Observation::Heard(run) => self.contacts.heard(now, run),
            Observation::Cut(run) => self.contacts.cut(now, run),
            Observation::Gone(run, reason) => self.contacts.gone(now, run, reason),
            Observation::Reported(broker, report) => self.reported(now, broker, &report),
            Observation::Applied(entry) => return self.applied(moment, *entry),
            Observation::Replaced => return false,
            Observation::Standing { term, leader } => self.standing(moment, term, leader),
            Observation::Reaches(controller, index) => self.horizon.reaches(controller, index),
            Observation::HeldBack(brokers) => self.held_back(moment, &brokers),
            Observation::Looked => {}
        }
        true
    }

    /// Goes on from a map that was taken elsewhere; what happened in between is not known.
    pub(crate) fn resume(&mut self, map: ClusterMap) {
        self.map = map;
        let stands = |id: &PartitionId| self.map.partition(*id).is_some();
        self.moving.retain(|id, _| stands(id));
    }

    /// The next record to keep. A later one of the same key takes the place of the one before.
    pub(crate) fn next_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// Failovers under way, as they stand.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = Record> {
        self.open.iter().map(Failover::record)
    }

    fn standing(&mut self, moment: Moment, term: u64, leader: Option<ControllerId>) {
        if self.elections.standing(moment, self.me, term, leader) {
            self.horizon.lose_sight();
        }
        self.horizon.standing(term, leader);
    }

    /// What is seen from here on may be old.
    fn slept(&mut self) {
        self.horizon.lose_sight();
        self.elections.forget();
        self.contacts = Contacts::default();
        while let Some(failover) = self.open.pop_front() {
            self.records.push_back(failover.record());
        }
    }

    fn held_back(&mut self, moment: Moment, brokers: &[BrokerId]) {
        let found = Found {
            kind: Kind::HeldBack,
            reason: Reason::Silence,
            brokers: brokers.to_vec(),
            zone: brokers.first().and_then(|id| self.map.broker(*id)).map(|broker| broker.zone.to_string()),
            gone: Vec::new(),
            moved: Vec::new(),
        };
        let stamp = Stamp { controller: self.me.0, led: true, index: 0, term: 0 };
        self.records.push_back(head(stamp, &found, moment.wall_ms, Since::Heard));
    }

    fn reported(&mut self, now: Instant, broker: BrokerId, report: &LeaderReport) {
        let Some(leadership) = self.leaderships.reported(now, &self.map, broker, report) else { return };
        for failover in &mut self.open {
            failover.progress(&self.map, report.partition, leadership);
        }
        self.settle(now);
    }

    fn applied(&mut self, moment: Moment, entry: AppliedEntry) -> bool {
        let is_news = self.horizon.is_news(entry.index, entry.term);
        if let Some(record) = self.elections.applied(moment.now, entry.term) {
            self.records.push_back(record);
        }
        let Some((command, update)) = entry.change else { return true };
        let found = entries::read(&self.map, &command, &update, &self.leaderships);
        match self.map.adopt(&update) {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return false,
        }
        self.note_moves(moment, &update);
        let led = self.horizon.is_own(entry.term);
        let stamp = Stamp { controller: self.me.0, led, index: entry.index, term: entry.term };
        for found in found.into_iter().filter(|_| is_news) {
            self.record(moment, stamp, &found);
        }
        self.settle(moment.now);
        true
    }

    fn record(&mut self, moment: Moment, stamp: Stamp, found: &Found) {
        match found.kind {
            Kind::Failover | Kind::Move | Kind::Unclean => self.begin(moment, stamp, found),
            Kind::ReplicasMoved => {
                let begun = found.moved.first().and_then(|moved| self.moving.remove(&moved.id));
                self.records.push_back(self.replicas_moved(moment, stamp, found, begun));
            }
            Kind::Registered | Kind::HeldBack | Kind::Election => {
                self.records.push_back(head(stamp, found, moment.wall_ms, Since::Appointed));
            }
        }
    }

    fn replicas_moved(&self, moment: Moment, stamp: Stamp, found: &Found, begun: Option<Moment>) -> Record {
        let since = if begun.is_some() { Since::Begun } else { Since::Appointed };
        let mut record = head(stamp, found, begun.unwrap_or(moment).wall_ms, since);
        record.in_sync = begun.and_then(|begun| {
            record::Quantiles::of(vec![micros(moment.now.saturating_duration_since(begun.now))])
        });
        record.rows = found.moved.iter().map(|moved| self.row(moved)).collect();
        record
    }

    fn row(&self, moved: &entries::Moved) -> record::Row {
        let topic = self.map.topic(moved.id.topic).map(|topic| topic.name.clone());
        record::Row {
            topic: topic.unwrap_or_default(),
            partition: moved.id.index,
            from: moved.from.0,
            to: moved.to.0,
            term: moved.term.0,
            recovered_us: None,
            writable_us: None,
            in_sync_us: None,
            superseded: false,
        }
    }

    fn begin(&mut self, moment: Moment, stamp: Stamp, found: &Found) {
        for failover in &mut self.open {
            found.moved.iter().for_each(|moved| failover.supersede(moved.id));
        }
        let beginning = self.beginning(moment.now, found);
        let leaderships = || {
            let known = |moved: &entries::Moved| Some((moved.id, self.leaderships.of(moved.id, moved.term)?));
            found.moved.iter().filter_map(known)
        };
        let early = leaderships().map(|(_, leadership)| leadership.first).min();
        let mut failover = Failover::begin(moment, stamp, &self.map, found, beginning, early);
        leaderships().for_each(|(id, leadership)| failover.progress(&self.map, id, leadership));
        self.records.push_back(failover.record());
        self.open.push_back(failover);
        if self.open.len() > MAX_OPEN
            && let Some(oldest) = self.open.pop_front()
        {
            self.records.push_back(oldest.record());
        }
    }

    fn beginning(&self, now: Instant, found: &Found) -> Beginning {
        let stalled = || {
            let of = |moved: &entries::Moved| self.leaderships.of(moved.id, moved.before)?.stalled;
            found.moved.iter().filter_map(of).min()
        };
        if found.reason == Reason::Stalled
            && let Some(at) = stalled()
        {
            return Beginning { at, since: Since::Stalled, detected: Some((at, Reason::Stalled)) };
        }
        let losses = found.gone.iter().filter_map(|&run| self.contacts.loss(now, run, self.silence));
        let losses: Vec<_> = losses.collect();
        let Some(first) = losses.iter().min_by_key(|loss| loss.at) else {
            return Beginning { at: now, since: Since::Appointed, detected: None };
        };
        let judged = losses.iter().filter_map(|loss| loss.gone).min_by_key(|(at, _)| *at);
        // Whoever did not judge itself knows of the verdict with the entry.
        let detected = Some(judged.unwrap_or((now, found.reason)));
        Beginning { at: first.at, since: first.since, detected }
    }

    /// Remembers when replicas began to move. Bounded by the map.
    fn note_moves(&mut self, moment: Moment, update: &Update) {
        let is_moving = |map: &ClusterMap, id: PartitionId| {
            map.partition(id)
                .is_some_and(|known| known.register.target.is_some() || known.register.prev.is_some())
        };
        for object in &update.objects {
            if let Object::Partition(partition) = object
                && partition.register.target.is_some()
            {
                self.moving.entry(partition.id).or_insert(moment);
            }
        }
        let open: Vec<PartitionId> = self.open.iter().flat_map(Failover::partitions).collect();
        for id in open.into_iter().filter(|id| self.map.partition(*id).is_none()) {
            self.open.iter_mut().for_each(|failover| failover.supersede(id));
        }
        let completed = self.map.index();
        self.moving.retain(|id, _| {
            is_moving(&self.map, *id)
                || self.map.partition(*id).is_some_and(|known| known.version == completed)
        });
    }

    /// Gives the records of what is over, and of what has just become writable.
    fn settle(&mut self, now: Instant) {
        let mut open = VecDeque::with_capacity(self.open.len());
        for mut failover in self.open.drain(..) {
            let over = failover.is_over(now);
            if over || failover.is_writable_now() {
                self.records.push_back(failover.record());
            }
            if !over {
                open.push_back(failover);
            }
        }
        self.open = open;
    }
}
