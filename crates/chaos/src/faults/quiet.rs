//! No fault at all, and more load than the machine has room for: no leader moves, nobody is elected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_client::{Client, Record};
use holdfast_core::metadata::TopicSpec;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::ChaosError;
use crate::faults::{Check, Struck, at_most};
use crate::stage::Stage;

/// How long one topic is written at full speed before it is deleted: an hour of it would fill the disk.
const TOPIC_LIFE: Duration = Duration::from_secs(60);
/// Producers of it.
const PRODUCERS: usize = 4;
/// Bytes of a record of it.
const SIZE: usize = 1024;
/// Threads that do nothing but use the processor.
const BUSY_THREADS: usize = 2;

/// Full load for `length`.
pub(crate) async fn inject(stage: &mut Stage<'_>, length: Duration) -> Result<Struck, ChaosError> {
    let before = stage.observer.appointments();
    let term = stage.observer.controllers().await?.term;
    let from = stage.begin("full load", None);
    let busy = BusyThreads::start();
    let over = Instant::now() + length;
    for number in 0.. {
        let until = over.min(Instant::now() + TOPIC_LIFE);
        flood(&stage.client, &format!("flood-{number}"), until).await?;
        if until == over {
            break;
        }
    }
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

/// Writes a topic of its own as fast as the cluster takes it, and deletes it.
async fn flood(client: &Client, topic: &str, until: Instant) -> Result<(), ChaosError> {
    let failed = |error| ChaosError::client("making or deleting the flooded topic", &error);
    client.create_topic(topic, TopicSpec::default()).await.map_err(failed)?;
    let mut producers = JoinSet::new();
    for _ in 0..PRODUCERS {
        producers.spawn(produce(client.clone(), topic.to_owned()));
    }
    sleep_until(until).await;
    producers.shutdown().await;
    client.delete_topic(topic).await.map_err(failed)
}

/// Until it is aborted.
async fn produce(client: Client, topic: String) {
    let Ok(producer) = client.producer(&topic).build().await else { return };
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
