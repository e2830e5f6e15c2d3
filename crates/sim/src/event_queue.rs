//! What will happen, in order of time and, at the same time, of planning.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::metadata::{LeaderState, Register};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Acknowledged, Envelope, Event, ProduceError};
use holdfast_core::{Incarnation, Term, Timestamp};

use crate::network::{Link, Passage};

/// One run of a process on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run {
    /// Which node.
    pub(crate) node: usize,
    /// Which run of its process.
    pub(crate) incarnation: Incarnation,
}

/// Something that happens in the simulated world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Happening {
    /// A message between brokers arrives.
    Deliver { passage: Passage, partition: usize, envelope: Envelope },
    /// A replica's deadline has come.
    Timer { run: Run, partition: usize },
    /// States are on disk.
    Persisted { run: Run, partition: usize, number: u64 },
    /// A flush has ended.
    Flushed { run: Run, partition: usize },
    /// A read has ended.
    Read { run: Run, partition: usize, event: Event },
    /// A connection between two brokers is there again.
    Connect { one: usize, other: usize },
    /// A process starts.
    Boot { node: usize },
    /// A broker presents itself to the controller.
    Register { run: Run },
    /// The controller looks around.
    Observe,
    /// The controller tells a broker of a partition.
    Assign { run: Run, partition: usize, register: Register },
    /// A leader tells the controller.
    Report { run: Run, partition: usize, term: Term, state: LeaderState, complete: bool },
    /// A batch reaches a broker.
    Produce { producer: usize, node: usize, sequence: i32, batch: RecordBatch },
    /// A producer gets an answer.
    Answer { producer: usize, sequence: i32, result: Result<Acknowledged, ProduceError> },
    /// A producer has something to write.
    Write { producer: usize },
    /// A producer has waited long enough.
    Resend { producer: usize },
    /// Something goes wrong.
    Fault,
    /// What went wrong is right again.
    Repair(Repair),
}

/// The end of a fault.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Repair {
    /// These directions work again.
    Mend(BTreeSet<Link>),
    /// The controller is back.
    Controller,
    /// A broker reaches the controller again.
    ControllerLink(usize),
    /// A disk is fast again.
    Disk(usize),
    /// A process whose log failed is started anew.
    Restart(usize),
}

/// The plan of what will happen.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventQueue {
    planned: BTreeMap<(Timestamp, u64), Happening>,
    count: u64,
}

impl EventQueue {
    /// Plans something.
    pub(crate) fn plan(&mut self, at: Timestamp, happening: Happening) {
        self.count += 1;
        self.planned.insert((at, self.count), happening);
    }

    /// The next thing to happen, and when.
    pub(crate) fn next(&mut self) -> Option<(Timestamp, Happening)> {
        self.planned.pop_first().map(|((at, _), happening)| (at, happening))
    }
}
