//! Changes of replica sets: what the controllers' leader does by itself (replacements, learners that become members,
//! leaders that go home), and what an operator may ask for at a bad moment.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::metadata::{
    Appointment, Command, Partition, Reassignment, home_moves, replacements, set_changes,
};
use holdfast_core::{BrokerId, Incarnation, PartitionId, ReplicaId, Term, Timestamp};

use super::{Controller, broker_id, partition_id};
use crate::coverage::Sight;

/// A broker that was silent for so long does not come back: its replicas move.
const REPLACE_AFTER: Duration = Duration::from_secs(4);
/// Partitions that move at once.
const MOVES: usize = 1;

impl Controller {
    /// One round of what needs no operator.
    pub(super) fn keep_up(&mut self, now: Timestamp) {
        let gone: BTreeSet<BrokerId> = self
            .silent_since
            .iter()
            .filter(|&(_, &since)| now.since(since) >= REPLACE_AFTER)
            .map(|(&node, _)| broker_id(node))
            .collect();
        self.call_off_lost_moves(&gone);
        let moves = replacements(self.metadata.map(), &gone, MOVES);
        if !moves.is_empty() && self.propose(Command::Reassign(moves)).is_ok() {
            self.coverage.see(Sight::Replacement);
        }
        let ready = set_changes(self.metadata.map(), |id, term, replica| self.is_in_sync(id, term, replica));
        let moved = ready.first().copied();
        if !ready.is_empty() && self.propose(Command::ChangeSets(ready)).is_ok() {
            self.coverage.see(Sight::SetChanged);
            // Now and then an operator thinks better of it at once.
            if let Some((id, _)) = moved.filter(|_| self.random.chance(100)) {
                self.cancel(id.index as usize);
            }
        }
        let quiet = |broker: BrokerId| !self.silent_since.contains_key(&super::node_of(broker));
        let home = home_moves(
            self.metadata.map(),
            quiet,
            |id, term, replica| self.is_in_sync(id, term, replica),
            MOVES,
        );
        // Seldom: a leader that goes home is a fault like any other to those who write.
        if !home.is_empty() && self.random.chance(20) && self.propose(Command::Appoint(home)).is_ok() {
            self.coverage.see(Sight::HandedOver);
        }
    }

    /// A move to a replica that nobody has any more never ends by itself.
    fn call_off_lost_moves(&mut self, gone: &BTreeSet<BrokerId>) {
        let map = self.metadata.map();
        let lost = |replica: ReplicaId| {
            gone.contains(&replica.broker)
                || map.broker(replica.broker).is_none_or(|broker| broker.dir != replica.dir)
        };
        let stuck = |partition: &&Partition| {
            partition.register.prev.is_none() && partition.register.learners().any(lost)
        };
        let stuck: Vec<_> = map.partitions().filter(stuck).map(|it| (it.id, it.register.term)).collect();
        for (partition, expected_term) in stuck {
            // Refused where the register has changed; then the next round looks again.
            let _ = self.propose(Command::CancelReassign { partition, expected_term });
        }
    }

    fn is_in_sync(&self, id: PartitionId, term: Term, replica: ReplicaId) -> bool {
        self.in_sync
            .get(&id)
            .is_some_and(|(reported, in_sync)| *reported == term && in_sync.contains(&replica))
    }

    /// R3.
    pub(super) fn complete(&mut self, partition: usize, term: Term) {
        let changes = |register: &holdfast_core::metadata::Register| register.prev.is_some();
        let before = self.register(partition).is_some_and(changes);
        // Of an earlier term: nothing.
        let _ = self.propose(Command::CompleteChange { partition: partition_id(partition), term });
        let after = self.register(partition).is_some_and(changes);
        self.coverage.count(Sight::ChangeCompleted, before && !after);
    }

    /// An operator moves a replica to another broker of its zone, or a whole set wherever the zones allow.
    pub(crate) fn reassign(&mut self, partition: usize) {
        let Some(register) = self.register(partition) else { return };
        let (expected_term, size) = (register.term, register.set.len());
        let mut brokers: Vec<BrokerId> = register.set.iter().map(|replica| replica.broker).collect();
        let all: Vec<BrokerId> = self.metadata.map().brokers().map(|broker| broker.id).collect();
        let changes = if self.random.chance(700) { 1 } else { size };
        for _ in 0..changes {
            let place = self.random.below(size);
            if let Some(broker) = self.random.pick(&all) {
                brokers[place] = broker;
            }
        }
        let partition = partition_id(partition);
        // Refused where a rule speaks against it; then nothing moves.
        let _ = self.propose(Command::Reassign(vec![Reassignment { partition, expected_term, brokers }]));
    }

    /// An operator calls a move off.
    pub(crate) fn cancel(&mut self, partition: usize) {
        let Some(register) = self.register(partition) else { return };
        let (expected_term, leaves) = (register.term, register.prev.is_some());
        let command = Command::CancelReassign { partition: partition_id(partition), expected_term };
        if self.propose(command).is_ok() {
            self.coverage.count(Sight::GoneBack, leaves && self.is_up());
        }
    }

    /// An operator gives up what a majority has forgotten, or lost with its disks (R37).
    pub(crate) fn recover_unclean(&mut self, partition: usize) {
        let Some(before) = self.register(partition).cloned() else { return };
        let members: Vec<ReplicaId> =
            before.set.iter().chain(before.prev.iter().flatten()).copied().collect();
        let Some(leader) = self.random.pick(&members).map(|replica| replica.broker) else { return };
        let (partition_id, expected_term) = (partition_id(partition), before.term);
        let appointment = Appointment { partition: partition_id, expected_term, leader };
        // Refused where that broker has nothing to lead with; then the operator tries another.
        let _ = self.propose(Command::RecoverUnclean { appointment });
        let Some(after) = self.register(partition).filter(|after| after.term > before.term).cloned() else {
            return;
        };
        self.coverage.see(Sight::UncleanOrder);
        let other = (&after.set, &after.prev) != (&before.set, &before.prev);
        let same_brokers = after.set.iter().zip(&before.set).all(|(new, old)| new.broker == old.broker);
        self.coverage.count(Sight::LostReplaced, same_brokers && after.set != before.set);
        self.coverage.count(Sight::ChangeGivenUp, other && before.prev.is_some());
    }

    /// A broker is about to be stopped: others lead what it leads.
    pub(crate) fn drain(&mut self, node: usize, incarnation: Incarnation) {
        if self.propose(Command::DrainBroker { id: broker_id(node), incarnation }).is_ok() {
            self.coverage.see(Sight::Drained);
        }
    }

    /// Whether a partition stands still: nothing learns, nothing is being left.
    pub(crate) fn is_still(&self, partition: usize) -> bool {
        self.register(partition).is_some_and(|register| register.target.is_none() && register.prev.is_none())
    }
}
