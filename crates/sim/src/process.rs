//! The life of a process: it is told of partitions, stands still, dies, loses what was not flushed, and starts from its
//! disks.

use holdfast_core::Incarnation;
use holdfast_core::metadata::Register;
use holdfast_core::replication::{Assignment, Event, Loaded, Replica};

use crate::controller::broker_id;
use crate::coverage::Sight;
use crate::event_queue::{Happening, Run};
use crate::node::config;
use crate::oracle::Violation;
use crate::world::World;

impl World {
    /// The controller told of a partition: a replica that was not there is created, one that is named no more is deleted
    /// (R46).
    pub(crate) fn assign(
        &mut self,
        run: Run,
        partition: usize,
        version: u64,
        register: &Register,
    ) -> Result<(), Violation> {
        if !self.nodes[run.node].is_running(run) {
            return Ok(());
        }
        if !self.controller.is_reachable(run.node) {
            self.controller.forget_told(run.node, run.incarnation, partition);
            return Ok(());
        }
        let me = self.nodes[run.node].replica_id();
        let slot = &mut self.nodes[run.node].slots[partition];
        if version < slot.version && self.plan.moves {
            return Ok(()); // a map is never replaced by an older one
        }
        slot.version = slot.version.max(version);
        if !register.names(me) {
            return self.delete(run, partition);
        }
        let assignment = Assignment::from(register);
        if slot.replica.is_none() {
            if slot.disk.create().is_err() {
                return self.crash_and_restart(run.node, false);
            }
            let life = slot.lives;
            let loaded = Loaded { life, ..Loaded::empty(me, run.incarnation, &assignment) };
            slot.replica = Some(Replica::new(self.now, config(&self.plan), loaded));
        }
        self.tell(run.node, partition, Event::Assign(assignment))
    }

    fn delete(&mut self, run: Run, partition: usize) -> Result<(), Violation> {
        let slot = &mut self.nodes[run.node].slots[partition];
        if slot.replica.is_some() || slot.disk.state().is_some() {
            slot.clear(&self.plan);
            self.oracles[partition].wiped(run.node);
            self.coverage.see(Sight::Deleted);
            let answers = |&(node, _): &(usize, _), request: &mut crate::world::Request| {
                node != run.node || self.producers[request.producer].partition != partition
            };
            self.requests.retain(answers);
        }
        Ok(())
    }

    /// A process starts: what its disks hold decides what it is.
    pub(crate) fn boot(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].running || self.nodes[node].stays_down {
            return Ok(());
        }
        let host = &mut self.nodes[node];
        host.running = true;
        host.incarnation = Incarnation(host.random.word());
        let run = host.run();
        for partition in 0..self.plan.partitions {
            // It may die again while it loads.
            if self.nodes[node].is_running(run) {
                self.load(run, partition)?;
            }
        }
        let delay = self.random.micros(1_000, 50_000);
        self.queue.plan(self.now + delay, Happening::Register { run });
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.reconnect(node, other);
        }
        Ok(())
    }

    fn load(&mut self, run: Run, partition: usize) -> Result<(), Violation> {
        let me = self.nodes[run.node].replica_id();
        let slot = &mut self.nodes[run.node].slots[partition];
        let (kept, trimmed) = (slot.disk.flushed(), slot.disk.trimmed());
        match slot.disk.open(me, run.incarnation) {
            Ok(None) => Ok(()),
            Ok(Some(found)) => {
                self.trace(|| format!("node {} partition {partition} starts: {}", run.node, found.summary()));
                self.oracles[partition].reloaded(run.node, kept, trimmed, &found)?;
                self.start_replica(run, partition, found.loaded)
            }
            // The machine lost power while its process started.
            Err(_) => {
                self.coverage.see(Sight::DiedStarting);
                self.crash_and_restart(run.node, true)
            }
        }
    }

    fn start_replica(&mut self, run: Run, partition: usize, loaded: Loaded) -> Result<(), Violation> {
        let slot = &mut self.nodes[run.node].slots[partition];
        let loaded = Loaded { life: slot.lives, ..loaded };
        slot.replica = Some(Replica::new(self.now, config(&self.plan), loaded));
        self.drain(run.node, partition)
    }

    /// The process ends in order, as far as its disks allow.
    pub(crate) fn close(&mut self, node: usize) -> Result<(), Violation> {
        for slot in &mut self.nodes[node].slots {
            if let Some(replica) = &slot.replica {
                slot.disk.close(replica);
            }
        }
        self.crash(node, false)
    }

    /// The process dies, of itself or with its machine.
    pub(crate) fn crash(&mut self, node: usize, power: bool) -> Result<(), Violation> {
        let host = &mut self.nodes[node];
        host.running = false;
        host.paused = 0;
        host.backlog.clear();
        for (partition, slot) in host.slots.iter_mut().enumerate() {
            slot.replica = None;
            slot.timer = None;
            slot.report = None;
            if power {
                slot.disk.cut_power(&mut host.random);
            } else {
                slot.disk.crash(&mut host.random);
            }
            self.oracles[partition].stopped(node);
        }
        self.requests.retain(|&(at, _), _| at != node);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.network.reset(node, other);
        }
        Ok(())
    }

    /// A process that stood still goes on, and finds all at once what came meanwhile.
    pub(crate) fn resume(&mut self, node: usize) -> Result<(), Violation> {
        let host = &mut self.nodes[node];
        host.paused = host.paused.saturating_sub(1);
        if host.paused > 0 {
            return Ok(());
        }
        let backlog = std::mem::take(&mut host.backlog);
        self.coverage.count(Sight::Resumed, !backlog.is_empty());
        for (partition, slot) in host.slots.iter().enumerate() {
            let led = slot.replica.as_ref().map(Replica::status).filter(|status| status.active);
            let register = self.controller.register(partition);
            let deposed = led.zip(register).is_some_and(|(led, register)| register.term > led.epoch.term);
            self.coverage.count(Sight::Zombie, deposed);
        }
        for happening in backlog {
            self.perform(happening)?;
        }
        Ok(())
    }

    /// A new connection between two brokers, both ends hear of it.
    pub(crate) fn reconnect(&mut self, one: usize, other: usize) {
        self.network.reset(one, other);
        let opened = self.now + self.random.micros(500, 50_000);
        self.queue.plan(opened, Happening::Connect { one, other });
    }

    pub(crate) fn connect(&mut self, one: usize, other: usize) -> Result<(), Violation> {
        let cut = self.network.is_cut((one, other)) || self.network.is_cut((other, one));
        if cut || !self.nodes[one].running || !self.nodes[other].running {
            return Ok(());
        }
        for (node, peer) in [(one, other), (other, one)] {
            let run = self.nodes[node].run();
            self.perform(Happening::Greeted { run, peer })?;
        }
        Ok(())
    }

    /// A broker hears that its stream to another was opened.
    pub(crate) fn greet(&mut self, run: Run, peer: usize) -> Result<(), Violation> {
        for partition in 0..self.plan.partitions {
            self.tell_run(run, partition, Event::PeerConnected { broker: broker_id(peer) })?;
        }
        Ok(())
    }
}
