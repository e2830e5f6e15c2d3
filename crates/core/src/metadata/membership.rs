//! Moving a partition's replicas: learners first (R6), then the double quorum of R2, R3 and R13, one change at a time
//! (R43). Where too many of them are lost, an operator's order (R37) decides who is asked instead: `unclean`.

use super::apply::{Applied, Change};
use super::placement::{LeaderChoice, zone_rule_holds};
use super::unclean::recover_from;
use super::{Appointment, MetadataError, Object, Partition, Reassignment, Register};
use crate::mutant;
use crate::{BrokerId, PartitionId, ReplicaId, Term};

impl Change<'_> {
    /// R6: each for itself. Refused only where none could be taken.
    pub(super) fn reassign_all(&mut self, reassignments: &[Reassignment]) -> Result<Applied, MetadataError> {
        self.each(reassignments.iter(), |change, reassignment| change.reassign(reassignment))
    }

    fn reassign(&mut self, reassignment: &Reassignment) -> Result<(), MetadataError> {
        let id = reassignment.partition;
        let partition = self.partition_at(id, reassignment.expected_term)?;
        let leaves = partition.register.prev.is_some() && !mutant!(ChangeDuringChange);
        if leaves || partition.register.target.is_some() {
            return Err(MetadataError::ChangeUnderWay { id });
        }
        let target = self.replica_set(id, &reassignment.brokers)?;
        if target == partition.register.set {
            return Ok(());
        }
        let register = Register { target: Some(target), ..partition.register };
        self.put_register(id, register);
        Ok(())
    }

    /// The replicas of those brokers, if a partition may be kept there (R4).
    fn replica_set(&self, id: PartitionId, brokers: &[BrokerId]) -> Result<Vec<ReplicaId>, MetadataError> {
        let refused = |why: String| {
            let brokers: Vec<String> = brokers.iter().map(ToString::to_string).collect();
            MetadataError::BadReplicaSet { id, brokers: brokers.join(", "), why }
        };
        let topic = self.map.topic(id.topic).ok_or(MetadataError::UnknownTopic { id: id.topic })?;
        if brokers.len() != topic.spec.replication as usize {
            return Err(refused(format!("the topic's replication is {}", topic.spec.replication)));
        }
        if (1..brokers.len()).any(|nth| brokers[..nth].contains(&brokers[nth])) {
            return Err(refused("a broker is named twice".to_owned()));
        }
        let mut zones = Vec::with_capacity(brokers.len());
        let mut set = Vec::with_capacity(brokers.len());
        for &broker in brokers {
            let broker = self.map.broker(broker).ok_or(MetadataError::UnknownBroker { id: broker })?;
            zones.push(&broker.zone);
            set.push(broker.replica());
        }
        if !topic.spec.zone_waiver && !zone_rule_holds(zones) {
            return Err(refused("the loss of one zone would leave no majority".to_owned()));
        }
        Ok(set)
    }

    /// R2, each for itself. Refused only where none could be taken.
    pub(super) fn change_sets(&mut self, changes: &[(PartitionId, Term)]) -> Result<Applied, MetadataError> {
        self.each(changes.iter(), |change, &(id, term)| change.change_set(id, term))
    }

    fn change_set(&mut self, id: PartitionId, expected: Term) -> Result<(), MetadataError> {
        let partition = self.partition_at(id, expected)?;
        if partition.register.prev.is_some() && !mutant!(ChangeDuringChange) {
            return Err(MetadataError::ChangeUnderWay { id });
        }
        let target = partition.register.target.clone().ok_or(MetadataError::NoChangeUnderWay { id })?;
        if mutant!(ChangeSetInSameTerm) {
            self.put_register(id, Register { set: target, target: None, ..partition.register });
            return Ok(());
        }
        self.move_to(partition, target);
        Ok(())
    }

    /// Drops the learners, or goes back to the set that is being left: the one change that R43 allows meanwhile.
    pub(super) fn cancel_reassign(
        &mut self,
        id: PartitionId,
        expected: Term,
    ) -> Result<Applied, MetadataError> {
        let partition = self.partition_at(id, expected)?;
        let Register { set, prev, target, .. } = &partition.register;
        match (prev, target) {
            // What an unclean recovery asks besides is no set to go back to (R37).
            (Some(prev), _) if prev.len() < set.len() && !mutant!(GoBackToWhatIsLeft) => {
                return Err(MetadataError::NoChangeUnderWay { id });
            }
            (Some(prev), _) => {
                let back = prev.clone();
                self.move_to(partition, back);
            }
            (None, Some(_)) => {
                self.put_register(id, Register { target: None, ..partition.register });
            }
            (None, None) => return Err(MetadataError::NoChangeUnderWay { id }),
        }
        Ok(Applied::Done)
    }

    /// R2: a new term, whose leader recovers from a majority of both sets. The leader stays where it may: whoever leads
    /// now holds everything.
    fn move_to(&mut self, partition: Partition, set: Vec<ReplicaId>) {
        let old = partition.register.leader;
        let stays = set.contains(&old) && self.map.may_lead(old);
        let leader =
            if stays { Some(old) } else { LeaderChoice::new(self.map).choose(self.map, partition.id, &set) };
        let prev = Some(partition.register.set.clone());
        let register = Register { set, prev, target: None, ..partition.register };
        let leader = leader.unwrap_or(register.set[0]);
        self.appoint(Partition { register, ..partition }, leader);
    }

    /// R37.
    pub(super) fn recover_unclean(&mut self, order: &Appointment) -> Result<Applied, MetadataError> {
        let id = order.partition;
        let partition = self.partition_at(id, order.expected_term)?;
        let register = recover_from(self.map, &partition.register, order.leader)
            .ok_or(MetadataError::CannotLead { id, broker: order.leader })?;
        let leader = register.leader;
        self.appoint_unclean(Partition { register, ..partition }, leader);
        Ok(Applied::Done)
    }

    fn partition_at(&self, id: PartitionId, expected: Term) -> Result<Partition, MetadataError> {
        let partition = self.map.partition(id).ok_or(MetadataError::UnknownPartition { id })?;
        let current = partition.register.term;
        if current != expected {
            return Err(MetadataError::StaleTerm { id, expected, current });
        }
        Ok(partition.clone())
    }

    fn put_register(&mut self, id: PartitionId, register: Register) {
        self.put(Object::Partition(Partition { id, register, version: self.index }));
    }

    /// Many partitions in one entry, none the other's hostage. The first refusal is the answer where all are refused.
    fn each<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        apply: impl Fn(&mut Self, T) -> Result<(), MetadataError>,
    ) -> Result<Applied, MetadataError> {
        let mut taken = false;
        let mut refusal = None;
        for item in items {
            match apply(self, item) {
                Ok(()) => taken = true,
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        match refusal {
            Some(refusal) if !taken => Err(refusal),
            _ => Ok(Applied::Done),
        }
    }
}
