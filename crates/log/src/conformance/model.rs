//! Arbitrary operations, compared with a vector of batches.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Operation {
    /// Batches of so many records with a value of that size; whether a new epoch begins.
    Append(Vec<(u64, usize, bool)>),
    Flush,
    /// A per mille of the log.
    Truncate(u64),
    Checkpoint,
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
    batches: Vec<RecordBatch>,
    durable: Offset,
    term: u32,
}

impl Model {
    fn new() -> Model {
        let fs = MemFs::new();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
        let log = place.open();
        Model { fs, place, log, batches: Vec::new(), durable: Offset(0), term: 1 }
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Append(sizes) => self.append(&sizes),
            Operation::Flush => self.flush(),
            Operation::Truncate(per_mille) => {
                let end = self.at(per_mille);
                self.durable = self.durable.min(end);
                self.log.truncate_to(end).unwrap();
                self.batches.retain(|batch| batch.header().next_offset() <= end);
                self.durable = self.durable.min(self.end());
            }
            Operation::Checkpoint => {
                let snapshot = snapshot(&self.log);
                self.log.checkpoint(&snapshot).unwrap();
            }
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
            Operation::Read { from, below, max_bytes } => self.read(self.at(from), self.at(below), max_bytes),
        }
        assert_eq!(self.log.log_end_offset(), self.end());
        assert_eq!(content(&self.log), self.batches);
        check_lookups(&self.log, &self.batches);
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
        let expected: Vec<Seen> = self.batches.iter().map(|batch| seen(batch.header())).collect();
        assert_eq!(derived.seen, expected[..derived.seen.len()]);
        self.batches.truncate(derived.seen.len());
        self.log = log;
        self.flush();
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
