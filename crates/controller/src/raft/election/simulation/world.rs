//! A network and a small Raft around the machines; a step is a millisecond.

mod raft;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::*;

const TIMEOUT: Duration = Duration::from_millis(500);
/// openraft's ticks, with a heartbeat interval of 50 ms.
const BEAT: u64 = 75;
const LEASE: u64 = 101;
/// A connection that works in one direction only lasts for so long: two of the transport's keepalives.
const KEEPALIVE: u64 = 2000;
/// How often it is looked which links work.
const LINKS: u64 = 5;

/// A vote as openraft orders them: term, candidate, whether a majority gave it.
type Ballot = (u64, u64, bool);

/// `Propose`, `Promise` and `Outbid` are as `Request`, `Grant` and `Higher`, but not for Raft. `Elect` is from a controller to its own Raft.
enum Message {
    Ask { sent: u64, seen: Option<Account> },
    Answer { sent: u64, account: Account },
    Refusal,
    Beat { ballot: Ballot, log: LastLog, sent: u64 },
    Obey { term: u64, sent: u64 },
    Higher { ballot: Ballot },
    Request { ballot: Ballot, log: Option<LastLog>, sent: u64 },
    Grant { ballot: Ballot, sent: u64 },
    Propose { ballot: Ballot, log: Option<LastLog>, sent: u64 },
    Promise { ballot: Ballot, sent: u64 },
    Outbid,
    Elect,
}

impl Message {
    /// Whether Raft says it: not before its disk has flushed what it says.
    fn is_of_raft(&self) -> bool {
        !matches!(
            self,
            Message::Ask { .. } | Message::Answer { .. } | Message::Refusal | Message::Propose { .. }
        )
    }

    /// Whether Raft takes it: not while it waits for its disk.
    fn is_for_raft(&self) -> bool {
        match self {
            Message::Obey { .. } | Message::Promise { .. } | Message::Outbid => false,
            Message::Propose { .. } => true,
            _ => self.is_of_raft(),
        }
    }
}

/// Something that goes wrong.
#[derive(Debug)]
pub(super) enum Fault {
    /// The process is gone, and its address refuses connections.
    Kill(usize),
    /// It is back, with what was on its disk.
    Restart(usize),
    /// It does not run for so many milliseconds.
    Pause(usize, u64),
    /// What the first sends does not reach the second.
    Cut(usize, usize),
    /// All cuts end.
    Mend,
    /// From now on its disk takes so many milliseconds to flush.
    Disk(usize, u64),
    /// It appends an entry, if it leads.
    Write(usize),
    /// All connections of it break, and are there again at the next attempt but one.
    Reset(usize),
}

struct Node {
    election: Election,
    ballot: Ballot,
    /// When the ballot was last confirmed; its lease, where a majority gave it.
    touched: u64,
    leading: bool,
    log: Option<LastLog>,
    grants: BTreeSet<usize>,
    next_beat: u64,
    next_look: u64,
    alive: bool,
    paused_until: u64,
    /// How long its disk takes, and until when its Raft waits for it.
    flush: u64,
    busy_until: u64,
    /// What its Raft said when it did not wait.
    shown: Facts,
    /// Own questions: since when outstanding, and the last answer.
    asked: BTreeMap<usize, (u64, Option<Account>)>,
    /// When to ask again.
    ask_at: BTreeMap<usize, u64>,
    /// Others' questions that wait for news.
    held: BTreeMap<usize, (u64, u64, Account)>,
}

pub(super) struct World {
    pub(super) now: u64,
    /// Time, who, and in which term.
    pub(super) stands: Vec<(u64, usize, u64)>,
    start: Instant,
    seed: u64,
    state: u64,
    loss: u64,
    nodes: Vec<Node>,
    mail: BTreeMap<(u64, u64), (usize, usize, Message)>,
    posted: u64,
    cuts: BTreeSet<(usize, usize)>,
    /// When each link last worked, by direction.
    worked: Vec<Vec<u64>>,
    /// Since when the leader of the time has been well connected.
    healthy: Option<(usize, u64)>,
}

fn id(index: usize) -> ControllerId {
    ControllerId(index as u64 + 1)
}

impl World {
    pub(super) fn new(seed: u64, voters: usize, loss: u64) -> Self {
        let start = Instant::now();
        let mut world = World {
            now: 0,
            stands: Vec::new(),
            start,
            seed,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            loss,
            nodes: Vec::new(),
            mail: BTreeMap::new(),
            posted: 0,
            cuts: BTreeSet::new(),
            worked: vec![vec![0; voters]; voters],
            healthy: None,
        };
        let first = Some(LastLog { term: 0, leader: 0, index: 0 });
        world.nodes = (0..voters).map(|index| world.node(index, voters, (0, 0, false), first)).collect();
        world
    }

    fn node(&self, index: usize, voters: usize, ballot: Ballot, log: Option<LastLog>) -> Node {
        let others = (0..voters).filter(|&other| other != index);
        // openraft leads again at once where it led before.
        let leading = ballot.2 && ballot.1 == id(index).0;
        Node {
            election: Election::new(self.at(self.now), id(index), (0..voters).map(id), Timing::of(TIMEOUT)),
            ballot,
            touched: 0,
            leading,
            log,
            grants: BTreeSet::new(),
            next_beat: self.now,
            next_look: self.now,
            alive: true,
            paused_until: 0,
            flush: 0,
            busy_until: 0,
            shown: Facts::default(),
            asked: BTreeMap::new(),
            ask_at: others.map(|other| (other, self.now)).collect(),
            held: BTreeMap::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % below
    }

    pub(super) fn random_fault(&mut self) -> Fault {
        let (one, other) =
            (self.random(self.nodes.len() as u64) as usize, self.random(self.nodes.len() as u64));
        match self.random(10) {
            0 => Fault::Kill(one),
            1 => Fault::Restart(one),
            2 => Fault::Pause(one, self.random(2000)),
            3 => Fault::Mend,
            4 => Fault::Disk(one, [0, 20, 2000][self.random(3) as usize]),
            5 => Fault::Write(one),
            6 => Fault::Reset(one),
            _ => Fault::Cut(one, other as usize),
        }
    }

    pub(super) fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(index) => {
                self.nodes[index].alive = false;
                let askers: Vec<usize> = (0..self.nodes.len()).filter(|&other| other != index).collect();
                for asker in askers {
                    if self.nodes[asker].asked.contains_key(&index) {
                        self.post(index, asker, Message::Refusal);
                    }
                }
            }
            Fault::Restart(index) if !self.nodes[index].alive => {
                let Node { ballot, log, flush, .. } = self.nodes[index];
                self.nodes[index] = Node { flush, ..self.node(index, self.nodes.len(), ballot, log) };
            }
            Fault::Restart(_) => {}
            Fault::Pause(index, ms) => self.nodes[index].paused_until = self.now + ms,
            Fault::Cut(from, to) => self.cut(from, to, true),
            Fault::Mend => self.cuts.clear(),
            Fault::Disk(index, ms) => self.nodes[index].flush = ms,
            Fault::Write(index) if self.nodes[index].leading && self.runs(index) => self.write(index),
            Fault::Write(_) => {}
            Fault::Reset(index) => {
                for other in (0..self.nodes.len()).filter(|&other| other != index) {
                    for (asker, asked) in [(index, other), (other, index)] {
                        (0..2).for_each(|_| self.post(asked, asker, Message::Refusal));
                    }
                }
            }
        }
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, cut: bool) {
        if cut && from != to {
            self.cuts.insert((from, to));
        }
    }

    /// Everything works from here on. Ends when disks are done with what they had begun.
    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.loss = 0;
        for index in 0..self.nodes.len() {
            self.nodes[index].paused_until = self.now;
            self.nodes[index].flush = 0;
            self.apply(Fault::Restart(index));
        }
        while self.nodes.iter().any(|node| node.busy_until > self.now) {
            self.run(1);
        }
    }

    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            if self.now.is_multiple_of(LINKS) {
                self.note_links();
            }
            self.deliver();
            for index in 0..self.nodes.len() {
                if self.runs(index) {
                    self.step(index);
                }
            }
        }
    }

    fn runs(&self, index: usize) -> bool {
        self.nodes[index].alive && self.nodes[index].paused_until <= self.now
    }

    fn linked(&self, from: usize, to: usize) -> bool {
        self.runs(from) && self.runs(to) && !self.cuts.contains(&(from, to))
    }

    /// Who is in the role of a leader, in the highest term there is, and has a majority behind it.
    pub(super) fn leaders(&self) -> Vec<usize> {
        let leads = |index: &usize| self.runs(*index) && self.nodes[*index].election.leads(self.at(self.now));
        (0..self.nodes.len()).filter(leads).collect()
    }

    pub(super) fn leader(&self) -> usize {
        self.leaders()[0]
    }

    pub(super) fn term(&self) -> u64 {
        self.nodes.iter().map(|node| node.ballot.0).max().unwrap()
    }

    pub(super) fn all_believe(&self) -> bool {
        let leader = self.leader();
        self.nodes.iter().all(|node| node.election.leader(self.at(self.now)) == Some(id(leader)))
    }

    /// Keeps what the rules at a stand are judged by.
    fn note_links(&mut self) {
        let count = self.nodes.len();
        for from in 0..count {
            for to in 0..count {
                // What is sent to one that pauses waits in its socket.
                if self.nodes[to].alive && !self.cuts.contains(&(from, to)) {
                    self.worked[from][to] = self.now;
                }
            }
        }
        let leading = self.leaders().first().copied();
        let well = leading.filter(|&leader| {
            let both = |&other: &usize| self.linked(leader, other) && self.linked(other, leader);
            (0..count).filter(both).count() > count / 2
        });
        self.healthy = match (well, self.healthy) {
            (Some(leader), Some((before, since))) if leader == before => Some((leader, since)),
            (Some(leader), _) => Some((leader, self.now)),
            (None, _) => None,
        };
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        let torn = self.worked[to][from] + KEEPALIVE < self.now;
        if torn || self.cuts.contains(&(from, to)) || self.random(100) < self.loss {
            return;
        }
        let begin = if message.is_of_raft() { self.nodes[from].busy_until.max(self.now) } else { self.now };
        let due = begin + 1 + self.random(3);
        self.queue(due, from, to, message);
    }

    fn queue(&mut self, due: u64, from: usize, to: usize, message: Message) {
        self.posted += 1;
        self.mail.insert((due, self.posted), (from, to, message));
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.mail.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, message) = entry.remove();
            let Node { alive, paused_until, busy_until, .. } = self.nodes[to];
            if paused_until > self.now {
                // It waits in the socket.
                self.queue(paused_until, from, to, message);
            } else if alive && message.is_for_raft() && busy_until > self.now {
                self.notice(from, to, &message);
                self.queue(busy_until, from, to, message);
            } else if alive {
                self.notice(from, to, &message);
                self.take(from, to, message);
            } else if matches!(message, Message::Ask { .. }) {
                self.post(to, from, Message::Refusal);
            }
        }
    }

    /// What is known of a message before Raft takes it.
    fn notice(&mut self, from: usize, to: usize, message: &Message) {
        let now = self.at(self.now);
        self.note(to);
        let election = &mut self.nodes[to].election;
        match message {
            Message::Beat { ballot, .. } if election.knows(id(from), ballot.0) => {
                election.heard(now, id(from));
            }
            Message::Request { ballot, log, .. } | Message::Propose { ballot, log, .. } => {
                election.courted(now, id(from), ballot.0, *log);
            }
            _ => {}
        }
    }

    fn step(&mut self, index: usize) {
        self.show(index);
        let node = &self.nodes[index];
        let waits = node.ask_at.values().chain(node.held.values().map(|(_, due, _)| due)).min();
        let beat = if node.leading { node.next_beat } else { u64::MAX };
        if node.next_look.min(beat).min(*waits.unwrap_or(&u64::MAX)) > self.now {
            return;
        }
        self.note(index);
        if self.nodes[index].next_look <= self.now {
            let now = self.at(self.now);
            let look = self.nodes[index].election.look(now);
            let next = look.next.saturating_duration_since(self.start).as_millis() as u64;
            self.nodes[index].next_look = next.max(self.now + 1);
            match look.step {
                Some(Step::Ask) => self.ask_for_votes(index),
                Some(Step::Stand) => self.stand(index),
                None => {}
            }
        }
        let node = &self.nodes[index];
        if node.leading && node.next_beat <= self.now && node.busy_until <= self.now {
            self.beat(index);
        }
        self.answer_held(index);
        self.ask(index);
    }

    fn note(&mut self, index: usize) {
        let now = self.at(self.now);
        let node = &mut self.nodes[index];
        node.election.note(now, node.shown);
    }

    fn stand(&mut self, index: usize) {
        self.stands.push((self.now, index, self.nodes[index].ballot.0 + 1));
        self.judge(index);
        self.queue(self.now, index, index, Message::Elect);
        self.deliver();
    }

    fn ask_for_votes(&mut self, index: usize) {
        self.judge(index);
        let (term, log) = (self.nodes[index].shown.term, self.nodes[index].shown.last_log);
        for to in (0..self.nodes.len()).filter(|&to| to != index) {
            let (ballot, sent) = ((term + 1, id(index).0, false), self.now);
            self.post(index, to, Message::Propose { ballot, log, sent });
        }
    }

    /// ELE-1 and ELE-2, as seen from outside.
    fn judge(&self, index: usize) {
        let window = Timing::of(TIMEOUT).window().as_millis() as u64;
        let recent = |from: usize, to: usize| self.worked[from][to] + window + LINKS >= self.now;
        let near =
            (0..self.nodes.len()).filter(|&other| recent(index, other) && recent(other, index)).count();
        let (seed, now) = (self.seed, self.now);
        assert!(near > self.nodes.len() / 2, "seed {seed}: {index} stands at {now} though it is cut off");
        if let (Some((leader, since)), 0) = (self.healthy, self.loss) {
            let long = since + 1000 < self.now;
            assert!(!long, "seed {seed}: {index} stands at {now}, and {leader} led well since {since}");
        }
    }

    fn ask(&mut self, index: usize) {
        let due: Vec<usize> =
            self.nodes[index].ask_at.iter().filter(|(_, at)| **at <= self.now).map(|(&to, _)| to).collect();
        for to in due {
            let seen = self.nodes[index].asked.get(&to).and_then(|(_, seen)| *seen);
            // The next time only if no answer comes.
            let patience = Timing::of(TIMEOUT).hold.as_millis() as u64 * 3;
            self.nodes[index].ask_at.insert(to, self.now + patience);
            self.nodes[index].asked.insert(to, (self.now, seen));
            self.post(index, to, Message::Ask { sent: self.now, seen });
        }
    }

    fn answer_held(&mut self, index: usize) {
        let account = self.nodes[index].election.account(self.at(self.now));
        let held = std::mem::take(&mut self.nodes[index].held);
        for (from, (sent, due, seen)) in held {
            if due <= self.now || seen.news() != account.news() {
                self.post(index, from, Message::Answer { sent, account });
            } else {
                self.nodes[index].held.insert(from, (sent, due, seen));
            }
        }
    }

    fn take(&mut self, from: usize, to: usize, message: Message) {
        let now = self.at(self.now);
        self.note(to);
        self.nodes[to].next_look = self.now;
        match message {
            Message::Ask { sent, seen } => {
                let hold = seen.map_or(0, |_| Timing::of(TIMEOUT).hold.as_millis() as u64);
                let seen = seen.unwrap_or_else(|| self.nodes[to].election.account(now));
                self.nodes[to].held.insert(from, (sent, self.now + hold, seen));
            }
            Message::Answer { sent, account } => {
                if self.nodes[to].asked.get(&from).is_some_and(|(asked, _)| *asked == sent) {
                    let asked = self.at(sent);
                    let counts = self.nodes[to].election.answered(now, id(from), asked, account);
                    self.nodes[to].asked.insert(from, (sent, Some(account).filter(|_| counts)));
                    self.nodes[to].ask_at.insert(from, self.now);
                }
            }
            Message::Refusal => {
                self.nodes[to].election.failed(now, id(from));
                let pause = self.random(50);
                let first = self.nodes[to].asked.remove(&from).is_some_and(|(_, seen)| seen.is_some());
                self.nodes[to].ask_at.insert(from, self.now + if first { 0 } else { pause });
            }
            Message::Beat { ballot, log, sent } => self.take_beat(from, to, ballot, log, sent),
            Message::Obey { term, sent } => {
                let sent = self.at(sent);
                self.nodes[to].election.acked(id(from), term, sent);
            }
            Message::Higher { ballot } => self.adopt(to, (ballot.0, ballot.1, false)),
            Message::Request { ballot, log, sent } => {
                if self.votes(to, ballot, log) {
                    self.post(to, from, Message::Grant { ballot, sent });
                } else if self.nodes[to].ballot > ballot {
                    let ballot = self.nodes[to].ballot;
                    self.post(to, from, Message::Higher { ballot });
                }
            }
            Message::Propose { ballot, log, sent } => {
                if self.votes(to, ballot, log) {
                    self.post(to, from, Message::Promise { ballot, sent });
                } else if self.nodes[to].ballot > ballot {
                    self.post(to, from, Message::Outbid);
                }
            }
            Message::Outbid => self.nodes[to].election.outbid(),
            Message::Promise { ballot, sent } => {
                if self.at(self.now) <= self.at(sent) + Timing::of(TIMEOUT).round() {
                    self.nodes[to].election.promised(id(from), ballot.0);
                }
            }
            Message::Grant { ballot, sent } => self.take_grant(from, to, ballot, sent),
            Message::Elect => self.elect(to),
        }
        self.show(to);
        self.note(to);
    }
}
