//! The open-loop probe: a record is due at every partition at a fixed interval, whatever became of the one before.

use std::sync::Arc;
use std::time::Duration;

use holdfast_client::{Client, Outcome, Pending, Producer, ProducerConfig, SendError, TrySendError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::clock::Micros;
use crate::error::{ChaosError, chain};
use crate::load::{Load, value};
use crate::record::{SendOutcome, Sent};

/// Records of a partition whose outcome is not known yet. A producer gives up after its delivery timeout of two minutes;
/// twice as many are due in that time.
const IN_FLIGHT: usize = 12_000;
/// A tick of ours that came later than this is told with the measurement: the runner, not the cluster, was slow.
const LATE: Duration = Duration::from_millis(10);

/// A record on its way.
struct Flight {
    sent: Sent,
    pending: Pending,
}

/// The probe of all partitions. Ends with [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct Probe {
    producer: Producer,
    ticker: JoinHandle<()>,
    lanes: Vec<JoinHandle<()>>,
}

/// How often, and for how long each record may try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two records of a partition.
    pub(crate) interval: Duration,
    /// When the client gives up a record, if not after its default.
    pub(crate) delivery_timeout: Option<Duration>,
    /// Bytes of a record.
    pub(crate) size: usize,
}

impl Probe {
    /// Starts to send.
    pub(crate) async fn start(client: &Client, load: &Arc<Load>, pace: Pace) -> Result<Probe, ChaosError> {
        let defaults = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
        let config = match pace.delivery_timeout {
            Some(limit) => ProducerConfig { delivery_timeout: limit, request_timeout: limit / 2, ..defaults },
            None => defaults,
        };
        let producer = client.producer(&load.topic).config(config).build().await;
        let producer = producer.map_err(|error| ChaosError::client("making a producer", &error))?;
        let mut senders = Vec::new();
        let mut lanes = Vec::new();
        for partition in 0..producer.partitions() {
            let (sender, flights) = mpsc::channel(IN_FLIGHT);
            senders.push(Lane { partition, process: load.numbers.process(), flights: sender });
            lanes.push(tokio::spawn(land(load.clone(), flights)));
        }
        let ticker = tokio::spawn(tick(producer.clone(), load.clone(), senders, pace));
        Ok(Probe { producer, ticker, lanes })
    }

    /// Sends nothing more, and waits up to `patience` for what is on its way.
    pub(crate) async fn stop(self, patience: Duration) {
        self.ticker.abort();
        // Aborted by us: there is nothing to be told.
        let _ = self.ticker.await;
        let _ = self.producer.close(patience).await;
        for lane in self.lanes {
            let _ = lane.await;
        }
    }
}

struct Lane {
    partition: u32,
    process: u64,
    flights: mpsc::Sender<Flight>,
}

async fn tick(producer: Producer, load: Arc<Load>, lanes: Vec<Lane>, pace: Pace) {
    let mut ticks = interval_at(Instant::now() + pace.interval, pace.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let due = ticks.tick().await;
        let late = due.elapsed();
        if late > LATE {
            load.note_late(Micros::now(), late);
        }
        for lane in &lanes {
            send(&producer, &load, lane, pace.size);
        }
    }
}

fn send(producer: &Producer, load: &Load, lane: &Lane, size: usize) {
    let value = load.numbers.value();
    let sent = Sent { process: lane.process, op: load.numbers.op(), partition: lane.partition, value };
    load.launched(sent);
    match producer.try_send(value::record(value, lane.partition, size)) {
        Ok(pending) => {
            if lane.flights.try_send(Flight { sent, pending }).is_err() {
                load.landed(sent, &SendOutcome::Unknown("RUNNER: too many records under way".to_owned()));
            }
        }
        Err(TrySendError::Full(_)) => {
            load.landed(sent, &SendOutcome::Failed("RUNNER: the producer's buffer is full".to_owned()));
        }
        Err(TrySendError::Refused(error)) => load.landed(sent, &outcome_of(&error)),
    }
}

/// Outcomes of one partition, in order.
async fn land(load: Arc<Load>, mut flights: mpsc::Receiver<Flight>) {
    while let Some(Flight { sent, pending }) = flights.recv().await {
        let outcome = match pending.await {
            Ok(ack) => SendOutcome::Acked { base_offset: ack.offset.0, epoch: ack.epoch.to_wire() },
            Err(error) => outcome_of(&error),
        };
        load.landed(sent, &outcome);
    }
}

/// What the client knows of a record that was not acknowledged.
pub(crate) fn outcome_of(error: &SendError) -> SendOutcome {
    let why = format!("{}: {}", error.source.code, chain(error));
    match error.outcome {
        Outcome::Failed => SendOutcome::Failed(why),
        Outcome::Unknown => SendOutcome::Unknown(why),
    }
}
