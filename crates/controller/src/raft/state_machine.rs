//! Applies what is committed, and keeps snapshots.
//!
//! Starting takes the newer of table and snapshot; openraft then applies the rest of the log. A table that cannot be
//! read, or cannot be written, is thrown away and nothing is lost; one that cannot be made is done without.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::metadata::{Applied, Metadata};
use holdfast_log::Fs;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};

use super::room::Room;
use super::types::{
    CodecError, Entry, LogId, Response, StorageError, StorageIOError, StoredMembership, TypeConfig, decode,
    encode,
};
use crate::ledger::{AppliedEntry, Observation, Observer};
use crate::store::serving::Serving;
use crate::store::snapshot::{Parts, SnapshotError, SnapshotFile, decode_body, encode_body};
use crate::store::table::{Change, Table, TableError};

type SnapshotMeta = openraft::SnapshotMeta<u64, super::types::Node>;

/// Why the applied state cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(
        "the log begins after entry {purged}, and no usable snapshot reaches it ({snapshot}): \
         this controller's data is damaged; replace it by one with a new id and an empty data-dir"
    )]
    Lost { purged: LogId, snapshot: String },
    #[error("table: {0}")]
    Table(#[from] TableError),
    #[error("encoding: {0}")]
    Codec(#[from] CodecError),
}

/// How far the log is applied.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Position {
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

/// The state machine of one controller.
pub(crate) struct StateMachine {
    serving: Arc<Serving>,
    position: Position,
    /// `None` once it failed; the next start makes another.
    table: Option<Table>,
    table_dir: PathBuf,
    snapshots: Snapshots,
    observer: Observer,
    // Dropped last: the lock on the folder outlives sled's own.
    _hold: Arc<dyn Send + Sync>,
}

impl StateMachine {
    /// Opens what is in `dir`. `purged` is where the log begins; `hold` is let go last.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        purged: Option<LogId>,
        room: Room,
        hold: Arc<dyn Send + Sync>,
    ) -> Result<Self, StateError> {
        let snapshots = Snapshots { file: SnapshotFile::new(fs, dir), latest: Arc::default(), room };
        let table_dir = dir.join("applied");
        let (table, stored) = open_table(&table_dir);
        let (metadata, position) = match (stored, snapshots.load()) {
            (stored, Ok(snapshot)) => newer(stored, snapshot),
            (Some(stored), Err(error)) if stored.1.last_applied >= purged => {
                tracing::warn!(%error, "the snapshot cannot be used; the applied state and the log suffice");
                stored
            }
            (_, Err(error)) => match purged {
                Some(purged) => return Err(StateError::Lost { purged, snapshot: error.to_string() }),
                None => {
                    tracing::warn!(%error, "the snapshot cannot be used; the log suffices");
                    Default::default()
                }
            },
        };
        if let Some(purged) = purged.filter(|&purged| position.last_applied < Some(purged)) {
            let snapshot = format!("the newest state is of {:?}", position.last_applied);
            return Err(StateError::Lost { purged, snapshot });
        }
        let (ready, encoded) = (position.last_applied.is_some(), encode(&position)?);
        let mut machine = StateMachine {
            serving: Arc::new(Serving::new(metadata, ready)),
            position,
            table,
            table_dir,
            snapshots,
            observer: Observer::default(),
            _hold: hold,
        };
        machine.replace_table(encoded);
        Ok(machine)
    }

    /// What everybody reads.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        Arc::clone(&self.serving)
    }

    /// Has `observer` told of every entry that is applied from now on.
    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = observer;
    }

    /// Applies one entry to memory, and notes in `change` what it does to the table.
    fn apply_entry(&mut self, entry: Entry, change: &mut Change) -> Response {
        self.position.last_applied = Some(entry.log_id);
        let mut changed = None;
        let result = match entry.payload {
            EntryPayload::Blank => Ok(Applied::Done),
            EntryPayload::Membership(membership) => {
                self.position.membership = StoredMembership::new(Some(entry.log_id), membership);
                Ok(Applied::Done)
            }
            EntryPayload::Normal(command) => {
                let (result, update) = self.serving.apply(entry.log_id.index, &command);
                if let (Some(update), Some(table)) = (&update, &self.table)
                    && let Err(error) = table.record(change, update)
                {
                    self.give_up_table(&error);
                }
                changed = update.map(|update| (command, update));
                result
            }
        };
        let LogId { index, leader_id } = entry.log_id;
        let applied = AppliedEntry { index, term: leader_id.term, change: changed };
        self.observer.note(Observation::Applied(Box::new(applied)));
        Response { result }
    }

    /// Brings the table up to the memory. Its failure is no failure: the log has everything.
    fn write_table(&mut self, change: Change) -> Result<(), CodecError> {
        let position = encode(&self.position)?;
        let Some(table) = &self.table else { return Ok(()) };
        if let Err(error) = self.serving.with(|metadata| table.write(change, metadata, position)) {
            self.give_up_table(&error);
        }
        Ok(())
    }

    /// Has the table hold what the memory holds, and nothing else.
    fn replace_table(&mut self, position: Vec<u8>) {
        let Some(table) = &self.table else { return };
        if let Err(error) = self.serving.with(|metadata| table.replace(metadata, position)) {
            self.give_up_table(&error);
        }
    }

    fn give_up_table(&mut self, error: &TableError) {
        let dir = self.table_dir.display();
        tracing::warn!(%error, %dir, "the table of applied state fails; it is made anew at the next start");
        self.table = None;
    }
}

type Stored = (Metadata, Position);

/// Opens the table, or makes it anew where it does not make sense. Where that fails, as it does on a full disk, there is none.
fn open_table(dir: &Path) -> (Option<Table>, Option<Stored>) {
    let opened = Table::open(dir).map_err(StateError::from).and_then(|table| {
        let stored = match table.load()? {
            Some((metadata, position)) => Some((metadata, decode(&position)?)),
            None => None,
        };
        Ok((table, stored))
    });
    match opened {
        Ok((table, stored)) => (Some(table), stored),
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "the table of applied state is made anew");
            let made = Table::recreate(dir).inspect_err(|error| {
                tracing::warn!(%error, dir = %dir.display(), "the table of applied state cannot be made; going without it");
            });
            (made.ok(), None)
        }
    }
}

fn newer(stored: Option<Stored>, snapshot: Option<Stored>) -> Stored {
    let last_applied = |stored: &Stored| stored.1.last_applied;
    [stored, snapshot].into_iter().flatten().max_by_key(last_applied).unwrap_or_default()
}

/// The snapshot file, guarded against going back.
#[derive(Debug, Clone)]
struct Snapshots {
    file: SnapshotFile,
    /// Of which entry the file is. Held while the file is written: a slow build must not replace a newer one.
    latest: Arc<Mutex<Option<LogId>>>,
    room: Room,
}

impl Snapshots {
    fn load(&self) -> Result<Option<Stored>, SnapshotError> {
        let Some((meta, body)) = self.read()? else { return Ok(None) };
        let metadata = decode_body(&body)?;
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = meta.last_log_id;
        let position = Position { last_applied: meta.last_log_id, membership: meta.last_membership };
        Ok(Some((metadata, position)))
    }

    fn read(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, SnapshotError> {
        let Some(Parts { head, body }) = self.file.read()? else { return Ok(None) };
        let meta = decode(&head).map_err(|_| SnapshotError::NotASnapshot)?;
        Ok(Some((meta, body)))
    }

    fn write(&self, meta: &SnapshotMeta, body: &[u8]) -> Result<(), SnapshotError> {
        let head = encode(meta).map_err(|_| SnapshotError::NotASnapshot)?;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if *latest > meta.last_log_id {
            return Ok(());
        }
        self.write_file(&head, body)?;
        *latest = meta.last_log_id;
        Ok(())
    }
}

impl Snapshots {
    /// Writes the file once there is room for it. Only snapshots wait for that: the log finds out for itself.
    fn write_file(&self, head: &[u8], body: &[u8]) -> Result<(), SnapshotError> {
        let mut told = false;
        loop {
            match self.file.write(head, body) {
                Err(error) if error.is_full() => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "no room on the disk: a snapshot waits until there is some");
                    }
                    if !self.room.wait() {
                        return Err(error);
                    }
                }
                written => return written,
            }
        }
    }
}

/// A copy of the state that is being written down.
pub(crate) struct SnapshotBuilder {
    metadata: Metadata,
    position: Position,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let Position { last_applied, membership } = self.position.clone();
        let name =
            last_applied.map_or_else(|| "none".to_owned(), |id| format!("{}-{}", id.leader_id, id.index));
        let meta = SnapshotMeta {
            last_log_id: last_applied,
            last_membership: membership,
            // A retry must not continue what another build has begun to send.
            snapshot_id: format!("{name}-{:08x}", rand::random::<u32>()),
        };
        let (metadata, snapshots) = (self.metadata.clone(), self.snapshots.clone());
        let written = meta.clone();
        let body = blocking(move || {
            let body = encode_body(&metadata)?;
            snapshots.write(&written, &body)?;
            Ok(body)
        });
        let body =
            body.await.map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(body)) })
    }
}

/// Runs file work off the runtime's workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SnapshotError::Io(std::io::Error::other(error))),
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.position.last_applied, self.position.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Response>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut change = Change::default();
        let mut responses = Vec::new();
        for entry in entries {
            responses.push(self.apply_entry(entry, &mut change));
        }
        self.write_table(change).map_err(|error| StorageIOError::write_state_machine(&error))?;
        self.serving.set_ready();
        Ok(responses)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            metadata: self.serving.metadata(),
            position: self.position.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (written, snapshots, body) = (meta.clone(), self.snapshots.clone(), snapshot.into_inner());
        let metadata = blocking(move || {
            let metadata = decode_body(&body)?;
            snapshots.write(&written, &body)?;
            Ok(metadata)
        });
        let failed = |error: SnapshotError| StorageIOError::write_snapshot(Some(meta.signature()), &error);
        let metadata = metadata.await.map_err(failed)?;
        self.position = Position { last_applied: meta.last_log_id, membership: meta.last_membership.clone() };
        let position = encode(&self.position).map_err(|error| StorageIOError::write_state_machine(&error))?;
        self.serving.replace(metadata);
        self.replace_table(position);
        self.observer.note(Observation::Replaced);
        self.serving.set_ready();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let snapshots = self.snapshots.clone();
        match blocking(move || snapshots.read()).await {
            Ok(Some((meta, body))) => Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(body)) })),
            Ok(None) => Ok(None),
            Err(error) => {
                // openraft then builds another where it needs one.
                tracing::warn!(%error, "the snapshot cannot be read");
                Ok(None)
            }
        }
    }
}
