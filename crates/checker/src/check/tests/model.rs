//! A correct log and its clients, without any replication, driven by random steps; it writes the history of both.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::script::{Script, Sending};
use crate::history::Event;

/// What happens next in the model.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Begin { writer: usize, values: usize },
    Append { writer: usize },
    Answer { writer: usize },
    LoseAnswer { writer: usize },
    Fail { writer: usize },
    NewEpoch,
    Read { reader: usize, most: usize },
    FailRead { reader: usize, most: usize },
    Assign { reader: usize, at: Index },
    CrashWriter { writer: usize },
    CrashReader { reader: usize },
}

const WRITERS: usize = 3;
const READERS: usize = 2;

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writer = || 0..WRITERS;
    let reader = || 0..READERS;
    let step = prop_oneof![
        6 => (writer(), 1..4usize).prop_map(|(writer, values)| Step::Begin { writer, values }),
        6 => writer().prop_map(|writer| Step::Append { writer }),
        5 => writer().prop_map(|writer| Step::Answer { writer }),
        1 => writer().prop_map(|writer| Step::LoseAnswer { writer }),
        1 => writer().prop_map(|writer| Step::Fail { writer }),
        1 => Just(Step::NewEpoch),
        5 => (reader(), 0..6usize).prop_map(|(reader, most)| Step::Read { reader, most }),
        1 => (reader(), 0..3usize).prop_map(|(reader, most)| Step::FailRead { reader, most }),
        1 => (reader(), any::<Index>()).prop_map(|(reader, at)| Step::Assign { reader, at }),
        1 => writer().prop_map(|writer| Step::CrashWriter { writer }),
        1 => reader().prop_map(|reader| Step::CrashReader { reader }),
    ];
    vec(step, 1..120)
}

/// A send under way; given up once nobody waits for it, and it may be appended all the same.
#[derive(Debug)]
struct Batch {
    sending: Sending,
    values: Vec<u64>,
    placed: Option<(u64, u64)>,
    given_up: bool,
}

#[derive(Debug, Default)]
struct Writer {
    process: u64,
    batches: Vec<Batch>,
}

#[derive(Debug, Default)]
struct Reader {
    process: u64,
    position: u64,
}

/// A correct log, and its history.
#[derive(Debug)]
struct Model {
    script: Script,
    /// `None` is the marker of an epoch.
    log: Vec<Option<u64>>,
    epoch: u64,
    values: u64,
    processes: u64,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
}

impl Model {
    fn new() -> Model {
        let mut model = Model {
            script: Script::default(),
            log: vec![None],
            epoch: 1,
            values: 0,
            processes: 0,
            writers: Vec::new(),
            readers: Vec::new(),
        };
        for _ in 0..WRITERS {
            let process = model.new_process();
            model.writers.push(Writer { process, batches: Vec::new() });
        }
        for _ in 0..READERS {
            let process = model.new_process();
            model.script.assign(process, 0);
            model.readers.push(Reader { process, position: 0 });
        }
        model
    }

    fn new_process(&mut self) -> u64 {
        self.processes += 1;
        self.processes
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Begin { writer, values } => self.begin(writer, values as u64),
            Step::Append { writer } => self.append(writer),
            Step::Answer { writer } => self.answer(writer),
            Step::LoseAnswer { writer } => {
                let waiting = self.writers[writer].batches.iter_mut().find(|batch| !batch.given_up);
                if let Some(batch) = waiting {
                    batch.given_up = true;
                    self.script.unknown(&batch.sending);
                }
            }
            Step::Fail { writer } => {
                // Only what no leader ever had can fail for certain.
                let batches = &mut self.writers[writer].batches;
                if let Some(index) =
                    batches.iter().position(|batch| batch.placed.is_none() && !batch.given_up)
                {
                    let batch = batches.remove(index);
                    self.script.failed(&batch.sending);
                }
            }
            Step::NewEpoch => {
                self.epoch += 1;
                self.log.push(None);
            }
            Step::Read { reader, most } => {
                let records = self.take(reader, most);
                let end = self.log.len() as u64;
                self.script.read_below(self.readers[reader].process, &records, end);
            }
            Step::FailRead { reader, most } => {
                let records = self.take(reader, most);
                self.script.read_and_fail(self.readers[reader].process, &records);
            }
            Step::Assign { reader, at } => {
                let position = at.index(self.log.len()) as u64;
                self.readers[reader].position = position;
                self.script.assign(self.readers[reader].process, position);
            }
            Step::CrashWriter { writer } => {
                self.script.crash(self.writers[writer].process);
                self.writers[writer].batches.iter_mut().for_each(|batch| batch.given_up = true);
                self.writers[writer].process = self.new_process();
            }
            Step::CrashReader { reader } => {
                self.script.crash(self.readers[reader].process);
                let (process, position) = (self.new_process(), self.readers[reader].position);
                self.script.assign(process, position);
                self.readers[reader].process = process;
            }
        }
    }

    fn begin(&mut self, writer: usize, values: u64) {
        let values: Vec<u64> = (self.values..self.values + values).collect();
        self.values += values.len() as u64;
        let sending = self.script.send(self.writers[writer].process, &values);
        self.writers[writer].batches.push(Batch { sending, values, placed: None, given_up: false });
    }

    fn append(&mut self, writer: usize) {
        let waiting = self.writers[writer].batches.iter_mut().find(|batch| batch.placed.is_none());
        if let Some(batch) = waiting {
            batch.placed = Some((self.log.len() as u64, self.epoch));
            self.log.extend(batch.values.iter().copied().map(Some));
        }
    }

    fn answer(&mut self, writer: usize) {
        let batches = &mut self.writers[writer].batches;
        if let Some(index) = batches.iter().position(|batch| batch.placed.is_some() && !batch.given_up) {
            let batch = batches.remove(index);
            let (base_offset, epoch) = batch.placed.unwrap();
            self.script.acked_in(&batch.sending, base_offset, epoch);
        }
    }

    fn take(&mut self, reader: usize, most: usize) -> Vec<(u64, u64)> {
        let reader = &mut self.readers[reader];
        let rest = self.log.iter().enumerate().skip(reader.position as usize);
        let records: Vec<(u64, u64)> =
            rest.filter_map(|(offset, value)| Some((offset as u64, (*value)?))).take(most).collect();
        if let Some(&(offset, _)) = records.last() {
            reader.position = offset + 1;
        }
        records
    }

    fn finish(mut self) -> Vec<Event> {
        let all: Vec<(u64, u64)> =
            (0..).zip(&self.log).filter_map(|(offset, value)| Some((offset, (*value)?))).collect();
        self.script.finally(&all);
        self.script.events
    }
}

/// The history of those steps, final phase included.
pub(super) fn history(steps: &[Step]) -> Vec<Event> {
    let mut model = Model::new();
    steps.iter().for_each(|step| model.step(step));
    model.finish()
}
