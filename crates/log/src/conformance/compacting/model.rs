//! Arbitrary appends, passes, cuts, trims, crashes and openings, compared with everything that was ever written.

use holdfast_core::replication::Position;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Of which producer if of any, whether it is compressed, whether a new epoch begins, and key and value of each record.
type Batch = (u8, bool, bool, Vec<(u8, u8)>);

#[derive(Debug, Clone)]
enum Operation {
    Append(Vec<Batch>),
    Checkpoint,
    /// A pass: with so much memory, up to a per mille of what is flushed, at most so many steps.
    Compact(usize, u64, u32),
    /// Everything that may be noted is.
    Tombstones,
    /// A per mille of what is not clean yet.
    Cut(u64),
    /// A per mille of the log, and whether the ticket is redeemed.
    Trim(u64, bool),
    /// Closed in order or not.
    Reopen(bool),
    /// Power failure: keeps an arbitrary part of what was not flushed, or nothing. In a pass, after so many operations; or
    /// in none.
    Crash(Option<u64>, Option<u64>),
}

fn operation() -> impl Strategy<Value = Operation> {
    let record = (0..9_u8, any::<u8>());
    let batch = (0..4_u8, any::<bool>(), prop::bool::weighted(0.2), vec(record, 1..5));
    let per_mille = 0..=1000_u64;
    let memory = prop_oneof![Just(0_usize), 24..400_usize, Just(1 << 16)];
    let steps = prop_oneof![0..60_u32, Just(u32::MAX), Just(u32::MAX)];
    prop_oneof![
        6 => vec(batch, 1..14).prop_map(Operation::Append),
        1 => Just(Operation::Checkpoint),
        5 => (memory, 600..=1000_u64, steps)
            .prop_map(|(memory, below, steps)| Operation::Compact(memory, below, steps)),
        1 => Just(Operation::Tombstones),
        1 => per_mille.clone().prop_map(Operation::Cut),
        1 => (per_mille, any::<bool>()).prop_map(|(start, run)| Operation::Trim(start, run)),
        1 => any::<bool>().prop_map(Operation::Reopen),
        2 => (any::<Option<u64>>(), prop::option::of(0..60_u64)).prop_map(|(seed, after)| Operation::Crash(seed, after)),
    ]
}

struct Model {
    fs: MemFs,
    place: Place,
    log: PartitionLog,
    written: Written,
    /// Nothing above was ever looked at.
    below: Offset,
    start: Offset,
    durable_start: Offset,
    term: u32,
    now_ms: i64,
}

impl Model {
    fn new() -> Model {
        let fs = MemFs::new();
        let config = LogConfig { segment_size: ByteSize(700), index_interval: ByteSize(128), ..small() };
        let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config };
        let log = place.open();
        let zero = Offset(0);
        Model {
            fs,
            place,
            log,
            written: Written::default(),
            below: zero,
            start: zero,
            durable_start: zero,
            term: 1,
            now_ms: 0,
        }
    }

    fn run(&mut self, operation: Operation) {
        self.now_ms += 100;
        match operation {
            Operation::Append(batches) => self.append(&batches),
            Operation::Checkpoint => {
                self.log.checkpoint(&snapshot_of(&content(&self.log))).unwrap();
                flush(&mut self.log);
            }
            Operation::Compact(map_bytes, per_mille, steps) => self.compact(map_bytes, per_mille, steps),
            Operation::Tombstones => {
                let old = self.log.reader().old_tombstones(300, self.now_ms);
                let gone = self.log.compacted().tombstones_gone_below.max(old);
                self.log.note_tombstones_gone(gone).unwrap();
            }
            Operation::Cut(per_mille) => self.cut(per_mille),
            Operation::Trim(per_mille, run) => self.trim(per_mille, run),
            Operation::Reopen(clean) => self.reopen(clean),
            Operation::Crash(seed, after) => {
                if let Some(after) = after {
                    self.fs.inject(crate::fs::mem::Fault { kind: None, after, lasting: true });
                    self.below = self.written.end();
                    let reader = self.log.reader();
                    let _ = reader.compact(&plan(&reader), &Turned, &mut |_| ControlFlow::Continue(()));
                }
                match seed {
                    Some(seed) => self.fs.crash_keeping(seed),
                    None => self.fs.crash(),
                }
                self.reopen(false);
            }
        }
        assert_eq!(self.log.log_start_offset(), self.start);
        check(&self.log, &self.written, self.below, "model");
    }

    /// Everything is flushed at once: what is not may be lost, and then a pass has not seen it.
    fn append(&mut self, batches: &[Batch]) {
        let from = self.written.batches.len();
        for (producer, compressed, new_epoch, records) in batches {
            if *new_epoch {
                self.term += 1;
                self.written.marker(self.term);
            }
            let named: Vec<(String, Option<String>)> = records
                .iter()
                .map(|(key, value)| {
                    let text = (value % 4 > 0).then(|| "v".repeat(usize::from(*value) / 3));
                    (format!("key {key}"), text)
                })
                .collect();
            let entries: Vec<Entry<'_>> =
                named.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            let compression = if *compressed { Compression::Zstd } else { Compression::None };
            let producer = (*producer > 0).then_some(i64::from(*producer));
            self.written.add(self.term, &entries, producer, compression);
        }
        self.log.append(&self.written.batches[from..]).unwrap();
        flush(&mut self.log);
    }

    fn compact(&mut self, map_bytes: usize, per_mille: u64, steps: u32) {
        let reader = self.log.reader();
        let below = Offset(self.written.end().0 * per_mille / 1000);
        self.below = below.max(self.below);
        let mut left = steps;
        let mut throttle = |_| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let plan = CompactionPlan {
            below,
            map_bytes,
            now_ms: self.now_ms,
            tombstone_delay_ms: 300,
            ..plan(&reader)
        };
        let outcome = reader.compact(&plan, &Turned, &mut throttle).unwrap();
        let trimming = self.start != self.durable_start;
        assert_eq!(matches!(outcome.ended, PassEnd::Changed), trimming, "{outcome:?}");
        assert!(!matches!(outcome.ended, PassEnd::Damaged(_)), "{outcome:?}");
        assert_eq!(outcome.cleaned_end, self.log.compacted().cleaned_end);
    }

    /// Where nothing was looked at.
    fn cut(&mut self, per_mille: u64) {
        let lowest = self.below.max(self.start);
        let end = Offset(lowest.0 + (self.written.end() - lowest) * per_mille / 1000);
        let kept = self.written.batches.partition_point(|batch| batch.header().next_offset() <= end);
        let end = self.written.batches[..kept].last().map_or(Offset(0), |batch| batch.header().next_offset());
        if end < lowest {
            return;
        }
        self.log.truncate_to(end).unwrap();
        self.written.batches.truncate(kept);
        self.written.sequences.clear();
        // Producers that go on are others.
        let next = self
            .written
            .batches
            .iter()
            .filter_map(|batch| Some((batch.header().producer?.id, batch.header().last_sequence()? + 1)));
        self.written.sequences = next.collect();
    }

    fn trim(&mut self, per_mille: u64, run: bool) {
        let upto = Offset(self.written.end().0 * per_mille / 1000);
        let below = self.written.batches.partition_point(|batch| batch.header().next_offset() <= upto);
        let Some(last) = self.written.batches[..below].last().map(|batch| *batch.header()) else { return };
        let base = Position { epoch: last.epoch.unwrap(), end: last.next_offset() };
        let ticket = self.log.trim_to(base, vec![]).unwrap();
        self.start = self.start.max(base.end);
        if run && let Some(ticket) = ticket {
            ticket.run().unwrap();
            self.durable_start = self.start;
        }
    }

    fn reopen(&mut self, clean: bool) {
        let end = self.written.end();
        let compacted = self.log.compacted();
        let recovery = Recovery { trusted_end: end, flushed_end: end, clean };
        let (log, opened, _) = self.place.try_open(recovery).unwrap();
        assert_eq!(opened.cut_bytes, 0);
        self.start = log.log_start_offset();
        assert_eq!(self.start, self.durable_start);
        // The start may be lower than it was, and with it what counts as clean for lying below it.
        assert!(log.compacted().cleaned_end <= compacted.cleaned_end.max(self.below));
        assert_eq!(log.compacted().tombstones_gone_below, compacted.tombstones_gone_below);
        self.log = log;
        flush(&mut self.log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_sequence_of_operations_leaves_the_last_of_each_key(operations in vec(operation(), 1..40)) {
        let mut model = Model::new();
        for operation in operations {
            model.run(operation);
        }
    }
}
