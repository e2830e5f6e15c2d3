//! The producers' side of the world: requests on their way to brokers, and answers on their way back.

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Acknowledged, Event, ProduceError, RequestId};
use holdfast_core::{ProducerId, Timestamp};

use crate::event_queue::Happening;
use crate::oracle::Violation;
use crate::world::{RESEND_INTERVAL, Request, World};

impl World {
    /// A producer makes new batches and sends them.
    pub(crate) fn pump(&mut self, producer: usize) {
        let batches = self.producers[producer].produce();
        let partition = self.producers[producer].partition;
        batches.iter().for_each(|(_, batch)| self.witness.begun(self.now, partition, batch));
        self.send_batches(producer, batches);
        if self.producers[producer].goes_on() {
            let mean = u64::try_from(self.plan.write_interval.as_micros()).unwrap_or(u64::MAX);
            let at = self.now + self.random.micros(1, mean * 2);
            self.queue.plan(at, Happening::Write { producer });
        }
    }

    fn send_batches(&mut self, producer: usize, batches: Vec<(i32, RecordBatch)>) {
        if batches.is_empty() {
            return;
        }
        let node = self.producers[producer].target;
        let mut arrival = self.now + self.random.micros(100, 5_000);
        for (sequence, batch) in batches {
            arrival = arrival + self.random.micros(1, 300);
            // Now and then a request is lost, or so late that the producer has moved on.
            let lost = !self.healed && self.random.chance(20);
            let late = !self.healed && self.random.chance(20);
            let at = if late { arrival + self.random.micros(0, 3_000_000) } else { arrival };
            if !lost {
                self.queue.plan(at, Happening::Produce { producer, node, sequence, batch });
            }
        }
        self.resend_after(producer, self.now + RESEND_INTERVAL);
    }

    fn resend_after(&mut self, producer: usize, at: Timestamp) {
        self.producers[producer].resend_at = at;
        self.queue.plan(at, Happening::Resend { producer });
    }

    /// A request reaches a broker.
    pub(crate) fn produce(
        &mut self,
        producer: usize,
        node: usize,
        sequence: i32,
        batch: RecordBatch,
    ) -> Result<(), Violation> {
        let partition = self.producers[producer].partition;
        // Nobody listens there, or nobody knows of the partition.
        if !self.nodes[node].running || self.nodes[node].slots[partition].replica.is_none() {
            let result = Err(ProduceError::NotLeader { leader: None });
            let id = self.producers[producer].id;
            self.queue.plan(self.now, Happening::Answer { producer, id, sequence, result });
            return Ok(());
        }
        self.request_count += 1;
        let request = RequestId(self.request_count);
        let id = batch.header().producer.map_or(self.producers[producer].id, |producer| producer.id);
        self.requests.insert((node, request), Request { producer, id, sequence });
        self.tell(node, partition, Event::Produce { request, batch })
    }

    /// A replica answers a request.
    pub(crate) fn reply(
        &mut self,
        node: usize,
        partition: usize,
        request: RequestId,
        result: Result<Acknowledged, ProduceError>,
    ) -> Result<(), Violation> {
        let Some(Request { producer, id, sequence }) = self.requests.remove(&(node, request)) else {
            let detail = format!("partition {partition} node {node} answers {request:?} twice");
            return Err(Violation { id: "REP-8", detail });
        };
        if let Ok(acknowledged) = &result {
            self.oracles[partition].acknowledging(node, id, sequence, acknowledged)?;
        }
        if self.healed || !self.random.chance(20) {
            let arrival = self.now + self.random.micros(100, 5_000);
            self.queue.plan(arrival, Happening::Answer { producer, id, sequence, result });
        }
        Ok(())
    }

    /// A producer gets an answer.
    pub(crate) fn answer(
        &mut self,
        producer: usize,
        id: ProducerId,
        sequence: i32,
        result: &Result<Acknowledged, ProduceError>,
    ) {
        let brokers = self.nodes.len();
        let asked = &mut self.producers[producer];
        if asked.id != id {
            return; // it goes on as another
        }
        let idle = !asked.goes_on();
        let acknowledged = asked.answered(sequence, result, brokers);
        if let (true, Ok(told)) = (acknowledged, result) {
            self.witness.acknowledged(self.now, asked.partition, id, sequence, told);
        }
        if asked.id != id && idle {
            self.pump(producer);
        } else if !acknowledged && result.is_err() {
            let soon = self.now + self.random.micros(20_000, 200_000);
            if self.producers[producer].resend_at > soon {
                self.resend_after(producer, soon);
            }
        }
    }

    /// A producer has waited long enough.
    pub(crate) fn resend(&mut self, producer: usize) {
        if self.producers[producer].resend_at != self.now {
            return; // something else came first
        }
        if self.random.chance(300) {
            let brokers = self.nodes.len();
            self.producers[producer].try_another(brokers);
        }
        let batches = self.producers[producer].resend();
        self.send_batches(producer, batches);
    }
}
