//! The load: a writer per partition at a fixed rate, every record numbered, every outcome noted.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_client::{
    Client, ConsumedRecord, Outcome as SendOutcome, Pending, Producer, ProducerConfig, Record, StartAt, Until,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::gaps::Gaps;
use super::ledger::{Ledger, Outcome, number_of, put_number};

/// Bytes of a record's value.
pub(super) const RECORD_SIZE: usize = 1024;
/// Writers wake this often and send what is due.
const TICK: Duration = Duration::from_millis(2);
/// Records of one partition whose outcome is not noted yet.
const UNSETTLED: usize = 1 << 18;
/// What may wait in the producer: enough that the partitions of a lost zone hold up nobody else.
const BUFFER: usize = 512 << 20;

/// Starts the writers. They end when `stop` is cancelled; the producer knows the outcome of what they sent.
pub(super) async fn start(
    client: &Client,
    topic: &str,
    megabytes_per_second: f64,
    ledger: &Arc<Ledger>,
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
        let (unsettled, settling) = mpsc::channel(UNSETTLED);
        tasks.spawn(write(
            producer.clone(),
            partition,
            per_second,
            unsettled,
            stop.clone(),
            Arc::clone(ledger),
        ));
        tasks.spawn(settle(partition, settling, Arc::clone(ledger)));
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

async fn write(
    producer: Producer,
    partition: u32,
    per_second: f64,
    unsettled: mpsc::Sender<(u64, Pending)>,
    stop: CancellationToken,
    ledger: Arc<Ledger>,
) {
    let filler: Bytes = (0..RECORD_SIZE).map(|_| rand::random::<u8>()).collect();
    let start = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let due = (start.elapsed().as_secs_f64() * per_second) as u64;
        while number < due {
            let mut value = BytesMut::from(&filler[..]);
            put_number(&mut value, partition, number);
            let record = Record::new(value.freeze()).with_partition(partition);
            match producer.send(record).await {
                Ok(pending) => {
                    if unsettled.send((number, pending)).await.is_err() {
                        return;
                    }
                }
                Err(error) => ledger.sent(partition, number, outcome_of(error.outcome)),
            }
            number += 1;
        }
    }
}

async fn settle(partition: u32, mut settling: mpsc::Receiver<(u64, Pending)>, ledger: Arc<Ledger>) {
    while let Some((number, pending)) = settling.recv().await {
        let outcome = match pending.await {
            Ok(_) => Outcome::Acked,
            Err(error) => outcome_of(error.outcome),
        };
        ledger.sent(partition, number, outcome);
    }
}

fn outcome_of(outcome: SendOutcome) -> Outcome {
    match outcome {
        SendOutcome::Failed => Outcome::Failed,
        SendOutcome::Unknown => Outcome::Unknown,
    }
}

/// Reads along from the beginning; what it has seen must still be there at the end.
pub(super) async fn read_along(client: Client, topic: String, ledger: Arc<Ledger>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Ok(mut consumer) = client.consumer(&topic).start(StartAt::Beginning).build().await else {
            continue;
        };
        loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return,
                batch = consumer.next_batch() => batch,
            };
            // An error ends a partition: begin anew, from the beginning.
            let Some(Ok(batch)) = batch else { break };
            for record in &batch.records {
                if let Some((partition, number)) = numbered(record) {
                    ledger.seen(partition, number);
                }
            }
        }
    }
}

/// Reads everything once, with a client that knows nothing of the run, and notes what comes.
pub(super) async fn read_back(client: &Client, topic: &str, ledger: &Ledger) -> Result<(), String> {
    let consumer = client.consumer(topic).start(StartAt::Beginning).stop(Until::HighWatermarkAtStart);
    let mut consumer = consumer.build().await.map_err(|error| error.to_string())?;
    while let Some(batch) = consumer.next_batch().await {
        for record in &batch.map_err(|error| error.to_string())?.records {
            if let Some((partition, number)) = numbered(record) {
                ledger.read_back(partition, number);
            }
        }
    }
    Ok(())
}

fn numbered(record: &ConsumedRecord) -> Option<(u32, u64)> {
    number_of(record.value.as_deref()?)
}
