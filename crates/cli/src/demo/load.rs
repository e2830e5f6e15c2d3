//! The load: a writer per partition at a fixed rate, every record numbered, every outcome noted.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_checker::history::{SendStage, put_value};
use holdfast_checker::{Event, Key};
use holdfast_client::{Ack, Client, Outcome, Pending, Producer, ProducerConfig, Record, SendError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::gaps::Gaps;
use super::witness::{Witness, value};

/// Bytes of a record's value.
pub(super) const RECORD_SIZE: usize = 1024;
/// Writers wake this often and send what is due.
const TICK: Duration = Duration::from_millis(2);
/// Records of one partition whose outcome is not noted yet.
const UNSETTLED: usize = 1 << 18;
/// Outcomes of one partition that are noted together.
const SETTLED_AT_ONCE: usize = 1024;
/// What may wait in the producer: enough that the partitions of a lost zone hold up nobody else.
const BUFFER: usize = 512 << 20;

/// Starts the writers. They end when `stop` is cancelled; the producer knows the outcome of what they sent.
pub(super) async fn start(
    client: &Client,
    topic: &str,
    megabytes_per_second: f64,
    witness: &Arc<Witness>,
    gaps: &Arc<Gaps>,
    stop: &CancellationToken,
) -> Result<Load, holdfast_client::BuildError> {
    let watched = Arc::clone(gaps);
    let producer = client
        .producer(topic)
        .config(ProducerConfig { buffer_memory: BUFFER, ..ProducerConfig::default() })
        .on_ack(Arc::new(move |batch| watched.acknowledged(batch.partition, batch.records, batch.latency)))
        .build()
        .await?;
    let partitions = producer.partitions();
    let per_second = megabytes_per_second * 1e6 / RECORD_SIZE as f64 / f64::from(partitions);
    let mut tasks = JoinSet::new();
    for partition in 0..partitions {
        let Some(key) = witness.key(partition).cloned() else { continue };
        let writer = Writer { witness: Arc::clone(witness), key, partition, process: witness.new_process() };
        let (unsettled, settling) = mpsc::channel(UNSETTLED);
        tasks.spawn(settle(writer.clone(), settling));
        tasks.spawn(write(writer, producer.clone(), per_second, unsettled, stop.clone()));
    }
    Ok(Load { producer, tasks })
}

/// A running load.
pub(super) struct Load {
    pub(super) producer: Producer,
    tasks: JoinSet<()>,
}

impl Load {
    /// Waits until every outcome is noted, once the load was told to stop.
    pub(super) async fn finish(mut self) {
        self.producer.flush().await;
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whoever writes to one partition, as the history knows it. The number of a record is that of its send.
#[derive(Debug, Clone)]
struct Writer {
    witness: Arc<Witness>,
    key: Key,
    partition: u32,
    process: u64,
}

impl Writer {
    fn event(&self, number: u64, stage: SendStage) -> Event {
        let values = vec![value(self.partition, number)];
        Event::send(self.witness.now_us(), self.process, number, &self.key, values, stage)
    }

    /// These records are about to be sent.
    fn note_begun(&self, numbers: Range<u64>) {
        let begun = |number| self.event(number, SendStage::Invoke { deadline_us: None });
        self.witness.note(numbers.map(begun));
    }

    fn ended(&self, number: u64, outcome: &Result<Ack, SendError>) -> Event {
        let text = |error: &SendError| format!("{}: {}", error.source.code, error.source.message).into();
        let stage = match outcome {
            Ok(ack) => {
                SendStage::Ok { base_offset: ack.offset.0, epoch: u64::try_from(ack.epoch.to_wire()).ok() }
            }
            Err(error) if error.outcome == Outcome::Failed => SendStage::Fail { error: text(error) },
            Err(error) => SendStage::Info { error: text(error) },
        };
        self.event(number, stage)
    }
}

async fn write(
    writer: Writer,
    producer: Producer,
    per_second: f64,
    unsettled: mpsc::Sender<(u64, Pending)>,
    stop: CancellationToken,
) {
    let filler: Bytes = (0..RECORD_SIZE).map(|_| rand::random::<u8>()).collect();
    let start = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let due = (start.elapsed().as_secs_f64() * per_second) as u64;
        writer.note_begun(sent..due);
        for number in sent..due {
            let mut bytes = BytesMut::from(&filler[..]);
            put_value(&mut bytes, value(writer.partition, number));
            let record = Record::new(bytes.freeze()).with_partition(writer.partition);
            match producer.send(record).await {
                Ok(pending) => {
                    if unsettled.send((number, pending)).await.is_err() {
                        return;
                    }
                }
                Err(error) => writer.witness.note([writer.ended(number, &Err(error))]),
            }
        }
        sent = sent.max(due);
    }
}

/// Notes outcomes in the order sent, those that are known already together.
async fn settle(writer: Writer, mut settling: mpsc::Receiver<(u64, Pending)>) {
    let mut taken = Vec::new();
    while settling.recv_many(&mut taken, SETTLED_AT_ONCE).await > 0 {
        let mut known = Vec::with_capacity(taken.len());
        for (number, pending) in taken.drain(..) {
            if !pending.is_done() {
                writer.witness.note(known.drain(..));
            }
            known.push(writer.ended(number, &pending.await));
        }
        writer.witness.note(known);
    }
}
