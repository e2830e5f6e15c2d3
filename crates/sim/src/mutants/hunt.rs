//! One case in this process: every proof looks at it, each for a while.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::model::{self, Bounds};
use crate::runner::{panic_text, run_seed};
use crate::scenario;

/// A model ends with so many states: what is broken shows early, or in another model.
const STATES: usize = 300_000;

/// How long to look, and where.
#[derive(Debug, Clone, Copy)]
pub struct Hunt {
    /// How long seeds are run, and as long again models are searched. The step under way is finished.
    pub budget: Duration,
    /// Whether only the directed schedules are run.
    pub schedules_only: bool,
}

/// What noticed that something is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Catch {
    /// The directed schedule of this name.
    Schedule(&'static str),
    /// This seed of the simulation.
    Seed(u64),
    /// The model of this name, with a schedule of so many steps.
    Model(&'static str, usize),
}

impl fmt::Display for Catch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Catch::Schedule(name) => write!(f, "schedule {name}"),
            Catch::Seed(seed) => write!(f, "seed {seed}"),
            Catch::Model(name, steps) => write!(f, "model {name} in {steps} steps"),
        }
    }
}

/// A proof that noticed, and the promise that it saw broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which proof.
    pub by: Catch,
    /// The invariant's id, or what did not go as written.
    pub broken: String,
}

/// What each kind of proof notices first: directed schedules, seeds, models.
pub fn hunt(hunt: Hunt) -> Vec<Notice> {
    let by_schedule = scenario::all().find_map(run_schedule);
    if hunt.schedules_only {
        return by_schedule.into_iter().collect();
    }
    let by_seed = run_seeds(Instant::now() + hunt.budget);
    let by_model = search_models(Instant::now() + hunt.budget);
    [by_schedule, by_seed, by_model].into_iter().flatten().collect()
}

fn run_schedule((name, run): scenario::Schedule) -> Option<Notice> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    Some(Notice { by: Catch::Schedule(name), broken: panic_text(&*panic) })
}

fn run_seeds(deadline: Instant) -> Option<Notice> {
    (1..)
        .take_while(|_| Instant::now() < deadline)
        .find_map(|seed| run_seed(seed, false).err())
        .map(|failure| Notice { by: Catch::Seed(failure.seed), broken: failure.reason })
}

fn search_models(deadline: Instant) -> Option<Notice> {
    model::configurations().into_iter().take_while(|_| Instant::now() < deadline).find_map(search_model)
}

fn search_model(bounds: Bounds) -> Option<Notice> {
    let bounds = Bounds { states: bounds.states.min(STATES), ..bounds };
    let name = bounds.name;
    let (steps, broken) = match catch_unwind(AssertUnwindSafe(|| model::search(&bounds))) {
        Ok(report) => {
            let found = report.counterexample?;
            (found.schedule.len(), found.violation.to_string())
        }
        Err(panic) => (0, panic_text(&*panic)),
    };
    Some(Notice { by: Catch::Model(name, steps), broken })
}
