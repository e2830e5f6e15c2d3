//! Disks that give back what was not written to them: nothing of it is served, and everything is mended by the others.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_core::metadata::Durability;
use holdfast_tests::{TestCluster, assert_holds, eventually, produce};

/// The first segments of all logs in a folder of partitions, with their content.
fn segments(partitions: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let folders = fs::read_dir(partitions).expect("partitions").map(|entry| entry.expect("readable").path());
    let mut paths: Vec<PathBuf> = folders.map(|folder| folder.join("00000000000000000000.log")).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let content = fs::read(&path).expect("a segment");
        (path, content)
    };
    paths.into_iter().map(read).collect()
}

/// Turns a bit every so many bytes, as a bad disk does: in its file, under whoever has it open. Returns how many.
fn damage(segments: &[(PathBuf, Vec<u8>)], every: usize) -> usize {
    use std::os::unix::fs::FileExt;
    let mut turned = 0;
    for (path, content) in segments {
        let file = fs::OpenOptions::new().write(true).open(path).expect("a segment");
        for at in (every / 2..content.len()).step_by(every) {
            file.write_all_at(&[content[at] ^ 1 << (at % 8)], at as u64).expect("written");
            turned += 1;
        }
    }
    turned
}

/// Waits until every segment begins as it did before.
async fn are_as_before(before: &[(PathBuf, Vec<u8>)]) {
    eventually("all that was damaged is as it was", || async {
        for (path, content) in before {
            let now = fs::read(path).map_err(|error| error.to_string())?;
            if !now.starts_with(content) {
                let at = now.iter().zip(content).position(|(now, before)| now != before);
                return Err(format!("{} differs at byte {at:?}", path.display()));
            }
        }
        Ok(())
    })
    .await;
}

fn count(partitions: &Path) -> usize {
    fs::read_dir(partitions).expect("partitions").count()
}

/// In every zone, the leader's too, while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn damage_on_a_disk_is_never_served_and_repaired_from_the_others() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "t", 3, Durability::Disk).await;
    let producer = client.producer("t").build().await.unwrap();
    produce(&producer, 0..600).await;
    for zone in 0..3 {
        let before = segments(&cluster.partitions_dir(zone));
        assert!(damage(&before, 101) > 10);
        assert_holds(&client, "t", 0..600).await;
        are_as_before(&before).await;
    }
    produce(&producer, 600..700).await;
    assert_holds(&client, "t", 0..700).await;
}

/// One that cannot open its logs gets what it lacks from the others, and then counts again: with it a majority is there when
/// another zone goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_starts_on_damaged_logs_is_repaired_and_votes() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "t", 3, Durability::Disk).await;
    let producer = client.producer("t").build().await.unwrap();
    produce(&producer, 0..300).await;
    let partitions = cluster.partitions_dir(0);
    cluster.with(|cluster| cluster.stop_broker(0)).await;
    let before = segments(&partitions);
    // After an orderly end only headers are looked at: the lengths of some are wrong.
    for (path, content) in &before {
        let mut damaged = content.clone();
        let second = 12 + u32::from_be_bytes(content[8..12].try_into().unwrap()) as usize;
        damaged[second + 10] ^= 0x40;
        damaged[8] ^= 0x01;
        fs::write(path, damaged).unwrap();
    }
    let logs = count(&partitions);
    cluster.with(|cluster| cluster.heal_broker(0)).await.unwrap();
    are_as_before(&before).await;
    assert_eq!(count(&partitions), logs, "nothing is put aside");
    produce(&producer, 300..400).await;
    eventually("the repaired replicas are in sync", || async {
        let led = client.describe_partitions(Some("t")).await.map_err(|error| error.to_string())?;
        let lagging = led.iter().find(|state| state.replicas.iter().any(|replica| !replica.in_sync));
        lagging.map_or(Ok(()), |state| Err(format!("{state:?}")))
    })
    .await;
    cluster.kill(1).await;
    produce(&producer, 400..500).await;
    assert_holds(&client, "t", 0..500).await;
}
