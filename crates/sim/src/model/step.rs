//! What can happen next, and how it reads in a schedule.

use std::fmt::Write;

use holdfast_core::replication::{Envelope, FetchKind, Message, Position};

use super::Bounds;
use crate::controller::node_of;

/// Something that happens to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Happening {
    /// It hears of the register of this term.
    Told { term: u8 },
    /// A message arrives: its number.
    Received { message: u32 },
    /// A record is produced; again, if it had been before.
    Produced { record: u8, again: bool },
    /// Its flush ends.
    Flushed,
    /// Its timer fires.
    Timer,
    /// Its stream to this node was opened again.
    Connected { peer: u8 },
    /// Its process dies and starts again.
    Killed,
    /// Its machine loses power and starts again with the first `kept` batches of its log.
    PowerLost { kept: u8 },
}

/// A happening, and whether the process dies while it does what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Local {
    pub(super) happening: Happening,
    /// The process dies after so many actions, and starts again.
    pub(super) killed_after: Option<u8>,
}

impl From<Happening> for Local {
    fn from(happening: Happening) -> Self {
        Local { happening, killed_after: None }
    }
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) node: u8,
    pub(super) local: Local,
    /// The message stays on its way and may arrive again.
    pub(super) repeats: bool,
}

/// Nodes are called A, B and C.
pub(super) fn letter(node: usize) -> char {
    char::from(b'A' + (node % 26) as u8)
}

impl Step {
    /// The step in a line.
    pub(super) fn describe(&self, bounds: &Bounds, message_of: impl Fn(u32) -> Envelope) -> String {
        let node = letter(self.node.into());
        let mut line = match self.local.happening {
            Happening::Told { term } => {
                let leader = letter(bounds.leaders[usize::from(term) - 1]);
                format!("{node} is told that {leader} leads term {term}")
            }
            Happening::Received { message } => format!("{node} receives {}", describe(&message_of(message))),
            Happening::Produced { record, again: false } => format!("{node} is sent record {record}"),
            Happening::Produced { record, again: true } => format!("{node} is sent record {record} again"),
            Happening::Flushed => format!("the flush of {node} ends"),
            Happening::Timer => format!("the timer of {node} fires"),
            Happening::Connected { peer } => format!("{node} has a new stream to {}", letter(peer.into())),
            Happening::Killed => format!("{node} is killed and starts again"),
            Happening::PowerLost { kept } => {
                format!("{node} loses power, keeps {kept} batches and starts again")
            }
        };
        if self.repeats {
            line += " (which may come again)";
        }
        if let Some(actions) = self.local.killed_after {
            // Writing to a string cannot fail.
            let _ = write!(line, "; killed after {actions} actions, it starts again");
        }
        line
    }
}

fn at(position: &Position) -> String {
    format!("{}@{}", position.end, position.epoch)
}

fn describe(envelope: &Envelope) -> String {
    let text = match &envelope.message {
        Message::Fence { .. } => "Fence".to_owned(),
        Message::FenceOk { position, voter } => {
            format!("FenceOk at {}{}", at(position), if *voter { "" } else { ", no voter" })
        }
        Message::Lead { high_watermark, log_end_offset, .. } => {
            format!("Lead, watermark {high_watermark}, end {log_end_offset}")
        }
        Message::Fetch { position, durable_end, kind, .. } => {
            let kind = match kind {
                FetchKind::Follow => "Fetch",
                FetchKind::Recover => "Fetch to recover",
                FetchKind::Rejoin => "Fetch to rejoin",
            };
            format!("{kind} at {}, flushed {durable_end}", at(position))
        }
        Message::Diverge { echo, common } => format!("Diverge of {} to {}", at(echo), at(common)),
        Message::Reset { echo, start, .. } => format!("Reset of {} to {}", at(echo), at(start)),
        Message::Stale { promise } => format!("Stale, promised {promise}"),
        Message::Data { echo, batches, high_watermark, .. } => {
            format!("Data behind {}, {} batches, watermark {high_watermark}", at(echo), batches.len())
        }
    };
    format!("{text} of epoch {} from {}", envelope.epoch, letter(node_of(envelope.from.broker)))
}
