//! The table is a function of the log (R38): whatever was appended, settled and cut, it is the one that the log would give.

use proptest::prelude::*;

use super::*;
use crate::LeaderEpoch;
use crate::record_batch::{RecordBatch, RecordBatchBuilder};

/// What happens to a log. Fractions are of what there is, in 255ths.
#[derive(Debug, Clone)]
enum Step {
    /// A batch of this producer that follows on; `fresh` begins another instance of it.
    Append { producer: i64, records: u32, fresh: bool },
    /// The high watermark rises.
    Settle { fraction: u8 },
    /// The log is cut above the high watermark.
    Cut { fraction: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (0..3_i64, 1..4_u32, prop::bool::weighted(0.1))
        .prop_map(|(producer, records, fresh)| Step::Append { producer, records, fresh });
    let settle = any::<u8>().prop_map(|fraction| Step::Settle { fraction });
    let cut = any::<u8>().prop_map(|fraction| Step::Cut { fraction });
    prop::collection::vec(prop_oneof![6 => append, 1 => settle, 1 => cut], 1..60)
}

/// A log, and the table that went along with it.
#[derive(Debug, Default)]
struct Kept {
    log: Vec<RecordBatch>,
    high_watermark: Offset,
    table: ProducerTable,
}

impl Kept {
    fn end(&self) -> Offset {
        self.log.last().map_or(Offset::ZERO, |batch| batch.header().next_offset())
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { producer, records, fresh } => {
                let (epoch, base_sequence) = self.following(ProducerId(producer), fresh);
                let producer = ProducerRef { id: ProducerId(producer), epoch, base_sequence };
                let batch = batch(producer, records, self.end());
                assert_eq!(self.table.check(batch.header()), SequenceCheck::Accept);
                self.table.append(batch.header());
                self.log.push(batch);
            }
            Step::Settle { fraction } => {
                let reached = self.boundary(self.between(self.high_watermark, fraction));
                self.high_watermark = self.high_watermark.max(reached);
                self.table.settle(self.high_watermark);
            }
            Step::Cut { fraction } => {
                let end = self.boundary(self.between(self.high_watermark, fraction));
                self.cut(end.max(self.high_watermark));
            }
        }
    }

    fn cut(&mut self, end: Offset) {
        self.log.retain(|batch| batch.header().next_offset() <= end);
        self.table.truncate(end);
    }

    /// What a producer sends next, by the log alone.
    fn following(&self, id: ProducerId, fresh: bool) -> (i16, i32) {
        let headers = self.log.iter().rev().map(RecordBatch::header);
        let last = headers.filter_map(|header| Some((header.producer?, header.last_sequence()?)));
        match last.into_iter().find(|(producer, _)| producer.id == id) {
            None => (0, 0),
            Some((producer, _)) if fresh => (producer.epoch + 1, 0),
            Some((producer, last)) => (producer.epoch, last + 1),
        }
    }

    fn between(&self, low: Offset, fraction: u8) -> Offset {
        low + (self.end() - low) * u64::from(fraction) / 255
    }

    /// The end of a batch, at `offset` or below it.
    fn boundary(&self, offset: Offset) -> Offset {
        let ends = self.log.iter().map(|batch| batch.header().next_offset());
        ends.take_while(|&end| end <= offset).last().unwrap_or(Offset::ZERO)
    }

    /// The table of a process that starts with this log.
    fn read_again(&self) -> ProducerTable {
        let mut table = ProducerTable::default();
        self.log.iter().for_each(|batch| table.append(batch.header()));
        table
    }
}

fn batch(producer: ProducerRef, records: u32, base: Offset) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    for _ in 0..records {
        builder.push(0, None, Some(b"value"), &[]).unwrap();
    }
    builder.build(Some(producer)).unwrap().stamped(base, LeaderEpoch::ZERO)
}

proptest! {
    #[test]
    fn the_table_is_the_one_that_the_log_would_give(steps in steps()) {
        let mut kept = Kept::default();
        for step in &steps {
            kept.take(step);
            let mut read = kept.read_again();
            read.settle(kept.high_watermark);
            prop_assert_eq!(&kept.table, &read, "after {:?}", step);
        }
    }

    /// A cut below the high watermark (R37) cannot be exact, for what was forgotten is not read again. It errs on the side
    /// of refusing: nothing that is left is appended twice, and nothing that is gone is called a duplicate.
    #[test]
    fn a_cut_below_the_high_watermark_repeats_and_invents_nothing(steps in steps(), fraction: u8) {
        let mut kept = Kept::default();
        steps.iter().for_each(|step| kept.take(step));
        kept.table.settle(kept.end());
        let sent = kept.log.clone();
        let end = kept.boundary(kept.between(Offset::ZERO, fraction));
        kept.cut(end);
        for batch in &sent {
            let found = kept.table.check(batch.header());
            if batch.header().next_offset() <= end {
                prop_assert_ne!(found, SequenceCheck::Accept, "{:?} is in the log", batch.header());
            } else {
                let duplicate = matches!(found, SequenceCheck::Duplicate { .. });
                prop_assert!(!duplicate, "{:?} is gone", batch.header());
            }
        }
    }

    /// R44: the batches below the start of a log are gone. What is told of their producers and the batches behind give the
    /// same table.
    #[test]
    fn a_trimmed_log_gives_the_same_table(steps in steps(), fraction: u8) {
        let mut kept = Kept::default();
        steps.iter().for_each(|step| kept.take(step));
        let start = kept.boundary(Offset(kept.high_watermark.0 * u64::from(fraction) / 255));
        let below = kept.table.below(start);
        let mut table = ProducerTable::of_known(below.known());
        prop_assert_eq!(&table, &below);
        let behind = kept.log.iter().filter(|batch| batch.header().base_offset >= start);
        behind.for_each(|batch| table.append(batch.header()));
        table.settle(kept.high_watermark);
        prop_assert_eq!(table, kept.table, "from {:?}", start);
    }
}
