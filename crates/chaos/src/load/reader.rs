//! Consumers: one process a partition, which reads on and on; ended now and then, and followed by a new one that begins
//! at its place or some way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_client::{Client, Consumer, FetchedBatch, Offset, StartAt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use crate::load::{Load, value};

/// Before a consumer that failed is followed by the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Consumers of all partitions.
#[derive(Debug)]
pub(crate) struct Readers {
    tasks: JoinSet<()>,
    generation: watch::Sender<Generation>,
}

/// Which consumers there are: a new number replaces all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Generation {
    number: usize,
    /// How many records before its predecessor's place each begins.
    back: u64,
}

impl Readers {
    /// Starts one for each partition of `0..partitions`, at `positions`. Generation n of partition p reads through
    /// client `(p + n) % clients`, so that over time every partition is read in every zone.
    pub(crate) fn start(clients: &[Client], load: &Arc<Load>, positions: &[u64]) -> Readers {
        let (generation, _) = watch::channel(Generation::default());
        let mut tasks = JoinSet::new();
        for (partition, position) in (0..).zip(positions) {
            let reader = Reader {
                clients: clients.to_vec(),
                load: load.clone(),
                partition,
                position: *position,
                process: load.numbers.process(),
            };
            tasks.spawn(reader.run(generation.subscribe()));
        }
        Readers { tasks, generation }
    }

    /// Ends all consumers; new ones begin `back` records before.
    pub(crate) fn renew(&self, back: u64) {
        self.generation.send_modify(|generation| {
            *generation = Generation { number: generation.number + 1, back };
        });
    }

    /// Ends all consumers.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Reader {
    clients: Vec<Client>,
    load: Arc<Load>,
    partition: u32,
    position: u64,
    process: u64,
}

impl Reader {
    async fn run(mut self, mut generation: watch::Receiver<Generation>) {
        loop {
            let now = *generation.borrow_and_update();
            tokio::select! {
                () = self.live(now.number) => sleep(PAUSE).await,
                changed = generation.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.position = self.position.saturating_sub(generation.borrow().back);
                }
            }
            self.load.history.crashed(self.process, self.load.numbers.op());
            self.process = self.load.numbers.process();
        }
    }

    /// One consumer, until it meets an error.
    async fn live(&mut self, generation: usize) {
        let Some(client) =
            self.clients.get((self.partition as usize + generation) % self.clients.len().max(1))
        else {
            return;
        };
        let start = StartAt::Offset(Offset(self.position));
        let consumer = client.consumer(&self.load.topic).partitions([self.partition]).start(start);
        let Ok(mut consumer) = consumer.build().await else { return };
        let (process, partition) = (self.process, self.partition);
        self.load.history.assigned(process, self.load.numbers.op(), partition, self.position);
        while let Some(next) = poll(&self.load, &mut consumer, process, partition).await {
            self.position = next;
        }
    }
}

/// One poll, written down; the next position, or nothing after an error.
pub(crate) async fn poll(load: &Load, consumer: &mut Consumer, process: u64, partition: u32) -> Option<u64> {
    let op = load.numbers.op();
    load.history.poll_invoked(process, op, partition);
    match consumer.next_batch().await? {
        Ok(batch) => {
            let records = records_of(load, &batch, partition);
            if let Some((last, _)) = records.last() {
                load.note_seen(partition, *last);
            }
            load.history.polled(process, op, partition, records, batch.high_watermark.0);
            Some(batch.next_offset.0)
        }
        Err(error) => {
            load.history.poll_failed(process, op, partition, &crate::error::chain(&error));
            None
        }
    }
}

/// Offsets and values. A record that is not what was sent is told of, and is none.
fn records_of(load: &Load, batch: &FetchedBatch, partition: u32) -> Vec<(u64, u64)> {
    let mut records = Vec::new();
    for record in &batch.records {
        let value = record.value.as_deref().and_then(|bytes| value::unchanged(bytes, partition));
        match value {
            Some(value) => records.push((record.offset.0, value)),
            None => load.note_changed(partition, record.offset.0),
        }
    }
    records
}

/// The highest offset that anybody saw, by partition.
#[derive(Debug)]
pub(crate) struct Seen {
    next: Vec<AtomicU64>,
}

impl Seen {
    /// Nothing seen yet.
    pub(crate) fn new(partitions: u32) -> Seen {
        Seen { next: (0..partitions).map(|_| AtomicU64::new(0)).collect() }
    }

    /// An offset was acknowledged or read.
    pub(crate) fn note(&self, partition: u32, offset: u64) {
        if let Some(next) = self.next.get(partition as usize) {
            next.fetch_max(offset + 1, Ordering::Relaxed);
        }
    }

    /// One past the highest.
    pub(crate) fn end(&self, partition: u32) -> u64 {
        self.next.get(partition as usize).map_or(0, |next| next.load(Ordering::Relaxed))
    }
}
