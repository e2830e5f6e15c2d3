//! No fault at all, and more load than the machine has room for: no leader moves, nobody is elected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_client::{Client, Record};
use holdfast_core::metadata::TopicSpec;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::error::ChaosError;
use crate::faults::{Check, Struck, at_most};
use crate::stage::Stage;

/// The topic that is written at full speed.
const TOPIC: &str = "flood";
/// Producers of it.
const PRODUCERS: usize = 4;
/// Bytes of a record of it.
const SIZE: usize = 1024;
/// Threads that do nothing but use the processor.
const BUSY_THREADS: usize = 2;

/// Full load for `length`.
pub(crate) async fn inject(stage: &mut Stage<'_>, length: Duration) -> Result<Struck, ChaosError> {
    let flooded = stage.client.create_topic(TOPIC, TopicSpec::default()).await;
    flooded.map_err(|error| ChaosError::client("creating the flooded topic", &error))?;
    let before = stage.observer.appointments();
    let term = stage.observer.controllers().await?.term;
    let from = stage.begin("full load", None);
    let busy = BusyThreads::start();
    let mut producers = JoinSet::new();
    for _ in 0..PRODUCERS {
        producers.spawn(flood(stage.client.clone()));
    }
    sleep(length).await;
    producers.shutdown().await;
    drop(busy);
    let to = stage.end("full load", None);
    stage.healed().await?;
    let moves = stage.observer.most_moves_since(from) as u64;
    let terms = stage.observer.controllers().await?.term.saturating_sub(term);
    let same = stage.observer.appointments() == before;
    let checks = vec![
        at_most("moves of one partition's leader", moves, 0),
        at_most("growth of the controllers' term", terms, 0),
        Check::of("nobody is appointed", same, "terms of partitions grew".to_owned()),
    ];
    Ok(Struck { checks, ..Struck::over(from, to) })
}

/// Writes as fast as the cluster takes it, until it is aborted.
async fn flood(client: Client) {
    let Ok(producer) = client.producer(TOPIC).build().await else { return };
    let payload = vec![b'f'; SIZE];
    // Outcomes are the producer's to count: this topic is load, not evidence.
    while let Ok(pending) = producer.send(Record::new(payload.clone())).await {
        drop(pending);
    }
}

/// Threads that spin until this is dropped.
struct BusyThreads(Arc<AtomicBool>);

impl BusyThreads {
    fn start() -> BusyThreads {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..BUSY_THREADS {
            let over = over.clone();
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        BusyThreads(over)
    }
}

impl Drop for BusyThreads {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
