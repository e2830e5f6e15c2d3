//! What a controller says of itself when it is asked.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use holdfast_core::ControllerId;
use holdfast_proto::internal::v1::{LastEntry, LostBroker, PingResponse};

use super::types::LogId;
use crate::liveness::Run;

/// Place of an entry in the log; the greater, the more a controller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LastLog {
    /// The term in which it was written.
    pub(crate) term: u64,
    /// Who led then.
    pub(crate) leader: u64,
    /// Its index.
    pub(crate) index: u64,
}

impl From<LogId> for LastLog {
    fn from(LogId { leader_id, index }: LogId) -> Self {
        LastLog { term: leader_id.term, leader: leader_id.node_id, index }
    }
}

/// One controller's view of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// Its term; 0 if it was never in a quorum.
    pub(crate) term: u64,
    /// The leader that it believes in.
    pub(crate) leader: Option<ControllerId>,
    /// It has lost the leader, or knows none.
    pub(crate) lost: bool,
    /// It is a voter, and not in the role of a leader.
    pub(crate) may_stand: bool,
    /// How long ago it heard the leader to whom its vote is bound; `None` where its vote is free.
    pub(crate) heard_ago: Option<Duration>,
    /// Its last entry.
    pub(crate) last_log: Option<LastLog>,
}

impl Account {
    /// The part of it whose change is told at once.
    pub(crate) fn news(&self) -> News {
        News { term: self.term, leader: self.leader, may_stand: self.may_stand }
    }

    /// As an answer, with the brokers that the controller has lost.
    pub(crate) fn to_wire(self, lost: &BTreeSet<Run>) -> PingResponse {
        let mut tag = DefaultHasher::new();
        (self.news(), lost).hash(&mut tag);
        let micros = |ago: Duration| u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
        PingResponse {
            leader_id: self.leader.map_or(0, |leader| leader.0),
            term: self.term,
            lost: lost.iter().map(|(id, run)| LostBroker { broker_id: id.0, incarnation: run.0 }).collect(),
            // 0 is what a caller says that has seen nothing.
            tag: tag.finish().max(1),
            lost_leader: self.lost,
            may_stand: self.may_stand,
            heard_ago_us: self.heard_ago.map(micros),
            last_entry: self.last_log.map(|LastLog { term, leader, index }| LastEntry {
                term,
                leader_id: leader,
                index,
            }),
        }
    }

    /// From an answer.
    pub(crate) fn from_wire(answer: &PingResponse) -> Self {
        Account {
            term: answer.term,
            leader: Some(ControllerId(answer.leader_id)).filter(|leader| leader.0 != 0),
            lost: answer.lost_leader,
            may_stand: answer.may_stand,
            heard_ago: answer.heard_ago_us.map(Duration::from_micros),
            last_log: answer.last_entry.map(|entry| LastLog {
                term: entry.term,
                leader: entry.leader_id,
                index: entry.index,
            }),
        }
    }
}

/// What everybody is told at once. Ages and entries are left out: they change all the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct News {
    /// The term.
    pub(crate) term: u64,
    /// The leader believed in.
    pub(crate) leader: Option<ControllerId>,
    /// Whether it may stand.
    pub(crate) may_stand: bool,
}

#[cfg(test)]
mod tests {
    use holdfast_core::{BrokerId, Incarnation};

    use super::*;

    #[test]
    fn an_account_reads_back_and_its_tag_follows_the_news_alone() {
        let account = Account {
            term: 3,
            leader: Some(ControllerId(2)),
            lost: false,
            may_stand: true,
            heard_ago: Some(Duration::from_micros(1500)),
            last_log: Some(LastLog { term: 3, leader: 2, index: 9 }),
        };
        let none = BTreeSet::new();
        let answer = account.to_wire(&none);
        assert_eq!(Account::from_wire(&answer), account);
        let older = Account { heard_ago: None, last_log: None, ..account };
        assert_eq!(older.to_wire(&none).tag, answer.tag);
        let lost = Account { leader: None, lost: true, ..account };
        assert_eq!(Account::from_wire(&lost.to_wire(&none)), lost);
        assert_ne!(lost.to_wire(&none).tag, answer.tag);
        let run = BTreeSet::from([(BrokerId(1), Incarnation(7))]);
        assert_ne!(account.to_wire(&run).tag, answer.tag);
    }
}
