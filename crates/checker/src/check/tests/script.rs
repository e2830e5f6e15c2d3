//! Writes small histories: time goes on by a millisecond with each event.

use crate::history::{Edge, Event, Key, PollStage, SendStage, What};
use crate::report::Report;

/// The one key of most histories.
pub(super) const KEY: &str = "t/0";

/// A history being written.
#[derive(Debug, Default, Clone)]
pub(super) struct Script {
    pub(super) events: Vec<Event>,
    ops: u64,
}

/// A send that has begun.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    process: u64,
    op: u64,
    key: Key,
    values: Vec<u64>,
}

impl Script {
    pub(super) fn now(&self) -> u64 {
        self.events.len() as u64 * 1000
    }

    fn next_op(&mut self) -> u64 {
        self.ops += 1;
        self.ops
    }

    pub(super) fn send(&mut self, process: u64, values: &[u64]) -> Sending {
        self.send_until(process, values, None)
    }

    pub(super) fn send_until(&mut self, process: u64, values: &[u64], deadline_us: Option<u64>) -> Sending {
        let sending = Sending { process, op: self.next_op(), key: KEY.into(), values: values.to_vec() };
        self.add_send(&sending, SendStage::Invoke { deadline_us });
        sending
    }

    fn add_send(&mut self, sending: &Sending, stage: SendStage) {
        let Sending { process, op, key, values } = sending;
        self.events.push(Event::send(self.now(), *process, *op, key, values.clone(), stage));
    }

    pub(super) fn acked(&mut self, sending: &Sending, base_offset: u64) {
        self.acked_in(sending, base_offset, 1);
    }

    pub(super) fn acked_in(&mut self, sending: &Sending, base_offset: u64, epoch: u64) {
        self.add_send(sending, SendStage::Ok { base_offset, epoch: Some(epoch) });
    }

    pub(super) fn failed(&mut self, sending: &Sending) {
        self.add_send(sending, SendStage::Fail { error: "NOT_LEADER: no".into() });
    }

    pub(super) fn unknown(&mut self, sending: &Sending) {
        self.add_send(sending, SendStage::Info { error: "DEADLINE_EXCEEDED: late".into() });
    }

    /// A send and its acknowledgement.
    pub(super) fn write(&mut self, process: u64, values: &[u64], base_offset: u64) {
        let sending = self.send(process, values);
        self.acked(&sending, base_offset);
    }

    pub(super) fn poll(&mut self, process: u64, stage: PollStage) {
        let (op, key) = (self.next_op(), KEY.into());
        self.events.push(Event::poll(self.now(), process, op, &key, PollStage::Invoke));
        self.events.push(Event::poll(self.now(), process, op, &key, stage));
    }

    /// A poll that succeeds, and its answer.
    pub(super) fn read(&mut self, process: u64, records: &[(u64, u64)]) {
        self.poll(process, PollStage::Ok { records: records.to_vec(), high_watermark: None });
    }

    pub(super) fn read_below(&mut self, process: u64, records: &[(u64, u64)], watermark: u64) {
        self.poll(process, PollStage::Ok { records: records.to_vec(), high_watermark: Some(watermark) });
    }

    /// A poll that fails and shows records all the same.
    pub(super) fn read_and_fail(&mut self, process: u64, records: &[(u64, u64)]) {
        self.poll(process, PollStage::Info { records: records.to_vec(), error: "CANCELLED".into() });
    }

    pub(super) fn assign(&mut self, process: u64, offset: u64) {
        let (now, op) = (self.now(), self.next_op());
        self.events.push(Event::assign(now, process, op, &KEY.into(), offset));
    }

    pub(super) fn crash(&mut self, process: u64) {
        let (at_us, op) = (self.now(), self.next_op());
        self.events.push(Event { at_us, process, op, what: What::Crash });
    }

    pub(super) fn fault(&mut self, name: &str, edge: Edge) {
        self.events.push(Event::fault(self.now(), name, None, edge));
    }

    /// The final phase, in which a new process reads all this from the beginning.
    pub(super) fn finally(&mut self, records: &[(u64, u64)]) {
        self.events.push(Event::begin_final(self.now()));
        self.assign(99, 0);
        self.read(99, records);
    }

    pub(super) fn judge(&self) -> Report {
        super::super::judge(&self.events).unwrap()
    }

    /// How many of each kind of anomaly are found.
    pub(super) fn found(&self) -> Vec<(&'static str, u64)> {
        let report = self.judge();
        let found = report.anomalies.iter().map(|(kind, finding)| (kind.name(), finding.count));
        found.collect()
    }
}
