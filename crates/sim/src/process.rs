//! The life of a process: it is told of partitions, dies, loses what was not flushed, and starts from its disks.

use holdfast_core::Incarnation;
use holdfast_core::metadata::Register;
use holdfast_core::replication::{Assignment, Event, Loaded, Replica};

use crate::controller::broker_id;
use crate::event_queue::{Happening, Run};
use crate::node::config;
use crate::oracle::Violation;
use crate::world::World;

impl World {
    /// The controller told of a partition: a replica that was not there is created (R46).
    pub(crate) fn assign(
        &mut self,
        run: Run,
        partition: usize,
        register: &Register,
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[run.node];
        if !(node.running && run.incarnation == node.incarnation) {
            return Ok(());
        }
        if !self.controller.is_reachable(run.node) {
            self.controller.forget_told(run.node, run.incarnation, partition);
            return Ok(());
        }
        let assignment = Assignment::from(register);
        let (me, incarnation) = (node.replica_id(), node.incarnation);
        let slot = &mut node.slots[partition];
        if slot.replica.is_none() && assignment.names(me) {
            let loaded = Loaded::empty(me, incarnation, &assignment);
            slot.replica = Some(Replica::new(self.now, config(&self.plan), loaded));
        }
        self.tell(run.node, partition, Event::Assign(assignment))
    }

    /// A process starts: what its disks hold decides what it is.
    pub(crate) fn boot(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].running {
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
        slot.timer = None;
        let found = slot.disk.load();
        self.oracles[partition].reloaded(run.node, &slot.disk)?;
        let Some((state, epochs, producers)) = found else { return Ok(()) };
        let loaded = Loaded {
            me,
            incarnation: run.incarnation,
            state,
            epochs,
            producers,
            high_watermark: slot.disk.watermark(),
            tail_lost: slot.disk.tail_lost(),
        };
        slot.replica = Some(Replica::new(self.now, config(&self.plan), loaded));
        self.drain(run.node, partition)
    }

    /// The process dies, of itself or with its machine.
    pub(crate) fn crash(&mut self, node: usize, power: bool) -> Result<(), Violation> {
        self.nodes[node].running = false;
        for partition in 0..self.plan.partitions {
            let host = &mut self.nodes[node];
            let slot = &mut host.slots[partition];
            slot.replica = None;
            slot.timer = None;
            if power {
                slot.disk.cut_power(&mut host.random);
            } else {
                slot.disk.crash(&mut host.random);
            }
            self.oracles[partition].reloaded(node, &slot.disk)?;
        }
        self.requests.retain(|&(at, _), _| at != node);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.network.reset(node, other);
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
        for partition in 0..self.plan.partitions {
            self.tell(one, partition, Event::PeerConnected { broker: broker_id(other) })?;
            self.tell(other, partition, Event::PeerConnected { broker: broker_id(one) })?;
        }
        Ok(())
    }
}
