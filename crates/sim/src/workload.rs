//! Idempotent producers with several batches in flight, which try again until each batch is acknowledged.

use std::collections::VecDeque;

use holdfast_core::record_batch::{ProducerRef, RecordBatch, RecordBatchBuilder};
use holdfast_core::replication::{Acknowledged, ProduceError};
use holdfast_core::{ProducerId, Timestamp};

use crate::controller::node_of;
use crate::plan::Plan;
use crate::random::Random;

/// Batches in flight at most, as with Kafka's idempotent producer: a leader remembers as many.
const IN_FLIGHT: usize = 5;

/// A batch that was made and is not acknowledged.
#[derive(Debug, Clone)]
struct Outstanding {
    sequence: i32,
    batch: RecordBatch,
    acknowledged: bool,
}

/// One producer of one partition.
#[derive(Debug, Clone)]
pub(crate) struct Producer {
    /// Its identity.
    pub(crate) id: ProducerId,
    /// Where it writes.
    pub(crate) partition: usize,
    /// The broker that it takes for the leader.
    pub(crate) target: usize,
    /// When it sends everything again unless something is acknowledged before.
    pub(crate) resend_at: Timestamp,
    remaining: u32,
    next_sequence: i32,
    outstanding: VecDeque<Outstanding>,
    /// Of how many keys it chooses; 0 for records without one.
    keys: u64,
    /// Whether what was acknowledged may be lost by an operator's order, so that its sequence has to begin anew.
    begins_anew: bool,
    random: Random,
}

impl Producer {
    /// A producer for a partition as it is planned.
    pub(crate) fn new(id: ProducerId, partition: usize, plan: &Plan, random: Random) -> Producer {
        Producer {
            id,
            partition,
            target: 0,
            resend_at: Timestamp(u64::MAX),
            remaining: plan.batches,
            next_sequence: 0,
            outstanding: VecDeque::new(),
            keys: plan.keys,
            begins_anew: plan.unclean,
            random,
        }
    }

    /// Whether everything is acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.remaining == 0 && self.outstanding.is_empty()
    }

    /// Whether it has more to make.
    pub(crate) fn goes_on(&self) -> bool {
        self.remaining > 0
    }

    /// It has one batch more to make.
    pub(crate) fn make_one_more(&mut self) {
        self.remaining += 1;
    }

    /// Number of records made so far.
    pub(crate) fn records(&self) -> i32 {
        self.next_sequence
    }

    /// Some new batches, as far as they may be in flight, with their sequence numbers.
    pub(crate) fn produce(&mut self) -> Vec<(i32, RecordBatch)> {
        let mut made = Vec::new();
        let room = IN_FLIGHT - self.outstanding.len().min(IN_FLIGHT);
        for _ in 0..self.random.below(room + 1).min(self.remaining as usize) {
            let (sequence, batch) = self.make_batch();
            self.outstanding.push_back(Outstanding { sequence, batch: batch.clone(), acknowledged: false });
            made.push((sequence, batch));
            self.remaining -= 1;
        }
        made
    }

    fn make_batch(&mut self) -> (i32, RecordBatch) {
        let sequence = self.next_sequence;
        let mut builder = RecordBatchBuilder::new();
        for _ in 0..self.random.between(1, 3) {
            let value = format!("{}:{}", self.id, self.next_sequence);
            let (key, tombstone) = self.choose_key();
            let value = Some(value.as_bytes()).filter(|_| !tombstone);
            builder.push(0, key.as_deref(), value, &[]).expect("a short record fits");
            self.next_sequence += 1;
        }
        let producer = ProducerRef { id: self.id, epoch: 0, base_sequence: sequence };
        (sequence, builder.build(Some(producer)).expect("a short batch can be built"))
    }

    /// The next record's key, and whether it has no value. Producers share the keys of their partition.
    fn choose_key(&mut self) -> (Option<Vec<u8>>, bool) {
        if self.keys == 0 {
            return (None, false);
        }
        let key = format!("key {}", self.random.between(1, self.keys));
        (Some(key.into_bytes()), self.random.chance(250))
    }

    /// Everything that is not acknowledged, in order.
    pub(crate) fn resend(&mut self) -> Vec<(i32, RecordBatch)> {
        let waiting = self.outstanding.iter().filter(|batch| !batch.acknowledged);
        waiting.map(|batch| (batch.sequence, batch.batch.clone())).collect()
    }

    /// The answer to the batch with that sequence number. True if it is acknowledged by it.
    pub(crate) fn answered(
        &mut self,
        sequence: i32,
        result: &Result<Acknowledged, ProduceError>,
        brokers: usize,
    ) -> bool {
        let waiting = self.outstanding.iter_mut().find(|batch| batch.sequence == sequence);
        let Some(batch) = waiting.filter(|batch| !batch.acknowledged) else { return false };
        match result {
            Ok(_) => {
                batch.acknowledged = true;
                while self.outstanding.front().is_some_and(|batch| batch.acknowledged) {
                    self.outstanding.pop_front();
                }
                true
            }
            Err(ProduceError::NotLeader { leader: Some(leader) }) => {
                self.target = node_of(*leader).min(brokers - 1);
                false
            }
            Err(ProduceError::OutOfOrderSequence { .. } | ProduceError::UnknownProducer)
                if self.begins_anew =>
            {
                self.begin_anew(result);
                false
            }
            Err(ProduceError::OutOfOrderSequence { .. } | ProduceError::Overloaded { .. }) => false,
            Err(_) => {
                self.try_another(brokers);
                false
            }
        }
    }

    /// Where what it was told of is gone, it goes on as another producer, with what was not acknowledged.
    fn begin_anew(&mut self, result: &Result<Acknowledged, ProduceError>) {
        let first = self.outstanding.front().map_or(self.next_sequence, |batch| batch.sequence);
        let lost = match result {
            Err(ProduceError::OutOfOrderSequence { expected, .. }) => *expected < first,
            _ => first > 0,
        };
        if lost {
            self.id = ProducerId(self.id.0 + 1_000);
            self.remaining += self.outstanding.len() as u32;
            self.outstanding.clear();
            self.next_sequence = 0;
        }
    }

    /// Takes any broker for the leader.
    pub(crate) fn try_another(&mut self, brokers: usize) {
        self.target = self.random.below(brokers);
    }
}
