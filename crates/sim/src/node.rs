//! A broker in the simulated world: it performs what its replicas ask for, like the driver in the broker does.

use std::time::Duration;

use holdfast_core::replication::{Action, Envelope, Event, Replica, ReplicaConfig};
use holdfast_core::{Incarnation, ReplicaId, Timestamp};

use crate::controller::{broker_id, dir_id, node_of};
use crate::disk::Disk;
use crate::event_queue::{Happening, Repair, Run};
use crate::network::Passage;
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::random::Random;
use crate::world::World;

/// A replica and its disk.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// There while the process runs, once the register named it.
    pub(crate) replica: Option<Replica>,
    /// Survives the process.
    pub(crate) disk: Disk,
    /// The timer that counts; others are outdated.
    pub(crate) timer: Option<Timestamp>,
}

/// A broker.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// Whether its process runs.
    pub(crate) running: bool,
    /// The run of its process.
    pub(crate) incarnation: Incarnation,
    /// One slot per partition.
    pub(crate) slots: Vec<Slot>,
    /// Whether its disk takes very long.
    pub(crate) slow: bool,
    pub(crate) random: Random,
}

impl Node {
    /// A broker whose process runs and has heard nothing yet.
    pub(crate) fn new(plan: &Plan, index: usize, seed: u64) -> Node {
        let mut random = Random::new(seed);
        Node {
            index,
            running: true,
            incarnation: Incarnation(random.word()),
            slots: (0..plan.partitions).map(|_| Slot::default()).collect(),
            slow: false,
            random,
        }
    }

    /// The present run of its process.
    pub(crate) fn run(&self) -> Run {
        Run { node: self.index, incarnation: self.incarnation }
    }

    /// Whether that run goes on.
    pub(crate) fn is_running(&self, run: Run) -> bool {
        self.running && run == self.run()
    }

    /// The identity of its replicas.
    pub(crate) fn replica_id(&self) -> ReplicaId {
        ReplicaId { broker: broker_id(self.index), dir: dir_id(self.index) }
    }

    /// Whether a log failed in this run.
    pub(crate) fn has_failed_replica(&self) -> bool {
        self.slots.iter().any(|slot| slot.disk.failed())
    }

    /// Whether a replica here does not, or after a start will not, vote.
    pub(crate) fn is_at_risk(&self) -> bool {
        let forgot = |disk: &Disk| disk.state().is_some_and(|state| state.nonvoter);
        let unsettled = |slot: &Slot| slot.replica.as_ref().is_some_and(|replica| !replica.is_voter());
        let risky = |slot: &Slot| {
            slot.disk.tail_lost() || slot.disk.is_failing() || forgot(&slot.disk) || unsettled(slot)
        };
        self.slots.iter().any(risky)
    }

    /// No more faults of its disks.
    pub(crate) fn make_whole(&mut self) {
        self.slow = false;
        for slot in &mut self.slots {
            slot.disk.takes_failure();
        }
    }

    fn disk_delay(&mut self, longest: u64) -> Duration {
        let delay = self.random.micros(50, longest);
        if self.slow { delay + self.random.micros(100_000, 2_000_000) } else { delay }
    }
}

/// The settings of every replica: small windows, so that reads are split and fill up.
pub(crate) fn config(plan: &Plan) -> ReplicaConfig {
    ReplicaConfig {
        durability: plan.durability,
        inflight_limit: 600,
        read_size: 300,
        flush_interval: Duration::from_millis(100),
        ..ReplicaConfig::default()
    }
}

impl World {
    /// Something happens to a replica that is there, and it is done with what it asks for.
    pub(crate) fn tell(&mut self, node: usize, partition: usize, event: Event) -> Result<(), Violation> {
        if let Some(replica) = &mut self.nodes[node].slots[partition].replica {
            replica.handle(self.now, event);
        }
        self.drain(node, partition)
    }

    /// The same, unless that run of the process is over.
    pub(crate) fn tell_run(&mut self, run: Run, partition: usize, event: Event) -> Result<(), Violation> {
        if self.nodes[run.node].is_running(run) { self.tell(run.node, partition, event) } else { Ok(()) }
    }

    pub(crate) fn drain(&mut self, node: usize, partition: usize) -> Result<(), Violation> {
        while let Some(replica) = &mut self.nodes[node].slots[partition].replica {
            let Some(action) = replica.next_action() else { break };
            if matches!(action, Action::Send(_) | Action::Reply { .. }) {
                self.observe_replica(node, partition)?; // before anybody learns of it
            }
            self.act(node, partition, action)?;
            if let Some((_, left)) = self.doomed.as_mut().filter(|(doomed, _)| *doomed == node) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.doomed = None;
                    return self.crash_and_restart(node, false);
                }
            }
        }
        self.set_timer(node, partition);
        self.observe_replica(node, partition)
    }

    fn observe_replica(&mut self, node: usize, partition: usize) -> Result<(), Violation> {
        let Some(replica) = &self.nodes[node].slots[partition].replica else { return Ok(()) };
        let disks: Vec<&Disk> = self.nodes.iter().map(|node| &node.slots[partition].disk).collect();
        let incarnation = self.nodes[node].incarnation;
        self.oracles[partition].observe(node, incarnation, replica, &disks)
    }

    fn act(&mut self, node: usize, partition: usize, action: Action) -> Result<(), Violation> {
        let run = self.nodes[node].run();
        let oracle = &mut self.oracles[partition];
        let disk = &mut self.nodes[node].slots[partition].disk;
        match action {
            Action::Persist { number, state } => {
                disk.begin_persist(number, state);
                let longest = self.plan.disk.persist;
                let done = self.now + self.nodes[node].disk_delay(longest);
                self.queue.plan(done, Happening::Persisted { run, partition, number });
                Ok(())
            }
            Action::Append { .. } if disk.takes_failure() => self.fail_log(node, partition),
            Action::Append { batches } => {
                oracle.appending(node, disk, &batches)?;
                disk.append(batches);
                Ok(())
            }
            Action::Truncate { end } => {
                oracle.truncating(node, end)?;
                disk.truncate(end);
                Ok(())
            }
            Action::Flush { generation } => {
                if disk.begin_flush(generation) {
                    self.plan_flushed(run, partition);
                }
                Ok(())
            }
            Action::Read { to, epoch, from, max_bytes } => {
                let batches = disk.read(from, max_bytes);
                let event = Event::Read { to, epoch, from, batches };
                let done = self.now + self.nodes[node].disk_delay(2_000);
                self.queue.plan(done, Happening::Read { run, partition, event });
                Ok(())
            }
            Action::Send(envelope) => {
                oracle.sending(node, disk, &envelope)?;
                self.send(node, partition, &envelope);
                Ok(())
            }
            Action::Reply { request, result } => self.reply(node, partition, request, result),
            Action::Report { term, state, complete } => {
                let arrival = self.now + self.random.micros(200, 10_000);
                self.queue.plan(arrival, Happening::Report { run, partition, term, state, complete });
                Ok(())
            }
        }
    }

    /// A write or flush failed: the replica hears of it before it is asked for its next action.
    pub(crate) fn fail_log(&mut self, node: usize, partition: usize) -> Result<(), Violation> {
        let slot = &mut self.nodes[node].slots[partition];
        slot.disk.fail();
        if let Some(replica) = &mut slot.replica {
            replica.handle(self.now, Event::StorageFailed);
        }
        // An operator, or the broker itself, starts the process anew.
        let restart = self.now + self.random.micros(100_000, 2_000_000);
        self.queue.plan(restart, Happening::Repair(Repair::Restart(node)));
        Ok(())
    }

    fn plan_flushed(&mut self, run: Run, partition: usize) {
        let longest = self.plan.disk.flush;
        let done = self.now + self.nodes[run.node].disk_delay(longest);
        self.queue.plan(done, Happening::Flushed { run, partition });
    }

    fn send(&mut self, node: usize, partition: usize, envelope: &Envelope) {
        let to = node_of(envelope.to.broker);
        for (arrival, passage) in self.network.send(self.now, (node, to)) {
            let envelope = envelope.clone();
            self.queue.plan(arrival, Happening::Deliver { passage, partition, envelope });
        }
    }

    pub(crate) fn deliver(
        &mut self,
        passage: Passage,
        partition: usize,
        envelope: Envelope,
    ) -> Result<(), Violation> {
        let to = passage.link.1;
        if !self.network.delivers(passage) || !self.nodes[to].running {
            return Ok(());
        }
        self.tell(to, partition, Event::Receive(envelope))
    }

    fn set_timer(&mut self, node: usize, partition: usize) {
        let run = self.nodes[node].run();
        let slot = &mut self.nodes[node].slots[partition];
        let Some(deadline) = slot.replica.as_ref().and_then(Replica::next_deadline) else { return };
        let deadline = deadline.max(self.now);
        if slot.timer.is_none_or(|timer| deadline < timer) {
            slot.timer = Some(deadline);
            self.queue.plan(deadline, Happening::Timer { run, partition });
        }
    }

    pub(crate) fn fire_timer(&mut self, run: Run, partition: usize) -> Result<(), Violation> {
        if !self.nodes[run.node].is_running(run) {
            return Ok(());
        }
        let slot = &mut self.nodes[run.node].slots[partition];
        if slot.timer != Some(self.now) {
            return Ok(());
        }
        slot.timer = None;
        let due = slot.replica.as_ref().and_then(Replica::next_deadline).is_some_and(|at| at <= self.now);
        if due {
            return self.tell(run.node, partition, Event::Timer);
        }
        self.set_timer(run.node, partition);
        Ok(())
    }

    pub(crate) fn end_persist(&mut self, run: Run, partition: usize, number: u64) -> Result<(), Violation> {
        if !self.nodes[run.node].is_running(run) {
            return Ok(());
        }
        self.nodes[run.node].slots[partition].disk.end_persist(number);
        self.tell(run.node, partition, Event::Persisted { number })
    }

    pub(crate) fn end_flush(&mut self, run: Run, partition: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[run.node];
        let slot = &mut node.slots[partition];
        if !(node.running && run.incarnation == node.incarnation) || slot.disk.failed() {
            return Ok(());
        }
        let Some((flush, another)) = slot.disk.end_flush() else { return Ok(()) };
        let settled = slot.disk.state().map(|state| state.promise);
        let due = node.random.chance(300);
        if let Some(replica) =
            slot.replica.as_ref().filter(|replica| due && settled == Some(replica.status().epoch))
        {
            let watermark = replica.status().high_watermark;
            slot.disk.store_watermark(watermark);
        }
        if another {
            self.plan_flushed(run, partition);
        }
        let event = Event::Flushed { generation: flush.generation, end: flush.end };
        self.tell(run.node, partition, event)
    }
}
