//! Actions in order, held back behind what must be durable first.

use std::collections::VecDeque;

use super::action::{Action, DurableState, ProduceError};
use crate::mutant;

/// R8: nothing that follows a promise leaves before the promise is on disk. The order is kept here, so that a driver
/// only has to perform what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Outbox {
    ready: VecDeque<Action>,
    /// Each with the number of the `Persist` that it waits for.
    held: VecDeque<(u64, Action)>,
    issued: u64,
    barrier: u64,
    persisted: u64,
}

impl Outbox {
    /// The first state asked for has the number behind `number`.
    pub(super) fn numbered_from(number: u64) -> Outbox {
        Outbox { issued: number, ..Outbox::default() }
    }

    pub(super) fn push(&mut self, action: Action) {
        if self.barrier > self.persisted && !mutant!(SpeakBeforePromise) {
            self.held.push_back((self.barrier, action));
        } else {
            self.ready.push_back(action);
        }
    }

    /// Asks for the state to be made durable; everything pushed later waits for it.
    pub(super) fn persist_first(&mut self, state: DurableState) {
        self.persist(state);
        self.barrier = self.issued;
    }

    /// Asks for the state to be made durable; nothing waits for it.
    pub(super) fn persist(&mut self, state: DurableState) {
        self.issued += 1;
        self.push(Action::Persist { number: self.issued, state });
    }

    pub(super) fn persisted(&mut self, number: u64) {
        self.persisted = self.persisted.max(number);
        while self.held.front().is_some_and(|&(needs, _)| needs <= self.persisted) {
            if let Some((_, action)) = self.held.pop_front() {
                self.ready.push_back(action);
            }
        }
    }

    /// The log failed. What was to be said may rest on a write that did not happen (R34), so it stays unsaid; states
    /// are persisted and clients answered all the same.
    pub(super) fn abandon(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        self.ready = ready.into_iter().filter_map(after_failure).collect();
        let held = std::mem::take(&mut self.held);
        self.held =
            held.into_iter().filter_map(|(needs, action)| Some((needs, after_failure(action)?))).collect();
    }

    pub(super) fn next(&mut self) -> Option<Action> {
        self.ready.pop_front()
    }

    /// Whether every state that was asked for is on disk.
    pub(super) fn is_persisted(&self) -> bool {
        self.persisted >= self.issued
    }

    pub(super) fn is_drained(&self) -> bool {
        self.ready.is_empty()
    }
}

fn after_failure(action: Action) -> Option<Action> {
    match action {
        Action::Reply { request, result: Ok(_) } => {
            Some(Action::Reply { request, result: Err(ProduceError::StorageFailed) })
        }
        Action::Persist { .. } | Action::Reply { .. } | Action::Report { .. } => Some(action),
        Action::Append { .. }
        | Action::Truncate { .. }
        | Action::Trim { .. }
        | Action::Reset { .. }
        | Action::NoteTombstonesGone { .. }
        | Action::Flush { .. }
        | Action::Read { .. }
        | Action::Send(_) => None,
    }
}
