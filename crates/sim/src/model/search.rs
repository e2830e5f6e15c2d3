//! Breadth-first search: every state that can be reached within the bounds, each once, the nearest first.
//!
//! Two reductions, neither of which hides anything. A happening that changes nothing and says nothing is no step: a
//! message stays on its way then, and may never arrive. A message that comes too late to matter, of an epoch below its
//! receiver's promise or an answer to a recovery that is over, is dropped once its delivery is shown to do nothing.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_core::replication::{Envelope, Message};

use super::history::{History, Summary};
use super::interner::Interner;
use super::node::{Fact, Node, entries};
use super::perform::{Effect, perform};
use super::state::{Budget, State};
use super::step::{Happening, Local, Step};
use super::{Bounds, Counterexample, Reached, Report};
use crate::controller::node_of;
use crate::oracle::Violation;
use crate::runner::panic_text;

/// A fingerprint is a hash already.
#[derive(Debug, Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

/// What came of a happening, by numbers.
#[derive(Debug)]
struct Outcome {
    node: u32,
    sent: Vec<u32>,
    facts: Vec<Fact>,
    actions: u8,
    /// Nothing changed and nothing was said.
    idle: bool,
}

/// How a state was first reached: from which, by which step.
type Origin = Option<(u32, Step)>;

/// A search under way.
pub(super) struct Search<'a> {
    bounds: &'a Bounds,
    nodes: Interner<Node>,
    summaries: Vec<Summary>,
    messages: Interner<Envelope>,
    histories: Interner<History>,
    outcomes: HashMap<(u32, Local), usize>,
    worked_out: Vec<Outcome>,
    seen: HashSet<u128, BuildHasherDefault<Taken>>,
    origins: Vec<Origin>,
    next: Vec<(u32, State)>,
    reached: Reached,
    steps: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(bounds: &'a Bounds) -> Search<'a> {
        Search {
            bounds,
            nodes: Interner::default(),
            summaries: Vec::new(),
            messages: Interner::default(),
            histories: Interner::default(),
            outcomes: HashMap::new(),
            worked_out: Vec::new(),
            seen: HashSet::default(),
            origins: Vec::new(),
            next: Vec::new(),
            reached: Reached::default(),
            steps: 0,
        }
    }

    /// Searches until nothing is new, something is broken, or there are too many states.
    pub(super) fn run(mut self) -> Report {
        let mut nodes = [0; 4];
        for (index, number) in nodes.iter_mut().enumerate() {
            *number = self.number_node(Node::new(index));
        }
        let history = self.histories.number(History::default()).0;
        let budget = Budget::of(self.bounds);
        self.visit(State { nodes, history, budget, network: Vec::new() }, None);
        let (mut depth, mut counterexample) = (0, None);
        while !self.next.is_empty() && self.seen.len() < self.bounds.states {
            let level = std::mem::take(&mut self.next);
            for (origin, state) in level {
                if let Err((step, violation)) = self.expand(origin, &state) {
                    counterexample =
                        Some(Counterexample { schedule: self.schedule(origin, step), violation });
                    break;
                }
            }
            if counterexample.is_some() {
                break;
            }
            depth += 1;
        }
        Report {
            states: self.seen.len(),
            steps: self.steps,
            depth,
            complete: counterexample.is_none() && self.next.is_empty(),
            reached: self.reached,
            counterexample,
        }
    }

    fn visit(&mut self, state: State, origin: Origin) {
        if self.seen.insert(state.fingerprint()) {
            self.note(&state);
            self.next.push((self.origins.len() as u32, state));
            self.origins.push(origin);
        }
    }

    /// Says that the search is not empty: what it came across.
    fn note(&mut self, state: &State) {
        let history = self.histories.value(state.history);
        let last = self.bounds.leaders.len() as u32;
        self.reached.commit_in_last_term |= history.last_commit().is_some_and(|epoch| epoch.term.0 == last);
        self.reached.records = self.reached.records.max(history.committed_records());
        let leaders = state.nodes.iter().filter(|&&node| self.summaries[node as usize].active.is_some());
        self.reached.two_leaders |= leaders.count() > 1;
    }

    fn number_node(&mut self, node: Node) -> u32 {
        let summary = Summary {
            log: entries(node.disk.batches()),
            flushed: node.disk.flushed(),
            active: node.active,
            promise: node.promise(),
        };
        let (number, new) = self.nodes.number(node);
        if new {
            self.summaries.push(summary);
        }
        number
    }

    /// Works out what a happening makes of a node, once for each pair.
    fn outcome(&mut self, node: u32, local: Local) -> Result<usize, Violation> {
        if let Some(&known) = self.outcomes.get(&(node, local)) {
            return Ok(known);
        }
        let message = match local.happening {
            Happening::Received { message } => Some(self.messages.value(message)),
            _ => None,
        };
        let before = self.nodes.value(node);
        let work = || perform(self.bounds, before, local, message);
        let effect = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(Violation { id: "panic", detail: panic_text(&*panic) }))?;
        let Effect { node: after, sent, facts, actions } = effect;
        let after = self.number_node(after);
        let sent: Vec<u32> = sent.into_iter().map(|envelope| self.messages.number(envelope).0).collect();
        let idle = after == node && sent.is_empty() && facts.is_empty();
        let number = self.worked_out.len();
        self.worked_out.push(Outcome { node: after, sent, facts, actions, idle });
        self.outcomes.insert((node, local), number);
        Ok(number)
    }

    fn expand(&mut self, origin: u32, state: &State) -> Result<(), (Step, Violation)> {
        for node in 0..self.bounds.replicas {
            for happening in self.happenings(state, node) {
                let step = Step { node: node as u8, local: happening.into(), repeats: false };
                let actions = self.take(origin, state, step).map_err(|violation| (step, violation))?;
                let Some(actions) = actions else { continue };
                for step in self.variants(state, step, actions) {
                    self.take(origin, state, step).map_err(|violation| (step, violation))?;
                }
            }
        }
        Ok(())
    }

    /// The same step, with a message that may come again, or with the process killed in the middle.
    fn variants(&self, state: &State, step: Step, actions: u8) -> Vec<Step> {
        let mut variants = Vec::new();
        let received = matches!(step.local.happening, Happening::Received { .. });
        if received && state.budget.duplicates > 0 {
            variants.push(Step { repeats: true, ..step });
        }
        let kill = matches!(step.local.happening, Happening::Killed | Happening::PowerLost { .. });
        if self.bounds.kills_within_steps && state.budget.kills > 0 && !kill {
            variants.extend(
                (1..actions)
                    .map(|after| Step { local: Local { killed_after: Some(after), ..step.local }, ..step }),
            );
        }
        variants
    }

    /// All that may happen to a node.
    fn happenings(&self, state: &State, index: usize) -> Vec<Happening> {
        let node = self.nodes.value(state.nodes[index]);
        let budget = state.budget;
        let terms = node.told + 1..=self.bounds.leaders.len() as u8;
        let mut happenings: Vec<Happening> = terms
            .filter(|&term| self.may_begin(state, term.into()) && self.bounds.names(term.into(), index))
            .map(|term| Happening::Told { term })
            .collect();
        if node.replica.is_none() {
            return happenings;
        }
        let arriving = state.network.iter().filter(|&&message| self.receiver(message) == index);
        happenings.extend(arriving.map(|&message| Happening::Received { message }));
        if node.active.is_some() {
            if budget.produced < self.bounds.records {
                happenings.push(Happening::Produced { record: budget.produced, again: false });
            }
            if budget.retries > 0 {
                let known = 0..budget.produced;
                happenings.extend(known.map(|record| Happening::Produced { record, again: true }));
            }
        }
        if node.disk.is_flushing() {
            happenings.push(Happening::Flushed);
        }
        if budget.timers > 0 && node.is_due() {
            happenings.push(Happening::Timer);
        }
        if budget.reconnects > 0 {
            let peers = (0..self.bounds.replicas as u8).filter(|&peer| usize::from(peer) != index);
            happenings.extend(peers.map(|peer| Happening::Connected { peer }));
        }
        if budget.kills > 0 {
            happenings.push(Happening::Killed);
        }
        if budget.power_cuts > 0 {
            let kept = node.disk.flushed_batches()..=node.disk.batches().len();
            happenings.extend(kept.map(|kept| Happening::PowerLost { kept: kept as u8 }));
        }
        happenings
    }

    /// Whether the controllers can have come so far: not beyond a change that is not complete (R3, R43).
    fn may_begin(&self, state: &State, term: u32) -> bool {
        let history = self.histories.value(state.history);
        (1..=term).filter_map(|term| self.bounds.waits_for(term)).all(|change| history.is_complete(change))
    }

    fn receiver(&self, message: u32) -> usize {
        node_of(self.messages.value(message).to.broker)
    }

    /// Takes a step. Gives the number of actions that it was made of; nothing if it is none.
    fn take(&mut self, origin: u32, state: &State, step: Step) -> Result<Option<u8>, Violation> {
        let index = usize::from(step.node);
        let number = self.outcome(state.nodes[index], step.local)?;
        let outcome = &self.worked_out[number];
        if outcome.idle {
            return Ok(None);
        }
        let actions = outcome.actions;
        let mut after = State { budget: state.budget.after(step), ..state.clone() };
        after.nodes[index] = outcome.node;
        if let Happening::Received { message } = step.local.happening
            && !step.repeats
        {
            after.take(message);
        }
        for &message in &outcome.sent {
            after.send(message);
        }
        if !outcome.facts.is_empty() {
            after.history = self.judge(state, number, index)?;
        }
        self.steps += 1;
        self.drop_late(&mut after)?;
        self.visit(after, Some((origin, step)));
        Ok(Some(actions))
    }

    /// The history with what happened to one node; a violation, if it was not allowed to.
    fn judge(&mut self, state: &State, outcome: usize, index: usize) -> Result<u32, Violation> {
        let others: Vec<(usize, &Summary)> = (0..self.bounds.replicas)
            .filter(|&other| other != index)
            .map(|other| (other, &self.summaries[state.nodes[other] as usize]))
            .collect();
        let mut history = self.histories.value(state.history).clone();
        for fact in &self.worked_out[outcome].facts {
            history.take(self.bounds, index, fact, &others)?;
        }
        Ok(self.histories.number(history).0)
    }

    /// Drops messages that come too late to matter, each once its delivery is shown to change nothing. One that does
    /// is kept: the search goes on with it, and shows what harm it does.
    fn drop_late(&mut self, state: &mut State) -> Result<(), Violation> {
        let mut place = 0;
        while let Some(&message) = state.network.get(place) {
            let late = self.is_late(state, message) && {
                let receiver = state.nodes[self.receiver(message)];
                let outcome = self.outcome(receiver, Happening::Received { message }.into())?;
                self.worked_out[outcome].idle
            };
            if late {
                state.network.remove(place);
            } else {
                place += 1;
            }
        }
        Ok(())
    }

    /// Whether a message is of an epoch that its receiver does not obey any more, or an answer to the recovery of an
    /// epoch that its receiver leads already. Promises do not fall, and no epoch is recovered twice (R7, R8, R10).
    fn is_late(&self, state: &State, message: u32) -> bool {
        let envelope = self.messages.value(message);
        let receiver = &self.summaries[state.nodes[node_of(envelope.to.broker)] as usize];
        let answer = matches!(envelope.message, Message::FenceOk { .. });
        envelope.epoch < receiver.promise || (answer && receiver.active == Some(envelope.epoch))
    }

    /// How the search came to a state, and what it did there.
    fn schedule(&self, origin: u32, last: Step) -> Vec<String> {
        let mut steps = vec![last];
        let mut at = origin;
        while let Some((before, step)) = self.origins[at as usize] {
            steps.push(step);
            at = before;
        }
        let describe =
            |step: &Step| step.describe(self.bounds, |message| self.messages.value(message).clone());
        steps.iter().rev().map(describe).collect()
    }
}
