//! Calls of one broker that fail, by strace: flushes with EIO, and writes with ENOSPC.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use crate::clock::Micros;
use crate::cluster::Which;
use crate::cluster::process::Role;
use crate::error::ChaosError;
use crate::faults::{Check, at_most};
use crate::measure::gaps::Window;
use crate::storage::row::Struck;
use crate::storage::tracer::{Bend, Failure, Tracer};
use crate::storage::{LOOK_AGAIN, Scene};
use crate::zone::Zone;

const FLUSHES: &str = "fdatasync,fsync,syncfs";
/// As the log writes; what goes to sockets is written by other calls.
const WRITES: &str = "pwrite64,pwritev";
/// How long flushes fail after the first that did.
const LENGTH: Duration = Duration::from_secs(2);
/// How long writes fail, and how long they succeed before they fail again.
const BURST: Duration = Duration::from_millis(1500);
const BURSTS: u32 = 3;
/// Under load something is flushed every few milliseconds.
const FIRST: Duration = Duration::from_secs(5);
/// Acknowledgements of what was flushed before may still be on their way, while a debugger holds the broker's threads.
const IN_FLIGHT: Duration = Duration::from_millis(250);
/// A partition that does not come back, or is not led elsewhere, is given this long.
const LIMIT: Duration = Duration::from_secs(20);
/// A broker that has not mended itself by then is started anew: it may need that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every flush of a broker fails for a while: it acknowledges nothing from then on, and others lead.
pub(super) async fn flush_eio(scene: &mut Scene<'_>, round: u32) -> Result<Struck, ChaosError> {
    let zone = scene.stage.choose(&Zone::ALL);
    let before = scene.stage.observer.appointments();
    let moved = scene.stage.observer.led_in(zone);
    // A flush that is claimed and not done is what nobody can notice.
    let how = if scene.spoil { "retval=0" } else { "error=EIO" };
    let from = scene.stage.begin("flush-eio", Some(zone));
    let tracer = attach(scene, zone, Bend { calls: FLUSHES, how }, format!("{round}")).await?;
    let begun = tracer.first(FIRST).await?;
    let left = watch(scene, zone, &moved, begun).await;
    let failures = tracer.detach().await?;
    let mended = Micros::now();
    let failed = failures.len();
    let first = first_failures(failures);
    // Of each partition that was led there, from its own first failed flush on.
    let judged = moved.iter().filter_map(|partition| Some((*partition, *first.get(partition)?)));
    let judged: Vec<(u32, Micros)> = judged.collect();
    let took = |(partition, at): &(u32, Micros)| left.get(partition).copied().unwrap_or(mended).since(*at);
    let serving = judged.iter().map(took).max().unwrap_or_default();
    let late = |(partition, at): &(u32, Micros)| {
        let term = before.get(partition)?.term;
        Some(scene.stage.load.acks.of_term_since(*partition, term, at.after(IN_FLIGHT)))
    };
    let late = judged.iter().filter_map(late).sum::<usize>() as u64;
    let mut checks = vec![
        at_most("acknowledgements of a leader whose flush failed", late, 0),
        Check::of("a flush of a leader failed", !judged.is_empty(), "none did: nothing was tried".to_owned()),
    ];
    let alone = scene.whole_alone(PATIENCE).await.is_none();
    let since = if alone { mended } else { restart(scene, zone).await? };
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("flush-eio", Some(zone));
    let back = if alone { "whole by itself" } else { "whole after a restart" };
    Ok(Struck {
        zone: Some(zone),
        moved,
        window: Window { from, to },
        serving,
        whole: to.since(since),
        told: format!("{failed} flushes failed, {back}"),
        checks,
    })
}

/// When each of the partitions was led in the zone no more. Goes on for a while, and until none is.
async fn watch(scene: &Scene<'_>, zone: Zone, moved: &[u32], since: Micros) -> BTreeMap<u32, Micros> {
    let mut left = BTreeMap::new();
    loop {
        let (now, led) = (Micros::now(), scene.stage.observer.led_in(zone));
        for partition in moved.iter().filter(|partition| !led.contains(partition)) {
            left.entry(*partition).or_insert(now);
        }
        let length = if left.len() == moved.len() { LENGTH } else { LIMIT };
        if now.since(since) >= length {
            return left;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// When the first flush of each partition failed: its folder ends with its number.
fn first_failures(failures: Vec<Failure>) -> BTreeMap<u32, Micros> {
    let mut first = BTreeMap::new();
    for Failure { at, file } in failures {
        let folder = file.split_once("/partitions/").and_then(|(_, rest)| rest.split('/').next());
        let number = folder.and_then(|folder| folder.rsplit_once('-')?.1.parse().ok());
        if let Some(number) = number {
            first.entry(number).or_insert(at);
        }
    }
    first
}

/// Kills a zone's broker and starts it; from when on everything could be whole.
async fn restart(scene: &mut Scene<'_>, zone: Zone) -> Result<Micros, ChaosError> {
    scene.stage.cluster.kill(Which::brokers(&[zone])).await?;
    let since = Micros::now();
    scene.stage.cluster.start(scene.stage.network, Which::brokers(&[zone])).await?;
    Ok(since)
}

/// Writes fail in bursts, as on a disk that is full by moments: the broker goes on by itself.
pub(super) async fn write_enospc(scene: &mut Scene<'_>, round: u32) -> Result<Struck, ChaosError> {
    let zone = scene.stage.choose(&Zone::ALL);
    let moved = scene.stage.observer.led_in(zone);
    let from = scene.stage.begin("write-enospc", Some(zone));
    let bend = Bend { calls: WRITES, how: "error=ENOSPC" };
    let mut failed = 0;
    let mut freed = from;
    for burst in 1..=BURSTS {
        if scene.process(Role::Broker, zone)?.has_ended() {
            break;
        }
        let tracer = attach(scene, zone, bend, format!("{round}-{burst}")).await?;
        sleep(BURST).await;
        failed += tracer.detach().await?.len();
        freed = Micros::now();
        sleep(BURST).await;
    }
    let serving = scene.served(freed, LIMIT).await;
    let mut checks = Vec::new();
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("write-enospc", Some(zone));
    Ok(Struck {
        zone: Some(zone),
        moved,
        window: Window { from, to },
        serving,
        whole: to.since(freed),
        told: format!("{failed} writes failed"),
        checks,
    })
}

async fn attach(scene: &mut Scene<'_>, zone: Zone, bend: Bend, number: String) -> Result<Tracer, ChaosError> {
    let pid = scene.broker_pid(zone)?;
    Tracer::attach(pid, bend, &scene.stage.folder.join(format!("strace-{zone}-{number}.log"))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition counts from its own first failure; files of no partition count for none.
    #[test]
    fn failures_by_partition() {
        let failure = |at, file: &str| Failure { at: Micros(at), file: file.to_owned() };
        let first = first_failures(vec![
            failure(5, "/d/broker/replica-state"),
            failure(7, "/d/broker/partitions/0a-11/00000.log"),
            failure(8, "/d/broker/partitions/0a-11"),
            failure(9, "/d/broker/partitions/0a-2"),
            failure(9, ""),
        ]);
        assert_eq!(first, BTreeMap::from([(11, Micros(7)), (2, Micros(9))]));
    }
}
