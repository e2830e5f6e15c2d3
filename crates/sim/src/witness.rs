//! What the simulated clients did and were told, judged in the end as the history of a real run is (docs/checker.md).
//!
//! Producers are processes, and a batch is a send. When the run is over a reader for every replica reads everything from
//! the beginning: that is the final phase. What replicas show meanwhile is the oracle's (REP-2).

use holdfast_checker::history::{PollStage, SendStage};
use holdfast_checker::{Event, Key, judge};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::Acknowledged;
use holdfast_core::{ProducerId, Timestamp};

use crate::oracle::Violation;

/// Bits of a value below the producer's id: more records than any producer makes.
const SEQUENCE_BITS: u32 = 24;
/// Readers are numbered from here on.
const FIRST_READER: u64 = 1 << 40;

/// The history of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness {
    events: Vec<Event>,
}

impl Witness {
    /// A producer is about to send a batch for the first time.
    pub(crate) fn begun(&mut self, now: Timestamp, partition: usize, batch: &RecordBatch) {
        if let Some(producer) = batch.header().producer {
            let values = values_of(batch);
            let stage = SendStage::Invoke { deadline_us: None };
            self.note_send(now, partition, producer.id, producer.base_sequence, values, stage);
        }
    }

    /// A producer is told where a batch is, for the first time.
    pub(crate) fn acknowledged(
        &mut self,
        now: Timestamp,
        partition: usize,
        id: ProducerId,
        sequence: i32,
        acknowledged: &Acknowledged,
    ) {
        let last = acknowledged.last_offset.0 - acknowledged.base_offset.0;
        let values = (0..=last).map(|index| value(id, sequence) + index).collect();
        let epoch = u64::try_from(acknowledged.epoch.to_wire()).ok();
        let stage = SendStage::Ok { base_offset: acknowledged.base_offset.0, epoch };
        self.note_send(now, partition, id, sequence, values, stage);
    }

    fn note_send(
        &mut self,
        now: Timestamp,
        partition: usize,
        id: ProducerId,
        sequence: i32,
        values: Vec<u64>,
        stage: SendStage,
    ) {
        let (process, op) = (number(id.0), number(sequence.into()));
        self.events.push(Event::send(now.0, process, op, &key(partition), values, stage));
    }

    /// Everything is healed and written: from here on it is read.
    pub(crate) fn begin_final(&mut self, now: Timestamp) {
        self.events.push(Event::begin_final(now.0));
    }

    /// The log of a replica, from its beginning.
    pub(crate) fn read(&mut self, now: Timestamp, partition: usize, node: usize, batches: &[RecordBatch]) {
        let process = FIRST_READER + node as u64;
        let (key, op) = (key(partition), partition as u64);
        let records = batches.iter().flat_map(|batch| (batch.header().base_offset.0..).zip(values_of(batch)));
        let stage = PollStage::Ok { records: records.collect(), high_watermark: None };
        self.events.extend([
            Event::assign(now.0, process, op, &key, 0),
            Event::poll(now.0, process, op, &key, PollStage::Invoke),
            Event::poll(now.0, process, op, &key, stage),
        ]);
    }

    /// CLI-5: it is a valid history.
    pub(crate) fn judge(&self) -> Result<(), Violation> {
        let violated = |detail| Violation { id: "CLI-5", detail };
        let report = judge(&self.events).map_err(|malformed| violated(malformed.to_string()))?;
        if report.valid {
            return Ok(());
        }
        let first = report.anomalies.iter().find_map(|(_, finding)| finding.examples.first());
        let first = first.map(|example| format!("; {example}")).unwrap_or_default();
        Err(violated(format!("{}{first}", report.summary())))
    }
}

fn key(partition: usize) -> Key {
    format!("p/{partition}").into()
}

/// Ids and sequence numbers of the simulation are never negative.
fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn value(id: ProducerId, sequence: i32) -> u64 {
    (number(id.0) << SEQUENCE_BITS) + number(sequence.into())
}

/// The values of a producer's batch; a marker has none.
fn values_of(batch: &RecordBatch) -> Vec<u64> {
    let header = batch.header();
    let (Some(producer), Some(last)) = (header.producer, header.last_sequence()) else { return Vec::new() };
    (producer.base_sequence..=last).map(|sequence| value(producer.id, sequence)).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_core::record_batch::{ProducerRef, RecordBatchBuilder};
    use holdfast_core::{LeaderEpoch, Offset, Term};

    use super::*;

    fn batch(sequence: i32, records: i32) -> RecordBatch {
        let mut builder = RecordBatchBuilder::new();
        for _ in 0..records {
            builder.push(0, None, Some(b"x"), &[]).unwrap();
        }
        let producer = ProducerRef { id: ProducerId(3), epoch: 0, base_sequence: sequence };
        builder.build(Some(producer)).unwrap()
    }

    /// Two batches sent, the first acknowledged at offset 0; the log is read in the end.
    fn history(log: &[RecordBatch]) -> Witness {
        let mut witness = Witness::default();
        for batch in [batch(0, 2), batch(2, 1)] {
            witness.begun(Timestamp(1), 0, &batch);
        }
        let epoch = LeaderEpoch::first(Term(1));
        let told = Acknowledged { base_offset: Offset(0), last_offset: Offset(1), epoch, duplicate: false };
        witness.acknowledged(Timestamp(2), 0, ProducerId(3), 0, &told);
        witness.begin_final(Timestamp(3));
        witness.read(Timestamp(3), 0, 1, log);
        witness
    }

    #[test]
    fn what_was_acknowledged_has_to_be_in_every_log() {
        assert_eq!(history(&[batch(0, 2)]).judge(), Ok(()));
        let violation = history(&[]).judge().unwrap_err();
        assert!(violation.detail.starts_with("INVALID: 2 unseen; p/0 offset 0"), "{violation}");
        let other = history(&[batch(2, 1)]).judge().unwrap_err();
        assert!(other.detail.contains("inconsistent-offsets"), "{other}");
    }
}
