//! Load: a probe record to every partition each 20 ms, consumers of every partition, and the history of both.

pub(crate) mod finale;
pub(crate) mod inside;
pub(crate) mod numbers;
pub(crate) mod probe;
pub(crate) mod reader;
pub(crate) mod value;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use holdfast_client::Client;

use crate::clock::Micros;
use crate::error::ChaosError;
use crate::faults::Check;
use crate::history::History;
use crate::load::numbers::Numbers;
use crate::load::reader::Seen;
use crate::record::{Ack, Acks, SendOutcome, Sent, lock};

/// Between two records of a partition. Recovery times are no finer than this, so it is never made longer.
pub(crate) const INTERVAL: Duration = Duration::from_millis(20);
/// Partitions of the topic.
pub(crate) const PARTITIONS: u32 = 12;

/// What all senders and readers of a run share.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) topic: String,
    pub(crate) partitions: u32,
    pub(crate) history: History,
    pub(crate) numbers: Numbers,
    pub(crate) acks: Acks,
    pub(crate) seen: Seen,
    /// When a tick of the probe came late, and by how much.
    late: Mutex<Vec<(Micros, Duration)>>,
    /// When the records without an outcome were sent, by operation.
    open: Mutex<BTreeMap<u64, Micros>>,
    /// When records were refused or given up.
    refusals: Mutex<Vec<Micros>>,
    /// Records that were read and are not what was sent: how many, and where the first was.
    changed: Mutex<Option<Changed>>,
}

/// Records that a reader was given and nobody sent.
#[derive(Debug, Clone, Copy)]
struct Changed {
    count: u64,
    partition: u32,
    offset: u64,
}

impl Load {
    /// For a topic of so many partitions.
    pub(crate) fn new(topic: &str, partitions: u32, history: History) -> Load {
        Load {
            topic: topic.to_owned(),
            partitions,
            history,
            numbers: Numbers::default(),
            acks: Acks::new(partitions),
            seen: Seen::new(partitions),
            late: Mutex::default(),
            open: Mutex::default(),
            refusals: Mutex::default(),
            changed: Mutex::default(),
        }
    }

    /// A record is about to be sent.
    pub(crate) fn launched(&self, sent: Sent) {
        lock(&self.open).insert(sent.op, Micros::now());
        self.history.send_invoked(sent);
    }

    /// The outcome of a record is known.
    pub(crate) fn landed(&self, sent: Sent, outcome: &SendOutcome) {
        let now = Micros::now();
        match outcome {
            SendOutcome::Acked { base_offset, epoch } => {
                self.acks.note(sent.partition, Ack { at: now, epoch: *epoch });
                self.seen.note(sent.partition, *base_offset);
            }
            SendOutcome::Failed(_) | SendOutcome::Unknown(_) => lock(&self.refusals).push(now),
        }
        lock(&self.open).remove(&sent.op);
        self.history.send_done(sent, outcome);
    }

    /// How long the oldest record without an outcome has been waiting.
    pub(crate) fn oldest_open(&self) -> Duration {
        let now = Micros::now();
        let open = lock(&self.open);
        open.first_key_value().map(|(_, sent)| now.since(*sent)).unwrap_or_default()
    }

    /// Records refused or given up between two moments.
    pub(crate) fn refusals_between(&self, from: Micros, to: Micros) -> usize {
        lock(&self.refusals).iter().filter(|at| (from..to).contains(at)).count()
    }

    /// An offset was read.
    pub(crate) fn note_seen(&self, partition: u32, offset: u64) {
        self.seen.note(partition, offset);
    }

    /// A record was read that is not what was sent.
    pub(crate) fn note_changed(&self, partition: u32, offset: u64) {
        let mut changed = lock(&self.changed);
        changed.get_or_insert(Changed { count: 0, partition, offset }).count += 1;
    }

    /// No reader was ever given bytes that nobody sent.
    pub(crate) fn unchanged(&self) -> Check {
        let changed = *lock(&self.changed);
        let seen = changed.map(|Changed { count, partition, offset }| {
            format!("{count} were not, the first at offset {offset} of partition {partition}")
        });
        Check::of(
            "every record that was read is what was sent, byte for byte",
            seen.is_none(),
            seen.unwrap_or_default(),
        )
    }

    /// The runner itself was late.
    pub(crate) fn note_late(&self, at: Micros, by: Duration) {
        lock(&self.late).push((at, by));
    }

    /// How late the runner itself was at worst between two moments.
    pub(crate) fn latest_tick(&self, from: Micros, to: Micros) -> Duration {
        let late = lock(&self.late);
        let within = late.iter().filter(|(at, _)| (from..=to).contains(at));
        within.map(|(_, by)| *by).max().unwrap_or_default()
    }
}

/// A client, which prefers the brokers of `zone`.
pub(crate) async fn connect(bootstrap: &[String], zone: Option<&str>) -> Result<Client, ChaosError> {
    let builder = Client::builder().bootstrap(bootstrap.iter().cloned());
    let builder = match zone {
        Some(zone) => builder.zone(zone),
        None => builder,
    };
    builder.connect().await.map_err(|error| ChaosError::client("connecting to the cluster", &error))
}
