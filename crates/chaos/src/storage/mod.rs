//! Faults of disks and of the power: real file systems on loop devices under real processes, broken under load.
//!
//! ```text
//!  run: one row a fault ─► machines (a disk and boots for each zone) ─► stage: cluster + load ─► fault ─► row
//!                                                                          │
//!                                         checker, log verify, replicas compared byte by byte ◄┘
//! ```
//! Beside what the checker says of the history, no reader may be given a byte that nobody sent, and in the end
//! `holdfast log verify` must find nothing in any broker's folder, and all replicas must be the same.

mod bad_calls;
mod ballast;
mod bit_flips;
mod controller_full;
mod disk;
mod disk_full;
mod fetches;
mod flips;
mod lost_writeback;
pub(crate) mod machines;
pub(crate) mod mounts;
mod power;
mod replicas;
pub(crate) mod report;
mod row;
pub(crate) mod run;
pub(crate) mod tools;
mod tracer;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use crate::clock::Micros;
use crate::cluster::Which;
use crate::cluster::process::{Process, Role};
use crate::error::{ChaosError, chain};
use crate::faults::Check;
use crate::load::INTERVAL;
use crate::load::probe::Pace;
use crate::stage::Stage;
use crate::zone::Zone;
use disk::Kind;
use machines::Machines;
use row::{Limits, Struck};

/// Bytes of a record: disks are to hold something worth breaking.
const RECORD: usize = 1024;
/// The same where a small share of all bytes is broken.
const LARGE_RECORD: usize = 4096;
/// What a client waits for an outcome where it is to report refusals, instead of trying on.
const DELIVERY: Duration = Duration::from_millis(4500);
/// Everything is whole again by then.
const WHOLE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Pause between two looks whether a process has ended, while everything becomes whole.
const LOOK_LONG: Duration = Duration::from_millis(500);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageFault {
    /// A zone loses power: whatever its kernel had not written is gone.
    PowerZone,
    /// All zones lose power at once.
    PowerAll,
    /// One bit in 100 000 bytes turns in one replica's segments, by turns while the broker runs and while it is stopped.
    BitFlips,
    /// A zone's disk is full for 15 s.
    DiskFull,
    /// The disk of the leading controller is full for 15 s, while topics are changed.
    ControllerDiskFull,
    /// Every flush of a broker fails with EIO for 2 s.
    FlushEio,
    /// Every write of a broker fails with ENOSPC, in bursts.
    WriteEnospc,
    /// A zone's disk has less space than it says: writes are taken, and fail when they are written back.
    LostWriteback,
}

impl StorageFault {
    /// As it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            StorageFault::PowerZone => "power-zone",
            StorageFault::PowerAll => "power-all",
            StorageFault::BitFlips => "bit-flips",
            StorageFault::DiskFull => "disk-full",
            StorageFault::ControllerDiskFull => "controller-disk-full",
            StorageFault::FlushEio => "flush-eio",
            StorageFault::WriteEnospc => "write-enospc",
            StorageFault::LostWriteback => "lost-writeback",
        }
    }

    /// What it may cost.
    fn limits(self) -> Limits {
        let limits = |serving, whole| Limits {
            serving: Duration::from_secs(serving),
            whole: Duration::from_secs(whole).min(WHOLE),
        };
        match self {
            StorageFault::PowerZone | StorageFault::PowerAll | StorageFault::BitFlips => limits(60, 60),
            StorageFault::DiskFull | StorageFault::ControllerDiskFull => limits(10, 10),
            StorageFault::FlushEio => limits(1, 60),
            StorageFault::WriteEnospc | StorageFault::LostWriteback => limits(10, 60),
        }
    }

    fn disks(self) -> Kind {
        if self == StorageFault::LostWriteback { Kind::Overcommitted } else { Kind::Sound }
    }

    fn needs_tracer(self) -> bool {
        matches!(self, StorageFault::FlushEio | StorageFault::WriteEnospc)
    }

    fn pace(self) -> Pace {
        let delivery_timeout = (self == StorageFault::DiskFull).then_some(DELIVERY);
        let size = if self == StorageFault::BitFlips { LARGE_RECORD } else { RECORD };
        Pace { interval: INTERVAL, delivery_timeout, size }
    }

    /// Does it once, and heals it.
    async fn inject(self, scene: &mut Scene<'_>, round: u32) -> Result<Struck, ChaosError> {
        match self {
            StorageFault::PowerZone => power::zone(scene).await,
            StorageFault::PowerAll => power::all(scene).await,
            StorageFault::BitFlips => bit_flips::inject(scene, round).await,
            StorageFault::DiskFull => disk_full::inject(scene).await,
            StorageFault::ControllerDiskFull => controller_full::inject(scene).await,
            StorageFault::FlushEio => bad_calls::flush_eio(scene, round).await,
            StorageFault::WriteEnospc => bad_calls::write_enospc(scene, round).await,
            StorageFault::LostWriteback => lost_writeback::inject(scene).await,
        }
    }
}

/// A cluster under load on machines whose disks can be broken.
#[derive(Debug)]
struct Scene<'a> {
    /// Ends before the machines do: as long as processes run, disks cannot be unmounted.
    stage: Stage<'a>,
    machines: Machines,
    /// Whether every fault does something beside that no protocol survives: to see that the judgement notices.
    spoil: bool,
}

impl Scene<'_> {
    fn process(&mut self, role: Role, zone: Zone) -> Result<&mut Process, ChaosError> {
        let missing = || ChaosError::Process {
            process: format!("{role}-{zone}"),
            problem: "is not there".to_owned(),
            log: PathBuf::new(),
        };
        self.stage.cluster.process(role, zone).ok_or_else(missing)
    }

    /// Where the broker of a zone keeps its logs.
    fn broker_data(&mut self, zone: Zone) -> Result<PathBuf, ChaosError> {
        Ok(self.process(Role::Broker, zone)?.data().to_owned())
    }

    /// The process id of the broker of a zone.
    fn broker_pid(&mut self, zone: Zone) -> Result<u32, ChaosError> {
        let broker = self.process(Role::Broker, zone)?;
        broker.pid().ok_or_else(|| broker.problem("does not run"))
    }

    /// How long after a moment the last partition acknowledged again; where one does not within the limit, that limit and
    /// more.
    async fn served(&self, since: Micros, limit: Duration) -> Duration {
        let partitions = self.stage.partitions();
        self.stage.acks_again(&partitions, since, limit).await;
        let acks = &self.stage.load.acks;
        let first = |partition: &u32| acks.first_since(*partition, since).unwrap_or_else(Micros::now);
        partitions.iter().map(|partition| first(partition).since(since)).max().unwrap_or_default()
    }

    /// How long after a moment none of the partitions was led in the zone any more; where that does not come about
    /// within the limit, that limit and more.
    async fn led_elsewhere(&self, zone: Zone, moved: &[u32], since: Micros, limit: Duration) -> Duration {
        let deadline = Instant::now() + limit;
        loop {
            let led = self.stage.observer.led_in(zone);
            let elsewhere = !moved.iter().any(|partition| led.contains(partition));
            if elsewhere || Instant::now() >= deadline {
                return Micros::now().since(since);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until everything is whole without anybody's help, up to a limit. Where it does not come about, or a process
    /// ends, why not.
    async fn whole_alone(&mut self, limit: Duration) -> Option<ChaosError> {
        let deadline = Instant::now() + limit;
        loop {
            let redundant = self.stage.observer.await_redundant(LOOK_LONG).await;
            if let Some(fallen) = self.stage.cluster.fallen() {
                return Some(fallen);
            }
            match redundant {
                Ok(()) => return None,
                Err(error) if Instant::now() >= deadline => return Some(error),
                Err(_) => {}
            }
        }
    }

    /// The end of a fault: when everything was whole again. Where that takes help, the fault has broken what it must not
    /// break; all processes are killed and started, so that the rest can be judged.
    async fn whole(&mut self, checks: &mut Vec<Check>) -> Result<Micros, ChaosError> {
        let Some(why) = self.whole_alone(WHOLE).await else { return Ok(Micros::now()) };
        checks.push(Check::of("everything is whole again by itself", false, chain(&why)));
        self.stage.cluster.kill(Which::ALL).await?;
        self.stage.cluster.start(self.stage.network, Which::ALL).await?;
        self.stage.healed().await
    }
}
