//! What happens when: `kill:b@5s,heal:b@15s`.

use std::str::FromStr;
use std::time::Duration;

use super::cluster::ZONES;

/// What is done to a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Its controller and broker end at once, without a goodbye.
    Kill,
    /// They are started again on the same files.
    Heal,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// To which zone, as an index of `ZONES`.
    pub zone: usize,
    /// Since the load began.
    pub at: Duration,
}

/// Steps in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Script {
    /// When the last step happens.
    pub fn end(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |step| step.at)
    }
}

/// A step that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "step {step:?}: {problem}; steps are kill:ZONE@TIME and heal:ZONE@TIME with zones a, b and c, for example kill:b@5s"
)]
pub struct ParseScriptError {
    step: String,
    problem: &'static str,
}

impl FromStr for Script {
    type Err = ParseScriptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut steps = text.split(',').map(|step| parse_step(step.trim())).collect::<Result<Vec<_>, _>>()?;
        steps.sort_by_key(|step| step.at);
        check_order(&steps)?;
        Ok(Script { steps })
    }
}

fn parse_step(text: &str) -> Result<Step, ParseScriptError> {
    let failed = |problem| ParseScriptError { step: text.to_owned(), problem };
    let (action, rest) = text.split_once(':').ok_or_else(|| failed("no colon"))?;
    let action = match action {
        "kill" => Action::Kill,
        "heal" => Action::Heal,
        _ => return Err(failed("neither kill nor heal")),
    };
    let (zone, at) = rest.split_once('@').ok_or_else(|| failed("no time"))?;
    let zone = ZONES.iter().position(|&name| name == zone).ok_or_else(|| failed("no such zone"))?;
    let at = humantime::parse_duration(at).map_err(|_| failed("the time is not of the form 5s"))?;
    Ok(Step { action, zone, at })
}

fn check_order(steps: &[Step]) -> Result<(), ParseScriptError> {
    let mut up = [true; ZONES.len()];
    for step in steps {
        let kills = step.action == Action::Kill;
        if up[step.zone] != kills {
            let verb = if kills { "kill" } else { "heal" };
            let problem = if kills { "the zone is down by then" } else { "the zone is up by then" };
            return Err(ParseScriptError { step: format!("{verb}:{}", ZONES[step.zone]), problem });
        }
        up[step.zone] = !kills;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_order_of_time() {
        let script: Script = "heal:b@15s, kill:b@5s".parse().unwrap();
        let step = |action, seconds| Step { action, zone: 1, at: Duration::from_secs(seconds) };
        assert_eq!(script.steps, [step(Action::Kill, 5), step(Action::Heal, 15)]);
        assert_eq!(script.end(), Duration::from_secs(15));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "kill",
            "kill:b",
            "kill:d@5s",
            "burn:b@5s",
            "kill:b@five",
            "heal:b@5s",
            "kill:b@1s,kill:b@2s",
        ] {
            assert!(text.parse::<Script>().is_err(), "{text:?} was accepted");
        }
    }
}
