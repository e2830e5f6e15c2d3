//! What a broker does for its replicas: it performs what they ask for, in that order, like the driver in the broker.

use holdfast_core::replication::{Action, Envelope, Event, Replica};

use crate::controller::{Report, node_of};
use crate::coverage::Sight;
use crate::disk::FlushStart;
use crate::event_queue::{Happening, Repair, Run};
use crate::network::Passage;
use crate::node::Node;
use crate::oracle::{Site, Violation};
use crate::world::World;

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
        loop {
            while let Some(replica) = &mut self.nodes[node].slots[partition].replica {
                let Some(action) = replica.next_action() else { break };
                if matches!(action, Action::Send(_) | Action::Reply { .. }) {
                    self.observe_replica(node, partition)?; // before anybody learns of it
                }
                self.act(node, partition, action)?;
                if self.takes_doom(node) {
                    return self.crash_and_restart(node, false);
                }
            }
            if !self.start_flush(node, partition) {
                break;
            }
        }
        self.set_timer(node, partition);
        self.observe_replica(node, partition)
    }

    /// Whether the process dies right after what it just did.
    fn takes_doom(&mut self, node: usize) -> bool {
        let Some((_, left)) = self.doomed.as_mut().filter(|(doomed, _)| *doomed == node) else {
            return false;
        };
        *left = left.saturating_sub(1);
        let dies = *left == 0;
        if dies {
            self.doomed = None;
        }
        dies
    }

    /// Whether a flush was over at once, so that the replica may have more to say.
    fn start_flush(&mut self, node: usize, partition: usize) -> bool {
        let host = &mut self.nodes[node];
        let slot = &mut host.slots[partition];
        match slot.disk.start_flush() {
            FlushStart::Idle => false,
            FlushStart::UnderWay => {
                let run = host.run();
                let done = self.now + host.disk_delay(self.plan.disk.flush);
                self.queue.plan(done, Happening::Flushed { run, partition });
                false
            }
            FlushStart::Done(event) => {
                if let Some(replica) = &mut slot.replica {
                    replica.handle(self.now, event);
                }
                true
            }
        }
    }

    fn observe_replica(&mut self, node: usize, partition: usize) -> Result<(), Violation> {
        let Some(replica) = &self.nodes[node].slots[partition].replica else { return Ok(()) };
        let site = |node| Site { id: Node::replica_id(node), disk: &node.slots[partition].disk };
        let sites: Vec<Site<'_>> = self.nodes.iter().map(site).collect();
        let incarnation = self.nodes[node].incarnation;
        self.oracles[partition].observe(node, incarnation, replica, &sites)
    }

    fn act(&mut self, node: usize, partition: usize, action: Action) -> Result<(), Violation> {
        let run = self.nodes[node].run();
        let id = self.nodes[node].replica_id();
        let oracle = &mut self.oracles[partition];
        let slot = &mut self.nodes[node].slots[partition];
        let disk = &mut slot.disk;
        match action {
            Action::Persist { number, state } => {
                let watermark = slot.replica.as_ref().map(|replica| replica.status().high_watermark);
                disk.begin_persist(number, state, watermark.unwrap_or_default());
                let longest = self.plan.disk.persist;
                let done = self.now + self.nodes[node].disk_delay(longest);
                self.queue.plan(done, Happening::Persisted { run, partition, number });
                Ok(())
            }
            Action::Append { batches } => {
                let appended = disk.append(&batches);
                // Where that failed the first few of them may be in the log.
                let end = disk.end();
                let there = batches.partition_point(|batch| batch.header().next_offset() <= end);
                oracle.appending(node, disk, &batches[..there])?;
                if appended.is_err() {
                    return self.fail_log(node, partition, Sight::WriteFailed);
                }
                Ok(())
            }
            Action::Truncate { end } => {
                let assignment = slot.replica.as_ref().and_then(Replica::assignment);
                oracle.truncating(node, end, assignment.and_then(|assignment| assignment.unclean_term))?;
                if disk.truncate(end).is_err() {
                    return self.fail_log(node, partition, Sight::WriteFailed);
                }
                Ok(())
            }
            Action::Trim { start, producers } => {
                oracle.trimming(node, start)?;
                // A log that cannot be trimmed has failed already.
                match disk.trim(start, &producers) {
                    Ok(()) => Ok(()),
                    Err(_) => self.fail_log(node, partition, Sight::WriteFailed),
                }
            }
            Action::Reset { start, producers } => {
                oracle.resetting(node, start, Site { id, disk })?;
                match disk.reset(start, &producers) {
                    Ok(()) => Ok(()),
                    Err(_) => self.fail_log(node, partition, Sight::WriteFailed),
                }
            }
            Action::NoteTombstonesGone { below } => match disk.note_tombstones_gone(below) {
                Ok(()) => Ok(()),
                Err(_) => self.fail_log(node, partition, Sight::WriteFailed),
            },
            Action::Flush { generation } => {
                disk.want_flush(generation);
                Ok(())
            }
            Action::Read { to, epoch, from, max_bytes } => {
                let event = match disk.read(from, max_bytes) {
                    Some(batches) => Event::Read { to, epoch, from, batches },
                    None => Event::StorageFailed,
                };
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
            Action::Report { term, state, complete, in_sync, .. } => {
                self.report_count += 1;
                let report = Report { number: self.report_count, term, state, complete, in_sync };
                slot.report = Some(report.clone());
                let arrival = self.now + self.random.micros(200, 10_000);
                self.queue.plan(arrival, Happening::Report { run, partition, report });
                Ok(())
            }
        }
    }

    /// A read has ended; one that failed takes the replica out of service.
    pub(crate) fn end_read(&mut self, run: Run, partition: usize, event: Event) -> Result<(), Violation> {
        if !self.nodes[run.node].is_running(run) {
            return Ok(());
        }
        if event == Event::StorageFailed {
            self.fail_log(run.node, partition, Sight::ReadFailed)?;
            return self.drain(run.node, partition);
        }
        self.tell(run.node, partition, event)
    }

    /// The log failed: the replica hears of it before it is asked for its next action.
    pub(crate) fn fail_log(&mut self, node: usize, partition: usize, sight: Sight) -> Result<(), Violation> {
        self.coverage.see(sight);
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
        if slot.timer.is_none_or(|timer| timer > self.now) {
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
        if !self.nodes[run.node].slots[partition].disk.end_persist(number) {
            // Promises cannot be kept any more: the process ends.
            self.coverage.see(Sight::PromiseFailed);
            return self.crash_and_restart(run.node, false);
        }
        self.tell(run.node, partition, Event::Persisted { number })
    }

    pub(crate) fn end_flush(&mut self, run: Run, partition: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[run.node];
        let slot = &mut node.slots[partition];
        if !(node.running && run.incarnation == node.incarnation) || slot.disk.failed() {
            return Ok(());
        }
        let Some(event) = slot.disk.end_flush() else { return Ok(()) };
        if event == Event::StorageFailed {
            self.fail_log(run.node, partition, Sight::FlushFailed)?;
            return self.drain(run.node, partition);
        }
        let note_log = node.random.chance(150);
        if node.random.chance(300)
            && let Some(replica) = &slot.replica
            && replica.epochs().base().end == slot.disk.start()
            && !slot.disk.checkpoint(replica.status().high_watermark, replica.durable_end())
        {
            self.coverage.see(Sight::PromiseFailed);
            return self.crash_and_restart(run.node, false);
        }
        if note_log
            && let Some(replica) = &slot.replica
            && slot.disk.note_log(replica).is_err()
        {
            self.fail_log(run.node, partition, Sight::WriteFailed)?;
            return self.drain(run.node, partition);
        }
        self.tell(run.node, partition, event)
    }
}
