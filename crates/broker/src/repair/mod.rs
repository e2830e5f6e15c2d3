//! Repair: what this broker's disk has lost is fetched from the other replicas and written where it was.
//!
//! ```text
//!  fetch, replication ── damage met while reading ──┐
//!  scrub ── damage found while nobody reads ────────┼─► live: one task per partition ──► donors ── FetchBatches ──► brokers
//!  shard ── a log that cannot be opened ────────────┴─► opening ───────────────────────►   ▲
//!                                                                                give ─────┘ the same for the others
//! ```
//! What belongs where is proved in `holdfast_log::repair`; which batches are committed, by whoever gives them (below its
//! high watermark). A damaged batch is never served: not to consumers, not to followers, not to who repairs.
//!
//! Invariants: one task per partition, and a few at a time of open logs, and of others, each with a bounded number of bytes. One
//! that waits for others to come up holds nothing, and takes nobody's turn. A replica whose log is repaired before it is opened
//! answers nobody: it is down, as far as the rules know.

mod donors;
mod give;
mod live;
mod opening;
mod scrub;
mod stats;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::metadata::ClusterMap;
use holdfast_core::{Offset, PartitionId, ReplicaId};
use holdfast_log::LogError;
use holdfast_proto::transport::Tls;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::data_dir::DataDir;
use crate::partition::{Partitions, ShardSenders};
use donors::Donors;
use live::Running;
use stats::Stats;

pub(crate) use give::Wanted;
pub(crate) use live::Outcome;
pub(crate) use opening::{Damaged, OpeningRepair, Repaired};
pub(crate) use scrub::scrub;

/// Partitions that are repaired at once: so many that are open, and so many that are not.
const AT_ONCE: usize = 4;

/// What repairing needs of the broker.
pub(crate) struct RepairContext {
    pub(crate) cluster: String,
    pub(crate) me: ReplicaId,
    pub(crate) tls: Option<Tls>,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    pub(crate) partitions: Partitions,
    pub(crate) shards: ShardSenders,
    /// Where it runs.
    pub(crate) runtime: Handle,
}

/// Repairs logs, and gives others what they need for theirs. Clones share it.
#[derive(Clone)]
pub(crate) struct Repairs {
    inner: Arc<Inner>,
}

struct Inner {
    dir: Arc<DataDir>,
    partitions: Partitions,
    shards: ShardSenders,
    runtime: Handle,
    donors: Donors,
    /// Repairs of open logs that are under way.
    running: Mutex<BTreeMap<PartitionId, Running>>,
    /// Logs that are not open because they are damaged, with the end of what is known to be committed in them.
    closed: Mutex<BTreeMap<PartitionId, Offset>>,
    /// Open logs of which something is damaged that nobody gave, as far as is known.
    unrepaired: Mutex<BTreeSet<PartitionId>>,
    room: Semaphore,
    /// For logs that are not open. Their own: a full disk holds all of them up, and those that are open can be repaired.
    room_closed: Arc<Semaphore>,
    stats: Stats,
}

impl Repairs {
    pub(crate) fn new(context: RepairContext) -> Repairs {
        let RepairContext { cluster, me, tls, dir, map, partitions, shards, runtime } = context;
        let inner = Inner {
            dir,
            partitions,
            shards,
            runtime,
            donors: Donors::new(cluster, me, tls, map),
            running: Mutex::default(),
            closed: Mutex::default(),
            unrepaired: Mutex::default(),
            room: Semaphore::new(AT_ONCE),
            room_closed: Arc::new(Semaphore::new(AT_ONCE)),
            stats: Stats::default(),
        };
        Repairs { inner: Arc::new(inner) }
    }

    /// How many damaged ranges were repaired.
    pub(crate) fn count(&self) -> u64 {
        self.inner.stats.repaired.get()
    }

    /// How many replicas are damaged, and were not repaired yet.
    pub(crate) fn damaged(&self) -> usize {
        let open = lock(&self.inner.unrepaired)
            .iter()
            .filter(|id| self.inner.partitions.get(**id).is_some())
            .count();
        open + lock(&self.inner.closed).len()
    }
}

/// Whether that is said of a log that other replicas may help to repair: damaged, or not to be read from the disk.
pub(crate) fn is_repairable(error: &LogError) -> bool {
    matches!(error, LogError::Corrupt { .. } | LogError::Io { .. })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
