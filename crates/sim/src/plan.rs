//! What a seed decides before anything happens: the cluster, its network and disks, the load, and which faults.

use std::time::Duration;

use holdfast_core::metadata::Durability;

use crate::random::Random;

/// One simulated run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Brokers, each in a zone of its own.
    pub brokers: usize,
    /// Replicas of each partition.
    pub replicas: usize,
    /// Partitions.
    pub partitions: usize,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Producers of each partition.
    pub producers: usize,
    /// Batches of each producer.
    pub batches: u32,
    /// Mean time between two bursts of a producer.
    pub write_interval: Duration,
    /// How messages travel while faults go on.
    pub network: NetworkPlan,
    /// How long disks take.
    pub disk: DiskPlan,
    /// What goes wrong, with its weight.
    pub faults: Vec<(FaultKind, u32)>,
    /// Mean time between faults.
    pub fault_interval: Duration,
    /// How long faults go on.
    pub chaos: Duration,
    /// How long the healed cluster may take to finish everything.
    pub settle: Duration,
}

/// How messages between brokers travel.
#[derive(Debug, Clone, Copy)]
pub struct NetworkPlan {
    /// Shortest and longest delay, in microseconds.
    pub delay: (u64, u64),
    /// Messages lost, of a thousand.
    pub loss: u32,
    /// Messages that arrive twice, of a thousand; the second time up to seconds later.
    pub duplication: u32,
    /// Whether messages of one connection keep their order, as on a stream.
    pub ordered: bool,
}

/// How long a disk takes, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct DiskPlan {
    /// Longest flush.
    pub flush: u64,
    /// Longest persist of a replica's state.
    pub persist: u64,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A process dies; what it wrote stays.
    Crash,
    /// A process dies between two of its actions.
    CrashMidway,
    /// A machine loses power: what was not flushed may be gone.
    PowerCut,
    /// All processes die at once.
    CrashAll,
    /// A broker is cut off from the others, both ways.
    Isolate,
    /// Messages get lost in one direction between two brokers.
    CutOneWay,
    /// A connection breaks and is opened again.
    Reset,
    /// No controller can be reached for long.
    ControllerDown,
    /// One broker cannot reach the controller, which thinks it dead.
    ControllerCut,
    /// The controller takes a living broker for dead.
    FalseVerdict,
    /// The controller appoints another leader for no reason.
    Reappoint,
    /// A log fails and may lose anything.
    StorageFailure,
    /// A disk is very slow for a while.
    SlowDisk,
}

const ALL_FAULTS: [FaultKind; 13] = [
    FaultKind::Crash,
    FaultKind::CrashMidway,
    FaultKind::PowerCut,
    FaultKind::CrashAll,
    FaultKind::Isolate,
    FaultKind::CutOneWay,
    FaultKind::Reset,
    FaultKind::ControllerDown,
    FaultKind::ControllerCut,
    FaultKind::FalseVerdict,
    FaultKind::Reappoint,
    FaultKind::StorageFailure,
    FaultKind::SlowDisk,
];

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(random: &mut Random) -> Plan {
        let replicas = random.pick(&[3, 3, 3, 3, 3, 3, 5, 1]).unwrap_or(3);
        let durability = if random.chance(500) { Durability::Disk } else { Durability::Memory };
        Plan {
            brokers: if replicas == 1 { 1 } else { replicas },
            replicas,
            partitions: random.between(1, 2) as usize,
            durability,
            producers: random.between(1, 3) as usize,
            batches: random.between(30, 120) as u32,
            write_interval: random.micros(20_000, 300_000),
            network: network_of_seed(random),
            disk: DiskPlan { flush: random.between(200, 20_000), persist: random.between(200, 20_000) },
            faults: faults_of_seed(random, replicas),
            fault_interval: random.micros(100_000, 1_500_000),
            chaos: random.micros(5_000_000, 20_000_000),
            settle: Duration::from_secs(90),
        }
    }

    /// A calm cluster of three, for directed tests.
    pub fn calm(durability: Durability) -> Plan {
        Plan {
            brokers: 3,
            replicas: 3,
            partitions: 1,
            durability,
            producers: 1,
            batches: 20,
            write_interval: Duration::from_millis(50),
            network: NetworkPlan { delay: (200, 2_000), loss: 0, duplication: 0, ordered: true },
            disk: DiskPlan { flush: 2_000, persist: 2_000 },
            faults: Vec::new(),
            fault_interval: Duration::from_secs(1),
            chaos: Duration::from_secs(2),
            settle: Duration::from_secs(30),
        }
    }
}

fn network_of_seed(random: &mut Random) -> NetworkPlan {
    let ordered = random.chance(500);
    NetworkPlan {
        delay: (100, random.between(500, 30_000)),
        loss: if ordered { 0 } else { random.between(0, 150) as u32 },
        duplication: if ordered { 0 } else { random.between(0, 200) as u32 },
        ordered,
    }
}

/// Each seed plays with some of the faults only, so that each is also seen without the others.
fn faults_of_seed(random: &mut Random, replicas: usize) -> Vec<(FaultKind, u32)> {
    let mut faults: Vec<(FaultKind, u32)> =
        ALL_FAULTS.into_iter().filter(|_| random.chance(500)).map(|kind| (kind, 1)).collect();
    for (_, weight) in &mut faults {
        *weight = random.between(1, 5) as u32;
    }
    if replicas == 1 {
        // One copy: nothing that takes it away can be survived.
        faults.retain(|(kind, _)| !matches!(kind, FaultKind::StorageFailure));
    }
    faults
}
