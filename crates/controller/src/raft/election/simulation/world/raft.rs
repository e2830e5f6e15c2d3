//! The small Raft: votes, leases and heartbeats as openraft has them, one thing at a time, and waiting for its disk.

use super::*;

impl World {
    /// Appends an entry as the leader.
    pub(super) fn write(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let (term, leader, _) = node.ballot;
        node.log = Some(LastLog { term, leader, index: node.log.map_or(0, |log| log.index + 1) });
        self.store(index);
    }

    /// Its Raft does nothing else until what it has just changed is on disk.
    pub(super) fn store(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.busy_until = node.busy_until.max(self.now) + node.flush;
    }

    /// A Raft that waits for its disk says what it said before.
    pub(super) fn show(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.busy_until <= self.now {
            let (term, leader, committed) = node.ballot;
            let leader = committed.then_some(ControllerId(leader));
            node.shown = Facts {
                term,
                leader,
                leading: node.leading,
                voter: true,
                last_log: node.log,
                stands_still: false,
            };
        }
    }

    pub(super) fn elect(&mut self, index: usize) {
        if self.nodes[index].leading {
            return;
        }
        let ballot = (self.nodes[index].ballot.0 + 1, id(index).0, false);
        let node = &mut self.nodes[index];
        (node.ballot, node.touched, node.grants) = (ballot, self.now, BTreeSet::new());
        let log = node.log;
        self.store(index);
        let sent = self.nodes[index].busy_until;
        for to in (0..self.nodes.len()).filter(|&to| to != index) {
            self.post(index, to, Message::Request { ballot, log, sent });
        }
        self.queue(sent, index, index, Message::Grant { ballot, sent });
    }

    pub(super) fn beat(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.next_beat = self.now + BEAT;
        let (ballot, log) = (node.ballot, node.log.unwrap());
        for to in (0..self.nodes.len()).filter(|&to| to != index) {
            self.post(index, to, Message::Beat { ballot, log, sent: self.now });
        }
    }

    pub(super) fn votes(&mut self, index: usize, ballot: Ballot, log: Option<LastLog>) -> bool {
        let node = &self.nodes[index];
        let leased = node.ballot.2 && self.now <= node.touched + LEASE;
        let votes = !leased && log >= node.log && ballot >= node.ballot;
        if votes {
            self.adopt(index, ballot);
        }
        votes
    }

    pub(super) fn take_grant(&mut self, from: usize, to: usize, ballot: Ballot, sent: u64) {
        // openraft waits no longer.
        if self.at(self.now) > self.at(sent) + Timing::of(TIMEOUT).votes {
            return;
        }
        let majority = self.nodes.len() / 2 + 1;
        let (sent, node) = (self.at(sent), &mut self.nodes[to]);
        node.election.acked(id(from), ballot.0, sent);
        if node.ballot != ballot || node.leading {
            return;
        }
        node.grants.insert(from);
        if node.grants.len() >= majority {
            node.ballot.2 = true;
            node.leading = true;
            node.next_beat = self.now;
            self.write(to);
        }
    }

    pub(super) fn take_beat(&mut self, from: usize, to: usize, ballot: Ballot, log: LastLog, sent: u64) {
        if ballot < self.nodes[to].ballot {
            let ballot = self.nodes[to].ballot;
            return self.post(to, from, Message::Higher { ballot });
        }
        self.adopt(to, ballot);
        self.show(to);
        self.note(to);
        let now = self.at(self.now);
        self.nodes[to].election.heard(now, id(from));
        if self.nodes[to].log.replace(log) != Some(log) {
            self.store(to);
        }
        self.post(to, from, Message::Obey { term: ballot.0, sent });
    }

    pub(super) fn adopt(&mut self, index: usize, ballot: Ballot) {
        let node = &mut self.nodes[index];
        if ballot >= node.ballot {
            node.leading &= ballot == node.ballot;
            let news = ballot != node.ballot;
            (node.ballot, node.touched) = (ballot, self.now);
            if news {
                self.store(index);
            }
        }
    }
}
