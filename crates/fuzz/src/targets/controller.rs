//! What controllers keep on disk, and what they say to each other about their log.

use std::path::Path;
use std::sync::Arc;

use holdfast_controller::decoders;
use holdfast_core::metadata::{BrokerRegistration, Command, Metadata, TopicSpec};
use holdfast_core::{BrokerId, DirId, Incarnation, TopicId, ZoneId};
use holdfast_log::MemFs;

use crate::corpus::Input;
use crate::mend;
use crate::target::{FOLDER, Memory, Target, in_memory, read_file};

pub(super) fn targets() -> Vec<Target> {
    // postcard and serde take at most 1 MiB by a claimed length before they see an element of it.
    let memory = Memory { fixed: 8 << 20, per_byte: 128 };
    vec![
        Target {
            name: "snapshot",
            about: "a controller's snapshot file",
            memory,
            written: || vec![snapshot()],
            run: |input| decoders::snapshot(Arc::new(in_memory(input)), Path::new(FOLDER)),
        },
        Target {
            name: "snapshot-body",
            about: "the metadata as it travels to a controller that is behind",
            memory,
            written: || vec![Input::of("body", decoders::snapshot_body_of(&metadata()))],
            run: |input| decoders::snapshot_body(input.bytes()),
        },
        Target {
            name: "raft-journal",
            about: "a controller's vote and log",
            memory,
            written: || {
                let frames = decoders::raft_frames_of(&commands());
                vec![Input::of("raft.journal", mend::journal_of(&frames))]
            },
            run: |input| {
                let path = Path::new(FOLDER).join("raft.journal");
                decoders::raft_journal(&in_memory(input), &path)
            },
        },
        Target {
            name: "raft-message",
            about: "entries, votes and snapshots from another controller",
            memory,
            written: || {
                let messages = decoders::raft_messages_of(&commands());
                messages.into_iter().map(|bytes| Input::of("message", bytes)).collect()
            },
            run: |input| decoders::raft_message(input.bytes()),
        },
        Target {
            name: "ledger",
            about: "a controller's events.jsonl",
            memory,
            written: Vec::new,
            run: |input| decoders::ledger(input.bytes()),
        },
    ]
}

fn snapshot() -> Input {
    let fs = MemFs::new();
    assert!(
        decoders::write_snapshot(Arc::new(fs.clone()), Path::new("/"), &metadata()),
        "memory does not fail"
    );
    Input::of("snapshot", read_file(&fs, Path::new("/snapshot")))
}

/// A cluster of three zones with a topic.
pub(super) fn commands() -> Vec<Command> {
    let broker = |id: u32| {
        Command::RegisterBroker(BrokerRegistration {
            id: BrokerId(id),
            zone: ZoneId::new(["a", "b", "c"][id as usize % 3]),
            dir: DirId(u64::from(id) << 40),
            incarnation: Incarnation(77),
            client_endpoint: format!("zone-{id}:7070"),
            peer_endpoint: format!("zone-{id}:7071"),
        })
    };
    let mut commands: Vec<Command> = (1..4).map(broker).collect();
    let (id, name) = (TopicId(0xfeed_0000_0000_0001), "orders".to_owned());
    commands.push(Command::CreateTopic {
        id,
        name,
        spec: TopicSpec { partitions: 3, ..TopicSpec::default() },
    });
    commands.push(Command::AllocateProducerIds { count: 1000 });
    commands
}

pub(super) fn metadata() -> Metadata {
    let mut metadata = Metadata::default();
    for (index, command) in (1..).zip(commands()) {
        let (applied, _) = metadata.apply(index, &command);
        assert!(applied.is_ok(), "{applied:?}");
    }
    metadata
}
