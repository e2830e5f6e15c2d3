//! What will happen, in order of time and, at the same time, of planning.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::metadata::Register;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Acknowledged, Envelope, Event, ProduceError};
use holdfast_core::{Incarnation, ProducerId, Timestamp};

use crate::controller::{Report, node_of};
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
    /// A pass of the compaction over a log.
    Compact { run: Run, partition: usize },
    /// A connection between two brokers is there again.
    Connect { one: usize, other: usize },
    /// A broker hears that its stream to another was opened.
    Greeted { run: Run, peer: usize },
    /// A process starts.
    Boot { node: usize },
    /// A broker presents itself to the controller.
    Register { run: Run },
    /// The controller looks around.
    Observe,
    /// The controller tells a broker of a partition.
    Assign { run: Run, partition: usize, version: u64, register: Register },
    /// A leader tells the controller.
    Report { run: Run, partition: usize, report: Report },
    /// A batch reaches a broker.
    Produce { producer: usize, node: usize, sequence: i32, batch: RecordBatch },
    /// A producer gets an answer.
    Answer { producer: usize, id: ProducerId, sequence: i32, result: Result<Acknowledged, ProduceError> },
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
    /// A process that stood still goes on.
    Resume(usize),
    /// A broker that was drained is stopped in order.
    Stop(usize),
    /// A zone that comes and goes does so again, so many more times.
    Flap { zone: usize, left: u32 },
}

impl Happening {
    /// The node whose process takes note of it; not where something is done to the process or its machine.
    pub(crate) fn host(&self) -> Option<usize> {
        match self {
            Happening::Deliver { envelope, .. } => Some(node_of(envelope.to.broker)),
            Happening::Timer { run, .. }
            | Happening::Persisted { run, .. }
            | Happening::Flushed { run, .. }
            | Happening::Read { run, .. }
            | Happening::Compact { run, .. }
            | Happening::Greeted { run, .. }
            | Happening::Assign { run, .. } => Some(run.node),
            Happening::Produce { node, .. } => Some(*node),
            Happening::Connect { .. }
            | Happening::Boot { .. }
            | Happening::Register { .. }
            | Happening::Observe
            | Happening::Report { .. }
            | Happening::Answer { .. }
            | Happening::Write { .. }
            | Happening::Resend { .. }
            | Happening::Fault
            | Happening::Repair(_) => None,
        }
    }
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
