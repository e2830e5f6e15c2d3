//! The post of the stage: what was sent waits here until the script lets it arrive.

use holdfast_core::replication::{Envelope, Event, Message};

use super::Stage;
use crate::controller::{broker_id, node_of};

/// Which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Fence,
    FenceOk,
    Lead,
    Fetch,
    Data,
    Diverge,
    Reset,
}

fn is_kind(message: &Message, kind: Kind) -> bool {
    matches!(
        (message, kind),
        (Message::Fence { .. }, Kind::Fence)
            | (Message::FenceOk { .. }, Kind::FenceOk)
            | (Message::Lead { .. }, Kind::Lead)
            | (Message::Fetch { .. }, Kind::Fetch)
            | (Message::Data { .. }, Kind::Data)
            | (Message::Diverge { .. }, Kind::Diverge)
            | (Message::Reset { .. }, Kind::Reset)
    )
}

impl Stage {
    /// Takes the oldest such message out of the post.
    pub(crate) fn take(&mut self, from: usize, to: usize, kind: Kind) -> Envelope {
        let ends = (broker_id(from), broker_id(to));
        let matching = |envelope: &Envelope| {
            (envelope.from.broker, envelope.to.broker) == ends && is_kind(&envelope.message, kind)
        };
        let at = self.post.iter().position(matching);
        let at = at.unwrap_or_else(|| panic!("no {kind:?} from {from} to {to} in {:?}", self.post));
        self.post.remove(at)
    }

    /// Delivers the oldest such message, and gives a copy of it for later.
    pub(crate) fn deliver(&mut self, from: usize, to: usize, kind: Kind) -> Envelope {
        let envelope = self.take(from, to, kind);
        self.receive(envelope.clone());
        envelope
    }

    /// Delivers a message that was taken, or delivers it again.
    pub(crate) fn receive(&mut self, envelope: Envelope) {
        self.tell(node_of(envelope.to.broker), Event::Receive(envelope));
    }

    /// Delivers everything between these nodes until nothing more is said.
    pub(crate) fn exchange(&mut self, nodes: &[usize]) {
        for _ in 0..1000 {
            let between = |envelope: &Envelope| {
                nodes.contains(&node_of(envelope.from.broker)) && nodes.contains(&node_of(envelope.to.broker))
            };
            let Some(at) = self.post.iter().position(between) else { return };
            let envelope = self.post.remove(at);
            self.receive(envelope);
        }
        panic!("they never stop talking: {:?}", self.post);
    }

    /// Everything in the post is lost.
    pub(crate) fn lose_post(&mut self) {
        self.post.clear();
    }
}
