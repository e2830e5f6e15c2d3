//! Whether what is stored can still be read in a zone whose disk takes nothing more: fetches one after the other, of every
//! partition, by a client that prefers that zone's broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_client::{Client, Offset, StartAt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::ChaosError;
use crate::load::reader::poll;
use crate::load::{Load, connect};
use crate::stage::Stage;
use crate::zone::Zone;

/// How far before its end each partition is read.
const BACK: u64 = 500;
/// A fetch that gives no record within this time has failed: what it asks for is there.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two fetches of a partition.
const PAUSE: Duration = Duration::from_millis(100);

/// Fetches that go on until they are counted.
#[derive(Debug)]
pub(crate) struct Fetches {
    tasks: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    good: AtomicU64,
    failed: AtomicU64,
}

impl Fetches {
    /// Begins to fetch.
    pub(crate) async fn start(stage: &Stage<'_>, zone: Zone) -> Result<Fetches, ChaosError> {
        let client = connect(&stage.network.bootstrap(), Some(zone.name())).await?;
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for partition in stage.partitions() {
            let from = stage.load.seen.end(partition).saturating_sub(BACK);
            tasks.spawn(fetch_on(client.clone(), stage.load.clone(), counts.clone(), partition, from));
        }
        Ok(Fetches { tasks, counts })
    }

    /// Ends them; how many gave records, and how many did not.
    pub(crate) async fn stop(mut self) -> (u64, u64) {
        self.tasks.shutdown().await;
        (self.counts.good.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed))
    }
}

async fn fetch_on(client: Client, load: Arc<Load>, counts: Arc<Counts>, partition: u32, from: u64) {
    loop {
        let given = timeout(ANSWER, fetch(&client, &load, partition, from)).await;
        let good = matches!(given, Ok(Some(_)));
        (if good { &counts.good } else { &counts.failed }).fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
}

/// A consumer that begins anew, so that nothing comes from a buffer of the client.
async fn fetch(client: &Client, load: &Load, partition: u32, from: u64) -> Option<u64> {
    let start = StartAt::Offset(Offset(from));
    let consumer = client.consumer(&load.topic).partitions([partition]).start(start);
    let mut consumer = consumer.build().await.ok()?;
    let process = load.numbers.process();
    load.history.assigned(process, load.numbers.op(), partition, from);
    poll(load, &mut consumer, process, partition).await
}
