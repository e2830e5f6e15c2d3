//! What this crate reads from disks and from other controllers, for the fuzzer (crates/fuzz) only: each function gives
//! bytes to a decoder, uses what it yields, and says whether it was accepted. Writers that give valid bytes, too.

use std::path::Path;
use std::sync::Arc;

use holdfast_core::metadata::{Command, Metadata};
use holdfast_log::{Fs, journal};
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use openraft::{EntryPayload, SnapshotMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ledger;
use crate::raft::{Entry, Frame, LogId, Mirror, Node, TypeConfig, Vote, decode, encode};
use crate::store::snapshot::{SnapshotFile, decode_body, encode_body};

/// The file `snapshot` in `dir`.
pub fn snapshot(fs: Arc<dyn Fs>, dir: &Path) -> bool {
    let Ok(Some(parts)) = SnapshotFile::new(fs, dir).read() else { return false };
    decode::<SnapshotMeta<u64, Node>>(&parts.head).is_ok() && snapshot_body(&parts.body)
}

/// The state as it travels between controllers.
pub fn snapshot_body(bytes: &[u8]) -> bool {
    let Ok(metadata) = decode_body(bytes) else { return false };
    let again = encode_body(&metadata).ok().and_then(|bytes| decode_body(&bytes).ok());
    assert!(again.as_ref() == Some(&metadata), "a state is not read back as it is written");
    true
}

/// The bytes of a state.
pub fn snapshot_body_of(metadata: &Metadata) -> Vec<u8> {
    encode_body(metadata).unwrap_or_default()
}

/// Writes the file `snapshot` into `dir`. Whether that went well.
pub fn write_snapshot(fs: Arc<dyn Fs>, dir: &Path, metadata: &Metadata) -> bool {
    let meta = SnapshotMeta::<u64, Node> {
        last_log_id: Some(log_id(1)),
        snapshot_id: "1-1".to_owned(),
        ..SnapshotMeta::default()
    };
    let written =
        encode(&meta).map(|head| SnapshotFile::new(fs, dir).write(&head, &snapshot_body_of(metadata)));
    matches!(written, Ok(Ok(())))
}

/// The journal of vote and log at `path`.
pub fn raft_journal(fs: &dyn Fs, path: &Path) -> bool {
    let mut mirror = Mirror::default();
    if journal::read(fs, path, &mut |bytes| Ok(mirror.replay(bytes)?)).is_err() {
        return false;
    }
    let mut again = Mirror::default();
    let replayed = mirror.checkpoint().try_for_each(|bytes| again.replay(bytes));
    assert!(replayed.is_ok() && again.entries() == mirror.entries(), "a checkpoint is not read back");
    true
}

/// Frames of every kind, with entries for these commands.
pub fn raft_frames_of(commands: &[Command]) -> Vec<Vec<u8>> {
    let mut frames = vec![Frame::Vote(Vote::new(1, 1))];
    frames.extend(entries(commands).map(Frame::Entry));
    frames.extend([
        Frame::Truncate { from: commands.len() as u64 },
        Frame::Committed(Some(log_id(2))),
        Frame::Purge(log_id(1)),
        Frame::Vote(Vote::new_committed(1, 1)),
    ]);
    frames.iter().filter_map(|frame| encode(frame).ok()).collect()
}

/// Messages of every kind, with entries for these commands.
pub fn raft_messages_of(commands: &[Command]) -> Vec<Vec<u8>> {
    let vote = Vote::new_committed(3, 1);
    let append = AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: Some(log_id(0)),
        entries: entries(commands).collect(),
        leader_commit: Some(log_id(2)),
    };
    let install = InstallSnapshotRequest::<TypeConfig> {
        vote,
        meta: SnapshotMeta::default(),
        offset: 0,
        data: vec![7; 100],
        done: true,
    };
    let ask = VoteRequest { vote, last_log_id: Some(log_id(2)) };
    [encode(&append), encode(&install), encode(&ask)].into_iter().flatten().collect()
}

fn log_id(index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(1, 1), index)
}

fn entries(commands: &[Command]) -> impl Iterator<Item = Entry> {
    let normal = |(index, command): (u64, &Command)| Entry {
        log_id: log_id(index),
        payload: EntryPayload::Normal(command.clone()),
    };
    (1..).zip(commands).map(normal)
}

/// A message of another controller.
pub fn raft_message(bytes: &[u8]) -> bool {
    read::<AppendEntriesRequest<TypeConfig>>(bytes)
        || read::<VoteRequest<u64>>(bytes)
        || read::<InstallSnapshotRequest<TypeConfig>>(bytes)
}

fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(message) = decode::<T>(bytes) else { return false };
    let again = encode(&message).ok().filter(|bytes| decode::<T>(bytes).is_ok());
    assert!(again.is_some(), "a message is not read back as it is written");
    true
}

/// Lines of the ledger: accepted if all are records.
pub fn ledger(bytes: &[u8]) -> bool {
    ledger::unreadable_lines(bytes) == 0
}
