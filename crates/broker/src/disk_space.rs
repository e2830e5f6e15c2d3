//! How much room there is on the disk, and what is refused for want of it.
//!
//! ```text
//!   0             reserve / 4                 reserve                         free bytes ──►
//!   ├─ Level::Last ────┼─ Level::Reserve ─────────┼─ Level::Enough ──────────────────────────
//!   │ nothing that     │ no records of clients    │ everything
//!   │ others replicate │
//! ```
//! Reading, promises, markers, deletions and what is known of logs go on down to the last byte: that is what the reserve
//! is for. To leave a level takes an eighth more than to enter it, so that nothing flickers.
//!
//! Asked of the file system four times a second. What it says is not all: inodes, and quotas, run out as well. So a write that
//! failed for want of room counts like a touched reserve, until one goes well or none has failed for a while.

mod reserve;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::replication::{Envelope, Event, FetchKind, Message, ProduceError};
use holdfast_log::{ByteSize, Space, Volume};
use tokio::sync::{Notify, watch};

pub use reserve::{DiskReserve, ParseDiskReserveError};

use crate::data_dir::DataDir;

const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a write that failed counts. Whoever waits for room tries again more often.
const DENIED_FOR: Duration = Duration::from_secs(2);
/// Part of the reserve that is kept from other brokers' records as well.
const LAST_PART: u64 = 4;
/// Part of a mark that has to be free above it before it counts as left behind.
const MARGIN_PART: u64 = 8;

/// How far the room goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// For everything.
    Enough,
    /// Not for records of clients.
    Reserve,
    /// Not for records at all.
    Last,
}

/// What was found last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) level: Level,
    /// Bytes.
    pub(crate) free: u64,
    /// Bytes.
    pub(crate) reserve: u64,
}

/// The room on the data folder's file system. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct DiskSpace {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    volume: Arc<dyn Volume>,
    reserve: DiskReserve,
    room: watch::Sender<Room>,
    found: Mutex<Found>,
    look: Notify,
}

#[derive(Debug)]
struct Found {
    space: Space,
    /// What follows from that alone.
    level: Level,
    /// When a write failed for want of room.
    denied: Option<Instant>,
}

impl DiskSpace {
    /// Looks once; [`run`](Self::run) goes on looking.
    pub(crate) fn open(dir: &DataDir, reserve: DiskReserve) -> io::Result<DiskSpace> {
        let volume = dir.fs().volume(&dir.file("partitions"))?;
        let space = volume.space()?;
        let room = Room { level: Level::Enough, free: space.free, reserve: reserve.of(space) };
        let (room, found) =
            (watch::Sender::new(room), Mutex::new(Found { space, level: Level::Enough, denied: None }));
        let opened =
            DiskSpace { shared: Arc::new(Shared { volume, reserve, room, found, look: Notify::new() }) };
        opened.judge(|_| {});
        Ok(opened)
    }

    /// Looks again and again; ends with the runtime.
    pub(crate) async fn run(self) {
        loop {
            let volume = Arc::clone(&self.shared.volume);
            // A disk that hangs holds up nobody here.
            let Ok(found) = tokio::task::spawn_blocking(move || volume.space()).await else { return };
            match found {
                Ok(space) => self.judge(|found| found.space = space),
                Err(error) => tracing::warn!(%error, "the disk does not say how much room there is"),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = self.shared.look.notified() => {}
            }
        }
    }

    /// Takes in what was found, and says what follows from it.
    fn judge(&self, take: impl FnOnce(&mut Found)) {
        let mut found = lock(&self.shared.found);
        take(&mut found);
        let Found { space, denied, .. } = *found;
        let reserve = self.shared.reserve.of(space);
        found.level = found.level.next(space.free, reserve);
        let level = match found.level {
            Level::Enough if denied.is_some_and(|at| at.elapsed() < DENIED_FOR) => Level::Reserve,
            level => level,
        };
        self.shared.room.send_if_modified(|known| {
            let before = std::mem::replace(known, Room { level, free: space.free, reserve });
            if before.level != level {
                known.tell();
            }
            before != *known
        });
    }

    /// A write failed for want of room.
    pub(crate) fn denied(&self) {
        self.judge(|found| found.denied = Some(Instant::now()));
        self.look();
    }

    /// A write went well that had failed for want of room.
    pub(crate) fn granted(&self) {
        self.judge(|found| found.denied = None);
        self.look();
    }

    /// Asks the file system now.
    pub(crate) fn look(&self) {
        self.shared.look.notify_one();
    }

    /// What was found last.
    pub(crate) fn room(&self) -> Room {
        *self.shared.room.borrow()
    }

    /// Changes with the room.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Room> {
        self.shared.room.subscribe()
    }
}

impl Level {
    fn next(self, free: u64, reserve: u64) -> Level {
        let below = |mark: u64, was_below: bool| {
            let margin = if was_below { mark / MARGIN_PART } else { 0 };
            free < mark.saturating_add(margin)
        };
        if below(reserve / LAST_PART, self == Level::Last) {
            Level::Last
        } else if below(reserve, self != Level::Enough) {
            Level::Reserve
        } else {
            Level::Enough
        }
    }
}

impl Room {
    /// Whether the reserve is touched.
    pub(crate) fn is_short(&self) -> bool {
        self.level != Level::Enough
    }

    /// Whether there is room for what other brokers replicate here, and for a replica that stands still to go on.
    pub(crate) fn takes_replicas(&self) -> bool {
        self.level != Level::Last
    }

    /// What a client's batch is refused with.
    pub(crate) fn refusal(&self) -> ProduceError {
        ProduceError::DiskFull { free: self.free, reserve: self.reserve }
    }

    /// Whether the event may be handed to its replica. One that brings records for which there is no room counts as lost
    /// on its way: the rules repeat it. Markers are taken: without them nobody could say that a new leader serves all.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        let brings_records = match event {
            Event::Receive(Envelope { message: Message::Data { batches, .. }, .. }) => {
                batches.iter().any(|batch| !batch.header().is_control())
            }
            _ => false,
        };
        self.takes_replicas() || !brings_records
    }

    /// What is sent of a message. While records are not taken nobody is asked for them again and again; and a leader that
    /// does not hear of this replica does not count on it. What the replica holds it acknowledges as ever, and to a leader
    /// whose marker it lacks it says where it stands.
    pub(crate) fn tame(&self, mut envelope: Envelope) -> Option<Envelope> {
        let asked_of = envelope.epoch;
        match &mut envelope.message {
            Message::Fetch { restart, position, kind, .. } if *restart && !self.takes_replicas() => {
                if *kind == FetchKind::Recover || position.epoch == asked_of {
                    return None;
                }
                *restart = false;
            }
            _ => {}
        }
        Some(envelope)
    }

    fn tell(&self) {
        let (free, reserve) = (rounded(self.free), rounded(self.reserve));
        match self.level {
            Level::Enough => tracing::info!(%free, %reserve, "there is room on the disk"),
            Level::Reserve => tracing::error!(
                %free, %reserve,
                "the disk is nearly full: no records are taken from clients until there is room; delete topics, or make \
                 room on it"
            ),
            Level::Last => tracing::error!(
                %free, %reserve,
                "the disk is full but for the last of its reserve: nothing is replicated here until there is room; delete \
                 topics, or make room on it"
            ),
        }
    }
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As people read it.
pub(crate) fn rounded(bytes: u64) -> ByteSize {
    let unit = if bytes >> 20 > 0 { 20 } else { 10 };
    ByteSize(bytes >> unit << unit)
}

#[cfg(test)]
mod tests;
