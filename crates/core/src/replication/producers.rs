//! What a partition knows of its idempotent producers: a function of its log (R38-R40).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::mutant;
use crate::record_batch::{BatchHeader, ProducerRef};
use crate::{Offset, ProducerId};

/// How many of a producer's last batches are remembered, as in Kafka: a producer keeps at most five in flight.
pub const REMEMBERED: usize = 5;

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceCheck {
    /// It follows on.
    Accept,
    /// It was appended before, at these offsets (the last one inclusive).
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
    },
    /// It leaves a gap, or goes back beyond what is remembered.
    OutOfOrder {
        /// The sequence number that would follow on.
        expected: i32,
    },
    /// Nothing is known of the producer and the batch is not its first.
    Unknown,
    /// A later instance of the producer has written.
    Fenced {
        /// That instance's epoch.
        current: i16,
    },
}

/// A batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Appended {
    /// Sequence number of its first record.
    pub base_sequence: i32,
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
}

/// What one replica tells another of a producer (R44).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KnownProducer {
    /// Which.
    pub id: ProducerId,
    /// Its last instance.
    pub epoch: i16,
    /// The last batches of that instance, the newest last: those of them that lie where something is told of.
    pub batches: Vec<Appended>,
    /// The sequence number that follows on; `None` where only the batches behind can tell.
    pub next: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Producer {
    epoch: i16,
    /// The newest last. Empty where the log was cut below all that is remembered.
    batches: VecDeque<Appended>,
    /// The sequence number that follows on in this epoch; `None` where that was cut off together with all that is
    /// remembered.
    next: Option<i32>,
}

/// The producers of a log. `settled` is its state as of the high watermark, below which nothing is ever truncated;
/// `tail` is what came since. So the table can go back with the log, exactly, without reading it.
///
/// Its encoding stands in checkpoints of logs: whoever changes the fields changes `SNAPSHOT_VERSION` in `holdfast-log`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProducerTable {
    current: BTreeMap<ProducerId, Producer>,
    settled: BTreeMap<ProducerId, Producer>,
    tail: VecDeque<(ProducerRef, Appended)>,
}

impl ProducerTable {
    /// Judges a batch before it is appended. A batch without a producer always follows on.
    pub fn check(&self, header: &BatchHeader) -> SequenceCheck {
        let (Some(producer), Some(last_sequence)) = (header.producer, header.last_sequence()) else {
            return SequenceCheck::Accept;
        };
        let Some(known) = self.current.get(&producer.id) else {
            let first = producer.base_sequence == 0 || mutant!(AppendAfterGap);
            return if first { SequenceCheck::Accept } else { SequenceCheck::Unknown };
        };
        if producer.epoch < known.epoch {
            return SequenceCheck::Fenced { current: known.epoch };
        }
        let Some(expected) = known.next_sequence(producer.epoch) else { return SequenceCheck::Unknown };
        if producer.base_sequence == expected {
            return SequenceCheck::Accept;
        }
        let same = known.batches.iter().find(|batch| {
            producer.epoch == known.epoch
                && batch.base_sequence == producer.base_sequence
                && batch.last_sequence == last_sequence
        });
        match same {
            Some(_) if mutant!(AppendDuplicates) => SequenceCheck::Accept,
            Some(batch) => {
                SequenceCheck::Duplicate { base_offset: batch.base_offset, last_offset: batch.last_offset }
            }
            None if mutant!(AppendAfterGap) => SequenceCheck::Accept,
            None => SequenceCheck::OutOfOrder { expected },
        }
    }

    /// Takes note of a batch that was appended, here or by a leader.
    pub fn append(&mut self, header: &BatchHeader) {
        let (Some(producer), Some(last_sequence)) = (header.producer, header.last_sequence()) else { return };
        let appended = Appended {
            base_sequence: producer.base_sequence,
            last_sequence,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
        };
        note(&mut self.current, producer, appended);
        self.tail.push_back((producer, appended));
    }

    /// Everything below `high_watermark` is there to stay.
    pub fn settle(&mut self, high_watermark: Offset) {
        while let Some(&(producer, appended)) = self.tail.front() {
            if appended.last_offset >= high_watermark {
                break;
            }
            note(&mut self.settled, producer, appended);
            self.tail.pop_front();
        }
    }

    /// Whether it knows all that is to be known of the log. Not after a cut that took more than is remembered.
    pub fn is_complete(&self) -> bool {
        self.current.values().all(|producer| producer.next.is_some())
    }

    /// What it knows of what lies below `start`, at or below which everything is settled. Of a producer that wrote more behind
    /// than is remembered no more than that it was there; with the batches from `start` on all is known again.
    #[must_use]
    pub fn below(&self, start: Offset) -> ProducerTable {
        if mutant!(ForgetTrimmedProducers) {
            return ProducerTable::default();
        }
        let mut known = self.settled.clone();
        known.retain(|_, producer| producer.truncate(start));
        ProducerTable { current: known.clone(), settled: known, tail: VecDeque::new() }
    }

    /// All that is settled, by producer.
    pub fn known(&self) -> impl Iterator<Item = KnownProducer> {
        self.settled.iter().map(|(&id, Producer { epoch, batches, next })| KnownProducer {
            id,
            epoch: *epoch,
            batches: batches.iter().copied().collect(),
            next: *next,
        })
    }

    /// What another replica told of, all of it settled.
    pub fn of_known(producers: impl IntoIterator<Item = KnownProducer>) -> ProducerTable {
        let entry = |KnownProducer { id, epoch, batches, next }: KnownProducer| {
            let forgotten = batches.len().saturating_sub(REMEMBERED);
            (id, Producer { epoch, batches: batches.into_iter().skip(forgotten).collect(), next })
        };
        let known: BTreeMap<ProducerId, Producer> = producers.into_iter().map(entry).collect();
        ProducerTable { current: known.clone(), settled: known, tail: VecDeque::new() }
    }

    /// Goes back with a log that was cut at `end`. That lies below what was settled in an unclean term only (R37): then
    /// too no batch counts as a duplicate that is gone. A producer of which the log lost more than is remembered here is
    /// refused as unknown: what follows on would have to be read from the log, as the next start does.
    pub fn truncate(&mut self, end: Offset) {
        self.settled.retain(|_, producer| producer.truncate(end));
        self.tail.retain(|(_, appended)| appended.last_offset < end);
        self.current = self.settled.clone();
        for &(producer, appended) in &self.tail {
            note(&mut self.current, producer, appended);
        }
    }
}

impl Producer {
    fn next_sequence(&self, epoch: i16) -> Option<i32> {
        if epoch > self.epoch {
            return Some(0); // a new instance starts afresh
        }
        self.next
    }

    /// Forgets what lies at or above `end`; `false` where nothing is left to know.
    fn truncate(&mut self, end: Offset) -> bool {
        while let Some(&last) = self.batches.back()
            && last.last_offset >= end
        {
            self.batches.pop_back();
            self.next = Some(last.base_sequence);
        }
        if self.batches.is_empty() {
            self.next = self.next.filter(|&next| next == 0);
        }
        // A later epoch is remembered: an instance that it has fenced stays fenced.
        !self.batches.is_empty() || self.next != Some(0) || self.epoch > 0
    }
}

fn note(table: &mut BTreeMap<ProducerId, Producer>, producer: ProducerRef, appended: Appended) {
    let fresh = || Producer { epoch: producer.epoch, batches: VecDeque::new(), next: Some(0) };
    let entry = table.entry(producer.id).or_insert_with(fresh);
    if producer.epoch != entry.epoch {
        *entry = fresh();
    }
    entry.batches.push_back(appended);
    // Sequence numbers wrap after i32::MAX, as in Kafka.
    entry.next = Some(appended.last_sequence.wrapping_add(1) & i32::MAX);
    if entry.batches.len() > REMEMBERED {
        entry.batches.pop_front();
    }
}

#[cfg(test)]
mod tests;
