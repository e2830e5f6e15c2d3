//! The final phase: everything is healed, and fresh clients read every partition from its beginning up to the highest
//! offset that anybody ever saw. Without it a lost record and a slow consumer look the same.

use std::sync::Arc;
use std::time::Duration;

use holdfast_client::StartAt;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::load::reader::poll;
use crate::load::{Load, connect};

/// Without progress to the end within this time the history is judged as it is.
const PATIENCE: Duration = Duration::from_secs(120);
/// A consumer that shows nothing for this long is replaced by one of a new client.
const PROGRESS: Duration = Duration::from_secs(10);

/// Reads everything back; the partitions whose end was not reached.
pub(crate) async fn read_back(bootstrap: &[String], load: &Arc<Load>) -> Vec<u32> {
    load.history.final_phase();
    let deadline = Instant::now() + PATIENCE;
    let mut tasks = JoinSet::new();
    for partition in 0..load.partitions {
        tasks.spawn(read_partition(bootstrap.to_vec(), load.clone(), partition, deadline));
    }
    let mut short: Vec<u32> = tasks.join_all().await.into_iter().flatten().collect();
    short.sort_unstable();
    short
}

/// The partition, where its end was not reached.
async fn read_partition(
    bootstrap: Vec<String>,
    load: Arc<Load>,
    partition: u32,
    deadline: Instant,
) -> Option<u32> {
    let end = load.seen.end(partition);
    while Instant::now() < deadline {
        if read_once(&bootstrap, &load, partition, end).await.is_some() {
            return None;
        }
    }
    Some(partition)
}

/// One fresh client from the beginning to `end`; nothing where it does not get on.
async fn read_once(bootstrap: &[String], load: &Load, partition: u32, end: u64) -> Option<()> {
    let client = connect(bootstrap, None).await.ok()?;
    let consumer = client.consumer(&load.topic).partitions([partition]).start(StartAt::Beginning);
    let mut consumer = consumer.build().await.ok()?;
    let process = load.numbers.process();
    load.history.assigned(process, load.numbers.op(), partition, 0);
    let mut position = 0;
    while position < end {
        let read = poll(load, &mut consumer, process, partition);
        position = timeout_at(Instant::now() + PROGRESS, read).await.ok()??;
    }
    Some(())
}
