//! What a seed decides before anything happens: the cluster, its network and disks, the load, and which faults.

use std::time::Duration;

use holdfast_core::metadata::Durability;
use holdfast_log::{ByteSize, LogConfig};

use crate::random::Random;

/// One simulated run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Brokers, dealt out to the zones in turn.
    pub brokers: usize,
    /// Zones.
    pub zones: usize,
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
    /// How long disks take, and how they are laid out.
    pub disk: DiskPlan,
    /// Whether leaders trim their logs now and then.
    pub trims: bool,
    /// Of how many keys a producer chooses one for each record, where logs are compacted; 0 where they are not.
    pub keys: u64,
    /// Whether replica sets change.
    pub moves: bool,
    /// Whether a majority may forget at once what it acknowledged, or lose its disks where replica sets change, and an
    /// operator then orders an unclean recovery (R37).
    pub unclean: bool,
    /// What goes wrong, with its weight.
    pub faults: Vec<(FaultKind, u32)>,
    /// Mean time between faults.
    pub fault_interval: Duration,
    /// How long faults go on.
    pub chaos: Duration,
    /// How the faults end.
    pub healing: Healing,
    /// How long the healed cluster may take to write everything everywhere.
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
    /// Whether messages of one connection keep their order, as on a stream. Those of two never do.
    pub ordered: bool,
}

/// How long a disk takes, in microseconds, and how the logs on it are laid out, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct DiskPlan {
    /// Longest flush.
    pub flush: u64,
    /// Longest persist of a replica's state.
    pub persist: u64,
    /// Size at which a segment is sealed.
    pub segment_size: u64,
    /// Bytes of log per entry of a segment's index.
    pub index_interval: u64,
}

impl DiskPlan {
    pub(crate) fn log_config(&self) -> LogConfig {
        LogConfig {
            segment_size: ByteSize(self.segment_size),
            index_interval: ByteSize(self.index_interval),
            ..LogConfig::default()
        }
    }
}

/// How the faults end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healing {
    /// Everything comes back.
    Whole,
    /// A zone stays dead while the others finish everything; then it comes back too.
    WithoutZone,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A process dies; what it wrote stays.
    Crash,
    /// A process dies between two of its actions.
    CrashMidway,
    /// All processes die at once.
    CrashAll,
    /// A process ends in order and is started again.
    Restart,
    /// A machine loses power: what was not flushed may be gone.
    PowerCut,
    /// A machine loses power, and once more while its process starts.
    PowerCutStarting,
    /// All machines of a zone lose power.
    ZonePowerCut,
    /// All machines lose power at once.
    PowerCutAll,
    /// All processes of a zone die, come back and die again, several times.
    ZoneFlaps,
    /// A process stands still, and goes on with what piled up.
    Pause,
    /// All processes of a zone stand still.
    ZonePause,
    /// A broker is cut off from the others, both ways.
    Isolate,
    /// A broker hears the others, and is not heard.
    Mute,
    /// A broker is heard, and hears nobody.
    Deaf,
    /// Messages get lost in one direction between two brokers.
    CutOneWay,
    /// The brokers fall into two halves, and one broker hears both.
    Bridge,
    /// A zone is cut off from the other zones and from the controllers.
    ZoneCut,
    /// A connection breaks and is opened again.
    Reset,
    /// No controller can be reached for some time.
    ControllerDown,
    /// No controller can be reached for longer than anything else takes.
    ControllerGone,
    /// One broker cannot reach the controller, which thinks it dead.
    ControllerCut,
    /// Another controller leads, and knows nothing but the register.
    ControllerFailover,
    /// A command of before is proposed once more.
    StaleCommand,
    /// The controller takes a living broker for dead.
    FalseVerdict,
    /// The controller appoints another leader for no reason.
    Reappoint,
    /// An operation on a log or on the promises fails.
    DiskError,
    /// A bit turns below what is flushed.
    Rot,
    /// A machine loses power, and a bit turns above what was flushed.
    RotTail,
    /// A disk is very slow for a while.
    SlowDisk,
    /// A replica set is to move.
    Move,
    /// A move is called off.
    CancelMove,
    /// A broker is drained, stopped in order and started again.
    Drain,
    /// A data directory is lost; the broker comes back with an empty one.
    Wipe,
    /// The data directories of most brokers are lost at once; one replica of each partition is left.
    WipeMost,
}

impl FaultKind {
    const ALL: [FaultKind; 33] = {
        use FaultKind::*;
        [
            Crash,
            CrashMidway,
            CrashAll,
            Restart,
            PowerCut,
            PowerCutStarting,
            ZonePowerCut,
            PowerCutAll,
            ZoneFlaps,
            Pause,
            ZonePause,
            Isolate,
            Mute,
            Deaf,
            CutOneWay,
            Bridge,
            ZoneCut,
            Reset,
            ControllerDown,
            ControllerGone,
            ControllerCut,
            ControllerFailover,
            StaleCommand,
            FalseVerdict,
            Reappoint,
            DiskError,
            Rot,
            RotTail,
            SlowDisk,
            Move,
            CancelMove,
            Drain,
            Wipe,
        ]
    };

    /// Whether acknowledged data may vanish from one disk by it, whatever the durability.
    pub(crate) fn loses(self, durability: Durability) -> bool {
        let power = [
            FaultKind::PowerCut,
            FaultKind::PowerCutStarting,
            FaultKind::ZonePowerCut,
            FaultKind::PowerCutAll,
            FaultKind::RotTail,
        ];
        let always =
            matches!(self, FaultKind::DiskError | FaultKind::Rot | FaultKind::Wipe | FaultKind::WipeMost);
        always || (durability == Durability::Memory && power.contains(&self))
    }

    /// Whether a replica set changes by it.
    fn moves(self) -> bool {
        matches!(self, FaultKind::Move | FaultKind::CancelMove | FaultKind::Wipe | FaultKind::WipeMost)
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(random: &mut Random) -> Plan {
        let replicas = random.pick(&[3, 3, 3, 3, 3, 3, 5, 1]).unwrap_or(3);
        let durability = if random.chance(500) { Durability::Disk } else { Durability::Memory };
        let moves = replicas > 1 && random.chance(400);
        let forgets = moves || durability == Durability::Memory;
        let unclean = replicas > 1 && forgets && random.chance(300);
        let spare = if moves { random.between(0, 3) as usize } else { 0 };
        let plan = Plan {
            brokers: replicas + spare,
            zones: replicas,
            replicas,
            partitions: random.between(1, 2) as usize,
            durability,
            producers: random.between(1, 3) as usize,
            batches: random.between(30, 120) as u32,
            write_interval: random.micros(20_000, 300_000),
            network: network_of_seed(random),
            disk: disk_of_seed(random),
            trims: random.chance(500),
            keys: 0,
            moves,
            unclean,
            faults: faults_of_seed(random, replicas, moves, unclean),
            fault_interval: random.micros(100_000, 1_500_000),
            chaos: random.micros(5_000_000, 20_000_000),
            healing: if replicas > 1 && random.chance(300) { Healing::WithoutZone } else { Healing::Whole },
            settle: Duration::from_secs(60),
        };
        // Drawn last: the seeds that compact nothing stay what they were.
        if random.chance(400) { plan.compacting(random) } else { plan }
    }

    /// The same, with logs that are compacted. Nothing is cleaned but sealed segments: there have to be some.
    fn compacting(self, random: &mut Random) -> Plan {
        let segment_size = self.disk.segment_size.min(random.pick(&[300, 600, 2_000]).unwrap_or(600));
        Plan { keys: random.between(2, 60), disk: DiskPlan { segment_size, ..self.disk }, ..self }
    }

    /// Whether flushed data may vanish from a disk.
    pub(crate) fn destroys(&self) -> bool {
        self.faults.iter().any(|(kind, _)| kind.loses(Durability::Disk))
    }

    /// Whether acknowledged data may vanish from a disk.
    pub(crate) fn loses(&self) -> bool {
        self.faults.iter().any(|(kind, _)| kind.loses(self.durability))
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

fn disk_of_seed(random: &mut Random) -> DiskPlan {
    DiskPlan {
        flush: random.between(200, 20_000),
        persist: random.between(200, 20_000),
        segment_size: random.pick(&[300, 1_000, 4_000, 1 << 20]).unwrap_or(1 << 20),
        index_interval: random.pick(&[64, 200, 4_096]).unwrap_or(4_096),
    }
}

/// Each seed plays with some of the faults only, so that each is also seen without the others.
fn faults_of_seed(random: &mut Random, replicas: usize, moves: bool, unclean: bool) -> Vec<(FaultKind, u32)> {
    let often = random.between(150, 500) as u32;
    let mut faults = Vec::new();
    for kind in FaultKind::ALL {
        if random.chance(often) {
            faults.push((kind, random.between(1, 5) as u32));
        }
    }
    faults.retain(|(kind, _)| moves || !kind.moves());
    if moves {
        faults.push((FaultKind::Move, 4));
    }
    if unclean {
        faults.push((FaultKind::PowerCutAll, 2));
        if moves {
            faults.push((FaultKind::WipeMost, 2));
        } else if random.chance(600) {
            faults.retain(|(kind, _)| !kind.loses(Durability::Disk));
        }
    }
    if replicas == 1 {
        // One copy: nothing that takes it away can be survived.
        faults.retain(|(kind, _)| !kind.loses(Durability::Disk));
    }
    faults
}
