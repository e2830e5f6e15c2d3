//! Arbitrary operations, compared with a vector of batches.

use std::time::Duration;

use holdfast_core::replication::Position;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::TrimTicket;

#[derive(Debug, Clone)]
enum Operation {
    /// Batches of so many records with a value of that size; whether a new epoch begins.
    Append(Vec<(u64, usize, bool)>),
    Flush,
    /// A per mille of the log.
    Truncate(u64),
    Checkpoint,
    /// A per mille of what is flushed, and whether the ticket is redeemed at once.
    Trim(u64, bool),
    /// All tickets that were not.
    Redeem,
    /// Seals the segment that is appended to.
    Roll,
    /// Gives up what lies below the start since it was sealed.
    TrimSealed,
    /// Close in order or not.
    Reopen(bool),
    /// Power failure: keeps an arbitrary part of what was not flushed, or nothing.
    Crash(Option<u64>),
    Read {
        from: u64,
        below: u64,
        max_bytes: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let batch = (1..5_u64, 0..900_usize, any::<bool>());
    let per_mille = 0..=1000_u64;
    prop_oneof![
        4 => vec(batch, 1..6).prop_map(Operation::Append),
        2 => Just(Operation::Flush),
        1 => Just(Operation::Checkpoint),
        1 => per_mille.clone().prop_map(Operation::Truncate),
        // Often to the end.
        1 => (0..=2000_u64, any::<bool>()).prop_map(|(start, run)| Operation::Trim(start.min(1000), run)),
        1 => Just(Operation::Redeem),
        1 => Just(Operation::Roll),
        1 => Just(Operation::TrimSealed),
        1 => any::<bool>().prop_map(Operation::Reopen),
        1 => any::<Option<u64>>().prop_map(Operation::Crash),
        4 => (per_mille.clone(), per_mille, 0..3000_usize)
            .prop_map(|(from, below, max_bytes)| Operation::Read { from, below, max_bytes }),
    ]
}

struct Model {
    fs: MemFs,
    place: Place,
    log: PartitionLog,
    /// All that were ever appended and not cut off at the end; the log has those from `start` on.
    batches: Vec<RecordBatch>,
    start: Offset,
    /// The start that is found again whatever happens.
    durable_start: Offset,
    durable: Offset,
    term: u32,
    /// Not redeemed yet.
    tickets: Vec<TrimTicket>,
}

impl Model {
    fn new() -> Model {
        let fs = MemFs::new();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
        let log = place.open();
        let (start, batches, tickets) = (Offset(0), Vec::new(), Vec::new());
        Model { fs, place, log, batches, start, durable_start: start, durable: start, term: 1, tickets }
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Append(sizes) => self.append(&sizes),
            Operation::Flush => self.flush(),
            Operation::Truncate(per_mille) => {
                let end = self.at(per_mille).max(self.start);
                self.durable = self.durable.min(end);
                self.log.truncate_to(end).unwrap();
                self.batches.retain(|batch| batch.header().next_offset() <= end);
                self.durable = self.durable.min(self.end());
            }
            Operation::Checkpoint => {
                self.log.checkpoint(&snapshot_of(&self.batches)).unwrap();
            }
            Operation::Trim(per_mille, run) => self.trim(per_mille, run),
            Operation::Redeem => self.redeem(),
            Operation::Roll => _ = self.log.roll_if_older(0, Duration::ZERO).unwrap(),
            Operation::TrimSealed => self.tickets.extend(self.log.trim_sealed()),
            Operation::Reopen(clean) => {
                if clean {
                    self.flush();
                }
                self.reopen(clean);
            }
            Operation::Crash(seed) => {
                match seed {
                    Some(seed) => self.fs.crash_keeping(seed),
                    None => self.fs.crash(),
                }
                self.reopen(false);
            }
            Operation::Read { from, below, max_bytes } => {
                self.read(self.at(from).max(self.start), self.at(below), max_bytes);
            }
        }
        assert_eq!(self.log.log_end_offset(), self.end());
        let kept = &self.batches[self.below(self.start)..];
        assert_eq!((self.log.log_start_offset(), &content(&self.log)[..]), (self.start, kept));
        assert_eq!(self.log.epochs(), epochs_of(kept));
        check_lookups(&self.log, kept);
    }

    /// Number of batches below `offset`.
    fn below(&self, offset: Offset) -> usize {
        self.batches.partition_point(|batch| batch.header().next_offset() <= offset)
    }

    /// As the rules do it: on a batch boundary, and only what is flushed.
    fn trim(&mut self, per_mille: u64, run: bool) {
        let below = &self.batches[..self.below(self.at(per_mille).min(self.durable))];
        let Some(last) = below.last().map(|batch| *batch.header()) else { return };
        let base = Position { epoch: last.epoch.unwrap(), end: last.next_offset() };
        let ticket = self.log.trim_to(base, snapshot_of(below)).unwrap();
        self.start = self.start.max(base.end);
        self.tickets.extend(ticket);
        if run {
            self.redeem();
        }
    }

    /// Each of them does what is to be done by then.
    fn redeem(&mut self) {
        for ticket in self.tickets.drain(..).rev() {
            ticket.run().unwrap();
            self.durable_start = self.start;
        }
    }

    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset(0), |batch| batch.header().next_offset())
    }

    fn at(&self, per_mille: u64) -> Offset {
        Offset(self.end().0 * per_mille / 1000)
    }

    fn append(&mut self, sizes: &[(u64, usize, bool)]) {
        let mut next = Vec::new();
        let mut end = self.end().0;
        for (records, size, new_epoch) in sizes {
            self.term += u32::from(*new_epoch);
            next.push(batch(end, *records, self.term, end as i64, *size));
            end += records;
        }
        self.log.append(&next).unwrap();
        self.batches.extend(next);
    }

    fn flush(&mut self) {
        if let Some(ticket) = self.log.take_flush() {
            ticket.run().unwrap();
            self.durable = ticket.end();
        }
    }

    fn reopen(&mut self, clean: bool) {
        let recovery = Recovery { trusted_end: self.durable, flushed_end: self.durable, clean };
        let (log, _, derived) = self.place.try_resume(recovery).unwrap();
        assert!(log.log_end_offset() >= self.durable);
        self.start = log.log_start_offset();
        assert_eq!(self.start, self.durable_start, "an earlier start was noted, or none");
        let expected: Vec<Seen> = self.batches.iter().map(|batch| seen(batch.header())).collect();
        assert_eq!(derived.seen, expected[..derived.seen.len()]);
        self.batches.truncate(derived.seen.len());
        self.log = log;
        self.flush();
        // Those of a log that was left do nothing.
        self.tickets.drain(..).for_each(|ticket| ticket.run().unwrap());
    }

    fn read(&self, from: Offset, below: Offset, max_bytes: usize) {
        let read = RecordBatch::split(self.log.reader().read(from, below, max_bytes).unwrap()).unwrap();
        let first = self.batches.iter().position(|batch| batch.header().next_offset() > from);
        match (read.first(), first) {
            (Some(_), Some(first)) => {
                assert_eq!(read, self.batches[first..first + read.len()]);
                assert!(read.iter().all(|batch| batch.header().next_offset() <= below));
            }
            (None, Some(first)) => {
                assert!(from >= below || self.batches[first].header().next_offset() > below);
            }
            (found, None) => assert!(found.is_none()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_of_operations_matches_a_vector(operations in vec(operation(), 1..40)) {
        let mut model = Model::new();
        for operation in operations {
            model.run(operation);
        }
    }
}
