//! What happened so far, as far as later steps are judged by it. The notions are those of the oracle of the simulation.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::metadata::{Durability, majority};
use holdfast_core::{LeaderEpoch, Offset};

use super::Bounds;
use super::node::{Entry, Fact};
use super::step::letter;
use crate::oracle::{Violation, ensure};

/// What the others need to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) log: Vec<Entry>,
    pub(super) flushed: Offset,
    pub(super) active: Option<LeaderEpoch>,
    pub(super) promise: LeaderEpoch,
}

impl Summary {
    fn holds(&self, index: usize, entry: &Entry) -> bool {
        self.log.get(index).is_some_and(|own| own.chain == entry.chain)
    }

    fn reached(&self, durability: Durability) -> Offset {
        match durability {
            Durability::Disk => self.flushed,
            Durability::Memory => self.log.last().map_or(Offset::ZERO, |entry| entry.next),
        }
    }
}

/// The past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    /// The committed sequence, each with the epoch of the leader that committed it.
    committed: Vec<(Entry, LeaderEpoch)>,
    /// Who led an epoch, in which run of its process.
    leaders: BTreeMap<LeaderEpoch, (usize, u8)>,
    /// Every batch ever appended, with all before it.
    written: BTreeMap<(LeaderEpoch, Offset), u64>,
    /// Terms whose leader said that its change of the set is complete.
    completed: BTreeSet<u32>,
}

impl History {
    /// Whether the leader of a term said that its change of the set is complete.
    pub(super) fn is_complete(&self, term: u32) -> bool {
        self.completed.contains(&term)
    }

    /// The epoch in which the last commit was made.
    pub(super) fn last_commit(&self) -> Option<LeaderEpoch> {
        self.committed.last().map(|&(_, epoch)| epoch)
    }

    /// Number of records committed.
    pub(super) fn committed_records(&self) -> usize {
        self.committed.iter().filter(|(entry, _)| entry.record.is_some()).count()
    }

    /// Takes a fact about `node` into account. `others` are the other nodes, by number.
    pub(super) fn take(
        &mut self,
        bounds: &Bounds,
        node: usize,
        fact: &Fact,
        others: &[(usize, &Summary)],
    ) -> Result<(), Violation> {
        match fact {
            Fact::Wrote(entry) => self.wrote(node, entry),
            Fact::Leads { epoch, run, log } => self.leads(node, *epoch, *run, log),
            Fact::Shows { log, active, flushed } => self.shows(bounds, node, log, *active, *flushed, others),
            Fact::Acknowledged { record, offset } => self.acknowledged(node, *record, *offset),
            Fact::Completed { term } => {
                self.completed.insert(*term);
                Ok(())
            }
        }
    }

    fn wrote(&mut self, node: usize, entry: &Entry) -> Result<(), Violation> {
        let known = *self.written.entry((entry.epoch, entry.next)).or_insert(entry.chain);
        ensure(known == entry.chain, "REP-3", || {
            let (name, epoch, next) = (letter(node), entry.epoch, entry.next);
            format!("{name} writes another batch or prefix in epoch {epoch} before offset {next}")
        })
    }

    fn leads(&mut self, node: usize, epoch: LeaderEpoch, run: u8, log: &[Entry]) -> Result<(), Violation> {
        let first = *self.leaders.entry(epoch).or_insert((node, run));
        ensure(first == (node, run), "REP-4", || {
            format!("{} is active in {epoch}, which {} led before", letter(node), letter(first.0))
        })?;
        self.check_leader_holds_committed(node, epoch, log)
    }

    /// REP-1: a leader holds all that leaders of earlier epochs committed.
    fn check_leader_holds_committed(
        &self,
        node: usize,
        epoch: LeaderEpoch,
        log: &[Entry],
    ) -> Result<(), Violation> {
        let Some(last) = self.committed.iter().rposition(|&(_, committed)| committed < epoch) else {
            return Ok(());
        };
        let (entry, committed) = self.committed[last];
        ensure(log.get(last).is_some_and(|own| own.chain == entry.chain), "REP-1", || {
            let (name, next) = (letter(node), entry.next);
            format!("{name} leads {epoch} without what {committed} committed before offset {next}")
        })
    }

    /// REP-2: all below the watermark is the committed sequence. A leader's watermark may extend it.
    fn shows(
        &mut self,
        bounds: &Bounds,
        node: usize,
        log: &[Entry],
        active: Option<LeaderEpoch>,
        flushed: Offset,
        others: &[(usize, &Summary)],
    ) -> Result<(), Violation> {
        let name = letter(node);
        let shared = log.len().min(self.committed.len());
        if let Some(last) = shared.checked_sub(1) {
            ensure(log[last].chain == self.committed[last].0.chain, "REP-2", || {
                format!("{name} shows another record than was committed before {}", log[last].next)
            })?;
        }
        let Some(newest) = log[shared..].last() else { return Ok(()) };
        let epoch = active.ok_or_else(|| Violation {
            id: "REP-7",
            detail: format!("{name} follows, and its high watermark {} is above all committed", newest.next),
        })?;
        ensure(newest.epoch == epoch, "REP-7", || {
            format!("{name} commits in {epoch} without its marker: the last batch is of {}", newest.epoch)
        })?;
        let own = Summary { log: log.to_vec(), flushed, active, promise: epoch };
        for index in shared..log.len() {
            self.commit(bounds, node, (index, epoch), &own, others)?;
        }
        for (other, summary) in others {
            if let Some(later) = summary.active.filter(|&later| later > epoch) {
                self.check_leader_holds_committed(*other, later, &summary.log)?;
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        bounds: &Bounds,
        node: usize,
        (index, epoch): (usize, LeaderEpoch),
        own: &Summary,
        others: &[(usize, &Summary)],
    ) -> Result<(), Violation> {
        let entry = own.log[index];
        let set = bounds.sets_of(epoch.term.0).set;
        let holds = |node: usize, summary: &Summary| {
            let reached = summary.reached(bounds.durability) >= entry.next;
            set.contains(&node) && reached && summary.holds(index, &entry)
        };
        let elsewhere = others.iter().filter(|&&(other, summary)| holds(other, summary)).count();
        let copies = usize::from(holds(node, own)) + elsewhere;
        // Where acknowledged batches may vanish with the power, they need not be found at once.
        let strict = bounds.durability == Durability::Disk || bounds.power_cuts == 0;
        ensure(!strict || copies >= majority(set.len()), "REP-7", || {
            format!("{} commits up to {} in {epoch} with {copies} copies", letter(node), entry.next)
        })?;
        let again =
            entry.record.is_some() && self.committed.iter().any(|(old, _)| old.record == entry.record);
        ensure(!again, "REP-8", || {
            format!("{} commits record {:?} a second time before {}", letter(node), entry.record, entry.next)
        })?;
        self.committed.push((entry, epoch));
        Ok(())
    }

    fn acknowledged(&self, node: usize, record: u8, offset: Offset) -> Result<(), Violation> {
        let committed = self.committed.iter().find(|(entry, _)| entry.record == Some(record));
        ensure(committed.is_some_and(|(entry, _)| entry.next == offset + 1), "REP-8", || {
            format!("{} acknowledges record {record} at {offset}; committed is {committed:?}", letter(node))
        })
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::Term;

    use super::*;
    use crate::model::configurations;

    fn entry(term: u32, next: u64, record: Option<u8>) -> Entry {
        let epoch = LeaderEpoch::first(Term(term));
        Entry { next: Offset(next), epoch, chain: u64::from(term) * 100 + next, record }
    }

    /// A leads 1 with its marker and record 0, and says that both are committed. C has nothing.
    fn commit(copied: &[Entry]) -> (History, Result<(), Violation>) {
        let log = vec![entry(1, 1, None), entry(1, 2, Some(0))];
        let (epoch, flushed) = (log[0].epoch, Offset(2));
        let summary = |log: &[Entry]| Summary {
            log: log.to_vec(),
            flushed: log.last().map_or(Offset::ZERO, |entry| entry.next),
            active: None,
            promise: epoch,
        };
        let (b, c) = (summary(copied), summary(&[]));
        let mut history = History::default();
        let fact = Fact::Shows { log, active: Some(epoch), flushed };
        let result = history.take(&configurations()[0], 0, &fact, &[(1, &b), (2, &c)]);
        (history, result)
    }

    fn id(result: Result<(), Violation>) -> Option<&'static str> {
        result.err().map(|violation| violation.id)
    }

    #[test]
    fn a_commit_needs_a_majority_of_copies() {
        assert_eq!(id(commit(&[entry(1, 1, None)]).1), Some("REP-7"));
        assert_eq!(id(commit(&[entry(1, 1, None), entry(1, 2, Some(0))]).1), None);
    }

    #[test]
    fn what_was_committed_binds_later_leaders_followers_and_acknowledgements() {
        let (history, _) = commit(&[entry(1, 1, None), entry(1, 2, Some(0))]);
        let bounds = &configurations()[0];
        let judge = |node: usize, fact: Fact| id(history.clone().take(bounds, node, &fact, &[]));
        let later = LeaderEpoch::first(Term(2));
        let leads = |log: Vec<Entry>| Fact::Leads { epoch: later, run: 1, log };
        assert_eq!(judge(2, leads(vec![entry(1, 1, None), entry(2, 2, None)])), Some("REP-1"));
        assert_eq!(judge(1, leads(vec![entry(1, 1, None), entry(1, 2, Some(0))])), None);
        let shows = |log: Vec<Entry>| Fact::Shows { log, active: None, flushed: Offset::ZERO };
        assert_eq!(judge(2, shows(vec![entry(2, 1, None)])), Some("REP-2"));
        assert_eq!(judge(0, Fact::Acknowledged { record: 0, offset: Offset(1) }), None);
        assert_eq!(judge(0, Fact::Acknowledged { record: 1, offset: Offset(1) }), Some("REP-8"));
    }
}
