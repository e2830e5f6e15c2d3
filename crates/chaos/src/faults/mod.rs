//! What is done to the cluster. Each fault has a time limit, heals itself, and returns when everything is whole again.

mod black_hole;
mod bridge;
mod kill;
mod no_controllers;
mod one_way;
mod quiet;
mod rolling;
mod stop;
mod two_zones;

use std::time::Duration;

use clap::ValueEnum;

use crate::clock::Micros;
use crate::error::ChaosError;
use crate::load::probe::Pace;
use crate::load::{INTERVAL, value};
use crate::measure::gaps::Window;
use crate::network::injector::Cut;
use crate::stage::Stage;
use crate::zone::Zone;

/// Acknowledgements go on for this long before a killed zone is healed: a second outage would show.
const AFTERMATH: Duration = Duration::from_secs(2);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL of a zone, the leading controller elsewhere.
    Kill,
    /// SIGKILL of the zone with the leading controller.
    KillLeader,
    /// All packets of a zone vanish for 10 s.
    BlackHole,
    /// SIGSTOP of a zone, then SIGCONT.
    Stop,
    /// By turns: a zone hears nobody, nobody hears a zone.
    OneWay,
    /// Two zones do not see each other, the third sees both.
    Bridge,
    /// All controllers dead, then a zone's broker; then two controllers back.
    NoControllers,
    /// Kill, heal, kill another; at the end leaders go home.
    Rolling,
    /// Two zones dead, then back.
    TwoZones,
    /// No fault, full load on all cores.
    Quiet,
}

/// What a fault may cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// 99th percentile of the recovery times of the partitions struck.
    pub(crate) recovery_p99: Option<Duration>,
    /// Longest gap of a partition led elsewhere.
    pub(crate) elsewhere_max: Option<Duration>,
}

/// How long some faults last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    /// SIGSTOP.
    pub(crate) stop: Duration,
    /// Full load.
    pub(crate) quiet: Duration,
}

impl Lengths {
    /// How long this fault lasts by them.
    pub(crate) fn of(self, fault: Fault) -> Duration {
        match fault {
            Fault::Stop => self.stop,
            Fault::Quiet => self.quiet,
            _ => Duration::ZERO,
        }
    }
}

/// Something that has to hold beside the checker's verdict.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: &'static str,
    /// Whether it did.
    pub(crate) holds: bool,
    /// What was seen instead.
    pub(crate) seen: String,
}

impl Check {
    /// A check, with what was seen where it does not hold.
    pub(crate) fn of(name: &'static str, holds: bool, seen: String) -> Check {
        Check { name, holds, seen }
    }
}

/// A number that must not grow beyond a limit.
pub(crate) fn at_most(name: &'static str, number: u64, limit: u64) -> Check {
    Check::of(name, number <= limit, format!("{number}, allowed {limit}"))
}

/// One injection, as it went.
#[derive(Debug)]
pub(crate) struct Struck {
    /// Where.
    pub(crate) zone: Option<Zone>,
    /// Partitions that were led there.
    pub(crate) moved: Vec<u32>,
    /// When it was broken: gaps that overlap are recovery times.
    pub(crate) fault: Window,
    /// Recovery counts from here, where that is not the last acknowledgement before the fault.
    pub(crate) back_since: Option<Micros>,
    /// When partitions led elsewhere had to go on.
    pub(crate) elsewhere: Window,
    /// When it was mended, where that is not part of the fault.
    pub(crate) heal: Option<Window>,
    /// What else had to hold.
    pub(crate) checks: Vec<Check>,
}

impl Struck {
    /// A fault between two moments, which touched nobody.
    fn over(from: Micros, to: Micros) -> Struck {
        let fault = Window { from, to };
        Struck {
            zone: None,
            moved: Vec::new(),
            fault,
            back_since: None,
            elsewhere: fault,
            heal: None,
            checks: Vec::new(),
        }
    }

    /// All of it, healing included.
    pub(crate) fn whole(&self) -> Window {
        Window { from: self.fault.from, to: self.heal.map_or(self.fault.to, |heal| heal.to) }
    }
}

impl Fault {
    /// As it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::KillLeader => "kill-leader",
            Fault::BlackHole => "black-hole",
            Fault::Stop => "stop",
            Fault::OneWay => "one-way",
            Fault::Bridge => "bridge",
            Fault::NoControllers => "no-controllers",
            Fault::Rolling => "rolling",
            Fault::TwoZones => "two-zones",
            Fault::Quiet => "quiet",
        }
    }

    /// What it may cost.
    pub(crate) fn limits(self) -> Limits {
        let limits = |recovery, elsewhere: Option<u64>| Limits {
            recovery_p99: Some(Duration::from_millis(recovery)),
            elsewhere_max: elsewhere.map(Duration::from_millis),
        };
        match self {
            Fault::Kill => limits(250, Some(100)),
            Fault::KillLeader => limits(600, Some(100)),
            Fault::BlackHole | Fault::Stop | Fault::OneWay => limits(1500, None),
            Fault::Bridge | Fault::TwoZones => limits(10_000, None),
            Fault::NoControllers => limits(600, Some(1000)),
            Fault::Rolling => limits(600, None),
            Fault::Quiet => Limits::default(),
        }
    }

    /// A cut of the network that it makes.
    pub(crate) fn cut(self) -> Option<Cut> {
        match self {
            Fault::BlackHole => Some(Cut::Around(Zone::A)),
            Fault::OneWay => Some(Cut::Into(Zone::A)),
            Fault::Bridge => Some(Cut::Between(Zone::A, Zone::B)),
            _ => None,
        }
    }

    /// How the probe sends.
    pub(crate) fn pace(self) -> Pace {
        let delivery_timeout = (self == Fault::TwoZones).then_some(two_zones::DELIVERY);
        Pace { interval: INTERVAL, delivery_timeout, size: value::SIZE }
    }

    /// Does it once, and heals it.
    pub(crate) async fn inject(
        self,
        stage: &mut Stage<'_>,
        round: u32,
        lengths: Lengths,
    ) -> Result<Struck, ChaosError> {
        match self {
            Fault::Kill => kill::inject(stage, kill::Leader::Elsewhere).await,
            Fault::KillLeader => kill::inject(stage, kill::Leader::Inside).await,
            Fault::Rolling => kill::inject(stage, kill::Leader::Anywhere).await,
            Fault::BlackHole => black_hole::inject(stage).await,
            Fault::Stop => stop::inject(stage, lengths.stop).await,
            Fault::OneWay => one_way::inject(stage, round).await,
            Fault::Bridge => bridge::inject(stage).await,
            Fault::NoControllers => no_controllers::inject(stage).await,
            Fault::TwoZones => two_zones::inject(stage).await,
            Fault::Quiet => quiet::inject(stage, lengths.quiet).await,
        }
    }

    /// What has to hold after the last injection.
    pub(crate) async fn afterwards(self, stage: &Stage<'_>) -> Vec<Check> {
        match self {
            Fault::Rolling => vec![rolling::leaders_home(stage).await],
            _ => Vec::new(),
        }
    }
}

/// Waits until every partition acknowledges again after a fault at `from`, and a while longer.
async fn linger(stage: &Stage<'_>, from: Micros, limit: Duration) {
    stage.acks_again(&stage.partitions(), from.after(AFTERMATH), limit).await;
}
