//! The applied state in sled: what a restart begins with. Only here is sled named.
//!
//! sled 0.34 may silently give back an older or partial state after a power cut, so nothing here is relied on: every
//! value carries its checksum, the head carries count and digest of the whole map, and whoever finds a difference
//! throws the folder away; log and snapshot have everything.
//!
//! Invariant: one batch in one tree per change, hence head and objects always belong together. No value exceeds
//! `MAX_VALUE`; larger ones would go to files that sled never syncs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_core::metadata::{ClusterMap, MapError, Metadata, Object, Update};
use serde::{Deserialize, Serialize};

use super::crc32c;

const MAX_VALUE: usize = 4 << 10;
/// sled takes a gigabyte by default.
const CACHE_BYTES: u64 = 8 << 20;
/// How long another holder's lock is waited for: a process that was just killed may still be exiting.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

const HEAD: &[u8] = b"h";
const BROKER: u8 = b'b';
const TOPIC: u8 = b't';
const PARTITION: u8 = b'p';

/// Why the table could not be opened, read or written. The answer is always to begin anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    #[error("table folder: {0}")]
    Io(#[from] io::Error),
    #[error("value of {found} bytes exceeds {MAX_VALUE}")]
    TooLarge { found: usize },
    #[error("a value fails its checksum")]
    Checksum,
    #[error("a value cannot be read: {0}")]
    Postcard(#[from] postcard::Error),
    #[error("{0}")]
    Map(#[from] MapError),
}

/// What belongs to the state besides the map's objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    index: u64,
    entry_count: u64,
    digest: u64,
    next_producer_id: i64,
    /// Last applied log id and membership, as the caller encodes them.
    position: Vec<u8>,
}

/// A change that is written in one piece.
#[derive(Debug, Default)]
pub(crate) struct Change {
    values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    tree: sled::Tree,
    // Dropped after the tree: the last handle frees sled's lock.
    _db: sled::Db,
}

impl Table {
    /// Opens or creates the table in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Table, TableError> {
        remove_leftovers(dir)?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            let opened = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).open();
            match opened {
                Ok(db) => return Ok(Table { tree: db.open_tree("applied")?, _db: db }),
                Err(error) if is_locked(&error) && Instant::now() < until => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes the folder and begins anew.
    pub(crate) fn recreate(dir: &Path) -> Result<Table, TableError> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Table::open(dir),
        }
    }

    /// The state and the caller's position; `None` for a new table.
    pub(crate) fn load(&self) -> Result<Option<(Metadata, Vec<u8>)>, TableError> {
        let Some(head) = self.tree.get(HEAD)? else { return Ok(None) };
        let head: Head = postcard::from_bytes(unseal(&head)?)?;
        let mut objects = Vec::new();
        for item in &self.tree {
            let (key, value) = item?;
            if &*key != HEAD {
                objects.push(postcard::from_bytes(unseal(&value)?)?);
            }
        }
        let update = Update {
            base: None,
            index: head.index,
            entry_count: head.entry_count,
            digest: head.digest,
            objects,
        };
        let mut map = ClusterMap::default();
        map.adopt(&update)?;
        Ok(Some((Metadata::from_parts(map, head.next_producer_id), head.position)))
    }

    /// Adds an update of the map to a change. A deleted topic takes its partitions along, as in the map.
    pub(crate) fn record(&self, change: &mut Change, update: &Update) -> Result<(), TableError> {
        for object in &update.objects {
            if let Object::Topic(topic) = object
                && topic.deleted
            {
                let prefix = [&[PARTITION], topic.id.to_bytes().as_slice()].concat();
                for key in self.tree.scan_prefix(&prefix).keys() {
                    change.values.insert(key?.to_vec(), None);
                }
                for (_, value) in
                    change.values.range_mut(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix))
                {
                    *value = None;
                }
            }
            change.values.insert(key_of(object), Some(seal(object)?));
        }
        Ok(())
    }

    /// Writes a change, after which the state is `metadata` at `position`. Not durable, and need not be.
    pub(crate) fn write(
        &self,
        mut change: Change,
        metadata: &Metadata,
        position: Vec<u8>,
    ) -> Result<(), TableError> {
        let map = metadata.map();
        let head = Head {
            index: map.index(),
            entry_count: map.entry_count(),
            digest: map.digest(),
            next_producer_id: metadata.next_producer_id(),
            position,
        };
        change.values.insert(HEAD.to_vec(), Some(seal(&head)?));
        let mut batch = sled::Batch::default();
        for (key, value) in change.values {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.tree.apply_batch(batch)?)
    }

    /// Replaces everything by `metadata` at `position`.
    pub(crate) fn replace(&self, metadata: &Metadata, position: Vec<u8>) -> Result<(), TableError> {
        let mut change = Change::default();
        for key in self.tree.iter().keys() {
            change.values.insert(key?.to_vec(), None);
        }
        for object in &metadata.map().snapshot().objects {
            change.values.insert(key_of(object), Some(seal(object)?));
        }
        self.write(change, metadata, position)
    }
}

/// A crash of sled while it writes its own snapshot leaves one that it cannot open. It rebuilds them from its log.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("snap.") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// sled says so only in words.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error)
        if error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock"))
}

/// Keys sort by kind and identity.
fn key_of(object: &Object) -> Vec<u8> {
    match object {
        Object::Broker(broker) => [&[BROKER], broker.id.0.to_be_bytes().as_slice()].concat(),
        Object::Topic(topic) => [&[TOPIC], topic.id.to_bytes().as_slice()].concat(),
        Object::Partition(partition) => {
            let id = partition.id;
            [&[PARTITION], id.topic.to_bytes().as_slice(), &id.index.to_be_bytes()].concat()
        }
    }
}

/// A value behind its checksum.
fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, TableError> {
    let mut bytes = postcard::to_extend(value, vec![0; 4])?;
    if bytes.len() > MAX_VALUE {
        return Err(TableError::TooLarge { found: bytes.len() });
    }
    let checksum = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn unseal(bytes: &[u8]) -> Result<&[u8], TableError> {
    let (checksum, value) = bytes.split_at_checked(4).ok_or(TableError::Checksum)?;
    if checksum == crc32c(value).to_le_bytes() { Ok(value) } else { Err(TableError::Checksum) }
}

#[cfg(test)]
mod tests;
