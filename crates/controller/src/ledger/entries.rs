//! What an applied entry means: read from the map before and after it.

use std::collections::BTreeSet;

use holdfast_core::metadata::{Broker, ClusterMap, Command, Object, Register, Update};
use holdfast_core::{BrokerId, PartitionId, ReplicaId, Term};

use super::leaderships::Leaderships;
use super::record::{Kind, Reason};
use crate::liveness::Run;

/// A partition that got another term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) id: PartitionId,
    pub(super) from: BrokerId,
    pub(super) to: BrokerId,
    pub(super) term: Term,
    /// The term before.
    pub(super) before: Term,
    /// Whether the new leader is the preferred one.
    home: bool,
}

/// Something worth a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) reason: Reason,
    /// The brokers that it is about, and their zone if it is one.
    pub(super) brokers: Vec<BrokerId>,
    pub(super) zone: Option<String>,
    /// Runs that are gone: with the loss of the first of them the time begins.
    pub(super) gone: Vec<Run>,
    pub(super) moved: Vec<Moved>,
}

/// What the entry did, given the map before it.
pub(super) fn read(
    before: &ClusterMap,
    command: &Command,
    update: &Update,
    leaderships: &Leaderships,
) -> Vec<Found> {
    let entry = Entry { before, update, moved: moved(before, update) };
    match command {
        Command::FenceBrokers { .. } => entry.fenced(),
        Command::RegisterBroker { .. } => entry.registered(),
        Command::DrainBroker { .. } => entry.planned(Reason::Drain),
        Command::Reassign { .. } | Command::ChangeSets { .. } | Command::CancelReassign { .. } => {
            entry.planned(Reason::Reassign)
        }
        Command::Appoint { .. } => entry.appointed(leaderships),
        Command::RecoverUnclean { .. } => entry.unclean(),
        Command::CompleteChange { .. } => entry.completed(),
        Command::CreateTopic { .. }
        | Command::SetRetention { .. }
        | Command::AlterTopic { .. }
        | Command::DeleteTopic { .. }
        | Command::AllocateProducerIds { .. } => Vec::new(),
    }
}

fn moved(before: &ClusterMap, update: &Update) -> Vec<Moved> {
    let partitions = update.objects.iter().filter_map(|object| match object {
        Object::Partition(partition) => Some(partition),
        _ => None,
    });
    let moved = partitions.filter_map(|partition| {
        let known = &before.partition(partition.id)?.register;
        let Register { term, leader, ref set, .. } = partition.register;
        let moved = Moved {
            id: partition.id,
            from: known.leader.broker,
            to: leader.broker,
            term,
            before: known.term,
            home: set.first() == Some(&leader),
        };
        (term > known.term).then_some(moved)
    });
    moved.collect()
}

struct Entry<'a> {
    before: &'a ClusterMap,
    update: &'a Update,
    moved: Vec<Moved>,
}

impl Entry<'_> {
    /// Brokers as they are now, with what they were.
    fn brokers(&self) -> impl Iterator<Item = (&Broker, Option<&Broker>)> {
        self.update.objects.iter().filter_map(|object| match object {
            Object::Broker(broker) => Some((broker, self.before.broker(broker.id))),
            _ => None,
        })
    }

    fn fenced(self) -> Vec<Found> {
        let fenced = self.brokers().filter(|(now, was)| !now.live && was.is_some_and(|was| was.live));
        let fenced: Vec<&Broker> = fenced.map(|(now, _)| now).collect();
        let gone = fenced.iter().map(|broker| (broker.id, broker.incarnation)).collect();
        let (brokers, zone) = about(&fenced);
        vec![Found {
            kind: Kind::Failover,
            reason: Reason::Verdict,
            brokers,
            zone,
            gone,
            moved: self.moved.clone(),
        }]
    }

    fn registered(self) -> Vec<Found> {
        let Some((now, was)) = self.brokers().next() else { return Vec::new() };
        let restarted = was.filter(|was| was.incarnation != now.incarnation);
        let reason = match was {
            None => Reason::New,
            Some(was) if !was.live => Reason::Returned,
            Some(_) if restarted.is_some() => Reason::Restarted,
            Some(_) => Reason::Changed,
        };
        let (brokers, zone) = about(&[now]);
        let registered = Found {
            kind: Kind::Registered,
            reason,
            brokers: brokers.clone(),
            zone: zone.clone(),
            gone: Vec::new(),
            moved: Vec::new(),
        };
        if self.moved.is_empty() {
            return vec![registered];
        }
        // The run before went without a verdict: the next one was quicker.
        let lost = restarted.filter(|was| was.live);
        let reason = if lost.is_some() { Reason::Restart } else { Reason::Return };
        let gone = lost.into_iter().map(|was| (was.id, was.incarnation)).collect();
        let moved = self.moved.clone();
        vec![registered, Found { kind: Kind::Failover, reason, brokers, zone, gone, moved }]
    }

    fn planned(self, reason: Reason) -> Vec<Found> {
        let moved = self.moved.clone();
        self.moving(Kind::Move, reason, moved)
    }

    /// Of leaders that were stuck, home, or as somebody ordered: the entry does not say, what led to it does.
    fn appointed(self, leaderships: &Leaderships) -> Vec<Found> {
        let is_stuck = |moved: &Moved| {
            leaderships.of(moved.id, moved.before).is_some_and(|leadership| leadership.stalled.is_some())
        };
        let (stuck, others): (Vec<Moved>, Vec<Moved>) = self.moved.iter().cloned().partition(is_stuck);
        let (home, named): (Vec<Moved>, Vec<Moved>) = others.into_iter().partition(|moved| moved.home);
        let mut found = self.moving(Kind::Failover, Reason::Stalled, stuck);
        found.extend(self.moving(Kind::Move, Reason::Home, home));
        found.extend(self.moving(Kind::Move, Reason::Appointed, named));
        found
    }

    fn unclean(self) -> Vec<Found> {
        let moved = self.moved.clone();
        self.moving(Kind::Unclean, Reason::Ordered, moved)
    }

    /// About the leaders that are left.
    fn moving(&self, kind: Kind, reason: Reason, moved: Vec<Moved>) -> Vec<Found> {
        if moved.is_empty() {
            return Vec::new();
        }
        let from: BTreeSet<BrokerId> = moved.iter().map(|moved| moved.from).collect();
        let from: Vec<&Broker> = from.into_iter().filter_map(|id| self.before.broker(id)).collect();
        let (brokers, zone) = about(&from);
        vec![Found { kind, reason, brokers, zone, gone: Vec::new(), moved }]
    }

    /// Sets that are no longer being left.
    fn completed(self) -> Vec<Found> {
        let partitions = self.update.objects.iter().filter_map(|object| match object {
            Object::Partition(partition) => Some(partition),
            _ => None,
        });
        let found = partitions.filter_map(|partition| {
            let was = &self.before.partition(partition.id)?.register;
            let left = was.prev.as_ref().filter(|_| partition.register.prev.is_none())?;
            let moved = Moved {
                id: partition.id,
                from: newcomer(left, &partition.register.set)?,
                to: newcomer(&partition.register.set, left)?,
                term: was.term,
                before: was.term,
                home: false,
            };
            let brokers = partition.register.set.iter().map(|replica| replica.broker).collect();
            let (kind, reason) = (Kind::ReplicasMoved, Reason::Reassign);
            Some(Found { kind, reason, brokers, zone: None, gone: Vec::new(), moved: vec![moved] })
        });
        found.collect()
    }
}

/// The first of a set whom another set lacks.
fn newcomer(set: &[ReplicaId], other: &[ReplicaId]) -> Option<BrokerId> {
    set.iter().find(|replica| !other.contains(replica)).map(|replica| replica.broker)
}

fn about(brokers: &[&Broker]) -> (Vec<BrokerId>, Option<String>) {
    let zones: BTreeSet<&str> = brokers.iter().map(|broker| broker.zone.as_str()).collect();
    let zone = zones.first().filter(|_| zones.len() == 1).map(|zone| (*zone).to_owned());
    (brokers.iter().map(|broker| broker.id).collect(), zone)
}
