use holdfast_core::metadata::{BrokerRegistration, Command, TopicSpec};
use holdfast_core::{BrokerId, DirId, Incarnation, TopicId, ZoneId};

use super::*;

fn register(id: u32) -> Command {
    Command::RegisterBroker(BrokerRegistration {
        id: BrokerId(id),
        zone: ZoneId::new(&format!("zone-{id}")),
        dir: DirId(u64::from(id)),
        incarnation: Incarnation(1),
        client_endpoint: format!("broker-{id}:7070"),
        peer_endpoint: format!("broker-{id}:7072"),
    })
}

fn create(id: u128) -> Command {
    let spec = TopicSpec { partitions: 4, ..TopicSpec::default() };
    Command::CreateTopic { id: TopicId(id), name: format!("topic-{id}"), spec }
}

/// Applies commands to both, in one change.
fn apply(table: &Table, metadata: &mut Metadata, commands: &[Command]) {
    let mut change = Change::default();
    for command in commands {
        let (result, update) = metadata.apply(metadata.map().index() + 1, command);
        result.unwrap();
        if let Some(update) = update {
            table.record(&mut change, &update).unwrap();
        }
    }
    table.write(change, metadata, vec![1, 2, 3]).unwrap();
}

#[test]
fn state_reads_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut metadata = Metadata::default();
    {
        let table = Table::open(dir.path()).unwrap();
        assert!(table.load().unwrap().is_none());
        apply(&table, &mut metadata, &[register(1), register(2), register(3), create(7)]);
        apply(&table, &mut metadata, &[Command::AllocateProducerIds { count: 10 }]);
    }
    let table = Table::open(dir.path()).unwrap();
    assert_eq!(table.load().unwrap().unwrap(), (metadata, vec![1, 2, 3]));
}

#[test]
fn a_deleted_topic_takes_its_partitions_along_also_within_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::open(dir.path()).unwrap();
    let mut metadata = Metadata::default();
    apply(&table, &mut metadata, &[register(1), register(2), register(3), create(7)]);
    let delete = |id| Command::DeleteTopic { id: TopicId(id) };
    apply(&table, &mut metadata, &[create(8), delete(7), delete(8)]);
    assert_eq!(metadata.map().partitions().count(), 0);
    assert_eq!(table.load().unwrap().unwrap().0, metadata);
}

#[test]
fn replace_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::open(dir.path()).unwrap();
    let mut metadata = Metadata::default();
    apply(&table, &mut metadata, &[register(1), register(2), register(3), create(7)]);
    table.replace(&Metadata::default(), vec![]).unwrap();
    assert_eq!(table.load().unwrap().unwrap().0, Metadata::default());
}

#[test]
fn a_missing_or_changed_value_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::open(dir.path()).unwrap();
    let mut metadata = Metadata::default();
    apply(&table, &mut metadata, &[register(1), register(2)]);
    let (key, value) = table.tree.iter().next().unwrap().unwrap();
    table.tree.remove(&key).unwrap();
    assert!(matches!(table.load(), Err(TableError::Map(_))));
    let mut bad = value.to_vec();
    bad[6] ^= 1;
    table.tree.insert(&key, bad).unwrap();
    assert!(matches!(table.load(), Err(TableError::Checksum)));
}

#[test]
fn a_torn_sled_snapshot_does_not_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut metadata = Metadata::default();
    apply(&Table::open(dir.path()).unwrap(), &mut metadata, &[register(1)]);
    std::fs::write(dir.path().join("snap.00000000000000FF.generating"), b"torn").unwrap();
    std::fs::write(dir.path().join("snap.00000000000000FE"), b"torn").unwrap();
    assert_eq!(Table::open(dir.path()).unwrap().load().unwrap().unwrap().0, metadata);
}
