//! The map that this broker routes by: from any controller, complete or refused, kept on disk for a start without
//! controllers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::metadata::{ClusterMap, MapError, Partition, Update};
use holdfast_core::replication::Assignment;
use holdfast_core::retention::Retention;
use holdfast_core::{PartitionId, ReplicaId, TopicId};
use holdfast_log::atomic_write;
use holdfast_proto::convert::ConvertError;
use holdfast_proto::convert::metadata::update_from_wire;
use holdfast_proto::internal::v1::WatchControllerMetadataRequest;
use tokio::sync::watch;

use crate::controllers::Controller;
use crate::data_dir::{DataDir, crc32c};
use crate::partition::{Command, ShardSenders};

/// First byte of the saved map. The CRC-32C of what follows is behind it, big endian: the digest in a map does not cover
/// what its objects hold, and by a register that names others a replica is deleted.
const FORMAT: u8 = 2;
/// Pause before a broken watch stream is opened again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Before a map that could not be saved is saved again.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// Why an update from a controller was not taken; its stream is opened anew, which begins with a snapshot.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("the stream broke")]
    Broken(#[from] tonic::Status),
    #[error("an update makes no sense")]
    Convert(#[from] ConvertError),
    #[error("an update was refused")]
    Refused(#[from] MapError),
}

/// The map, for those who read it and for those who bring updates.
#[derive(Debug, Clone)]
pub(crate) struct MapHolder {
    map: watch::Sender<Arc<ClusterMap>>,
}

impl MapHolder {
    /// Begins with the map that the last run saved, if it can be read.
    pub(crate) fn load(dir: &DataDir) -> MapHolder {
        let map = saved(dir).unwrap_or_else(|problem| {
            tracing::error!(problem, "saved metadata map cannot be used: waiting for a controller instead");
            ClusterMap::default()
        });
        MapHolder { map: watch::Sender::new(Arc::new(map)) }
    }

    #[cfg(test)]
    pub(crate) fn of(map: ClusterMap) -> MapHolder {
        MapHolder { map: watch::Sender::new(Arc::new(map)) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    /// META-4: complete or refused.
    fn adopt(&self, update: &Update) -> Result<(), MapError> {
        let mut refused = None;
        self.map.send_if_modified(|current| {
            let mut next = ClusterMap::clone(current);
            match next.adopt(update) {
                Ok(true) => {
                    *current = Arc::new(next);
                    true
                }
                Ok(false) => false,
                Err(error) => {
                    refused = Some(error);
                    false
                }
            }
        });
        refused.map_or(Ok(()), Err)
    }
}

/// Takes updates from one controller for ever; ends with the runtime.
pub(crate) async fn watch_controller(cluster: String, controller: Arc<Controller>, holder: MapHolder) {
    loop {
        match watch_once(&cluster, &controller, &holder).await {
            Ok(()) => {}
            Err(WatchError::Refused(MapError::Gap { base, index })) => {
                // Usual where controllers bundle changes differently: another one was faster. A snapshot follows at once.
                tracing::debug!(controller = %controller.config.id, base, index, "metadata update builds on another state");
                continue;
            }
            Err(error @ (WatchError::Refused(_) | WatchError::Convert(_))) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(controller = %controller.config.id, error, "metadata update refused: asking for a snapshot");
            }
            Err(WatchError::Broken(status)) => {
                tracing::debug!(controller = %controller.config.id, %status, "metadata stream ended");
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn watch_once(cluster: &str, controller: &Controller, holder: &MapHolder) -> Result<(), WatchError> {
    let request = WatchControllerMetadataRequest { cluster: cluster.to_owned() };
    let mut updates = controller.client().watch_metadata(request).await?.into_inner();
    while let Some(update) = updates.message().await? {
        holder.adopt(&update_from_wire(update)?)?;
    }
    Ok(())
}

/// Writes every map to disk, the latest where they come faster, and says which; ends with the runtime.
pub(crate) async fn save(
    dir: Arc<DataDir>,
    mut maps: watch::Receiver<Arc<ClusterMap>>,
    saved_index: watch::Sender<u64>,
) {
    // The first one too: it may have come before anybody watched.
    maps.mark_changed();
    while maps.changed().await.is_ok() {
        let map = Arc::clone(&maps.borrow_and_update());
        if map.index() == 0 {
            continue; // nothing is known yet: what is on disk stays
        }
        let (dir, index) = (Arc::clone(&dir), map.index());
        let saved = tokio::task::spawn_blocking(move || {
            atomic_write(&*dir.fs(), &dir.file("metadata-map"), &encode(&map))
        });
        match saved.await {
            Ok(Ok(())) => _ = saved_index.send_replace(index),
            Ok(Err(error)) => {
                tracing::error!(%error, "saving the metadata map failed: a start without controllers would use an older one");
                // The disk may have room by then. What moved away goes only when this is saved, and makes some.
                tokio::time::sleep(SAVE_PAUSE).await;
                maps.mark_changed();
            }
            Err(_) => {} // the runtime ends
        }
    }
}

/// Tells the shards what the register wants of this broker; ends with the runtime.
pub(crate) async fn assign(
    me: ReplicaId,
    mut maps: watch::Receiver<Arc<ClusterMap>>,
    mut saved_index: watch::Receiver<u64>,
    shards: ShardSenders,
    dir: Arc<DataDir>,
) {
    let mut told: BTreeMap<PartitionId, u64> = BTreeMap::new();
    let mut moved: BTreeMap<PartitionId, Partition> = BTreeMap::new();
    let mut deleted: BTreeSet<TopicId> = BTreeSet::new();
    let mut retained: BTreeMap<TopicId, Retention> = BTreeMap::new();
    loop {
        let map = Arc::clone(&maps.borrow_and_update());
        if tell_retention(&map, &mut retained, &shards).await.is_err() {
            return;
        }
        for partition in map.partitions() {
            let Some(topic) = map.topic(partition.id.topic) else { continue };
            if told.insert(partition.id, partition.version) == Some(partition.version) {
                continue;
            }
            if !partition.register.names(me) {
                moved.insert(partition.id, partition.clone());
                continue;
            }
            moved.remove(&partition.id);
            let command = Command::Assign {
                partition: partition.id,
                durability: topic.spec.durability,
                assignment: Assignment::from(&partition.register),
            };
            if shards.of(partition.id).send(command).await.is_err() {
                return;
            }
        }
        told.retain(|&id, _| map.partition(id).is_some());
        // R46: not before the map that names others only is on disk. A start from an older one would make the replica
        // anew, without what this one promised.
        let saved = *saved_index.borrow_and_update();
        for partition in moved.extract_if(.., |_, partition| partition.version <= saved) {
            // Nothing happens where there is no replica of it.
            let command = Command::DeleteReplica(partition.0, partition.1.register.term);
            if shards.of(partition.0).send(command).await.is_err() {
                return;
            }
        }
        let gone = map.topics().filter(|topic| topic.deleted).map(|topic| topic.id);
        let gone: BTreeSet<TopicId> = gone.filter(|&id| deleted.insert(id)).collect();
        if !gone.is_empty() && delete(&gone, &shards, &dir).await.is_err() {
            return;
        }
        let changed = tokio::select! {
            changed = maps.changed() => changed,
            changed = saved_index.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// What is kept of topics, where that changed. An error says that the broker is ending.
async fn tell_retention(
    map: &ClusterMap,
    told: &mut BTreeMap<TopicId, Retention>,
    shards: &ShardSenders,
) -> Result<(), Gone> {
    for topic in map.topics() {
        let retention = if topic.deleted { Retention::default() } else { topic.spec.retention };
        if told.insert(topic.id, retention).unwrap_or_default() != retention {
            for shard in shards.all() {
                shard.send(Command::Retain(topic.id, retention)).await.map_err(|_| Gone)?;
            }
        }
    }
    Ok(())
}

/// The shards are.
struct Gone;

/// Data goes only on an explicit mark in the map, never because something is missing from it. An error says that the broker is
/// ending.
async fn delete(topics: &BTreeSet<TopicId>, shards: &ShardSenders, dir: &Arc<DataDir>) -> Result<(), Gone> {
    let listed = Arc::clone(dir);
    let folders = tokio::task::spawn_blocking(move || listed.partitions()).await.map_err(|_| Gone)?;
    let folders = folders.unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "what is left of deleted topics is looked for when the broker starts again");
        Vec::new()
    });
    for &topic in topics {
        for (number, shard) in shards.all().enumerate() {
            // Also what the shards never opened: the topic was deleted while this broker was away.
            let its = |id: &PartitionId| id.topic == topic && shards.number_of(*id) == number;
            let folders = folders.iter().copied().filter(its).collect();
            shard.send(Command::DeleteTopic { topic, folders }).await.map_err(|_| Gone)?;
        }
    }
    Ok(())
}

/// The map that the last run saved, an empty one where none was; otherwise why it cannot be used.
pub(crate) fn saved(dir: &DataDir) -> Result<ClusterMap, String> {
    match dir.read("metadata-map") {
        Ok(None) => Ok(ClusterMap::default()),
        Ok(Some(bytes)) => decode(&bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn encode(map: &ClusterMap) -> Vec<u8> {
    let body = postcard::to_stdvec(&map.snapshot()).expect("plain data always has an encoding");
    [&[FORMAT][..], &crc32c(&body).to_be_bytes(), &body].concat()
}

fn decode(bytes: &[u8]) -> Result<ClusterMap, String> {
    let (&format, rest) = bytes.split_first().ok_or("empty file")?;
    if format != FORMAT {
        return Err(format!("format {format} is not known"));
    }
    let (expected, body) = rest.split_first_chunk().ok_or("cut short")?;
    if crc32c(body) != u32::from_be_bytes(*expected) {
        return Err("wrong checksum".to_owned());
    }
    let snapshot: Update = postcard::from_bytes(body).map_err(|error| error.to_string())?;
    let mut map = ClusterMap::default();
    map.adopt(&snapshot).map_err(|error| error.to_string())?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use holdfast_core::compaction::Compaction;
    use holdfast_core::metadata::{BrokerRegistration, Command as MetadataCommand, Metadata, TopicSpec};
    use holdfast_core::{BrokerId, DirId, Incarnation, Term, ZoneId};
    use holdfast_log::MemFs;

    use super::*;
    use crate::partition::shard_queue;

    fn registration(id: u32, zone: &str) -> MetadataCommand {
        MetadataCommand::RegisterBroker(BrokerRegistration {
            id: BrokerId(id),
            zone: ZoneId::new(zone),
            dir: DirId(u64::from(id)),
            incarnation: Incarnation(8),
            client_endpoint: format!("{id}:1"),
            peer_endpoint: format!("{id}:2"),
        })
    }

    #[test]
    fn a_saved_map_reads_back_and_a_damaged_one_is_refused() {
        let mut metadata = Metadata::default();
        metadata.apply(1, &registration(1, "a")).0.unwrap();
        let bytes = encode(metadata.map());
        assert_eq!(&decode(&bytes).unwrap(), metadata.map());
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "accepted {cut} of {} bytes", bytes.len());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "accepted with bit {bit} flipped");
        }
    }

    /// What brokers and controllers of before retention and compaction wrote is read, and what has none is written so.
    #[test]
    fn a_topic_that_keeps_everything_is_encoded_as_before() {
        let before = TopicSpec { partitions: 5, replication: 3, zone_waiver: true, ..TopicSpec::default() };
        assert_eq!(postcard::to_stdvec(&before).unwrap(), [5, 3, 0, 1]);
        let retention = Retention { time_ms: Some(1000), bytes: None };
        let compacted = TopicSpec { compaction: Some(Compaction::default()), ..before };
        let both = TopicSpec { retention, zone_waiver: false, ..compacted };
        let retained = TopicSpec { retention, ..before };
        assert_eq!(postcard::to_stdvec(&retained).unwrap(), [5, 3, 0, 2, 1, 1, 0xe8, 7, 0]);
        for spec in [before, retained, compacted, both] {
            let encoded = postcard::to_stdvec(&spec).unwrap();
            assert_eq!(postcard::from_bytes::<TopicSpec>(&encoded).unwrap(), spec);
        }
    }

    /// R46: of two partitions one has a replica here and the other has none. What may be left of the other goes only once a
    /// start would find it so, too.
    #[tokio::test]
    async fn a_replica_goes_once_the_map_without_it_is_on_disk() {
        let mut metadata = Metadata::default();
        let brokers = [(1, "a"), (2, "b"), (3, "c"), (4, "a")].map(|(id, zone)| registration(id, zone));
        let spec = TopicSpec { partitions: 2, ..TopicSpec::default() };
        let topic = MetadataCommand::CreateTopic { id: TopicId(1), name: "t".to_owned(), spec };
        for (index, command) in (1..).zip(brokers.into_iter().chain([topic])) {
            metadata.apply(index, &command).0.unwrap();
        }
        let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
        let map = Arc::new(metadata.map().clone());
        let (named, others): (Vec<_>, Vec<_>) =
            map.partitions().map(|it| (it.id, it.register.names(me))).partition(|&(_, named)| named);
        let (index, [(here, _)], [(elsewhere, _)]) = (map.index(), &named[..], &others[..]) else {
            panic!("{named:?} and {others:?}")
        };

        let dir = Arc::new(DataDir::in_memory(Arc::new(MemFs::new()), "boot 1").unwrap());
        let (shard, mut told) = shard_queue();
        let (_maps, maps) = watch::channel(Arc::clone(&map));
        let (saved, saved_index) = watch::channel(index - 1);
        let shards = ShardSenders::new(vec![shard]);
        let task = tokio::spawn(assign(me, maps, saved_index, shards, dir));
        let first = told.recv().await;
        assert!(matches!(&first, Some(Command::Assign { partition, .. }) if partition == here), "{first:?}");
        tokio::task::yield_now().await;
        assert!(told.try_recv().is_err(), "a start would find an older map");
        saved.send_replace(index);
        let next = told.recv().await;
        let deletes =
            matches!(&next, Some(Command::DeleteReplica(partition, Term(1))) if partition == elsewhere);
        assert!(deletes, "{next:?}");
        task.abort();
    }
}
