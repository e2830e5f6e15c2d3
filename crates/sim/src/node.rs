//! A broker in the simulated world: its process, its zone, and a disk for each replica.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_core::replication::{Replica, ReplicaConfig};
use holdfast_core::{DirId, Incarnation, ReplicaId, Timestamp};

use crate::controller::{Report, broker_id};
use crate::disk::Disk;
use crate::event_queue::{Happening, Run};
use crate::plan::Plan;
use crate::random::Random;

/// A replica and its disk.
#[derive(Debug)]
pub(crate) struct Slot {
    /// There while the process runs, once the register named it.
    pub(crate) replica: Option<Replica>,
    /// Survives the process.
    pub(crate) disk: Disk,
    /// The timer that counts; others are outdated.
    pub(crate) timer: Option<Timestamp>,
    /// Version of the register that this broker acts upon. Survives the process: a replica is deleted only once the map
    /// that names it no longer is on disk, so that an older one never makes it again (R46).
    pub(crate) version: u64,
    /// Replicas of the partition that this broker deleted.
    pub(crate) lives: u32,
    /// What it told the controllers last, in this run.
    pub(crate) report: Option<Report>,
}

/// A broker.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// Number of its zone.
    pub(crate) zone: usize,
    /// Its data directory.
    pub(crate) dir: DirId,
    /// Whether its process runs.
    pub(crate) running: bool,
    /// Number of reasons why its process stands still.
    pub(crate) paused: u32,
    /// What happened to it meanwhile.
    pub(crate) backlog: VecDeque<Happening>,
    /// The run of its process.
    pub(crate) incarnation: Incarnation,
    /// One slot per partition.
    pub(crate) slots: Vec<Slot>,
    /// Whether its disk takes very long.
    pub(crate) slow: bool,
    /// Whether nobody starts it: its zone is dead.
    pub(crate) stays_down: bool,
    pub(crate) random: Random,
}

impl Slot {
    fn new(plan: &Plan) -> Slot {
        let disk = Disk::new(plan.disk.log_config(), plan.durability);
        Slot { replica: None, disk, timer: None, version: 0, lives: 0, report: None }
    }

    /// The replica and all that it had are gone.
    pub(crate) fn clear(&mut self, plan: &Plan) {
        let (version, lives) = (self.version, self.lives + 1);
        *self = Slot { version, lives, ..Slot::new(plan) };
    }
}

impl Node {
    /// A broker whose process runs and has heard nothing yet.
    pub(crate) fn new(plan: &Plan, index: usize, seed: u64) -> Node {
        let mut random = Random::new(seed);
        Node {
            index,
            zone: index % plan.zones,
            dir: DirId(0xd0 + index as u64),
            running: true,
            paused: 0,
            backlog: VecDeque::new(),
            incarnation: Incarnation(random.word()),
            slots: (0..plan.partitions).map(|_| Slot::new(plan)).collect(),
            slow: false,
            stays_down: false,
            random,
        }
    }

    /// The present run of its process.
    pub(crate) fn run(&self) -> Run {
        Run { node: self.index, incarnation: self.incarnation }
    }

    /// Whether that run goes on.
    pub(crate) fn is_running(&self, run: Run) -> bool {
        self.running && run == self.run()
    }

    /// The identity of its replicas.
    pub(crate) fn replica_id(&self) -> ReplicaId {
        ReplicaId { broker: broker_id(self.index), dir: self.dir }
    }

    /// Whether a log failed in this run.
    pub(crate) fn has_failed_replica(&self) -> bool {
        self.slots.iter().any(|slot| slot.disk.failed())
    }

    /// Whether the replica here does not, or after a start will not, vote.
    pub(crate) fn is_at_risk(&self, partition: usize) -> bool {
        let slot = &self.slots[partition];
        slot.disk.is_at_risk() || slot.replica.as_ref().is_some_and(|replica| !replica.is_voter())
    }

    /// No more faults of its disks.
    pub(crate) fn make_whole(&mut self) {
        self.slow = false;
        for slot in &mut self.slots {
            slot.disk.mend();
        }
    }

    /// How long an operation takes: up to `longest` microseconds, or very long.
    pub(crate) fn disk_delay(&mut self, longest: u64) -> Duration {
        let delay = self.random.micros(50, longest);
        if self.slow { delay + self.random.micros(100_000, 2_000_000) } else { delay }
    }
}

/// The settings of every replica: small windows, so that reads are split and fill up.
pub(crate) fn config(plan: &Plan) -> ReplicaConfig {
    ReplicaConfig {
        durability: plan.durability,
        inflight_limit: 600,
        read_size: 300,
        flush_interval: Duration::from_millis(100),
        ..ReplicaConfig::default()
    }
}
